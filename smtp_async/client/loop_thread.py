"""An event loop in a thread of its own, and the clients and spools in it, for callers in other threads.

Strategy: callers hand a coroutine over and wait for its end, in their own thread. The loop runs until it is stopped:
by `close`, because nothing refers to it any more, or because the interpreter exits. Its clients are then closed in it,
politely. A forked child inherits neither the thread nor the connections: there, everything begins anew at the next
call, and what belongs to the parent stays untouched, because closing it would end the parent's dialogues.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import Future
from threading import Event, RLock, Thread, get_ident
from typing import Any, Final, Protocol, TypeVar, cast
from weakref import WeakSet

from ..errors import NotConnected, SocketError, UsageError
from ..model.receipt import Receipt

__all__ = ["LoopThread", "Serving"]

T = TypeVar("T")
C = TypeVar("C", bound="Closable")

#: Seconds for callers to receive what became of their messages, after the clients were closed.
_LAST_WORDS: Final = 1.0
#: Seconds for the clients to be closed when the interpreter exits; a server may not answer QUIT.
_AT_EXIT: Final = 2.0

_CLOSED: Final = "the client is closed: make a new one, or leave its `with` block later"

_log = logging.getLogger("smtp_async")


class Closable(Protocol):
    """What lives in an event loop and ends with it: a client, or a spool."""

    async def close(self) -> None:
        """End in an orderly way."""


class Serving:
    """An event loop that runs in its thread.

    Raises:
        SocketError: the system has no room for the loop, for example no free file descriptor.
    """

    def __init__(self, name: str) -> None:
        self._lock = RLock()
        self._stopped = False
        # The calls that still run are being cancelled, because the loop ends.
        self._withdrawing = False
        self._kept: dict[Hashable, Closable] = {}
        self._calls: set[asyncio.Task[Any]] = set()
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self.thread = Thread(target=self._run, args=(started,), name=name, daemon=True)
        self.thread.start()
        try:
            self._loop, self._stop = started.result()
        except OSError as error:
            raise SocketError.of(error, f"no event loop can be made: {error.strerror}") from error

    # --- in other threads ------------------------------------------------------------------------------------

    def keep(self, key: Hashable, make: Callable[[], C]) -> C:
        """Return the object of `key`, which the first call makes; it is closed when the loop ends.

        Raises:
            NotConnected: the loop was stopped.
        """
        with self._lock:
            if self._stopped:
                raise NotConnected(_CLOSED)
            kept = self._kept.get(key)
            if kept is None:
                kept = self._kept[key] = make()
            return cast(C, kept)

    def submit(self, call: Coroutine[Any, Any, T], *, awaited: bool = True) -> Future[T]:
        """Run `call` in the loop, in a copy of the caller's context.

        Args:
            call: the coroutine.
            awaited: whether the end of the loop waits for it.

        Raises:
            NotConnected: the loop was stopped.
        """
        with self._lock:
            if self._stopped:
                call.close()
                raise NotConnected(_CLOSED)
            return asyncio.run_coroutine_threadsafe(self._noted(call) if awaited else call, self._loop)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run `call` in the loop and wait for its result; a wait that is interrupted cancels it.

        Raises:
            UsageError: the caller is in the loop's own thread, which would wait for itself.
            NotConnected: the loop was stopped.
            NotSent, OutcomeUnknown: the loop was stopped, and this is what became of the message of the call.
        """
        if get_ident() == self.thread.ident:
            call.close()
            raise UsageError(
                "a hook or callback of a blocking client cannot wait for that client: use another thread"
            )
        future = self.submit(call)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise NotConnected("the client was closed") from None
        finally:
            future.cancel()

    def stop(self) -> None:
        """Take no more calls, close the clients, and end. Returns at once, in any thread."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._loop.call_soon_threadsafe(self._stop.set)

    # --- in the loop's thread --------------------------------------------------------------------------------

    def _run(self, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve(started))
        except Exception as error:
            if not started.done():
                # The loop could not be made, for example without a free file descriptor; the caller waits for it.
                started.set_exception(error)
            elif not (isinstance(error, RuntimeError) and _exiting.is_set()):
                # At exit asyncio cannot start the thread in which it would wait for the executor's.
                raise
        finally:
            _serving.discard(self)

    async def _serve(self, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
        stop = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()
        for kept in self._kept.values():
            try:
                await kept.close()
            except Exception as error:
                # Of a spool it may be one of the database. The others are closed all the same.
                _log.warning("%r could not be closed: %s", kept, error)
        if self._calls:
            # Whose outcomes are known, and would be lost if their tasks were cancelled now.
            await asyncio.wait(self._calls, timeout=_LAST_WORDS)
        if self._calls:
            self._withdrawing = True
            for call in self._calls:
                call.cancel()
            await asyncio.wait(self._calls, timeout=_LAST_WORDS)

    async def _noted(self, call: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            return await call
        except asyncio.CancelledError as cancelled:
            if self._withdrawing:
                _raise_outcome(getattr(cancelled, "receipt", None))
            raise
        finally:
            self._calls.discard(task)


def _raise_outcome(receipt: object) -> None:
    """Raise what became of the message of a call that was withdrawn; return if it had none.

    Raises:
        NotSent, OutcomeUnknown: as the receipt says.
        NotConnected: the message was accepted, as `receipt` of the error says.
    """
    if isinstance(receipt, Receipt):
        receipt.raise_for_outcome()
        error = NotConnected("the client was closed after the message had been accepted")
        error.receipt = receipt
        raise error


#: Set when the interpreter exits.
_exiting: Final = Event()
#: The loops of this process that run.
_serving: Final[set[Serving]] = set()
#: Those of the parent, which live until this process ends: collecting them would close what the parent uses.
_of_parent: Final[list[Serving]] = []


class LoopThread:
    """An event loop in a thread that is started by the first call, and again in a forked child.

    Args:
        name: of the thread.

    Attributes:
        closed: whether `close` was called.
    """

    _all: Final[WeakSet[LoopThread]] = WeakSet()

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = RLock()
        self._serving: Serving | None = None
        self.closed = False
        self._all.add(self)

    @property
    def running(self) -> bool:
        """Whether the thread was started in this process."""
        return self._serving is not None

    def serving(self) -> Serving:
        """Return the running loop; the first call starts it.

        Raises:
            NotConnected: it was closed.
            SocketError: the system has no room for the loop; a later call tries again.
        """
        with self._lock:
            if self.closed:
                raise NotConnected(_CLOSED)
            if self._serving is None:
                self._serving = Serving(self._name)
                _serving.add(self._serving)
            return self._serving

    def stop(self) -> None:
        """Have the clients closed and the loop ended, without waiting for it."""
        if self._serving is not None:
            self._serving.stop()

    def close(self) -> None:
        """Close the clients, end the loop, and wait for both."""
        with self._lock:
            self.closed = True
            serving = self._serving
        if serving is not None:
            serving.stop()
            if get_ident() != serving.thread.ident:
                serving.thread.join()

    @classmethod
    def _forked(cls) -> None:
        """Begin anew in a forked child, where only the thread that forked goes on."""
        _of_parent.extend(_serving)
        _serving.clear()
        for one in cls._all:
            # Another thread may have held the lock.
            one._lock, one._serving = RLock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LoopThread._forked)


@atexit.register
def _exit() -> None:
    """Say QUIT when the interpreter exits, as far as servers answer soon."""
    _exiting.set()
    running = [*_serving]
    for one in running:
        # The interpreter may have ended the loop's thread in its middle.
        with contextlib.suppress(RuntimeError):
            one.stop()
    for one in running:
        one.thread.join(_AT_EXIT)
