"""The SMTP server of the catcher: the test kit's strict server, with a dialogue for each message.

A password is not kept: what a client sends inside AUTH is masked before it is written down.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ...errors import FileError
from ...model.reply import printable
from ...testing.connection import Connection
from ...testing.grammar import Command, ServerReply
from ...testing.mechanisms import Exchange
from ...testing.records import ReceivedMessage
from ...testing.server import ScriptedServer

__all__ = ["CatchingServer", "DialogueLine", "Deliver"]

#: The most lines of one dialogue that are kept.
MOST_LINES: Final = 1000
_log = logging.getLogger("smtp_async")
_LONGEST: Final = 2000
_MASK: Final = "********"
_COMMANDS: Final = frozenset(
    b"HELO EHLO LHLO MAIL SEND SOML SAML RCPT DATA BDAT RSET NOOP VRFY EXPN HELP QUIT STARTTLS .".split()
)


class DialogueLine(NamedTuple):
    """A line of a dialogue.

    Attributes:
        who: `client`, `server`, or `note` for what is neither's.
        text: without control characters and without secrets.
        at: seconds since the connection began.
    """

    who: str
    text: str
    at: float


Deliver = Callable[[ReceivedMessage, list[DialogueLine]], None]


class CatchingServer(ScriptedServer):
    """A server that hands over each message with its dialogue, and remembers neither.

    Args:
        deliver: called with each message before its reply is written.
        any_login: offer AUTH, and take any name and password.
        options: arguments of `ScriptedServer`.
    """

    def __init__(self, deliver: Deliver, *, any_login: bool = False, **options: Any) -> None:
        if any_login:
            options["mechanisms"] = {"PLAIN": _plain, "LOGIN": _login}
        super().__init__(keep_raw=False, auth_in_clear=True, **options)
        self._deliver = deliver

    def connection(self) -> Connection:
        """Return a connection that writes its dialogue down."""
        return _Connection(self)

    def deliver(self, message: ReceivedMessage) -> None:
        """Hand over a message."""
        connections = [one for one in self.live if isinstance(one, _Connection)]
        lines = next((one.lines for one in connections if one.log.number == message.connection), [])
        try:
            self._deliver(message, lines)
        except FileError:
            # The client gets no reply, and this connection ends; the next message may have better luck.
            _log.exception("a message could not be kept")
            raise


class _Connection(Connection):
    """Keeps the dialogue of the connection's beginning, and of the message under way."""

    def __init__(self, server: ScriptedServer) -> None:
        super().__init__(server)
        self._began = self._loop.time()
        self._opening: list[DialogueLine] | None = None
        self._message_over = False
        self._tried_login = False
        self.lines: list[DialogueLine] = []

    def note(self, line: bytes) -> None:
        """Write a line of the client down."""
        if self._message_over:
            self.lines, self._message_over = [*(self._opening or ())], False
        verb = line[:4].upper()
        if self._opening is None and verb in (b"MAIL", b"RSET", b"SEND", b"SOML", b"SAML"):
            self._opening = [*self.lines]
        self._write_down("client", self._readable(line))

    def _readable(self, line: bytes) -> str:
        dialogue = self.dialogue
        if dialogue.in_auth:
            return "*" if line == b"*" else _MASK
        words = line.split(b" ", 2)
        verb = words[0].upper()
        if verb == b"AUTH":
            self._tried_login = True
            return b" ".join(words[:2]).decode("utf-8", "replace") + (f" {_MASK}" if len(words) == 3 else "")
        if self._tried_login and verb not in _COMMANDS:
            # A password of a client that did not read that its AUTH was refused.
            return _MASK
        if line == b"." and dialogue.envelope is not None:
            self._write_down("note", f"{dialogue.envelope.data.tell():,} octets of the message")
        return line.decode("utf-8", "replace")

    def answer(self, command: Command, reply: ServerReply) -> None:
        """Write a reply down before it takes effect, so that the message's dialogue ends with it."""
        for text in reply.encode().decode("utf-8", "replace").splitlines():
            self._write_down("server", text)
        super().answer(command, reply)
        last = command.verb == "BDAT" and command.argument.upper().endswith("LAST")
        self._message_over = command.verb == "." or last

    def breach(self, what: str) -> None:
        """Write down that the client broke the protocol."""
        self._write_down("note", f"against the protocol: {what}")

    def _write_down(self, who: str, text: str) -> None:
        if len(self.lines) < MOST_LINES:
            at = round(self._loop.time() - self._began, 3)
            self.lines.append(DialogueLine(who, printable(text, _LONGEST), at))


def _plain(users: Mapping[str, str], initial: bytes | None) -> Exchange:
    message = initial if initial is not None else (yield b"")
    parts = message.split(b"\0")
    return parts[1].decode("utf-8", "replace") if len(parts) == 3 else None


def _login(users: Mapping[str, str], initial: bytes | None) -> Exchange:
    user = initial if initial is not None else (yield b"Username:")
    yield b"Password:"
    return user.decode("utf-8", "replace")
