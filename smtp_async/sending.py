"""Many messages through one client: `send_all`.

Strategy: the consumer drives. Its `async for` pulls the input in its own task, prepares what it pulled and hands it to
the pool, as long as fewer messages than twice the pool's capacity are on their way; then it waits for the next receipt.
Memory is therefore constant, whatever the length of the input, and a consumer that is slow slows the input.

Nothing here awaits when it ends: a `break`, an exception or a cancelled task leaves behind jobs that the pool forgets,
and messages on the wire whose receipts go to the `Abandoned` event.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Generic, TypeVar

from .content import Mail
from .errors import QueueFull, SMTPError, UsageError
from .job import Job, Step
from .pool import Pool
from .protocol.transaction import SendOptions
from .receipt import Receipt

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
        due: float | None,
        *,
        chunking: bool,
    ) -> None:
        super().__init__(number, mail, options, due, chunking=chunking)
        self.message = message
        # Weakly: an iterator that nobody holds any more must be able to go.
        self._iterator = weakref.ref(iterator)

    def advance(self, step: Step) -> None:
        whole = self._iterator()
        if whole is not None:
            whole._heard(self, step)


class SendAll(Generic[M]):
    """An async iterator of `(message, receipt)` in the order in which they end; made by `SMTPClient.send_all`."""

    def __init__(
        self,
        pool: Pool,
        messages: Iterable[M] | AsyncIterable[M],
        *,
        adapt: Callable[[M], Mail],
        number_job: Callable[[], int],
        chunking: bool,
        options: SendOptions,
        limit: float | None,
    ) -> None:
        self._pool = pool
        self._adapt = adapt
        self._number_job = number_job
        self._options = options
        self._chunking = chunking
        self._limit = limit
        # First what the end needs: an input that is none raises here.
        self._under_way: set[_Item[M]] = set()
        self._source: Iterator[M] | AsyncIterator[M] | None
        if isinstance(messages, AsyncIterable):
            self._source = aiter(messages)
        else:
            self._source = iter(messages)
        most = pool.limits.max_waiting
        self._ahead = 2 * pool.capacity if most is None else min(2 * pool.capacity, most)
        self._done: deque[tuple[M, Receipt]] = deque()
        # What the consumer is to do for jobs: prepare them, or write their bodies.
        self._todo: deque[tuple[_Item[M], Step]] = deque()
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
        self._source = None
        self._todo.clear()
        while self._under_way:
            self._pool.cancel(self._under_way.pop())

    def __del__(self) -> None:
        if self._under_way:
            self.cancel()

    async def _next(self) -> tuple[M, Receipt]:
        while True:
            while self._todo:
                await self._do(*self._todo.popleft())
            await self._fill()
            if self._done:
                return self._done.popleft()
            if self._todo:
                continue
            if not self._under_way:
                failure, self._failure = self._failure, None
                raise failure or StopAsyncIteration
            self._bell = self._pool.new_future()
            await self._bell

    async def _fill(self) -> None:
        """Pull input while there is room: a receipt that nobody has taken yet needs its place, too."""
        while self._source is not None and len(self._under_way) + len(self._done) < self._ahead:
            try:
                if isinstance(self._source, AsyncIterator):
                    if self._done or self._todo:
                        return
                    message = await anext(self._source)
                else:
                    message = next(self._source)
            except (StopIteration, StopAsyncIteration):
                self._source = None
            except Exception as error:
                self._source = None
                self._failure = self._failure or error
            else:
                self._begin(message)

    def _begin(self, message: M) -> None:
        pool = self._pool
        try:
            mail = self._adapt(message)
            due = None if self._limit is None else pool.now() + self._limit
            item = _Item(self, message, self._number_job(), mail, self._options, due, chunking=self._chunking)
        except SMTPError as error:
            # A message without an envelope has nobody to give a verdict on.
            self._done.append((message, error.receipt or Receipt((), error=error)))
            return
        self._under_way.add(item)
        item.extensions = pool.extensions
        self._submit(item)

    def _submit(self, item: _Item[M]) -> None:
        try:
            if item.extensions is not None and item.transaction is None:
                item.prepare()
        except SMTPError as error:
            self._end(item, error.receipt or item.unsent(error))
            return
        except BaseException:
            # A fault of somebody's own kind of mail is raised here and now, and nobody waits for its receipt.
            self._under_way.discard(item)
            raise
        try:
            self._pool.submit(item)
        except QueueFull as error:
            # Others fill the queue, too: no failure of the connection.
            self._end(item, item.unsent(error))
        except SMTPError as error:
            self._connection_failed(item, error)

    def _connection_failed(self, item: _Item[M], error: SMTPError) -> None:
        self._source = None
        self._failure = self._failure or error
        self._end(item, item.unsent(error))

    async def _do(self, item: _Item[M], step: Step) -> None:
        if item.receipt is not None:
            return
        if step is Step.PREPARE:
            self._submit(item)
        elif item.session is not None:
            try:
                await item.session.write_body(item)
            except SMTPError as error:
                self._pool.cancel(item)
                self._end(item, error.receipt or item.unsent(error))

    def _heard(self, item: _Item[M], step: Step) -> None:
        """A job's next step; called by the pool or a session, in their tasks."""
        if step is Step.DONE:
            assert item.receipt is not None
            if item.undialled is not None:
                self._source = None
                self._failure = self._failure or item.undialled
            self._end(item, item.receipt)
        else:
            self._todo.append((item, step))
            self._ring()

    def _end(self, item: _Item[M], receipt: Receipt) -> None:
        if item in self._under_way:
            self._under_way.discard(item)
            self._done.append((item.message, receipt))
            self._ring()

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)
