"""Which TLS sessions are gone on with, and which are not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from datetime import timedelta
from typing import Any

import pytest
import trustme

from smtp_async.errors import CertificateRejected, HandshakeFailed, ServerCertificateMissing
from smtp_async.tls import (
    ConnectionInfo,
    Security,
    TLSOptions,
    make_context,
    secure,
)
from smtp_async.tls.handshake_witness import offering
from smtp_async.tls.sessions import KeptSession, SessionCache, SessionKey
from smtp_async.tls.verify import keep_session
from smtp_async.transport import dial
from tests.tls.certificates import DAY, NOW
from tests.transport.lab import CA, client_context, implicit, server_context, serving

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [V12, V13], ids=["TLS 1.2", "TLS 1.3"])


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a first reply, and read until the client closes."""
    writer.write(b"220 hi\r\n")
    while await reader.read(65536):
        pass


class Client:
    """Connects again and again, with one context and one cache, to whatever server now has the port of its name."""

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext,
        options: TLSOptions,
        security: Security,
        sessions: SessionCache,
    ) -> None:
        self.port = self.named = port
        self.context, self.options, self.security = context, options, security
        self.sessions = sessions

    def kept(self) -> KeptSession | None:
        return self.sessions.find(SessionKey("localhost", self.named, "localhost"), self.context)

    async def connect(self, host: str = "localhost") -> ConnectionInfo:
        stream = await dial("127.0.0.1", self.port)
        try:
            info = await secure(
                stream,
                self.context,
                host=host,
                port=self.named,
                security=self.security,
                options=self.options,
                sessions=self.sessions,
            )
            assert await stream.read() == b"220 hi\r\n"
            keep_session(self.sessions, stream, info, self.options)
        finally:
            stream.abort()
        return info

    async def resumed(self, times: int) -> list[bool]:
        return [(await self.connect()).session_resumed for _ in range(times)]


@contextlib.asynccontextmanager
async def client_of(
    server: ssl.SSLContext,
    *,
    context: ssl.SSLContext | None = None,
    verify: bool = True,
    sessions: SessionCache | None = None,
) -> Any:
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        CA.configure_trust(context)
    options = TLSOptions(context=context)
    made = make_context(options, verify=verify)
    security = Security.IMPLICIT if verify else Security.OPPORTUNISTIC
    async with serving(implicit(server, greet)) as port:
        yield Client(port.port, made, options, security, sessions or SessionCache())


def server_of(version: ssl.TLSVersion = V13, leaf: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = server_context(leaf)
    context.maximum_version = version
    return context


class Clock:
    """The clocks of a cache, which go on when they are called with seconds."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self, seconds: float) -> None:
        self.passed += seconds

    def cache(self) -> SessionCache:
        return SessionCache(
            clock=lambda: time.time() + self.passed, monotonic=lambda: time.monotonic() + self.passed
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@VERSIONS
class TestGoingOn:
    def test_with_verdict_and_chain(self, run: Any, version: ssl.TLSVersion) -> None:
        async def scenario() -> None:
            leaf = CA.create_child_ca().issue_cert("localhost", "127.0.0.1")
            async with client_of(server_of(version, leaf)) as client:
                first, second, third = [await client.connect() for _ in range(3)]
                assert not first.session_resumed and second.session_resumed and third.session_resumed
                assert third.chain is first.chain and len(first.chain) == 2
                assert third.verified is True and third.server_authenticated
                assert third.group == first.group is not None
                assert third.signature_algorithm == first.signature_algorithm is not None

        run(scenario())

    def test_not_under_another_name(self, run: Any, version: ssl.TLSVersion) -> None:
        async def scenario() -> None:
            async with client_of(server_of(version)) as client:
                assert not (await client.connect("localhost")).session_resumed
                assert not (await client.connect("127.0.0.1")).session_resumed
                with pytest.raises(CertificateRejected):
                    await client.connect("other.example")

        run(scenario())

    def test_not_with_another_context(self, run: Any, version: ssl.TLSVersion) -> None:
        async def scenario() -> None:
            async with client_of(server_of(version)) as client:
                await client.connect()
                client.context = make_context(TLSOptions(context=client_context()))
                assert await client.resumed(2) == [False, True]

        run(scenario())

    def test_not_after_the_certificate_has_expired(
        self, run: Any, version: ssl.TLSVersion, clock: Clock
    ) -> None:
        async def scenario() -> None:
            leaf = CA.issue_cert("localhost", not_before=NOW - DAY, not_after=NOW + timedelta(hours=1))
            async with client_of(server_of(version, leaf), sessions=clock.cache()) as client:
                assert await client.resumed(2) == [False, True]
                clock(3601)
                assert await client.resumed(1) == [False]

        run(scenario())

    def test_for_ten_hours_however_often_it_is_renewed(
        self, run: Any, version: ssl.TLSVersion, clock: Clock
    ) -> None:
        async def scenario() -> None:
            async with client_of(server_of(version), sessions=clock.cache()) as client:
                await client.connect()
                for _ in range(9):
                    clock(3600)
                    assert await client.resumed(1) == [True]
                clock(3601)
                assert await client.resumed(2) == [False, True]

        run(scenario())


class TestOpportunistic:
    def test_goes_on_where_the_server_was_believed(self, run: Any) -> None:
        async def scenario() -> None:
            async with client_of(server_of(), verify=False) as client:
                infos = [await client.connect() for _ in range(2)]
                assert [info.session_resumed for info in infos] == [False, True]
                assert [info.verified for info in infos] == [True, True]

        run(scenario())

    @pytest.mark.parametrize(
        "leaf",
        [
            lambda: CA.issue_cert("other.example"),
            lambda: trustme.CA().issue_cert("localhost"),
            lambda: CA.issue_cert("localhost", not_before=NOW - 9 * DAY, not_after=NOW - DAY),
        ],
    )
    def test_begins_anew_where_it_was_not(self, run: Any, leaf: Any) -> None:
        async def scenario() -> None:
            async with client_of(server_of(V13, leaf()), verify=False) as client:
                infos = [await client.connect() for _ in range(3)]
                assert [info.session_resumed for info in infos] == [False] * 3
                assert all(info.validation.reason for info in infos)

        run(scenario())


def test_no_session_of_a_context_that_verifies_nothing(run: Any) -> None:
    async def scenario() -> None:
        context = client_context()
        context.check_hostname = False
        async with client_of(server_of(), context=context) as client:
            assert await client.resumed(3) == [False] * 3

    run(scenario())


class TestRefusals:
    def test_a_server_that_has_forgotten(self, run: Any, clock: Clock) -> None:
        async def scenario() -> None:
            server = server_of()
            async with client_of(server, sessions=clock.cache()) as client:
                assert await client.resumed(2) == [False, True]
                async with serving(implicit(server_of(), greet)) as other:
                    client.port = other.port
                    # Another one is taken minutes later, then it is as before.
                    assert await client.resumed(3) == [False] * 3
                    clock(301)
                    assert await client.resumed(3) == [False, True, True]

        run(scenario())

    def test_a_server_that_gives_none_is_asked_seldom(self, clock: Clock) -> None:
        class Without:
            """A connection of OpenSSL that counts how often its session is asked for."""

            asked = 0

            @property
            def session(self) -> None:
                self.asked += 1

            def getpeercert(self) -> dict[str, str]:
                return {"notAfter": "Jan  5 09:34:43 2100 GMT"}

        tls: Any = Without()
        cache, key = clock.cache(), SessionKey("localhost", 465, "localhost")
        info = ConnectionInfo(host="localhost", encrypted=True, verified=True, chain=(b"x",))
        for seconds, count in ((0, 1), (0, 1), (301, 2), (301, 2), (301, 3), (1100, 3), (101, 4)):
            clock(seconds)
            cache.keep(key, tls, info)
            assert tls.asked == count

    def test_a_failed_handshake(self, run: Any) -> None:
        async def scenario() -> None:
            async with client_of(server_of()) as client:
                assert await client.resumed(2) == [False, True]
                port = client.port

                async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    await reader.read(1)

                async with serving(rude) as other:
                    client.port = other.port
                    with pytest.raises(HandshakeFailed):
                        await client.connect()
                    assert client.kept() is None
                client.port = port

        run(scenario())


@pytest.mark.parametrize(("most", "resumed"), [(1, False), (2, True)])
def test_no_more_than_a_bound_of_servers(run: Any, most: int, resumed: bool) -> None:
    async def scenario() -> None:
        async with client_of(server_of(), sessions=SessionCache(most=most)) as client:
            for name in ("localhost", "127.0.0.1"):
                assert not (await client.connect(name)).session_resumed
            assert (client.kept() is not None) is resumed
            assert (await client.connect("localhost")).session_resumed is resumed

    run(scenario())


class TestOffers:
    def pair(self, client: ssl.SSLContext, server: ssl.SSLContext, name: str = "localhost") -> ssl.SSLObject:
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = client.wrap_bio(to_client, to_server, server_hostname=name)
        theirs = server.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(3):
            for one in (ours, theirs):
                with contextlib.suppress(ssl.SSLWantReadError):
                    one.do_handshake()
        theirs.write(b"x")
        ours.read()
        return ours

    def test_are_taken_once_in_order_and_by_name(self) -> None:
        client, server = client_context(), server_of()
        make_context(TLSOptions(context=client))
        session = self.pair(client, server).session
        with offering(client, "localhost", None), offering(client, "localhost", session):
            assert not self.pair(client, server, "127.0.0.1").session_reused
            assert [self.pair(client, server).session_reused for _ in range(3)] == [False, True, False]
        assert not self.pair(client, server).session_reused


def test_a_server_without_a_certificate_is_refused(run: Any) -> None:
    """OpenSSL verifies nothing where the suite wants no certificate, whatever the context demands."""

    async def scenario() -> None:
        server, context = server_of(V12), client_context()
        for one in (server, context):
            one.set_ciphers("aNULL:@SECLEVEL=0")
        async with client_of(server, context=context) as client:
            with pytest.raises(ServerCertificateMissing, match="showed no certificate"):
                await client.connect()

    run(scenario())
