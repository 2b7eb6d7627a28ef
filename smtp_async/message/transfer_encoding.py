"""How octets travel: what a server takes, and the transfer encodings of RFC 2045 section 6."""

from __future__ import annotations

import binascii
from typing import Final, NamedTuple

from ..model.content import MAX_LINE, base64_lines, longest_line_exceeds

__all__ = [
    "BINARY",
    "EIGHT",
    "ENCODINGS",
    "GLOBAL",
    "SEVEN",
    "Abilities",
    "fits",
    "quoted_or_base64",
    "transferred",
]

# What a part asks of the way it goes: nothing, 8BITMIME, BINARYMIME.
SEVEN, EIGHT, BINARY = 0, 1, 2
#: The one kind of message that may be encoded, RFC 6532 section 3.7.
GLOBAL: Final = "message/global"
ENCODINGS: Final = ("7bit", "8bit", "binary")
_BEYOND_ASCII: Final = bytes(range(128))


class Abilities(NamedTuple):
    """What the server takes."""

    eightbit: bool
    utf8: bool
    binary: bool


def transferred(data: bytes, can: Abilities) -> tuple[str, bytes, int]:
    """Choose how CRLF-delimited octets travel, and encode them for it."""
    if data.isascii():
        if fits(data):
            return "7bit", data, SEVEN
    elif can.eightbit and fits(data):
        return "8bit", data, EIGHT
    return *quoted_or_base64(data), SEVEN


def quoted_or_base64(data: bytes) -> tuple[str, bytes]:
    """Encode CRLF-delimited text in the shorter of both ways; return its name and the octets."""
    # Quoted-printable makes three octets of one above 127, base64 four of three of any.
    if 6 * len(data.translate(None, _BEYOND_ASCII)) > len(data):
        return "base64", base64_lines(data)
    # In C, and with CRLF at soft line breaks if the text has one.
    if b"\r\n" in data:
        return "quoted-printable", binascii.b2a_qp(data, istext=True)
    return "quoted-printable", binascii.b2a_qp(data + b"\r\n", istext=True).removesuffix(b"\r\n")


def fits(data: bytes) -> bool:
    """Tell whether CRLF-delimited octets may travel as they are, RFC 2045 sections 2.7 and 2.8."""
    return b"\0" not in data and (len(data) <= MAX_LINE or not longest_line_exceeds(data, MAX_LINE))
