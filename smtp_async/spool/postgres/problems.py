"""What the errors of PostgreSQL and of its driver mean for a spool: one line each, which says what to do."""

from __future__ import annotations

from typing import Final

from ...errors import SMTPError, SpoolError, SpoolFull, SpoolUnsafe

__all__ = ["is_blocked", "is_conflict", "is_lost", "is_moved", "translated"]

#: SQLSTATEs of statements that were undone because of others, and succeed when they are repeated.
_CONFLICTS: Final = frozenset({"40001", "40P01"})
#: The server is read-only: it is a standby, or has become one.
_READ_ONLY: Final = "25006"
#: A lock was not to be had in time.
_BLOCKED: Final = "55P03"
#: The server ended the connection, or was about to start or to stop; a statement may or may not have been committed.
_SHUTDOWN: Final = frozenset({"57P01", "57P02", "57P03", "57P05"})

_INIT: Final = "run `smtp-async queue init`, or call create_schema()"
#: Errors that no pause cures.
_PERMANENT: Final = {
    "28P01": "the database refused the password: correct it in the URL, or in the password file",
    "28000": "the database refused the user: allow the user in pg_hba.conf, or correct the URL",
    "3D000": "there is no such database: create it, or correct the URL",
    "3F000": f"there is no such schema: {_INIT}",
    "42P01": f"a table of the spool is missing: {_INIT}",
    "42703": f"a column of the spool is missing: {_INIT}",
    "42501": "the user lacks a privilege: `privileges()` and the manual have the GRANT statements",
}
_TEMPORARY: Final = {
    _READ_ONLY: "the server is read-only, because it is a standby: name all servers in the URL, with "
    "target_session_attrs=read-write",
    "53200": "the database is out of memory",
    "53300": "the database has too many connections: raise max_connections, or put a pooler in front of it",
    "57014": "the database cancelled a statement: raise statement_timeout for this user",
    _BLOCKED: "the database waited too long for a lock: raise lock_timeout for this user",
}
#: SQLSTATEs of a disk that is full, and of a file that may not grow.
_FULL: Final = frozenset({"53100", "53400", "54000"})


def state_of(error: BaseException) -> str:
    """Return the SQLSTATE of an error; empty for one of the driver or of the connection."""
    return getattr(error, "sqlstate", None) or ""


def is_conflict(error: BaseException) -> bool:
    """Return whether a statement was undone because of others, and succeeds when it is repeated."""
    return state_of(error) in _CONFLICTS


def is_blocked(error: BaseException) -> bool:
    """Return whether a statement was given up because another transaction holds a lock."""
    return state_of(error) == _BLOCKED


def is_moved(error: BaseException) -> bool:
    """Return whether the server has become read-only, so that another server has to be found."""
    return state_of(error) == _READ_ONLY


def is_lost(error: BaseException) -> bool:
    """Return whether the connection was lost, so that a statement may or may not have been committed."""
    state = state_of(error)
    if state in _SHUTDOWN or state.startswith("08"):
        return True
    return not state and (isinstance(error, OSError) or _of_driver(error))


def _of_driver(error: BaseException) -> bool:
    from asyncpg import InterfaceError, InternalClientError

    # A value or an option that the driver refuses is both: it was not sent, and the connection stays.
    return isinstance(error, InterfaceError | InternalClientError) and not isinstance(error, ValueError)


def translated(error: BaseException, doing: str) -> SMTPError:
    """Return an error of the database as an error of a spool, with the cause chained.

    Args:
        error: the error.
        doing: what could not be done.
    """
    if isinstance(error, SMTPError):
        return error
    state, text = state_of(error), str(error).partition("\n")[0] or type(error).__name__
    found: SMTPError
    if state in _FULL:
        found = SpoolFull(f"{doing}: the disk of the database is full: {text}")
    elif state in _PERMANENT:
        found = SpoolUnsafe(f"{doing}: {_PERMANENT[state]} ({text})")
    elif state in _TEMPORARY:
        found = SpoolError(f"{doing}: {_TEMPORARY[state]} ({text})")
    elif is_lost(error):
        found = SpoolError(f"{doing}: the database cannot be reached ({text})")
    else:
        found = SpoolError(f"{doing}: {text}")
    if isinstance(error, OSError):
        found.errno = error.errno
    found.__cause__ = error
    return found
