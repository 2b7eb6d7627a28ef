"""One connection of the test server: the script around the strict dialogue.

One task per connection takes commands out of the buffer, follows the script or else the dialogue, and records what it
received.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from io import BytesIO
from typing import Any, Final, Protocol

from .dialogue import Dialogue, Settings
from .grammar import Command, ServerReply, chunk_size, is_last, parse_command, unstuff
from .records import ConnectionLogs, ReceivedLine, ReceivedMessage
from .script import Rule, Script, Step
from .wire import Over, Split, Wire

# RFC 2920 §3.1: these commands end a group; the client must read the reply before it sends more.
_LAST_IN_GROUP: Final = frozenset(
    {"EHLO", "HELO", "LHLO", "DATA", "VRFY", "EXPN", "QUIT", "NOOP", "STARTTLS", "AUTH", "RESPONSE"}
)
_MAX_LINE: Final = 12288  # RFC 4954 §4.3, the longest of all
_END_OF_DATA: Final = b"\r\n.\r\n"


class Host(Protocol):
    """What a connection requires of its server: settings, script and records."""

    settings: Settings
    ssl_context: ssl.SSLContext | None
    implicit_tls: bool
    split: Split
    keep_raw: bool
    script: Script
    connections: ConnectionLogs
    commands: list[ReceivedLine]
    violations: list[str]
    failures: list[Exception]
    tasks: set[asyncio.Task[None]]

    @property
    def live(self) -> set[Any]:
        """The connections that are open."""

    def deliver(self, message: ReceivedMessage) -> None:
        """Record a message."""

    def changed(self) -> None:
        """Check the conditions that tests wait for."""


class Connection(Wire):
    """One client connection, from accept to close."""

    def __init__(self, server: Host) -> None:
        """Wait for `connection_made`.

        Args:
            server: Has the script and the records.
        """
        super().__init__(server.connections.add(), split=server.split, keep_raw=server.keep_raw)
        self._server = server
        self.dialogue = Dialogue(server.settings, self.log.number, server.deliver)
        self._rule: Rule | None = None
        self._body_seen = 0
        self._body_breaches: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the task of the conversation."""
        super().connection_made(transport)
        self._server.live.add(self)
        self._server.changed()
        task = self._loop.create_task(self._run())
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def eof_received(self) -> bool:
        """Record that the client has ended its direction."""
        self._server.connections.end(self.log)
        self._server.changed()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Record the end; commands that the client had sent before are still executed."""
        super().connection_lost(exc)
        self._server.live.discard(self)
        self._server.connections.end(self.log)
        self._server.changed()

    # Reading lines

    async def _line(self) -> bytes:
        """Take the next line out of the buffer."""
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > _MAX_LINE:
                self.breach("a line without end")
                self.answer(Command(""), ServerReply(500, ("5.5.2 Line too long",)))
                raise Over
            await self.more()
        line = bytes(self.buffer[: end + 1])
        del self.buffer[: end + 1]
        self.note(line.rstrip(b"\r\n"))
        return line

    def note(self, line: bytes) -> None:
        """Record a line of the client; the dot that ends DATA counts as a line."""
        entry = ReceivedLine(self.log.number, line, self._loop.time(), self.dialogue.tls)
        self._server.commands.append(entry)
        self._server.changed()

    def breach(self, what: str) -> None:
        """Record that the client broke the protocol."""
        self._server.violations.append(f"connection {self.log.number}: {what}")

    # Answering

    def answer(self, command: Command, reply: ServerReply) -> None:
        """Change the state as the reply says, then write the reply."""
        self._apply(command, reply.code)
        self.write(reply.encode())

    def _apply(self, command: Command, code: int) -> None:
        self.dialogue.apply(command, code)
        self.log.user = self.dialogue.user

    def default(self, command: Command, *, silent: bool = False) -> None:
        """Answer as a strict server does.

        Args:
            command: The command, or another point of the script.
            silent: Change the state, but write nothing.
        """
        if command.verb in ("CONNECT", "SECURED", "BODY"):
            return
        reply = self.dialogue.judge(command)
        if silent:
            self._apply(command, reply.code)
        else:
            self.answer(command, reply)

    async def perform(self, command: Command) -> None:
        """Answer one command: by the rule of the script that meets it, or else as a strict server."""
        rule = self._server.script.find(command, self.log.number)
        if rule is None:
            self.default(command)
        else:
            await self._follow(rule, command)

    async def _follow(self, rule: Rule, command: Command) -> None:
        self._server.changed()
        step = Step(self, command)
        for action in rule.actions:
            await action(step)
            if self._ended:
                raise Over

    # The conversation

    async def _run(self) -> None:
        try:
            with contextlib.suppress(Over):
                await self._converse()
            await self.close()
        except Exception as error:
            self._server.failures.append(error)
            self.transport.abort()
        self._server.changed()

    async def _converse(self) -> None:
        await self.perform(Command("CONNECT"))
        if self._server.implicit_tls:
            await self._secure()
        await self.perform(Command("GREETING"))
        while not self.dialogue.over:
            line = await self._line()
            self._inspect(line)
            command = parse_command(line.rstrip(b"\r\n"))
            if self.dialogue.in_auth:
                command = Command("RESPONSE", "", command.line)
            await self._command(command)

    def _inspect(self, line: bytes) -> None:
        """Record bare CR, bare LF and NUL as violations."""
        if not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
            self.breach(f"bare CR, bare LF or NUL in {line[:80]!r}")

    async def _command(self, command: Command) -> None:
        verb = command.verb
        if self.buffer and verb != "BDAT":
            self._inspect_group(verb)
        if verb == "QUIT":
            self.log.quit = True
        if verb == "BDAT":
            return await self._bdat(command)
        if verb == "STARTTLS":
            self.buffer.clear()
        await self.perform(command)
        if self.dialogue.in_data:
            await self._data()
        elif self.dialogue.upgrade:
            await self._secure()

    def _inspect_group(self, verb: str) -> None:
        if verb in _LAST_IN_GROUP:
            self.breach(f"bytes behind {verb}, before its reply: {bytes(self.buffer[:80])!r}")
        elif not (self.dialogue.esmtp and self.dialogue.offers("PIPELINING")):
            self.breach(f"bytes behind {verb}, without PIPELINING: {bytes(self.buffer[:80])!r}")

    async def _secure(self) -> None:
        """Do the server's part of a TLS handshake."""
        assert self._server.ssl_context is not None, "a 220 to STARTTLS needs an ssl_context"
        await self.start_tls(self._server.ssl_context)
        self.dialogue.secured()
        await self.perform(Command("SECURED"))

    # Bodies

    async def _data(self) -> None:
        """Read a body up to the lone dot, then answer."""
        self.dialogue.in_data = False
        self._begin_body()
        # Complete lines are taken as they come, because a test shares the loop with the server: a large body taken at
        # its end would stop the client for a tenth of a second.
        rest = bytearray(b"\r\n")  # so that a dot on the first line is found as on any other
        end = -1
        while end < 0:
            start = max(0, len(rest) - 4)
            rest += await self._body_piece()
            end = rest.find(_END_OF_DATA, start)
            taken = end if end >= 0 else rest.rfind(b"\r\n", start)
            if taken > 0:
                self._take_lines(bytes(rest[2 : taken + 2]))
                del rest[:taken]
        self.buffer[:0] = rest[5:]
        self.note(b".")
        await self._conclude(Command(".", "", b"."))
        self.dialogue.envelope = None

    def _take_lines(self, lines: bytes) -> None:
        """Inspect complete lines of a body, and keep what they say."""
        ends, dots, doubled = lines.count(b"\r\n"), lines.count(b"\r\n."), lines.count(b"\r\n..")
        if lines.count(b"\n") != ends or lines.count(b"\r") != ends:
            self._body_breach("bare CR or LF in DATA")
        if dots != doubled or lines.startswith(b".") != lines.startswith(b".."):
            self._body_breach("a dot at the beginning of a line was not doubled")
        envelope = self.dialogue.envelope
        if envelope is None:
            return
        if not lines.isascii() and "BODY" not in envelope.parameters:
            self._body_breach("8-bit content without BODY=8BITMIME")
        envelope.data.write(unstuff(lines))

    def _body_breach(self, what: str) -> None:
        """Record a breach once for each body."""
        if what not in self._body_breaches:
            self._body_breaches.add(what)
            self.breach(what)

    async def _bdat(self, command: Command) -> None:
        """Read a chunk, then answer its BDAT (RFC 3030 §2)."""
        left = chunk_size(command.argument)
        if left is None or not self.dialogue.offers("CHUNKING"):
            return await self.perform(command)
        envelope = self.dialogue.envelope
        if envelope is None or not envelope.chunked:
            self._begin_body()
        if envelope is None or not envelope.recipients:  # refused, but its octets must be read
            await self._read_chunk(left, BytesIO())
            return await self.perform(command)
        envelope.chunked = True
        await self._read_chunk(left, envelope.data)
        if is_last(command.argument):
            await self._conclude(command)
            self.dialogue.envelope = None
        elif envelope.answered_early:
            envelope.answered_early = False
        else:
            await self.perform(command)

    async def _read_chunk(self, left: int, data: BytesIO) -> None:
        while left or self._body_due():
            piece = await self._body_piece(left)
            left -= len(piece)
            data.write(piece)

    async def _conclude(self, command: Command) -> None:
        """Answer end-of-data: once; under LMTP once for each recipient; not at all after an early answer."""
        envelope = self.dialogue.envelope
        if envelope is not None and envelope.answered_early:
            return
        if envelope is None or envelope.broken or not self.dialogue.settings.lmtp:
            return await self.perform(command)
        for turn, (recipient, _) in enumerate(envelope.recipients):
            envelope.turn = turn
            await self.perform(command._replace(recipient=recipient))

    def _begin_body(self) -> None:
        self._body_seen = 0
        self._body_breaches.clear()
        self._rule = self._server.script.find(Command("BODY"), self.log.number)

    def _body_due(self) -> bool:
        return self._rule is not None and self._body_seen >= self._rule.after

    async def _body_piece(self, most: int | None = None) -> bytes:
        """Take body bytes out of the buffer, at most up to the point where a rule fires."""
        if self._rule is not None and self._body_due():
            rule, self._rule = self._rule, None
            await self._follow(rule, Command("BODY"))
            return b""
        if not self.buffer:
            await self.more()
        size = len(self.buffer) if most is None else min(most, len(self.buffer))
        if self._rule is not None:
            size = min(size, self._rule.after - self._body_seen)
        piece = bytes(self.buffer[:size])
        del self.buffer[:size]
        self._body_seen += size
        return piece
