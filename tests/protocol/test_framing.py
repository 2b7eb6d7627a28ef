"""framing.py: a strict receiver sees one message with the expected content, however the chunks are cut."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.model.content import Content
from smtp_async.model.octets import normalised, only_crlf
from smtp_async.protocol.framing import ChunkFramer, DotStuffer, dot_stuffed
from tests.lab import sampled

LONGEST = 5
STRINGS = [
    bytes(octets) for length in range(LONGEST + 1) for octets in itertools.product(b"\r\n.a", repeat=length)
]


def received(wire):
    """What a strict server takes for the content: only CRLF.CRLF ends it, no bare CR or LF is allowed."""
    content: list[bytes] = []
    while True:
        line, end, wire = wire.partition(b"\r\n")
        assert end, "the data does not end"
        assert b"\r" not in line and b"\n" not in line, "a bare CR or LF left"
        if line == b".":
            assert not wire, "something follows the end of the data"
            return b"".join(content)
        content.append(line.removeprefix(b".") + end)


def received_chunks(wire):
    """What a server takes for the content of BDAT commands; the last one must be the only LAST."""
    content = b""
    while True:
        line, end, wire = wire.partition(b"\r\n")
        assert end
        verb, size, *last = line.split(b" ")
        assert verb == b"BDAT" and size.isdigit() and last in ([], [b"LAST"])
        octets, wire = wire[: int(size)], wire[int(size) :]
        assert len(octets) == int(size)
        content += octets
        if last:
            assert not wire
            return content


def splits(data):
    """Every way to cut `data` into chunks."""
    for places in itertools.product((False, True), repeat=max(len(data) - 1, 0)):
        edges = [0, *(place + 1 for place, cut in enumerate(places) if cut), len(data)]
        yield [data[start:stop] for start, stop in itertools.pairwise(edges)]


def stuffed(chunks):
    framer = DotStuffer()
    return b"".join([framer.frame(chunk) for chunk in chunks] + [framer.end()])


def chunked(chunks, **options):
    framer = ChunkFramer(**options)
    return b"".join([framer.frame(chunk) for chunk in chunks] + [framer.end()])


def test_every_short_string_arrives_as_its_normalised_content():
    for data in STRINGS:
        wire = dot_stuffed(Content((data,)))
        assert received(wire) == normalised(data)
        for chunks in splits(data):
            assert stuffed(chunks) == wire


def test_every_short_string_arrives_by_chunks_too():
    for data in STRINGS:
        for chunks in splits(data):
            assert received_chunks(chunked(chunks)) == normalised(data)
            assert received_chunks(chunked(chunks, exact=True)) == data


@given(
    st.lists(st.one_of(st.binary(max_size=30), st.text("\r\n.a", max_size=10).map(str.encode)), max_size=10)
)
def test_any_chunks_arrive(chunks):
    data = b"".join(chunks)
    assert stuffed(chunks) == dot_stuffed(Content((data,)))
    assert received(dot_stuffed(Content((data,)))) == normalised(data)
    assert received_chunks(chunked(chunks)) == normalised(data)
    assert received_chunks(chunked(chunks, exact=True)) == data


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r.\rb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\n.\r\nMAIL FROM:<x@example.com>\r\n", b"a\r\n..\r\nMAIL FROM:<x@example.com>\r\n.\r\n"),
        (b"a\r\n.\r\n", b"a\r\n..\r\n.\r\n"),
        (b"..\r\n", b"...\r\n.\r\n"),
        (b"a..b\r\n", b"a..b\r\n.\r\n"),
    ],
)
def test_what_is_written(data, wire):
    assert dot_stuffed(Content((data,))) == wire
    assert stuffed([data]) == wire


def test_nothing_is_written_for_nothing():
    framer = DotStuffer()
    assert framer.frame(b"") == b""
    assert framer.frame(b"\r") == b""
    assert framer.frame(b"") == b""
    assert framer.end() == b"\r\n.\r\n"
    chunks = ChunkFramer()
    assert chunks.frame(b"") == b""
    assert chunks.end() == b"BDAT 0 LAST\r\n"


def test_chunks_may_be_framed_by_others():
    framer = ChunkFramer()
    assert framer.content(b"a\n.\r") == b"a\r\n."
    assert framer.content(b"\nb") == b"\r\nb"
    assert framer.end() == b"BDAT 2 LAST\r\n\r\n"


@pytest.mark.parametrize("unit", [b"\r", b"\n", b".\r\n", b"\n.", b"\r\r\n", b"a" * 77 + b"\r\n"])
def test_time_is_linear(unit):
    data = unit * (2**20 // len(unit))
    chunks = [data[start : start + 65536] for start in range(0, len(data), 65536)]
    began = time.process_time()
    dot_stuffed(Content((data,)))
    stuffed(chunks)
    chunked(chunks)
    assert time.process_time() - began < 2


def test_known_line_ends_are_not_looked_at_again_and_their_dots_are_doubled():
    for data in sampled(STRINGS, 5):
        whole = normalised(data)
        for chunks in splits(whole):
            framer = DotStuffer()
            wire = b"".join([framer.frame(chunk, canonical=True) for chunk in chunks] + [framer.end()])
            assert wire == dot_stuffed(Content((data,)))
            chunked = ChunkFramer()
            wire = b"".join([chunked.frame(chunk, canonical=True) for chunk in chunks] + [chunked.end()])
            assert received_chunks(wire) == whole


def test_no_bare_line_end_leaves_where_known_line_ends_meet_unknown_ones():
    known = [data for data in STRINGS if len(data) < 4 and normalised(data).startswith(data)]
    known = [data for data in known if only_crlf(data)]
    unknown = [data for data in STRINGS if len(data) < 3]
    for first, second, third in itertools.product(unknown, known, unknown):
        framer, chunked = DotStuffer(), ChunkFramer()
        wires = [
            b"".join([make.frame(first), make.frame(second, canonical=True), make.frame(third), make.end()])
            for make in (framer, chunked)
        ]
        assert received(wires[0]) == received_chunks(wires[1]) == normalised(first + second + third)


@pytest.mark.parametrize("chunk", [b"\nb", b"\r\nb", b"b"])
def test_a_line_end_that_begins_in_an_unknown_chunk_is_looked_at(chunk):
    framer = DotStuffer()
    wire = framer.frame(b"a\r") + framer.frame(chunk, canonical=True) + framer.end()
    assert received(wire) == normalised(b"a\r" + chunk)
