"""dial_route.py: the ways to a server, and what the first bytes on each are."""

import asyncio
import socket
from typing import Any

import pytest

from smtp_async import (
    ClientOptions,
    DNSOptions,
    Security,
    SMTPClient,
    SMTPError,
    SocketOptions,
    Timeouts,
    TLSOptions,
)
from smtp_async.errors import InvalidArgument, InvalidHost
from smtp_async.testing import CancelManner, CancelMoment, cancellations
from smtp_async.transport.proxy_protocol import ProxyProtocol
from tests.lab import client_of, mail, speaking, tls_server, trusting, until
from tests.servers.pki import Pki
from tests.transport.lab import serving

pytestmark = pytest.mark.usefixtures("no_leaks")


class FirstBytes:
    """A handler that keeps what arrives first, and closes."""

    def __init__(self) -> None:
        self.seen = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            self.seen += data
            if b"\x16" in self.seen:
                return


def dialler(port: int, *, host: str = "127.0.0.1") -> Any:
    async def dial(name: str, number: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return sock

    return dial


class TestFirstByte:
    """Under IMPLICIT a TLS record comes first (0x16 is a handshake), whatever the way."""

    async def first(self, host: str, port: int | None, options: ClientOptions, handler: FirstBytes) -> bytes:
        async with SMTPClient(host, port, security=Security.IMPLICIT, options=options) as client:
            report = await client.check()
        assert report.error is not None
        return handler.seen[:1]

    async def test_through_a_dialers_socket(self) -> None:
        handler = FirstBytes()
        async with serving(handler) as server:
            options = ClientOptions(dialer=dialler(server.port))
            assert await self.first("mail.example", 465, options, handler) == b"\x16"

    async def test_through_a_unix_socket(self, tmp_path: Any) -> None:
        handler = FirstBytes()
        path = str(tmp_path / "smtp")
        async with serving(handler, path=path):
            assert await self.first(path, None, ClientOptions(), handler) == b"\x16"

    async def test_through_a_tunnel(self) -> None:
        handler = FirstBytes()
        async with serving(handler) as server:
            options = ClientOptions(tunnel=True, tls=TLSOptions(server_hostname="mail.example"))
            assert await self.first("127.0.0.1", server.port, options, handler) == b"\x16"
            assert b"mail.example" in handler.seen

    async def test_a_proxy_header_is_before_it(self) -> None:
        handler = FirstBytes()
        async with serving(handler) as server:
            header = ProxyProtocol(version=1, source=("192.0.2.1", 1), destination=("192.0.2.2", 2))
            options = ClientOptions(socket=SocketOptions(proxy_protocol=header))
            await self.first("127.0.0.1", server.port, options, handler)
            assert handler.seen.startswith(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n\x16")


class TestDialer:
    async def test_mail_goes_over_its_sockets(self, pki: Pki) -> None:
        async with tls_server(pki) as server:
            options = ClientOptions(dialer=dialler(server.port), tls=trusting(pki))
            async with SMTPClient("localhost", 2525, security=Security.STARTTLS, options=options) as client:
                await client.send(mail())
                assert len(server.messages) == 1

    async def test_a_real_server(self, postfix: Any, pki: Pki) -> None:
        options = ClientOptions(dialer=dialler(postfix.tls_port), tls=trusting(pki))
        async with SMTPClient("localhost", 465, options=options) as client:
            await client.send(mail(to="user@lab.test", subject="dialled"))
        assert postfix.wait_for_message("dialled")

    async def test_its_failure_is_told_to_the_caller(self) -> None:
        async def dial(host: str, port: int) -> socket.socket:
            raise OSError("no way there")

        async with client_of(None, host="mx.test", port=25, dialer=dial) as client:
            with pytest.raises(SMTPError, match="cannot connect to mx.test:25: no way there"):
                await client.send(mail())


class TestFilter:
    async def test_users_who_name_the_server_cannot_reach_the_inner_network(self) -> None:
        async with speaking() as server:
            dns = DNSOptions(address_filter=lambda ip: ip.is_global)
            async with client_of(server, dns=dns) as client:
                with pytest.raises(InvalidHost, match="address_filter"):
                    await client.send(mail())
            assert not list(server.connections)


class TestTunnel:
    @pytest.mark.parametrize(
        ("port", "security", "tls", "missing"),
        [
            (None, Security.PLAINTEXT, TLSOptions(), "port"),
            (10025, Security.AUTO, TLSOptions(), "security="),
            (465, Security.AUTO, TLSOptions(server_hostname="x"), "security="),
            (10025, Security.STARTTLS, TLSOptions(), "server_hostname"),
            (10025, Security.IMPLICIT, TLSOptions(), "server_hostname"),
        ],
    )
    def test_nothing_is_guessed(
        self, port: int | None, security: Security, tls: TLSOptions, missing: str
    ) -> None:
        with pytest.raises(InvalidArgument, match=missing):
            SMTPClient("127.0.0.1", port, security=security, options=ClientOptions(tunnel=True, tls=tls))

    async def test_the_certificate_is_that_of_the_server_behind_it(self, pki: Pki) -> None:
        async with tls_server(pki) as server:
            tls = TLSOptions(trust=trusting(pki).trust, server_hostname="localhost")
            options = ClientOptions(tunnel=True, tls=tls)
            # On port 465 or 25, as on any other.
            client = SMTPClient("0.0.0.0", server.port, security=Security.STARTTLS, options=options)
            async with client:
                await client.send(mail())
            assert len(server.messages) == 1

    async def test_silence_is_not_explained_by_the_port(self) -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with serving(mute) as server:
            options = ClientOptions(tunnel=True, timeouts=Timeouts(greeting=0.1))
            async with SMTPClient(
                "127.0.0.1", server.port, security=Security.PLAINTEXT, options=options
            ) as client:
                report = await client.check()
            assert report.error is not None and "IMPLICIT" not in str(report.error)
            assert server.connections == 1


class TestLines:
    async def test_a_line_may_be_as_long_as_the_option_says(self) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 " + b"x" * 294 + b"\r\n")
            await reader.read()

        async with serving(talk) as server:
            for most, code in ((300, None), (299, 20011)):
                options = ClientOptions(
                    socket=SocketOptions(max_line_length=most), timeouts=Timeouts(hello=0.05)
                )
                async with SMTPClient(
                    "127.0.0.1", server.port, security=Security.PLAINTEXT, options=options
                ) as client:
                    report = await client.check()
                assert report.error is not None
                assert (report.error.code == 20011) is (code == 20011)


@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", CancelMoment)
async def test_cancelled_anywhere(manner: CancelManner, moment: CancelMoment) -> None:
    """A send that has to dial by the application's dialer first."""
    async with speaking() as server:

        async def send() -> None:
            async with client_of(server, dialer=dialler(server.port)) as client:
                await client.send(mail())

        async for _ in cancellations(send, manner=manner, moment=moment):
            # Every connection that the server saw has been closed.
            await until(lambda: not server.connections.open)
