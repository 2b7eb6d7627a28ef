"""What a queue processor has done: values only."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ProcessorStatistics", "QueueReport", "Unfinished"]


class Unfinished(NamedTuple):
    """A job that was not delivered to everybody.

    Attributes:
        id: its name in the spool.
        reason: why, in words.
        not_before: when it is tried again, in seconds of the epoch; None if it has failed.
    """

    id: str
    reason: str
    not_before: float | None = None


class QueueReport(NamedTuple):
    """What became of the jobs that were due.

    Attributes:
        sent: ids of those that everybody got.
        deferred: those that are tried again.
        failed: those that are not.
        error: what ended it before every job had its turn, None if nothing did; the others are queued as they were.
        unreadable: what is in the spool and cannot be read as a job: put aside, or written by a later version of this
            library.
    """

    sent: tuple[str, ...] = ()
    deferred: tuple[Unfinished, ...] = ()
    failed: tuple[Unfinished, ...] = ()
    error: Exception | None = None
    unreadable: tuple[Unfinished, ...] = ()

    @property
    def tried(self) -> int:
        """How many had their turn."""
        return len(self.sent) + len(self.deferred) + len(self.failed)

    def __bool__(self) -> bool:
        """Was everything sent that was due?"""
        return not (self.deferred or self.failed or self.error or self.unreadable)


class ProcessorStatistics(NamedTuple):
    """What a processor holds, and has done since it was made.

    Attributes:
        sending: jobs in work now.
        ahead: jobs that are claimed and wait for their turn.
        sent, deferred, failed: how often a try ended so.
        released: how often a job went back as it was.
        unknown: how often nobody knows whether a message arrived.
        paused_until: when the pause ends, in seconds of the epoch; None if mail flows.
        problem: why it pauses, empty if it does not.
    """

    sending: int = 0
    ahead: int = 0
    sent: int = 0
    deferred: int = 0
    failed: int = 0
    released: int = 0
    unknown: int = 0
    paused_until: float | None = None
    problem: str = ""
