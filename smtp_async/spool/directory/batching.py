"""Calls that block, in threads, which a cancelled caller waits for: half a step would be worse than a late one.

The threads are our own: nobody else's slow calls hold up the mail, and handing a call over costs a third of what a
general pool takes for it, which counts where a call is a few system calls without a sync. A limiter of our own bounds
the calls that are made for one caller each.

What many callers want at once is done `Together`: they share a thread's turn, and what the disk is waited for. How many
of these calls run at once is their own to bound. What is undone for callers who were cancelled is bounded by nothing
but their number.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Final, Generic, TypeAlias, TypeVar

from anyio import CancelScope, CapacityLimiter, WouldBlock

from ...errors import SpoolError

__all__ = ["Threads", "Together"]

A = TypeVar("A")
T = TypeVar("T")

#: What a thread does, what happens in the event loop then, and that.
_Task: TypeAlias = tuple[Callable[[], None], Callable[[], None], asyncio.AbstractEventLoop]

#: Seconds after which a thread without work ends.
IDLE: Final = 10.0


class _Caller(Generic[T]):
    """Somebody who waits for what a thread does. All of it happens in the thread of the event loop."""

    __slots__ = ("done", "error", "future", "value")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[None] = loop.create_future()
        self.done = False
        self.value: T
        self.error: BaseException | None = None

    def wake(self) -> None:
        """It is done."""
        self.done = True
        if not self.future.done():
            self.future.set_result(None)

    async def finished(self) -> None:
        """Wait for what cannot be stopped, after a cancellation, whatever is cancelled meanwhile."""
        loop = asyncio.get_running_loop()
        # Within a scope of anyio a cancellation would be repeated at every turn.
        with CancelScope(shield=True):
            while not self.done:
                self.future = loop.create_future()
                try:
                    await self.future
                except asyncio.CancelledError:
                    continue

    def result(self) -> T:
        """Return the value, or raise what was raised."""
        if self.error is not None:
            raise self.error
        return self.value


class _Call(_Caller[T]):
    """A function that runs in a thread for one caller."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.work = work

    def run(self) -> None:
        """Do it, in a thread."""
        try:
            self.value = self.work()
        except BaseException as error:
            self.error = error


class Threads:
    """Run blocking calls: at most `most` for single callers at once, and those that are done together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._limiter: CapacityLimiter | None = None
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = Lock()
        # Threads, and those of them that wait for a call or are about to, less the calls that wait for a thread.
        self._count = self._free = 0
        # Calls that were ever begun, and those that are not over.
        self._begun = self._active = 0
        # Who wants to know when none is left.
        self._idle: _Caller[None] | None = None

    async def run(self, work: Callable[[], T], *, undo: Callable[[T], bool] | None = None) -> T:
        """Call `work` in a thread and wait until it returns, also if the caller is cancelled.

        Args:
            work: what to call.
            undo: called with the value, in a thread, if the caller was cancelled. Where it returns False, it could not
                be undone: the value is returned, and the cancellation comes when the caller waits next.
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
        try:
            self.begin(call.run, call.wake, loop)
            return await self.outcome(call, undo)
        finally:
            limiter.release_on_behalf_of(call)

    async def outcome(
        self,
        caller: _Caller[T],
        undo: Callable[[T], bool] | None,
        *,
        drop: Callable[[], bool] = lambda: False,
    ) -> T:
        """Wait for what was begun, as `run` does; `drop` tells whether a cancelled caller need not wait for it."""
        try:
            await caller.future
        except asyncio.CancelledError as error:
            if drop():
                raise
            await caller.finished()
            if undo is None or caller.error is not None or await self._undone(undo, caller.value):
                raise
            if not _of_anyio(error):
                _cancel_again()
        return caller.result()

    def begin(
        self, work: Callable[[], None], then: Callable[[], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Call `work` in a thread, then `then` in the event loop. Neither may raise.

        Raises:
            SpoolError: there is no thread, and the system lets none begin.
        """
        with self._lock:
            if self._free <= 0:
                self._start()
            self._free -= 1
            self._begun += 1
            self._active += 1
        self._queue.put((work, then, loop))

    def _start(self) -> None:
        """Begin a thread; where that cannot be, those that there are have to do."""
        try:
            Thread(target=self._work, name=f"smtp-async-spool-{self._count + 1}", daemon=True).start()
        except RuntimeError as error:
            if not self._count:
                raise SpoolError(f"no thread can be begun for the spool: {error}") from error
        else:
            self._count += 1
            self._free += 1

    async def wait_idle(self) -> None:
        """Return when nothing is running, whichever event loop it was begun in; a cancelled caller waits, too."""
        loop = asyncio.get_running_loop()
        cancelled: asyncio.CancelledError | None = None
        while True:
            caller: _Caller[None] = _Caller(loop)
            with self._lock:
                begun, active = self._begun, self._active
                self._idle = caller
            if not active:
                # What ended has told this loop, which is about to hear it and may begin something else.
                loop.call_soon(caller.wake)
            try:
                await caller.future
            except asyncio.CancelledError as error:
                cancelled = error
                await caller.finished()
            if not active and begun == self._begun:
                break
        if cancelled is not None:
            raise cancelled

    def end(self) -> None:
        """Let the threads go."""
        with self._lock:
            for _ in range(self._count):
                self._queue.put(None)
            # Who comes all the same must not wait for one that has gone.
            self._count = self._free = 0

    async def _undone(self, undo: Callable[[T], bool], value: T) -> bool:
        """Undo it, whatever is cancelled meanwhile; return whether it was not too late for that."""
        loop = asyncio.get_running_loop()
        call = _Call(partial(undo, value), loop)
        self.begin(call.run, call.wake, loop)
        await call.finished()
        return call.result()

    def _work(self) -> None:
        while True:
            try:
                task = self._queue.get(timeout=IDLE)
            except Empty:
                with self._lock:
                    # One that was just promised to a caller must stay.
                    if self._free > 0:
                        self._free -= 1
                        self._count -= 1
                        return
                continue
            if task is None:
                return
            work, then, loop = task
            work()
            # First, or the next call would find no thread free and begin another.
            with self._lock:
                self._free += 1
            _tell(loop, then)
            with self._lock:
                self._active -= 1
                idle = None if self._active else self._idle
            if idle is not None:
                _tell(idle.future.get_loop(), idle.wake)
            del task, work, then, loop, idle


class _Item(_Caller[T], Generic[A, T]):
    """A caller who shares a call."""

    __slots__ = ("item",)

    def __init__(self, item: A, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.item = item


class _Line(Generic[A, T]):
    """Who waits in one event loop, and how many calls run for it."""

    __slots__ = ("loop", "running", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: deque[_Item[A, T]] = deque()
        self.running = 0


class Together(Generic[A, T]):
    """A function that does many things in one go, for callers who each want one.

    It is called at once while it runs fewer than `parallel` times; who comes later shares the next call with whoever
    else came. What two event loops want at the same time is not shared.

    Args:
        threads: where it is called.
        work: does it, and tells what became of each: an exception is raised to that caller.
        parallel: how many calls run at once.
        most: how many share one.
        afterwards: called in a thread behind each call, when its callers have been told. It may not raise.
    """

    def __init__(
        self,
        threads: Threads,
        work: Callable[[list[A]], Sequence[T | Exception]],
        *,
        parallel: int,
        most: int,
        afterwards: Callable[[], None] | None = None,
    ) -> None:
        self._threads = threads
        self._work = work
        self._parallel = parallel
        self._most = most
        self._afterwards = afterwards
        self._line: _Line[A, T] | None = None

    async def run(self, item: A, *, undo: Callable[[T], bool] | None = None) -> T:
        """Have it done, and wait until it is, also if the caller is cancelled.

        Args:
            item: what is to be done.
            undo: as for `Threads.run`; and where it is given, what was not begun when the caller is cancelled never is.
        """
        loop = asyncio.get_running_loop()
        line = self._line
        if line is None or line.loop is not loop:
            # The calls of another loop go on for whoever waits there, if it lives.
            line = self._line = _Line(loop)
        caller: _Item[A, T] = _Item(item, loop)
        line.waiting.append(caller)
        self._begin(line)
        return await self._threads.outcome(
            caller, undo, drop=lambda: undo is not None and _drop(line, caller)
        )

    def _begin(self, line: _Line[A, T]) -> None:
        while line.waiting and line.running < self._parallel:
            count = min(len(line.waiting), self._most)
            batch = [line.waiting.popleft() for _ in range(count)]
            try:
                self._threads.begin(partial(self._do, batch), partial(self._done, batch, line), line.loop)
            except SpoolError as error:
                for caller in batch:
                    caller.error = error
                    caller.wake()
            else:
                line.running += 1

    def _do(self, batch: list[_Item[A, T]]) -> None:
        """In a thread."""
        try:
            results = self._work([caller.item for caller in batch])
        except BaseException as error:
            for caller in batch:
                caller.error = error
            return
        for caller, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                caller.error = result
            else:
                caller.value = result

    def _done(self, batch: list[_Item[A, T]], line: _Line[A, T]) -> None:
        line.running -= 1
        for caller in batch:
            caller.wake()
        self._begin(line)
        if self._afterwards is not None:
            with suppress(SpoolError):
                # Where no thread is to be had for it, the next call sees to it.
                self._threads.begin(self._afterwards, _nothing, line.loop)


def _drop(line: _Line[A, T], caller: _Item[A, T]) -> bool:
    try:
        line.waiting.remove(caller)
    except ValueError:
        return False
    return True


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        pass  # the loop was closed, and nobody is left to be told


def _nothing() -> None:
    pass


def _of_anyio(error: asyncio.CancelledError) -> bool:
    """Tell whether a scope of anyio was cancelled: it says so again by itself, as long as the task is in it."""
    return bool(error.args) and str(error.args[0]).startswith("Cancelled via cancel scope ")


def _cancel_again() -> None:
    """Let the task meet its cancellation when it waits next, unless who asked for it takes that back before.

    A time limit does, whose block ends with the call that could not be undone: then it was made in time.
    """
    task = asyncio.current_task()
    if task is not None:
        task.get_loop().call_soon(_cancel_if_asked, task)


def _cancel_if_asked(task: asyncio.Task[object]) -> None:
    if task.cancelling():
        # The number of requests stays what it was.
        task.uncancel()
        task.cancel()
