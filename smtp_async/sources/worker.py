"""Work in threads of our own, and closing what they work on."""

from __future__ import annotations

import asyncio
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from ..errors import Busy, UsageError

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from anyio.lowlevel import RunVar

__all__ = ["ThreadWork", "in_thread"]

_T = TypeVar("_T")

#: Threads at work for all messages of one event loop. Few can encode at once, but many may wait for a slow stream.
THREADS: Final = 16


class ThreadWork(ABC):
    """Something that one thread at a time works on, for a caller that may be cancelled meanwhile.

    Nobody can stop a thread, so it is left alone: it finishes what it does, and whoever leaves last, the thread or
    `close()`, closes. `close()` never waits.

    Args:
        limiter: bounds the threads at work; by default one of our own for each event loop.
    """

    def __init__(self, limiter: CapacityLimiter | None = None) -> None:
        self._limiter = limiter
        # Guards what is below it, which threads look at, too.
        self._lock = threading.Lock()
        self._busy = False
        self._closed = False
        self._streams = True

    @property
    def busy(self) -> bool:
        """Is a thread at work?"""
        return self._busy

    @property
    def closed(self) -> bool:
        """Has it come to its end?"""
        return self._closed

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Return what `work` returns.

        Raises:
            UsageError: it was closed.
            Busy: a thread is still at work, for a caller that was cancelled.
        """
        self._demand_free()
        return await in_thread(partial(self._run, work), self._limiter)

    def close(self, *, streams: bool = True) -> None:
        """Close what was opened here, and streams whose source says so; final, and without waiting.

        Args:
            streams: False leaves the caller's streams open whatever their source says, since somebody else will read
                them.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._streams = streams
            if self._busy:
                # The thread does it when it has finished: a file is not closed while it is read.
                return
        self._release(streams=streams)

    @abstractmethod
    def _release(self, *, streams: bool) -> None:
        """Close; called once, when no thread is at work."""

    def _run(self, work: Callable[[], _T]) -> _T:
        with self._lock:
            self._demand_free()
            self._busy = True
        try:
            return work()
        finally:
            with self._lock:
                self._busy = False
                last = self._closed
            if last:
                self._release(streams=self._streams)

    def _demand_free(self) -> None:
        if self._closed:
            raise UsageError("what is read was closed")
        if self._busy:
            raise Busy("a thread still reads, for a caller that has gone")


class _Token(Generic[_T]):
    """The place of one call among the threads at work. A thread that a cancelled caller left keeps it to its end.

    Args:
        work: what the thread does.
        limiter: where the place is.
    """

    __slots__ = ("_limiter", "_lock", "_loop", "_over", "_work")

    def __init__(self, work: Callable[[], _T], limiter: CapacityLimiter) -> None:
        self._work = work
        self._limiter = limiter
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        # Is the place free again, or does the thread free it?
        self._over = False

    def run(self) -> _T:
        """Do the work, in the thread."""
        with self._lock:
            if self._over:
                # Raised to nobody.
                raise UsageError("the caller has gone before the work began")
            self._over = True
        try:
            return self._work()
        finally:
            with suppress(RuntimeError):  # the loop was closed, and its limiter with it
                self._loop.call_soon_threadsafe(self._limiter.release_on_behalf_of, self)

    def leave(self) -> None:
        """The caller has its answer, or has gone: free the place, unless a thread that has begun does."""
        with self._lock:
            over, self._over = self._over, True
        if not over:
            self._limiter.release_on_behalf_of(self)


async def in_thread(work: Callable[[], _T], limiter: CapacityLimiter | None = None) -> _T:
    """Return what `work` returns, called in a thread; a caller that is cancelled leaves the thread to itself.

    Args:
        work: what to call.
        limiter: bounds the threads at work, those that were left included; by default one of our own for each event
            loop.
    """
    from anyio import to_thread

    limiters = _limiters()
    limiter = limiter or limiters.few
    token = _Token(work, limiter)
    await limiter.acquire_on_behalf_of(token)
    try:
        return await to_thread.run_sync(token.run, abandon_on_cancel=True, limiter=limiters.any)
    finally:
        token.leave()


class _Limiters(NamedTuple):
    """Those of one event loop: ours, and one for anyio, which would let a cancelled caller's place go."""

    few: CapacityLimiter
    any: CapacityLimiter


@cache
def _of_loops() -> RunVar[_Limiters]:
    from anyio.lowlevel import RunVar

    return RunVar("smtp_async.sources")


def _limiters() -> _Limiters:
    """Return the limiters of the running event loop."""
    limiters = _of_loops().get(None)
    if limiters is None:
        from anyio import CapacityLimiter

        limiters = _Limiters(CapacityLimiter(THREADS), CapacityLimiter(math.inf))
        _of_loops().set(limiters)
    return limiters
