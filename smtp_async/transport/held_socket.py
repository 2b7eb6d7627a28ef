"""A connected socket that the event loop does not watch yet, in the place of a transport.

Where TLS comes first, one call opens the transport and begins the handshake. `loop.start_tls` needs a transport that
reads already, which takes two more iterations of the loop and three more calls of the selector.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from .receiving import Receiver

__all__ = ["HeldSocket"]


class HeldSocket(asyncio.Transport):
    """Keeps `sock` until `hand_over`; nothing is read or written meanwhile.

    Args:
        sock: connected, not blocking; closed by `abort` and `close`.
        receiver: told of the end.
        loop: the event loop.
    """

    __slots__ = ("_closing", "_handed_over", "_loop", "_receiver", "_sock")

    def __init__(self, sock: socket.socket, receiver: Receiver, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"socket": sock})
        self._sock = sock
        self._receiver = receiver
        self._loop = loop
        self._closing = False
        self._handed_over = False

    def hand_over(self) -> socket.socket:
        """Return the socket, which belongs to another transport from now on."""
        self._handed_over = True
        return self._sock

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the socket, or one of its addresses."""
        if name in ("peername", "sockname"):
            with contextlib.suppress(OSError):  # the server may have reset the connection already
                return self._sock.getpeername() if name == "peername" else self._sock.getsockname()
            return default
        return super().get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Return whether `abort` or `close` was called."""
        return self._closing

    def abort(self) -> None:
        """Close the socket; if it was handed over, end the connection, so that its new owner closes it.

        The event loop returns a transport only after the handshake. Until then the end of the connection is the one
        thing that it is sure to notice.
        """
        if self._closing:
            return
        self._closing = True
        if self._handed_over:
            with contextlib.suppress(OSError):  # it has ended already
                self._sock.shutdown(socket.SHUT_RDWR)
        else:
            self._sock.close()
            self._loop.call_soon(self._receiver.connection_lost, None)

    close = abort

    def pause_reading(self) -> None:
        """Do nothing: nothing is read."""

    def resume_reading(self) -> None:
        """Do nothing: nothing is read."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: nothing is written."""

    def get_write_buffer_size(self) -> int:
        """Return 0: nothing is written."""
        return 0
