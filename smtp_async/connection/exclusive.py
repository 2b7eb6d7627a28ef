"""Work that needs a connection to itself: VRFY, a late AUTH, EHLO asked again, QUIT.

The calling task hands the work over and awaits a future; the connection's task does the work when no job is under way.
Until it is done no job is begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import Interrupted, NotConnected, SMTPError
from .channel import Channel

__all__ = ["ExclusiveWork", "reject"]


class ExclusiveWork:
    """The work that waits for one connection, first come, first served.

    Attributes:
        pending: is there any, so that no job may be begun?
    """

    __slots__ = ("_queue", "pending")

    def __init__(self) -> None:
        self.pending = False
        # Hardly ever more than one, and an empty deque weighs 700 octets.
        self._queue: list[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]] = []

    def add(self, work: Callable[[], Awaitable[Any]], done: asyncio.Future[Any]) -> None:
        """Queue `work`; `done` gets its result, or its error."""
        self._queue.append((work, done))
        self.pending = True

    async def run(self, channel: Channel) -> None:
        """Do all work that waits, in the connection's task.

        Args:
            channel: its failure is the reason for work that was cancelled.

        Raises:
            SMTPError: work failed in a way that leaves the connection of no use.
        """
        while self._queue:
            work, done = self._queue.pop(0)
            if done.cancelled():
                continue
            try:
                result = await work()
            except SMTPError as error:
                reject(done, error)
                if not error.connection_usable:
                    raise
            except BaseException as error:
                reason = channel.failure or Interrupted(f"the conversation was stopped: {error!r}")
                reject(done, reason)
                raise
            else:
                if not done.done():
                    done.set_result(result)
        self.pending = False

    def refuse(self, reason: SMTPError) -> None:
        """Fail all work that waits, because the connection has ended."""
        while self._queue:
            _, done = self._queue.pop(0)
            reject(done, NotConnected(f"the connection has ended: {reason}"))


def reject(future: asyncio.Future[Any], error: SMTPError) -> None:
    """Set `error`, unless the future is done; no warning follows if its caller has gone and never retrieves it."""
    if not future.done():
        future.set_exception(error)
        future.exception()
