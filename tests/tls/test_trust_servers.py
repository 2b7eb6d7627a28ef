"""Pins, blocked and accepted certificates, and policies, at real servers and on both ways to TLS."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import Any

import pytest

from smtp_async import (
    Certificate,
    ChainProblem,
    ClientOptions,
    Credentials,
    Message,
    Outcome,
    PoolLimits,
    Security,
    ServerAuthentication,
    SMTPClient,
    TLSOptions,
    TrustOptions,
)
from smtp_async.errors import CertificateRejected, ChainNotFound, TLSError
from tests.servers import PASSWORD, USER
from tests.servers.exim import Exim
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix

pytestmark = pytest.mark.server

IMPLICIT, STARTTLS = Security.IMPLICIT, Security.STARTTLS
Server = Postfix | Exim


@pytest.fixture(params=["postfix", "exim"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


def leaf_of(pki: Pki) -> Certificate:
    # The server's own certificate stands first.
    return Certificate.load(
        pki.server.certificate.read_bytes().split(b"-----END CERTIFICATE-----")[0]
        + b"-----END CERTIFICATE-----"
    )


def client_of(server: Server, security: Security, **tls: Any) -> SMTPClient:
    port = server.tls_port if security is IMPLICIT else server.auth_port
    return SMTPClient(
        "localhost",
        port,
        security=security,
        credentials=Credentials(username=USER, password=PASSWORD),
        options=ClientOptions(tls=TLSOptions(**tls), pool=PoolLimits(max_connections=1)),
    )


async def deliver(server: Server, security: Security, **tls: Any) -> None:
    tag = f"tag-{uuid.uuid4().hex}"
    async with client_of(server, security, **tls) as client:
        receipt = await client.send(Message(sender="ann@lab.test", to="bob@lab.test", subject=tag, text="Hi"))
    assert receipt.outcome is Outcome.ACCEPTED
    await asyncio.to_thread(server.wait_for_message, tag)


async def refused(server: Server, security: Security, kind: type[TLSError], says: str, **tls: Any) -> None:
    async with client_of(server, security, **tls) as client:
        with pytest.raises(kind, match=says):
            await client.send(Message(sender="ann@lab.test", to="bob@lab.test", text="Hi"))


async def accept(question: ServerAuthentication) -> bool:
    await asyncio.sleep(0)
    return question.problems == ChainProblem.UNKNOWN_AUTHORITY and question.certificate is not None


def refuse(question: ServerAuthentication) -> bool:
    return False


@pytest.mark.parametrize("security", [IMPLICIT, STARTTLS])
class TestServers:
    async def test_pins(self, server: Server, pki: Pki, security: Security) -> None:
        authority = Certificate.load(pki.ca_file.read_bytes())
        for pin in (leaf_of(pki).sha256, leaf_of(pki).public_key_sha256, authority.public_key_sha256):
            await deliver(server, security, trust=TrustOptions(ca_file=pki.ca_file, pins=[pin]))

    async def test_a_wrong_pin(self, server: Server, pki: Pki, security: Security) -> None:
        trust = TrustOptions(ca_file=pki.ca_file, pins=["00" * 32])
        await refused(server, security, CertificateRejected, "has one of the pins", trust=trust)

    async def test_blocked(self, server: Server, pki: Pki, security: Security) -> None:
        trust = TrustOptions(ca_file=pki.ca_file, blocked=[leaf_of(pki)])
        await refused(server, security, CertificateRejected, "TrustOptions.blocked forbids", trust=trust)

    async def test_exactly_this_one_is_accepted(self, server: Server, pki: Pki, security: Security) -> None:
        await deliver(server, security, trust=TrustOptions(accepted=[leaf_of(pki)]))
        other = TrustOptions(accepted=[Certificate.load(pki.self_signed.certificate.read_bytes())])
        await refused(server, security, ChainNotFound, "is not known|is not trusted", trust=other)

    async def test_an_unknown_authority_is_ignored(
        self, server: Server, pki: Pki, security: Security
    ) -> None:
        # The password may travel: the application has named the exception.
        await deliver(server, security, trust=TrustOptions(ignore=ChainProblem.UNKNOWN_AUTHORITY))

    async def test_a_site_that_is_trusted_blindly(self, server: Server, security: Security) -> None:
        await deliver(server, security, trust=TrustOptions(validate=False))

    async def test_a_policy(self, server: Server, pki: Pki, security: Security) -> None:
        await deliver(server, security, authenticate_server=accept)
        await refused(
            server,
            security,
            CertificateRejected,
            "authenticate_server refused",
            trust=TrustOptions(ca_file=pki.ca_file),
            authenticate_server=refuse,
        )

    async def test_a_resumed_session_is_judged_anew(
        self, server: Server, pki: Pki, security: Security
    ) -> None:
        asked: list[bool] = []

        def ask(question: ServerAuthentication) -> bool | None:
            asked.append(question.session_resumed)
            return False if len(asked) == 3 else None

        trust = TrustOptions(ca_file=pki.ca_file, pins=[leaf_of(pki).sha256])
        async with client_of(server, security, trust=trust, authenticate_server=ask) as client:
            for _ in range(2):
                async with client.session() as session:
                    await session.connect()
                    assert session.info.verified
            async with client.session() as session:
                with pytest.raises(CertificateRejected):
                    await session.connect()
        assert asked == [False, True, True]


async def test_postfix_hears_nothing_after_the_handshake(postfix: Postfix, pki: Pki) -> None:
    trust = TrustOptions(ca_file=pki.ca_file, pins=["00" * 32])
    for security, heard in (
        (IMPLICIT, r"disconnect from \S+ commands=0"),
        (STARTTLS, r"disconnect from \S+ ehlo=1 starttls=1 commands=2"),
    ):
        before = len(re.findall(heard, postfix.log()))
        await refused(postfix, security, CertificateRejected, "pins", trust=trust)
        async with asyncio.timeout(10):
            while len(re.findall(heard, await asyncio.to_thread(postfix.log))) == before:
                pass
