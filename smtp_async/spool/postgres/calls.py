"""Calls to the database whose callers may be cancelled, and statements that many callers share.

A statement that was sent is never cancelled, because it would not be known whether it was committed. A caller that is
cancelled waits until its statement has ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from anyio import CancelScope

from ..late_cancel import cancel_again

__all__ = ["Calls", "StatementBatcher"]

A = TypeVar("A")
T = TypeVar("T")


class _Caller(Generic[T]):
    """A caller that waits for a result."""

    __slots__ = ("_error", "_value", "_wakeup", "done")

    def __init__(self) -> None:
        self._wakeup = asyncio.get_running_loop().create_future()
        self._error: BaseException | None = None
        self._value: T
        self.done = False

    @property
    def failed(self) -> bool:
        """Whether there is an exception instead of a result."""
        return self._error is not None

    def end(self, value: T | BaseException) -> None:
        """Set the result or the exception, and wake the caller."""
        if isinstance(value, BaseException):
            self._error = value
        else:
            self._value = value
        self.done = True
        if not self._wakeup.done():
            self._wakeup.set_result(None)

    def result(self) -> T:
        """Return the result, or raise the exception."""
        if self._error is not None:
            raise self._error
        return self._value

    async def wait(
        self,
        undo: Callable[[T], Awaitable[bool]] | None = None,
        withdraw: Callable[[], bool] = lambda: False,
    ) -> T:
        """Wait for the result.

        Args:
            undo: undoes the call if the caller was cancelled. If it returns False, that was not possible: the result is
                returned, and the task gets its cancellation at its next await.
            withdraw: called if the caller was cancelled; returns True if nothing was sent, and nothing will be.
        """
        try:
            await self._wakeup
        except asyncio.CancelledError as error:
            if withdraw():
                raise
            # A cancelled scope of anyio would repeat the cancellation in every iteration of the event loop.
            with CancelScope(shield=True):
                await self._finished()
                undone = undo is None or self.failed or await _completed(undo(self.result()))
            if undone:
                raise
            cancel_again(error)
        return self.result()

    async def _finished(self) -> None:
        """Wait for the result, ignoring further cancellation."""
        while not self.done:
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                await self._wakeup
            except asyncio.CancelledError:
                continue


async def _completed(work: Awaitable[bool]) -> bool:
    """Await `work`, ignoring further cancellation."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue
    return task.result()


class Calls:
    """The calls in progress, each in a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(
        self, work: Callable[[], Awaitable[T]], *, undo: Callable[[T], Awaitable[bool]] | None = None
    ) -> T:
        """Await `work()` to its end, even if the caller is cancelled."""
        caller: _Caller[T] = _Caller()
        self.start(self._run(work, caller))
        return await caller.wait(undo)

    def start(self, work: Awaitable[None]) -> None:
        """Await `work` in a task."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait_idle(self) -> None:
        """Wait until no call is in progress, even if the caller is cancelled."""
        cancelled: asyncio.CancelledError | None = None
        with CancelScope(shield=True):
            while tasks := {task for task in self._tasks if not task.done()}:
                try:
                    await asyncio.wait(tasks)
                except asyncio.CancelledError as error:
                    cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _run(self, work: Callable[[], Awaitable[T]], caller: _Caller[T]) -> None:
        try:
            caller.end(await work())
        except BaseException as error:
            caller.end(error)
            if isinstance(error, asyncio.CancelledError):
                raise


class _Item(_Caller[T], Generic[A, T]):
    """A caller of a batch, and its item."""

    __slots__ = ("value",)

    def __init__(self, value: A) -> None:
        super().__init__()
        self.value = value


class StatementBatcher(Generic[A, T]):
    """Awaits a function that processes many items at once, for callers with one item each.

    It differs from the `ThreadBatcher` of the spool in a directory: calls are made in the event loop, and as many at
    once as there are connections, because statements of one connection follow each other; items that arrive meanwhile
    share the next call.

    Callers in a loop would all wait for the same call, and then all work while none is in progress. So a call takes no
    more than its share of the callers, and those of one call work while the others wait.

    Args:
        calls: the tasks.
        function: returns the results of the items; an exception among them is raised to the caller of that item.
        at_once: the maximum number of calls in progress.
        most: the maximum number of items in a call.
        octets: returns how large an item is.
        most_octets: the maximum size of a call with several items.
    """

    def __init__(
        self,
        calls: Calls,
        function: Callable[[list[A]], Awaitable[Sequence[T | Exception]]],
        *,
        at_once: int = 1,
        most: int,
        octets: Callable[[A], int] = lambda item: 0,
        most_octets: int = 1,
    ) -> None:
        self._calls = calls
        self._function = function
        self._at_once = at_once
        self._most = most
        self._octets = octets
        self._most_octets = most_octets
        self._waiting: deque[_Item[A, T]] = deque()
        # The number of tasks that make calls, and of the items in their calls.
        self._working = 0
        self._taken = 0

    async def run(self, value: A, *, undo: Callable[[T], Awaitable[bool]] | None = None) -> T:
        """Process an item and wait for its result, even if the caller is cancelled.

        With `undo`, an item that still waits when its caller is cancelled is never processed.
        """
        item: _Item[A, T] = _Item(value)
        self._waiting.append(item)
        if self._working < self._at_once:
            self._working += 1
            self._calls.start(self._work())
        return await item.wait(undo, lambda: undo is not None and self._removed(item))

    async def _work(self) -> None:
        """Make calls until no item waits."""
        batch: list[_Item[A, T]] = []
        try:
            while self._waiting:
                batch = self._take(self._waiting)
                self._taken += len(batch)
                try:
                    results = await self._function([item.value for item in batch])
                except Exception as error:
                    results = [error] * len(batch)
                finally:
                    self._taken -= len(batch)
                for item, result in zip(batch, results, strict=True):
                    item.end(result)
        except BaseException as error:
            # The event loop ends.
            for item in [*batch, *self._waiting]:
                if not item.done:
                    item.end(error)
            raise
        finally:
            self._working -= 1

    def _take(self, waiting: deque[_Item[A, T]]) -> list[_Item[A, T]]:
        share = -(-(len(waiting) + self._taken) // self._at_once)
        most = min(self._most, share)
        batch = [waiting.popleft()]
        octets = self._octets(batch[0].value)
        while waiting and len(batch) < most:
            octets += self._octets(waiting[0].value)
            if octets > self._most_octets:
                break
            batch.append(waiting.popleft())
        return batch

    def _removed(self, item: _Item[A, T]) -> bool:
        try:
            self._waiting.remove(item)
        except ValueError:
            return False
        return True
