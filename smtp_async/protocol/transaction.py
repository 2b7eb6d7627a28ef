"""One message on one connection: the lines to write, the replies to them, and the outcome for each recipient.

Strategy: `plan.py` turns an envelope and its content into a `Transaction` for the extensions of one server: every line
is made and checked in the caller's task, so that a connection gets bytes that cannot fail. The pipeline fills in the
replies as they are read. After the last one, or when the connection is dead, `conclude` or `give_up` writes the
receipt.

The receipt names the cause, not the last complaint: a refused MAIL is the reason for the 503s behind it; a refused
recipient keeps its own reply; the other recipients are refused by the reply to DATA or to the end of data.

The line between "not sent" and "unknown" is `handed`: whether the last byte of the end of data was handed to the
transport. What the kernel did with it cannot be known.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, Final

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

__all__ = ["Transaction"]

# A member is found in its class several times as slowly as a global name.
_ACCEPTED: Final = Outcome.ACCEPTED
# The class of a named tuple calls this by a function in Python, which takes 0.5 of its 0.8 µs.
_made: Final = tuple.__new__


class Transaction:
    """One message on its way over one connection.

    Made by `plan`; only the pipeline changes it. `owner` is the job that the transaction belongs to; the job sets it.
    """

    __slots__ = (
        "accepted",
        "answers",
        "caller_paced",
        "behind",
        "bytes_sent",
        "chunked",
        "content",
        "data_answer",
        "ended",
        "exact",
        "envelope",
        "cut_off",
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
        "replies_owed",
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
        #: The body as it is written, None if the caller streams it; set by `set_payload` only.
        self.payload: bytes | None = None
        #: The size of the payload in octets; None if the caller streams the body.
        self.octets: int | None = None
        #: The body is written with BDAT.
        self.chunked = False
        #: The octets of the body are written as they are, bare CR and LF included; only in chunks.
        self.exact = False
        #: The caller decides when the body is written: it streams it, or lets it go after `before_end_of_data`.
        self.caller_paced = True
        self.owner: Any = None
        self.renew()

    def renew(self) -> None:
        """Forget what was written and answered, because the message will be tried on another connection."""
        #: How many lines of the envelope were written so far, without DATA.
        self.written = 0
        #: How many replies are owed.
        self.replies_owed = 0
        #: Every reply to RCPT must be read before DATA is written.
        self.hold = False
        self.mail_answer: Reply | None = None
        self.mail_refused = False
        self.answers: list[Reply] = []
        self.accepted = 0
        self.data_answer: Reply | None = None
        self.final: list[Reply] = []
        #: The caller has the write turn: it may write the body now, or let it go.
        self.turn = False
        #: The end of data is written, or will never be.
        self.ended = False
        #: The last byte of the end of data was handed to the transport.
        self.handed = False
        #: RSET was written before MAIL.
        self.reset = False
        #: The transaction was begun before the end of data of another message was answered.
        self.behind = False
        #: It was begun in the same write as that end of data: only then does its RSET prove that the server reads on.
        self.together = False
        #: Its RSET asks whether the server reads on behind an end of data; the envelope waits for the reply.
        self.probes = False
        #: Before the server took the message, it said 421, or its replies no longer matched the commands.
        self.cut_off = False
        #: The caller was cancelled: the message must not be sent.
        self.withdrawn = False
        self.bytes_sent = 0
        #: Octets of a streamed body so far, before framing.
        self.streamed = 0
        self.receipt: Receipt | None = None

    def set_payload(self, payload: bytes | None, *, gated: bool = False) -> None:
        """Set the body.

        Args:
            payload: the body as it is written, with its end; None if the caller streams it.
            gated: wait until the caller lets the body go, after `before_end_of_data`.
        """
        self.payload = payload
        self.octets = None if payload is None else len(payload)
        self.caller_paced = gated or payload is None

    @property
    def misunderstood(self) -> bool:
        """Did the server refuse the parameters of MAIL (555, RFC 5321 section 4.1.1.11), although it offered them?"""
        return (
            self.mail_answer is not None and self.mail_answer.code == 555 and not self.mail.endswith(b">\r\n")
        )

    def suits(self, offer: Extensions) -> bool:
        """Can it be sent as planned to a server with this `offer`, which may have more extensions?"""
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

        After a 354 only a dropped connection could stop the message. A single recipient needs no waiting, because its
        refusal leaves no recipient.
        """
        return len(self.recipients) > 1 and any(one.kind in self.must_accept for one in self.recipients)

    @property
    def vetoed(self) -> bool:
        """Was a recipient refused that must be accepted?"""
        return self.accepted < len(self.answers) and any(map(self._vetoes, self.recipients, self.answers))

    def _vetoes(self, recipient: Recipient, answer: Reply) -> bool:
        # A recipient that was only one too many may wait for another transaction.
        waits = self.split and self.accepted > 0 and answer.too_many_recipients
        return not answer.positive and recipient.kind in self.must_accept and not waits

    def conclude(self, *, per_recipient: bool) -> None:
        """Write the receipt of a transaction whose owed replies were all read.

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
            reply = final[0]
            verdict = _made(Verdict, (self.recipients[0], _ACCEPTED, reply))
            self.receipt = _made(Receipt, ((verdict,), reply, None, self.message_id, self.bytes_sent))

    def give_up(self, error: SMTPError, *, after_421: bool) -> None:
        """Write the receipt of a transaction whose connection is dead.

        Args:
            error: what ended the connection.
            after_421: a 421 was read for an earlier command: replies are in order, so nothing behind it was accepted.
        """
        if self.final and self.ended and not (self.handed or after_421):
            # A refused chunk refuses the message: the end of data that will not be written changes nothing.
            self.conclude(per_recipient=True)
        # Replies after the 421, or after a mismatch, are no verdict on any recipient.
        elif not self.handed or (self.cut_off and after_421):
            self.receipt = self._whole(
                Outcome.NOT_SENT, None, _caused(NotSent, "the message was not sent", error)
            )
        elif self.mail_refused and not (after_421 or self.cut_off):
            self._conclude_refused_mail()
        else:
            self._give_up_handed(error, Outcome.NOT_SENT if after_421 else Outcome.UNKNOWN)

    def _conclude_refused_mail(self) -> None:
        # A server that refuses MAIL and accepts the end of data may have delivered under any sender.
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
        """Write the receipt of a message without a body: DATA was refused, or never written.

        It was never written because recipients were refused or the caller withdrew the message.
        """
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
        """Write the receipt for complete verdicts, with the matching exception."""
        reply = _blamed(verdicts)
        error: SMTPError | None = None
        if any(verdict.accepted for verdict in verdicts):
            reply = reply or self.final[0]
        elif self.vetoed or (not self.accepted and len(self.answers) == len(self.recipients)):
            error = self._recipients_refused()
            reply = error.reply
        elif self.final or self.data_answer is not None:
            # Enough recipients were accepted: the refused ones are not the cause.
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
        # If some were accepted, the cause is a recipient that had to be accepted.
        reason = next((pair for pair in refused if self.accepted and self._vetoes(*pair)), refused[0])
        return RecipientsRefused(_named([one for one, _ in refused]), reply=reason[1], stage="RCPT")

    def _whole(self, outcome: Outcome, reply: Reply | None, error: SMTPError) -> Receipt:
        verdicts = tuple(Verdict(one, outcome, reply) for one in self.recipients)
        return Receipt(verdicts, reply, error, self.message_id, self.bytes_sent)


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
