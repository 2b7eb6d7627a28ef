"""Readers of files, streams and iterators, for use in a worker thread: everything here may block.

Strategy. A reader opens one source, measures it, and returns it in batches of encoded slices. A source that is read
twice must have the same length both times, the length that MAIL declared: an octet more or less is an error.
"""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from io import BufferedIOBase, FileIO
from time import monotonic
from typing import Any, Final

from ..errors import FileError, InvalidArgument
from ..model.content import Source
from .line_endings import RawSource
from .shared_file import Claim
from .slicer import Slicer
from .source_errors import already_read, as_file_error, described, mark_read, octets, require_unread

__all__ = ["BATCH", "PATIENCE", "KeptReader", "Reader", "close_origin", "blocking_reader"]

#: Slices per call in a thread, half a MiB in all: a call costs as much as encoding one slice, and while the thread
#: encodes, the event loop may have to wait for the interpreter's lock.
BATCH: Final = 8
#: Seconds after which a slow source returns fewer slices than a batch.
PATIENCE: Final = 0.05
#: Octets that are copied at a time.
_COPY: Final = 1 << 20


class Reader(ABC):
    """A source that can be read in a thread.

    Attributes:
        source: the source to read.
        rereadable: the source can be read again from its start; known once it is open.
        begun: reading has begun.
    """

    rereadable = False

    def __init__(self, source: Source) -> None:
        self.source = source
        self.begun = False
        self._opened = False
        #: The required number of octets, if known.
        self._length: int | None = None
        self._slicer = Slicer(source)

    def open(self) -> None:
        """Open and measure the source; rewind one that is already open.

        Raises:
            FileError: the source cannot be opened, or it was read and cannot be rewound.
        """
        with as_file_error(self.source):
            if not self._opened:
                # Set first, so that close() also cleans up a partial open.
                self._opened = True
                self._open()
                self._settle_length()
            elif self.begun:
                if not self.rereadable:
                    raise already_read(self.source)
                self._rewind()
        self.begun = False
        passing = 0 if self._goes_to_start() else self.source.start
        self._slicer = Slicer(self.source, passing=passing, length=self._length)

    def batch(self, *, patience: float = PATIENCE) -> list[bytes]:
        """Return the next slices, encoded; an empty list at the end.

        Args:
            patience: seconds after which a slow source returns fewer slices than a batch.

        Raises:
            FileError: the source cannot be read, or its length has changed.
            ExtensionMissing: the guard of a raw source stops the stream.
        """
        self._begin()
        slicer, pieces = self._slicer, list[bytes]()
        until = monotonic() + patience
        while len(pieces) < BATCH and not (pieces and monotonic() > until):
            with as_file_error(self.source):
                self._fill(until)
            piece = slicer.take()
            if piece:
                pieces.append(piece)
            elif slicer.ended:
                break
        return pieces

    def pull(self) -> bytes:
        """Return any number of octets, not encoded; empty at the end. Do not mix calls with those of `batch`.

        Raises:
            FileError: the source cannot be read.
        """
        self._begin()
        with as_file_error(self.source):
            while not self._slicer.ended and not self._slicer.held:
                self._pull()
        return self._slicer.take_plain()

    def pin(self) -> None:
        """Demand of every later reader of the source that it finds what this one, which has read all, has found."""
        if self.rereadable:
            self.source.pinned = (self._length, self._identity())

    def park(self) -> None:  # noqa: B027 - most kinds hold nothing open that they could open again
        """Close what this reader can open again when it is read."""

    def close(self, *, streams: bool = True) -> None:
        """Close the file that was opened here, or the stream if its source has `close`.

        Args:
            streams: False leaves a stream of the caller open.
        """
        if streams and self.source.close:
            close_origin(self.source.origin)

    # --- methods of each kind --------------------------------------------------------------------------------

    @abstractmethod
    def _open(self) -> None:
        """Open the source; find out whether it can be read again, and, if possible, its length."""

    @abstractmethod
    def _rewind(self) -> None:
        """Return to the start; only called if the source can be read again."""

    @abstractmethod
    def _next(self, size: int) -> Any:
        """Return about `size` octets, fewer or more; empty at the end."""

    def _identity(self) -> tuple[int, ...]:
        """Return by what a file is known again; nothing if it has only its length."""
        return ()

    def _goes_to_start(self) -> bool:
        """Tell whether the octets before `start` are skipped by seeking, not by reading."""
        return self.rereadable

    # --- reading ---------------------------------------------------------------------------------------------

    def _settle_length(self) -> None:
        if self._length is not None and self._length < 0:
            raise FileError(f"{described(self.source)} ends before the position where reading is to start")
        if isinstance(self.source, RawSource):
            self.source.demand_unchanged(self._length)
        if self.source.pinned is not None:
            length, identity = self.source.pinned
            if self._length not in (None, length) or self._identity() != identity:
                raise FileError(f"{described(self.source)} was changed since the message was signed")
            self._length = length
        self.source.length = self._length

    def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            if not self.rereadable:
                mark_read(self.source)

    def _fill(self, until: float) -> None:
        while self._slicer.wanted > 0 and not self._slicer.ended:
            self._pull()
            if monotonic() > until:
                return

    def _pull(self) -> None:
        slicer = self._slicer
        slicer.add(octets(self._next(slicer.wanted)))
        if slicer.ended:
            # The length must be the same at the next reading.
            self._length = slicer.count


class PathReader(Reader):
    """A file that this reader opens."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._path: Any = source.origin
        self._file: FileIO | None = None
        self._status: tuple[int, ...] = ()

    def _open(self) -> None:
        self._file = file = FileIO(os.fspath(self._path), "rb")
        status = os.fstat(file.fileno())
        self.rereadable = stat.S_ISREG(status.st_mode)
        if not self.rereadable:
            return
        self._status = _file_identity(status)
        # Some systems have files whose size is given as 0, but which are not empty.
        if status.st_size or not file.read(1):
            self._length = status.st_size - self.source.start
        file.seek(self.source.start)

    def _rewind(self) -> None:
        if self._file is not None:
            self._file.seek(self.source.start)

    def _next(self, size: int) -> Any:
        if self._file is None:
            self._file = self._reopened()
        return self._file.read(size)

    def _reopened(self) -> FileIO:
        file = FileIO(os.fspath(self._path), "rb")
        try:
            if _file_identity(os.fstat(file.fileno())) != self._status:
                raise FileError(f"{described(self.source)} was changed since it was measured")
            file.seek(self.source.start)
        except BaseException:
            file.close()
            raise
        return file

    def _identity(self) -> tuple[int, ...]:
        return self._status

    def park(self) -> None:
        if self.rereadable and not self.begun:
            self.close()

    def close(self, *, streams: bool = True) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


class FileReader(Reader):
    """A file object of the caller."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._claim: Claim | None = None
        self._place = 0
        self._file: Any = source.origin
        self._read = _read_of(source.origin)

    def _open(self) -> None:
        if getattr(self._file, "closed", False):
            raise FileError(f"{described(self.source)} is closed")
        self._claim = claim = Claim.of(self._file)
        with claim.lock:
            # Raises if the file is not open for reading; the result shows text mode.
            octets(self._file.read(0))
        self.rereadable = claim.first is not None
        if self.rereadable:
            self._length = claim.length - self.source.start
            self._rewind()
            return
        require_unread(self.source)
        if claim.users > 1:
            raise FileError(f"{described(self.source)} is being read for another message")

    def _rewind(self) -> None:
        assert self._claim is not None and self._claim.first is not None
        self._place = self._claim.first + self.source.start

    def _next(self, size: int) -> Any:
        claim = self._claim
        assert claim is not None
        if claim.first is None:
            return self._read(size)
        with claim.lock:
            self._file.seek(self._place)
            data = octets(self._read(size))
        self._place += len(data)
        return data

    def close(self, *, streams: bool = True) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.leave(close=streams and self.source.close)
        elif not self._opened:
            super().close(streams=streams)


class IterableReader(Reader):
    """An iterator, or an iterable that can be iterated several times."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._origin: Any = source.origin
        self._iterator: Iterator[Any] = iter(())

    def _open(self) -> None:
        self._iterator = iter(self._origin)
        self.rereadable = self._iterator is not self._origin
        if not self.rereadable:
            require_unread(self.source)
        elif isinstance(self._origin, list | tuple):
            self._length = sum([len(octets(chunk)) for chunk in self._origin]) - self.source.start

    def _rewind(self) -> None:
        self._iterator = iter(self._origin)

    def _next(self, size: int) -> Any:
        for chunk in self._iterator:
            data = octets(chunk)
            if data:
                return data
        return b""

    def _goes_to_start(self) -> bool:
        return False

    def close(self, *, streams: bool = True) -> None:
        iterator, self._iterator = self._iterator, iter(())
        # A generator that was begun cannot be continued by another reader, and may hold a file open.
        if self.begun and isinstance(iterator, Generator):
            with suppress(Exception):
                iterator.close()
        super().close(streams=streams)


class KeptReader(Reader):
    """A copy on disk of a source that can be read only once.

    Args:
        source: the source that is copied.
        temp_dir: directory of the copy; None for the system's directory of temporary files.
    """

    rereadable = True

    def __init__(self, source: Source, temp_dir: str | os.PathLike[str] | None) -> None:
        super().__init__(source)
        self._temp_dir = temp_dir
        with as_file_error(source):
            self._open()
        self._opened = self.begun = True

    def copy(self, original: Reader) -> bool:
        """Copy about a MiB; return whether there may be more."""
        count = 0
        until = monotonic() + PATIENCE
        while count < _COPY and monotonic() < until:
            data = original.pull()
            if not data:
                return False
            self.write(data)
            count += len(data)
        return True

    def write(self, data: bytes) -> None:
        """Append octets."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._file.write(view) :]
            except OSError as error:
                text = f"{described(self.source)} cannot be kept for a second reading: {error}"
                raise FileError(text) from error

    def seal(self) -> None:
        """End the copy, and open it at its start."""
        self._length = self.source.length = self._file.tell()
        self.open()

    def _open(self) -> None:
        # Mode 0600 and without a name; on systems without unnamed files it is deleted with its last handle.
        from tempfile import TemporaryFile  # loads the archive formats of shutil, which few programs need

        self._file = TemporaryFile(dir=self._temp_dir, buffering=0)

    def _rewind(self) -> None:
        self._file.seek(0)

    def _next(self, size: int) -> Any:
        return self._file.read(size)

    def close(self, *, streams: bool = True) -> None:
        self._file.close()


def blocking_reader(source: Source) -> Reader:
    """Return the reader for `source`, which is not an async iterable.

    Raises:
        InvalidArgument: the origin is not of a kind that can be read.
    """
    origin: Any = source.origin
    if isinstance(origin, os.PathLike):
        return PathReader(source)
    if hasattr(origin, "read"):
        return FileReader(source)
    if isinstance(origin, Iterable) and not isinstance(origin, str | bytes | bytearray | memoryview):
        return IterableReader(source)
    hint = ": a path is a pathlib.Path" if isinstance(origin, str) else ""
    raise InvalidArgument(
        f"a {type(origin).__name__} is neither a path, a binary file object nor an iterable of bytes{hint}"
    )


def close_origin(origin: Any) -> None:
    """Close an object of the caller, if it has a `close` without await; a failure after the transfer is ignored."""
    close = getattr(origin, "close", None)
    # A file of an async library has a `close`, too, but it must be awaited.
    if close is not None and not isinstance(origin, os.PathLike) and not hasattr(origin, "__aiter__"):
        with suppress(Exception):
            close()


def _read_of(file: Any) -> Callable[[int], Any]:
    # A buffered `read` waits until it has all the octets, so `read1` is preferred.
    read: Callable[[int], Any] = file.read1 if isinstance(file, BufferedIOBase) else file.read
    return read


def _file_identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
