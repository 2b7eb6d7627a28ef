"""One message between its caller and a session.

A caller waits for steps: prepare the message for what the server offers, write a large body, done. All three happen in
the caller's own task, so that its context, its exceptions and its cancellation stay its own. Everything else about a
job is synchronous: whoever holds it moves it on with `advance`.

A message whose recipients do not fit into one transaction (RFC 9422, or 452 to a RCPT) is still one job: when a
transaction ends and recipients are left, `follow` plans the next one from the content that is rendered already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import Protocol

from ..errors import NotSent, OutcomeUnknown, SMTPError, TooManyRecipients
from ..model.content import Content, Mail
from ..model.envelope import NOBODY, Envelope, Recipient
from ..model.receipt import Outcome, Receipt, Verdict
from ..model.reply import Reply
from ..protocol.extensions import Extensions
from ..protocol.options import SendOptions
from ..protocol.plan import demand_to, plan
from ..protocol.transaction import Transaction
from ..sources import Body, TempDir, in_thread
from ..sources.unread import Unread
from .errand import Errand

__all__ = ["BodyWriter", "Job", "Step", "first_group"]


class Step(Enum):
    """What a job's caller is to do next."""

    #: Render and plan for `job.extensions`.
    PREPARE = "prepare"
    #: Open the parts that are read while they are sent, before it is planned.
    OPEN = "open"
    #: Write the body through `job.session`.
    WRITE = "write"
    #: Read `job.receipt`.
    DONE = "done"


class BodyWriter(Protocol):
    """The connection that carries a job, as its caller and the pool see it.

    Attributes:
        dialled_at, opened_at: loop times at which it was dialled, and opened.
        carried: did the server accept or refuse a message on it?
    """

    dialled_at: float
    opened_at: float
    carried: bool

    async def write_body(self, job: Job) -> None:
        """Write the body of a job that was told so, in the caller's own task."""

    def cancel(self, job: Job) -> bool:
        """Its caller has gone: return whether the message will certainly not be sent."""


class Job:
    """A message to be sent, and how far it is.

    Args:
        number: the message's number within its client, from 1.
        mail: what to send.
        options: how.
        due: loop time after which the caller no longer waits, None for ever; in the queue the pool may shorten it, and
            `send_by` remembers.
        chunking: write the body with BDAT where the server takes it.
        heavy: there is so much in memory that it is rendered in a thread.
        temp_dir: where what can be read only once is kept if it has to be read twice.
    """

    __slots__ = (
        "__weakref__",
        "_bytes",
        "_content",
        "_ended",
        "_part",
        "_rest",
        "abandoned",
        "alone",
        "asked_anew",
        "body",
        "chunking",
        "due",
        "envelope",
        "errand",
        "extensions",
        "heavy",
        "mail",
        "number",
        "options",
        "patient",
        "receipt",
        "retries",
        "send_by",
        "session",
        "temp_dir",
        "transaction",
        "undialled",
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
        self.options = options
        self.due = self.send_by = due
        self.chunking = chunking
        self.heavy = heavy
        self.temp_dir = temp_dir
        #: What `transaction` was or is to be planned for.
        self.extensions: Extensions | None = None
        self.transaction: Transaction | None = None
        #: What its caller reads while it is sent; None for a message that its session sends.
        self.body: Body | None = None
        #: The session that carries it, from the first byte on.
        self.session: BodyWriter | None = None
        self.receipt: Receipt | None = None
        self.waiter: asyncio.Future[Step] | None = None
        #: What its caller does beside waiting.
        self.errand: Errand[None] | None = None
        #: How often it went back to the queue because its connection died before it was sent.
        self.retries = 0
        #: Why no connection could be had for it.
        self.undialled: SMTPError | None = None
        #: Nobody waits any more.
        self.abandoned = False
        #: The server was asked what it offers because it refused parameters of this message.
        self.asked_anew = False
        #: It waits through an outage of the server, where others fail with the first connection that cannot be had.
        self.patient = False
        #: A session's user sends it over that session, or not at all.
        self.alone = False
        self._content: Content | None = None
        # Places in the envelope: those of the transaction, where it does not have all; those left for later.
        self._part: Sequence[int] | None = None
        self._rest: Sequence[int] = ()
        # What became of those whose transaction has ended, while others are left.
        self._ended: dict[int, Verdict] | None = None
        self._bytes = 0

    def prepare(self) -> bool:
        """Render and plan for `extensions`; every fault of the message shows here, before a byte is written.

        A job that is planned already is left as it is, and one that has no `extensions` yet waits to know them.

        Returns:
            False if it is not planned yet because it is large, or because parts of it are to be opened and measured:
            await `open`.

        Raises:
            SMTPError: it cannot be sent to this server; the receipt says that nothing was.
        """
        offer = self.extensions
        if offer is None or self.transaction is not None:
            return True
        try:
            if self._rest or offer.limits:
                self._divide(offer)
            if self.heavy:
                self._content = None
                return False
            content = self._rendered(offer)
            if content.sources:
                self._content = content
                return False
            self._plan(content, offer)
        except SMTPError as error:
            error.receipt = self.unsent(error)
            raise
        return True

    def _rendered(self, offer: Extensions) -> Content:
        return self.mail.content(
            eightbit=offer.eightbitmime,
            utf8=offer.smtputf8,
            binary=offer.binarymime and offer.pipelining and self.options.chunking != "never",
        )

    def prepare_for(self, offer: Extensions) -> None:
        """Have the caller prepare it, for `offer`: as it was planned it cannot be sent."""
        self.extensions = offer
        self.transaction = None
        # It may have been carried before: now it is nowhere.
        self.session = None
        self.advance(Step.PREPARE)

    async def open(self) -> None:
        """Render what is large, open the parts that are read while they are sent, and plan; raises as `prepare`."""
        offer = self.extensions
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
            if self._rest and not body.rereadable:
                # It is going to be sent more than once.
                await body.keep()
            # A message that waits holds no file.
            body.park()
            self._plan(content, offer)
        except SMTPError as error:
            error.receipt = self.unsent(error)
            raise

    def close(self, *, streams: bool = True) -> None:
        """Close what `open` opened; `streams` as `Body.close`. Synchronous: what must be awaited stays as it is."""
        if self.body is not None:
            self.body.close(streams=streams)
        elif streams:
            Unread(self.mail, self._content).close()

    async def aclose(self) -> None:
        """Close, and let async iterators end here, in the caller's task."""
        if self.body is not None:
            await self.body.aclose()
        else:
            await Unread(self.mail, self._content).aclose()

    def _plan(self, content: Content, offer: Extensions) -> None:
        options = self.options if self._ended is None else replace(self.options, must_accept=NOBODY)
        envelope = self.envelope if self._part is None else self._present()
        transaction = plan(envelope, content, offer, options, chunking=self.chunking and offer.chunking)
        if transaction.payload is None and not content.sources:
            self.body = Body(content, temp_dir=self.temp_dir)
        transaction.owner = self
        self.transaction = transaction

    def unsent(self, error: SMTPError) -> Receipt:
        """Return the receipt that says: nothing of what is left of this message was sent."""
        twin = error.copy()
        twin.receipt = None
        return self._whole(Outcome.NOT_SENT, twin)

    def unknown(self, error: SMTPError) -> Receipt:
        """Return the receipt that says: what is left of this message may or may not be delivered."""
        return self._whole(Outcome.UNKNOWN, error)

    def receipt_for_leaver(self, *, unsent: bool) -> Receipt:
        """Return what is known of the message in the moment in which its caller is cancelled.

        Args:
            unsent: it will certainly not be sent.
        """
        if self.receipt is not None:
            return self.receipt
        if unsent:
            return self.unsent(NotSent("the call was cancelled before the message was sent"))
        return self.unknown(
            OutcomeUnknown("the call was cancelled before the server answered the end of data")
        )

    def advance(self, step: Step) -> None:
        """Tell the caller what to do next; nobody hears it if the caller has gone."""
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(step)

    @property
    def parted(self) -> bool:
        """Was it planned for more than one transaction?"""
        return self._part is not None

    @property
    def divided(self) -> bool:
        """Have some recipients got it already, by a transaction of their own?"""
        return self._ended is not None

    def settle(self, receipt: Receipt) -> Receipt:
        """The last transaction has ended, with `receipt`; return the one about all recipients."""
        if self._part is not None and len(self._part) != len(self.envelope.recipients):
            receipt = self._merged(receipt)
        self.end(receipt)
        return receipt

    def end(self, receipt: Receipt) -> None:
        """The message has come to its end; `receipt` is about all recipients."""
        self.receipt = receipt
        self.session = None
        if self.transaction is not None:
            # They know each other: without this every message would wait for the garbage collector.
            self.transaction.owner = None
        self.advance(Step.DONE)

    # --- more than one transaction ---------------------------------------------------------------------------

    def follow(self, receipt: Receipt) -> bool:
        """A transaction has ended: plan the next one if recipients are left for it, and return whether."""
        transaction = self.transaction
        if transaction is None or self.abandoned:
            return False
        refused_as_many = transaction.split and 0 < transaction.accepted < len(transaction.answers)
        if not self._rest and not refused_as_many:
            return False
        part = self._part if self._part is not None else range(len(self.envelope.recipients))
        left = self._left(part, receipt) if refused_as_many else []
        if not receipt.accepted or not (left or self._rest):
            return False
        ended = self._ended if self._ended is not None else {}
        ended.update(
            {at: verdict for at, verdict in zip(part, receipt.verdicts, strict=True) if at not in left}
        )
        self._ended = ended
        self._bytes += receipt.bytes_sent
        self._rest = [*left, *self._rest]
        self._part = ()
        self.retries = 0
        return self._plan_next(transaction)

    def _plan_next(self, before: Transaction) -> bool:
        if before.content.sources and (self.body is None or not self.body.rereadable):
            # It was read, and cannot be read again: the rest is not sent.
            return False
        try:
            self._divide(before.extensions)
            self._plan(before.content, before.extensions)
        except SMTPError:
            # The same content was planned a moment ago: cannot be, and then the rest is not sent.
            return False
        return True

    def _left(self, part: Sequence[int], receipt: Receipt) -> list[int]:
        """The recipients that were only too many for this transaction."""
        return [
            at
            for at, verdict in zip(part, receipt.verdicts, strict=True)
            if verdict.outcome is Outcome.REFUSED
            and verdict.reply is not None
            and verdict.reply.too_many_recipients
        ]

    def _divide(self, offer: Extensions) -> None:
        """Choose who is in the next transaction, as far as the server announced limits."""
        if not self._rest and not offer.limits:
            return
        if self._ended is None:
            self._rest = range(len(self.envelope.recipients))
        elif self._part:
            # Planned before, for a server that offered something else.
            self._rest = [*self._part, *self._rest]
        most = first_group([self.envelope.recipients[at] for at in self._rest], offer.limits)
        if most < len(self._rest) and not self.options.split:
            text = f"the server takes {most} recipients of this message at once, it has {len(self._rest)}"
            raise TooManyRecipients(text, stage="RCPT")
        self._part, self._rest = self._rest[:most], self._rest[most:]

    def _present(self) -> Envelope:
        if self._part is None or len(self._part) == len(self.envelope.recipients):
            return self.envelope
        return Envelope(self.envelope.sender, [self.envelope.recipients[at] for at in self._part])

    def _whole(self, outcome: Outcome, error: SMTPError) -> Receipt:
        """The receipt when the transaction under way has no end of its own."""
        count = len(self.envelope.recipients)
        part = range(count) if self._part is None else self._part
        return self._told({at: Verdict(self.envelope.recipients[at], outcome) for at in part}, None, error)

    def _merged(self, last: Receipt) -> Receipt:
        part = range(len(self.envelope.recipients)) if self._part is None else self._part
        return self._told(dict(zip(part, last.verdicts, strict=False)), last.reply, last.error)

    def _told(self, part: Mapping[int, Verdict], reply: Reply | None, error: SMTPError | None) -> Receipt:
        """One receipt for all: those that ended before, those of this part, and those whose turn never came."""
        known = {**(self._ended or {}), **part}
        verdicts = tuple(
            [
                known.get(at) or Verdict(one, Outcome.NOT_SENT)
                for at, one in enumerate(self.envelope.recipients)
            ]
        )
        refused = [one.reply for one in verdicts if one.outcome is Outcome.REFUSED]
        if any(one.accepted for one in verdicts) and not any(
            one.outcome is Outcome.UNKNOWN for one in verdicts
        ):
            error = None
        last = self.transaction
        name, count = (None, 0) if last is None else (last.message_id, last.bytes_sent)
        return Receipt(verdicts, refused[0] if refused else reply, error, name, self._bytes + count)


def first_group(recipients: Iterable[Recipient], limits: Mapping[str, int]) -> int:
    """Return how many of `recipients` one transaction takes, at least 1: RFC 9422 RCPTMAX and RCPTDOMAINMAX."""
    most = limits.get("RCPTMAX")
    most_domains = limits.get("RCPTDOMAINMAX")
    domains: set[str] = set()
    count = 0
    for recipient in recipients:
        domains.add(recipient.address.ascii_domain.lower())
        if count and (count == most or (most_domains is not None and len(domains) > most_domains)):
            break
        count += 1
    return count
