"""A connection that carries messages: it begins jobs, writes their bodies and settles them.

Everything here is synchronous but the writing of a large body, which its caller does in a task of its own while it
holds the turn to write. `Pump` adds the task that opens the connection and reads.
"""

from __future__ import annotations

import math
from typing import Any, Final, Protocol

from ..errors import CommandRefused, ConnectFirst, Interrupted, NotSent, SMTPError
from ..events import Abandoned, Error
from ..model.receipt import Outcome, Receipt
from ..model.reply import Reply
from ..protocol.conduct import Breakdown
from ..protocol.extensions import NO_EXTENSIONS, Extensions
from ..protocol.machine import Exchange
from ..protocol.states import Stage
from ..protocol.transaction import Transaction
from ..tls.info import ConnectionInfo
from .channel import Link
from .job import Job, Step
from .opening import Route
from .upload import Upload

__all__ = ["Carrier", "Keeper"]

#: A connection idle for longer is asked before a body is trusted to it: it may be dead without our knowing.
_STALE: Final = 1.0


class Keeper(Protocol):
    """Who gives a connection its jobs and wants to know what becomes of it: the pool."""

    def opened(self, session: Any) -> None:
        """It can take jobs."""

    def next_job(self, session: Any) -> Job | None:
        """Return a job that may be begun now."""

    def resting(self, session: Any) -> None:
        """It has nothing to do."""

    def finished(self, job: Job, receipt: Receipt) -> None:
        """The job has come to its end."""

    def dropped(self, job: Job) -> None:
        """The job's caller has gone while no connection had it."""

    def unsent(self, job: Job, receipt: Receipt) -> None:
        """The job's connection died before it was sent."""

    def failed(self, session: Any, error: SMTPError) -> None:
        """It could not be opened; it says goodbye before it has `ended`."""

    def greeted_again(self, session: Any) -> None:
        """The server was asked once more what it offers."""

    def ended(self, session: Any, error: SMTPError | None) -> None:
        """It is over; `error` is None after a polite end, and where `failed` has told it."""


class Carrier:
    """One connection as its jobs see it.

    Args:
        route: where to and how.
        number: the session's number, for events.
        keeper: who gives the jobs.

    Attributes:
        last_reply: the reply that was read last.
        messages: how many ended here.
        carried: did the server accept or refuse one of them?
        dialled_at, opened_at, idle_since: loop times: when it was started, when it could first take a job, when the
            last one ended.
        retires_at: loop time from which it takes no more jobs.
        leaving: does it take no more jobs?
    """

    def __init__(self, route: Route, *, number: int, keeper: Keeper) -> None:
        self.route = route
        self.number = number
        self.last_reply: Reply | None = None
        self.messages = 0
        self.dialled_at = 0.0
        self.opened_at = 0.0
        self.idle_since = 0.0
        self.carried = False
        self._most_messages = math.inf
        self.retires_at = math.inf
        self.leaving = False
        self._keeper = keeper
        # The same, once it is there: every method below is called on a connection that was started.
        self._link: Link | None = None
        self._joint: Link
        self._info: ConnectionInfo | None = None
        self._jobs: set[Job] = set()
        # Is somebody to be alone on the connection?
        self._reserved = False
        self._over = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number} to {self.route.name}: {self.stage.value}>"

    # --- what is so ------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Can mail be sent?"""
        return self._info is not None and not self._over

    @property
    def stage(self) -> Stage:
        """Where the conversation stands."""
        if self._over:
            return Stage.CLOSED
        return self._link.machine.stage if self._link is not None else Stage.GREETING

    @property
    def extensions(self) -> Extensions:
        """What the server offers."""
        return self._link.machine.extensions if self._link is not None else NO_EXTENSIONS

    @property
    def offered_in_clear(self) -> Extensions | None:
        """What the server offered before any TLS, None if TLS came first or it did not come that far."""
        return self._link.offered_in_clear if self._link is not None else None

    @property
    def greeting(self) -> Reply | None:
        """The server's first reply, None if none came."""
        return self._link.machine.greeting.reply if self._link is not None else None

    @property
    def info(self) -> ConnectionInfo:
        """What was negotiated; known also when the login failed.

        Raises:
            ConnectFirst: it was never connected.
        """
        info = self._info or (self._link.info if self._link is not None else None)
        if info is None:
            raise ConnectFirst("this session was never connected")
        return info

    @property
    def may_begin(self) -> bool:
        """Can a job be begun now?"""
        if self._info is None or self._over or self.leaving or self._reserved or self._link is None:
            return False
        return self._link.machine.pipeline.can_begin

    def admits(self, transaction: Transaction) -> bool:
        """Can `transaction` be begun beside those on their way? Ask only if `may_begin`."""
        return self._joint.machine.pipeline.admits(transaction)

    def share(self, extensions: Extensions) -> None:
        """Use the pool's object for the same offer: jobs are compared with it by identity first."""
        self._joint.machine.extensions = extensions

    def forgo_pipelining(self) -> None:
        """Write one command at a time here, whatever the server offers."""
        self._joint.machine.forgo_pipelining()

    def retire(self, *, messages: int | None, age: float | None) -> None:
        """Take no job after so many messages, or the server's limit, nor after so many seconds; None: no end."""
        self._most_messages = math.inf if messages is None else messages
        # RFC 9422 section 3.1: more transactions than MAILMAX are refused.
        self._most_messages = min(self._most_messages, self.extensions.limits.get("MAILMAX", math.inf))
        self.retires_at = math.inf if age is None else self.opened_at + age

    @property
    def spent(self) -> bool:
        """Is it to take no more jobs? The time of its last message stands for now, which is near enough."""
        return self.messages + len(self._jobs) >= self._most_messages or self.idle_since >= self.retires_at

    @property
    def streaming(self) -> bool:
        """Is a caller writing, or about to write, a body here, or to let one go?"""
        writing = self._link.machine.pipeline.writing if self._link is not None else None
        return writing is not None and writing.aside

    @property
    def breakdown(self) -> Breakdown | None:
        """What the end of the connection tells about the server's pipelining, None if nothing."""
        return self._link.machine.pipeline.breakdown if self._link is not None else None

    @property
    def unanswered_since(self) -> float | None:
        """Loop time since when the server owes a reply and says nothing; None if it owes none, or reads a body."""
        link = self._link
        if link is None or self._over or link.machine.expected is None:
            return None
        writing = link.machine.pipeline.writing
        if writing is not None and writing.turn:
            return None
        return max(link.clock.since, link.active_at)

    @property
    def jobs(self) -> int:
        """How many messages are on their way here."""
        return len(self._jobs)

    @property
    def round_trips(self) -> int:
        """How often something was written and then waited for."""
        return self._link.round_trips if self._link is not None else 0

    # --- jobs ------------------------------------------------------------------------------------------------

    def offer(self, job: Job) -> bool:
        """Begin `job` now; False if it must be prepared for what this server offers, and its caller was told.

        Call only if `may_begin`.
        """
        if not self._begin(job):
            return False
        self._flush()
        if self._joint.noted:
            self._joint.wake()
        return True

    def _begin(self, job: Job) -> bool:
        link = self._joint
        machine, transaction = link.machine, job.transaction
        if transaction is None or (
            transaction.extensions is not machine.extensions and not transaction.suits(machine.extensions)
        ):
            job.prepare_for(machine.extensions)
            return False
        jobs = self._jobs
        stale = not jobs and link.now() - link.active_at > _STALE
        job.session = self
        jobs.add(job)
        if link.hooks.active:
            link.watch()
        machine.pipeline.begin(transaction, hold=stale)
        return True

    def _refill(self) -> None:
        """Take jobs while the machine may begin one, then write everything at once."""
        machine = self._joint.machine
        while machine.pipeline.writing is None:
            job = self._keeper.next_job(self)
            if job is None:
                break
            self._begin(job)
        self._flush()

    def _flush(self) -> None:
        """Write; on a closed stream the pending read ends, and the pump finds out there."""
        try:
            self._joint.flush()
        except SMTPError as error:
            self._joint.abort(error)

    def _settle(self, settled: list[Exchange | Transaction], *, dead: bool = False) -> None:
        """Tell the callers of jobs that came to an end or may write their body."""
        # Those that go back to the head of the queue: the oldest goes last.
        for item in reversed(settled) if dead else settled:
            if isinstance(item, Exchange):
                self.last_reply = item.reply
                continue
            job, receipt = item.owner, item.receipt
            assert isinstance(job, Job)
            if receipt is None:
                job.advance(Step.WRITE)
                continue
            self._jobs.discard(job)
            self.messages += 1
            self.idle_since = self._joint.active_at
            if receipt.reply is not None:
                self.last_reply = receipt.reply
            if receipt.error is None:
                self.carried = True
                self._keeper.finished(job, receipt)
                continue
            # One that the server gave up, or that its caller withdrew, proves nothing.
            self.carried = self.carried or receipt.outcome is Outcome.REFUSED
            if item.misunderstood and not (dead or job.abandoned or job.asked_anew):
                self._ask_anew(job, receipt)
                continue
            if job.abandoned or receipt.outcome is not Outcome.NOT_SENT:
                self._keeper.finished(job, receipt)
            else:
                # Its connection died, or gave it up, before it was sent.
                self._keeper.unsent(job, receipt)
            if job.receipt is not None and job.errand is not None:
                # Its caller may be waiting for the next slice or the gate, which nobody needs any more.
                job.errand.stop()

    def _ask_anew(self, job: Job, receipt: Receipt) -> None:
        """The server refused parameters that it offered: ask what it offers now, and prepare the message for that.

        Once for each message; `receipt` stands where the offer has not changed.
        """
        raise NotImplementedError

    def _note_receipts(self, settled: list[Exchange | Transaction]) -> None:
        for item in settled:
            if isinstance(item, Transaction) and item.receipt is not None:
                self._note_receipt(item, item.receipt)

    def _note_receipt(self, transaction: Transaction, receipt: Receipt) -> None:
        link, job = self._joint, transaction.owner
        assert isinstance(job, Job)
        if link.wants(Error):
            for verdict in receipt.refused:
                text = str(verdict.reply)
                link.note(
                    Error(
                        session=self.number,
                        job=job.number,
                        code=CommandRefused.code,
                        description=text,
                        recipient=verdict.recipient,
                    )
                )
        if job.abandoned and link.wants(Abandoned):
            link.note(Abandoned(session=self.number, job=job.number, receipt=receipt))

    async def write_body(self, job: Job) -> None:
        """Write the body of a job that was told so, or let it go, in the caller's own task.

        Raises:
            NotSent: the source of the body, `before_end_of_data` or `progress` stopped it; the cause is chained.
        """
        upload = Upload(self._joint, job, self._flush, self.number)
        if not upload.allowed:
            # Told so by a connection that has died since: this one has not asked for the body yet.
            return
        try:
            if not await upload.run():
                return
        except Exception as error:
            self.cancel(job)
            raise NotSent(f"the message was stopped before its end: {error}") from error
        upload.end()
        self._refill()

    def cancel(self, job: Job) -> bool:
        """Its caller has gone: return whether the message will certainly not be sent. Synchronous."""
        transaction = job.transaction
        job.abandoned = True
        if transaction is None or job.session is None:
            # No connection has begun it, or none any more.
            if job.receipt is None:
                self._keeper.dropped(job)
            return job.receipt is None
        if self._over:
            return False
        machine = self._joint.machine
        withdrawn = machine.pipeline.withdraw(transaction)
        if withdrawn and machine.pipeline.exhausted and transaction.turn:
            # Only the end of the connection keeps half a body from being a message. Nothing is owed for others: the
            # turn came behind all their replies.
            self._joint.abort(Interrupted("a message was stopped in the middle of its body"))
            if job.errand is not None:
                job.errand.stop()
        return withdrawn
