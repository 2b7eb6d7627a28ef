"""From a route to a stream: over a Unix socket, by the application's dialer, or by dialling."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import SMTPError
from ..transport.dial import dial, dial_by, dial_unix
from ..transport.stream import Stream
from .route import Route, SharedResources

__all__ = ["reach"]


async def reach(
    route: Route,
    shared: SharedResources,
    *,
    deadline: float | None,
    passed: Callable[[str], None] = lambda stage: None,
) -> Stream:
    """Connect to the server of `route`; the PROXY header, if one is wanted, has been written.

    Args:
        route: where to.
        shared: has the resolver.
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
    if route.dialer is not None:
        stream = await dial_by(
            route.dialer,
            route.host,
            route.port,
            options=route.socket,
            deadline=deadline,
            address_filter=address_filter,
        )
        passed("TCP")
        return stream
    if route.path is not None:
        stream = await dial_unix(route.path, deadline=deadline)
        passed("TCP")
        return stream
    return await dial(
        route.host,
        route.port,
        options=route.socket,
        deadline=deadline,
        resolver=shared.resolver(route.dns),
        address_filter=address_filter,
        any_address=route.tunnel,
        passed=passed,
    )
