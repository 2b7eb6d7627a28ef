"""Conversion of octets and `email.message` objects to `Message`, and of `Message` to `email.message`.

Strategy. The octets or the object become an `Entity`. Its fields and parts become attributes if `Message` would render
the same fields and parts from them. If rendering would lose or change something (signed and encrypted parts, reports,
several texts, a field that cannot be parsed or occurs twice, parameters without an attribute), `raw` keeps the whole
message unchanged, beside the attributes that could be read.

Addresses are parsed before the encoded words in their names are decoded, because a comma in a decoded name would
otherwise split one mailbox into two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

from ..errors import InvalidArgument, SMTPError
from ..model.address import Address
from ..model.content import Origin
from ..model.encoded_words import codec_of, decoded_by, decoded_words, holds_unknown_words
from ..model.envelope import Kind, Recipient
from ..model.octets import MAX_LINE, crlf
from .attachment import Attachment
from .dates import date_text
from .entity import Entity, entity_of_octets
from .entity_from_email import entity_of_email_object
from .header_parser import MAILBOXES, Field, check_line_ends, mailboxes_in, without_leading
from .header_repair import checked_tokens, cleaned
from .headers import address_field, check_name, is_structured, message_id_text
from .mime import calendar_method
from .mime_parameters import Parametrised
from .optional_fields import NAMES
from .render_entity import content_of_entity
from .snapshot import MessageID
from .transfer_encoding import Capabilities

if TYPE_CHECKING:
    from email.message import EmailMessage
    from email.message import Message as OldMessage


__all__ = ["from_bytes", "from_email_message", "to_email_message"]

_QUOTED_SPECIALS: Final = re.compile(r'(["\\])')
_KINDS: Final = {kind.value.lower(): kind for kind in Kind}
_QUOTED_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"')
# Without characters that would be separators if the quotes were removed.
_ENCODED_WORD = rb"=\?[^?\s\"]+\?[QqBb]\?[A-Za-z0-9!*+/=_\-]*+\?="
_QUOTED_WORDS: Final = re.compile(rb'"(' + _ENCODED_WORD + rb"(?:\s+" + _ENCODED_WORD + rb')*+)"')
_C1_CONTROLS: Final = re.compile("[\x80-\x9f]")
_MESSAGE_IDS: Final = re.compile(r"<[^<>\s]+>(?:[ ]*<[^<>\s]+>)*")
# A list of phrases; each is one or more words, or a quoted string.
_PHRASE: Final = re.compile(r'[ ]*(?:"((?:[^"\\]|\\.)*+)"|([^",]*+))[ ]*(?:,|\Z)')
_PHRASES: Final = re.compile(rf"(?:{_PHRASE.pattern})*+")
_EMPTY_ELEMENT: Final = re.compile(r"(?:\A|,) *(?:,|\Z)")
_ESCAPED: Final = re.compile(r"\\(.)")
_PRIORITY_STEP: Final = re.compile(r"([1-5])(?: *\([A-Za-z ]*\))?")

#: Fields that may occur once in the outermost header (RFC 5322 section 3.6).
_UNIQUE_FIELDS: Final = frozenset(
    "from sender reply-to subject date message-id in-reply-to references return-path content-type "
    "content-transfer-encoding content-disposition mime-version".split()
)
_MAILBOX_FIELDS: Final = frozenset(("from", "sender", "reply-to", *_KINDS))
#: Fields that rendering writes itself, or that count octets which rendering changes.
_STRUCTURE_FIELDS: Final = frozenset(
    "mime-version content-type content-transfer-encoding content-disposition content-length lines resent-bcc".split()
)
#: Fields that become an attribute if the attribute can hold their value.
_OPTIONAL_FIELDS: Final = {
    name: attribute for attribute, name in NAMES.items() if attribute != "list_unsubscribe_post"
}
#: Fields of a part that may be dropped, because its other fields and its octets say the same.
_REDUNDANT_FIELDS: Final = frozenset(("content-length", "content-md5", "mime-version", "x-attachment-id"))
_TEXT_FIELDS: Final = frozenset(
    ("content-type", "content-transfer-encoding", "content-disposition", *_REDUNDANT_FIELDS)
)
_FILE_FIELDS: Final = frozenset(("content-id", "content-description", *_TEXT_FIELDS))
_TEXTS: Final = {"text/plain": "text", "text/html": "html", "text/calendar": "calendar"}
_EIGHTBIT_AND_UTF8: Final = Capabilities(eightbit=True, utf8=True, binary=False)


class MessageAttributes(Protocol):
    """The attributes of a `Message` that conversion sets and reads; `builder.py` imports this module."""

    sender: Address | None
    authors: tuple[Address, ...]
    reply_to: tuple[Address, ...]
    return_path: Address | Literal["<>"] | None
    recipients: list[Recipient]
    headers: list[tuple[str, str]]
    subject: str | None
    date: datetime | str | None
    message_id: MessageID
    text: str | bytes | Origin | None
    html: str | bytes | Origin | None
    calendar: str | None
    flowed: bool
    delsp: bool
    raw: bytes | Origin | None
    attachments: list[Attachment]

    @property
    def bcc(self) -> tuple[Address, ...]:
        """The hidden recipients."""

    def as_bytes(self) -> bytes:
        """Return the message as it is sent."""


M = TypeVar("M", bound=MessageAttributes)


class _NotExpressible(Exception):
    """`Message` would not render the same fields and parts."""


def from_bytes(message: M, data: bytes) -> M:
    """Fill an empty message from octets and return it; see `Message.from_bytes`."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidArgument(f"a whole message is bytes, not {type(data).__name__}")
    data = bytes(data)
    check_line_ends(data)
    return _filled(message, entity_of_octets(without_leading(crlf(data))), lambda: data)


def from_email_message(message: M, source: OldMessage) -> M:
    """Fill an empty message from an `email.message` object and return it; see `Message.from_email_message`."""
    entity = entity_of_email_object(source)
    return _filled(message, entity, lambda: content_of_entity(entity, _EIGHTBIT_AND_UTF8).join())


def to_email_message(message: MessageAttributes, *, bcc: bool) -> EmailMessage:
    """Return the message as an `EmailMessage`; see `Message.to_email_message`."""
    import email
    import email.policy

    data = message.as_bytes()
    if bcc and message.bcc:
        data = address_field("Bcc", message.bcc, utf8=True).encode() + b"\r\n" + data
    return email.message_from_bytes(data, policy=email.policy.default)


def _filled(message: M, entity: Entity, whole: Callable[[], bytes]) -> M:
    expressible = _set_header(message, entity.fields)
    try:
        if not expressible:
            raise _NotExpressible
        _set_parts(message, entity)
    except (_NotExpressible, InvalidArgument):
        message.text = message.html = message.calendar = None
        message.flowed = message.delsp = False
        message.attachments.clear()
        message.raw = whole()
    return message


# --- the header ---------------------------------------------------------------------------------------------


def _set_header(message: MessageAttributes, fields: list[Field]) -> bool:
    """Set the attributes that come from the header; return whether they express all of it."""
    authors: list[Address] = []
    senders: list[Address] = []
    extra: list[tuple[str, str]] = []
    seen: set[str] = set()
    expressible = True
    for field in fields:
        name = field.name
        try:
            if not name or (name in _UNIQUE_FIELDS and name in seen):
                raise _NotExpressible
            check_name(field.label)
            if is_structured(name):
                checked_tokens(field.label, field.text)
            if name in _MAILBOX_FIELDS and not _expressible_list(field.text):
                expressible = False
            if name in _KINDS:
                message.recipients += [Recipient(address, _KINDS[name]) for address in _mailboxes_of(field)]
            elif name == "from":
                authors = _mailboxes_of(field)
            elif name == "sender":
                senders = _mailboxes_of(field)
            elif name in _FIELD_SETTERS:
                _FIELD_SETTERS[name](message, field)
            elif name not in _STRUCTURE_FIELDS and not _set_optional(message, field):
                extra.append((field.label, _extra_value(field)))
        except (_NotExpressible, InvalidArgument):
            expressible = False
        seen.add(name)
    message.headers = extra
    message.sender = senders[0] if senders else authors[0] if len(authors) == 1 else None
    if len(authors) > 1 or (authors and message.sender != authors[0]):
        message.authors = tuple(authors)
    elif senders and not authors:
        expressible = False  # `Message` would write a From field that was not there
    elif senders and senders[0].name != authors[0].name:
        expressible = False  # `Message` writes no Sender with the author's address
    return expressible and len(senders) <= 1


def _set_subject(message: MessageAttributes, field: Field) -> None:
    # Set before the check, because a subject that is readable in part is shown even if the message becomes raw.
    message.subject = cleaned(decoded_words(field.text))
    _field_text(field)


def _set_reply_to(message: MessageAttributes, field: Field) -> None:
    message.reply_to = tuple(_mailboxes_of(field))


def _set_return_path(message: MessageAttributes, field: Field) -> None:
    text = field.text
    message.return_path = "<>" if text == "<>" else Address.parse(text)


def _set_date(message: MessageAttributes, field: Field) -> None:
    message.date = _parsed_date(field.text)


def _set_message_id(message: MessageAttributes, field: Field) -> None:
    message.message_id = message_id_text(field.text)


_FIELD_SETTERS: Final[dict[str, Callable[[MessageAttributes, Field], None]]] = {
    "subject": _set_subject,
    "reply-to": _set_reply_to,
    "return-path": _set_return_path,
    "date": _set_date,
    "message-id": _set_message_id,
}


def _parsed_date(text: str) -> datetime:
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
        date_text(moment)
    except (ValueError, TypeError, OverflowError, IndexError, SMTPError) as error:
        raise _NotExpressible from error
    return moment


def _set_optional(message: MessageAttributes, field: Field) -> bool:
    """Set the optional attribute for a field; return False if there is none, it is set, or it cannot hold the value."""
    attribute = _OPTIONAL_FIELDS.get(field.name)
    if attribute is None or getattr(message, attribute):
        return False
    try:
        setattr(message, attribute, _optional_value(attribute, field))
    except (InvalidArgument, _NotExpressible):
        return False
    return bool(getattr(message, attribute))


def _optional_value(attribute: str, field: Field) -> Any:
    text = field.text
    if attribute in ("read_receipt_to", "delivery_notification_to"):
        return _mailboxes_of(field)
    if attribute in ("in_reply_to", "references"):
        # Refuse words between the ids (RFC 5322 section 4.5.4), because they would be rendered as ids.
        if _MESSAGE_IDS.fullmatch(text) is None:
            raise _NotExpressible
        return re.findall("<[^<>]*>", text)
    if attribute == "x_priority":
        step = _PRIORITY_STEP.fullmatch(text)
        if step is None:
            raise _NotExpressible
        return step[1]
    if attribute == "list_unsubscribe" and _EMPTY_ELEMENT.search(text):
        raise _NotExpressible
    if attribute == "keywords":
        return _phrases(text)
    if attribute == "list_id" and '"' in text.strip('"').replace('" <', "<"):
        raise _NotExpressible  # quotes in the middle of its phrase
    return _field_text(field)


def _phrases(text: str) -> list[str]:
    """Return the phrases of a list, RFC 5322 section 3.6.5; encoded words in quotes stay (RFC 2047 section 5)."""
    if _PHRASES.fullmatch(text) is None:
        raise _NotExpressible
    found = _PHRASE.findall(text)
    return [_ESCAPED.sub(r"\1", quoted) if quoted else _decoded_text(plain) for quoted, plain in found]


def _extra_value(field: Field) -> str:
    """Return the value of a field without an attribute, for `headers`."""
    if is_structured(field.name):
        longest = max(map(len, field.text.split(" ")))
        if not field.value.isascii() or len(field.label) + longest > MAX_LINE - 2:
            raise _NotExpressible
        return cleaned(field.text)
    # A list of mailboxes with encoded words, or one that cannot be parsed, cannot be rendered as unstructured text.
    if field.name in MAILBOXES and (
        "=?" in field.text or not field.value.isascii() or not mailboxes_in(field)
    ):
        raise _NotExpressible
    return _field_text(field)


def _field_text(field: Field) -> str:
    """Return the value as a reader sees it: encoded words decoded, blanks for control characters in them."""
    return _decoded_text(field.text)


def _decoded_text(text: str) -> str:
    """Decode the encoded words of a text; refuse unknown ones, because `Message` could not render them again."""
    if holds_unknown_words(text):
        raise _NotExpressible
    return cleaned(decoded_words(text))


def _mailboxes_of(field: Field) -> list[Address]:
    """Parse a list of mailboxes; encoded words in quoted names are decoded, too."""
    if '"=?' in field.text:
        field = field._replace(octets=_QUOTED_WORDS.sub(rb"\1", field.octets))
    return mailboxes_in(field)


def _expressible_list(text: str) -> bool:
    """Tell whether `Message` can express a list of mailboxes: without groups and unknown encoded words."""
    return not (";" in text and ";" in _QUOTED_STRING.sub("", text)) and not holds_unknown_words(
        text.replace('"', " ")
    )


# --- the parts ----------------------------------------------------------------------------------------------


def _set_parts(message: MessageAttributes, entity: Entity) -> None:
    """Turn the tree of parts into texts and attachments."""
    if entity.content_type.value != "multipart/mixed":
        return _set_body(message, entity, top=True)
    _check_multipart(entity)
    parts = list(entity.parts)
    if not _is_file(parts[0]):
        _set_body(message, parts.pop(0))
    for part in parts:
        if not _is_file(part):
            raise _NotExpressible
        message.attachments.append(_attachment(message, part))


def _check_multipart(entity: Entity, *others: str) -> None:
    """Require a multipart that has parts and no parameters but its boundary, charset and `others`."""
    kind = entity.content_type
    if not entity.parts or not kind.certain:
        raise _NotExpressible
    if any([name not in ("boundary", "charset", *others) for name, _ in kind.parameters]):
        raise _NotExpressible


def _is_file(part: Entity) -> bool:
    """Tell whether a part is a file, not a text that readers show."""
    disposition = part.disposition
    if disposition is not None and (disposition.value == "attachment" or disposition.get("filename")):
        return True
    return not part.content_type.value.startswith(("text/", "multipart/"))


def _set_body(message: MessageAttributes, part: Entity, *, top: bool = False) -> None:
    kind = part.content_type.value
    if kind == "multipart/alternative":
        _check_multipart(part)
        for child in part.parts:
            if child.content_type.value == "multipart/alternative":
                raise _NotExpressible
            _set_body(message, child)
    elif kind == "multipart/related":
        _check_multipart(part, "type")
        first, *others = part.parts
        if first.content_type.value != "text/html":
            raise _NotExpressible
        _set_body(message, first)
        for child in others:
            cid = child.text("content-id")
            if not cid or child.parts or _disposition_of(child).value == "attachment":
                raise _NotExpressible
            message.attachments.append(_attachment(message, child, cid))
    else:
        _set_text(message, kind, part, top=top)


def _set_text(message: MessageAttributes, kind: str, part: Entity, *, top: bool) -> None:
    """Set `text`, `html` or `calendar`; the parts must come in the order in which `Message` renders them."""
    attribute = _TEXTS.get(kind)
    names = list(_TEXTS.values())
    disposed = _disposition_of(part)
    if attribute is None or disposed.parameters or disposed.value not in ("", "inline"):
        raise _NotExpressible
    if any([getattr(message, name) is not None for name in names[names.index(attribute) :]]):
        raise _NotExpressible
    if not top:
        _require_only_fields(part, _TEXT_FIELDS)
    _set_format(message, attribute, part.content_type)
    data = part.decoded()
    label = part.content_type.get("charset")
    codec = codec_of("utf-8" if label is None else label)
    if data is None or codec is None:
        raise _NotExpressible
    try:
        text = decoded_by("utf-8" if codec == "ascii" else codec, data)
    except ValueError as error:
        raise _NotExpressible from error
    if _C1_CONTROLS.search(text) and codec.startswith("iso8859"):
        raise _NotExpressible  # readers decode it as the Windows charset that extends it
    method = part.content_type.get("method")
    if attribute == "calendar" and method and method.upper() != calendar_method(text):
        raise _NotExpressible
    setattr(message, attribute, text.replace("\r\n", "\n"))


def _set_format(message: MessageAttributes, attribute: str, kind: Parametrised) -> None:
    """Set `flowed` and `delsp` from the parameters of a text (RFC 3676); refuse parameters without an attribute."""
    if not kind.certain:
        raise _NotExpressible
    for name, value in kind.parameters:
        lowered = value.lower()
        if name == "charset" or (name, lowered) in (("format", "fixed"), ("delsp", "no")):
            continue
        if attribute == "text" and (name, lowered) == ("format", "flowed"):
            message.flowed = True
        elif attribute == "text" and (name, lowered) == ("delsp", "yes"):
            message.delsp = True
        elif attribute != "calendar" or name != "method":
            raise _NotExpressible


def _require_only_fields(part: Entity, known: frozenset[str]) -> None:
    """Refuse a part with a field that would be lost."""
    names = [field.name for field in part.fields]
    if not known.issuperset(names) or len(set(names)) != len(names):
        raise _NotExpressible


def _disposition_of(part: Entity) -> Parametrised:
    found = part.disposition
    if found is None:
        return Parametrised("", (), certain=True)
    if not found.certain or found.value not in ("", "inline", "attachment"):
        raise _NotExpressible
    return found


def _attachment(message: MessageAttributes, part: Entity, cid: str | None = None) -> Attachment:
    """Return an attachment with the content and the fields of a part."""
    _require_only_fields(part, _FILE_FIELDS)
    kind, disposed = part.content_type, _disposition_of(part)
    # An attached message has no transfer encoding, so its octets stay; every other part is decoded.
    data = part.decoded()
    if data is None or part.parts or kind.value.startswith("multipart/") or not kind.certain:
        raise _NotExpressible
    disposition = disposed.value or ("inline" if cid else "attachment")
    named = (part.text("content-id") or "").strip()
    if cid is None and named:
        cid = named
        if disposition == "inline" and not _html_refers_to(message, named):
            raise _NotExpressible  # `Message` would move it next to the HTML, where readers show it elsewhere
    filename, in_type = _name_parameter(disposed, "filename"), _name_parameter(kind, "name")
    description = part.text("content-description")
    parameters = [(name, value) for name, value in kind.parameters if name != "name" or in_type != filename]
    if filename is None and in_type is not None:
        filename, parameters = in_type, [one for one in parameters if one[0] != "name"]
    return Attachment(
        data,
        filename=filename,
        content_type=kind.value + _parameters_text(parameters),
        cid=cid,
        disposition=disposition
        + _parameters_text([one for one in disposed.parameters if one[0] != "filename"]),
        description=_decoded_text(description) if description else None,
        name_parameter=in_type is not None and in_type == filename,
    )


def _html_refers_to(message: MessageAttributes, cid: str) -> bool:
    return isinstance(message.html, str) and f"cid:{cid.strip('<>')}" in message.html


def _name_parameter(found: Parametrised, parameter: str) -> str | None:
    name = found.get(parameter)
    return None if name is None else _decoded_text(name)


def _parameters_text(parameters: list[tuple[str, str]]) -> str:
    """Return parameters in the syntax that `Attachment` parses; refuse encoded words, which it would not decode."""
    if any(["=?" in value for _, value in parameters]):
        raise _NotExpressible
    return "".join(
        [f'; {name}="' + _QUOTED_SPECIALS.sub(r"\\\1", cleaned(value)) + '"' for name, value in parameters]
    )
