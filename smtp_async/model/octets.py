r"""Functions for the octets of a message: line endings, line lengths, search, base64; long messages in slices.

Strategy. A single C call on tens of MiB keeps the global interpreter lock (GIL) for tens of milliseconds, and the event
loop is blocked, even if a worker thread made the call. Therefore octets beyond `SLICE` are processed in slices, and the
interpreter may switch threads between two of them. The result does not depend on the cuts: none separates CR from LF,
a search overlaps the next slice, base64 is cut at whole groups.

`bytes.join` is called once for all slices, because CPython releases the GIL for joins of a MiB and more. A slice
`data[start:end]` and a `+` do not release it, so `copied` and `bytes.join` are used in their place.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator
from io import IncrementalNewlineDecoder
from typing import Final, NamedTuple

__all__ = [
    "BASE64_SLICE",
    "MAX_LINE",
    "SLICE",
    "Survey",
    "base64_decoded",
    "base64_lines",
    "base64_size",
    "copied",
    "crlf",
    "dots_doubled",
    "find",
    "is_ascii",
    "longest_line_exceeds",
    "normalised",
    "only_crlf",
    "slices",
    "survey",
]

#: RFC 5321 section 4.5.3.1.6: octets of a line without its CRLF.
MAX_LINE: Final = 998

#: Octets of one slice: the slowest call (deleting blanks) takes 0.1 ms for it, and the cost of slicing is below 2 %.
SLICE: Final = 1 << 16

# 57 octets become a line of 76 characters (RFC 2045 section 6.8). A struct cuts a thousand lines in one call.
_LINES: Final = 1024
#: Octets that become a whole number of base64 lines in one call.
BASE64_SLICE: Final = 57 * _LINES
_CUT: Final = struct.Struct("76s" * _LINES).unpack

_WHITE: Final = b" \t\r\n\v\f"
_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_CR: Final = 13
#: The line endings that the decoder has seen: none, or only CRLF.
_ONLY_CRLF: Final = (None, "\r\n")


def slices(data: bytes) -> Iterator[bytes]:
    """Yield `data` in slices of about `SLICE` octets, without separating the CR and LF of a line ending."""
    start, length = 0, len(data)
    while length - start > SLICE:
        end = start + SLICE
        if data[end - 1] == _CR:
            end -= 1
        yield data[start:end]
        start = end
    yield data[start:]


def copied(data: bytes, start: int, end: int) -> bytes:
    """Return `data[start:end]`, for `0 <= start <= end <= len(data)`."""
    if end - start <= SLICE or end - start == len(data):
        return data[start:end]
    return b"".join([data[place : min(place + SLICE, end)] for place in range(start, end, SLICE)])


def find(data: bytes, sought: bytes, start: int = 0) -> int:
    """Return the first position of `sought` in `data` at or after `start`; -1 if there is none."""
    length = len(data)
    while length - start > SLICE:
        found = data.find(sought, start, start + SLICE + len(sought) - 1)
        if found >= 0:
            return found
        start += SLICE
    return data.find(sought, start)


def is_ascii(data: bytes) -> bool:
    """Tell whether no octet is above 127."""
    if len(data) <= SLICE:
        return data.isascii()
    return all(piece.isascii() for piece in slices(data))


# --- lines --------------------------------------------------------------------------------------------------


def only_crlf(data: bytes) -> bool:
    """Tell whether every CR is followed by LF, and every LF follows a CR."""
    # The decoder notes each kind of line ending in one pass; counting CR, LF and CRLF takes two to five times as long.
    decoder = IncrementalNewlineDecoder(None, False)
    if len(data) <= SLICE:
        decoder.decode(data.decode("latin-1"), True)
    else:
        # The decoder joins a CR at the end of a slice to the next slice. No slice is copied: page faults take longer.
        view = memoryview(data)
        for start in range(0, len(data), SLICE):
            decoder.decode(str(view[start : start + SLICE], "latin-1"))
            if decoder.newlines not in _ONLY_CRLF:
                return False
        decoder.decode("", final=True)
    return decoder.newlines in _ONLY_CRLF


def crlf(data: bytes) -> bytes:
    """Return `data` with CRLF for every line ending, bare CR and bare LF included; nothing is added at the end.

    Without a change, `data` is returned, not a copy.
    """
    if len(data) <= SLICE and b"\r" not in data:
        # Most texts: one search and one replacement in place of a decoder and three.
        return data.replace(b"\n", b"\r\n")
    if only_crlf(data):
        return data
    if len(data) > SLICE:
        return b"".join([crlf(piece) for piece in slices(data)])
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def normalised(data: bytes) -> bytes:
    r"""Return `data` with CRLF for every line ending, bare CR and bare LF included, and at the end.

    A server that treats a bare LF as a line ending would see another message in `\n.\n` (SMTP smuggling).
    Without a change, `data` is returned, not a copy.
    """
    data = crlf(data)
    return data if data.endswith(b"\r\n") or not data else b"".join((data, b"\r\n"))


def dots_doubled(data: bytes) -> bytes:
    """Return `data` with the dot at the start of each line but the first doubled, RFC 5321 section 4.5.2.

    Without a change, `data` is returned, not a copy.
    """
    # Base64 has no dot, and a search for one octet takes a tenth of the time. CPython's search from the end skips more
    # octets, and takes a third of the time of one from the start.
    if b"." not in data or data.rfind(b"\r\n.") < 0:
        return data
    return data.replace(b"\r\n.", b"\r\n..")


def longest_line_exceeds(data: bytes, limit: int) -> bool:
    """Tell whether a line of CRLF-delimited `data` is longer than `limit` octets without its CRLF."""
    # A line must end within limit + 2 octets of its start. The last line ending in that window serves as well as the
    # first, and needs one step for every `limit` octets, not for every line.
    position, width, end, rfind = 0, limit + 2, len(data) - limit, data.rfind
    while position < end:
        found = rfind(b"\n", position, position + width)
        if found < 0:
            return True
        position = found + 1
    return False


class Survey(NamedTuple):
    """What `survey` has found in a message.

    Attributes:
        only_crlf: every CR is followed by LF, and every LF follows a CR.
        ascii: no octet is above 127.
        nul: there is a NUL.
        overlong: a line is longer than `MAX_LINE`.
    """

    only_crlf: bool
    ascii: bool
    nul: bool
    overlong: bool


def survey(data: bytes, *, crlf_only: bool = False) -> Survey | None:
    """Ask a large message everything at once: a slice is in the processor's cache when it is asked the next question.

    This takes half of the time of a pass for each question.

    Args:
        data: the message.
        crlf_only: return None, without looking further, if there is a bare CR or LF.
    """
    decoder = IncrementalNewlineDecoder(None, False)
    view, ascii_only, nul, overlong = memoryview(data), True, False, False
    # Where the present line begins; negative if it does in the slice before.
    begin, width = 0, MAX_LINE + 2
    for start in range(0, len(data), SLICE):
        text = str(view[start : start + SLICE], "latin-1")
        decoder.decode(text)
        if crlf_only and decoder.newlines not in _ONLY_CRLF:
            return None
        ascii_only = ascii_only and text.isascii()
        nul = nul or "\0" in text
        length = len(text)
        # As in `longest_line_exceeds`; a line that may end in the next slice is left to it.
        last = length - MAX_LINE if start + length == len(data) else length - MAX_LINE - 1
        rfind = text.rfind
        if begin < 0 and begin < last and not overlong:
            # The line has begun in an earlier slice.
            begin = rfind("\n", 0, max(begin + width, 0)) + 1
            overlong = not begin
        while begin < last and not overlong:
            begin = rfind("\n", begin, begin + width) + 1
            overlong = not begin
        # To the line that is open at the end of the slice.
        begin = max(begin, text.rfind("\n", max(begin, 0)) + 1) - length
    decoder.decode("", final=True)
    only = decoder.newlines in _ONLY_CRLF
    return None if crlf_only and not only else Survey(only, ascii_only, nul, overlong)


# --- base64 -------------------------------------------------------------------------------------------------


def base64_size(length: int) -> int:
    """Return how many octets `base64_lines` returns for `length` octets."""
    characters = (length + 2) // 3 * 4
    return characters + (characters + 75) // 76 * 2


def base64_lines(data: bytes | memoryview) -> bytes:
    """Encode in lines of 76 characters, each with its CRLF.

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


def base64_decoded(data: bytes) -> bytes | None:
    """Decode base64; return None if `data` is not base64.

    White space is ignored anywhere, and the padding may be missing (RFC 2045 section 6.8). Six remaining bits are
    dropped.
    """
    pieces: list[bytes] = []
    signs = b""
    for piece in slices(data):
        signs += piece.translate(None, _WHITE)
        bare = signs.rstrip(b"=")
        if len(signs) - len(bare) > 2 or bare.translate(None, _ALPHABET):
            return None
        if len(bare) == len(signs):
            whole = len(bare) - len(bare) % 4
            pieces.append(binascii.a2b_base64(bare[:whole]))
            signs = bare[whole:]
    bare = signs.rstrip(b"=")
    if len(bare) % 4 == 1:
        bare = bare[:-1]
    pieces.append(binascii.a2b_base64(bare + b"=" * (-len(bare) % 4)))
    return b"".join(pieces)
