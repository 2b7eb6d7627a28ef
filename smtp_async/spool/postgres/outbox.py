"""Putting mail in the transaction of a caller, with the caller's driver.

The mail is queued when the caller commits, and never if the caller rolls back. Drivers are recognised by the module of
their connections, so that none of them is imported here.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

from ...errors import InvalidArgument, UsageError
from .rows import NewJob
from .statements import Statements

__all__ = ["execute", "execute_blocking"]

#: The styles of placeholders: of psycopg and Django, and of SQLAlchemy.
_PERCENT: Final = "%({name})s"
_COLON: Final = ":{name}"

_FAMILIES: Final = ("asyncpg", "psycopg", "psycopg2", "sqlalchemy", "django")


async def execute(connection: Any, statements: Statements, job: NewJob, retention: float) -> None:
    """Put a job with an asynchronous connection: of asyncpg, of psycopg 3, or of SQLAlchemy 2.

    Args:
        connection: the connection, or a session of SQLAlchemy.
        statements: the SQL.
        job: the job.
        retention: for how many seconds a key is remembered.

    Raises:
        InvalidArgument: it is no such connection.
        UsageError: the connection would block the event loop.
    """
    family = _family(connection)
    if family == "asyncpg":
        # The statement for many jobs, because this driver numbers its placeholders.
        await connection.execute(statements.put, *[[value] for value in job], retention)
        return
    if not inspect.iscoroutinefunction(getattr(connection, "execute", None)):
        raise UsageError("this connection would block the event loop: use put_blocking()")
    values = {**job._asdict(), "retention": retention}
    if family == "sqlalchemy":
        await connection.execute(_text(statements), values)
    else:
        await connection.execute(statements.put_one(_PERCENT), values)


def execute_blocking(connection: Any, statements: Statements, job: NewJob, retention: float) -> None:
    """Put a job with a blocking connection: of psycopg, of SQLAlchemy, or of Django. The arguments are the same.

    Raises:
        InvalidArgument: it is no such connection.
        UsageError: the connection is asynchronous.
    """
    family = _family(connection)
    method = getattr(connection, "execute" if family in ("asyncpg", "sqlalchemy") else "cursor", None)
    asynchronous = family == "asyncpg" or inspect.iscoroutinefunction(getattr(connection, "commit", None))
    if method is None or asynchronous:
        raise UsageError("this connection is asynchronous: use put()")
    values = {**job._asdict(), "retention": retention}
    if family == "sqlalchemy":
        method(_text(statements), values)
        return
    with method() as cursor:
        cursor.execute(statements.put_one(_PERCENT), values)


def _family(connection: Any) -> str:
    """Return the name of the driver.

    Raises:
        InvalidArgument: it is not known.
    """
    for cls in type(connection).__mro__:
        family = cls.__module__.partition(".")[0]
        if family in _FAMILIES:
            return family
    raise InvalidArgument(
        "a connection of asyncpg, psycopg, SQLAlchemy or Django is needed, "
        f"not {type(connection).__module__}.{type(connection).__qualname__}"
    )


def _text(statements: Statements) -> Any:
    from sqlalchemy import text

    return text(statements.put_one(_COLON))
