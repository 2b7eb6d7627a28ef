"""Opens a connection, with the fallbacks of a client: the next mail exchanger, and clear text.

Each further attempt has a channel of its own:

* the route names a domain, and one of its mail exchangers cannot be reached or refuses the connection: the next one is
  tried (RFC 5321 section 5.1);
* TLS is opportunistic, and the handshake failed: the same server is spoken to in clear (RFC 7435).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Protocol

from ..errors import (
    CommunicationError,
    ConnectionLost,
    GreetingRefused,
    HandshakeFailed,
    Interrupted,
    InvalidHost,
    SMTPError,
    Timeout,
)
from ..tls.context import Security
from ..transport.mail_servers import resolve_mx
from .channel import Channel
from .opening import open_channel
from .route import Route, SharedResources

__all__ = ["open_with_fallback"]


class OpeningConnection(Protocol):
    """The connection that is opened: `route` becomes that of the server it is connected to."""

    route: Route
    channel: Channel

    @property
    def shared(self) -> SharedResources:
        """What the client's connections share."""
        ...

    def renew_channel(self) -> Channel:
        """Put a new channel in place of `channel`, and return it."""
        ...


async def open_with_fallback(connection: OpeningConnection) -> None:
    """Open the connection along its route, until mail can be sent.

    Raises:
        SMTPError: of the class that names the step; of several servers, that of the last, with notes about the others.
    """
    domain = connection.route
    if not domain.mx:
        return await _open(connection)
    failures: list[tuple[str, SMTPError]] = []
    hosts = await _exchangers(connection)
    for host in hosts:
        if failures:
            connection.renew_channel()
        connection.route = replace(domain, host=host, mx=False)
        try:
            return await _open(connection)
        except SMTPError as error:
            if len(failures) + 1 == len(hosts) or not _next_may_help(connection.channel, error):
                for earlier, other in failures:
                    error.add_note(f"also tried {earlier}: {other}")
                raise
            failures.append((connection.route.name, error))
            await _give_up(connection, error)


async def _exchangers(connection: OpeningConnection) -> tuple[str, ...]:
    channel, route = connection.channel, connection.route
    try:
        async with asyncio.timeout(channel.timeouts.connect):
            hosts = await resolve_mx(route.host, resolver=connection.shared.resolver(route.dns))
    except TimeoutError as error:
        raise Timeout(f"looking up {route.name} took too long", stage="connect") from error
    channel.passed("DNS")
    channel.transcript.remark("%s are %s", route.name, ", ".join(hosts))
    return hosts


def _next_may_help(channel: Channel, error: SMTPError) -> bool:
    """Tell whether another mail exchanger is tried: when this one was not reached, or did not greet."""
    if isinstance(error, GreetingRefused | InvalidHost):
        return True
    # A server that has no room for a connection may end it before it says anything in TLS, too.
    broken_off = isinstance(error, HandshakeFailed) and isinstance(error.__cause__, ConnectionError)
    unreached = channel.machine.greeting.reply is None and (
        broken_off or isinstance(error, CommunicationError)
    )
    return unreached and not isinstance(error, Interrupted)


async def _give_up(connection: OpeningConnection, error: SMTPError) -> None:
    """Leave a mail exchanger, politely if it still listens (RFC 5321 section 3.1)."""
    channel = connection.channel
    if channel.machine.may_quit and channel.failure is None and not isinstance(error, ConnectionLost):
        with contextlib.suppress(SMTPError):
            channel.record_lines()
            await channel.converse(channel.machine.quit())
    channel.abort(error)
    channel.transcript.closed(connection.route.name, error)
    channel.transcript.notify("mx", str(error), "trying the next mail exchanger: %s")
    if channel.transcript.events:
        await channel.transcript.tell()


async def _open(connection: OpeningConnection) -> None:
    channel, route = connection.channel, connection.route
    try:
        await open_channel(channel, route, connection.shared)
        return
    except SMTPError as error:
        if route.security is not Security.OPPORTUNISTIC or not channel.handshake_failed:
            raise
        # After a failed handshake nothing can be sent on this connection.
        channel.abort(error)
        channel.transcript.closed(route.name, error)
        channel.transcript.tls_step("going on without TLS: %s", error)
        if channel.transcript.events:
            await channel.transcript.tell()
    plain = replace(route, security=Security.PLAINTEXT)
    await open_channel(connection.renew_channel(), plain, connection.shared)
