"""source_errors.py: every failure of a source is a FileError that names it; what was read is remembered."""

import errno
import gc
import io
from pathlib import Path

import pytest

from smtp_async.errors import FileError
from smtp_async.model.content import Source
from smtp_async.sources.source_errors import as_file_error, described, mark_read, octets, require_unread


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (Source(Path("/a/b"), name="c.pdf"), "“c.pdf”"),
        (Source(Path("/a/b")), "“/a/b”"),
        (Source(io.BytesIO()), "the BytesIO to be sent"),
        (Source(Path("/a\r\nb")), "“/a\\r\\nb”"),
    ],
)
def test_a_source_is_named(source, name):
    assert described(source) == name


def test_a_failure_becomes_a_file_error_with_its_cause():
    with (
        pytest.raises(FileError, match="“a” cannot be read: .*No space") as info,
        as_file_error(Source([], name="a")),
    ):
        raise OSError(errno.ENOSPC, "No space", "/x")
    assert isinstance(info.value.__cause__, OSError)
    assert (info.value.code, info.value.errno, info.value.filename) == (302, errno.ENOSPC, "/x")


def test_a_failure_without_a_message_is_named_by_its_class():
    with pytest.raises(FileError, match="ZeroDivisionError"), as_file_error(Source([])):
        raise ZeroDivisionError


@pytest.mark.parametrize("error", [FileError("as it is"), KeyboardInterrupt()])
def test_some_pass_as_they_are(error):
    with pytest.raises(type(error)) as info, as_file_error(Source([])):
        raise error
    assert info.value is error


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_octets_are_bytes(data):
    assert octets(data) == b"abc"
    assert type(octets(data)) is bytes


def test_octets_that_may_change_are_copied():
    data = bytearray(b"abc")
    taken = octets(data)
    data[:] = b"xyz"
    assert taken == b"abc"


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        ("abc", TypeError, "returned str, not bytes, it has to be opened in binary mode"),
        (1, TypeError, "returned int, not bytes"),
        (None, BlockingIOError, "non-blocking mode"),
    ],
)
def test_chunks_that_are_not_bytes_are_refused(data, error, match):
    with pytest.raises(error, match=match):
        octets(data)


def test_what_was_begun_is_remembered_while_it_lives():
    class Stream:
        def __eq__(self, other):
            raise AssertionError("streams are not compared")

        __hash__ = None  # type: ignore[assignment]

    stream = Stream()
    source = Source(stream)  # type: ignore[arg-type]
    require_unread(source)
    mark_read(source)
    with pytest.raises(FileError, match="was read already"):
        require_unread(Source(stream))  # type: ignore[arg-type]
    del stream, source
    gc.collect()
    for _ in range(100):
        require_unread(Source(Stream()))  # type: ignore[arg-type]


def test_paths_and_what_cannot_be_remembered_pass():
    for origin in (Path("/a"), iter([b"x"])):
        mark_read(Source(origin))
        # Raises nothing, although the origin was read.
        assert require_unread(Source(origin)) is None  # type: ignore[func-returns-value]


def test_a_generator_that_has_ended_was_read():
    def some():
        yield b"x"

    generator = some()
    require_unread(Source(generator))
    assert list(generator) == [b"x"]
    with pytest.raises(FileError):
        require_unread(Source(generator))
