"""Statements that are counted, and of which one kills the process: before it is sent, amid, or when it is answered.

The connections of a `PostgresSpool` come from this pool. A statement is identified by its name among the `Statements`
and by its number: `("claim", 1)` is the first claim of this process.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from smtp_async.spool.postgres.statements import Statements

__all__ = ["CrashingDatabase", "DeadlyDatabase"]

#: Turns of the event loop after which a statement was handed to the kernel, and is not answered yet.
AMID = 3


class DeadlyDatabase:
    """A pool whose connections count statements.

    Args:
        url: the database.
        statements: the statements of the spool.
        kill: `("call", name, number, "before" | "amid" | "after")`; anything else does not kill here.

    Attributes:
        calls: itself, as the tests of directories have it.
        counts: the number of statements by name.
    """

    def __init__(self, url: str, statements: Statements, kill: tuple[Any, ...] | None) -> None:
        self._url = url
        self._names = {text: name for name, text in vars(statements).items() if isinstance(text, str)}
        self._kill = tuple(kill[1:]) if kill is not None and kill[0] == "call" else None
        self._free: list[_Connection] = []
        self.counts: Counter[str] = Counter()

    @property
    def calls(self) -> DeadlyDatabase:
        return self

    async def acquire(self, *, timeout: float) -> _Connection:  # noqa: ASYNC109
        """Return a connection that is free, or a new one."""
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed():
                return connection
        # By its name the others find out whether a statement of a dead process still runs.
        name = {"application_name": f"p{os.getpid()}"}
        return _Connection(await asyncpg.connect(self._url, timeout=timeout, server_settings=name), self)

    async def release(self, connection: _Connection) -> None:
        """Keep a connection for the next call."""
        if not connection.is_closed():
            self._free.append(connection)

    async def close(self) -> None:
        """Close the connections."""
        while self._free:
            await self._free.pop().close()

    async def meet(self, sql: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Make a statement, or die of it."""
        name = self._names.get(sql)
        if name is None:
            return await call()
        self.counts[name] += 1
        here = (name, self.counts[name])
        self._die_if(here, "before")
        if self._kill == (*here, "amid"):
            sending = asyncio.ensure_future(call())
            for _ in range(AMID):
                await asyncio.sleep(0)
            if not sending.done():
                self._die_if(here, "amid")
            return await sending
        result = await call()
        self._die_if(here, "after")
        return result

    def _die_if(self, here: tuple[str, int], when: str) -> None:
        if self._kill == (*here, when):
            self.die()

    def die(self) -> None:
        """Kill this process."""
        os.kill(os.getpid(), signal.SIGKILL)


class CrashingDatabase(DeadlyDatabase):
    """A pool of which one statement ends the database server, which is started again at once.

    Args:
        crash: ends the server, and starts it.
        others: as for `DeadlyDatabase`.

    Attributes:
        crashed: whether the statement was reached.
    """

    def __init__(
        self, url: str, statements: Statements, kill: tuple[Any, ...] | None, *, crash: Callable[[], None]
    ) -> None:
        super().__init__(url, statements, kill)
        self._crash = crash
        self.crashed = False

    def die(self) -> None:
        """End the server. Blocks: nothing of this process may happen meanwhile."""
        self.crashed = True
        self._crash()


class _Connection:
    """A connection whose statements go through the pool."""

    def __init__(self, connection: asyncpg.Connection, pool: DeadlyDatabase) -> None:
        self._connection = connection
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetch(self, sql: str, *values: Any) -> Any:
        return await self._pool.meet(sql, lambda: self._connection.fetch(sql, *values))

    async def fetchrow(self, sql: str, *values: Any) -> Any:
        return await self._pool.meet(sql, lambda: self._connection.fetchrow(sql, *values))

    async def fetchval(self, sql: str, *values: Any) -> Any:
        return await self._pool.meet(sql, lambda: self._connection.fetchval(sql, *values))

    async def execute(self, sql: str, *values: Any) -> Any:
        return await self._pool.meet(sql, lambda: self._connection.execute(sql, *values))
