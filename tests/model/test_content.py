"""content.py: line ends, what a message needs, size, sources."""

import base64
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import UsageError
from smtp_async.model.content import (
    BASE64_SLICE,
    Content,
    Source,
    base64_lines,
    base64_size,
    longest_line_exceeds,
    normalised,
)


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


@pytest.mark.parametrize(
    "length", [0, 1, 2, 3, 56, 57, 58, 114, 115, BASE64_SLICE - 1, BASE64_SLICE, BASE64_SLICE + 1]
)
def test_the_size_of_base64_is_told_before_it_is_made(length):
    made = base64_lines(bytes(length))
    assert base64_size(length) == len(made) == measured(length, "base64").size
    assert base64.decodebytes(made) == bytes(length)
    assert max(map(len, made.split(b"\r\n")), default=0) <= 76


@given(st.binary(max_size=400), st.integers(1, 4))
def test_slices_of_base64_join(data, lines):
    step = 57 * lines
    slices = [base64_lines(data[start : start + step]) for start in range(0, len(data), step)]
    assert b"".join(slices) == base64_lines(data)


def test_join_copies_nothing_when_there_is_one_segment():
    data = b"A: b\r\n\r\nx\r\n"
    assert Content.of_bytes(data).join() is data
    assert Content([b"a", b"b"]).join() == b"ab"


def test_repr_shows_no_content():
    assert repr(Content([b"abc"], eightbit=True)) == "<Content 3 octets, eightbit>"
