"""Many messages through one client: `send_all`.

Strategy: the consumer drives. Its `async for` pulls the input in its own task, prepares what it pulled and hands it to
the pool, as long as fewer messages than twice the pool's capacity are on their way; then it waits for the next receipt.
Memory is therefore constant, whatever the length of the input, and a consumer that is slow slows the input.

An async input may wait, and must not hold back receipts and bodies meanwhile: one task of its own pulls it, within the
same bound, and does nothing else. What it pulled is the consumer's to prepare, to hand over and to write.

The time of a message runs while it is being read, opened or written, and while it waits for a connection or for the
server; it stands still while the message waits for the consumer, who may be busy with another one.

Nothing here awaits when it ends: a `break`, an exception or a cancelled task leaves behind jobs that the pool forgets,
and messages on the wire whose receipts go to the `Abandoned` event.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Generic, TypeVar

from ..connection.drive import Drive
from ..connection.job import Job, Step
from ..errors import QueueFull, SMTPError, UsageError
from ..mail.coerce import PendingMail, to_mail, unsent_sources
from ..model.content import Mail
from ..model.receipt import Receipt
from ..pool.pool import Pool
from ..protocol.options import SendOptions
from ..sources import TempDir
from ..sources.unsent import UnsentSources
from ..sources.weight import is_heavy

__all__ = ["SendAll"]

M = TypeVar("M")


class _Item(Job, Generic[M]):
    """A job whose steps go to the iterator instead of a waiting caller."""

    __slots__ = ("_iterator", "message")

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
        super().__init__(number, mail, options, chunking=chunking, heavy=is_heavy(message), temp_dir=temp_dir)
        self.message = message
        self.outlasts_outage = True
        # Weakly: an iterator that nobody holds any more must be able to go.
        self._iterator = weakref.ref(iterator)

    def advance(self, step: Step) -> None:
        whole = self._iterator()
        if whole is not None:
            whole._heard(self, step)


class _Feed(Generic[M]):
    """An async source and the one task that pulls it, while there is room.

    Attributes:
        pulled: what the consumer has not begun yet.
        failure: what the source raised.
        over: whether nothing more comes: the source has ended, or nobody wants it any more.
    """

    __slots__ = ("_iterator", "_room", "_source", "_task", "failure", "over", "pulled")

    def __init__(self, iterator: SendAll[M], source: AsyncIterator[M]) -> None:
        # Weakly, as the task holds this: an iterator that nobody holds any more must be able to go.
        self._iterator = weakref.ref(iterator)
        self._source = source
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.pulled: deque[M] = deque()
        self.failure: BaseException | None = None
        self.over = False

    def start(self) -> None:
        """Pull, or go on with it if there is room again."""
        if self._task is None:
            # In the consumer's context: so far as it can tell, the source runs where it always did.
            self._task = asyncio.get_running_loop().create_task(self._live(), name="smtp_async source")
        elif self._room is not None and not self._room.done() and self._has_room():
            self._room.set_result(None)

    def close(self) -> None:
        """Pull no more; the source cleans up in its task, and nobody waits for it."""
        if self.over:
            return
        self.over = True
        task = self._task
        if task is not None and not task.done() and not task.get_loop().is_closed():
            task.cancel()

    async def _live(self) -> None:
        # An eager task runs before `start` has its result.
        self._task = asyncio.current_task()
        try:
            while await self._wait_for_room():
                self._hand(await anext(self._source))
        except StopAsyncIteration:
            pass
        except BaseException as error:
            if self.over:
                # The answer to `close`: nobody listens but the loop.
                raise
            self.failure = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.over = True
            self._ring()
            # Where it stands at a `yield` it has not heard of the end. What is no generator is the user's to close.
            if isinstance(self._source, AsyncGenerator):
                await self._source.aclose()

    async def _wait_for_room(self) -> bool:
        while not self.over and not self._has_room():
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        return not self.over

    # The iterator is looked up in plain functions only: a coroutine would hold it while it waits.

    def _has_room(self) -> bool:
        whole = self._iterator()
        if whole is None:
            return False
        return whole._pulled + len(self.pulled) < whole._ahead

    def _hand(self, message: M) -> None:
        if not self.over:
            self.pulled.append(message)
            self._ring()

    def _ring(self) -> None:
        whole = self._iterator()
        if whole is not None:
            whole._ring()


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
    ) -> None:
        self._pool = pool
        self._drive = drive
        self._number_job = number_job
        self._options = options
        self._chunking = chunking
        self._temp_dir = temp_dir
        self._limit = limit
        # First what the end needs: an input that is none raises here.
        self._under_way: set[_Item[M]] = set()
        # Messages that become mail only after waiting: above all streams whose header has to be read.
        self._unread: deque[tuple[M, PendingMail]] = deque()
        # What the consumer is to do for jobs: prepare or open them, write their bodies, close what has to be awaited.
        self._todo: deque[tuple[_Item[M] | UnsentSources, Step]] = deque()
        self._feed: _Feed[M] | None = None
        self._source: Iterator[M] | None = None
        if isinstance(messages, AsyncIterable):
            self._feed = _Feed(self, aiter(messages))
        else:
            self._source = iter(messages)
        most = pool.limits.max_waiting
        self._ahead = 2 * pool.capacity if most is None else min(2 * pool.capacity, most)
        self._done: deque[tuple[M, Receipt]] = deque()
        self._bell: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._pulling = False

    def __aiter__(self) -> SendAll[M]:
        return self

    async def __anext__(self) -> tuple[M, Receipt]:
        """Return the next message that came to its end, with its receipt.

        Raises:
            StopAsyncIteration: all have.
            SMTPError: no connection can be had; raised after the receipts of what was under way.
            Exception: what the input raised; likewise.
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
        """Stop: what waits is not sent, what is on the wire runs to its end unheard. Synchronous."""
        self._drop()
        # The source may do this, while the consumer waits for it.
        self._ring()

    def __del__(self) -> None:
        if self._under_way or self._todo or self._unread or self._feed is not None:
            self._drop()

    def _drop(self) -> None:
        self._source = None
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.close()
            for message in feed.pulled:
                unsent_sources(message, self._options).close()
        while self._todo:
            item, step = self._todo.popleft()
            if step is Step.DONE:
                item.close()
        while self._unread:
            message, _ = self._unread.popleft()
            unsent_sources(message, self._options).close()
        while self._under_way:
            item = self._under_way.pop()
            self._pool.cancel(item)
            item.close()

    async def _next(self) -> tuple[M, Receipt]:
        while True:
            while self._todo:
                await self._do(*self._todo.popleft())
            self._fill()
            if self._done:
                return self._done.popleft()
            if self._unread:
                await self._read(*self._unread.popleft())
                continue
            if self._todo:
                continue
            if not self._under_way and self._feed is None:
                failure, self._failure = self._failure, None
                raise failure or StopAsyncIteration
            self._bell = self._pool.loop.create_future()
            await self._bell

    def _fill(self) -> None:
        """Pull input while there is room: a receipt that nobody has taken yet needs its place, too."""
        if self._feed is not None:
            self._take(self._feed)
        while self._source is not None and self._pulled < self._ahead:
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
        return len(self._under_way) + len(self._done) + len(self._unread)

    def _take(self, feed: _Feed[M]) -> None:
        """Begin what the source's task has pulled: its place is kept already."""
        feed.start()
        while feed.pulled:
            self._begin(feed.pulled.popleft())
        if feed.over:
            self._feed = None
            failure, feed.failure = feed.failure, None
            self._failure = self._failure or failure

    def _begin(self, message: M) -> None:
        try:
            mail = to_mail(message, self._options)
        except SMTPError as error:
            # A message without an envelope has no recipients to give verdicts on.
            self._done.append((message, Receipt.of(error) or Receipt((), error=error)))
            self._todo.append((unsent_sources(message, self._options), Step.DONE))
            return
        if isinstance(mail, PendingMail):
            self._unread.append((message, mail))
        else:
            self._begin_mail(message, mail)

    async def _read(self, message: M, pending: PendingMail) -> None:
        """Read what has to be known of a message before it is sent, and begin it."""
        try:
            mail = await self._drive.read(pending.read(), self._until())
        except SMTPError as error:
            self._done.append((message, Receipt.of(error) or Receipt((), error=error)))
            return
        self._begin_mail(message, mail)

    def _begin_mail(self, message: M, mail: Mail) -> None:
        pool = self._pool
        try:
            item = _Item(
                self,
                message,
                self._number_job(),
                mail,
                self._options,
                chunking=self._chunking,
                temp_dir=self._temp_dir,
            )
        except SMTPError as error:
            # A message without an envelope has nobody to give a verdict on.
            self._done.append((message, Receipt.of(error) or Receipt((), error=error)))
            self._todo.append((UnsentSources(mail), Step.DONE))
            return
        self._under_way.add(item)
        if isinstance(self._failure, SMTPError):
            # It was pulled before the connection failed.
            self._end(item, item.unsent(self._failure))
            return
        item.offer = pool.extensions
        self._submit(item)

    def _submit(self, item: _Item[M]) -> None:
        try:
            if not item.prepare():
                # Its parts are opened when the consumer's turn comes to wait.
                self._todo.append((item, Step.OPEN))
                return
        except SMTPError as error:
            self._end(item, Receipt.of(error) or item.unsent(error))
            return
        except BaseException:
            # A fault of somebody's own kind of mail is raised here and now, and nobody waits for its receipt.
            self._under_way.discard(item)
            item.close()
            raise
        self._hand_over(item)

    def _until(self) -> float | None:
        """The time of something that begins now."""
        return None if self._limit is None else self._pool.now() + self._limit

    def _hand_over(self, item: _Item[M]) -> None:
        transaction = item.transaction
        # A body that the consumer writes has its time then: until that the connection, too, waits for the consumer.
        aside = transaction is not None and transaction.aside
        item.due = item.send_by = None if aside else self._until()
        try:
            self._pool.submit(item)
        except QueueFull as error:
            # Others fill the queue, too: no failure of the connection.
            self._end(item, item.unsent(error))
        except SMTPError as error:
            self._connection_failed(error)
            self._end(item, item.unsent(error))

    def _connection_failed(self, error: SMTPError) -> None:
        self._source = None
        self._failure = self._failure or error
        if self._feed is not None:
            self._feed.close()

    async def _do(self, item: _Item[M] | UnsentSources, step: Step) -> None:
        if step is Step.DONE or isinstance(item, UnsentSources):
            await self._drive.close(item, self._until())
            return
        if item.receipt is not None:
            return
        # Its turn has come, and its time begins.
        item.due = item.send_by = self._until()
        try:
            if step is Step.PREPARE:
                self._submit(item)
            elif step is Step.OPEN:
                await self._drive.open(item)
                if item.receipt is None:
                    self._hand_over(item)
            else:
                self._pool.deadlines.add(item)
                await self._drive.write(item)
        except SMTPError as error:
            self._pool.cancel(item)
            self._end(item, Receipt.of(error) or item.unsent(error))

    def _heard(self, item: _Item[M], step: Step) -> None:
        """A job's next step; called by the pool or a session, in their tasks."""
        if step is Step.DONE:
            assert item.receipt is not None
            if item.connect_error is not None:
                self._connection_failed(item.connect_error)
            self._end(item, item.receipt)
        else:
            # It waits for the consumer now, who may be writing another one: its time stands still.
            self._pool.deadlines.discard(item)
            self._todo.append((item, step))
            self._ring()

    def _end(self, item: _Item[M], receipt: Receipt) -> None:
        if item in self._under_way:
            self._under_way.discard(item)
            if item.body is not None or receipt.error is not None:
                item.close()
                self._todo.append((item, Step.DONE))
            self._done.append((item.message, receipt))
            self._ring()

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)
