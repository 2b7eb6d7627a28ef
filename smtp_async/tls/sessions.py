"""TLS sessions to go on with: a second connection spares the server's certificate and its signature.

A resumed session shows no certificate, and OpenSSL verifies none: whoever can go on with it is the one who was verified
when it began. So it is kept together with that verdict and with what was negotiated then, and only for connections to
the same server, under the same name, with the same `SSLContext`. A session that began without a certificate that is
believed is not kept at all, and none is used when that certificate has expired meanwhile, or ten hours after its
verification: what has become untrusted since is noticed then at the latest.

The ticket of TLS 1.3 comes after the handshake (RFC 8446 section 4.6.1), with the first bytes that the server sends;
a session is therefore taken when its first reply was read. It serves many connections, until half of the time that the
server grants it is over. Python 3.11, and 3.12 and 3.13 in their first releases, leak about 6 KiB of memory whenever a
session is taken from OpenSSL (python/cpython issue 116810), so one that is refused is not replaced at once but after
minutes, then hours. There a session is also lost with its connection if that is cut: the next one begins anew.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from .certificate import Certificate
from .info import ConnectionInfo

__all__ = ["KeptSession", "SessionCache", "SessionKey", "shared_sessions"]

#: Seconds after the verification of a certificate, for which its verdict stands.
_LIFE: Final = 10 * 3600.0
#: Seconds from taking a session that is refused until another one is taken; doubled with each refusal.
_PATIENCE: Final = 300.0
_MOST_PATIENCE: Final = 6 * 3600.0


class SessionKey(NamedTuple):
    """Who was spoken with.

    Attributes:
        host, port: the server as the user named it, empty where sessions serve several; no port on a Unix socket.
        name: the name that was verified.
    """

    host: str
    port: int | None
    name: str

    @classmethod
    def of(cls, host: str, port: int | None, name: str, *, across_hosts: bool) -> Self:
        """Return the key for a server; the name stands for all that show the same certificate.

        RFC 8446 section 4.6.1: a session is gone on with only under a name that its certificate is for, and that should
        be the one which was asked for.
        """
        return cls("", None, name) if across_hosts else cls(host, port, name)


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


@dataclass(slots=True)
class _Server:
    """What is kept of one server.

    Attributes:
        kept: its session, None if the last one is of no use.
        renew_at: monotonic time at which another one may be taken.
        refusals: how many it has refused, or not given, one after the other.
    """

    kept: KeptSession | None = None
    renew_at: float = 0.0
    refusals: int = 0

    def give_up(self, now: float) -> None:
        """Do without for a while, counted from the monotonic time `now`."""
        self.kept = None
        self.renew_at = now + min(_PATIENCE * 2**self.refusals, _MOST_PATIENCE)
        self.refusals += 1


class SessionCache:
    """The sessions of one client, for as long as it lives, or of several in one thread; used in their loop only.

    Args:
        most: the most servers that something is kept of; the one that was met first goes first.
        clock: returns the seconds since the epoch.
        monotonic: returns the time of a clock that is never set, in seconds.
    """

    __slots__ = ("_clock", "_monotonic", "_most", "_servers")

    def __init__(
        self,
        *,
        most: int = 64,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._clock = clock
        self._monotonic = monotonic
        self._servers: dict[SessionKey, _Server] = {}

    def find(self, key: SessionKey, context: ssl.SSLContext) -> KeptSession | None:
        """Return the session to go on with, None if there is none that may be used."""
        server = self._servers.get(key)
        kept = server.kept if server is not None else None
        if server is None or kept is None:
            return None
        if kept.context is not context or self._clock() >= kept.expires:
            server.kept, server.renew_at = None, 0.0
            return None
        return kept

    def refused(self, key: SessionKey, kept: KeptSession) -> None:
        """Begin anew with this server: it did not go on with `kept`, or the handshake failed."""
        server = self._servers.get(key)
        if server is None or server.kept is not kept:
            # Another connection has said so before.
            return
        server.give_up(self._monotonic())

    def keep(self, key: SessionKey, tls: ssl.SSLObject, info: ConnectionInfo) -> None:
        """Keep the session of `tls`, whose first reply was read, if it may be gone on with and is wanted."""
        server = self._servers.get(key) or self._begin(key)
        if info.session_resumed:
            server.refusals = 0
        if self._monotonic() < server.renew_at or not info.verified or not info.chain:
            return
        expires = _expiry(server.kept, tls, info, self._clock())
        if expires is None:
            return
        session = tls.session
        if session is None or not (session.has_ticket or session.id):
            server.give_up(self._monotonic())
            return
        server.kept = KeptSession(session, tls.context, info, expires)
        server.renew_at = self._monotonic() + (session.ticket_lifetime_hint or session.timeout) / 2

    def _begin(self, key: SessionKey) -> _Server:
        if len(self._servers) >= self._most:
            del self._servers[next(iter(self._servers))]
        server = self._servers[key] = _Server()
        return server


def shared_sessions(context: ssl.SSLContext) -> SessionCache:
    """Return the sessions that all clients of this thread have in common which use `context`.

    They are kept at the context and go with it, because no other context can go on with them.
    """
    caches: dict[int, SessionCache] = vars(context).setdefault("_smtp_async_sessions", {})
    return caches.setdefault(threading.get_ident(), SessionCache())


def _expiry(kept: KeptSession | None, tls: ssl.SSLObject, info: ConnectionInfo, now: float) -> float | None:
    """Return until when the verdict on the certificate stands; None if nobody knows."""
    if info.session_resumed:
        # A new ticket does not make the verdict younger. Another connection may have begun anew meanwhile.
        return kept.expires if kept is not None and kept.info.chain == info.chain else None
    return min(now + _LIFE, _not_after(tls, info.chain[0]))


def _not_after(tls: ssl.SSLObject, certificate: bytes) -> float:
    # OpenSSL has read it if it has verified it. Otherwise a thread of ours has, with what reads it here.
    known = (tls.getpeercert() or {}).get("notAfter")
    if isinstance(known, str):
        return ssl.cert_time_to_seconds(known)
    read = Certificate.of(certificate)
    return read.not_after.timestamp() if read is not None else 0.0
