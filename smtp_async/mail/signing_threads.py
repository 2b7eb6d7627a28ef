"""The threads in which keys sign that take their time: an RSA signature takes a millisecond.

Strategy. A hop to a thread and back costs a fifth of such a signature, and a hundred callers that sign at once would
hold the event loop for milliseconds with their hops alone. So the threads stay while there is work: a caller only
appends its work, a thread takes one after the other, and results that come close together wake the loop once. A
thread ends when it has had nothing to do for a second. All event loops of the process share the threads, so that a
program that runs a loop for each message does not leave a thread behind for each.

Only what computes belongs here: work that waits would keep a thread from all others (`sources.in_thread`).
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from ..errors import SignerUnavailable

__all__ = ["SigningThreads", "in_signing_thread"]

_T = TypeVar("_T")

#: Threads of the process. Signatures of the package cryptography are computed side by side.
_THREADS: Final = min(4, os.cpu_count() or 1)
#: Seconds without work after which a thread ends.
_IDLE: Final = 1.0

_Result = tuple["asyncio.Future[Any]", Any, "BaseException | None"]


class _Results:
    """What the threads have done for one event loop and its callers have not been told yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Result] = []

    def append(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """Tell the caller that waits for `future`; in a thread."""
        with self._lock:
            self._waiting.append((future, result, error))
            waking = len(self._waiting) > 1
        if waking:
            return
        try:
            future.get_loop().call_soon_threadsafe(self._deliver)
        except RuntimeError:
            # The loop was closed. What is kept here would keep the loop in memory.
            self._waiting.clear()

    def _deliver(self) -> None:
        """Give the callers what is there; in the event loop."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future, result, error in waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


_Work = tuple["asyncio.Future[Any]", _Results, contextvars.Context, Callable[[], Any]]


class SigningThreads:
    """Threads that do what callers of any event loop give them.

    Args:
        threads: the most of them.
        idle: seconds without work after which one ends.
    """

    def __init__(self, *, threads: int = _THREADS, idle: float = _IDLE) -> None:
        self._most = threads
        self._idle = idle
        self._works: SimpleQueue[_Work] = SimpleQueue()
        # Guards what follows.
        self._lock = threading.Lock()
        self._running = 0
        # Works that are not done, also those that a thread is at.
        self._pending = 0
        self._results: WeakKeyDictionary[asyncio.AbstractEventLoop, _Results] = WeakKeyDictionary()

    async def call(self, work: Callable[[], _T]) -> _T:
        """Call `work` in a thread, in the caller's context, and return its result.

        If the caller is cancelled, work that has begun continues, and other work is not done.

        Raises:
            SignerUnavailable: the system starts no thread.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        with self._lock:
            results = self._results.get(loop)
            if results is None:
                results = self._results[loop] = _Results()
            self._pending += 1
            start = self._running < min(self._pending, self._most)
            self._running += start
        self._works.put((future, results, contextvars.copy_context(), work))
        if start:
            self._start(future)
        return await future

    def _start(self, future: asyncio.Future[Any]) -> None:
        """Start a thread. If that fails, the others do the work; without others, `future` is given up."""
        try:
            # A daemon, because an idle thread must not keep the program from ending.
            threading.Thread(target=self._run, name="smtp_async signing", daemon=True).start()
        except RuntimeError as error:
            with self._lock:
                self._running -= 1
                alone = not self._running
            if alone:
                # The next thread, of a later caller, passes over it.
                future.cancel()
                raise SignerUnavailable(f"no thread can be started to sign: {error}") from error

    def _run(self) -> None:
        while True:
            try:
                future, results, context, call = self._works.get(timeout=self._idle)
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
            with self._lock:
                self._pending -= 1
            results.append(future, result, error)
            # An idle thread keeps nothing of the message.
            del future, results, context, call, result, error


_threads = SigningThreads()


async def in_signing_thread(work: Callable[[], _T]) -> _T:
    """Call `work` in one of the threads of the process; as `SigningThreads.call`."""
    return await _threads.call(work)


def _forked() -> None:
    """Begin anew in a child, which has none of the threads, and in which the locks may be held for ever."""
    global _threads
    _threads = SigningThreads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
