"""The options of a client, and the route that follows from options, host and credentials; also from a URL."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, overload
from urllib.parse import unquote, urlsplit

from ..auth.credentials import Credentials, TokenProvider
from ..auth.select import demand_sensible
from ..connection.route import BeforeAuthPolicy, Login, Route
from ..errors import InvalidArgument, InvalidPort, MissingHost
from ..model.domain import hello_name
from ..model.secret import Secret
from ..model.signing import MessageSigner, signers_of
from ..model.timeouts import Timeouts
from ..pool.limits import PoolLimits
from ..protocol.options import SendOptions
from ..tls.context import Security, default_port, resolve_security
from ..tls.options import TLSOptions
from ..transport.dial import Dialer, SocketOptions
from ..transport.names import host_name
from ..transport.proxy import ProxyOptions
from ..transport.resolve import DNSOptions
from ..transport.throttle import RateLimits
from .telemetry import Telemetry
from .wire_log import WireLogTarget

__all__ = ["ClientOptions", "as_secret", "credentials_of", "demand_domain", "parse_url", "route_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How a client works; related options are grouped.

    Attributes:
        tls: which certificates are trusted, and how TLS is used.
        pool: how many connections there may be, and for how long.
        timeouts: how long each stage may take.
        rates: how many messages and bytes in which time.
        socket: local address, keepalive and similar settings.
        proxy: the proxy on the way to the server, or several, the nearest first; None connects directly. The
            environment is not looked at: `ProxyOptions.from_environment()` does that. A Unix socket is never proxied.
        dns: how names are resolved, and which addresses may be connected to.
        tunnel: the host is one end of a tunnel or a forwarded port: nothing is guessed from its address or port, so
            `port` and `security` must be given, and for TLS `TLSOptions.server_hostname`.
        dialer: makes each connection in place of this library: `async (host, port) -> socket`, a connected stream
            socket that the client owns from then on. `dns.address_filter` judges what it is connected to.
        send: how messages are sent by calls that have no options of their own.
        hello: the name for EHLO, a host name or an IP address; None takes the full local host name, or the local
            address. An address is sent as a literal, `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
        extensions: greet with EHLO; False uses HELO and no extension at all.
        pipelining: use PIPELINING where it is offered.
        chunking: use CHUNKING where it is offered and `pool.window` is above 1.
        send_rset: write RSET after an aborted transaction; without it such a connection is closed.
        lmtp: speak LMTP (RFC 2033).
        login: when a connection logs in: where there are credentials (AUTO), always (REQUIRED), or only by
            `Session.login` (MANUAL).
        before_auth: asked before each login, with a `BeforeAuth` event and the credentials; plain or async. It returns
            credentials to use in their place, None or True to go on, False to refuse.
        refuse_downgrade: log in with nothing weaker than what this server once offered this client; False only tells
            hooks (`Notification` "downgrade").
        wire_log: where the dialogue with the server is written, secrets masked and bodies as their size: the path of a
            file, which is appended to, a text stream, or a logger.
        telemetry: tells of messages and connections by OpenTelemetry.
        sign: how messages are signed by calls whose options do not say it: a `DKIM`, or several. What a spool delivers
            was signed when it was put.
        temp_dir: where a source that can be read only once is stored if it has to be read twice, in a file without a
            name that no other user can read; None takes the system's directory for such files.
    """

    tls: TLSOptions = field(default_factory=TLSOptions)
    pool: PoolLimits = field(default_factory=PoolLimits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    rates: RateLimits = field(default_factory=RateLimits)
    socket: SocketOptions = field(default_factory=SocketOptions)
    proxy: ProxyOptions | Sequence[ProxyOptions] | None = None
    dns: DNSOptions = field(default_factory=DNSOptions)
    tunnel: bool = False
    dialer: Dialer | None = None
    send: SendOptions = field(default_factory=SendOptions)
    hello: str | None = None
    extensions: bool = True
    pipelining: bool = True
    chunking: bool = True
    send_rset: bool = True
    lmtp: bool = False
    login: Login = Login.AUTO
    before_auth: BeforeAuthPolicy | None = None
    refuse_downgrade: bool = False
    wire_log: WireLogTarget | None = None
    telemetry: Telemetry | None = None
    sign: MessageSigner | Sequence[MessageSigner] = ()
    temp_dir: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        for name, kind in _GROUPS.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise InvalidArgument(
                    f"{name} is a {kind.__name__}, not {type(value).__name__}{_HINTS.get(name, '')}"
                )
        for one in _proxies(self.proxy):
            if not isinstance(one, ProxyOptions):
                raise InvalidArgument(f"proxy is a ProxyOptions, not {type(one).__name__}{_HINTS['proxy']}")
        object.__setattr__(self, "sign", signers_of(self.sign))


#: The options that are groups of options.
_GROUPS: Final = {
    "tls": TLSOptions,
    "pool": PoolLimits,
    "timeouts": Timeouts,
    "rates": RateLimits,
    "socket": SocketOptions,
    "dns": DNSOptions,
    "send": SendOptions,
}


#: How a usual value of another type is given.
_HINTS: Final = {
    "tls": ": an ssl.SSLContext is given as TLSOptions(context=…)",
    "timeouts": ": one limit for all stages is Timeouts.all(…)",
    "proxy": ": a URL is given as ProxyOptions(url=…)",
}


@overload
def as_secret(value: Secret | str | None) -> Secret | None: ...
@overload
def as_secret(value: Secret | str | TokenProvider | None) -> Secret | TokenProvider | None: ...
def as_secret(value: Secret | str | TokenProvider | None) -> Secret | TokenProvider | None:
    """Return a password or token as a `Secret`; a provider, or None, stays what it is."""
    if value is None or (callable(value) and not isinstance(value, Secret)):
        return value
    return Secret(value)


def credentials_of(
    username: str | None,
    password: Secret | None,
    token: Secret | TokenProvider | None,
    credentials: Credentials | None,
) -> Credentials | None:
    """Return the credentials, which a caller may give in either form, but not in both.

    Raises:
        InvalidArgument: they are given in both, or a part of them is missing.
    """
    if username is None and password is None and token is None:
        return credentials
    if credentials is not None:
        raise InvalidArgument("either credentials, or username with password or token")
    if password is not None and token is not None:
        raise InvalidArgument("either password or token; Credentials takes both")
    if not username or (password is None and token is None):
        raise InvalidArgument("username belongs together with password or token")
    return Credentials(username=username, password=password or "", token=token)


def route_of(
    host: str,
    port: int | None,
    credentials: Credentials | None,
    security: Security,
    options: ClientOptions,
) -> Route:
    """Return the route of a client's sessions, with port, security and the name for EHLO resolved.

    Raises:
        MissingHost, InvalidPort, InvalidArgument: an argument makes no sense.
    """
    if not isinstance(options, ClientOptions):
        raise InvalidArgument(f"options is a ClientOptions, not {type(options).__name__}")
    if not host:
        raise MissingHost("no server is named")
    path = host if host.startswith("/") else None
    if options.tunnel:
        _demand_complete(path, port, security, options)
    if path is not None:
        security, port = Security.PLAINTEXT if security is Security.AUTO else security, 0
    elif port is None:
        port = default_port(security, lmtp=options.lmtp)
    elif not 0 < port < 65536:
        raise InvalidPort(f"a port is between 1 and 65535, not {port}")
    _demand_login_possible(credentials, options)
    logs_in = credentials is not None or options.login is Login.REQUIRED
    return Route(
        host="localhost" if path is not None else host,
        port=port,
        path=path,
        security=resolve_security(security, port, credentials=logs_in),
        lmtp=options.lmtp,
        credentials=credentials,
        login=options.login,
        before_auth=options.before_auth,
        refuse_downgrade=options.refuse_downgrade,
        hello=None if options.hello is None else hello_name(options.hello),
        extensions=options.extensions,
        pipelining=options.pipelining,
        send_rset=options.send_rset,
        window=options.pool.window,
        tls=options.tls,
        socket=options.socket,
        proxies=()
        if path is not None or options.tunnel
        else tuple(one for one in _proxies(options.proxy) if one.used),
        dns=options.dns,
        tunnel=options.tunnel,
        dialer=options.dialer,
    )


def _proxies(proxy: ProxyOptions | Sequence[ProxyOptions] | None) -> tuple[ProxyOptions, ...]:
    """Return the proxies one after the other, those that are not used included."""
    if proxy is None:
        return ()
    return (proxy,) if isinstance(proxy, ProxyOptions | str) else tuple(proxy)


def demand_domain(domain: str, options: ClientOptions) -> None:
    """Raise if `domain` cannot have mail exchangers, or if `options` are for something else than them.

    Raises:
        MissingHost, InvalidHost, InvalidArgument: it is so.
    """
    host_name(domain)
    if options.tunnel or options.lmtp or domain.startswith("/"):
        raise InvalidArgument("for_domain speaks SMTP to mail exchangers, neither LMTP nor through a tunnel")


def _demand_complete(path: str | None, port: int | None, security: Security, options: ClientOptions) -> None:
    """Raise if anything would have to be guessed about the server behind a tunnel."""
    if path is None and port is None:
        raise InvalidArgument("tunnel=True needs the port of the tunnel: none is the usual one")
    if security is Security.AUTO:
        raise InvalidArgument(
            "tunnel=True needs security=…: the port of a tunnel does not tell when TLS starts"
        )
    if security is not Security.PLAINTEXT and options.tls.server_hostname is None:
        raise InvalidArgument(
            "tunnel=True needs TLSOptions(server_hostname=…): the name of the server behind the tunnel"
        )


def _demand_login_possible(credentials: Credentials | None, options: ClientOptions) -> None:
    if credentials is not None:
        demand_sensible(credentials)
        return
    tls = options.tls
    enough = options.before_auth is not None or tls.identity is not None or tls.context is not None
    if options.login is Login.REQUIRED and not enough:
        raise InvalidArgument(
            "login=REQUIRED needs credentials, a before_auth that gives some, or a client certificate"
        )


_SCHEMES = {
    "smtps": Security.IMPLICIT,
    "smtp": Security.STARTTLS,
    "smtp+plain": Security.PLAINTEXT,
    "lmtp": Security.AUTO,
    "lmtp+unix": Security.PLAINTEXT,
}


def parse_url(url: Secret, options: ClientOptions) -> dict[str, Any]:
    """Return the arguments of a client from a URL.

    Raises:
        InvalidArgument: the URL is not one of a mail server.
    """
    arguments = _read_url(url, options)
    if isinstance(arguments, str):
        raise InvalidArgument(f"not a URL of a mail server: {arguments}")
    return arguments


def _read_url(url: Secret, options: ClientOptions) -> dict[str, Any] | str:
    """Return the fault as a text instead of raising it, because the frame holds the password."""
    # Not the text of an error, which may repeat the URL.
    try:
        parts = urlsplit(url.reveal())
    except ValueError:
        return "its host is not a name or an address; an IPv6 address stands in brackets"
    try:
        port = parts.port
    except ValueError:
        return "its port is not a number up to 65535; / ? # @ : in a user or password are written %2F %3F %23 %40 %3A"
    security = _SCHEMES.get(parts.scheme)
    if security is None or parts.query or parts.fragment:
        return f"the schemes are {', '.join(_SCHEMES)}"
    lmtp = parts.scheme.startswith("lmtp")
    unix = parts.scheme == "lmtp+unix"
    if (parts.path not in ("", "/")) != unix or (unix and parts.netloc):
        return "only lmtp+unix has a path, and it has no host"
    return {
        "host": unquote(parts.path) if unix else parts.hostname or "",
        "port": port,
        "username": unquote(parts.username) if parts.username is not None else None,
        "password": Secret(unquote(parts.password)) if parts.password is not None else None,
        "security": security,
        "options": replace(options, lmtp=lmtp),
    }
