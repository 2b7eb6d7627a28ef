"""The MIME parts of a message: how each text and each attachment is encoded, and the tree around them.

Each leaf is sent in the cheapest encoding that the server accepts: 7bit, 8bit (octets above 127, only if offered), or
else quoted-printable or base64, whichever is shorter. An attachment is sent in base64, or unencoded (binary) if the
server offers that and the attachment is large enough. A `Source`, which is not in memory, is encoded while it is sent:
in base64 or binary, because its octets are not known in advance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from ..errors import TextNotEncodable
from ..model.content import Origin, Source
from ..model.octets import SLICE, base64_lines, is_ascii, normalised
from .attachment import OCTETS, Attachment, taken
from .charsets import UTF_8, Charset, crlf_text, encoded, octets_of
from .headers import USUAL, WIDTH, Style, encoded_text, message_id_text, parameter_field, text_field
from .render_entity import message_within
from .snapshot import Snapshot
from .transfer_encoding import (
    EIGHT,
    ENCODINGS,
    GLOBAL,
    SEVEN,
    Capabilities,
    choose_encoding,
    choose_file_encoding,
    fits_unencoded,
)

__all__ = ["Part", "calendar_method", "leaves_of"]


class Part(NamedTuple):
    """A rendered MIME entity.

    Attributes:
        head: its Content-* fields and the empty line.
        body: its octets in pieces.
        need: SEVEN, EIGHT or BINARY.
        bare: its octets are not encoded, so they could contain a boundary; encoded octets cannot contain `=_`.
        name: of an attachment, for events; None for every other part.
    """

    head: bytes
    body: tuple[bytes | Source, ...]
    need: int = SEVEN
    bare: bool = False
    name: str | None = None


#: Builds the tree of the leaves, given a boundary.
Tree = Callable[[list[Part], str], Part]


def leaves_of(
    snapshot: Snapshot, style: Style, charset: Charset, can: Capabilities
) -> tuple[list[Part], Tree | None]:
    """Encode the leaves, text first; return them and the function that builds their tree, None for a single leaf.

    The tree: mixed( alternative( text, related( html, inline… ), calendar ), attachments… ), without unneeded levels.

    Raises:
        TextNotEncodable: the charset cannot express a text.
    """
    rare, attachments = snapshot.rare, snapshot.attachments
    if rare is None and snapshot.html is None and not attachments:
        # Most messages: a single text.
        return [_text("plain", snapshot.text or "", charset, can)], None
    calendar = rare.get("calendar") if rare is not None else None
    texts = []
    if snapshot.text is not None or (snapshot.html is None and calendar is None and not attachments):
        plain = _text("plain", snapshot.text or "", charset, can)
        texts.append(_flowed(plain, rare) if rare is not None and rare.get("flowed") else plain)
    if snapshot.html is not None:
        texts.append(_text("html", snapshot.html, charset, can))
    html = len(texts) - 1
    if calendar is not None:
        texts.append(_calendar(calendar, style, can))
    if not attachments:
        return texts, partial(alternative, width=style.width) if len(texts) > 1 else None
    # Only HTML can show a part by its cid; without HTML the part is an attached file.
    related_to = snapshot.html is not None
    inline = [a for a in attachments if related_to and a.cid is not None and a.disposition == "inline"]
    others = [a for a in attachments if not related_to or a.cid is None or a.disposition != "inline"]
    leaves = texts + [_attached(a, style, can) for a in (*inline, *others)]
    first, related = len(texts), len(texts) + len(inline)

    def tree(leaves: list[Part], boundary: str) -> Part:
        body = leaves[:first]
        if inline:
            parts = [body[html], *leaves[first:related]]
            body[html] = multipart(
                "related", parts, boundary + "r", ';\r\n type="text/html"', width=style.width
            )
        if len(body) > 1:
            body = [alternative(body, boundary, width=style.width)]
        attached = leaves[related:]
        if not attached:
            return body[0]
        return multipart("mixed", body + attached, boundary + "m", width=style.width)

    return leaves, tree


# --- multiparts ---------------------------------------------------------------------------------------------


def alternative(parts: list[Part], boundary: str, *, width: int = WIDTH) -> Part:
    """Wrap the forms of one text, the plainest first, RFC 2046 section 5.1.4."""
    return multipart("alternative", parts, boundary + "a", width=width)


def multipart(
    subtype: str, parts: list[Part], boundary: str, parameters: str = "", *, width: int = WIDTH
) -> Part:
    """Wrap parts, RFC 2046 section 5.1.1."""
    need = max([part.need for part in parts])
    # RFC 2045 section 6.4: the multipart declares the encoding, too, if one of its parts is not 7bit.
    encoding = f"Content-Transfer-Encoding: {ENCODINGS[need]}\r\n" if need else ""
    # The field consists of our own tokens, so it is valid and short enough without a check.
    fold = "\r\n" if len(boundary) + len(subtype) > width - 38 else ""
    head = f'Content-Type: multipart/{subtype};{fold} boundary="{boundary}"{parameters}\r\n{encoding}\r\n'.encode()
    delimiter = f"--{boundary}".encode()
    between = b"\r\n" + delimiter + b"\r\n"
    body: list[bytes | Source] = [delimiter + b"\r\n"]
    for part in parts:
        # The line ending before a delimiter belongs to the delimiter, not to the part.
        body += (part.head, *part.body, between)
    body[-1] = b"\r\n" + delimiter + b"--\r\n"
    return Part(head, tuple(body), need)


# --- texts --------------------------------------------------------------------------------------------------

# The heads of nearly all texts.
_TEXT_HEADS: Final = {
    (subtype, encoding): (
        f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    ).encode()
    for subtype in ("plain", "html")
    for encoding in ("7bit", "8bit", "quoted-printable", "base64")
}


def _text(subtype: str, text: str | bytes | Origin, charset: Charset, can: Capabilities) -> Part:
    """Encode a text part; a text in memory gets a line ending at its end."""
    if isinstance(text, str):
        if charset is not UTF_8:
            return _other_text(subtype, text, charset, can)
        try:
            data = text.encode() if len(text) <= SLICE else octets_of(text)
        except UnicodeEncodeError as error:
            raise TextNotEncodable(f"the {subtype} text cannot be expressed in UTF-8: {error}") from error
        encoding, data, need = choose_encoding(normalised(data), can)
        return Part(_TEXT_HEADS[subtype, encoding], (data,), need, encoding[1:] == "bit")
    octets = taken(text, f"the {subtype} text")
    if not isinstance(octets, bytes):
        return Part(_text_head(f"text/{subtype}", charset, "base64"), (Source(octets),))
    try:
        return _other_text(subtype, octets.decode(charset.codec), charset, can)
    except UnicodeError as error:
        raise TextNotEncodable(f"the {subtype} text is not in {charset.label}: {error}") from error


def _other_text(subtype: str, text: str, charset: Charset, can: Capabilities) -> Part:
    """Encode a text in any charset."""
    if not charset.plain:
        data = encoded(normalised_text(text), charset, f"the {subtype} text")
        return Part(_text_head(f"text/{subtype}", charset, "base64"), (base64_lines(data),))
    encoding, data, need = choose_encoding(normalised(encoded(text, charset, f"the {subtype} text")), can)
    return Part(_text_head(f"text/{subtype}", charset, encoding), (data,), need, encoding[1:] == "bit")


def normalised_text(text: str) -> str:
    """Return a text with CRLF at the end of each line, the last one included."""
    text = crlf_text(text)
    return text if text.endswith("\r\n") or not text else text + "\r\n"


def _flowed(part: Part, rare: Mapping[str, Any]) -> Part:
    """Add format=flowed to the Content-Type of a text, RFC 3676 section 4.1."""
    first, end, rest = part.head.partition(b"\r\n")
    parameters = b"; format=flowed" + (b"; delsp=yes" if rare.get("delsp") else b"")
    return part._replace(head=first + parameters + end + rest)


def _text_head(kind: str, charset: Charset, encoding: str) -> bytes:
    return f"Content-Type: {kind}; charset={charset.label}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()


_UNFOLDED: Final = re.compile(r"(?:\r\n|\r|\n)[ \t]")
# Parameters may precede the colon, RFC 5545 section 3.7.2.
_METHOD: Final = re.compile(r"^METHOD(?:;[^:\n]{0,200})?:[ \t]*([A-Za-z0-9\-]{1,40})[ \t]*$", re.I | re.M)


def _calendar(text: str, style: Style, can: Capabilities) -> Part:
    """Encode an iCalendar text in UTF-8, with its method as a parameter (RFC 6047 section 2.4)."""
    data = normalised(encoded(text, UTF_8, "the calendar"))
    method = calendar_method(text)
    parameters = [("charset", "utf-8"), *([("method", method)] if method else [])]
    encoding, data, need = choose_encoding(data, can)
    field = parameter_field("Content-Type", "text/calendar", parameters, style)
    head = f"{field}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
    return Part(head, (data,), need, encoding[1:] == "bit")


def calendar_method(text: str) -> str | None:
    """Return the method that an iCalendar text names, in upper case."""
    found = _METHOD.search(_UNFOLDED.sub("", text).replace("\r", "\n"))
    return found[1].upper() if found else None


# --- attachments --------------------------------------------------------------------------------------------


def _attached(attachment: Attachment, style: Style, can: Capabilities) -> Part:
    """Encode an attachment."""
    source = attachment.source
    content_type, parameters = attachment.content_type, attachment.parameters
    encoding, body, need = _transfer_of(source, attachment, can)
    if encoding == "base64" and content_type.startswith("message/") and content_type != GLOBAL:
        # RFC 2046 section 5.2: an attached message is never encoded, but its parts may be. A message that cannot be
        # sent so is attached as a file, which mail readers offer to open.
        plain = _plain_message(source, content_type, can) if isinstance(source, bytes) else None
        if plain is not None:
            body, need = plain
            encoding = ENCODINGS[need]
        else:
            content_type, parameters = OCTETS, ()
    head = f"{_attached_head(attachment, content_type, parameters, encoding, style)}\r\n\r\n".encode()
    name = _name(attachment)
    if encoding == "base64" and isinstance(body, bytes):
        return Part(head, (base64_lines(body),), name=name)
    return Part(head, (body,), need, encoding != "base64", name)


def _plain_message(source: bytes, content_type: str, can: Capabilities) -> tuple[bytes, int] | None:
    """Return an attached message as it may be sent, and what it needs; None if it must not be sent as a message."""
    data = normalised(source)
    ascii_only = is_ascii(data)
    if fits_unencoded(data) and (can.eightbit or ascii_only):
        return data, SEVEN if ascii_only else EIGHT
    if content_type != "message/rfc822":
        return None
    return message_within(data, can)


def _name(attachment: Attachment) -> str:
    """Return the name of an attachment for events and errors; never empty, because an empty name means the body."""
    return attachment.filename or attachment.cid or "attachment"


def _transfer_of(
    source: bytes | Origin, attachment: Attachment, can: Capabilities
) -> tuple[str, bytes | Source, int]:
    """Return the encoding of an attachment, its octets (not yet encoded) or their source, and what they need."""
    if isinstance(source, bytes):
        encoding, need = choose_file_encoding(len(source), can)
        return encoding, source, need
    encoding, need = choose_file_encoding(None, can)
    as_it_is = encoding == "binary"
    name, close = _name(attachment), attachment.close
    return (
        encoding,
        Source(source, encoding="identity" if as_it_is else "base64", name=name, close=close),
        need,
    )


def _attached_head(
    attachment: Attachment,
    content_type: str,
    parameters: tuple[tuple[str, str], ...],
    encoding: str,
    style: Style = USUAL,
) -> str:
    filename = attachment.filename
    named = [("filename", filename)] if filename is not None else []
    if filename is not None and attachment.name_parameter:
        words = filename if filename.isascii() else " ".join(encoded_text(filename, style.encoded_width))
        parameters = (*parameters, ("name", words))
    fields = [
        parameter_field("Content-Type", content_type, parameters, style, words=True),
        f"Content-Transfer-Encoding: {encoding}",
        parameter_field(
            "Content-Disposition", attachment.disposition, [*named, *attachment.disposition_parameters], style
        ),
    ]
    if attachment.cid is not None:
        fields.append(f"Content-ID: {message_id_text(attachment.cid)}")
    if attachment.description:
        fields.append(text_field("Content-Description", attachment.description, style))
    return "\r\n".join(fields)
