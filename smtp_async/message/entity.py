"""A MIME entity as it stands: header fields and body in octets, and the parts of a multipart.

Strategy. Octets are kept as they were read, and everything else is found in them when it is asked for: the parts of
a multipart are cut at its boundary, line by line (RFC 2046 section 5.1.1), and a message within the message stays the
octets that it is. So what is not understood can always be given on unchanged.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable
from typing import Final

from ..errors import InvalidArgument
from .header_parser import BOM, Field, fields_of
from .mime_parameters import Parametrised, read_parameters

__all__ = ["MOST_LEVELS", "MOST_PARTS", "UNTOUCHABLE", "Entity", "delimiter", "entity_of_octets", "is_cut_by"]

#: Levels of multiparts, and parts of one multipart: far more than mail has, far less than what exhausts a reader.
MOST_LEVELS: Final = 100
MOST_PARTS: Final = 10_000
#: Multiparts whose octets are covered by a signature, or stand for others.
UNTOUCHABLE: Final = frozenset(("multipart/signed", "multipart/encrypted"))

_BASE64: Final = re.compile(rb"[A-Za-z0-9+/\s]*+(?:=\s*+){0,2}+")
_BLANKS_AT_END: Final = re.compile(rb"(?<![ \t])[ \t]++(?=\r\n|\Z)")
# What begins no octet and no soft line break, and so stands for itself (section 6.7, note 1).
_BARE_SIGN: Final = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r\n|\Z)")
_WHITE: Final = b" \t\r\n\v\f"


class Entity:
    """A message or a part of one.

    Args:
        fields: its header fields.
        body: what follows the empty line, CRLF-delimited.
        parts: of a multipart, if they are known already; else they are cut out of the body.
        joined: no empty line divides header and body: the last line of the header was not a field.
        default: its type where no Content-Type says another; in a digest that is message/rfc822.

    Attributes:
        preamble, epilogue: what stands before and behind the parts that were given.
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
        """Return the fields of that name, which is in lower case."""
        return [field for field in self.fields if field.name == name]

    def text(self, name: str) -> str | None:
        """Return the first field of that name, unfolded."""
        for field in self.fields:
            if field.name == name:
                return field.text
        return None

    def set(self, field: Field) -> None:
        """Put a field in the place of the first of its name, or behind the others."""
        for place, one in enumerate(self.fields):
            if one.name == field.name:
                self.fields[place] = field
                return
        self.fields.append(field)

    @property
    def content_type(self) -> Parametrised:
        """Content-Type and its parameters; the default where there is none, text/plain where it has not two halves."""
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
        """The parts of a multipart; none of anything else, and of one without its boundary."""
        if self._parts is None:
            self._parts = self._cut()
        return self._parts

    @property
    def boundary(self) -> str:
        """What divides the parts; empty if Content-Type names nothing that could."""
        return (self.content_type.get("boundary") or "").rstrip(" ")

    def _cut(self) -> list[Entity]:
        boundary = self.boundary
        if not self.content_type.value.startswith("multipart/") or not boundary:
            return []
        inner = "message/rfc822" if self.content_type.value == "multipart/digest" else "text/plain"
        parts: list[Entity] = []
        start: int | None = None
        for match in delimiter(boundary).finditer(self.body):
            if start is not None:
                # The line end before a delimiter belongs to it, and the first part may be empty.
                parts.append(entity_of_octets(self.body[start : max(start, match.start())], default=inner))
            start = None if match[1] else match.end()
            if start is None:
                return parts
            if len(parts) == MOST_PARTS:
                raise InvalidArgument(f"a multipart has more than {MOST_PARTS} parts")
        if start is not None:  # cut short: what is there of the last part counts
            parts.append(entity_of_octets(self.body[start:], default=inner))
        return parts

    def decoded(self) -> bytes | None:
        """Return the octets of a leaf without their transfer encoding; None if they are in none that is known.

        Base64 may lack its end, RFC 2045 section 6.8; with anything but its own signs in it, it is not base64. Blanks
        at the end of a line of quoted-printable were added on the way (section 6.7, rule 3).
        """
        encoding = self.encoding
        if encoding in ("7bit", "8bit", "binary"):
            return self.body
        if encoding == "quoted-printable":
            return binascii.a2b_qp(_BARE_SIGN.sub(b"=3D", _BLANKS_AT_END.sub(b"", self.body)))
        if encoding != "base64" or _BASE64.fullmatch(self.body) is None:
            return None
        signs = self.body.translate(None, _WHITE + b"=")
        if len(signs) % 4 == 1:  # six bits of an octet
            signs = signs[:-1]
        return binascii.a2b_base64(signs + b"=" * (-len(signs) % 4))

    def octets(self) -> bytes:
        """Return the entity as it stands."""
        return b"".join(
            [*self.header(self.fields), self.body or b"".join(self.framed([p.octets() for p in self.parts]))]
        )

    def header(self, fields: Iterable[Field]) -> list[bytes]:
        """Return `fields` and what divides them from the body."""
        lines = [field.octets for field in fields]
        if lines and not lines[-1].endswith(b"\n"):
            lines.append(b"\r\n")
        return lines if self.joined else [*lines, b"\r\n"]

    def framed(self, parts: Iterable[bytes]) -> list[bytes]:
        """Return the body of a multipart whose parts are these octets."""
        mark = b"--" + self.boundary.encode("utf-8", "surrogateescape")
        pieces = [self.preamble]
        for octets in parts:
            pieces += (mark, b"\r\n", octets, b"\r\n")
        return [*pieces, mark, b"--\r\n", self.epilogue] if len(pieces) > 1 else []


def delimiter(boundary: str) -> re.Pattern[bytes]:
    """Return an expression for the lines that divide a multipart; its group tells the last one."""
    mark = re.escape(boundary.encode("utf-8", "surrogateescape"))
    return re.compile(rb"(?:\r\n|(?<![^\n])|\A)--" + mark + rb"(--)?[ \t]*(?:\r\n|\Z)")


def is_cut_by(boundary: str, data: bytes) -> bool:
    """Tell whether a line of `data` is the delimiter that a boundary makes."""
    return b"--" + boundary.encode("utf-8", "surrogateescape") in data and (
        delimiter(boundary).search(data) is not None
    )


def entity_of_octets(data: bytes, *, default: str = "text/plain") -> Entity:
    """Read a message or a part: CRLF-delimited octets; a byte order mark before it is dropped.

    Args:
        data: the octets.
        default: see `Entity`.
    """
    data = data.removeprefix(BOM)
    fields, end = fields_of(data)
    return Entity(fields, data[end + 2 :], default=default)
