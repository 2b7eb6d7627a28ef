"""TLS sessions to go on with: a second connection spares the server's certificate and signature, and a round trip.

A resumed session shows no certificate, and OpenSSL verifies none: whoever can go on with it is the one who was verified
when it began. So it is kept together with that verdict and with what was negotiated then, and only for connections to
the same server, under the same name, with the same `SSLContext`. A session that began without a certificate that is
believed is not kept at all, and none is used when that certificate has expired meanwhile, or ten hours after its
verification: what has become untrusted since is noticed then at the latest.

The ticket of TLS 1.3 comes after the handshake (RFC 8446 section 4.6.1), with the first bytes that the server sends;
a session is therefore kept when its first reply was read.
"""

from __future__ import annotations

import ssl
import time
from typing import Final, NamedTuple

from .certificate import Certificate
from .info import ConnectionInfo

__all__ = ["KeptSession", "SessionCache", "SessionKey"]

#: Seconds after the verification of a certificate, for which its verdict stands.
_LIFE: Final = 10 * 3600.0
#: The most sessions that one client keeps; the oldest goes first.
_MOST: Final = 64


class SessionKey(NamedTuple):
    """Who was spoken with.

    Attributes:
        host, port: the server as the user named it; no port on a Unix socket.
        name: the name that was verified.
    """

    host: str
    port: int | None
    name: str


class KeptSession(NamedTuple):
    """A session, and what stood when it began.

    Attributes:
        session: OpenSSL's.
        context: the one it belongs to; no other can go on with it.
        info: what was negotiated, chain and verdict included.
        expires: seconds since the epoch at which it is of no use any more.
    """

    session: ssl.SSLSession
    context: ssl.SSLContext
    info: ConnectionInfo
    expires: float


class SessionCache:
    """The sessions of one client, for as long as it lives; used in its loop only."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[SessionKey, KeptSession] = {}

    def find(self, key: SessionKey, context: ssl.SSLContext) -> KeptSession | None:
        """Return the session to go on with, None if there is none that may be used."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.context is not context or time.time() >= kept.expires:
            del self._kept[key]
            return None
        return kept

    def keep(self, key: SessionKey, tls: ssl.SSLObject, info: ConnectionInfo) -> None:
        """Keep the session of `tls`, whose first reply was read, if it may be gone on with."""
        session = tls.session
        if not info.verified or not info.chain or session is None or not (session.has_ticket or session.id):
            return
        expires = self._expiry(key, tls, info)
        if expires is None:
            return
        self._kept.pop(key, None)
        if len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = KeptSession(session, tls.context, info, expires)

    def forget(self, key: SessionKey) -> None:
        """Begin anew with this server: a handshake that offered its session has failed."""
        self._kept.pop(key, None)

    def _expiry(self, key: SessionKey, tls: ssl.SSLObject, info: ConnectionInfo) -> float | None:
        if info.session_resumed:
            # A new ticket does not make the verdict younger. Another connection may have begun anew meanwhile.
            kept = self._kept.get(key)
            return kept.expires if kept is not None and kept.info.chain == info.chain else None
        return min(time.time() + _LIFE, _not_after(tls, info.chain[0]))


def _not_after(tls: ssl.SSLObject, certificate: bytes) -> float:
    # OpenSSL has read it if it has verified it. Otherwise a thread of ours has, with what reads it here.
    known = (tls.getpeercert() or {}).get("notAfter")
    if isinstance(known, str):
        return ssl.cert_time_to_seconds(known)
    read = Certificate.of(certificate)
    return read.not_after.timestamp() if read is not None else 0.0
