"""Work in worker threads, and closing files that a thread may still be reading."""

from __future__ import annotations

import asyncio
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from ..errors import Busy, UsageError

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from anyio.lowlevel import RunVar

__all__ = ["THREADS", "ThreadWork", "in_thread", "loop_limiters"]

_T = TypeVar("_T")

#: Running threads for all messages of one event loop. Few can encode at once, but many may wait for a slow stream.
THREADS: Final = 16

# Set once anyio is imported, with the modules that it imports when it starts its first thread.
_imported: Final = threading.Event()


class ThreadWork(ABC):
    """An object on which one thread at a time works, for a caller that may be cancelled meanwhile.

    A thread cannot be stopped, so it finishes its work. The files are closed by `close()`, or by a thread that ends
    after it. `close()` never waits.

    Args:
        limiter: limits the running threads; by default the library's limiter of the event loop.
    """

    def __init__(self, limiter: CapacityLimiter | None = None) -> None:
        self._limiter = limiter
        # Guards the attributes below, which threads read, too.
        self._lock = threading.Lock()
        self._busy = False
        self._closed = False
        self._streams = True

    @property
    def busy(self) -> bool:
        """Whether a thread is running."""
        return self._busy

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Call `work` in a thread and return its result.

        Raises:
            UsageError: the object was closed.
            Busy: a thread is still running, for a caller that was cancelled.
        """
        self._demand_free()
        return await in_thread(partial(self._run, work), self._limiter)

    def close(self, *, streams: bool = True) -> None:
        """Close the files opened here, and the streams whose source has `close`; final, never waits.

        Args:
            streams: False leaves the caller's streams open in any case, because another reader continues with
                them.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._streams = streams
            if self._busy:
                # The thread closes them when it has finished, because a file must not be closed while it is read.
                return
        self._close_files(streams=streams)

    @abstractmethod
    def _close_files(self, *, streams: bool) -> None:
        """Close the files; called once, when no thread is running."""

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
                self._close_files(streams=self._streams)

    def _demand_free(self) -> None:
        if self._closed:
            raise UsageError("the body was closed")
        if self._busy:
            raise Busy("a thread still reads for an earlier call that was cancelled")


class _Token(Generic[_T]):
    """The slot of one call among the worker threads; a thread whose caller was cancelled keeps it until it ends.

    Args:
        work: called in the thread.
        limiter: the limiter that has the slot.
    """

    __slots__ = ("_limiter", "_lock", "_loop", "_over", "_work")

    def __init__(self, work: Callable[[], _T], limiter: CapacityLimiter) -> None:
        self._work = work
        self._limiter = limiter
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        # True once the thread will release the slot, or the slot is released.
        self._over = False

    def run(self) -> _T:
        """Call `work`, in the thread."""
        with self._lock:
            if self._over:
                # No caller is left to see this error.
                raise UsageError("the caller was cancelled before the work began")
            self._over = True
        try:
            return self._work()
        finally:
            with suppress(RuntimeError):  # the loop was closed, and its limiter with it
                self._loop.call_soon_threadsafe(self._limiter.release_on_behalf_of, self)

    def leave(self) -> None:
        """Release the slot for a caller that has its result or was cancelled, unless the running thread releases it."""
        with self._lock:
            over, self._over = self._over, True
        if not over:
            self._limiter.release_on_behalf_of(self)


async def in_thread(work: Callable[[], _T], limiter: CapacityLimiter | None = None) -> _T:
    """Call `work` in a thread and return its result; if the caller is cancelled, the thread continues.

    Args:
        work: called in the thread.
        limiter: limits the running threads, those of cancelled callers included; by default the library's limiter of
            the event loop.
    """
    if not _imported.is_set():
        # The import would block the event loop for 20 ms, and much longer if the files are not in the system's cache.
        await asyncio.to_thread(_import_anyio)
    from anyio import to_thread

    limiters = loop_limiters()
    limiter = limiter or limiters.few
    token = _Token(work, limiter)
    await limiter.acquire_on_behalf_of(token)
    try:
        return await to_thread.run_sync(token.run, abandon_on_cancel=True, limiter=limiters.any)
    finally:
        token.leave()


def _import_anyio() -> None:
    import_module("anyio.to_thread")
    with suppress(ImportError):  # the name is private
        import_module("anyio._backends._asyncio")
    _imported.set()


class Limiters(NamedTuple):
    """The limiters of one event loop: ours, and an unlimited one, because anyio frees slots of cancelled callers."""

    few: CapacityLimiter
    any: CapacityLimiter


@cache
def _of_loops() -> RunVar[Limiters]:
    from anyio.lowlevel import RunVar

    return RunVar("smtp_async.sources")


def loop_limiters() -> Limiters:
    """Return the limiters of the running event loop."""
    limiters = _of_loops().get(None)
    if limiters is None:
        from anyio import CapacityLimiter

        limiters = Limiters(CapacityLimiter(THREADS), CapacityLimiter(math.inf))
        _of_loops().set(limiters)
    return limiters
