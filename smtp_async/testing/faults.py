"""Deliberate faults: cancellation at any await. (For cuts after any byte see `smtp_async.testing.cutproxy`.)

A scenario is an `async def` without arguments. `cancellations` runs it repeatedly, cancelled at its first, second, …
await, until a run ends before its cancellation is due; between the runs a test checks the state that is left:

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
    """At the n-th await and at every later await: anyio under Starlette and FastAPI."""


class CancelMoment(Enum):
    """When the cancellation arrives, relative to the result that is awaited."""

    WAITING = "waiting"
    """While the task waits."""

    READY = "ready"
    """When the result is ready but the task has not resumed: the result is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelledRun:
    """One run of a scenario.

    Attributes:
        at: Number of the await to cancel, from 1.
        awaits: Number of awaits in the run.
        injected: Whether the run reached that await; if not, the scenario ran to its end undisturbed.
        result: The value that the scenario returned.
        error: The exception that the scenario raised, CancelledError included.
    """

    at: int
    awaits: int
    injected: bool
    result: Any = None
    error: BaseException | None = None

    @property
    def cancelled(self) -> bool:
        """Whether the scenario ended by CancelledError."""
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
        """Cancel the task that is about to wait; this callback runs before the task's own."""
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
    """Run a scenario in a task of its own and cancel the task at its n-th await.

    Only awaits that suspend this task are counted; those of tasks that it starts are not.

    Args:
        at: Number of the await, from 1.
        scenario: The coroutine function to run.
        manner: Cancel once, or until it is done.
        moment: While it waits, or when the result is ready.

    Returns:
        The result of the run. An exception of the scenario is its `error` and is not raised.
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
    """Run a scenario cancelled at its first await, at its second, … until a run ends undisturbed.

    Args:
        scenario: The coroutine function; called once per run.
        manner: Cancel once, or until it is done.
        moment: While it waits, or when the result is ready.

    Yields:
        Every run; the last one was not cancelled (`injected` is false).
    """
    for at in range(1, _LIMIT):
        run = await run_cancelled_at(at, scenario, manner=manner, moment=moment)
        yield run
        if not run.injected:
            return
    raise AssertionError(f"the scenario still awaits after {_LIMIT} awaits")
