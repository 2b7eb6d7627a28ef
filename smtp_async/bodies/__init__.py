"""The parts of a message that are read while it is sent: files, streams and iterators, off the event loop."""

from .body import Body, Piece, read_all, read_now
from .lines import LineGuard, LineScan, RawSource

__all__ = ["Body", "LineGuard", "LineScan", "Piece", "RawSource", "read_all", "read_now"]
