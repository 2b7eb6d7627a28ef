"""The certificates and bytes that a server sent in a failed handshake.

A helpful error says what the refused certificate did contain, or what the server sent instead of TLS. But OpenSSL drops
a chain that does not verify, and Python shows neither the chain nor bytes that are not TLS. A second connection without
verification could ask again, but would cost a dialogue and might reach another server. So the handshake is watched:
`SSLContext.sslobject_class` replaces `ssl.SSLObject` by the class of this file, which sets OpenSSL's message callback
during each `do_handshake` call. The callback gets the server's Certificate message in clear, also under TLS 1.3. After
the handshake nothing is left on the path of the data.

The callback is `SSLContext._msg_callback`, which Python does not document. If it is missing, or if the application's
own context makes other objects or has a callback already, no evidence is recorded and errors say less.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Self

__all__ = ["Evidence", "certificates_in", "chain_of", "evidence_of", "looks_like_tls", "observe"]

#: Handshake message 11, RFC 8446 section 4.
_CERTIFICATE: Final = 11
#: Record types of the callback: a handshake message, and OpenSSL's own number for a record header.
_HANDSHAKE, _HEADER = 22, 0x100
#: Bytes kept of what a server sends instead of TLS.
_SHOWN: Final = 512


class Evidence(NamedTuple):
    """What the server sent in a handshake.

    Attributes:
        chain: the server's certificates in DER, its own first; empty if none was recorded.
        first_bytes: the first bytes from the server, if they were not TLS.
    """

    chain: tuple[bytes, ...] = ()
    first_bytes: bytes = b""


def observe(context: ssl.SSLContext) -> None:
    """Make handshakes with `context` record evidence, unless `context` makes TLS objects of another class."""
    if context.sslobject_class is ssl.SSLObject:
        context.sslobject_class = _Witness


def evidence_of(error: BaseException | None) -> Evidence:
    """Return the evidence of the handshake that failed with `error`."""
    found = getattr(error, "smtp_async_evidence", None)
    return found if isinstance(found, Evidence) else Evidence()


def chain_of(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """Return the server's certificates in DER, its own first: all if they were recorded, otherwise its own."""
    if isinstance(tls, _Witness) and (chain := certificates_in(tls.certificate_message)):
        return chain
    leaf = tls.getpeercert(binary_form=True)
    return (leaf,) if leaf else ()


def looks_like_tls(data: bytes) -> bool:
    """Return whether `data` begins a TLS record (RFC 8446 section 5.1); no SMTP reply begins like one."""
    return bool(data) and 20 <= data[0] <= 24 and data[1:2] in (b"", b"\x03") and data[2:3] <= b"\x04"


def certificates_in(message: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a Certificate message, RFC 5246 section 7.4.2 or RFC 8446 section 4.4.2.

    Returns:
        The certificates in DER, in order; empty if the message is of another type, cut or malformed.
    """
    if len(message) < 8 or message[0] != _CERTIFICATE or _uint24(message, 1) != len(message) - 4:
        return ()
    if _uint24(message, 4) == len(message) - 7:
        return _entries(message, 7, extensions=False)
    if message[4] == 0 and _uint24(message, 5) == len(message) - 8:
        # TLS 1.3: an empty request context precedes the list, and extensions follow each certificate.
        return _entries(message, 8, extensions=True)
    return ()


def _entries(message: bytes, at: int, *, extensions: bool) -> tuple[bytes, ...]:
    found = []
    while at < len(message):
        start = at + 3
        at = start + _uint24(message, at)
        found.append(message[start:at])
        if extensions:
            at += 2 + int.from_bytes(message[at : at + 2], "big")
    return tuple(found) if at == len(message) else ()


def _uint24(message: bytes, at: int) -> int:
    return int.from_bytes(message[at : at + 3], "big")


class _Witness(ssl.SSLObject):
    """An SSLObject that records what the server sends, and attaches it to the error of a failed handshake."""

    certificate_message = b""
    _first_header = b""
    _incoming: ssl.MemoryBIO | None = None

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **options: Any) -> Self:
        # OpenSSL copies the context's callback when it makes a connection, so it must be set at that moment.
        with _watching(options.get("context")):
            made: Self = super()._create(incoming, outgoing, **options)  # type: ignore[misc]  # no stub
        made._incoming = incoming
        return made

    def do_handshake(self) -> None:
        try:
            with _watching(self.context):
                super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            error.smtp_async_evidence = self._evidence()  # type: ignore[attr-defined]  # travels with the error
            raise

    def _evidence(self) -> Evidence:
        chain = certificates_in(self.certificate_message)
        if self._incoming is None or not self._first_header or looks_like_tls(self._first_header):
            return Evidence(chain)
        # OpenSSL has read five bytes and found no record header; the rest is still in the buffer.
        return Evidence(chain, self._first_header + self._incoming.read(_SHOWN))

    def see(self, direction: str, kind: int, message: int, data: bytes) -> None:
        if direction != "read":
            return
        if kind == _HEADER:
            self._first_header = self._first_header or data
        elif kind == _HANDSHAKE and message == _CERTIFICATE:
            self.certificate_message = data


@contextlib.contextmanager
def _watching(context: Any) -> Iterator[None]:
    # No await in between, so no other connection of this thread is recorded meanwhile.
    watched = _watch(context)
    try:
        yield
    finally:
        if watched:
            _unwatch(context)


#: Number of handshakes in progress per context, by its id; clients in several threads may share a context.
_watches: Final[dict[int, int]] = {}
_counting: Final = threading.Lock()


def _watch(context: Any) -> bool:
    """Set the callback and return True; return False if the application has set its own, or it is missing."""
    with _counting:
        if getattr(context, "_msg_callback", _watch) not in (None, _report):
            return False
        _watches[id(context)] = _watches.get(id(context), 0) + 1
        context._msg_callback = _report
        return True


def _unwatch(context: Any) -> None:
    """Remove the callback after the last handshake in progress."""
    with _counting:
        left = _watches.pop(id(context)) - 1
        if left:
            _watches[id(context)] = left
        else:
            context._msg_callback = None


def _report(connection: Any, direction: str, _version: int, kind: int, message: int, data: bytes) -> None:
    # The connection decides, because another thread may be in a handshake with the same context.
    if isinstance(connection, _Witness):
        connection.see(direction, kind, message, data)
