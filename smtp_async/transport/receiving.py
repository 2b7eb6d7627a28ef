"""How bytes arrive: asyncio's stream reader and its protocol, with what `stream` needs of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from .pauses import ReadPauses

__all__ = ["READ_LIMIT", "Reader", "ReceivingProtocol", "Traffic"]

#: The reader stops the transport at twice this size, so 64 KiB of replies always fit.
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


class ReceivingProtocol(asyncio.StreamReaderProtocol):
    """A StreamReaderProtocol that feeds its reader directly, without the lookups of asyncio's own.

    Attributes:
        ended: the transport reported its end.
        pauses: made in reading, None where it is not limited.
    """

    def __init__(self, reader: Reader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._feed = reader.feed_data
        self.pauses: ReadPauses | None = None
        self.ended = False

    def pause_by(self, pauses: ReadPauses, reader: Reader) -> None:
        self.pauses, self._feed = pauses, pauses.feed
        # `set_transport` can be called once only.
        reader._transport = pauses  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        if self.pauses is not None:
            self.pauses.stop()
        super().connection_lost(exc)


class Reader(asyncio.StreamReader):
    """A StreamReader for which an error is the end of the stream, remembered in `failure`.

    While `taker` is set, it gets the bytes that arrive, until it refuses them; the buffer gets the rest.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, traffic: Traffic) -> None:
        super().__init__(limit=READ_LIMIT, loop=loop)
        self.failure: BaseException | None = None
        self.taker: Callable[[bytes], bool] | None = None
        self.traffic = traffic

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        if self.taker is not None:
            if self.taker(data):
                self.traffic.received += len(data)
                return
            # Later bytes must queue behind these.
            self.taker = None
        super().feed_data(data)

    def set_exception(self, exc: BaseException) -> None:
        self.failure = exc
        self.feed_eof()
