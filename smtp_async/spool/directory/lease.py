"""A job of a spool directory in the hands of one worker."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from ...errors import LeaseLost, RecordInvalid
from ...model.content import Content, Mail, Source
from ...model.envelope import Envelope
from ...model.receipt import Receipt, Verdict
from ..contract import Lease
from ..entry import MAX_TEXT, State, check_about, results_after
from ..record import record
from ..submission import StoredMail, seconds
from .batching import Together
from .claim import Delivery, End
from .job_files import Held

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["DirectoryLease", "News"]


#: What notes marks and ends.
News: TypeAlias = "Together[Held | End, None]"


class DirectoryLease(Lease):
    """A job whose file is open and locked.

    After an end that failed the spool tries again to note it, whether the call is repeated or not; another end than the
    first is not taken any more.
    """

    def __init__(self, held: Held, delivery: Delivery, news: News) -> None:
        self._held = held
        self._delivery = delivery
        self._news = news
        self._end: End | None = None
        self.entry = held.job.entry
        self.token = held.job.token
        self.entry.state = State.SENDING

    def __repr__(self) -> str:
        state = "ended" if self._held.fd < 0 else "ending" if self._end is not None else "held"
        return f"<DirectoryLease {self.entry.id} attempt {self.token}: {state}>"

    def mail(self) -> Mail:
        damage = self._live().damage
        if damage:
            raise RecordInvalid(f"the message cannot be sent any more: {damage}")
        return StoredMail(Envelope(self.entry.envelope.sender, self.entry.pending), self._content)

    def _content(self) -> Content:
        held = self._live()
        header = held.job.header
        segment: bytes | Source
        if held.body is not None:
            segment = held.body
        else:
            window = cast(BinaryIO, _Window(held, header.body_at, self.entry.size))
            segment = Source(window, encoding="identity", close=True)
            segment.length = self.entry.size
        return Content(
            (segment,),
            size=self.entry.size,
            eightbit=header.eightbit,
            utf8=header.utf8,
            binary=header.binary,
            message_id=self.entry.message_id,
            canonical=not header.binary,
            exact=header.binary,
        )

    async def extend(self) -> None:
        # The lock lives as long as the process does.
        self._live()

    async def mark_end_of_data(self) -> None:
        held = self._live()
        if held.marked:
            return
        await self._note(held)

    async def settle(self, receipt: Receipt | None, *, keep: bool = False) -> None:
        if keep:
            await self._finish(State.SENT, receipt, retry=_never, needless=True)
        else:
            # What is wrong with the receipt is said also where it is not kept.
            check_about(self.entry, receipt)
            await self._end_with(lambda held: End(held, None))

    async def defer(
        self,
        receipt: Receipt | None,
        not_before: float,
        *,
        reason: str = "",
        retry: Callable[[Verdict], bool] | None = None,
    ) -> None:
        when = seconds(not_before)
        await self._finish(State.QUEUED, receipt, retry=retry, reason=reason, when=when)

    async def fail(
        self,
        receipt: Receipt | None,
        *,
        reason: str = "",
        retry: Callable[[Verdict], bool] | None = None,
    ) -> None:
        await self._finish(State.FAILED, receipt, retry=retry, reason=reason)

    async def release(self) -> None:
        await self._end_with(self._delivery.untouched)

    async def _finish(
        self,
        state: State,
        receipt: Receipt | None,
        *,
        retry: Callable[[Verdict], bool] | None,
        reason: str = "",
        when: float | None = None,
        needless: bool = False,
    ) -> None:
        now = time.time()
        results = results_after(self.entry, receipt, retry, now)
        text = record(self.token, now, state, self.entry, results, reason=reason[:MAX_TEXT], not_before=when)
        await self._end_with(lambda held: End(held, state, text, when=when, needless=needless))

    async def _end_with(self, make: Callable[[Held], End]) -> None:
        if self._end is None:
            self._end = make(self._live())
        elif not self._end.failed or (self._held.fd < 0 and not self._end.done):
            raise LeaseLost(f"the lease of the job {self.entry.id} has ended")
        await self._note(self._end)

    async def _note(self, one: Held | End) -> None:
        waits = isinstance(one, End) and (one.failed or self.entry.key is not None)
        if self._delivery.durable or waits:
            # Also what changes a name under a lock, which another process may have, and what is tried again: a thread
            # may be about to.
            await self._news.run(one)
            return
        # A few octets for the memory of the system: a thread would cost twenty times as much.
        (error,) = self._delivery.note([one])
        self._delivery.close_removed()
        if error is not None:
            raise error

    def _live(self) -> Held:
        if self._held.fd < 0 or self._end is not None:
            raise LeaseLost(f"the lease of the job {self.entry.id} has ended")
        return self._held


def _never(verdict: Verdict) -> bool:
    return False


class _Window(io.RawIOBase):
    """A part of a file that is open: the message between its header and its journal."""

    def __init__(self, held: Held, start: int, size: int) -> None:
        self._held = held
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
            raise ValueError("that is before the beginning")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        left = max(0, self._size - self._position)
        if self._held.fd < 0:
            raise ValueError("the lease of the job has ended")
        data = os.pread(self._held.fd, min(len(view), left), self._start + self._position)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
