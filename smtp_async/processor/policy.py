"""What is to become of a message after a try: error × scope → delivered, deferred, failed.

All failure policy of the queue is in this file, and all of it is the table `RULINGS`. Two questions are asked of an
error. Whom does it concern: the host (every message would meet the same: a dead server, a broken certificate, a wrong
password), the message, or one recipient? And may a later try end otherwise?

A problem of the host never counts against a message: nobody's mail bounces because a password has expired. A refusal
is judged by its first digit (RFC 5321 section 4.2.1); single codes only refine that.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, Literal, NamedTuple

from ..errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    CommandRefused,
    CommunicationError,
    ExtensionMissing,
    FileError,
    GreetingRefused,
    HelloRefused,
    InvalidArgument,
    MessageRefused,
    MissingHost,
    NotSent,
    OutcomeUnknown,
    QueueFull,
    RecipientsRefused,
    RecordInvalid,
    SenderRefused,
    SMTPError,
    StartTLSRefused,
    Timeout,
    TLSError,
    TooManyRecipients,
    UsageError,
)
from ..model.envelope import Recipient
from ..model.receipt import Outcome, Receipt, Verdict
from ..model.reply import Reply, too_many_recipients

__all__ = [
    "Disposition",
    "Fate",
    "OnUnknown",
    "Ruling",
    "Scope",
    "Sentence",
    "judge",
    "receipt_of",
    "ruling",
]

#: What to do with a message whose end left and was never answered: send it again, or keep it for a person.
OnUnknown = Literal["retry", "hold"]

#: Why a recipient failed, where no reply of the server tells.
UNKNOWN: Final = "unknown"


class Fate(Enum):
    """What is to be done for a recipient."""

    DELIVERED = "delivered"
    DEFER = "defer"
    FAIL = "fail"


class Scope(Enum):
    """Whom an error concerns."""

    #: The server, or the way to it: every message would meet the same.
    HOST = "host"
    #: This message, for all recipients that have not failed on their own.
    MESSAGE = "message"
    #: Each recipient as his own reply says.
    RECIPIENT = "recipient"


class Ruling(NamedTuple):
    """One line of the table.

    Attributes:
        error: the class of errors that it is about.
        when: of which of them; the line above another wins.
        scope: whom it concerns.
        fate: what becomes of them.
    """

    error: type[SMTPError]
    when: Callable[[SMTPError], bool]
    scope: Scope
    fate: Fate


class Sentence(NamedTuple):
    """What is to be done for one recipient.

    Attributes:
        recipient: whom it is about.
        fate: what is to be done.
        reply: the reply that decided, if one did.
        reason: the same in words, where there is no reply.
    """

    recipient: Recipient
    fate: Fate
    reply: Reply | None = None
    reason: str = ""


class Disposition(NamedTuple):
    """What is to become of a message.

    Attributes:
        sentences: one per recipient, in the order of the envelope.
        host: the problem of the host, if that is what it was.
        unknown: may a recipient have it already, without our knowing?
    """

    sentences: tuple[Sentence, ...]
    host: SMTPError | None = None
    unknown: bool = False

    @property
    def untried(self) -> bool:
        """The problem was the host's, and nobody was refused: then the try does not count against the message."""
        return self.host is not None and all(
            one.fate is Fate.DEFER and one.reply is None for one in self.sentences
        )

    @property
    def delivered(self) -> tuple[Sentence, ...]:
        """Who has it."""
        return self._having(Fate.DELIVERED)

    @property
    def deferred(self) -> tuple[Sentence, ...]:
        """Who is to be tried again."""
        return self._having(Fate.DEFER)

    @property
    def failed(self) -> tuple[Sentence, ...]:
        """Who never gets it."""
        return self._having(Fate.FAIL)

    def _having(self, fate: Fate) -> tuple[Sentence, ...]:
        return tuple([one for one in self.sentences if one.fate is fate])


# --- the table -----------------------------------------------------------------------------------------------


def _always(error: SMTPError) -> bool:
    return True


def _permanent(error: SMTPError) -> bool:
    return error.reply is not None and error.reply.permanent


def _wants_login(error: SMTPError) -> bool:
    # RFC 4954 section 6: to MAIL they mean that this client should have logged in, or otherwise.
    return error.reply is not None and error.reply.code in (530, 534, 535, 538)


def _dislikes_site(error: SMTPError) -> bool:
    # RFC 3463 section 3.8: X.7.0, a security status without detail, is how servers say "not from you, for now".
    reply = error.reply or getattr(error.__cause__, "reply", None)
    return reply is not None and reply.enhanced == (4, 7, 0)


def _before_mail(error: SMTPError) -> bool:
    # A password that cannot be written, for example.
    return error.stage in ("connect", "tls", "greeting", "EHLO", "HELO", "STARTTLS", "AUTH")


def _never_begun(error: SMTPError) -> bool:
    # Its time was over while it waited for a connection.
    return isinstance(error.__cause__, Timeout) and error.__cause__.stage == "queue"


def _passing(error: SMTPError) -> bool:
    # The file is all right, this system is out of something.
    return getattr(error, "errno", None) in _SHORTAGES


_SHORTAGES: Final = frozenset(
    {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EINTR}
)

_HOST, _MESSAGE, _RECIPIENT = Scope.HOST, Scope.MESSAGE, Scope.RECIPIENT
_DEFER, _FAIL = Fate.DEFER, Fate.FAIL

#: From the particular to the general: the first line that fits decides.
RULINGS: Final[tuple[Ruling, ...]] = (
    # The conversation did not come as far as a message.
    Ruling(GreetingRefused, _always, _HOST, _DEFER),
    Ruling(HelloRefused, _always, _HOST, _DEFER),
    Ruling(StartTLSRefused, _always, _HOST, _DEFER),
    Ruling(AuthenticationFailed, _always, _HOST, _DEFER),
    Ruling(AuthenticationUnavailable, _always, _HOST, _DEFER),
    Ruling(TLSError, _always, _HOST, _DEFER),
    Ruling(InvalidArgument, _before_mail, _HOST, _DEFER),
    # A message that was on its way when its connection died raises NotSent instead.
    Ruling(CommunicationError, _always, _HOST, _DEFER),
    # The server said no to the message.
    Ruling(SenderRefused, _wants_login, _HOST, _DEFER),
    Ruling(SenderRefused, _dislikes_site, _HOST, _DEFER),
    Ruling(SenderRefused, _permanent, _MESSAGE, _FAIL),
    Ruling(SenderRefused, _always, _MESSAGE, _DEFER),
    Ruling(RecipientsRefused, _permanent, _RECIPIENT, _FAIL),
    Ruling(RecipientsRefused, _always, _RECIPIENT, _DEFER),
    Ruling(MessageRefused, _permanent, _MESSAGE, _FAIL),
    Ruling(MessageRefused, _always, _MESSAGE, _DEFER),
    # 421 between two messages, and whatever else a later version may refuse.
    Ruling(CommandRefused, _always, _HOST, _DEFER),
    # It met no server, or could not be brought before it.
    Ruling(TooManyRecipients, _always, _MESSAGE, _DEFER),
    Ruling(ExtensionMissing, _always, _MESSAGE, _FAIL),
    Ruling(QueueFull, _always, _HOST, _DEFER),
    Ruling(NotSent, _never_begun, _HOST, _DEFER),
    Ruling(NotSent, _dislikes_site, _HOST, _DEFER),
    Ruling(NotSent, _always, _MESSAGE, _DEFER),
    Ruling(OutcomeUnknown, _always, _MESSAGE, _DEFER),
    Ruling(FileError, _passing, _MESSAGE, _DEFER),
    Ruling(FileError, _always, _MESSAGE, _FAIL),
    Ruling(MissingHost, _always, _HOST, _DEFER),
    Ruling(InvalidArgument, _always, _MESSAGE, _FAIL),
    # What the spool holds is not what was put.
    Ruling(RecordInvalid, _always, _MESSAGE, _FAIL),
    # The client is closed, or an extra is not installed: the program's fault, not the message's.
    Ruling(UsageError, _always, _HOST, _DEFER),
    Ruling(SMTPError, _always, _MESSAGE, _DEFER),
)


def ruling(error: SMTPError) -> Ruling:
    """Return the line of the table that is about `error`."""
    return next(line for line in RULINGS if isinstance(error, line.error) and line.when(error))


# --- judging -------------------------------------------------------------------------------------------------


def judge(receipt: Receipt, *, on_unknown: OnUnknown = "retry") -> Disposition:
    """Say what is to become of each recipient of a message that was tried.

    Args:
        receipt: what became of it.
        on_unknown: `"retry"` sends again what may have arrived, `"hold"` fails it for a person to decide.
    """
    error = receipt.error
    line = None if error is None else ruling(error)
    sentences = tuple([_sentence(verdict, receipt, line, on_unknown) for verdict in receipt.verdicts])
    unknown = any(verdict.outcome is Outcome.UNKNOWN for verdict in receipt.verdicts)
    host = error if line is not None and line.scope is Scope.HOST and not unknown else None
    return Disposition(sentences, host, unknown)


def receipt_of(error: SMTPError, recipients: Iterable[Recipient]) -> Receipt:
    """Return the receipt of an exception; one that has none is about `recipients`, of whom nobody got anything."""
    receipt = Receipt.of(error)
    if receipt is None or not receipt.verdicts:
        outcome = Outcome.UNKNOWN if isinstance(error, OutcomeUnknown) else Outcome.NOT_SENT
        return Receipt(tuple([Verdict(one, outcome) for one in recipients]), error.reply, error)
    return receipt if receipt.error is not None else receipt._replace(error=error)


def _sentence(verdict: Verdict, receipt: Receipt, line: Ruling | None, on_unknown: OnUnknown) -> Sentence:
    recipient, outcome, reply = verdict
    if outcome is Outcome.ACCEPTED:
        return Sentence(recipient, Fate.DELIVERED, reply)
    if outcome is Outcome.REFUSED and reply is not None:
        return Sentence(recipient, _fate_of_refused(reply, receipt.error, line), reply)
    reason = _words(receipt.error)
    if outcome is Outcome.UNKNOWN:
        if on_unknown == "hold":
            return Sentence(recipient, Fate.FAIL, None, UNKNOWN)
        return Sentence(recipient, Fate.DEFER, None, reason)
    # With others accepted no error tells why this one was not sent; it can be sent again in any case.
    return Sentence(recipient, Fate.DEFER if line is None else line.fate, None, reason)


def _words(error: SMTPError | None) -> str:
    """Say why, for a queue file or a report. A server may repeat in its answer to a login what it was shown there."""
    if error is None:
        return "the message was not sent"
    if error.reply is not None and (isinstance(error, AuthenticationFailed) or error.stage == "AUTH"):
        return " ".join(str(part) for part in (error.message, error.reply.code, error.reply.enhanced) if part)
    return str(error)


def _fate_of_refused(reply: Reply, error: SMTPError | None, line: Ruling | None) -> Fate:
    if line is not None and line.scope is Scope.HOST:
        return Fate.DEFER
    at_rcpt = error is None or isinstance(error, RecipientsRefused)
    return Fate.FAIL if reply.permanent and not (at_rcpt and too_many_recipients(reply)) else Fate.DEFER
