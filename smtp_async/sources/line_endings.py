"""Octets that are sent unencoded: finds their line endings, and the extensions they need, while they are read.

Strategy. Each call counts in a whole slice; an open end of a slice (a CR, an incomplete line) is carried over to the
next slice. So the result does not depend on how the octets are sliced.
"""

from __future__ import annotations

from ..errors import ExtensionMissing
from ..model.content import Origin, Source
from ..model.octets import MAX_LINE, crlf, only_crlf

__all__ = ["LineGuard", "LineMender", "LineScan", "RawSource"]


class LineScan:
    """Scans a stream of octets that begins at the start of a line.

    Args:
        ends: count the line endings, too, which takes most of the time.

    Attributes:
        octets: number of octets.
        eightbit: there were octets above 127.
        nul: there were NUL octets.
        overlong: a line was longer than 998 octets without its line ending (CRLF, CR or LF).
    """

    __slots__ = ("_crs", "_ends", "_last", "_lfs", "_pairs", "_run", "eightbit", "nul", "octets", "overlong")

    def __init__(self, *, ends: bool = True) -> None:
        self._ends = ends
        self.octets = 0
        self.eightbit = self.nul = self.overlong = False
        # Counted only in pieces with other line endings than CRLF.
        self._crs = self._lfs = self._pairs = 0
        self._last = b""
        # Octets since the last line ending.
        self._run = 0

    def feed(self, data: bytes) -> None:
        """Scan the next octets."""
        if not data:
            return
        self.octets += len(data)
        if not data.isascii():
            self.eightbit = True
        if b"\0" in data:
            self.nul = True
        if self._last != b"\r" and not data.endswith(b"\r") and only_crlf(data):
            # No count is needed: there are as many CRs as LFs and as pairs.
            self._measure(data, MAX_LINE + 1)
        else:
            if self._ends:
                self._crs += data.count(b"\r")
                self._lfs += data.count(b"\n")
                self._pairs += data.count(b"\r\n") + (self._last == b"\r" and data.startswith(b"\n"))
            self._measure(data.replace(b"\r", b"\n"), MAX_LINE)
        self._last = data[-1:]

    def _measure(self, data: bytes, limit: int) -> None:
        """Measure the lines of `data`.

        Args:
            data: octets whose lines all end in LF, or all in CRLF.
            limit: maximum of octets of a line before its LF.
        """
        if self.overlong:
            return
        # A line must end within the limit. The last line ending in that window serves as well as the first, and needs
        # one step for every 998 octets, not for every line.
        position = -self._run
        while len(data) - position > limit:
            found = data.rfind(b"\n", max(position, 0), position + limit + 1)
            if found < 0:
                self.overlong = True
                break
            position = found + 1
        end = data.rfind(b"\n")
        self._run = len(data) - end - 1 if end >= 0 else self._run + len(data)
        self.overlong = self.overlong or self._run > MAX_LINE

    @property
    def bare(self) -> bool:
        """Whether there was a CR without LF, or an LF without CR; a CR at the end may still get its LF."""
        open_cr = self._last == b"\r"
        return self._crs - open_cr > self._pairs or self._lfs > self._pairs

    @property
    def ended(self) -> bool:
        """Whether the last line had a line ending of any kind."""
        return self._last in (b"", b"\r", b"\n")

    @property
    def only_crlf(self) -> bool:
        """Whether all line endings were CRLF; a CR at the end is not."""
        return self._crs == self._lfs == self._pairs

    @property
    def normalised_size(self) -> int:
        """Octets after all line endings have become CRLF, one at the end included."""
        return self.octets + self._crs + self._lfs - 2 * self._pairs + (0 if self.ended else 2)


class LineGuard:
    """Stops a stream that needs an extension which MAIL did not declare.

    Args:
        eightbit: octets above 127 are allowed.
        exact: bare CR and LF are not allowed; otherwise they become CRLF.
    """

    __slots__ = ("_eightbit", "_exact", "_scan")

    def __init__(self, *, eightbit: bool, exact: bool) -> None:
        self._eightbit = eightbit
        self._exact = exact
        self._scan = LineScan(ends=exact)

    def check(self, data: bytes) -> None:
        """Check the next octets before they are sent.

        Raises:
            ExtensionMissing: the octets need 8BITMIME or BINARYMIME.
        """
        scan = self._scan
        scan.feed(data)
        if scan.eightbit and not self._eightbit:
            raise ExtensionMissing("the stream has octets above 127, for which the server offers no 8BITMIME")
        if scan.nul or scan.overlong or (self._exact and scan.bare):
            raise ExtensionMissing(
                "the stream has bare CR or LF, NUL or overlong lines and would have needed BINARYMIME"
            )

    def end(self) -> None:
        """Check the end of the stream.

        Raises:
            ExtensionMissing: the stream ended in a bare CR.
        """
        if self._exact and not self._scan.only_crlf:
            raise ExtensionMissing("the stream ends in a bare CR and would have needed BINARYMIME")


class LineMender:
    """Changes every line ending of a stream to CRLF, as `octets.normalised` does for octets in memory."""

    __slots__ = ("_cr", "_ended")

    def __init__(self) -> None:
        # A CR waits for the next octet.
        self._cr = False
        self._ended = True

    def mend(self, data: bytes) -> bytes:
        """Return the next octets with CRLF as line ending."""
        if self._cr:
            data = b"\r" + data
        self._cr = data.endswith(b"\r")
        if self._cr:
            data = data[:-1]
        if not data:
            return b""
        self._ended = data.endswith((b"\r", b"\n"))
        return crlf(data)

    def end(self) -> bytes:
        """Return the line ending that the stream lacks at its end, or nothing; may be called again."""
        tail = b"\r\n" if self._cr or not self._ended else b""
        self._cr, self._ended = False, True
        return tail


class RawSource(Source):
    """A source of octets that are sent unencoded, with CRLF for every line ending.

    Either the source was read before, so that its size is known, or it is checked while it is sent.

    Args:
        origin, start, close: see `Source`.
        found: octets behind `start`, if the source was read before.
        travels: octets to send, with changed line endings, if the source was read before.
        eightbit: octets above 127 are allowed.
        binary: all octets are allowed.
        exact: line endings are not changed.
    """

    __slots__ = ("_found", "_guarded", "_mended", "_travels")

    def __init__(
        self,
        origin: Origin,
        *,
        start: int = 0,
        close: bool = False,
        found: int | None = None,
        travels: int | None = None,
        eightbit: bool = False,
        binary: bool = False,
        exact: bool = False,
    ) -> None:
        super().__init__(origin, encoding="identity", start=start, close=close)
        self.length = self._found = found
        self._travels = travels
        self._guarded = None if binary or found is not None else (eightbit, exact)
        # If a line ending has to be changed, the size grows.
        self._mended = not exact and (found is None or found != travels)

    @property
    def size(self) -> int | None:
        """Octets as they are sent, None if the source was not read before."""
        return self._travels

    def guard(self) -> LineGuard | None:
        """Return a guard for one reading of the source, None if nothing has to be checked."""
        if self._guarded is None:
            return None
        eightbit, exact = self._guarded
        return LineGuard(eightbit=eightbit, exact=exact)

    def mender(self) -> LineMender | None:
        """Return a mender for one reading of the source, None if nothing has to be changed."""
        return LineMender() if self._mended else None

    def demand_unchanged(self, length: int | None) -> None:
        """Refuse another length than the first reading found.

        Raises:
            ValueError: the length has changed.
        """
        if self._found is not None and length not in (None, self._found):
            raise ValueError(f"it has {length} octets now, and had {self._found} when it was scanned")
