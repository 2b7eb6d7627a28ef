"""Entity → Content: a message of other software, changed as far as the server requires.

Strategy. A field or a part that may be sent unchanged is not touched. A text with a line that is too long, or with
octets that the server does not accept, is encoded in quoted-printable or base64, whichever is shorter; any other such
part in base64. An attached message must not be encoded (RFC 2046 section 5.2.1), so its own parts are; a signed one is
attached as a file. Bcc and Resent-Bcc of the outermost header are left out.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final, NamedTuple

from ..errors import ExtensionMissing, InvalidArgument, InvalidHeader
from ..model.content import Content, segments_of
from ..model.octets import base64_lines, is_ascii
from .entity import MOST_LEVELS, UNTOUCHABLE, Entity, entity_of_octets, is_cut_by
from .header_parser import HIDDEN, Field, leading_lines
from .header_repair import fit, rewritten
from .mime_parameters import Parametrised
from .transfer_encoding import EIGHT, ENCODINGS, GLOBAL, SEVEN, Capabilities, fits_unencoded, quoted_or_base64

__all__ = ["content_of_entity", "message_within"]

_MESSAGE_ID: Final = re.compile("<[^<>]*>")
_NOT_ENCODABLE: Final = "encode it again, or send the source bytes with send_raw"


#: The boundaries of the multiparts that contain an entity; an empty one means an attached message.
Marks = tuple[str, ...]


class _Written(NamedTuple):
    """An entity as it is sent: its header and body in pieces, and what they need."""

    header: list[bytes]
    body: list[bytes]
    need: int

    @property
    def pieces(self) -> list[bytes]:
        """All pieces in order."""
        return self.header + self.body


def content_of_entity(entity: Entity, can: Capabilities) -> Content:
    """Render a message for what a server accepts.

    Raises:
        InvalidHeader: a field does not fit into lines of 998 octets, or the text would be read as the header.
        InvalidArgument: a body cannot be encoded for the server.
        ExtensionMissing: an address in the header needs SMTPUTF8, which the server does not offer.
    """
    found = _written(entity, can, "the message", (), top=True)
    pieces = [piece for piece in found.pieces if piece]
    if not pieces[-1].endswith(b"\r\n"):
        pieces.append(b"\r\n")
    if pieces[0] == b"\r\n" and leading_lines(b"".join(pieces)):
        raise InvalidHeader("the message has no header field, so its text would be read as its header")
    utf8 = not all([piece.isascii() for piece in found.header])
    message_id = _MESSAGE_ID.search(entity.text("message-id") or "")
    return Content(
        segments_of(pieces),
        eightbit=found.need == EIGHT or utf8,
        utf8=utf8,
        message_id=message_id[0] if message_id else None,
        canonical=True,
    )


def _written(entity: Entity, can: Capabilities, where: str, marks: Marks, *, top: bool = False) -> _Written:
    """Render an entity.

    Args:
        entity: the message or part.
        can: what the server accepts.
        where: the name of the entity in errors.
        marks: see `Marks`.
        top: the entity is the message itself.
    """
    kind = entity.content_type
    if kind.value in UNTOUCHABLE or len(marks) > MOST_LEVELS:
        raise InvalidArgument(f"{where} is {kind.value}, which cannot be rewritten")
    changed: list[Field] = []
    if entity.parts:
        inner = (*marks, entity.boundary)
        written = [
            _written(part, can, _name(part, where, number), inner)
            for number, part in enumerate(entity.parts, 1)
        ]
        need = max([part.need for part in written])
        body = entity.framed([part.pieces for part in written])
        # RFC 2045 section 6.4: the multipart declares the encoding if one of its parts is not 7bit.
        if (entity.encoding == "7bit") if need else (entity.encoding != "7bit" and not can.eightbit):
            changed = [_encoding(ENCODINGS[need])]
    else:
        octets, need, changed = _leaf(entity, kind, can, where, marks)
        body = [octets]
    fields = _replaced(entity.fields, changed, top=top)
    lines = [field if fit(field) else rewritten(field, utf8=can.utf8 and top) for field in fields]
    return _Written(entity.header(lines), body, need)


def message_within(data: bytes, can: Capabilities) -> tuple[bytes, int] | None:
    """Render an attached message so that it may be sent, RFC 2046 section 5.2.1.

    Args:
        data: the message, CRLF-delimited.
        can: what the server accepts.

    Returns:
        The octets and what they need; None if the message must not be rewritten.
    """
    found = _within(data, can, "the attached message", ())
    return None if found is None else (b"".join(found.pieces), found.need)


def _within(data: bytes, can: Capabilities, where: str, marks: Marks) -> _Written | None:
    with suppress(InvalidArgument, ExtensionMissing):
        return _written(entity_of_octets(data), can, where, marks)
    return None


def _name(part: Entity, where: str, number: int) -> str:
    before = "part " if where == "the message" else where.partition(" (")[0] + "."
    return f"{before}{number} ({part.content_type.value})"


def _replaced(fields: list[Field], changed: list[Field], *, top: bool) -> list[Field]:
    """Return the fields that are sent, with the changed ones in their places."""
    anew = {field.name: field for field in changed}
    kept = []
    for field in fields:
        if top and field.name in HIDDEN:
            continue
        kept.append(anew.pop(field.name, field) if field.name in anew else field)
    kept += anew.values()
    if top and changed and not any([field.name == "mime-version" for field in kept]):
        kept.append(Field("mime-version", b"MIME-Version: 1.0\r\n"))
    return kept


def _encoding(name: str) -> Field:
    return Field("content-transfer-encoding", f"Content-Transfer-Encoding: {name}\r\n".encode())


def _leaf(
    entity: Entity, kind: Parametrised, can: Capabilities, where: str, marks: Marks
) -> tuple[bytes, int, list[Field]]:
    """Return the body of a leaf, what it needs, and the fields that change with its encoding."""
    body, encoding = entity.body, entity.encoding
    ascii_only = is_ascii(body)
    travels = fits_unencoded(body) and (ascii_only or can.eightbit)
    if encoding in ENCODINGS:
        if travels:
            need = SEVEN if ascii_only else EIGHT
            true = encoding == "8bit" or encoding == ENCODINGS[need]
            return body, need, [] if true else [_encoding(ENCODINGS[need])]
        octets: bytes | None = body
        inner = _within(body, can, where, (*marks, "")) if kind.value == "message/rfc822" else None
        if inner is not None:
            return b"".join(inner.pieces), inner.need, [_encoding(ENCODINGS[inner.need])]
    elif travels and (ascii_only or encoding not in ("base64", "quoted-printable")):
        return body, SEVEN if ascii_only else EIGHT, []
    else:
        octets = entity.decoded()
    if octets is None or kind.value.startswith("multipart/"):
        raise InvalidArgument(
            f"{where} has lines over 998 octets, NUL, or octets that the server does not accept, in the transfer "
            f"encoding {encoding or 'without a name'}: {_NOT_ENCODABLE}"
        )
    if kind.value.startswith("text/") and (encoding in ENCODINGS or encoding == "quoted-printable"):
        name, text = quoted_or_base64(octets)
        # A soft line break must not turn the middle of a line into a delimiter.
        if name == "base64" or not any([mark and is_cut_by(mark, text) for mark in marks]):
            return text, SEVEN, [_encoding(name)]
    changed = [_encoding("base64")]
    if kind.value.startswith("message/") and kind.value != GLOBAL:
        changed.append(Field("content-type", b"Content-Type: application/octet-stream\r\n"))
    return base64_lines(octets), SEVEN, changed
