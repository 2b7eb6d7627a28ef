"""`ServerThread`: a test server in a thread with an event loop of its own.

For tests without an event loop, and for fixtures that work with any asynchronous test plugin:

    with ServerThread(RecordingSink()) as sink:
        smtplib.SMTP(sink.host, sink.port).send_message(message)
        assert sink.messages[0].subject == "Hello"

A message is recorded before the client reads its 250, so after a send the record is complete.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Container
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, Self, TypeVar

from .records import ConnectionLogs, ReceivedLine, ReceivedMessage
from .script import Action, Rule
from .server import ScriptedServer

S = TypeVar("S", bound=ScriptedServer)
T = TypeVar("T")


class ServerThread(Generic[S]):
    """Runs a server in a thread. Any thread may read the server's records and add rules to its script.

    Attributes:
        server: The server itself. Its coroutines must run in the thread's loop: use `run`.
    """

    def __init__(self, server: S, *, start_timeout: float = 10.0) -> None:
        """Prepare a thread; `start` or `with` starts it.

        Args:
            server: A server that is not started.
            start_timeout: Seconds to wait until the server listens, and until it has stopped.
        """
        self.server = server
        self._patience = start_timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="smtp-test-server", daemon=True)

    # Address and records

    @property
    def host(self) -> str:
        """Address that the server listens on."""
        return self.server.host

    @property
    def port(self) -> int:
        """Port that the server listens on."""
        return self.server.port

    @property
    def url(self) -> str:
        """The server as a URL."""
        return self.server.url

    @property
    def messages(self) -> list[ReceivedMessage]:
        """The messages accepted so far (a copy)."""
        return list(self.server.messages)

    @property
    def commands(self) -> list[ReceivedLine]:
        """Every line received so far (a copy)."""
        return list(self.server.commands)

    @property
    def connections(self) -> ConnectionLogs:
        """One log per connection, and the counters."""
        return self.server.connections

    @property
    def violations(self) -> list[str]:
        """Violations of the protocol by clients (a copy)."""
        return list(self.server.violations)

    # Script and calls

    def on(
        self,
        point: str,
        *actions: Action,
        nth: int | Container[int] | None = None,
        match: str | None = None,
        connection: int | None = None,
        after: int = 0,
        optional: bool = False,
    ) -> Rule:
        """Add a rule, as `ScriptedServer.on` does."""
        return self.call(
            lambda: self.server.on(
                point, *actions, nth=nth, match=match, connection=connection, after=after, optional=optional
            )
        )

    def off(self, rule: Rule) -> None:
        """Remove a rule, as `ScriptedServer.off` does."""
        self.call(lambda: self.server.off(rule))

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the server's loop, for example the `set` of an event that `delay` waits for.

        Args:
            function: Called without arguments.

        Returns:
            The value that `function` returned.
        """

        async def calling() -> T:
            return function()

        return self.run(calling)

    def run(self, function: Callable[[], Awaitable[T]], timeout: float | None = 10.0) -> T:
        """Run a coroutine function in the server's loop and wait for it, blocking.

        Args:
            function: Called in the loop.
            timeout: Seconds to wait.

        Raises:
            TimeoutError: The coroutine took longer.
        """
        return self._submit(function).result(timeout)

    async def wait_for_messages(self, count: int = 1) -> list[ReceivedMessage]:
        """Wait, in the caller's asyncio loop, until `count` messages are accepted; return all accepted messages.

        Args:
            count: Number of messages in all.
        """
        await asyncio.wrap_future(self._submit(lambda: self.server.wait_for_messages(count)))
        return self.messages

    def wait_for_messages_blocking(self, count: int = 1, timeout: float = 10.0) -> list[ReceivedMessage]:
        """Wait without an event loop until `count` messages are accepted; return all accepted messages.

        Args:
            count: Number of messages in all.
            timeout: Seconds to wait.

        Raises:
            TimeoutError: Fewer messages were accepted in that time.
        """
        self.run(lambda: self.server.wait_for_messages(count), timeout)
        return self.messages

    def _submit(self, function: Callable[[], Awaitable[T]]) -> Future[T]:
        if self._loop is None:
            raise RuntimeError("the server is not running")

        async def running() -> T:
            return await function()

        return asyncio.run_coroutine_threadsafe(running(), self._loop)

    # Start and stop

    def start(self) -> Self:
        """Start the thread and wait until the server listens."""
        self._thread.start()
        if not self._ready.wait(self._patience):
            raise TimeoutError("the test server did not start")
        if self._failure is not None:
            raise self._failure
        return self

    def stop(self) -> None:
        """Stop the server and the thread."""
        loop, self._loop = self._loop, None
        if loop is not None and self._stop is not None:
            loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(self._patience)
        if self._failure is not None:
            raise self._failure

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        await self.server.__aenter__()
        try:
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            await self._stop.wait()
        finally:
            await self.server.stop()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; raise like `ScriptedServer.raise_failures`, unless the test has failed already."""
        self.stop()
        if error is None:
            self.server.raise_failures()
