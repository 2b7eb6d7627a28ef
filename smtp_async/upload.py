"""A body on its way, written by its caller's own task, slice by slice.

The caller holds the turn to write from the moment the server asks for the body. Its context, its exceptions, its
cancellation and the pace of its source stay its own; meanwhile the connection's task reads. A gated body, small and in
memory, is only let go here.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Iterator

from .content import Source
from .errors import NotSent, SMTPError, UsageError
from .events import Event
from .job import Job
from .link import Link
from .protocol.transaction import Transaction
from .transfers import TRANSFERS, Transfers

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
        "_link",
        "_number",
        "_stopped",
        "_task",
        "_told",
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
        self._told: Transfers | None = None
        # The caller's, while it may be called back from what it waits for.
        self._task: asyncio.Task[object] | None = None
        self._stopped = False

    @property
    def allowed(self) -> bool:
        """May it be written, or go on? Not if its connection has died, its caller has gone or the server refused it."""
        transaction = self._transaction
        return (
            self._link.machine.writing is transaction
            and transaction.turn
            and transaction.receipt is None
            and not transaction.withdrawn
        )

    async def run(self) -> bool:
        """Write everything but the end, and wait for the gate; return whether the end may follow.

        Raises:
            Exception: whatever the source, the gate or `progress` raises.
        """
        if self._transaction.payload is None and not await self._write_unless_stopped():
            return False
        gate = self.job.options.before_end_of_data
        if gate is not None:
            # Nothing is owed for the part of a body behind DATA; the end of data starts the clock again.
            if not self._transaction.chunked:
                self._link.stop_clock()
            await gate()
        return self.allowed

    def end(self) -> None:
        """Let the end follow: the machine has it to be flushed then."""
        machine, transaction = self._link.machine, self._transaction
        if transaction.payload is None:
            machine.end_body(transaction)
        else:
            machine.release(transaction)

    def stop(self) -> None:
        """The job is over, in one way or another: call its caller back, who may be waiting for the source.

        The caller's `cancel()` is taken back before anybody outside sees it, as that of `Link.wake` is.
        """
        task = self._task
        # A source or `progress` may stop its own message: then nobody waits.
        if task is not None and not self._stopped and task is not asyncio.current_task():
            self._stopped = True
            task.cancel()

    async def _write_unless_stopped(self) -> bool:
        self._task = task = asyncio.current_task()
        assert task is not None
        others = task.cancelling()
        try:
            return await self._write_all()
        except asyncio.CancelledError:
            # Somebody else may have cancelled it as well.
            if not self._stopped or task.cancelling() - others > 1:
                raise
            return False
        finally:
            self._task = None
            if self._stopped:
                task.uncancel()

    async def _write_all(self) -> bool:
        body = self.job.body
        if body is None:
            raise UsageError("the body was not opened")
        # From its start again, if a connection has died in its middle.
        await body.open()
        if not body.rereadable:
            # This connection or none: it is going to be read.
            self.job.alone = True
        told = self._told = self._listened(parts=True)
        if told is not None:
            self._note(told.start())
        async for data, source in body.chunks():
            for chunk in self._cut(data):
                if not await self._write(chunk, source):
                    return False
        if told is not None:
            self._note(told.end())
        return True

    def _cut(self, data: bytes) -> Iterator[bytes]:
        size = self.job.options.chunk_size
        if len(data) <= size:
            yield data
            return
        for start in range(0, len(data), size):
            yield data[start : start + size]

    async def _write(self, chunk: bytes, source: Source | None) -> bool:
        link, transaction = self._link, self._transaction
        if not self.allowed:
            return False
        link.machine.write_body(transaction, chunk)
        self._flush()
        assert link.stream is not None
        try:
            await link.stream.drain()
        except SMTPError as error:
            # The pump finds the stream closed and writes the receipt.
            link.abort(error)
            return False
        if self.allowed:
            link.start_clock()
        if link.hooks.active:
            # Who begins to listen now has missed where attachments begin.
            told = self._told = self._told or self._listened(parts=False)
            if told is not None:
                self._note(told.passed(chunk, source, transaction.streamed))
        progress = self.job.options.progress
        if progress is not None:
            answer = progress(transaction.streamed, transaction.content.size)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is False:
                raise NotSent("progress said that the message is not to be sent")
        return self.allowed

    # --- events ----------------------------------------------------------------------------------------------

    def _listened(self, *, parts: bool) -> Transfers | None:
        """Return what tells of this body, None if nobody listens."""
        link = self._link
        if not link.hooks.active or not any(link.wants(event) for event in TRANSFERS):
            return None
        content, job = self._transaction.content, self.job.number
        return Transfers(content, self._number, job, wants=link.wants, parts=parts)

    def _note(self, events: Iterable[Event]) -> None:
        for event in events:
            self._link.note(event)
        if self._link.noted:
            self._link.wake()
