"""Replies of a server, as values.

The first digit decides the meaning of a reply (RFC 5321 section 4.2.1); an unknown code is never fatal. The octets are
kept as they were received and decoded only on access, because few replies are ever shown.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["EnhancedCode", "Reply", "printable"]

# RFC 3463 section 2: class "." subject "." detail, the last two of one to three digits.
_ENHANCED = re.compile(rb"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?:[ \t]|$)")

#: The longest text of a reply, in characters, in a log line or an exception.
SHOWN = 1000


class EnhancedCode(NamedTuple):
    """An enhanced status code, RFC 3463."""

    klass: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"


class Reply(NamedTuple):
    """One complete reply, RFC 5321 section 4.2.

    Attributes:
        code: the three digits, 200 to 599.
        raw: the text of each line behind code and separator, as received, without the line ending.
    """

    code: int
    raw: tuple[bytes, ...] = (b"",)

    @property
    def lines(self) -> tuple[str, ...]:
        """The text of each line; bytes that are not UTF-8 are shown as escapes."""
        return tuple(line.decode("utf-8", "backslashreplace") for line in self.raw)

    @property
    def text(self) -> str:
        """All lines joined by newlines."""
        return "\n".join(self.lines)

    @property
    def enhanced(self) -> EnhancedCode | None:
        """The enhanced status code, if its class is that of the reply (RFC 2034 section 4)."""
        match = _ENHANCED.match(self.raw[0])
        if match is None or int(match[1]) != self.code // 100:
            return None
        return EnhancedCode(int(match[1]), int(match[2]), int(match[3]))

    @property
    def positive(self) -> bool:
        """2xx: the command was carried out."""
        return 200 <= self.code < 300

    @property
    def intermediate(self) -> bool:
        """3xx: the server waits for more input."""
        return 300 <= self.code < 400

    @property
    def temporary(self) -> bool:
        """4xx: refused, but may succeed later."""
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        """5xx: refused; the same command will be refused again."""
        return self.code >= 500

    @property
    def too_many_recipients(self) -> bool:
        """In reply to RCPT: the transaction has as many recipients as the server accepts.

        An enhanced code X.5.3 (RFC 3463 section 3.6) means this with any basic code: Dovecot replies 451 4.5.3.
        Without an enhanced code, 452 does, and 552 is treated as 452 (RFC 5321 section 4.5.3.1.10).
        """
        enhanced = self.enhanced
        if enhanced is None:
            return self.code in (452, 552)
        return self.code >= 400 and enhanced[1:] == (5, 3)

    def __str__(self) -> str:
        return printable(f"{self.code} {' '.join(self.lines)}".rstrip(), SHOWN)


def printable(text: str, limit: int = SHOWN) -> str:
    """Return `text` on one line, with control and direction characters escaped, cut at `limit` characters.

    A server chooses the text of its replies: unescaped, it could clear a terminal, forge a log line or change
    the direction of writing.
    """
    # Not printable: control, direction and format characters, separators but the space, unassigned code points.
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escaped(c) for c in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
