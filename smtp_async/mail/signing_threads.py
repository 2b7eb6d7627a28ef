"""The threads in which keys sign that take their time: an RSA signature takes a millisecond.

Strategy. A hop to a thread and back costs a fifth of such a signature, and a hundred callers that sign at once would
hold the event loop for milliseconds with their hops alone. So the threads stay while there is work: a caller only
appends its work, a thread takes one after the other, and results that come close together wake the loop once. A
thread ends when it has had nothing to do for a second.

Only what computes belongs here: work that waits would keep a thread from all others (`sources.in_thread`).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["SigningThreads", "in_signing_thread"]

_T = TypeVar("_T")

#: Threads for one event loop. Signatures of the package cryptography are computed side by side.
THREADS: Final = min(4, os.cpu_count() or 1)
#: Seconds without work after which a thread ends.
IDLE: Final = 1.0

_Work = tuple["asyncio.Future[Any]", contextvars.Context, Callable[[], Any]]
_Result = tuple["asyncio.Future[Any]", Any, "BaseException | None"]


class SigningThreads:
    """The threads of one event loop.

    Args:
        threads: the most.
        idle: seconds without work after which a thread ends.
    """

    def __init__(self, *, threads: int = THREADS, idle: float = IDLE) -> None:
        self._threads = threads
        self._idle = idle
        self._works: SimpleQueue[_Work] = SimpleQueue()
        # Guards what follows.
        self._lock = threading.Lock()
        self._running = 0
        # Works that are not done, also those that a thread is at.
        self._pending = 0
        self._results: list[_Result] = []

    async def call(self, work: Callable[[], _T]) -> _T:
        """Call `work` in a thread, in the caller's context, and return its result.

        If the caller is cancelled, work that has begun continues, and other work is not done.
        """
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._append((future, contextvars.copy_context(), work))
        return await future

    def _append(self, work: _Work) -> None:
        with self._lock:
            self._pending += 1
            start = self._running < min(self._pending, self._threads)
            self._running += start
        self._works.put(work)
        if start:
            # A daemon, because an idle thread must not keep the program from ending.
            threading.Thread(target=self._run, name="smtp_async signing", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                future, context, call = self._works.get(timeout=self._idle)
            except Empty:
                with self._lock:
                    if not self._pending:
                        self._running -= 1
                        return
                continue
            result: Any = None
            error: BaseException | None = None
            if not future.cancelled():
                try:
                    result = context.run(call)
                except StopIteration as raised:
                    # No future takes it.
                    error = RuntimeError("the work raised StopIteration")
                    error.__cause__ = raised
                except BaseException as raised:
                    error = raised
            self._end(future, result, error)
            # An idle thread keeps nothing of the message.
            del future, context, call, result, error

    def _end(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        with self._lock:
            self._pending -= 1
            self._results.append((future, result, error))
            waking = len(self._results) > 1
        if not waking:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                future.get_loop().call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        """Give the callers what is there; in the event loop."""
        with self._lock:
            results, self._results = self._results, []
        for future, result, error in results:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


_of_loops: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, SigningThreads]] = WeakKeyDictionary()


async def in_signing_thread(work: Callable[[], _T]) -> _T:
    """Do as `SigningThreads.call`, with the threads of the running event loop."""
    loop = asyncio.get_running_loop()
    threads = _of_loops.get(loop)
    if threads is None:
        threads = _of_loops[loop] = SigningThreads()
    return await threads.call(work)
