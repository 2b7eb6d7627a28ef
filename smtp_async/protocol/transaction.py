"""One record per message: what to write, what was answered, who is to blame, what became of whom.

Strategy: `plan.py` turns an envelope and its content into a `Transaction` for one offer of extensions: every line is
made and checked in the caller's task, so that a session gets bytes that cannot fail. The machine fills in the answers
as they come. When the last owed one is read, or the connection is dead, `conclude` or `give_up` writes the receipt.

Blame follows cause, not order of complaint: a refused MAIL is the reason for the 503s behind it; a refused recipient
keeps its own reply; what remains is refused by DATA or by the end of data.

The line between "not sent" and "unknown" is `handed`: whether the last byte of the end of data was handed to the
transport. What the kernel did with it cannot be known.
"""

from __future__ import annotations

from itertools import zip_longest

from ..errors import (
    MessageRefused,
    NotSent,
    OutcomeUnknown,
    ProtocolViolation,
    RecipientsRefused,
    SenderRefused,
    SMTPError,
)
from ..model.content import Content
from ..model.envelope import Recipient
from ..model.receipt import Outcome, Receipt, Verdict
from ..model.reply import Reply
from .extensions import Extensions
from .options import SendOptions

__all__ = ["Transaction", "not_sent"]


class Transaction:
    """One message on its way over one connection.

    Made by `plan`; the machine alone changes it. `owner` is the session's, for whatever it wants to find again.
    """

    __slots__ = (
        "accepted",
        "answers",
        "aside",
        "behind",
        "bytes_sent",
        "chunked",
        "content",
        "data_answer",
        "ended",
        "exact",
        "envelope",
        "dismissed",
        "extensions",
        "final",
        "handed",
        "hold",
        "mail",
        "mail_answer",
        "mail_refused",
        "message_id",
        "must_accept",
        "octets",
        "owed",
        "owner",
        "payload",
        "probes",
        "rcpts",
        "receipt",
        "recipients",
        "reset",
        "split",
        "streamed",
        "together",
        "turn",
        "withdrawn",
        "written",
    )

    def __init__(
        self,
        mail: bytes,
        rcpts: tuple[bytes, ...],
        recipients: tuple[Recipient, ...],
        content: Content,
        extensions: Extensions,
        options: SendOptions,
    ) -> None:
        self.mail = mail
        self.rcpts = rcpts
        self.recipients = recipients
        self.envelope = mail + (rcpts[0] if len(rcpts) == 1 else b"".join(rcpts))
        self.content = content
        self.extensions = extensions
        self.must_accept = options.must_accept
        self.split = options.split
        self.message_id = content.message_id
        #: The body as it is written, None if it is streamed by its caller; set by `carry` only.
        self.payload: bytes | None = None
        #: What it takes on the wire; None if it is streamed.
        self.octets: int | None = None
        #: The body is written with BDAT.
        self.chunked = False
        #: Its octets leave as they are, bare CR and LF included; only in chunks.
        self.exact = False
        #: Its caller writes the body, or lets it go: either may take long.
        self.aside = True
        self.owner: object = None
        self.renew()

    def renew(self) -> None:
        """Forget everything answered: the same message is going to be tried on another connection."""
        #: Lines of the envelope written so far, DATA not among them.
        self.written = 0
        #: Replies owed.
        self.owed = 0
        #: Wait for every RCPT reply before DATA is written?
        self.hold = False
        self.mail_answer: Reply | None = None
        self.mail_refused = False
        self.answers: list[Reply] = []
        self.accepted = 0
        self.data_answer: Reply | None = None
        self.final: list[Reply] = []
        #: Its caller may write the body, or let it go.
        self.turn = False
        #: The end of data is written, or will never be.
        self.ended = False
        #: The last byte of the end of data was handed to the transport.
        self.handed = False
        #: RSET was written before it.
        self.reset = False
        #: It was begun before the end of data of another message was answered.
        self.behind = False
        #: It was begun in the same write as an end of data: only then does its RSET prove that the server reads on.
        self.together = False
        #: Its RSET asks whether the server reads on behind an end of data; the envelope waits for the reply.
        self.probes = False
        #: The connection was given up before the server took the message.
        self.dismissed = False
        #: Its caller has gone; it must not be sent.
        self.withdrawn = False
        self.bytes_sent = 0
        #: Octets of a streamed body so far, before framing.
        self.streamed = 0
        self.receipt: Receipt | None = None

    def carry(self, payload: bytes | None, *, gated: bool = False) -> None:
        """Have the session write `payload` as the body.

        Args:
            payload: the body as it is written, its end included; None: its caller streams it.
            gated: wait until its caller lets the body go.
        """
        self.payload = payload
        self.octets = None if payload is None else len(payload)
        self.aside = gated or payload is None

    @property
    def misunderstood(self) -> bool:
        """Did the server not know the parameters of MAIL (555, RFC 5321 section 4.1.1.11), although it offered them?"""
        return (
            self.mail_answer is not None and self.mail_answer.code == 555 and not self.mail.endswith(b">\r\n")
        )

    def suits(self, offer: Extensions) -> bool:
        """Can it be sent as it was planned where `offer` is made? Only what is offered less matters, not by whom."""
        planned = self.extensions
        size = self.content.size
        return (
            all(keyword in offer for keyword in planned)
            and offer.limits == planned.limits
            and offer.futurerelease == planned.futurerelease
            and offer.deliverby == planned.deliverby
            and not (offer.size and size is not None and size > offer.size)
        )

    @property
    def decides(self) -> bool:
        """May a refused recipient refuse the message for others? Then DATA waits for all RCPT replies.

        Once 354 is out only a dropped connection could stop the message. A single recipient needs no waiting: when
        it is refused nobody is left.
        """
        return len(self.recipients) > 1 and any(one.kind in self.must_accept for one in self.recipients)

    @property
    def vetoed(self) -> bool:
        """Was a recipient refused that must be accepted?"""
        return self.accepted < len(self.answers) and any(map(self._vetoes, self.recipients, self.answers))

    def _vetoes(self, recipient: Recipient, answer: Reply) -> bool:
        # One that is only too many may wait for another transaction.
        waits = self.split and self.accepted > 0 and answer.too_many_recipients
        return not answer.positive and recipient.kind in self.must_accept and not waits

    def conclude(self, *, per_recipient: bool) -> None:
        """Write the receipt of a transaction all of whose owed replies were read.

        Args:
            per_recipient: LMTP, where each accepted recipient has a final reply of its own.
        """
        final = self.final
        if self.mail_refused:
            self._conclude_refused_mail()
        elif not final or not self.accepted:
            self._conclude_undelivered()
        elif len(self.recipients) > 1 or final[0].code >= 300:
            self._conclude_delivered(per_recipient)
        else:
            # The path of nearly every message.
            verdict = Verdict(self.recipients[0], Outcome.ACCEPTED, final[0])
            self.receipt = Receipt((verdict,), final[0], None, self.message_id, self.bytes_sent)

    def give_up(self, error: SMTPError, *, goodbye: bool) -> None:
        """Write the receipt of a transaction whose connection is dead.

        Args:
            error: what killed it.
            goodbye: a 421 was read for an earlier command: replies are in order, so nothing behind it was accepted.
        """
        if self.final and self.ended and not (self.handed or goodbye):
            # A chunk was refused, and with it the message: the end that will not be written changes nothing.
            self.conclude(per_recipient=True)
        # What follows the reply that gave the connection up judges nobody.
        elif not self.handed or (self.dismissed and goodbye):
            self.receipt = self._whole(
                Outcome.NOT_SENT, None, _caused(NotSent, "the message was not sent", error)
            )
        elif self.mail_refused and not (goodbye or self.dismissed):
            self._conclude_refused_mail()
        else:
            self._give_up_handed(error, Outcome.NOT_SENT if goodbye else Outcome.UNKNOWN)

    def _conclude_refused_mail(self) -> None:
        # A server that refuses MAIL and yet accepts the end of data may have delivered under any sender.
        if any(reply.positive for reply in self.final):
            violation = ProtocolViolation("the server refused the sender and accepted the message")
            text = "the sender was refused and the end of data accepted"
            self.receipt = self._whole(
                Outcome.UNKNOWN, self.mail_answer, _caused(OutcomeUnknown, text, violation)
            )
            return
        error = SenderRefused("the sender was refused", reply=self.mail_answer, stage="MAIL")
        self.receipt = self._whole(Outcome.REFUSED, self.mail_answer, error)

    def _conclude_delivered(self, per_recipient: bool) -> None:
        finals = iter(self.final if per_recipient else self.final * self.accepted)
        verdicts = tuple(
            _verdict(one, next(finals) if answer.positive else answer)
            for one, answer in zip(self.recipients, self.answers, strict=True)
        )
        self._judge(verdicts)

    def _conclude_undelivered(self) -> None:
        """DATA was refused, or was never written: recipients were refused, or its caller has gone."""
        verdicts = []
        for one, answer in zip_longest(self.recipients, self.answers):
            if answer is not None and not answer.positive:
                verdicts.append(Verdict(one, Outcome.REFUSED, answer))
            elif self.data_answer is None:
                verdicts.append(Verdict(one, Outcome.NOT_SENT, answer))
            else:
                verdicts.append(Verdict(one, Outcome.REFUSED, self.data_answer))
        self._judge(tuple(verdicts))

    def _give_up_handed(self, error: SMTPError, rest: Outcome) -> None:
        # Some final replies may have come: those of an LMTP server, one for each accepted recipient.
        finals = iter(self.final)
        verdicts = []
        waiting = False
        for one, answer in zip_longest(self.recipients, self.answers):
            if answer is not None and not answer.positive:
                verdicts.append(Verdict(one, Outcome.REFUSED, answer))
                continue
            final = next(finals, None)
            waiting = waiting or final is None
            verdicts.append(Verdict(one, rest, answer) if final is None else _verdict(one, final))
        if not waiting or (rest is Outcome.NOT_SENT and any(verdict.accepted for verdict in verdicts)):
            self._judge(tuple(verdicts))
            return
        if rest is Outcome.UNKNOWN:
            cause = _caused(
                OutcomeUnknown, "the end of the message was sent and its reply did not come", error
            )
        else:
            cause = _caused(NotSent, "the server closed the connection before it took the message", error)
        self.receipt = Receipt(tuple(verdicts), _blamed(verdicts), cause, self.message_id, self.bytes_sent)

    def _judge(self, verdicts: tuple[Verdict, ...]) -> None:
        """Write the receipt for complete verdicts, with the exception that tells it."""
        reply = _blamed(verdicts)
        error: SMTPError | None = None
        if any(verdict.accepted for verdict in verdicts):
            reply = reply or self.final[0]
        elif self.vetoed or (not self.accepted and len(self.answers) == len(self.recipients)):
            error = self._recipients_refused()
            reply = error.reply
        elif self.final or self.data_answer is not None:
            # Enough recipients were accepted: those refused are not the reason.
            reply = self.final[0] if self.final else self.data_answer
            stage = "end of data" if self.final else "DATA"
            error = MessageRefused("the message was refused", reply=reply, stage=stage)
        else:
            error = NotSent("the message was withdrawn before it was sent")
        self.receipt = Receipt(verdicts, reply, error, self.message_id, self.bytes_sent)

    def _recipients_refused(self) -> RecipientsRefused:
        refused = [
            (one, answer)
            for one, answer in zip(self.recipients, self.answers, strict=False)
            if not answer.positive
        ]
        # Where some were accepted the reason is one that had to be.
        reason = next((pair for pair in refused if self.accepted and self._vetoes(*pair)), refused[0])
        return RecipientsRefused(_named([one for one, _ in refused]), reply=reason[1], stage="RCPT")

    def _whole(self, outcome: Outcome, reply: Reply | None, error: SMTPError) -> Receipt:
        verdicts = tuple(Verdict(one, outcome, reply) for one in self.recipients)
        return Receipt(verdicts, reply, error, self.message_id, self.bytes_sent)


def not_sent(recipients: tuple[Recipient, ...], error: SMTPError, message_id: str | None = None) -> Receipt:
    """Return the receipt of a message that never met a server."""
    return Receipt(tuple(Verdict(one, Outcome.NOT_SENT) for one in recipients), None, error, message_id)


def _verdict(recipient: Recipient, final: Reply) -> Verdict:
    return Verdict(recipient, Outcome.ACCEPTED if final.positive else Outcome.REFUSED, final)


def _blamed(verdicts: list[Verdict] | tuple[Verdict, ...]) -> Reply | None:
    return next((verdict.reply for verdict in verdicts if verdict.outcome is Outcome.REFUSED), None)


def _named(recipients: list[Recipient]) -> str:
    names = ", ".join(str(one.address) for one in recipients[:3])
    more = f" and {len(recipients) - 3} more" if len(recipients) > 3 else ""
    return f"refused: {names}{more}"


def _caused(cls: type[NotSent] | type[OutcomeUnknown], text: str, cause: SMTPError) -> SMTPError:
    error = cls(f"{text}: {cause}", stage=cause.stage)
    error.__cause__ = cause
    return error
