"""The script of a test server: the actions that replace the right behaviour at points of the conversation.

A rule is made by `server.on(point, *actions, …)`. Its actions run in order; what they write goes out
together, in one segment, unless an action between them waits. The actions:

=============================  ====================================================================
`reply(code, *lines)`          a well-formed reply; the server's state follows its code
`default()`                    the right behaviour: the reply of a strict server
`swallow()`                    the right behaviour in silence: the state changes, nothing is written
`raw(data)`                    any bytes; the state does not change
`flush()`                      send what was written so far, as a segment of its own
`delay(event_or_seconds)`      wait for an `asyncio.Event` (anything with `wait()`) or for seconds
`wait_input()`                 wait until the client has sent something more
`close()`                      end the connection politely (FIN, under TLS close_notify before)
`reset()`                      end the connection with RST
`stall()`                      stop reading and writing
`cut(keep, *actions)`          send only the first `keep` bytes of what the actions write, then FIN
`drip(*actions, interval=…)`   send what the actions write byte by byte
`endless(block, start=…)`      write `start`, then `block` for ever
=============================  ====================================================================

An action of your own is an `async def action(step: Step) -> None`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from .dialogue import Dialogue
from .grammar import Command, ServerReply
from .records import ConnectionLog
from .wire import Split, turn

Action = Callable[["Step"], Awaitable[None]]

POINTS: Final = frozenset({"CONNECT", "GREETING", "SECURED", "BODY", ".", "RESPONSE", "*"})


class Waitable(Protocol):
    """What `delay` waits for: an `asyncio.Event`, for example."""

    def wait(self) -> Awaitable[Any]:
        """Return when the wait is over."""
        ...


class Driven(Protocol):
    """The connection that a step drives; `connection` and `wire` implement it.

    Attributes:
        log: The record of the connection.
        dialogue: The state of the conversation.
        buffer: Bytes received, decrypted, and not processed yet.
        transport: The socket.
        gone: Done when the socket is closed.
    """

    log: ConnectionLog
    dialogue: Dialogue
    buffer: bytearray
    transport: asyncio.Transport
    gone: asyncio.Future[None]

    @property
    def writable(self) -> bool:
        """Whether the client can still receive bytes."""

    def answer(self, command: Command, reply: ServerReply) -> None:
        """Change the state as the reply says, then write the reply."""

    def default(self, command: Command, *, silent: bool = False) -> None:
        """Answer as a strict server does."""

    def write(self, data: bytes) -> None:
        """Add bytes to the pending output."""

    def write_wire(self, data: bytes) -> None:
        """Write bytes to the socket as they are."""

    def truncate(self, keep: int) -> None:
        """Drop all but the first bytes of the pending output."""

    async def flush(self, split: Split | None = None, interval: float = 0.0) -> None:
        """Send the pending output."""

    async def more(self) -> None:
        """Send the pending output and wait for bytes."""

    async def close(self, *, notify: bool = True) -> None:
        """End with FIN."""

    def reset(self) -> None:
        """End with RST."""

    async def stall(self) -> None:
        """Stop reading and writing."""


class Step:
    """The current point of the conversation, as an action sees it.

    Attributes:
        command: The client's command (`verb`, `argument`, `line`, `recipient`).
        connection: The connection, with `log` (its `ConnectionLog`) and `dialogue` (the state).
    """

    def __init__(self, connection: Driven, command: Command) -> None:
        """Start at a command.

        Args:
            connection: The connection.
            command: The command to answer.
        """
        self.connection = connection
        self.command = command

    def write(self, data: bytes) -> None:
        """Add bytes to the pending output."""
        self.connection.write(data)

    async def flush(self) -> None:
        """Send the pending output."""
        await self.connection.flush()

    def reply(self, code: int, *lines: str) -> None:
        """Write a reply and change the state according to its code.

        Args:
            code: Three digits.
            lines: One text per line.
        """
        self.connection.answer(self.command, ServerReply(code, lines or ("",)))

    def default(self, *, silent: bool = False) -> None:
        """Answer as a strict server does.

        Args:
            silent: Change the state, but write nothing.
        """
        self.connection.default(self.command, silent=silent)


def reply(code: int, *lines: str) -> Action:
    """Send a well-formed reply; the server's state changes as the code says, right or wrong.

    Args:
        code: For example 550. A 354 to DATA makes the server read a body, and a 250 to MAIL opens a transaction.
        lines: Text of each line, with its enhanced status code if it has one.
    """

    async def action(step: Step) -> None:
        step.reply(code, *lines)

    return action


def default() -> Action:
    """Answer as a strict server does, as without a script."""

    async def action(step: Step) -> None:
        step.default()

    return action


def swallow() -> Action:
    """Change the state as a strict server does, but write nothing: for example, accept a message in silence."""

    async def action(step: Step) -> None:
        step.default(silent=True)

    return action


def raw(data: bytes, *, clear: bool = False) -> Action:
    """Write any bytes; the server's state does not change.

    Args:
        data: Garbage, half a reply, two replies, a fake EHLO answer.
        clear: Under TLS, write them unencrypted between the records.
    """

    async def action(step: Step) -> None:
        if clear:
            await step.flush()
            step.connection.write_wire(data)
        else:
            step.write(data)

    return action


def flush() -> Action:
    """Send what was written so far as a segment of its own, and give the client a turn of the loop to read it."""

    async def action(step: Step) -> None:
        await step.flush()
        await turn()

    return action


def delay(until: Waitable | float) -> Action:
    """Wait; meanwhile the client may send bytes or close the connection.

    Args:
        until: Seconds, or something with `wait()`.
    """

    async def action(step: Step) -> None:
        await step.flush()
        await (asyncio.sleep(until) if isinstance(until, int | float) else until.wait())

    return action


def wait_input() -> Action:
    """Wait until the client has sent bytes that had not arrived when the step began.

    Between `default()` and `raw(b"X")` at STARTTLS this makes a late injection: the client has read the 220 and sent
    its ClientHello when the byte arrives.
    """

    async def action(step: Step) -> None:
        await step.connection.more()

    return action


def close() -> Action:
    """Send what was written, then end the connection with FIN (under TLS after close_notify)."""

    async def action(step: Step) -> None:
        await step.connection.close()

    return action


def reset() -> Action:
    """Send what was written, then end the connection with RST."""

    async def action(step: Step) -> None:
        await step.flush()
        step.connection.reset()

    return action


def stall() -> Action:
    """Stop reading and writing until the server is shut down."""

    async def action(step: Step) -> None:
        await step.flush()
        await step.connection.stall()

    return action


def cut(keep: int, *actions: Action) -> Action:
    """Send only the beginning of an answer, then FIN without close_notify.

    Args:
        keep: Number of bytes to send.
        actions: The actions that write the answer; `default()` if none is given.
    """

    async def action(step: Step) -> None:
        await step.flush()
        for part in actions or (default(),):
            await part(step)
        step.connection.truncate(keep)
        await step.connection.close(notify=False)

    return action


def drip(*actions: Action, interval: float = 0.0) -> Action:
    """Send an answer byte by byte, each byte a segment (under TLS a record) of its own.

    Args:
        actions: The actions that write the answer; `default()` if none is given.
        interval: Seconds between two bytes; 0 is one turn of the loop.
    """

    async def action(step: Step) -> None:
        await step.flush()
        for part in actions or (default(),):
            await part(step)
        await step.connection.flush("byte", interval)

    return action


def endless(block: bytes, *, start: bytes = b"") -> Action:
    r"""Write without end, as fast as the client reads.

    Args:
        block: Repeated: `b"250-x\r\n"` for an endless reply, `b"x" * 1024` for an endless line.
        start: Written once, before the first block.
    """

    async def action(step: Step) -> None:
        step.write(start)
        chunk = block * (16384 // len(block) + 1)
        while step.connection.writable:
            step.write(chunk)
            await step.flush()

    return action


@dataclass(eq=False)
class Rule:
    """One line of the script, as made by `ScriptedServer.on`.

    Attributes:
        point: Verb or other point.
        actions: The actions to run there.
        nth: Numbers of the occurrences, counted from 1 by this rule; None for every occurrence.
        match: A regular expression searched in the line (and, under LMTP at end-of-data, the recipient).
        connection: Only on the connection with this number.
        after: For `BODY`: number of bytes of the body that are read before.
        optional: The rule need not fire.
        seen: Number of occurrences so far.
        fired: How often the actions were started.
    """

    point: str
    actions: tuple[Action, ...]
    nth: Container[int] | None = None
    match: re.Pattern[str] | None = None
    connection: int | None = None
    after: int = 0
    optional: bool = False
    seen: int = 0
    fired: int = 0

    def meets(self, command: Command, number: int) -> bool:
        """Count an occurrence, and return whether the actions run for it."""
        if self.connection is not None and self.connection != number:
            return False
        text = command.line.decode("utf-8", "surrogateescape") + " " + command.recipient
        if self.match is not None and not self.match.search(text):
            return False
        self.seen += 1
        return self.nth is None or self.seen in self.nth


@dataclass(eq=False)
class Script:
    """All rules; if several meet the same point, the newest one is used."""

    _rules: dict[str, list[Rule]] = field(default_factory=dict)

    @property
    def unused(self) -> list[Rule]:
        """The rules that never fired and are not optional, the oldest first."""
        return [
            rule
            for rules in self._rules.values()
            for rule in reversed(rules)
            if not (rule.fired or rule.optional)
        ]

    def add(self, rule: Rule) -> None:
        """Add a rule, which precedes all others."""
        self._rules.setdefault(rule.point, []).insert(0, rule)

    def remove(self, rule: Rule) -> None:
        """Remove a rule.

        Raises:
            ValueError: the script does not have this rule.
        """
        self._rules.get(rule.point, []).remove(rule)

    def find(self, command: Command, number: int) -> Rule | None:
        """Return the rule for a point, None if there is none.

        Args:
            command: The command or other point.
            number: Number of the connection.
        """
        if not self._rules:
            return None
        rules = list(self._rules.get(command.verb, ()))
        if command.verb not in POINTS:
            rules += self._rules.get("*", ())
        meeting = [rule for rule in rules if rule.meets(command, number)]
        if not meeting:
            return None
        meeting[0].fired += 1
        return meeting[0]
