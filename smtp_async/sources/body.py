"""Content → chunks, without blocking the event loop.

Strategy. Everything that may block runs in worker threads, through anyio: opening, measuring, reading, iterating, and
base64 together with the reading. One call in a thread reads half a MiB in slices, which the caller gets one by one.
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
from .source_errors import already_read
from .worker import ThreadWork

if TYPE_CHECKING:
    from anyio import CapacityLimiter

__all__ = ["Body", "Piece", "TempDir", "read_all", "read_now"]

#: A directory for temporary files; None for the system's.
TempDir = str | os.PathLike[str] | None
#: Octets of a slice of content in memory. The steps between two slices take as long as encrypting a quarter of it.
_SLICE: Final = 1 << 17
#: Octets of content in memory that are returned before other tasks may run: framing and writing them takes 1.5 ms.
_TURN: Final = 1 << 18


class Piece(NamedTuple):
    """Octets to send next.

    Attributes:
        data: the octets, encoded but not framed.
        source: the source of the octets; None if they were in memory.
    """

    data: bytes
    source: Source | None


class Body(ThreadWork):
    """The sources of one content, opened.

    For one task at a time. Call `open`, read `chunks`, and call `open` again for another pass; always call `close` at
    the end.

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

        This sets the length of each source and the size of the content, where they can be known.

        Raises:
            FileError: a source is closed, not readable, not of bytes, cannot be opened, or was read and cannot be
                rewound. All sources are then closed.
            InvalidArgument: a source cannot be read.
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
        """Whether the whole body can be read again; known once the body is open."""
        return all([reader.rereadable for reader in self._readers])

    def read_once_only(self) -> list[Source]:
        """Return the sources that cannot be read again. Known once it is open."""
        return [reader.source for reader in self._readers if not reader.rereadable]

    def park(self) -> None:
        """Close the files that can be opened again later, so that a queued message holds no file open.

        A file that was changed or deleted meanwhile raises FileError in mid-body.
        """
        if not self.busy and not self.closed:
            for reader in self._readers:
                reader.park()

    def pin(self) -> None:
        """Demand of later bodies of the same content that they find what this one, which was read, has found."""
        for reader in self._readers:
            if isinstance(reader, Reader):
                reader.pin()

    # --- reading ---------------------------------------------------------------------------------------------

    def chunks(self) -> AsyncIterator[Piece]:
        """Return an iterator over the whole content, in slices of 128 KiB at most.

        The iterator may raise an error in mid-body: FileError if a source cannot be read, or its length has changed;
        ExtensionMissing if a raw source needs an extension that MAIL did not declare. The iterator need not be closed.

        Raises:
            UsageError: the body is not open, or was read before.
        """
        sources = self.content.sources
        if sources and (self._spent or not self._readers or self.closed):
            raise UsageError("open a body before each time it is read")
        self._spent = True
        return _Chunks(self, self._readers)

    async def _batch(self, reader: Reader | AsyncReader) -> list[bytes]:
        """Return the next slices of one source; an empty list at its end."""
        if isinstance(reader, Reader):
            return await self.in_thread(reader.batch)
        return await reader.batch()

    async def keep(self) -> None:
        """Copy sources that can be read only once to temporary files without a name, which other users cannot read.

        Raises:
            FileError: a source cannot be read, or reading has begun, or the copy cannot be written.
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
        """Close all sources, and await the end of async ones in the caller's task: generators that were begun, and
        streams whose source has `close`.
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

    def _close_files(self, *, streams: bool) -> None:
        for reader in (*self._readers, *self._left):
            reader.close(streams=streams)
        if streams:
            for source in self.content.sources[len(self._readers) :]:
                if source.close:
                    close_origin(source.origin)


class _Chunks:
    """One pass over a content. Not a generator, because a generator would have to be closed after an early end."""

    __slots__ = ("_body", "_given", "_pieces", "_reader", "_readers", "_segments")

    def __init__(self, body: Body, readers: Iterable[Reader | AsyncReader]) -> None:
        self._body = body
        self._readers = iter(readers)
        self._segments = iter(body.content.segments)
        self._reader: Reader | AsyncReader | None = None
        self._pieces: Iterator[Piece] = iter(())
        # Octets returned since other tasks last ran.
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
        """Read the next pieces, possibly none."""
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
    """Return the whole content, or the result of `finish`.

    Args:
        content: the content to read.
        finish: called with the octets.
        close_streams: close the streams whose source has `close`; otherwise all are left open.

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
    """Return the whole content, read in this call, which blocks; streams are left open.

    Raises:
        FileError: a source cannot be read.
        UsageError: a source can only be awaited.
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
    if len(data) <= _SLICE:
        return iter((data,) if data else ())
    return (data[start : start + _SLICE] for start in range(0, len(data), _SLICE))
