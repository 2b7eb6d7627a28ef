"""Operator commands for a spool in PostgreSQL: list, read, hold, release, requeue, remove, count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from ...errors import Busy, NoSuchJob, RecordInvalid, UsageError
from ..entry import Entry, LeaseHolder, SpoolStatistics, State, requeued
from ..fields import results_text
from ..record import JOB_ID
from .connections import Connection, SerialConnection
from .rows import entry_of, header_of, require_intact
from .statements import Statements

__all__ = ["Admin", "Page"]

#: Number of jobs that `list` reads in one statement.
_LIST: Final = 500


class Page(NamedTuple):
    """Some of the jobs of a list.

    Attributes:
        entries: the jobs.
        last: the place after which the next jobs begin, None if there are none.
    """

    entries: list[Entry]
    last: tuple[Any, ...] | None


class Admin:
    """Operator commands.

    Args:
        lane: the connection.
        statements: the SQL.
    """

    def __init__(self, lane: SerialConnection, statements: Statements) -> None:
        self._lane = lane
        self._sql = statements

    # --- reading ---------------------------------------------------------------------------------------------

    async def entry(self, id: str) -> Entry:
        """Return the entry of a job."""
        return entry_of(self._found(id, await self._fetchrow(self._sql.entry, _checked(id))))

    async def message(self, id: str) -> bytes:
        """Return the message of a job."""
        row = self._found(id, await self._fetchrow(self._sql.entry, _checked(id)))
        body = self._found(id, await self._fetchrow(self._sql.body, id))["body"]
        require_intact(header_of(row), body)
        return bytes(body)

    async def entries(self, state: State | None, last: tuple[Any, ...] | None) -> Page:
        """Return the next jobs of one state or of all, without rows that are no valid jobs.

        Args:
            state: the state, None for all.
            last: the place after which they begin, None for the beginning.
        """
        sql = self._sql.list["" if state is None else state.value]
        by_age = state in (State.SENT, State.FAILED)
        if last is None:
            last = (-1.0, "") if by_age else ("",)
        rows = await self._fetch(sql, *last, _LIST)
        following = None
        if len(rows) == _LIST:
            following = (rows[-1]["created"], rows[-1]["id"]) if by_age else (rows[-1]["id"],)
        return Page([*_valid(rows)], following)

    async def statistics(self) -> SpoolStatistics:
        """Count the jobs."""
        row = await self._fetchrow(self._sql.statistics)
        return SpoolStatistics(
            queued=row["free"] + row["held"],
            sending=row["sending"],
            sent=row["sent"],
            failed=row["failed"],
            held=row["held"],
            oldest=row["oldest"],
            next_due=row["next_due"],
        )

    async def seconds_until_due(self) -> float | None:
        """Return in how many seconds the next job is due; None if none is queued."""
        row = await self._fetchrow(self._sql.next_due)
        seconds: float | None = row[0]
        return seconds

    async def holders(self) -> list[LeaseHolder]:
        """Return which processes hold leases."""
        return [LeaseHolder(*row) for row in await self._fetch(self._sql.holders)]

    async def notify(self) -> None:
        """Tell the processes that listen that a job may be due."""
        await self._lane.run(
            lambda connection: connection.execute(self._sql.notify, self._sql.channel),
            doing="a notification cannot be sent",
        )

    # --- changing --------------------------------------------------------------------------------------------

    async def hold(self, id: str, *, held: bool) -> None:
        """Keep a queued job from being claimed, or undo that."""
        if await self._fetchrow(self._sql.hold, _checked(id), held) is None:
            state = await self._idle_state(id)
            raise UsageError(f"the job {id} is not queued but {state}")

    async def remove(self, id: str) -> None:
        """Delete a job."""
        if await self._fetchrow(self._sql.remove, _checked(id), again=False) is None:
            await self._idle_state(id)
            # It was being sent a moment ago.
            raise _busy(id)

    async def requeue(self, id: str, not_before: float | None, expires: float | None) -> None:
        """Queue a job for the recipients that were not accepted."""
        _checked(id)

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                row = self._found(id, await connection.fetchrow(self._sql.entry_for_update, id))
                entry, now = entry_of(row), await connection.fetchval(self._sql.now)
                if entry.state is State.SENDING:
                    raise _busy(id)
                changed = requeued(entry, now if not_before is None else not_before, expires, now)
                await connection.execute(
                    self._sql.requeue,
                    id,
                    changed.not_before,
                    expires,
                    results_text(changed.results),
                    changed.flagged,
                    changed.scheduled_at,
                )

        await self._lane.run(work, doing=f"the job {id} cannot be requeued", again=True)

    # --- internals -------------------------------------------------------------------------------------------

    async def _fetch(self, sql: str, *values: Any) -> list[Any]:
        rows: list[Any] = await self._lane.run(
            lambda connection: connection.fetch(sql, *values), doing="the spool cannot be read", again=True
        )
        return rows

    async def _fetchrow(self, sql: str, *values: Any, again: bool = True) -> Any:
        return await self._lane.run(
            lambda connection: connection.fetchrow(sql, *values),
            doing="the spool cannot be used",
            again=again,
        )

    def _found(self, id: str, row: Any) -> Any:
        if row is None:
            raise _unknown(id)
        return row

    async def _idle_state(self, id: str) -> str:
        """Return the state of a job that was not changed; raise if it is gone or being sent."""
        state: str = self._found(id, await self._fetchrow(self._sql.state, id))["state"]
        if state == State.SENDING.value:
            raise _busy(id)
        return state


def _valid(rows: list[Any]) -> Iterator[Entry]:
    for row in rows:
        try:
            yield entry_of(row)
        except RecordInvalid:
            continue


def _checked(id: str) -> str:
    if not isinstance(id, str) or not JOB_ID.fullmatch(id):
        raise _unknown(id)
    return id


def _unknown(id: str) -> NoSuchJob:
    return NoSuchJob(f"there is no job {id!r}")


def _busy(id: str) -> Busy:
    return Busy(f"the job {id} is being sent")
