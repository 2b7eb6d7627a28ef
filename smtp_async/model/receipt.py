"""The outcome of a message, and a verdict for each recipient.

These values are made for every message, so they are tuples, which cost less than other classes, and everything that
can be derived is a property.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from ..errors import NotSent, SMTPError
from .envelope import Recipient
from .reply import Reply

__all__ = ["Outcome", "Receipt", "Verdict"]

# How servers name the queue file in the reply to the end of data: Postfix and many others "queued as ID",
# Exim "OK id=ID", qmail "ok DATE qp ID", Exchange and others "<ID> Queued mail", Google "OK DATE ID - gsmtp".
_QUEUE_ID = re.compile(
    r"queued as ([\w.+/=-]*\w)|\bid=([\w.+/=-]*\w)|\bqp (\d+)|<([^<> ]+)>.{0,200}\bqueued\b"
    # Match whole words only, because other matches would make the search quadratic.
    r"|(?<![\w.-])([\w.-]++) - gsmtp",
    re.IGNORECASE,
)


class Outcome(Enum):
    """The outcome of a message, or of one of its recipients."""

    #: The server took responsibility.
    ACCEPTED = "accepted"
    #: For a message only: accepted for some recipients.
    PARTIAL = "partial"
    #: The server refused the recipient or the message.
    REFUSED = "refused"
    #: Not sent, so sending again cannot make a second copy.
    NOT_SENT = "not sent"
    #: The end of data was sent, but its reply was not received (RFC 1047).
    UNKNOWN = "unknown"

    # Enum hashes its name in Python code, which is slow for a counter of every message; members are unique objects.
    __hash__ = object.__hash__


class Verdict(NamedTuple):
    """The outcome of one recipient.

    Attributes:
        recipient: the recipient that the verdict is about.
        outcome: never PARTIAL.
        reply: the reply that decided the outcome, if any.
    """

    recipient: Recipient
    outcome: Outcome
    reply: Reply | None = None

    @property
    def accepted(self) -> bool:
        """The server took responsibility for this recipient."""
        return self.outcome is Outcome.ACCEPTED

    @property
    def temporary(self) -> bool:
        """Not accepted, but sending later may help (a 4xx, or nothing was sent)."""
        if self.outcome is Outcome.REFUSED:
            return self.reply is not None and self.reply.temporary
        return self.outcome is Outcome.NOT_SENT

    @property
    def queue_id(self) -> str | None:
        """The id of the message in the server's queue, if the reply names it."""
        if self.outcome is not Outcome.ACCEPTED or self.reply is None:
            return None
        match = _QUEUE_ID.search(self.reply.text)
        return next((group for group in match.groups() if group), None) if match else None


class Receipt(NamedTuple):
    """The outcome of a message.

    Attributes:
        verdicts: one per recipient, in the order of the envelope.
        reply: the decisive reply: the first refusal in causal order, else the reply to the end of data.
        error: why the outcome is not ACCEPTED or PARTIAL.
        message_id: the Message-ID header field, if known.
        bytes_sent: bytes of this message that were handed to the transport, envelope and framing included.
    """

    verdicts: tuple[Verdict, ...]
    reply: Reply | None = None
    error: SMTPError | None = None
    message_id: str | None = None
    bytes_sent: int = 0

    @classmethod
    def of(cls, error: SMTPError) -> Receipt | None:
        """Return `error.receipt` with its type, which `errors` cannot name, because receipts contain errors."""
        return error.receipt if isinstance(error.receipt, cls) else None

    @property
    def outcome(self) -> Outcome:
        """Derived: any unknown → UNKNOWN; all accepted → ACCEPTED; some → PARTIAL; any refused → REFUSED."""
        if len(self.verdicts) == 1:
            return self.verdicts[0].outcome
        outcomes = {verdict.outcome for verdict in self.verdicts}
        if Outcome.UNKNOWN in outcomes:
            return Outcome.UNKNOWN
        if Outcome.ACCEPTED in outcomes:
            return Outcome.ACCEPTED if len(outcomes) == 1 else Outcome.PARTIAL
        return Outcome.REFUSED if Outcome.REFUSED in outcomes else Outcome.NOT_SENT

    @property
    def accepted(self) -> tuple[Verdict, ...]:
        """The verdicts of recipients that the server accepted."""
        return self._having(Outcome.ACCEPTED)

    @property
    def refused(self) -> tuple[Verdict, ...]:
        """The verdicts of recipients that the server refused."""
        return self._having(Outcome.REFUSED)

    @property
    def unknown(self) -> tuple[Verdict, ...]:
        """The verdicts of recipients that may or may not get the message."""
        return self._having(Outcome.UNKNOWN)

    @property
    def not_sent(self) -> tuple[Verdict, ...]:
        """The verdicts of recipients for whom sending again is safe."""
        return self._having(Outcome.NOT_SENT)

    @property
    def temporary(self) -> bool:
        """No recipient was accepted or is unknown, and sending later may succeed."""
        return not (self.accepted or self.unknown) and any(verdict.temporary for verdict in self.verdicts)

    def raise_for_outcome(self) -> None:
        """Return if the message was accepted for at least one recipient, else raise an error.

        Raises:
            SenderRefused, RecipientsRefused, MessageRefused: the server refused it.
            NotSent: the message was not sent; sending again is safe.
            OutcomeUnknown: the message may or may not be delivered.
            SMTPError: any other error that kept the message from being sent, for example a failed connection.
        """
        outcome = self.outcome
        if outcome is Outcome.ACCEPTED or outcome is Outcome.PARTIAL:
            return
        # A copy, because the failure of a connection ends many messages, and each raises it with its own receipt.
        error = self.error.copy() if self.error is not None else NotSent("the message was not sent")
        error.receipt = self
        raise error

    def _having(self, outcome: Outcome) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.outcome is outcome)
