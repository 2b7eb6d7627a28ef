"""Content through real servers: what Postfix, Exim and Dovecot accepted is what they give back, octet for octet."""

import asyncio
import email
import email.policy
import io
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from smtp_async import Address, Message, PoolLimits, SendOptions, SMTPClient
from smtp_async.errors import SMTPError
from smtp_async.events import Direction, PITrail
from smtp_async.mail.raw import raw_mail
from smtp_async.testing import RecordingSink
from tests.fuzz.framing import normal
from tests.lab import SENDER, client_of, gathered, sampled
from tests.message.corpus import HARD, by_stdlib, seen_file
from tests.servers.dovecot import Dovecot
from tests.servers.postfix import Postfix

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
    messages = [letter.message() for letter in sampled(HARD, 3)]
    trail: list[str] = []
    async with into(mta, chunking=chunking, trail=trail) as client:
        receipts = await gathered(*(client.send(message, recipients=[USER]) for message in messages))
    assert {type(receipt).__name__ for receipt in receipts} == {"Receipt"}
    assert ("BDAT" in trail) is chunking
    contents = [message.content(eightbit=True, utf8=True) for message in messages]
    assert sum(content.eightbit for content in contents) >= 3
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


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """An async source that gives uneven pieces, empty ones among them."""
    noise, start = random.Random(4), 0
    while start < len(data):
        size = noise.choice((0, 1, 7, 1000, 65536, 100_000))
        yield data[start : start + size]
        start += size


@SERVERS
@pytest.mark.parametrize("chunking", ["never", "always"])
async def test_streams_are_returned(mta: Any, chunking: Literal["never", "always"], tmp_path: Path) -> None:
    data = random.Random(5).randbytes(3 * 2**20 + 1)
    path = tmp_path / "streamed.bin"
    path.write_bytes(data)
    trail: list[str] = []
    options = SendOptions(chunking=chunking, chunk_size=50_000)
    with path.open("rb") as file:
        sources: list[tuple[str, Any]] = [
            ("path", path),
            ("file", file),
            ("iterator", iter([data[:1_000_001], data[1_000_001:]])),
            ("async", pieces(data)),
        ]
        async with into(mta, chunking=True, trail=trail) as client:
            for name, source in sources:
                message = Message(sender=SENDER, to=USER, subject=name, text=f".\n{name} ü\n.\n")
                message.attach(source, filename=f"{name}.bin", content_type="application/octet-stream")
                message.attach(b"behind it", filename="last.txt")
                await client.send(message, recipients=[USER], options=options)
    assert ("BDAT" in trail, "DATA" in trail) == (chunking == "always", chunking == "never")
    got = await asyncio.to_thread(mta.messages)
    await asyncio.to_thread(mta.clear)
    seen = {one.subject: one for one in map(by_stdlib, got)}
    assert len(got) == len(seen) == 4
    for name, _ in sources:
        assert seen[name].texts == (("plain", f".\n{name} ü\n.\n"),)
        assert seen[name].files == (
            seen_file(f"{name}.bin", "application/octet-stream", None, data),
            seen_file("last.txt", "text/plain", None, b"behind it"),
        )


@SERVERS
@pytest.mark.parametrize("chunking", ["never", "always"])
async def test_raw_streams_are_returned(
    mta: Any, chunking: Literal["never", "always"], tmp_path: Path
) -> None:
    noise = random.Random(6)
    head = b"From: ann@example.com\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nMessage-ID: <%d@example.com>\n\n"
    ends = (b"\n", b"\r\n", b"\r", b"\n.\r\n", b"\r\n.\n", b"\r.\r")
    bodies = [
        b"".join(noise.choices((b".", b"a", "ü".encode(), b"." * 100, *ends), k=300_000)) + b"end"
        for _ in range(3)
    ]
    raws = [head % number + body for number, body in enumerate(bodies)]
    path = tmp_path / "message.eml"
    path.write_bytes(raws[0])
    options = SendOptions(chunking=chunking, chunk_size=50_000)
    with io.BytesIO(raws[1]) as file:
        async with into(mta, chunking=True, trail=[]) as client:
            for source in (path, file, pieces(raws[2])):
                mail = await raw_mail(source)
                await client.send(mail, sender=SENDER, recipients=[USER], options=options)
    await returned(mta, [normal(raw) for raw in raws])


class TestBinary:
    """No server that can be installed takes BINARYMIME: the test kit's, which is written from RFC 3030."""

    async def test_attachments_travel_without_an_encoding(self, tmp_path: Path) -> None:
        data = bytes(range(256)) * 5000 + b"\r\n.\r\n\n.\n"
        path = tmp_path / "octets.bin"
        path.write_bytes(data)
        async with RecordingSink() as sink:
            async with client_of(sink) as client:
                for source in (data, path, pieces(data)):
                    message = Message(sender=SENDER, to=USER, subject="binary", text="größer\n")
                    message.attach(source, filename="octets.bin")
                    await client.send(message)
            assert sink.violations == []
            assert len(sink.messages) == 3
            for one in sink.messages:
                assert one.chunked
                assert one.mail_parameters["BODY"] == "BINARYMIME"
                assert data in one.data
                assert len(one.data) < len(data) + 2000
                seen = by_stdlib(one.data)
                assert seen.texts == (("plain", "größer\n"),)
                assert seen.files == (seen_file("octets.bin", "application/octet-stream", None, data),)

    async def test_raw_line_ends_become_crlf_also_where_the_rest_is_binary(self, tmp_path: Path) -> None:
        raw = b"Subject: not exact\n\n" + b"bare\nand\r" * 50_000 + b"nul\0\n"
        path = tmp_path / "message.eml"
        path.write_bytes(raw)
        async with RecordingSink() as sink:
            async with client_of(sink) as client:
                mail = await raw_mail(path)
                await client.send(mail, sender=SENDER, recipients=[USER])
            (one,) = sink.messages
            assert sink.violations == []
            assert one.mail_parameters == {"BODY": "BINARYMIME", "SIZE": str(len(normal(raw)))}
            assert one.data == normal(raw)

    async def test_raw_octets_are_kept(self) -> None:
        raw = b"Subject: exact\n\nbare\rand\nand\0" + b"x" * 5000
        async with RecordingSink() as sink:
            async with client_of(sink) as client:
                mail = await raw_mail(raw, exact=True)
                await client.send(mail, sender=SENDER, recipients=[USER], options=SendOptions(exact=True))
            (one,) = sink.messages
            assert sink.violations == []
            assert (one.data, one.mail_parameters["BODY"]) == (raw, "BINARYMIME")

    async def test_real_servers_get_base64(self, postfix: Postfix) -> None:
        message = Message(sender=SENDER, to=USER, text="t")
        message.attach(bytes(range(256)) * 100, filename="octets.bin")
        await asyncio.to_thread(postfix.clear)
        async with into(postfix, chunking=True, trail=[]) as client:
            await client.send(message)
        await returned(postfix, [message.content(eightbit=True, utf8=True).join()])


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
