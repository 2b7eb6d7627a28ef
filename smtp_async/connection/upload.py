"""The body of one message, written by its caller's own task, slice by slice.

The caller holds the write turn from the moment the server asks for the body. Because the caller's own task writes, its
context variables, its exceptions, its cancellation and the pace of its source stay its own; meanwhile the connection's
task reads. A small body with `before_end_of_data` is in memory already: here its caller only lets it go.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from ..errors import NotSent, SMTPError, UsageError
from ..events import EndTransfer, StartTransfer, Transfer
from ..hooks import attached_events
from ..model.content import Source
from ..protocol.transaction import Transaction
from .channel import Channel
from .send_job import SendJob

__all__ = ["Upload"]


class Upload:
    """The body of one job.

    Args:
        channel: the way to the server.
        job: what is sent.
    """

    __slots__ = (
        "_channel",
        "_from_memory",
        "_job",
        "_part",
        "_part_sent",
        "_parts",
        "_transaction",
    )

    def __init__(self, channel: Channel, job: SendJob) -> None:
        transaction = job.transaction
        assert transaction is not None
        self._channel = channel
        self._job = job
        self._transaction: Transaction = transaction
        self._part: Source | None = None
        self._part_sent = 0
        self._parts = iter(transaction.content.sources)
        # Octets that were in memory, among which `Content.attached` counts.
        self._from_memory = 0

    def _has_turn(self) -> bool:
        """Does this job hold the write turn, and may it go on?

        The one check of it, made after every wait: meanwhile the connection may have died, the caller may have
        gone, or the server may have refused the message.
        """
        channel, transaction = self._channel, self._transaction
        return (
            channel.failure is None
            and channel.machine.pipeline.writing is transaction
            and transaction.turn
            and transaction.receipt is None
            and not transaction.withdrawn
        )

    async def run(self) -> bool:
        """Write the body, wait for the gate, and write the end; return False if the write turn was lost.

        Raises:
            Exception: whatever the source, the gate or `progress` raises.
        """
        if not self._has_turn():
            # The connection that gave the turn has died since, and this one has not asked for the body yet.
            return False
        streamed = self._transaction.payload is None
        if streamed:
            if not await self._write_all():
                return False
        elif not await self._report_progress(self._transaction.content.size or 0):
            # It leaves in one piece, with its end: this was the last chance to stop it.
            return False
        gate = self._job.options.before_end_of_data
        if gate is not None:
            await gate()
            if not self._has_turn():
                return False
        if streamed:
            self._channel.machine.pipeline.end_body(self._transaction)
        else:
            self._channel.machine.pipeline.write_payload(self._transaction)
        return True

    async def _write_all(self) -> bool:
        body = self._job.body
        if body is None:
            raise UsageError("the body was not opened")
        # From its start again, if a connection has died in its middle.
        await body.open()
        if not body.rereadable:
            # It is about to be read, and cannot be read again for another connection.
            self._job.pinned = True
        self._note(StartTransfer)
        async for data, source in body.chunks():
            if not self._has_turn():
                return False
            self._turn_to(source)
            canonical = self._is_canonical(source)
            for chunk in self._cut(data):
                if not await self._write(chunk, canonical=canonical):
                    return False
        if not self._has_turn():
            return False
        self._turn_to(None)
        self._pass_over(None)
        return True

    def _is_canonical(self, source: Source | None) -> bool:
        """Are line ends known to be CRLF? In memory if the content says so, in base64 because we have written it."""
        return self._transaction.content.canonical if source is None else source.encoding == "base64"

    def _cut(self, data: bytes) -> Iterator[bytes]:
        size, pacer = self._job.options.chunk_size, self._channel.pacer
        if pacer is not None:
            size = min(size, pacer.throttle.part)
        if len(data) <= size:
            yield data
            return
        for start in range(0, len(data), size):
            yield data[start : start + size]

    async def _write(self, chunk: bytes, *, canonical: bool) -> bool:
        """Write one slice and wait until the transport has taken it; return whether the next one may follow."""
        channel, transaction = self._channel, self._transaction
        channel.machine.pipeline.write_body(transaction, chunk, canonical=canonical)
        channel.flush()
        try:
            await channel.drain()
        except SMTPError as error:
            # The connection's task finds the stream closed and settles the job.
            channel.abort(error)
            return False
        start = self._count(len(chunk))
        if channel.hooks.active:
            self._note_slice(chunk, start)
            if channel.transcript.wants(Transfer):
                await channel.transcript.wait_told()
        return await self._report_progress(transaction.streamed)

    async def _report_progress(self, sent: int) -> bool:
        """Tell `progress` that so many octets were written; return whether the message may go on."""
        progress = self._job.options.progress
        if progress is not None:
            answer = progress(sent, self._transaction.content.size)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is False:
                raise NotSent("progress said that the message is not to be sent")
        return self._has_turn()

    # --- events ----------------------------------------------------------------------------------------------

    def _count(self, size: int) -> int:
        """Count a slice, also while there are no hooks; return where it begins among the octets in memory."""
        start = self._from_memory
        if self._part is None:
            self._from_memory += size
        else:
            self._part_sent += size
        return start

    def _note_slice(self, chunk: bytes, start: int) -> None:
        transcript, transaction = self._channel.transcript, self._transaction
        wanted = transcript.wants(Transfer)
        if wanted:
            transcript.note(self._transfer(transaction.streamed, transaction.content.size, chunk))
        if self._part is not None:
            if wanted and self._part.name:
                transcript.note(self._transfer(self._part_sent, self._part.size, b"", self._part.name))
            return
        end = start + len(chunk)
        for event in attached_events(transaction.content, start, end, self._channel.number, self._job.number):
            if transcript.wants(type(event)):
                transcript.note(event)

    def _transfer(self, sent: int, total: int | None, data: bytes, part: str = "message") -> Transfer:
        percent = -1 if not total else min(100, sent * 100 // total)
        return Transfer(
            session=self._channel.number,
            job=self._job.number,
            part=part,
            sent=sent,
            total=total,
            percent=percent,
            data=data,
        )

    def _turn_to(self, part: Source | None) -> None:
        """Note that the octets which follow come from `part`: where one part ends and the next begins."""
        if part is self._part:
            return
        if self._part is not None:
            self._note(EndTransfer, self._part.name)
        self._part, self._part_sent = part, 0
        if part is not None:
            self._pass_over(part)
            self._note(StartTransfer, part.name)

    def _pass_over(self, next_part: Source | None) -> None:
        """Note begin and end of the parts before `next_part`, which turned out to be empty."""
        for part in self._parts:
            if part is next_part:
                return
            self._note(StartTransfer, part.name)
            self._note(EndTransfer, part.name)

    def _note(self, event: type[StartTransfer | EndTransfer], part: str = "message") -> None:
        # A text, or a whole message, from a stream has no name: it is the body.
        transcript = self._channel.transcript
        if part and transcript.wants(event):
            transcript.note(event(session=self._channel.number, job=self._job.number, part=part))
