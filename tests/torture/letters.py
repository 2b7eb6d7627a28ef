"""The messages of the tests: body, recipients and their results follow from a number."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

SENDER = "torture@sender.test"

#: What the server does with a recipient: accept it, refuse it temporarily at first, or refuse it permanently.
TAKE, LATER, NEVER = "take", "later", "never"

_FATES: Sequence[Sequence[str]] = (
    (TAKE,),
    (TAKE,),
    (TAKE,),
    (TAKE,),
    (TAKE, LATER),
    (LATER,),
    (NEVER,),
    (TAKE, NEVER),
    (LATER, TAKE, NEVER),
    (TAKE, TAKE),
)
_ADDRESS = re.compile(r"n([0-9]+)\.([0-9])\.([a-z]+)@")


def fates(number: int) -> Sequence[str]:
    """Return what the server does with each recipient."""
    return _FATES[number % len(_FATES)]


def recipients(number: int) -> list[str]:
    """Return the addresses of the recipients."""
    return [f"n{number}.{place}.{fate}@torture.test" for place, fate in enumerate(fates(number))]


def read_address(address: str) -> tuple[int, int, str]:
    """Return number, place and fate of a recipient."""
    match = _ADDRESS.match(address)
    if match is None:
        raise ValueError(f"{address} is not an address of this test")
    return int(match[1]), int(match[2]), match[3]


def key(number: int, *, all_keyed: bool = False) -> str | None:
    """Return the idempotency key of a message, if it has one."""
    return f"key {number}" if all_keyed or number % 3 == 1 else None


def body(number: int) -> bytes:
    """Return the message. Every eleventh is too large to be kept in memory, and some lines begin with a dot."""
    lines = [
        b"%d: %s" % (number, hashlib.sha256(b"%d" % number).hexdigest().encode()),
        b".",
        b"..%d" % number,
    ]
    if number % 11 == 5:
        lines *= 900
    head = b"From: torture@sender.test\r\nSubject: %d\r\nMessage-ID: <%d@torture.test>\r\n\r\n" % (
        number,
        number,
    )
    return head + b"\r\n".join(lines) + b"\r\n"
