"""body.py: a content with every kind of source in it, read without holding up the loop."""

import asyncio
import contextlib
import io
import threading
import tracemalloc

import anyio
import pytest

from smtp_async.errors import ExtensionMissing, FileError, InvalidArgument, UsageError
from smtp_async.model.content import Content, Source
from smtp_async.model.octets import base64_lines
from smtp_async.sources import Body, RawSource, read_all, read_now
from smtp_async.testing import CancelManner, CancelMoment, cancellations
from tests.lab import PATIENCE, every_loop, turns, until
from tests.servers.machine import needs_proc
from tests.sources.origins import (
    AGAIN,
    AWAITED,
    EVERY,
    ONCE,
    Awaited,
    ShortReads,
    async_generated,
    generated,
    mail_of_email_object,
    open_files,
    path_of,
    piped,
    random_octets,
    travelling,
)

pytestmark = pytest.mark.usefixtures("no_open_files")

DATA = random_octets(1_500_001)
KINDS = pytest.mark.parametrize("kind", EVERY)


@contextlib.asynccontextmanager
async def opened(content, **how):
    body = Body(content, **how)
    try:
        await body.open()
        yield body
    finally:
        await body.aclose()


async def read(body):
    return b"".join([piece.data async for piece in body.chunks()])


def around(data, encoding="base64"):
    return b"before\r\n" + travelling(data, encoding) + b"after\r\n"


# --- reading -------------------------------------------------------------------------------------------------


@every_loop
@pytest.mark.parametrize("encoding", ["base64", "identity"])
@KINDS
async def test_every_kind_in_its_place(tmp_path, kind, encoding):
    content = mail_of_email_object(EVERY[kind](DATA, tmp_path), encoding=encoding, close=True)
    async with opened(content) as body:
        known = kind in AGAIN and kind != "iterable"
        assert content.size == (len(around(DATA, encoding)) if known else None)
        assert body.rereadable is (kind in AGAIN)
        pieces = [piece async for piece in body.chunks()]
    assert b"".join([piece.data for piece in pieces]) == around(DATA, encoding)
    source = content.sources[0]
    assert [piece.source for piece in pieces] == [None, *[source] * (len(pieces) - 2), None]
    assert max(len(piece.data) for piece in pieces) <= 79_872


async def test_many_sources_keep_their_order(tmp_path):
    sources = [Source(make(DATA[:99_999], tmp_path), close=True) for make in EVERY.values()]
    async with opened(Content(sources)) as body:
        assert await read(body) == base64_lines(DATA[:99_999]) * len(sources)


async def test_memory_alone_needs_no_opening():
    data = bytes(1_000_000)
    body = Body(Content([b"", data, b"x"]))
    pieces = [piece.data async for piece in body.chunks()]
    assert b"".join(pieces) == data + b"x"
    assert max(map(len, pieces)) == 131_072
    assert await read(body) == data + b"x"
    body.close()


@every_loop
async def test_others_have_their_turn_while_memory_is_read():
    count = 0

    async def others():
        nonlocal count
        while True:
            count += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await read(Body(Content([bytes(8_000_000)])))
    assert count >= 7
    task.cancel()


@every_loop
async def test_a_source_may_wait_for_the_loop():
    gate = threading.Event()

    def slow():
        yield b"a"
        assert gate.wait(PATIENCE)
        yield b"b"

    async with opened(Content([Source(slow(), encoding="identity")])) as body:
        asyncio.get_running_loop().call_soon(gate.set)
        assert await read(body) == b"ab"


async def test_an_async_source_runs_in_the_callers_task():
    tasks = set()

    async def some():
        tasks.add(asyncio.current_task())
        yield b"x"

    async with opened(mail_of_email_object(some())) as body:
        await read(body)
    assert tasks == {asyncio.current_task()}


async def test_memory_is_constant(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    async with opened(Content([Source(path)])) as body:
        tracemalloc.start()
        try:
            async for _ in body.chunks():
                pass
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 << 20


async def test_a_limiter_may_be_given(tmp_path):
    limiter = anyio.CapacityLimiter(1)
    assert limiter.borrowed_tokens == 0
    contents = [mail_of_email_object(ShortReads(DATA, [70_000])) for _ in range(5)]
    async with contextlib.AsyncExitStack() as stack:
        bodies = [await stack.enter_async_context(opened(each, limiter=limiter)) for each in contents]
        assert await asyncio.gather(*map(read, bodies)) == [around(DATA)] * 5


async def test_a_guard_stops_a_stream_on_its_way():
    async with opened(Content([RawSource(generated([b"a\r\n", b"\xe4"]))])) as body:
        with pytest.raises(ExtensionMissing, match="8BITMIME"):
            await read(body)
    async with opened(Content([RawSource(async_generated([b"a\r\n", b"\xe4"]), exact=True)])) as body:
        with pytest.raises(ExtensionMissing, match="8BITMIME"):
            await read(body)
    async with opened(Content([RawSource(async_generated([b"a\n", b"\xe4"]), eightbit=True)])) as body:
        assert await read(body) == b"a\r\n\xe4\r\n"


# --- opening, and opening again ------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [0, 1, 3, 1000])
@pytest.mark.parametrize("kind", AGAIN)
async def test_some_kinds_can_be_read_again_from_anywhere(tmp_path, kind, pieces):
    async with opened(mail_of_email_object(AGAIN[kind](DATA, tmp_path), close=True)) as body:
        chunks = body.chunks()
        with contextlib.suppress(StopAsyncIteration):
            for _ in range(pieces):
                await anext(chunks)
        for _ in range(2):
            await body.open()
            assert await read(body) == around(DATA)


@pytest.mark.parametrize("kind", ONCE | AWAITED)
async def test_others_once(tmp_path, kind):
    content = mail_of_email_object((ONCE | AWAITED)[kind](DATA, tmp_path), close=True)
    body = Body(content)
    await body.open()
    await body.open()
    chunks = body.chunks()
    for _ in range(2):
        await anext(chunks)
    with pytest.raises(FileError, match="was read already and cannot be read again"):
        await body.open()
    assert body.closed
    await body.aclose()


async def test_a_pass_needs_an_opening(tmp_path):
    body = Body(mail_of_email_object(path_of(DATA, tmp_path)))
    with pytest.raises(UsageError, match="before each time it is read"):
        body.chunks()
    await body.open()
    await read(body)
    with pytest.raises(UsageError, match="before each time it is read"):
        body.chunks()
    body.close()
    body.close()
    with pytest.raises(UsageError):
        body.chunks()
    with pytest.raises(UsageError, match="was closed"):
        await body.open()


@needs_proc
async def test_what_fails_to_open_closes_the_others(tmp_path):
    before = open_files()
    file, pipe = io.BytesIO(DATA), piped(b"x")
    sources = [
        Source(path_of(DATA, tmp_path)),
        Source(file, close=True),
        Source(tmp_path / "nothing"),
        Source(pipe, close=True),
    ]
    body = Body(Content(sources))
    with pytest.raises(FileError, match="nothing"):
        await body.open()
    assert file.closed and pipe.closed
    assert open_files() == before


async def test_what_is_no_source_closes_the_others():
    file = io.BytesIO(DATA)
    body = Body(Content([Source(file, close=True), Source("a/path")]))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="pathlib"):
        await body.open()
    assert file.closed


async def test_an_error_in_mid_body_has_its_cause(tmp_path):
    path = path_of(DATA, tmp_path)
    async with opened(mail_of_email_object(path)) as body:
        chunks = body.chunks()
        await anext(chunks)
        with path.open("ab") as file:
            file.write(b"x")
        with pytest.raises(FileError, match="grew"):
            async for _ in chunks:
                pass


# --- waiting messages ----------------------------------------------------------------------------------------


@needs_proc
async def test_a_parked_body_holds_no_file(tmp_path):
    before = open_files()
    async with opened(Content([Source(path_of(DATA, tmp_path))] * 3)) as body:
        assert open_files() == before + 3
        body.park()
        assert open_files() == before
        await body.open()
        assert open_files() == before
        assert await read(body) == base64_lines(DATA) * 3
        body.park()
    body.park()


# --- closing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("pieces", [0, 2, 1000])
async def test_only_streams_that_are_to_be_closed_are(tmp_path, streams, pieces):
    to_close, to_keep = (path_of(DATA, tmp_path).open("rb") for _ in range(2))
    body = Body(Content([Source(to_close, close=True), Source(to_keep)]))
    await body.open()
    chunks = body.chunks()
    with contextlib.suppress(StopAsyncIteration):
        for _ in range(pieces):
            await anext(chunks)
    await body.aclose(streams=streams)
    assert (to_close.closed, to_keep.closed) == (streams, False)
    for file in (to_close, to_keep):
        if not file.closed:
            assert file.tell() == 0
            file.close()


@pytest.mark.parametrize("streams", [False, True])
def test_a_body_that_was_never_opened_closes_too(streams):
    file, pipe = io.BytesIO(), io.BytesIO()
    Body(Content([Source(file, close=True), Source(pipe)])).close(streams=streams)
    assert (file.closed, pipe.closed) == (streams, False)


async def test_a_file_is_not_closed_while_a_thread_reads_it():
    started, go_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read1(self, size=-1):
            started.set()
            assert go_on.wait(PATIENCE)
            assert not self.closed
            return super().read1(size)

    file = Slow(DATA)
    body = Body(mail_of_email_object(file, close=True))
    await body.open()
    task = asyncio.create_task(read(body))
    await until(started.is_set)
    task.cancel()
    await asyncio.wait({task})
    body.close()
    await turns()
    assert not file.closed
    go_on.set()
    await until(lambda: file.closed)


async def test_generators_end_with_the_body():
    ended = []

    def some():
        try:
            yield bytes(2_000_000)
        finally:
            ended.append("sync")

    async def others():
        try:
            yield bytes(2_000_000)
        finally:
            await asyncio.sleep(0)
            ended.append("async")

    async with opened(Content([Source(some(), encoding="identity"), Source(others())])) as body:
        chunks = body.chunks()
        while (await anext(chunks)).source is not body.content.sources[1]:
            pass
    assert sorted(ended) == ["async", "sync"]


# --- reading twice -------------------------------------------------------------------------------------------


@every_loop
@KINDS
async def test_what_is_kept_can_be_read_twice(tmp_path, kind):
    folder = tmp_path / "copies"
    folder.mkdir()
    content = mail_of_email_object(EVERY[kind](DATA, tmp_path), close=True)
    async with opened(content, temp_dir=str(folder)) as body:
        await body.keep()
        assert body.rereadable
        assert content.size == (None if kind == "iterable" else len(around(DATA)))
        for _ in range(2):
            assert await read(body) == around(DATA)
            await body.open()
        assert list(folder.iterdir()) == []


async def test_what_was_begun_is_not_kept():
    async with opened(mail_of_email_object(generated([DATA]))) as body:
        chunks = body.chunks()
        for _ in range(2):
            await anext(chunks)
        with pytest.raises(FileError, match="was read already"):
            await body.keep()


async def test_a_copy_needs_a_place(tmp_path):
    async with opened(mail_of_email_object(generated([DATA])), temp_dir=str(tmp_path / "nothing")) as body:
        with pytest.raises(FileError, match="cannot be"):
            await body.keep()


@needs_proc
async def test_only_what_needs_it_is_copied(tmp_path):
    before = open_files()
    async with opened(Content([Source(path_of(DATA, tmp_path)), Source(async_generated([DATA]))])) as body:
        assert open_files() == before + 1
        await body.keep()
        assert open_files() == before + 2


# --- the whole at once ---------------------------------------------------------------------------------------


@KINDS
async def test_read_all(tmp_path, kind):
    origin = EVERY[kind](DATA, tmp_path)
    assert await read_all(mail_of_email_object(origin, close=True)) == around(DATA)
    assert getattr(origin, "closed", False) is False
    getattr(origin, "close", int)()


@pytest.mark.parametrize("kind", AGAIN | ONCE)
def test_read_now(tmp_path, kind):
    origin = EVERY[kind](DATA, tmp_path)
    assert read_now(mail_of_email_object(origin, close=True)) == around(DATA)
    assert getattr(origin, "closed", False) is False
    getattr(origin, "close", int)()


def test_read_now_does_not_wait():
    with pytest.raises(UsageError, match=r"await message.render\(\)"):
        read_now(mail_of_email_object(Awaited([DATA])))


def test_read_now_closes_what_fails(tmp_path):
    with pytest.raises(FileError):
        read_now(Content([Source(path_of(DATA, tmp_path), start=10**9)]))
    with pytest.raises(FileError):
        read_now(Content([Source(tmp_path)]))


# --- cancelling ----------------------------------------------------------------------------------------------

WAYS = {
    "open": lambda body: body.open(),
    "read": lambda body: opened_and(body, read),
    "keep": lambda body: opened_and(body, Body.keep),
}


async def opened_and(body, work):
    await body.open()
    await work(body)


@every_loop
@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", CancelMoment)
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_any_await_everything_is_closed(tmp_path, way, moment, manner):
    data = DATA[:200_000]
    path = path_of(data, tmp_path)
    before = open_files()
    streams: list[io.IOBase] = []

    async def scenario():
        streams[:] = [path.open("rb"), piped(data)]
        sources = [Source(path), *[Source(stream, close=True) for stream in streams]]
        body = Body(Content([*sources, Source(async_generated([data])), Source(generated([data]))]))
        try:
            await WAYS[way](body)
        finally:
            await body.aclose()

    count = 0
    async for run in cancellations(scenario, manner=manner, moment=moment):
        assert run.error is None or run.cancelled
        count += 1
        # A thread may still be at work; what was never begun is closed by nobody but its owner.
        await until(lambda: all(stream.closed for stream in streams) and open_files() <= before)
    assert count > 2
