"""serialize.py: the text of a queue file without a spool."""

import hashlib
from pathlib import Path

import pytest

from smtp_async.errors import InvalidArgument, MissingRecipient, MissingSender
from smtp_async.message import Message
from smtp_async.spool.directory.serialize import serialize
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.record import parse
from smtp_async.testing.contracts import QUEUED, TEXT, receipt_for


@pytest.fixture
async def spool(tmp_path: Path):
    async with DirectorySpool(tmp_path / "spool", create=True, low_water=0) as spool:
        yield spool


def message() -> Message:
    return Message(sender="ann@example.com", to="bob@example.org", subject="Hi", text="Grüße")


def octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


async def test_the_text_is_a_queue_file(spool: DirectorySpool, tmp_path: Path) -> None:
    one = message()
    text = await serialize(one)
    id = await spool.put(one)
    assert text.startswith("SPOOL1 ")
    assert text.split("\n", 2)[2].encode() == await spool.read(id)
    name = text.split('"id":"', 1)[1].split('"', 1)[0]
    (tmp_path / "spool" / f"{name}.queued").write_text(text, newline="")
    leases = await spool.claim(5)
    assert sorted(lease.entry.id for lease in leases) == sorted([id, name])
    for lease in leases:
        await lease.settle(receipt_for(lease, QUEUED))


async def test_every_octet_is_kept() -> None:
    body = b"From: ann@example.com\r\nTo: bob@example.org\r\n\r\n\xff\xe9\r\n"
    assert octets(await serialize(body)).endswith(body)


async def test_arguments_are_those_of_put() -> None:
    text = await serialize(
        TEXT, sender="x@example.com", recipients=["y@example.org"], key="k", not_before=5.0, expires=9.0
    )
    entry = parse(octets(text)).entry
    assert entry.id == entry.key == hashlib.sha256(b"k").hexdigest()[:32]
    assert (entry.not_before, entry.expires, entry.size) == (5.0, 9.0, len(TEXT))
    assert str(entry.envelope.sender) == "x@example.com" and octets(text).endswith(TEXT)


async def test_each_text_without_a_key_is_another_job() -> None:
    texts = [await serialize(TEXT) for _ in range(2)]
    assert len({parse(octets(text)).entry.id for text in texts}) == 2


async def test_the_application_s_own_messages_are_adapted() -> None:
    text = await serialize(
        "a note", adapt=lambda note, *_: Message(sender="a@x.test", to="b@x.test", text=note)
    )
    assert "\r\n\r\na note" in text


async def test_what_cannot_be_put_cannot_be_serialized() -> None:
    with pytest.raises(MissingSender):
        await serialize(Message(to="b@x.test", text="x"))
    with pytest.raises(MissingRecipient):
        await serialize(Message(sender="a@x.test", text="x"))
    with pytest.raises(InvalidArgument, match="a key is"):
        await serialize(message(), key="")
    with pytest.raises(InvalidArgument, match="not a time"):
        await serialize(message(), expires=-1.0)
