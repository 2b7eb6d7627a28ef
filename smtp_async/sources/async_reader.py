"""Reader of async iterables, which are awaited in the caller's task."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from ..model.content import Source
from .readers import PATIENCE, Reader, blocking_reader
from .slicer import Slicer
from .source_errors import already_read, as_file_error, mark_read, octets, require_unread

__all__ = ["AsyncReader", "aclose_origin", "reader_of"]


class AsyncReader:
    """Reads an async iterable, once only, because many async iterables return new iterators over the same stream.

    A source that says so (`again`) is read from its start each time it is opened.

    Attributes:
        source: the source to read.
        rereadable: it can be read again from its start.
        begun: reading has begun.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.rereadable = source.again
        self.begun = False
        self._origin: Any = source.origin
        self._iterator: Any = None
        self._slicer = Slicer(source, passing=source.start)

    def open(self) -> None:
        """Refuse a source that was read before.

        Raises:
            FileError: the source was read before.
        """
        if self.rereadable:
            # The last iterator may have stopped in the middle, when its connection died.
            self._iterator, self._slicer = None, Slicer(self.source, passing=self.source.start)
            return
        if self.begun:
            raise already_read(self.source)
        require_unread(self.source)

    def park(self) -> None:
        """Do nothing, because this reader holds no file open."""

    async def batch(self, *, patience: float = PATIENCE) -> list[bytes]:
        """Return the next slice, encoded; an empty list at the end.

        Each slice is encoded on the event loop, because a call in a thread takes longer than encoding one slice.

        Args:
            patience: seconds after which a slow source returns less than a slice.

        Raises:
            FileError: the source cannot be read.
            ExtensionMissing: the guard of a raw source stops the stream.
        """
        slicer, clock = self._slicer, asyncio.get_running_loop().time
        until = clock() + patience
        while True:
            while slicer.wanted > 0 and not slicer.ended:
                slicer.add(await self._next())
                if clock() > until:
                    break
            piece = slicer.take()
            if piece or slicer.ended:
                return [piece] if piece else []

    async def pull(self) -> bytes:
        """Return any number of octets, not encoded; empty at the end. Do not mix calls with those of `batch`."""
        while not self._slicer.ended and not self._slicer.held:
            self._slicer.add(await self._next())
        return self._slicer.take_plain()

    async def _next(self) -> bytes:
        """Return the next chunk that is not empty; an empty one at the end."""
        with as_file_error(self.source):
            if self._iterator is None:
                self.begun = True
                if not self.rereadable:
                    mark_read(self.source)
                self._iterator = aiter(self._origin)
            async for chunk in self._iterator:
                data = octets(chunk)
                if data:
                    return data
            return b""

    def close(self, *, streams: bool = True) -> None:
        """Do nothing, because an async iterable can only be closed by awaiting `aclose`."""

    async def aclose(self, *, streams: bool = True) -> None:
        """Close a generator that was begun, and the stream if its source has `close`."""
        iterator, self._iterator = self._iterator, None
        endings = [iterator] if isinstance(iterator, AsyncGenerator) else []
        if streams and self.source.close:
            endings.append(self._origin)
        for ending in endings:
            await aclose_origin(ending)


async def aclose_origin(origin: Any) -> None:
    """Close an async iterable, if possible; a failure after the transfer is ignored."""
    close = getattr(origin, "aclose", None) or getattr(origin, "close", None)
    if close is not None:
        with suppress(Exception):
            ending = close()
            if inspect.isawaitable(ending):
                await ending


def reader_of(source: Source) -> Reader | AsyncReader:
    """Return the reader for the kind of `source`.

    Raises:
        InvalidArgument: the origin cannot be read.
    """
    # Files of async libraries also have a `read`, but it must be awaited.
    if not isinstance(source.origin, os.PathLike) and hasattr(source.origin, "__aiter__"):
        return AsyncReader(source)
    return blocking_reader(source)
