"""Hints that a job may be due: from this process, and by LISTEN from others. A hint may be lost, and nothing else."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Any, Final

from .connections import Connection, DatabaseConnections

__all__ = ["Hints"]

#: Seconds between two notifications of a process, because each takes a lock that all of the database share.
INTERVAL: Final = 0.1
#: Seconds after which a connection for hints that was lost is opened again.
REOPEN: Final = 5.0


class Hints:
    """Wakes the callers that wait for a job.

    Args:
        connections: opens the connection that listens; nothing listens through a pooler.
        channel: the name of the channel.
    """

    def __init__(self, connections: DatabaseConnections, channel: str) -> None:
        self._connections = connections
        self._channel = channel
        self._listens = connections.owned and not connections.pooler
        self._connection: Connection | None = None
        self._wakeup = asyncio.Event()
        self._reopen_at = -math.inf
        self._notified_at = -math.inf

    def wake(self) -> None:
        """Wake those who wait in this process."""
        self._wakeup.set()

    def may_notify(self) -> bool:
        """Return whether other processes may be notified now; if so, that is to be done."""
        now = asyncio.get_running_loop().time()
        if now - self._notified_at < INTERVAL:
            return False
        self._notified_at = now
        return True

    async def event(self) -> asyncio.Event:
        """Return the event that is set by the next hint, and listen from now on."""
        now = asyncio.get_running_loop().time()
        if self._listens and self._connection is None and now >= self._reopen_at:
            self._reopen_at = now + REOPEN
            with suppress(Exception):
                await self._listen()
        return self._wakeup

    async def _listen(self) -> None:
        connection = await self._connections.open(check=False)
        try:
            connection.add_termination_listener(self._lost)
            await connection.add_listener(self._channel, self._heard)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection

    def _heard(self, *details: Any) -> None:
        self.wake()

    def _lost(self, connection: Any) -> None:
        if self._connection is connection:
            self._connection = None

    async def close(self) -> None:
        """Close the connection."""
        self.wake()
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._connections.close(connection)
