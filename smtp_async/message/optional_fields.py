"""The fields that few messages set, and how each is written.

Strategy. The values are kept in one dict, `Rare._rare`, which is `None` until the first of them is set: a bulk mailing
makes thousands of messages, and an attribute for each of thirty fields would cost more than the rest of the message.
Each field is a descriptor that checks its value, so that an invalid one is refused where the caller sets it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, IntEnum
from typing import Any, Final, Generic, Literal, Self, TypedDict, TypeVar, overload

from ..errors import InvalidArgument, InvalidHeader
from ..model.address import Address, parse_list
from ..model.content import Origin
from ..model.reply import printable
from .attachment import taken
from .charsets import charset_of
from .headers import (
    MAX_WORD,
    USUAL,
    WIDTH,
    Style,
    address_field,
    check_value,
    items_field,
    message_id_text,
    phrase,
    text_field,
)

__all__ = [
    "Addresses",
    "Fields",
    "Importance",
    "Priority",
    "Rare",
    "Sensitivity",
    "XPriority",
    "mailboxes",
    "rare_fields",
]

#: One or several mailboxes: a comma list, an address, or an iterable of them.
Addresses = str | Address | Iterable[str | Address]
#: One or several texts.
Texts = str | Iterable[str]
#: Addresses for a receipt; True: the sender; False: no receipt.
Notified = Addresses | bool


class Importance(Enum):
    """How important the author considers the message, RFC 2156 section 5.3.4."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Priority(Enum):
    """How fast the message should be delivered, RFC 2156 section 5.3.6."""

    NORMAL = "normal"
    URGENT = "urgent"
    NON_URGENT = "non-urgent"


class Sensitivity(Enum):
    """How confidential the message is, RFC 2156 section 5.3.4."""

    PERSONAL = "Personal"
    PRIVATE = "Private"
    COMPANY_CONFIDENTIAL = "Company-Confidential"


class XPriority(IntEnum):
    """Five levels that no RFC defines and most mail readers show."""

    HIGHEST = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4
    LOWEST = 5


class Fields(TypedDict, total=False):
    """Further keyword arguments of `Message`; each is also an attribute of the same name."""

    in_reply_to: Texts | None
    references: Texts | None
    keywords: Texts | None
    comments: str | None
    mailer: str | None
    importance: Importance | str | None
    priority: Priority | str | None
    x_priority: XPriority | int | None
    sensitivity: Sensitivity | str | None
    read_receipt_to: Notified | None
    delivery_notification_to: Notified | None
    list_id: str | None
    list_help: Texts | None
    list_unsubscribe: Texts | None
    list_unsubscribe_post: bool
    list_subscribe: Texts | None
    list_post: Texts | None
    list_owner: Texts | None
    list_archive: Texts | None
    header_charset: str | int
    charset: str | int
    max_header_length: int
    flowed: bool
    delsp: bool
    calendar: str | None
    raw: bytes | Origin | None


# The type that a field keeps, and the types that it accepts.
K = TypeVar("K")
G = TypeVar("G")


class _Field(Generic[K, G]):
    """A descriptor over `_rare`; setting `None`, an empty text or an empty list removes the field."""

    __slots__ = ("_check", "_default", "_name")

    def __init__(self, check: Callable[[Any], K], default: K) -> None:
        self._check = check
        self._default = default
        self._name = ""

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, message: None, owner: type[Any]) -> Self: ...

    @overload
    def __get__(self, message: Rare, owner: type[Any]) -> K: ...

    def __get__(self, message: Rare | None, owner: type[Any]) -> Self | K:
        if message is None:
            return self
        rare = message._rare
        kept: K = self._default if rare is None else rare.get(self._name, self._default)
        return kept

    def __set__(self, message: Rare, value: G) -> None:
        kept = self._default if value is None else self._check(value)
        if kept == self._default:
            if message._rare is not None:
                message._rare.pop(self._name, None)
        elif message._rare is None:
            message._rare = {self._name: kept}
        else:
            message._rare[self._name] = kept


# --- validation ---------------------------------------------------------------------------------------------


def mailboxes(value: Addresses) -> tuple[Address, ...]:
    """Parse one or several mailboxes.

    Raises:
        InvalidAddress: one of them is not a mailbox.
    """
    if isinstance(value, str):
        # A list or a group contains one of these characters; any other text is a single mailbox.
        if "," in value or ";" in value or ":" in value or "(" in value:
            return tuple(parse_list(value))
        return (Address.parse(value),) if value.strip(" ") else ()
    return (value,) if isinstance(value, Address) else tuple([Address.parse(item) for item in value])


def _notified(value: Notified) -> tuple[Address, ...] | Literal[True]:
    return True if value is True else mailboxes(() if value is False else value)


def _text(value: str) -> str | None:
    check_value("a header field", value)
    return value or None


_BLANKS: Final = re.compile("[ \t]+")


def _ids(value: Texts) -> tuple[str, ...]:
    given = _BLANKS.split(value.replace("><", "> <").strip(" \t")) if isinstance(value, str) else value
    return tuple([message_id_text(item) for item in given if item])


def _words(value: Texts) -> tuple[str, ...]:
    words = value.split(",") if isinstance(value, str) else list(value)
    for word in words:
        check_value("a keyword", word)
    return tuple([word.strip(" \t") for word in words if word.strip(" \t")])


_URL: Final = re.compile(rf"[A-Za-z][A-Za-z0-9+.\-]*:[!-;=?-~]{{1,{MAX_WORD - 20}}}")
_URLS: Final = re.compile(r"[ \t]*<([^<>]*)>[ \t]*(?:,|\Z)")


def _urls(value: Texts) -> tuple[str, ...]:
    """Parse URLs, RFC 2369 section 2: one, several, or a list in the syntax of the field."""
    if isinstance(value, str):
        check_value("a List field", value)
        listed = value.lstrip(" \t").startswith("<") and not _URLS.sub("", value).strip(" \t")
        value = _URLS.findall(value) if listed else [value] if value else ()
    found = tuple(value)
    for url in found:
        if not isinstance(url, str) or _URL.fullmatch(url) is None:
            raise InvalidHeader(f"“{printable(str(url), 80)}” is not a URL for a List field (RFC 2369)")
    return found


def _post(value: Texts) -> tuple[str, ...]:
    return ("NO",) if value == "NO" else _urls(value)


_LIST_ID: Final = re.compile(r"(?:(.*[^ \t])[ \t]*)?<([A-Za-z0-9._\-]{1,255})>", re.S)


def _list_id(value: str) -> tuple[str, str] | None:
    """Parse `Name <id>`, RFC 2919 section 3; an id alone needs no brackets."""
    check_value("List-Id", value)
    if not value:
        return None
    match = _LIST_ID.fullmatch(value if "<" in value else f"<{value}>")
    if match is None:
        raise InvalidHeader(f"“{printable(value, 80)}” is not a List-Id (RFC 2919)")
    return (match[1] or "").strip('"'), match[2]


def _one_of(choices: type[Any]) -> Callable[[Any], Any]:
    """Return a check for a member of an enumeration, or its value in any letter case."""
    by_value = {str(choice.value).lower(): choice for choice in choices}

    def check(value: Any) -> Any:
        if isinstance(value, choices):
            return value
        found = by_value.get(str(value).lower())
        if found is None:
            known = ", ".join(by_value)
            raise InvalidArgument(f"“{printable(str(value), 80)}” is not one of: {known}")
        return found

    return check


def _header_charset(value: str | int) -> str | int:
    if value != "" and not charset_of(value).plain:
        raise InvalidArgument(f"{charset_of(value).label} is not a charset for header fields")
    return value


def _charset(value: str | int) -> str | int:
    charset_of(value)
    return value


def _length(value: int) -> int:
    if not isinstance(value, int) or not 40 <= value <= 998:
        raise InvalidArgument("a header line has 40 to 998 columns (RFC 5322 section 2.1.1)")
    return value


def _calendar(value: str) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"a calendar is a text (RFC 5545), not {type(value).__name__}")
    return value


class Rare:
    """The fields that few messages set."""

    __slots__ = ("_rare",)

    _rare: dict[str, Any] | None

    #: Message-IDs of the messages that this one answers, with angle brackets; set as a list, or a text with blanks.
    in_reply_to = _Field[tuple[str, ...], Texts | None](_ids, ())
    #: Message-IDs of the thread, the oldest first.
    references = _Field[tuple[str, ...], Texts | None](_ids, ())
    #: Set as a list, or as a text with commas.
    keywords = _Field[tuple[str, ...], Texts | None](_words, ())
    comments = _Field["str | None", "str | None"](_text, None)
    #: The program that wrote the message (X-Mailer).
    mailer = _Field["str | None", "str | None"](_text, None)
    importance = _Field["Importance | None", "Importance | str | None"](_one_of(Importance), None)
    priority = _Field["Priority | None", "Priority | str | None"](_one_of(Priority), None)
    x_priority = _Field["XPriority | None", "XPriority | int | None"](_one_of(XPriority), None)
    sensitivity = _Field["Sensitivity | None", "Sensitivity | str | None"](_one_of(Sensitivity), None)
    #: Addresses for a read receipt: Disposition-Notification-To (RFC 8098); True for the sender.
    read_receipt_to = _Field["tuple[Address, ...] | Literal[True]", "Notified | None"](_notified, ())
    #: Addresses for a delivery receipt: Return-Receipt-To, which no RFC defines; True for the sender.
    delivery_notification_to = _Field["tuple[Address, ...] | Literal[True]", "Notified | None"](_notified, ())
    #: Name and id of a mailing list (RFC 2919), set as `Name <id>` or `id`.
    list_id = _Field["tuple[str, str] | None", "str | None"](_list_id, None)
    #: URLs (RFC 2369), set as one URL, as a list, or as `<…>, <…>`.
    list_help = _Field[tuple[str, ...], Texts | None](_urls, ())
    list_unsubscribe = _Field[tuple[str, ...], Texts | None](_urls, ())
    #: Allow to unsubscribe with one click (RFC 8058); requires an https URL in `list_unsubscribe`.
    list_unsubscribe_post = _Field[bool, bool](bool, False)
    list_subscribe = _Field[tuple[str, ...], Texts | None](_urls, ())
    #: URLs, or `"NO"` if the list accepts no posts.
    list_post = _Field[tuple[str, ...], Texts | None](_post, ())
    list_owner = _Field[tuple[str, ...], Texts | None](_urls, ())
    list_archive = _Field[tuple[str, ...], Texts | None](_urls, ())
    #: Charset of encoded words; empty: header fields are not encoded, which requires SMTPUTF8.
    header_charset = _Field["str | int", "str | int"](_header_charset, "utf-8")
    #: Charset of the texts: a name that Python knows, or the number of a code page.
    charset = _Field["str | int", "str | int"](_charset, "utf-8")
    #: Columns at which header lines are folded, 998 at most.
    max_header_length = _Field[int, int](_length, WIDTH)
    #: `text` is format=flowed (RFC 3676): a line that ends with a blank continues in the next line.
    flowed = _Field[bool, bool](bool, False)
    #: With `flowed`: the blank at the end of such a line is not a part of the text.
    delsp = _Field[bool, bool](bool, False)
    #: An iCalendar text (RFC 5545), sent beside `text` and `html` as text/calendar with the method that it names.
    calendar = _Field["str | None", "str | None"](_calendar, None)
    #: The whole message with its header, sent in place of the other attributes: Bcc is removed, and bare CR and LF
    #: become CRLF unless `SendOptions(exact=True)` is given.
    raw = _Field["bytes | Origin | None", "bytes | Origin | None"](lambda value: taken(value, "raw"), None)

    def _clear_rare(self) -> None:
        """Clear all header fields, but not the settings."""
        if self._rare is not None:
            self._rare = {name: kept for name, kept in self._rare.items() if name not in NAMES} or None


# --- rendering ----------------------------------------------------------------------------------------------

#: Attribute, field name, and one of the kinds below.
_TABLE: Final = (
    ("in_reply_to", "In-Reply-To", "items"),
    ("references", "References", "items"),
    ("keywords", "Keywords", "phrases"),
    ("comments", "Comments", "text"),
    ("mailer", "X-Mailer", "text"),
    ("importance", "Importance", "value"),
    ("priority", "Priority", "value"),
    ("x_priority", "X-Priority", "step"),
    ("sensitivity", "Sensitivity", "value"),
    ("read_receipt_to", "Disposition-Notification-To", "notified"),
    ("delivery_notification_to", "Return-Receipt-To", "notified"),
    ("list_id", "List-Id", "list id"),
    ("list_help", "List-Help", "urls"),
    ("list_unsubscribe", "List-Unsubscribe", "urls"),
    ("list_unsubscribe_post", "List-Unsubscribe-Post", "one click"),
    ("list_subscribe", "List-Subscribe", "urls"),
    ("list_post", "List-Post", "urls"),
    ("list_owner", "List-Owner", "urls"),
    ("list_archive", "List-Archive", "urls"),
)
#: The names of the header fields, in lower case, by attribute.
NAMES: Final = {attribute: name.lower() for attribute, name, _ in _TABLE}


def rare_fields(
    rare: Mapping[str, Any], sender: Address, style: Style = USUAL, *, utf8: bool = False
) -> list[str]:
    """Write the fields that are set, in the order of the table.

    Args:
        rare: attributes and their values.
        sender: the address that is used for True.
        style, utf8: as for `text_field`.

    Raises:
        InvalidHeader: `list_unsubscribe_post` without an https URL.
        ExtensionMissing, TextNotEncodable: as `address_field` and `text_field`.
    """
    fields = []
    for attribute, name, kind in _TABLE:
        value = rare.get(attribute)
        if not value:
            continue
        if kind == "text":
            fields.append(text_field(name, value, style, utf8=utf8))
        elif kind == "notified":
            fields.append(address_field(name, (sender,) if value is True else value, utf8=utf8, style=style))
        else:
            fields.append(items_field(name, _items(kind, value, rare, style, utf8=utf8), style))
    return fields


def _items(kind: str, value: Any, rare: Mapping[str, Any], style: Style, *, utf8: bool) -> list[str]:
    """Return the pieces of a value, which are not folded and are separated by blanks."""
    if kind == "items":
        return list(value)
    if kind == "value":
        return [value.value]
    if kind == "step":
        return [f"{value.value} ({value.name.title()})"]
    if kind == "one click":
        if not any([url.lower().startswith("https:") for url in rare.get("list_unsubscribe", ())]):
            raise InvalidHeader("list_unsubscribe_post requires an https URL in list_unsubscribe (RFC 8058)")
        return ["List-Unsubscribe=One-Click"]
    if kind == "list id":
        name, identifier = value
        named = [phrase(name, style.encoded_width - 12 - len(identifier), style, utf8=utf8)] if name else []
        return [*named, f"<{identifier}>"]
    if kind == "phrases":
        items = [phrase(word, style.encoded_width - 12, style, utf8=utf8) for word in value]
    else:
        items = ["NO"] if value == ("NO",) else [f"<{url}>" for url in value]
    return [item + "," for item in items[:-1]] + items[-1:]
