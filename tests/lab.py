"""What the tests of the client share: event loops, messages, clients, and the check that nothing is left behind."""

import asyncio
import contextlib
import gc
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from smtp_async import ClientOptions, Message, Security, SMTPClient, Timeouts, TLSOptions, TrustOptions
from smtp_async.events import Event
from smtp_async.pool.pool import Pool
from smtp_async.testing import ScriptedServer, Step
from tests.servers.pki import Leaf, Pki

T = TypeVar("T")
SENDER = "ann@example.com"
#: Enough for a loaded machine, short enough to show a hang as what it is.
PATIENCE = 15.0


# --- event loops ---------------------------------------------------------------------------------------------


def _eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop
if hasattr(asyncio, "eager_task_factory"):
    LOOPS["eager"] = _eager_loop

#: Runs a test on asyncio, on uvloop, and with the eager task factory where this Python has it.
every_loop = pytest.mark.asyncio(loop_factories=list(LOOPS))
#: The same for a test that uses `set_clock_forward`.
every_settable_loop = pytest.mark.asyncio(loop_factories=[name for name in LOOPS if name != "uvloop"])


# --- messages, clients, servers --------------------------------------------------------------------------------


def mail(n: int | str = 1, *, text: str = "Hello", **fields: Any) -> Message:
    """Return a message with a number in its subject and its recipient."""
    fields.setdefault("to", f"user{n}@example.org")
    return Message(**{"sender": SENDER, "subject": f"message {n}", "text": text, **fields})


def client_of(server: Any, **options: Any) -> SMTPClient:
    """Return a client for a scripted server or for a proxy in front of it, by default without TLS.

    Args:
        server: has a host and a port.
        options: fields of `ClientOptions`, or arguments of `SMTPClient`.
    """
    fields = ClientOptions.__dataclass_fields__
    groups = {name: value for name, value in options.items() if name in fields}
    groups.setdefault("hello", "client.test")
    rest: dict[str, Any] = {name: value for name, value in options.items() if name not in fields}
    rest.setdefault("security", Security.PLAINTEXT)
    return SMTPClient(
        rest.pop("host", None) or server.host,
        rest.pop("port", None) or server.port,
        options=ClientOptions(**groups),
        **rest,
    )


def trusting(pki: Pki) -> TLSOptions:
    """Return options that trust the tests' own authority."""
    return TLSOptions(trust=TrustOptions(ca_file=pki.ca_file))


def impatient(seconds: float = 0.2, **stages: float) -> Timeouts:
    """Return limits of `seconds` for every stage."""
    names = ("connect", "tls", "greeting", "hello", "auth", "mail", "rcpt", "data", "block", "end_of_data")
    return Timeouts(**{**dict.fromkeys((*names, "command", "quit", "close"), seconds), **stages})


async def mute(step: Step) -> None:
    """An action of a scripted server: write nothing more, but notice when the client closes."""
    while True:
        await step.connection.more()


@contextlib.asynccontextmanager
async def speaking(**options: Any) -> AsyncIterator[ScriptedServer]:
    """Run a scripted server; at the end, check that the client kept the protocol."""
    async with ScriptedServer(**options) as server:
        yield server
        assert server.violations == []


def tls_server(pki: Pki, leaf: Leaf | None = None, **options: Any) -> ScriptedServer:
    """Return a scripted server with a certificate: the valid one, or another leaf."""
    return ScriptedServer(ssl_context=pki.server_context(leaf), **options)


def pool_of(client: SMTPClient) -> Pool:
    """Return the pool of a client that has been used: the one look of the tests behind the client's face."""
    binding = client._binding
    assert binding is not None
    return binding.pool


# --- the event loop ------------------------------------------------------------------------------------------


class Lateness:
    """How late a task is that wants to run every millisecond, while something else goes on.

    Attributes:
        found: seconds for each time.
        worked: seconds of processor time, of all threads, from each time to the next. Other processes cost none.
    """

    def __init__(self) -> None:
        self.found: list[float] = []
        self.worked: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Lateness":
        # A collection of all that a test session holds would be the longest of all.
        gc.disable()
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *exc: Any) -> None:
        seen = len(self.found)
        await until(lambda: len(self.found) > seen)  # the last delay counts, too
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        gc.enable()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        worked = time.process_time()
        while True:
            due = loop.time() + 0.001
            await asyncio.sleep(0.001)
            self.found.append(loop.time() - due)
            before, worked = worked, time.process_time()
            self.worked.append(worked - before)


async def longest_work(measured: Callable[[], Awaitable[Lateness]]) -> float:
    """Return the longest processor time for which the event loop stood still, in the best of three rounds.

    A busy machine may let the loop wait while a thread works that does not hold the interpreter's lock.

    Args:
        measured: a round.
    """
    return min([max((await measured()).worked) for _ in range(3)])


# --- events ----------------------------------------------------------------------------------------------------


def count_events(
    monkeypatch: pytest.MonkeyPatch,
    *kinds: type[Event],
    by: Callable[[dict[str, Any]], Any] | None = None,
) -> Counter[Any]:
    """Count the events of these kinds that are made from now on, whether they are dispatched or not.

    Args:
        monkeypatch: undoes it at the end of the test.
        kinds: the kinds of events.
        by: returns, from the fields of an event, what it is counted under; its kind by default.
    """
    made: Counter[Any] = Counter()

    def counting(kind: type[Event]) -> Callable[..., None]:
        original = kind.__init__

        def counted(self: Any, **fields: Any) -> None:
            made[kind if by is None else by(fields)] += 1
            original(self, **fields)

        return counted

    for kind in kinds:
        monkeypatch.setattr(kind, "__init__", counting(kind))
    return made


# --- tables ----------------------------------------------------------------------------------------------------


#: The suite takes a sample of the largest tables; `make thorough` takes all of them, and draws many more examples.
THOROUGH = bool(os.environ.get("SMTP_ASYNC_THOROUGH"))


def sampled(cases: Iterable[T], step: int, *, first: int = 0) -> list[T]:
    """Return every `step`-th case; of a product, a step without a common divisor meets every value of each part."""
    return list(cases) if THOROUGH else list(cases)[first::step]


@contextlib.contextmanager
def case(*names: object) -> Iterator[None]:
    """Name the case in what fails: for a test that loops over a table whose cases cost less than a test does."""
    try:
        yield
    except BaseException as error:
        error.add_note("in the case " + ", ".join(map(repr, names)))
        raise


# --- waiting -------------------------------------------------------------------------------------------------


async def turns(count: int = 20) -> None:
    """Let the event loop turn `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that no event announces, one turn of the loop after the other."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


async def gathered(*awaitables: Any) -> list[Any]:
    """Return the results; an exception is a result, too."""
    async with asyncio.timeout(PATIENCE):
        return list(await asyncio.gather(*awaitables, return_exceptions=True))


def until_cut(client: SMTPClient, after: int) -> Callable[[int, int | None], Awaitable[None]]:
    """A `progress` that stops at the cut of the first connection until the client has noticed the cut.

    Otherwise the whole body, its end included, may be in the system's buffers by then.
    """

    async def progress(sent: int, total: int | None) -> None:
        if sent >= after and not client.statistics().reconnects:
            await until(lambda: not client.statistics().open or client.statistics().reconnects)

    return progress


# --- nothing is left -----------------------------------------------------------------------------------------


def sockets() -> int:
    """Return the number of sockets of this process; uvloop replaces its own sockets and keeps their number."""
    count = 0
    for path in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            count += os.readlink(path).startswith("socket:")
    return count


def other_tasks() -> set[asyncio.Task[Any]]:
    """Return every task except the current one."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def demand_nothing_left(tasks: set[asyncio.Task[Any]], before: int) -> None:
    """Fail if there are tasks or sockets that were not there before; another thread may still close some."""
    with contextlib.suppress(TimeoutError):
        await until(lambda: not other_tasks() - tasks and sockets() <= before)
    left = other_tasks() - tasks
    assert not left, f"tasks are left: {left}"
    assert sockets() <= before, f"{sockets() - before} sockets are left"


def set_clock_forward(seconds: float) -> None:
    """Set the running loop's clock forward, so that what waits for time goes on at once. Not on uvloop."""
    loop = asyncio.get_running_loop()
    real = loop.time
    loop.time = lambda: real() + seconds  # type: ignore[method-assign]


class LoopTimers:
    """The timers that are set in the running loop from now on."""

    def __init__(self) -> None:
        self._loop: Any = asyncio.get_running_loop()
        self._handles: list[asyncio.TimerHandle] = []
        # asyncio's `call_later` calls `call_at`, uvloop's does not.
        for name in ("call_at", "call_later"):
            setattr(self._loop, name, self._recording(getattr(self._loop, name)))

    def _recording(self, call: Callable[..., asyncio.TimerHandle]) -> Callable[..., asyncio.TimerHandle]:
        def recorded(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            handle = call(*args, **kwargs)
            if handle not in self._handles:
                self._handles.append(handle)
            return handle

        return recorded

    def pending(self) -> list[asyncio.TimerHandle]:
        """Return those that have neither been called nor cancelled."""
        now = self._loop.time()
        return [handle for handle in self._handles if not handle.cancelled() and handle.when() > now]


class Clock:
    """The timers of an event loop; time passes when a test calls `advance`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> "Timer":
        self.made += 1
        self.timers.append(Timer(self, when, callback))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := min(self.timers, key=lambda timer: timer.at, default=None)) and due.at <= end:
            self.now = max(self.now, due.at)
            due.cancel()
            due.callback()
        self.now = end


class Timer:
    def __init__(self, clock: Clock, at: float, callback: Callable[[], None]) -> None:
        self.clock, self.at, self.callback = clock, at, callback

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        if self in self.clock.timers:
            self.clock.timers.remove(self)


def close_handlers(name: str) -> None:
    """Take the handlers from a logger, and close them and what they buffer for."""
    logger = logging.getLogger(name)
    for handler in [*logger.handlers]:
        logger.removeHandler(handler)
        # Forgotten when it is closed.
        target = getattr(handler, "target", None)
        handler.close()
        if target is not None:
            target.close()


@contextlib.contextmanager
def logging_restored(name: str) -> Iterator[None]:
    """Undo in the end what happens to a logger meanwhile."""
    logger = logging.getLogger(name)
    propagates, level = logger.propagate, logger.level
    try:
        yield
    finally:
        close_handlers(name)
        logger.propagate = propagates
        logger.setLevel(level)
