"""TLS sessions to resume: a resumed handshake needs neither the server's certificate nor its signature.

A resumed handshake has no certificate to verify: a server that can resume the session is the one that was verified when
it began. So a session is kept together with that verdict and the negotiated properties, and only for connections to the
same server, under the same name, with the same `SSLContext`. A session without a trusted certificate is not kept. A
session is not used once its certificate has expired, nor ten hours after the verification, so that a certificate that
is no longer trusted is noticed by then.

The ticket of TLS 1.3 is received after the handshake (RFC 8446 section 4.6.1), with the first bytes of the server;
therefore a session is taken from OpenSSL when its first reply was read. It serves many connections, for half of the
lifetime that the server grants. Python 3.11, and 3.12 and 3.13 in their first releases, leak about 6 KiB of memory
whenever a session is taken (python/cpython issue 116810), so a refused session is not replaced at once but after
minutes, then hours. There a session is also lost if its connection is cut: the next one has a full handshake.
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

#: Seconds for which the verdict on a certificate is valid.
_LIFE: Final = 10 * 3600.0
#: Seconds from taking a session that is refused until another one is taken; doubled with each refusal.
_PATIENCE: Final = 300.0
_MOST_PATIENCE: Final = 6 * 3600.0


class SessionKey(NamedTuple):
    """The server and the name that a session is valid for.

    Attributes:
        host, port: the server as the user named it, empty if sessions serve several; no port on a Unix socket.
        name: the verified name.
    """

    host: str
    port: int | None
    name: str

    @classmethod
    def of(cls, host: str, port: int | None, name: str, *, across_hosts: bool) -> Self:
        """Return the key for a server; with `across_hosts`, the key of all servers with this name.

        RFC 8446 section 4.6.1: a session is resumed only under a name of its certificate, which should be the name of
        the original handshake.
        """
        return cls("", None, name) if across_hosts else cls(host, port, name)


class KeptSession(NamedTuple):
    """A session, and the properties of its original handshake.

    Attributes:
        session: OpenSSL's object.
        context: the context of the session; no other context can resume it.
        info: the negotiated properties, with chain and verdict.
        expires: when the session expires, in seconds since the epoch.
    """

    session: ssl.SSLSession
    context: ssl.SSLContext
    info: ConnectionInfo
    expires: float


@dataclass(slots=True)
class _Server:
    """The state of one server.

    Attributes:
        kept: the session, None if the last one cannot be used.
        renew_at: monotonic time at which another one may be taken.
        refusals: number of sessions that the server refused, or did not grant, in a row.
    """

    kept: KeptSession | None = None
    renew_at: float = 0.0
    refusals: int = 0

    def give_up(self, now: float) -> None:
        """Use no session for a while, from the monotonic time `now` on."""
        self.kept = None
        self.renew_at = now + min(_PATIENCE * 2**self.refusals, _MOST_PATIENCE)
        self.refusals += 1


class SessionCache:
    """The sessions of one client, or of several clients in one thread; used in their event loop only.

    Args:
        most: maximum of servers; the first one added is removed first.
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
        """Return a session to resume, None if there is none that may be used."""
        server = self._servers.get(key)
        kept = server.kept if server is not None else None
        if server is None or kept is None:
            return None
        if kept.context is not context or self._clock() >= kept.expires:
            server.kept, server.renew_at = None, 0.0
            return None
        return kept

    def refused(self, key: SessionKey, kept: KeptSession) -> None:
        """Forget `kept`, because the server did not resume it, or the handshake failed."""
        server = self._servers.get(key)
        if server is None or server.kept is not kept:
            # Another connection has reported that before.
            return
        server.give_up(self._monotonic())

    def keep(self, key: SessionKey, tls: ssl.SSLObject, info: ConnectionInfo) -> None:
        """Keep the session of `tls`, whose first reply was read, if it may be resumed and is needed."""
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
    """Return the sessions that all clients of this thread with the same `context` share.

    They are stored with the context, because no other context can resume them.
    """
    caches: dict[int, SessionCache] = vars(context).setdefault("_smtp_async_sessions", {})
    return caches.setdefault(threading.get_ident(), SessionCache())


def _expiry(kept: KeptSession | None, tls: ssl.SSLObject, info: ConnectionInfo, now: float) -> float | None:
    """Return until when the verdict on the certificate is valid; None if that is unknown."""
    if info.session_resumed:
        # A new ticket does not extend the verdict. Another connection may have had a full handshake meanwhile.
        return kept.expires if kept is not None and kept.info.chain == info.chain else None
    return min(now + _LIFE, _not_after(tls, info.chain[0]))


def _not_after(tls: ssl.SSLObject, certificate: bytes) -> float:
    # The certificate is known to parse: OpenSSL, or a thread of ours, has verified it.
    known = (tls.getpeercert() or {}).get("notAfter")
    if isinstance(known, str):
        return ssl.cert_time_to_seconds(known)
    read = Certificate.of(certificate)
    return read.not_after.timestamp() if read is not None else 0.0
