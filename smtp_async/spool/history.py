"""The first record in the journal of a job that comes from another spool."""

from __future__ import annotations

from .entry import Entry
from .fields import result_values
from .record import journal_record

__all__ = ["history_record"]


def history_record(entry: Entry) -> bytes:
    """Return the record of what became of a job in the spool that it comes from."""
    return journal_record(
        r="moved",
        attempts=entry.attempts,
        recoveries=entry.recoveries,
        held=entry.held,
        flagged=entry.flagged,
        confirmed=entry.confirmed,
        reason=entry.reason,
        scheduled_at=entry.scheduled_at,
        results={
            str(place): result_values(result)
            for place, result in enumerate(entry.results)
            if result is not None
        },
    )
