"""A spool in PostgreSQL, shared by any number of processes on any number of machines.

spool = PostgresSpool("postgresql://app@db.example.com/app")
await spool.create_schema()
id = await spool.put(message)
"""

from __future__ import annotations

import asyncio
import builtins
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from ...errors import InvalidArgument, SMTPError, UsageError
from ...model.address import Address
from ...model.envelope import Recipient
from ...model.signing import MessageSigner
from ..contract import KEY_RETENTION, Leases, Spool, SpoolTelemetry
from ..entry import Entry, LeaseHolder, Recovery, SpoolStatistics, State, Unreadable
from ..submission import Adapt, JobOptions, Submission
from . import outbox
from .admin import Admin
from .calls import Calls, StatementBatcher
from .claims import Claimed, Claims
from .connections import DatabaseConnections, SerialConnection
from .hints import Hints
from .lease import Extensions, PostgresLease, Slices, Updates
from .producer import Producer
from .rows import NewJob
from .schema import create_schema, privileges
from .statements import Statements

if TYPE_CHECKING:
    import asyncpg

__all__ = ["PostgresSpool"]

#: Maximum number of leases that are marked, ended or extended by one statement.
_BATCH: Final = 200

T = TypeVar("T")


class PostgresSpool(Spool):
    """Keep jobs in a database, one row for each.

    Any number of tasks and processes of any number of machines may use the same schema. Each event loop needs a spool
    of its own, because connections belong to an event loop. A spool has up to six connections: two for puts, one for
    claims, one for marks and ends of leases, one for everything else, and one that listens for new jobs. Each is opened
    when it is first needed, and again when it was lost.

    Args:
        source: the URL of the database, or a pool of asyncpg. A pool is reset by each statement, and nothing listens.
        schema: the schema with the tables: lower-case letters, digits and underscores.
        lease: seconds after which a job is taken from a worker that has not extended its lease. At least twice the
            heartbeat of the processors.
        poll: maximum number of seconds until jobs that other processes put are found.
        pooler: a pooler such as PgBouncer stands in between, which gives each transaction another connection.
        timeout: seconds for opening a connection or getting one of the pool, and for a statement.
        adapt: converts the argument of `put` into a `Mail`.
        key_retention: number of seconds for which the key of a job that is gone is remembered. All processes that share
            a schema should use the same value.
        telemetry: tells of messages that are put, and has each job remember where it came from; a `Telemetry`.
        sign: how messages are signed when they are put: a `DKIM`, or several.
        clock: returns the current time of this machine, in seconds since the epoch.

    Raises:
        FeatureUnavailable: asyncpg is not installed.
        InvalidArgument: an argument is invalid.
    """

    def __init__(
        self,
        source: str | asyncpg.Pool[Any],
        *,
        schema: str = "smtp_async",
        lease: float = 900.0,
        poll: float = 1.0,
        pooler: bool = False,
        timeout: float = 30.0,
        adapt: Adapt | None = None,
        key_retention: float = KEY_RETENTION,
        telemetry: SpoolTelemetry | None = None,
        sign: MessageSigner | Sequence[MessageSigner] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(adapt=adapt, key_retention=key_retention, telemetry=telemetry, sign=sign)
        for name, seconds in (("lease", lease), ("poll", poll), ("timeout", timeout)):
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
                raise InvalidArgument(f"{name} is a number of seconds above 0, not {seconds!r}")
        self._sql = Statements(schema)
        self._connections = DatabaseConnections(source, schema, pooler=pooler, timeout=timeout)
        self._poll = poll
        self._clock = clock
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = ""
        self._calls = Calls()
        self._hints = Hints(self._connections, self._sql.channel)
        *puts, self._claiming, self._ending, self._queries = self._lanes = tuple(
            [SerialConnection(self._connections) for _ in range(5)]
        )
        self._producer = Producer(self._calls, puts, self._sql, self._hints, lambda: self.key_retention)
        self._claims = Claims(self._claiming, self._ending, self._sql, lease=lease, clock=clock)
        self._admin = Admin(self._queries, self._sql)
        self._updates: Updates = StatementBatcher(self._calls, self._claims.update, most=_BATCH)
        self._extensions: Extensions = StatementBatcher(self._calls, self._claims.extend, most=_BATCH)

    def __repr__(self) -> str:
        state = f": {self._closed}" if self._closed else ""
        return f"<PostgresSpool {self._connections.name} schema {self._sql.schema}{state}>"

    async def create_schema(self) -> tuple[int, int]:
        """Create the tables, or bring those of an earlier version of this library to this one.

        Returns:
            The version before, 0 if there was none, and the version now.

        Raises:
            SpoolUnsafe: the tables are of a later version, or the user may not create them.
            SpoolError: the database failed.
        """

        async def work() -> tuple[int, int]:
            connection = await self._connections.open(check=False)
            try:
                return await self._connections.guarded(
                    create_schema(connection, self._sql.schema), "the tables cannot be created"
                )
            finally:
                await self._connections.close(connection)

        return await self._run(work)

    def privileges(self, role: str, *, put_only: bool = False) -> str:
        """Return the SQL that grants a role what it needs in this schema.

        Args:
            role: the role.
            put_only: for an application that puts mail and does nothing else; otherwise for workers and operators.

        Raises:
            InvalidArgument: the role has characters that would need quotes.
        """
        return privileges(self._sql.schema, role, put_only=put_only)

    # --- put -------------------------------------------------------------------------------------------------

    async def put(
        self,
        message: Any,
        *,
        sender: str | Address | None = None,
        recipients: Sequence[str | Address | Recipient] | None = None,
        key: str | None = None,
        not_before: float | datetime | None = None,
        expires: float | datetime | None = None,
        tag: str | None = None,
        connection: Any = None,
    ) -> str:
        """Store a message, in a transaction of its own or in one of the caller.

        Args:
            message, sender, recipients, key, not_before, expires, tag: as for `Spool.put`.
            connection: an asynchronous connection of asyncpg or psycopg 3, or a connection or session of SQLAlchemy 2.
                The message is queued when the caller commits, and never if the caller rolls back.

        Returns:
            The id of the job.

        Raises:
            MissingSender, MissingRecipient, InvalidArgument: the message cannot be sent, or `connection` is unknown.
            SigningError: it cannot be signed; nothing was stored.
            FileError: a part of the message cannot be read.
            UsageError: `connection` would block the event loop.
            SpoolFull: there is no room; nothing was stored.
            SpoolError: the database failed; nothing was stored, unless the error says that this is not known.

        The exceptions of the caller's connection pass unchanged.
        """
        options = JobOptions.checked(key, not_before, expires, tag)
        if connection is None:
            return await self._put(message, sender, recipients, options, self._store)

        async def store(job: Submission) -> str:
            self._check_open()
            new = NewJob.of(job)
            await outbox.execute(connection, self._sql, new, self.key_retention)
            return new.id

        return await self._put(message, sender, recipients, options, store)

    def put_blocking(
        self,
        message: Any,
        *,
        connection: Any,
        sender: str | Address | None = None,
        recipients: Sequence[str | Address | Recipient] | None = None,
        key: str | None = None,
        not_before: float | datetime | None = None,
        expires: float | datetime | None = None,
        tag: str | None = None,
    ) -> str:
        """Store a message in a transaction of a caller that has no event loop.

        Args:
            message, sender, recipients, key, not_before, expires, tag: as for `put`.
            connection: a connection of psycopg or Django, or a connection or session of SQLAlchemy.

        Returns:
            The id of the job.

        Raises:
            UsageError: an event loop is running in this thread, or `connection` is asynchronous.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise UsageError("an event loop is running in this thread: await put() instead")
        self._check_open()
        options = JobOptions.checked(key, not_before, expires, tag)
        made: builtins.list[NewJob] = []

        async def store(job: Submission) -> str:
            made.append(NewJob.of(job))
            return made[0].id

        id = asyncio.run(self._put(message, sender, recipients, options, store))
        outbox.execute_blocking(connection, self._sql, made[0], self.key_retention)
        return id

    def is_in(self, host: str, port: int, database: str) -> bool:
        """Tell whether the URL of the spool names this database; False for a pool, whose database is not known.

        Args:
            host: the name or address of the server, or the directory of its socket; `""` for the default.
            port: its port.
            database: the name of the database.
        """
        return self._connections.is_in(host, port, database)

    async def _store(self, job: Submission) -> str:
        self._check_open()
        self._check_loop()
        if job.history is not None:
            return await self._producer.adopt(NewJob.of(job), job.history)
        return await self._producer.put(NewJob.of(job))

    # --- claim -----------------------------------------------------------------------------------------------

    async def claim(self, n: int = 1, *, now: float | None = None, marked: bool = False) -> Leases:
        self._check_open()
        self._check_loop()
        if n < 1:
            return []
        claimed = await self._calls.run(
            lambda: self._claims.claim(n, now, marked=marked), undo=self._claims.unclaim
        )
        return [
            PostgresLease(one, self._updates, self._extensions, slices=self._slices, clock=self._clock)
            for one in claimed
        ]

    def _slices(self, claimed: Claimed) -> Slices:
        return Slices(self._calls, self._queries, self._sql, claimed)

    async def recover(self) -> Recovery:
        recovery = await self._run(lambda: self._claims.recover(self.key_retention))
        if recovery.requeued:
            self._hints.wake()
        return recovery

    def unreadable(self) -> Sequence[Unreadable]:
        return self._claims.unreadable()

    # --- operators -------------------------------------------------------------------------------------------

    async def get(self, id: str) -> Entry:
        return await self._run(lambda: self._admin.entry(id))

    async def list(self, state: State | None = None) -> AsyncIterator[Entry]:
        last: tuple[Any, ...] | None = None
        while True:
            batch = await self._run(lambda last=last: self._admin.entries(state, last))  # type: ignore[misc]
            for entry in batch.entries:
                yield entry
            last = batch.last
            if last is None:
                return

    async def read(self, id: str) -> bytes:
        return await self._run(lambda: self._admin.message(id))

    async def hold(self, id: str) -> None:
        await self._run(lambda: self._admin.hold(id, held=True))

    async def release(self, id: str) -> None:
        await self._run(lambda: self._admin.hold(id, held=False))
        await self._notify()

    async def requeue(
        self, id: str, *, not_before: float | datetime | None = None, expires: float | datetime | None = None
    ) -> None:
        options = JobOptions.checked(None, not_before, expires)
        await self._run(lambda: self._admin.requeue(id, options.not_before, options.expires))
        await self._notify()

    async def remove(self, id: str) -> None:
        await self._run(lambda: self._admin.remove(id))

    async def statistics(self) -> SpoolStatistics:
        return await self._run(self._admin.statistics)

    async def holders(self) -> builtins.list[LeaseHolder]:
        return await self._run(self._admin.holders)

    # --- waiting and closing ---------------------------------------------------------------------------------

    async def wait(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            self._check_open()
            self._check_loop()
            wakeup = await self._hints.event()
            wakeup.clear()
            due = await self._run(self._admin.seconds_until_due)
            if due is not None and due <= 0:
                return True
            remaining = min(end - loop.time(), self._poll, self._poll if due is None else due)
            if loop.time() >= end:
                return False
            # Not `wait_for`, which on Python 3.11 loses a cancellation that arrives together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(remaining, 0.001)):
                    await wakeup.wait()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = "closed"
        # Called in reverse order, even after cancellation.
        async with AsyncExitStack() as steps:
            for lane in self._lanes:
                steps.push_async_callback(lane.close)
            steps.push_async_callback(self._hints.close)
            steps.push_async_callback(self._calls.wait_idle)
            steps.push_async_callback(self._calls.run, self._release_leases)
            steps.push_async_callback(self._calls.wait_idle)

    async def _release_leases(self) -> None:
        with suppress(SMTPError):
            # The leases of a database that cannot be reached end by themselves.
            await self._claims.release_all()

    async def _notify(self) -> None:
        """Tell all who wait that a job may be due."""
        self._hints.wake()
        if self._hints.may_notify():
            with suppress(SMTPError):
                await self._run(self._admin.notify)

    async def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        self._check_open()
        self._check_loop()
        return await self._calls.run(work)

    def _check_loop(self) -> None:
        """Refuse another event loop than that of the connections."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            self._refuse("that of another event loop: create a spool for each")

    def _check_open(self) -> None:
        if self._closed:
            self._refuse(self._closed)
        if os.getpid() != self._pid:
            self._refuse("that of another process: create a spool after the fork")

    def _refuse(self, state: str) -> NoReturn:
        raise UsageError(f"the spool in {self._connections.name} is {state}")
