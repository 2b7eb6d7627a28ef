"""How bytes arrive: the protocol behind a stream's transport, which buffers what comes until it is read.

It takes the place of asyncio's StreamReader, StreamReaderProtocol and StreamWriter, because an idle connection would
hold all three with their dictionaries, and each read would go through three coroutines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from .pauses import ReadPauses

__all__ = ["READ_LIMIT", "Receiver", "Traffic"]

#: The transport stops reading at twice this size, so 64 KiB of replies always fit, and goes on at this size.
READ_LIMIT: Final = 64 * 1024


class Traffic:
    """How much went over a connection. It is counted on, and outlives the connection.

    Attributes:
        sent: bytes handed to the connection, before encryption.
        received: bytes read or handed over, after decryption.
    """

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0


class Receiver(asyncio.Protocol):
    """Buffers what a transport receives, and knows when the transport takes no more to write and when it has ended.

    An error is the end of the stream, remembered in `failure`, so that the bytes before it can still be read. While
    `taker` is set, it gets the bytes that arrive, until it refuses them; the buffer gets the rest.

    Args:
        loop: the event loop.
        traffic: counts what `taker` takes.

    Attributes:
        traffic: as given.
        taker: see above.
        failure: what ended the connection; None if the server ended it properly, or this side did.
        at_end: the server sends nothing any more.
        ended: the transport has reported its end.
        pauses: the pauses in reading, None where it is not limited.
    """

    __slots__ = (
        "_buffer",
        "_closed",
        "_draining",
        "_loop",
        "_paused",
        "_reading",
        "_stuck",
        "_transport",
        "at_end",
        "ended",
        "failure",
        "pauses",
        "taker",
        "traffic",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, traffic: Traffic) -> None:
        self._loop = loop
        self.traffic = traffic
        self.taker: Callable[[bytes], bool] | None = None
        self.failure: BaseException | None = None
        self.at_end = False
        self.ended = False
        self.pauses: ReadPauses | None = None
        self._transport: asyncio.Transport | None = None
        # A bytearray only while several pieces wait: one piece is handed on without copying it.
        self._buffer: bytes | bytearray = b""
        # Was the transport told to stop reading?
        self._paused = False
        # Does the transport take no more to write?
        self._stuck = False
        # Whoever waits for bytes, for the transport to write, and for its end.
        self._reading: asyncio.Future[None] | None = None
        self._draining: list[asyncio.Future[None]] | None = None
        self._closed: asyncio.Future[None] | None = None

    # --- what the transport reports --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is no instance of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        taker = self.taker
        if taker is not None and taker(data):
            self.traffic.received += len(data)
        else:
            # Later bytes must queue behind these.
            self.taker = None
            self._keep(data)
        if self.pauses is not None:
            self.pauses.received(len(data))

    def _keep(self, data: bytes) -> None:
        if not self._buffer:
            self._buffer = data
        else:
            if isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._buffer)
            self._buffer += data
        self._wake_reader()
        if len(self._buffer) > 2 * READ_LIMIT and not self._paused and self._transport is not None:
            self._paused = True
            (self.pauses or self._transport).pause_reading()

    def eof_received(self) -> bool:
        self.at_end = True
        self._wake_reader()
        # A plain transport stays open, so that what is buffered can be written; TLS does not allow that.
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.pauses is not None:
            self.pauses.stop()
        if exc is not None:
            self.failure = exc
        self.ended = self.at_end = True
        self._wake_reader()
        self._wake_writers()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self._stuck = True

    def resume_writing(self) -> None:
        self._stuck = False
        self._wake_writers()

    def _wake_reader(self) -> None:
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(None)

    def _wake_writers(self) -> None:
        waiting, self._draining = self._draining, None
        for one in waiting or ():
            if not one.done():
                one.set_result(None)

    # --- what the stream asks --------------------------------------------------------------------------------

    @property
    def buffered(self) -> int:
        """How many bytes wait to be read."""
        return len(self._buffer)

    def find(self, separator: bytes, start: int) -> int:
        """Return where `separator` begins among the bytes that wait, -1 if it is not there."""
        return self._buffer.find(separator, start)

    def take(self, most: int) -> bytes:
        """Return the bytes that wait, at most so many."""
        data = self._buffer
        if len(data) <= most:
            self._buffer = b""
        else:
            data, self._buffer = data[:most], data[most:]
        if self._paused and len(self._buffer) <= READ_LIMIT:
            self._resume()
        return data if isinstance(data, bytes) else bytes(data)

    async def wait(self) -> None:
        """Wait until more bytes have arrived, or the end.

        Raises:
            RuntimeError: another task waits.
        """
        if self._reading is not None:
            raise RuntimeError("another task reads this stream")
        if self._paused:
            # Otherwise nothing could arrive.
            self._resume()
        self._reading = self._loop.create_future()
        try:
            await self._reading
        finally:
            self._reading = None

    async def drain(self) -> None:
        """Wait until the transport takes more to write.

        Raises:
            ConnectionResetError: the transport has ended.
        """
        if self._transport is not None and self._transport.is_closing():
            # The transport reports its end in the next turn of the loop.
            await asyncio.sleep(0)
        if self._stuck and not self.ended:
            waiter = self._loop.create_future()
            if self._draining is None:
                self._draining = []
            self._draining.append(waiter)
            await waiter
        if self.ended:
            raise ConnectionResetError("the connection was lost")

    def closed(self) -> asyncio.Future[None]:
        """Return a future that is done when the transport has ended; do not cancel it."""
        if self._closed is None:
            self._closed = self._loop.create_future()
            if self.ended:
                self._closed.set_result(None)
        return self._closed

    def end_reading(self) -> None:
        """End the stream for the reader, because this side has aborted the transport, which reports its end later."""
        self.at_end = True
        self._wake_reader()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self.ended:
            (self.pauses or self._transport).resume_reading()
