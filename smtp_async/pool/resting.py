"""When idle connections are closed: after their time without work, or when they are too old to be used."""

from __future__ import annotations

import asyncio
import math
from collections.abc import MutableMapping

from ..connection.connection import Connection

__all__ = ["Reaper"]


class Reaper:
    """One timer for the connections that are idle.

    Args:
        loop: whose clock counts.
        idle: the idle connections; those that are closed are taken out.
        limit: seconds without work after which one is closed, None never. Its age counts in any case.
    """

    __slots__ = ("_idle", "_limit", "_loop", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, idle: MutableMapping[Connection, None], limit: float | None
    ) -> None:
        self._loop = loop
        self._idle = idle
        self._limit = math.inf if limit is None else limit
        self._timer: asyncio.TimerHandle | None = None

    def rests(self, session: Connection) -> None:
        """See that `session`, which is idle now, is closed in time."""
        due = self._due(session)
        if due < math.inf and (self._timer is None or self._timer.when() > due):
            self.stop()
            self._timer = self._loop.call_at(due, self._reap)

    def stop(self) -> None:
        """Close none any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self, session: Connection) -> float:
        return min(session.deliveries.idle_since + self._limit, session.deliveries.retires_at)

    def _reap(self) -> None:
        # A timer that is no longer wanted for the session it was set for runs out all the same.
        self._timer = None
        now = self._loop.time()
        for session in [one for one in self._idle if self._due(one) <= now]:
            del self._idle[session]
            session.finish()
        for session in self._idle:
            self.rests(session)
