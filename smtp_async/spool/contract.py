"""The contract of a spool: mail at rest, whatever it rests on.

A spool takes messages and keeps them until somebody has delivered them. `put` returns when the message is safe;
`claim` hands jobs out, each to one worker at a time, as leases; a lease ends in exactly one way:

    settle    it is delivered                       → gone, or kept as SENT
    defer     some of it has to be tried again      → QUEUED, due later
    fail      it will not be delivered              → FAILED, kept for a person
    release   nothing was tried                     → QUEUED as it was

`mark_end_of_data` comes before the end of data leaves. A worker that dies after it, before the lease was ended, leaves
a job of which nobody knows whether it was delivered (RFC 1047): the next lease says so (`entry.flagged`).

Every change through a lease carries its token, the number of the attempt. If the job has gone to somebody else in the
meantime, the change is refused (`LeaseLost`).

Times are seconds since the epoch, UTC. A message is rendered once, for a server that offers nothing; its bytes never
change between attempts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, Final, Self, TypeAlias

from ..errors import InvalidArgument
from ..model.address import Address
from ..model.content import Mail
from ..model.envelope import Recipient
from ..model.receipt import Receipt, Verdict
from .entry import Entry, Recovery, SpoolStatistics, State, Unreadable
from .submission import Adapt, Submission, submission

__all__ = ["KEY_RETENTION", "MAX_KEYS", "Lease", "Leases", "Spool"]

#: Seconds for which a key is remembered when its job is gone: a week.
KEY_RETENTION: Final = 7 * 86400.0
#: Keys of jobs that are gone that are remembered by a spool of this library; the oldest are forgotten first.
MAX_KEYS: Final = 100_000


class Lease(ABC):
    """A job in the hands of one worker. It ends with settle, defer, fail or release, whichever comes first.

    Every method raises `LeaseLost` after that, or if the job has gone to somebody else; and `SpoolError` if the store
    fails. A failed `mark_end_of_data` means: do not send. After a failed end of a lease the job is still in the hands
    of this worker, and the call may be repeated.

    Attributes:
        entry: the job as it was when it was claimed.
        token: the number of the attempt; it never falls.
    """

    entry: Entry
    token: int

    @abstractmethod
    def mail(self) -> Mail:
        """Return what is to be sent, for the recipients that are pending.

        Raises:
            MissingRecipient: nobody is pending.
            RecordInvalid: what is stored is not what was put: it was damaged, and cannot be sent any more.
        """

    @abstractmethod
    async def extend(self) -> None:
        """Say that the worker is alive; to be called now and then during a long transfer."""

    @abstractmethod
    async def mark_end_of_data(self) -> None:
        """Note, durably, that the end of data is about to leave. For `SendOptions.before_end_of_data`."""

    @abstractmethod
    async def settle(self, receipt: Receipt | None, *, keep: bool = False) -> None:
        """End it: nothing is left to be done.

        Args:
            receipt: what became of the pending recipients.
            keep: keep the job as SENT; else it is removed.
        """

    @abstractmethod
    async def defer(
        self,
        receipt: Receipt | None,
        not_before: float,
        *,
        reason: str = "",
        retry: Callable[[Verdict], bool] | None = None,
    ) -> None:
        """End it: try again later those recipients that are left.

        Args:
            receipt: what became of the pending recipients; None if nothing was learnt.
            not_before: when the job is due again.
            reason: in words, for a person.
            retry: tells of a verdict whether its recipient is to be tried again; by default `again` does.
        """

    @abstractmethod
    async def fail(
        self,
        receipt: Receipt | None,
        *,
        reason: str = "",
        retry: Callable[[Verdict], bool] | None = None,
    ) -> None:
        """End it: keep the job as FAILED. What was accepted is noted; the others can be requeued.

        Args:
            receipt: what became of the pending recipients; None if nothing was learnt.
            reason: in words, for a person.
            retry: as for `defer`; such a recipient stays among the pending.
        """

    @abstractmethod
    async def release(self) -> None:
        """End it: nothing was tried; the job is queued as it was, and the attempt does not count."""


Leases: TypeAlias = list[Lease]


class Spool(ABC):
    """Mail at rest. Safe for any number of tasks, and of processes where the engine says so.

    Args:
        adapt: makes mail of what `put` is given; by default whatever `SMTPClient.send` takes, and bytes.
        key_retention: seconds for which a key is remembered when its job is gone.

    Attributes:
        key_retention: these seconds.

    Raises:
        InvalidArgument: that is no number of seconds.
    """

    def __init__(self, *, adapt: Adapt | None = None, key_retention: float = KEY_RETENTION) -> None:
        if (
            not isinstance(key_retention, int | float)
            or isinstance(key_retention, bool)
            or not key_retention >= 0
        ):
            raise InvalidArgument(f"key_retention is a number of seconds, not {key_retention!r}")
        self._adapt = adapt
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
    ) -> str:
        """Store a message; when this returns, it survives.

        Args:
            message: a Message, an `email.message.Message`, any `Mail`; or a whole message: bytes, the path of a file, a
                binary file, an async iterable of bytes.
            sender, recipients: another envelope than the message's own.
            key: names the job: a second `put` with it stores nothing and returns the id of the first, in whatever state
                that is, and for `key_retention` seconds after it is gone: delivered, or removed by an operator. A spool
                may bound how many keys of such jobs it remembers; then it forgets the oldest first.
            not_before: when to send it at the earliest; seconds since the epoch, or a datetime with a time zone.
            expires: when trying on makes no sense any more.

        Returns:
            The id of the job.

        Raises:
            MissingSender, MissingRecipient, InvalidArgument: what cannot be sent.
            FileError: a part of it cannot be read.
            SpoolFull: no room; nothing was stored.
            SpoolError: the store failed; nothing was stored.
        """
        job = await submission(
            message,
            sender,
            recipients,
            key=key,
            not_before=not_before,
            expires=expires,
            adapt=self._adapt,
        )
        return await self._store(job)

    @abstractmethod
    async def _store(self, job: Submission) -> str:
        """Store it durably and return its id."""

    @abstractmethod
    async def claim(self, n: int = 1, *, now: float | None = None, marked: bool = False) -> Leases:
        """Lease up to `n` jobs that are due, those due longest first; an empty list if there are none.

        Args:
            n: how many at most.
            now: what time it is; None asks the clock.
            marked: mark the end of data at once, so that `mark_end_of_data` has nothing left to do. Cheaper than one by
                one; after a crash every job that was leased is flagged.
        """

    @abstractmethod
    async def get(self, id: str) -> Entry:
        """Return what is known about a job.

        Raises:
            NoSuchJob: there is none of this id (any more).
        """

    @abstractmethod
    def list(self, state: State | None = None) -> AsyncIterator[Entry]:
        """Iterate over the jobs in `state`, or over all, in no certain order."""

    @abstractmethod
    async def read(self, id: str) -> bytes:
        """Return the message of a job.

        Raises:
            NoSuchJob: there is none of this id (any more).
        """

    @abstractmethod
    async def hold(self, id: str) -> None:
        """Keep a queued job from being claimed.

        Raises:
            NoSuchJob: there is none of this id (any more).
            Busy: it is being sent.
            UsageError: it is not queued.
        """

    @abstractmethod
    async def release(self, id: str) -> None:
        """Undo `hold`; the job is due when it was. The same errors."""

    @abstractmethod
    async def requeue(
        self, id: str, *, not_before: float | datetime | None = None, expires: float | datetime | None = None
    ) -> None:
        """Try again those who have not got the message, now or at `not_before`; attempts are counted anew.

        Raises:
            NoSuchJob: there is none of this id (any more).
            Busy: it is being sent.
            UsageError: everybody has got it.
        """

    @abstractmethod
    async def remove(self, id: str) -> None:
        """Delete a job, in whatever state; its key stays known, so that a program that puts it again changes nothing.

        Raises:
            NoSuchJob: there is none of this id (any more).
            Busy: it is being sent.
        """

    @abstractmethod
    async def statistics(self) -> SpoolStatistics:
        """Count what is there."""

    @abstractmethod
    async def recover(self) -> Recovery:
        """Take back what dead workers held, put aside what is no job, remove what was never finished.

        A job of a later version of this library is left alone, like everything else that it may know more of.

        To be called at the start and every minute. A job with which three workers have died becomes FAILED, with the
        reason `poison`.
        """

    def unreadable(self) -> Sequence[Unreadable]:
        """Return what `claim`, `recover` and `list` met that cannot be read as a job. Synchronous, and short.

        That is what was put aside since the last call, each told once, and what a later version of this library wrote
        and still has to be sent.
        """
        return ()

    @abstractmethod
    async def wait(self, seconds: float) -> bool:
        """Sleep until a job may be due; return False after `seconds` without one.

        It may wake for nothing.
        """

    @abstractmethod
    async def close(self) -> None:
        """Give back what is leased, and let go of everything; the spool can no longer be used.

        What is marked may have been sent, and stays flagged.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.close()
