"""Header fields as octets: the only parser of headers that other software wrote.

Strategy. A header is cut into lines at CRLF, CR or LF; a line that begins with a blank belongs to the field before it
(RFC 5322 section 2.2.3). A blank before the colon is allowed (section 4.5). A line that is not a field (`>From …`, a
continuation that lost its blank) is kept as a field without a name and does not end the header. A byte order mark
before the first field is not a part of its name.

Octets above 127 are decoded as UTF-8 (RFC 6532), or else as Windows-1252, which old software writes. Each run of them
is decoded separately, because a field can contain names from two sources.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from ..errors import InvalidAddress, InvalidHeader
from ..model.address import Address, parse_list

__all__ = [
    "BOM",
    "EMPTY_LINE",
    "HEADER_END",
    "HIDDEN",
    "LINE_END",
    "MAILBOXES",
    "Field",
    "check_line_ends",
    "decoded_octets",
    "fields_of",
    "leading_lines",
    "mailboxes_in",
    "unfolded",
    "without_leading",
]

BOM: Final = b"\xef\xbb\xbf"
#: Ends of a header, with each kind of line ending.
HEADER_END: Final = re.compile(rb"\r\n\r?\n|\n\r?\n|\r\r|\n\r\Z")
#: Fields that hold mailboxes (RFC 5322 section 3.6, RFC 8098), in lower case.
MAILBOXES: Final = frozenset(
    "from sender reply-to to cc bcc disposition-notification-to return-receipt-to resent-from resent-sender "
    "resent-to resent-cc resent-bcc resent-reply-to errors-to".split()
)
#: Fields of the outermost header that are never sent.
HIDDEN: Final = frozenset(("bcc", "resent-bcc"))

#: A line ending; and the empty line behind a header, with any kind of line ending.
LINE_END: Final = re.compile(rb"\r\n|\r(?!\n)|\n")
EMPTY_LINE: Final = re.compile(rb"(?:\r\n|\r(?!\n)|\n){2}")
_HIDDEN_OCTETS: Final = frozenset([name.encode() for name in HIDDEN])
#: Octets of a name that is remembered.
_USUAL_NAME: Final = 64
_INVISIBLE: Final = re.compile(rb"^[^!-~]+|[^!-~]+$")
_LEADING: Final = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]++(?=[!-9;-~]++[ \t]*+:)")
_LINE: Final = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_LINE_END: Final = re.compile("\r\n|\r|\n")
_RUN: Final = re.compile(rb"[\x80-\xff]+")


class Field(NamedTuple):
    """A header field as it was read.

    Attributes:
        name: in lower case; empty for a line that is not a field.
        octets: from the name to the last line ending, which is included.
    """

    name: str
    octets: bytes

    @property
    def label(self) -> str:
        """The name as it is written."""
        name = self.octets.partition(b":")[0].removeprefix(BOM).strip(b" \t\r\n").decode("latin-1")
        # Only a Bcc is recognised with a fold within its name.
        return _LINE_END.sub("", name)

    @property
    def value(self) -> bytes:
        """The octets behind the colon, with folds, without the last line ending."""
        return self.octets.partition(b":")[2].rstrip(b"\r\n")

    @property
    def text(self) -> str:
        """The value unfolded and decoded, see `decoded_octets`; encoded words stay as they are."""
        return unfolded(decoded_octets(self.value))


def fields_of(data: bytes) -> tuple[list[Field], int]:
    """Cut a header into its fields.

    Args:
        data: a message or a MIME part; CRLF, CR and LF end a line.

    Returns:
        The fields, and the position of the empty line behind them (the end of `data` if there is none).
    """
    fields: list[Field] = []
    lines: list[bytes] = []
    position = 0
    for match in _LINE.finditer(data):
        line = match[0]
        if line[:1] in (b"\r", b"\n", b""):
            break
        position = match.end()
        if line[:1] in b" \t" and lines:
            lines.append(line)
            continue
        if lines:
            fields.append(_field(b"".join(lines)))
        lines = [line]
    if lines:
        fields.append(_field(b"".join(lines)))
    return fields, position


def leading_lines(data: bytes) -> int:
    """Return how many octets of empty lines precede the first field; 0 if no field follows them.

    Call it for whole messages only, where a template may have put such lines: in a part they end an empty header.
    """
    found = _LEADING.match(data)
    return found.end() if found else 0


def without_leading(data: bytes) -> bytes:
    """Return a message without a byte order mark and empty lines before its header."""
    return data[leading_lines(data) :].removeprefix(BOM)


def check_line_ends(data: bytes) -> None:
    """Refuse a header that ends with CR CR LF, because for most readers it continues there, and may contain a Bcc.

    Args:
        data: a message before its line endings are normalised.

    Raises:
        InvalidHeader: the line endings of the message were converted twice.
    """
    if b"\r\r\n" in data:
        begin = leading_lines(data)
        if not begin and data[:1] in (b"\r", b"\n"):
            return  # there is no header
        found = EMPTY_LINE.search(data, begin)
        if found is not None and found[0] == b"\r\r\n":
            raise InvalidHeader(
                "the header ends with CR CR LF, which readers interpret differently: line endings were converted twice"
            )


def _field(octets: bytes) -> Field:
    name, colon, _ = octets.partition(b":")
    if not colon:
        return Field("", octets)
    return Field(_name(name) if len(name) <= _USUAL_NAME else _name.__wrapped__(name), octets)


# Saves a microsecond for each field, of which most have one of a few names.
@lru_cache(maxsize=512)
def _name(name: bytes) -> str:
    """Return the name of a field in lower case, from the octets before the colon; empty if it is none."""
    folded = b"\r" in name or b"\n" in name
    name = name.removeprefix(BOM).strip(b" \t\r\n")
    # Invisible characters around the name are ignored, because some readers take such a field for Bcc.
    visible = _INVISIBLE.sub(b"", name).lower()
    if visible in _HIDDEN_OCTETS:
        return visible.decode()
    return "" if folded else name.decode("latin-1").lower()


def unfolded(text: str) -> str:
    """Return a value without its folds, with blanks for tabs."""
    return _LINE_END.sub("", text).replace("\t", " ").strip(" ")


def decoded_octets(octets: bytes) -> str:
    """Decode the octets of a header: each run of octets above 127 as UTF-8, or else as Windows-1252."""
    if octets.isascii():
        return octets.decode("ascii")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return _RUN.sub(lambda match: _old(match[0]).encode(), octets).decode()


def _old(run: bytes) -> str:
    try:
        return run.decode()
    except UnicodeDecodeError:
        try:
            return run.decode("cp1252")
        except UnicodeDecodeError:
            return run.decode("latin-1")


def mailboxes_in(field: Field) -> list[Address]:
    """Parse a field of mailboxes; a group is replaced by its members.

    Raises:
        InvalidAddress: the field contains an item that is not a mailbox, or an address (not a name) with octets that
            are not UTF-8, so that the address cannot be known.
    """
    value = field.value
    found = parse_list(unfolded(decoded_octets(value)))
    if not value.isascii() and any([not str(address).isascii() for address in found]):
        try:
            value.decode()
        except UnicodeDecodeError as error:
            raise InvalidAddress(f"{field.label} holds an address with octets that are not UTF-8") from error
    return found
