"""The leases of a spool in PostgreSQL: claims, end-of-data marks, ends of leases, and recovery.

A claim whose answer was lost may have leased jobs that nobody sends, or may do so a little later, because a server does
not notice at once that a client has gone. They are queued again before each claim of the next minute.

A mark or an end may be repeated: if the connection was lost before, an end that finds its lease gone looks whether it
was itself what ended the lease.
"""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from ...errors import LeaseLost, SMTPError
from ..entry import CLOCK_STEP, POISON, Recovery, State, Unreadable
from .connections import Connection, SerialConnection
from .rows import header_of, shift
from .statements import Statements

__all__ = ["Claimed", "Claims", "Update"]

#: Number of jobs that one statement recovers, and of keys that one statement forgets.
_RECOVER: Final = 1000
_FORGET: Final = 10_000
#: Seconds for which a claim may still be in progress in the server after its connection was lost.
_LATE: Final = 60.0


class Claimed:
    """A leased job, as it was read.

    Attributes:
        header: what never changes, with the entry.
        token: the number of the attempt.
        body: the message, None if it is read in slices.
        marked: end of data is marked, durably.
        live: the lease has not ended.
        offset: how far the times of the entry are ahead of the clock of the database, in seconds.
    """

    __slots__ = ("body", "header", "live", "marked", "offset", "token")

    def __init__(self, row: Any, offset: float) -> None:
        self.header = header_of(row)
        self.offset = offset
        self.token: int = row["token"]
        self.body: bytes | None = row["body"]
        self.marked: bool = row["marked"]
        self.live = True

    @property
    def id(self) -> str:
        """The id of the job."""
        return self.header.entry.id


class Update:
    """A mark, or an end of a lease.

    Attributes:
        claimed: the job.
        state: the new state of the job, None to delete it; a mark has none.
        mark: it is a mark.
        counted: the attempt counts.
        flagged: the job is flagged from now on.
        reason, results, not_before: as for the row; None for what does not change.
        uncertain: it was sent before, and may have been committed.
    """

    __slots__ = (
        "claimed", "counted", "flagged", "mark", "not_before", "reason", "results", "state", "uncertain",
    )  # fmt: skip

    def __init__(
        self,
        claimed: Claimed,
        state: State | None = None,
        *,
        mark: bool = False,
        counted: bool = False,
        flagged: bool = False,
        reason: str | None = None,
        results: str | None = None,
        not_before: float | None = None,
    ) -> None:
        self.claimed = claimed
        self.state = state
        self.mark = mark
        self.counted = counted
        self.flagged = flagged
        self.reason = reason
        self.results = results
        self.not_before = not_before
        self.uncertain = False


class Claims:
    """The leases of one spool object.

    Args:
        claiming: the connection for claims and recovery.
        ending: the connection for marks and ends.
        statements: the SQL.
        lease: seconds for which a lease holds without a sign of life.
        clock: returns the time of this process.

    Attributes:
        holder: the name under which this object holds leases.
    """

    def __init__(
        self,
        claiming: SerialConnection,
        ending: SerialConnection,
        statements: Statements,
        *,
        lease: float,
        clock: Callable[[], float],
    ) -> None:
        self._lane = claiming
        self._ending = ending
        self._clock = clock
        self._sql = statements
        self._lease = lease
        self._live: set[Claimed] = set()
        # A claim was sent and not answered; and until when one that was never answered may take effect.
        self._unanswered = False
        self._late_until = -math.inf
        self._unreadable: list[Unreadable] = []
        self.holder: Final = f"{socket.gethostname()[:100]}:{os.getpid()}:{secrets.token_hex(4)}"
        # How far the clock of this process is ahead of that of the database, in seconds; 0 if they agree.
        self._offset = 0.0
        self._compared = False

    async def claim(self, n: int, now: float | None, *, marked: bool) -> list[Claimed]:
        """Lease up to `n` due jobs.

        Args:
            n: the maximum number.
            now: the current time by the clock of this process; None takes that of the database.
            marked: mark end of data for all of them.
        """

        async def work(connection: Connection) -> list[Any]:
            if now is not None and not self._compared:
                before = self._clock()
                self._compare_clocks(before, await connection.fetchval(self._sql.now), self._clock())
            due = None if now is None else now - self._offset
            await self._queue_unanswered(connection, [one.id for one in self._live])
            self._unanswered = True
            rows: list[Any] = await connection.fetch(
                self._sql.claim, n, due, marked, self._lease, self.holder
            )
            return rows

        before = self._clock()
        rows = await self._lane.run(work, doing="no job can be claimed")
        self._unanswered = False
        if rows:
            self._compare_clocks(before, rows[0]["now"], self._clock())
        return await self._accept(rows)

    async def _queue_unanswered(self, connection: Connection, live: list[str]) -> None:
        """Queue the jobs of claims whose answers were lost: all that this object leases, except those in `live`."""
        now = asyncio.get_running_loop().time()
        if self._unanswered:
            self._late_until = now + _LATE
        if now < self._late_until:
            await connection.execute(self._sql.unclaim, self.holder, live)

    def _compare_clocks(self, before: float, now: float, after: float) -> None:
        """Note how far the clocks differ; less than the tolerance may be the time that the statement took."""
        self._compared = True
        offset = before - now if before > now else after - now if after < now else 0.0
        self._offset = offset if abs(offset) > CLOCK_STEP else 0.0

    async def _accept(self, rows: list[Any]) -> list[Claimed]:
        claimed, unreadable = [], []
        for row in sorted(rows, key=lambda row: (row["not_before"], row["id"])):
            try:
                one = Claimed({**row, "marked": False}, self._offset)
            except SMTPError as error:
                unreadable.append((row, error))
                continue
            one.marked = row["marked"]
            if one.offset:
                # The worker compares these with its own clock.
                shift(one.header.entry, one.offset)
            claimed.append(one)
        self._live.update(claimed)
        if unreadable:
            # The jobs of this claim are to be sent whether or not this succeeds. A row that stays is recovered like the
            # jobs of dead workers, and then found again.
            with suppress(SMTPError):
                await self._set_aside(unreadable)
        return claimed

    async def unclaim(self, claimed: list[Claimed]) -> bool:
        """End the leases of a claim that was cancelled."""
        with suppress(SMTPError):
            await self.update([Update(one, State.QUEUED) for one in claimed])
        return True

    async def _set_aside(self, rows: list[tuple[Any, SMTPError]]) -> None:
        """Fail rows that are no valid jobs, so that they are not claimed again."""
        sql, values = (
            self._sql.set_aside,
            [(row["id"], row["token"], str(error)[:512]) for row, error in rows],
        )
        await self._lane.run(
            lambda connection: connection.executemany(sql, values),
            doing="a row cannot be set aside",
            again=True,
        )
        self._unreadable += [Unreadable(id, reason, False) for id, _, reason in values]

    def unreadable(self) -> Sequence[Unreadable]:
        """Return the rows that were no valid jobs, once."""
        found, self._unreadable = self._unreadable, []
        return found

    # --- marks and ends --------------------------------------------------------------------------------------

    async def update(self, updates: list[Update]) -> list[None | Exception]:
        """Mark each job and end each lease, in one transaction; return the error of each, or None."""
        marks = [one for one in updates if one.mark]
        gone = [one for one in updates if not one.mark and one.state is None]
        ends = [one for one in updates if one.state is not None]
        arguments = [*_ids(marks), self._lease, *_ids(gone), *_ids(ends), *_columns(ends)]

        async def work(connection: Connection) -> set[str]:
            sent_before = [one for one in updates if one.uncertain]
            for one in updates:
                one.uncertain = True
            done: set[str] = {row["id"] for row in await connection.fetch(self._sql.update, *arguments)}
            unclear = [one for one in sent_before if one.claimed.id not in done and not one.mark]
            return done | await self._ended_before(connection, unclear) if unclear else done

        done = await self._ending.run(work, doing="the end of a lease cannot be stored", again=True)
        return [self._concluded(one, done=one.claimed.id in done) for one in updates]

    async def _ended_before(self, connection: Connection, unclear: list[Update]) -> set[str]:
        """Return the ids of those leases that these updates have ended, although the answer was lost."""
        rows = await connection.fetch(self._sql.ended, [one.claimed.id for one in unclear])
        now = {row["id"]: (row["token"], State(row["state"])) for row in rows}
        return {
            one.claimed.id
            for one in unclear
            if now.get(one.claimed.id) == (None if one.state is None else (one.claimed.token, one.state))
        }

    def _concluded(self, one: Update, *, done: bool) -> None | Exception:
        one.uncertain = False
        if done and one.mark:
            one.claimed.marked = True
            return None
        self._end(one.claimed)
        return None if done else lost(one.claimed)

    def _end(self, claimed: Claimed) -> None:
        claimed.live = False
        claimed.body = None
        self._live.discard(claimed)

    async def extend(self, leases: list[Claimed]) -> list[None | Exception]:
        """Report that the worker is alive; return the error of each lease, or None."""

        async def work(connection: Connection) -> set[str]:
            ids, tokens = [one.id for one in leases], [one.token for one in leases]
            rows = await connection.fetch(self._sql.extend, ids, tokens, self._lease)
            return {row["id"] for row in rows}

        kept = await self._ending.run(work, doing="leases cannot be extended", again=True)
        for one in leases:
            if one.id not in kept:
                self._end(one)
        return [None if one.id in kept else lost(one) for one in leases]

    async def release_all(self) -> None:
        """End all leases; marked jobs stay flagged, because they may have been sent."""
        live = [*self._live]
        for one in live:
            self._end(one)

        async def work(connection: Connection) -> None:
            await self._queue_unanswered(connection, [one.id for one in live])
            await connection.execute(self._sql.release_all, self.holder)

        await self._lane.run(work, doing="the leases cannot be released", again=True)

    # --- recovery --------------------------------------------------------------------------------------------

    async def recover(self, key_retention: float) -> Recovery:
        """Queue the jobs of leases that are over, and forget old keys."""
        rows: list[Any] = []
        while True:
            found: list[Any] = await self._lane.run(
                lambda connection: connection.fetch(self._sql.recover, POISON, _RECOVER),
                doing="the jobs of dead workers cannot be recovered",
            )
            rows += found
            if len(found) < _RECOVER:
                break
        if math.isfinite(key_retention):
            await self._lane.run(
                lambda connection: connection.execute(self._sql.forget_keys, key_retention, _FORGET),
                doing="old keys cannot be forgotten",
                again=True,
            )
        queued = [row for row in rows if row["state"] == State.QUEUED.value]
        return Recovery(
            requeued=tuple([row["id"] for row in queued]),
            flagged=tuple([row["id"] for row in queued if row["flagged"]]),
            poisoned=tuple([row["id"] for row in rows if row["state"] == State.FAILED.value]),
        )


def lost(claimed: Claimed) -> LeaseLost:
    """Return the error of a lease that has ended, or that another worker has."""
    return LeaseLost(f"the lease of the job {claimed.id} has ended")


def _ids(updates: list[Update]) -> tuple[list[str], list[int]]:
    return [one.claimed.id for one in updates], [one.claimed.token for one in updates]


def _columns(ends: list[Update]) -> tuple[list[Any], ...]:
    return (
        [one.state.value for one in ends if one.state is not None],
        [one.counted for one in ends],
        [one.flagged for one in ends],
        [one.reason for one in ends],
        [one.results for one in ends],
        [one.not_before for one in ends],
    )
