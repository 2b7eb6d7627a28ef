"""content.py: line ends, what a message needs, size, sources."""

import pytest

from smtp_async.errors import UsageError
from smtp_async.model.content import Content, Source
from smtp_async.model.octets import normalised


@pytest.mark.parametrize(
    ("data", "exact", "flags"),
    [
        (b"", False, ""),
        (b"A: b\r\n\r\nx\r\n", False, ""),
        (b"A: b\n\nx\n.\n", False, ""),
        (b"A: b\n\nx\n", True, "binary"),
        (b"A: b\r\n\r\nx\ry\r\n", True, "binary"),
        (b"A: b\r\n\r\nx\ry\r\n", False, ""),
        (b"A: b\r\n\r\nx\0\r\n", False, "binary"),
        (b"A: b\r\n\r\n" + b"x" * 999, False, "binary"),
        (b"A: b\r\n\r\n" + b"x" * 998, False, ""),
        (b"A: b\r\n\r\n\xe4", False, "eightbit"),
        ("A: ä\r\n\r\nx".encode(), False, "eightbit utf8"),
    ],
)
def test_what_bytes_need(data, exact, flags):
    content = Content.of_bytes(data, exact=exact)
    assert [name for name in ("eightbit", "utf8", "binary") if getattr(content, name)] == sorted(
        flags.split(), key="eightbit utf8 binary".index
    )
    assert content.join() == (data if exact else normalised(data))
    assert content.size == len(content.join())
    assert content.sources == ()


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"Message-ID: <a@b>", "<a@b>"),
        (b"X: y\r\nmessage-id:<a@b>", "<a@b>"),
        (b"Message-ID:\r\n <a@b>\r\nX: y", "<a@b>"),
        (b"X-Message-ID: <a@b>", None),
        (b"X: y\r\n Message-ID: <a@b>", None),
        (b"Message-ID: a@b", None),
        (b"X: y\r\n\r\nMessage-ID: <a@b>", None),
    ],
)
def test_message_id(head, found):
    assert Content.of_bytes(head + b"\r\n\r\nx").message_id == found


def measured(length, encoding="identity"):
    source = Source([], encoding=encoding)
    source.length = length
    return source


def test_the_size_is_known_when_every_source_was_measured():
    content = Content([b"abc", measured(7), b"d"])
    assert content.size == 11
    assert len(content.sources) == 1
    with pytest.raises(UsageError):
        content.join()
    unknown = Source([], encoding="identity")
    content = Content([b"abc", unknown, measured(3)])
    assert content.size is None
    unknown.length = 4
    content.measure()
    assert content.size == 10
    assert Content([Source([])], size=12).size == 12


def test_join_copies_nothing_when_there_is_one_segment():
    data = b"A: b\r\n\r\nx\r\n"
    assert Content.of_bytes(data).join() is data
    assert Content([b"a", b"b"]).join() == b"ab"


def test_repr_shows_no_content():
    assert repr(Content([b"abc"], eightbit=True)) == "<Content 3 octets, eightbit>"


@pytest.mark.parametrize("flag", [False, True])
def test_content_of_octets_is_that_of_one_segment(flag):
    needs = {"eightbit": flag, "utf8": flag, "canonical": not flag, "message_id": "<1@x>" if flag else None}
    made, expected = (
        Content.of_octets(b"From: a@b\r\n\r\nx\r\n", **needs),
        Content([b"From: a@b\r\n\r\nx\r\n"], **needs),
    )
    assert {name: getattr(made, name) for name in Content.__slots__} == {
        name: getattr(expected, name) for name in Content.__slots__
    }
