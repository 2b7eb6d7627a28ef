"""slicer.py: any chunks of the same octets make the same slices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import FileError
from smtp_async.model.content import Source
from smtp_async.model.octets import BASE64_SLICE, base64_lines
from smtp_async.sources.slicer import IDENTITY_SLICE, Slicer
from tests.sources.origins import cut, random_octets, travelling

ENCODINGS = pytest.mark.parametrize("encoding", ["base64", "identity"])
SIZES = st.lists(st.integers(1, 200_000), min_size=1, max_size=6)


def slices(slicer, chunks):
    for chunk in chunks:
        slicer.add(chunk)
        while slicer.wanted <= 0:
            yield slicer.take()
    slicer.add(b"")
    while piece := slicer.take():
        yield piece


@ENCODINGS
@given(count=st.integers(0, 300_000), sizes=SIZES)
def test_any_chunks_make_the_same_octets(encoding, count, sizes):
    data = random_octets(count)
    slicer = Slicer(Source((), encoding=encoding))
    pieces = list(slices(slicer, [chunk for chunk in cut(data, sizes) if chunk]))
    assert b"".join(pieces) == travelling(data, encoding)
    assert all(len(piece) == len(travelling(b"x" * slicer.size, encoding)) for piece in pieces[:-1])
    assert (slicer.count, slicer.held, slicer.ended) == (count, 0, True)


@given(count=st.integers(0, 3000), sizes=st.lists(st.integers(1, 200), min_size=1, max_size=6))
def test_what_is_taken_early_ends_with_a_line(count, sizes):
    data = random_octets(count)
    slicer = Slicer(Source(()))
    pieces = []
    for chunk in cut(data, sizes):
        if chunk:
            slicer.add(chunk)
            pieces.append(slicer.take())
    slicer.add(b"")
    pieces.append(slicer.take())
    assert b"".join(pieces) == base64_lines(data)
    assert all(len(piece) % 78 == 0 for piece in pieces[:-1])


@pytest.mark.parametrize(("encoding", "size"), [("base64", BASE64_SLICE), ("identity", IDENTITY_SLICE)])
def test_a_chunk_of_one_slice_is_not_copied(encoding, size):
    slicer = Slicer(Source((), encoding=encoding))
    data = bytes(size)
    slicer.add(data)
    assert slicer.wanted == 0
    piece = slicer.take()
    assert (piece is data) == (encoding == "identity")


@given(st.integers(0, 30), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_the_beginning_is_passed_over(passing, sizes):
    data = random_octets(40)
    slicer = Slicer(Source((), encoding="identity"), passing=passing, length=40 - passing)
    assert b"".join(slices(slicer, [chunk for chunk in cut(data, sizes) if chunk])) == data[passing:]


def test_the_beginning_must_be_there():
    slicer = Slicer(Source(()), passing=4)
    slicer.add(b"abc")
    with pytest.raises(FileError, match="ends before"):
        slicer.add(b"")


@pytest.mark.parametrize(("chunks", "match"), [(["abc"], "shrank"), (["ab", "cd", "e"], "grew")])
def test_the_length_is_kept_to(chunks, match):
    slicer = Slicer(Source((), name="a.bin"), length=4)
    with pytest.raises(FileError, match=f"“a.bin” {match}"):
        for chunk in [*chunks, ""]:
            slicer.add(chunk.encode())


@given(st.lists(st.integers(0, 9), max_size=9))
def test_plain_octets_are_all_that_wait(sizes):
    slicer = Slicer(Source(()))
    for size in sizes:
        if size:
            slicer.add(b"x" * size)
    assert slicer.take_plain() == b"x" * sum(sizes)
    assert (slicer.take_plain(), slicer.held) == (b"", 0)
