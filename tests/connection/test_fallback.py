"""fallback.py: the mail exchangers of a domain, one after the other."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from smtp_async import ClientOptions, DNSOptions, Outcome, Security, SMTPClient, SMTPError, Timeouts
from smtp_async.errors import GreetingRefused, InvalidArgument, InvalidHost, ResolveError, SocketError
from smtp_async.events import ConnectionStatus, Notification
from smtp_async.testing import CancelManner, CancelMoment, ScriptedServer, cancellations, reply
from smtp_async.transport.names import AddressFamily
from smtp_async.transport.records import MX, SRV
from tests.lab import every_loop, mail, mute, trusting, until
from tests.servers.pki import Pki

pytestmark = pytest.mark.usefixtures("no_leaks")


class Zone:
    """A resolver: the mail exchangers of example.org, in order, and the address of each."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = dict(enumerate(hosts, 1))
        self.asked = 0

    async def addresses(self, name: str, family: AddressFamily) -> Sequence[str]:
        return [name.removesuffix(".example.org").replace("-", ".")]

    async def mx(self, domain: str) -> Sequence[MX]:
        self.asked += 1
        if not self.hosts:
            raise ResolveError("no such domain", code=11001)
        return [MX(preference, f"{host}.example.org") for preference, host in self.hosts.items()]

    async def srv(self, service: str) -> Sequence[SRV]:
        return []


def client_for(zone: Zone, port: int, **options: Any) -> SMTPClient:
    options.setdefault("hello", "client.test")
    security = options.pop("security", Security.PLAINTEXT)
    settings = ClientOptions(dns=DNSOptions(resolver=zone), **options)
    return SMTPClient.for_domain("example.org", port=port, security=security, options=settings)


async def pair(first: ScriptedServer) -> ScriptedServer:
    """Return a server on another address with the port of the first."""
    return ScriptedServer(host="127.0.0.2", port=first.port)


@every_loop
async def test_the_first_that_can_be_reached() -> None:
    """127.0.0.3 refuses connections."""
    async with ScriptedServer() as server:
        zone = Zone("127-0-0-3", "127-0-0-1")
        async with client_for(zone, server.port) as client:
            told: list[Any] = []
            client.on(Notification, told.append)
            receipt = await client.send(mail())
            assert receipt.outcome is Outcome.ACCEPTED
            assert [event.name for event in told if event.name == "mx"] == ["mx"]
            # The connection is kept: no second look-up.
            await client.send(mail())
        assert len(server.messages) == 2 and zone.asked == 1


@pytest.mark.parametrize("code", [221, 421, 450, 554])
async def test_one_that_refuses_with_its_greeting(code: int) -> None:
    async with ScriptedServer() as first, await pair(first) as second:
        first.on("GREETING", reply(code, "not here"))
        async with client_for(Zone("127-0-0-1", "127-0-0-2"), first.port) as client:
            await client.send(mail())
        assert len(second.messages) == 1
        # RFC 5321 section 3.1: the client says QUIT where the server still listens.
        assert first.verbs() == ([] if code == 421 else ["QUIT"])


async def test_one_that_is_silent() -> None:
    async with ScriptedServer() as first, await pair(first) as second:
        first.on("GREETING", mute)
        timeouts = Timeouts(greeting=0.05)
        async with client_for(Zone("127-0-0-1", "127-0-0-2"), first.port, timeouts=timeouts) as client:
            await client.send(mail())
        assert len(second.messages) == 1


@every_loop
async def test_one_that_hangs_up_before_tls(pki: Pki) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    tls = replace(trusting(pki), server_hostname="localhost")
    async with ScriptedServer(ssl_context=pki.server_context(), implicit_tls=True) as server:
        full = await asyncio.start_server(hang_up, "127.0.0.2", server.port)
        zone = Zone("127-0-0-2", "127-0-0-1")
        async with full, client_for(zone, server.port, security=Security.IMPLICIT, tls=tls) as client:
            assert (await client.send(mail())).outcome is Outcome.ACCEPTED


async def test_what_a_server_says_later_is_the_answer() -> None:
    """A refused MAIL is no reason to ask another server."""
    async with ScriptedServer() as first, await pair(first) as second:
        first.on("MAIL", reply(550, "5.7.1 not you"))
        async with client_for(Zone("127-0-0-1", "127-0-0-2"), first.port) as client:
            with pytest.raises(SMTPError, match="not you"):
                await client.send(mail())
        assert second.messages == [] and not list(second.connections)


async def test_none_takes_mail() -> None:
    async with ScriptedServer() as server:
        server.on("GREETING", reply(421, "4.3.2 not now"))
        zone = Zone("127-0-0-3", "127-0-0-4", "127-0-0-1")
        async with client_for(zone, server.port) as client:
            with pytest.raises(GreetingRefused, match="not now") as caught:
                await client.send(mail())
        notes = " ".join(getattr(caught.value, "__notes__", [])) or str(caught.value.__cause__)
        assert caught.value.temporary
        assert "127-0-0-3" in notes and "127-0-0-4" in notes


async def test_a_domain_that_does_not_exist() -> None:
    async with client_for(Zone(), 25) as client:
        with pytest.raises(ResolveError) as caught:
            await client.send(mail())
        assert caught.value.code == 11001


async def test_a_forbidden_address_is_passed_over() -> None:
    async with ScriptedServer() as server:
        dns = DNSOptions(
            resolver=Zone("127-0-0-2", "127-0-0-1"), address_filter=lambda ip: str(ip) == "127.0.0.1"
        )
        options = ClientOptions(dns=dns, hello="client.test")
        async with SMTPClient.for_domain(
            "example.org", port=server.port, security=Security.PLAINTEXT, options=options
        ) as client:
            await client.send(mail())
        assert len(server.messages) == 1


async def test_the_report_of_a_check_names_the_server() -> None:
    async with ScriptedServer() as server:
        async with client_for(Zone("127-0-0-3", "127-0-0-1"), server.port) as client:
            report = await client.check()
            assert client.host == "example.org" and "mail exchangers of example.org" in repr(client)
        assert report.ok and report.server == f"127-0-0-1.example.org:{server.port}"
        assert {"DNS", "TCP", "greeting", "EHLO"} <= set(report.stage_seconds)


async def test_over_real_names_to_a_real_server(dns: Any, postfix: Any, pki: Pki) -> None:
    """nowhere.lab.test has no address, mail2 refuses, mail is Postfix."""
    options = ClientOptions(dns=DNSOptions(servers=(dns.server,)), tls=trusting(pki))
    async with SMTPClient.for_domain(
        "failover.lab.test", port=postfix.starttls_port, options=options
    ) as client:
        assert client.security is Security.OPPORTUNISTIC
        seen: list[Any] = []
        client.on(ConnectionStatus, seen.append)
        await client.send(mail(to="user@lab.test", subject="to the exchanger"))
    assert postfix.wait_for_message("to the exchanger")


@pytest.mark.parametrize("domain", ["null.lab.test", "nowhere.lab.test"])
async def test_domains_that_take_no_mail(dns: Any, domain: str) -> None:
    options = ClientOptions(dns=DNSOptions(servers=(dns.server,)))
    async with SMTPClient.for_domain(domain, options=options) as client:
        with pytest.raises(ResolveError) as caught:
            await client.send(mail())
        assert not caught.value.temporary


@pytest.mark.parametrize(
    ("domain", "options", "error"),
    [
        ("", ClientOptions(), SMTPError),
        ("a b", ClientOptions(), InvalidHost),
        ("example.org", ClientOptions(lmtp=True), InvalidArgument),
        ("/run/x", ClientOptions(), InvalidArgument),
    ],
)
def test_what_is_no_domain(domain: str, options: ClientOptions, error: type[SMTPError]) -> None:
    with pytest.raises(error):
        SMTPClient.for_domain(domain, options=options)


@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", CancelMoment)
async def test_cancelled_anywhere(manner: CancelManner, moment: CancelMoment) -> None:
    async with ScriptedServer() as first, await pair(first) as second:
        first.on("GREETING", reply(450, "busy"))

        async def send() -> None:
            async with client_for(Zone("127-0-0-3", "127-0-0-1", "127-0-0-2"), first.port) as client:
                await client.send(mail())

        async for _ in cancellations(send, manner=manner, moment=moment):
            await until(lambda: not first.connections.open and not second.connections.open)


async def test_refused_connections_are_errors_of_the_socket() -> None:
    async with client_for(Zone("127-0-0-3"), 9) as client:
        with pytest.raises(SocketError):
            await client.send(mail())
    await asyncio.sleep(0)
