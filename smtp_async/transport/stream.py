"""One connection as a stream of bytes: over asyncio's StreamReader and StreamWriter, without their traps.

What this file adds to asyncio's streams, and why:

* **Bytes that arrived before an error are delivered before the error.** `StreamReader` raises at once and
  forgets its buffer, so a reply followed by a reset would be lost. `_Reader` takes the error as the end of
  the stream, and `Stream.read` raises it when the buffer is empty.
* **One set of exceptions.** asyncio is silent, uvloop raises `RuntimeError`, TLS raises `SSLError`: the
  caller sees `ConnectionLost`, `DecryptionFailed` or `EncryptionFailed`, the original chained.
* **A TLS upgrade starts from an empty buffer.** `StreamWriter.start_tls` keeps plaintext that was read ahead,
  and what an attacker put behind the 220 to STARTTLS would then count as encrypted. `Stream.start_tls`
  demands silence, then gives the encrypted side a reader of its own.
* **`abort` is synchronous and final, `close` is polite and limited.** Waiting for a close is done in one
  place only, shielded: a cancelled `wait_closed()` would raise CancelledError for ever after.
* **Writers are kept until the end.** A StreamWriter that is collected closes its transport, also the plain
  one under a TLS layer.

Cancelling `read` or `drain` loses nothing. One task reads; any number may write and drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from ..errors import (
    ConnectionLost,
    DecryptionFailed,
    EncryptionFailed,
    HandshakeFailed,
    PlaintextInjected,
    Timeout,
)

__all__ = ["Endpoint", "Stream", "Traffic", "stream_over", "stream_to"]

#: Host and port, the path of a Unix socket, or nothing where a socket has no name.
Endpoint = tuple[str, int] | str | None

#: The reader stops the transport at twice this size, so 64 KiB of replies always fit.
_READ_LIMIT: Final = 64 * 1024
#: `drain` waits above this many unsent bytes; TLS would otherwise take 512 KiB.
_WRITE_LIMIT: Final = 64 * 1024
#: Seconds for the peer's close_notify; asyncio's own default is 30.
_TLS_SHUTDOWN: Final = 2.0
#: So much of what an attacker, or a server without TLS, sent too early is kept for the error.
_EARLY_SHOWN: Final = 512
#: asyncio has no "for ever" for a handshake: eleven days.
_NO_LIMIT: Final = 1e6


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


class _Protocol(asyncio.StreamReaderProtocol):
    """A StreamReaderProtocol that hands over what arrives without asking who reads it.

    Attributes:
        ended: the transport reported its end.
    """

    def __init__(self, reader: _Reader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._feed = reader.feed_data
        self.ended = False

    def data_received(self, data: bytes) -> None:
        self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        super().connection_lost(exc)


class _Reader(asyncio.StreamReader):
    """A StreamReader for which an error is the end of the stream, remembered in `failure`.

    While `taker` is set, what arrives goes to it instead of the buffer, until it refuses.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, traffic: Traffic) -> None:
        super().__init__(limit=_READ_LIMIT, loop=loop)
        self.failure: BaseException | None = None
        self.taker: Callable[[bytes], bool] | None = None
        self.traffic = traffic

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        if self.taker is not None:
            if self.taker(data):
                self.traffic.received += len(data)
                return
            # What follows must queue up behind it.
            self.taker = None
        super().feed_data(data)

    def set_exception(self, exc: BaseException) -> None:
        self.failure = exc
        self.feed_eof()


class Stream:
    """A connection: bytes in, bytes out, TLS on demand.

    Attributes:
        traffic: how much went over it.
        peer: the other end's address.
        local: our address.
        early: the plaintext that `start_tls` found where silence was due; empty otherwise.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_kept",
        "_protocol",
        "_reader",
        "_tls",
        "_transport",
        "_upgrade_failed",
        "_writer",
        "early",
        "local",
        "peer",
        "traffic",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        reader: _Reader,
        protocol: _Protocol,
    ) -> None:
        self.traffic = reader.traffic
        self.early = b""
        # Asked now: a closed socket does not tell any more.
        self.peer: Endpoint = _endpoint(transport.get_extra_info("peername"))
        self.local: Endpoint = _endpoint(transport.get_extra_info("sockname"))
        self._kept: list[asyncio.StreamWriter] = []
        self._closing: asyncio.Future[None] | None = None
        self._upgrade_failed = False
        self._tls: ssl.SSLObject | None = None
        self._attach(transport, reader, protocol)

    def _attach(
        self,
        transport: asyncio.Transport,
        reader: _Reader,
        protocol: _Protocol,
    ) -> None:
        transport.set_write_buffer_limits(high=_WRITE_LIMIT)
        if hasattr(transport, "max_size"):
            # asyncio asks for 256 KiB at each read, a buffer that the allocator maps and unmaps every time.
            transport.max_size = _READ_LIMIT
        self._transport = transport
        self._reader = reader
        self._protocol = protocol
        self._writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
        self._kept.append(self._writer)

    def __repr__(self) -> str:
        state = "closed" if self.is_closing() else "TLS" if self.encrypted else "plain"
        return f"<Stream to {self.peer} {state} sent={self.traffic.sent} received={self.traffic.received}>"

    # --- state ---------------------------------------------------------------------------------------------

    @property
    def encrypted(self) -> bool:
        """Did a TLS handshake succeed on this connection?"""
        return self._tls is not None

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The TLS layer, None without one. It stays readable after the connection is closed."""
        return self._tls

    def is_closing(self) -> bool:
        """Is the connection closed or about to be? Nothing can be written then."""
        return self._transport.is_closing()

    @property
    def ended(self) -> bool:
        """Has the peer ended the connection, and was everything read that it had sent?"""
        return self._reader.at_eof()

    # --- bytes ---------------------------------------------------------------------------------------------

    async def read(self, n: int = 65536) -> bytes:
        """Return what has arrived, waiting for at least one byte.

        Args:
            n: at most this many bytes.

        Returns:
            The bytes; empty at the end of the stream, and after `abort` or `close`.

        Raises:
            ConnectionLost: the connection broke.
            DecryptionFailed: the TLS layer did.
        """
        data = await self._reader.read(n)
        if data:
            self.traffic.received += len(data)
        elif self._reader.failure is not None:
            raise _reading_failed(self._reader.failure) from self._reader.failure
        return data

    def hand_over(self, taker: Callable[[bytes], bool] | None) -> None:
        """Give what arrives to `taker` at once, in the loop's own turn, instead of to `read`.

        It spares waking the reading task. Call only when everything that arrived was read, with None before anybody
        reads again.

        Args:
            taker: called with the bytes; when it returns False they, and all that follow, are for `read`.
        """
        self._reader.taker = taker

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hand `data` to the connection; it leaves when it can. The buffer must not change afterwards.

        Raises:
            ConnectionLost: the connection is closed; nothing was taken.
            EncryptionFailed: the TLS layer failed.
        """
        transport = self._transport
        if transport.is_closing():
            raise self._gone() from self._reader.failure
        try:
            transport.write(data)
        except (OSError, RuntimeError) as error:
            raise _writing_failed(error) from error
        self.traffic.sent += len(data)

    async def drain(self) -> None:
        """Wait until at most 64 KiB are unsent (a low-water mark, not "everything left").

        Raises:
            ConnectionLost: the connection broke or was closed.
            EncryptionFailed: the TLS layer failed.
        """
        try:
            await self._writer.drain()
        except (OSError, RuntimeError) as error:
            cause = self._reader.failure or error
            raise _writing_failed(cause) from cause

    def _gone(self) -> ConnectionLost:
        return ConnectionLost(f"the connection to {_named(self.peer)} is closed")

    # --- TLS -----------------------------------------------------------------------------------------------

    async def start_tls(
        self,
        context: ssl.SSLContext,
        server_hostname: str | None,
        *,
        deadline: float | None = None,
    ) -> None:
        """Encrypt the connection from here on: right after dialling, or after the 220 to STARTTLS.

        The caller is the only reader. On any failure, also when cancelled, the connection is aborted.

        Args:
            context: what is trusted and offered.
            server_hostname: the name to verify and to send as SNI.
            deadline: loop time at which the handshake must be done.

        Raises:
            PlaintextInjected: bytes came behind the reply to STARTTLS (RFC 3207 section 5).
            ConnectionLost: the connection ended before the handshake began.
            HandshakeFailed: the handshake failed; the `ssl.SSLError` or `OSError` is chained.
            Timeout: the deadline passed; its stage is `"tls"`.
        """
        await self.drain()
        raw = self._transport
        try:
            await self._demand_silence()
            tls, reader, protocol = await _handshake(raw, context, server_hostname, deadline, self.traffic)
        except BaseException:
            self._upgrade_failed = True
            self.abort()
            raise
        protocol.connection_made(tls)
        self._tls = tls.get_extra_info("ssl_object")
        self._attach(tls, reader, protocol)

    async def _demand_silence(self) -> None:
        """Stop reading and make sure that nothing has arrived which nobody asked for. Never waits."""
        if self.is_closing() or self._reader.at_eof():
            raise self._gone() from self._reader.failure
        self._transport.pause_reading()
        # The one public way to ask a StreamReader whether its buffer is empty.
        self._reader.feed_eof()
        if not self._reader.at_eof():
            self.early = await self._reader.read(_EARLY_SHOWN)
            raise PlaintextInjected(
                f"{_named(self.peer)} sent plaintext behind its reply to STARTTLS: somebody may be "
                "injecting commands into this connection",
                stage="STARTTLS",
            )

    # --- the end -------------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Close at once; what was not sent is dropped. Safe at any time and more than once.

        Under TLS the peer is told by close_notify (RFC 8446 section 6.1) if that can leave at once; its answer is not
        waited for. Behind data that could not leave it would be a lie.
        """
        transport = self._transport
        if self._protocol.ended:
            # asyncio's transport fails in `abort` when it ended after `close` had left it bytes to send.
            return
        if self._tls is not None and not transport.is_closing() and not transport.get_write_buffer_size():
            transport.close()
        transport.abort()

    async def close(self, *, limit: float = 2.0) -> None:
        """Send what is buffered, say goodbye to the TLS layer and close. Never raises for the connection.

        Args:
            limit: seconds after which the connection is aborted; a cancelled `close` aborts too.
        """
        if self._upgrade_failed:
            # The writer's protocol gave its place to the TLS layer and will not hear of the end.
            self.abort()
            return await asyncio.sleep(0)
        try:
            if self._closing is None:
                self._writer.close()
                self._closing = asyncio.ensure_future(_closed(self._writer))
            # `wait` does not cancel what it waits for.
            await asyncio.wait((self._closing,), timeout=limit)
        finally:
            self.abort()
        # The socket itself is closed in the loop's next turn.
        await asyncio.wait((self._closing,), timeout=limit)


async def stream_over(sock: socket.socket) -> Stream:
    """Return the stream over a connected, non-blocking socket, which it owns from now on.

    Raises:
        OSError: the loop cannot use the socket.
    """
    loop = asyncio.get_running_loop()
    reader, protocol = _plumbing(loop, Traffic())
    transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
    return Stream(transport, reader, protocol)


async def stream_to(path: str) -> Stream:
    """Return the stream to the Unix socket at `path`.

    Raises:
        OSError: no connection could be made.
    """
    loop = asyncio.get_running_loop()
    reader, protocol = _plumbing(loop, Traffic())
    transport, _ = await loop.create_unix_connection(lambda: protocol, path)
    return Stream(transport, reader, protocol)


def _plumbing(loop: asyncio.AbstractEventLoop, traffic: Traffic) -> tuple[_Reader, _Protocol]:
    reader = _Reader(loop, traffic)
    return reader, _Protocol(reader, loop)


async def _closed(writer: asyncio.StreamWriter) -> None:
    # A task of its own, so that cancelling a caller of `close` cannot cancel `wait_closed`.
    with contextlib.suppress(OSError, RuntimeError):
        await writer.wait_closed()


# --- TLS --------------------------------------------------------------------------------------------------


async def _handshake(
    raw: asyncio.Transport,
    context: ssl.SSLContext,
    server_hostname: str | None,
    deadline: float | None,
    traffic: Traffic,
) -> tuple[asyncio.Transport, _Reader, _Protocol]:
    loop = asyncio.get_running_loop()
    reader, protocol = _plumbing(loop, traffic)
    try:
        tls = await loop.start_tls(
            raw,
            protocol,
            context,
            server_hostname=server_hostname,
            ssl_handshake_timeout=_remaining(loop, deadline),
            ssl_shutdown_timeout=_TLS_SHUTDOWN,
        )
    except Exception as error:
        raise _handshake_failed(error) from error
    if tls is None or raw.is_closing():
        # Aborted from this side meanwhile: asyncio ends the wait without an error.
        raise HandshakeFailed("the connection was closed during the TLS handshake")
    return tls, reader, protocol


def _remaining(loop: asyncio.AbstractEventLoop, deadline: float | None) -> float:
    return _NO_LIMIT if deadline is None else max(deadline - loop.time(), 0.001)


# --- errors -----------------------------------------------------------------------------------------------


def _reading_failed(error: BaseException) -> ConnectionLost | DecryptionFailed:
    if isinstance(error, ssl.SSLError):
        return DecryptionFailed(f"the TLS layer failed while reading: {_reason(error)}")
    return ConnectionLost(f"the connection broke: {_reason(error)}")


def _writing_failed(error: BaseException) -> ConnectionLost | EncryptionFailed:
    if isinstance(error, ssl.SSLError):
        return EncryptionFailed(f"the TLS layer failed while writing: {_reason(error)}")
    return ConnectionLost(f"the connection broke: {_reason(error)}")


def _handshake_failed(error: Exception) -> HandshakeFailed | Timeout:
    # Both loops report the end of their patience this way; one from the system carries a number.
    if isinstance(error, ConnectionAbortedError) and error.errno is None:
        return Timeout("the TLS handshake took too long", stage="tls")
    return HandshakeFailed(f"the TLS handshake failed: {_reason(error)}")


def _reason(error: BaseException) -> str:
    # Only errors that OpenSSL made have a reason; asyncio raises some without any text.
    return getattr(error, "reason", None) or str(error) or type(error).__name__


# --- addresses --------------------------------------------------------------------------------------------


def _endpoint(name: Any) -> Endpoint:
    if isinstance(name, tuple):
        return str(name[0]), int(name[1])
    return name if isinstance(name, str) and name else None


def _named(endpoint: Endpoint) -> str:
    if isinstance(endpoint, tuple):
        host, port = endpoint
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return endpoint or "the server"
