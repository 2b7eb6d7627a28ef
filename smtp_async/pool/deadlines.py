"""When callers stop waiting: one timer for all calls of a client.

Strategy: nearly every call ends long before its deadline, so that a call costs one set entry, and an entry of a heap
only if it is still under way when the timer rings. The timer is set for the earliest deadline known; with one default
for all calls that is once in a while. In the heap, an entry whose call has ended or whose deadline was moved is
passed over when its turn comes, or thrown out with all others of its kind when they are the greater part.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["Deadlines"]

#: The timer rings no more often: deadlines close together share one ring.
_GRAIN: Final = 0.005
#: A heap with fewer entries is not worth being cleared.
_FEW: Final = 64


class Limited(Protocol):
    """What has a deadline: `due` is a loop time, None if it has none."""

    @property
    def due(self) -> float | None: ...


L = TypeVar("L", bound=Limited)


class Deadlines(Generic[L]):
    """The calls that are under way, and the moment at which the first of their callers gives up.

    Args:
        loop: whose clock counts.
        passed: called with each item whose deadline has passed; it is not watched any more then.
    """

    __slots__ = ("_due", "_heap", "_loop", "_new", "_passed", "_placed", "_places", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[L], None]) -> None:
        self._loop = loop
        self._passed = passed
        # Added since the timer rang last.
        self._new: set[L] = set()
        # Deadline, place (so that items are never compared), item; and the place that counts for each item.
        self._heap: list[tuple[float, int, L]] = []
        self._placed: dict[L, int] = {}
        self._places = count()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many items are watched."""
        return len(self._new | self._placed.keys())

    def add(self, item: L) -> None:
        """Watch `item`; if it is watched already, its deadline was moved."""
        due = item.due
        if due is None:
            return
        self._new.add(item)
        if self._due is None or due < self._due:
            self._set(due)

    def discard(self, item: L) -> None:
        """Watch `item` no more."""
        self._new.discard(item)
        if self._placed:
            self._placed.pop(item, None)

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
        new, self._new = self._new, set()
        for item in new:
            self._place(item)
        for item in self._taken(now):
            self._passed(item)
        if len(self._heap) > max(_FEW, 2 * len(self._placed)):
            self._heap = [entry for entry in self._heap if self._placed.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)
        if self._heap:
            self._set_again(max(self._heap[0][0], now + _GRAIN))

    def _set_again(self, due: float) -> None:
        # What was called may have set it.
        if self._due is None or due < self._due:
            self._set(due)

    def _place(self, item: L) -> None:
        due = item.due
        if due is None:
            self._placed.pop(item, None)
            return
        self._placed[item] = place = next(self._places)
        heapq.heappush(self._heap, (due, place, item))

    def _taken(self, now: float) -> list[L]:
        """Take out those whose deadline has passed."""
        heap, placed = self._heap, self._placed
        taken: list[L] = []
        while heap and heap[0][0] <= now:
            _, place, item = heapq.heappop(heap)
            if placed.get(item) != place:
                continue
            if item.due is not None and item.due <= now:
                del placed[item]
                taken.append(item)
            else:
                # It was moved since.
                self._place(item)
        return taken
