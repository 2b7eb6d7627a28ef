"""Between `Message` and the standard library's `email`: messages that somebody else made, to be read and changed.

Strategy. The standard library finds the parts, and our own parser reads the addresses from the fields as they stand:
there an encoded word is still one, so that a comma in a decoded name cannot make two mailboxes of one. A tree of
parts that `Message` would write in the same shape becomes texts and attachments; for any other (signed, encrypted,
reports, several texts) the message is kept whole, as `raw`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ..address import Address, Kind, Recipient, parse_list
from ..encoded_words import codec_of, decoded_words
from ..errors import InvalidArgument, InvalidHeader
from .attachment import Attachment
from .fields import NAMES
from .foreign import content_of, set_text
from .headers import address_field, date_text, message_id_text

if TYPE_CHECKING:
    from email.message import EmailMessage
    from email.message import Message as OldMessage

    from .builder import Message

__all__ = ["from_bytes", "from_email_message", "to_email_message"]

_SPECIAL: Final = re.compile(r'(["\\])')
_KINDS: Final = {kind.value.lower(): kind for kind in Kind}

#: Fields that are attributes of a message, and those that its tree of parts makes.
_ATTRIBUTES: Final = frozenset("resent-bcc reply-to return-path subject date message-id".split())
_STRUCTURE: Final = frozenset(
    "mime-version content-type content-transfer-encoding content-disposition content-id content-length".split()
)
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]+")
#: Fields that become an attribute if it can hold what they say.
_RARE: Final = {name: attribute for attribute, name in NAMES.items() if attribute != "list_unsubscribe_post"}


class _OtherShape(Exception):
    """`Message` would write something else."""


def from_bytes(cls: type[Message], data: bytes) -> Message:
    """Read a whole message; see `Message.from_bytes`."""
    import email

    return _imported(cls, email.message_from_bytes(data), lambda: bytes(data))


def from_email_message(cls: type[Message], source: OldMessage) -> Message:
    """Read a message of the standard library; see `Message.from_email_message`."""
    mail = content_of(source)  # which also refuses what would begin another field
    return _imported(cls, source, lambda: mail.content(eightbit=True, utf8=True).join())


def to_email_message(message: Message, *, bcc: bool) -> EmailMessage:
    """Write a message of the standard library; see `Message.to_email_message`."""
    import email
    import email.policy

    data = message.as_bytes()
    if bcc and message.bcc:
        data = address_field("Bcc", message.bcc, utf8=True).encode() + b"\r\n" + data
    return email.message_from_bytes(data, policy=email.policy.default)


def _imported(cls: type[Message], source: OldMessage, whole: Callable[[], bytes]) -> Message:
    message = cls()
    try:
        _set_header(message, source)
        _set_parts(message, source)
    except _OtherShape:
        message.text = message.html = message.calendar = None
        message.attachments.clear()
        message.raw = whole()
    return message


# --- the header ---------------------------------------------------------------------------------------------


def _set_header(message: Message, source: OldMessage) -> None:
    """Set the attributes that come from the header; a field that may stand once counts where it stands first."""
    authors: list[Address] = []
    senders: list[Address] = []
    extra: list[tuple[str, str]] = []
    strange = False
    for name, value in source.raw_items():
        lowered, text = name.lower(), _text_of(name, value)
        if lowered in _KINDS:
            message.recipients += [Recipient(address, _KINDS[lowered]) for address in parse_list(text)]
        elif lowered == "from":
            authors += parse_list(text)
        elif lowered == "sender":
            senders += parse_list(text)
        elif lowered in _ATTRIBUTES:
            _set_attribute(message, lowered, text, value)
        elif lowered not in _STRUCTURE and not _set_rare(message, lowered, text, value):
            # A list of mailboxes that is encoded cannot be written anew as one text.
            strange = strange or (lowered.startswith("resent-") and ("=?" in text or not text.isascii()))
            extra.append((name, _clean(text, value)))
    message.headers = extra
    message.sender = senders[0] if senders else authors[0] if len(authors) == 1 else None
    if len(authors) > 1 or (authors and message.sender != authors[0]):
        message.authors = authors
    if strange:
        raise _OtherShape


def _set_attribute(message: Message, name: str, text: str, value: Any) -> None:
    if name == "subject" and message.subject is None:
        message.subject = _clean(text, value)
    elif name == "reply-to":
        message.reply_to = [*message.reply_to, *parse_list(text)]
    elif name == "return-path":
        message.return_path = "<>" if text == "<>" else text or None
    elif name == "date" and message.date is None:
        message.date = _moment(text)
    elif name == "message-id" and message.message_id is None:
        with suppress(InvalidHeader):  # what cannot be written is drawn anew
            message.message_id = message_id_text(text)


def _moment(text: str) -> datetime | None:
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
        date_text(moment)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment


def _set_rare(message: Message, name: str, text: str, value: Any) -> bool:
    """Set the attribute for a field, if there is one, if it is free and if it can hold what the field says."""
    attribute = _RARE.get(name)
    if attribute is None or getattr(message, attribute):
        return False
    given: Any = _clean(text, value)
    try:
        if attribute in ("read_receipt_to", "delivery_notification_to"):
            given = parse_list(text)
        elif attribute == "x_priority":
            given = given[:1]
        elif attribute == "keywords":
            given = [decoded_words(word) for word in text.split(",")]
        setattr(message, attribute, given)
    except InvalidArgument:
        return False
    return bool(getattr(message, attribute))


def _text_of(name: str, value: Any) -> str:
    """Return a value unfolded; octets in no known charset are taken for UTF-8."""
    text = set_text(name, value)
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _clean(text: str, value: Any) -> str:
    """Return what a reader sees: encoded words decoded, and what they hid of controls as blanks."""
    if not hasattr(value, "fold"):  # what the modern API made is decoded already
        text = decoded_words(text)
    return _CONTROL.sub(" ", text)


# --- the parts ----------------------------------------------------------------------------------------------


def _set_parts(message: Message, source: OldMessage) -> None:
    """Turn the tree of parts into texts and attachments."""
    if source.get_content_type() != "multipart/mixed":
        return _set_body(message, source)
    parts = _children(source)
    if parts and not _is_file(parts[0]):
        _set_body(message, parts[0])
        del parts[0]
    for part in parts:
        if not _is_file(part):
            raise _OtherShape
        message.attachments.append(_attachment(message, part))


def _is_file(part: OldMessage) -> bool:
    """Tell a part that is a file from one that is shown as text."""
    kind = part.get_content_maintype()
    return part.get_content_disposition() == "attachment" or kind not in ("text", "multipart")


def _set_body(message: Message, part: OldMessage) -> None:
    kind = part.get_content_type()
    if kind == "multipart/alternative":
        for child in _children(part):
            if child.get_content_type() == "multipart/alternative":
                raise _OtherShape
            _set_body(message, child)
    elif kind == "multipart/related":
        first, *others = _children(part) or [part]
        if first.get_content_type() != "text/html":
            raise _OtherShape
        _set_body(message, first)
        for child in others:
            cid = child.get("Content-ID", "").strip()
            if not cid or child.is_multipart():
                raise _OtherShape
            message.attachments.append(_attachment(message, child, cid))
    else:
        _set_text(message, kind, part)


def _set_text(message: Message, kind: str, part: OldMessage) -> None:
    """Set one of the texts; those that come later must be the ones that `Message` writes later."""
    texts = {"text/plain": "text", "text/html": "html", "text/calendar": "calendar"}
    attribute = texts.get(kind)
    names = list(texts.values())
    if attribute is None or part.get_content_disposition() == "attachment":
        raise _OtherShape
    if any([getattr(message, name) is not None for name in names[names.index(attribute) :]]):
        raise _OtherShape
    data = part.get_payload(decode=True)
    codec = codec_of(str(part.get_content_charset("utf-8")))
    try:
        text = bytes(data).decode(codec if codec and codec != "ascii" else "utf-8")
    except ValueError as error:
        raise _OtherShape from error
    setattr(message, attribute, text.replace("\r\n", "\n"))


def _children(part: OldMessage) -> list[OldMessage]:
    """Return the parts of a multipart; one that is broken has none."""
    payload: Any = part.get_payload()
    if not part.is_multipart() or not payload:
        raise _OtherShape
    return list(payload)


def _attachment(message: Message, part: OldMessage, cid: str | None = None) -> Attachment:
    """Make an attachment of a part."""
    kind = part.get_content_type()
    if kind == "message/rfc822" and part.is_multipart():
        inner: Any = part.get_payload(0)
        data = inner.as_bytes(policy=inner.policy.clone(linesep="\r\n", mangle_from_=False))
    elif part.is_multipart():
        raise _OtherShape
    else:
        data = part.get_payload(decode=True)
    named = str(part.get("Content-ID", "")).strip()
    if cid is None and named and isinstance(message.html, str) and f"cid:{named.strip('<>')}" in message.html:
        cid = named
    name = part.get_filename()
    if name is not None:
        name = _CONTROL.sub(" ", decoded_words(str(name)))
    try:
        return Attachment(data, filename=name, content_type=kind + _parameters(part), cid=cid)
    except InvalidArgument as error:
        raise _OtherShape from error


def _parameters(part: OldMessage) -> str:
    """Return the parameters of a content type as they are written, but for those that are made anew."""
    from email.utils import collapse_rfc2231_value

    pairs: Iterable[Any] = part.get_params([])[1:]
    return "".join(
        [
            f'; {name}="' + _SPECIAL.sub(r"\\\1", collapse_rfc2231_value(value)) + '"'
            for name, value in pairs
            if name.lower() not in ("name", "boundary")
        ]
    )
