"""The parts of a message that are read while it is sent: files, streams and iterators, off the event loop."""

from .async_reader import AsyncReader, aclose_origin, reader_of
from .body import Body, Piece, TempDir, read_all, read_now
from .disk_copy import DiskCopy
from .line_endings import LineGuard, LineMender, LineScan, RawSource
from .readers import Reader, close_origin
from .worker import ThreadWork, in_thread

__all__ = [
    "AsyncReader",
    "Body",
    "DiskCopy",
    "LineGuard",
    "LineMender",
    "LineScan",
    "Piece",
    "RawSource",
    "Reader",
    "TempDir",
    "ThreadWork",
    "aclose_origin",
    "close_origin",
    "in_thread",
    "read_all",
    "read_now",
    "reader_of",
]
