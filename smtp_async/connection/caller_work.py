"""What a caller's task does for its message beside waiting for the server: read, open, write and close its sources.

Strategy. `CallerWork` runs a coroutine in the caller's own task, so that its context variables, its generators and its
cancellation stay the caller's. But the task does not wait for what the coroutine waits for. The task waits for a future
of the `CallerWork`, which is set when what the coroutine waits for is done, or when the work is to end. So the task can
continue without the coroutine, whatever the coroutine does. Two methods end the work early:

* `stop`: the message has ended. The coroutine is cancelled, as a task would be, and its clean-up is awaited.
* `abandon`: the caller's time is over. The coroutine is cancelled. If it does not end at once, because it cleans up
  slowly, waits for another task or ignores the cancellation, a task of its own runs the rest, and the caller's task
  continues.

Neither cancels the caller's task, so that no cancellation has to be taken back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from enum import IntEnum
from typing import Any, Final, Generic, TypeVar

__all__ = ["CallerWork", "WorkAbandoned", "WorkStopped"]

_log = logging.getLogger("smtp_async")
T = TypeVar("T")


class WorkStopped(Exception):
    """The work was stopped, because its message has ended."""


class WorkAbandoned(WorkStopped):
    """The work was abandoned, because the caller's time is over."""


class _Order(IntEnum):
    CONTINUE = 0
    STOP = 1
    ABANDON = 2


class CallerWork(Generic[T]):
    """An awaitable that runs `work` in the task that awaits it.

    Args:
        work: what to do.
        due: loop time after which the caller no longer waits, None for no limit. The pool's `Deadlines` call `abandon`
            then.
        unwanted: called with the result of abandoned work, when there is one.

    Awaiting it returns the result of the work and raises what the work raises. It also raises
        WorkStopped, WorkAbandoned: `stop` or `abandon` was called, and the work did not end by itself.
        CancelledError: the task was cancelled.
    """

    __slots__ = (
        "__weakref__",
        "_awaited",
        "_cancellations",
        "_handed_over",
        "_loop",
        "_order",
        "_order_passed_on",
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
        self._order = _Order.CONTINUE
        # Whether the work was cancelled because of the order.
        self._order_passed_on = False
        self._handed_over = False
        # The caller's task, and how often it was cancelled before.
        self._task: asyncio.Task[Any] | None = None
        self._cancellations = 0
        # What the work waits for, and what the task waits for meanwhile.
        self._awaited: asyncio.Future[Any] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def stop(self) -> None:
        """Cancel the work; its clean-up is awaited. Synchronous."""
        self._give(_Order.STOP)

    def abandon(self) -> None:
        """Cancel the work, and let the caller go on. Synchronous."""
        self._give(_Order.ABANDON)

    def _give(self, order: _Order) -> None:
        self._order = max(self._order, order)
        self._wake()

    @property
    def _cancelled(self) -> bool:
        """Whether the caller's task was cancelled from outside, which a time limit within the work takes back."""
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
            if self._order_passed_on and not self._cancelled:
                raise self._ending() from None
            raise
        finally:
            if not self._handed_over:
                self._work.close()

    def _wait(self) -> Generator[Any, Any, BaseException | None]:
        """Wait for what the work waits for; return the exception that is to be raised in the work, None for none.

        Raises:
            WorkAbandoned, CancelledError: the work continues in another task.
        """
        awaited = self._awaited
        if awaited is not None:
            # As a task does with a future that it is given: other tasks may wait for the same one.
            awaited._asyncio_future_blocking = False
        if self._order is _Order.ABANDON and (self._order_passed_on or self._cancelled):
            # The work was cancelled and has not ended.
            self._hand_over()
        if awaited is None:
            return (yield from self._yield_to_loop())
        awaited.add_done_callback(self._wake)
        while True:
            if self._order and not (self._order_passed_on or self._cancelled):
                self._order_passed_on = True
                # As for a task that is cancelled: what it waits for is cancelled too, and may end later.
                if awaited.done() or not awaited.cancel():
                    _retrieve(awaited)
                    return asyncio.CancelledError()
            if awaited.done():
                return None
            if self._order is _Order.ABANDON:
                self._hand_over()
            self._waiter = waiter = self._loop.create_future()
            try:
                yield from waiter
            except asyncio.CancelledError as error:
                # With the message, by which anyio recognises its own cancellation.
                if awaited.done() or not awaited.cancel(*error.args):
                    _retrieve(awaited)
                    return error

    def _yield_to_loop(self) -> Generator[Any, Any, BaseException | None]:
        """Give the loop a turn, because the work yielded without a future."""
        try:
            yield None
        except asyncio.CancelledError as error:
            return error
        if self._order and not self._order_passed_on:
            self._order_passed_on = True
            return asyncio.CancelledError()
        return None

    def _ending(self) -> WorkStopped:
        return WorkAbandoned() if self._order is _Order.ABANDON else WorkStopped()

    def _hand_over(self) -> None:
        """Let a task of its own run the rest of the work, for which nothing waits."""
        self._handed_over = True
        rest = _RestOfWork(self._work, self._awaited)
        task = self._loop.create_task(rest.finish(self._unwanted), name="smtp_async: an abandoned source")
        # The loop holds tasks weakly.
        _abandoned.add(task)
        task.add_done_callback(_abandoned.discard)
        raise asyncio.CancelledError if self._cancelled else self._ending()


def _retrieve(awaited: asyncio.Future[Any]) -> None:
    """Look at the exception of a future whose result the work will not see, or asyncio would report it as lost."""
    if awaited.done() and not awaited.cancelled():
        awaited.exception()


class _RestOfWork(Generic[T]):
    """The rest of a coroutine that waits for something, for another task to await."""

    __slots__ = ("_awaited", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], awaited: asyncio.Future[Any] | None) -> None:
        self._work = work
        self._awaited = awaited

    async def finish(self, unwanted: Callable[[T], object] | None) -> None:
        """Run to the end, which is not waited for."""
        try:
            result = await self
        except Exception as error:
            _log.debug("an abandoned source ended with %r", error)
        else:
            if unwanted is not None:
                unwanted(result)

    def __await__(self) -> Generator[Any, Any, T]:
        awaited = self._awaited
        if awaited is not None:
            # `CallerWork` cleared this mark; a task accepts only a future that has it.
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


_abandoned: Final[set[asyncio.Task[None]]] = set()
