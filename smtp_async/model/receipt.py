"""What became of a message: an outcome for the whole, a verdict for each recipient.

These are made once per message on the fastest path of the library, therefore tuples, and everything that can be
derived is a property.
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
    # From the beginning of a word, and never less than all of it: else it is quadratic.
    r"|(?<![\w.-])([\w.-]++) - gsmtp",
    re.IGNORECASE,
)


class Outcome(Enum):
    """What became of a message, or of one recipient of it."""

    #: The server took responsibility.
    ACCEPTED = "accepted"
    #: Of a message only: accepted for some recipients.
    PARTIAL = "partial"
    #: The server said no.
    REFUSED = "refused"
    #: It did not leave: sending again cannot make a second copy.
    NOT_SENT = "not sent"
    #: The end of data left, its reply did not come (RFC 1047).
    UNKNOWN = "unknown"

    # Enum hashes its name in Python code; identity is what is meant, and every message is counted by its outcome.
    __hash__ = object.__hash__


class Verdict(NamedTuple):
    """What became of one recipient.

    Attributes:
        recipient: the recipient that the verdict is about.
        outcome: never PARTIAL.
        reply: the reply that decided, if one did.
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
        """The name under which the server queued the message, if its reply names it."""
        if self.outcome is not Outcome.ACCEPTED or self.reply is None:
            return None
        match = _QUEUE_ID.search(self.reply.text)
        return next((group for group in match.groups() if group), None) if match else None


class Receipt(NamedTuple):
    """What became of a message.

    Attributes:
        verdicts: one per recipient, in the order of the envelope.
        reply: the reply to blame or to thank: the first refusal in causal order, else that to the end of data.
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
        """Return `error.receipt` with its type, which an error cannot name: receipts are made of errors."""
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
        """Nothing was accepted or lost from sight, and sending later may help."""
        return not (self.accepted or self.unknown) and any(verdict.temporary for verdict in self.verdicts)

    def raise_for_outcome(self) -> None:
        """Return if the message was accepted for anybody, else raise what became of it.

        Raises:
            SenderRefused, RecipientsRefused, MessageRefused: the server said no.
            NotSent: it did not leave; sending again is safe.
            OutcomeUnknown: it may or may not be delivered.
            SMTPError: any other error that kept it from leaving, for example a failed connection.
        """
        outcome = self.outcome
        if outcome is Outcome.ACCEPTED or outcome is Outcome.PARTIAL:
            return
        # A copy: one failure of a connection ends many messages, each raises it with its own receipt.
        error = self.error.copy() if self.error is not None else NotSent("the message was not sent")
        error.receipt = self
        raise error

    def _having(self, outcome: Outcome) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.outcome is outcome)
