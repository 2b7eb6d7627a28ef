"""What goes wrong with a source, said in one way; and which streams were read already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from weakref import WeakValueDictionary

from ..errors import FileError
from ..model.content import Source
from ..model.reply import printable

__all__ = ["demand_unused", "described", "mark_used", "octets", "telling"]

# Streams that cannot go back and were begun. By number, since they may compare in ways of their own. Another message,
# or the same sent again, may hold such a stream, and would send nothing in its place.
_used: Final[WeakValueDictionary[int, Any]] = WeakValueDictionary()


def described(source: Source) -> str:
    """Return what an error calls a source."""
    origin = source.origin
    name = source.name or (os.fspath(origin) if isinstance(origin, os.PathLike) else "")
    return f"“{printable(str(name), 200)}”" if name else f"the {type(origin).__name__} to be sent"


@contextmanager
def telling(source: Source) -> Iterator[None]:
    """Make a FileError of whatever goes wrong with `source`, with the cause chained."""
    try:
        yield
    except FileError:
        raise
    except Exception as error:
        failure = FileError(f"{described(source)} cannot be read: {str(error) or type(error).__name__}")
        if isinstance(error, OSError):
            failure.errno, failure.filename = error.errno, error.filename
        raise failure from error


def octets(data: Any) -> bytes:
    """Return what a stream gave as bytes that cannot change any more.

    Raises:
        TypeError: it is nothing like bytes.
        BlockingIOError: nothing came, and the stream does not wait for more.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    if data is None:
        raise BlockingIOError("it had nothing to give yet, and does not wait until it has")
    hint = ", it has to be opened in binary mode" if isinstance(data, str) else ""
    raise TypeError(f"it gave {type(data).__name__}, not bytes{hint}")


def demand_unused(source: Source) -> None:
    """Refuse a stream that was read before and cannot go back.

    Raises:
        FileError: it was.
    """
    origin: Any = source.origin
    ended = getattr(origin, "gi_frame", origin) is None or getattr(origin, "ag_frame", origin) is None
    if ended or id(origin) in _used:
        raise spent(source)


def spent(source: Source) -> FileError:
    """Return the error for a second reading of what can be read once."""
    return FileError(f"{described(source)} was read already and cannot be read again")


def mark_used(source: Source) -> None:
    """Remember that a stream which cannot go back was begun."""
    # A path leads to something new each time; some objects cannot be remembered without being kept alive.
    if not isinstance(source.origin, os.PathLike):
        with suppress(TypeError):
            _used[id(source.origin)] = source.origin
