"""How many connections a client may have now: what its user allows, less those that the server refused a moment ago."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Bound"]


class Bound:
    """A bound that the server lowers and time raises again.

    Args:
        most: the user's.
        loop: whose clock counts.
        raised: called when it has risen: there may be room for those who wait.
    """

    __slots__ = ("_cuts", "_loop", "_most", "_raised", "_timer")

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop, raised: Callable[[], None]) -> None:
        self._most = most
        self._loop = loop
        self._raised = raised
        # When each cut ends, in this order.
        self._cuts: deque[float] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def now(self) -> int:
        """The most connections, at least one."""
        return max(1, self._most - len(self._cuts)) if self._cuts else self._most

    def lower(self, seconds: float) -> None:
        """Allow one connection less for so long."""
        self._cuts.append(self._loop.time() + seconds)
        self._watch()

    def stop(self) -> None:
        """Call no more."""
        self._cuts.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        if self._timer is None and self._cuts:
            self._timer = self._loop.call_at(self._cuts[0], self._rise)

    def _rise(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._cuts and self._cuts[0] <= now:
            self._cuts.popleft()
        self._watch()
        self._raised()
