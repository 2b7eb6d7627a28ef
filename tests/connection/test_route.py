"""route.py: what a server is called, and the name that this host gives itself."""

import asyncio
import socket
import ssl
import threading
from typing import Any

import pytest

from smtp_async import Credentials, Login, Timeouts, TLSOptions
from smtp_async.connection.route import Route, SharedResources, address_literal
from smtp_async.protocol.extensions import Extensions
from smtp_async.testing import ScriptedServer
from tests.lab import PATIENCE, client_of, gathered, mail, speaking, turns

pytestmark = pytest.mark.usefixtures("no_leaks")


def first_line(server: ScriptedServer) -> str:
    return server.commands[0].line.decode()


def test_a_server_is_named_by_host_and_port_or_by_its_socket() -> None:
    assert Route(host="mx.test", port=25).name == "mx.test:25"
    assert Route(host="::1", port=25).name == "[::1]:25"
    assert Route(host="x", path="/run/s").name == "/run/s"
    assert Route(host="domain.test", mx=True).name == "the mail exchangers of domain.test"


def test_when_a_connection_logs_in() -> None:
    account = Credentials(username="ann", password="x")
    assert not Route(host="mx.test").logs_in
    assert Route(host="mx.test", credentials=account).logs_in
    assert Route(host="mx.test", login=Login.REQUIRED).logs_in
    # By hand, but it will.
    assert Route(host="mx.test", credentials=account, login=Login.MANUAL).logs_in


async def test_logins_of_a_client_share_their_threads() -> None:
    shared = SharedResources()
    threads = shared.login_threads()
    assert threads.total_tokens == 4
    assert shared.login_threads() is threads
    assert SharedResources().login_threads() is not threads


class TestOffers:
    def test_the_same_offer_is_one_object(self) -> None:
        shared = SharedResources()
        first = shared.share_offer(Extensions({"SIZE": "100"}, domain="mx.test"))
        assert shared.share_offer(Extensions({"SIZE": "100"}, domain="mx.test")) is first

    @pytest.mark.parametrize(
        "other",
        [Extensions({"SIZE": "99"}, domain="mx.test"), Extensions({"SIZE": "100"}, domain="mx2.test")],
    )
    def test_another_offer_or_host_keeps_its_own(self, other: Extensions) -> None:
        shared = SharedResources()
        first = shared.share_offer(Extensions({"SIZE": "100"}, domain="mx.test"))
        assert shared.share_offer(other) is other
        assert shared.share_offer(Extensions({"SIZE": "100"}, domain="mx.test")) is first

    def test_only_a_few_are_remembered(self) -> None:
        shared = SharedResources()
        first = shared.share_offer(Extensions(domain="0"))
        for number in range(1, 20):
            shared.share_offer(Extensions(domain=str(number)))
        assert shared.share_offer(Extensions(domain="0")) is not first

    async def test_sessions_of_a_client_share_it(self) -> None:
        async with speaking() as server, client_of(server) as client:
            async with client.session() as one, client.session() as two:
                await one.connect()
                await two.connect()
                assert one.extensions is two.extensions


class TestLocalName:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("mail.example.com", "mail.example.com"),
            ("localhost", "localhost"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
            ("127.0.0.1", "[127.0.0.1]"),
            ("2001:db8::1", "[IPv6:2001:db8::1]"),
            ("fe80::1%eth0", "[IPv6:fe80::1]"),
            ("bücher.example", "xn--bcher-kva.example"),
        ],
    )
    async def test_the_name_that_is_given(self, name: str, said: str) -> None:
        async with speaking() as server, client_of(server, hello=name) as client:
            await client.send(mail())
            assert first_line(server) == f"EHLO {said}"

    @pytest.mark.parametrize(
        ("fqdn", "said"),
        [
            ("host.example.com", "host.example.com"),
            ("host.example.com.", "host.example.com"),
            ("localhost", "[127.0.0.1]"),
            ("", "[127.0.0.1]"),
            ("bücher.example", "[127.0.0.1]"),
            ("my_host.example.com", "[127.0.0.1]"),
            ("localhost.localdomain", "[127.0.0.1]"),
            ("pc.localdomain", "[127.0.0.1]"),
            ("pc.localhost.", "[127.0.0.1]"),
            ("host.example.com..", "[127.0.0.1]"),
            ("192.0.2.1", "[127.0.0.1]"),
            ("-host.example.com", "[127.0.0.1]"),
        ],
    )
    async def test_the_full_local_name_or_the_address(
        self, fqdn: str, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def getfqdn() -> str:
            asked.append(1)
            return fqdn

        monkeypatch.setattr(socket, "getfqdn", getfqdn)
        async with speaking() as server, client_of(server, hello=None) as client:
            await gathered(*(client.send(mail(n)) for n in range(5)))
            await client.verify("x")
            assert first_line(server) == f"EHLO {said}"
        # Looked up in a thread, and not for every connection.
        assert len(asked) <= server.connections.opened
        assert len(set(line.line for line in server.commands if line.verb == "EHLO")) == 1

    @pytest.mark.parametrize("fault", ["silent", "fails"])
    async def test_a_resolver_without_an_answer_costs_only_the_name(
        self, fault: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answered = threading.Event()

        def getfqdn() -> str:
            if fault == "fails":
                raise OSError("no resolver")
            answered.wait(PATIENCE)
            return "host.example.com"

        monkeypatch.setattr(socket, "getfqdn", getfqdn)
        limits = Timeouts(hello=0.2)
        try:
            async with speaking() as server, client_of(server, hello=None, timeouts=limits) as client:
                async with asyncio.timeout(PATIENCE / 2):
                    await client.verify("x")
                assert first_line(server) == "EHLO [127.0.0.1]"
        finally:
            answered.set()

    async def test_a_late_name_is_used_by_later_connections(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answered = threading.Event()

        def getfqdn() -> str:
            answered.wait(PATIENCE)
            return "host.example.com"

        monkeypatch.setattr(socket, "getfqdn", getfqdn)
        shared = SharedResources()
        here = ("192.0.2.1", 25)
        assert await shared.local_name(here, limit=0.02) == "[192.0.2.1]"
        answered.set()
        async with asyncio.timeout(PATIENCE):
            while await shared.local_name(here, limit=0.02) != "host.example.com":  # noqa: ASYNC110 - a thread
                await asyncio.sleep(0)

    @pytest.mark.parametrize(
        ("endpoint", "literal"),
        [
            (("192.0.2.1", 5), "[192.0.2.1]"),
            (("2001:db8::1", 5), "[IPv6:2001:db8::1]"),
            (("fe80::1%eth0", 5), "[IPv6:fe80::1]"),
            ("/run/sock", "[127.0.0.1]"),
            (None, "[127.0.0.1]"),
        ],
    )
    def test_literals(self, endpoint: Any, literal: str) -> None:
        assert address_literal(endpoint) == literal


class TestContext:
    async def test_it_is_made_once_for_connections_that_open_together(self) -> None:
        made = []

        def make(options: TLSOptions, *, verify: bool) -> ssl.SSLContext:
            made.append(verify)
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

        shared = SharedResources(make)
        one, other = await asyncio.gather(*(shared.context(TLSOptions(), verify=True) for _ in range(2)))
        assert one is other and await shared.context(TLSOptions(), verify=True) is one
        assert made == [True]

    async def test_a_failure_is_raised_to_all_that_wait_and_tried_again_by_the_next(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        results: list[Any] = [OSError("no such file"), context]

        def make(options: TLSOptions, *, verify: bool) -> ssl.SSLContext:
            result = results.pop(0)
            if isinstance(result, OSError):
                raise result
            return context

        shared = SharedResources(make)
        failed = await gathered(*(shared.context(TLSOptions(), verify=True) for _ in range(2)))
        assert [str(error) for error in failed] == ["no such file"] * 2
        assert await shared.context(TLSOptions(), verify=True) is context

    async def test_a_connection_that_is_cancelled_takes_it_from_no_other(self) -> None:
        go = threading.Event()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

        def make(options: TLSOptions, *, verify: bool) -> ssl.SSLContext:
            go.wait(PATIENCE)
            return context

        shared = SharedResources(make)
        first, second = (asyncio.create_task(shared.context(TLSOptions(), verify=True)) for _ in range(2))
        await turns()
        first.cancel()
        await turns()
        go.set()
        assert await second is context and first.cancelled()
