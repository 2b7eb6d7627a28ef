"""Watches for stalled connections: they keep their messages, but other messages do not wait for them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Sized
from typing import Final

from ..connection.connection import Connection

__all__ = ["StallWatch"]

#: Seconds without a byte from a server that owes a reply.
_LIMIT: Final = 30.0


class StallWatch:
    """Allows one more connection while an open one has stalled and messages or callers wait.

    Stalled means: the server owes a reply and has sent no byte for 30 seconds. One timer checks for it, and only while
    something waits.

    Args:
        loop: its clock counts.
        connections: the open connections.
        queues: what waits for a connection.
        grow: called when there is room for one more.
        waits: called at each check at which something waits.

    Attributes:
        spare: how many connections the bound allows beyond its own, 0 or 1.
    """

    __slots__ = ("_grow", "_loop", "_queues", "_connections", "_timer", "_waits", "spare")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connections: Collection[Connection],
        queues: Collection[Sized],
        grow: Callable[[], None],
        waits: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._connections = connections
        self._queues = queues
        self._grow = grow
        self._waits = waits
        self._timer: asyncio.TimerHandle | None = None
        self.spare = 0

    def start(self) -> None:
        """Check from now on, because something waits."""
        if self._timer is None:
            self._check()

    def connection_ended(self) -> None:
        """Check again, because the connection that has ended may have been the stalled one."""
        if self.spare:
            self.stop()
            self._check()

    def stop(self) -> None:
        """Stop the checks, and allow no additional connection."""
        self.spare = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        waits = any(map(len, self._queues))
        now = self._loop.time()
        since = [connection.channel.unanswered_since for connection in self._connections]
        limits = [math.inf if start is None else start + _LIMIT for start in since]
        self.spare = int(waits and any(limit <= now for limit in limits))
        if waits:
            self._waits()
            following = min((limit for limit in limits if limit > now), default=math.inf)
            self._timer = self._loop.call_at(min(following, now + _LIMIT), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._check()
        if self.spare:
            self._grow()
