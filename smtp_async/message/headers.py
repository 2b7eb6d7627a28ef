"""Header fields: name and value in, folded lines out.

Strategy. Each function returns one whole field without its final CRLF, as text that is ASCII unless an
address in it needs SMTPUTF8 or the style forbids encoding. Every name and value of a caller is checked here, so no
value can become a second field, in any version of Python.

Lines are folded at 78 columns (RFC 5322 section 2.1.1) or at the width of the style, those with encoded words at 76
(RFC 2047 section 2), and no line is longer than 998. A fold is put before an existing blank, and a line is never blank,
because a blank line ends the header for some readers.

A reader decodes the value to the text that was given. Therefore a value that looks like an encoded word is encoded.
"""

from __future__ import annotations

import binascii
import re
import string
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from ..errors import ExtensionMissing, InvalidHeader, TextNotEncodable
from ..model.address import Address
from ..model.encoded_words import is_encoded_word
from ..model.octets import MAX_LINE
from ..model.reply import printable
from .charsets import UTF_8, Charset, encoded

__all__ = [
    "USUAL",
    "Style",
    "address_field",
    "author_field",
    "check_name",
    "check_value",
    "check_lines",
    "encoded_text",
    "group_field",
    "is_structured",
    "items_field",
    "message_id_text",
    "parameter_field",
    "phrase",
    "structured_field",
    "text_field",
]

#: Columns of a line, and of a line with encoded words.
WIDTH: Final = 78
ENCODED_WIDTH: Final = 76
#: The longest field name that fits into a line with its colon.
MAX_NAME: Final = WIDTH - 2
#: A longer word without blanks must be encoded; the hard limit of a line is 998.
MAX_WORD: Final = 900

_NAME: Final = re.compile(r"[!-9;-~]+")
# Text that looks like an encoded word, or that some readers treat as a line ending, must be encoded.
_AMBIGUOUS: Final = re.compile("=\\?|[\x80-\x9f\u2028\u2029]")
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_WORDS: Final = re.compile(r"[ \t]*[^ \t]+")
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+)*")
# A token of RFC 2045 without `%'*`, which have a meaning in RFC 2231, so that a value with them is quoted.
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$&+.^_`{|}~\-]+")
_SPECIAL: Final = re.compile(r'(["\\])')
_MESSAGE_ID: Final = re.compile(r"[!-;=?-~]+")

# RFC 2047 section 5 (3): characters that are literal wherever an encoded word may occur.
_PLAIN = frozenset((string.ascii_letters + string.digits + "!*+-/").encode())
_SHORT: Final = bytes([*_PLAIN, 0x20])
_Q: Final = [chr(b) if b in _PLAIN else "_" if b == 0x20 else f"={b:02X}" for b in range(256)]
_Q_OPEN, _B_OPEN, _CLOSE = "=?utf-8?q?", "=?utf-8?b?", "?="
_FRAME: Final = len(_Q_OPEN) + len(_CLOSE)
MAX_ENCODED_WORD: Final = 75
#: The longest display name, in characters, that is sent unencoded; a longer one could not be folded.
MAX_RAW_NAME: Final = 120

# RFC 2231 section 7, attribute-char.
_ATTRIBUTE = frozenset((string.ascii_letters + string.digits + "!#$&+-.^_`{|}~").encode())
_PERCENT: Final = [chr(b) if b in _ATTRIBUTE else f"%{b:02X}" for b in range(256)]

#: Fields in which encoded words have no meaning, and prefixes of the names of others.
_STRUCTURED: Final = frozenset(
    "message-id in-reply-to references date return-path received received-spf mime-version content-id "
    "content-transfer-encoding content-language content-location content-md5 content-base authentication-results "
    "dkim-signature domainkey-signature auto-submitted archived-at precedence autocrypt x-google-dkim-signature "
    "original-recipient final-recipient x-original-to delivered-to resent-message-id resent-date feedback-id".split()
)
_STRUCTURED_BEGINS: Final = ("list-", "arc-", "x-ms-exchange-", "original-message-id", "dkim-")


class Style(NamedTuple):
    """How the fields of a message are written.

    Attributes:
        width: columns of a line.
        charset: of encoded words; None: nothing is encoded, which requires SMTPUTF8 (RFC 6532).
    """

    width: int = WIDTH
    charset: Charset | None = UTF_8

    @property
    def encoded_width(self) -> int:
        """Columns of a line with encoded words."""
        return min(self.width, ENCODED_WIDTH)


USUAL: Final = Style()


def check_name(name: str) -> None:
    """Refuse an invalid field name, RFC 5322 section 2.2.

    Raises:
        InvalidHeader: the name is empty or too long, or contains a colon or a character outside printable ASCII.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None or len(name) > MAX_NAME:
        raise InvalidHeader(f"“{printable(str(name), 80)}” is not the name of a header field")


def check_value(what: str, value: object) -> None:
    """Refuse control characters, CR and LF included, and lone surrogates; a tab counts as a blank.

    Raises:
        InvalidHeader: the value contains one of these, or is not a text.
    """
    if not isinstance(value, str):
        how = ": decode it first" if isinstance(value, bytes) else ""
        raise InvalidHeader(f"{what} must be a text, not {type(value).__name__}{how}")
    found = _FORBIDDEN.search(value)
    if found:
        raise InvalidHeader(
            f"{what} holds {found[0]!r}, which would change the message: take out line ends and control characters"
        )


def is_structured(name: str) -> bool:
    """Tell whether a field, named in lower case, contains tokens, which encoded words may not replace (RFC 2047)."""
    return name in _STRUCTURED or name.startswith(_STRUCTURED_BEGINS)


def check_lines(name: str, field: str) -> None:
    """Refuse a field with a line of more than 998 octets, RFC 5322 section 2.1.1.

    Raises:
        InvalidHeader: the field has such a line.
    """
    if len(field) > MAX_LINE // 4 and max([len(line.encode()) for line in field.split("\r\n")]) > MAX_LINE:
        raise InvalidHeader(
            f"{name} has a word too long for a line of {MAX_LINE} octets (RFC 5322 section 2.1.1): it can neither be "
            "folded nor be encoded"
        )


def structured_field(name: str, value: str, style: Style = USUAL) -> str:
    """Return a field of tokens in ASCII, folded at its blanks and never encoded.

    Raises:
        InvalidHeader: a name or value that would change the structure of the message, or a token over 998 octets.
    """
    check_name(name)
    check_value(name, value)
    words = _WORDS.findall(value.strip(" \t")) or [""]
    field = _folded(name, words, style.width)
    check_lines(name, field)
    return field


def text_field(name: str, value: str, style: Style = USUAL, *, utf8: bool = False) -> str:
    """Return an unstructured field, RFC 5322 section 3.6.5, in encoded words where needed.

    Raises:
        InvalidHeader: a name or value that would change the structure of the message.
        TextNotEncodable: the charset of the style cannot express the value, or encoding is forbidden and `utf8` false.
    """
    check_name(name)
    check_value(name, value)
    value = value.strip(" \t")
    if style.charset is None:
        _check_unencoded(name, value, utf8=utf8)
    if (value.isascii() or style.charset is None) and "=?" not in value:
        if len(name) + 2 + len(value) <= style.width:
            return f"{name}: {value}"
        words = _WORDS.findall(value)
        if max([len(word) if word.isascii() else len(word.encode()) for word in words]) <= MAX_WORD:
            return _folded(name, words, style.width)
    room, most = style.encoded_width - len(name) - 2, min(style.encoded_width - 1, MAX_ENCODED_WORD)
    charset = style.charset or UTF_8
    if room < 2 * _FRAME + len(charset.label):  # too little room behind such a long name
        return f"{name}:\r\n " + "\r\n ".join(_encoded_words(value, most, most, charset))
    return f"{name}: " + "\r\n ".join(_encoded_words(value, min(room, most), most, charset))


def items_field(name: str, items: Sequence[str], style: Style = USUAL) -> str:
    """Return a field whose value is items separated by blanks, folded at these.

    Args:
        name: of the field, checked.
        items: at least one, checked: ASCII without blanks, or what `phrase` returns.
        style: for its width.
    """
    return _folded(name, [items[0], *[" " + item for item in items[1:]]], style.width)


def address_field(name: str, addresses: Sequence[Address], *, utf8: bool, style: Style = USUAL) -> str:
    """Return a field with a list of mailboxes, folded between them, RFC 5322 section 3.4.

    Args:
        name: of the field.
        addresses: at least one.
        utf8: SMTPUTF8 may be used, so a local part need not be ASCII.
        style: width, and charset of the display names.

    Raises:
        ExtensionMissing: a local part needs SMTPUTF8 and `utf8` is false.
        TextNotEncodable: the charset of the style cannot express a display name.
    """
    first = addresses[0]
    if len(addresses) == 1 and not (first.name or first.needs_utf8):
        # Most messages: one plain mailbox, on a line that needs no fold.
        line = f"{name}: {first.wire(utf8=True).decode()}"
        if len(line) <= style.encoded_width:
            return line
    mailboxes = [_mailbox(a.name, a.wire(utf8=True), a.needs_utf8, utf8, style) for a in addresses]
    return _list_field(name, mailboxes, style)


def group_field(
    name: str, groups: Iterable[tuple[str | None, Sequence[Address]]], *, utf8: bool, style: Style = USUAL
) -> str:
    """Return a field with mailboxes and groups of them, RFC 5322 section 3.4.

    Args:
        name: of the field.
        groups: each group's name, None for mailboxes that are in none, and its members.
        utf8, style: as for `address_field`.

    Raises:
        ExtensionMissing, TextNotEncodable: as `address_field`.
    """
    items: list[str] = []
    for group, members in groups:
        mailboxes = [_mailbox(a.name, a.wire(utf8=True), a.needs_utf8, utf8, style) for a in members]
        if group is not None:
            mailboxes = mailboxes or [""]
            mailboxes[0] = f"{phrase(group, style.encoded_width - 12, style)}: {mailboxes[0]}".rstrip(" ")
            mailboxes[-1] += ";"
        items += mailboxes
    return _list_field(name, items, style) if items else f"{name}:"


def author_field(author: Address, *, utf8: bool, style: Style = USUAL) -> str:
    """Return the From field of a single author, cached because a bulk mailing has the same author throughout.

    Raises:
        ExtensionMissing, TextNotEncodable: as `address_field`.
    """
    return _author_field(author.name, author.wire(utf8=True), author.needs_utf8, utf8, style)


# Saves 1.4 µs per message. The only cache of this package that holds addresses.
@lru_cache(maxsize=256)
def _author_field(name: str, wire: bytes, needs_utf8: bool, utf8: bool, style: Style) -> str:
    return _list_field("From", [_mailbox(name, wire, needs_utf8, utf8, style)], style)


def parameter_field(
    name: str, value: str, parameters: Iterable[tuple[str, str]], style: Style = USUAL, *, words: bool = False
) -> str:
    """Return a MIME field with parameters, RFC 2045 section 5.1; RFC 2231 where a value needs it.

    Args:
        name, value: of the field.
        parameters: name and value of each.
        style: for its width.
        words: keep values in encoded words, which are meant for readers without RFC 2231.

    Raises:
        InvalidHeader: an attribute is not a token, or a value contains a control character.
    """
    lines = []
    line = f"{name}: {value}"
    for attribute, text in parameters:
        for piece in _parameter(attribute, text, style.width, words=words):
            if len(line) + len(piece) + 3 > style.width:
                lines.append(line + ";")
                line = " " + piece
            else:
                line = f"{line}; {piece}"
    return "\r\n".join([*lines, line])


def message_id_text(text: str) -> str:
    """Return the value of a Message-ID or Content-ID field; angle brackets are added.

    Raises:
        InvalidHeader: blanks, control characters, inner angle brackets, or not ASCII (RFC 5322 section 3.6.4).
    """
    check_value("a message id", text)
    inner = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    if _MESSAGE_ID.fullmatch(inner) is None or len(inner) > MAX_WORD:
        raise InvalidHeader(f"“{printable(text, 80)}” is not a message id")
    return f"<{inner}>"


def _check_unencoded(name: str, value: str, *, utf8: bool) -> None:
    if value.isascii():
        return
    if not utf8:
        raise TextNotEncodable(f"{name} is not ASCII, and header_charset forbids to encode it")
    if _AMBIGUOUS.search(value):
        raise InvalidHeader(
            f"{name} holds a character that readers treat as a line ending, so it must be encoded"
        )


def _folded(name: str, words: list[str], width: int) -> str:
    """Fold a value, given as words, each with its preceding blanks."""
    lines = []
    line = f"{name}: {words[0]}"
    for word in words[1:]:
        if len(line) + len(word) > width:
            lines.append(line)
            line = word
        else:
            line += word
    return "\r\n".join([*lines, line])


def _encoded_words(text: str, room: int, others: int, charset: Charset) -> list[str]:
    """Return `text` in encoded words, RFC 2047, without cutting a code point.

    Args:
        text: any text without lone surrogates.
        room: columns for the first word.
        others: columns for the other words, each on a line of its own.
        charset: of the encoded words.
    """
    if charset is not UTF_8:
        return _foreign_words(text, room, others, charset)
    data = text.encode()
    if len(data) + 2 * len(data.translate(None, _SHORT)) <= (len(data) + 2) // 3 * 4:
        q_text = "".join(map(_Q.__getitem__, data))
        if _FRAME + len(q_text) <= room:
            return [_Q_OPEN + q_text + _CLOSE]
        pieces = ("".join(map(_Q.__getitem__, char.encode())) for char in text)
        return [_Q_OPEN + run + _CLOSE for run in _runs(pieces, room - _FRAME, others - _FRAME)]
    words = []
    start, octets = 0, (room - _FRAME) // 4 * 3
    while start < len(data):
        end = min(start + octets, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # in the middle of a code point
            end -= 1
        words.append(_B_OPEN + binascii.b2a_base64(data[start:end], newline=False).decode() + _CLOSE)
        start, octets = end, (others - _FRAME) // 4 * 3
    return words


def encoded_text(text: str, width: int = ENCODED_WIDTH) -> list[str]:
    """Return text in encoded words of UTF-8, each of which fits into a line.

    Args:
        text: any text without lone surrogates.
        width: columns of a line.
    """
    most = min(width - 1, MAX_ENCODED_WORD)
    return _encoded_words(text, most, most, UTF_8)


def _foreign_words(text: str, room: int, others: int, charset: Charset) -> list[str]:
    """Return encoded words in another charset than UTF-8; each is encoded, and so escaped, separately."""
    if not charset.plain:
        raise TextNotEncodable(f"{charset.label} is not a charset for header fields")
    frame = len(charset.label) + len("=??b??=")
    words: list[str] = []
    start, limit = 0, (room - frame) // 4 * 3
    while start < len(text):
        end, data = start, b""
        while end < len(text):
            longer = encoded(text[start : end + 1], charset, "a header field")
            if len(longer) > limit and data:
                break
            end, data = end + 1, longer
        words.append(f"=?{charset.label}?b?{binascii.b2a_base64(data, newline=False).decode()}?=")
        start, limit = end, (others - frame) // 4 * 3
    return words


def _runs(pieces: Iterable[str], first: int, others: int) -> list[str]:
    """Join pieces to a run of at most `first` characters, then to runs of at most `others`."""
    runs: list[str] = []
    run, length, limit = [""], 0, first
    for piece in pieces:
        if length + len(piece) > limit:
            runs.append("".join(run))
            run, length, limit = [], 0, others
        run.append(piece)
        length += len(piece)
    return [*runs, "".join(run)]


def phrase(text: str, room: int, style: Style = USUAL, *, utf8: bool = False) -> str:
    """Return a phrase, RFC 5322 section 3.2.5: words, a quoted string, or encoded words with folds between them.

    Args:
        text: without control characters.
        room: columns; a longer phrase is encoded, so that it can be folded.
        style, utf8: as for `text_field`.
    """
    if style.charset is None:
        _check_unencoded("a name", text, utf8=utf8)
    plain = len(text) < room if text.isascii() else style.charset is None and len(text) <= MAX_RAW_NAME
    if plain and "=?" not in text:
        return text if _ATOMS.fullmatch(text) else '"' + _SPECIAL.sub(r"\\\1", text) + '"'
    most = min(style.encoded_width - 1, MAX_ENCODED_WORD)
    return "\r\n ".join(_encoded_words(text, most, most, style.charset or UTF_8))


def _mailbox(name: str, wire: bytes, needs_utf8: bool, utf8: bool, style: Style) -> str:
    """Return a mailbox, RFC 5322 section 3.4, with a fold only inside a very long display name."""
    spec = wire.decode()
    if needs_utf8 and not utf8:
        raise ExtensionMissing(
            f"the header names {printable(spec, 80)}, which needs SMTPUTF8 (RFC 6531), and the server does not offer "
            "it: use another server, or an address in ASCII"
        )
    if not name:
        return spec
    words = phrase(name, style.encoded_width - 6 - len(spec), style, utf8=utf8)
    # One column for the blank before, two for the brackets, one for the comma behind.
    last = len(words) - words.rfind("\n") - 1
    long = words.startswith("=?") and last + len(spec) + 5 > style.encoded_width
    return f"{words}\r\n <{spec}>" if long else f"{words} <{spec}>"


def _list_field(name: str, mailboxes: list[str], style: Style) -> str:
    """Fold a list between its mailboxes."""
    last = len(mailboxes) - 1
    line = f"{name}: {mailboxes[0]}"
    if not last and len(line) <= style.width and (len(line) <= ENCODED_WIDTH or "=?" not in line):
        return line
    width = style.encoded_width if any(["=?" in mailbox for mailbox in mailboxes]) else style.width
    lines = []
    line = f"{name}:"
    for index, mailbox in enumerate(mailboxes):
        item = mailbox if index == last else mailbox + ","
        head, _, rest = item.partition("\r\n")
        if len(line) + 1 + len(head) > width:
            lines.append(line)
            line = ""
        if rest:  # a display name of several encoded words contains folds
            lines.append(f"{line} {head}")
            *full, line = rest.split("\r\n")
            lines += full
        else:
            line = f"{line} {head}"
    return "\r\n".join([*lines, line])


def _parameter(attribute: str, text: str, width: int, *, words: bool = False) -> list[str]:
    """Return one parameter, in several pieces if it is long (RFC 2231 section 3)."""
    if _TOKEN.fullmatch(attribute) is None:
        raise InvalidHeader(f"“{printable(attribute, 80)}” is not the name of a parameter")
    check_value(attribute, text)
    room = width - 2 - len(attribute) - 1
    if words and len(text) <= MAX_WORD and all(map(is_encoded_word, text.split(" "))):
        return [f'{attribute}="{text}"']
    if text.isascii() and "=?" not in text and "\t" not in text and len(text) < room - 2:
        if _TOKEN.fullmatch(text):
            return [f"{attribute}={text}"]
        quoted = '"' + _SPECIAL.sub(r"\\\1", text) + '"'
        if len(quoted) < room:
            return [f"{attribute}={quoted}"]
    pieces = ["".join(map(_PERCENT.__getitem__, char.encode())) for char in text]
    if sum(map(len, pieces)) < room - len("*utf-8''"):
        return [f"{attribute}*=utf-8''{''.join(pieces)}"]
    limit = room - len("*000*=")
    runs = _runs(pieces, limit - len("utf-8''"), limit)
    runs[0] = "utf-8''" + runs[0]
    return [f"{attribute}*{number}*={run}" for number, run in enumerate(runs)]
