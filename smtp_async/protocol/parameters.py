"""Parameters of MAIL and RCPT: typed values → `KEYWORD=value`, one function per keyword.

Every value is a number, a word of a fixed list, or xtext, so no value can end its parameter or begin another one.
`commands` checks each parameter once more. Arguments are refused, never repaired.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ..errors import InvalidArgument
from ..model.address import Address
from ..model.dsn import Notify, Return

__all__ = [
    "auth",
    "by",
    "envid",
    "hold_for",
    "hold_until",
    "mt_priority",
    "notify",
    "orcpt",
    "ret",
    "size",
    "unitext",
    "xtext",
]

#: RFC 3461 sections 4.4 and 4.2, and RFC 4954 section 5: the most octets of a value.
MAX_ENVID = 100
MAX_ORCPT = 500
MAX_AUTH = 500
#: RFC 2852 section 4 and RFC 4865 section 3: nine digits.
MAX_SECONDS = 999_999_999

_NOT_XCHAR = re.compile(rb"[^!-*,-<>-~]")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_PRINTABLE = re.compile(r"[ -~]+")
_WHEN = {one: name.encode("ascii") for name, one in Notify.__members__.items()}
_TYPED = re.compile(r"([A-Za-z0-9-]+);([ -~]+)")


def xtext(data: bytes) -> bytes:
    """Encode any octets, RFC 3461 section 4: `+` and two capital hex digits for characters that are not plain."""
    return _NOT_XCHAR.sub(lambda match: b"+%02X" % match[0][0], data)


def unitext(text: str) -> bytes:
    r"""Encode any text in ASCII, RFC 6533 section 3 (utf-8-addr-xtext): `\x{…}` for characters that are not plain."""
    return _NOT_QCHAR.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text).encode("ascii")


def size(octets: int) -> bytes:
    """Declare the size of the message, RFC 1870 section 5."""
    if not isinstance(octets, int) or octets < 0:
        raise InvalidArgument(f"not a number of octets: {octets!r}")
    return b"SIZE=%d" % octets


def ret(how: Return) -> bytes:
    """Choose what a report returns of the message, RFC 3461 section 4.3."""
    if not isinstance(how, Return):
        raise InvalidArgument(f"ret is Return.FULL or Return.HDRS, not {how!r}")
    return b"RET=" + how.value.encode("ascii")


def envid(text: str) -> bytes:
    """Name the envelope, so that reports can be matched with it, RFC 3461 section 4.4."""
    if not isinstance(text, str) or _PRINTABLE.fullmatch(text) is None:
        raise InvalidArgument("envid is a text of printable ASCII characters")
    return _bounded(b"ENVID=", xtext(text.encode("ascii")), MAX_ENVID)


def notify(when: Notify) -> bytes:
    """Choose when to report, RFC 3461 section 4.1."""
    words = [word for one, word in _WHEN.items() if when & one]
    if not words or (when & Notify.NEVER and len(words) > 1):
        raise InvalidArgument("notify is NEVER, or some of SUCCESS, FAILURE and DELAY")
    return b"NOTIFY=" + b",".join(words)


def orcpt(original: str | Address) -> bytes:
    """Name the original recipient, RFC 3461 section 4.2; a mailbox beyond ASCII is written as in RFC 6533 section 3.

    Args:
        original: a mailbox, or `type;address`.
    """
    if isinstance(original, Address):
        mailbox = original.wire(utf8=True)
        if original.needs_utf8:
            value = b"utf-8;" + unitext(mailbox.decode())
        else:
            value = b"rfc822;" + xtext(mailbox)
    else:
        typed = _TYPED.fullmatch(original)
        if typed is None:
            raise InvalidArgument("orcpt is a mailbox, or a type, a semicolon and printable ASCII characters")
        value = typed[1].encode("ascii") + b";" + xtext(typed[2].encode("ascii"))
    return _bounded(b"ORCPT=", value, MAX_ORCPT)


def auth(submitter: Address | None) -> bytes:
    """Name the original submitter of the message, RFC 4954 section 5; None if unknown or not to be disclosed.

    Raises:
        InvalidAddress: its local part is not ASCII, and RFC 4954 has no form for that.
    """
    if submitter is None:
        return b"AUTH=<>"
    return _bounded(b"AUTH=", xtext(submitter.wire(utf8=False)), MAX_AUTH)


def by(seconds: float, *, notify: bool, trace: bool) -> bytes:
    """Set the time of delivery, RFC 2852 section 4.

    Args:
        seconds: from now; fractions are cut off.
        notify: when the time is over, report and keep trying, instead of returning the message.
        trace: have each relay that offers no DELIVERBY reported.
    """
    whole = _seconds("deliver_by", seconds, math.floor)
    if not notify and whole < 1:
        raise InvalidArgument("a message that is to be returned needs a second at least (RFC 2852 section 4)")
    return b"BY=%d;%b%b" % (whole, b"N" if notify else b"R", b"T" if trace else b"")


def hold_for(seconds: float) -> bytes:
    """Ask for release after `seconds`, RFC 4865 section 3; fractions are rounded up."""
    whole = _seconds("hold_for", seconds, math.ceil)
    if whole < 1:
        raise InvalidArgument(f"hold_for is a positive number of seconds, not {seconds}")
    return b"HOLDFOR=%d" % whole


def hold_until(moment: datetime) -> bytes:
    """Ask for release at a moment, RFC 4865 section 3; fractions of a second are rounded up."""
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InvalidArgument("hold_until is a datetime with a time zone")
    try:
        exact = moment.astimezone(UTC)
        whole = exact + timedelta(microseconds=-exact.microsecond % 1_000_000)
    except OverflowError as error:
        raise InvalidArgument("hold_until is out of range in UTC") from error
    return b"HOLDUNTIL=" + whole.isoformat(timespec="seconds").removesuffix("+00:00").encode("ascii") + b"Z"


def mt_priority(priority: int) -> bytes:
    """Set the priority, RFC 6710 section 4: -9 is the lowest, 9 the highest."""
    if isinstance(priority, bool) or not isinstance(priority, int) or not -9 <= priority <= 9:
        raise InvalidArgument(f"mt_priority is a whole number from -9 to 9, not {priority!r}")
    return b"MT-PRIORITY=%d" % priority


def _seconds(name: str, seconds: float, whole: Callable[[float], int]) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not abs(seconds) <= MAX_SECONDS:
        raise InvalidArgument(f"{name} is a number of seconds of at most nine digits, not {seconds!r}")
    return whole(seconds)


def _bounded(keyword: bytes, value: bytes, limit: int) -> bytes:
    if len(value) > limit:
        name = keyword[:-1].decode("ascii")
        raise InvalidArgument(f"{name} takes at most {limit} octets as encoded; these are {len(value)}")
    return keyword + value
