"""A server in the test's own loop, and certificates of every kind for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Self

import trustme

from smtp_async.testing import CancelledRun, CancelManner, CancelMoment, run_cancelled_at

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]

CA = trustme.CA()


def server_context(certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """Return a server's context; its certificate is for localhost and 127.0.0.1 unless another one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (certificate or CA.issue_cert("localhost", "127.0.0.1")).configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    """Return a context that trusts `CA`."""
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


class Server:
    """Runs a handler for each connection; `quiet` waits until all handlers have ended."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._idle = asyncio.Event()
        self._idle.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.port = 0

    async def start(self, host: str = "127.0.0.1", *, path: str | None = None) -> Self:
        if path is not None:
            self._server: Any = await asyncio.start_unix_server(self._serve, path)
        else:
            self._server = await asyncio.start_server(self._serve, host, 0)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        self._idle.clear()
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._handler(reader, writer)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            if not self._writers:
                self._idle.set()

    async def quiet(self) -> None:
        """Wait until all handlers have ended; they read until their clients close."""
        await self._idle.wait()

    async def stop(self) -> None:
        # A connection may be in the queue of the system still: its client did not wait for the server.
        await turns()
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._idle.wait()
        await self._server.wait_closed()
        await turns()


@contextlib.asynccontextmanager
async def serving(handler: Handler, host: str = "127.0.0.1", **kwargs: Any) -> AsyncIterator[Server]:
    """Serve within an `async with`."""
    server = await Server(handler).start(host, **kwargs)
    try:
        yield server
    finally:
        await server.stop()


async def turns(count: int = 5) -> None:
    """Let the event loop turn `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until `condition()` is true; the time limit of the test applies."""
    while not condition():  # noqa: ASYNC110  # there is no event to wait for
        await asyncio.sleep(0)


async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read until the client closes."""
    while await reader.read(65536):
        pass


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def encrypt(writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
    """Do the server's part of a TLS handshake."""
    raw = writer.transport
    try:
        await writer.start_tls(context)
    except AttributeError:
        # If the client closes during the handshake, asyncio returns no transport.
        writer._transport = raw  # type: ignore[attr-defined]
        raise ConnectionResetError from None
    if raw.is_closing():
        # The same on uvloop, where the reader would wait without end.
        raise ConnectionResetError


def starttls(
    context: ssl.SSLContext, then: Handler, *, reply: bytes = b"220 go\r\n", greeting: bytes = b"220 hi\r\n"
) -> Handler:
    """Return a handler that greets, answers one line and encrypts."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.readline()
        writer.write(reply)
        await encrypt(writer, context)
        await then(reader, writer)

    return handler


def implicit(context: ssl.SSLContext, then: Handler) -> Handler:
    """Return a handler that encrypts from the first byte."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await encrypt(writer, context)
        await then(reader, writer)

    return handler


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.contextmanager
def black_hole(port: int, host: str = "127.0.0.2") -> Iterator[None]:
    """Provide an address that neither accepts nor refuses connections, because its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield


MANNERS = [(manner, moment) for manner in CancelManner for moment in CancelMoment]


async def cancelled_everywhere(
    scenario: Callable[[], Coroutine[Any, Any, Any]],
    manner: CancelManner,
    moment: CancelMoment,
    *,
    prepare: Callable[[], Awaitable[object]] | None = None,
) -> AsyncIterator[CancelledRun]:
    """Run a scenario cancelled at its first await, at its second, …, and finally undisturbed."""
    for at in itertools.count(1):
        if prepare is not None:
            await prepare()
        step = await run_cancelled_at(at, scenario, manner=manner, moment=moment)
        yield step
        if not step.injected:
            return


class MuteNameServer:
    """A DNS server that takes every query and answers none."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self.socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()
