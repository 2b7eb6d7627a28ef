"""Where a connection goes, and what all connections of a client share.

A `Route` is a value: the server, the kind of TLS, the login. `SharedResources` are made once for each client: some are
slow to make (the TLS context, the name of this host), one lives longer than a connection (the TLS sessions), and of one
each connection would hold a copy (what the server offers).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from ipaddress import ip_address
from threading import Thread
from typing import TYPE_CHECKING, Final, TypeAlias

from ..auth.credentials import Credentials
from ..events import BeforeAuth
from ..model.domain import full_host_name
from ..model.reply import Reply
from ..protocol.extensions import Extensions
from ..tls.context import Security, make_context
from ..tls.options import TLSOptions
from ..tls.revocation import RevocationChecker
from ..tls.sessions import SessionCache
from ..transport.dial import Dialer, SocketOptions
from ..transport.proxy import ProxyOptions
from ..transport.resolve import DNSMode, DNSOptions, DNSResolver, Resolver, resolver_of
from ..transport.stream import Endpoint
from ..transport.throttle import ClientThrottle, RateLimits
from .proxy_tls import ProxyTLS
from .tokens import TokenCache

if TYPE_CHECKING:
    from anyio import CapacityLimiter

__all__ = ["BeforeAuthPolicy", "Login", "Route", "SharedResources", "address_literal"]

_log = logging.getLogger("smtp_async")

#: Seconds to wait for this host's name; after that the address literal stands for it.
_LOOKUP: Final = 5.0
#: Threads of one client in which logins compute or wait for tickets. They are its own, so that neither messages nor the
#: rest of the application can keep them busy.
_LOGIN_THREADS: Final = 4

_Answer: TypeAlias = Credentials | bool | None
#: Asked before each login with what is about to happen and the credentials: returns others to use in their place, None
#: or True to go on, or False to refuse. It may be async.
BeforeAuthPolicy: TypeAlias = Callable[[BeforeAuth, Credentials], _Answer | Awaitable[_Answer]]


class Login(Enum):
    """When a connection logs in."""

    #: Where there are credentials; a connection that cannot log in with them fails.
    AUTO = "auto"
    #: Always: without credentials, `before_auth` or a client certificate must be enough.
    REQUIRED = "required"
    #: Not by itself: `Session.login` does it.
    MANUAL = "manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The server that a connection goes to, and how it is spoken to.

    Attributes:
        host, port: the server; for LMTP over a Unix socket `path` instead.
        mx: whether `host` is a domain, whose mail exchangers are looked up and tried in turn.
        security: never AUTO: the client resolves it.
        lmtp: speak LMTP.
        credentials: logged in with when the connection opens.
        login: when a connection logs in.
        before_auth: asked before each login.
        refuse_downgrade: log in with nothing weaker than what the server once offered.
        hello: the name for EHLO; None looks up the full local host name.
        extensions: greet with EHLO; False greets with HELO and uses no extension.
        pipelining: use PIPELINING where offered.
        send_rset: write RSET after an aborted transaction.
        window: the most messages under way unanswered.
        proxies: the proxies on the way to the server, the nearest first.
        tls, socket, dns: options of those layers.
        tunnel: the host is one end of a tunnel, so neither its address nor its port says anything about the server.
        dialer: makes the connections in place of this library.
        name: the server, for messages: host and port, or the path.
    """

    host: str
    port: int = 0
    path: str | None = None
    mx: bool = False
    security: Security = Security.PLAINTEXT
    lmtp: bool = False
    credentials: Credentials | None = None
    login: Login = Login.AUTO
    before_auth: BeforeAuthPolicy | None = None
    refuse_downgrade: bool = False
    hello: str | None = None
    extensions: bool = True
    pipelining: bool = True
    send_rset: bool = True
    window: int = 1
    tls: TLSOptions = field(default_factory=TLSOptions)
    socket: SocketOptions = field(default_factory=SocketOptions)
    proxies: tuple[ProxyOptions, ...] = ()
    dns: DNSOptions = field(default_factory=DNSOptions)
    tunnel: bool = False
    dialer: Dialer | None = None
    name: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self._named())

    def _named(self) -> str:
        if self.mx:
            return f"the mail exchangers of {self.host}"
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")

    @property
    def logs_in(self) -> bool:
        """Whether a connection logs in, at once or later."""
        return self.credentials is not None or self.login is Login.REQUIRED


class SharedResources:
    """What all connections of a client share: TLS context and sessions, tokens, resolver, host name, offers.

    Context and name are made once, in a thread, also when many connections open at the same moment.

    Args:
        make: makes the context of TLS options, and is told whether to verify.
        rates: how many bytes per second.

    Attributes:
        tls_sessions: sessions that later connections resume.
        tokens: the access tokens.
        proxy_tls: the TLS context for HTTPS proxies.
        throttle: the limits of bytes per second, None if there are none.
        offered: every mechanism that the server has offered over a secure connection.
        known_replies: replies of the server without secrets, which are parsed once (`ReplyParser`).
    """

    __slots__ = (
        "_context",
        "_make",
        "_making",
        "_name",
        "_offers",
        "_resolver",
        "_revocation",
        "_threads",
        "known_replies",
        "offered",
        "proxy_tls",
        "throttle",
        "tls_sessions",
        "tokens",
    )

    def __init__(
        self, make: Callable[..., ssl.SSLContext] = make_context, *, rates: RateLimits | None = None
    ) -> None:
        self.throttle = None if rates is None else ClientThrottle.of(rates)
        self.tls_sessions = SessionCache()
        self.tokens = TokenCache()
        self.proxy_tls = ProxyTLS()
        self.offered: frozenset[str] = frozenset()
        self.known_replies: dict[bytes, Reply] = {}
        self._threads: CapacityLimiter | None = None
        self._make = make
        self._context: ssl.SSLContext | None = None
        self._making: asyncio.Future[ssl.SSLContext] | None = None
        self._name: _NameLookup | None = None
        self._revocation: RevocationChecker | None = None
        # Before and after TLS, of a few hosts behind one name.
        self._offers: deque[Extensions] = deque(maxlen=8)
        self._resolver: Resolver | None = None

    def close(self) -> None:
        """Release what is held outside this process's memory. Synchronous."""
        resolver, self._resolver = self._resolver, None
        if isinstance(resolver, DNSResolver):
            resolver.close()

    def leave_loop(self) -> None:
        """Forget what belongs to an event loop that is closed, so that connections of another loop can use the rest."""
        self.tokens.leave_loop()
        self._threads = self._making = None
        if self._name is not None and not self._name.known:
            self._name = None
        if self._revocation is not None:
            self._revocation.leave_loop()

    def resolver(self, options: DNSOptions) -> Resolver:
        """Return the resolver of the options, the same for all connections."""
        if not isinstance(options.resolver, DNSMode):
            return options.resolver
        if self._resolver is None:
            self._resolver = resolver_of(options)
        return self._resolver

    def share_offer(self, offer: Extensions) -> Extensions:
        """Return the same offer by the same host from before, else `offer`: one object serves all idle connections."""
        for earlier in self._offers:
            if earlier is offer or (earlier == offer and earlier.domain == offer.domain):
                return earlier
        self._offers.append(offer)
        return offer

    def login_threads(self) -> CapacityLimiter:
        """Return what bounds the threads of logins."""
        if self._threads is None:
            from anyio import CapacityLimiter

            self._threads = CapacityLimiter(_LOGIN_THREADS)
        return self._threads

    async def context(self, options: TLSOptions, *, verify: bool) -> ssl.SSLContext:
        """Return the TLS context; the first call loads the trusted certificates, which is slow."""
        if self._context is None:
            if self._making is None:
                make = partial(self._make, options, verify=verify)
                self._making = asyncio.get_running_loop().run_in_executor(None, make)
                self._making.add_done_callback(self._made)
            # Shielded, because other connections wait for the same context.
            self._context = await asyncio.shield(self._making)
        return self._context

    def revocation(self, options: TLSOptions) -> RevocationChecker | None:
        """Return the checker of revocation, the same for all connections; None if revocation is not asked for."""
        wanted = options.trust.revocation
        if self._revocation is None and wanted is not None:
            self._revocation = RevocationChecker(wanted)
        return self._revocation

    def _made(self, made: asyncio.Future[ssl.SSLContext]) -> None:
        self._making = None
        if not made.cancelled():
            # Mark a failure as retrieved: the connections that wait raise it, and there may be none left.
            made.exception()

    def known_name(self, endpoint: Endpoint) -> str:
        """Return what `local_name` would, if it would not wait; else an empty text."""
        if self._name is None or not self._name.known:
            return ""
        return full_host_name(self._name.found) or address_literal(endpoint)

    async def local_name(self, endpoint: Endpoint, *, limit: float | None) -> str:
        """Return this host's full name, or its address as a literal where it has none (RFC 5321 section 4.1.4).

        A resolver that fails or does not answer costs the name, not the connection: the address literal is used.

        Args:
            endpoint: this end of the connection.
            limit: seconds for EHLO; the look-up may take half of them, and 5 s at most.
        """
        if self._name is None:
            self._name = _NameLookup(_LOOKUP if limit is None else min(limit / 2, _LOOKUP))
        return full_host_name(await self._name.result()) or address_literal(endpoint)


class _NameLookup:
    """The look-up of the local host name, in a daemon thread: neither the loop nor the process waits for its end.

    Args:
        patience: seconds that connections wait for the name, counted from the first; later ones use a late name.

    Attributes:
        found: the name, empty if there is none yet.
    """

    __slots__ = ("_done", "_due", "found")

    def __init__(self, patience: float) -> None:
        loop = asyncio.get_running_loop()
        self.found = ""
        self._due = loop.time() + patience
        self._done: asyncio.Future[None] = loop.create_future()
        thread = Thread(target=self._look_up, args=(loop,), name="smtp_async host name", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system starts no more threads
            _log.warning("the name of this host cannot be looked up: %s", error)
            self._finish()

    @property
    def known(self) -> bool:
        """Whether a result can be had without waiting."""
        return self._done.done()

    async def result(self) -> str:
        """Return the name, an empty one if there is none yet."""
        if not self._done.done():
            left = self._due - asyncio.get_running_loop().time()
            # `wait` does not cancel the future, which other connections await, too.
            await asyncio.wait((self._done,), timeout=max(0.0, left))
        return self.found

    def _look_up(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self.found = socket.getfqdn()
        except Exception as error:
            _log.warning("the name of this host cannot be looked up: %s", error)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


def address_literal(endpoint: Endpoint) -> str:
    """Return the address of `endpoint` as EHLO takes it, RFC 5321 section 4.1.3; of a Unix socket the loopback's."""
    if not isinstance(endpoint, tuple):
        return "[127.0.0.1]"
    address = ip_address(endpoint[0].partition("%")[0])
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"
