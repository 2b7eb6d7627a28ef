"""Storing new jobs: many callers share a statement, and a caller that was cancelled takes its job back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from ...errors import SMTPError, SpoolError
from ..entry import Entry
from ..fields import results_text
from .calls import Calls, StatementBatcher
from .connections import Connection, SerialConnection
from .hints import Hints
from .problems import is_blocked
from .rows import NewJob
from .statements import Statements

__all__ = ["Producer"]

#: Maximum number of jobs, and of their octets, that share a statement.
_BATCH: Final = 200
_OCTETS: Final = 2**20

#: Milliseconds for which a statement waits for the transactions that hold its keys, and then one with a single key.
_PATIENCE: Final = "2000"
_PATIENCE_FOR_ONE: Final = "500"

_UNKNOWN: Final = (
    "the connection was lost while the message was stored, so that it may or may not be in the spool; a message with a "
    "key can be put again"
)


class Producer:
    """Stores new jobs.

    Args:
        calls: the tasks.
        lanes: the connections. The first one suffices for one caller at a time.
        statements: the SQL.
        hints: is told of new jobs.
        retention: returns for how many seconds a key is remembered.
    """

    def __init__(
        self,
        calls: Calls,
        lanes: Sequence[SerialConnection],
        statements: Statements,
        hints: Hints,
        retention: Callable[[], float],
    ) -> None:
        self._calls = calls
        self._lane = lanes[0]
        self._free = [*reversed(lanes)]
        self._sql = statements
        self._hints = hints
        self._retention = retention
        self._batcher: StatementBatcher[NewJob, str] = StatementBatcher(
            calls,
            self._store,
            at_once=len(lanes),
            most=_BATCH,
            octets=lambda job: job.size + len(job.header),
            most_octets=_OCTETS,
        )

    async def put(self, job: NewJob) -> str:
        """Store a job; return its id, also if there is a job with its key already."""
        return await self._batcher.run(job, undo=_keep if job.keyed else self._withdraw)

    async def adopt(self, job: NewJob, history: Entry) -> str:
        """Store a job of another spool, unless there is one with its id already; return the id."""

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                columns = [[value] for value in job]
                if await connection.fetch(self._sql.put, *columns, self._retention()):
                    await connection.execute(
                        self._sql.adopt,
                        job.id,
                        history.created,
                        history.not_before,
                        history.scheduled_at,
                        history.attempts,
                        history.recoveries,
                        history.flagged,
                        history.confirmed,
                        history.held,
                        history.reason,
                        results_text(history.results),
                    )

        await self._lane.run(work, doing="the job cannot be stored", again=True, unclear=_UNKNOWN)
        self._hints.wake()
        return job.id

    async def _store(self, jobs: list[NewJob]) -> list[str | Exception]:
        # Two jobs with the same key would meet in one statement.
        distinct = list({job.id: job for job in reversed(jobs)}.values())
        try:
            errors = await self._insert(distinct, _PATIENCE)
        except SMTPError as error:
            if not _is_blocked(error):
                raise
            errors = await self._insert_one_by_one(distinct)
        self._hints.wake()
        if self._hints.may_notify():
            # The callers do not wait for it, because the messages are stored, whatever becomes of it.
            self._calls.start(self._notify())
        return [errors.get(job.id, job.id) for job in jobs]

    async def _notify(self) -> None:
        """Tell other processes that there are new jobs."""
        with suppress(SMTPError):
            await self._lane.run(
                lambda connection: connection.execute(self._sql.notify, self._sql.channel),
                doing="a notification cannot be sent",
            )

    async def _insert(self, jobs: list[NewJob], patience: str) -> dict[str, Exception]:
        """Store jobs with one statement; return the errors of those that are not stored, by their ids."""
        keyed = [job for job in jobs if job.keyed]

        async def insert(connection: Connection, jobs: list[NewJob]) -> None:
            columns = zip(*jobs, strict=True)
            await connection.fetch(self._sql.put_limited, *map(list, columns), self._retention(), patience)

        async def work(connection: Connection) -> dict[str, Exception]:
            await insert(connection, jobs)
            return {}

        async def after_loss(connection: Connection) -> dict[str, Exception]:
            """Store those with a key again, because their key prevents a second job; look for the others."""
            others = {job.id for job in jobs if not job.keyed}
            there = await connection.fetch(self._sql.ended, [*others])
            if keyed:
                await insert(connection, keyed)
            return {id: SpoolError(_UNKNOWN) for id in others - {row["id"] for row in there}}

        lane = self._free.pop()
        try:
            return await lane.run(
                work, doing="the message cannot be stored", after_loss=after_loss, unclear=_UNKNOWN
            )
        finally:
            self._free.append(lane)

    async def _insert_one_by_one(self, jobs: list[NewJob]) -> dict[str, Exception]:
        """Store jobs so that only those fail whose key is held by a transaction; return their errors."""
        errors: dict[str, Exception] = {}
        others = [job for job in jobs if not job.keyed]
        groups = [*([others] if others else []), *[[job] for job in jobs if job.keyed]]
        for n, group in enumerate(groups):
            try:
                errors |= await self._insert(group, _PATIENCE_FOR_ONE)
            except SMTPError as error:
                if not _is_blocked(error):
                    # What is left would fail in the same way.
                    return errors | {job.id: error for left in groups[n:] for job in left}
                errors |= {job.id: _blocked(error) for job in group}
        return errors

    async def _withdraw(self, id: str) -> bool:
        """Take back a job without a key; return False if that is not possible, because it is being sent for example."""
        with suppress(SMTPError):
            return bool(
                await self._lane.run(
                    lambda connection: connection.fetch(self._sql.withdraw, id),
                    doing="a message cannot be taken back",
                )
            )
        return False


async def _keep(id: str) -> bool:
    """Leave a job with a key: another caller may have been told that it is stored, in whatever process."""
    return False


def _is_blocked(error: SMTPError) -> bool:
    return error.__cause__ is not None and is_blocked(error.__cause__)


def _blocked(cause: SMTPError) -> SpoolError:
    error = SpoolError(
        "the message cannot be stored: a transaction that is still open has put one with the same key, or removes it; "
        "put it again later"
    )
    error.__cause__ = cause
    return error
