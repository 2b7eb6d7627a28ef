"""Threads for blocking calls, and batches of calls that many callers share.

A caller that is cancelled waits until its call has returned, because a half-completed step would be worse than a late
one. The spool has threads of its own, so that slow calls of the application do not delay mail. Handing a call over
costs a third of what anyio's threads take (18 µs instead of 54), which counts where a call is a few system calls
without syncs. The number of concurrent calls for single callers is limited.

Calls that many callers make at the same time go through a `ThreadBatcher`: the callers share a call, and thereby the
syncs in it. The call after a shared one may wait a moment for more callers, because each call costs two changes of
threads. Each batcher limits the number of its concurrent calls. Undoing the calls of cancelled callers is not limited.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import sleep
from typing import Final, Generic, TypeAlias, TypeVar

from anyio import CancelScope, CapacityLimiter, WouldBlock

from ...errors import SpoolError
from ..late_cancel import cancel_again

__all__ = ["ThreadBatcher", "Threads"]

A = TypeVar("A")
T = TypeVar("T")

#: The work for a thread, the callback for the event loop afterwards, that event loop, and more work for the thread.
_Task: TypeAlias = tuple[
    Callable[[], None], Callable[[], None], asyncio.AbstractEventLoop, Callable[[], None] | None
]

#: Seconds after which an idle thread ends.
IDLE_TIMEOUT: Final = 10.0


class _Waiter(Generic[T]):
    """A caller that waits for the result of a thread. Used in the thread of the event loop only."""

    __slots__ = ("_error", "_value", "done", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[None] = loop.create_future()
        self.done = False
        self._value: T
        self._error: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether the call raised an exception."""
        return self._error is not None

    def succeed(self, value: T) -> None:
        """Set the result; `wake` has to follow."""
        self._value = value

    def fail(self, error: BaseException) -> None:
        """Set the exception; `wake` has to follow."""
        self._error = error

    def wake(self) -> None:
        """Wake the caller, because the call is done."""
        self.done = True
        if not self.future.done():
            self.future.set_result(None)

    async def finished(self) -> None:
        """Wait until the call is done, ignoring further cancellation."""
        loop = asyncio.get_running_loop()
        # A cancelled scope of anyio would repeat the cancellation in every iteration of the event loop.
        with CancelScope(shield=True):
            while not self.done:
                self.future = loop.create_future()
                try:
                    await self.future
                except asyncio.CancelledError:
                    continue

    def result(self) -> T:
        """Return the result, or raise the exception of the call."""
        if self._error is not None:
            raise self._error
        return self._value


class _Call(_Waiter[T]):
    """A function that runs in a thread for one caller."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._function = function

    def run(self) -> None:
        """Call the function, in a thread."""
        try:
            self.succeed(self._function())
        except BaseException as error:
            self.fail(error)


class Threads:
    """Runs blocking calls in threads.

    Args:
        most: the maximum number of concurrent calls by `run`.
        idle_timeout: seconds after which an idle thread ends.
    """

    def __init__(self, most: int, *, idle_timeout: float = IDLE_TIMEOUT) -> None:
        self._most = most
        self._idle_timeout = idle_timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._limiter: CapacityLimiter | None = None
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = Lock()
        # Number of threads; number of idle threads less the number of calls in the queue.
        self._count = self._free = 0
        # Number of calls ever submitted, and of those in progress.
        self._submitted = self._active = 0
        # The caller of `wait_idle`.
        self._idle_waiter: _Waiter[None] | None = None

    async def run(self, function: Callable[[], T], *, undo: Callable[[T], bool] | None = None) -> T:
        """Call `function` in a thread and wait until it returns, even if the caller is cancelled.

        Args:
            function: the function to call.
            undo: called with the result, in a thread, if the caller was cancelled. If `undo` returns False, the result
                could not be undone: `run` returns it, and the task gets its cancellation at its next await.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._limiter is None:
            self._loop, self._limiter = loop, CapacityLimiter(self._most)
        limiter = self._limiter
        call = _Call(function, loop)
        try:
            limiter.acquire_on_behalf_of_nowait(call)
        except WouldBlock:
            await limiter.acquire_on_behalf_of(call)
        try:
            self.submit(call.run, call.wake, loop)
            return await self.wait_for(call, undo)
        finally:
            limiter.release_on_behalf_of(call)

    async def wait_for(
        self,
        waiter: _Waiter[T],
        undo: Callable[[T], bool] | None,
        *,
        withdraw: Callable[[], bool] = lambda: False,
    ) -> T:
        """Wait for a submitted call as `run` does.

        Args:
            waiter: the caller.
            undo: as for `run`.
            withdraw: called if the caller is cancelled; returns True if the call will not be made.
        """
        try:
            await waiter.future
        except asyncio.CancelledError as error:
            if withdraw():
                raise
            await waiter.finished()
            if undo is None or waiter.failed or await self._undo(undo, waiter.result()):
                raise
            cancel_again(error)
        return waiter.result()

    def submit(
        self,
        work: Callable[[], None],
        then: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        *,
        afterwards: Callable[[], None] | None = None,
    ) -> None:
        """Call `work` in a thread, then `then` in the event loop, and `afterwards` in the thread. None may raise.

        Raises:
            SpoolError: there is no thread, and the system refuses to start one.
        """
        with self._lock:
            if self._free <= 0:
                self._start()
            self._free -= 1
            self._submitted += 1
            self._active += 1
        self._queue.put((work, then, loop, afterwards))

    def _start(self) -> None:
        """Start a thread. If that fails, the existing threads do the work."""
        try:
            Thread(target=self._work, name=f"smtp-async-spool-{self._count + 1}", daemon=True).start()
        except RuntimeError as error:
            if not self._count:
                raise SpoolError(f"no thread can be started for the spool: {error}") from error
        else:
            self._count += 1
            self._free += 1

    async def wait_idle(self) -> None:
        """Wait until no call is in progress in any event loop, even if the caller is cancelled."""
        loop = asyncio.get_running_loop()
        cancelled: asyncio.CancelledError | None = None
        while True:
            waiter: _Waiter[None] = _Waiter(loop)
            with self._lock:
                submitted, active = self._submitted, self._active
                self._idle_waiter = waiter
            if not active:
                # The callbacks of completed calls are scheduled in this loop, and may submit another call.
                loop.call_soon(waiter.wake)
            try:
                await waiter.future
            except asyncio.CancelledError as error:
                cancelled = error
                await waiter.finished()
            if not active and submitted == self._submitted:
                break
        if cancelled is not None:
            raise cancelled

    def stop(self) -> None:
        """End the threads."""
        with self._lock:
            for _ in range(self._count):
                self._queue.put(None)
            # A later call must not wait for a thread that has ended.
            self._count = self._free = 0

    async def _undo(self, undo: Callable[[T], bool], value: T) -> bool:
        """Call `undo` in a thread, ignoring further cancellation, and return its result."""
        loop = asyncio.get_running_loop()
        call = _Call(partial(undo, value), loop)
        self.submit(call.run, call.wake, loop)
        await call.finished()
        return call.result()

    def _work(self) -> None:
        """Make the calls of the queue, in a thread."""
        while True:
            try:
                task = self._queue.get(timeout=self._idle_timeout)
            except Empty:
                if self._may_end():
                    return
                continue
            if task is None:
                return
            work, then, loop, afterwards = task
            work()
            if afterwards is None:
                # Before the caller is woken, because its next call would otherwise start another thread.
                self._now_free()
                _schedule(loop, then)
            else:
                _schedule(loop, then)
                afterwards()
                self._now_free()
            with self._lock:
                self._active -= 1
                idle_waiter = None if self._active else self._idle_waiter
            if idle_waiter is not None:
                _schedule(idle_waiter.future.get_loop(), idle_waiter.wake)
            del task, work, then, loop, afterwards, idle_waiter

    def _now_free(self) -> None:
        with self._lock:
            self._free += 1

    def _may_end(self) -> bool:
        with self._lock:
            # A thread that `submit` has just relied on must not end.
            if self._free <= 0:
                return False
            self._free -= 1
            self._count -= 1
            return True


class _BatchItem(_Waiter[T], Generic[A, T]):
    """A caller of a batch, and its item."""

    __slots__ = ("item",)

    def __init__(self, item: A, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.item = item


class _BatchQueue(Generic[A, T]):
    """The items that wait in one event loop, and the calls for that loop.

    Attributes:
        loop: the event loop.
        waiting: the items that are in no call yet.
        running: number of calls in progress.
        shared: several callers shared the last call.
    """

    __slots__ = ("loop", "running", "shared", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: deque[_BatchItem[A, T]] = deque()
        self.running = 0
        self.shared = False

    def take(self, most: int) -> list[_BatchItem[A, T]]:
        """Remove and return up to `most` items."""
        taken: list[_BatchItem[A, T]] = []
        with suppress(IndexError):  # another thread may remove an item meanwhile
            while self.waiting and len(taken) < most:
                taken.append(self.waiting.popleft())
        return taken

    def withdraw(self, item: _BatchItem[A, T]) -> bool:
        """Remove an item; return False if it is no longer waiting."""
        try:
            self.waiting.remove(item)
        except ValueError:
            return False
        return True


class ThreadBatcher(Generic[A, T]):
    """Calls a function in a thread that processes many items at once, for callers with one item each.

    It differs from the `StatementBatcher` of the spool in PostgreSQL: several calls run at once, in threads, for any
    number of event loops, and the results are handed over between threads.

    The function is called immediately while fewer than `parallel` calls are in progress. Items that arrive later share
    the next call. Items of different event loops do not share a call.

    Args:
        threads: the threads that make the calls.
        function: returns the results of the items; an exception among them is raised to the caller of that item.
        parallel: the maximum number of concurrent calls.
        most: the maximum number of items in a call.
        afterwards: called in the thread after each call, when its callers have been woken. It must not raise.
        gather: seconds that the thread waits for more items, if several callers shared the call before; only with a
            single concurrent call.
    """

    def __init__(
        self,
        threads: Threads,
        function: Callable[[list[A]], Sequence[T | Exception]],
        *,
        parallel: int,
        most: int,
        afterwards: Callable[[], None] | None = None,
        gather: float = 0.0,
    ) -> None:
        self._threads = threads
        self._function = function
        self._parallel = parallel
        self._most = most
        self._afterwards = afterwards
        self._gather = gather
        self._queue: _BatchQueue[A, T] | None = None

    async def run(self, item: A, *, undo: Callable[[T], bool] | None = None) -> T:
        """Process an item and wait for its result, even if the caller is cancelled.

        Args:
            item: the item.
            undo: as for `Threads.run`. With `undo`, an item that still waits when its caller is cancelled is never
                processed.
        """
        loop = asyncio.get_running_loop()
        queue = self._queue
        if queue is None or queue.loop is not loop:
            # Calls of the other event loop continue and wake their callers there.
            queue = self._queue = _BatchQueue(loop)
        waiter: _BatchItem[A, T] = _BatchItem(item, loop)
        queue.waiting.append(waiter)
        self._start_calls(queue)
        return await self._threads.wait_for(
            waiter, undo, withdraw=lambda: undo is not None and queue.withdraw(waiter)
        )

    def _start_calls(self, queue: _BatchQueue[A, T]) -> None:
        while queue.waiting and queue.running < self._parallel:
            batch = queue.take(self._most)
            try:
                self._threads.submit(
                    partial(self._call, batch, queue),
                    partial(self._call_done, batch, queue),
                    queue.loop,
                    afterwards=self._afterwards,
                )
            except SpoolError as error:
                for waiter in batch:
                    waiter.fail(error)
                    waiter.wake()
            else:
                queue.running += 1

    def _call(self, batch: list[_BatchItem[A, T]], queue: _BatchQueue[A, T]) -> None:
        """Process a batch, in a thread, and what comes to it within a moment."""
        if self._gather and queue.shared:
            sleep(self._gather)
            batch += queue.take(self._most - len(batch))
        try:
            results = self._function([waiter.item for waiter in batch])
        except BaseException as error:
            for waiter in batch:
                waiter.fail(error)
            return
        for waiter, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                waiter.fail(result)
            else:
                waiter.succeed(result)

    def _call_done(self, batch: list[_BatchItem[A, T]], queue: _BatchQueue[A, T]) -> None:
        queue.running -= 1
        queue.shared = len(batch) > 1
        for waiter in batch:
            waiter.wake()
        self._start_calls(queue)


def _schedule(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        pass  # the loop was closed, so no task is waiting
