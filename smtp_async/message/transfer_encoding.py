"""The choice of a transfer encoding (RFC 2045 section 6): 7bit, 8bit, binary, quoted-printable or base64.

`choose_encoding` decides for a text, `choose_file_encoding` for an attachment, `quoted_or_base64` between the two
encodings that every server accepts.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from typing import Final, NamedTuple

from ..model.octets import MAX_LINE, SLICE, base64_lines, find, is_ascii, longest_line_exceeds, slices

__all__ = [
    "BINARY",
    "EIGHT",
    "ENCODINGS",
    "GLOBAL",
    "SEVEN",
    "WORTH_BINARY",
    "Capabilities",
    "choose_encoding",
    "choose_file_encoding",
    "fits_unencoded",
    "quoted_or_base64",
]

# What a part requires of the server: nothing, 8BITMIME, BINARYMIME.
SEVEN, EIGHT, BINARY = 0, 1, 2
#: The smallest attachment, in octets, that is sent as binary where the server offers that.
WORTH_BINARY: Final = 4096
#: The only message type that may be encoded, RFC 6532 section 3.7.
GLOBAL: Final = "message/global"
ENCODINGS: Final = ("7bit", "8bit", "binary")
_ASCII: Final = bytes(range(128))
_CR: Final = 13


class Capabilities(NamedTuple):
    """What the server accepts."""

    eightbit: bool
    utf8: bool
    binary: bool


def choose_encoding(data: bytes, can: Capabilities) -> tuple[str, bytes, int]:
    """Choose the encoding of CRLF-delimited text: none if the server accepts that, else the shorter one.

    Args:
        data: the text.
        can: what the server accepts.

    Returns:
        The name of the encoding, the encoded octets, and what they need: SEVEN or EIGHT.
    """
    if data.isascii() if len(data) <= SLICE else is_ascii(data):
        if fits_unencoded(data):
            return "7bit", data, SEVEN
    elif can.eightbit and fits_unencoded(data):
        return "8bit", data, EIGHT
    return *quoted_or_base64(data), SEVEN


def choose_file_encoding(size: int | None, can: Capabilities) -> tuple[str, int]:
    """Choose between base64 and binary for an attachment.

    Args:
        size: octets of the attachment; None if it is read while it is sent.
        can: what the server accepts.

    Returns:
        The name of the encoding and what it needs: SEVEN or BINARY.
    """
    if can.binary and (size is None or size >= WORTH_BINARY):
        return "binary", BINARY
    return "base64", SEVEN


def quoted_or_base64(data: bytes) -> tuple[str, bytes]:
    """Encode CRLF-delimited text in quoted-printable or base64; return the name of the shorter one and its octets."""
    # Quoted-printable turns one octet above 127 into three, base64 any three octets into four.
    short = len(data) <= SLICE
    pieces = (data,) if short else slices(data)
    if 6 * sum([len(piece.translate(None, _ASCII)) for piece in pieces]) > len(data):
        return "base64", base64_lines(data)
    return "quoted-printable", _quoted(data) if short else b"".join(_quoted_slices(data))


def _quoted(data: bytes) -> bytes:
    """Encode CRLF-delimited text in quoted-printable."""
    # `b2a_qp` ends soft line breaks with CRLF only if the text has one.
    if b"\r\n" in data:
        return binascii.b2a_qp(data, istext=True)
    return binascii.b2a_qp(data + b"\r\n", istext=True).removesuffix(b"\r\n")


def _quoted_slices(data: bytes) -> Iterator[bytes]:
    """Encode long text in quoted-printable, cut at line endings, or at a soft line break in a very long line."""
    start, length = 0, len(data)
    while length - start > SLICE:
        end = data.rfind(b"\r\n", start, start + SLICE) + 2
        if end > 1:
            yield _quoted(data[start:end])
        else:
            end = start + SLICE - (data[start + SLICE - 1] == _CR)
            yield _quoted(data[start:end]) + b"=\r\n"
        start = end
    yield _quoted(data[start:])


def fits_unencoded(data: bytes) -> bool:
    """Tell whether CRLF-delimited octets may be sent unencoded, RFC 2045 sections 2.7 and 2.8."""
    if b"\0" in data if len(data) <= SLICE else find(data, b"\0") >= 0:
        return False
    return not longest_line_exceeds(data, MAX_LINE)
