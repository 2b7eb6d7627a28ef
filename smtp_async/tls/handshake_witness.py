"""What was seen of a handshake: what the server showed, how keys were agreed on, how it signed.

An error that teaches says what the refused certificate did contain, or what the server said in place of TLS.
But OpenSSL forgets a chain that does not verify, and Python shows neither it nor the bytes that are no TLS. A
second connection could ask again without verifying; it would cost a dialogue and might meet another server.
Nor does Python tell the group of the key exchange, the scheme of the signature, whether a client certificate was
asked for, or whether TLS ended with a farewell.

So the handshake is watched: `SSLContext.sslobject_class` lets us put a class of ours in the place of
`ssl.SSLObject`, and for the time of each `do_handshake` call it sets OpenSSL's message callback, which shows
the messages in clear, also under TLS 1.3. Of these a few are kept until `handshake_of` reads them. On the path of
the data nothing is left but a look whether a read says that TLS has ended.

The same class is the way to resume a session. The loop makes the TLS object, a turn after it was asked to, and has no
argument for a session; nor does a context variable reach there under uvloop. So `offering` holds the session out for
the next handshake of this thread with this context and this name, and the object takes it when it is made. Offers are
taken in the order in which they are made, as the loop makes the objects.

The callback is `SSLContext._msg_callback`, which Python does not document. Where it is missing, or the
application's own context makes other objects or has a callback already, nothing is seen: errors say less, and what
was negotiated is known in part.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
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
#: What a server says instead of TLS is kept up to this many bytes.
_SHOWN: Final = 512
#: So much of the hint for a shared key is told.
_HINT_SHOWN: Final = 256
#: The messages that are kept, by who sent them.
_KEPT: Final = frozenset(
    {
        ("read", SERVER_HELLO),
        ("read", CERTIFICATE),
        ("read", SERVER_KEY_EXCHANGE),
        ("read", CERTIFICATE_REQUEST),
        ("read", CERTIFICATE_VERIFY),
        ("write", CERTIFICATE_VERIFY),
    }
)
_TLS13: Final = 0x0304
#: TLS before 1.2 has one way to sign for each kind of key and no number for it.
_OLD_SCHEMES: Final = {"RSA": "rsa_pkcs1_md5_sha1", "DSS": "dsa_sha1", "ECDSA": "ecdsa_sha1"}


class Evidence(NamedTuple):
    """What was seen of the server.

    Attributes:
        chain: its certificates in DER, its own first; empty if none was seen.
        first_bytes: what it sent first, if that was no TLS.
    """

    chain: tuple[bytes, ...] = ()
    first_bytes: bytes = b""


class Handshake(NamedTuple):
    """What was seen of a handshake that succeeded; None stands for what was not seen, or is not there.

    Attributes:
        chain: the server's certificates in DER, its own first; in a resumed session at most that one.
        key_exchange: how keys were agreed on; in TLS 1.3 `"PSK"` where they come from an earlier secret alone.
        group: IANA's name of the group.
        prime_bits: size of the prime of a Diffie-Hellman exchange without a named group.
        signature_algorithm: IANA's name of the scheme that the server signed with.
        psk_hint: which shared key the server means.
        client_auth_requested: did the server ask for a certificate?
        client_authenticated: was one proved to it?
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
    """Let handshakes with `context` leave evidence, unless it makes TLS objects of another class."""
    if context.sslobject_class is ssl.SSLObject:
        context.sslobject_class = _Witness


def evidence_of(error: BaseException | None) -> Evidence:
    """Return what was seen in the handshake that ended with `error`."""
    found = getattr(error, "smtp_async_evidence", None)
    return found if isinstance(found, Evidence) else Evidence()


def handshake_of(tls: ssl.SSLObject) -> Handshake:
    """Return what was seen of the handshake of `tls`, which must be over."""
    if isinstance(tls, _Witness):
        return tls.handshake
    suite = find_suite((tls.cipher() or ("",))[0])
    return Handshake(chain=_leaf(tls), key_exchange=suite.key_exchange if suite is not None else None)


class _Offer:
    """A session to go on with, or none: who has none to offer must not take another one's."""

    __slots__ = ("session", "taken", "tell")

    def __init__(self, session: ssl.SSLSession | None, tell: Callable[[str], None] | None) -> None:
        self.session = session
        self.tell = tell
        self.taken = False


#: By thread, context and name.
_Place: TypeAlias = tuple[int, int, str]
_offers: Final[dict[_Place, list[_Offer]]] = {}


@contextlib.contextmanager
def offering(
    context: ssl.SSLContext,
    name: str,
    session: ssl.SSLSession | None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Let the handshake that is begun now resume `session`, which must be of the same context.

    Args:
        context: the handshake's.
        name: the name that it verifies.
        session: None begins anew.
        tell: called with a line for each message of the handshake; it must not raise.
    """
    place: _Place = (threading.get_ident(), id(context), name)
    offer = _Offer(session, tell)
    _offers.setdefault(place, []).append(offer)
    try:
        yield
    finally:
        left = _offers[place]
        left.remove(offer)
        if not left:
            del _offers[place]


def _take_offer(context: ssl.SSLContext, name: str | None) -> _Offer:
    for offer in _offers.get((threading.get_ident(), id(context), name or ""), ()):
        if not offer.taken:
            offer.taken = True
            return offer
    return _Offer(None, None)


def cut_short(tls: ssl.SSLObject) -> bool:
    """Has the server, of whom no more can be read, ended TLS without its farewell (RFC 8446 section 6.1)?

    False where nobody has watched.
    """
    return isinstance(tls, _Witness) and not tls.farewell


def _leaf(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    leaf = tls.getpeercert(binary_form=True)
    return (leaf,) if leaf else ()


def looks_like_tls(data: bytes) -> bool:
    """Is `data` the beginning of a TLS record (RFC 8446 section 5.1)? No SMTP reply begins like one."""
    return bool(data) and 20 <= data[0] <= 24 and data[1:2] in (b"", b"\x03") and data[2:3] <= b"\x04"


class _Witness(ssl.SSLObject):
    """An SSLObject that remembers what was shown, and hangs it on the error of a failed handshake.

    Attributes:
        farewell: did the other side end TLS as it should?
    """

    farewell = False
    _first_header = b""
    _incoming: ssl.MemoryBIO | None = None
    _handshake: Handshake | None = None
    _tell: Callable[[str], None] | None = None
    #: The last of each kind; None as long as nothing can be seen, and again once it was read.
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
        options |= {"context": context, "server_hostname": server_hostname}
        offer = _take_offer(context, server_hostname)
        options["session"] = session or offer.session
        # OpenSSL copies the context's callback into a connection when it is made: one must be set just then.
        with watching(context) as seen:
            made: Self = super()._create(incoming, outgoing, **options)  # type: ignore[misc]  # no stub
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
            # Without a farewell OpenSSL waits for more, and asyncio is told of the end by the socket.
            self.farewell = True
        return data

    def see(self, direction: str, kind: int, message: int, data: bytes) -> None:
        if kind == _HEADER and direction == "read":
            self._first_header = self._first_header or data
        elif kind == _HANDSHAKE:
            if self._tell is not None:
                self._tell(_line(direction, message, len(data)))
            if self._messages is not None and (direction, message) in _KEPT:
                self._messages[direction, message] = data

    @property
    def handshake(self) -> Handshake:
        """What was seen of it."""
        return self._handshake or Handshake(chain=_leaf(self))

    def _evidence(self) -> Evidence:
        chain = certificates_in((self._messages or {}).get(("read", CERTIFICATE), b""))
        if self._incoming is None or not self._first_header or looks_like_tls(self._first_header):
            return Evidence(chain)
        # OpenSSL took five bytes to find that they are no record header: the rest still waits.
        return Evidence(chain, self._first_header + self._incoming.read(_SHOWN))

    def _read_messages(self) -> Handshake:
        suite = find_suite((self.cipher() or ("",))[0])
        exchange = suite.key_exchange if suite is not None else None
        if self._messages is None:
            return Handshake(_leaf(self), exchange)
        seen = self._messages.get
        keys = keys_in(suite, seen(("read", SERVER_HELLO), b""), seen(("read", SERVER_KEY_EXCHANGE), b""))
        signed = scheme_in(seen(("read", CERTIFICATE_VERIFY), b""))
        return keys._replace(
            chain=certificates_in(seen(("read", CERTIFICATE), b"")) or _leaf(self),
            signature_algorithm=keys.signature_algorithm if signed is None else scheme_numbered(signed),
            client_auth_requested=("read", CERTIFICATE_REQUEST) in self._messages,
            client_authenticated=("write", CERTIFICATE_VERIFY) in self._messages,
        )


def keys_in(suite: Suite | None, hello: bytes, exchanged: bytes) -> Handshake:
    """Return how keys were agreed on, and up to TLS 1.2 also how the server signed its half."""
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


@contextlib.contextmanager
def watching(context: Any) -> Iterator[bool]:
    """Let messages be seen, and say whether they can be."""
    # Synchronous from end to end, so no other connection of this thread is seen meanwhile.
    watched = _watch(context)
    try:
        yield watched
    finally:
        if watched:
            _unwatch(context)


#: How often each context is watched just now, by its id: clients of several threads may share one.
_watches: Final[dict[int, int]] = {}
_counting: Final = threading.Lock()


def _watch(context: Any) -> bool:
    """Set the callback; False where that is impossible, or the application has set its own."""
    with _counting:
        if getattr(context, "_msg_callback", _watch) not in (None, report):
            return False
        _watches[id(context)] = _watches.get(id(context), 0) + 1
        _set_callback(context, report)
        return True


def _unwatch(context: Any) -> None:
    """The last one takes the callback away."""
    with _counting:
        left = _watches.pop(id(context)) - 1
        if left:
            _watches[id(context)] = left
        else:
            _set_callback(context, None)


def report(connection: Any, direction: str, _version: int, kind: int, message: int, data: bytes) -> None:
    # By connection, because another thread may be in a handshake with the same context.
    if isinstance(connection, _Witness):
        connection.see(direction, kind, message, data)


#: Where Python's `SSLContext` asks which function was set.
report.user_function = report  # type: ignore[attr-defined]
#: The attribute of OpenSSL's own class. That of `ssl.SSLContext` makes three enumerations of numbers for each message,
#: of which a handshake has two dozen, and takes as long as all the rest of this file.
_PLAIN: Final[Any] = getattr(ssl.SSLContext.__base__, "_msg_callback", None)


def _set_callback(context: Any, callback: Callable[..., None] | None) -> None:
    if isinstance(context, ssl.SSLContext) and hasattr(_PLAIN, "__set__"):
        _PLAIN.__set__(context, callback)
    else:
        context._msg_callback = callback
