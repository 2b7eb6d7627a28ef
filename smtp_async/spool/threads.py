"""Calls that block, in threads, which a cancelled caller waits for: half a step would be worse than a late one.

The threads are our own, bounded by a limiter of our own: nobody else's slow calls hold up the mail, and handing a call
over costs a third of what a general pool takes for it, which counts where a call is a few system calls without a sync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, Generic, TypeVar

from anyio import CancelScope, CapacityLimiter, WouldBlock

__all__ = ["Threads", "finished"]

T = TypeVar("T")

#: Seconds after which a thread without work ends.
IDLE: Final = 10.0


async def finished(is_done: Callable[[], bool], tell: Callable[[asyncio.Future[None]], None]) -> None:
    """Wait for what cannot be stopped, after a cancellation, whatever is cancelled meanwhile.

    Args:
        is_done: tells whether it is over.
        tell: is given a future to be set when it is.
    """
    loop = asyncio.get_running_loop()
    # Within a scope of anyio a cancellation would be repeated at every turn.
    with CancelScope(shield=True):
        while not is_done():
            future: asyncio.Future[None] = loop.create_future()
            tell(future)
            try:
                await future
            except asyncio.CancelledError:
                continue


class _Call(Generic[T]):
    """A function that runs in a thread. All but `work` happens in the thread of the event loop."""

    __slots__ = ("_loop", "done", "error", "future", "value", "work")

    def __init__(self, work: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self._loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.done = False
        self.value: T
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do it, in a thread."""
        try:
            self.value = self.work()
        except BaseException as error:
            self.error = error

    def report(self) -> None:
        """Tell the event loop, from the thread."""
        try:
            self._loop.call_soon_threadsafe(self._arrive)
        except RuntimeError:
            pass  # the loop was closed, and nobody is left to be told

    def is_done(self) -> bool:
        return self.done

    def tell(self, future: asyncio.Future[None]) -> None:
        self.future = future

    def _arrive(self) -> None:
        self.done = True
        if not self.future.done():
            self.future.set_result(None)

    def result(self) -> T:
        """Return the value, or raise what was raised."""
        if self.error is not None:
            raise self.error
        return self.value


class Threads:
    """Run blocking calls in at most `most` threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._limiter: CapacityLimiter | None = None
        self._active = 0
        self._idle: asyncio.Future[None] | None = None
        self._queue: SimpleQueue[_Call[Any] | None] = SimpleQueue()
        self._lock = Lock()
        # Threads, and those of them that wait for a call or are about to.
        self._count = self._free = 0

    async def run(self, work: Callable[[], T], *, undo: Callable[[T], bool] | None = None) -> T:
        """Call `work` in a thread and wait until it returns, also if the caller is cancelled.

        Args:
            work: what to call.
            undo: called with the value, in a thread, if the caller was cancelled. Where it returns False, it could not
                be undone: the value is returned, and the cancellation comes with the caller's next await.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._limiter is None:
            self._loop, self._limiter = loop, CapacityLimiter(self._most)
        limiter = self._limiter
        call = _Call(work, loop)
        try:
            limiter.acquire_on_behalf_of_nowait(call)
        except WouldBlock:
            await limiter.acquire_on_behalf_of(call)
        self._active += 1
        try:
            self._begin(call)
            try:
                await call.future
            except asyncio.CancelledError:
                await finished(call.is_done, call.tell)
                if undo is None or call.error is not None or not await self._kept(undo, call.value):
                    raise
                _cancel_again()
            return call.result()
        finally:
            limiter.release_on_behalf_of(call)
            self._active -= 1
            if not self._active and self._idle is not None and not self._idle.done():
                self._idle.set_result(None)

    async def wait_idle(self) -> None:
        """Return when no call is running."""
        while self._active:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    def end(self) -> None:
        """Let the threads go."""
        with self._lock:
            for _ in range(self._count):
                self._queue.put(None)

    async def _kept(self, undo: Callable[[T], bool], value: T) -> bool:
        """Undo it, whatever is cancelled meanwhile; return whether that was too late."""
        undone = _Call(partial(undo, value), asyncio.get_running_loop())
        self._begin(undone)
        await finished(undone.is_done, undone.tell)
        return not undone.result()

    def _begin(self, call: _Call[Any]) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
            else:
                self._count += 1
                Thread(target=self._work, name=f"smtp-async-spool-{self._count}", daemon=True).start()
        self._queue.put(call)

    def _work(self) -> None:
        while True:
            try:
                call = self._queue.get(timeout=IDLE)
            except Empty:
                with self._lock:
                    # One that was just promised to a caller must stay.
                    if self._free:
                        self._free -= 1
                        self._count -= 1
                        return
                continue
            if call is None:
                return
            call.run()
            # First, or the next call would find no thread free and begin another.
            with self._lock:
                self._free += 1
            call.report()
            del call


def _cancel_again() -> None:
    """Let the task meet its cancellation at its next await; the number of requests stays what it was."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        task.uncancel()
        task.cancel()
