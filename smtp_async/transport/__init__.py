"""The only place with sockets: dialling, and the stream over what was dialled."""

from .dial import AddressFamily, SocketOptions, dial, dial_unix
from .stream import Stream, stream_over

__all__ = ["AddressFamily", "SocketOptions", "Stream", "dial", "dial_unix", "stream_over"]
