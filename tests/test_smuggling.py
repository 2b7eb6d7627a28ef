"""No content, however it is cut into chunks, is taken for an end of data or for a second message.

Here: every string of up to six octets and a sample of the longer ones, at every cut in two and byte by byte;
`make thorough` has all of the longer ones, `make fuzz` every split.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Literal

import pytest

from smtp_async import PoolLimits, SendOptions, SMTPClient
from smtp_async.mail.coerce import Raw
from smtp_async.testing import RecordingSink
from tests.fuzz.framing import (
    ALPHABET,
    LONGEST,
    check_chunks,
    check_whole,
    normal,
    octets,
    pairs,
    received,
    received_chunks,
    splits,
    strings,
)
from tests.lab import SENDER, THOROUGH, client_of, sampled

# Of the lengths up to six, of seven, and the longest by its first octet.
BLOCKS = [(1, 6, ALPHABET), (7, 7, ALPHABET), *[(LONGEST, LONGEST, bytes([first])) for first in ALPHABET]]


def test_these_are_all_strings() -> None:
    found = [data for shortest, longest, first in BLOCKS for data in strings(shortest, longest, first=first)]
    assert len(set(found)) == len(found) == 87_380


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_strict_server_sees_one_message(block: tuple[int, int, bytes]) -> None:
    shortest, longest, first = block
    for data in sampled(strings(shortest, longest, first=first), 7 if longest > 6 else 1):
        wire = check_whole(data)
        for chunks in pairs(data):
            check_chunks(data, chunks, wire)
        check_chunks(data, octets(data), wire)


@pytest.mark.parametrize(
    "wire", [b"", b"a\r\n", b"a\n.\r\n", b".\r\n.\r\n", b"a\r\n.\n", b"\r.\r\n", b"a\r\n.\r\nQUIT\r\n"]
)
def test_the_strict_server_is_strict(wire: bytes) -> None:
    with pytest.raises(AssertionError):
        received(wire)


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"BDAT 1\r\na",
        b"BDAT 2 LAST\r\na",
        b"BDAT 1 LAST\r\nab",
        b"BDAT 01 LAST\r\na",
        b"BDAT 0 last\r\n",
    ],
)
def test_so_is_the_one_for_chunks(wire: bytes) -> None:
    with pytest.raises(AssertionError):
        received_chunks(wire)


def test_splits_are_all_and_each_once() -> None:
    found = [tuple(chunks) for chunks in splits(b"abcdefgh")]
    assert len(set(found)) == len(found) == 2**7
    assert {b"".join(chunks) for chunks in found} == {b"abcdefgh"}


# --- through the client -------------------------------------------------------------------------------------

SAMPLE = [
    *strings(1, 3),
    *random.Random(1).sample(list(strings(4, LONGEST)), 216 if THOROUGH else 50),
    b"a\n.\r\nMAIL FROM:<eve@example.com>\r\nRCPT TO:<bob@lab.test>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\n",
    b"a\r.\r\nMAIL FROM:<eve@example.com>\r\nRCPT TO:<bob@lab.test>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\n",
    b"a\r\n.\nMAIL FROM:<eve@example.com>\r\nRCPT TO:<bob@lab.test>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\n",
    b"a\r\n.\rMAIL FROM:<eve@example.com>\r\nRCPT TO:<bob@lab.test>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\n",
]
#: More than the client holds in one piece: a body of this size is framed in chunks.
LARGE = b"|".join(strings(1, 6)) * 3
WAYS = pytest.mark.parametrize("chunking", ["never", "always"], ids=["data", "bdat"])
Chunking = Literal["never", "always"]


def raw(number: int, body: bytes, recipient: str = "bob@lab.test") -> Raw:
    head = b"Subject: smuggling\r\nX-Number: %d\r\n\r\n" % number
    return Raw(head + body, SENDER, [recipient])


async def send(
    client: SMTPClient, bodies: Sequence[bytes], chunking: Chunking, recipient: str = "bob@lab.test"
) -> None:
    mails = [raw(number, body, recipient) for number, body in enumerate(bodies)]
    async for mail, receipt in client.send_all(mails, options=SendOptions(chunking=chunking)):
        assert receipt.accepted, (mail, receipt)


def by_number(messages: Sequence[bytes]) -> dict[int, bytes]:
    """The bodies, with LF line ends."""
    found = {}
    for message in messages:
        head, _, body = message.replace(b"\r\n", b"\n").partition(b"\n\n")
        (number,) = [line[10:] for line in head.split(b"\n") if line.startswith(b"X-Number: ")]
        found[int(number)] = body
    assert len(found) == len(messages)
    return found


@WAYS
async def test_the_client_sends_one_message_for_each(chunking: Chunking) -> None:
    bodies = [*SAMPLE, LARGE]
    async with RecordingSink() as sink:
        async with client_of(sink, pool=PoolLimits(max_connections=2, window=8)) as client:
            await send(client, bodies, chunking)
        assert sink.violations == []
        assert {message.chunked for message in sink.messages} == {chunking == "always"}
        got = {message.data.partition(b"\r\n\r\n")[0]: message.data for message in sink.messages}
    assert len(got) == len(sink.messages) == len(bodies)
    for number, body in enumerate(bodies):
        sent = raw(number, body).source
        assert isinstance(sent, bytes)
        assert got[sent.partition(b"\r\n\r\n")[0]] == normal(sent)


@pytest.mark.server
@WAYS
@pytest.mark.parametrize("name", ["postfix", "exim", "dovecot"])
async def test_real_servers_deliver_one_message_for_each(
    name: str, chunking: Chunking, request: pytest.FixtureRequest
) -> None:
    mta = request.getfixturevalue(name)
    await asyncio.to_thread(mta.clear)
    bodies = [*SAMPLE, LARGE]
    lmtp = name == "dovecot"
    port = mta.lmtp_port if lmtp else mta.plain_port
    async with client_of(mta, port=port, lmtp=lmtp, pool=PoolLimits(max_connections=4, window=8)) as client:
        await send(client, bodies, chunking, "user@lab.test")
    messages = await asyncio.to_thread(mta.messages)
    await asyncio.to_thread(mta.clear)
    got = by_number(messages)
    assert sorted(got) == list(range(len(bodies)))
    for number, body in enumerate(bodies):
        assert got[number] == normal(body).replace(b"\r\n", b"\n"), body
