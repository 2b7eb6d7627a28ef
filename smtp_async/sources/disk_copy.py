"""Copies a source that can be read only once to a temporary file, which has no name and no other reader."""

from __future__ import annotations

import os
from functools import partial
from typing import IO

from ..errors import FileError
from ..model.content import Source
from .source_errors import described
from .worker import ThreadWork

__all__ = ["DiskCopy"]


class DiskCopy(ThreadWork):
    """A copy of the octets of one source, which is written in threads.

    Args:
        source: what is copied.
        temp_dir: the directory of the copy; None for the system's directory of temporary files.
    """

    def __init__(self, source: Source, temp_dir: str | os.PathLike[str] | None) -> None:
        super().__init__()
        self._source = source
        self._temp_dir = temp_dir
        self._file: IO[bytes] | None = None
        self._octets = 0

    async def write(self, data: bytes) -> None:
        """Append octets, encoded as they travel.

        Raises:
            FileError: the file cannot be made, or there is no room for them.
        """
        await self.in_thread(partial(self._write, data))

    async def seal(self) -> Source:
        """End the copy, and return it as a source, which is closed after the transfer.

        Raises:
            FileError: as `write`.
        """
        file = await self.in_thread(self._seal)
        copy = Source(file, encoding="identity", name=self._source.name, close=True)
        copy.length = self._octets
        return copy

    def _write(self, data: bytes) -> None:
        try:
            self._opened().write(data)
        except OSError as error:
            raise self._error(error) from error
        self._octets += len(data)

    def _seal(self) -> IO[bytes]:
        try:
            file = self._opened()
            file.flush()
            file.seek(0)
        except OSError as error:
            raise self._error(error) from error
        return file

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            # Mode 0600 and without a name; on systems without unnamed files it is deleted with its last handle.
            from tempfile import TemporaryFile  # as in `readers`

            self._file = TemporaryFile(dir=self._temp_dir)
        return self._file

    def _close_files(self, *, streams: bool) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _error(self, error: OSError) -> FileError:
        return FileError(f"{described(self._source)} cannot be kept for a second reading: {error}")
