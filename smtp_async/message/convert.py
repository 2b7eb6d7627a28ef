"""Messages that were made elsewhere → `Message`, to be read and changed; and the way back.

Strategy. Octets and objects of the standard library become an `Entity`; what it says becomes attributes where
`Message` would say the same in the same shape. Anything that would be lost or changed (signed and encrypted parts,
reports, several texts, a field that cannot be read or stands twice, parameters that have no attribute) makes the
whole message stay as it is, in `raw`, beside the attributes that could be read.

Addresses are read before the encoded words in their names are decoded, so that a comma in a decoded name cannot make
two mailboxes of one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

from ..errors import InvalidArgument, SMTPError
from ..model.address import Address
from ..model.content import MAX_LINE, Origin, crlf
from ..model.encoded_words import codec_of, decoded_by, decoded_words, holds_unknown_words
from ..model.envelope import Kind, Recipient
from .attachment import Attachment
from .dates import date_text
from .email_message import entity_of_object
from .entity import Entity, entity_of_octets
from .header_parser import MAILBOXES, Field, check_line_ends, mailboxes_in, without_leading
from .header_repair import checked_tokens, cleaned
from .headers import address_field, check_name, is_structured, message_id_text
from .mime import calendar_method
from .mime_parameters import Parametrised
from .optional_fields import NAMES
from .render_entity import content_of_entity
from .transfer_encoding import Abilities
from .view import MessageID

if TYPE_CHECKING:
    from email.message import EmailMessage
    from email.message import Message as OldMessage


__all__ = ["from_bytes", "from_email_message", "to_email_message"]

_SPECIAL: Final = re.compile(r'(["\\])')
_KINDS: Final = {kind.value.lower(): kind for kind in Kind}
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*+"')
# Of signs that divide nothing outside of quotes either.
_WORD = rb"=\?[^?\s\"]+\?[QqBb]\?[A-Za-z0-9!*+/=_\-]*+\?="
_QUOTED_WORDS: Final = re.compile(rb'"(' + _WORD + rb"(?:\s+" + _WORD + rb')*+)"')
_C1: Final = re.compile("[\x80-\x9f]")
_IDS: Final = re.compile(r"<[^<>\s]+>(?:[ ]*<[^<>\s]+>)*")
# A list of phrases, each one word or several, or in quotes.
_PHRASE: Final = re.compile(r'[ ]*(?:"((?:[^"\\]|\\.)*+)"|([^",]*+))[ ]*(?:,|\Z)')
_PHRASES: Final = re.compile(rf"(?:{_PHRASE.pattern})*+")
_EMPTY_ELEMENT: Final = re.compile(r"(?:\A|,) *(?:,|\Z)")
_ESCAPED: Final = re.compile(r"\\(.)")
_STEP: Final = re.compile(r"([1-5])(?: *\([A-Za-z ]*\))?")

#: Fields of the outermost header that may stand once (RFC 5322 section 3.6).
_ONCE: Final = frozenset(
    "from sender reply-to subject date message-id in-reply-to references return-path content-type "
    "content-transfer-encoding content-disposition mime-version".split()
)
_LISTS: Final = frozenset(("from", "sender", "reply-to", *_KINDS))
#: What the tree of parts makes anew, or what counts octets that will be others.
_STRUCTURE: Final = frozenset(
    "mime-version content-type content-transfer-encoding content-disposition content-length lines resent-bcc".split()
)
#: Fields that become an attribute if it can hold what they say.
_RARE: Final = {name: attribute for attribute, name in NAMES.items() if attribute != "list_unsubscribe_post"}
#: Fields of a part that say nothing that its other fields and its octets do not say.
_IDLE: Final = frozenset(("content-length", "content-md5", "mime-version", "x-attachment-id"))
_OF_TEXT: Final = frozenset(("content-type", "content-transfer-encoding", "content-disposition", *_IDLE))
_OF_FILE: Final = frozenset(("content-id", "content-description", *_OF_TEXT))
_TEXTS: Final = {"text/plain": "text", "text/html": "html", "text/calendar": "calendar"}
_WHOLE: Final = Abilities(eightbit=True, utf8=True, binary=False)


class Writable(Protocol):
    """What is filled here and read back: a `Message`, which stands above this file."""

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
        """Who gets a copy that nobody is told of."""

    def as_bytes(self) -> bytes:
        """Return the message as it is sent."""


M = TypeVar("M", bound=Writable)


class _OtherShape(Exception):
    """`Message` would write something else."""


def from_bytes(message: M, data: bytes) -> M:
    """Fill an empty message from a whole one; see `Message.from_bytes`."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidArgument(f"a whole message is bytes, not {type(data).__name__}")
    data = bytes(data)
    check_line_ends(data)
    return _imported(message, entity_of_octets(without_leading(crlf(data))), lambda: data)


def from_email_message(message: M, source: OldMessage) -> M:
    """Fill an empty message from one of the standard library; see `Message.from_email_message`."""
    entity = entity_of_object(source)
    return _imported(message, entity, lambda: content_of_entity(entity, _WHOLE).join())


def to_email_message(message: Writable, *, bcc: bool) -> EmailMessage:
    """Write a message of the standard library; see `Message.to_email_message`."""
    import email
    import email.policy

    data = message.as_bytes()
    if bcc and message.bcc:
        data = address_field("Bcc", message.bcc, utf8=True).encode() + b"\r\n" + data
    return email.message_from_bytes(data, policy=email.policy.default)


def _imported(message: M, entity: Entity, whole: Callable[[], bytes]) -> M:
    sayable = _set_header(message, entity.fields)
    try:
        if not sayable:
            raise _OtherShape
        _set_parts(message, entity)
    except (_OtherShape, InvalidArgument):
        message.text = message.html = message.calendar = None
        message.flowed = message.delsp = False
        message.attachments.clear()
        message.raw = whole()
    return message


# --- the header ---------------------------------------------------------------------------------------------


def _set_header(message: Writable, fields: list[Field]) -> bool:
    """Set the attributes that come from the header; return whether they say all of it."""
    authors: list[Address] = []
    senders: list[Address] = []
    extra: list[tuple[str, str]] = []
    seen: set[str] = set()
    sayable = True
    for field in fields:
        name = field.name
        try:
            if not name or (name in _ONCE and name in seen):
                raise _OtherShape
            check_name(field.label)
            if is_structured(name):
                checked_tokens(field.label, field.text)
            if name in _LISTS and not _sayable_list(field.text):
                sayable = False
            if name in _KINDS:
                message.recipients += [Recipient(address, _KINDS[name]) for address in _mailboxes(field)]
            elif name == "from":
                authors = _mailboxes(field)
            elif name == "sender":
                senders = _mailboxes(field)
            elif name in _SETTERS:
                _SETTERS[name](message, field)
            elif name not in _STRUCTURE and not _set_rare(message, field):
                extra.append((field.label, _extra(field)))
        except (_OtherShape, InvalidArgument):
            sayable = False
        seen.add(name)
    message.headers = extra
    message.sender = senders[0] if senders else authors[0] if len(authors) == 1 else None
    if len(authors) > 1 or (authors and message.sender != authors[0]):
        message.authors = tuple(authors)
    elif senders and not authors:
        sayable = False  # From would be written
    elif senders and senders[0].name != authors[0].name:
        sayable = False  # a Sender that is the author is not written
    return sayable and len(senders) <= 1


def _set_subject(message: Writable, field: Field) -> None:
    # What can be read of it is shown, even if raw says more.
    message.subject = cleaned(decoded_words(field.text))
    _decoded(field)


def _set_reply_to(message: Writable, field: Field) -> None:
    message.reply_to = tuple(_mailboxes(field))


def _set_return_path(message: Writable, field: Field) -> None:
    text = field.text
    message.return_path = "<>" if text == "<>" else Address.parse(text)


def _set_date(message: Writable, field: Field) -> None:
    message.date = _moment(field.text)


def _set_message_id(message: Writable, field: Field) -> None:
    message.message_id = message_id_text(field.text)


_SETTERS: Final[dict[str, Callable[[Writable, Field], None]]] = {
    "subject": _set_subject,
    "reply-to": _set_reply_to,
    "return-path": _set_return_path,
    "date": _set_date,
    "message-id": _set_message_id,
}


def _moment(text: str) -> datetime:
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
        date_text(moment)
    except (ValueError, TypeError, OverflowError, IndexError, SMTPError) as error:
        raise _OtherShape from error
    return moment


def _set_rare(message: Writable, field: Field) -> bool:
    """Set the attribute for a field, if there is one, if it is free and if it can hold what the field says."""
    attribute = _RARE.get(field.name)
    if attribute is None or getattr(message, attribute):
        return False
    try:
        setattr(message, attribute, _rare_value(attribute, field))
    except (InvalidArgument, _OtherShape):
        return False
    return bool(getattr(message, attribute))


def _rare_value(attribute: str, field: Field) -> Any:
    text = field.text
    if attribute in ("read_receipt_to", "delivery_notification_to"):
        return _mailboxes(field)
    if attribute in ("in_reply_to", "references"):
        # Words beside the ids, RFC 5322 section 4.5.4, would become ids.
        if _IDS.fullmatch(text) is None:
            raise _OtherShape
        return re.findall("<[^<>]*>", text)
    if attribute == "x_priority":
        step = _STEP.fullmatch(text)
        if step is None:
            raise _OtherShape
        return step[1]
    if attribute == "list_unsubscribe" and _EMPTY_ELEMENT.search(text):
        raise _OtherShape
    if attribute == "keywords":
        return _phrases(text)
    if attribute == "list_id" and '"' in text.strip('"').replace('" <', "<"):
        raise _OtherShape  # quotes in the middle of its phrase
    return _decoded(field)


def _phrases(text: str) -> list[str]:
    """Read a list of phrases, RFC 5322 section 3.6.5; an encoded word in quotes is none (RFC 2047 section 5)."""
    if _PHRASES.fullmatch(text) is None:
        raise _OtherShape
    found = _PHRASE.findall(text)
    return [_ESCAPED.sub(r"\1", quoted) if quoted else _plain(plain) for quoted, plain in found]


def _extra(field: Field) -> str:
    """Return the value of a field that has no attribute."""
    if is_structured(field.name):
        longest = max(map(len, field.text.split(" ")))
        if not field.value.isascii() or len(field.label) + longest > MAX_LINE - 2:
            raise _OtherShape
        return cleaned(field.text)
    # A list of mailboxes that is encoded, or that cannot be read, cannot be written anew as one text.
    if field.name in MAILBOXES and (
        "=?" in field.text or not field.value.isascii() or not mailboxes_in(field)
    ):
        raise _OtherShape
    return _decoded(field)


def _decoded(field: Field) -> str:
    """Return what a reader sees: encoded words decoded, and blanks for the controls that they hid."""
    return _plain(field.text)


def _plain(text: str) -> str:
    """Decode a text; one with encoded words that are not understood could not be written with them."""
    if holds_unknown_words(text):
        raise _OtherShape
    return cleaned(decoded_words(text))


def _mailboxes(field: Field) -> list[Address]:
    """Read a list of mailboxes; names are decoded also where there are quotes around the encoded words."""
    if '"=?' in field.text:
        field = field._replace(octets=_QUOTED_WORDS.sub(rb"\1", field.octets))
    return mailboxes_in(field)


def _sayable_list(text: str) -> bool:
    """Tell whether `Message` can say a list of mailboxes: no group is in it, and no word that is not understood."""
    return not (";" in text and ";" in _QUOTED.sub("", text)) and not holds_unknown_words(
        text.replace('"', " ")
    )


# --- the parts ----------------------------------------------------------------------------------------------


def _set_parts(message: Writable, entity: Entity) -> None:
    """Turn the tree of parts into texts and attachments."""
    if entity.content_type.value != "multipart/mixed":
        return _set_body(message, entity, top=True)
    _check_multipart(entity)
    parts = list(entity.parts)
    if not _is_file(parts[0]):
        _set_body(message, parts.pop(0))
    for part in parts:
        if not _is_file(part):
            raise _OtherShape
        message.attachments.append(_attachment(message, part))


def _check_multipart(entity: Entity, *others: str) -> None:
    """See that a multipart says nothing but how it is cut, and is whole."""
    kind = entity.content_type
    if not entity.parts or not kind.certain:
        raise _OtherShape
    if any([name not in ("boundary", "charset", *others) for name, _ in kind.parameters]):
        raise _OtherShape


def _is_file(part: Entity) -> bool:
    """Tell a part that is a file from one that is shown as text."""
    disposition = part.disposition
    if disposition is not None and (disposition.value == "attachment" or disposition.get("filename")):
        return True
    return not part.content_type.value.startswith(("text/", "multipart/"))


def _set_body(message: Writable, part: Entity, *, top: bool = False) -> None:
    kind = part.content_type.value
    if kind == "multipart/alternative":
        _check_multipart(part)
        for child in part.parts:
            if child.content_type.value == "multipart/alternative":
                raise _OtherShape
            _set_body(message, child)
    elif kind == "multipart/related":
        _check_multipart(part, "type")
        first, *others = part.parts
        if first.content_type.value != "text/html":
            raise _OtherShape
        _set_body(message, first)
        for child in others:
            cid = child.text("content-id")
            if not cid or child.parts or _disposed(child).value == "attachment":
                raise _OtherShape
            message.attachments.append(_attachment(message, child, cid))
    else:
        _set_text(message, kind, part, top=top)


def _set_text(message: Writable, kind: str, part: Entity, *, top: bool) -> None:
    """Set one of the texts; those that come later must be the ones that `Message` writes later."""
    attribute = _TEXTS.get(kind)
    names = list(_TEXTS.values())
    disposed = _disposed(part)
    if attribute is None or disposed.parameters or disposed.value not in ("", "inline"):
        raise _OtherShape
    if any([getattr(message, name) is not None for name in names[names.index(attribute) :]]):
        raise _OtherShape
    if not top:
        _check_fields(part, _OF_TEXT)
    _set_format(message, attribute, part.content_type)
    data = part.decoded()
    label = part.content_type.get("charset")
    codec = codec_of("utf-8" if label is None else label)
    if data is None or codec is None:
        raise _OtherShape
    try:
        text = decoded_by("utf-8" if codec == "ascii" else codec, data)
    except ValueError as error:
        raise _OtherShape from error
    if _C1.search(text) and codec.startswith("iso8859"):
        raise _OtherShape  # readers take it for the Windows charset that extends it
    method = part.content_type.get("method")
    if attribute == "calendar" and method and method.upper() != calendar_method(text):
        raise _OtherShape
    setattr(message, attribute, text.replace("\r\n", "\n"))


def _set_format(message: Writable, attribute: str, kind: Parametrised) -> None:
    """Set what the parameters of a text say (RFC 3676), if `Message` can say all of it."""
    if not kind.certain:
        raise _OtherShape
    for name, value in kind.parameters:
        lowered = value.lower()
        if name == "charset" or (name, lowered) in (("format", "fixed"), ("delsp", "no")):
            continue
        if attribute == "text" and (name, lowered) == ("format", "flowed"):
            message.flowed = True
        elif attribute == "text" and (name, lowered) == ("delsp", "yes"):
            message.delsp = True
        elif attribute != "calendar" or name != "method":
            raise _OtherShape


def _check_fields(part: Entity, known: frozenset[str]) -> None:
    """See that a part has no field that would be lost."""
    names = [field.name for field in part.fields]
    if not known.issuperset(names) or len(set(names)) != len(names):
        raise _OtherShape


def _disposed(part: Entity) -> Parametrised:
    found = part.disposition
    if found is None:
        return Parametrised("", (), certain=True)
    if not found.certain or found.value not in ("", "inline", "attachment"):
        raise _OtherShape
    return found


def _attachment(message: Writable, part: Entity, cid: str | None = None) -> Attachment:
    """Make an attachment of a part."""
    _check_fields(part, _OF_FILE)
    kind, disposed = part.content_type, _disposed(part)
    # A message within the message is the octets that it is; every other part is decoded.
    data = part.decoded()
    if data is None or part.parts or kind.value.startswith("multipart/") or not kind.certain:
        raise _OtherShape
    disposition = disposed.value or ("inline" if cid else "attachment")
    named = (part.text("content-id") or "").strip()
    if cid is None and named:
        cid = named
        if disposition == "inline" and not _refers(message, named):
            raise _OtherShape  # among the texts it would be shown somewhere else
    filename, in_type = _name_in(disposed, "filename"), _name_in(kind, "name")
    description = part.text("content-description")
    parameters = [(name, value) for name, value in kind.parameters if name != "name" or in_type != filename]
    if filename is None and in_type is not None:
        filename, parameters = in_type, [one for one in parameters if one[0] != "name"]
    return Attachment(
        data,
        filename=filename,
        content_type=kind.value + _written(parameters),
        cid=cid,
        disposition=disposition + _written([one for one in disposed.parameters if one[0] != "filename"]),
        description=_plain(description) if description else None,
        name_parameter=in_type is not None and in_type == filename,
    )


def _refers(message: Writable, cid: str) -> bool:
    return isinstance(message.html, str) and f"cid:{cid.strip('<>')}" in message.html


def _name_in(found: Parametrised, parameter: str) -> str | None:
    name = found.get(parameter)
    return None if name is None else _plain(name)


def _written(parameters: list[tuple[str, str]]) -> str:
    """Return parameters as `Attachment` reads them; an encoded word would be taken for the text that it is."""
    if any(["=?" in value for _, value in parameters]):
        raise _OtherShape
    return "".join(
        [f'; {name}="' + _SPECIAL.sub(r"\\\1", cleaned(value)) + '"' for name, value in parameters]
    )
