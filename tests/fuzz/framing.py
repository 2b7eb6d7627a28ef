"""Every short string of CR, LF, dot and a letter, cut into chunks, as a strict server sees it.

Eight octets are enough for anything that was ever taken for an end of data, with something before and behind it. The
receivers are written from RFC 5321 section 4.1.1.4 and RFC 3030 section 2 and share nothing with the framers.
"""

import itertools
import re
from collections.abc import Iterator, Sequence

from smtp_async.model.content import Content
from smtp_async.protocol.framing import ChunkFramer, DotStuffer, chunk_framed, dot_stuffed

ALPHABET = b"\r\n.a"
LONGEST = 8

_LINE_END = re.compile(rb"\r\n|\r|\n")
_LINE_DOT = re.compile(rb"(?<=\r\n)\.")
_BDAT = re.compile(rb"BDAT (0|[1-9][0-9]*)( LAST)?\r\n")


def strings(shortest: int = 1, longest: int = LONGEST, *, first: bytes = ALPHABET) -> Iterator[bytes]:
    """All strings of these lengths whose first octet is one of `first`: 87,380 by default."""
    for length in range(shortest, longest + 1):
        for octets in itertools.product(first, *[ALPHABET] * (length - 1)):
            yield bytes(octets)


def normal(data: bytes) -> bytes:
    """What must arrive: every line end as CRLF, and one at the end."""
    lines = _LINE_END.split(data)
    return b"\r\n".join(lines if lines[-1] == b"" else [*lines, b""])


def received(wire: bytes) -> bytes:
    """The content that a strict server takes from DATA.

    Raises:
        AssertionError: a bare CR or LF, no end, or something behind it.
    """
    lined = b"\r\n" + wire
    end = lined.find(b"\r\n.\r\n")
    assert end == len(lined) - 5, ("where the data ends", wire)
    rest = lined.replace(b"\r\n", b"")
    assert b"\r" not in rest and b"\n" not in rest, ("a bare CR or LF", wire)
    return _LINE_DOT.sub(b"", lined[: end + 2])[2:]


def received_chunks(wire: bytes) -> bytes:
    """The content that a strict server takes from BDAT commands.

    Raises:
        AssertionError: what is not BDAT, too few octets, no LAST, or something behind it.
    """
    content, position = b"", 0
    while match := _BDAT.match(wire, position):
        start = match.end()
        position = start + int(match[1])
        content += wire[start:position]
        assert position <= len(wire), ("octets are missing", wire)
        if match[2]:
            break
    assert match and position == len(wire), ("no end, or more behind it", wire)
    return content


def check_whole(data: bytes) -> bytes:
    """Frame it in one piece; return what a chunked framing must write for DATA."""
    content = Content((data,))
    wire = dot_stuffed(content)
    assert received(wire) == normal(data), data
    assert received_chunks(chunk_framed(content)) == normal(data), data
    return wire


def check_chunks(data: bytes, chunks: Sequence[bytes], wire: bytes) -> None:
    """Frame it in chunks."""
    dots, bdat, exact = DotStuffer(), ChunkFramer(), ChunkFramer(exact=True)
    assert b"".join([*map(dots.frame, chunks), dots.end()]) == wire, chunks
    assert received_chunks(b"".join([*map(bdat.frame, chunks), bdat.end()])) == normal(data), chunks
    assert received_chunks(b"".join([*map(exact.frame, chunks), exact.end()])) == data, chunks


def pairs(data: bytes) -> Iterator[list[bytes]]:
    """Every way to cut `data` in two."""
    for place in range(1, len(data)):
        yield [data[:place], data[place:]]


def octets(data: bytes) -> list[bytes]:
    """`data` byte by byte."""
    return [data[place : place + 1] for place in range(len(data))]


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Every way to cut `data`: 2 to the power of its length less one."""
    inner = range(1, len(data))
    for count in range(len(data)):
        for places in itertools.combinations(inner, count):
            edges = (0, *places, len(data))
            yield [data[start:stop] for start, stop in itertools.pairwise(edges)]


def exhaust() -> int:
    """Try every string at every split; return how many that were."""
    cases = 0
    for data in strings():
        wire = check_whole(data)
        for chunks in splits(data):
            check_chunks(data, chunks, wire)
            cases += 1
    return cases
