"""Connects to a server through one proxy or a chain of them.

The first proxy is dialled like a server. Each one is then asked to connect to the next, and the last one to the server.
The result is a stream on which nothing of the server's was read: TLS, greeting and everything else follow as on a
direct connection.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from ...errors import (
    CommunicationError,
    HandshakeFailed,
    InvalidHost,
    InvalidPort,
    PlaintextInjected,
    ProxyError,
    ResolveError,
    SMTPError,
    SocketError,
    Timeout,
    TLSError,
)
from ...model.proxy_response import ProxyResponse
from ..dial import AddressFamily, SocketOptions, dial, host_name, is_address, is_unspecified, resolve
from ..stream import Stream
from .bypass import bypasses
from .http_connect import authority, connect_http
from .options import ProxyOptions, ProxyType
from .proxy_login import NTLMFactory, ProxyLogin
from .socks import connect_socks

__all__ = ["TLSContext", "dial_through"]


class Connect(Protocol):
    """Connects to a host and port, as `dial` does."""

    async def __call__(self, host: str, port: int, *, options: SocketOptions) -> Stream: ...


#: Returns the addresses of a name that have the wanted family.
LookUp = Callable[[str, int, AddressFamily], Awaitable[Sequence[str]]]
#: Returns the TLS context for HTTPS proxies without one of their own.
TLSContext = Callable[[], Awaitable[ssl.SSLContext]]


async def addresses_of(name: str, port: int, family: AddressFamily) -> list[str]:
    """Return the addresses that the system's resolver has for a name."""
    return [str(info[4][0]) for info in await resolve(name, port, family)]


_DEFAULTS: Final = SocketOptions()
#: Connections to one proxy that a login may take.
_CONNECTIONS: Final = 3
#: Replies after which another address of the server may be reached: of SOCKS4, SOCKS5 and HTTP.
_UNREACHABLE: Final = frozenset({91, 1, 3, 4, 5, 6, 502, 503, 504})
_LONGEST_NAME: Final = 253
#: RFC 1035 section 2.3.4; some hosts have an underscore in their name.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")


async def dial_through(
    proxies: Sequence[ProxyOptions],
    host: str,
    port: int,
    *,
    options: SocketOptions = _DEFAULTS,
    deadline: float | None = None,
    context: TLSContext | None = None,
    ntlm: NTLMFactory | None = None,
    connect: Connect = dial,
    look_up: LookUp = addresses_of,
    addresses_only: bool = False,
) -> Stream:
    """Connect to `host` at `port` through proxies; proxies of which the host is an exception are left out.

    Args:
        proxies: the proxies that are used, the nearest first.
        host: a name or an IP address; brackets around an IPv6 address are allowed.
        port: 1 to 65535.
        options: how the socket to the first proxy is made.
        deadline: loop time by which the server must be connected to.
        context: the TLS context for HTTPS proxies that have none of their own.
        ntlm: makes NTLM exchanges; None: without the extra.
        connect: connects to the first proxy.
        look_up: returns the addresses of a name that is resolved here.
        addresses_only: give proxies no names, because their addresses could not be judged here.

    Raises:
        InvalidHost, InvalidPort: a proxy cannot be asked for this server.
        ProxyError: a proxy cannot be reached, refused, or broke its protocol; the message says which one.
        ResolveError: a name that is resolved here has no address.
        Timeout: the deadline passed; its stage is `"connect"`.
    """
    if not 0 < port < 65536:
        raise InvalidPort(f"a port is between 1 and 65535, not {port}")
    hops = [proxy for proxy in proxies if proxy.used and not bypasses(proxy.exceptions, host)]
    name = host_name(host)
    found: list[str] | None = None
    if hops and not hops[-1].resolves_names and not is_address(name):
        found = []
    if addresses_only:
        _demand_addresses(hops, name)
    chain = _Chain(hops, options, context, ntlm, connect, look_up)
    try:
        async with asyncio.timeout_at(deadline):
            if found is not None:
                found = await chain.addresses(hops[-1], name, port)
                # What the exceptions say of addresses can be told only now.
                chain.hops = [hop for hop in hops if not bypasses(hop.exceptions, name, found)]
            if not chain.hops:
                return await connect(host, port, options=options)
            return await chain.connect(_sendable(name), port, found)
    except TimeoutError as error:
        if isinstance(error, CommunicationError):
            raise
        where = chain.place or f"the name {name}"
        raise Timeout(f"connecting to {host}:{port} took too long, at {where}", stage="connect") from error


class _Chain:
    """One attempt to connect through `hops`.

    Attributes:
        hops: the proxies, the nearest first.
        at: the number of the proxy that is spoken to, from 1.
    """

    def __init__(
        self,
        hops: list[ProxyOptions],
        options: SocketOptions,
        context: TLSContext | None,
        ntlm: NTLMFactory | None,
        connect: Connect,
        look_up: LookUp,
    ) -> None:
        self.hops = hops
        self._connect = connect
        self._look_up = look_up
        self.at = 0
        self._options = options
        self._context = context
        self._ntlm = ntlm
        self._logins: dict[tuple[int, str], ProxyLogin] = {}

    async def connect(self, host: str, port: int, addresses: list[str] | None) -> Stream:
        """Return a stream to the server; its `addresses` are tried in order, where they were resolved here."""
        *others, last = addresses or [host]
        for address in others:
            try:
                return await self._reach(len(self.hops), address, port)
            except ProxyError as error:
                if error.status not in _UNREACHABLE:
                    raise
        return await self._reach(len(self.hops), last, port)

    async def addresses(self, hop: ProxyOptions, name: str, port: int) -> list[str]:
        """Resolve a name for a proxy that does not."""
        family = self._options.family
        if hop.type in (ProxyType.SOCKS4, ProxyType.SOCKS4A):
            family = AddressFamily.IPV4
        return list(await self._look_up(name, port, family))

    async def _reach(self, count: int, host: str, port: int) -> Stream:
        """Return a stream to `host` and `port` behind the first `count` proxies."""
        hop = self.hops[count - 1]
        if ":" in host and hop.type in (ProxyType.SOCKS4, ProxyType.SOCKS4A):
            raise self._named(count, ProxyError("SOCKS4 knows IPv4 addresses only: use SOCKS5"), host, port)
        for _ in range(_CONNECTIONS):
            stream = await self._reach_hop(count)
            self.at = count
            try:
                if await self._pass(stream, count, host, port):
                    return stream
            except BaseException as error:
                stream.abort()
                if isinstance(error, CommunicationError | TLSError) and not isinstance(error, TimeoutError):
                    raise self._named(count, error, host, port) from error.__cause__
                raise
            # The proxy closes the connection in the middle of a login, which goes on over another one.
            stream.abort()
        raise self._named(count, ProxyError("its login does not come to an end"), host, port)

    async def _reach_hop(self, count: int) -> Stream:
        """Return a stream to the proxy of this number."""
        hop = self.hops[count - 1]
        if count == 1:
            return await self._dial(hop)
        name = host_name(hop.host)
        before = self.hops[count - 2]
        if not before.resolves_names and not is_address(name):
            name = (await self.addresses(before, name, hop.port))[0]
        return await self._reach(count - 1, _sendable(name), hop.port)

    async def _dial(self, hop: ProxyOptions) -> Stream:
        self.at = 1
        options = self._options if hop.use_ipv6 else replace(self._options, family=AddressFamily.IPV4)
        try:
            return await self._connect(hop.host, hop.port, options=options)
        except ResolveError as error:
            message = f"the name of the {self.place} cannot be resolved: {error.message}"
            raise ResolveError(message, errno=error.errno, code=error.code) from error
        except SocketError as error:
            message = f"the {self.place} cannot be reached: {error.message}"
            raise ProxyError(message, proxy=str(hop), stage="connect") from error

    async def _pass(self, stream: Stream, count: int, host: str, port: int) -> bool:
        """Have a proxy connect further; return False if that takes another connection to it."""
        hop = self.hops[count - 1]
        if hop.type is ProxyType.HTTPS_CONNECT:
            await self._encrypt(stream, hop)
        response: ProxyResponse | None = None
        if hop.is_socks:
            await connect_socks(stream, hop, host, port)
        else:
            login = self._login(count, host, port)
            response = await connect_http(stream, hop, host, port, login)
            if response is None:
                return False
        stream.proxy_response = response or stream.proxy_response
        stream.via += f", {hop}" if stream.via else str(hop)
        return True

    async def _encrypt(self, stream: Stream, hop: ProxyOptions) -> None:
        context = hop.context
        if context is None:
            context = await (
                self._context() if self._context else asyncio.to_thread(ssl.create_default_context)
            )
        try:
            await stream.start_tls(context, host_name(hop.host), to_proxy=True)
        except PlaintextInjected as error:
            raise ProxyError("it speaks before TLS: it is no HTTPS proxy") from error
        except HandshakeFailed as error:
            cause = error.__cause__
            reason = getattr(cause, "reason", "")
            why = getattr(cause, "verify_message", "")
            advice = "its certificate is verified against the system's authorities, or with ProxyOptions(context=…)"
            if reason in ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST"):
                advice = "it does not speak TLS: type=ProxyType.HTTP_CONNECT, perhaps"
            raise ProxyError(f"{error.message}{f' ({why})' if why else ''}: {advice}") from error

    def _login(self, count: int, host: str, port: int) -> ProxyLogin:
        target = authority(host, port)
        return self._logins.setdefault((count, target), ProxyLogin(self.hops[count - 1], target, self._ntlm))

    @property
    def place(self) -> str:
        """The proxy that is spoken to, for messages; empty if it is none."""
        return self._place(self.at) if self.at else ""

    def _place(self, count: int) -> str:
        """Return the proxy of this number, for messages."""
        which = f" ({count} of {len(self.hops)})" if len(self.hops) > 1 else ""
        return f"{self.hops[count - 1]}{which}"

    def _named(self, count: int, error: SMTPError, host: str, port: int) -> ProxyError:
        """Return the error with the proxy's name and what it was asked for; one that has them stays as it is."""
        if isinstance(error, ProxyError) and error.proxy:
            return error
        message = f"the {self._place(count)} did not connect to {authority(host, port)}: {error.message}"
        known = error if isinstance(error, ProxyError) else ProxyError()
        return ProxyError(
            message,
            proxy=str(self.hops[count - 1]),
            status=known.status,
            proxy_response=known.proxy_response,
            login_refused=known.login_refused,
            stage="connect",
        )


def _demand_addresses(hops: list[ProxyOptions], server: str) -> None:
    """Raise if a proxy would resolve a name, of the server or of the proxy behind it."""
    names = [*(host_name(hop.host) for hop in hops[1:]), server]
    for hop, name in zip(hops, names, strict=bool(hops)):
        if hop.resolves_names and not is_address(name):
            raise InvalidHost(
                f"the {hop} would resolve {name}, whose addresses then cannot be judged here: set remote_dns=False"
            )


def _sendable(name: str) -> str:
    """Return a host as a proxy can be given it: a name of DNS, or an address without a zone.

    Raises:
        InvalidHost: it is neither; inside a request it could change the request.
    """
    if is_address(name):
        if "%" in name:
            raise InvalidHost(f"the zone of {name!r} says nothing to a proxy")
        if is_unspecified(name):
            raise InvalidHost(f"{name} is the all-zero address, which names no server")
        return name
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise InvalidHost(f"{name!r} is not a host name that a proxy can be given")
    return name
