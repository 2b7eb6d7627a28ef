"""Paces what a connection writes, so that it stays within the limits of bytes per second.

The bytes wait in the machine, not behind it: what was not handed to the transport counts as not sent when the
connection ends, however long the pause. Meanwhile the reply clock stands still, because the server is waiting for the
client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..transport.throttle import Throttle
from .clock import ReplyClock

__all__ = ["SendPacer"]


class SendPacer:
    """Delays the writes of one connection; a timer ends each pause.

    Args:
        throttle: the limits.
        clock: the reply clock, which stands still during a pause.
        write: called when a pause is over; writes what waits.
        loop: gives the time and the timer.

    Attributes:
        throttle: the limits.
    """

    __slots__ = ("_clock", "_held_at", "_loop", "_timer", "_waiter", "_write", "throttle")

    def __init__(
        self,
        throttle: Throttle,
        clock: ReplyClock,
        write: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.throttle = throttle
        self._clock = clock
        self._write = write
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        # Loop time at which the pause began.
        self._held_at = 0.0
        # The caller who writes a body, and waits until its last slice was handed to the transport.
        self._waiter: asyncio.Future[None] | None = None

    @property
    def holding(self) -> bool:
        """Whether bytes wait for the end of a pause."""
        return self._timer is not None

    def may_write(self, size: int) -> bool:
        """Count `size` bytes as written and return True, or begin a pause, after which `write` is called."""
        if self._timer is not None:
            return False
        now = self._loop.time()
        delay = self.throttle.send_delay(now)
        if delay <= 0:
            self.throttle.sent(size, now)
            return True
        self._held_at = now
        self._clock.pause_for_pacing()
        self._timer = self._loop.call_at(now + delay, self._resume)
        return False

    def _resume(self) -> None:
        self._timer = None
        now = self._loop.time()
        self.throttle.waited(now - self._held_at)
        self._clock.resume_after_pacing(now)
        # Another connection may have used the budget first, so that another pause has begun.
        self._write()
        if self._timer is None:
            self._wake()

    async def wait_written(self) -> None:
        """Wait until nothing waits to be written, or the connection has ended."""
        while self._timer is not None:
            self._waiter = waiter = self._loop.create_future()
            await waiter

    def stop(self) -> None:
        """End the pause for good, because the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.throttle.waited(self._loop.time() - self._held_at)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
