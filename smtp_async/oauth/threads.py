"""Threads for what blocks while a token is fetched: files, signatures, imports, and libraries that are not async."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

from ..sources.worker import in_thread

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from anyio.lowlevel import RunVar

__all__ = ["in_oauth_thread"]

_T = TypeVar("_T")

#: Threads at work for one event loop. Apart from those of message bodies, which may wait for slow streams.
_THREADS: Final = 4


async def in_oauth_thread(work: Callable[[], _T]) -> _T:
    """Return what `work` returns, called in a thread; if the caller is cancelled, the thread runs on."""
    limiters = _of_loops()
    limiter = limiters.get(None)
    if limiter is None:
        from anyio import CapacityLimiter

        limiter = CapacityLimiter(_THREADS)
        limiters.set(limiter)
    return await in_thread(work, limiter)


@cache
def _of_loops() -> RunVar[CapacityLimiter]:
    from anyio.lowlevel import RunVar

    return RunVar("smtp_async.oauth")
