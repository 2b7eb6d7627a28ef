"""When callers stop waiting: one timer for all calls of a client.

Strategy: nearly every call ends long before its deadline. So a call costs one entry in a set, and an entry in a heap
only if it is still under way when the timer fires. The timer is set for the earliest deadline known; with one default
for all calls that is seldom. An entry of the heap is stale when its call has ended or its deadline was moved. Stale
entries are skipped when their turn comes, and all are removed when they are the greater part.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["Deadlines"]

#: Seconds between two firings of the timer at least: deadlines close together share one.
_GRAIN: Final = 0.005
#: A heap with fewer entries is not cleared of stale ones.
_FEW: Final = 64


class HasDeadline(Protocol):
    """A job, or the work of its caller: `due` is the loop time of its deadline, None if it has none."""

    @property
    def due(self) -> float | None: ...


L = TypeVar("L", bound=HasDeadline)


class Deadlines(Generic[L]):
    """Watches the deadlines of the calls that are under way.

    Args:
        loop: its clock counts.
        on_expired: called with each item whose deadline has passed, which is no longer watched then.
    """

    __slots__ = ("_fires_at", "_heap", "_loop", "_new", "_on_expired", "_numbers", "_counter", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_expired: Callable[[L], None]) -> None:
        self._loop = loop
        self._on_expired = on_expired
        # Items added since the timer fired last.
        self._new: set[L] = set()
        # Entries of deadline, number (so that items are never compared) and item; and the valid number of each item.
        self._heap: list[tuple[float, int, L]] = []
        self._numbers: dict[L, int] = {}
        self._counter = count()
        self._fires_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many items are watched."""
        return len(self._new | self._numbers.keys())

    def add(self, item: L) -> None:
        """Watch `item`, or watch its new deadline if it is watched already."""
        due = item.due
        if due is None:
            return
        self._new.add(item)
        if self._fires_at is None or due < self._fires_at:
            self._set(due)

    def discard(self, item: L) -> None:
        """Stop watching `item`."""
        self._new.discard(item)
        if self._numbers:
            self._numbers.pop(item, None)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, due: float) -> None:
        self.stop()
        self._fires_at = due
        self._timer = self._loop.call_at(due, self._fire)

    def _fire(self) -> None:
        now = self._loop.time()
        self._timer = self._fires_at = None
        new, self._new = self._new, set()
        for item in new:
            self._push(item)
        for item in self._taken(now):
            self._on_expired(item)
        if len(self._heap) > max(_FEW, 2 * len(self._numbers)):
            self._heap = [entry for entry in self._heap if self._numbers.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)
        if self._heap:
            self._set_earlier(max(self._heap[0][0], now + _GRAIN))

    def _set_earlier(self, due: float) -> None:
        # `on_expired` may have set the timer.
        if self._fires_at is None or due < self._fires_at:
            self._set(due)

    def _push(self, item: L) -> None:
        due = item.due
        if due is None:
            self._numbers.pop(item, None)
            return
        self._numbers[item] = number = next(self._counter)
        heapq.heappush(self._heap, (due, number, item))

    def _taken(self, now: float) -> list[L]:
        """Take out and return the items whose deadline has passed."""
        heap, numbers = self._heap, self._numbers
        taken: list[L] = []
        while heap and heap[0][0] <= now:
            _, number, item = heapq.heappop(heap)
            if numbers.get(item) != number:
                continue
            if item.due is not None and item.due <= now:
                del numbers[item]
                taken.append(item)
            else:
                # The deadline was moved since.
                self._push(item)
        return taken
