"""What the tests of the spool in PostgreSQL share: a schema of their own, and SQL without a spool."""

import asyncio
import itertools
import os
from collections.abc import Callable
from typing import Any

import psycopg

from smtp_async.spool.postgres.spool import PostgresSpool
from tests.servers.postgres import Postgres

_numbers = itertools.count(1)


def new_schema() -> str:
    """Return the name of a schema that no other test uses."""
    return f"spool_{os.getpid()}_{next(_numbers)}"


def execute(server: Postgres, sql: str, *values: Any) -> list[Any]:
    """Execute a statement of a test, and return its rows."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        cursor = connection.execute(sql, values or None)
        return cursor.fetchall() if cursor.description else []


async def new_spool(server: Postgres, *, schema: str = "", **options: Any) -> PostgresSpool:
    """Return a spool with tables of its own."""
    spool = PostgresSpool(server.url(), schema=schema or new_schema(), poll=0.2, **options)
    await spool.create_schema()
    return spool


async def eventually(condition: Callable[[], Any]) -> None:
    """Return when a condition holds; the time limit of the test is the limit."""
    for pause in itertools.repeat(0.01):
        if condition():
            return
        await asyncio.sleep(pause)


def schema_of(spool: PostgresSpool) -> str:
    """Return the schema of a spool."""
    return repr(spool).partition(" schema ")[2].partition(">")[0].partition(":")[0]


def expire(server: Postgres, spool: PostgresSpool, lease: Any) -> None:
    """Act as if the worker that holds a lease had died long ago."""
    execute(
        server,
        f"update {schema_of(spool)}.jobs set lease_until = 0 where id = %s and token = %s",
        lease.entry.id,
        lease.token,
    )


class Delegate:
    """Passes on everything that a test does not replace."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


class ReplacingPool(Delegate):
    """A pool whose connections are replaced: by what `first` makes of the first one, and `then` of each other one."""

    def __init__(self, wrapped: Any, first: Callable[[Any], Any], then: Callable[[Any], Any]) -> None:
        super().__init__(wrapped)
        self.first = first
        self.then = then
        self.given = 0

    async def acquire(self, **options: Any) -> Any:
        self.given += 1
        connection = await self.wrapped.acquire(**options)
        return self.first(connection) if self.given == 1 else self.then(connection)

    async def release(self, connection: Any) -> None:
        await self.wrapped.release(getattr(connection, "wrapped", connection))
