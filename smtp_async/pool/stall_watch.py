"""Connections that have gone silent: they keep their messages, but other messages do not wait for them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Sized
from typing import Final

from ..connection.connection import Connection

__all__ = ["SilenceWatch"]

#: Seconds without a byte from a server that owes a reply.
_LIMIT: Final = 30.0


class SilenceWatch:
    """Allows one more connection while one is silent and something waits.

    It looks only while something waits, by one timer.

    Args:
        loop: its clock counts.
        connections: the open connections.
        queues: what waits for a connection.
        grow: called when there is room for one more.
        waits: called when it finds that something waits.

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
        """Look from now on, because something waits."""
        if self._timer is None:
            self._look()

    def connection_ended(self) -> None:
        """Look again, because the connection that has ended may have been the silent one."""
        if self.spare:
            self.stop()
            self._look()

    def stop(self) -> None:
        """Stop looking."""
        self.spare = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        waits = any(map(len, self._queues))
        now = self._loop.time()
        since = [connection.channel.unanswered_since for connection in self._connections]
        limits = [math.inf if start is None else start + _LIMIT for start in since]
        self.spare = int(waits and any(limit <= now for limit in limits))
        if waits:
            self._waits()
            following = min((limit for limit in limits if limit > now), default=math.inf)
            self._timer = self._loop.call_at(min(following, now + _LIMIT), self._timer_rang)

    def _timer_rang(self) -> None:
        self._timer = None
        self._look()
        if self.spare:
            self._grow()
