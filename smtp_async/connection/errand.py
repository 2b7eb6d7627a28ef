"""What a caller's task does for its message beside waiting for the server: read, open, write and close its sources.

Strategy. An errand runs a coroutine in the caller's own task, so that its context variables, its generators and its
cancellation stay the caller's. But the task does not wait for what the coroutine waits for: it waits for a future of
the errand, which both may wake. So the task can leave the coroutine whatever that does. Two things end an errand early:

* `stop`: the message has come to its end. The coroutine is cancelled, as a task would be, and its clean-up is awaited.
* `leave`: the caller's time is over. The coroutine is cancelled; if it does not end at once, because it cleans up
  slowly, waits for another task, or takes no notice, a task of its own goes on with it, and the caller's goes its way.

Neither is a cancellation of the caller's task: nothing has to be taken back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from enum import IntEnum
from typing import Any, Final, Generic, TypeVar

__all__ = ["Errand", "Left", "Stopped"]

_log = logging.getLogger("smtp_async")
T = TypeVar("T")


class Stopped(Exception):
    """The errand was stopped: what it was for has come to its end."""


class Left(Stopped):
    """The caller's time is over."""


class _Order(IntEnum):
    GO_ON = 0
    STOP = 1
    LEAVE = 2


class Errand(Generic[T]):
    """An awaitable that runs `work` in the task that awaits it.

    Args:
        work: what to do.
        due: loop time at which the caller no longer waits, None for never. Who watches it calls `leave`.
        unwanted: takes the result of work that was left, when it comes.

    Awaiting it returns the result of the work, and raises what that raises; and
        Stopped, Left: `stop` or `leave` was called, and the work did not end by itself.
        CancelledError: the task was cancelled.
    """

    __slots__ = (
        "__weakref__",
        "_awaited",
        "_cancellations",
        "_handed_over",
        "_loop",
        "_order",
        "_passed_on",
        "_task",
        "_unwanted",
        "_waiter",
        "_work",
        "due",
    )

    def __init__(
        self,
        work: Coroutine[Any, Any, T],
        due: float | None = None,
        *,
        unwanted: Callable[[T], object] | None = None,
    ) -> None:
        self._work = work
        self.due = due
        self._unwanted = unwanted
        self._loop = asyncio.get_running_loop()
        self._order = _Order.GO_ON
        # Was the work cancelled because of the order?
        self._passed_on = False
        self._handed_over = False
        # The caller's, and how often it was cancelled before.
        self._task: asyncio.Task[Any] | None = None
        self._cancellations = 0
        # What the work waits for, and what the task waits for meanwhile.
        self._awaited: asyncio.Future[Any] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def stop(self) -> None:
        """Cancel the work; its clean-up is awaited. Synchronous."""
        self._give(_Order.STOP)

    def leave(self) -> None:
        """Cancel the work, and let the caller go on. Synchronous."""
        self._give(_Order.LEAVE)

    def _give(self, order: _Order) -> None:
        self._order = max(self._order, order)
        self._wake()

    @property
    def _cancelled(self) -> bool:
        """Was the caller cancelled, by somebody else? A time limit within the work takes its own cancellation back."""
        return self._task is not None and self._task.cancelling() > self._cancellations

    def _wake(self, _: object = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __await__(self) -> Generator[Any, Any, T]:
        throw: BaseException | None = None
        self._task = task = asyncio.current_task(self._loop)
        self._cancellations = task.cancelling() if task is not None else 0
        try:
            while True:
                self._awaited = self._work.send(None) if throw is None else self._work.throw(throw)
                throw = yield from self._wait()
        except StopIteration as end:
            value: T = end.value
            return value
        except asyncio.CancelledError:
            if self._passed_on and not self._cancelled:
                raise self._told() from None
            raise
        finally:
            if not self._handed_over:
                self._work.close()

    def _wait(self) -> Generator[Any, Any, BaseException | None]:
        """Wait for what the work waits for; return what is to be raised in it.

        Raises:
            Left, CancelledError: the work goes on elsewhere.
        """
        awaited = self._awaited
        if awaited is not None:
            # As a task does with what it is given to wait for: others may wait for the same.
            awaited._asyncio_future_blocking = False
        if self._order is _Order.LEAVE and (self._passed_on or self._cancelled):
            # It was cancelled and takes its time.
            self._hand_over()
        if awaited is None:
            return (yield from self._let_others())
        awaited.add_done_callback(self._wake)
        while True:
            if self._order and not (self._passed_on or self._cancelled):
                self._passed_on = True
                # As for a task that is cancelled: so is what it waits for, which may take its time.
                if awaited.done() or not awaited.cancel():
                    return asyncio.CancelledError()
            if awaited.done():
                return None
            if self._order is _Order.LEAVE:
                self._hand_over()
            self._waiter = waiter = self._loop.create_future()
            try:
                yield from waiter
            except asyncio.CancelledError as error:
                # With its message, by which anyio knows its own.
                if awaited.done() or not awaited.cancel(*error.args):
                    return error

    def _let_others(self) -> Generator[Any, Any, BaseException | None]:
        """Give the loop a turn, which is all that the work asked for."""
        try:
            yield None
        except asyncio.CancelledError as error:
            return error
        if self._order and not self._passed_on:
            self._passed_on = True
            return asyncio.CancelledError()
        return None

    def _told(self) -> Stopped:
        return Left() if self._order is _Order.LEAVE else Stopped()

    def _hand_over(self) -> None:
        """Let a task of its own go on with the work, and leave it."""
        self._handed_over = True
        rest = _Rest(self._work, self._awaited)
        task = self._loop.create_task(rest.finish(self._unwanted), name="smtp_async: a source that was left")
        # The loop holds tasks weakly.
        _left_behind.add(task)
        task.add_done_callback(_left_behind.discard)
        raise asyncio.CancelledError if self._cancelled else self._told()


class _Rest(Generic[T]):
    """What is left of a coroutine that waits for something, for another task to await."""

    __slots__ = ("_awaited", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], awaited: asyncio.Future[Any] | None) -> None:
        self._work = work
        self._awaited = awaited

    async def finish(self, unwanted: Callable[[T], object] | None) -> None:
        """Go on to the end, which nobody waits for."""
        try:
            result = await self
        except Exception as error:
            _log.debug("a source that was left behind ended with %r", error)
        else:
            if unwanted is not None:
                unwanted(result)

    def __await__(self) -> Generator[Any, Any, T]:
        awaited = self._awaited
        if awaited is not None:
            # The errand took it back; a task takes nothing else than what says that it is to be waited for.
            awaited._asyncio_future_blocking = True
        try:
            while True:
                try:
                    yield awaited
                except BaseException as error:
                    awaited = self._work.throw(error)
                else:
                    awaited = self._work.send(None)
        except StopIteration as end:
            value: T = end.value
            return value


_left_behind: Final[set[asyncio.Task[None]]] = set()
