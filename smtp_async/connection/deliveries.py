"""The jobs under way on one connection: begun, written, settled.

Everything here is synchronous but the writing of a large body, which its caller does in its own task while it holds the
write turn. `Connection` adds the task that opens the connection and reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from ..errors import Interrupted, NotSent, SMTPError
from ..model.receipt import Outcome, Receipt
from ..protocol.machine import Exchange
from ..protocol.transaction import Transaction
from .channel import Channel
from .send_job import BodyWriter, CallerStep, SendJob
from .upload import Upload

__all__ = ["Deliveries", "Owner"]

#: Seconds; a connection that was idle for longer may be dead unnoticed, so that the envelope goes ahead of the body.
_STALE: Final = 1.0

C = TypeVar("C", bound=BodyWriter)
C_contra = TypeVar("C_contra", contravariant=True)


class Owner(Protocol[C_contra]):
    """What a connection requires of its owner, the pool."""

    def connection_opened(self, connection: C_contra) -> None:
        """Note that the connection can take jobs."""

    def next_job(self, connection: C_contra) -> SendJob | None:
        """Return a job to begin now, None if there is none for this connection."""

    def connection_idle(self, connection: C_contra) -> None:
        """Note that the connection has no job."""

    def transaction_ended(self, job: SendJob, receipt: Receipt) -> None:
        """Settle a job whose transaction has ended."""

    def retry_unsent(self, job: SendJob, receipt: Receipt) -> None:
        """Queue a job again whose connection died before it was sent, or settle it if it was retried often enough."""

    def cancel(self, job: SendJob) -> bool:
        """Withdraw a job whose caller has gone; return True if it will certainly not be sent."""

    def connection_failed(self, connection: C_contra, error: SMTPError) -> None:
        """Note that the connection could not be opened; it says QUIT before it has `ended`."""

    def offer_changed(self, connection: C_contra) -> None:
        """Note that what the server offers may have changed."""

    def connection_closed(self, connection: C_contra, error: SMTPError | None) -> None:
        """Note that the connection is closed.

        Args:
            connection: the connection that was closed.
            error: why; None after a polite end, and if `connection_failed` was called.
        """


class Deliveries(Generic[C]):
    """The jobs under way on one connection, and how many more it may carry.

    Args:
        connection: the connection that has these jobs, as jobs and the owner refer to it.
        channel: the way to the server.
        owner: gives the jobs.
        ask_anew: sends EHLO again, and then settles the job or has it prepared again.

    Attributes:
        jobs: those under way.
        messages: how many have ended here.
        idle_since: loop time at which the last one ended.
        retires_at: loop time from which the connection takes no more jobs.
    """

    __slots__ = (
        "_ask_anew",
        "_connection",
        "_most_messages",
        "_owner",
        "channel",
        "idle_since",
        "jobs",
        "messages",
        "retires_at",
    )

    def __init__(
        self, connection: C, channel: Channel, owner: Owner[C], ask_anew: Callable[[SendJob, Receipt], None]
    ) -> None:
        self._connection = connection
        self.channel = channel
        self._owner = owner
        self._ask_anew = ask_anew
        self.jobs: set[SendJob] = set()
        self.messages = 0
        self.idle_since = 0.0
        self._most_messages = math.inf
        self.retires_at = math.inf

    def end(self) -> None:
        """Break the reference cycle with the connection, which has ended, so that both are freed at once."""
        del self._connection, self._ask_anew

    # --- limits ----------------------------------------------------------------------------------------------

    def retire(self, *, messages: int | None, age: float | None) -> None:
        """Take no more jobs after so many messages, or the server's own limit, nor at an age in seconds."""
        # RFC 9422 section 3.1: more transactions than MAILMAX are refused.
        server_limit = self.channel.machine.extensions.limits.get("MAILMAX", math.inf)
        self._most_messages = min(math.inf if messages is None else messages, server_limit)
        self.retires_at = math.inf if age is None else self._connection.opened_at + age

    @property
    def spent(self) -> bool:
        """Has the connection carried all that it may?

        The time of its last message counts as now, which saves reading the clock.
        """
        return self.messages + len(self.jobs) >= self._most_messages or self.idle_since >= self.retires_at

    def admits(self, transaction: Transaction) -> bool:
        """Can `transaction` be begun beside those under way? Ask only if the connection `may_begin`."""
        return self.channel.machine.pipeline.admits(transaction)

    @property
    def streaming(self) -> bool:
        """Is a body under way here whose time its caller decides (`Transaction.caller_paced`)?"""
        writing = self.channel.machine.pipeline.writing
        return writing is not None and writing.caller_paced

    # --- beginning -------------------------------------------------------------------------------------------

    def begin_now(self, job: SendJob) -> bool:
        """Begin `job` now, if the connection `may_begin`.

        Returns:
            False if the server does not offer what the job was planned for: its caller was told to prepare it again.
        """
        if not self.begin(job):
            return False
        channel = self.channel
        channel.flush()
        if channel.transcript.events:
            channel.wake()
        return True

    def begin(self, job: SendJob) -> bool:
        """As `begin_now`, but nothing is written until the channel is flushed."""
        channel = self.channel
        machine, transaction = channel.machine, job.transaction
        if transaction is None or (
            transaction.extensions is not machine.extensions and not transaction.suits(machine.extensions)
        ):
            job.demand_new_plan(machine.extensions)
            return False
        jobs = self.jobs
        stale = not jobs and channel.now() - channel.active_at > _STALE
        job.connection = self._connection
        jobs.add(job)
        if channel.hooks.active:
            channel.record_lines()
        machine.pipeline.begin(transaction, hold=stale)
        return True

    def refill(self, now: float | None = None) -> None:
        """Take jobs while the machine may begin one, then write everything at once; `now` as `Channel.flush`."""
        channel = self.channel
        pipeline, owner = channel.machine.pipeline, self._owner
        while pipeline.writing is None:
            job = owner.next_job(self._connection)
            if job is None:
                break
            self.begin(job)
        channel.flush(now)

    # --- bodies and cancellation -----------------------------------------------------------------------------

    async def write_body(self, job: SendJob) -> None:
        """Write the body of a job that has the write turn, or let it go, in the caller's own task.

        Raises:
            NotSent: the source of the body, `before_end_of_data` or `progress` stopped it; the cause is chained.
        """
        try:
            complete = await Upload(self.channel, job).run()
        except Exception as error:
            raise NotSent(f"the message was stopped before its end: {error}") from error
        if complete and self.channel.failure is None:
            self.refill()

    def cancel(self, job: SendJob) -> bool:
        """Keep a job under way here from being sent; return True if it will certainly not be sent. Synchronous."""
        transaction = job.transaction
        assert transaction is not None
        machine = self.channel.machine
        withdrawn = machine.pipeline.withdraw(transaction)
        if withdrawn and machine.pipeline.exhausted and transaction.turn:
            # Only the end of the connection keeps half a body from being a message. No other job is harmed, because
            # a caller gets the write turn only after the replies to all earlier ones.
            self.channel.abort(Interrupted("a message was stopped in the middle of its body"))
            if job.caller_work is not None:
                job.caller_work.stop()
        return withdrawn

    # --- settling --------------------------------------------------------------------------------------------

    def settle(self, settled: list[Exchange | Transaction], *, dead: bool = False) -> None:
        """Tell the callers whose jobs have ended, or who have the write turn.

        Args:
            settled: what the machine has settled, in order.
            dead: the connection has ended.
        """
        channel = self.channel
        # Each job that is tried again goes to the head of the queue: the newest first, so that they keep their order.
        for item in reversed(settled) if dead else settled:
            if isinstance(item, Exchange):
                channel.last_reply = item.reply
                continue
            job: SendJob = item.owner
            receipt = item.receipt
            if receipt is None:
                job.advance(CallerStep.WRITE)
                continue
            self.jobs.discard(job)
            self.messages += 1
            self.idle_since = channel.active_at
            if receipt.reply is not None:
                channel.last_reply = receipt.reply
            if receipt.error is None:
                self._connection.carried = True
                self._owner.transaction_ended(job, receipt)
            else:
                self._settle_failed(item, job, receipt, dead=dead)

    def _settle_failed(self, transaction: Transaction, job: SendJob, receipt: Receipt, *, dead: bool) -> None:
        # A message that the server gave up, or that was withdrawn, does not show that the server takes mail.
        if receipt.outcome is Outcome.REFUSED:
            self._connection.carried = True
        if transaction.misunderstood and not (dead or job.abandoned or job.asked_anew):
            self._ask_anew(job, receipt)
            return
        if job.abandoned or receipt.outcome is not Outcome.NOT_SENT:
            self._owner.transaction_ended(job, receipt)
        else:
            self._owner.retry_unsent(job, receipt)
        if job.receipt is not None and job.caller_work is not None:
            # Its caller may still be reading the source, or awaiting `before_end_of_data`: that is of no use any more.
            job.caller_work.stop()

    def note_receipts(self, settled: list[Exchange | Transaction]) -> None:
        """Note for hooks what became of the messages among `settled`."""
        for item in settled:
            if isinstance(item, Transaction) and item.receipt is not None:
                job: SendJob = item.owner
                self.channel.transcript.receipt(job.number, item.receipt, abandoned=job.abandoned)
