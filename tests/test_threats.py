"""Threats that belong to no single module: accounts that are kept apart, and what is never logged or read."""

import asyncio
import base64
import logging

import pytest

from smtp_async import Message, Outcome, PoolLimits, Security, SMTPClient
from smtp_async.errors import InvalidArgument, SMTPError
from smtp_async.testing import reply
from tests.lab import client_of, gathered, mail, speaking, tls_server, trusting
from tests.servers.pki import Pki

pytestmark = pytest.mark.usefixtures("no_leaks")


async def test_the_connection_of_one_account_never_carries_the_mail_of_another(pki: Pki) -> None:
    """Two accounts at one host, each with many messages: AUTH of its own is before each MAIL."""
    users = {"ann": "password of ann", "bob": "password of bob"}

    def client(user: str) -> SMTPClient:
        return client_of(
            server,
            host="localhost",
            security=Security.STARTTLS,
            username=user,
            password=users[user],
            tls=trusting(pki),
            pool=PoolLimits(max_connections=2),
        )

    async with tls_server(pki, users=users) as server:
        async with client("ann") as ann, client("bob") as bob:
            for _ in range(2):
                sends = [
                    one.send(mail(n, sender=f"{user}@example.com"))
                    for n in range(10)
                    for user, one in (("ann", ann), ("bob", bob))
                ]
                await gathered(*sends)
    assert len(server.messages) == 40
    assert {(one.user, one.mail_from) for one in server.messages} == {
        ("ann", "ann@example.com"),
        ("bob", "bob@example.com"),
    }


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
async def test_no_record_names_a_recipient(level: int, caplog: pytest.LogCaptureFixture) -> None:
    """Neither of mail that is accepted nor of mail that fails in any manner; hooks and the wire log are asked for."""
    caplog.set_level(level)
    async with speaking() as server, client_of(server) as client:
        server.on("RCPT", reply(550, "5.1.1 <secret.person@example.org> is not known"), nth=2)
        server.on("DATA", reply(451, "4.3.0 later, secret.person@example.org"), nth=2)
        outcomes = []
        for n in range(4):
            try:
                receipt = await client.send(mail(n, to="secret.person@example.org"))
                outcomes.append(receipt.outcome)
            except SMTPError as error:
                assert error.receipt is not None
                outcomes.append(error.receipt.outcome)
    assert Outcome.ACCEPTED in outcomes and Outcome.REFUSED in outcomes
    assert "secret.person" not in caplog.text


async def test_a_slow_callback_is_logged_without_the_password(
    pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    """In debug mode asyncio logs the arguments of callbacks that take long; here, of all."""
    loop = asyncio.get_running_loop()
    caplog.set_level(logging.DEBUG)
    password = "canary-of-callbacks"
    async with tls_server(pki, users={"ann": password}) as server:
        client = client_of(
            server,
            host="localhost",
            security=Security.STARTTLS,
            username="ann",
            password=password,
            tls=trusting(pki),
        )
        loop.set_debug(True)
        loop.slow_callback_duration = 0.0
        try:
            async with client:
                await client.send(mail())
        finally:
            loop.set_debug(False)
    assert server.messages[0].user == "ann"
    assert "Executing <" in caplog.text
    assert password not in caplog.text
    assert base64.b64encode(f"\0ann\0{password}".encode()).decode() not in caplog.text


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "file:///etc/passwd", "http://127.0.0.1/x", "https://a.test/x"]
)
def test_no_text_is_read_as_the_place_of_a_file(text: str) -> None:
    """Only an object that says so is a path, and nothing is ever fetched from a URL."""
    message = Message(sender="ann@example.com", to="bob@example.org", text=text, html=text)
    with pytest.raises(InvalidArgument, match="an attachment is made of"):
        message.attach(text)  # type: ignore[arg-type]
    assert message.as_bytes().count(text.encode()) == 2


async def test_a_server_that_keeps_recipients_of_an_older_message_gets_a_reset_first() -> None:
    """A server that does not clear its list at MAIL would deliver the second message to those of the first."""
    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
        server.on("DATA", reply(451, "4.3.0 not now"), nth=1)
        with pytest.raises(SMTPError):
            await client.send(mail(1))
        await client.send(mail(2))
    kept: set[bytes] = set()
    delivered: list[set[bytes]] = []
    for command in server.commands:
        if command.verb == "RCPT":
            kept.add(command.line)
        elif command.verb == "RSET":
            kept.clear()
        elif command.verb == "DATA":
            delivered.append(set(kept))
    assert {command.connection for command in server.commands} == {0}
    assert [len(recipients) for recipients in delivered] == [1, 1]
    assert delivered[0] != delivered[1]
