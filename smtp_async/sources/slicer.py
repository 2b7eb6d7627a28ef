"""Octets in chunks of any size → encoded slices of one size; checks the number of octets that MAIL declared."""

from __future__ import annotations

from collections import deque
from typing import Final

from ..errors import FileError
from ..model.content import Source
from ..model.octets import BASE64_SLICE, base64_lines
from .line_endings import LineGuard, LineMender, RawSource
from .source_errors import described

__all__ = ["IDENTITY_SLICE", "Slicer"]

#: Octets of an unencoded slice; base64 makes a slice of 78 KiB from `BASE64_SLICE` octets.
IDENTITY_SLICE: Final = 65536


class Slicer:
    """Counts, cuts and encodes the octets of one reading of a source.

    Args:
        source: the source of the octets.
        passing: octets to skip at the beginning.
        length: the required number of octets behind those, None if it is unknown.

    Attributes:
        count: octets so far, without those that were skipped.
        ended: the source has ended.
        held: octets that wait for the next slice.
        size: octets, before encoding, of a full slice.
    """

    __slots__ = (
        "_chunks",
        "_encode",
        "_grain",
        "_guard",
        "_length",
        "_mender",
        "_passing",
        "_source",
        "count",
        "ended",
        "held",
        "size",
    )

    def __init__(self, source: Source, *, passing: int = 0, length: int | None = None) -> None:
        base64 = source.encoding == "base64"
        self.size = BASE64_SLICE if base64 else IDENTITY_SLICE
        # An encoded slice must end at the end of a line, or of the source.
        self._grain = 57 if base64 else 1
        self._encode = base64_lines if base64 else bytes
        self._source = source
        self._passing = passing
        self._length = length
        self._chunks: deque[bytes | memoryview] = deque()
        self._guard: LineGuard | None = None
        self._mender: LineMender | None = None
        if isinstance(source, RawSource):
            self._guard, self._mender = source.guard(), source.mender()
        self.held = self.count = 0
        self.ended = False

    @property
    def wanted(self) -> int:
        """Octets that are missing for a full slice."""
        return self.size - self.held

    def add(self, data: bytes) -> None:
        """Add the next octets; empty at the end.

        Raises:
            FileError: there are more or fewer octets than required.
        """
        if not data:
            self._end()
            return
        if self._passing:
            passed = min(self._passing, len(data))
            self._passing -= passed
            data = data[passed:]
        self.count += len(data)
        if self._length is not None and self.count > self._length:
            raise FileError(
                f"{described(self._source)} grew since it was measured: then it had {self._length} octets"
            )
        if data:
            self._chunks.append(data)
            self.held += len(data)

    def _end(self) -> None:
        self.ended = True
        if self._passing:
            raise FileError(f"{described(self._source)} ends before the position where reading is to start")
        if self._length is not None and self.count < self._length:
            raise FileError(
                f"{described(self._source)} shrank since it was measured:"
                f" it has {self.count} octets instead of {self._length}"
            )

    def take(self) -> bytes:
        """Return the next slice, encoded; at the end of the octets a shorter one, or an empty one.

        Raises:
            ExtensionMissing: the guard of a raw source stops the stream.
        """
        count = min(self.held, self.size)
        if not self.ended or count < self.held:
            count -= count % self._grain
        piece = self._encode(self._cut(count)) if count else b""
        if self._guard is not None:
            self._guard.check(piece)
        if self.ended and not self.held:
            return self._last(piece)
        return piece if self._mender is None else self._mender.mend(piece)

    def _last(self, piece: bytes) -> bytes:
        if self._guard is not None:
            self._guard.end()
        return piece if self._mender is None else self._mender.mend(piece) + self._mender.end()

    def take_plain(self) -> bytes:
        """Return all waiting octets, neither encoded nor checked."""
        return bytes(self._cut(self.held)) if self.held else b""

    def _cut(self, count: int) -> bytes | memoryview:
        self.held -= count
        pieces: list[bytes | memoryview] = []
        while count:
            piece = self._chunks.popleft()
            if len(piece) > count:
                view = memoryview(piece)
                self._chunks.appendleft(view[count:])
                piece = view[:count]
            pieces.append(piece)
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
