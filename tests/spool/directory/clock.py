"""Clocks of a spool directory that a test can set, because they are system calls."""

from dataclasses import dataclass
from typing import Any

from smtp_async.spool.directory.syscalls import SystemCalls


@dataclass
class Clock:
    """Offsets to the clocks of the system, in seconds.

    Attributes:
        wall: added to the wall clock.
        monotonic: added to the clock that is never set.
    """

    wall: float = 0.0
    monotonic: float = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.wall += seconds
        self.monotonic += seconds


class ClockCalls(SystemCalls):
    """The system calls, with the clocks of a test."""

    def __init__(self, root: int, *, clock: Clock, **options: Any) -> None:
        super().__init__(root, **options)
        self._clock = clock

    def time(self) -> float:
        return super().time() + self._clock.wall

    def monotonic(self) -> float:
        return super().monotonic() + self._clock.monotonic
