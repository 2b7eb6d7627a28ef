"""What a spool knows about a job: values only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, Self

from ..errors import InvalidArgument, UsageError
from ..model.envelope import Envelope, Recipient
from ..model.receipt import Outcome, Receipt, Verdict
from ..model.reply import printable

__all__ = [
    "Entry",
    "Recovery",
    "Result",
    "SpoolStatistics",
    "State",
    "Unreadable",
    "again",
    "check_about",
    "flagged_after",
    "requeued",
    "results_after",
]

#: Characters of a server's text that are kept with a result, and of a reason.
MAX_TEXT = 512
#: Seconds by which clocks may differ: those of systems that share a store, of a file system and a process.
CLOCK_STEP = 2.0
#: A job with which this many workers have died is given up.
POISON = 3


class State(Enum):
    """Where a job is; the value is the suffix of its file."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"


class Result(NamedTuple):
    """What became of one recipient in the last attempt that told.

    Attributes:
        outcome: never PARTIAL.
        final: the recipient is not tried again.
        at: when it was noted.
        code: of the reply that decided, if one did.
        enhanced: its enhanced status code, `"5.1.1"`.
        text: its text, 512 characters at most.
        queue_id: the server's name for the message, if it was accepted and the reply tells.
    """

    outcome: Outcome
    final: bool
    at: float
    code: int | None = None
    enhanced: str | None = None
    text: str = ""
    queue_id: str | None = None

    @classmethod
    def of(cls, verdict: Verdict, *, final: bool, at: float) -> Self:
        """Keep what a verdict says."""
        reply = verdict.reply
        if reply is None:
            return cls(verdict.outcome, final, at)
        enhanced = reply.enhanced
        return cls(
            verdict.outcome,
            final,
            at,
            reply.code,
            None if enhanced is None else str(enhanced),
            printable(reply.text.replace("\n", " "), MAX_TEXT),
            verdict.queue_id,
        )


@dataclass(slots=True, kw_only=True)
class Entry:
    """What a spool knows about a job.

    Attributes:
        id: its name, made by the spool: letters, digits, `.`, `_` and `-`.
        key: the digest of the caller's idempotency key, if one was given.
        state: where it is.
        envelope: as it was put, with all recipients.
        created: when it was put.
        not_before: when it is due.
        expires: after which trying on makes no sense; None leaves that to the processor.
        attempts: how often it was tried since it was put or requeued; an attempt that died counts.
        recoveries: how often a worker died with it.
        held: nobody may claim it.
        size: octets of the message.
        needs_utf8: only a server with SMTPUTF8 can take it (RFC 6531).
        results: for each recipient of the envelope, the last result, None before the first.
        flagged: it may have been delivered to recipients that are pending, by an earlier try: a worker died with it
            behind its end of data, or the server did not answer that. It stays so whatever later tries are told.
        confirmed: an operator has requeued it since, so it is to be tried all the same.
        reason: why it was deferred or failed last, empty if it never was.
        message_id: the value of its Message-ID field, if known.
        reckoned: the moment from which `not_before` was reckoned, 0 if the caller or an operator named that itself.
    """

    id: str
    envelope: Envelope
    created: float
    size: int
    key: str | None = None
    state: State = State.QUEUED
    not_before: float = 0.0
    expires: float | None = None
    attempts: int = 0
    recoveries: int = 0
    held: bool = False
    needs_utf8: bool = False
    results: tuple[Result | None, ...] = ()
    flagged: bool = False
    confirmed: bool = False
    reason: str = ""
    message_id: str | None = None
    reckoned: float = 0.0

    def __post_init__(self) -> None:
        if not self.results:
            self.results = (None,) * len(self.envelope.recipients)

    @property
    def pending(self) -> tuple[Recipient, ...]:
        """Who has neither got the message nor been given up."""
        pairs = zip(self.envelope.recipients, self.results, strict=True)
        return tuple([recipient for recipient, result in pairs if result is None or not result.final])

    def due(self, clock: float) -> float:
        """Return when it is due, with the wall clock at `clock`.

        A wait that was reckoned from a moment in the future is over: the clock was ahead then, and was set back since.
        """
        ahead = self.reckoned > clock + CLOCK_STEP
        return min(self.not_before, clock - CLOCK_STEP) if ahead else self.not_before

    @property
    def failed(self) -> tuple[tuple[Recipient, Result], ...]:
        """Who was given up, and why."""
        pairs = zip(self.envelope.recipients, self.results, strict=True)
        return tuple(
            [
                (recipient, result)
                for recipient, result in pairs
                if result is not None and result.final and result.outcome is not Outcome.ACCEPTED
            ]
        )


class SpoolStatistics(NamedTuple):
    """How much is in a spool.

    Attributes:
        queued, sending, sent, failed: jobs in each state; those held are among the queued.
        held: queued jobs that nobody may claim.
        quarantined: files that could not be read as jobs and were put aside.
        oldest: when the oldest queued or sending job was put, None if there is none.
        next_due: when the next queued job falls due, None if there is none.
    """

    queued: int = 0
    sending: int = 0
    sent: int = 0
    failed: int = 0
    held: int = 0
    quarantined: int = 0
    oldest: float | None = None
    next_due: float | None = None


class Recovery(NamedTuple):
    """What `recover` found.

    Attributes:
        requeued: ids of jobs whose worker had died, queued again; those flagged are among them.
        flagged: ids of those that may have been delivered.
        poisoned: ids of jobs that failed because their workers died too often.
    """

    requeued: tuple[str, ...] = ()
    flagged: tuple[str, ...] = ()
    poisoned: tuple[str, ...] = ()


class Unreadable(NamedTuple):
    """What is in a spool and cannot be read as a job.

    Attributes:
        id: its name.
        reason: what is wrong with it, in words.
        kept: it was left where it is, because a later version of this library wrote it; else it was put aside.
    """

    id: str
    reason: str
    kept: bool


def again(verdict: Verdict) -> bool:
    """Tell whether a recipient should be tried again: temporary, or nobody knows."""
    return verdict.temporary or verdict.outcome is Outcome.UNKNOWN


def results_after(
    entry: Entry, receipt: Receipt | None, retry: Callable[[Verdict], bool] | None, at: float
) -> tuple[Result | None, ...]:
    """Return the results of `entry` after an attempt for its pending recipients.

    Raises:
        InvalidArgument: the receipt is not about them.
    """
    check_about(entry, receipt)
    if receipt is None:
        return entry.results
    retry = again if retry is None else retry
    results = [*entry.results]
    places = [place for place, result in enumerate(results) if result is None or not result.final]
    for place, verdict in zip(places, receipt.verdicts, strict=True):
        final = verdict.accepted or not retry(verdict)
        results[place] = Result.of(verdict, final=final, at=at)
    return tuple(results)


def check_about(entry: Entry, receipt: Receipt | None) -> None:
    """Refuse a receipt that is not about the pending recipients of `entry`.

    Raises:
        InvalidArgument: it tells of more or fewer.
    """
    pending = [result for result in entry.results if result is None or not result.final]
    if receipt is not None and len(receipt.verdicts) != len(pending):
        raise InvalidArgument(
            f"the receipt tells of {len(receipt.verdicts)} recipients, and {len(pending)} are pending"
        )


def flagged_after(entry: Entry, results: Iterable[Result | None]) -> bool:
    """Tell whether a job is flagged when a try has ended with `results`, whose `entry` is as the try found it.

    What may have been delivered once may have been delivered, whatever the server says to a later try.
    """
    return entry.flagged or any(
        one is not None and one.outcome is Outcome.UNKNOWN and not one.final for one in results
    )


def requeued(entry: Entry, not_before: float, expires: float | None, at: float) -> Entry:
    """Return `entry` as it is after `requeue`: whoever has not got the message is tried again, counted anew.

    A flag stays: what nobody knows is not known better because somebody wants it tried again.

    Args:
        entry: the job before.
        not_before: when it is to be due.
        expires: when it expires, None if that is left to the processor.
        at: what time it is.

    Raises:
        UsageError: everybody has got it.
    """
    unknown = any(result is not None and result.outcome is Outcome.UNKNOWN for result in entry.results)
    results = tuple(
        [
            result if result is None or result.outcome is Outcome.ACCEPTED else result._replace(final=False)
            for result in entry.results
        ]
    )
    entry = replace(
        entry,
        state=State.QUEUED,
        not_before=not_before,
        expires=expires,
        attempts=0,
        recoveries=0,
        held=False,
        results=results,
        flagged=entry.flagged or unknown,
        confirmed=True,
        reckoned=at if not_before == at else 0.0,
    )
    if not entry.pending:
        raise UsageError(f"everybody has got the message of the job {entry.id}")
    return entry
