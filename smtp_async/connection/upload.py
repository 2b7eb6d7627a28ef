"""A body on its way, written by its caller's own task, slice by slice.

The caller holds the turn to write from the moment the server asks for the body. Its context, its exceptions, its
cancellation and the pace of its source stay its own; meanwhile the connection's task reads. A gated body, small and in
memory, is only let go here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

from ..errors import NotSent, SMTPError, UsageError
from ..events import EndTransfer, Event, StartTransfer, Transfer
from ..hooks import attached_events
from ..model.content import Source
from ..protocol.transaction import Transaction
from .channel import Link
from .job import Job

__all__ = ["Upload"]


class Upload:
    """The body of one job.

    Args:
        link: the connection.
        job: what is sent; its session has told it to write.
        flush: hands to the stream what the machine has.
        number: the session's, for events.
    """

    __slots__ = (
        "_flush",
        "_from_memory",
        "_link",
        "_number",
        "_part",
        "_part_sent",
        "_parts",
        "_transaction",
        "job",
    )

    def __init__(self, link: Link, job: Job, flush: Callable[[], None], number: int) -> None:
        transaction = job.transaction
        assert transaction is not None
        self._link = link
        self.job = job
        self._transaction: Transaction = transaction
        self._flush = flush
        self._number = number
        self._part: Source | None = None
        self._part_sent = 0
        self._parts = iter(transaction.content.sources)
        # Octets that were in memory, among which `Content.attached` counts.
        self._from_memory = 0

    @property
    def allowed(self) -> bool:
        """May it be written, or go on? Not if its connection has died, its caller has gone or the server refused it."""
        transaction = self._transaction
        return (
            self._link.machine.pipeline.writing is transaction
            and transaction.turn
            and transaction.receipt is None
            and not transaction.withdrawn
        )

    async def run(self) -> bool:
        """Write everything but the end, and wait for the gate; return whether the end may follow.

        Raises:
            Exception: whatever the source, the gate or `progress` raises.
        """
        if self._transaction.payload is None:
            if not await self._write_all():
                return False
        elif not await self._tell_progress(self._transaction.content.size or 0):
            # It leaves in one piece, with its end: this is the last chance to stop it.
            return False
        gate = self.job.options.before_end_of_data
        if gate is not None:
            await gate()
        return self.allowed

    def end(self) -> None:
        """Let the end follow: the machine has it to be flushed then."""
        machine, transaction = self._link.machine, self._transaction
        if transaction.payload is None:
            machine.pipeline.end_body(transaction)
        else:
            machine.pipeline.release(transaction)

    async def _write_all(self) -> bool:
        body = self.job.body
        if body is None:
            raise UsageError("the body was not opened")
        # From its start again, if a connection has died in its middle.
        await body.open()
        if not body.rereadable:
            # This connection or none: it is going to be read.
            self.job.alone = True
        self._note(StartTransfer)
        async for data, source in body.chunks():
            self._turn_to(source)
            for chunk in self._cut(data):
                if not await self._write(chunk):
                    return False
        self._turn_to(None)
        self._pass_over(None)
        return True

    def _cut(self, data: bytes) -> Iterator[bytes]:
        size = self.job.options.chunk_size
        if len(data) <= size:
            yield data
            return
        for start in range(0, len(data), size):
            yield data[start : start + size]

    async def _write(self, chunk: bytes) -> bool:
        link, transaction = self._link, self._transaction
        if not self.allowed:
            return False
        link.machine.pipeline.write_body(transaction, chunk)
        self._flush()
        try:
            await link.drain()
        except SMTPError as error:
            # The pump finds the stream closed and writes the receipt.
            link.abort(error)
            return False
        start = self._count(len(chunk))
        if link.hooks.active:
            self._tell(chunk, start)
            if link.wants(Transfer):
                await link.wait_told()
        return await self._tell_progress(transaction.streamed)

    async def _tell_progress(self, sent: int) -> bool:
        """Tell `progress` that so many octets are on their way; return whether the message may go on."""
        progress = self.job.options.progress
        if progress is not None:
            answer = progress(sent, self._transaction.content.size)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is False:
                raise NotSent("progress said that the message is not to be sent")
        return self.allowed

    # --- events ----------------------------------------------------------------------------------------------

    def _count(self, size: int) -> int:
        """Count on, listened to or not; return where the slice begins in memory, if that is where it comes from."""
        start = self._from_memory
        if self._part is None:
            self._from_memory += size
        else:
            self._part_sent += size
        return start

    def _tell(self, chunk: bytes, start: int) -> None:
        link, transaction = self._link, self._transaction
        wanted = link.wants(Transfer)
        if wanted:
            link.note(self._transfer(transaction.streamed, transaction.content.size, chunk))
        if self._part is not None:
            if wanted and self._part.name:
                link.note(self._transfer(self._part_sent, self._part.size, b"", self._part.name))
            return
        end = start + len(chunk)
        for event in attached_events(transaction.content, start, end, self._number, self.job.number):
            if link.wants(type(event)):
                link.note(event)

    def _transfer(self, sent: int, total: int | None, data: bytes, part: str = "message") -> Transfer:
        percent = -1 if not total else min(100, sent * 100 // total)
        return Transfer(
            session=self._number,
            job=self.job.number,
            part=part,
            sent=sent,
            total=total,
            percent=percent,
            data=data,
        )

    def _turn_to(self, part: Source | None) -> None:
        """The octets that follow come from `part`; tell where one ends and another begins."""
        if part is self._part:
            return
        if self._part is not None:
            self._note(EndTransfer, self._part.name)
        self._part, self._part_sent = part, 0
        if part is not None:
            self._pass_over(part)
            self._note(StartTransfer, part.name)

    def _pass_over(self, next_part: Source | None) -> None:
        """Tell of those before `next_part` that turned out to be empty."""
        for part in self._parts:
            if part is next_part:
                return
            self._note(StartTransfer, part.name)
            self._note(EndTransfer, part.name)

    def _note(self, event: type[StartTransfer | EndTransfer], part: str = "message") -> None:
        # A text, or a whole message, from a stream has no name: it is the body.
        if part and self._link.wants(event):
            told: Event = event(session=self._number, job=self.job.number, part=part)
            self._link.note(told)
