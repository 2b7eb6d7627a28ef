"""Content → chunks, without blocking the event loop.

Strategy. Everything that may block runs in worker threads, by way of anyio: opening, measuring, reading, iterating, and
base64 together with the reading. One call in a thread fetches half a MiB, in slices that the caller gets one by one.
Async iterables are awaited in the caller's task, a slice at a time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from ..errors import UsageError
from ..model.content import Content, Source
from .async_reader import AsyncReader, aclose_origin, reader_of
from .readers import KeptReader, Reader, close_origin
from .slicer import IDENTITY_SLICE
from .source_errors import already_read
from .worker import ThreadWork

if TYPE_CHECKING:
    from anyio import CapacityLimiter

__all__ = ["Body", "Piece", "TempDir", "read_all", "read_now"]

#: A directory for temporary files; None is the system's.
TempDir = str | os.PathLike[str] | None
#: Octets of content in memory that are given out before other tasks run: framing and writing them takes 1.5 ms.
_TURN: Final = 1 << 18


class Piece(NamedTuple):
    """Octets to send next.

    Attributes:
        data: the octets, encoded but not framed.
        source: their source; None if they were in memory.
    """

    data: bytes
    source: Source | None


class Body(ThreadWork):
    """The sources of one content, opened.

    It belongs to one task at a time: `open`, read `chunks`, and `open` again for another pass; `close` at the end in
    any case.

    Args:
        content: the content to read.
        limiter: bounds the worker threads; by default the limiter of the event loop.
        temp_dir: directory for the copies that `keep` makes; by default the system's.
    """

    def __init__(
        self, content: Content, *, limiter: CapacityLimiter | None = None, temp_dir: TempDir = None
    ) -> None:
        self.content = content
        super().__init__(limiter)
        self._temp_dir = temp_dir
        #: In the order of the sources, once open.
        self._readers: list[Reader | AsyncReader] = []
        #: Readers that were replaced by a copy, and unfinished copies: both still have to be closed.
        self._left: list[Reader | AsyncReader] = []
        self._spent = False

    # --- opening ---------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open and measure every source; rewind those that were read.

        Afterwards each source has its length, and the content its size, where that can be known.

        Raises:
            FileError: a source is closed, not readable, not of bytes, cannot be opened, or was read and cannot be
                rewound. All sources are closed then.
            InvalidArgument: a source is nothing that can be read.
            UsageError: the body was closed.
        """
        if not self.content.sources or (self._readers and not self._spent and not self.closed):
            return
        try:
            await self.in_thread(self._open_all)
        except BaseException:
            self.close()
            raise
        self._spent = False
        self.content.measure()

    def _open_all(self) -> None:
        if not self._readers:
            self._readers += [reader_of(source) for source in self.content.sources]
        for reader in self._readers:
            reader.open()

    @property
    def rereadable(self) -> bool:
        """Can the whole body be read again? Known once it is open."""
        return all([reader.rereadable for reader in self._readers])

    def park(self) -> None:
        """Close the files that can be opened again later, so that a queued message holds no file open.

        A file that was changed or deleted meanwhile raises FileError in mid-body.
        """
        if not self.busy and not self.closed:
            for reader in self._readers:
                reader.park()

    # --- reading ---------------------------------------------------------------------------------------------

    def chunks(self) -> AsyncIterator[Piece]:
        """Return an iterator over the whole content, in slices of about 64 KiB; base64 makes them 78 KiB.

        What stops it may be raised in mid-body: FileError if something cannot be read, or is not as long as it was;
        ExtensionMissing if a raw source needs what it did not ask for. Leaving the iterator needs no closing.

        Raises:
            UsageError: it is not open, or was read before.
        """
        sources = self.content.sources
        if sources and (self._spent or not self._readers or self.closed):
            raise UsageError("a body is opened before it is read, and again before it is read again")
        self._spent = True
        return _Chunks(self, self._readers)

    async def _batch(self, reader: Reader | AsyncReader) -> list[bytes]:
        """Return the next slices of one source; nothing at its end."""
        if isinstance(reader, Reader):
            return await self.in_thread(reader.batch)
        return await reader.batch()

    async def keep(self) -> None:
        """Copy what can be read once only to temporary files, which have no name and which other users cannot read.

        Raises:
            FileError: one cannot be read, or was begun already, or the copy cannot be written.
        """
        if not self._readers:
            await self.open()
        for place, reader in enumerate(self._readers):
            if not reader.rereadable:
                self._readers[place] = await self._kept(reader)
        self.content.measure()

    async def _kept(self, reader: Reader | AsyncReader) -> KeptReader:
        if reader.begun:
            raise already_read(reader.source)
        self._left.append(reader)
        kept = await self.in_thread(partial(self._make_copy, reader))
        if isinstance(reader, Reader):
            while await self.in_thread(partial(kept.copy, reader)):
                pass
        else:
            while data := await reader.pull():
                await self.in_thread(partial(kept.write, data))
        await self.in_thread(kept.seal)
        return kept

    def _make_copy(self, reader: Reader | AsyncReader) -> KeptReader:
        kept = KeptReader(reader.source, self._temp_dir)
        self._left.append(kept)
        return kept

    # --- closing ---------------------------------------------------------------------------------------------

    async def aclose(self, *, streams: bool = True) -> None:
        """Close, and let async iterators end here, in the caller's task: generators that were begun, and streams
        whose source says so.
        """
        self.close(streams=streams)
        for reader in (*self._readers, *self._left):
            if isinstance(reader, AsyncReader):
                await reader.aclose(streams=streams)
        if not streams:
            return
        for source in self.content.sources[len(self._readers) :]:
            if source.close and hasattr(source.origin, "__aiter__"):
                await aclose_origin(source.origin)

    def _release(self, *, streams: bool) -> None:
        for reader in (*self._readers, *self._left):
            reader.close(streams=streams)
        if streams:
            for source in self.content.sources[len(self._readers) :]:
                if source.close:
                    close_origin(source.origin)


class _Chunks:
    """One pass over a content. Not a generator, because leaving it early must need no closing."""

    __slots__ = ("_body", "_given", "_pieces", "_reader", "_readers", "_segments")

    def __init__(self, body: Body, readers: Iterable[Reader | AsyncReader]) -> None:
        self._body = body
        self._readers = iter(readers)
        self._segments = iter(body.content.segments)
        self._reader: Reader | AsyncReader | None = None
        self._pieces: Iterator[Piece] = iter(())
        # Octets given out since other tasks last ran.
        self._given = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        if self._given >= _TURN:
            self._given = 0
            await asyncio.sleep(0)
        while True:
            for piece in self._pieces:
                self._given += len(piece.data)
                return piece
            await self._fetch()

    async def _fetch(self) -> None:
        """Fetch the next pieces, perhaps none."""
        if self._reader is not None:
            batch = await self._body._batch(self._reader)
            source = self._reader.source
            self._pieces = iter([Piece(data, source) for data in batch])
            if not batch:
                self._reader = None
            return
        for segment in self._segments:
            if isinstance(segment, bytes):
                self._pieces = (Piece(data, None) for data in _slices(segment))
            else:
                self._reader = next(self._readers)
            return
        raise StopAsyncIteration


async def read_all(
    content: Content, finish: Callable[[bytes], bytes] | None = None, *, close_streams: bool = False
) -> bytes:
    """Return the whole content, or what `finish` makes of it.

    Args:
        content: what to read.
        finish: called with the octets.
        close_streams: close the streams that were given to be closed; else all are left open.

    Raises:
        FileError: a source cannot be read.
    """
    body = Body(content)
    try:
        await body.open()
        data = b"".join([piece.data async for piece in body.chunks()])
    finally:
        await body.aclose(streams=close_streams)
    return data if finish is None else finish(data)


def read_now(content: Content) -> bytes:
    """Return the whole content, read on the spot; streams are left open.

    Raises:
        FileError: a source cannot be read.
        UsageError: one can only be awaited.
    """
    pieces: list[bytes] = []
    for segment in content.segments:
        if isinstance(segment, bytes):
            pieces.append(segment)
            continue
        reader = reader_of(segment)
        if isinstance(reader, AsyncReader):
            raise UsageError("a part of the message can only be awaited: await message.render()")
        try:
            reader.open()
            while batch := reader.batch():
                pieces += batch
        finally:
            reader.close(streams=False)
    return b"".join(pieces)


def _slices(data: bytes) -> Iterator[bytes]:
    if len(data) <= IDENTITY_SLICE:
        return iter((data,) if data else ())
    return (data[start : start + IDENTITY_SLICE] for start in range(0, len(data), IDENTITY_SLICE))
