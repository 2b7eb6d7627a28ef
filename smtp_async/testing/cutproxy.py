"""`CutProxy`: a proxy that cuts a connection after any byte.

The proxy stands between a client and a real server:

    async with CutProxy(server.host, server.port) as proxy:               # learn the totals
        await session(proxy.host, proxy.port)
        total = proxy.links[0].counts[Direction.TO_SERVER]

    for after in range(total):
        async with CutProxy(host, port, Cut(after, Direction.TO_SERVER, CutManner.RST)) as proxy:
            ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Self, cast

from .wire import reset_transport


class Direction(Enum):
    """The direction of bytes."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class CutManner(Enum):
    """How a connection is cut; both ends see the same."""

    FIN = "fin"
    """Both ends read end-of-file."""

    RST = "rst"
    """Both ends get a connection reset."""

    STALL = "stall"
    """No more bytes pass in either direction, and neither end is told."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where and how to cut.

    Attributes:
        after: Cut after this many bytes; 0 is before the first.
        direction: The direction whose bytes are counted.
        manner: How to cut.
        link: Number of the connection to cut, from 0; None for every connection.
    """

    after: int
    direction: Direction = Direction.TO_SERVER
    manner: CutManner = CutManner.FIN
    link: int | None = 0


@dataclass(eq=False)
class Link:
    """One proxied connection.

    Attributes:
        number: Number of the connection, from 0.
        passed: The bytes that were passed on, by direction.
        cut: Whether the cut was made.
        open: Whether one of its sockets still exists.
    """

    number: int
    passed: dict[Direction, bytearray] = field(default_factory=lambda: {d: bytearray() for d in Direction})
    cut: bool = False
    open: bool = True

    @property
    def counts(self) -> dict[Direction, int]:
        """Number of bytes that passed, by direction."""
        return {direction: len(data) for direction, data in self.passed.items()}


class _End(asyncio.Protocol):
    """One of the two sockets of a link; its input goes in `direction`."""

    def __init__(self, relay: _Relay, direction: Direction) -> None:
        self._relay = relay
        self._direction = direction
        self.transport: asyncio.Transport | None = None
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._relay.made(self)

    def data_received(self, data: bytes) -> None:
        self._relay.carry(self._direction, data)

    def eof_received(self) -> bool:
        return self._relay.ended(self._direction)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set_result(None)
        self._relay.lost(exc)

    def pause_writing(self) -> None:
        self._relay.hold(self, held=True)

    def resume_writing(self) -> None:
        self._relay.hold(self, held=False)


def _send_fin(transport: asyncio.Transport) -> None:
    """Send FIN but go on reading, because closing with unread input would send RST."""
    transport.write_eof()
    transport.resume_reading()


class _Relay:
    """Carries bytes between the two ends of a link, up to the cut."""

    def __init__(self, proxy: CutProxy, link: Link) -> None:
        self._proxy = proxy
        self.link = link
        cut = proxy.cut
        self._cut = cut if cut is not None and cut.link in (None, link.number) else None
        self._ends = {direction: _End(self, direction) for direction in Direction}
        self.client = self._ends[Direction.TO_SERVER]
        self._server = self._ends[Direction.TO_CLIENT]
        self._early = bytearray()  # uvloop may read although reading is paused
        self._early_eof = False
        self._eofs = 0

    def made(self, end: _End) -> None:
        """Start to pass bytes on when both ends are connected."""
        if end is self.client:
            assert end.transport is not None
            end.transport.pause_reading()
            return self._proxy.start(self)
        if self._cut is not None and self._cut.after == 0:
            return self._sever(self._cut)
        self._both(lambda transport: transport.resume_reading())
        self.carry(Direction.TO_SERVER, bytes(self._early))
        if self._early_eof:
            self.ended(Direction.TO_SERVER)

    async def dial(self) -> None:
        """Connect to the server; reset the client's connection if the server refuses."""
        loop = asyncio.get_running_loop()
        try:
            await self._proxy.connect(loop, lambda: self._server)
        except OSError:
            self._both(reset_transport)

    def carry(self, direction: Direction, data: bytes) -> None:
        """Pass bytes on, up to the cut."""
        passed = self.link.passed[direction]
        cut = self._cut
        if self.link.cut or not data:
            return
        if self._server.transport is None:
            self._early += data
            return
        if cut is not None and cut.direction is direction:
            data = data[: cut.after - len(passed)]
        passed += data
        self._write(direction, data)
        if cut is not None and cut.direction is direction and len(passed) == cut.after:
            self._sever(cut)

    def _write(self, direction: Direction, data: bytes) -> None:
        target = self._other(direction).transport
        if target is not None and not target.is_closing():
            target.write(data)

    def _other(self, direction: Direction) -> _End:
        return self._server if direction is Direction.TO_SERVER else self.client

    def _sever(self, cut: Cut) -> None:
        self.link.cut = True
        if cut.manner is CutManner.FIN:
            self._both(_send_fin)
        elif cut.manner is CutManner.RST:
            self._both(reset_transport)
        else:
            self._both(lambda transport: transport.pause_reading())

    def _both(self, action: Callable[[asyncio.Transport], object]) -> None:
        for end in self._ends.values():
            if end.transport is not None and not end.transport.is_closing():
                action(end.transport)

    def hold(self, end: _End, *, held: bool) -> None:
        """Pause reading one end while the other end's write buffer is full."""
        source = self._server if end is self.client else self.client
        if self.link.cut or source.transport is None or source.transport.is_closing():
            return
        if held:
            source.transport.pause_reading()
        else:
            source.transport.resume_reading()

    def ended(self, direction: Direction) -> bool:
        """Pass a FIN on; the second FIN closes both sockets."""
        if self.link.cut:
            return False
        if self._server.transport is None:
            self._early_eof = True
            return True
        self._eofs += 1
        target = self._other(direction).transport
        if self._eofs == 2 or target is None or target.is_closing():
            self._both(lambda transport: transport.close())
            return False
        target.write_eof()
        return True

    def lost(self, exc: Exception | None) -> None:
        """Close the other end, too: by RST if this end was reset."""
        if not self.link.cut:
            self._both(reset_transport if exc is not None else lambda transport: transport.close())
        self.link.open = any(not end.gone.done() for end in self._ends.values() if end.transport)

    async def abort(self) -> None:
        """Close both sockets at once and wait until they are closed."""
        self._both(lambda transport: transport.abort())
        await asyncio.gather(*(end.gone for end in self._ends.values() if end.transport))


class CutProxy:
    """A TCP proxy on 127.0.0.1 that cuts connections, or only counts their bytes.

    Attributes:
        links: One `Link` per accepted connection, with the bytes of each direction.
        cut: Where to cut; it may be changed between two connections.
    """

    def __init__(self, host: str, port: int, cut: Cut | None = None, *, path: str | None = None) -> None:
        """Prepare a proxy; `async with` starts it.

        Args:
            host: The server's address.
            port: The server's port.
            cut: Where to cut; None only counts bytes.
            path: The server's Unix socket, instead of address and port.
        """
        self._target = (host, port)
        self._path = path
        self.cut = cut
        self.links: list[Link] = []
        self._relays: list[_Relay] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self.host = "127.0.0.1"
        self.port = 0

    def _accept(self) -> _End:
        link = Link(len(self.links))
        self.links.append(link)
        relay = _Relay(self, link)
        self._relays.append(relay)
        return relay.client

    def start(self, relay: _Relay) -> None:
        """Connect a link's other end."""
        task = asyncio.get_running_loop().create_task(relay.dial())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def connect(self, loop: asyncio.AbstractEventLoop, factory: Callable[[], _End]) -> None:
        """Connect to the server."""
        if self._path is not None:
            await loop.create_unix_connection(factory, self._path)
        else:
            await loop.create_connection(factory, *self._target)

    async def __aenter__(self) -> Self:
        """Start listening."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._accept, self.host, 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening and abort every link."""
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(relay.abort() for relay in self._relays))
        await self._listener.wait_closed()
