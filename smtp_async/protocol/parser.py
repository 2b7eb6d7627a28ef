"""Bytes → replies, RFC 5321 section 4.2.

Strategy: one buffer, one cursor. A line is searched for from where the last search ended and looked at once, so the
work is linear in the bytes received, however they are cut. Everything is bounded: the length of a line, the
number of lines of a reply and their sum. What does not fit the grammar raises at once, because a client that
guesses pairs the next reply with the wrong command.

Line ends are LF with an optional CR before it; a bare CR is data, a NUL is never legal.
"""

from __future__ import annotations

import re

from ..errors import ProtocolViolation, ReplyTooLong
from ..reply import Reply, printable

__all__ = ["MAX_LINE", "MAX_LINES", "MAX_REPLY", "ReplyParser"]

#: RFC 5321 section 4.5.3.1.5 promises 512; servers exceed it.
MAX_LINE = 2048
MAX_LINES = 1024
MAX_REPLY = 65536

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\0]*))?")

# The same few replies come again and again ("250 2.1.0 Ok"). This many are remembered by their line.
_REMEMBERED = 32


class ReplyParser:
    """Cut a stream of bytes into replies.

    Feed it what arrives, then take replies until there is none.

    Args:
        max_line: the longest line accepted, in bytes, its end included.
        max_lines: the most lines accepted in one reply.
        max_reply: the most bytes accepted in one reply.
    """

    __slots__ = (
        "_buffer",
        "_code",
        "_known",
        "_lines",
        "_max_line",
        "_max_lines",
        "_max_reply",
        "_position",
        "_searched",
        "_size",
    )

    def __init__(
        self, *, max_line: int = MAX_LINE, max_lines: int = MAX_LINES, max_reply: int = MAX_REPLY
    ) -> None:
        self._max_line = max_line
        self._max_lines = max_lines
        self._max_reply = max_reply
        self._buffer = b""
        self._position = 0
        self._searched = 0
        self._lines: list[bytes] = []
        self._code = b""
        self._size = 0
        self._known: dict[bytes, Reply] = {}

    @property
    def empty(self) -> bool:
        """No byte is waiting and no reply has begun."""
        return self._position == len(self._buffer) and not self._lines

    def feed(self, data: bytes) -> None:
        """Append what arrived."""
        rest = len(self._buffer) - self._position
        if rest:
            data = self._buffer[self._position :] + data
            self._searched -= self._position
        else:
            self._searched = 0
        self._buffer = data
        self._position = 0

    def next_reply(self) -> Reply | None:
        """Return the next complete reply, or None until more bytes come.

        Raises:
            ProtocolViolation: the bytes are no reply.
            ReplyTooLong: a limit was exceeded.
        """
        while True:
            buffer, start = self._buffer, self._position
            if start == len(buffer):
                return None
            end = buffer.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(buffer)
            if (end if end >= 0 else len(buffer)) - start >= self._max_line:
                raise ReplyTooLong(f"a reply line is longer than {self._max_line} bytes")
            if end < 0:
                return None
            self._position = self._searched = end + 1
            if end > start and buffer[end - 1] == 13:
                end -= 1
            line = buffer[start:end]
            # Within a reply of several lines the same bytes are one line of it.
            reply = self._known.get(line) if not self._lines else None
            if reply is None:
                reply = self._take(line)
            if reply is not None:
                return reply

    def _take(self, line: bytes) -> Reply | None:
        match = _LINE.fullmatch(line)
        if match is None:
            raise ProtocolViolation(f"not an SMTP reply: {_shown(line)}")
        code, separator, text = match.groups(b"")
        if separator == b"-" or self._lines:
            return self._continue(code, separator, text)
        reply = Reply(int(code), (text,))
        if len(self._known) < _REMEMBERED and len(line) <= 80:
            self._known[line] = reply
        return reply

    def _continue(self, code: bytes, separator: bytes, text: bytes) -> Reply | None:
        if self._lines and code != self._code:
            raise ProtocolViolation(f"a reply changes its code from {_shown(self._code)} to {_shown(code)}")
        self._code = code
        self._lines.append(text)
        self._size += len(text) + 6
        if len(self._lines) > self._max_lines:
            raise ReplyTooLong(f"a reply has more than {self._max_lines} lines")
        if self._size > self._max_reply:
            raise ReplyTooLong(f"a reply is longer than {self._max_reply} bytes")
        if separator == b"-":
            return None
        reply = Reply(int(code), tuple(self._lines))
        self._lines = []
        self._size = 0
        return reply


def _shown(line: bytes) -> str:
    return repr(printable(line.decode("utf-8", "backslashreplace"), 80))
