"""Connections that have gone silent: they keep their messages, but they do not hold up those that wait."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Sized
from typing import Final

from ..connection.connection import Connection

__all__ = ["Silence"]

#: Seconds without a byte from a server that owes a reply.
_LIMIT: Final = 30.0


class Silence:
    """Allows one connection more while one is silent and something waits.

    Looks only while something waits, by one timer.

    Args:
        loop: whose clock counts.
        sessions: the open connections.
        lines: what waits for a connection.
        grow: called when there is room for one more.

    Attributes:
        spare: how many connections more the bound allows, 0 or 1.
    """

    __slots__ = ("_grow", "_loop", "_lines", "_sessions", "_timer", "spare")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sessions: Collection[Connection],
        lines: Collection[Sized],
        grow: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sessions = sessions
        self._lines = lines
        self._grow = grow
        self._timer: asyncio.TimerHandle | None = None
        self.spare = 0

    def watch(self) -> None:
        """Something waits from now on."""
        if self._timer is None:
            self._look()

    def session_ended(self) -> None:
        """It may have been the silent one."""
        if self.spare:
            self.stop()
            self._look()

    def stop(self) -> None:
        """Look no more."""
        self.spare = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        waits = any(map(len, self._lines))
        now = self._loop.time()
        limits = [math.inf if since is None else since + _LIMIT for since in self._since()]
        self.spare = int(waits and any(limit <= now for limit in limits))
        if waits:
            following = min((limit for limit in limits if limit > now), default=math.inf)
            self._timer = self._loop.call_at(min(following, now + _LIMIT), self._ring)

    def _since(self) -> list[float | None]:
        return [session.channel.unanswered_since for session in self._sessions]

    def _ring(self) -> None:
        self._timer = None
        self._look()
        if self.spare:
            self._grow()
