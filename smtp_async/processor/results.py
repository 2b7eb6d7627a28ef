"""Values that say how jobs end: fates, results of recipients and of jobs, the report of a run, statistics."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from ..errors import SMTPError
from ..model.envelope import Recipient
from ..model.reply import Reply

__all__ = [
    "EXPIRED",
    "UNKNOWN",
    "Fate",
    "JobResult",
    "ProcessorStatistics",
    "QueueReport",
    "RecipientResult",
    "Unfinished",
]

#: The reason of a recipient that may have the message already and is not tried again.
UNKNOWN: Final = "unknown"
#: The reason of a recipient whose message has expired.
EXPIRED: Final = "it could not be delivered in time"


class Fate(Enum):
    """What becomes of a recipient, or of a job, after an attempt."""

    #: The recipient has the message; every recipient of the job has it.
    DELIVERED = "delivered"
    #: A later attempt follows.
    DEFERRED = "deferred"
    #: No attempt follows; at least one recipient of the job never gets the message.
    FAILED = "failed"
    #: Of jobs only: nothing was tried, so the job is queued as it was.
    RELEASED = "released"


class RecipientResult(NamedTuple):
    """What becomes of one recipient after an attempt.

    Attributes:
        recipient: the recipient.
        fate: delivered, deferred or failed.
        reply: the reply that decided, if one did.
        reason: the reason in words, where no reply gives it.
    """

    recipient: Recipient
    fate: Fate
    reply: Reply | None = None
    reason: str = ""


class JobResult(NamedTuple):
    """What becomes of a job after an attempt.

    Attributes:
        fate: how the lease ends.
        recipients: one result per recipient that was pending, in the order of the envelope.
        not_before: when a deferred job is due again, in seconds of the epoch.
        reason: why the job was not delivered, in words.
        host_error: the problem of the server as a whole, if that is what stopped the job.
        unknown: may a recipient have the message although no reply says so?
    """

    fate: Fate
    recipients: tuple[RecipientResult, ...] = ()
    not_before: float = 0.0
    reason: str = ""
    host_error: SMTPError | None = None
    unknown: bool = False

    @property
    def delivered(self) -> tuple[RecipientResult, ...]:
        """The recipients that have the message."""
        return self._with_fate(Fate.DELIVERED)

    @property
    def deferred(self) -> tuple[RecipientResult, ...]:
        """The recipients that a later attempt is for."""
        return self._with_fate(Fate.DEFERRED)

    @property
    def failed(self) -> tuple[RecipientResult, ...]:
        """The recipients that this attempt has given up."""
        return self._with_fate(Fate.FAILED)

    def _with_fate(self, fate: Fate) -> tuple[RecipientResult, ...]:
        return tuple([one for one in self.recipients if one.fate is fate])


class Unfinished(NamedTuple):
    """A job that was not delivered to every recipient.

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
        sent: ids of the jobs that were delivered to every recipient.
        deferred: the jobs that are tried again.
        failed: the jobs that are not.
        error: what ended the run before every job had its turn, None if nothing did; the other jobs are queued as they
            were.
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
        """How many jobs had their turn."""
        return len(self.sent) + len(self.deferred) + len(self.failed)

    def __bool__(self) -> bool:
        """Was everything sent that was due?"""
        return not (self.deferred or self.failed or self.error or self.unreadable)


class ProcessorStatistics(NamedTuple):
    """What a processor holds now, and has done since it was constructed.

    Attributes:
        sending: jobs in work now.
        ahead: jobs that are claimed and wait for a worker.
        sent, deferred, failed: how often an attempt ended so.
        released: how often a job went back to the spool untried.
        unknown: how often it is not known whether a message arrived.
        paused_until: when the pause ends, in seconds of the epoch; None if mail flows.
        problem: why the processor pauses; empty if mail flows.
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
