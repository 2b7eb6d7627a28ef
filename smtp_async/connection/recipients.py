"""The recipients of one message, in groups: one transaction serves one group.

Nearly every message has a single group: all of its recipients. There are more where the server takes fewer
recipients at once: it announces a limit (RFC 9422, RCPTMAX and RCPTDOMAINMAX), or it answers RCPT with 452 or an
enhanced code X.5.3. The groups are sent one after the other, and the caller gets one receipt about all of them.

Recipients are known by their positions in the envelope, because an address may stand in it twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..errors import SMTPError, TooManyRecipients
from ..model.envelope import Envelope, Recipient
from ..model.receipt import Outcome, Receipt, Verdict
from ..protocol.transaction import Transaction

__all__ = ["RecipientGroups", "first_group_size"]


class RecipientGroups:
    """Which recipients the present transaction serves, which are left, and what became of the others.

    Args:
        envelope: the envelope of the whole message.

    Attributes:
        envelope: the same.
        left: positions of the recipients that are left for later transactions.
        concluded: the verdicts, by position, of groups whose transactions have ended while recipients were left; None
            before the first of these.
    """

    __slots__ = ("_bytes_sent", "_present", "concluded", "envelope", "left")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.left: Sequence[int] = ()
        self.concluded: dict[int, Verdict] | None = None
        # Positions of the present group; None for all recipients, without asking what the server's limits are.
        self._present: Sequence[int] | None = None
        # Octets sent by the transactions in `concluded`.
        self._bytes_sent = 0

    def present_envelope(self) -> Envelope:
        """Return the envelope of the present group."""
        recipients = self.envelope.recipients
        if self._present is None or len(self._present) == len(recipients):
            return self.envelope
        return Envelope(self.envelope.sender, [recipients[at] for at in self._present])

    def choose(self, limits: Mapping[str, int], *, split: bool) -> None:
        """Choose the present group anew, from all recipients whose transactions have not ended.

        Args:
            limits: what the server announced (RFC 9422).
            split: whether some may be left for another transaction.

        Raises:
            TooManyRecipients: there are more than `limits` allow, and `split` is false.
        """
        self.postpone()
        most = first_group_size([self.envelope.recipients[at] for at in self.left], limits)
        if most < len(self.left) and not split:
            text = f"the server takes {most} recipients of this message at once, it has {len(self.left)}"
            raise TooManyRecipients(text, stage="RCPT")
        self._present, self.left = self.left[:most], self.left[most:]

    def postpone(self) -> None:
        """Move the present group back to the recipients that are left."""
        self.left = [*self._positions(), *self.left]
        self._present = ()

    def conclude(self, transaction: Transaction, receipt: Receipt) -> bool:
        """Record the receipt of the present group's transaction if other recipients are to be sent to after it.

        Recipients whom the server refused only because there were too many join those that are left. Nothing follows
        where the server accepted no recipient at all.

        Returns:
            Whether recipients are left for another transaction; `choose` then forms the next group.
        """
        crowded = transaction.split and 0 < transaction.accepted < len(transaction.answers)
        positions = self._positions()
        again = [at for at, one in zip(positions, receipt.verdicts, strict=True) if crowded and _waits(one)]
        if not receipt.accepted or not (again or self.left):
            return False
        verdicts = zip(positions, receipt.verdicts, strict=True)
        self.concluded = (self.concluded or {}) | {at: one for at, one in verdicts if at not in again}
        self._bytes_sent += receipt.bytes_sent
        self.left = [*again, *self.left]
        self._present = ()
        return True

    def merged(self, receipt: Receipt) -> Receipt:
        """Return one receipt about all recipients.

        Args:
            receipt: the receipt of the last transaction. After `conclude` without another `choose` it counts already,
                and only its reply and error are taken.
        """
        if self.concluded is None and not self.left:
            return receipt
        known = dict(self.concluded or {})
        if self._present != ():
            known.update(zip(self._positions(), receipt.verdicts, strict=True))
        verdicts = tuple(
            known.get(at) or Verdict(one, Outcome.NOT_SENT) for at, one in enumerate(self.envelope.recipients)
        )
        refusal = next((one.reply for one in verdicts if one.outcome is Outcome.REFUSED), receipt.reply)
        outcomes = {one.outcome for one in verdicts}
        accepted = Outcome.ACCEPTED in outcomes and Outcome.UNKNOWN not in outcomes
        return Receipt(
            verdicts,
            refusal,
            None if accepted else receipt.error,
            receipt.message_id,
            self._bytes_sent + (receipt.bytes_sent if self._present != () else 0),
        )

    def receipt(self, outcome: Outcome, error: SMTPError, transaction: Transaction | None) -> Receipt:
        """Return the receipt about all recipients while the present transaction has none of its own.

        Args:
            outcome: the outcome of every recipient of the present group.
            error: the reason.
            transaction: the present transaction, None if it is not planned yet.
        """
        recipients = self.envelope.recipients
        verdicts = tuple([Verdict(recipients[at], outcome) for at in self._positions()])
        name, count = (None, 0) if transaction is None else (transaction.message_id, transaction.bytes_sent)
        return self.merged(Receipt(verdicts, None, error, name, count))

    def _positions(self) -> Sequence[int]:
        return range(len(self.envelope.recipients)) if self._present is None else self._present


def _waits(verdict: Verdict) -> bool:
    """Tell whether a recipient was refused only because the transaction had too many."""
    reply = verdict.reply
    return verdict.outcome is Outcome.REFUSED and reply is not None and reply.too_many_recipients


def first_group_size(recipients: Iterable[Recipient], limits: Mapping[str, int]) -> int:
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
