"""readers.py: sources opened, measured and read, as a thread does it."""

import contextlib
import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import FileError, InvalidArgument
from smtp_async.model.content import Source
from smtp_async.model.octets import base64_lines
from smtp_async.sources.readers import KeptReader, close_origin
from smtp_async.sources.readers import blocking_reader as reader_of
from tests.servers.machine import needs_proc
from tests.sources.origins import (
    AGAIN,
    ONCE,
    Again,
    ShortReads,
    cut,
    generated,
    open_files,
    opened_below,
    path_of,
    piped,
    random_octets,
    travelling,
)

pytestmark = pytest.mark.usefixtures("no_open_files")

DATA = random_octets(700_001)
ENCODINGS = pytest.mark.parametrize("encoding", ["base64", "identity"])


@contextlib.contextmanager
def opened(origin, **how):
    """A reader of a source, and the origin closed with it."""
    reader = reader_of(Source(origin, **{"close": True, **how}))
    try:
        reader.open()
        yield reader
    finally:
        reader.close()


def whole(reader):
    pieces = []
    while batch := reader.batch():
        pieces += batch
    return b"".join(pieces)


def read(origin, **how):
    with opened(origin, **how) as reader:
        return whole(reader)


# --- every kind ----------------------------------------------------------------------------------------------


@ENCODINGS
@pytest.mark.parametrize("start", [0, 1, 100_000])
@pytest.mark.parametrize("kind", AGAIN | ONCE)
def test_every_kind_gives_its_octets(tmp_path, kind, start, encoding):
    with opened((AGAIN | ONCE)[kind](DATA, tmp_path), encoding=encoding, start=start) as reader:
        length = reader.source.length
        assert whole(reader) == travelling(DATA[start:], encoding)
        assert reader.batch() == []
        assert reader.rereadable is (kind in AGAIN)
        assert length == (None if kind in ONCE or kind == "iterable" else len(DATA) - start)


@pytest.mark.parametrize("kind", AGAIN | ONCE)
@pytest.mark.parametrize("size", [0, 1])
def test_every_kind_may_be_small_or_empty(tmp_path, kind, size):
    assert read((AGAIN | ONCE)[kind](DATA[:size], tmp_path)) == base64_lines(DATA[:size])


@pytest.mark.parametrize("kind", AGAIN)
@pytest.mark.parametrize("batches", [0, 1, 100])
def test_some_kinds_can_be_read_again_from_anywhere(tmp_path, kind, batches):
    with opened(AGAIN[kind](DATA, tmp_path), start=3, encoding="identity") as reader:
        for _ in range(batches):
            reader.batch()
        reader.open()
        assert whole(reader) == DATA[3:]
        reader.open()
        assert whole(reader) == DATA[3:]


@pytest.mark.parametrize("kind", ONCE)
def test_others_only_until_they_are_begun(tmp_path, kind):
    with opened(ONCE[kind](DATA, tmp_path)) as reader:
        reader.open()
        reader.batch()
        with pytest.raises(FileError, match="was read already and cannot be read again"):
            reader.open()


@pytest.mark.parametrize("kind", sorted(ONCE.keys() - {"named pipe", "iterator of views"}))
def test_a_stream_that_was_begun_is_refused_elsewhere(tmp_path, kind):
    origin = ONCE[kind](DATA, tmp_path)
    with opened(origin, close=False) as reader:
        reader.batch()
    with pytest.raises(FileError, match="was read already"), opened(origin):
        pass
    close_origin(origin)


@given(
    count=st.integers(0, 200_000),
    sizes=st.lists(st.integers(1, 100_000), min_size=1, max_size=5),
    start=st.integers(0, 50),
    encoding=st.sampled_from(["base64", "identity"]),
)
def test_any_chunks_and_any_short_reads_give_the_same(count, sizes, start, encoding):
    data = random_octets(count)
    start = min(start, count)
    expected = travelling(data[start:], encoding)
    for origin in (cut(data, sizes), generated(cut(data, [*sizes, 0])), ShortReads(data, sizes)):
        assert read(origin, encoding=encoding, start=start) == expected


@pytest.mark.parametrize("kind", AGAIN | ONCE)
def test_pulled_octets_are_plain(tmp_path, kind):
    with opened((AGAIN | ONCE)[kind](DATA, tmp_path), start=2) as reader:
        pieces = []
        while piece := reader.pull():
            pieces.append(piece)
        assert b"".join(pieces) == DATA[2:]
        assert reader.pull() == b""


# --- what cannot be read -------------------------------------------------------------------------------------


def refused(origin, match, cause=None, **how):
    with pytest.raises(FileError, match=match) as info:
        read(origin, **how)
    assert info.value.code == 302
    assert cause is None or isinstance(info.value.__cause__, cause)
    return info.value


def test_a_path_that_leads_nowhere(tmp_path):
    error = refused(tmp_path / "nothing", "“.*nothing” cannot be read", FileNotFoundError)
    assert error.filename == str(tmp_path / "nothing")


def test_a_folder(tmp_path):
    refused(tmp_path, "cannot be read", OSError)


def test_a_closed_file(tmp_path):
    file = path_of(b"x", tmp_path).open("rb")
    file.close()
    refused(file, "is closed")


def test_a_file_for_writing(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        refused(file, "cannot be read", io.UnsupportedOperation, close=False)


@pytest.mark.parametrize("make", [lambda p: p.open("r"), lambda p: io.StringIO("text")])
def test_a_file_of_text(tmp_path, make):
    refused(make(path_of(b"text", tmp_path)), "returned str, not bytes, .*binary mode", TypeError)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes always block there")
def test_a_stream_that_does_not_wait():
    readers, writing = os.pipe()
    os.set_blocking(readers, False)
    with open(writing, "wb"), io.FileIO(readers, "rb") as file:
        refused(file, "non-blocking mode", BlockingIOError, close=False)


@pytest.mark.parametrize("chunks", [["text"], [b"x", 1], [None]])
@pytest.mark.parametrize("make", [list, Again, generated])
def test_chunks_that_are_no_octets(make, chunks):
    refused(make(chunks), "cannot be read: it ", (TypeError, BlockingIOError))


@pytest.mark.parametrize("origin", ["a/path", b"bytes", bytearray(b"x"), memoryview(b"x"), 3, None, object()])
def test_what_is_no_source_at_all(origin):
    with pytest.raises(InvalidArgument, match="neither a path, a binary file object nor an iterable"):
        reader_of(Source(origin))


@pytest.mark.parametrize("kind", AGAIN | ONCE)
def test_a_start_behind_the_end(tmp_path, kind):
    refused(
        (AGAIN | ONCE)[kind](b"abc", tmp_path), "ends before the position where reading is to start", start=4
    )


class Failing(io.RawIOBase):
    """Gives a few octets and fails."""

    def __init__(self, error):
        self.error = error

    def readable(self):
        return True

    def read(self, size=-1):
        if size and self.error is None:
            self.error = OSError("the disk is broken")
            return b"some"
        if size:
            raise self.error
        return b""


def test_an_error_in_the_middle():
    refused(Failing(None), "the disk is broken", OSError)
    refused(Failing(ValueError("odd")), "odd", ValueError)

    def fails():
        yield b"some"
        raise LookupError("nowhere")

    refused(fails(), "nowhere", LookupError)


# --- what changes --------------------------------------------------------------------------------------------


def change(path, data):
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


@pytest.mark.parametrize(("size", "match"), [(300_001, "grew"), (299_999, "shrank"), (0, "shrank")])
@pytest.mark.parametrize("by", ["path", "file"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_file_that_changes_its_size(tmp_path, size, match, by, begun):
    path = path_of(DATA[:300_000], tmp_path)
    with opened(path if by == "path" else path.open("rb"), encoding="identity") as reader:
        if begun:
            assert reader.batch(patience=-1)
        change(path, DATA[:size])
        with pytest.raises(FileError, match=match):
            whole(reader)


@pytest.mark.parametrize("now", [[b"abc"], [b"abcd", b"e"]])
def test_what_is_iterated_again_must_be_as_long_again(now):
    chunks = Again([b"abcd"])
    with opened(chunks) as reader:
        assert whole(reader) == base64_lines(b"abcd")
        chunks.chunks = now
        reader.open()
        with pytest.raises(FileError, match="grew|shrank"):
            whole(reader)


# --- holding and closing -------------------------------------------------------------------------------------


@needs_proc
def test_a_parked_file_is_opened_again_when_it_is_read(tmp_path):
    before = open_files()
    with opened(path_of(DATA, tmp_path), start=5, encoding="identity") as reader:
        assert open_files() == before + 1
        reader.park()
        assert open_files() == before
        reader.batch()
        reader.park()
        assert open_files() == before + 1
        reader.open()
        assert whole(reader) == DATA[5:]


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda path: path.write_bytes(b"xxx"),
        lambda path: path.write_bytes(b"xxxxx"),
        lambda path: path.unlink(),
        lambda path: (path.with_suffix(".new").write_bytes(b"xxxx"), path.with_suffix(".new").replace(path)),
    ],
)
def test_a_parked_file_must_stay_what_it_was(tmp_path, meanwhile):
    path = path_of(b"abcd", tmp_path)
    with opened(path) as reader:
        reader.park()
        meanwhile(path)
        with pytest.raises(FileError):
            whole(reader)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no such files")
def test_a_file_that_only_looks_empty():
    with opened(Path("/proc/self/stat"), encoding="identity") as reader:
        assert reader.source.length is None
        assert whole(reader).startswith(str(os.getpid()).encode())


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("batches", [0, 1, 100])
def test_a_file_is_closed_or_put_back(tmp_path, close, batches):
    with path_of(DATA, tmp_path).open("rb") as file:
        file.seek(10)
        reader = reader_of(Source(file, close=close))
        reader.open()
        for _ in range(batches):
            reader.batch()
        reader.close()
        reader.close()
        assert file.closed is close
        if not close:
            assert file.tell() == 10


@pytest.mark.parametrize("kind", AGAIN | ONCE)
def test_streams_may_be_left_alone(tmp_path, kind):
    origin = (AGAIN | ONCE)[kind](DATA, tmp_path)
    reader = reader_of(Source(origin, close=True))
    reader.open()
    reader.close(streams=False)
    assert getattr(origin, "closed", False) is False
    close_origin(origin)


def test_what_was_never_opened_is_closed_too():
    file = io.BytesIO()
    reader_of(Source(file, close=True)).close()
    assert file.closed


@pytest.mark.parametrize("close", [False, True])
def test_a_generator_in_its_middle_ends(close):
    ended = []

    def some():
        try:
            yield b"a" * 2_000_000
            yield b"b"
        finally:
            ended.append(True)

    generator = some()
    reader = reader_of(Source(generator, close=close))
    reader.open()
    reader.batch()
    assert ended == []
    reader.close()
    assert ended == [True]


def test_failing_to_close_is_no_news():
    class Bad(io.BytesIO):
        failed = False

        def close(self):
            # Once: it is closed again when it is collected, which Python 3.13 and later report.
            if not self.failed:
                self.failed = True
                raise OSError("cannot close")
            super().close()

    bad = Bad(b"x")
    assert read(bad) == base64_lines(b"x")
    assert bad.failed


def test_one_file_for_two_messages_at_once(tmp_path):
    with path_of(DATA, tmp_path).open("rb") as file:
        with opened(file, close=False, start=1) as one, opened(file, close=True) as other:
            first, second = [one.batch()], [other.batch()]
            while first[-1] or second[-1]:
                first.append(one.batch())
                second.append(other.batch())
        assert b"".join(sum(first, [])) == base64_lines(DATA[1:])
        assert b"".join(sum(second, [])) == base64_lines(DATA)
        assert file.closed


def test_one_stream_for_two_messages_at_once():
    stream = ShortReads(b"x", [1], seekable=False)
    with opened(stream), pytest.raises(FileError, match="is being read for another message"), opened(stream):
        pass


# --- slow sources --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda raw: raw, io.BufferedReader])
def test_a_slow_stream_gives_what_it_has(wrap):
    read_end, write_end = os.pipe()
    with (
        open(write_end, "wb", buffering=0) as writer,
        opened(wrap(io.FileIO(read_end)), encoding="identity") as reader,
    ):
        for octets in (b"hello", b"there"):
            writer.write(octets)
            assert reader.batch(patience=-1) == [octets]


def test_base64_of_a_slow_stream_waits_for_a_line():
    with opened(generated([b"x"] * 100)) as reader:
        assert reader.batch(patience=-1) == [base64_lines(b"x" * 57)]
        assert whole(reader) == base64_lines(b"x" * 43)


# --- copies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ONCE)
def test_a_copy_can_be_read_again(tmp_path, kind):
    folder = tmp_path / "copies"
    folder.mkdir()
    with opened(ONCE[kind](DATA, tmp_path), start=7) as original:
        kept = KeptReader(original.source, str(folder))
        while kept.copy(original):
            pass
        kept.seal()
        assert list(folder.iterdir()) == []
        assert kept.source.length == len(DATA) - 7
        for _ in range(2):
            assert whole(kept) == base64_lines(DATA[7:])
            kept.open()
        kept.close()


def test_a_copy_needs_a_place(tmp_path):
    with pytest.raises(FileError, match="cannot be"):
        KeptReader(Source([], name="a"), str(tmp_path / "nothing"))


@needs_proc
def test_no_other_user_can_read_a_copy(tmp_path):
    kept = KeptReader(Source([]), tmp_path)
    (status,) = opened_below(tmp_path)
    assert status.st_mode & 0o777 == 0o600
    kept.close()


def test_a_copy_needs_room():
    resource = pytest.importorskip("resource")
    kept = KeptReader(Source([], name="a"), None)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(FileError, match="“a” cannot be kept for a second reading: .*File too large"):
            kept.write(b"x" * 11)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    kept.close()


def test_pipes_are_not_left_behind():
    with opened(piped(DATA)) as reader:
        assert reader.batch()
