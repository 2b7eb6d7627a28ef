"""Parser of the messages of a TLS handshake (RFC 5246 section 7.4, RFC 8446 section 4).

Only facts that Python's `ssl` does not provide are read: the certificates of a chain that does not verify, the group of
the key exchange, the scheme of the server's signature, the hint of a pre-shared key. OpenSSL parses each message, too,
and ends the handshake if it is malformed. Therefore nothing here raises an error: the result for a message that is cut,
too long, or of another kind, is None or empty.
"""

from __future__ import annotations

import functools
import struct
from typing import Final, NamedTuple

__all__ = [
    "CERTIFICATE",
    "CERTIFICATE_REQUEST",
    "CERTIFICATE_VERIFY",
    "SERVER_HELLO",
    "SERVER_KEY_EXCHANGE",
    "ServerHello",
    "ServerKeyExchange",
    "certificates_in",
    "message_name",
    "read_server_hello",
    "read_server_key_exchange",
    "scheme_in",
]

#: The types of the messages.
SERVER_HELLO: Final = 2
CERTIFICATE: Final = 11
SERVER_KEY_EXCHANGE: Final = 12
CERTIFICATE_REQUEST: Final = 13
CERTIFICATE_VERIFY: Final = 15

_NAMES: Final = {
    0: "HelloRequest",
    1: "ClientHello",
    SERVER_HELLO: "ServerHello",
    4: "NewSessionTicket",
    5: "EndOfEarlyData",
    8: "EncryptedExtensions",
    CERTIFICATE: "Certificate",
    SERVER_KEY_EXCHANGE: "ServerKeyExchange",
    CERTIFICATE_REQUEST: "CertificateRequest",
    14: "ServerHelloDone",
    CERTIFICATE_VERIFY: "CertificateVerify",
    16: "ClientKeyExchange",
    20: "Finished",
    22: "CertificateStatus",
    24: "KeyUpdate",
}

#: Extensions of a ServerHello, RFC 8446 section 4.2.
_PRE_SHARED_KEY, _SUPPORTED_VERSIONS, _KEY_SHARE = 41, 43, 51
#: Where the length of the session stands in a ServerHello: behind its header, the version and 32 octets.
_SESSION: Final = 38
#: ECCurveType named_curve, RFC 8422 section 5.4; other types are no longer used.
_NAMED_CURVE: Final = 3
#: From this version on, a signature names its scheme.
_TLS12: Final = 0x0303

#: Read one number of two octets, and two of them.
_NUMBER: Final = struct.Struct(">H").unpack_from
_NUMBERS: Final = struct.Struct(">HH").unpack_from


class ServerHello(NamedTuple):
    """The server's choice.

    Attributes:
        version: 0x0303 is TLS 1.2, 0x0304 is TLS 1.3.
        suite: number of the cipher suite.
        group: number of the group, TLS 1.3 only; None if keys come from an earlier secret alone.
        resumes: TLS 1.3 continues from an earlier secret.
    """

    version: int
    suite: int
    group: int | None
    resumes: bool


class ServerKeyExchange(NamedTuple):
    """The server's part of the key exchange, up to TLS 1.2.

    Attributes:
        group: number of the group, None for a prime that the server chose.
        prime_bits: size of that prime, None with a group.
        signed: the message is signed.
        scheme: number of the signature scheme, None before TLS 1.2.
        hint: the server's hint for the pre-shared key.
    """

    group: int | None = None
    prime_bits: int | None = None
    signed: bool = False
    scheme: int | None = None
    hint: bytes = b""


class _MalformedError(Exception):
    """The message is too short or too long."""


class _Cursor:
    """Reads numbers and vectors (RFC 8446 section 3) in order.

    Raises:
        _MalformedError: raised by every method if octets are missing.
    """

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, octets: int) -> int:
        start = self._at
        end = self._at = start + octets
        if end > len(self._data):
            raise _MalformedError
        return int.from_bytes(self._data[start:end], "big")

    def vector(self, octets: int) -> bytes:
        """Read a vector whose length precedes it in `octets` octets."""
        # Inlined, because each handshake reads a dozen vectors.
        data, begin = self._data, self._at + octets
        end = self._at = begin + int.from_bytes(data[begin - octets : begin], "big")
        if end > len(data) or begin > len(data):
            raise _MalformedError
        return data[begin:end]

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def end(self) -> None:
        if self.more:
            raise _MalformedError


def message_name(kind: int) -> str:
    """Return the name of a type of message in the RFCs."""
    return _NAMES.get(int(kind), f"message {int(kind)}")


@functools.lru_cache(maxsize=8)
def certificates_in(message: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a Certificate message, RFC 5246 section 7.4.2 or RFC 8446 section 4.4.2.

    Cached, because a server sends the same certificates in each handshake.

    Returns:
        The certificates in DER, in order; empty if the message is of another kind, cut or malformed.
    """
    try:
        body = _body(message, CERTIFICATE)
        # TLS 1.3 has a request context, empty here, before the list, and extensions behind each certificate.
        tls13 = int.from_bytes(message[4:7], "big") != len(message) - 7
        if tls13 and body.vector(1):
            return ()
        entries = _Cursor(body.vector(3))
        body.end()
        found = []
        while entries.more:
            found.append(entries.vector(3))
            if tls13:
                entries.vector(2)
    except _MalformedError:
        return ()
    return tuple(found)


def read_server_hello(message: bytes) -> ServerHello | None:
    """Parse a ServerHello, RFC 8446 section 4.1.3, or a HelloRetryRequest, which has the same form."""
    if not _is_whole(message, SERVER_HELLO) or len(message) <= _SESSION:
        return None
    # Version, 32 octets that are random, the session; then suite, compression, extensions.
    at = _SESSION + 1 + message[_SESSION]
    extensions = _extensions(message, at + 3)
    if extensions is None:
        return None
    version = extensions.get(_SUPPORTED_VERSIONS, message[4:6])
    share = extensions.get(_KEY_SHARE)
    if len(version) < 2 or (share is not None and len(share) < 2):
        return None
    group = None if share is None else _number(share, 0)
    return ServerHello(_number(version, 0), _number(message, at), group, _PRE_SHARED_KEY in extensions)


def _extensions(message: bytes, at: int) -> dict[int, bytes] | None:
    """Return the extensions that begin at `at` and end the message; None if they are malformed."""
    found: dict[int, bytes] = {}
    end = len(message)
    if at == end:
        return found
    if at + 2 > end or at + 2 + _number(message, at) != end:
        return None
    at += 2
    while at < end:
        begin = at + 4
        if begin > end:
            return None
        kind, length = _NUMBERS(message, at)
        at = begin + length
        found[kind] = message[begin:at]
    return found if at == end else None


def read_server_key_exchange(
    message: bytes, *, key_exchange: str, authentication: str, version: int
) -> ServerKeyExchange | None:
    """Parse a ServerKeyExchange, RFC 5246 section 7.4.3, RFC 8422 section 5.4, RFC 4279 sections 2 to 4.

    The suite decides the form of the message.

    Args:
        message: with its header.
        key_exchange, authentication: of the suite, as in `Suite`.
        version: 0x0303 for TLS 1.2.
    """
    try:
        body = _body(message, SERVER_KEY_EXCHANGE)
        hint = body.vector(2) if authentication == "PSK" or key_exchange == "PSK" else b""
        group, prime_bits = _parameters(body, key_exchange)
        signed = authentication not in ("PSK", "anon")
        scheme = body.number(2) if signed and version >= _TLS12 else None
        if signed:
            body.vector(2)
        body.end()
    except _MalformedError:
        return None
    return ServerKeyExchange(group, prime_bits, signed, scheme, hint)


def _parameters(body: _Cursor, key_exchange: str) -> tuple[int | None, int | None]:
    if key_exchange == "ECDHE":
        if body.number(1) != _NAMED_CURVE:
            raise _MalformedError
        group = body.number(2)
        body.vector(1)  # the server's point
        return group, None
    if key_exchange == "DHE":
        prime = int.from_bytes(body.vector(2), "big")
        body.vector(2)  # generator
        body.vector(2)  # the server's number
        return None, prime.bit_length()
    return None, None


def scheme_in(message: bytes) -> int | None:
    """Return the number of the signature scheme of a CertificateVerify from TLS 1.2 on, RFC 8446 section 4.4.3."""
    if not _is_whole(message, CERTIFICATE_VERIFY) or len(message) < 8:
        return None
    return _number(message, 4) if len(message) == 8 + _number(message, 6) else None


def _is_whole(message: bytes, kind: int) -> bool:
    """Tell whether a message is of this kind and as long as its header says."""
    return (
        len(message) >= 4 and message[0] == kind and int.from_bytes(message[1:4], "big") == len(message) - 4
    )


def _number(octets: bytes, at: int) -> int:
    number: int = _NUMBER(octets, at)[0]
    return number


def _body(message: bytes, kind: int) -> _Cursor:
    """Return the body of a message, which must be complete and of the type `kind`."""
    whole = _Cursor(message)
    if whole.number(1) != kind:
        raise _MalformedError
    body = whole.vector(3)
    whole.end()
    return _Cursor(body)
