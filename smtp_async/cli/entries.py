"""Shows the jobs of a spool: as lines or JSON for programs, as tables on a terminal."""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import AsyncIterator
from itertools import count
from typing import Any, Final, NamedTuple

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..model.envelope import Recipient
from ..model.reply import printable
from ..spool.entry import Entry, LeaseHolder, Result, SpoolStatistics, State
from .output import Output
from .times import format_time

__all__ = ["Statistics", "in_order", "line_of", "show_all", "show_one", "show_statistics", "span", "state_of"]

#: The most jobs that are sorted at once, so that memory stays small.
MAX_SORTED: Final = 10_000
#: The most rows of a table on a terminal.
MAX_ROWS: Final = 1000
#: The most addresses in one row of a table.
_MAX_ADDRESSES: Final = 3
_STYLES: Final = {"queued": "cyan", "sending": "bold", "sent": "green", "failed": "red", "held": "yellow"}
_NOTHING: Final = "-"
_COUNTED: Final = ("queued", "held", "sending", "sent", "failed", "quarantined")


def state_of(entry: Entry) -> str:
    """Return the state in one word; a queued job that may not be claimed is `held`."""
    return "held" if entry.held and entry.state is State.QUEUED else entry.state.value


# --- lists ---------------------------------------------------------------------------------------------------


async def in_order(
    entries: AsyncIterator[Entry], *, limit: int | None = None, sorted_at_once: int = MAX_SORTED
) -> AsyncIterator[Entry]:
    """Iterate over the oldest `limit` jobs, or over all, the oldest first within each `sorted_at_once` jobs."""
    rows: list[tuple[float, str, int, Entry]] = []
    # Breaks ties, because a job that changes its state meanwhile may appear twice.
    number = count()
    async for entry in entries:
        row = (-entry.created, entry.id, next(number), entry)
        if limit is not None and len(rows) >= limit:
            # Drops the newest of the jobs kept.
            heapq.heappushpop(rows, row)
            continue
        if limit is None and len(rows) >= sorted_at_once:
            for one in _sorted(rows):
                yield one
            rows.clear()
        heapq.heappush(rows, row)
    for one in _sorted(rows):
        yield one


def _sorted(rows: list[tuple[float, str, int, Entry]]) -> list[Entry]:
    return [row[3] for row in sorted(rows, key=lambda row: (-row[0], row[1], row[2]))]


async def show_all(
    output: Output, entries: AsyncIterator[Entry], *, limit: int | None, as_json: bool
) -> None:
    """Show jobs, the oldest first.

    Args:
        output: where the result is shown.
        entries: the jobs.
        limit: how many at most; None for all, or a thousand on a terminal.
        as_json: print an object per job.
    """
    if output.is_terminal and not as_json:
        await _show_table(output, entries, limit or MAX_ROWS)
        return
    async for entry in in_order(entries, limit=limit):
        output.line(json.dumps(_object(entry)) if as_json else line_of(entry))


def line_of(entry: Entry) -> str:
    """Return id, state, attempts, created, due, octets, sender, recipients and reason, separated by tabs."""
    envelope = entry.envelope
    return "\t".join(
        [
            entry.id,
            state_of(entry),
            str(entry.attempts),
            format_time(entry.created),
            format_time(entry.not_before),
            str(entry.size),
            _sender(entry),
            ",".join([printable(str(one.address), 400) for one in envelope.recipients]),
            printable(entry.reason) or _NOTHING,
        ]
    )


async def _show_table(output: Output, entries: AsyncIterator[Entry], limit: int) -> None:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    # Ids are never cut, because they are arguments of other commands; so details stand below the id, not beside it.
    table.add_column("Job", overflow="fold")
    for heading in ("State", "Age", "Due in"):
        table.add_column(heading, justify="left" if heading == "State" else "right", no_wrap=True)
    now = time.time()
    async for entry in in_order(entries, limit=limit + 1):
        if table.row_count == limit:
            output.out.print(table)
            output.line(f"There are more; --limit {10 * limit} shows more.", "dim")
            return
        table.add_row(*_cells(entry, now))
    if table.row_count:
        output.out.print(table)
    else:
        output.line("No job.", "dim")


def _cells(entry: Entry, now: float) -> list[RenderableType]:
    state, people = state_of(entry), entry.envelope.recipients
    names = ", ".join([printable(str(one.address), 60) for one in people[:_MAX_ADDRESSES]])
    if len(people) > _MAX_ADDRESSES:
        names += f" and {len(people) - _MAX_ADDRESSES} more"
    tries = f", {entry.attempts} {'try' if entry.attempts == 1 else 'tries'}" if entry.attempts else ""
    details = Text(f"{_sender(entry)} → {names}, {size(entry.size)}{tries}", "dim")
    if entry.reason:
        details.append(f"\n{printable(entry.reason)}", "yellow")
    job = Group(Text(entry.id), Padding(details, (0, 0, 0, 2)))
    due = span(entry.not_before - now) if state == "queued" else ""
    return [job, Text(state, _STYLES[state]), Text(span(now - entry.created)), Text(due)]


def span(seconds: float) -> str:
    """Return a duration in its largest unit: `45s`, `12m`, `3h`, `8d`; `now` below a second."""
    if seconds < 1:
        return "now"
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"


def size(octets: int) -> str:
    """Return a number of octets in three digits or so: `812 B`, `1.5 MiB`."""
    if octets < 1024:
        return f"{octets} B"
    power = min(3, (octets.bit_length() - 1) // 10)
    return f"{octets / 1024**power:.1f} {'KMG'[power - 1]}iB"


# --- one job -------------------------------------------------------------------------------------------------


def show_one(output: Output, entry: Entry, *, as_json: bool) -> None:
    """Show what is known about a job, and the result of each recipient."""
    if as_json:
        output.line(json.dumps(_object(entry)))
        return
    facts = [(name, text) for name, text in _facts(entry) if text]
    people = list(zip(entry.envelope.recipients, entry.results, strict=True))
    if not output.is_terminal:
        for name, text in facts:
            output.line(f"{name}: {text}")
        for recipient, result in people:
            output.line("\t".join([*_result(recipient, result)]))
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    for name, text in facts:
        grid.add_row(name, Text(text))
    output.out.print(grid)
    output.line()
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("Outcome", "Recipient", "When", "The server said"):
        table.add_column(heading)
    for recipient, result in people:
        table.add_row(*[Text(cell) for cell in _result(recipient, result)])
    output.out.print(table)


def _facts(entry: Entry) -> list[tuple[str, str]]:
    tries = f"{entry.attempts}"
    if entry.recoveries:
        tries += f", {entry.recoveries} workers died"
    return [
        ("Job", entry.id),
        ("State", state_of(entry)),
        ("Why", printable(entry.reason)),
        ("Doubt", "it may have been delivered by an earlier attempt" if entry.flagged else ""),
        ("Created", format_time(entry.created)),
        ("Due", format_time(entry.not_before) if entry.state is State.QUEUED else ""),
        ("Expires", "" if entry.expires is None else format_time(entry.expires)),
        ("Tries", tries),
        ("Size", f"{entry.size} octets"),
        ("Needs", "a server with SMTPUTF8" if entry.needs_utf8 else ""),
        ("Message-ID", printable(entry.message_id or "")),
        ("Tag", entry.tag or ""),
        ("From", _sender(entry)),
    ]


def _result(recipient: Recipient, result: Result | None) -> list[str]:
    """Return outcome, address, time and reply."""
    address = printable(str(recipient.address), 400)
    if result is None:
        return ["pending", address, _NOTHING, _NOTHING]
    words = result.outcome.value if result.final else f"{result.outcome.value}, tried again"
    said = " ".join(str(part) for part in (result.code, printable(result.text)) if part)
    return [words, address, format_time(result.at), said or _NOTHING]


def _object(entry: Entry) -> dict[str, Any]:
    """Return an entry as a JSON object."""
    pairs = zip(entry.envelope.recipients, entry.results, strict=True)
    return {
        "id": entry.id,
        "state": entry.state.value,
        "held": entry.held,
        "created": format_time(entry.created),
        "not_before": format_time(entry.not_before),
        "expires": None if entry.expires is None else format_time(entry.expires),
        "attempts": entry.attempts,
        "recoveries": entry.recoveries,
        "flagged": entry.flagged,
        "confirmed": entry.confirmed,
        "reason": entry.reason,
        "size": entry.size,
        "needs_utf8": entry.needs_utf8,
        "message_id": entry.message_id,
        "key": entry.key,
        "tag": entry.tag,
        "sender": None if entry.envelope.sender is None else str(entry.envelope.sender),
        "recipients": [_recipient(recipient, result) for recipient, result in pairs],
    }


def _recipient(recipient: Recipient, result: Result | None) -> dict[str, Any]:
    known = {"address": str(recipient.address), "kind": recipient.kind.value}
    if result is None:
        return known | {"outcome": None}
    found = result._asdict() | {"outcome": result.outcome.value, "at": format_time(result.at)}
    return known | found


def _sender(entry: Entry) -> str:
    return printable(str(entry.envelope.sender or "<>"), 400)


# --- statistics ----------------------------------------------------------------------------------------------


class Statistics(NamedTuple):
    """What is known of a spool.

    Attributes:
        counts: the numbers of jobs.
        holders: who holds leases.
        before: the numbers some time before, None if they are not known.
        seconds: how long before.
    """

    counts: SpoolStatistics
    holders: tuple[LeaseHolder, ...] = ()
    before: SpoolStatistics | None = None
    seconds: float = 0.0

    @property
    def rates(self) -> dict[str, float]:
        """By how many jobs per second each number changes; empty if that is not known."""
        if self.before is None or self.seconds <= 0:
            return {}
        pairs = [(name, getattr(self.counts, name), getattr(self.before, name)) for name in _COUNTED]
        return {name: round((now - before) / self.seconds, 3) for name, now, before in pairs}

    @property
    def empty_in(self) -> float | None:
        """Seconds until the queue is empty at this pace; None if it does not shrink."""
        rate = self.rates.get("queued", 0.0)
        return self.counts.queued / -rate if rate < 0 else None


def show_statistics(output: Output, found: Statistics, *, as_json: bool) -> None:
    """Show the numbers of jobs by state, their changes, and who holds leases."""
    counts, rates = found.counts, found.rates
    numbers = counts._asdict()
    for name in ("oldest", "next_due"):
        numbers[name] = None if numbers[name] is None else format_time(numbers[name])
    if as_json:
        more: dict[str, Any] = {"holders": [holder._asdict() for holder in found.holders]}
        if rates:
            more |= {"rates": rates, "empty_in": found.empty_in}
        output.line(json.dumps(numbers | more))
        return
    if not output.is_terminal:
        for name, number in numbers.items():
            output.line(f"{name}\t{_NOTHING if number is None else number}")
        for name, rate in rates.items():
            output.line(f"{name}/s\t{rate}")
        for holder in found.holders:
            left = _NOTHING if holder.left is None else f"{holder.left:.0f}"
            output.line(f"holder\t{printable(holder.name)}\t{holder.leases}\t{left}")
        return
    now = time.time()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(justify="right")
    grid.add_column(justify="right", style="dim")
    for name in _COUNTED:
        number = numbers[name]
        change = f"{rates[name]:+,.1f}/s" if rates.get(name) else ""
        grid.add_row(
            name.capitalize(), Text(f"{number:,}", _STYLES.get(name, "") if number else "dim"), change
        )
    if counts.oldest is not None:
        grid.add_row("Oldest", span(now - counts.oldest))
    if counts.next_due is not None:
        grid.add_row("Next due", span(counts.next_due - now))
    if found.empty_in is not None:
        grid.add_row("Empty in", span(found.empty_in))
    output.out.print(grid)
    for holder in found.holders:
        output.line(_holder(holder))


def _holder(holder: LeaseHolder) -> str:
    text = f"{printable(holder.name)} holds {holder.leases:,} {'lease' if holder.leases == 1 else 'leases'}"
    if holder.left is None:
        return text
    return f"{text}, the first for {span(holder.left)}" if holder.left > 0 else f"{text}, one is over"
