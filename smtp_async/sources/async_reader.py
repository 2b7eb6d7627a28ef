"""Sources that are awaited: async iterables, in the caller's own task."""

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
    """An async iterable. It is taken for one that can be read once only: many make new iterators of one stream.

    Attributes:
        source: what is read.
        begun: has anything been read?
    """

    rereadable = False

    def __init__(self, source: Source) -> None:
        self.source = source
        self.begun = False
        self._origin: Any = source.origin
        self._iterator: Any = None
        self._slicer = Slicer(source, passing=source.start)

    def open(self) -> None:
        """Require that it was not read already.

        Raises:
            FileError: it was.
        """
        if self.begun:
            raise already_read(self.source)
        require_unread(self.source)

    def park(self) -> None:
        """Nothing is held open here."""

    async def batch(self) -> list[bytes]:
        """Return the next slice as it travels, nothing at the end.

        One at a time, and encoded here: that takes less long than going to a thread.

        Raises:
            FileError: it cannot be read.
            ExtensionMissing: the guard of a raw source stops it.
        """
        slicer, clock = self._slicer, asyncio.get_running_loop().time
        until = clock() + PATIENCE
        while True:
            while slicer.wanted > 0 and not slicer.ended:
                slicer.add(await self._next())
                if clock() > until:
                    break
            piece = slicer.take()
            if piece or slicer.ended:
                return [piece] if piece else []

    async def pull(self) -> bytes:
        """Return the next octets before encoding, in any number; nothing at the end. Not to be mixed with `batch`."""
        while not self._slicer.ended and not self._slicer.held:
            self._slicer.add(await self._next())
        return self._slicer.take_plain()

    async def _next(self) -> bytes:
        """Return the next octets that are any, nothing at the end."""
        with as_file_error(self.source):
            if self._iterator is None:
                self.begun = True
                mark_read(self.source)
                self._iterator = aiter(self._origin)
            async for chunk in self._iterator:
                data = octets(chunk)
                if data:
                    return data
            return b""

    def close(self, *, streams: bool = True) -> None:
        """Nothing can be closed without waiting."""

    async def aclose(self, *, streams: bool = True) -> None:
        """Let a generator that was begun end, and close what its source says is to be closed."""
        iterator, self._iterator = self._iterator, None
        endings = [iterator] if isinstance(iterator, AsyncGenerator) else []
        if streams and self.source.close:
            endings.append(self._origin)
        for ending in endings:
            await aclose_origin(ending)


async def aclose_origin(origin: Any) -> None:
    """Close an async iterable, if it can be closed; failing is no news after the transfer."""
    close = getattr(origin, "aclose", None) or getattr(origin, "close", None)
    if close is not None:
        with suppress(Exception):
            ending = close()
            if inspect.isawaitable(ending):
                await ending


def reader_of(source: Source) -> Reader | AsyncReader:
    """Return what reads `source`.

    Raises:
        InvalidArgument: its origin is none of those that a source may have.
    """
    # Files of async libraries have a `read`, too, but one to be awaited.
    if not isinstance(source.origin, os.PathLike) and hasattr(source.origin, "__aiter__"):
        return AsyncReader(source)
    return blocking_reader(source)
