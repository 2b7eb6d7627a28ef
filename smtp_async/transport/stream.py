"""One connection as a stream of bytes, over a transport of asyncio.

What this file does otherwise than asyncio's own streams, and why:

* **Bytes that arrived before an error are delivered before the error.** `StreamReader` raises at once and
  forgets its buffer, so a reply followed by a reset would be lost. `Receiver` treats the error as the end of
  the stream, and `Stream.read` raises it when the buffer is empty.
* **One set of exceptions.** asyncio is silent, uvloop raises `RuntimeError`, TLS raises `SSLError`: the
  caller sees `ConnectionLost`, `DecryptionFailed` or `EncryptionFailed`, the original chained.
* **A TLS upgrade starts from an empty buffer.** `StreamWriter.start_tls` keeps plaintext that was read ahead,
  and bytes that an attacker put behind the 220 to STARTTLS would then count as encrypted. `Stream.start_tls`
  refuses unread plaintext, then gives the encrypted side a receiver of its own.
* **`abort` is synchronous and final, `close` is polite and limited.** A cancelled `StreamWriter.wait_closed` would
  raise CancelledError in every later call.
* **Little per connection.** One object receives, where asyncio's streams have three (`receiving.py`).

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
from ..model.proxy_response import ProxyResponse
from .held_socket import HeldSocket
from .pauses import ReadPauses
from .receiving import READ_LIMIT, Receiver, Traffic
from .throttle import Throttle

__all__ = ["Endpoint", "Stream", "held_stream", "stream_over", "stream_to"]

#: Host and port, the path of a Unix socket, or None for a socket without a name.
Endpoint = tuple[str, int] | str | None

#: `drain` waits above this many unsent bytes.
_WRITE_LIMIT: Final = 64 * 1024
#: Under TLS with less the server would wait for blocks to be encrypted, a quarter of the time of a large body; with
#: asyncio's 512 KiB it is no faster.
_TLS_WRITE_LIMIT: Final = 256 * 1024
#: Seconds for the peer's close_notify; asyncio's own default is 30.
_TLS_SHUTDOWN: Final = 2.0
#: Bytes kept of the plaintext that an attacker, or a server without TLS, sent too early.
_EARLY_SHOWN: Final = 512
#: Eleven days, because asyncio has no handshake without a limit.
_NO_LIMIT: Final = 1e6


class Stream:
    """A connection: bytes in, bytes out, TLS on demand.

    Attributes:
        traffic: how much went over the connection.
        peer: the server's address.
        local: the client's address.
        early: plaintext that had arrived when `start_tls` was called; empty if there was none.
        via: the proxies that the connection goes through, for messages; empty without one.
        proxy_response: what the last HTTP proxy of them answered.
        linger_time: seconds that the system may take after the end to deliver pending data, 0 without such a limit.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_receiver",
        "_throttle",
        "_tls",
        "_transport",
        "_upgrade_failed",
        "early",
        "linger_time",
        "local",
        "peer",
        "proxy_response",
        "traffic",
        "via",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        receiver: Receiver,
    ) -> None:
        self.traffic = receiver.traffic
        self.early = b""
        self.via = ""
        self.proxy_response: ProxyResponse | None = None
        self.linger_time = 0.0
        # Read now, because a closed socket has no addresses.
        self.peer: Endpoint = _endpoint(transport.get_extra_info("peername"))
        self.local: Endpoint = _endpoint(transport.get_extra_info("sockname"))
        self._closing = False
        self._upgrade_failed = False
        self._tls: ssl.SSLObject | None = None
        self._throttle: Throttle | None = None
        self._attach(transport, receiver)

    def _attach(self, transport: asyncio.Transport, receiver: Receiver) -> None:
        transport.set_write_buffer_limits(high=_TLS_WRITE_LIMIT if self.encrypted else _WRITE_LIMIT)
        if hasattr(transport, "max_size"):
            # asyncio reads 256 KiB at a time, a buffer that the allocator maps and unmaps for each read.
            transport.max_size = READ_LIMIT
        self._transport = transport
        self._receiver = receiver
        if self._throttle is not None:
            self.limit_reading(self._throttle)

    def __repr__(self) -> str:
        state = "closed" if self.is_closing() else "TLS" if self.encrypted else "plain"
        return f"<Stream to {self.peer} {state} sent={self.traffic.sent} received={self.traffic.received}>"

    # --- state ---------------------------------------------------------------------------------------------

    @property
    def encrypted(self) -> bool:
        """Whether a TLS handshake with the server has succeeded on this connection."""
        return self._tls is not None

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The TLS layer, None without TLS. It can be read after the connection is closed."""
        return self._tls

    def is_closing(self) -> bool:
        """Return whether the connection is closed or about to be: nothing can be written."""
        return self._transport.is_closing()

    @property
    def ended(self) -> bool:
        """Whether the server has ended the connection and everything that it had sent was read."""
        return self._receiver.at_end and not self._receiver.buffered

    # --- bytes ---------------------------------------------------------------------------------------------

    async def read(self, n: int = 65536) -> bytes:
        """Return bytes that have arrived; wait for at least one.

        Args:
            n: at most this many bytes.

        Returns:
            The bytes; empty at the end of the stream, and after `abort` or `close`.

        Raises:
            ConnectionLost: the connection broke.
            DecryptionFailed: the TLS layer failed.
        """
        receiver = self._receiver
        if not (receiver.buffered or receiver.at_end):
            await receiver.wait()
        data = receiver.take(n)
        if data:
            self.traffic.received += len(data)
        elif receiver.failure is not None and not self._closing:
            raise _reading_failed(receiver.failure) from receiver.failure
        return data

    async def read_until(self, separator: bytes, *, limit: int) -> bytes:
        """Return the bytes up to and including `separator`; what follows it stays for the next read.

        They lack the separator where the stream ended before it, and are cut where `limit` was exceeded.

        Raises:
            ConnectionLost, DecryptionFailed: as `read`.
        """
        receiver = self._receiver
        seen = 0
        while (found := receiver.find(separator, max(0, seen - len(separator) + 1))) < 0:
            seen = receiver.buffered
            if seen >= limit or receiver.at_end:
                return await self.read(limit)
            await receiver.wait()
        return await self.read(min(found + len(separator), limit))

    def hand_over(self, taker: Callable[[bytes], bool] | None) -> None:
        """Pass arriving bytes to `taker` in the same turn of the loop, instead of to `read`.

        This saves waking the reading task. Call it only when everything that arrived was read, and call it with None
        before the next `read`.

        Args:
            taker: called with the bytes; when it returns False, `read` gets these bytes and all later ones.
        """
        self._receiver.taker = taker

    def limit_reading(self, throttle: Throttle) -> None:
        """Read no faster than `throttle` allows; bytes are counted after decryption, a handshake is not counted."""
        self._throttle = throttle
        if (part := throttle.read_part) is not None:
            if hasattr(self._transport, "max_size"):
                self._transport.max_size = part
            self._receiver.pauses = ReadPauses(throttle, self._transport)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hand `data` to the connection and return; do not change the buffer afterwards.

        Raises:
            ConnectionLost: the connection is closed; nothing will be sent.
            EncryptionFailed: the TLS layer failed.
        """
        transport = self._transport
        if transport.is_closing():
            raise self._gone() from self._receiver.failure
        try:
            transport.write(data)
        except (OSError, RuntimeError) as error:
            raise _writing_failed(error) from error
        self.traffic.sent += len(data)

    async def drain(self) -> None:
        """Wait until at most 64 KiB are unsent, under TLS 256 KiB (a low-water mark, not "everything left").

        Under TLS asyncio does not count the last `write`, however large: write large data in blocks.

        Raises:
            ConnectionLost: the connection broke or was closed.
            EncryptionFailed: the TLS layer failed.
        """
        try:
            await self._receiver.drain()
        except (OSError, RuntimeError) as error:
            cause = self._receiver.failure or error
            raise _writing_failed(cause) from cause
        if self._transport.is_closing():
            # Under TLS asyncio reports the end of a transport a few turns of the loop later.
            raise self._gone() from self._receiver.failure

    def _gone(self) -> ConnectionLost:
        return ConnectionLost(f"the connection to {_named(self.peer)} is closed")

    # --- TLS -----------------------------------------------------------------------------------------------

    async def start_tls(
        self,
        context: ssl.SSLContext,
        server_hostname: str | None,
        *,
        deadline: float | None = None,
        to_proxy: bool = False,
    ) -> None:
        """Encrypt the connection: right after dialling, or after the 220 to STARTTLS.

        No other task may read meanwhile. A failure or a cancellation aborts the connection.

        Args:
            context: trusted certificates, TLS versions and cipher suites.
            server_hostname: the name to verify and to send as SNI.
            deadline: loop time by which the handshake must be complete.
            to_proxy: with a proxy. TLS with the server goes through this layer, which does not count as `encrypted`.

        Raises:
            PlaintextInjected: bytes followed the reply to STARTTLS (RFC 3207 section 5).
            ConnectionLost: the connection ended before the handshake began.
            HandshakeFailed: the handshake failed; the `ssl.SSLError` or `OSError` is chained.
            Timeout: the deadline passed; its stage is `"tls"`.
        """
        await self.drain()
        raw = self._transport
        try:
            self._refuse_plaintext()
            tls, receiver = await _handshake(raw, context, server_hostname, deadline, self.traffic)
        except BaseException:
            self._upgrade_failed = True
            self.abort()
            # The TLS layer may have replaced the receiver, which then is not told of the end.
            self._receiver.connection_lost(None)
            raise
        receiver.connection_made(tls)
        if not to_proxy:
            self._tls = tls.get_extra_info("ssl_object")
        self._attach(tls, receiver)

    def _refuse_plaintext(self) -> None:
        """Stop reading and refuse bytes that arrived after the reply to STARTTLS."""
        receiver = self._receiver
        if self.is_closing() or self.ended:
            raise self._gone() from receiver.failure
        self._transport.pause_reading()
        if receiver.pauses is not None:
            receiver.pauses.stop()
        if receiver.buffered:
            self.early = receiver.take(_EARLY_SHOWN)
            raise PlaintextInjected(
                f"{_named(self.peer)} sent plaintext behind its reply to STARTTLS: an attacker may be "
                "injecting commands into this connection",
                stage="STARTTLS",
            )

    # --- closing -------------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Close at once and drop what was not sent. Safe at any time and more than once.

        Under TLS a close_notify (RFC 8446 section 6.1) is sent first if nothing is unsent; its answer is not awaited.
        Behind dropped data no close_notify is sent, because it would claim that the data was complete.
        """
        transport = self._transport
        if self._receiver.ended:
            # asyncio's transport raises in `abort` if it ended while `close` still had bytes to send.
            return
        self._limit_linger()
        if self._tls is not None and not transport.is_closing() and not transport.get_write_buffer_size():
            transport.close()
        transport.abort()
        # The reader need not wait until the transport has reported its end.
        self._receiver.end_reading()

    def _limit_linger(self) -> None:
        """Have the system reset the connection if it cannot deliver what it has within `linger_time`."""
        if not self.linger_time or not hasattr(socket, "TCP_USER_TIMEOUT"):
            return
        sock = self._transport.get_extra_info("socket")
        # Not SO_LINGER with a time, because closing the socket would then stop the event loop for so long.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(self.linger_time * 1000)))

    async def close(self, *, limit: float = 2.0) -> None:
        """Send what is buffered, exchange close_notify under TLS, and close. Failures of the connection are not raised.

        Args:
            limit: seconds after which the connection is aborted. A cancelled `close` aborts it, too.
        """
        if self._upgrade_failed:
            # Aborted; the socket itself is closed in the loop's next turn.
            return await asyncio.sleep(0)
        closed = self._receiver.closed()
        try:
            if not self._closing:
                self._closing = True
                self._limit_linger()
                self._transport.close()
            # `wait` does not cancel what it waits for.
            await asyncio.wait((closed,), timeout=limit)
        finally:
            self.abort()
        # The socket itself is closed in the loop's next turn.
        await asyncio.wait((closed,), timeout=limit)


async def stream_over(sock: socket.socket) -> Stream:
    """Return a stream over a connected, non-blocking socket; the stream owns the socket from now on.

    Raises:
        OSError: the loop cannot use the socket.
    """
    loop = asyncio.get_running_loop()
    transport, receiver = await loop.create_connection(lambda: Receiver(loop, Traffic()), sock=sock)
    return Stream(transport, receiver)


def held_stream(sock: socket.socket) -> Stream:
    """Return a stream over a connected, non-blocking socket, which it owns; it does nothing before `start_tls`."""
    loop = asyncio.get_running_loop()
    receiver = Receiver(loop, Traffic())
    return Stream(HeldSocket(sock, receiver, loop), receiver)


async def stream_to(path: str) -> Stream:
    """Connect to the Unix socket at `path` and return the stream.

    Raises:
        OSError: the connection could not be established.
    """
    loop = asyncio.get_running_loop()
    transport, receiver = await loop.create_unix_connection(lambda: Receiver(loop, Traffic()), path)
    return Stream(transport, receiver)


# --- TLS --------------------------------------------------------------------------------------------------


async def _handshake(
    raw: asyncio.Transport,
    context: ssl.SSLContext,
    server_hostname: str | None,
    deadline: float | None,
    traffic: Traffic,
) -> tuple[asyncio.Transport, Receiver]:
    loop = asyncio.get_running_loop()
    receiver = Receiver(loop, traffic)
    limit = _remaining(loop, deadline)
    tls: asyncio.Transport | None
    try:
        if isinstance(raw, HeldSocket):
            tls, _ = await loop.create_connection(
                lambda: receiver,
                sock=raw.hand_over(),
                ssl=context,
                # Empty, it checks no name, as None does with `start_tls`; None is an error here.
                server_hostname=server_hostname or "",
                ssl_handshake_timeout=limit,
                ssl_shutdown_timeout=_TLS_SHUTDOWN,
            )
        else:
            tls = await loop.start_tls(
                raw,
                receiver,
                context,
                server_hostname=server_hostname,
                ssl_handshake_timeout=limit,
                ssl_shutdown_timeout=_TLS_SHUTDOWN,
            )
    except Exception as error:
        raise _handshake_failed(error) from error
    if tls is None or raw.is_closing():
        # `abort` was called meanwhile: asyncio ends the wait without an error.
        raise HandshakeFailed("the connection was closed during the TLS handshake")
    return tls, receiver


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
    # Both event loops report their time limit this way; an error of the system has an errno.
    if isinstance(error, ConnectionAbortedError) and error.errno is None:
        return Timeout("the TLS handshake took too long", stage="tls")
    return HandshakeFailed(f"the TLS handshake failed: {_reason(error)}")


def _reason(error: BaseException) -> str:
    # Only OpenSSL's errors have a reason, and some of asyncio's errors have no text.
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
