"""Sockets: dialling a server, and the stream over the connection. No other package opens a socket."""

from .dial import AddressFamily, SocketOptions, dial, dial_unix
from .stream import Stream, stream_over

__all__ = ["AddressFamily", "SocketOptions", "Stream", "dial", "dial_unix", "stream_over"]
