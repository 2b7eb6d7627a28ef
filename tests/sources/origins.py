"""Where octets may come from: every kind of origin, with the same octets in it."""

import asyncio
import contextlib
import io
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from smtp_async.model.content import Content, Source
from smtp_async.model.octets import base64_lines
from tests.lab import PATIENCE


def random_octets(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Chunks of these sizes, round and round; at least one of them is not 0."""
    chunks, position = [], 0
    while position < len(data):
        for size in sizes:
            chunks.append(data[position : position + size])
            position += size
    return chunks


class ShortReads(io.RawIOBase):
    """A file object that gives fewer octets than it is asked for."""

    def __init__(self, data: bytes, sizes: list[int], *, seekable: bool = True) -> None:
        self._file = io.BytesIO(data)
        self._sizes = sizes
        self._reads = 0
        self._can_seek = seekable

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._can_seek

    def seek(self, place: int, whence: int = 0) -> int:
        if not self._can_seek:
            raise io.UnsupportedOperation("seek")
        return self._file.seek(place, whence)

    def tell(self) -> int:
        if not self._can_seek:
            raise io.UnsupportedOperation("tell")
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        size = self._sizes[self._reads % len(self._sizes)]
        self._reads += 1
        data = self._file.read(min(len(buffer), max(size, 1)))
        buffer[: len(data)] = data
        return len(data)


class Again:
    """Can be iterated again and again, and does not tell its length."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.chunks)


class Awaited:
    """An async iterator that is no generator."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = iter(chunks)
        self.closed = False

    def __aiter__(self) -> "Awaited":
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        try:
            return next(self._chunks)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        self.closed = True


class SlowToMeasure(io.BytesIO):
    """A file that takes its time to be measured."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.asked = threading.Event()
        self.go = threading.Event()

    def seek(self, *args: int) -> int:
        self.asked.set()
        self.go.wait(PATIENCE)
        return super().seek(*args)


def generated(chunks: list[bytes]) -> Iterator[bytes]:
    yield from chunks


async def async_generated(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


def piped(data: bytes) -> io.FileIO:
    """The reading end of a pipe that somebody writes to."""
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb", buffering=0) as file:
            try:
                for start in range(0, len(data), 5000):
                    file.write(data[start : start + 5000])
            except OSError:
                pass  # nobody reads any more

    threading.Thread(target=write, daemon=True).start()
    return io.FileIO(reading, "rb")


def fifo(path: Path, data: bytes) -> Path:
    """A named pipe that somebody writes to as soon as it is opened."""
    os.mkfifo(path)

    def write() -> None:
        try:
            path.write_bytes(data)
        except OSError:
            pass  # nobody reads any more

    threading.Thread(target=write, daemon=True).start()
    return path


def path_of(data: bytes, folder: Path) -> Path:
    path = folder / "a file"
    path.write_bytes(data)
    return path


Make = Callable[[bytes, Path], Any]

#: Kinds that can be read again.
AGAIN: dict[str, Make] = {
    "path": path_of,
    "file": lambda data, folder: path_of(data, folder).open("rb"),
    "unbuffered file": lambda data, folder: path_of(data, folder).open("rb", buffering=0),
    "memory": lambda data, folder: io.BytesIO(data),
    "short reads": lambda data, folder: ShortReads(data, [1000, 7, 50_000]),
    "list": lambda data, folder: cut(data, [1000, 0, 200_001]),
    "tuple of bytearrays": lambda data, folder: tuple(map(bytearray, cut(data, [3000]))),
    "iterable": lambda data, folder: Again(cut(data, [777])),
}
#: Kinds that threads read once.
ONCE: dict[str, Make] = {
    "pipe": lambda data, folder: piped(data),
    "short reads of a stream": lambda data, folder: ShortReads(data, [9, 70_000], seekable=False),
    "generator": lambda data, folder: generated(cut(data, [100_000, 1, 57])),
    "iterator of views": lambda data, folder: map(memoryview, cut(data, [4096])),
}
if hasattr(os, "mkfifo"):
    ONCE["named pipe"] = lambda data, folder: fifo(folder / "fifo", data)
#: Kinds that are awaited.
AWAITED: dict[str, Make] = {
    "async generator": lambda data, folder: async_generated(cut(data, [30_000, 1, 0])),
    "async iterator": lambda data, folder: Awaited(cut(data, [200_000])),
}
EVERY = AGAIN | ONCE | AWAITED


def travelling(data: bytes, encoding: str) -> bytes:
    return base64_lines(data) if encoding == "base64" else data


def mail_of_email_object(origin: Any, **how: Any) -> Content:
    return Content([b"before\r\n", Source(origin, **how), b"after\r\n"])


def opened_below(folder: Path) -> list[os.stat_result]:
    """Return the status of each file in `folder` that this process has open, also of those without a name."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            if str(folder) in os.readlink(link):
                found.append(link.stat())
    return found


def open_files() -> int:
    """How many files and pipes this process has open; sockets and what event loops need do not count.

    0 where they cannot be listed.
    """
    count = 0
    for entry in Path("/proc/self/fd").glob("*"):
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        count += target.startswith(("/", "pipe:")) and not target.startswith(("/proc", "/dev"))
    return count
