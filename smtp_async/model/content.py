"""The octets to send after DATA or BDAT, as segments, and the extensions that they need.

Content is made in the caller's task, before a job is queued, so that a session gets bytes that cannot fail.
It states the extensions that it needs (8BITMIME, SMTPUTF8, BINARYMIME) and its size, because MAIL declares both before
the first octet of the content is sent.

The invariant: content is CRLF-delimited and has no bare CR or LF, unless it is sent exactly as given; then `binary` is
set. Dot-stuffing is done later.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterable, Iterable
from typing import BinaryIO, Final, Literal, NamedTuple, Protocol

from ..errors import UsageError
from .envelope import Envelope
from .octets import (
    MAX_LINE,
    SLICE,
    Survey,
    base64_size,
    find,
    longest_line_exceeds,
    normalised,
    only_crlf,
    survey,
)

__all__ = ["Attached", "Content", "Mail", "Origin", "Source", "segments_of"]

#: The objects from which a `Source` can read its octets.
Origin = os.PathLike[str] | BinaryIO | Iterable[bytes] | AsyncIterable[bytes]

#: Pieces with fewer octets are joined to one segment, because one write costs less than many.
JOINED: Final = 64 * 1024

_new: Final = object.__new__
_MESSAGE_ID: Final = re.compile(rb"^message-id[ \t]*:[ \t]*(?:\r\n[ \t]+)?(<[^<>\r\n]*>)", re.I | re.M)


class Source:
    """A part of a message that is read while it is sent: the origin of its octets, and their encoding.

    Nothing is opened here (`sources/body.py` does that, before MAIL).

    Args:
        origin: a path, a binary file object, an iterable of bytes or an async iterable of bytes.
        encoding: `"base64"` (in lines of 76 characters, each with its CRLF) or `"identity"` (octets unchanged).
        name: the name in events: the file name of an attachment, empty for the body.
        start: octets to skip, counted from the position of a file object.
        close: close a file object after the transfer, also when it failed; files that the library opened are always
            closed.
        again: every iterator of an async iterable begins at its start, so that it can be read again.

    Attributes:
        length: octets before encoding; None before they were counted, and where they cannot be counted.
        pinned: what a reader has found and every later one must find, because the message was signed with it: the
            length, and of a file at a path its identity; None if nothing is demanded.
    """

    __slots__ = ("again", "close", "encoding", "length", "name", "origin", "pinned", "start")

    def __init__(
        self,
        origin: Origin,
        *,
        encoding: Literal["base64", "identity"] = "base64",
        name: str = "",
        start: int = 0,
        close: bool = False,
        again: bool = False,
    ) -> None:
        self.origin = origin
        self.encoding = encoding
        self.name = name
        self.start = start
        self.close = close
        self.again = again
        self.length: int | None = None
        self.pinned: tuple[int | None, tuple[int, ...]] | None = None

    @property
    def size(self) -> int | None:
        """Octets after encoding, None if `length` is not known."""
        if self.length is None or self.encoding == "identity":
            return self.length
        return base64_size(self.length)

    def __repr__(self) -> str:
        return f"<Source {self.name!r} {self.encoding} of {type(self.origin).__name__}>"


class Attached(NamedTuple):
    """An attachment in memory, for the events of its transfer.

    Attributes:
        name: the name in events.
        start, end: its position within the octets in memory; octets of sources are not counted.
    """

    name: str
    start: int
    end: int


class Content:
    """A message as it is sent to the server.

    Args:
        segments: the bytes in order; large or slow parts are sources.
        size: octets before dot-stuffing; by default the sum, `None` if the length of a source is not known.
        eightbit: some octets are above 127, so 8BITMIME is needed (RFC 6152).
        utf8: header fields are not ASCII, so SMTPUTF8 is needed (RFC 6531).
        binary: there are bare CR or LF, NUL, or lines over 998 octets, so BINARYMIME is needed (RFC 3030).
        message_id: the value of the Message-ID field, if known.
        canonical: every line ending, the last one included, is known to be CRLF. Other content is normalised again
            before it is sent.
        exact: bare CR and LF, and an end without CRLF, are sent unchanged; with BDAT only.
        attached: the attachments among the segments, in order, without those that are sources.

    Attributes:
        sources: the segments that are read while they are sent.
    """

    __slots__ = (
        "attached",
        "binary",
        "canonical",
        "eightbit",
        "exact",
        "message_id",
        "segments",
        "size",
        "sources",
        "utf8",
    )

    def __init__(
        self,
        segments: Iterable[bytes | Source],
        *,
        size: int | None = None,
        eightbit: bool = False,
        utf8: bool = False,
        binary: bool = False,
        message_id: str | None = None,
        canonical: bool = False,
        exact: bool = False,
        attached: tuple[Attached, ...] = (),
    ) -> None:
        self.segments = tuple(segments)
        self.sources: tuple[Source, ...] = tuple([one for one in self.segments if not isinstance(one, bytes)])
        self.attached = attached
        self.canonical = canonical
        self.exact = exact
        self.size = size
        self.eightbit = eightbit
        self.utf8 = utf8
        self.binary = binary
        self.message_id = message_id
        if size is None:
            self.measure()

    @classmethod
    def of_octets(
        cls, data: bytes, *, eightbit: bool, utf8: bool, message_id: str | None, canonical: bool
    ) -> Content:
        """Make content of one segment in memory that any server with 8BITMIME and SMTPUTF8 takes.

        The arguments are those of `__init__`, which takes 1.4 µs instead of 0.7: most messages are made here.
        """
        self = _new(cls)
        self.segments = (data,)
        self.sources = self.attached = ()
        self.size = len(data)
        self.eightbit = eightbit
        self.utf8 = utf8
        self.binary = self.exact = False
        self.message_id = message_id
        self.canonical = canonical
        return self

    @classmethod
    def of_bytes(cls, data: bytes, *, exact: bool = False) -> Content:
        """Make content of a whole message, header fields included.

        Args:
            data: the message.
            exact: change no octet; otherwise bare CR and LF become CRLF and the last line gets its CRLF.
        """
        data = bytes(data)
        if not exact:
            data = normalised(data)
        end = find(data, b"\r\n\r\n")
        return cls.of_message(data, (data if end < 0 else data[: end + 2]).lower(), exact=exact)

    @classmethod
    def of_message(
        cls, data: bytes, lowered_header: bytes, *, exact: bool, surveyed: Survey | None = None
    ) -> Content:
        """Make content of a whole message, given its header in lower case.

        Args:
            data: the message; unless it is `exact`, every line, the last one included, ends with CRLF.
            lowered_header: its header in lower case.
            exact: as for `of_bytes`.
            surveyed: what is known of the message already.
        """
        size = len(data)
        if size <= SLICE:
            # Most messages: each question about the octets is one call of a method of bytes.
            ascii_only = data.isascii()
            binary = (
                b"\0" in data
                or (size > MAX_LINE and longest_line_exceeds(data, MAX_LINE))
                or (exact and not only_crlf(data))
            )
        else:
            surveyed = surveyed or survey(data)
            assert surveyed is not None
            ascii_only = surveyed.ascii
            binary = surveyed.nul or surveyed.overlong or (exact and not surveyed.only_crlf)
        # A case-insensitive search is slow, so it begins at the position of the field name.
        place = lowered_header.find(b"message-id")
        found = _MESSAGE_ID.search(data, place, len(lowered_header)) if place >= 0 else None
        self = _new(cls)
        self.segments = (data,)
        self.sources = self.attached = ()
        self.size = size
        self.eightbit = not ascii_only
        self.utf8 = not ascii_only and not lowered_header.isascii()
        self.binary = binary
        self.message_id = found[1].decode("utf-8", "backslashreplace") if found else None
        self.canonical = not exact
        self.exact = exact
        return self

    def measure(self) -> None:
        """Add up `size`, which is None while the length of a source is not known."""
        total = 0
        for segment in self.segments:
            length = len(segment) if isinstance(segment, bytes) else segment.size
            if length is None:
                self.size = None
                return
            total += length
        self.size = total

    def join(self) -> bytes:
        """Return the whole message.

        Raises:
            UsageError: a part of the message is a source, which is read only while it is sent.
        """
        first = self.segments[0] if len(self.segments) == 1 else None
        if isinstance(first, bytes):
            return first
        whole = [segment for segment in self.segments if isinstance(segment, bytes)]
        if len(whole) != len(self.segments):
            raise UsageError(
                "a part of the message is read while it is sent, so it is not in memory as bytes"
            )
        return b"".join(whole)

    def __repr__(self) -> str:
        needs = [name for name in ("eightbit", "utf8", "binary") if getattr(self, name)]
        return f"<Content {self.size} octets{''.join(', ' + name for name in needs)}>"


def segments_of(pieces: Iterable[bytes | Source]) -> list[bytes | Source]:
    """Join small pieces with their neighbours; large ones are not copied."""
    segments: list[bytes | Source] = []
    small: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes) and len(piece) < JOINED:
            small.append(piece)
            continue
        segments += (b"".join(small), piece) if small else (piece,)
        small = []
    if small:
        segments.append(b"".join(small))
    return segments


class Mail(Protocol):
    """A message that can be sent: it has an envelope, and content for the extensions of the server."""

    def envelope(self) -> Envelope:
        """Return the address for bounces and the recipients.

        Raises:
            MissingSender, MissingRecipient: one of them is not known.
        """

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        """Return the content for a server with or without 8BITMIME, SMTPUTF8 and BINARYMIME; the same bytes each time.

        Raises:
            InvalidHeader: a header field would change the structure of the message.
            ExtensionMissing: the header cannot be written without SMTPUTF8.
        """
