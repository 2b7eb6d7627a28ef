"""body_hash.py: bodies as RFC 6376 section 3.4 canonicalizes them, in pieces of any size and in constant memory."""

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.message.body_hash import BodyHash


class Octets:
    """A hash that keeps what it is given."""

    def __init__(self) -> None:
        self.octets = bytearray()

    def update(self, data: bytes) -> None:
        self.octets += data

    def digest(self) -> bytes:
        return bytes(self.octets)


def canonical(body: bytes, *, relaxed: bool, size: int = 1 << 30) -> bytes:
    hashed = BodyHash(Octets(), relaxed=relaxed)
    for start in range(0, len(body), size):
        hashed.feed(body[start : start + size])
    return hashed.digest()


def by_the_rfc(body: bytes, *, relaxed: bool) -> bytes:
    """The rules word by word."""
    if relaxed:
        body = re.sub(rb"[ \t]+(?=\r\n)", b"", body)
        body = re.sub(rb"[ \t]+", b" ", body)
    body = re.sub(rb"(\r\n)*\Z", b"", body)
    return body + b"\r\n" if body or not relaxed else b""


@pytest.mark.parametrize(
    ("body", "relaxed", "expected"),
    [
        (b"", False, b"\r\n"),
        (b"", True, b""),
        (b"\r\n\r\n", False, b"\r\n"),
        (b"\r\n\r\n", True, b""),
        (b" \t\r\n", False, b" \t\r\n"),
        (b" \t\r\n", True, b""),
        # Section 3.4.5.
        (b" C \r\nD \t E\r\n\r\n\r\n", True, b" C\r\nD E\r\n"),
        (b" C \r\nD \t E\r\n\r\n\r\n", False, b" C \r\nD \t E\r\n"),
        (b"no end", True, b"no end\r\n"),
        (b"no end", False, b"no end\r\n"),
    ],
)
def test_examples(body: bytes, relaxed: bool, expected: bytes) -> None:
    for size in (1, 2, 3, 100):
        assert canonical(body, relaxed=relaxed, size=size) == expected


@given(
    st.lists(st.sampled_from([b"\r\n", b" ", b"\t", b"a", b"\xff", b"\0"]), max_size=40),
    st.integers(1, 9),
    st.booleans(),
)
def test_pieces_of_any_size_make_no_difference(parts: list[bytes], size: int, relaxed: bool) -> None:
    body = b"".join(parts) + b"\r\n"
    assert canonical(body, relaxed=relaxed, size=size) == by_the_rfc(body, relaxed=relaxed)


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize(
    "piece", [b"\r\n" * 32768, b" \t" * 32768, b"x" * 65536], ids=["ends", "blanks", "text"]
)
def test_a_body_of_any_size_takes_no_memory(piece: bytes, relaxed: bool) -> None:
    class Count:
        octets = 0

        def update(self, data: bytes) -> None:
            self.octets += len(data)

        def digest(self) -> bytes:
            return b""

    count = Count()
    hashed = BodyHash(count, relaxed=relaxed)
    tracemalloc.start()
    try:
        for _ in range(500):
            hashed.feed(piece)
        hashed.feed(b"\r\nend\r\n")
        hashed.digest()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert count.octets > 5
