"""What is sent after DATA or BDAT: a plan of segments, and what it asks of the server.

Content is made in the caller's task, before a job is queued, so that a session gets bytes that cannot fail.
It says what it needs (8BITMIME, SMTPUTF8, BINARYMIME) and how long it is, because MAIL tells both before its
first byte leaves.

The invariant: content is CRLF-delimited and holds no bare CR or LF, unless it was taken exactly as given, and
then `binary` says so. Dot-stuffing is not its business.
"""

from __future__ import annotations

import binascii
import os
import re
import struct
from collections.abc import AsyncIterable, Iterable
from typing import BinaryIO, Final, Literal, NamedTuple, Protocol

from ..errors import UsageError
from .envelope import Envelope

__all__ = [
    "Attached",
    "Content",
    "Mail",
    "Origin",
    "Source",
    "base64_lines",
    "base64_size",
    "crlf",
    "longest_line_exceeds",
    "normalised",
]

#: Where the octets of a `Source` may be.
Origin = os.PathLike[str] | BinaryIO | Iterable[bytes] | AsyncIterable[bytes]

#: RFC 5321 section 4.5.3.1.6: octets of a line without its CRLF.
MAX_LINE: Final = 998

# 57 octets become a line of 76 characters (RFC 2045 section 6.8). A struct cuts a thousand lines in one call.
_LINES: Final = 1024
#: Octets that become a whole number of base64 lines in one go.
BASE64_SLICE: Final = 57 * _LINES
_CUT: Final = struct.Struct("76s" * _LINES).unpack

_MESSAGE_ID: Final = re.compile(rb"^message-id[ \t]*:[ \t]*(?:\r\n[ \t]+)?(<[^<>\r\n]*>)", re.I | re.M)


class Source:
    """A part of a message that is read while it is sent: where its octets are, and how they travel.

    A plan only: nothing is opened here (`sources/body.py` does that, before MAIL).

    Args:
        origin: a path, a binary file object, an iterable of bytes or an async iterable of bytes.
        encoding: `"base64"` (in lines of 76 characters, each with its CRLF) or `"identity"` (octets as they are).
        name: what events call it: the file name of an attachment, empty for the body.
        start: octets to pass over at the beginning, counted from where a file object stands.
        close: close a file object after the transfer, also when it failed; what was opened here is always closed.

    Attributes:
        length: octets before encoding; None until it was measured, and where that is not possible.
    """

    __slots__ = ("close", "encoding", "length", "name", "origin", "start")

    def __init__(
        self,
        origin: Origin,
        *,
        encoding: Literal["base64", "identity"] = "base64",
        name: str = "",
        start: int = 0,
        close: bool = False,
    ) -> None:
        self.origin = origin
        self.encoding = encoding
        self.name = name
        self.start = start
        self.close = close
        self.length: int | None = None

    @property
    def size(self) -> int | None:
        """Octets as they travel, None if `length` is not known."""
        if self.length is None or self.encoding == "identity":
            return self.length
        return base64_size(self.length)

    def __repr__(self) -> str:
        return f"<Source {self.name!r} {self.encoding} of {type(self.origin).__name__}>"


class Attached(NamedTuple):
    """An attachment that is in memory, for those who are told what leaves.

    Attributes:
        name: what events call it.
        start, end: where it is within the octets that are in memory; those of sources do not count.
    """

    name: str
    start: int
    end: int


class Content:
    """A message as it has to reach the server.

    Args:
        segments: the bytes in order; large or slow parts are sources.
        size: octets before dot-stuffing; by default the sum, `None` if a source does not know.
        eightbit: it holds octets above 127, so 8BITMIME is needed (RFC 6152).
        utf8: its header fields are not ASCII, so SMTPUTF8 is needed (RFC 6531).
        binary: it holds bare CR or LF, NUL, or lines over 998 octets, so BINARYMIME is needed (RFC 3030).
        message_id: the value of its Message-ID field, if known.
        canonical: whoever made it saw to it that every line end is CRLF, the last one included. Content that does not
            say so is looked at again before it is sent.
        exact: bare CR and LF, and an end without CRLF, leave as they are; with BDAT only.
        attached: the attachments among the segments, in order, but for those that are sources.
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
    def of_bytes(cls, data: bytes, *, exact: bool = False) -> Content:
        """Make content of a whole message, header fields included.

        Args:
            data: the message.
            exact: leave every octet as it is; else bare CR and LF become CRLF and the last line gets its end.
        """
        data = bytes(data)
        if not exact:
            data = normalised(data)
        end = data.find(b"\r\n\r\n")
        head = data if end < 0 else data[:end]
        match = _MESSAGE_ID.search(head)
        return cls(
            (data,),
            eightbit=not data.isascii(),
            utf8=not head.isascii(),
            binary=(exact and not _only_crlf(data)) or b"\0" in data or longest_line_exceeds(data, MAX_LINE),
            message_id=match[1].decode("utf-8", "backslashreplace") if match else None,
            canonical=not exact,
            exact=exact,
        )

    @property
    def sources(self) -> tuple[Source, ...]:
        """The parts that are read while they are sent."""
        return tuple([segment for segment in self.segments if not isinstance(segment, bytes)])

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
            UsageError: a part of it is a source, which only sending reads.
        """
        if len(self.segments) == 1 and isinstance(self.segments[0], bytes):
            return self.segments[0]
        whole = [segment for segment in self.segments if isinstance(segment, bytes)]
        if len(whole) != len(self.segments):
            raise UsageError(
                "a part of the message is read while it is sent, so it is not in memory as bytes"
            )
        return b"".join(whole)

    def __repr__(self) -> str:
        needs = [name for name in ("eightbit", "utf8", "binary") if getattr(self, name)]
        return f"<Content {self.size} octets{''.join(', ' + name for name in needs)}>"


class Mail(Protocol):
    """What can be sent: it has an envelope, and content made for what the server offers."""

    def envelope(self) -> Envelope:
        """Return where bounces go and who gets it.

        Raises:
            MissingSender, MissingRecipient: one of them is not known.
        """

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        """Return the content for a server with or without 8BITMIME, SMTPUTF8 and BINARYMIME; the same bytes each time.

        Raises:
            InvalidHeader: a header field would change the structure of the message.
            ExtensionMissing: it cannot be written without SMTPUTF8.
        """


def normalised(data: bytes) -> bytes:
    r"""Return `data` with every line end, bare CR and bare LF included, as CRLF, the last one added.

    A server that takes a bare LF for a line end would see another message in `\n.\n` (SMTP smuggling).
    Nothing is copied when nothing is to be done.
    """
    data = crlf(data)
    return data if data.endswith(b"\r\n") or not data else data + b"\r\n"


def crlf(data: bytes) -> bytes:
    """Return `data` with every line end, bare CR and bare LF included, as CRLF; nothing is added at the end."""
    if _only_crlf(data):
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def longest_line_exceeds(data: bytes, limit: int) -> bool:
    """Tell whether a line of CRLF-delimited `data` is longer than `limit` octets without its CRLF."""
    # From the start of a line its end must be found within limit + 2; the last line end in that window is as
    # good as the next one and lets the search leap: one step for every `limit` octets, not for every line.
    position, width = 0, limit + 2
    while len(data) - position > limit:
        found = data.rfind(b"\n", position, position + width)
        if found < 0:
            return True
        position = found + 1
    return False


def base64_size(length: int) -> int:
    """Return how many octets `base64_lines` makes of `length`."""
    characters = (length + 2) // 3 * 4
    return characters + (characters + 75) // 76 * 2


def base64_lines(data: bytes | memoryview) -> bytes:
    """Encode in lines of 76 characters, each with its line end.

    Slices whose length is a multiple of 57 may be encoded one by one and joined.
    """
    view = memoryview(data)
    encode = binascii.b2a_base64
    whole = len(data) - len(data) % BASE64_SLICE
    blocks = [
        b"\r\n".join(_CUT(encode(view[start : start + BASE64_SLICE], newline=False)))
        for start in range(0, whole, BASE64_SLICE)
    ]
    rest = encode(view[whole:], newline=False)
    blocks += [rest[start : start + 76] for start in range(0, len(rest), 76)]
    return b"\r\n".join([*blocks, b""]) if blocks else b""


def _only_crlf(data: bytes) -> bool:
    pairs = data.count(b"\r\n")
    return data.count(b"\n") == pairs == data.count(b"\r")
