"""How long it takes to build and render a message: against `EmailMessage` and `as_bytes(policy=SMTP)`.

Both build a new message each time, with Date, Message-ID and a subject that is not ASCII; subject and recipient are
never those of another message, the sender always is.
"""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime, make_msgid
from statistics import median
from typing import NamedTuple

from benchmarks.race import Answer, Goal, Table, shown
from smtp_async import Message

_SENDER = "Ann Smith <ann@example.com>"
_TEXT = "Hello Bob,\n\nyour order 4711 has left our house and will be with you tomorrow.\n\nAnn\n"
_HTML = f"<html><body><p>{_TEXT.replace(chr(10) * 2, '</p><p>')}</p></body></html>\n"
_WIDE = (
    "Guten Tag,\n\nIhre Bestellung ist unterwegs und wird morgen zugestellt.\n\nMit freundlichen Grüßen\n" * 5
)
_WIDE_HTML = f"<html><body><p>{_WIDE.replace(chr(10) * 2, '</p><p>')}</p></body></html>\n"
_FILE = random.Random(1).randbytes(1_000_000)

#: What makes every message another one.
_numbers = itertools.count()

_OURS, _RIVAL = "smtp_async Message", "EmailMessage"


class Case(NamedTuple):
    """A question.

    Attributes:
        title: of its table.
        text, html, data: what the message holds.
        ours, rival: how many messages a round has.
        bound: how many times as fast we want to be; None where that is not said.
    """

    title: str
    text: str
    html: str | None
    data: bytes | None
    ours: int
    rival: int
    bound: float | None


_CASES = (
    Case("Text and HTML", _TEXT, _HTML, None, 2000, 100, 20.0),
    Case("Text and HTML, longer and not ASCII", _WIDE, _WIDE_HTML, None, 2000, 100, None),
    Case("Text and an attachment of 1 MB", _TEXT, None, _FILE, 20, 4, 8.0),
)


def run(*, quick: bool = False) -> Answer:
    """Render in turns."""
    tables: list[Table] = []
    goals: list[Goal] = []
    for case in _CASES:
        table, goal = _race(case, 7 if quick else 31)
        tables.append(table)
        goals += goal
    notes = ["One process, one thread; µs of one message from its arguments to its bytes."]
    return Answer(tables, goals, notes)


def _race(case: Case, rounds: int) -> tuple[Table, list[Goal]]:
    times: dict[str, list[float]] = {_OURS: [], _RIVAL: []}
    entries: list[tuple[str, Callable[[Case], bytes], int]] = [
        (_OURS, _ours, case.ours),
        (_RIVAL, _theirs, case.rival),
    ]
    for _, make, _ in entries:
        make(case)
    for _ in range(rounds):
        for name, make, count in entries:
            times[name].append(_timed(make, case, count))
    ratio = median([theirs / ours for ours, theirs in zip(times[_OURS], times[_RIVAL], strict=True)])
    ratios = {_OURS: ratio, _RIVAL: 1.0}
    rows = [
        (name, f"{median(found) * 1e6:.1f}", f"{len(make(case))}", shown(ratios[name], ".1f"))
        for (name, make, _), found in zip(entries, times.values(), strict=True)
    ]
    header = ("builder", "µs", "octets", "rate × EmailMessage")
    goals = [] if case.bound is None else [Goal(f"{case.title}: × EmailMessage", ratio, case.bound)]
    return Table(case.title, header, rows), goals


def _timed(make: Callable[[Case], bytes], case: Case, count: int) -> float:
    gc.collect()
    start = time.perf_counter()
    for _ in range(count):
        make(case)
    return (time.perf_counter() - start) / count


def _personal() -> tuple[str, str]:
    number = next(_numbers)
    return (
        f"Reader {number} <reader{number}@example.org>",
        f"Grüße aus Köln: Ihre Bestellung {number} ist unterwegs",
    )


def _ours(case: Case) -> bytes:
    to, subject = _personal()
    message = Message(sender=_SENDER, to=to, subject=subject, text=case.text, html=case.html)
    if case.data is not None:
        message.attach(case.data, filename="report.pdf")
    return message.as_bytes()


def _theirs(case: Case) -> bytes:
    message = EmailMessage()
    message["From"] = _SENDER
    message["To"], message["Subject"] = _personal()
    message["Date"] = format_datetime(localtime())
    # With a domain: without one it asks the resolver for the machine's name.
    message["Message-ID"] = make_msgid(domain="example.com")
    message.set_content(case.text)
    if case.html is not None:
        message.add_alternative(case.html, subtype="html")
    if case.data is not None:
        message.add_attachment(case.data, maintype="application", subtype="pdf", filename="report.pdf")
    return message.as_bytes(policy=SMTP)
