"""Faults on purpose: a cancellation at any await, a cut after any byte.

Cancelling. A scenario is an `async def` without arguments. `cancellations` runs it again and again, cancelled
at its first, second, … await until it ends before its turn comes; between the runs you look at what is left:

    async for run in cancellations(scenario, manner=CancelManner.UNTIL_DONE):
        assert pool.is_whole(), f"cancelled at await {run.at}"

Cutting. `CutProxy` stands between a client and a real server:

    async with CutProxy(server.host, server.port) as proxy:               # learn the totals
        await session(proxy.host, proxy.port)
        total = proxy.links[0].counts[Direction.TO_SERVER]

    for after in range(total):
        async with CutProxy(host, port, Cut(after, Direction.TO_SERVER, CutManner.RST)) as proxy:
            ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self, cast

from .wire import reset_transport

_LIMIT: Final = 100_000


class CancelManner(Enum):
    """How often the task is cancelled."""

    ONCE = "once"
    """At the n-th await, then never again: `task.cancel()`, `asyncio.timeout`."""

    UNTIL_DONE = "until done"
    """At the n-th await and at every one behind it: anyio under Starlette and FastAPI."""


class CancelMoment(Enum):
    """When the cancellation comes, seen from what is awaited."""

    WAITING = "waiting"
    """While the task waits."""

    READY = "ready"
    """When the result is there already, but the task has not run yet: the result is lost with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelledRun:
    """One run of a scenario.

    Attributes:
        at: At which await it was to be cancelled, from 1.
        awaits: How many there were.
        injected: Whether it came so far; if not, the scenario ran to its end undisturbed.
        result: What it returned.
        error: What it raised, CancelledError included.
    """

    at: int
    awaits: int
    injected: bool
    result: Any = None
    error: BaseException | None = None

    @property
    def cancelled(self) -> bool:
        """Whether it ended by CancelledError."""
        return isinstance(self.error, asyncio.CancelledError)


class _Stepper:
    """Drives a coroutine by hand and cancels the current task at its n-th suspension."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], at: int, manner: CancelManner, moment: CancelMoment
    ) -> None:
        self._coroutine = coroutine
        self._at = at
        self._manner = manner
        self._moment = moment
        self.awaits = 0
        self.injected = False

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[Any], Any] = self._coroutine.send
        argument: Any = None
        while True:
            try:
                waited = resume(argument)
            except StopIteration as done:
                return done.value
            self.awaits += 1
            if self.awaits == self._at or (self.injected and self._manner is CancelManner.UNTIL_DONE):
                self.injected = True
                self._cancel(waited)
            try:
                resume, argument = self._coroutine.send, (yield waited)
            except BaseException as error:
                resume, argument = self._coroutine.throw, error

    def _cancel(self, waited: Any) -> None:
        """Cancel the task that is about to wait; our callback runs before the task's own."""
        task = asyncio.current_task()
        assert task is not None
        if self._moment is CancelMoment.READY and isinstance(waited, asyncio.Future):
            waited.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()


async def run_cancelled_at(
    at: int,
    scenario: Callable[[], Coroutine[Any, Any, Any]],
    *,
    manner: CancelManner = CancelManner.ONCE,
    moment: CancelMoment = CancelMoment.WAITING,
) -> CancelledRun:
    """Run a scenario in a task of its own and cancel it at its n-th await.

    Only awaits of that task that really suspend are counted, those of tasks it starts are not.

    Args:
        at: Which await, from 1.
        scenario: What to run.
        manner: Cancel once, or until it is done.
        moment: While it waits, or when the result is ready.

    Returns:
        What became of it. Its exception is in there, never raised.
    """
    stepper = _Stepper(scenario(), at, manner, moment)

    async def drive() -> Any:
        return await stepper

    task = asyncio.get_running_loop().create_task(drive())
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    return CancelledRun(
        at=at,
        awaits=stepper.awaits,
        injected=stepper.injected,
        error=error,
        result=None if error else task.result(),
    )


async def cancellations(
    scenario: Callable[[], Coroutine[Any, Any, Any]],
    *,
    manner: CancelManner = CancelManner.ONCE,
    moment: CancelMoment = CancelMoment.WAITING,
) -> AsyncIterator[CancelledRun]:
    """Run a scenario cancelled at its first await, at its second, … until it ends before.

    Args:
        scenario: Called anew for each run.
        manner: Cancel once, or until it is done.
        moment: While it waits, or when the result is ready.

    Yields:
        Every run; the last one was not disturbed (`injected` is false).
    """
    for at in range(1, _LIMIT):
        run = await run_cancelled_at(at, scenario, manner=manner, moment=moment)
        yield run
        if not run.injected:
            return
    raise AssertionError(f"the scenario still awaits after {_LIMIT} awaits")


class Direction(Enum):
    """Which way bytes go."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class CutManner(Enum):
    """How a connection is cut; both sides see the same."""

    FIN = "fin"
    """Both sides read end-of-file."""

    RST = "rst"
    """Both sides get a connection reset."""

    STALL = "stall"
    """Nothing more passes in either direction, and nobody is told."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where and how to cut.

    Attributes:
        after: As soon as so many bytes have passed; 0 is before the first.
        direction: Bytes of this direction are counted.
        manner: How.
        link: Only the connection with this number, from 0; None for each.
    """

    after: int
    direction: Direction = Direction.TO_SERVER
    manner: CutManner = CutManner.FIN
    link: int | None = 0


@dataclass(eq=False)
class Link:
    """One proxied connection.

    Attributes:
        number: From 0.
        passed: What was passed on, by direction.
        cut: Whether the cut was made.
        open: Whether one of its sockets still exists.
    """

    number: int
    passed: dict[Direction, bytearray] = field(default_factory=lambda: {d: bytearray() for d in Direction})
    cut: bool = False
    open: bool = True

    @property
    def counts(self) -> dict[Direction, int]:
        """How many bytes passed, by direction."""
        return {direction: len(data) for direction, data in self.passed.items()}


class _End(asyncio.Protocol):
    """One of the two sockets of a link; `direction` is where its input goes."""

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


def _say_fin(transport: asyncio.Transport) -> None:
    """Send FIN but go on reading: closing with unread input would send RST."""
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
        self._eofs = 0

    def made(self, end: _End) -> None:
        """Wait for the other end, then start."""
        assert end.transport is not None
        end.transport.pause_reading()
        if end is self.client:
            self._proxy.start(self)
        elif self._cut is not None and self._cut.after == 0:
            self._sever(self._cut)
        else:
            self._both(lambda transport: transport.resume_reading())

    async def dial(self) -> None:
        """Connect to the server; a refusal is passed on as a reset."""
        loop = asyncio.get_running_loop()
        try:
            await self._proxy.connect(loop, lambda: self._server)
        except OSError:
            self._both(reset_transport)

    def carry(self, direction: Direction, data: bytes) -> None:
        """Pass bytes on, but none behind the cut."""
        passed = self.link.passed[direction]
        cut = self._cut
        if self.link.cut:
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
            self._both(_say_fin)
        elif cut.manner is CutManner.RST:
            self._both(reset_transport)
        else:
            self._both(lambda transport: transport.pause_reading())

    def _both(self, action: Callable[[asyncio.Transport], object]) -> None:
        for end in self._ends.values():
            if end.transport is not None and not end.transport.is_closing():
                action(end.transport)

    def hold(self, end: _End, *, held: bool) -> None:
        """Stop reading one end while the other cannot be written to."""
        source = self._server if end is self.client else self.client
        if self.link.cut or source.transport is None or source.transport.is_closing():
            return
        if held:
            source.transport.pause_reading()
        else:
            source.transport.resume_reading()

    def ended(self, direction: Direction) -> bool:
        """Pass a FIN on; the second one closes everything."""
        if self.link.cut:
            return False
        self._eofs += 1
        target = self._other(direction).transport
        if self._eofs == 2 or target is None or target.is_closing():
            self._both(lambda transport: transport.close())
            return False
        target.write_eof()
        return True

    def lost(self, exc: Exception | None) -> None:
        """Let the other end go too, by RST if this one was reset."""
        if not self.link.cut:
            self._both(reset_transport if exc is not None else lambda transport: transport.close())
        self.link.open = any(not end.gone.done() for end in self._ends.values() if end.transport)

    async def abort(self) -> None:
        """Close both sockets at once and wait until they are."""
        self._both(lambda transport: transport.abort())
        await asyncio.gather(*(end.gone for end in self._ends.values() if end.transport))


class CutProxy:
    """A TCP proxy on 127.0.0.1 that cuts connections, or only counts what passes.

    Attributes:
        links: One `Link` per connection that was accepted, with what passed in each direction.
        cut: Where to cut; may be changed between two connections.
    """

    def __init__(self, host: str, port: int, cut: Cut | None = None, *, path: str | None = None) -> None:
        """Prepare; `async with` starts it.

        Args:
            host: The server's address.
            port: The server's port.
            cut: Where to cut; None only counts.
            path: The server's unix socket, in place of address and port.
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
        """Start to listen."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._accept, self.host, 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to listen and abort every link."""
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(relay.abort() for relay in self._relays))
        await self._listener.wait_closed()
