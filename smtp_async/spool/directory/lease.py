"""The lease of a job in a spool directory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from ...errors import LeaseLost, RecordInvalid
from ...model.content import Content, Mail, Source
from ...model.envelope import Envelope
from ..contract import Lease, LeaseResult
from ..entry import MAX_TEXT, State
from ..record import result_record
from ..submission import StoredMail
from .batching import ThreadBatcher
from .claim import Claims
from .job_files import LockedJob
from .lease_end import LeaseEnd

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["DirectoryLease", "UpdateBatcher"]


#: Writes end-of-data marks (of a `LockedJob`) and ends of leases in batches.
UpdateBatcher: TypeAlias = "ThreadBatcher[LockedJob | LeaseEnd, None]"


class DirectoryLease(Lease):
    """A leased job, whose file is open and locked.

    If ending the lease fails, the spool tries again, even if the caller does not repeat the call. The lease then cannot
    end in another way.
    """

    def __init__(
        self, locked: LockedJob, claims: Claims, updates: UpdateBatcher, clock: Callable[[], float]
    ) -> None:
        self._locked = locked
        self._claims = claims
        self._updates = updates
        self._clock = clock
        self._lease_end: LeaseEnd | None = None
        self.entry = locked.claimed()
        self.token = locked.job.token

    def __repr__(self) -> str:
        state = "ended" if self._locked.fd < 0 else "ending" if self._lease_end is not None else "held"
        return f"<DirectoryLease {self.entry.id} attempt {self.token}: {state}>"

    def mail(self) -> Mail:
        damage = self._live().damage
        if damage:
            raise RecordInvalid(f"the message cannot be sent any more: {damage}")
        entry = self.entry
        # Most messages are sent to all recipients at once, with the envelope that was read.
        untried = not any(entry.results)
        return StoredMail(
            entry.envelope if untried else Envelope(entry.envelope.sender, entry.pending), self._content
        )

    def _content(self) -> Content:
        locked, size = self._live(), self.entry.size
        header = locked.job.header
        segment: bytes | Source
        if locked.body is not None:
            segment = locked.body
        else:
            window = cast(BinaryIO, _MessageReader(locked, header.body_at, size))
            segment = Source(window, encoding="identity", close=True)
            segment.length = size
        return header.needs.content(segment, size=size, message_id=self.entry.message_id)

    async def extend(self) -> None:
        # The lock of the file is held as long as the process lives.
        self._live()

    async def mark_end_of_data(self) -> None:
        locked = self._live()
        if not locked.marked:
            await self._update(locked)

    async def release(self) -> None:
        await self._end_with(self._claims.release_end)

    def abandon(self) -> None:
        """Unlock the job without an end, as the kernel does for a process that dies; recovery finds the job."""
        self._claims.forget(self._locked)

    async def _end(self, result: LeaseResult) -> None:
        if result.state is None:
            await self._end_with(lambda locked: LeaseEnd(locked, None))
            return
        state, now = result.state, self._clock()
        record = result_record(
            self.token,
            now,
            state,
            self.entry,
            result.results(self.entry, now),
            reason=result.reason[:MAX_TEXT],
            not_before=result.not_before,
            counts=result.counts,
        )
        # The suffix `.sent` shows that the job was delivered, so its record may be lost.
        optional = state is State.SENT
        await self._end_with(
            lambda locked: LeaseEnd(locked, state, record, when=result.not_before, record_optional=optional)
        )

    async def _end_with(self, make: Callable[[LockedJob], LeaseEnd]) -> None:
        if self._lease_end is None:
            self._lease_end = make(self._live())
        elif not self._lease_end.failed or (self._locked.fd < 0 and not self._lease_end.done):
            raise LeaseLost(f"the lease of the job {self.entry.id} has ended")
        await self._update(self._lease_end)

    async def _update(self, update: LockedJob | LeaseEnd) -> None:
        # A name that is changed under the lock for keys may have to wait for another process, and an end that is
        # repeated for the thread that retries it.
        waits = self.entry.key is not None or (isinstance(update, LeaseEnd) and update.failed)
        if self._claims.durable or waits:
            await self._updates.run(update)
            return
        # Without syncs this takes a few microseconds, and a thread would take twenty times as long.
        self._claims.update_alone(update)

    def _live(self) -> LockedJob:
        if self._locked.fd < 0 or self._lease_end is not None:
            raise LeaseLost(f"the lease of the job {self.entry.id} has ended")
        return self._locked


class _MessageReader(io.RawIOBase):
    """A binary file that contains the message of a job: the part of its file between header and journal."""

    def __init__(self, locked: LockedJob, start: int, size: int) -> None:
        self._locked = locked
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError("the position is before the beginning of the message")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        remaining = max(0, self._size - self._position)
        if self._locked.fd < 0:
            raise ValueError("the lease of the job has ended")
        data = os.pread(self._locked.fd, min(len(view), remaining), self._start + self._position)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
