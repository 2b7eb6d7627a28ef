"""Servers that the application forbids: nothing is sent to them, not even where the rules would go on in clear."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from smtp_async import ChainProblem, ClientOptions, Message, ServerAuthentication, SMTPClient, TrustOptions
from smtp_async.errors import CertificateRejected, SMTPError
from smtp_async.tls import Security, TLSOptions
from tests.tls.authority import SERVER, Entity, make, root
from tests.tls.cases import UNTRUSTED, accept, leaf, no_opinion, refuse
from tests.tls.test_hostile import nested, with_extension
from tests.transport.lab import encrypt, serving

MESSAGE = Message(sender="ann@example.com", to="bob@example.com", text="secret")


class MX:
    """Takes mail with and without TLS, and counts who comes."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.connections = 0
        self.seen = bytearray()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(b"220 hi\r\n")
        body = False
        while line := await reader.readline():
            self.seen += line
            if body:
                body = line != b".\r\n"
                writer.write(b"" if body else b"250 ok\r\n")
                continue
            match line[:4].upper():
                case b"EHLO":
                    writer.write(b"250-me\r\n250 STARTTLS\r\n")
                case b"STAR":
                    writer.write(b"220 go\r\n")
                    await encrypt(writer, self.context)
                case b"DATA":
                    body = True
                    writer.write(b"354 go\r\n")
                case b"QUIT":
                    writer.write(b"221 bye\r\n")
                    return
                case _:
                    writer.write(b"250 ok\r\n")


def unreadable() -> Entity:
    """Return the certificate of a server whose values are nested more deeply than allowed."""
    return with_extension(nested(40))


SHOWN: dict[str, Callable[[], Entity]] = {
    "good": leaf,
    "self-signed": lambda: make("Self", purposes=SERVER),
    "unknown authority": lambda: leaf(UNTRUSTED),
    "unreadable": unreadable,
    "more certificates than allowed": lambda: leaf().sending(*[root()] * 33),
}


async def deliver(
    shown: Entity, *, security: Security = Security.OPPORTUNISTIC, **settings: Any
) -> tuple[MX, BaseException | None]:
    """Send a message to a server that shows this certificate; return the server, and the error if there was one."""
    server = MX(shown.server_context())
    settings.setdefault("trust", TrustOptions(ca=[root().certificate]))
    tls = TLSOptions(server_hostname="localhost", **settings)
    async with serving(server) as listening:
        options = ClientOptions(tls=tls, hello="me.test")
        async with SMTPClient("127.0.0.1", listening.port, security=security, options=options) as client:
            try:
                await client.send(MESSAGE, deadline=10.0)
            except SMTPError as error:
                return server, error
    return server, None


@pytest.mark.parametrize("name", SHOWN)
def test_a_refused_server_gets_nothing_in_clear(run: Any, name: str) -> None:
    async def scenario() -> None:
        server, error = await deliver(SHOWN[name](), authenticate_server=refuse)
        assert error is not None
        assert server.connections == 1
        assert b"MAIL" not in server.seen

    run(scenario())


@pytest.mark.parametrize("name", SHOWN)
def test_one_that_is_not_refused_gets_its_mail(run: Any, name: str) -> None:
    async def scenario() -> None:
        server, error = await deliver(SHOWN[name](), authenticate_server=no_opinion)
        assert error is None and b"secret" in server.seen

    run(scenario())


PIN = "0f" * 32
FORBIDDING = {
    "pins": TrustOptions(ca=[root().certificate], pins=[PIN]),
    "blocked": TrustOptions(ca=[root().certificate], blocked=[UNTRUSTED.certificate]),
}


@pytest.mark.parametrize("security", [Security.OPPORTUNISTIC, Security.STARTTLS])
@pytest.mark.parametrize("option", FORBIDDING)
@pytest.mark.parametrize("name", ["unreadable", "more certificates than allowed"])
def test_a_certificate_that_cannot_be_read_does_not_get_around(
    run: Any, name: str, option: str, security: Security
) -> None:
    """It cannot be told which key the server has, so neither OPPORTUNISTIC nor a policy goes on."""

    async def scenario() -> None:
        server, error = await deliver(
            SHOWN[name](), security=security, trust=FORBIDDING[option], authenticate_server=accept
        )
        assert isinstance(error, CertificateRejected)
        assert server.connections == 1
        assert b"MAIL" not in server.seen

    run(scenario())


async def await_cancelled(question: ServerAuthentication) -> bool:
    """Await something that was cancelled, although nobody has cancelled the connection."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    return await future


@pytest.mark.parametrize("security", [Security.OPPORTUNISTIC, Security.STARTTLS])
def test_a_policy_that_cancels_itself_ends_the_connection_once(run: Any, security: Security) -> None:
    async def scenario() -> None:
        server, error = await deliver(leaf(), security=security, authenticate_server=await_cancelled)
        assert isinstance(error, CertificateRejected)
        assert "it raised CancelledError" in str(error)
        assert isinstance(error.__cause__, asyncio.CancelledError)
        assert server.connections == 1
        assert b"MAIL" not in server.seen

    run(scenario())


@pytest.mark.parametrize("answer", ["no", 1, 0, "", object()])
def test_a_policy_says_yes_or_no_by_bool_only(run: Any, answer: object) -> None:
    def ask(question: ServerAuthentication) -> Any:
        return answer

    async def scenario() -> None:
        server, error = await deliver(
            SHOWN["self-signed"](), security=Security.STARTTLS, authenticate_server=ask
        )
        assert isinstance(error, CertificateRejected)
        assert f"it returned {type(answer).__name__}, not True, False or None" in str(error)
        assert b"MAIL" not in server.seen

    run(scenario())


def unverifying_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_a_policy_beside_a_context_without_verification_is_told_what_is_wrong(run: Any) -> None:
    asked: list[ServerAuthentication] = []

    def strict(question: ServerAuthentication) -> bool:
        asked.append(question)
        return not question.problems

    async def scenario() -> None:
        trust = TrustOptions()
        for policy, passes in ((strict, False), (accept, True), (no_opinion, True)):
            server, error = await deliver(
                SHOWN["self-signed"](),
                security=Security.STARTTLS,
                context=unverifying_context(),
                trust=trust,
                authenticate_server=policy,
            )
            assert (error is None) is passes
            assert (b"MAIL" in server.seen) is passes
        assert ChainProblem.UNKNOWN_AUTHORITY in asked[0].problems
        assert "is self-signed" in asked[0].status

    run(scenario())
