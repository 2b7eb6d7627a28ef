"""Octets that travel without an encoding: their line ends and the extensions they need, found while they are read.

Strategy. Everything is counted by calls that look at a whole slice at once; what one slice leaves open (a CR at its
end, a line without an end) is carried to the next. So the result does not depend on how the octets are sliced.
"""

from __future__ import annotations

from ..errors import ExtensionMissing
from ..model.content import Origin, Source
from ..model.octets import MAX_LINE, crlf, only_crlf

__all__ = ["LineGuard", "LineMender", "LineScan", "RawSource"]


class LineScan:
    """Looks at a stream of octets that begins at the start of a line.

    Args:
        ends: count the line ends, too, which takes most of the time.

    Attributes:
        octets: how many there were.
        eightbit: one was above 127.
        nul: one was NUL.
        overlong: a line was longer than 998 octets without its end (CRLF, CR or LF).
    """

    __slots__ = ("_crs", "_ends", "_last", "_lfs", "_pairs", "_run", "eightbit", "nul", "octets", "overlong")

    def __init__(self, *, ends: bool = True) -> None:
        self._ends = ends
        self.octets = 0
        self.eightbit = self.nul = self.overlong = False
        # Counted only in pieces that hold something else than CRLF.
        self._crs = self._lfs = self._pairs = 0
        self._last = b""
        # Octets since the last line end.
        self._run = 0

    def feed(self, data: bytes) -> None:
        """Look at the next octets."""
        if not data:
            return
        self.octets += len(data)
        if not data.isascii():
            self.eightbit = True
        if b"\0" in data:
            self.nul = True
        if self._last != b"\r" and not data.endswith(b"\r") and only_crlf(data):
            # Nothing is to be counted: there are as many CRs as LFs and as pairs.
            self._measure(data, MAX_LINE + 1)
        else:
            if self._ends:
                self._crs += data.count(b"\r")
                self._lfs += data.count(b"\n")
                self._pairs += data.count(b"\r\n") + (self._last == b"\r" and data.startswith(b"\n"))
            self._measure(data.replace(b"\r", b"\n"), MAX_LINE)
        self._last = data[-1:]

    def _measure(self, data: bytes, limit: int) -> None:
        """Follow the lines of `data`.

        Args:
            data: octets whose lines all end in LF, or all in CRLF.
            limit: the most octets of a line before its LF.
        """
        if self.overlong:
            return
        # From the start of a line its end must come within the limit. The last one in that window is as good as the
        # next one and lets the search leap: one step for every 998 octets, not for every line.
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
        """Was there a CR without LF, or the reverse? A CR that came last may still get its LF."""
        open_cr = self._last == b"\r"
        return self._crs - open_cr > self._pairs or self._lfs > self._pairs

    @property
    def ended(self) -> bool:
        """Did the last line have an end, of any kind?"""
        return self._last in (b"", b"\r", b"\n")

    @property
    def only_crlf(self) -> bool:
        """Was every CR followed by LF, and every LF after one? A CR that came last was not."""
        return self._crs == self._lfs == self._pairs

    @property
    def normalised_size(self) -> int:
        """Octets when every line end has become CRLF, and the last line has one."""
        return self.octets + self._crs + self._lfs - 2 * self._pairs + (0 if self.ended else 2)


class LineGuard:
    """Stops a stream that needs what its message did not ask the server for.

    Args:
        eightbit: octets above 127 may pass.
        exact: bare CR and LF may not pass; else they become CRLF on their way.
    """

    __slots__ = ("_eightbit", "_exact", "_scan")

    def __init__(self, *, eightbit: bool, exact: bool) -> None:
        self._eightbit = eightbit
        self._exact = exact
        self._scan = LineScan(ends=exact)

    def check(self, data: bytes) -> None:
        """Look at the next octets, before they are sent.

        Raises:
            ExtensionMissing: they need 8BITMIME or BINARYMIME.
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
        """The stream has ended.

        Raises:
            ExtensionMissing: with a bare CR.
        """
        if self._exact and not self._scan.only_crlf:
            raise ExtensionMissing("the stream ends in a bare CR and would have needed BINARYMIME")


class LineMender:
    """Makes every line end of a stream CRLF, as `content.normalised` does of the whole."""

    __slots__ = ("_cr", "_ended")

    def __init__(self) -> None:
        # A CR waits for what follows it.
        self._cr = False
        self._ended = True

    def mend(self, data: bytes) -> bytes:
        """Return what becomes of the next octets."""
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
        """Return the line end that is missing at the end of the stream, if it is; call it once or more."""
        tail = b"\r\n" if self._cr or not self._ended else b""
        self._cr, self._ended = False, True
        return tail


class RawSource(Source):
    """A source of octets that travel as they are, but for line ends, which become CRLF.

    Either it was read before, and then it is known what becomes of it; or it is looked at on its way.

    Args:
        origin, start, close: see `Source`.
        found: octets behind `start`, if it was read before.
        travels: how many become of them, if it was read before.
        eightbit: octets above 127 may pass.
        binary: everything may pass.
        exact: line ends stay as they are.
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
        # If there is anything to mend, it becomes longer.
        self._mended = not exact and (found is None or found != travels)

    @property
    def size(self) -> int | None:
        """Octets as they travel, None if they were not read yet."""
        return self._travels

    def guard(self) -> LineGuard | None:
        """Return what looks at one reading of it, None if there is nothing to look for."""
        if self._guarded is None:
            return None
        eightbit, exact = self._guarded
        return LineGuard(eightbit=eightbit, exact=exact)

    def mender(self) -> LineMender | None:
        """Return what mends one reading of it, None if there is nothing to mend."""
        return LineMender() if self._mended else None

    def demand_unchanged(self, length: int | None) -> None:
        """Refuse another length than the first reading found.

        Raises:
            ValueError: it is another.
        """
        if self._found is not None and length not in (None, self._found):
            raise ValueError(f"it has {length} octets now, and had {self._found} when it was looked at")
