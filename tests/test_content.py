"""content.py: line ends, what a message needs, size, sources."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.content import Content, longest_line_exceeds, normalised
from smtp_async.errors import UsageError


def by_hand(data):
    """The rule, octet by octet: CRLF, bare CR and bare LF each end a line."""
    out = bytearray()
    position = 0
    while position < len(data):
        if data[position : position + 2] == b"\r\n":
            position += 1
        out += b"\r\n" if data[position : position + 1] in (b"\r", b"\n") else data[position : position + 1]
        position += 1
    if out and not out.endswith(b"\r\n"):
        out += b"\r\n"
    return bytes(out)


def test_every_short_string_is_normalised():
    for length in range(7):
        for octets in itertools.product(b"\r\n.a", repeat=length):
            data = bytes(octets)
            assert normalised(data) == by_hand(data)


@given(st.binary(max_size=200))
def test_normalising_is_idempotent(data):
    once = normalised(data)
    assert once == by_hand(data)
    assert normalised(once) is once


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 25), st.booleans())
def test_longest_line(lengths, limit, ended):
    data = b"\r\n".join(b"x" * n for n in lengths) + (b"\r\n" if ended else b"")
    longest = max(map(len, data.split(b"\r\n")))
    assert longest_line_exceeds(data, limit) is (longest > limit)


def test_line_limits():
    for length, expected in ((998, False), (999, True)):
        for tail in (b"", b"\r\n", b"\r\nx\r\n"):
            assert longest_line_exceeds(b"a\r\n" + b"x" * length + tail, 998) is expected


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
    assert content.rereadable


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


class Stream:
    """A source, as bodies will make them."""

    def __init__(self, size, rereadable=True):
        self.size = size
        self.rereadable = rereadable

    def chunks(self):
        raise NotImplementedError


def test_sources():
    content = Content([b"abc", Stream(7)])
    assert content.size == 10
    assert content.rereadable
    with pytest.raises(UsageError):
        content.join()
    assert Content([b"abc", Stream(None), Stream(3)]).size is None
    assert not Content([Stream(1, rereadable=False), Stream(2)]).rereadable
    assert Content([Stream(None)], size=12).size == 12


def test_join_copies_nothing_when_there_is_one_segment():
    data = b"A: b\r\n\r\nx\r\n"
    assert Content.of_bytes(data).join() is data
    assert Content([b"a", b"b"]).join() == b"ab"


def test_repr_shows_no_content():
    assert repr(Content([b"abc"], eightbit=True)) == "<Content 3 octets, eightbit>"
