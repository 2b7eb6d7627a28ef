"""Reading a message back: its bytes, its size, its header as it was sent.

This is the only module of `message/` that reads files, because its callers need bytes, or their number, without an
await. Files that are sent are read by `sources/`, in threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import FileError
from ..model.content import Content, Source
from ..model.octets import base64_lines
from ..model.reply import printable
from .foreign_mail import mail_of_bytes
from .header_parser import HEADER_END

__all__ = ["as_sent", "header_and_body", "message_bytes", "message_size", "unfolded_fields"]


#: Called with each origin that can be read only once, and the octets read from it.
Keep = Callable[[Any, bytes], None]


def message_bytes(content: Content, keep: Keep) -> bytes:
    """Return all octets of a message.

    Args:
        content: the rendered message.
        keep: called with each origin that can be read only once, and its octets.

    Raises:
        UsageError: a source is asynchronous.
        FileError: a source cannot be read.
    """
    return as_sent(content, b"".join([_read(segment, keep) for segment in content.segments]))


def as_sent(content: Content, data: bytes) -> bytes:
    """Return `data`, which was read from `content`, as it is sent: without Bcc, with CRLF as line ending."""
    if content.canonical or not content.sources:
        return data
    # A whole message from a source.
    return mail_of_bytes(data).content().join()


def message_size(content: Content) -> int | None:
    """Return the size of content, with the sizes of files; None if a source would have to be read to know.

    Raises:
        FileError: a file does not exist.
    """
    if content.sources and not content.canonical:
        return None  # a Bcc in it would be removed
    for source in content.sources:
        source.length = _length(source)
    content.measure()
    return content.size


def header_and_body(content: Content, keep: Keep, *, body: bool = False) -> tuple[str, str]:
    """Return the header with its empty line, and the body, empty unless `body` is true.

    Raises:
        UsageError, FileError: as `message_bytes`, if a source has to be read.
    """
    data = b""
    for segment in content.segments:
        if body or isinstance(segment, Source):
            data = message_bytes(content, keep)
            break
        data += segment
        if b"\r\n\r\n" in data:
            break
    found = HEADER_END.search(data)
    end = found.end() if found else len(data)
    head = data[:end].decode("utf-8", "surrogateescape")
    return head, data[end:].decode("utf-8", "surrogateescape") if body else ""


def unfolded_fields(header: str) -> tuple[tuple[str, str], ...]:
    """Return the fields of a header, unfolded."""
    return tuple([(name, value.lstrip(" \t")) for name, value in _unfolded(header)])


def _unfolded(header: str) -> Iterator[tuple[str, str]]:
    lines = header.removesuffix("\r\n\r\n").replace("\r\n ", " ").replace("\r\n\t", "\t").split("\r\n")
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            yield name, value


# --- sources ------------------------------------------------------------------------------------------------


def _read(segment: bytes | Source, keep: Keep) -> bytes:
    """Return the octets of a segment as they are sent."""
    if isinstance(segment, bytes):
        return segment
    from ..sources import read_now

    data = read_now(Content((Source(segment.origin, encoding="identity", name=segment.name),)))
    if _is_single_use(segment.origin):
        keep(segment.origin, data)
    return base64_lines(data) if segment.encoding == "base64" else data


def _length(source: Source) -> int | None:
    """Return how many octets a source has; None if it would have to be read to know."""
    origin: Any = source.origin
    try:
        if isinstance(origin, os.PathLike):
            return os.stat(origin).st_size
        if hasattr(origin, "read") and _is_seekable(origin):
            place: int = origin.tell()
            end: int = origin.seek(0, os.SEEK_END)
            origin.seek(place)
            return end - place
    except (OSError, ValueError) as error:
        raise FileError(f"{_named(source)} cannot be read: {error}") from error
    return sum(map(len, origin)) if isinstance(origin, list | tuple) else None


def _is_seekable(file: Any) -> bool:
    seekable = getattr(file, "seekable", None)
    return seekable is not None and seekable() is True


def _is_single_use(origin: Any) -> bool:
    """Tell whether the origin can be read only once."""
    if isinstance(origin, os.PathLike):
        return False
    return not _is_seekable(origin) if hasattr(origin, "read") else iter(origin) is origin


def _named(source: Source) -> str:
    name = source.name or (os.fspath(source.origin) if isinstance(source.origin, os.PathLike) else "")
    return f"“{printable(str(name), 200)}”" if name else f"the {type(source.origin).__name__}"
