"""Every stream to a server goes the way that the options name, and TLS starts on whatever comes."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from smtp_async import (
    ClientOptions,
    ProxyOptions,
    ProxyType,
    Security,
    SMTPClient,
    TLSOptions,
    TrustOptions,
)
from smtp_async.connection.channel import Channel
from smtp_async.connection.route import SharedResources
from smtp_async.errors import ProxyError, SMTPError, TLSError
from smtp_async.events import ConnectionKind, ConnectionStatus, PITrail
from tests.lab import client_of, every_loop, impatient, mail, sampled, speaking, tls_server, trusting
from tests.servers.pki import Pki
from tests.tls.authority import root
from tests.tls.cases import CASES, NONE
from tests.tls.smtp_server import SMTPServer, connect
from tests.transport.lab import serving
from tests.transport.proxy import lab
from tests.transport.proxy.lab import Asked

pytestmark = pytest.mark.usefixtures("no_leaks")

KINDS = [ProxyType.HTTP_CONNECT, ProxyType.HTTPS_CONNECT, ProxyType.SOCKS4, ProxyType.SOCKS5]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@contextlib.asynccontextmanager
async def proxy(
    kind: ProxyType, pki: Pki, *, behind: bytes = b""
) -> AsyncIterator[tuple[ProxyOptions, Asked]]:
    """Run a proxy; yield options for it, and what it is asked."""
    asked = Asked()
    handler = {
        ProxyType.SOCKS4: lab.socks4(asked),
        ProxyType.SOCKS5: lab.socks5(asked, ("ann", "proxy-secret")),
    }.get(kind, lab.http(asked, "ann:proxy-secret", behind=behind))
    more: dict[str, Any] = {"username": "ann", "password": "proxy-secret"}
    if kind is ProxyType.SOCKS4:
        more = {"username": "ann"}
    if kind is ProxyType.HTTPS_CONNECT:
        handler = lab.over_tls(pki.server_context(), handler)
        more["context"] = pki.client_context()
    async with serving(handler) as server:
        yield ProxyOptions(type=kind, host="127.0.0.1", port=server.port, **more), asked


class Seen:
    """A server that writes down what it gets."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.data = b""
        self._greeting = greeting

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._greeting)
        while data := await reader.read(65536):
            self.data += data
            if self.data[:1] == b"\x16":
                return


class TestFirstByte:
    @every_kind
    @every_loop
    async def test_implicit_tls_begins_with_a_handshake(self, kind: ProxyType, pki: Pki) -> None:
        seen = Seen()
        async with serving(seen.handle) as server, proxy(kind, pki) as (options, _):
            client = SMTPClient(
                "127.0.0.1",
                server.port,
                security=Security.IMPLICIT,
                username="u",
                password="mail-secret",
                options=ClientOptions(proxy=options, timeouts=impatient(2)),
            )
            async with client:
                with pytest.raises(SMTPError):
                    await client.send(mail())
        assert seen.data[:1] == b"\x16"
        assert b"secret" not in seen.data

    @every_kind
    async def test_tls_with_the_proxy_is_not_tls_with_the_server(self, kind: ProxyType, pki: Pki) -> None:
        async with speaking() as server, proxy(kind, pki) as (options, _):
            async with client_of(server, proxy=options) as client:
                report = await client.check()
                assert report.info is not None and not report.info.encrypted
                assert report.info.via == str(options)
            # A login wants TLS with the server itself.
            client = client_of(
                server,
                proxy=options,
                username="u",
                password="p",
                security=Security.AUTO,
                timeouts=impatient(2),
            )
            async with client:
                with pytest.raises(SMTPError, match="STARTTLS"):
                    await client.send(mail())


class TestCertificates:
    """The table of tests/tls/cases.py: a proxy on the way changes no verdict."""

    @pytest.mark.parametrize(
        ("name", "security", "kind"),
        sampled(
            itertools.product(
                CASES,
                (Security.IMPLICIT, Security.STARTTLS),
                (ProxyType.SOCKS5, ProxyType.HTTP_CONNECT),
            ),
            5,
        ),
    )
    async def test_the_table(self, kind: ProxyType, security: Security, name: str, pki: Pki) -> None:
        await self.demand_verdict(kind, security, name, pki)

    @pytest.mark.parametrize("name", ["good", "expired", "wrong host", "blocked"])
    @every_loop
    async def test_a_sample_on_every_loop(self, name: str, pki: Pki) -> None:
        await self.demand_verdict(ProxyType.SOCKS5, Security.STARTTLS, name, pki)

    async def demand_verdict(self, kind: ProxyType, security: Security, name: str, pki: Pki) -> None:
        case = CASES[name]
        shown = case.shows()
        server = SMTPServer(shown.server_context(), security)
        trust = TrustOptions(ca=[root().certificate], **case.settings(shown))
        options = TLSOptions(trust=trust, server_hostname=case.name, authenticate_server=case.policy)
        async with serving(server) as listening, proxy(kind, pki) as (through, asked):

            async def go() -> Channel:
                return await connect(listening.port, SharedResources(), options, security, proxies=(through,))

            if case.error is None:
                channel = await go()
                assert channel.info is not None
                assert channel.info.verified is (True if case.verified is None else case.verified)
                assert channel.info.via == str(through)
                assert bytes(server.seen).startswith(b"EHLO me.test\r\n")
            else:
                with pytest.raises(TLSError, match=case.says) as caught:
                    await go()
                assert type(caught.value) is case.error
                found = caught.value.validation
                assert case.problems == (NONE if found is None else found.problems)
                await listening.quiet()
                assert server.seen == b""
            assert asked.targets == [("127.0.0.1", listening.port)]


class TestBytesBehindThe200:
    @pytest.mark.parametrize("behind", [b"garbage\r\n", b"\xff" * 100, b"\x00"])
    async def test_in_clear_they_are_no_greeting(self, pki: Pki, behind: bytes) -> None:
        seen = Seen()
        kind = ProxyType.HTTP_CONNECT
        async with serving(seen.handle) as server, proxy(kind, pki, behind=behind) as (options, _):
            client = client_of(server, host="127.0.0.1", proxy=options, timeouts=impatient(0.3))
            async with client:
                with pytest.raises(SMTPError):
                    await client.send(mail())
        assert seen.data == b""

    async def test_before_a_handshake_they_end_the_connection(self, pki: Pki) -> None:
        seen = Seen()
        kind = ProxyType.HTTP_CONNECT
        async with serving(seen.handle) as server, proxy(kind, pki, behind=b"220 hi\r\n") as (options, _):
            client = client_of(
                server, host="127.0.0.1", proxy=options, security=Security.IMPLICIT, timeouts=impatient(2)
            )
            async with client:
                with pytest.raises(SMTPError) as caught:
                    await client.send(mail())
        assert "plaintext" in str(caught.value) or "without TLS" in str(caught.value)
        assert seen.data == b""


class TestCredentials:
    @every_kind
    async def test_those_of_the_proxy_go_there_only(self, kind: ProxyType, pki: Pki) -> None:
        lines: list[str] = []
        async with speaking() as server, proxy(kind, pki) as (options, asked):
            async with client_of(server, proxy=options) as client:
                client.on(PITrail, lambda event: lines.append(event.message))
                await client.send(mail())
            spoken = b"".join(bytes(conversation.clear) for conversation in server.connections)
        assert b"proxy-secret" not in spoken and b"Proxy" not in spoken
        assert "proxy-secret" not in "".join(lines)
        assert all("secret" not in target for target, _ in asked.targets)

    async def test_no_error_shows_them(self, pki: Pki) -> None:
        asked = Asked()
        async with serving(lab.socks5(asked, ("ann", "other"))) as server:
            options = ProxyOptions(url=f"socks5://ann:proxy-secret@127.0.0.1:{server.port}")
            async with SMTPClient("mail.example", 25, options=ClientOptions(proxy=options)) as client:
                with pytest.raises(ProxyError) as caught:
                    await client.send(mail())
                report = await client.check()
        assert "check username and password" in str(caught.value)
        assert "secret" not in f"{caught.value!r} {vars(caught.value)} {report}"


class TestEvents:
    @every_kind
    async def test_proxy_up_comes_first_and_down_last(self, kind: ProxyType, pki: Pki) -> None:
        told: list[tuple[ConnectionKind, str]] = []
        async with speaking() as server, proxy(kind, pki) as (options, _):
            client = client_of(server, proxy=options)
            client.on(ConnectionStatus, lambda event: told.append((event.kind, event.description)))
            async with client:
                await client.send(mail())
        assert [kind for kind, _ in told] == [
            ConnectionKind.PROXY_UP,
            ConnectionKind.CONNECTED,
            ConnectionKind.DISCONNECTED,
            ConnectionKind.PROXY_DOWN,
        ]
        assert told[0][1] == told[-1][1] == str(options)

    async def test_a_direct_connection_tells_of_none(self) -> None:
        told: list[ConnectionKind] = []
        async with speaking() as server:
            client = client_of(server, proxy=ProxyOptions(url="socks5://127.0.0.1:1", exceptions="127.0.0.1"))
            client.on(ConnectionStatus, lambda event: told.append(event.kind))
            async with client:
                await client.send(mail())
                assert (await client.check()).info.via == ""  # type: ignore[union-attr]
        assert ConnectionKind.PROXY_UP not in told and ConnectionKind.PROXY_DOWN not in told


class TestInfo:
    async def test_the_proxys_answer_is_kept(self, pki: Pki) -> None:
        kind = ProxyType.HTTP_CONNECT
        async with tls_server(pki) as server, proxy(kind, pki) as (options, _):
            client = client_of(
                server, host="localhost", proxy=options, security=Security.STARTTLS, tls=trusting(pki)
            )
            async with client, client.session() as session:
                await session.connect()
                assert session.info is not None
                response = session.info.proxy_response
        assert response is not None
        assert (response.status, response.header("via")) == (200, "lab")


class TestChecking:
    async def test_the_search_for_a_silent_server_goes_through_the_proxy(self, pki: Pki) -> None:
        async with (
            tls_server(pki, implicit_tls=True) as server,
            proxy(ProxyType.SOCKS5, pki) as (options, asked),
        ):
            client = client_of(server, proxy=options, security=Security.STARTTLS, tls=trusting(pki))
            async with client:
                report = await client.check()
        assert "IMPLICIT" in str(report.error)
        assert len(asked.targets) == 2

    async def test_a_proxy_that_refuses_is_a_finding(self) -> None:
        async with serving(lab.answers(b"HTTP/1.1 403 Forbidden\r\n\r\n")) as server:
            options = ProxyOptions(url=f"http://127.0.0.1:{server.port}")
            async with SMTPClient("mail.example", 25, options=ClientOptions(proxy=options)) as client:
                report = await client.check()
        assert isinstance(report.error, ProxyError)
        assert "403 Forbidden" in report.findings[0]


async def test_a_unix_socket_is_never_proxied(tmp_path: Any) -> None:
    seen = Seen(b"220 hi\r\n")
    path = str(tmp_path / "socket")
    async with serving(seen.handle, path=path):
        options = ClientOptions(proxy=ProxyOptions(url="socks5://127.0.0.1:1"), timeouts=impatient(0.2))
        async with SMTPClient(path, options=options) as client:
            with pytest.raises(SMTPError):
                await client.send(mail())
    assert seen.data.startswith(b"EHLO")
