"""The server's end of the connections that the tests of a transport make, and what these tests wait for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from ..errors import SMTPError
from ..transport.stream import Stream

__all__ = [
    "BLOCK",
    "LIMIT",
    "MORE_THAN_BUFFERS",
    "Connected",
    "Peer",
    "collect",
    "deaf_until",
    "echo",
    "exactly",
    "expected",
    "filled",
    "says",
    "talking",
    "turns",
    "until",
]

#: What the server does with its end of the connection. The value that it returns is what `talking` reports.
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, Any]]
#: Connects a stream to a peer for the time of an `async with`.
Connected = Callable[[Peer], AbstractAsyncContextManager[Stream]]

#: Seconds after which a test fails instead of waiting for ever.
LIMIT: Final = 15.0
BLOCK: Final = bytes(65536)
#: More bytes than the buffers of two sockets, a reader and a writer hold.
MORE_THAN_BUFFERS: Final = 256 * len(BLOCK)


# --- conversations ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def talking(connected: Connected, peer: Peer) -> AsyncIterator[tuple[Stream, asyncio.Future[Any]]]:
    """Connect a stream to `peer`; at the end abort the stream and wait until the peer has returned.

    Args:
        connected: the fixture.
        peer: what the server does. When it returns, the server's end is aborted.

    Yields:
        The stream, and a future of the value that `peer` returns; None if the connection broke under the peer.
    """
    server = _Server(peer)
    async with asyncio.timeout(LIMIT), connected(server.serve) as stream:
        try:
            # Under TLS the client's handshake is done before the server's, which an abort would stop.
            await server.begun.wait()
            yield stream, server.ended
        except BaseException:
            server.cancel()
            raise
        finally:
            stream.abort()
            await server.ended


class _Server:
    """Runs a peer for one connection.

    Attributes:
        begun: the peer was called.
        ended: what it returned.
    """

    def __init__(self, peer: Peer) -> None:
        self.begun = asyncio.Event()
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._peer = peer
        self._task: asyncio.Future[Any] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Call the peer; a callback of `asyncio.start_server`."""
        self._task = asyncio.ensure_future(self._peer(reader, writer))
        self.begun.set()
        await asyncio.wait({self._task})
        writer.transport.abort()
        error = None if self._task.cancelled() else self._task.exception()
        if error is None or isinstance(error, OSError):
            self.ended.set_result(None if error or self._task.cancelled() else self._task.result())
        else:
            self.ended.set_exception(error)

    def cancel(self) -> None:
        """Stop the peer, which may wait for a test that has failed."""
        if self._task is None:
            self.ended.set_result(None)
        else:
            self._task.cancel()


@contextlib.contextmanager
def expected(error: type[SMTPError]) -> Iterator[list[Any]]:
    """Demand that the block raises `error`; the list that it yields holds the error afterwards."""
    caught: list[Any] = []
    try:
        yield caught
    except error as raised:
        caught.append(raised)
    if not caught:
        raise AssertionError(f"{error.__name__} was not raised")


async def turns(count: int = 20) -> None:
    """Let the event loop turn `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until `condition()` is true; `talking` limits the time."""
    while not condition():  # noqa: ASYNC110  # a stream has no event that tells
        await asyncio.sleep(0)


async def exactly(stream: Stream, size: int) -> bytes:
    """Read `size` bytes."""
    data = b""
    while len(data) < size:
        piece = await stream.read(size - len(data))
        assert piece, f"the stream ended after {len(data)} of {size} bytes"
        data += piece
    return data


async def filled(stream: Stream) -> tuple[asyncio.Future[None], int]:
    """Write blocks until `drain` waits; return this `drain` and the number of bytes that were written."""
    written = 0
    while written < MORE_THAN_BUFFERS:
        stream.write(BLOCK)
        written += len(BLOCK)
        draining = asyncio.ensure_future(stream.drain())
        await turns()
        if not draining.done():
            return draining, written
        await draining
    raise AssertionError(f"drain did not wait although the peer left {written} bytes unread")


# --- peers ------------------------------------------------------------------------------------------------------


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back until the client closes."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Read until the client closes; return everything."""
    return await reader.read(-1)


def says(data: bytes) -> Peer:
    """Return a peer that sends `data` and ends the connection."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    return peer


def deaf_until(heard: asyncio.Event) -> Peer:
    """Return a peer that reads nothing until `heard` is set, then everything; it returns the number of bytes."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        total = 0
        await heard.wait()
        while data := await reader.read(65536):
            total += len(data)
        return total

    return peer
