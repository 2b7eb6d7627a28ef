"""The options of a queue processor."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..errors import InvalidArgument
from .bounce import ReportOptions
from .policy import OnUnknown

__all__ = ["Marking", "ProcessorOptions"]

#: When a job is marked as "may have left": each at its end of data, or all when they are claimed.
Marking = Literal["each", "claim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorOptions:
    """How a queue processor works, beyond what nearly every program sets.

    Attributes:
        on_unknown: `"retry"` sends again what may have arrived (at least once, as mail servers do), `"hold"` fails it,
            so that an operator decides (at most once).
        bounce: report failures to senders; None reports nothing.
        stop_on_error: start no further job after the first one that failed.
        marking: `"each"` notes of every message, when its end of data is about to leave, that it may have been
            delivered. `"claim"` notes it of whole batches when they are claimed: faster where the spool is, but after a
            crash every job that was claimed counts as unknown.
        poll: seconds after which an idle spool is checked again.
        grace: seconds that messages being sent have when the processor stops. A message that is not answered by then is
            unknown.
        heartbeat: seconds between two extensions of the leases, and between two searches for jobs of dead workers.
        clock: returns the time, in seconds of the epoch.
        monotonic: returns seconds of a clock that is never set, by which pauses are measured.
        chance: draws a random number from 0 to 1.

    Raises:
        InvalidArgument: a choice that does not exist, or a number that is not one of seconds.
    """

    on_unknown: OnUnknown = "retry"
    bounce: ReportOptions | None = None
    stop_on_error: bool = False
    marking: Marking = "each"
    poll: float = 1.0
    grace: float = 60.0
    heartbeat: float = 60.0
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.on_unknown not in ("retry", "hold"):
            raise InvalidArgument(f"on_unknown is 'retry' or 'hold', not {self.on_unknown!r}")
        if self.marking not in ("each", "claim"):
            raise InvalidArgument(f"marking is 'each' or 'claim', not {self.marking!r}")
        for name in ("poll", "grace", "heartbeat"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
                raise InvalidArgument(f"{name} must be a number of seconds, not {value!r}")
