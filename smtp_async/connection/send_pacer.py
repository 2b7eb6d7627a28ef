"""Holds back what a connection writes while its limits of bytes per second ask for a pause.

The bytes wait in the machine, not behind it: what was not handed to the transport counts as not sent when the
connection ends, however long the pause. Meanwhile the reply clock stands still, because the server is waiting for this
side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..transport.throttle import Throttle
from .clock import ReplyClock

__all__ = ["SendGate"]


class SendGate:
    """The gate of one connection. It opens by a timer.

    Args:
        throttle: the limits.
        clock: stands still while the gate is shut.
        opened: called when the gate has opened; writes what waits.
        loop: gives the time and the timer.

    Attributes:
        throttle: the limits.
    """

    __slots__ = ("_clock", "_loop", "_opened", "_shut_at", "_timer", "_waiter", "throttle")

    def __init__(
        self,
        throttle: Throttle,
        clock: ReplyClock,
        opened: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.throttle = throttle
        self._clock = clock
        self._opened = opened
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        # Loop time at which the gate was shut.
        self._shut_at = 0.0
        # The caller who writes a body, and waits until its last slice was handed to the transport.
        self._waiter: asyncio.Future[None] | None = None

    @property
    def shut(self) -> bool:
        """Whether something waits."""
        return self._timer is not None

    def admits(self, size: int) -> bool:
        """Count `size` bytes and return True, or shut the gate and return False."""
        if self._timer is not None:
            return False
        now = self._loop.time()
        delay = self.throttle.send_delay(now)
        if delay <= 0:
            self.throttle.sent(size, now)
            return True
        self._shut_at = now
        self._clock.hold()
        self._timer = self._loop.call_at(now + delay, self._open)
        return False

    def _open(self) -> None:
        self._timer = None
        now = self._loop.time()
        self.throttle.waited(now - self._shut_at)
        self._clock.release(now)
        # Another connection may have been faster, and shut the gate again.
        self._opened()
        if self._timer is None:
            self._wake()

    async def wait_open(self) -> None:
        """Wait until nothing waits to be written, or the connection has ended."""
        while self._timer is not None:
            self._waiter = waiter = self._loop.create_future()
            await waiter

    def stop(self) -> None:
        """Open for good, because the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.throttle.waited(self._loop.time() - self._shut_at)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
