"""Whether a processor continues: requests to stop, errors that end a run, and the wake-up call of the manager."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ..errors import SMTPError

__all__ = ["RunControl"]


class RunControl:
    """The state of a run, which every part of a processor may read, and may end.

    A run is stopped by `stop` (on request, with a grace), `stop_early` (because of an error that a report shows),
    `stop_for_good` (because of an error that no pause can cure, which is raised) or `stop_now` (without a grace).
    `note_error` and `note_untried_jobs` stop nothing: they only say why a run was incomplete.

    Args:
        grace: seconds for which jobs being sent may continue when the processor stops.

    Attributes:
        stopping: no further job is started.
        fatal: the error that ended the run, because no pause can cure it; None if there was none.
        error: the error that ended the run early, None if there was none.
    """

    def __init__(self, grace: float) -> None:
        self._grace: Final = grace
        self._timers: Final[list[asyncio.TimerHandle]] = []
        self._withdraw: Callable[[], None] | None = None
        self._grace_over: asyncio.Future[None] | None = None
        self._sleeper: asyncio.Future[None] | None = None
        self._woken = False
        self.stopping = False
        self.fatal: Exception | None = None
        self.error: Exception | None = None

    # --- a run -----------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget how the last run ended. A `stop` since then applies to the next run."""
        self.fatal = self.error = None

    def begin(self, withdraw: Callable[[], None]) -> None:
        """Begin a run in the current event loop; `withdraw` is called when its grace is over."""
        self._withdraw = withdraw
        self._woken = False
        self._grace_over = asyncio.get_running_loop().create_future()

    def stop_now(self) -> None:
        """Start no further job, and end the grace, so that jobs being sent are withdrawn."""
        self.stopping = True
        self._end_grace()

    def run_ended(self) -> None:
        """Record that the tasks of the run have ended, so that its request to stop does not apply to the next run."""
        self.stopping = False
        self._withdraw = None
        while self._timers:
            self._timers.pop().cancel()

    # --- stopping --------------------------------------------------------------------------------------------

    def stop(self, grace: float | None = None) -> None:
        """Start no further job; jobs being sent may continue for `grace` seconds (None: those of the options)."""
        self.stopping = True
        if self._grace_over is not None and self._withdraw is not None:
            delay = self._grace if grace is None else grace
            self._timers.append(self._grace_over.get_loop().call_later(delay, self._end_grace))
        self.wake()

    def stop_for_good(self, error: Exception) -> None:
        """Stop because of an error that no pause can cure; jobs being sent may continue to their end."""
        self.fatal = self.fatal or error
        self.stop_early(error)

    def stop_early(self, error: Exception) -> None:
        """Stop because of `error`, which the report of the run shows."""
        self.note_error(error)
        self.stop()

    def note_error(self, error: Exception) -> None:
        """Keep the error that ends the run early, unless there was an earlier one."""
        self.error = self.error or error

    def note_untried_jobs(self) -> None:
        """Record that a due job was not tried, because of `stop`."""
        self.note_error(SMTPError("the run was stopped before every due job was tried"))

    @property
    def grace_over(self) -> bool:
        """Whether the grace period has ended."""
        return self._grace_over is None or self._grace_over.done()

    async def wait_for_grace(self, seconds: float) -> None:
        """Sleep for `seconds`, or until the grace is over."""
        if self._grace_over is not None:
            await asyncio.wait((self._grace_over,), timeout=seconds)

    def _end_grace(self) -> None:
        if self._grace_over is not None and not self._grace_over.done():
            self._grace_over.set_result(None)
        if self._withdraw is not None:
            self._withdraw()
        self.wake()

    # --- the manager's sleep ---------------------------------------------------------------------------------

    def wake(self) -> None:
        """Let the manager check the state again."""
        self._woken = True
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def sleep(self, seconds: float | None) -> None:
        """Sleep until `wake` is called; return at once if it was called since the last sleep.

        Args:
            seconds: maximum of the sleep; None: no limit.
        """
        if not self._woken:
            loop = asyncio.get_running_loop()
            self._sleeper = loop.create_future()
            timer = None if seconds is None else loop.call_later(seconds, self.wake)
            try:
                await self._sleeper
            finally:
                if timer is not None:
                    timer.cancel()
        self._woken = False
