r"""`ScriptedServer`: an SMTP or LMTP server for tests, strict unless its script makes it deviate.

Without a script it is a correct server that records what it receives:

    async with ScriptedServer() as server:
        ... send something to server.host, server.port ...
        assert server.messages[0].mail_from == "ann@example.com"
        assert server.messages[0].data == b"Subject: Hello\r\n\r\nHi\r\n"
        assert server.verbs() == ["EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]
        assert server.connections[0].flights == 4      # round trips
        assert server.violations == []                 # what the client did wrong

`server.on(point, *actions)` replaces the right behaviour at a point by actions, which `smtp_async.testing.script`
lists:

    server.on("RCPT", reply(550, "5.1.1 no such user"), nth=2)              # the second recipient
    server.on("RCPT", reply(452, "4.2.2 full"), match="bob@")               # every time for Bob
    server.on("MAIL", default(), raw(b"250 not asked for\r\n"))             # an unsolicited reply behind
    server.on(".", swallow(), close())                  # accepted, but the client never hears of it
    server.on(".", delay(event), default())             # the answer waits for an asyncio.Event
    server.on("DATA", reply(421, "4.3.2 going down"), close())
    server.on("EHLO", cut(10))                          # ten bytes of the right answer, then FIN
    server.on("EHLO", endless(b"250-more\r\n"))         # a reply without end
    server.on("BODY", reply(552, "5.3.4 too big"), stall(), after=10_240)   # early, and reads no more
    server.on("STARTTLS", default(), raw(b"250 AUTH PLAIN\r\n"))            # glued behind the 220
    server.on("STARTTLS", default(), wait_input(), raw(b"X"))               # late: after the ClientHello
    server.on("MAIL", reply(550)); server.on("RCPT", reply(550)); server.on("DATA", reply(354, "go"))
    server.on("CONNECT", close())                       # accept, then close
    server.on("GREETING", reply(554, "5.3.2 no service"), close())
    server.on("GREETING", raw(b"\x15\x03\x03\x00\x02\x02\x28"))             # TLS bytes on a plain port

Points are the verbs and

- `CONNECT`: a connection was accepted, nothing was sent; with implicit TLS before the handshake;
- `GREETING`: in place of the 220; `SECURED`: right after a TLS handshake;
- `BODY`: in the middle of a body, `after=` that many bytes of it (BDAT chunks are added up); a `reply` there
  is the early answer to it, and end-of-data gets none;
- `.`: end-of-data (`BDAT` for the chunks of CHUNKING); under LMTP once for each accepted recipient;
- `RESPONSE`: a line of the client inside AUTH; `*`: any verb.

Rules may be added while the server runs. If several rules meet a point, the newest one is used. `nth` is an int or a
container of ints; each rule counts its occurrences from 1, over all connections. A rule that never fired fails the test
at the end of the `async with`, unless it is `optional=True`. To act on an idle connection use
`await server.act(reply(421, "idle for too long"), close())`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from .connection import Connection
from .dialogue import STANDARD_EXTENSIONS, Settings
from .grammar import Command
from .mechanisms import STANDARD, Mechanism
from .records import ConnectionLogs, ReceivedLine, ReceivedMessage
from .script import Action, Rule, Script, Step
from .wire import Split


class ScriptedServer:
    """A server on 127.0.0.1 (or on a Unix socket) that follows a script; see the module's documentation.

    Attributes:
        messages: The accepted messages, in order.
        commands: Every line received, in order of time, over all connections.
        connections: A `ConnectionLog` per connection, and the counters `opened`, `closed`, `open`.
        violations: Violations of the protocol by clients, in words: bare LF, bytes behind DATA before its 354, a group
            without PIPELINING, dots not doubled. Empty for a correct client.
        script: The rules.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str | os.PathLike[str] | None = None,
        lmtp: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        users: Mapping[str, str] | None = None,
        mechanisms: Mapping[str, Mechanism] = STANDARD,
        auth_in_clear: bool = False,
        require_tls: bool = False,
        require_auth: bool = False,
        extensions: Sequence[str] = STANDARD_EXTENSIONS,
        lists: Mapping[str, Sequence[str]] | None = None,
        hostname: str = "test.invalid",
        split: Split = "whole",
        keep_raw: bool = True,
    ) -> None:
        """Prepare a server; `async with` starts it.

        Args:
            host, port, path: Where to listen: an address and a port (0 for a free one), or a Unix socket.
            lmtp: Speak LMTP (RFC 2033).
            ssl_context: The server's certificate; makes it offer STARTTLS.
            implicit_tls: TLS from the first byte instead of STARTTLS.
            users: Names and passwords; makes it offer AUTH.
            mechanisms: SASL mechanisms by name; by default PLAIN, LOGIN and CRAM-MD5.
            auth_in_clear: Offer AUTH before STARTTLS, too. (Without an `ssl_context` AUTH is always offered in clear.)
            require_tls, require_auth: Refuse MAIL before STARTTLS, before AUTH, with 530.
            extensions: Lines of the EHLO reply. LIMITS with RCPTMAX and MAILMAX is enforced.
            lists: Lists for EXPN: name to members.
            hostname: The server's name.
            split: Segments of the answers: `"whole"` for one segment per flight, `"line"` or `"byte"`.
            keep_raw: Keep every byte received in the connection's log.
        """
        if implicit_tls and ssl_context is None:
            raise ValueError("implicit_tls needs an ssl_context")
        self._address = (host, port)
        self.path = os.fspath(path) if path is not None else None
        self.ssl_context = ssl_context
        self.implicit_tls = implicit_tls
        self.settings = Settings(
            hostname=hostname, lmtp=lmtp, extensions=tuple(extensions), users=users or {},
            mechanisms=mechanisms, lists=lists or {}, starttls=ssl_context is not None and not implicit_tls,
            auth_in_clear=auth_in_clear, require_tls=require_tls, require_auth=require_auth,
        )  # fmt: skip
        self.split: Split = split
        self.keep_raw = keep_raw
        self.script = Script()
        self.messages: list[ReceivedMessage] = []
        self.commands: list[ReceivedLine] = []
        self.connections = ConnectionLogs()
        self.violations: list[str] = []
        self.failures: list[Exception] = []
        self.live: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._watchers: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        self._server: asyncio.Server | None = None

    # Address

    @property
    def host(self) -> str:
        """Address that the server listens on."""
        return self._address[0]

    @property
    def port(self) -> int:
        """Port that the started server listens on; 0 on a Unix socket."""
        return self._address[1]

    @property
    def url(self) -> str:
        """The server as a URL: `smtp+plain://`, `smtp://` (STARTTLS), `smtps://`, `lmtp://`, `…+unix://`."""
        scheme = "lmtp" if self.settings.lmtp else "smtps" if self.implicit_tls else "smtp"
        if self.path is not None:
            return f"{scheme}+unix://{self.path}"
        if scheme == "smtp" and self.ssl_context is None:
            scheme = "smtp+plain"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    # The script

    def on(
        self,
        point: str,
        *actions: Action,
        nth: int | Container[int] | None = None,
        match: str | re.Pattern[str] | None = None,
        connection: int | None = None,
        after: int = 0,
        optional: bool = False,
    ) -> Rule:
        """Add a rule: replace the right behaviour at a point of the conversation.

        A rule that never fired fails the test at the end of the `async with`, because the test did not reach its
        subject.

        Args:
            point: A verb, or one of the points listed in the module's documentation.
            actions: Run in place of the right behaviour; without actions the server does nothing.
            nth: Only these occurrences, from 1.
            match: Only lines in which this regular expression is found.
            connection: Only on the connection with this number, from 0.
            after: For `BODY`: after this number of bytes.
            optional: The rule need not fire.

        Returns:
            The rule, for `wait_fired`; its `fired` counts.

        Raises:
            ValueError: `nth` is, or contains, a number below 1.
        """
        wanted = (nth,) if isinstance(nth, int) else nth
        numbers: Any = wanted
        if isinstance(numbers, Iterable) and any(number < 1 for number in numbers):
            raise ValueError(f"occurrences are counted from 1: nth={nth!r} would never be met")
        pattern = re.compile(match, re.IGNORECASE) if isinstance(match, str) else match
        rule = Rule(point.upper(), actions, wanted, pattern, connection, after, optional)
        self.script.add(rule)
        return rule

    def off(self, rule: Rule) -> None:
        """Remove a rule, so that the right behaviour returns; a step that has begun is carried out.

        Args:
            rule: The rule that `on` returned.

        Raises:
            ValueError: The script does not have this rule.
        """
        self.script.remove(rule)

    async def act(self, *actions: Action, connection: int = -1) -> None:
        """Run actions on an open connection now, at any point of its conversation.

        Args:
            actions: The actions; `reply` writes without changing the state.
            connection: Number of the connection; the newest by default.
        """
        log = self.connections[connection]
        target = next(live for live in self.live if live.log is log)
        step = Step(target, Command("ACT"))
        for action in actions:
            await action(step)
        await target.flush()

    # Records

    @property
    def flights(self) -> int:
        """Round trips of all connections; see `ConnectionLog.flights`."""
        return sum(log.flights for log in self.connections)

    def verbs(self, connection: int | None = None) -> list[str]:
        """Return the verbs received, in order (`"."` is end-of-data).

        Args:
            connection: Only those of one connection.
        """
        return [line.verb for line in self.commands if connection in (None, line.connection)]

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition is true.

        Args:
            condition: Called without arguments, after each line, each message, and each change of a connection.
        """
        if condition():
            return
        future = asyncio.get_running_loop().create_future()
        watcher = (condition, future)
        self._watchers.append(watcher)
        try:
            await future
        finally:
            self._watchers.remove(watcher)

    async def wait_for_messages(self, count: int = 1) -> list[ReceivedMessage]:
        """Wait until `count` messages are accepted, and return all accepted messages.

        Args:
            count: Number of messages in all.
        """
        await self.wait_until(lambda: len(self.messages) >= count)
        return self.messages

    async def wait_for_disconnect(self) -> None:
        """Wait until no connection is open."""
        await self.wait_until(lambda: not self.connections.open)

    async def wait_fired(self, rule: Rule, times: int = 1) -> None:
        """Wait until a rule has fired.

        Args:
            rule: The rule that `on` returned.
            times: How often the rule has to fire.
        """
        await self.wait_until(lambda: rule.fired >= times)

    # Calls of the connections

    def connection(self) -> Connection:
        """Return the object that will talk to the next client."""
        return Connection(self)

    def deliver(self, message: ReceivedMessage) -> None:
        """Record a message that is being accepted."""
        self.messages.append(message)
        self.changed()

    def changed(self) -> None:
        """Check the conditions that tests wait for."""
        for condition, future in self._watchers:
            if not future.done() and condition():
                future.set_result(None)

    # Start and stop

    async def __aenter__(self) -> Self:
        """Start listening."""
        loop = asyncio.get_running_loop()
        if self.path is not None:
            self._server = await loop.create_unix_server(self.connection, self.path, start_serving=False)
        else:
            self._server = await loop.create_server(self.connection, *self._address, start_serving=False)
            self._address = (self._address[0], self._server.sockets[0].getsockname()[1])
        try:
            # If asyncio starts it as it makes it, a cancellation between the two leaves the socket open.
            await self._server.start_serving()
        except BaseException:
            self._server.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening and abort all connections.

        Raises:
            Exception: an action of the script raised it.
            AssertionError: a rule never fired.
        """
        await self.stop()
        if error is None:
            self.raise_failures()

    def raise_failures(self) -> None:
        """Raise if the script failed. The end of the `async with` calls this unless the test has failed already.

        Raises:
            Exception: an action of the script raised it.
            AssertionError: a rule never fired.
        """
        if self.failures:
            raise self.failures[0]
        unused = ", ".join(f"on({rule.point!r}, …)" for rule in self.script.unused)
        if unused:
            raise AssertionError(f"these rules never fired: {unused}; say optional=True where that is meant")

    async def stop(self) -> None:
        """Stop listening, abort every connection, and wait until all have ended."""
        assert self._server is not None
        self._server.close()
        gone = [connection.gone for connection in self.live]
        for connection in self.live:
            connection.transport.abort()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, *gone, return_exceptions=True)
        await self._server.wait_closed()
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
