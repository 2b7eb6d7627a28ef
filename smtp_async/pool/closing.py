"""When connections are closed: one by one when they are idle or old, and all of them when the client is closed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, MutableMapping
from typing import Final

from ..connection.connection import Connection
from ..errors import Interrupted

__all__ = ["IdleReaper", "close_all", "shed"]

#: Seconds for the hooks to learn of the end of a connection that had to be aborted.
_HOOK_GRACE: Final = 1.0


class IdleReaper:
    """Closes idle connections after their time without work, or when they are too old to be used. One timer for all.

    Args:
        loop: its clock counts.
        idle: the idle connections; those that are closed are taken out.
        limit: seconds without work after which a connection is closed, None for no limit. Its age counts in any case.
    """

    __slots__ = ("_idle", "_limit", "_loop", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, idle: MutableMapping[Connection, None], limit: float | None
    ) -> None:
        self._loop = loop
        self._idle = idle
        self._limit = math.inf if limit is None else limit
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, connection: Connection) -> None:
        """Close `connection`, which has become idle, when its time comes."""
        due = self._close_at(connection)
        if due < math.inf and (self._timer is None or self._timer.when() > due):
            self.stop()
            self._timer = self._loop.call_at(due, self._reap)

    def stop(self) -> None:
        """Close no more connections."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_at(self, connection: Connection) -> float:
        return min(connection.deliveries.idle_since + self._limit, connection.deliveries.retires_at)

    def _reap(self) -> None:
        # A timer is not set anew when its connection gets work: then it finds nothing to close.
        self._timer = None
        now = self._loop.time()
        for connection in [one for one in self._idle if self._close_at(one) <= now]:
            del self._idle[connection]
            connection.finish()
        for connection in self._idle:
            self.watch(connection)


def shed(idle: dict[Connection, None], open_now: Collection[Connection], most: int) -> None:
    """Close the open connections above `most`: those that are idle at once, others when their messages have ended.

    Args:
        idle: the idle ones; those that are closed are taken out.
        open_now: the open ones, in the order in which they were opened.
        most: how many may stay.
    """
    staying = [one for one in open_now if not one.leaving]
    busy = [one for one in staying if one not in idle]
    # First the idle one that was used least recently; of the busy ones the newest.
    for connection in [*busy, *reversed(idle)][most:]:
        idle.pop(connection, None)
        connection.finish()


async def close_all(connections: Collection[Connection], limit: float | None) -> None:
    """Let messages on their way end and say QUIT; after `limit` seconds, or when this is cancelled, close at once.

    Args:
        connections: the connections to close; none of them is open when this returns.
        limit: seconds for the polite part, None for as long as it takes.
    """
    for connection in connections:
        connection.finish()
    tasks = [connection.task for connection in connections if connection.task is not None]
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=limit)
    finally:
        # Also when this is cancelled: nothing stays open. The tasks end by themselves, in the loop's next turns.
        for connection in connections:
            connection.abort(Interrupted("the client was closed"), force=True)
    while pending := [task for task in tasks if not task.done()]:
        await asyncio.wait(pending, timeout=_HOOK_GRACE)
        for task in pending:
            task.cancel()
