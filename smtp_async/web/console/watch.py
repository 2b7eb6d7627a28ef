"""Counts the jobs of a spool for the page: not more often than it is cheap, and only while the page is open."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ...errors import SMTPError
from ...processor.processor import QueueProcessor
from ...processor.results import ProcessorStatistics
from ...spool.contract import Spool
from ...spool.entry import SpoolStatistics

__all__ = ["Watch"]

#: Seconds between two counts of the spool; longer if counting takes long.
COUNT_INTERVAL: Final = 1.0
#: How much longer the pause is than the counting.
PATIENCE: Final = 20
#: Points of the curves.
MOST_POINTS: Final = 300
#: Seconds over which rates are measured.
WINDOW: Final = 10.0


class _Point(NamedTuple):
    at: float
    depth: int
    sent: int
    deferred: int
    failed: int


class Watch:
    """The numbers of a spool and of its processor.

    Args:
        spool: the spool.
        processor: the processor that runs in this process; None if there is none.
        clock: returns the current time, in seconds of the epoch.
        monotonic: returns seconds of a clock that is never set.
    """

    def __init__(
        self,
        spool: Spool,
        processor: QueueProcessor | None = None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._processor = processor
        self._clock = clock
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._counts = SpoolStatistics()
        self._problem = ""
        self._next_count = 0.0
        self._points: deque[_Point] = deque(maxlen=MOST_POINTS)

    async def snapshot(self) -> dict[str, Any]:
        """Return the numbers, for JSON."""
        async with self._lock:
            if self._monotonic() >= self._next_count:
                await self._count()
        counts = self._counts
        found: dict[str, Any] = {
            "now": round(self._clock(), 3),
            "counts": {
                "queued": counts.queued - counts.held,
                "held": counts.held,
                "sending": counts.sending,
                "failed": counts.failed,
                "sent": counts.sent,
                "quarantined": counts.quarantined,
            },
            "oldest": counts.oldest,
            "next_due": counts.next_due,
            "problem": self._problem,
            "curve": [[round(one.at, 1), one.depth, one.sent] for one in self._points],
        }
        return found | {"processor": self._processor_numbers()}

    def _processor_numbers(self) -> dict[str, Any] | None:
        if self._processor is None:
            return None
        numbers = self._processor.statistics()
        return {
            "sending": numbers.sending,
            "sent": numbers.sent,
            "deferred": numbers.deferred,
            "failed": numbers.failed,
            "unknown": numbers.unknown,
            "rates": self._rates(numbers),
            "paused_until": numbers.paused_until,
            "problem": numbers.problem,
        }

    def _rates(self, numbers: ProcessorStatistics) -> dict[str, float]:
        """Return sent, deferred and failed jobs per second over the last seconds."""
        now = self._clock()
        # The newest point that is older than the window, or the oldest.
        older = [one for one in self._points if one.at <= now - WINDOW]
        start = older[-1] if older else self._points[0]
        seconds = max(now - start.at, 0.001)
        return {
            "sent": round((numbers.sent - start.sent) / seconds, 2),
            "deferred": round((numbers.deferred - start.deferred) / seconds, 2),
            "failed": round((numbers.failed - start.failed) / seconds, 2),
        }

    async def _count(self) -> None:
        began = self._monotonic()
        try:
            self._counts = await self._spool.statistics()
            self._problem = ""
        except SMTPError as error:
            self._problem = str(error)
        now = self._monotonic()
        self._next_count = max(began + COUNT_INTERVAL, now + PATIENCE * (now - began))
        numbers = ProcessorStatistics() if self._processor is None else self._processor.statistics()
        depth = self._counts.queued + self._counts.sending
        self._points.append(_Point(self._clock(), depth, numbers.sent, numbers.deferred, numbers.failed))
