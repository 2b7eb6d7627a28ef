"""Calls that block, in threads, which a cancelled caller waits for: half a step would be worse than a late one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, TypeVar

from anyio import CancelScope, CapacityLimiter, WouldBlock, to_thread

__all__ = ["Threads", "finished"]

T = TypeVar("T")


async def finished(is_done: Callable[[], bool], again: Callable[[asyncio.Future[None]], None]) -> None:
    """Wait for what cannot be stopped, after a cancellation, whatever is cancelled meanwhile.

    Args:
        is_done: tells whether it is over.
        again: is given a future to be set when it is.
    """
    loop = asyncio.get_running_loop()
    # Within the scope of anyio a cancellation would be repeated at every turn.
    with CancelScope(shield=True):
        while not is_done():
            future: asyncio.Future[None] = loop.create_future()
            again(future)
            try:
                await future
            except asyncio.CancelledError:
                continue


class _Call(Generic[T]):
    """A function that runs in a thread, at most once."""

    __slots__ = (
        "_arguments",
        "_function",
        "_lock",
        "_loop",
        "_waiter",
        "abandoned",
        "done",
        "started",
        "value",
    )

    def __init__(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._arguments = arguments
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.abandoned = self.started = self.done = False
        self.value: list[T] = []

    def __call__(self) -> T:
        with self._lock:
            if self.abandoned:
                raise RuntimeError("nobody waits for this any more")
            self.started = True
        try:
            value = self._function(*self._arguments)
            self.value.append(value)
            return value
        finally:
            with self._lock:
                self.done = True
                if self._waiter is not None and self._loop is not None:
                    self._loop.call_soon_threadsafe(_wake, self._waiter)

    def abandon(self) -> bool:
        """Keep it from being started; False if it was."""
        with self._lock:
            self.abandoned = not self.started
            return self.abandoned

    def is_done(self) -> bool:
        return self.done

    def tell(self, waiter: asyncio.Future[None]) -> None:
        """Have `waiter` set when it is done."""
        with self._lock:
            self._loop, self._waiter = waiter.get_loop(), waiter
            if self.done:
                _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Threads:
    """Run blocking calls in at most `most` threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._limiter: CapacityLimiter | None = None
        self._no_limit: CapacityLimiter | None = None
        self._idle: asyncio.Future[None] | None = None
        self.active = 0

    async def run(
        self, function: Callable[..., T], *arguments: Any, undo: Callable[[T], bool] | None = None
    ) -> T:
        """Call `function` in a thread and wait until it returns, also if the caller is cancelled.

        Args:
            function: what to call.
            arguments: its arguments.
            undo: called with the value, in a thread, if the caller was cancelled. Where it returns False, it could not
                be undone: the value is returned, and the cancellation comes with the caller's next await.
        """
        limiter = self._bound()
        call = _Call(function, arguments)
        try:
            limiter.acquire_on_behalf_of_nowait(call)
        except WouldBlock:
            await limiter.acquire_on_behalf_of(call)
        self.active += 1
        try:
            # The second limiter is never full: whatever is handed over to it is begun.
            return await to_thread.run_sync(call, limiter=self._no_limit)
        except asyncio.CancelledError:
            if call.abandon():
                raise
            await finished(call.is_done, call.tell)
            if undo is None or not call.value:
                raise
            undone = _Call(undo, (call.value[0],))
            await self._settle(undone)
            if undone.value != [False]:
                raise
            _cancel_again()
            return call.value[0]
        finally:
            self.active -= 1
            if self._idle is not None and not self.active:
                _wake(self._idle)
            limiter.release_on_behalf_of(call)

    async def _settle(self, call: _Call[Any]) -> None:
        try:
            await to_thread.run_sync(call, limiter=self._no_limit)
        except asyncio.CancelledError:
            # Not begun: then it is done here, late as it is.
            if call.abandon():
                call.abandoned = False
                call()
            await finished(call.is_done, call.tell)

    async def wait_idle(self) -> None:
        """Return when no call is running."""
        if self.active:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    def _bound(self) -> CapacityLimiter:
        loop = asyncio.get_running_loop()
        if self._limiter is None or self._loop is not loop:
            self._loop = loop
            self._limiter = CapacityLimiter(self._most)
            self._no_limit = CapacityLimiter(math.inf)
        return self._limiter


def _cancel_again() -> None:
    """Let the task meet its cancellation at its next await; the number of requests stays what it was."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        task.uncancel()
        task.cancel()
