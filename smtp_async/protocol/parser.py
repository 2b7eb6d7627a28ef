"""Bytes → replies, RFC 5321 section 4.2.

Strategy: the bytes that arrive are cut into lines at once; a line that was seen before costs one look into a table. An
unfinished line waits for its end, and is never longer than a line may be, so the work per byte is bounded, however the
bytes are cut. The length of a line, the number of lines of a reply and their total size are limited. Bytes that do not
fit the grammar are an error, because a client that guesses pairs the next reply with the wrong command.

Line ends are LF with an optional CR before it; a bare CR is data, a NUL is never legal.

A server may repeat a secret that it was sent. Every text enters here, so this is where secrets are masked, line by
line, before a reply or an error is made of it. The code, the enhanced code, what the server offers (`keep_plain`) and
the challenges of a login are read from the line as it arrived, because a password may happen to be "SIZE", or "2.1.0",
and a challenge may by accident contain what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import ProtocolViolation, ReplyTooLong
from ..model.reply import Reply, printable
from ..model.secret import MASKED, Mask

__all__ = ["MAX_LINE", "MAX_LINES", "MAX_REPLY", "ReplyParser"]

#: RFC 5321 section 4.5.3.1.5 promises 512; servers exceed it.
MAX_LINE = 8192
#: RFC 4954 section 4: the longest line with a challenge, behind "334 " and before CRLF.
MAX_CHALLENGE_LINE = 12_288 + 6
MAX_LINES = 1024
MAX_REPLY = 65536

#: A reply of one line that asks for a response.
_CHALLENGE = b"334 "

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\0]*))?")

# The same few replies come again and again ("250 2.1.0 Ok"). This many are remembered by their octets, which saves
# 4.5 of 18 µs per message (`benchmarks/core.py`); more if connections share them, because each adds some of its own.
_REMEMBERED = 32
_REMEMBERED_SHARED = 256
#: The longest line, and the longest reply of several lines, that is remembered.
_LONGEST_LINE = 80
_LONGEST_REPLY = 1024


class ReplyParser:
    """Cuts a stream of bytes into replies.

    Args:
        max_line: the longest line accepted, in bytes, its end included.
        max_lines: the most lines accepted in one reply.
        max_reply: the most bytes accepted in one reply.
        known: replies that were read before, which the connections to a server share; None begins with none. A
            connection that has sent a secret shares them no longer.
    """

    __slots__ = (
        "_challenge",
        "_code",
        "_expects_challenge",
        "_failure",
        "_known",
        "_lines",
        "_mask",
        "_max_line",
        "_max_lines",
        "_max_reply",
        "_most_known",
        "_plain",
        "_rest",
        "_size",
    )

    def __init__(
        self,
        *,
        max_line: int = MAX_LINE,
        max_lines: int = MAX_LINES,
        max_reply: int = MAX_REPLY,
        known: dict[bytes, Reply] | None = None,
    ) -> None:
        self._max_line = max_line
        self._max_lines = max_lines
        self._max_reply = max_reply
        # The beginning of an unfinished line.
        self._rest = b""
        self._failure: ProtocolViolation | None = None
        self._lines: list[bytes] = []
        self._code = b""
        self._size = 0
        # By line without its LF, and by reply of several lines with the last LF.
        self._known: dict[bytes, Reply] = {} if known is None else known
        self._most_known = _REMEMBERED if known is None else _REMEMBERED_SHARED
        self._mask: Mask | None = None
        # The lines of the next reply as they arrived, without its first; None if they are not wanted.
        self._plain: list[bytes] | None = None
        self._expects_challenge = False
        self._challenge: bytes | None = None

    def conceal(self, sent: bytes, secrets: Iterable[bytes]) -> None:
        """Mask a secret that is being sent in everything that is read from here on.

        Args:
            sent: the base64 that is written.
            secrets: the parts of it that must not show, decoded.
        """
        if self._mask is None:
            self._mask = Mask()
        self._mask.add_sent(sent)
        self._mask.add_secrets(secrets)
        # A line that was read before may hold, by accident, what is a secret from here on.
        self._forget()

    def keep_plain(self) -> None:
        """Keep the lines of the next reply unmasked, too, because the server's offer is read from them."""
        if self._mask is not None:
            self._plain = []

    def plain(self, reply: Reply) -> Reply:
        """Return the `reply` that `keep_plain` was called for, with all lines but the first (free text) unmasked."""
        plain, self._plain = self._plain, None
        return Reply(reply.code, (reply.raw[0], *plain[: len(reply.raw) - 1])) if plain else reply

    def expect_challenge(self) -> None:
        """Take the next reply for a challenge if it is a 334: it may be long, and only `challenge` is its text."""
        self._expects_challenge = True
        # What is remembered is not looked at again.
        self._forget()

    @property
    def challenge(self) -> bytes | None:
        """The text of the last reply as it arrived, if that was a challenge."""
        return self._challenge

    @property
    def empty(self) -> bool:
        """Is no byte waiting, no reply begun and no error pending?"""
        return not self._rest and not self._lines and self._failure is None

    @property
    def failed(self) -> bool:
        """Is an error pending, behind the replies that were returned?"""
        return self._failure is not None

    def take(self, data: bytes) -> list[Reply]:
        """Append what arrived and return the replies that are complete now.

        Raises:
            ProtocolViolation: the bytes are no reply. Replies before them are returned first, and the next call raises.
            ReplyTooLong: a limit was exceeded; likewise.
        """
        if self._failure is not None:
            raise self._failure
        if self._rest:
            data = self._rest + data
        lines = data.split(b"\n")
        self._rest = lines.pop()
        known = self._known
        if not self._lines:
            # The path of nearly every chunk: whole lines, all seen before.
            replies = list(map(known.get, lines))
            if None not in replies and not self._rest:
                return replies  # type: ignore[return-value]  # no None among them
            if data[3:4] == b"-" and not self._rest:
                return self._take_long(data, lines)
        return self._take_lines(lines)

    def _take_long(self, data: bytes, lines: list[bytes]) -> list[Reply]:
        """Take whole lines that begin with a reply of several; such a reply to EHLO is the same for each connection."""
        if self._mask is not None or len(data) > _LONGEST_REPLY:
            return self._take_lines(lines)
        known = self._known.get(data)
        if known is not None:
            return [known]
        replies = self._take_lines(lines)
        if len(replies) == 1 and len(replies[0].raw) == len(lines):
            self._remember(data, replies[0])
        return replies

    def _remember(self, octets: bytes, reply: Reply) -> None:
        if len(self._known) >= self._most_known:
            # Most are of messages, each with a name of its own, and do not come again; the others soon do.
            self._known.clear()
        self._known[octets] = reply

    def _forget(self) -> None:
        self._known = {}
        self._most_known = _REMEMBERED

    def _take_lines(self, lines: list[bytes]) -> list[Reply]:
        replies: list[Reply] = []
        try:
            for line in lines:
                # Within a reply of several lines the same bytes are one line of it.
                reply = self._known.get(line) if not self._lines else None
                if reply is None:
                    reply = self._take_line(line)
                if reply is not None:
                    replies.append(reply)
            self._limit(self._rest)
        except ProtocolViolation as error:
            self._failure = error
            if not replies:
                raise
        return replies

    def _limit(self, line: bytes) -> None:
        most = self._max_line
        if len(line) < most:
            return
        if self._expects_challenge and line.startswith(_CHALLENGE):
            most = max(most, MAX_CHALLENGE_LINE)
        if len(line) >= most:
            raise ReplyTooLong(f"a reply line is longer than {most} bytes")

    def _take_line(self, line: bytes) -> Reply | None:
        self._limit(line)
        match = _LINE.fullmatch(line[:-1] if line.endswith(b"\r") else line)
        mask = self._mask
        if match is None:
            raise ProtocolViolation(f"not an SMTP reply: {_shown(line if mask is None else mask(line))}")
        code, separator, text = match.groups(b"")
        if self._expects_challenge and self._is_challenge(code, separator):
            # Nothing of it is shown: a server that knows the password may put it into a challenge in any form.
            self._challenge, text = text, MASKED if text else b""
        if mask is not None:
            if self._plain is not None and self._lines:
                self._plain.append(text)
            # Never the code, which is no text.
            text = _masked(mask, code, text)
        if separator == b"-" or self._lines:
            return self._continue(code, separator, text)
        reply = Reply(int(code), (text,))
        if len(line) <= _LONGEST_LINE and not self._expects_challenge:
            self._remember(line, reply)
        return reply

    def _is_challenge(self, code: bytes, separator: bytes) -> bool:
        """Tell whether a line asks for a response; any other reply ends the exchange."""
        asks = code == b"334" and separator != b"-" and not self._lines
        if not asks:
            self._challenge = None
            self._expects_challenge = False
        return asks

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


def _masked(mask: Mask, code: bytes, text: bytes) -> bytes:
    """Mask the text of a line; an enhanced code before it is kept."""
    masked = mask(text)
    if masked == text:
        return text
    enhanced = Reply(int(code), (text,)).enhanced
    if enhanced is None or Reply(int(code), (masked,)).enhanced == enhanced:
        return masked
    # It was a part of a secret, which stays hidden as a whole.
    return b"%b %b" % (str(enhanced).encode(), masked)


def _shown(line: bytes) -> str:
    return repr(printable(line.decode("utf-8", "backslashreplace"), 80))
