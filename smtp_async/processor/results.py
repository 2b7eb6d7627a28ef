"""Values for the ends of jobs: fates, results of recipients and of jobs, the report of a run, statistics."""

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
    "OtherRoutes",
    "ProcessorStatistics",
    "QueueReport",
    "RecipientResult",
    "RouteStatistics",
    "Unfinished",
]

#: The reason of a recipient that may have the message and is not tried again.
UNKNOWN: Final = "unknown"
#: The reason of a recipient whose message has expired.
EXPIRED: Final = "it could not be delivered in time"


class Fate(Enum):
    """The fate of a recipient, or of a job, after an attempt."""

    #: The recipient, or every recipient of the job, has the message.
    DELIVERED = "delivered"
    #: A later attempt follows.
    DEFERRED = "deferred"
    #: No attempt follows, although the recipient, or at least one of the job, does not have the message.
    FAILED = "failed"
    #: For jobs only: nothing was tried, so the job is queued unchanged.
    RELEASED = "released"
    #: For jobs only: one route had its turn, and the recipients of another one follow at once.
    HANDED_ON = "handed on"


class OtherRoutes(Enum):
    """What is left of a job for the other routes, when one route has tried its recipients."""

    #: No recipient: every other one has a final result.
    NONE = "none"
    #: Recipients that have not been tried since the job was due.
    UNTRIED = "untried"
    #: Recipients that were tried since the job was due, and are to be tried again.
    DEFERRED = "deferred"


class RecipientResult(NamedTuple):
    """The result of one recipient after an attempt.

    Attributes:
        recipient: the recipient.
        fate: delivered, deferred or failed.
        reply: the decisive reply, if any.
        reason: the reason, if no reply contains it.
    """

    recipient: Recipient
    fate: Fate
    reply: Reply | None = None
    reason: str = ""


class JobResult(NamedTuple):
    """The result of a job after an attempt.

    Attributes:
        fate: how the lease ends.
        recipients: one result per recipient that was pending, in the order of the envelope.
        not_before: when a deferred job is due again, in seconds of the epoch.
        reason: why the job was not delivered.
        host_error: the problem of the server as a whole, if it stopped the job.
        unknown: a recipient may have the message, although no reply confirms that.
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
        """The recipients that a later attempt will try."""
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
        id: the id of the job in the spool.
        reason: why the job was not delivered.
        not_before: when the job is tried again, in seconds of the epoch; None if it has failed.
    """

    id: str
    reason: str
    not_before: float | None = None


class QueueReport(NamedTuple):
    """The results of all jobs that were due.

    Attributes:
        sent: ids of the jobs that were delivered to every recipient.
        deferred: the jobs that are tried again.
        failed: the jobs that are not tried again.
        error: the error that ended the run before every job was tried, None if there was none; the other jobs are
            queued unchanged.
        unreadable: items in the spool that cannot be read as jobs: moved to quarantine, or written by a later version
            of this library.
    """

    sent: tuple[str, ...] = ()
    deferred: tuple[Unfinished, ...] = ()
    failed: tuple[Unfinished, ...] = ()
    error: Exception | None = None
    unreadable: tuple[Unfinished, ...] = ()

    @property
    def tried(self) -> int:
        """Number of jobs that were tried."""
        return len(self.sent) + len(self.deferred) + len(self.failed)

    def __bool__(self) -> bool:
        """Tell whether every due job was sent."""
        return not (self.deferred or self.failed or self.error or self.unreadable)


class RouteStatistics(NamedTuple):
    """The current state of one route of a processor.

    Attributes:
        host: the server of the route.
        sending: number of jobs that are being tried.
        ahead: number of claimed jobs that wait for a worker.
        paused_until: when the pause ends, in seconds of the epoch; None if mail flows.
        problem: why the route pauses; empty if mail flows.
    """

    host: str
    sending: int = 0
    ahead: int = 0
    paused_until: float | None = None
    problem: str = ""


class ProcessorStatistics(NamedTuple):
    """The current state of a processor, and counts since it was constructed.

    Attributes:
        sending: number of jobs that are being tried.
        ahead: number of claimed jobs that wait for a worker.
        sent, deferred, failed: number of attempts that ended so.
        released: number of jobs that were returned to the spool untried.
        unknown: number of attempts after which the outcome of a recipient was unknown.
        paused_until: when the first pause ends, in seconds of the epoch; None if mail flows over every route.
        problem: why the first of the routes that pause does; empty if mail flows over every route.
        routes: the state of each route so far.
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
    routes: tuple[RouteStatistics, ...] = ()
