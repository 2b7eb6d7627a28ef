"""What was negotiated with Postfix and Exim, and which sessions go on."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from smtp_async import ConnectionInfo, Security, SMTPClient, Timeouts, TLSOptions
from smtp_async.errors import ConnectionLost
from smtp_async.events import ConnectionKind, ConnectionStatus
from smtp_async.pool.limits import PoolLimits
from smtp_async.protocol.states import Stage
from smtp_async.testing import ScriptedServer, close, cut, reply, reset, stall
from smtp_async.tls.system import shared_contexts
from tests.lab import client_of, every_loop, tls_server, trusting, until
from tests.servers.pki import Leaf, Pki

STARTTLS, IMPLICIT, OPPORTUNISTIC = Security.STARTTLS, Security.IMPLICIT, Security.OPPORTUNISTIC
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Offer(NamedTuple):
    """What the client offers, and what comes of it."""

    version: ssl.TLSVersion
    ciphers: str | None
    curve: str | None
    expected: dict[str, Any]


AES256 = {"cipher": "AES-256-GCM", "bits": 256, "block_size": 16, "aead": True, "digest": "SHA-384"}
AES128 = {"cipher": "AES-128-GCM", "bits": 128, "block_size": 16, "aead": True, "digest": "SHA-256"}
CHACHA = {"cipher": "CHACHA20-POLY1305", "bits": 256, "block_size": 0, "aead": True, "digest": "SHA-256"}
X25519 = {"key_exchange": "ECDHE", "group": "x25519", "key_exchange_bits": 253, "forward_secrecy": True}
P256 = {"key_exchange": "ECDHE", "group": "secp256r1", "key_exchange_bits": 256, "forward_secrecy": True}
P384 = {"key_exchange": "ECDHE", "group": "secp384r1", "key_exchange_bits": 384, "forward_secrecy": True}
EC_KEY = {"signature_algorithm": "ecdsa_secp256r1_sha256", "public_key_bits": 256}

OFFERS = {
    "TLS 1.3": Offer(V13, None, "X25519", {"suite": "TLS_AES_256_GCM_SHA384", **AES256, **X25519, **EC_KEY}),
    "TLS 1.3 on P-384": Offer(V13, None, "secp384r1", {**P384, **EC_KEY}),
    "TLS 1.2": Offer(
        V12,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        None,
        {"suite": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", **AES128, **X25519, **EC_KEY},
    ),
    "TLS 1.2 on P-256": Offer(
        V12,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "prime256v1",
        {"suite": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", **CHACHA, **P256, **EC_KEY},
    ),
}
RSA_KEY = {"signature_algorithm": "rsa_pss_rsae_sha256", "public_key_bits": 2048}
#: Postfix has an RSA key, too.
RSA_OFFERS = {
    "ECDHE with RSA": Offer(
        V12,
        "ECDHE-RSA-AES256-GCM-SHA384",
        "X25519",
        {"suite": "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", **AES256, **X25519, **RSA_KEY},
    ),
    "DHE": Offer(
        V12,
        "DHE-RSA-AES256-GCM-SHA384",
        None,
        {
            "suite": "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384",
            **AES256,
            **RSA_KEY,
            "key_exchange": "DHE",
            "group": None,
            "key_exchange_bits": 2048,
            "forward_secrecy": True,
        },
    ),
    "RSA": Offer(
        V12,
        "AES128-SHA",
        None,
        {
            "suite": "TLS_RSA_WITH_AES_128_CBC_SHA",
            "cipher": "AES-128-CBC",
            "bits": 128,
            "block_size": 16,
            "aead": False,
            "digest": "SHA-1",
            "signature_algorithm": None,
            "public_key_bits": 2048,
            "key_exchange": "RSA",
            "group": None,
            "key_exchange_bits": 2048,
            "forward_secrecy": False,
        },
    ),
}


def offering(pki: Pki, offer: Offer, *, identity: Leaf | None = None) -> TLSOptions:
    context = pki.client_context(identity=identity)
    context.minimum_version = context.maximum_version = offer.version
    if offer.ciphers:
        context.set_ciphers(offer.ciphers)
    if offer.curve:
        context.set_ecdh_curve(offer.curve)
    return TLSOptions(context=context)


@asynccontextmanager
async def connected(client: SMTPClient) -> AsyncIterator[Any]:
    async with client, client.session() as session:
        await session.connect()
        yield session


async def negotiated(client: SMTPClient) -> ConnectionInfo:
    """Connect once, and return what was negotiated."""
    async with client.session() as session:
        await session.connect()
        info: ConnectionInfo = session.info
    return info


def facts(info: ConnectionInfo, names: Any) -> dict[str, Any]:
    return {name: getattr(info, name) for name in names}


class TestWhatIsTold:
    @pytest.mark.parametrize("offer", OFFERS.values(), ids=list(OFFERS))
    @pytest.mark.parametrize("name", ["postfix", "exim"])
    @every_loop
    async def test_by_every_server(
        self, name: str, offer: Offer, pki: Pki, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(name)
        tls = offering(pki, offer)
        for port, security in ((server.auth_port, STARTTLS), (server.tls_port, IMPLICIT)):
            async with connected(
                client_of(server, host="localhost", port=port, security=security, tls=tls)
            ) as session:
                info = session.info
                assert facts(info, offer.expected) == offer.expected
                assert info.tls_version == offer.version.name.replace("_", ".")
                assert (info.exportable, info.session_resumed, info.server_authenticated) == (
                    False,
                    False,
                    True,
                )
                assert info.client_authenticated is False

    @pytest.mark.parametrize("offer", RSA_OFFERS.values(), ids=list(RSA_OFFERS))
    async def test_of_older_suites(self, postfix: Any, offer: Offer, pki: Pki) -> None:
        tls = offering(pki, offer)
        async with connected(
            client_of(postfix, host="localhost", port=postfix.tls_port, security=IMPLICIT, tls=tls)
        ) as session:
            assert facts(session.info, offer.expected) == offer.expected

    @pytest.mark.parametrize("offer", [OFFERS["TLS 1.2"], OFFERS["TLS 1.3"]], ids=["TLS 1.2", "TLS 1.3"])
    @pytest.mark.parametrize("shown", [True, False])
    async def test_a_client_certificate(self, postfix: Any, offer: Offer, shown: bool, pki: Pki) -> None:
        tls = offering(pki, offer, identity=pki.client if shown else None)
        client = client_of(postfix, host="localhost", port=postfix.asks_port, security=STARTTLS, tls=tls)
        async with client:
            first, second = await negotiated(client), await negotiated(client)
        assert (first.client_auth_requested, first.client_authenticated) == (True, shown)
        assert second.session_resumed
        assert (second.client_auth_requested, second.client_authenticated) == (True, shown)
        async with connected(
            client_of(postfix, host="localhost", port=postfix.starttls_port, security=STARTTLS, tls=tls)
        ) as session:
            assert (session.info.client_auth_requested, session.info.client_authenticated) == (False, False)

    @pytest.mark.parametrize("which", ["bytes_sent", "bytes_received"])
    async def test_the_bytes_are_counted_on(self, postfix: Any, pki: Pki, which: str) -> None:
        client = client_of(
            postfix, host="localhost", port=postfix.starttls_port, security=STARTTLS, tls=trusting(pki)
        )
        async with connected(client) as session:
            info = session.info
            before = getattr(info, which)
            assert before > len("EHLO client.test\r\nSTARTTLS\r\nEHLO client.test\r\n") - 1
            reply = await session.noop()
            answer = len(b"".join(reply.raw)) + len("250 \r\n")
            assert (
                getattr(info, which) - before
                == {
                    "bytes_sent": len("NOOP\r\n"),
                    "bytes_received": answer,
                }[which]
            )

    async def test_to_users_of_the_pool(self, postfix: Any, pki: Pki) -> None:
        told: list[Any] = []
        client = client_of(
            postfix, host="localhost", port=postfix.starttls_port, security=STARTTLS, tls=trusting(pki)
        )
        client.on(ConnectionStatus, told.append)
        async with client:
            await client.send_raw(b"Subject: x\r\n\r\n", sender="a@lab.test", recipients=["b@lab.test"])
        up = next(event for event in told if event.kind is ConnectionKind.TLS_UP)
        assert isinstance(up.info, ConnectionInfo)
        assert up.info.suite == "TLS_AES_256_GCM_SHA384" and up.info.verified
        assert [event.info for event in told if event.kind is ConnectionKind.CONNECTED] == [None]

    @every_loop
    async def test_the_second_connection_of_a_pool_goes_on_with_the_first(
        self, postfix: Any, pki: Pki
    ) -> None:
        told: list[Any] = []
        client = client_of(
            postfix, host="localhost", port=postfix.tls_port, security=IMPLICIT, tls=trusting(pki)
        )
        client.on(ConnectionStatus, told.append)
        async with client:
            await client.send_raw(b"Subject: x\r\n\r\n", sender="a@lab.test", recipients=["b@lab.test"])
            infos = await asyncio.gather(*(negotiated(client) for _ in range(2)))
            await client.send_raw(b"Subject: y\r\n\r\n", sender="a@lab.test", recipients=["b@lab.test"])
        ups = [event.info for event in told if event.kind is ConnectionKind.TLS_UP]
        assert [info.session_resumed for info in ups] == [False] + [True] * (len(ups) - 1)
        assert all(info.session_resumed for info in infos)


@pytest.mark.parametrize("believed", [True, False])
@every_loop
async def test_opportunistic_goes_on_only_where_the_server_is_believed(
    postfix: Any, believed: bool, pki: Pki, tmp_path: Path
) -> None:
    stranger = Pki(tmp_path)
    client = client_of(
        postfix,
        host="localhost",
        port=postfix.starttls_port,
        security=OPPORTUNISTIC,
        tls=trusting(pki if believed else stranger),
    )
    async with client:
        infos = [await negotiated(client) for _ in range(3)]
    assert [info.verified for info in infos] == [believed] * 3
    assert [info.session_resumed for info in infos] == [False, believed, believed]


@pytest.mark.parametrize("version", [V12, V13], ids=["TLS 1.2", "TLS 1.3"])
@pytest.mark.parametrize("name", ["postfix", "exim"])
class TestSessions:
    @every_loop
    async def test_a_second_connection_goes_on_with_the_first(
        self, name: str, version: ssl.TLSVersion, pki: Pki, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(name)
        tls = offering(pki, Offer(version, None, None, {}))
        for port, security in ((server.auth_port, STARTTLS), (server.tls_port, IMPLICIT)):
            client = client_of(server, host="localhost", port=port, security=security, tls=tls)
            async with client:
                first, *later = [await negotiated(client) for _ in range(4)]
            assert not first.session_resumed
            kept = ("verified", "validation", "chain", "suite", "group", "signature_algorithm")
            for one in later:
                assert one.session_resumed
                assert facts(one, kept) == facts(first, kept)
            assert len({one.id for one in (first, *later)}) == 4

    @every_loop
    async def test_so_do_many_at_once(
        self, name: str, version: ssl.TLSVersion, pki: Pki, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(name)
        tls = offering(pki, Offer(version, None, None, {}))
        client = client_of(
            server,
            host="localhost",
            port=server.tls_port,
            security=IMPLICIT,
            tls=tls,
            pool=PoolLimits(max_connections=8),
        )
        async with client:
            await negotiated(client)
            infos = await asyncio.gather(*(negotiated(client) for _ in range(8)))
        assert all(info.session_resumed and info.verified for info in infos)

    async def test_but_a_check_looks_at_the_certificate_of_today(
        self, name: str, version: ssl.TLSVersion, pki: Pki, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(name)
        tls = offering(pki, Offer(version, None, None, {}))
        client = client_of(server, host="localhost", port=server.tls_port, security=IMPLICIT, tls=tls)
        async with client:
            assert [(await negotiated(client)).session_resumed for _ in range(2)] == [False, True]
            report = await client.check()
            assert report.info is not None and not report.info.session_resumed
            assert (await negotiated(client)).session_resumed

    async def test_unless_turned_off(
        self, name: str, version: ssl.TLSVersion, pki: Pki, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(name)
        context = offering(pki, Offer(version, None, None, {})).context
        client = client_of(
            server,
            host="localhost",
            port=server.tls_port,
            security=IMPLICIT,
            tls=TLSOptions(context=context, session_reuse=False),
        )
        async with client:
            assert [(await negotiated(client)).session_resumed for _ in range(2)] == [False, False]


class TestAcrossHosts:
    @pytest.fixture(autouse=True)
    def fresh(self) -> None:
        """Share no context, and so no session, with the clients of other tests."""
        shared_contexts.clear()

    @pytest.mark.parametrize("version", [V12, V13], ids=["TLS 1.2", "TLS 1.3"])
    @pytest.mark.parametrize("wanted", [True, False])
    @every_loop
    async def test_a_session_serves_two_servers_of_one_name(
        self, wanted: bool, version: ssl.TLSVersion, pki: Pki
    ) -> None:
        shared = pki.server_context()
        shared.maximum_version = version

        def client(host: str, server: Any, **changed: Any) -> SMTPClient:
            tls = replace(
                trusting(pki), **{"server_hostname": "localhost", "resume_across_hosts": wanted, **changed}
            )
            return client_of(server, host=host, security=IMPLICIT, tls=tls)

        async with (
            ScriptedServer(ssl_context=shared, implicit_tls=True) as one,
            ScriptedServer(ssl_context=shared, implicit_tls=True) as other,
            client("localhost", one) as first,
            client("127.0.0.1", other) as second,
            # Neither another name nor other options go on with it.
            client("127.0.0.1", other, server_hostname=None) as unnamed,
            client("127.0.0.1", other, minimum_bits=128) as different,
        ):
            began = await negotiated(first)
            assert not began.session_resumed
            went_on = await negotiated(second)
            assert went_on.session_resumed is wanted
            assert (went_on.host, went_on.port, went_on.verified) == ("127.0.0.1", other.port, True)
            assert went_on.chain == began.chain
            assert not (await negotiated(unnamed)).session_resumed
            assert not (await negotiated(different)).session_resumed

    @pytest.mark.parametrize("wanted", [True, False])
    async def test_two_services_of_postfix(self, wanted: bool, postfix: Any, pki: Pki) -> None:
        tls = replace(trusting(pki), server_hostname="localhost", resume_across_hosts=wanted)
        with_login, without = [
            client_of(postfix, host=host, port=port, security=STARTTLS, tls=tls)
            for host, port in (("localhost", postfix.starttls_port), ("127.0.0.1", postfix.auth_port))
        ]
        async with with_login, without:
            assert not (await negotiated(with_login)).session_resumed
            assert (await negotiated(without)).session_resumed is wanted

    @every_loop
    async def test_the_context_of_the_application_is_what_they_share(self, pki: Pki) -> None:
        context, shared = pki.client_context(), pki.server_context()
        tls = TLSOptions(context=context, server_hostname="localhost", resume_across_hosts=True)
        async with (
            ScriptedServer(ssl_context=shared, implicit_tls=True) as one,
            ScriptedServer(ssl_context=shared, implicit_tls=True) as other,
            client_of(one, host="localhost", security=IMPLICIT, tls=tls) as first,
            client_of(other, host="127.0.0.1", security=IMPLICIT, tls=tls) as second,
        ):
            assert not (await negotiated(first)).session_resumed
            assert (await negotiated(second)).session_resumed
        kept = weakref.ref(context)
        del context, tls, first, second
        # The sessions that the clients shared do not keep it alive; what closes the connections does so for a while.
        await until(lambda: gc.collect() >= 0 and kept() is None)


class TestTheEnd:
    @pytest.mark.parametrize(("end", "broken"), [(close(), False), (cut(0), True), (reset(), True)])
    @every_loop
    async def test_without_a_farewell_is_told(self, end: Any, broken: bool, pki: Pki) -> None:
        told: list[Any] = []
        async with (
            tls_server(pki, implicit_tls=True) as server,
            client_of(server, host="localhost", security=IMPLICIT, tls=trusting(pki)) as client,
            client.session() as session,
        ):
            client.on(ConnectionStatus, told.append)
            server.on("NOOP", end)
            await session.connect()
            with pytest.raises(ConnectionLost):
                await session.noop()
            await until(lambda: told[-1].kind is ConnectionKind.DISCONNECTED)
            ends = [event for event in told if event.kind is ConnectionKind.TLS_BROKEN]
            assert len(ends) == broken
            for event in ends:
                assert (
                    event.info is session.info and "close_notify" in event.description and event.status_code
                )

    @every_loop
    async def test_of_a_connection_that_was_cut_does_not_harm_the_next(self, pki: Pki) -> None:
        """Its session may be lost with it: OpenSSL goes on with none that did not end well."""
        async with (
            tls_server(pki, implicit_tls=True) as server,
            client_of(server, host="localhost", security=IMPLICIT, tls=trusting(pki)) as client,
        ):
            server.on("NOOP", reset(), connection=0)
            async with client.session() as session:
                await session.connect()
                with pytest.raises(ConnectionLost):
                    await session.noop()
            del session
            gc.collect()
            assert (await negotiated(client)).verified

    @pytest.mark.parametrize(
        ("end", "said"),
        [([], None), ([cut(0)], "without a farewell"), ([stall()], "within 0.3 s of its reply to QUIT")],
        ids=["polite", "cut", "kept open"],
    )
    @pytest.mark.parametrize("expected", [True, False])
    @every_loop
    async def test_is_waited_for_behind_quit(
        self, end: list[Any], said: str | None, expected: bool, pki: Pki
    ) -> None:
        told: list[Any] = []
        tls = replace(trusting(pki), expect_close_notify=expected)
        async with (
            tls_server(pki, implicit_tls=True) as server,
            client_of(
                server,
                host="localhost",
                security=IMPLICIT,
                tls=tls,
                timeouts=Timeouts(quit=0.3 if end else 5),
            ) as client,
        ):
            client.on(ConnectionStatus, told.append)
            if end:
                server.on("QUIT", reply(221, "bye"), *end)
            async with client.session() as session:
                await session.connect()
            assert told[-1].kind is ConnectionKind.DISCONNECTED and told[-1].status_code == 0
            broken = [event for event in told if event.kind is ConnectionKind.TLS_BROKEN]
            assert len(broken) == (expected and said is not None)
            for event in broken:
                assert said is not None and said in event.description
                assert event.info is session.info and event.status_code

    @every_loop
    async def test_is_not_waited_for_by_a_caller_that_is_cancelled(self, pki: Pki) -> None:
        async with (
            tls_server(pki, implicit_tls=True) as server,
            client_of(server, host="localhost", security=IMPLICIT, tls=trusting(pki)) as client,
        ):
            server.on("QUIT", reply(221, "bye"), stall())
            async with client.session() as session:
                await session.connect()
                connection = session._connection
                quitting = asyncio.ensure_future(session.quit())
                await until(lambda: connection.stage is Stage.QUIT and connection.channel.machine.idle)
                quitting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await quitting
                session.abort()
                await connection.wait_ended()

    @pytest.mark.parametrize("name", ["postfix", "exim"])
    async def test_of_real_servers_behind_quit_is_polite(
        self, name: str, pki: Pki, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(name)
        told: list[Any] = []
        client = client_of(
            server, host="localhost", port=server.tls_port, security=IMPLICIT, tls=trusting(pki)
        )
        client.on(ConnectionStatus, told.append)
        async with client, client.session() as session:
            await session.connect()
        kinds = [event.kind for event in told]
        assert kinds == [ConnectionKind.CONNECTED, ConnectionKind.TLS_UP, ConnectionKind.DISCONNECTED]

    async def test_of_an_idle_connection_to_postfix_is_polite(self, postfix: Any, pki: Pki) -> None:
        told: list[Any] = []
        client = client_of(
            postfix, host="localhost", port=postfix.starttls_port, security=STARTTLS, tls=trusting(pki)
        )
        client.on(ConnectionStatus, told.append)
        async with connected(client) as session:
            await session.command("QUIT")
            await until(lambda: told[-1].kind is ConnectionKind.DISCONNECTED)
        assert [event.kind for event in told].count(ConnectionKind.TLS_BROKEN) == 0
