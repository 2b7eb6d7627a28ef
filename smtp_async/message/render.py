"""Message → Content: header fields, MIME parts, and how each is encoded.

Strategy. The leaves are encoded first, each in the cheapest way that the server can take: as it is (7bit), as
it is with 8-bit octets (8bit, only if offered), else quoted-printable or base64, whichever is shorter. Then a
boundary is drawn that occurs in none of them, and the tree is written around them. Only CRLF ends a line, and
no line is longer than 998 octets, because text that would break either rule is encoded.

What a second rendering has to repeat (Date, Message-ID, boundary) is drawn once per message and kept in its
`Identity`. Time and randomness are arguments.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from ..address import Address
from ..content import MAX_LINE, Content, base64_lines, longest_line_exceeds, normalised
from ..errors import InvalidArgument, InvalidHeader, MissingSender, TextNotEncodable
from .headers import (
    address_field,
    clock_date,
    date_text,
    message_id_text,
    parameter_field,
    text_field,
)

if TYPE_CHECKING:
    from .builder import Attachment, Message

__all__ = ["Identity", "render"]

#: Segments below this are joined: one write is cheaper than a copy.
JOINED: Final = 64 * 1024

#: Fields that an attribute of the message, or MIME itself, is answerable for.
_OWNED: Final = {
    "bcc": "bcc=",
    "cc": "cc=",
    "content-disposition": "attach()",
    "content-id": "attach()",
    "content-transfer-encoding": "text=, html= or attach()",
    "content-type": "text=, html= or attach()",
    "date": "date=",
    "from": "sender= or authors=",
    "message-id": "message_id=",
    "mime-version": "nothing, it is always there",
    "reply-to": "reply_to=",
    "resent-bcc": "send(recipients=…)",
    "sender": "sender= and authors=",
    "subject": "subject=",
    "to": "to=",
}


class Identity(NamedTuple):
    """What is drawn once per message, so that it is the same message when it is rendered again."""

    seconds: float
    random: str
    boundary: str


class _Part(NamedTuple):
    """A rendered MIME entity: its Content-* fields, and its body in pieces."""

    fields: tuple[str, ...]
    body: tuple[bytes, ...]
    eightbit: bool = False
    #: Its octets stand as they are, so they could hold a boundary; in the encodings no `=_` can occur.
    bare: bool = False


def render(
    message: Message,
    *,
    eightbit: bool,
    utf8: bool,
    now: Callable[[], float],
    token: Callable[[int], str],
) -> Content:
    """Write the message for a server with or without 8BITMIME and SMTPUTF8.

    Args:
        message: is not changed, but for the identity that its first rendering draws.
        eightbit: parts may travel as 8bit.
        utf8: addresses in the header may hold UTF-8 local parts.
        now: seconds of the epoch, for the Date.
        token: hexadecimal digits from that many random octets, for Message-ID and boundaries.

    Raises:
        MissingSender: nobody to name in From.
        InvalidHeader: a field name or value that would change the structure of the message.
        ExtensionMissing: a local part in the header needs SMTPUTF8 and `utf8` is false.
        TextNotEncodable: text with lone surrogates.
    """
    if message._identity is None:
        message._identity = Identity(now(), token(16), token(12))
    leaves, tree = _leaves(message, eightbit=eightbit)
    root = leaves[0]
    if tree:
        boundary = _free_boundary(message, leaves, token)
        root = tree(leaves, boundary)
    header, message_id = _header(message, utf8=utf8)
    head = "\r\n".join([*header, "MIME-Version: 1.0", *root.fields, "\r\n"]).encode()
    return Content(
        _joined((head, *root.body)),
        eightbit=root.eightbit or not head.isascii(),
        utf8=not head.isascii(),
        message_id=message_id or None,
        canonical=True,
    )


# --- the header ---------------------------------------------------------------------------------------------


def _header(message: Message, *, utf8: bool) -> tuple[list[str], str]:
    """Return the fields of the message itself, and its Message-ID, empty if there is none."""
    identity = message._identity
    assert identity is not None
    authors = message.authors or ((message.sender,) if message.sender else ())
    if not authors:
        raise MissingSender("the message has no sender")
    sender = message.sender or authors[0]
    fields = []
    fields.append("Date: " + (date_text(message.date) if message.date else clock_date(identity.seconds)))
    fields.append(address_field("From", authors, utf8=utf8))
    # RFC 5322 section 3.6.2: several authors need a Sender, a lone author who sends must not have one.
    if len(authors) > 1 or sender != authors[0]:
        fields.append(address_field("Sender", (sender,), utf8=utf8))
    for name, addresses in (("Reply-To", message.reply_to), ("To", message.to), ("Cc", message.cc)):
        if addresses:
            fields.append(address_field(name, addresses, utf8=utf8))
    if message.subject is not None:
        fields.append(text_field("Subject", message.subject))
    message_id = _message_id(message.message_id, identity, sender)
    if message_id:
        fields.append("Message-ID: " + message_id)
    for name, value in message.headers:
        fields.append(_extra_field(name, value))
    return fields, message_id


def _message_id(given: str | None, identity: Identity, sender: Address) -> str:
    if given is None:
        return f"<{identity.random}@{sender.ascii_domain}>"
    return message_id_text(given) if given else ""


def _extra_field(name: str, value: str) -> str:
    field = text_field(name, value)
    owner = _OWNED.get(name.lower())
    if owner:
        raise InvalidHeader(f"{name} is not for headers=: set it by {owner}")
    return field


# --- the tree -----------------------------------------------------------------------------------------------

_Tree = Callable[[list[_Part], str], _Part]


def _leaves(message: Message, *, eightbit: bool) -> tuple[list[_Part], _Tree | None]:
    """Encode the leaves, text first, and tell how to build the tree of them; `None` for a single leaf.

    The shape: mixed( alternative( text, related( html, inline… ) ), attachments… ), less what is not needed.
    """
    texts = []
    if message.text is not None or message.html is None:
        texts.append(_text("plain", message.text or "", eightbit=eightbit))
    if message.html is not None:
        texts.append(_text("html", message.html, eightbit=eightbit))
    if not message.attachments:
        return texts, _alternative if len(texts) > 1 else None
    if message.text is None and message.html is None:
        texts = []
    # Only HTML can show a part by its cid; without it the part is one more file.
    related_to = message.html is not None
    inline = [a for a in message.attachments if related_to and a.cid is not None]
    others = [a for a in message.attachments if not related_to or a.cid is None]
    leaves = texts + [_attached(a, eightbit=eightbit) for a in (*inline, *others)]
    first, related = len(texts), len(texts) + len(inline)

    def tree(leaves: list[_Part], boundary: str) -> _Part:
        body = leaves[:first]
        if inline:
            parts = [body[-1], *leaves[first:related]]
            body[-1] = _multipart("related", parts, boundary + "r", ';\r\n type="text/html"')
        if len(body) > 1:
            body = [_alternative(body, boundary)]
        attached = leaves[related:]
        return _multipart("mixed", body + attached, boundary + "m") if attached else body[0]

    return leaves, tree


def _alternative(parts: list[_Part], boundary: str) -> _Part:
    return _multipart("alternative", parts, boundary + "a")


def _multipart(subtype: str, parts: list[_Part], boundary: str, parameters: str = "") -> _Part:
    """Wrap parts, RFC 2046 section 5.1.1."""
    # Made of nothing but our own tokens, so it needs no check and is known to fit.
    field = f'Content-Type: multipart/{subtype}; boundary="{boundary}"{parameters}'
    delimiter = f"--{boundary}\r\n"
    body: list[bytes] = []
    for part in parts:
        body.append("\r\n".join([delimiter + part.fields[0], *part.fields[1:], "\r\n"]).encode())
        body += part.body
        # The line end before a delimiter belongs to it, not to the part.
        delimiter = f"\r\n--{boundary}\r\n"
    body.append(f"\r\n--{boundary}--\r\n".encode())
    return _Part((field,), tuple(body), any(part.eightbit for part in parts))


def _free_boundary(message: Message, leaves: list[_Part], token: Callable[[int], str]) -> str:
    """Return a boundary that occurs in no leaf, and keep it for the next rendering."""
    identity = message._identity
    assert identity is not None
    bare = [piece for leaf in leaves if leaf.bare for piece in leaf.body]
    for _ in range(16):
        boundary = "=_" + identity.boundary
        sought = boundary.encode()
        if not any([sought in piece for piece in bare]):
            return boundary
        identity = message._identity = identity._replace(boundary=token(12))
    raise InvalidArgument("every boundary that was drawn occurs in the message: is the source random?")


def _joined(pieces: Iterable[bytes]) -> list[bytes]:
    """Join small pieces with their neighbours; large ones are not copied."""
    segments: list[bytes] = []
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) < JOINED:
            small.append(piece)
            continue
        segments += (b"".join(small), piece)
        small = []
    if small:
        segments.append(b"".join(small))
    return segments


# --- the leaves ---------------------------------------------------------------------------------------------


def _text(subtype: str, text: str, *, eightbit: bool) -> _Part:
    """Encode a text part; it ends with a line end."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise TextNotEncodable(f"the {subtype} text cannot be expressed in UTF-8: {error}") from error
    data = normalised(data)
    ascii_only = data.isascii()
    fields = f"Content-Type: text/{subtype}; charset=utf-8", "Content-Transfer-Encoding: "
    if (ascii_only or eightbit) and _fits(data):
        encoding = "7bit" if ascii_only else "8bit"
        return _Part((fields[0], fields[1] + encoding), (data,), not ascii_only, True)
    encoding, data = _encoded(data)
    return _Part((fields[0], fields[1] + encoding), (data,))


def _fits(data: bytes) -> bool:
    """Tell whether CRLF-delimited octets may travel as they are, RFC 2045 sections 2.7 and 2.8."""
    return b"\0" not in data and not longest_line_exceeds(data, MAX_LINE)


def _encoded(data: bytes) -> tuple[str, bytes]:
    """Encode text for a 7-bit path in the shorter of the two encodings."""
    # Quoted-printable makes three octets of one above 127, base64 four of three of any.
    if 6 * len(data.translate(None, _ASCII)) > len(data):
        return "base64", base64_lines(data)
    # In C, and with CRLF at soft line breaks since the text has a CRLF: `normalised` put one at its end.
    return "quoted-printable", binascii.b2a_qp(data, istext=True)


_ASCII: Final = bytes(range(128))


def _attached(attachment: Attachment, *, eightbit: bool) -> _Part:
    """Encode an attachment."""
    content_type, parameters, data = attachment.content_type, attachment.parameters, attachment.data
    encoding, bare = "base64", False
    if content_type.startswith("message/"):
        # RFC 2046 section 5.2: a message within a message is never encoded. What cannot travel as it is goes
        # as a file, for which any reader offers to open it.
        plain = normalised(data)
        if (eightbit or plain.isascii()) and _fits(plain):
            encoding, bare, data = "7bit" if plain.isascii() else "8bit", True, plain
        else:
            content_type, parameters = "application/octet-stream", ()
    disposition = [("filename", attachment.filename)] if attachment.filename is not None else []
    fields = [
        parameter_field("Content-Type", content_type, parameters),
        f"Content-Transfer-Encoding: {encoding}",
        parameter_field(
            "Content-Disposition", "attachment" if attachment.cid is None else "inline", disposition
        ),
    ]
    if attachment.cid is not None:
        fields.append(f"Content-ID: {message_id_text(attachment.cid)}")
    if bare:
        return _Part(tuple(fields), (data,), not data.isascii(), True)
    return _Part(tuple(fields), (base64_lines(data),))
