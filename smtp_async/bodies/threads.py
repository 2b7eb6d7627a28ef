"""Work in threads of our own, and closing what they work on."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Final, TypeVar

from ..errors import Busy, UsageError

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from anyio.lowlevel import RunVar

__all__ = ["ThreadWork"]

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
        from anyio import to_thread

        self._demand_free()
        return await to_thread.run_sync(
            partial(self._run, work), abandon_on_cancel=True, limiter=self._limiter or _own_limiter()
        )

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


@cache
def _limiters() -> RunVar[CapacityLimiter]:
    from anyio.lowlevel import RunVar

    return RunVar("smtp_async.bodies")


def _own_limiter() -> CapacityLimiter:
    """Return the limiter of the running event loop."""
    limiter = _limiters().get(None)
    if limiter is None:
        from anyio import CapacityLimiter

        limiter = CapacityLimiter(THREADS)
        _limiters().set(limiter)
    return limiter
