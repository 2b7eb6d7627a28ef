"""Errors of sources, and the register of streams that were read before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from weakref import WeakValueDictionary

from ..errors import FileError, LeaseLost, SpoolError
from ..model.content import Source
from ..model.reply import printable

__all__ = ["require_unread", "described", "mark_read", "octets", "as_file_error"]

# Streams that were read and cannot be rewound. Another message, or the same message sent again, may contain such a
# stream and would send nothing in its place. Keyed by id, because streams may define their own equality.
_used: Final[WeakValueDictionary[int, Any]] = WeakValueDictionary()


def described(source: Source) -> str:
    """Return the name of a source for error messages."""
    origin = source.origin
    name = source.name or (os.fspath(origin) if isinstance(origin, os.PathLike) else "")
    return f"“{printable(str(name), 200)}”" if name else f"the {type(origin).__name__} to be sent"


@contextmanager
def as_file_error(source: Source) -> Iterator[None]:
    """Turn any exception into a FileError that names `source`, with the cause chained.

    Errors of a spool stay as they are, because they say nothing about the message.
    """
    try:
        yield
    except (FileError, SpoolError, LeaseLost):
        raise
    except Exception as error:
        failure = FileError(f"{described(source)} cannot be read: {str(error) or type(error).__name__}")
        if isinstance(error, OSError):
            failure.errno, failure.filename = error.errno, error.filename
        raise failure from error


def octets(data: Any) -> bytes:
    """Return what a stream yielded as immutable bytes.

    Raises:
        TypeError: the stream yielded something other than bytes.
        BlockingIOError: the stream is in non-blocking mode and has no data yet.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    if data is None:
        raise BlockingIOError("it is in non-blocking mode and had no data yet")
    hint = ", it has to be opened in binary mode" if isinstance(data, str) else ""
    raise TypeError(f"it returned {type(data).__name__}, not bytes{hint}")


def require_unread(source: Source) -> None:
    """Refuse a stream that was read before and cannot be rewound.

    Raises:
        FileError: the stream was read before.
    """
    origin: Any = source.origin
    ended = getattr(origin, "gi_frame", origin) is None or getattr(origin, "ag_frame", origin) is None
    if ended or id(origin) in _used:
        raise already_read(source)


def already_read(source: Source) -> FileError:
    """Return the error for a second reading of a stream that can be read once."""
    return FileError(f"{described(source)} was read already and cannot be read again")


def mark_read(source: Source) -> None:
    """Register a stream that cannot be rewound, because reading it has begun."""
    # A path is opened again each time. Objects without weak references cannot be registered.
    if not isinstance(source.origin, os.PathLike):
        with suppress(TypeError):
            _used[id(source.origin)] = source.origin
