"""Many messages through one client: `send_all`.

Strategy: the consumer drives. Its `async for` pulls the input in its own task, prepares the messages and submits them
to the pool, as long as fewer messages than twice the pool's capacity are under way; then it waits for the next
receipt. Memory is therefore constant, whatever the length of the input, and a slow consumer slows the input.

An async input may wait, and must not delay receipts and bodies meanwhile: a task of its own pulls it, within the same
bound, and does nothing else. Preparing, submitting and writing what was pulled is left to the consumer.

The deadline of a message runs while the message is being read, opened or written, and while it waits for a connection
or for the server. It does not run while the message waits for the consumer, because the consumer may be busy with
another message.

Nothing is awaited when the iteration ends: a `break`, an exception or a cancelled task leaves behind jobs that the pool
forgets, and messages on the wire whose receipts go to the `Abandoned` event.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Generic, TypeVar

from ..connection.send_job import CallerStep, SendJob
from ..errors import QueueFull, SMTPError, UsageError
from ..mail.coerce import PendingMail, Raw, to_mail, unsent_sources
from ..model.content import Mail
from ..model.receipt import Receipt
from ..pool.pool import Pool
from ..protocol.options import SendOptions
from ..sources import TempDir
from ..sources.render_cost import is_heavy
from ..sources.unsent import UnsentSources
from .drive import Drive
from .telemetry import ClientTelemetry, Sending

__all__ = ["SendAll"]

M = TypeVar("M")


class _BulkJob(SendJob, Generic[M]):
    """A job that reports its steps to the iterator instead of a waiting caller."""

    __slots__ = ("_iterator", "message", "sending")

    def __init__(
        self,
        iterator: SendAll[M],
        message: M,
        number: int,
        mail: Mail,
        options: SendOptions,
        *,
        chunking: bool,
        temp_dir: TempDir,
    ) -> None:
        # What is left of a `Raw` here needs no rendering.
        heavy = not isinstance(message, Raw) and is_heavy(message)
        super().__init__(number, mail, options, chunking=chunking, heavy=heavy, temp_dir=temp_dir)
        self.message = message
        self.outlasts_outage = True
        self.sending: Sending | None = None
        # Weakly, so that an iterator that is no longer used can be collected.
        self._iterator = weakref.ref(iterator)

    def advance(self, step: CallerStep) -> None:
        iterator = self._iterator()
        if iterator is not None:
            iterator._advance(self, step)


class _AsyncInput(Generic[M]):
    """An async iterator of messages and the one task that pulls it, while there is room.

    Attributes:
        pulled: messages that the consumer has not begun yet.
        failure: what the iterator raised.
        over: whether nothing more comes, because the iterator has ended or was closed.
    """

    __slots__ = ("_iterator", "_room", "_source", "_task", "failure", "over", "pulled")

    def __init__(self, iterator: SendAll[M], source: AsyncIterator[M]) -> None:
        # Weakly, because the task holds this: an iterator that is no longer used can be collected.
        self._iterator = weakref.ref(iterator)
        self._source = source
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.pulled: deque[M] = deque()
        self.failure: BaseException | None = None
        self.over = False

    def start(self) -> None:
        """Start to pull, or continue if there is room again."""
        if self._task is None:
            # The task copies the consumer's context, in which the source would run without this task.
            self._task = asyncio.get_running_loop().create_task(self._pull(), name="smtp_async source")
        elif self._room is not None and not self._room.done() and self._has_room():
            self._room.set_result(None)

    def close(self) -> None:
        """Pull no more; the source cleans up in its task, which is not waited for."""
        if self.over:
            return
        self.over = True
        task = self._task
        if task is not None and not task.done() and not task.get_loop().is_closed():
            task.cancel()

    async def _pull(self) -> None:
        # An eager task runs before `start` has its result.
        self._task = asyncio.current_task()
        try:
            while await self._wait_for_room():
                self._store(await anext(self._source))
        except StopAsyncIteration:
            pass
        except BaseException as error:
            if self.over:
                # The answer to `close`, which only the loop receives.
                raise
            self.failure = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.over = True
            self._wake()
            # A generator that stands at a `yield` has not seen the end. Other iterators are the user's to close.
            if isinstance(self._source, AsyncGenerator):
                await self._source.aclose()

    async def _wait_for_room(self) -> bool:
        while not self.over and not self._has_room():
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        return not self.over

    # The iterator is looked up in plain functions only: a coroutine would hold it while it waits.

    def _has_room(self) -> bool:
        iterator = self._iterator()
        if iterator is None:
            return False
        return iterator._pulled + len(self.pulled) < iterator._most

    def _store(self, message: M) -> None:
        if not self.over:
            self.pulled.append(message)
            self._wake()

    def _wake(self) -> None:
        iterator = self._iterator()
        if iterator is not None:
            iterator._wake()


class SendAll(Generic[M]):
    """An async iterator of `(message, receipt)` in the order in which they end; made by `SMTPClient.send_all`."""

    def __init__(
        self,
        pool: Pool,
        drive: Drive,
        messages: Iterable[M] | AsyncIterable[M],
        *,
        number_job: Callable[[], int],
        chunking: bool,
        temp_dir: TempDir,
        options: SendOptions,
        limit: float | None,
        telemetry: ClientTelemetry | None = None,
    ) -> None:
        self._pool = pool
        self._telemetry = telemetry
        self._drive = drive
        self._number_job = number_job
        self._options = options
        self._chunking = chunking
        self._temp_dir = temp_dir
        self._limit = limit
        # Set up what `__del__` uses first; `iter()` may raise.
        self._jobs: set[_BulkJob[M]] = set()
        # Messages that become mail only after waiting: above all streams whose header has to be read.
        self._unread: deque[tuple[M, PendingMail]] = deque()
        # The consumer's next work: prepare or open jobs, write their bodies, close what has to be awaited.
        self._work: deque[tuple[_BulkJob[M] | UnsentSources, CallerStep]] = deque()
        self._async_input: _AsyncInput[M] | None = None
        self._source: Iterator[M] | None = None
        if isinstance(messages, AsyncIterable):
            self._async_input = _AsyncInput(self, aiter(messages))
        else:
            self._source = iter(messages)
        most = pool.limits.max_waiting
        self._most = 2 * pool.capacity if most is None else min(2 * pool.capacity, most)
        self._receipts: deque[tuple[M, Receipt]] = deque()
        self._wakeup: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._pulling = False

    def __aiter__(self) -> SendAll[M]:
        return self

    async def __anext__(self) -> tuple[M, Receipt]:
        """Return the next message that has ended, with its receipt.

        Raises:
            StopAsyncIteration: all messages have ended.
            SMTPError: no connection can be had; raised after the receipts of the messages under way.
            Exception: what the input raised; after the same receipts.
        """
        if self._pulling:
            raise UsageError("one task at a time iterates over send_all")
        self._pulling = True
        try:
            return await self._next()
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            self._pulling = False

    def cancel(self) -> None:
        """Stop: what waits is not sent, what is on the wire runs to its end unobserved. Synchronous."""
        self._abandon()
        # The input may call this, while the consumer waits.
        self._wake()

    def __del__(self) -> None:
        if self._jobs or self._work or self._unread or self._async_input is not None:
            self._abandon()

    def _abandon(self) -> None:
        self._source = None
        source, self._async_input = self._async_input, None
        if source is not None:
            source.close()
            for message in source.pulled:
                unsent_sources(message, self._options).close()
        while self._work:
            item, step = self._work.popleft()
            if step is CallerStep.DONE:
                item.close()
        while self._unread:
            message, _ = self._unread.popleft()
            unsent_sources(message, self._options).close()
        while self._jobs:
            item = self._jobs.pop()
            if item.sending is not None:
                item.sending.abandon()
            self._pool.cancel(item)
            item.close()

    async def _next(self) -> tuple[M, Receipt]:
        while True:
            while self._work:
                await self._step(*self._work.popleft())
            self._pull_input()
            if self._receipts:
                return self._receipts.popleft()
            if self._unread:
                await self._read(*self._unread.popleft())
                continue
            if self._work:
                continue
            if not self._jobs and self._async_input is None:
                failure, self._failure = self._failure, None
                raise failure or StopAsyncIteration
            self._wakeup = self._pool.loop.create_future()
            await self._wakeup

    def _pull_input(self) -> None:
        """Pull input while there is room; a receipt that the consumer has not taken yet fills a place, too."""
        if self._async_input is not None:
            self._begin_pulled(self._async_input)
        # Each message takes one place until its receipt is taken, which is not done meanwhile.
        room = self._most - self._pulled
        while room > 0 and self._source is not None:
            room -= 1
            try:
                message = next(self._source)
            except StopIteration:
                self._source = None
            except Exception as error:
                self._source = None
                self._failure = self._failure or error
            else:
                self._begin(message)

    @property
    def _pulled(self) -> int:
        """How many messages are somewhere between the input and the consumer."""
        return len(self._jobs) + len(self._receipts) + len(self._unread)

    def _begin_pulled(self, source: _AsyncInput[M]) -> None:
        """Begin what the input's task has pulled; its places are counted already."""
        source.start()
        while source.pulled:
            self._begin(source.pulled.popleft())
        if source.over:
            self._async_input = None
            failure, source.failure = source.failure, None
            self._failure = self._failure or failure

    def _begin(self, message: M) -> None:
        try:
            mail = to_mail(message, self._options)
        except SMTPError as error:
            # A message without an envelope has no recipients to give verdicts on.
            self._receipts.append((message, Receipt.of(error) or Receipt((), error=error)))
            self._work.append((unsent_sources(message, self._options), CallerStep.DONE))
            return
        if isinstance(mail, PendingMail):
            self._unread.append((message, mail))
        else:
            self._begin_mail(message, mail)

    async def _read(self, message: M, pending: PendingMail) -> None:
        """Read what has to be known of a message before it is sent, and begin it."""
        try:
            mail = await self._drive.read(pending.read(self._temp_dir), self._new_deadline())
        except SMTPError as error:
            self._receipts.append((message, Receipt.of(error) or Receipt((), error=error)))
            return
        self._begin_mail(message, mail)

    def _begin_mail(self, message: M, mail: Mail) -> None:
        pool = self._pool
        try:
            item = _BulkJob(
                self,
                message,
                self._number_job(),
                mail,
                self._options,
                chunking=self._chunking,
                temp_dir=self._temp_dir,
            )
        except SMTPError as error:
            # A message without an envelope has no recipients to give verdicts on.
            self._receipts.append((message, Receipt.of(error) or Receipt((), error=error)))
            self._work.append((UnsentSources(mail), CallerStep.DONE))
            return
        if self._telemetry is not None:
            item.sending = self._telemetry.begin(item)
        self._jobs.add(item)
        if isinstance(self._failure, SMTPError):
            # It was pulled before the connection failed.
            self._end(item, item.not_sent_receipt(self._failure))
            return
        item.server_offer = pool.extensions
        self._submit(item)

    def _submit(self, item: _BulkJob[M]) -> None:
        try:
            if not item.prepare():
                # Its parts are opened when the consumer's turn comes to wait.
                self._work.append((item, CallerStep.OPEN))
                return
        except SMTPError as error:
            self._end(item, Receipt.of(error) or item.not_sent_receipt(error))
            return
        except BaseException:
            # A fault in a user's own kind of mail is raised here and now, and has no receipt.
            if item.sending is not None:
                item.sending.abandon()
            self._jobs.discard(item)
            item.close()
            raise
        self._hand_over(item)

    def _new_deadline(self) -> float | None:
        """Return the deadline of work that begins now, as loop time."""
        return None if self._limit is None else self._pool.loop.time() + self._limit

    def _hand_over(self, item: _BulkJob[M]) -> None:
        transaction = item.transaction
        # The deadline of a body that the consumer writes begins then, because before that the connection waits for the
        # consumer, too.
        caller_paced = transaction is not None and transaction.caller_paced
        item.due = item.send_by = None if caller_paced else self._new_deadline()
        try:
            self._pool.submit(item)
        except QueueFull as error:
            # Other callers fill the queue, too: this is not a failure of the connection.
            self._end(item, item.not_sent_receipt(error))
        except SMTPError as error:
            self._connection_failed(error)
            self._end(item, item.not_sent_receipt(error))

    def _connection_failed(self, error: SMTPError) -> None:
        self._source = None
        self._failure = self._failure or error
        if self._async_input is not None:
            self._async_input.close()

    async def _step(self, item: _BulkJob[M] | UnsentSources, step: CallerStep) -> None:
        if step is CallerStep.DONE or isinstance(item, UnsentSources):
            await self._drive.close(item, self._new_deadline())
            return
        if item.receipt is not None:
            return
        # The consumer has come to it, and its deadline begins.
        item.due = item.send_by = self._new_deadline()
        try:
            if step is CallerStep.PREPARE:
                self._submit(item)
            elif step is CallerStep.OPEN:
                await self._drive.open(item)
                if item.receipt is None:
                    self._hand_over(item)
            else:
                self._pool.deadlines.add(item)
                await self._drive.write(item)
        except SMTPError as error:
            self._pool.cancel(item)
            self._end(item, Receipt.of(error) or item.not_sent_receipt(error))

    def _advance(self, item: _BulkJob[M], step: CallerStep) -> None:
        """Take a job's next step; called by the pool or a session, in their tasks."""
        if step is CallerStep.DONE:
            assert item.receipt is not None
            if item.connect_error is not None:
                self._connection_failed(item.connect_error)
            self._end(item, item.receipt)
        else:
            # It waits for the consumer now, who may be writing another one: its deadline does not run.
            self._pool.deadlines.discard(item)
            self._work.append((item, step))
            self._wake()

    def _end(self, item: _BulkJob[M], receipt: Receipt) -> None:
        if item in self._jobs:
            self._jobs.discard(item)
            if item.body is not None or receipt.error is not None:
                item.close()
                self._work.append((item, CallerStep.DONE))
            if item.sending is not None:
                item.sending.end(receipt)
            self._receipts.append((item.message, receipt))
            self._wake()

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)
