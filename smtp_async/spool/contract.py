"""The contract of a spool, which stores mail until it has been delivered, and of its leases.

`put` returns once the message is stored durably. `claim` leases jobs to workers, each job to one worker at a time. A
worker ends its lease in exactly one way:

    settle    the message was delivered             → the job is removed, or kept as SENT
    defer     recipients are to be tried again      → QUEUED, due later
    fail      the message will not be delivered     → FAILED, kept for an operator
    release   nothing was tried                     → QUEUED, unchanged

The worker calls `mark_end_of_data` before it sends end of data. If the worker dies between this call and the end of the
lease, the outcome is unknown (RFC 1047), and the next lease of the job is flagged (`entry.flagged`).

Every change through a lease carries its token, the number of the attempt. The change is refused with `LeaseLost` if
another worker has the job by then.

Times are seconds since the epoch, UTC. A message is rendered once, for a server without extensions, and its bytes
are the same in every attempt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol, Self, TypeAlias

from ..errors import InvalidArgument
from ..model.address import Address
from ..model.content import Mail
from ..model.envelope import Recipient
from ..model.receipt import Receipt, Verdict
from ..model.signing import MessageSigner, signers_of
from .entry import (
    Entry,
    LeaseHolder,
    Recovery,
    Result,
    SpoolStatistics,
    State,
    Unreadable,
    check_receipt,
    results_after,
)
from .submission import Adapt, JobOptions, Submission, adopted, epoch_seconds, submission

__all__ = ["KEY_RETENTION", "MAX_KEYS", "Lease", "LeaseResult", "Leases", "Spool", "SpoolTelemetry"]

#: Default number of seconds for which a spool remembers the key of a job that is gone: a week.
KEY_RETENTION: Final = 7 * 86400.0
#: Maximum number of such keys in the spools of this library; the oldest are forgotten first.
MAX_KEYS: Final = 100_000


class LeaseResult(NamedTuple):
    """The report of a worker that ends a lease by settle, defer or fail.

    Attributes:
        state: the new state of the job; None removes the job.
        receipt: the outcome for the pending recipients; None if the attempt yielded none.
        retry: decides which recipients are tried again; None takes the default.
        reason: why the job was deferred or failed.
        not_before: when a deferred job is due again.
        places: the places in the envelope of the recipients that the receipt is about; None for all pending ones.
        counts: the attempt counts. If not, `attempts` and `confirmed` are afterwards as they were before the claim.
    """

    state: State | None
    receipt: Receipt | None
    retry: Callable[[Verdict], bool] | None = None
    reason: str = ""
    not_before: float | None = None
    places: Sequence[int] | None = None
    counts: bool = True

    def results(self, entry: Entry, at: float) -> tuple[Result | None, ...]:
        """Return the results of `entry`, with those of this attempt recorded at `at`.

        Raises:
            InvalidArgument: the receipt does not match the recipients that were tried.
        """
        return results_after(entry, self.receipt, self.retry, at, self.places)


class Lease(ABC):
    """A job leased to one worker until the first of settle, defer, fail or release.

    Every method raises `LeaseLost` if the lease has ended or another worker has the job, and `SpoolError` if the store
    fails. If `mark_end_of_data` fails, the message must not be sent. If ending the lease fails, this worker still has
    the job and may repeat the call.

    Attributes:
        entry: the job as it was claimed.
        token: the number of the attempt; it never decreases.
    """

    entry: Entry
    token: int

    @abstractmethod
    def mail(self) -> Mail:
        """Return the mail to be sent, addressed to the pending recipients.

        Raises:
            MissingRecipient: no recipient is pending.
            RecordInvalid: the stored message was damaged and cannot be sent.
        """

    @abstractmethod
    async def extend(self) -> None:
        """Report that the worker is alive. Call it regularly during a long transfer."""

    @abstractmethod
    async def mark_end_of_data(self) -> None:
        """Record durably that end of data is about to be sent. For `SendOptions.before_end_of_data`."""

    async def settle(
        self, receipt: Receipt | None, *, keep: bool = False, places: Sequence[int] | None = None
    ) -> None:
        """End the lease of a job that is completed.

        Args:
            receipt: the outcome for the pending recipients.
            keep: keep the job as SENT instead of removing it.
            places: the places in the envelope of the recipients that the receipt is about, if it is not about all
                pending ones.
        """
        check_receipt(self.entry, receipt, places)
        await self._end(LeaseResult(State.SENT if keep else None, receipt, _never, places=places))

    async def defer(
        self,
        receipt: Receipt | None,
        not_before: float,
        *,
        reason: str = "",
        retry: Callable[[Verdict], bool] | None = None,
        places: Sequence[int] | None = None,
        counts: bool = True,
    ) -> None:
        """End the lease and queue the job again for the recipients that are to be retried.

        Args:
            receipt: the outcome for the pending recipients; None if the attempt yielded none.
            not_before: when the job is due again.
            reason: the reason, for an operator.
            retry: returns whether the recipient of a verdict is tried again; `entry.should_retry` by default.
            places: as for `settle`; the other recipients stay as they are.
            counts: False if the attempt does not count, because it was one for a part of the recipients, or none.
        """
        due = epoch_seconds(not_before)
        await self._end(LeaseResult(State.QUEUED, receipt, retry, reason, due, places, counts))

    async def fail(
        self,
        receipt: Receipt | None,
        *,
        reason: str = "",
        retry: Callable[[Verdict], bool] | None = None,
        places: Sequence[int] | None = None,
        counts: bool = True,
    ) -> None:
        """End the lease and keep the job as FAILED. Recipients that were not accepted can be requeued.

        Args:
            receipt: the outcome for the pending recipients; None if the attempt yielded none.
            reason: the reason, for an operator.
            retry: as for `defer`; such a recipient stays pending.
            places: as for `settle`; the other recipients stay as they are.
            counts: as for `defer`.
        """
        await self._end(LeaseResult(State.FAILED, receipt, retry, reason, places=places, counts=counts))

    @abstractmethod
    async def release(self) -> None:
        """End the lease and queue the job unchanged. The attempt does not count."""

    @abstractmethod
    async def _end(self, result: LeaseResult) -> None:
        """End the lease with `result`, durably."""


Leases: TypeAlias = list[Lease]


class Putting(Protocol):
    """The span of a message that is being put, as a spool sees it."""

    @property
    def trace(self) -> str | None:
        """The name of the span, which the job keeps: a `traceparent` of W3C Trace Context."""

    def stored(self, id: str, size: int, recipients: int) -> None:
        """Note what was stored: the job's id, its octets, and how many recipients it has."""


class SpoolTelemetry(Protocol):
    """Observes the messages that are put; `smtp_async.Telemetry` is one."""

    def putting(self) -> AbstractContextManager[Putting]:
        """Begin to put a message, until the end of the block."""


class Spool(ABC):
    """A store for mail. Safe for any number of tasks, and of processes if the implementation says so.

    Args:
        adapt: converts the argument of `put` into a `Mail`; by default `put` accepts the messages that
            `SMTPClient.send` accepts, and bytes.
        key_retention: number of seconds for which the key of a job that is gone is remembered.
        telemetry: tells of messages that are put, and has each job remember where it came from.
        sign: how messages are signed when they are put: a `DKIM`, or several.

    Attributes:
        key_retention: the same number.
        sign: the same, as a tuple.

    Raises:
        InvalidArgument: `key_retention` is not a number of seconds, or `sign` no way of signing.
    """

    def __init__(
        self,
        *,
        adapt: Adapt | None = None,
        key_retention: float = KEY_RETENTION,
        telemetry: SpoolTelemetry | None = None,
        sign: MessageSigner | Sequence[MessageSigner] = (),
    ) -> None:
        if (
            not isinstance(key_retention, int | float)
            or isinstance(key_retention, bool)
            or not key_retention >= 0
        ):
            raise InvalidArgument(f"key_retention is a number of seconds, not {key_retention!r}")
        self._adapt = adapt
        self._telemetry = telemetry
        self.sign = signers_of(sign)
        self.key_retention = key_retention

    async def put(
        self,
        message: Any,
        *,
        sender: str | Address | None = None,
        recipients: Sequence[str | Address | Recipient] | None = None,
        key: str | None = None,
        not_before: float | datetime | None = None,
        expires: float | datetime | None = None,
        tag: str | None = None,
    ) -> str:
        """Store a message. Once this returns, the message survives a crash.

        Args:
            message: a Message, an `email.message.Message` or any `Mail`; or a complete message as bytes, the path of a
                file, a binary file, or an async iterable of bytes.
            sender, recipients: replace the envelope of the message.
            key: idempotency key. A second `put` with the same key stores nothing and returns the id of the first job,
                whatever its state, and for `key_retention` seconds after the job is gone: delivered, or removed by an
                operator. A spool may limit the number of such keys, and then forgets the oldest first.
            not_before: the earliest time to send the message: seconds since the epoch, or a datetime with a time zone.
            expires: the time after which sending is not tried again.
            tag: a word by which the processor may choose a route, such as `"newsletter"`.

        Returns:
            The id of the job.

        Raises:
            MissingSender, MissingRecipient, InvalidArgument: the message cannot be sent.
            SigningError: it cannot be signed; nothing was stored.
            FileError: a part of the message cannot be read.
            SpoolFull: there is no room; nothing was stored.
            SpoolError: the store failed; nothing was stored.
        """
        options = JobOptions.checked(key, not_before, expires, tag)
        return await self._put(message, sender, recipients, options, self._store)

    async def adopt(self, entry: Entry, message: bytes) -> str:
        """Store a queued job of another spool, with its id, results and attempts; held jobs stay held.

        Nothing is stored if this spool has the job, or had it and remembers it, as it remembers keys.

        Args:
            entry: the job in the other spool.
            message: its message.

        Returns:
            The id.

        Raises:
            SpoolFull: there is no room; nothing was stored.
            SpoolError: the store failed; nothing was stored.
        """
        return await self._store(adopted(entry, message))

    async def holders(self) -> Sequence[LeaseHolder]:
        """Return which processes hold leases, if the spool knows them.

        Raises:
            SpoolError: the store failed.
        """
        return ()

    async def _put(
        self,
        message: Any,
        sender: str | Address | None,
        recipients: Sequence[str | Address | Recipient] | None,
        options: JobOptions,
        store: Callable[[Submission], Awaitable[str]],
    ) -> str:
        """Make a job of what `put` was given, have `store` store it, and return its id."""
        made = submission(message, sender, recipients, options=options, adapt=self._adapt, sign=self.sign)
        if self._telemetry is None:
            return await store(await made)
        with self._telemetry.putting() as putting:
            job = (await made)._replace(trace=putting.trace)
            id = await store(job)
            putting.stored(id, len(job.body), len(job.envelope.recipients))
            return id

    @abstractmethod
    async def _store(self, job: Submission) -> str:
        """Store a job durably and return its id."""

    @abstractmethod
    async def claim(self, n: int = 1, *, now: float | None = None, marked: bool = False) -> Leases:
        """Lease up to `n` due jobs, the longest overdue first; return an empty list if none is due.

        Args:
            n: maximum number of jobs.
            now: the current time; None reads the clock.
            marked: mark the jobs at once, so that `mark_end_of_data` has nothing left to do. This is cheaper than
                marking one by one, but after a crash every leased job is flagged.
        """

    @abstractmethod
    async def get(self, id: str) -> Entry:
        """Return the entry of a job.

        Raises:
            NoSuchJob: no job has this id.
        """

    @abstractmethod
    def list(self, state: State | None = None) -> AsyncIterator[Entry]:
        """Iterate over the jobs in `state`, or over all jobs, in no particular order."""

    @abstractmethod
    async def read(self, id: str) -> bytes:
        """Return the message of a job.

        Raises:
            NoSuchJob: no job has this id.
        """

    @abstractmethod
    async def hold(self, id: str) -> None:
        """Keep a queued job from being claimed.

        Raises:
            NoSuchJob: no job has this id.
            Busy: the job is being sent.
            UsageError: the job is not queued.
        """

    @abstractmethod
    async def release(self, id: str) -> None:
        """Undo `hold`; the due time of the job does not change. Raises the same errors."""

    @abstractmethod
    async def requeue(
        self, id: str, *, not_before: float | datetime | None = None, expires: float | datetime | None = None
    ) -> None:
        """Queue a job for the recipients that were not accepted, now or at `not_before`; attempts start at 0 again.

        Raises:
            NoSuchJob: no job has this id.
            Busy: the job is being sent.
            UsageError: every recipient was accepted.
        """

    @abstractmethod
    async def remove(self, id: str) -> None:
        """Delete a job in any state. Its key is remembered, so putting the message again has no effect.

        Raises:
            NoSuchJob: no job has this id.
            Busy: the job is being sent.
        """

    @abstractmethod
    async def statistics(self) -> SpoolStatistics:
        """Count the jobs."""

    @abstractmethod
    async def recover(self) -> Recovery:
        """Queue the jobs of dead workers again, quarantine items that are not valid jobs, and remove unfinished puts.

        A job of a later version of this library is not touched, nor is any other item that this version does not know.

        Call it at the start and then every minute. A job with which three workers have died becomes FAILED, with
        the reason `poison`.
        """

    def unreadable(self) -> Sequence[Unreadable]:
        """Return the items that `claim`, `recover` and `list` could not read as jobs. Does not block.

        These are the items that were moved to quarantine since the last call, and the pending jobs of later versions of
        this library.
        """
        return ()

    @abstractmethod
    async def wait(self, seconds: float) -> bool:
        """Wait until a job may be due; return False after `seconds` without one. May return True spuriously."""

    @abstractmethod
    async def close(self) -> None:
        """Release all leases and all resources; the spool can no longer be used.

        Marked jobs stay flagged, because they may have been sent.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.close()


def _never(verdict: Verdict) -> bool:
    return False
