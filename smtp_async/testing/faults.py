"""Faults on purpose: a cancellation at any await. (A cut after any byte: `smtp_async.testing.cutproxy`.)

A scenario is an `async def` without arguments. `cancellations` runs it again and again, cancelled at its first,
second, … await until it ends before its turn comes; between the runs you look at what is left:

    async for run in cancellations(scenario, manner=CancelManner.UNTIL_DONE):
        assert pool.is_whole(), f"cancelled at await {run.at}"
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

_LIMIT: Final = 100_000


class CancelManner(Enum):
    """How often the task is cancelled."""

    ONCE = "once"
    """At the n-th await, then never again: `task.cancel()`, `asyncio.timeout`."""

    UNTIL_DONE = "until done"
    """At the n-th await and at every one behind it: anyio under Starlette and FastAPI."""


class CancelMoment(Enum):
    """When the cancellation comes, seen from what is awaited."""

    WAITING = "waiting"
    """While the task waits."""

    READY = "ready"
    """When the result is there already, but the task has not run yet: the result is lost with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelledRun:
    """One run of a scenario.

    Attributes:
        at: At which await it was to be cancelled, from 1.
        awaits: How many there were.
        injected: Whether it came so far; if not, the scenario ran to its end undisturbed.
        result: What it returned.
        error: What it raised, CancelledError included.
    """

    at: int
    awaits: int
    injected: bool
    result: Any = None
    error: BaseException | None = None

    @property
    def cancelled(self) -> bool:
        """Whether it ended by CancelledError."""
        return isinstance(self.error, asyncio.CancelledError)


class _Stepper:
    """Drives a coroutine by hand and cancels the current task at its n-th suspension."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], at: int, manner: CancelManner, moment: CancelMoment
    ) -> None:
        self._coroutine = coroutine
        self._at = at
        self._manner = manner
        self._moment = moment
        self.awaits = 0
        self.injected = False

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[Any], Any] = self._coroutine.send
        argument: Any = None
        while True:
            try:
                waited = resume(argument)
            except StopIteration as done:
                return done.value
            self.awaits += 1
            if self.awaits == self._at or (self.injected and self._manner is CancelManner.UNTIL_DONE):
                self.injected = True
                self._cancel(waited)
            try:
                resume, argument = self._coroutine.send, (yield waited)
            except BaseException as error:
                resume, argument = self._coroutine.throw, error

    def _cancel(self, waited: Any) -> None:
        """Cancel the task that is about to wait; our callback runs before the task's own."""
        task = asyncio.current_task()
        assert task is not None
        if self._moment is CancelMoment.READY and isinstance(waited, asyncio.Future):
            waited.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()


async def run_cancelled_at(
    at: int,
    scenario: Callable[[], Coroutine[Any, Any, Any]],
    *,
    manner: CancelManner = CancelManner.ONCE,
    moment: CancelMoment = CancelMoment.WAITING,
) -> CancelledRun:
    """Run a scenario in a task of its own and cancel it at its n-th await.

    Only awaits of that task that really suspend are counted, those of tasks it starts are not.

    Args:
        at: Which await, from 1.
        scenario: What to run.
        manner: Cancel once, or until it is done.
        moment: While it waits, or when the result is ready.

    Returns:
        What became of it. Its exception is in there, never raised.
    """
    stepper = _Stepper(scenario(), at, manner, moment)

    async def drive() -> Any:
        return await stepper

    task = asyncio.get_running_loop().create_task(drive())
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    return CancelledRun(
        at=at,
        awaits=stepper.awaits,
        injected=stepper.injected,
        error=error,
        result=None if error else task.result(),
    )


async def cancellations(
    scenario: Callable[[], Coroutine[Any, Any, Any]],
    *,
    manner: CancelManner = CancelManner.ONCE,
    moment: CancelMoment = CancelMoment.WAITING,
) -> AsyncIterator[CancelledRun]:
    """Run a scenario cancelled at its first await, at its second, … until it ends before.

    Args:
        scenario: Called anew for each run.
        manner: Cancel once, or until it is done.
        moment: While it waits, or when the result is ready.

    Yields:
        Every run; the last one was not disturbed (`injected` is false).
    """
    for at in range(1, _LIMIT):
        run = await run_cancelled_at(at, scenario, manner=manner, moment=moment)
        yield run
        if not run.injected:
            return
    raise AssertionError(f"the scenario still awaits after {_LIMIT} awaits")
