"""async_reader.py: async iterables, awaited where they are read."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import FileError
from smtp_async.model.content import Source
from smtp_async.model.octets import base64_lines
from smtp_async.sources import AsyncReader
from smtp_async.sources.async_reader import reader_of
from tests.lab import every_loop
from tests.sources.origins import AWAITED, Awaited, async_generated, cut, random_octets, travelling

DATA = random_octets(500_001)


async def whole(reader):
    pieces = []
    while batch := await reader.batch():
        pieces += batch
    return b"".join(pieces)


@every_loop
@pytest.mark.parametrize("encoding", ["base64", "identity"])
@pytest.mark.parametrize("start", [0, 1, 100_000])
@pytest.mark.parametrize("kind", AWAITED)
async def test_every_kind_gives_its_octets(tmp_path, kind, start, encoding):
    reader = reader_of(Source(AWAITED[kind](DATA, tmp_path), encoding=encoding, start=start))
    assert isinstance(reader, AsyncReader)
    reader.open()
    assert await whole(reader) == travelling(DATA[start:], encoding)
    assert await reader.batch() == []


@given(
    count=st.integers(0, 200_000),
    sizes=st.lists(st.integers(0, 100_000), min_size=1, max_size=5).filter(any),
    start=st.integers(0, 50),
    encoding=st.sampled_from(["base64", "identity"]),
)
def test_any_chunks_give_the_same(count, sizes, start, encoding):
    data = random_octets(count)
    start = min(start, count)
    reader = AsyncReader(Source(async_generated(cut(data, sizes)), encoding=encoding, start=start))
    assert asyncio.run(whole(reader)) == travelling(data[start:], encoding)


async def test_a_large_chunk_is_not_encoded_at_once():
    reader = AsyncReader(Source(Awaited([bytes(1_000_000)])))
    assert [len(piece) for piece in await reader.batch()] == [79_872]


async def test_pulled_octets_are_plain():
    reader = AsyncReader(Source(Awaited([b"abc", b"", b"def"]), start=2))
    assert [await reader.pull() for _ in range(3)] == [b"c", b"def", b""]


@pytest.mark.parametrize("make", AWAITED.values())
async def test_it_is_read_once(tmp_path, make):
    source = Source(make(DATA, tmp_path))
    reader = AsyncReader(source)
    reader.open()
    reader.open()
    await reader.batch()
    for again in (reader, AsyncReader(source)):
        with pytest.raises(FileError, match="was read already"):
            again.open()
    await reader.aclose()


async def test_a_generator_that_was_read_elsewhere():
    generator = async_generated([b"x"])
    assert [chunk async for chunk in generator] == [b"x"]
    with pytest.raises(FileError, match="was read already"):
        AsyncReader(Source(generator)).open()


@pytest.mark.parametrize("chunk", ["text", 1, None])
async def test_chunks_that_are_no_octets(chunk):
    with pytest.raises(FileError, match="cannot be read: it "):
        await AsyncReader(Source(Awaited([chunk]))).batch()


async def test_an_error_in_the_middle():
    async def fails():
        yield b"some"
        raise LookupError("nowhere")

    with pytest.raises(FileError, match="nowhere") as info:
        await whole(AsyncReader(Source(fails(), name="a")))
    assert isinstance(info.value.__cause__, LookupError)


async def test_a_start_behind_the_end():
    with pytest.raises(FileError, match="ends before"):
        await whole(AsyncReader(Source(Awaited([b"abc"]), start=4)))


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_generator_ends_if_it_was_begun_or_is_to_be_closed(close, begun):
    ended = []

    async def some():
        try:
            yield bytes(100_000)
            yield b"b"
        finally:
            await asyncio.sleep(0)
            ended.append(asyncio.current_task())

    generator = some()
    reader = AsyncReader(Source(generator, close=close))
    reader.open()
    if begun:
        await reader.batch()
    await reader.aclose()
    await reader.aclose()
    assert ended == ([asyncio.current_task()] if begun else [])
    assert (generator.ag_frame is None) is (begun or close)
    await generator.aclose()


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("streams", [False, True])
async def test_another_iterator_is_closed_if_it_is_to_be(close, streams):
    origin = Awaited([b"x"])
    reader = AsyncReader(Source(origin, close=close))
    reader.open()
    await reader.batch()
    await reader.aclose(streams=streams)
    assert origin.closed is (close and streams)


async def test_a_slow_iterator_gives_what_it_has():
    async def slow():
        yield b"hello"
        yield b"there"
        await asyncio.Event().wait()

    reader = AsyncReader(Source(slow(), encoding="identity"))
    assert [await reader.batch(patience=-1) for _ in range(2)] == [[b"hello"], [b"there"]]
    await reader.aclose()


async def test_base64_waits_for_a_line():
    reader = AsyncReader(Source(async_generated([b"x"] * 100)))
    assert await reader.batch(patience=-1) == [base64_lines(b"x" * 57)]
    assert await whole(reader) == base64_lines(b"x" * 43)
