"""The way to the server: a direct connection, a Unix socket, or proxies.

Every stream to a server comes from here, so that nothing connects around a proxy, and TLS starts on whatever comes.
"""

from __future__ import annotations

from ..auth.credentials import Credentials
from ..auth.mechanism import Peer
from ..auth.ntlm import NTLM
from ..model.secret import Secret
from ..transport.dial import dial, dial_unix
from ..transport.proxy import dial_through
from ..transport.stream import Stream
from .route import Route, SharedResources

__all__ = ["reach"]


async def reach(route: Route, shared: SharedResources, *, deadline: float | None) -> Stream:
    """Return a stream to the server of `route`, on which nothing was read or written.

    Args:
        route: the server, and the proxies on the way to it.
        shared: has the TLS context for HTTPS proxies.
        deadline: loop time by which the stream must be there.

    Raises:
        SMTPError: as `dial`, `dial_unix` and `dial_through`.
    """
    if route.path is not None:
        return await dial_unix(route.path, deadline=deadline)
    if not route.proxies:
        return await dial(route.host, route.port, options=route.socket, deadline=deadline)
    return await dial_through(
        route.proxies,
        route.host,
        route.port,
        options=route.socket,
        deadline=deadline,
        context=shared.proxy_tls.context,
        ntlm=_ntlm if _may_use_ntlm(route) else None,
    )


def _may_use_ntlm(route: Route) -> bool:
    # Whether the extra is installed is looked up on the disk, so it is asked only where an account could need it.
    return any(proxy.username and not proxy.is_socks for proxy in route.proxies) and not NTLM.missing()


def _ntlm(username: str, password: Secret, host: str) -> NTLM:
    return NTLM(Credentials(username=username, password=password), Peer(host=host, service="HTTP"))
