"""`SendJob`: one message to be sent now, between its caller and a connection. (The jobs of a spool are another thing.)

The job tells its caller each next step: prepare the message for what the server offers, open its sources, write a large
body, done. The caller does each step in its own task, so that its context variables, exceptions and cancellation apply.
Everything else about a job is synchronous.

A job is the caller's side of a message: what is sent and how, until when the caller waits, and the receipt that it
gets. The server's side is the job's `transaction`: what was written, what was answered and what came of it. A message
whose recipients do not fit into one transaction is still one job: it has `groups` of recipients, and
`plan_next_transaction` plans the next one from the content that is rendered already.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import Final, Protocol

from ..errors import NotSent, OutcomeUnknown, SMTPError, Timeout
from ..model.content import Content, Mail
from ..model.envelope import NOBODY
from ..model.receipt import Outcome, Receipt
from ..protocol.extensions import Extensions
from ..protocol.options import SendOptions
from ..protocol.plan import demand_to, plan
from ..protocol.transaction import Transaction
from ..sources import Body, TempDir, in_thread
from ..sources.unsent import UnsentSources
from .caller_work import CallerWork
from .recipients import RecipientGroups

__all__ = ["BodyWriter", "SendJob", "DialledConnection", "CallerStep"]


class CallerStep(Enum):
    """What a job's caller is to do next."""

    #: Render and plan for `job.server_offer`.
    PREPARE = "prepare"
    #: Open the parts that are read while they are sent, because planning needs their sizes.
    OPEN = "open"
    #: Write the body through `job.connection`.
    WRITE = "write"
    #: Read `job.receipt`.
    DONE = "done"


# A member is found in its class several times as slowly as a global name.
_DONE: Final = CallerStep.DONE


class DialledConnection(Protocol):
    """A connection that was dialled, as the pool sees it when it decides whether to dial another.

    Attributes:
        dialled_at, opened_at: loop times at which it was dialled, and could first take a job; 0 before that.
        carried: whether the server has accepted or refused a message on it.
    """

    dialled_at: float
    opened_at: float
    carried: bool


class BodyWriter(DialledConnection, Protocol):
    """The connection that carries a job, as the job's caller and the pool see it."""

    async def write_body(self, job: SendJob) -> None:
        """Write the body of a job that was told `CallerStep.WRITE`, in the caller's own task."""

    def cancel(self, job: SendJob) -> bool:
        """Withdraw the job, because its caller has gone; return True if it will certainly not be sent."""


class SendJob:
    """A message to be sent, and how far it has come.

    Args:
        number: the message's number within its client, from 1.
        mail: what to send.
        options: how to send it.
        due: loop time after which the caller no longer waits, None for no limit.
        chunking: write the body with BDAT where the server offers it.
        heavy: the message is rendered in a thread, because it is large.
        temp_dir: where a source that can be read only once is stored if it has to be read twice.

    Attributes:
        envelope: the sender and all recipients.
        groups: the recipients in groups, if there may be more than one; None saves an object for nearly every message.
        due, send_by: loop times; `send_by` is the caller's deadline, `due` what is watched now: in the queue the pool
            may set it to an earlier time.
        server_offer: the extensions that the next plan is made for; None until the caller knows them. What a plan was
            made for is in `transaction.extensions`.
        transaction: the plan, once there is one.
        body: the sources that the caller reads while they are sent, None where the connection writes the message alone.
        connection: the one that carries the job, from the first byte on.
        receipt: what the caller is told about all recipients. The receipt of `transaction` is about the present group
            only, and may come later, when a deadline has passed.
        waiter: the future of the caller's next step.
        caller_work: what the caller does for the message now, if it does not only wait.
        retries: how often the job went back to the queue because its connection died before it was sent.
        connect_error: why no connection could be had for it.
        abandoned: whether the caller no longer waits. Whether the message then leaves is up to the transaction:
            what was written completely runs to its end.
        asked_anew: whether the server was asked once more what it offers, because it refused parameters of this
            message.
        outlasts_outage: whether it keeps its place in the queue through an outage of the server; other jobs fail with
            the first connection that cannot be had.
        pinned: whether it is sent over its present connection or not at all.
    """

    __slots__ = (
        "__weakref__",
        "_content",
        "abandoned",
        "asked_anew",
        "body",
        "chunking",
        "connect_error",
        "due",
        "envelope",
        "caller_work",
        "groups",
        "heavy",
        "mail",
        "number",
        "server_offer",
        "options",
        "outlasts_outage",
        "pinned",
        "receipt",
        "retries",
        "send_by",
        "connection",
        "temp_dir",
        "transaction",
        "waiter",
    )

    def __init__(
        self,
        number: int,
        mail: Mail,
        options: SendOptions,
        due: float | None = None,
        *,
        chunking: bool = False,
        heavy: bool = False,
        temp_dir: TempDir = None,
    ) -> None:
        self.number = number
        self.mail = mail
        self.envelope = mail.envelope()
        if options.require_to:
            demand_to(self.envelope)
        self.groups: RecipientGroups | None = None
        self.options = options
        self.due = self.send_by = due
        self.chunking = chunking
        self.heavy = heavy
        self.temp_dir = temp_dir
        self.server_offer: Extensions | None = None
        self.transaction: Transaction | None = None
        self.body: Body | None = None
        self.connection: BodyWriter | None = None
        self.receipt: Receipt | None = None
        self.waiter: asyncio.Future[CallerStep] | None = None
        self.caller_work: CallerWork[None] | None = None
        self.retries = 0
        self.connect_error: SMTPError | None = None
        self.abandoned = False
        self.asked_anew = False
        self.outlasts_outage = False
        self.pinned = False
        # Rendered for `server_offer`, while its sources are being opened.
        self._content: Content | None = None

    # --- preparation -----------------------------------------------------------------------------------------

    def prepare(self) -> bool:
        """Render and plan for `server_offer`; every fault of the message shows here, before a byte is written.

        A job that is planned stays as it is, and a job without a `server_offer` waits for one.

        Returns:
            False if it is not planned yet because it is large, or because its sources must be opened and measured:
            await `open`.

        Raises:
            SMTPError: it cannot be sent to this server; the receipt says that nothing was sent.
        """
        offer = self.server_offer
        if offer is None or self.transaction is not None:
            return True
        try:
            if self.groups is not None or offer.limits:
                self._grouped().choose(offer.limits, split=self.options.split)
            if self.heavy:
                self._content = None
                return False
            content = self._rendered(offer)
            if content.sources:
                self._content = content
                return False
            self._plan(content, offer)
        except SMTPError as error:
            error.receipt = self.not_sent_receipt(error)
            raise
        return True

    def _rendered(self, offer: Extensions) -> Content:
        return self.mail.content(
            eightbit=offer.eightbitmime,
            utf8=offer.smtputf8,
            binary=offer.binarymime and offer.pipelining and self.options.chunking != "never",
        )

    def demand_new_plan(self, offer: Extensions) -> None:
        """Have the caller prepare the message anew, for `offer`, because its present plan does not suit the server."""
        self.server_offer = offer
        self.transaction = None
        # A connection may have carried it before, none does now.
        self.connection = None
        self.advance(CallerStep.PREPARE)

    async def open(self) -> None:
        """Render what is large, open the parts that are read while they are sent, and plan; raises as `prepare`."""
        offer = self.server_offer
        assert offer is not None
        try:
            content = self._content
            if content is None:
                content = self._content = await in_thread(partial(self._rendered, offer))
            if not content.sources:
                self._plan(content, offer)
                return
            self.close(streams=False)
            body = self.body = Body(content, temp_dir=self.temp_dir)
            await body.open()
            if self.groups is not None and self.groups.left and not body.rereadable:
                # It is going to be sent more than once.
                await body.keep()
            # A message that waits holds no file.
            body.park()
            self._plan(content, offer)
        except SMTPError as error:
            error.receipt = self.not_sent_receipt(error)
            raise

    def _plan(self, content: Content, offer: Extensions) -> None:
        envelope, options, groups = self.envelope, self.options, self.groups
        if groups is not None:
            envelope = groups.present_envelope()
            if groups.concluded is not None:
                # Other recipients have the message already: a refusal can no longer keep it from all.
                options = replace(options, must_accept=NOBODY)
        transaction = plan(envelope, content, offer, options, chunking=self.chunking and offer.chunking)
        if transaction.payload is None and not content.sources:
            self.body = Body(content, temp_dir=self.temp_dir)
        transaction.owner = self
        self.transaction = transaction

    def _grouped(self) -> RecipientGroups:
        if self.groups is None:
            self.groups = RecipientGroups(self.envelope)
        return self.groups

    @property
    def partly_concluded(self) -> bool:
        """Whether some recipients have the message already, by a transaction that has ended."""
        return self.groups is not None and self.groups.concluded is not None

    def close(self, *, streams: bool = True) -> None:
        """Close the message's sources as far as that needs no waiting; `streams` as `Body.close`."""
        if self.body is not None:
            self.body.close(streams=streams)
        elif streams:
            UnsentSources(self.mail, self._content).close()

    async def aclose(self) -> None:
        """Close the message's sources, and let async iterators end in the caller's task."""
        if self.body is not None:
            await self.body.aclose()
        else:
            await UnsentSources(self.mail, self._content).aclose()

    # --- the caller ------------------------------------------------------------------------------------------

    def advance(self, step: CallerStep) -> None:
        """Tell the caller what to do next, if it still waits."""
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(step)

    def time_out(self, *, unsent: bool, reason: SMTPError | None) -> None:
        """Answer the caller, whose time is over; the job has been cancelled.

        Args:
            unsent: whether it will certainly not be sent.
            reason: why no connection could be had, if that is known to be the reason.
        """
        if unsent:
            error: SMTPError = NotSent("the deadline passed before the message was sent")
        else:
            error = OutcomeUnknown("the deadline passed before the end of the message was answered")
        error.__cause__ = Timeout("the deadline passed", stage="queue" if self.connection is None else "send")
        if reason is not None:
            error = self.connect_error = reason
        # If the transaction has a receipt of its own later, that goes to the Abandoned event.
        self.receipt = self.not_sent_receipt(error) if unsent else self.unknown_receipt(error)
        self.advance(CallerStep.DONE)

    def not_sent_receipt(self, error: SMTPError) -> Receipt:
        """Return a receipt of which the recipients that are left are `NOT_SENT`, because of `error`."""
        twin = error.copy()
        twin.receipt = None
        return self._grouped().receipt(Outcome.NOT_SENT, twin, self.transaction)

    def unknown_receipt(self, error: SMTPError) -> Receipt:
        """Return a receipt of which the recipients that are left are `UNKNOWN`, because of `error`."""
        return self._grouped().receipt(Outcome.UNKNOWN, error, self.transaction)

    def cancelled_receipt(self, *, unsent: bool) -> Receipt:
        """Return what is known of the message at the moment in which its caller is cancelled.

        Args:
            unsent: whether it will certainly not be sent.
        """
        if self.receipt is not None:
            return self.receipt
        if unsent:
            return self.not_sent_receipt(NotSent("the call was cancelled before the message was sent"))
        return self.unknown_receipt(
            OutcomeUnknown("the call was cancelled before the server answered the end of data")
        )

    # --- the end of a transaction ----------------------------------------------------------------------------

    def plan_next_transaction(self, receipt: Receipt) -> bool:
        """Plan the next transaction if recipients are left for one; return whether it is planned.

        Args:
            receipt: the receipt of the transaction that has ended.
        """
        before, groups = self.transaction, self._grouped()
        if before is None or self.abandoned or not groups.conclude(before, receipt):
            return False
        if before.content.sources and (self.body is None or not self.body.rereadable):
            # The body was read, and cannot be read again: the rest is not sent.
            return False
        self.retries = 0
        try:
            groups.choose(before.extensions.limits, split=self.options.split)
            self._plan(before.content, before.extensions)
        except SMTPError:
            # The rest is not sent. Hardly possible, because the whole envelope suited the same server.
            groups.postpone()
            return False
        return True

    def settle(self, receipt: Receipt) -> Receipt:
        """End the job with the receipt of its last transaction; return the receipt about all recipients."""
        if self.groups is not None:
            receipt = self.groups.merged(receipt)
        self.end(receipt)
        return receipt

    def end(self, receipt: Receipt) -> None:
        """End the job; `receipt` is about all recipients, and not for a caller who has an answer already."""
        if self.receipt is None:
            self.receipt = receipt
        self.connection = None
        if self.transaction is not None:
            # SendJob and transaction refer to each other: left so, every message would wait for the garbage collector.
            self.transaction.owner = None
        self.advance(_DONE)
