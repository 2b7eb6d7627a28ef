"""Content through real servers: what Postfix, Exim and Dovecot accepted is what they give back, octet for octet."""

import asyncio
import email
import email.policy
import random
from collections.abc import Sequence
from typing import Any

import pytest

from smtp_async import Address, Message, PoolLimits, SMTPClient
from smtp_async.errors import SMTPError
from smtp_async.events import Direction, PITrail
from tests.lab import SENDER, client_of, gathered
from tests.message.corpus import HARD
from tests.servers.dovecot import Dovecot

pytestmark = pytest.mark.server

SERVERS = pytest.mark.parametrize("name", ["postfix", "exim", "dovecot"])
MTAS = pytest.mark.parametrize("name", ["postfix", "exim"])
WAYS = pytest.mark.parametrize("chunking", [False, True], ids=["data", "bdat"])
USER = "user@lab.test"


@pytest.fixture
def mta(name: str, request: pytest.FixtureRequest) -> Any:
    """A server with nothing delivered yet."""
    server = request.getfixturevalue(name)
    server.clear()
    return server


def into(mta: Any, *, chunking: bool, trail: list[str]) -> SMTPClient:
    """A client; `trail` gets the verbs that it says."""
    lmtp = hasattr(mta, "lmtp_port")
    client = client_of(
        mta,
        port=mta.lmtp_port if lmtp else mta.plain_port,
        lmtp=lmtp,
        chunking=chunking,
        # BDAT is taken where it saves waiting: with a window.
        pool=PoolLimits(max_connections=4, window=4 if chunking else 1),
    )

    def note(event: PITrail) -> None:
        if event.direction is Direction.CLIENT:
            trail.append(event.message.partition(" ")[0])

    client.on(PITrail, note)
    return client


async def returned(mta: Any, contents: Sequence[bytes]) -> list[bytes]:
    """What was delivered, each message under the content that it ends with; there is one for each."""
    messages = await asyncio.to_thread(mta.messages)
    await asyncio.to_thread(mta.clear)
    assert len(messages) == len(contents)
    found = []
    for content in contents:
        lines = content.replace(b"\r\n", b"\n")
        # Above it the server has written where the message came from.
        (one,) = [message for message in messages if message.endswith(b"\n" + lines)]
        found.append(one)
    return found


@SERVERS
@WAYS
async def test_hard_letters_are_returned(mta: Any, chunking: bool) -> None:
    messages = [letter.message() for letter in HARD]
    trail: list[str] = []
    async with into(mta, chunking=chunking, trail=trail) as client:
        receipts = await gathered(*(client.send(message, recipients=[USER]) for message in messages))
    assert {type(receipt).__name__ for receipt in receipts} == {"Receipt"}
    assert ("BDAT" in trail) is chunking
    contents = [message.content(eightbit=True, utf8=True) for message in messages]
    assert sum(content.eightbit for content in contents) >= 10
    await returned(mta, [content.join() for content in contents])


@SERVERS
@WAYS
async def test_large_bodies_are_returned(mta: Any, chunking: bool) -> None:
    noise = random.Random(3)
    # Every line is one that begins with dots, or is empty, or holds octets above 127.
    lines = [b".", b"..", b"", b"...x", "größer".encode() * 20, b"." * 900, b"From here", b" "]
    body = b"\r\n".join(noise.choices(lines, k=25_000)) + b"\r\n"
    raw = b"From: ann@example.com\r\nMessage-ID: <large@example.com>\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    raw += b"Subject: large\r\n\r\n" + body
    assert len(raw) > 3 * 2**20
    message = Message(sender=SENDER, to=USER, text="large ü\n.\n")
    message.attach(noise.randbytes(3 * 2**20), filename="large.bin")
    async with into(mta, chunking=chunking, trail=[]) as client:
        results = await gathered(
            client.send_raw(raw, sender=SENDER, recipients=[USER]), client.send(message, recipients=[USER])
        )
    assert {type(result).__name__ for result in results} == {"Receipt"}
    await returned(mta, [raw, message.content(eightbit=True, utf8=True).join()])


@MTAS
@WAYS
async def test_utf8_addresses_are_returned(mta: Any, chunking: bool) -> None:
    message = Message(
        sender=Address("jösé", "bücher.example", 'José, "Ö"'),
        to=[Address("grüße", "lab.test"), Address("δοκιμή", "lab.test", "Δοκιμή")],
        cc=Address("用户", "lab.test"),
        subject="地址",
        text="用户@例え.jp\n",
    )
    async with into(mta, chunking=chunking, trail=[]) as client:
        await client.send(message)
    data = message.content(eightbit=True, utf8=True).join()
    messages = await asyncio.to_thread(mta.messages)
    await asyncio.to_thread(mta.clear)
    # Delivered once for each recipient.
    assert len(messages) == 3
    for one in messages:
        assert one.endswith(b"\n" + data.replace(b"\r\n", b"\n"))
        found = email.message_from_bytes(one, policy=email.policy.default)
        assert found["Return-Path"] in ("<jösé@bücher.example>", "<jösé@xn--bcher-kva.example>")
        assert "grüße@lab.test" in str(found["To"])


async def test_dovecot_takes_no_utf8_addresses_and_is_not_asked(dovecot: Dovecot) -> None:
    trail: list[str] = []
    message = Message(sender=SENDER, to=Address("grüße", "lab.test"), text="t")
    async with into(dovecot, chunking=False, trail=trail) as client:
        with pytest.raises(SMTPError, match="SMTPUTF8"):
            await client.send(message)
    assert "MAIL" not in trail
