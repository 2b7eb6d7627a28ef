"""Dials the server of a route: over a Unix socket, by the application's dialer, directly, or through proxies.

Every stream to a server comes from here, so that nothing connects around a proxy, and TLS starts on whatever comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..auth.credentials import Credentials
from ..auth.mechanism import Peer
from ..auth.ntlm import NTLM
from ..errors import SMTPError
from ..model.secret import Secret
from ..tls.context import Security
from ..transport.dial import dial, dial_by, dial_unix
from ..transport.names import AddressFamily, permitted
from ..transport.resolve import look_up
from ..transport.stream import Stream
from .route import Route, SharedResources

__all__ = ["dial_route"]


async def dial_route(
    route: Route,
    shared: SharedResources,
    *,
    deadline: float | None,
    passed: Callable[[str], None] = lambda stage: None,
) -> Stream:
    """Connect to the server of `route`; the PROXY header, if one is wanted, has been written.

    Args:
        route: the server, and the proxies on the way to it.
        shared: has the resolver, and the TLS context for HTTPS proxies.
        deadline: loop time by which the connection must be established.
        passed: called with the name of each stage when it is passed.

    Raises:
        SMTPError: no connection could be established.
    """
    stream = await _connected(route, shared, deadline, passed)
    header = route.socket.proxy_protocol
    if header is not None:
        try:
            stream.write(header.header(stream.local, stream.peer))
        except SMTPError:
            stream.abort()
            raise
    return stream


async def _connected(
    route: Route, shared: SharedResources, deadline: float | None, passed: Callable[[str], None]
) -> Stream:
    address_filter = route.dns.address_filter
    # Behind a proxy, or behind a PROXY header, something else is read or written first.
    tls_first = (
        route.security is Security.IMPLICIT and not route.proxies and route.socket.proxy_protocol is None
    )
    if route.dialer is not None:
        stream = await dial_by(
            route.dialer,
            route.host,
            route.port,
            options=route.socket,
            deadline=deadline,
            address_filter=address_filter,
            tls_first=tls_first,
        )
        passed("TCP")
        return stream
    if route.path is not None:
        stream = await dial_unix(route.path, deadline=deadline)
        passed("TCP")
        return stream
    connect = partial(
        dial,
        # The deadline of the way through proxies covers the dial to the first of them.
        deadline=None if route.proxies else deadline,
        resolver=shared.resolver(route.dns),
        address_filter=address_filter,
        any_address=route.tunnel,
        tls_first=tls_first,
        passed=passed,
    )
    if not route.proxies:
        return await connect(route.host, route.port, options=route.socket)
    from ..transport.proxy.chain import dial_through  # few clients have a proxy

    stream = await dial_through(
        route.proxies,
        route.host,
        route.port,
        options=route.socket,
        deadline=deadline,
        context=shared.proxy_tls.context,
        ntlm=_ntlm if _may_use_ntlm(route) else None,
        connect=connect,
        look_up=partial(_addresses, route, shared),
        addresses_only=address_filter is not None,
    )
    passed("proxy")
    return stream


async def _addresses(
    route: Route, shared: SharedResources, name: str, port: int, family: AddressFamily
) -> Sequence[str]:
    """Return the addresses of a name that no proxy resolves."""
    found = await look_up(name, port, family, shared.resolver(route.dns))
    return [str(info[4][0]) for info in permitted(found, name, address_filter=route.dns.address_filter)]


def _may_use_ntlm(route: Route) -> bool:
    # Whether the extra is installed is looked up on the disk, so it is asked only where an account could need it.
    return any(proxy.username and not proxy.is_socks for proxy in route.proxies) and not NTLM.missing()


def _ntlm(username: str, password: Secret, host: str) -> NTLM:
    return NTLM(Credentials(username=username, password=password), Peer(host=host, service="HTTP"))
