"""A server that remembers what it was told under TLS, and a client that goes as far as EHLO."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from typing import Any

from smtp_async import Certificate, ProxyOptions, Timeouts, TrustOptions
from smtp_async.connection.channel import Channel
from smtp_async.connection.opening import open_channel
from smtp_async.connection.route import Route, SharedResources
from smtp_async.hooks import Hooks
from smtp_async.protocol.machine import ClientProtocol
from smtp_async.tls import Security, TLSOptions, reference_name
from smtp_async.tls.sessions import SessionCache, SessionKey
from tests.tls.authority import Entity
from tests.transport.lab import encrypt, serving


class SMTPServer:
    """Greets, offers STARTTLS or begins with TLS, and keeps what it was told under TLS."""

    def __init__(self, context: ssl.SSLContext, security: Security) -> None:
        self.context = context
        self.implicit = security is Security.IMPLICIT
        self.seen = bytearray()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.implicit:
            writer.write(b"220 hi\r\n")
            await reader.readline()
            writer.write(b"250-me\r\n250 STARTTLS\r\n")
            await reader.readline()
            writer.write(b"220 go\r\n")
        await encrypt(writer, self.context)
        if self.implicit:
            writer.write(b"220 hi\r\n")
        while line := await reader.readline():
            self.seen += line
            writer.write(b"250 me\r\n")


async def connect(
    port: int,
    shared: SharedResources,
    options: TLSOptions,
    security: Security,
    *,
    proxies: tuple[ProxyOptions, ...] = (),
    local_ports: list[int] | None = None,
) -> Channel:
    """Open a connection as far as EHLO; whatever comes of it, the channel ends, and `local_ports` has its port."""
    channel = Channel(1, ClientProtocol(), Timeouts(), Hooks())
    route = Route(
        host="127.0.0.1", port=port, security=security, tls=options, hello="me.test", proxies=proxies
    )
    try:
        await open_channel(channel, route, shared)
    finally:
        assert channel.stream is not None
        if local_ports is not None and isinstance(channel.stream.local, tuple):
            local_ports.append(channel.stream.local[1])
        channel.stream.abort()
    return channel


def timeless() -> SharedResources:
    """Return what the connections of a client share, with sessions that never expire: those of expired certificates."""
    shared = SharedResources()
    shared.tls_sessions = SessionCache(clock=lambda: 0.0)
    return shared


async def begin_session(
    port: int, shared: SharedResources, options: TLSOptions, shown: Certificate, security: Security
) -> None:
    """Connect with the same context, but where exactly this certificate is accepted, so that a session is kept."""
    trust = TrustOptions(ca=options.trust.ca, accepted=[shown])
    await connect(port, shared, replace(options, trust=trust, authenticate_server=None), security)
    assert await has_resumed(port, shared, options)


async def has_resumed(port: int, shared: SharedResources, options: TLSOptions) -> bool:
    """Tell whether the session that was begun is still kept: one that a connection does not resume is given up.

    The server cannot tell: a client that refuses it may close the connection before its last message has left.
    """
    key = SessionKey("127.0.0.1", port, reference_name("127.0.0.1", options))
    return shared.tls_sessions.find(key, await shared.context(options, verify=True)) is not None


def served(shown: Entity, security: Security = Security.IMPLICIT) -> tuple[SMTPServer, Any]:
    server = SMTPServer(shown.server_context(), security)
    return server, serving(server)
