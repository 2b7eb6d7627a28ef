"""Lists and describes the jobs of a spool for the page.

A spool lists its jobs in no particular order, and reading them takes a while. So they are read as a whole now and then,
sorted, and kept as short rows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ...model.reply import printable
from ...spool.contract import Spool
from ...spool.entry import Entry, Result, State

__all__ = ["JobList", "Row", "describe", "state_of"]

#: The most jobs that are listed.
MOST_JOBS: Final = 100_000
#: Seconds between two readings at least, and how many times as long as a reading.
INTERVAL: Final = 1.0
PATIENCE: Final = 10
_MOST_RECIPIENTS: Final = 3


def state_of(entry: Entry) -> str:
    """Return the state in one word; a queued job that may not be claimed is `held`."""
    return "held" if entry.held and entry.state is State.QUEUED else entry.state.value


class Row(NamedTuple):
    """A job, as the list shows it.

    Attributes:
        created: when it was put.
        id: its name.
        state: its state, `held` included.
        sender: `<>` for the null sender.
        recipients: the first few, and how many more there are.
        reason: why it was deferred or failed.
        reply: the last reply of a server.
        due, attempts, size: as in `Entry`.
    """

    created: float
    id: str
    state: str
    sender: str
    recipients: str
    reason: str
    reply: str
    due: float
    attempts: int
    size: int

    @classmethod
    def of(cls, entry: Entry) -> Row:
        """Return the row of an entry."""
        people = entry.envelope.recipients
        names = ", ".join(printable(str(one.address), 100) for one in people[:_MOST_RECIPIENTS])
        if len(people) > _MOST_RECIPIENTS:
            names += f" and {len(people) - _MOST_RECIPIENTS} more"
        return cls(
            entry.created,
            entry.id,
            state_of(entry),
            _sender(entry),
            names,
            printable(entry.reason, 300),
            _last_reply(entry),
            entry.not_before,
            entry.attempts,
            entry.size,
        )

    def holds(self, word: str) -> bool:
        """Return whether a word, in lower case, is found in the row."""
        return any(
            word in text.lower() for text in (self.id, self.sender, self.recipients, self.reason, self.reply)
        )


class JobList:
    """The jobs of a spool, sorted by age.

    Args:
        spool: the spool.
        monotonic: returns seconds of a clock that is never set.
        most: how many jobs are listed.

    Attributes:
        complete: there were no more jobs than are listed.
        renewed_in: seconds until the spool is read again; 0 if it was read for the last answer.
    """

    def __init__(
        self, spool: Spool, *, monotonic: Callable[[], float] = time.monotonic, most: int = MOST_JOBS
    ) -> None:
        self._spool = spool
        self._monotonic = monotonic
        self._most = most
        self._lock = asyncio.Lock()
        self._rows: list[Row] = []
        self._next_reading = 0.0
        self.complete = True
        self.renewed_in = 0.0

    async def find(self, *, state: str, words: str, oldest_first: bool) -> list[Row]:
        """Return the jobs in a state (all if it is empty) in which all words are found.

        Raises:
            SpoolError: the spool cannot be read.
        """
        async with self._lock:
            self.renewed_in = max(0.0, self._next_reading - self._monotonic())
            if not self.renewed_in:
                await self._read()
        wanted = words.lower().split()
        found = [
            row
            for row in self._rows
            if (not state or row.state == state) and all(row.holds(word) for word in wanted)
        ]
        return found if oldest_first else found[::-1]

    def refresh(self) -> None:
        """Read the spool again for the next request, because a job was changed."""
        self._next_reading = 0.0

    async def _read(self) -> None:
        began = self._monotonic()
        rows: dict[str, Row] = {}
        self.complete = True
        async for entry in self._spool.list():
            if len(rows) == self._most:
                self.complete = False
                break
            rows[entry.id] = Row.of(entry)
        self._rows = sorted(rows.values())
        now = self._monotonic()
        self._next_reading = max(began + INTERVAL, now + PATIENCE * (now - began))


def describe(entry: Entry) -> dict[str, Any]:
    """Return everything about a job but its message, for JSON."""
    pairs = zip(entry.envelope.recipients, entry.results, strict=True)
    return {
        "id": entry.id,
        "state": state_of(entry),
        "created": entry.created,
        "due": entry.not_before,
        "expires": entry.expires,
        "attempts": entry.attempts,
        "recoveries": entry.recoveries,
        "flagged": entry.flagged,
        "reason": printable(entry.reason),
        "size": entry.size,
        "needs_utf8": entry.needs_utf8,
        "message_id": printable(entry.message_id or ""),
        "sender": _sender(entry),
        "recipients": [
            {"address": printable(str(recipient.address), 400)} | _result(result)
            for recipient, result in pairs
        ],
    }


def _result(result: Result | None) -> dict[str, Any]:
    if result is None:
        return {"outcome": "pending", "final": False, "at": None, "reply": ""}
    return {
        "outcome": result.outcome.value,
        "final": result.final,
        "at": result.at,
        "reply": _reply(result),
        "queue_id": result.queue_id,
    }


def _reply(result: Result) -> str:
    return " ".join(str(part) for part in (result.code, printable(result.text)) if part)


def _last_reply(entry: Entry) -> str:
    found = [one for one in entry.results if one is not None and one.code is not None]
    return _reply(max(found, key=lambda one: one.at)) if found else ""


def _sender(entry: Entry) -> str:
    return printable(str(entry.envelope.sender or "<>"), 400)
