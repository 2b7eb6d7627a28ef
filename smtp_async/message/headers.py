"""Header fields: name and value in, folded lines out.

Strategy. Each function returns one whole field without its final CRLF, as text that is ASCII unless an
address in it needs SMTPUTF8. Every name and value of a caller passes through here and is checked, so nothing
that a caller sets can become a second field, whatever the version of Python.

Lines are folded at 78 columns (RFC 5322 section 2.1.1), those with encoded words at 76 (RFC 2047 section 2),
and no line is ever longer than 998. A fold is put before a blank that is there already, and always something
other than blanks follows it: a line of blanks ends the header for some readers.

What is written reads back as the text that was given. So a value that looks like an encoded word is encoded.
"""

from __future__ import annotations

import binascii
import re
import string
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Final

from ..address import Address
from ..errors import ExtensionMissing, InvalidArgument, InvalidHeader
from ..reply import printable

__all__ = [
    "address_field",
    "check_name",
    "check_value",
    "clock_date",
    "date_text",
    "message_id_text",
    "parameter_field",
    "text_field",
]

#: Columns of a line, and of a line with encoded words.
WIDTH: Final = 78
ENCODED_WIDTH: Final = 76
#: A field name beyond this would not fit into a line with its colon.
MAX_NAME: Final = WIDTH - 2
#: A word without blanks that is longer than this must be encoded; the hard limit of a line is 998.
MAX_WORD: Final = 900

_NAME: Final = re.compile(r"[!-9;-~]+")
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_WORDS: Final = re.compile(r"[ \t]*[^ \t]+")
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+)*")
# Less than a token of RFC 2045: RFC 2231 gives `%'*` a meaning, so a value with them is better quoted.
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$&+.^_`{|}~\-]+")
_SPECIAL: Final = re.compile(r'(["\\])')
_MESSAGE_ID: Final = re.compile(r"[!-;=?-~]+")

# RFC 2047 section 5 (3): what may stand for itself in any place where an encoded word may stand.
_PLAIN = frozenset((string.ascii_letters + string.digits + "!*+-/").encode())
_Q: Final = [chr(b) if b in _PLAIN else "_" if b == 0x20 else f"={b:02X}" for b in range(256)]
_Q_OPEN, _B_OPEN, _CLOSE = "=?utf-8?q?", "=?utf-8?b?", "?="
_FRAME: Final = len(_Q_OPEN) + len(_CLOSE)
MAX_ENCODED_WORD: Final = 75

# RFC 2231 section 7, attribute-char.
_ATTRIBUTE = frozenset((string.ascii_letters + string.digits + "!#$&+-.^_`{|}~").encode())
_PERCENT: Final = [chr(b) if b in _ATTRIBUTE else f"%{b:02X}" for b in range(256)]

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def check_name(name: str) -> None:
    """Refuse what is not a field name, RFC 5322 section 2.2.

    Raises:
        InvalidHeader: empty, too long, or with a character outside printable ASCII, or a colon.
    """
    if _NAME.fullmatch(name) is None or len(name) > MAX_NAME:
        raise InvalidHeader(f"“{printable(name, 80)}” is not the name of a header field")


def check_value(what: str, value: str) -> None:
    """Refuse controls, CR and LF among them, and lone surrogates; a tab is a blank.

    Raises:
        InvalidHeader: one was found, or the value is not a text.
    """
    if not isinstance(value, str):
        raise InvalidHeader(f"{what} must be a text, not {type(value).__name__}")
    found = _FORBIDDEN.search(value)
    if found:
        raise InvalidHeader(f"{what} holds {found[0]!r}, which would change the message")


def text_field(name: str, value: str) -> str:
    """Return an unstructured field, RFC 5322 section 3.6.5, in encoded words where needed.

    Raises:
        InvalidHeader: a name or value that would change the structure of the message.
    """
    check_name(name)
    check_value(name, value)
    value = value.strip(" \t")
    if value.isascii() and "=?" not in value:
        if len(name) + 2 + len(value) <= WIDTH:
            return f"{name}: {value}"
        words = _WORDS.findall(value)
        if len(max(words, key=len)) <= MAX_WORD:
            return _folded(name, words)
    room = ENCODED_WIDTH - len(name) - 2
    if room < 2 * _FRAME:  # hardly anything fits behind so long a name
        return f"{name}:\r\n " + "\r\n ".join(_encoded_words(value, MAX_ENCODED_WORD))
    return f"{name}: " + "\r\n ".join(_encoded_words(value, min(room, MAX_ENCODED_WORD)))


def address_field(name: str, addresses: Sequence[Address], *, utf8: bool) -> str:
    """Return a field with a list of mailboxes, folded between them, RFC 5322 section 3.4.

    Args:
        name: of the field.
        addresses: at least one.
        utf8: SMTPUTF8 may be used, so a local part need not be ASCII.

    Raises:
        ExtensionMissing: a local part needs SMTPUTF8 and `utf8` is false.
    """
    mailboxes = [_mailbox(address, utf8=utf8) for address in addresses]
    line = f"{name}: {mailboxes[0]}"
    if len(mailboxes) == 1 and len(line) <= ENCODED_WIDTH:
        return line
    lines = []
    line = f"{name}:"
    last = len(mailboxes) - 1
    for index, mailbox in enumerate(mailboxes):
        item = mailbox if index == last else mailbox + ","
        head, _, rest = item.partition("\r\n")
        if len(line) + 1 + len(head) > ENCODED_WIDTH:
            lines.append(line)
            line = ""
        if rest:  # a display name of several encoded words has folds of its own
            lines.append(f"{line} {head}")
            *full, line = rest.split("\r\n")
            lines += full
        else:
            line = f"{line} {head}"
    return "\r\n".join([*lines, line])


def parameter_field(name: str, value: str, parameters: Iterable[tuple[str, str]]) -> str:
    """Return a MIME field with parameters, RFC 2045 section 5.1; RFC 2231 where a value needs it.

    Raises:
        InvalidHeader: an attribute is not a token, or a value holds a control character.
    """
    lines = []
    line = f"{name}: {value}"
    for attribute, text in parameters:
        for piece in _parameter(attribute, text):
            if len(line) + len(piece) + 3 > WIDTH:
                lines.append(line + ";")
                line = " " + piece
            else:
                line = f"{line}; {piece}"
    return "\r\n".join([*lines, line])


def clock_date(seconds: float) -> str:
    """Return a moment, in seconds of the epoch, as a Date in the local zone, RFC 5322 section 3.3."""
    t = time.localtime(seconds)
    return _date(t.tm_wday, t.tm_mday, t.tm_mon, t.tm_year, t.tm_hour, t.tm_min, t.tm_sec, t.tm_gmtoff // 60)


def date_text(when: datetime) -> str:
    """Return a moment as a Date, RFC 5322 section 3.3; one without a zone is UTC in an unknown zone, `-0000`.

    Raises:
        InvalidArgument: a year before 1900.
    """
    offset = when.utcoffset()
    minutes = None
    if offset is not None:
        minutes = offset // timedelta(minutes=1)
        if offset % timedelta(minutes=1):  # zones before 1972 count seconds, the field does not
            when = when.astimezone(timezone(timedelta(minutes=minutes)))
    if when.year < 1900:
        raise InvalidArgument(f"a Date begins in 1900, not in {when.year} (RFC 5322 section 3.3)")
    return _date(
        when.weekday(), when.day, when.month, when.year, when.hour, when.minute, when.second, minutes
    )


def message_id_text(text: str) -> str:
    """Return the value of a Message-ID or Content-ID field; angle brackets are added.

    Raises:
        InvalidHeader: blanks, controls, inner angle brackets, or not ASCII (RFC 5322 section 3.6.4).
    """
    check_value("a message id", text)
    inner = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    if _MESSAGE_ID.fullmatch(inner) is None or len(inner) > MAX_WORD:
        raise InvalidHeader(f"“{printable(text, 80)}” is not a message id")
    return f"<{inner}>"


def _date(
    weekday: int, day: int, month: int, year: int, hour: int, minute: int, second: int, zone: int | None
) -> str:
    sign = "-" if zone is None or zone < 0 else "+"
    hours, minutes = divmod(abs(zone or 0), 60)
    return (
        f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} "
        f"{hour:02}:{minute:02}:{min(second, 59):02} {sign}{hours:02}{minutes:02}"
    )


def _folded(name: str, words: list[str]) -> str:
    """Fold an ASCII value, given as words that each bring the blanks before them."""
    lines = []
    line = f"{name}: {words[0]}"
    for word in words[1:]:
        if len(line) + len(word) > WIDTH:
            lines.append(line)
            line = word
        else:
            line += word
    return "\r\n".join([*lines, line])


def _encoded_words(text: str, room: int) -> list[str]:
    """Return `text` in encoded words, RFC 2047, each of whole code points.

    Args:
        text: any text without lone surrogates.
        room: columns for the first word; the others stand on lines of their own.
    """
    data = text.encode()
    q_text = "".join(map(_Q.__getitem__, data))
    if len(q_text) <= (len(data) + 2) // 3 * 4:
        if _FRAME + len(q_text) <= room:
            return [_Q_OPEN + q_text + _CLOSE]
        pieces = ("".join(map(_Q.__getitem__, char.encode())) for char in text)
        return [_Q_OPEN + run + _CLOSE for run in _runs(pieces, room - _FRAME, MAX_ENCODED_WORD - _FRAME)]
    words = []
    start, octets = 0, (room - _FRAME) // 4 * 3
    while start < len(data):
        end = min(start + octets, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # in the middle of a code point
            end -= 1
        words.append(_B_OPEN + binascii.b2a_base64(data[start:end], newline=False).decode() + _CLOSE)
        start, octets = end, (MAX_ENCODED_WORD - _FRAME) // 4 * 3
    return words


def _runs(pieces: Iterable[str], first: int, others: int) -> list[str]:
    """Join pieces to runs of at most `first` characters, then `others`."""
    runs: list[str] = []
    run, length, limit = [""], 0, first
    for piece in pieces:
        if length + len(piece) > limit:
            runs.append("".join(run))
            run, length, limit = [], 0, others
        run.append(piece)
        length += len(piece)
    return [*runs, "".join(run)]


def _mailbox(address: Address, *, utf8: bool) -> str:
    """Return a mailbox, RFC 5322 section 3.4, with a fold only inside a very long display name."""
    if address.needs_utf8 and not utf8:
        raise ExtensionMissing(
            f"the header names {printable(address.addr_spec, 80)}, which needs SMTPUTF8 (RFC 6531)"
        )
    spec = address.wire(utf8=utf8).decode()
    name = address.name
    if not name:
        return spec
    if name.isascii() and len(name) + len(spec) < ENCODED_WIDTH - 6 and "=?" not in name:
        if _ATOMS.fullmatch(name):
            return f"{name} <{spec}>"
        return '"' + _SPECIAL.sub(r"\\\1", name) + f'" <{spec}>'
    words = _encoded_words(name, MAX_ENCODED_WORD)
    # One column for the blank before, two for the brackets, one for the comma behind.
    fold = " " if len(words[-1]) + len(spec) + 5 <= ENCODED_WIDTH else "\r\n "
    return "\r\n ".join(words) + f"{fold}<{spec}>"


def _parameter(attribute: str, text: str) -> list[str]:
    """Return one parameter, in several pieces if it is long (RFC 2231 section 3)."""
    if _TOKEN.fullmatch(attribute) is None:
        raise InvalidHeader(f"“{printable(attribute, 80)}” is not the name of a parameter")
    check_value(attribute, text)
    room = WIDTH - 2 - len(attribute) - 1
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
