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

#: When a job is marked as "may have been sent": each before its end of data, or all when they are claimed.
Marking = Literal["each", "claim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorOptions:
    """Less common options of a queue processor.

    Attributes:
        on_unknown: `"retry"` sends a message again that may have been delivered (at least once, as mail servers do),
            `"hold"` fails its job, so that an operator decides (at most once).
        bounce: how to report failures to senders; None: no reports.
        stop_on_error: start no further job after the first one that failed.
        marking: `"each"` marks every message before its end of data is sent, as one that may have been delivered.
            `"claim"` marks whole batches when they are claimed, which costs fewer changes to the spool, but after a
            crash every claimed job counts as unknown.
        poll: seconds after which an idle spool is checked again.
        grace: seconds for which messages being sent may continue when the processor stops. The outcome of a message
            without a reply by then is unknown.
        heartbeat: seconds between two extensions of the leases, and between two searches for jobs of dead workers.
        clock: returns the time, in seconds of the epoch.
        monotonic: returns seconds of a clock that is never set, by which pauses are measured.
        chance: draws a random number from 0 to 1.

    Raises:
        InvalidArgument: a choice that does not exist, or an invalid number of seconds.
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
