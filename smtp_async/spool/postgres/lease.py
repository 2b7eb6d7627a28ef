"""The lease of a job in PostgreSQL, and its message: in memory, or read in slices while it is sent."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from ...errors import RecordInvalid
from ...model.content import Content, Mail, Source
from ...model.envelope import Envelope
from ...model.reply import printable
from ..contract import Lease, LeaseResult
from ..entry import MAX_TEXT, State, flagged_after
from ..fields import results_text
from ..submission import StoredMail
from .calls import Calls, StatementBatcher
from .claims import Claimed, Update, lost
from .connections import Connection, SerialConnection
from .rows import require_digest, require_intact, shifted
from .statements import SMALL, Statements

__all__ = ["PostgresLease", "Slices"]

Updates: TypeAlias = "StatementBatcher[Update, None]"
Extensions: TypeAlias = "StatementBatcher[Claimed, None]"


class PostgresLease(Lease):
    """A leased job, whose row names its holder.

    If ending the lease fails, the lease cannot end in another way: a repeated call stores the first end.
    """

    def __init__(
        self,
        claimed: Claimed,
        updates: Updates,
        extensions: Extensions,
        *,
        slices: Callable[[Claimed], Slices],
        clock: Callable[[], float],
    ) -> None:
        self._claimed = claimed
        self._updates = updates
        self._extensions = extensions
        self._slices = slices
        self._clock = clock
        self._lease_end: Update | None = None
        self._ending = False
        self.entry = claimed.header.entry
        self.token = claimed.token

    def __repr__(self) -> str:
        state = "held" if self._claimed.live else "ended"
        return f"<PostgresLease {self.entry.id} attempt {self.token}: {state}>"

    def mail(self) -> Mail:
        claimed = self._held()
        if claimed.body is not None:
            try:
                require_intact(claimed.header, claimed.body)
            except RecordInvalid as error:
                raise RecordInvalid(f"the message cannot be sent any more: {error}") from error
        return StoredMail(Envelope(self.entry.envelope.sender, self.entry.pending), self._content)

    def _content(self) -> Content:
        claimed, size = self._held(), self.entry.size
        segment: bytes | Source
        if claimed.body is not None:
            segment = claimed.body
        else:
            segment = Source(self._slices(claimed), encoding="identity", again=True)
            segment.length = size
        return claimed.header.needs.content(segment, size=size, message_id=self.entry.message_id)

    async def extend(self) -> None:
        # Also while the end cannot be stored, so that no other worker sends the message again.
        if not self._claimed.live:
            raise lost(self._claimed)
        await self._extensions.run(self._claimed)

    async def mark_end_of_data(self) -> None:
        claimed = self._held()
        if not claimed.marked:
            await self._updates.run(Update(claimed, mark=True))

    async def release(self) -> None:
        await self._end_with(lambda claimed: Update(claimed, State.QUEUED))

    async def _end(self, result: LeaseResult) -> None:
        await self._end_with(lambda claimed: self._update_of(claimed, result))

    def _update_of(self, claimed: Claimed, result: LeaseResult) -> Update:
        if result.state is None:
            return Update(claimed)
        ahead, entry = self._claimed.offset, self.entry
        results = shifted(result.results(entry, self._clock()), -ahead)
        return Update(
            claimed,
            result.state,
            counted=result.counts,
            # The flag as it was claimed: the mark of this attempt ends with its result.
            flagged=flagged_after(entry, results),
            reason=printable(result.reason, MAX_TEXT),
            results=results_text(results),
            not_before=None if result.not_before is None else max(0.0, result.not_before - ahead),
        )

    async def _end_with(self, make: Callable[[Claimed], Update]) -> None:
        if self._ending or not self._claimed.live:
            raise lost(self._claimed)
        if self._lease_end is None:
            self._lease_end = make(self._claimed)
        self._ending = True
        try:
            await self._updates.run(self._lease_end)
        finally:
            self._ending = False

    def _held(self) -> Claimed:
        if not self._claimed.live or self._lease_end is not None:
            raise lost(self._claimed)
        return self._claimed


class Slices:
    """The message of a lease as an async iterable, which may be iterated again.

    Iterating raises `LeaseLost` when the lease has ended, and `RecordInvalid` in place of the last slice if the message
    does not match its digest.

    Args:
        calls: the tasks.
        lane: the connection.
        statements: the SQL.
        claimed: the leased job.
    """

    def __init__(
        self, calls: Calls, lane: SerialConnection, statements: Statements, claimed: Claimed
    ) -> None:
        self._calls = calls
        self._lane = lane
        self._sql = statements.slice
        self._claimed = claimed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        header, position, digest = self._claimed.header, 0, hashlib.sha256()
        while position < header.entry.size:
            data = await self._read(position)
            if not self._claimed.live or data is None:
                raise lost(self._claimed)
            position += len(data)
            digest.update(data)
            if not data or position >= header.entry.size:
                # Before the last slice is sent, so that the server never has a whole message that was damaged.
                require_digest(header, digest, position)
            yield data

    async def _read(self, position: int) -> bytes | None:
        """Return the slice at a position; None if the job is gone."""
        id = self._claimed.id

        async def work(connection: Connection) -> bytes | None:
            # SQL counts from 1.
            data: bytes | None = await connection.fetchval(self._sql, id, position + 1, SMALL)
            return data

        doing = f"the message of the job {id} cannot be read"
        return await self._calls.run(lambda: self._lane.run(work, doing=doing, again=True))
