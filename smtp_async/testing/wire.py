"""Bytes to and from one client of the test server: buffer, TLS, segments, and how a connection ends.

The callbacks of asyncio (`data_received`, …) only fill a buffer. The conversation takes bytes out of the buffer, and
calls `more` when it needs more. `more` sends all pending output in one write, as RFC 2920 §3.2 recommends, so that one
write is the answer to one flight of the client.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Final, Literal, cast

from .records import ConnectionLog
from .tls import TLSLayer

Split = Literal["whole", "line", "byte"]

_MAX_BUFFER: Final = 1 << 20


class Over(Exception):
    """The conversation has ended: the client has closed the connection, or the script did."""


async def turn(interval: float = 0.0) -> None:
    """Give the loop two turns: one in which a client's transport reads, one in which its reader wakes."""
    await asyncio.sleep(interval)
    await asyncio.sleep(0)


def reset_transport(transport: asyncio.WriteTransport) -> None:
    """Close a socket with RST."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Wire(asyncio.Protocol):
    """The bytes of the server's end of one connection.

    Attributes:
        log: The record of the connection.
        buffer: Bytes received, decrypted, and not processed yet.
        gone: Done when the socket is closed.
    """

    transport: asyncio.Transport

    def __init__(self, log: ConnectionLog, *, split: Split = "whole", keep_raw: bool = True) -> None:
        """Wait for `connection_made`.

        Args:
            log: Counts and keeps the bytes received.
            split: Segments of the answers.
            keep_raw: Keep the bytes, too.
        """
        self.log = log
        self.buffer = bytearray()
        self._split: Split = split
        self._keep_raw = keep_raw
        self._loop = asyncio.get_running_loop()
        self._out = bytearray()
        self._tls: TLSLayer | None = None
        self._eof = False
        self._ended = False
        self._paused = False
        self._answered = False
        self._arrived: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.gone: asyncio.Future[None] = self._loop.create_future()

    # Callbacks of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Decrypt and buffer the bytes received."""
        self.log.bytes_received += len(data)
        if self._keep_raw:
            self.log.raw += data
        if self._ended:
            return
        self._feed(data)
        if len(self.buffer) > _MAX_BUFFER:
            self._pause()
        self._wake()

    def _feed(self, data: bytes) -> None:
        if self._tls is not None:
            try:
                data = self._tls.receive(data)
            except ssl.SSLError as error:
                data, self.log.tls_error, self._eof = b"", error, True
            self._eof = self._eof or self._tls.ended
            self.write_wire(self._tls.pending())
        if self._keep_raw:
            self.log.clear += data
        self.buffer += data

    def eof_received(self) -> bool:
        """Record that the client has ended its direction; answers may still be sent."""
        self._eof = True
        self._wake()
        return not self._ended

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake the task; commands that the client had sent before are still executed."""
        self._eof = True
        self.gone.set_result(None)
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Make `flush` wait."""
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let `flush` go on."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    # Reading and writing

    @property
    def writable(self) -> bool:
        """Whether the client can still receive bytes."""
        return not (self._ended or self.transport.is_closing())

    async def more(self) -> None:
        """Send the pending output, then wait for new bytes.

        Raises:
            Over: The client has ended the connection.
        """
        before = self.log.bytes_received
        await self.flush()
        if self.log.bytes_received == before:
            await self._wait_for_bytes()
        if self._answered:
            self._answered = False
            self.log.flights += 1

    async def _wait_for_bytes(self) -> None:
        before = self.log.bytes_received
        self._resume()
        if not (self._eof or self._ended):
            self._arrived = self._loop.create_future()
            await self._arrived
        if self.log.bytes_received == before or self._ended:
            raise Over

    def _pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Add bytes to the pending output."""
        self._out += data

    def truncate(self, keep: int) -> None:
        """Drop all but the first bytes of the pending output."""
        del self._out[keep:]

    async def flush(self, split: Split | None = None, interval: float = 0.0) -> None:
        """Send the pending output.

        Args:
            split: Segments of the output; None as the server was told.
            interval: Seconds between two segments.
        """
        if not self._out:
            return
        data, self._out = bytes(self._out), bytearray()
        self._answered = True
        for piece in _pieces(data, split or self._split):
            if not self.writable:
                return
            self.write_wire(self._tls.encrypt(piece) if self._tls and self._tls.ready else piece)
            if len(piece) < len(data):
                await turn(interval)
        if self._room is not None:
            await self._room

    def write_wire(self, data: bytes) -> None:
        """Write bytes to the socket as they are."""
        if data and self.writable:
            self.transport.write(data)

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Do the server's part of a TLS handshake; the buffer holds its first bytes.

        Args:
            context: The server's certificate.

        Raises:
            Over: The handshake failed; `log.tls_error` says why.
        """
        await self.flush()
        wire = bytes(self.buffer)
        self.buffer.clear()
        self._tls = TLSLayer(context)
        self._feed(wire)
        try:
            while not self._tls.ready:
                await self.more()
        except Over:
            self.log.tls_error = self.log.tls_error or ssl.SSLEOFError("ended in the handshake")
            raise
        self.log.tls = self._tls.object

    # Closing

    async def close(self, *, notify: bool = True) -> None:
        """Send the pending output and FIN, and ignore the client until it closes, too.

        Args:
            notify: Under TLS, send close_notify before the FIN.
        """
        await self.flush()
        if not self.writable:
            return
        if self._tls is not None and self._tls.ready and notify:
            self.write_wire(self._tls.end())
        self._ended = True
        try:
            if self._eof:
                return self.transport.close()
            self.transport.write_eof()
            self._resume()
        except (OSError, RuntimeError):  # the client has closed the connection meanwhile
            self.transport.abort()

    def reset(self) -> None:
        """End the connection with RST."""
        self._ended = True
        reset_transport(self.transport)

    async def stall(self) -> None:
        """Stop reading and writing."""
        self._pause()
        await self._loop.create_future()


def _pieces(data: bytes, split: Split) -> Iterator[bytes]:
    if split == "whole":
        yield data
    elif split == "line":
        yield from data.splitlines(keepends=True)
    else:
        yield from (data[i : i + 1] for i in range(len(data)))
