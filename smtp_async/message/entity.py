"""A MIME entity as it was read: header fields and body in octets, and the parts of a multipart.

Strategy. Octets are kept as they were read and are parsed when a caller needs it: a multipart is cut into parts at its
boundary, line by line (RFC 2046 section 5.1.1), and an attached message stays as octets. So octets that cannot be
parsed can still be passed on unchanged.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Final

from ..errors import InvalidArgument
from ..model.octets import SLICE, base64_decoded, copied, find
from .header_parser import BOM, Field, fields_of
from .mime_parameters import Parametrised, read_parameters

__all__ = [
    "MOST_LEVELS",
    "MOST_PARTS",
    "UNTOUCHABLE",
    "Entity",
    "delimiters",
    "entity_of_octets",
    "is_cut_by",
]

#: Levels of multiparts, and parts of one multipart: far more than mail has, too few to exhaust the memory.
MOST_LEVELS: Final = 100
MOST_PARTS: Final = 10_000
#: Multiparts whose octets are signed or encrypted.
UNTOUCHABLE: Final = frozenset(("multipart/signed", "multipart/encrypted"))

_BLANKS_AT_END: Final = re.compile(rb"(?<![ \t])[ \t]++(?=\r\n|\Z)")
# An equals sign that begins neither an octet nor a soft line break is literal (section 6.7, note 1).
_BARE_SIGN: Final = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r\n|\Z)")


class Entity:
    """A message or a part of one.

    Args:
        fields: its header fields.
        body: the octets behind the empty line, CRLF-delimited.
        parts: of a multipart, if they are known; otherwise they are cut out of the body.
        joined: no empty line divides header and body: the last line of the header was not a field.
        default: its type where there is no Content-Type; in a digest message/rfc822.

    Attributes:
        preamble, epilogue: the octets before and behind the `parts` that were given.
    """

    __slots__ = ("_default", "_parts", "body", "epilogue", "fields", "joined", "preamble")

    def __init__(
        self,
        fields: Iterable[Field],
        body: bytes = b"",
        parts: list[Entity] | None = None,
        *,
        joined: bool = False,
        default: str = "text/plain",
    ) -> None:
        self.fields = list(fields)
        self.body = body
        self._parts = parts
        self.joined = joined
        self._default = default
        self.preamble = self.epilogue = b""

    def all(self, name: str) -> list[Field]:
        """Return the fields of a name, which is given in lower case."""
        return [field for field in self.fields if field.name == name]

    def text(self, name: str) -> str | None:
        """Return the first field of a name, unfolded."""
        for field in self.fields:
            if field.name == name:
                return field.text
        return None

    def set(self, field: Field) -> None:
        """Replace the first field of the same name, or append the field."""
        for place, one in enumerate(self.fields):
            if one.name == field.name:
                self.fields[place] = field
                return
        self.fields.append(field)

    @property
    def content_type(self) -> Parametrised:
        """Content-Type and its parameters; the default where there is none, text/plain where it lacks a subtype."""
        text = self.text("content-type")
        if text is None:
            return Parametrised(self._default, (), certain=True)
        found = read_parameters(text)
        kind, slash, subtype = found.value.partition("/")
        if not (kind and slash and subtype) or "/" in subtype:
            return found._replace(value="text/plain", certain=False)
        return found

    @property
    def disposition(self) -> Parametrised | None:
        """Content-Disposition and its parameters."""
        text = self.text("content-disposition")
        return None if text is None else read_parameters(text)

    @property
    def encoding(self) -> str:
        """Content-Transfer-Encoding in lower case; 7bit where there is none."""
        text = self.text("content-transfer-encoding")
        return "7bit" if text is None else read_parameters(text).value

    @property
    def parts(self) -> list[Entity]:
        """The parts of a multipart; empty for any other type, and for a multipart without a boundary."""
        if self._parts is None:
            self._parts = self._cut()
        return self._parts

    @property
    def boundary(self) -> str:
        """The boundary between the parts; empty if Content-Type names no usable one."""
        return (self.content_type.get("boundary") or "").rstrip(" ")

    def _cut(self) -> list[Entity]:
        boundary = self.boundary
        if not self.content_type.value.startswith("multipart/") or not boundary:
            return []
        inner = "message/rfc822" if self.content_type.value == "multipart/digest" else "text/plain"
        parts: list[Entity] = []
        start: int | None = None
        for match in delimiters(boundary, self.body):
            if start is not None:
                # The line ending before a delimiter belongs to it, and the first part may be empty.
                octets = copied(self.body, start, max(start, match.start()))
                parts.append(entity_of_octets(octets, default=inner))
            start = None if match[1] else match.end()
            if start is None:
                return parts
            if len(parts) == MOST_PARTS:
                raise InvalidArgument(f"a multipart has more than {MOST_PARTS} parts")
        if start is not None:  # cut short: keep the beginning of the last part
            parts.append(entity_of_octets(copied(self.body, start, len(self.body)), default=inner))
        return parts

    def decoded(self) -> bytes | None:
        """Return the decoded octets of a leaf; None if they are not in a known transfer encoding.

        Base64 may be cut short, RFC 2045 section 6.8; text with other characters than those of base64 is not base64.
        Blanks at the end of a line of quoted-printable were added in transit (section 6.7, rule 3).
        """
        encoding = self.encoding
        if encoding in ("7bit", "8bit", "binary"):
            return self.body
        if encoding == "quoted-printable":
            return b"".join([_unquoted(lines) for lines in _lines(self.body)])
        return base64_decoded(self.body) if encoding == "base64" else None

    def octets(self) -> bytes:
        """Return the octets of the entity."""
        return b"".join(self._pieces())

    def _pieces(self) -> list[bytes]:
        body = [self.body] if self.body else self.framed([one._pieces() for one in self.parts])
        return [*self.header(self.fields), *body]

    def header(self, fields: Iterable[Field]) -> list[bytes]:
        """Return the octets of `fields`, and the empty line before the body."""
        lines = [field.octets for field in fields]
        if lines and not lines[-1].endswith(b"\n"):
            lines.append(b"\r\n")
        return lines if self.joined else [*lines, b"\r\n"]

    def framed(self, parts: Iterable[list[bytes]]) -> list[bytes]:
        """Return the body of a multipart in pieces, given the pieces of each part."""
        mark = b"--" + self.boundary.encode("utf-8", "surrogateescape")
        pieces = [self.preamble]
        for octets in parts:
            pieces += (mark, b"\r\n", *octets, b"\r\n")
        return [*pieces, mark, b"--\r\n", self.epilogue] if len(pieces) > 1 else []


def _lines(data: bytes) -> Iterator[bytes]:
    """Yield CRLF-delimited text in slices that end where a line ends."""
    start, length = 0, len(data)
    while length - start > SLICE:
        end = find(data, b"\n", start + SLICE - 1) + 1
        if not end:
            break
        yield data[start:end]
        start = end
    yield data[start:]


def _unquoted(lines: bytes) -> bytes:
    """Decode quoted-printable."""
    return binascii.a2b_qp(_BARE_SIGN.sub(b"=3D", _BLANKS_AT_END.sub(b"", lines)))


def delimiters(boundary: str, data: bytes) -> Iterator[re.Match[bytes]]:
    """Yield a match for each delimiter line of a multipart; group 1 is set for the closing one.

    The expression is tried only where the boundary occurs, because trying it at every octet takes ten times as long.
    """
    mark = b"--" + boundary.encode("utf-8", "surrogateescape")
    expression = re.compile(rb"(?:\r\n|(?<![^\n])|\A)" + re.escape(mark) + rb"(--)?[ \t]*(?:\r\n|\Z)")
    start = 0
    while (found := find(data, mark, start)) >= 0:
        # The line ending before a delimiter belongs to it, unless it ends the preceding delimiter.
        begin = found - 2 if data[max(start, found - 2) : found] == b"\r\n" else found
        match = expression.match(data, begin)
        if match is not None:
            yield match
        start = found + 1 if match is None else match.end()


def is_cut_by(boundary: str, data: bytes) -> bool:
    """Tell whether a line of `data` is a delimiter with this boundary."""
    return any(True for _ in delimiters(boundary, data))


def entity_of_octets(data: bytes, *, default: str = "text/plain") -> Entity:
    """Read a message or a part: CRLF-delimited octets; a byte order mark before it is dropped.

    Args:
        data: the octets.
        default: see `Entity`.
    """
    data = data.removeprefix(BOM)
    fields, end = fields_of(data)
    return Entity(fields, copied(data, min(end + 2, len(data)), len(data)), default=default)
