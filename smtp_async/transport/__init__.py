"""Sockets and names: dialling a server, and the stream over the connection. No other package opens a socket."""

from .dial import SocketOptions, dial, dial_by, dial_unix
from .names import AddressFamily
from .stream import Stream, stream_over

__all__ = ["AddressFamily", "SocketOptions", "Stream", "dial", "dial_by", "dial_unix", "stream_over"]
