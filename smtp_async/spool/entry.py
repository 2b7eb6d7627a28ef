"""The values that describe a job in a spool, and the rules by which an attempt changes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, Self

from ..errors import InvalidArgument, UsageError
from ..model.envelope import Envelope, Recipient
from ..model.receipt import Outcome, Receipt, Verdict
from ..model.reply import printable

__all__ = [
    "Entry",
    "LeaseHolder",
    "Recovery",
    "Result",
    "SpoolStatistics",
    "State",
    "Unreadable",
    "check_receipt",
    "flagged_after",
    "requeued",
    "results_after",
    "should_retry",
]

#: Maximum number of characters stored of a reply's text, and of a reason.
MAX_TEXT = 512
#: Tolerated difference between clocks, in seconds: between hosts that share a store, or a file system and a process.
CLOCK_STEP = 2.0
#: Number of workers that may die with a job before the job fails.
POISON = 3


class State(Enum):
    """The state of a job; the value is the suffix of its file name."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"


class Result(NamedTuple):
    """The latest result for one recipient.

    Attributes:
        outcome: any outcome but PARTIAL.
        final: the recipient is not tried again.
        at: when the result was recorded.
        code: the code of the decisive reply, None without a reply.
        enhanced: the enhanced status code of that reply, such as `"5.1.1"`.
        text: the text of that reply, 512 characters at most.
        queue_id: the server's id for the message, if it was accepted and the reply names the id.
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
        """Return the result for a verdict."""
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
    """The description of a job in a spool.

    Attributes:
        id: the id that the spool assigned: letters, digits, `.`, `_` and `-`.
        key: the digest of the caller's idempotency key, if one was given.
        state: the current state.
        envelope: the envelope as it was put, with all recipients.
        created: when the message was put.
        not_before: when the job is due.
        expires: the time after which sending is not tried again; None leaves the decision to the processor.
        attempts: number of attempts since the job was put or requeued, including those whose worker died.
        recoveries: number of workers that died with the job.
        held: an operator keeps the job from being claimed.
        size: size of the message in octets.
        needs_utf8: only a server with SMTPUTF8 can accept the message (RFC 6531).
        results: the latest result for each recipient of the envelope, None before the first.
        flagged: an earlier attempt may have delivered the message to pending recipients, because its worker died
            after end of data or the server did not reply to end of data. Later attempts do not clear the flag.
        confirmed: an operator has requeued the job since it was flagged, so it is tried in spite of the flag.
        reason: why the job was last deferred or failed; empty if it never was.
        message_id: the value of the Message-ID field, if known.
        scheduled_at: when `not_before` was computed; 0 if the caller or an operator specified `not_before`.
        trace: the span that put the message (`traceparent`, W3C Trace Context), if telemetry was on.
        tag: the word that was given to `put`, by which a processor may choose the route.
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
    scheduled_at: float = 0.0
    trace: str | None = None
    tag: str | None = None

    def __post_init__(self) -> None:
        if not self.results:
            self.results = (None,) * len(self.envelope.recipients)

    @property
    def pending(self) -> tuple[Recipient, ...]:
        """The recipients without a final result."""
        pairs = zip(self.envelope.recipients, self.results, strict=True)
        return tuple([recipient for recipient, result in pairs if result is None or not result.final])

    @property
    def failed(self) -> tuple[tuple[Recipient, Result], ...]:
        """The recipients that were not accepted and are not tried again, with their results."""
        pairs = zip(self.envelope.recipients, self.results, strict=True)
        return tuple(
            [
                (recipient, result)
                for recipient, result in pairs
                if result is not None and result.final and result.outcome is not Outcome.ACCEPTED
            ]
        )

    def due(self, clock: float) -> float:
        """Return when the job is due, given the current time `clock`.

        A job whose `not_before` was computed in the future is due at once, because the clock was ahead then and has
        been set back since.
        """
        ahead = self.scheduled_at > clock + CLOCK_STEP
        return min(self.not_before, clock - CLOCK_STEP) if ahead else self.not_before


class SpoolStatistics(NamedTuple):
    """The numbers of jobs in a spool.

    Attributes:
        queued, sending, sent, failed: number of jobs in each state; held jobs count as queued.
        held: number of queued jobs that an operator holds.
        quarantined: number of files that were moved to quarantine because they are not valid jobs.
        oldest: when the oldest queued or sending job was put, None if there is none.
        next_due: when the next queued job is due, None if there is none.
    """

    queued: int = 0
    sending: int = 0
    sent: int = 0
    failed: int = 0
    held: int = 0
    quarantined: int = 0
    oldest: float | None = None
    next_due: float | None = None


class LeaseHolder(NamedTuple):
    """A process that holds leases, or one spool object of it.

    Attributes:
        name: the host and the process, and what else the spool distinguishes: `"host:pid:…"`.
        leases: the number of its leases.
        left: seconds until the first of them ends unless it is extended, negative if it is to be recovered; None if
            they last as long as the process lives.
    """

    name: str
    leases: int
    left: float | None = None


class Recovery(NamedTuple):
    """The result of `recover`.

    Attributes:
        requeued: ids of the jobs that were queued again after their worker had died, including the flagged ones.
        flagged: ids of those that may have been delivered.
        poisoned: ids of the jobs that failed because too many workers died with them.
    """

    requeued: tuple[str, ...] = ()
    flagged: tuple[str, ...] = ()
    poisoned: tuple[str, ...] = ()


class Unreadable(NamedTuple):
    """An item in a spool that cannot be read as a job.

    Attributes:
        id: the id.
        reason: why the item cannot be read.
        kept: the item was not moved, because a later version of this library wrote it; otherwise it was moved to
            quarantine.
    """

    id: str
    reason: str
    kept: bool


def should_retry(verdict: Verdict) -> bool:
    """Return True if a recipient is to be tried again by default: the failure is temporary or the outcome unknown."""
    return verdict.temporary or verdict.outcome is Outcome.UNKNOWN


def results_after(
    entry: Entry,
    receipt: Receipt | None,
    retry: Callable[[Verdict], bool] | None,
    at: float,
    places: Sequence[int] | None = None,
) -> tuple[Result | None, ...]:
    """Return the results of `entry` after an attempt for its pending recipients.

    Args:
        entry: the job before the attempt.
        receipt: the outcome, None if the attempt yielded none.
        retry: returns whether the recipient of a verdict is tried again; `should_retry` by default.
        at: the current time.
        places: the places in the envelope of the recipients that were tried; all pending ones by default.

    Raises:
        InvalidArgument: the receipt does not match these recipients.
    """
    tried = check_receipt(entry, receipt, places)
    if receipt is None:
        return entry.results
    retry = should_retry if retry is None else retry
    results = [*entry.results]
    for place, verdict in zip(tried, receipt.verdicts, strict=True):
        final = verdict.accepted or not retry(verdict)
        results[place] = Result.of(verdict, final=final, at=at)
    return tuple(results)


def check_receipt(
    entry: Entry, receipt: Receipt | None, places: Sequence[int] | None = None
) -> Sequence[int]:
    """Check that a receipt matches the recipients of `entry` that were tried, and return their places.

    Args:
        entry: the job before the attempt.
        receipt: the receipt; None matches.
        places: the places in the envelope of the recipients that were tried; all pending ones by default.

    Raises:
        InvalidArgument: the receipt has more or fewer verdicts than recipients were tried, or one of `places` is not
            that of a pending recipient.
    """
    pending = [place for place, result in enumerate(entry.results) if result is None or not result.final]
    if places is not None and not set(places) <= set(pending):
        raise InvalidArgument("the receipt is about recipients that are not pending")
    tried = pending if places is None else places
    if receipt is not None and len(receipt.verdicts) != len(tried):
        raise InvalidArgument(
            f"the receipt has {len(receipt.verdicts)} verdicts, but {len(tried)} recipients are pending"
        )
    return tried


def flagged_after(entry: Entry, results: Iterable[Result | None]) -> bool:
    """Return whether a job is flagged after an attempt that ended with `results`.

    A flag is never cleared, because no later reply of a server shows whether an earlier copy was delivered.

    Args:
        entry: the job before the attempt.
        results: the results after the attempt.
    """
    return entry.flagged or any(
        result is not None and result.outcome is Outcome.UNKNOWN and not result.final for result in results
    )


def requeued(entry: Entry, not_before: float, expires: float | None, at: float) -> Entry:
    """Return `entry` after `requeue`: recipients that were not accepted are pending again, attempts start at 0.

    The job stays flagged, because requeueing does not show whether an earlier copy was delivered.

    Args:
        entry: the job before.
        not_before: when the job is to be due.
        expires: when the job expires, None if the processor decides.
        at: the current time.

    Raises:
        UsageError: every recipient was accepted.
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
        scheduled_at=at if not_before == at else 0.0,
    )
    if not entry.pending:
        raise UsageError(f"every recipient of the job {entry.id} was accepted")
    return entry
