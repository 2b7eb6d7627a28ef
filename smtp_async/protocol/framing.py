"""Content → the body as it is written: dot-stuffing and BDAT chunks as streaming transforms.

Strategy: bare CR and bare LF become CRLF before anything else, so that no receiver can find an end of data where this
client wrote none (SMTP smuggling). Then a dot at the start of a line is doubled, RFC 5321 section 4.5.2. Both steps
look back over the edge of a chunk by one byte at most. `exact` content skips the first step; it may only be framed as
BDAT.
"""

from __future__ import annotations

from ..model.content import Content
from ..model.octets import crlf, dots_doubled, normalised
from . import commands

__all__ = ["ChunkFramer", "DotStuffer", "chunk_framed", "dot_stuffed"]


def dot_stuffed(content: Content) -> bytes:
    """Return content in memory framed for DATA, with its end: RFC 5321 sections 4.1.1.4 and 4.5.2."""
    data = content.join() if content.canonical else normalised(content.join())
    data = dots_doubled(data)
    if data.startswith(b"."):
        data = b"." + data
    return data + commands.END_OF_DATA


def chunk_framed(content: Content, *, exact: bool = False) -> bytes:
    """Return content in memory framed as one BDAT, RFC 3030 section 2.

    Args:
        content: the message.
        exact: leave bare CR and LF, and an end without CRLF, as they are (BINARYMIME).
    """
    data = content.join() if exact or content.canonical else normalised(content.join())
    return commands.bdat(len(data), last=True) + data


def _begins_anew(chunk: bytes, *, cr: bool) -> bool:
    """Does `chunk` begin with no part of a line end that the chunk before it, of unknown content, has begun?"""
    return not cr and not chunk.startswith(b"\n")


class DotStuffer:
    """Frames a stream of chunks for DATA."""

    __slots__ = ("_cr", "_line_start")

    def __init__(self) -> None:
        self._line_start = True
        self._cr = False

    def frame(self, chunk: bytes, *, canonical: bool = False) -> bytes:
        """Return what to write for `chunk`; a CR at its end waits for what follows.

        Args:
            chunk: the next octets of the content.
            canonical: all line ends within it are known to be CRLF, so that they are not looked at again.
        """
        checked = canonical and _begins_anew(chunk, cr=self._cr)
        if self._cr:
            chunk = b"\r" + chunk
        self._cr = chunk.endswith(b"\r")
        if self._cr:
            chunk = chunk[:-1]
        if not chunk:
            return b""
        data = dots_doubled(chunk if checked else crlf(chunk))
        if self._line_start and data.startswith(b"."):
            data = b"." + data
        self._line_start = data.endswith(b"\r\n")
        return data

    def end(self) -> bytes:
        """Return the end of the data; call once."""
        tail = b"\r\n" if self._cr or not self._line_start else b""
        return tail + commands.END_OF_DATA


class ChunkFramer:
    """Frames a stream of chunks for BDAT, RFC 3030 section 2.

    Args:
        exact: leave bare CR and LF as they are (BINARYMIME).
    """

    __slots__ = ("_cr", "_ended", "_exact")

    def __init__(self, *, exact: bool = False) -> None:
        self._exact = exact
        self._cr = False
        self._ended = True

    def content(self, chunk: bytes, *, canonical: bool = False) -> bytes:
        """Return the octets of the content in `chunk`; a CR at its end waits for what follows."""
        if self._exact:
            return chunk
        checked = canonical and _begins_anew(chunk, cr=self._cr)
        if self._cr:
            chunk = b"\r" + chunk
        self._cr = chunk.endswith(b"\r")
        if self._cr:
            chunk = chunk[:-1]
        data = chunk if checked else crlf(chunk)
        if data:
            self._ended = data.endswith(b"\r\n")
        return data

    def frame(self, chunk: bytes, *, canonical: bool = False) -> bytes:
        """Return one BDAT command with its octets, or nothing for an empty chunk; see `DotStuffer.frame`."""
        data = self.content(chunk, canonical=canonical)
        return commands.bdat(len(data), last=False) + data if data else b""

    def end(self) -> bytes:
        """Return the last BDAT command; call once."""
        tail = b"" if self._exact or (self._ended and not self._cr) else b"\r\n"
        return commands.bdat(len(tail), last=True) + tail
