"""Pauses reading, so that a limit of bytes per second slows the server down.

What arrives is always taken. Then reading stops until it is paid for; meanwhile the system's buffers fill, and TCP
tells the server to wait. The receiver pauses the transport, too, when its own buffer is full, and must not end a pause
that is not its own: it asks this object in place of the transport, and the transport is resumed when neither asks for a
pause.
"""

from __future__ import annotations

import asyncio

from .throttle import Throttle

__all__ = ["ReadPauses"]


class ReadPauses:
    """Stands between a transport and the receiver of its bytes.

    Args:
        throttle: counts the bytes, and says how long to wait.
        transport: is paused and resumed.
    """

    __slots__ = ("_full", "_loop", "_throttle", "_timer", "_transport")

    def __init__(self, throttle: Throttle, transport: asyncio.Transport) -> None:
        self._throttle = throttle
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        # Has the receiver asked for a pause?
        self._full = False

    def received(self, size: int) -> None:
        """Count so many bytes, and pause the transport if they came too fast."""
        delay = self._throttle.received(size, self._loop.time())
        if delay > 0 and self._timer is None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._timer = self._loop.call_later(delay, self._resume)

    def stop(self) -> None:
        """Resume no more, because another protocol takes over or the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause_reading(self) -> None:
        """Pause, because the buffer of the receiver is full."""
        self._full = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Resume, unless the limit asks for a pause."""
        self._full = False
        if self._timer is None:
            self._transport.resume_reading()

    def _resume(self) -> None:
        self._timer = None
        if not self._full and not self._transport.is_closing():
            self._transport.resume_reading()
