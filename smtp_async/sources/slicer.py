"""Octets in chunks of any size → slices of one size, as they travel; and what was promised of them is held to."""

from __future__ import annotations

from collections import deque
from typing import Final

from ..errors import FileError
from ..model.content import Source
from ..model.octets import BASE64_SLICE, base64_lines
from .line_endings import LineGuard, LineMender, RawSource
from .source_errors import described

__all__ = ["IDENTITY_SLICE", "Slicer"]

#: Octets of a slice that travels as it is; base64 makes one of 78 KiB of `BASE64_SLICE`.
IDENTITY_SLICE: Final = 65536


class Slicer:
    """Takes the octets of one reading of a source, counts, cuts and encodes them.

    Args:
        source: what they come from.
        passing: octets to forget at the beginning.
        length: octets there must be behind those, None if that is unknown.

    Attributes:
        count: octets that came so far, without those that were forgotten.
        ended: no more will come.
        held: octets that wait.
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
        # What is encoded must end with a line, or with everything.
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
        """Octets that a full slice still lacks."""
        return self.size - self.held

    def add(self, data: bytes) -> None:
        """Take the next octets, none at the end.

        Raises:
            FileError: there are more or fewer than there must be.
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
            raise FileError(f"{described(self._source)} is shorter than where reading is to start")
        if self._length is not None and self.count < self._length:
            raise FileError(
                f"{described(self._source)} shrank since it was measured:"
                f" it has {self.count} octets instead of {self._length}"
            )

    def take(self) -> bytes:
        """Return the next slice as it travels; less than a full one if there is no more, or nothing.

        Raises:
            ExtensionMissing: the guard of a raw source stops it.
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
        """Return all octets that wait, not encoded and not guarded."""
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
