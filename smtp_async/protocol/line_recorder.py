"""Records each command of a connection, with its secrets masked, and each reply, for hooks.

Nothing is recorded until `recording` is set, because most connections have no hooks.
"""

from __future__ import annotations

from typing import NamedTuple

from ..model.reply import Reply
from .states import Verb
from .transaction import Transaction

__all__ = ["LineRecorder", "RecordedLine"]

_CHUNKS = (Verb.BDAT, Verb.BDAT_LAST)


class RecordedLine(NamedTuple):
    """One line: a command with its secrets masked, or a reply.

    Attributes:
        verb: the command, or the command that the reply answers.
        line: the command without its CRLF; empty for a reply.
        reply: the reply; None for a command.
        transaction: the transaction that the command belongs to, None for a single command.
    """

    verb: Verb
    line: bytes
    reply: Reply | None
    transaction: Transaction | None


class LineRecorder:
    """The lines of one connection, in the order in which they were written and read.

    Attributes:
        recording: are lines recorded?
    """

    __slots__ = ("_lines", "recording")

    def __init__(self) -> None:
        self.recording = False
        self._lines: list[RecordedLine] = []

    def wrote(self, verb: Verb, line: bytes, transaction: Transaction | None = None) -> None:
        """Record a command; call only while recording."""
        if verb in _CHUNKS:
            # The octets of the chunk follow in the same write.
            line = line[: line.index(b"\n")]
        self._lines.append(RecordedLine(verb, line.rstrip(b"\r\n"), None, transaction))

    def read(self, verb: Verb, reply: Reply, transaction: Transaction | None = None) -> None:
        """Record a reply to `verb`; call only while recording."""
        self._lines.append(RecordedLine(verb, b"", reply, transaction))

    def take(self) -> list[RecordedLine]:
        """Return the lines recorded since the last call."""
        lines, self._lines = self._lines, []
        return lines
