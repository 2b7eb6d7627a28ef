"""Personal messages for `bulk.py`, the same for all contestants. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

SENDER = "Ann Smith <ann@example.com>"


class Personal(NamedTuple):
    """What one reader gets."""

    to: str
    subject: str
    text: str
    html: str


def letters(count: int) -> Iterator[Personal]:
    """Make as many, each with a name and a number of its own."""
    for number in range(count):
        name = f"Reader {number}"
        yield Personal(
            f"{name} <reader{number}@lab.test>",
            f"Grüße an {name}",
            f"Hello {name},\n\nyour order {number} has left our house and will be with you tomorrow.\n\nAnn\n",
            f"<html><body><p>Hello {name},</p>\n<p>your order <b>{number}</b> has left our house and will be with "
            f"you tomorrow.</p>\n<p>Ann</p></body></html>\n",
        )
