"""One message between its caller and a session.

A caller waits for steps: prepare the message for what the server offers, write a large body, done. All three happen in
the caller's own task, so that its context, its exceptions and its cancellation stay its own. Everything else about a
job is synchronous: whoever holds it moves it on with `advance`.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING

from .content import Mail
from .errors import ConnectFirst, SMTPError
from .protocol.extensions import Extensions
from .protocol.transaction import SendOptions, Transaction, not_sent, plan
from .receipt import Receipt

if TYPE_CHECKING:
    from .pump import Pump

__all__ = ["Job", "Step"]


class Step(Enum):
    """What a job's caller is to do next."""

    #: Render and plan for `job.extensions`.
    PREPARE = "prepare"
    #: Write the body through `job.session`.
    WRITE = "write"
    #: Read `job.receipt`.
    DONE = "done"


class Job:
    """A message to be sent, and how far it is.

    Args:
        number: the message's number within its client, from 1.
        mail: what to send.
        options: how.
        due: loop time after which the caller no longer waits, None for ever.
    """

    __slots__ = (
        "abandoned",
        "due",
        "extensions",
        "mail",
        "number",
        "options",
        "receipt",
        "retries",
        "session",
        "transaction",
        "waiter",
    )

    def __init__(self, number: int, mail: Mail, options: SendOptions, due: float | None = None) -> None:
        self.number = number
        self.mail = mail
        self.options = options
        self.due = due
        #: What `transaction` was or is to be planned for.
        self.extensions: Extensions | None = None
        self.transaction: Transaction | None = None
        #: The session that carries it, from the first byte on.
        self.session: Pump | None = None
        self.receipt: Receipt | None = None
        self.waiter: asyncio.Future[Step] | None = None
        #: How often it went back to the queue because its connection died before it was sent.
        self.retries = 0
        #: Nobody waits any more.
        self.abandoned = False

    def prepare(self) -> None:
        """Render and plan for `extensions`; every fault of the message shows here, before a byte is written.

        Raises:
            SMTPError: it cannot be sent to this server; the receipt says that nothing was.
        """
        if self.extensions is None:
            raise ConnectFirst("nothing is known about the server yet")
        offer = self.extensions
        try:
            content = self.mail.render(eightbit=offer.eightbitmime, utf8=offer.smtputf8)
            transaction = plan(self.mail.envelope(), content, offer, self.options)
        except SMTPError as error:
            error.receipt = self.unsent(error)
            raise
        if self.options.before_end_of_data is not None:
            # The gate is the caller's, so the body is written by the caller.
            transaction.payload = None
        transaction.owner = self
        self.transaction = transaction

    def unsent(self, error: SMTPError) -> Receipt:
        """Return the receipt that says: nothing of this message left."""
        twin = error.copy()
        twin.receipt = None
        return not_sent(self.mail.envelope().recipients, twin)

    def advance(self, step: Step) -> None:
        """Tell the caller what to do next; nobody hears it if the caller has gone."""
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(step)

    def settle(self, receipt: Receipt) -> None:
        """The message has come to its end."""
        self.receipt = receipt
        self.session = None
        self.advance(Step.DONE)
