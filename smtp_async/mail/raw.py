"""Reads a whole message from a stream, and makes a `Mail` of it.

Strategy. The header is read first, for envelope and Bcc, and kept in memory. A source that can be read again is read
once to its end, in a thread, to find out which extensions its body needs and how long it is with CRLF as line ending,
because MAIL declares both. A source that can be read only once is read from the end of the header on while it is sent:
its size is unknown, it may be 8-bit if the server offers 8BITMIME, and its octets are checked before they are sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Self

from ..errors import InvalidHeader
from ..message.foreign_mail import ForeignMail, mail_of_bytes
from ..message.header_parser import EMPTY_LINE, LINE_END
from ..model.address import Address
from ..model.content import Content, Origin, Source
from ..model.envelope import Envelope, Recipient
from ..protocol.options import SMALL_BODY
from ..sources import AsyncReader, LineScan, RawSource, Reader, ThreadWork, close_origin, reader_of

if TYPE_CHECKING:
    from anyio import CapacityLimiter

__all__ = ["MOST_HEADER", "RawMail", "raw_mail"]

#: Maximum of octets of a header, with its empty line.
MOST_HEADER: Final = 1 << 20
#: Octets that a thread scans at once.
_SCAN_SIZE: Final = 1 << 20

# Empty lines, the name of a field, and its colon.
_LEADING: Final = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]++([!-9;-~]*+)[ \t]*+(:?)")


async def raw_mail(
    source: bytes | Origin,
    *,
    exact: bool = False,
    remove_bcc: bool = True,
    close: bool = False,
    limiter: CapacityLimiter | None = None,
) -> ForeignMail | RawMail:
    """Return a whole message as mail; read the header of a stream, and the body once if the stream can be read again.

    Bytes need no waiting. A small file is read to its end and kept as bytes.

    Args:
        source: header, empty line, body, as bytes or in a source; a file object is read from its present position.
        exact: remove Bcc and change nothing else; otherwise bare CR and LF become CRLF.
        remove_bcc: remove Bcc and Resent-Bcc with their folded lines.
        close: close the stream after the transfer, and when it fails.
        limiter: limits the running threads; by default the library's limiter of the event loop.

    Raises:
        FileError: the stream cannot be opened or read.
        InvalidHeader: the header does not end within a MiB.
        InvalidArgument: the source is not of a kind that can be read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return mail_of_bytes(bytes(source), exact=exact, remove_bcc=remove_bcc)
    reader = reader_of(Source(source, encoding="identity", close=close))
    head = _Head()
    if isinstance(reader, AsyncReader):
        origin, scan = await _awaited(reader, head), None
    else:
        origin, scan = await _Survey(reader, head, limiter).run()
    mail = mail_of_bytes(bytes(head.data), exact=exact, remove_bcc=remove_bcc)
    if origin is None:
        return mail
    return RawMail(
        mail, origin, start=len(head.data), scan=scan, exact=exact, close=close, ahead=bytes(head.rest)
    )


class RawMail:
    """A message whose body is read while it is sent: a `Mail` whose envelope is given, or read from its header."""

    __slots__ = ("_ahead", "_close", "_exact", "_head", "_origin", "_scan", "_start", "_content_taken")

    def __init__(
        self,
        head: ForeignMail,
        origin: Origin,
        *,
        start: int,
        scan: LineScan | None,
        exact: bool,
        close: bool,
        ahead: bytes = b"",
    ) -> None:
        self._head = head
        self._origin = origin
        self._start = start
        #: The scan of the body by its first reading, None if it was not read.
        self._scan = scan
        #: The scan of the beginning of the body, if only that was read.
        self._ahead = LineScan()
        if scan is None:
            self._ahead.feed(ahead)
        self._exact = exact
        self._close = close
        # Whether `content` was called: then the stream is closed with the content, unless that must be awaited.
        self._content_taken = False

    def envelope(
        self,
        sender: str | Address | None = None,
        recipients: Iterable[str | Address | Recipient] | None = None,
    ) -> Envelope:
        """Return the envelope; see `ForeignMail.envelope`."""
        return self._head.envelope(sender, recipients)

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        """Return the content for a server with or without 8BITMIME, SMTPUTF8 and BINARYMIME.

        A body that was not read to its end is assumed to need 8BITMIME if the server offers it, and BINARYMIME if it
        must be sent unchanged. Without these extensions, the body needs what its beginning needs, and sending stops
        if a later part would have needed them.
        """
        self._content_taken = True
        if self._scan is None:
            ahead = self._ahead
            eightbit = eightbit or ahead.eightbit
            binary = (binary and self._exact) or ahead.nul or ahead.overlong or (self._exact and ahead.bare)
            source = RawSource(self._origin, close=True, eightbit=eightbit, binary=binary, exact=self._exact)
            return self._with(source, eightbit=eightbit, binary=binary)
        scan = self._scan
        size = scan.octets if self._exact else scan.normalised_size
        source = RawSource(
            self._origin, start=self._start, close=self._close, found=scan.octets, travels=size
        )
        return self._with(
            source,
            eightbit=scan.eightbit,
            binary=scan.nul or scan.overlong or (self._exact and not scan.only_crlf),
        )

    def _with(self, source: Source, *, eightbit: bool, binary: bool) -> Content:
        head = self._head.content()
        return Content(
            (head.join(), source),
            eightbit=head.eightbit or eightbit,
            utf8=head.utf8,
            binary=head.binary or binary,
            exact=self._exact,
            message_id=head.message_id,
            # Line endings are corrected while the body is read.
            canonical=not self._exact,
        )

    def close(self) -> None:
        """Close the stream of a message that is not sent, if `close` is set, without waiting.

        After `content` this does nothing, because the stream is closed with the content.
        """
        if self._content_taken:
            return
        if isinstance(self._origin, _AsyncBody | _Body):
            self._origin.close()
        elif self._close:
            close_origin(self._origin)

    async def aclose(self) -> None:
        """Close the stream, and await the end of an async generator."""
        self.close()
        if isinstance(self._origin, _AsyncBody):
            await self._origin.aclose()


# --- reading ------------------------------------------------------------------------------------------------


class _Head:
    """Finds the end of a header in a stream of octets.

    Attributes:
        data: the header, with its empty line if it was found; the whole message if all of it was read.
        rest: octets behind the header.
        ended: the stream has ended.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.rest = bytearray()
        self.ended = False
        self._searched = 0

    def feed(self, data: bytes) -> bool:
        """Add the next octets, empty at the end; return whether the header is complete.

        Raises:
            InvalidHeader: the header is too large.
        """
        room = MOST_HEADER + 1 - len(self.data)
        self.data += data[:room]
        self.ended = not data
        end = self._end()
        if (len(self.data) if end is None else end) > MOST_HEADER:
            raise InvalidHeader(f"the header has no empty line within {MOST_HEADER} octets")
        if end is None or self.ended:  # `data` is the whole message
            return self.ended
        self.rest = self.data[end:] + data[room:]
        del self.data[end:]
        return True

    @property
    def wants_more(self) -> bool:
        """Whether more octets behind the header are needed."""
        return not self.ended and len(self.rest) <= SMALL_BODY

    def take_ahead(self, data: bytes) -> None:
        """Add octets behind the header, empty at the end."""
        self.rest += data
        if not data:
            self.data += self.rest
            self.ended = True

    def _end(self) -> int | None:
        """Return the position of the body, None while it is not known."""
        leading = _LEADING.match(self.data)
        if leading is not None and leading.end() == len(self.data) and not (leading[2] or self.ended):
            return None  # it is not known yet whether a field follows the empty lines
        begin = leading.end() if leading is not None and leading[1] and leading[2] else 0
        found = None if begin else LINE_END.match(self.data)
        found = found or EMPTY_LINE.search(self.data, max(begin, self._searched))
        if found is None:
            self._searched = max(0, len(self.data) - 3)
            return None
        # The LF of this line ending may come with the next octets.
        open_cr = found.end() == len(self.data) and found[0].endswith(b"\r")
        return None if open_cr and not self.ended else found.end()


class _Survey(ThreadWork):
    """The first reading of a stream, in threads."""

    def __init__(self, reader: Reader, head: _Head, limiter: CapacityLimiter | None) -> None:
        super().__init__(limiter)
        self._reader = reader
        self._head = head
        self._scan = LineScan()

    async def run(self) -> tuple[Origin | None, LineScan | None]:
        """Return the origin of the body, None if it was joined to the header, and its scan if it was read."""
        try:
            await self.in_thread(self._begin)
            if self._head.ended:
                self.close()
                return None, None
            if not self._reader.rereadable:
                return _Body(bytes(self._head.rest), self._reader), None
            while await self.in_thread(self._scan_more):
                pass
        except BaseException:
            self.close()
            raise
        self.close(streams=False)
        return self._reader.source.origin, self._scan

    def _begin(self) -> None:
        reader, head = self._reader, self._head
        reader.open()
        while not head.feed(reader.pull()):
            pass
        length = reader.source.length
        if not reader.rereadable:
            while head.wants_more:
                head.take_ahead(reader.pull())
            return
        if length is not None and length <= SMALL_BODY:
            head.data += head.rest
            while data := reader.pull():
                head.data += data
            head.ended = True
        else:
            self._scan.feed(bytes(head.rest))

    def _scan_more(self) -> bool:
        until = self._scan.octets + _SCAN_SIZE
        while self._scan.octets < until:
            data = self._reader.pull()
            if not data:
                return False
            self._scan.feed(data)
        return True

    def _close_files(self, *, streams: bool) -> None:
        self._reader.close(streams=streams)


async def _awaited(reader: AsyncReader, head: _Head) -> Origin | None:
    """Read the header of an async iterable; return the origin of the body, None if there is no body."""
    try:
        reader.open()
        while not head.feed(await reader.pull()):
            pass
        while head.wants_more:
            head.take_ahead(await reader.pull())
    except BaseException:
        await reader.aclose()
        raise
    if not head.ended:
        return _AsyncBody(bytes(head.rest), reader)
    await reader.aclose()
    return None


class _Body:
    """The body of a stream that cannot be read again: octets that were read with the header, and the rest."""

    def __init__(self, first: bytes, reader: Reader) -> None:
        self._first = first
        self._reader = reader

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        first, self._first = self._first, b""
        data = first or self._reader.pull()
        if not data:
            raise StopIteration
        return data

    def close(self) -> None:
        """Close the file that the reader opened, or the stream if its source has `close`."""
        self._reader.close()


class _AsyncBody:
    """The body of an async iterable: octets that were read with the header, and the rest."""

    def __init__(self, first: bytes, reader: AsyncReader) -> None:
        self._first = first
        self._reader = reader

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, b""
        data = first or await self._reader.pull()
        if not data:
            raise StopAsyncIteration
        return data

    def close(self) -> None:
        """Close what needs no waiting."""
        self._reader.close()

    async def aclose(self) -> None:
        """End a generator, and close the stream if its source has `close`."""
        await self._reader.aclose()
