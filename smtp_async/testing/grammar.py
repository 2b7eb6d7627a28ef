"""SMTP lines, as the test server parses and writes them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

_PATH = re.compile(r'<((?:[^<>"\\\s]|"(?:[^"\\]|\\.)*")*)>(?: (.+))?\Z')
_CHUNK = re.compile(r"(\d{1,12})(?: LAST)?\Z", re.IGNORECASE)


class Command(NamedTuple):
    """A line of the client, or another point of the script (`CONNECT`, `GREETING`, `BODY`, …).

    Attributes:
        verb: In upper case; `"."` for end-of-data, `"RESPONSE"` for a line of a SASL exchange.
        argument: The text behind the verb.
        line: The line as received, without its line end.
        recipient: Under LMTP, at end-of-data: the recipient whose reply is next.
    """

    verb: str
    argument: str = ""
    line: bytes = b""
    recipient: str = ""


class ServerReply(NamedTuple):
    """A reply: the code and its lines of text."""

    code: int
    lines: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the bytes on the wire."""
        return _encode(self.code, self.lines)


@lru_cache(512)
def _encode(code: int, lines: tuple[str, ...]) -> bytes:
    last = len(lines) - 1
    text = "".join(f"{code}{' ' if i == last else '-'}{line}\r\n" for i, line in enumerate(lines))
    return text.encode("utf-8", "surrogateescape")


def parse_command(line: bytes) -> Command:
    """Split a line at its first space."""
    verb, _, argument = line.decode("utf-8", "surrogateescape").partition(" ")
    return Command(verb.upper(), argument, line)


def parse_path(argument: str, prefix: str) -> tuple[str, dict[str, str]] | None:
    """Take `FROM:<path> KEY=value …` apart.

    Args:
        argument: The text behind MAIL or RCPT.
        prefix: `FROM:` or `TO:`.

    Returns:
        The address without angle brackets and the parameters, or None for a syntax error.
    """
    if argument[: len(prefix)].upper() != prefix:
        return None
    match = _PATH.match(argument, len(prefix))
    if match is None:
        return None
    words = [word.partition("=") for word in (match[2] or "").split()]
    return match[1], {key.upper(): value for key, _, value in words}


def chunk_size(argument: str) -> int | None:
    """Return the number of octets that follow a BDAT, or None for a syntax error."""
    match = _CHUNK.match(argument)
    return int(match[1]) if match else None


def is_last(argument: str) -> bool:
    """Return whether a BDAT is the last one."""
    return argument[-5:].upper() == " LAST"


def decode_base64(text: str) -> bytes | None:
    """Decode an initial response (`=` is empty) or a response; return None if it is not base64."""
    try:
        return b"" if text == "=" else base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def size_limit(extensions: Iterable[str]) -> int:
    """Return the number behind SIZE, 0 without one."""
    words = next((e.split() for e in extensions if e.upper().startswith("SIZE ")), ["SIZE", "0"])
    return int(words[1])


def unstuff(raw: bytes | bytearray) -> bytes:
    """Undo dot-stuffing: remove a dot at the beginning of a line (RFC 5321 §4.5.2)."""
    return bytes((b"\r\n" + raw).replace(b"\r\n.", b"\r\n")[2:])
