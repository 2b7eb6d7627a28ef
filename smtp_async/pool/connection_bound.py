"""How many connections a pool may have now: the user's limit, lowered for a while by what the server refuses.

`ConnectionBound` allows one connection fewer for a minute after each refusal. `AdaptiveConnectionBound` has the timers
and the measurements for the decisions of `adaptive`. Nothing is measured for a single message: while messages wait, the
numbers of messages that have ended and of those under way are read once a second, and their ratio is the time that a
message takes (Little's law).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sized
from functools import partial
from typing import Final, NamedTuple

from ..model.receipt import Outcome, Receipt
from .adaptive import AdaptiveBound, is_congestion
from .closing import shed
from .connections import Connections
from .limits import PoolLimits

__all__ = ["AdaptiveConnectionBound", "ConnectionBound", "Load", "make_bound"]

#: Seconds between two readings.
_READ: Final = 1.0
#: Seconds for which the bound is lowered.
_CUT: Final = 60.0


class Load(NamedTuple):
    """What a pool is doing.

    Attributes:
        ended: messages that have ended since the start.
        under_way: messages on connections now.
        waiting: messages without a connection.
        open: connections, those that are lent to callers included.
        opening: connections that are being opened.
    """

    ended: int
    under_way: int
    waiting: int
    open: int
    opening: int


class ConnectionBound:
    """How many connections a client may have now: the user's limit, less one for each recent refusal.

    Args:
        most: the user's limit.
        loop: its clock counts.
        raised: called when the bound has risen, because there may be room for what waits.
    """

    __slots__ = ("_cuts", "_loop", "_most", "_raised", "_timer")

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop, raised: Callable[[], None]) -> None:
        self._most = most
        self._loop = loop
        self._raised = raised
        # The loop times at which cuts end, in this order.
        self._cuts: deque[float] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def current(self) -> int:
        """The most connections, at least one."""
        return max(1, self._most - len(self._cuts)) if self._cuts else self._most

    def lower(self, seconds: float) -> None:
        """Allow one connection fewer for `seconds`."""
        self._cuts.append(self._loop.time() + seconds)
        self._set_timer()

    def connection_refused(self, *, together: bool = False) -> None:
        """Note that the server refused a connection.

        Args:
            together: it was dialled together with one whose refusal was noted.
        """
        if not together:
            self.lower(_CUT)

    def message_failed(self, receipt: Receipt) -> None:
        """Note a message that was not accepted."""

    def watch(self) -> None:
        """Note that messages wait."""

    def stop(self) -> None:
        """Cancel the timer that calls `raised`."""
        self._cuts.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        if self._timer is None and self._cuts:
            self._timer = self._loop.call_at(self._cuts[0], self._rise)

    def _rise(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._cuts and self._cuts[0] <= now:
            self._cuts.popleft()
        self._set_timer()
        self._raised()


class AdaptiveConnectionBound(ConnectionBound):
    """How many connections a client may have now, adapted to the load that the server accepts.

    Args:
        most: the user's limit.
        loop: its clock counts.
        raised: called when the bound has risen, because there may be room for what waits.
        lowered: called with the bound when it has fallen, because there may be too many connections.
        load: reads what the pool is doing.
    """

    __slots__ = ("_decisions", "_last", "_load", "_lowered", "_reading")

    def __init__(
        self,
        most: int,
        loop: asyncio.AbstractEventLoop,
        raised: Callable[[], None],
        lowered: Callable[[int], None],
        load: Callable[[], Load],
    ) -> None:
        super().__init__(most, loop, raised)
        self._decisions = AdaptiveBound(most)
        self._lowered = lowered
        self._load = load
        self._reading: asyncio.TimerHandle | None = None
        # The last reading and its loop time.
        self._last: tuple[float, Load] | None = None

    @property
    def current(self) -> int:
        """The most connections, at least one."""
        return self._decisions.current

    def connection_refused(self, *, together: bool = False) -> None:
        """Note that the server refused a connection; it may accept those that are being opened."""
        before, load = self.current, self._load()
        accepted = load.open + load.opening if load.open else 0
        if together and not accepted:
            return
        self._decisions.connection_refused(self._loop.time(), accepted, together=together)
        self._changed(before)

    def message_failed(self, receipt: Receipt) -> None:
        """Note a message that was not accepted; it counts if that was because of the load."""
        if is_congestion(receipt):
            before = self.current
            self._decisions.congested(self._loop.time(), self._load().open)
            self._changed(before)

    def watch(self) -> None:
        """Measure from now on, because messages wait."""
        if self._reading is None:
            self._last = None
            self._read()

    def stop(self) -> None:
        """Cancel the timers."""
        super().stop()
        if self._reading is not None:
            self._reading.cancel()

    def _changed(self, before: int) -> None:
        self._set_timer()
        if self.current < before:
            self._lowered(self.current)

    def _set_timer(self) -> None:
        due = self._decisions.rises_at
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due == float("inf") else self._loop.call_at(due, self._rise)

    def _rise(self) -> None:
        self._timer = None
        self._decisions.rise(self._loop.time())
        self._set_timer()
        self._raised()

    def _read(self) -> None:
        now, load, last = self._loop.time(), self._load(), self._last
        self._reading, self._last = None, (now, load)
        # A reading that is late by far measures this process, or the sleep of its machine.
        if last is not None and now - last[0] < 2 * _READ and (ended := load.ended - last[1].ended):
            under_way = (load.under_way + last[1].under_way) / 2
            before = self.current
            self._decisions.replies_took(now, under_way * (now - last[0]) / ended, load.open)
            self._changed(before)
        if load.waiting:
            self._reading = self._loop.call_at(now + _READ, self._read)


def make_bound(
    limits: PoolLimits,
    loop: asyncio.AbstractEventLoop,
    connections: Connections,
    queue: Sized,
    counts: Mapping[Outcome, int],
    raised: Callable[[], None],
) -> ConnectionBound:
    """Return the bound that `limits` ask for.

    Args:
        limits: say how many connections, and whether their number follows the server.
        loop: its clock counts.
        connections: those of the pool.
        queue: the messages that wait.
        counts: the messages that have ended, by outcome.
        raised: called when the bound has risen.
    """
    if not limits.adaptive:
        return ConnectionBound(limits.max_connections, loop, raised)

    def load() -> Load:
        under_way = sum(len(one.deliveries.jobs) for one in connections.open)
        ended = sum(counts.values())
        return Load(ended, under_way, len(queue), connections.usable, len(connections.opening))

    lowered = partial(shed, connections.idle, connections.open)
    return AdaptiveConnectionBound(limits.max_connections, loop, raised, lowered, load)
