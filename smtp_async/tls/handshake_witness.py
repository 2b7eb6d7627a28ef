"""Observes handshakes: the certificates of the server, the key exchange, the signature.

A helpful error shows the content of the refused certificate, or what the server sent in place of TLS. But OpenSSL
forgets a chain that does not verify, and Python provides neither the chain nor the bytes that are not TLS. A second
connection without verification would cost a dialogue and might reach another server. Python does not provide, either,
the group of the key exchange, the scheme of the signature, whether the server requested a client certificate, or
whether TLS ended with close_notify.

So the handshake is observed: `SSLContext.sslobject_class` replaces `ssl.SSLObject` by a class of ours, which sets
OpenSSL's message callback during each `do_handshake` call. The callback gets the messages in clear, also under TLS 1.3.
A few of them are kept until `handshake_of` reads them. After the handshake, each read is only checked for the end of
TLS.

The same class resumes sessions. The event loop makes the TLS object one iteration after the request, and has no
argument for a session; under uvloop a context variable does not reach it, either. So `offering` stores the session for
the next handshake of this thread with this context and name, and the object takes it when it is made. Offers are taken
in the order in which they are made, because the loop makes the objects in that order.

The callback is `SSLContext._msg_callback`, which Python does not document. If it is missing, or the context of the
application makes other objects or has a callback, nothing is observed: errors have less detail, and the negotiated
properties are known only in part.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Self, TypeAlias

from ..model.reply import printable
from .handshake_messages import (
    CERTIFICATE,
    CERTIFICATE_REQUEST,
    CERTIFICATE_VERIFY,
    SERVER_HELLO,
    SERVER_KEY_EXCHANGE,
    certificates_in,
    message_name,
    read_server_hello,
    read_server_key_exchange,
    scheme_in,
)
from .suites import Suite, find_group, find_suite, group_numbered, scheme_numbered

__all__ = [
    "Evidence",
    "Handshake",
    "cut_short",
    "evidence_of",
    "handshake_of",
    "looks_like_tls",
    "observe",
    "offering",
]

#: Record types of the callback: a handshake message, and OpenSSL's own number for a record header.
_HANDSHAKE, _HEADER = 22, 0x100
#: Maximum of bytes that are kept if a server does not send TLS.
_SHOWN: Final = 512
#: Maximum of characters that are kept of the hint for a pre-shared key.
_HINT_SHOWN: Final = 256
#: The messages that are kept, by direction.
_KEPT: Final = {
    "read": frozenset(
        {SERVER_HELLO, CERTIFICATE, SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST, CERTIFICATE_VERIFY}
    ),
    "write": frozenset({CERTIFICATE_VERIFY}),
}
_TLS13: Final = 0x0304
#: TLS before 1.2 has one signature scheme for each kind of key, without a number.
_OLD_SCHEMES: Final = {"RSA": "rsa_pkcs1_md5_sha1", "DSS": "dsa_sha1", "ECDSA": "ecdsa_sha1"}


class Evidence(NamedTuple):
    """Observations of a handshake that failed.

    Attributes:
        chain: the server's certificates in DER, its own first; empty if none was observed.
        first_bytes: the first bytes of the server, if they are not TLS.
    """

    chain: tuple[bytes, ...] = ()
    first_bytes: bytes = b""


class Handshake(NamedTuple):
    """Observations of a handshake that succeeded; None if something was not observed or does not exist.

    Attributes:
        chain: the server's certificates in DER, its own first; in a resumed session at most that one.
        key_exchange: the key exchange; in TLS 1.3 `"PSK"` if keys come from an earlier secret alone.
        group: IANA's name of the group.
        prime_bits: size of the prime of a Diffie-Hellman exchange without a named group.
        signature_algorithm: IANA's name of the scheme of the server's signature.
        psk_hint: the server's hint for the pre-shared key.
        client_auth_requested: the server requested a certificate.
        client_authenticated: the client proved a certificate.
    """

    chain: tuple[bytes, ...] = ()
    key_exchange: str | None = None
    group: str | None = None
    prime_bits: int | None = None
    signature_algorithm: str | None = None
    psk_hint: str | None = None
    client_auth_requested: bool | None = None
    client_authenticated: bool | None = None


def observe(context: ssl.SSLContext) -> None:
    """Observe the handshakes with `context`, unless it makes TLS objects of another class."""
    if context.sslobject_class is ssl.SSLObject:
        context.sslobject_class = _Witness


def evidence_of(error: BaseException | None) -> Evidence:
    """Return the observations of the handshake that ended with `error`."""
    found = getattr(error, "smtp_async_evidence", None)
    return found if isinstance(found, Evidence) else Evidence()


def handshake_of(tls: ssl.SSLObject) -> Handshake:
    """Return the observations of the handshake of `tls`, which must be over."""
    if isinstance(tls, _Witness):
        return tls.handshake
    suite = find_suite((tls.cipher() or ("",))[0])
    return Handshake(chain=_leaf(tls), key_exchange=suite.key_exchange if suite is not None else None)


class _Offer:
    """A session to resume, or None, so that a handshake without a session does not take the offer of another."""

    __slots__ = ("session", "taken", "tell")

    def __init__(self, session: ssl.SSLSession | None, tell: Callable[[str], None] | None) -> None:
        self.session = session
        self.tell = tell
        self.taken = False


#: By thread, context and name.
_Place: TypeAlias = tuple[int, int, str]
_offers: Final[dict[_Place, list[_Offer]]] = {}


class offering:
    """Let the handshake that begins within the block resume a session, which must belong to the same context.

    Args:
        context: the context of the handshake.
        name: the name to verify.
        session: None for a full handshake.
        tell: called with a line for each message of the handshake; it must not raise.
    """

    __slots__ = ("_offer", "_place")

    def __init__(
        self,
        context: ssl.SSLContext,
        name: str,
        session: ssl.SSLSession | None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._place: _Place = (threading.get_ident(), id(context), name)
        self._offer = _Offer(session, tell)

    def __enter__(self) -> None:
        _offers.setdefault(self._place, []).append(self._offer)

    def __exit__(self, *exc_info: object) -> None:
        left = _offers[self._place]
        left.remove(self._offer)
        if not left:
            del _offers[self._place]


def _take_offer(context: ssl.SSLContext, name: str | None) -> _Offer:
    for offer in _offers.get((threading.get_ident(), id(context), name or ""), ()):
        if not offer.taken:
            offer.taken = True
            return offer
    return _Offer(None, None)


def cut_short(tls: ssl.SSLObject) -> bool:
    """Tell whether the server, after its last byte was read, ended TLS without close_notify (RFC 8446 section 6.1).

    False if the connection was not observed.
    """
    return isinstance(tls, _Witness) and not tls.farewell


def _leaf(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    leaf = tls.getpeercert(binary_form=True)
    return (leaf,) if leaf else ()


def looks_like_tls(data: bytes) -> bool:
    """Tell whether `data` is the beginning of a TLS record (RFC 8446 section 5.1), as no SMTP reply is."""
    return bool(data) and 20 <= data[0] <= 24 and data[1:2] in (b"", b"\x03") and data[2:3] <= b"\x04"


class _Witness(ssl.SSLObject):
    """An SSLObject that keeps its observations, and attaches them to the error of a failed handshake.

    Attributes:
        farewell: the server has sent close_notify.
    """

    farewell = False
    _first_header = b""
    _incoming: ssl.MemoryBIO | None = None
    _handshake: Handshake | None = None
    _tell: Callable[[str], None] | None = None
    #: The last message of each kind; None while nothing can be observed, and after it was read.
    _messages: dict[tuple[str, int], bytes] | None = None

    @classmethod
    def _create(
        cls,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        *,
        context: ssl.SSLContext,
        server_hostname: str | None,
        session: ssl.SSLSession | None = None,
        **options: Any,
    ) -> Self:
        offer = _take_offer(context, server_hostname)
        # OpenSSL copies the callback of the context into a connection when it is made, so it must be set at that time.
        with watching(context) as seen:
            made: Self = super()._create(  # type: ignore[misc]  # no stub
                incoming,
                outgoing,
                context=context,
                server_hostname=server_hostname,
                session=session or offer.session,
                **options,
            )
        made._incoming = incoming
        made._messages = {} if seen else None
        made._tell = offer.tell
        return made

    def do_handshake(self) -> None:
        try:
            with watching(self.context):
                super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            error.smtp_async_evidence = self._evidence()  # type: ignore[attr-defined]  # travels with the error
            raise
        if self._handshake is None:
            self._handshake = self._read_messages()
            self._messages = self._incoming = self._tell = None

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        data = super().read(len, buffer)
        if not data:
            # Without close_notify OpenSSL waits for more bytes, and asyncio gets the end from the socket.
            self.farewell = True
        return data

    def see(self, direction: str, message: int, data: bytes) -> None:
        if self._tell is not None:
            self._tell(_line(direction, message, len(data)))
        if self._messages is not None and message in _KEPT[direction]:
            self._messages[direction, message] = data

    def see_header(self, data: bytes) -> None:
        self._first_header = self._first_header or data

    @property
    def handshake(self) -> Handshake:
        """The observations."""
        return self._handshake or Handshake(chain=_leaf(self))

    def _evidence(self) -> Evidence:
        chain = certificates_in((self._messages or {}).get(("read", CERTIFICATE), b""))
        if self._incoming is None or not self._first_header or looks_like_tls(self._first_header):
            return Evidence(chain)
        # OpenSSL read five bytes to find that they are not a record header; the other bytes are still in the buffer.
        return Evidence(chain, self._first_header + self._incoming.read(_SHOWN))

    def _read_messages(self) -> Handshake:
        suite = find_suite((self.cipher() or ("",))[0])
        exchange = suite.key_exchange if suite is not None else None
        if self._messages is None:
            return Handshake(_leaf(self), exchange)
        seen = self._messages.get
        keys = keys_in(suite, seen(("read", SERVER_HELLO), b""), seen(("read", SERVER_KEY_EXCHANGE), b""))
        signed = scheme_in(seen(("read", CERTIFICATE_VERIFY), b""))
        return Handshake(
            certificates_in(seen(("read", CERTIFICATE), b"")) or _leaf(self),
            keys.key_exchange,
            keys.group,
            keys.prime_bits,
            keys.signature_algorithm if signed is None else scheme_numbered(signed),
            keys.psk_hint,
            ("read", CERTIFICATE_REQUEST) in self._messages,
            ("write", CERTIFICATE_VERIFY) in self._messages,
        )


def keys_in(suite: Suite | None, hello: bytes, exchanged: bytes) -> Handshake:
    """Return the key exchange, and up to TLS 1.2 also the signature of the server."""
    said = read_server_hello(hello)
    if said is None:
        return Handshake(key_exchange=suite.key_exchange if suite is not None else None)
    if said.version >= _TLS13:
        return agreed_in(said.group)
    if suite is None or suite.key_exchange is None or suite.authentication is None:
        return Handshake()
    half = read_server_key_exchange(
        exchanged,
        key_exchange=suite.key_exchange,
        authentication=suite.authentication,
        version=said.version,
    )
    if half is None:
        return Handshake(key_exchange=suite.key_exchange)
    scheme = _OLD_SCHEMES.get(suite.authentication) if half.signed else None
    return Handshake(
        key_exchange=suite.key_exchange,
        group=None if half.group is None else group_numbered(half.group),
        prime_bits=half.prime_bits,
        signature_algorithm=scheme if half.scheme is None else scheme_numbered(half.scheme),
        psk_hint=printable(half.hint.decode("utf-8", "backslashreplace"), _HINT_SHOWN) or None,
    )


def agreed_in(number: int | None) -> Handshake:
    if number is None:
        return Handshake(key_exchange="PSK")
    group = find_group(group_numbered(number))
    return Handshake(key_exchange=group.key_exchange if group else None, group=group_numbered(number))


def _line(direction: str, message: int, size: int) -> str:
    return f"TLS {'received' if direction == 'read' else 'sent'} {message_name(message)}, {size} bytes"


class watching:
    """Observe messages within the block; it gets whether that is possible.

    The block is synchronous, so no other connection of this thread is observed meanwhile.
    """

    __slots__ = ("_context", "_watched")

    def __init__(self, context: Any) -> None:
        self._context = context
        self._watched = False

    def __enter__(self) -> bool:
        self._watched = _watch(self._context)
        return self._watched

    def __exit__(self, *exc_info: object) -> None:
        if self._watched:
            _unwatch(self._context)


#: How many blocks observe each context now, by its id, because clients of several threads may share a context.
_watches: Final[dict[int, int]] = {}
_counting: Final = threading.Lock()


def _watch(context: Any) -> bool:
    """Set the callback; return False if that is impossible, or if the application has set its own."""
    place = id(context)
    with _counting:
        others = _watches.get(place, 0)
        if not others:
            if getattr(context, "_msg_callback", _watch) not in (None, report):
                return False
            _set_callback(context, report)
        _watches[place] = others + 1
        return True


def _unwatch(context: Any) -> None:
    """Remove the callback if this was the last block."""
    place = id(context)
    with _counting:
        left = _watches.pop(place) - 1
        if left:
            _watches[place] = left
        else:
            _set_callback(context, None)


def report(connection: Any, direction: str, _version: int, kind: int, message: int, data: bytes) -> None:
    # Called two dozen times in a handshake, and for half of them to no purpose.
    if kind == _HANDSHAKE:
        # Dispatched by connection, because another thread may be in a handshake with the same context.
        if isinstance(connection, _Witness):
            connection.see(direction, message, data)
    elif kind == _HEADER and direction == "read" and isinstance(connection, _Witness):
        connection.see_header(data)


#: The attribute from which Python's `SSLContext` reads the function.
report.user_function = report  # type: ignore[attr-defined]
#: Sets the attribute of the base class `_ssl._SSLContext`. That of `ssl.SSLContext` converts three numbers to
#: enumerations for each message, of which a handshake has two dozen, and takes as long as all other code of this file.
_set_plain: Final[Callable[[Any, Any], None] | None] = getattr(
    getattr(ssl.SSLContext.__base__, "_msg_callback", None), "__set__", None
)


def _set_callback(context: Any, callback: Callable[..., None] | None) -> None:
    if _set_plain is not None and isinstance(context, ssl.SSLContext):
        _set_plain(context, callback)
    else:
        context._msg_callback = callback
