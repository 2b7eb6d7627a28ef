"""The script of a test server: at which point, which actions, in place of the right behaviour.

A rule is made by `server.on(point, *actions, …)`. Its actions run in order; what they write goes out
together, in one segment, unless an action between them waits. The actions:

=============================  ====================================================================
`reply(code, *lines)`          a well-formed reply; the server's state follows its code
`default()`                    the right behaviour: the reply of a strict server
`swallow()`                    the right behaviour without a word: the command counts, nothing is written
`raw(data)`                    any bytes; the state does not change
`flush()`                      let out what was written so far, as a segment of its own
`delay(event_or_seconds)`      wait for an `asyncio.Event` (anything with `wait()`) or for seconds
`wait_input()`                 wait until the client has sent something more
`close()`                      end the connection politely (FIN, under TLS close_notify before)
`reset()`                      end it rudely (RST)
`stall()`                      read nothing more, say nothing more
`cut(keep, *actions)`          let only the first `keep` bytes of what the actions write out, then FIN
`drip(*actions, interval=…)`   what the actions write goes out byte by byte
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
        """Return when it is time."""
        ...


class Driven(Protocol):
    """The connection that a step drives; what each method does is said in `connection` and `wire`.

    Attributes:
        log: What came, and how it ended.
        dialogue: The state of the conversation.
        buffer: What came, decrypted, and is not worked off yet.
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
        """Does the client still listen?"""

    def answer(self, command: Command, reply: ServerReply) -> None:
        """Write a reply; what it means is done before."""

    def default(self, command: Command, *, silent: bool = False) -> None:
        """Do what a strict server does."""

    def write(self, data: bytes) -> None:
        """Add bytes to the answers."""

    def write_wire(self, data: bytes) -> None:
        """Write bytes to the socket as they are."""

    def truncate(self, keep: int) -> None:
        """Forget all but the first bytes of the answers that did not go out yet."""

    async def flush(self, split: Split | None = None, interval: float = 0.0) -> None:
        """Let the answers out."""

    async def more(self) -> None:
        """Let the answers out and wait for bytes."""

    async def close(self, *, notify: bool = True) -> None:
        """End with FIN."""

    def reset(self) -> None:
        """End with RST."""

    async def stall(self) -> None:
        """Neither read nor write any more."""


class Step:
    """The point at which the conversation stands, as an action sees it.

    Attributes:
        command: What the client sent (`verb`, `argument`, `line`, `recipient`).
        connection: The connection, with `log` (its `ConnectionLog`) and `dialogue` (the state).
    """

    def __init__(self, connection: Driven, command: Command) -> None:
        """Stand at a command.

        Args:
            connection: Where.
            command: What is to be answered.
        """
        self.connection = connection
        self.command = command

    def write(self, data: bytes) -> None:
        """Add bytes to what goes out next."""
        self.connection.write(data)

    async def flush(self) -> None:
        """Let out what was written."""
        await self.connection.flush()

    def reply(self, code: int, *lines: str) -> None:
        """Write a reply and change the state according to its code.

        Args:
            code: Three digits.
            lines: One text per line.
        """
        self.connection.answer(self.command, ServerReply(code, lines or ("",)))

    def default(self, *, silent: bool = False) -> None:
        """Do what a strict server does.

        Args:
            silent: Change the state only, write nothing.
        """
        self.connection.default(self.command, silent=silent)


def reply(code: int, *lines: str) -> Action:
    """Answer with a well-formed reply; the state of the server follows it, right or wrong.

    Args:
        code: For instance 550. A 354 to DATA makes the server read a body, a 250 to MAIL opens a transaction.
        lines: Text of each line, with its enhanced status code if there shall be one.
    """

    async def action(step: Step) -> None:
        step.reply(code, *lines)

    return action


def default() -> Action:
    """Do the right thing, as if there were no script."""

    async def action(step: Step) -> None:
        step.default()

    return action


def swallow() -> Action:
    """Do the right thing without writing it: the message is accepted, say, but the client is not told."""

    async def action(step: Step) -> None:
        step.default(silent=True)

    return action


def raw(data: bytes, *, clear: bool = False) -> Action:
    """Write any bytes; they change nothing in the server's state.

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
    """Let out what was written so far as a segment of its own, and give the client a turn to read it."""

    async def action(step: Step) -> None:
        await step.flush()
        await turn()

    return action


def delay(until: Waitable | float) -> Action:
    """Wait; the client may go on sending, and may go away.

    Args:
        until: Seconds, or something with `wait()`.
    """

    async def action(step: Step) -> None:
        await step.flush()
        await (asyncio.sleep(until) if isinstance(until, int | float) else until.wait())

    return action


def wait_input() -> Action:
    """Wait until the client has sent bytes that were not there when the step began.

    Between `default()` and `raw(b"X")` at STARTTLS it is the late injection: the client has read the 220 and
    sent its ClientHello when the byte comes.
    """

    async def action(step: Step) -> None:
        await step.connection.more()

    return action


def close() -> Action:
    """End the connection with FIN (under TLS after close_notify); what was written goes out before."""

    async def action(step: Step) -> None:
        await step.connection.close()

    return action


def reset() -> Action:
    """End the connection with RST; what was written goes out before."""

    async def action(step: Step) -> None:
        await step.flush()
        step.connection.reset()

    return action


def stall() -> Action:
    """Read nothing more and say nothing more, until the server is shut down."""

    async def action(step: Step) -> None:
        await step.flush()
        await step.connection.stall()

    return action


def cut(keep: int, *actions: Action) -> Action:
    """Let only the beginning of an answer out, then FIN without close_notify.

    Args:
        keep: How many bytes.
        actions: What writes the answer; `default()` when none is given.
    """

    async def action(step: Step) -> None:
        await step.flush()
        for part in actions or (default(),):
            await part(step)
        step.connection.truncate(keep)
        await step.connection.close(notify=False)

    return action


def drip(*actions: Action, interval: float = 0.0) -> Action:
    """Let an answer out byte by byte, each one a segment (under TLS a record) of its own.

    Args:
        actions: What writes the answer; `default()` when none is given.
        interval: Seconds between two bytes; 0 gives the other side only a turn of the loop.
    """

    async def action(step: Step) -> None:
        await step.flush()
        for part in actions or (default(),):
            await part(step)
        await step.connection.flush("byte", interval)

    return action


def endless(block: bytes, *, start: bytes = b"") -> Action:
    r"""Write for ever, as fast as the client reads.

    Args:
        block: Again and again: `b"250-x\r\n"` for a reply without end, `b"x" * 1024` for a line without end.
        start: Once, before.
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
        actions: What to do there.
        nth: Which occurrences, counted from 1 by this rule; None for each.
        match: A regular expression searched in the line (and, under LMTP at end-of-data, the recipient).
        connection: Only on the connection with this number.
        after: For `BODY`: how many bytes of the body are read before.
        optional: It need not fire.
        seen: How many occurrences there were.
        fired: How often the actions were begun.
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
        """Count an occurrence and say whether it is one of those meant."""
        if self.connection is not None and self.connection != number:
            return False
        text = command.line.decode("utf-8", "surrogateescape") + " " + command.recipient
        if self.match is not None and not self.match.search(text):
            return False
        self.seen += 1
        return self.nth is None or self.seen in self.nth


@dataclass(eq=False)
class Script:
    """All rules; of several that meet the same point the newest wins."""

    _rules: dict[str, list[Rule]] = field(default_factory=dict)

    @property
    def unused(self) -> list[Rule]:
        """The rules that never fired although they should have, oldest first."""
        return [
            rule
            for rules in self._rules.values()
            for rule in reversed(rules)
            if not (rule.fired or rule.optional)
        ]

    def add(self, rule: Rule) -> None:
        """Put a rule before all others."""
        self._rules.setdefault(rule.point, []).insert(0, rule)

    def find(self, command: Command, number: int) -> Rule | None:
        """The rule for a point, if any.

        Args:
            command: The point.
            number: On which connection.
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
