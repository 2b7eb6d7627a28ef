"""When callers stop waiting: one timer for all messages of a client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from .job import Job

__all__ = ["Deadlines"]

#: A timer that looks at every message does so no more often: many deadlines close together share one look.
_GRAIN: Final = 0.005


class Deadlines:
    """The jobs that are under way, and the moment at which the first of their callers gives up.

    A message costs one set entry. The timer is set for the earliest deadline known; when it fires, all jobs under way
    are looked at, and it is set for the next: with one default for all messages that is once in a while.

    Args:
        loop: whose clock counts.
        passed: called with each job whose deadline has passed.
    """

    __slots__ = ("_due", "_jobs", "_loop", "_passed", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[Job], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._jobs: set[Job] = set()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, job: Job) -> None:
        """Watch `job`; it may be watched already."""
        self._jobs.add(job)
        if job.due is not None and (self._due is None or job.due < self._due):
            self._set(job.due)

    def discard(self, job: Job) -> None:
        """Watch `job` no more."""
        self._jobs.discard(job)

    def stop(self) -> None:
        """Set the timer no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, due: float) -> None:
        self.stop()
        self._due = due
        self._timer = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        self._timer = self._due = None
        for job in [job for job in self._jobs if job.due is not None and job.due <= now]:
            self._passed(job)
        dues = [job.due for job in self._jobs if job.due is not None]
        if dues:
            self._set(max(min(dues), now + _GRAIN))
