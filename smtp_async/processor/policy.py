"""Failure policy: the fate of each recipient, and of the job, after an attempt. Pure functions.

All failure policy of the queue is in this file, and most of it is the table `RULES`. The table classifies an error by
its scope (the host, if every message would have the same error, as with a dead server, a broken certificate or a wrong
password; the message; or one recipient) and by its fate: whether a later attempt may succeed.

A problem of the host never counts against a message, because mail must not bounce when a password has expired. The
first digit of a refusal decides (RFC 5321 section 4.2.1); some codes refine that.

A job is deferred while a recipient is still to be tried; after that, it has failed if a recipient did not get the
message.
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
    TokenUnavailable,
    TooManyRecipients,
    UsageError,
)
from ..model.envelope import Recipient
from ..model.receipt import Outcome, Receipt, Verdict
from ..model.reply import Reply
from ..spool.entry import Entry
from .results import EXPIRED, UNKNOWN, Fate, JobResult, OtherRoutes, RecipientResult
from .schedule import RetryPolicy, expiry, next_attempt

__all__ = [
    "RULES",
    "OnUnknown",
    "Rule",
    "Scope",
    "judge_job",
    "judge_recipients",
    "receipt_of",
    "recipients_to_retry",
    "rule_for",
]

#: What to do with a message whose end of data had no reply: send it again, or keep it for an operator.
OnUnknown = Literal["retry", "hold"]

#: Minimum of seconds before a message is tried again, so that a run does not try a job twice.
_SHORTEST_DELAY: Final = 0.001


class Scope(Enum):
    """The scope of an error."""

    #: The server, or the network path to it: every message would have the same error.
    HOST = "host"
    #: This message, for all recipients that were not refused by a reply to their RCPT.
    MESSAGE = "message"
    #: Each recipient, by the reply to its RCPT.
    RECIPIENT = "recipient"


class Rule(NamedTuple):
    """One line of the table.

    Attributes:
        error: the class of errors.
        when: tells whether an error of that class matches; the first matching rule decides.
        scope: the scope of such an error.
        fate: the fate of the recipients within the scope.
    """

    error: type[SMTPError]
    when: Callable[[SMTPError], bool]
    scope: Scope
    fate: Fate


# --- the table -----------------------------------------------------------------------------------------------


def _always(error: SMTPError) -> bool:
    return True


def _permanent(error: SMTPError) -> bool:
    return error.reply is not None and error.reply.permanent


def _wants_login(error: SMTPError) -> bool:
    # RFC 4954 section 6: as replies to MAIL, these codes require a login, or another one.
    return error.reply is not None and error.reply.code in (530, 534, 535, 538)


def _refuses_client(error: SMTPError) -> bool:
    # RFC 3463 section 3.8: with X.7.0, a security status without detail, servers refuse a client temporarily.
    reply = error.reply or getattr(error.__cause__, "reply", None)
    return reply is not None and reply.enhanced == (4, 7, 0)


def _before_mail(error: SMTPError) -> bool:
    # For example a password that cannot be encoded.
    return error.stage in ("connect", "tls", "greeting", "EHLO", "HELO", "STARTTLS", "AUTH")


def _waited_in_vain(error: SMTPError) -> bool:
    # The message waited for a connection until its time limit.
    return isinstance(error.__cause__, Timeout) and error.__cause__.stage == "queue"


def _was_damaged(error: SMTPError) -> bool:
    # A large message is checked while it is sent, so the error comes from the source of its body.
    return isinstance(error.__cause__, RecordInvalid)


def _lacks_resources(error: SMTPError) -> bool:
    # The file is intact, but this system is out of memory or descriptors, or its disk fails for the moment.
    return getattr(error, "errno", None) in _SHORTAGES


_SHORTAGES: Final = frozenset(
    {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EINTR}
)

_HOST, _MESSAGE, _RECIPIENT = Scope.HOST, Scope.MESSAGE, Scope.RECIPIENT
_DEFER, _FAIL = Fate.DEFERRED, Fate.FAILED

#: From the special to the general: the first matching rule decides.
RULES: Final[tuple[Rule, ...]] = (
    # The connection failed before the first message.
    Rule(GreetingRefused, _always, _HOST, _DEFER),
    Rule(HelloRefused, _always, _HOST, _DEFER),
    Rule(StartTLSRefused, _always, _HOST, _DEFER),
    Rule(AuthenticationFailed, _always, _HOST, _DEFER),
    Rule(AuthenticationUnavailable, _always, _HOST, _DEFER),
    Rule(TokenUnavailable, _always, _HOST, _DEFER),
    Rule(TLSError, _always, _HOST, _DEFER),
    Rule(InvalidArgument, _before_mail, _HOST, _DEFER),
    # A message that was being sent when its connection was lost raises NotSent instead.
    Rule(CommunicationError, _always, _HOST, _DEFER),
    # The server refused the message.
    Rule(SenderRefused, _wants_login, _HOST, _DEFER),
    Rule(SenderRefused, _refuses_client, _HOST, _DEFER),
    Rule(SenderRefused, _permanent, _MESSAGE, _FAIL),
    Rule(SenderRefused, _always, _MESSAGE, _DEFER),
    Rule(RecipientsRefused, _permanent, _RECIPIENT, _FAIL),
    Rule(RecipientsRefused, _always, _RECIPIENT, _DEFER),
    Rule(MessageRefused, _permanent, _MESSAGE, _FAIL),
    Rule(MessageRefused, _always, _MESSAGE, _DEFER),
    # A 421 between two messages, and commands that a later version may add.
    Rule(CommandRefused, _always, _HOST, _DEFER),
    # The message met no server, or could not be offered to it.
    Rule(TooManyRecipients, _always, _MESSAGE, _DEFER),
    Rule(ExtensionMissing, _always, _MESSAGE, _FAIL),
    Rule(QueueFull, _always, _HOST, _DEFER),
    Rule(NotSent, _waited_in_vain, _HOST, _DEFER),
    Rule(NotSent, _refuses_client, _HOST, _DEFER),
    Rule(NotSent, _was_damaged, _MESSAGE, _FAIL),
    Rule(NotSent, _always, _MESSAGE, _DEFER),
    Rule(OutcomeUnknown, _always, _MESSAGE, _DEFER),
    Rule(FileError, _lacks_resources, _MESSAGE, _DEFER),
    Rule(FileError, _always, _MESSAGE, _FAIL),
    Rule(MissingHost, _always, _HOST, _DEFER),
    Rule(InvalidArgument, _always, _MESSAGE, _FAIL),
    # What the spool stored is damaged.
    Rule(RecordInvalid, _always, _MESSAGE, _FAIL),
    # The client is closed, or an extra is not installed: a fault of the program, not of the message.
    Rule(UsageError, _always, _HOST, _DEFER),
    Rule(SMTPError, _always, _MESSAGE, _DEFER),
)


def rule_for(error: SMTPError) -> Rule:
    """Return the first rule that matches `error`."""
    return next(rule for rule in RULES if isinstance(error, rule.error) and rule.when(error))


# --- jobs ----------------------------------------------------------------------------------------------------


def judge_job(
    entry: Entry,
    receipt: Receipt,
    retry: RetryPolicy,
    *,
    now: float,
    on_unknown: OnUnknown = "retry",
    chance: float = 1.0,
    others: OtherRoutes = OtherRoutes.NONE,
) -> JobResult:
    """Return the result of a job after an attempt.

    Args:
        entry: the job as it was claimed.
        receipt: the receipt of the attempt, about all pending recipients or about those of one route.
        retry: how often and for how long a message is tried.
        now: the wall clock, in seconds of the epoch.
        on_unknown: as in `ProcessorOptions`.
        chance: a random number from 0 to 1.
        others: what is left for other routes.
    """
    results = judge_recipients(receipt, on_unknown=on_unknown)
    unknown = any(verdict.outcome is Outcome.UNKNOWN for verdict in receipt.verdicts)
    host_error = None if unknown else _host_error(receipt)
    result = JobResult(Fate.DELIVERED, results, host_error=host_error, unknown=unknown)
    expires = expiry(entry, retry)
    expired = expires is not None and now >= expires
    if host_error is not None and _untried(results) and not expired and retry.attempts != 1:
        return result._replace(fate=Fate.RELEASED, reason=str(host_error))
    due = next_attempt(retry, entry.attempts + 1, now=now, expires=expires, chance=chance)
    if result.deferred and due is None:
        result = result._replace(recipients=tuple([_given_up(one, expired=expired) for one in results]))
    if others is OtherRoutes.UNTRIED:
        # The same due time: by it the next route knows which recipients had their turn.
        reason = _reason(result.failed or result.deferred) or entry.reason
        return result._replace(fate=Fate.HANDED_ON, not_before=entry.not_before, reason=reason)
    if result.deferred or others is OtherRoutes.DEFERRED:
        # Without a due time those of the other route expired meanwhile; the next attempt gives them up.
        due = max(due or 0.0, now + _SHORTEST_DELAY)
        reason = _reason(result.failed or result.deferred) or entry.reason
        return result._replace(fate=Fate.DEFERRED, not_before=due, reason=reason)
    if result.failed or entry.failed:
        return result._replace(fate=Fate.FAILED, reason=_reason(result.failed) or entry.reason)
    return result


def recipients_to_retry(receipt: Receipt, result: JobResult) -> Callable[[Verdict], bool]:
    """Return a function that tells a lease whether the recipient of a verdict is tried again.

    By verdict, because an envelope may name a recipient twice, with different verdicts.
    """
    pairs = zip(receipt.verdicts, result.recipients, strict=True)
    retried = {id(verdict): one.fate is Fate.DEFERRED for verdict, one in pairs}
    return lambda verdict: retried[id(verdict)]


def _host_error(receipt: Receipt) -> SMTPError | None:
    error = receipt.error
    return error if error is not None and rule_for(error).scope is Scope.HOST else None


def _untried(results: tuple[RecipientResult, ...]) -> bool:
    """Return whether no recipient was refused; then a problem of the host does not count against the message."""
    return all(one.fate is Fate.DEFERRED and one.reply is None for one in results)


def _given_up(one: RecipientResult, *, expired: bool) -> RecipientResult:
    if one.fate is not Fate.DEFERRED:
        return one
    reason = f"{EXPIRED}: {one.reason}" if expired else one.reason
    return one._replace(fate=Fate.FAILED, reason=reason.rstrip(": "))


def _reason(results: tuple[RecipientResult, ...]) -> str:
    """Return the reason of the first result as a text."""
    for one in results:
        return " ".join(part for part in (one.reason, str(one.reply or "")) if part)
    return ""


# --- recipients ----------------------------------------------------------------------------------------------


def judge_recipients(receipt: Receipt, *, on_unknown: OnUnknown = "retry") -> tuple[RecipientResult, ...]:
    """Return the result of each recipient by its verdict alone, without the retry policy.

    Args:
        receipt: the receipt of the attempt.
        on_unknown: as in `ProcessorOptions`.
    """
    rule = None if receipt.error is None else rule_for(receipt.error)
    return tuple([_recipient_result(verdict, receipt, rule, on_unknown) for verdict in receipt.verdicts])


def receipt_of(error: SMTPError, recipients: Iterable[Recipient]) -> Receipt:
    """Return the receipt of an exception, or, without one, a receipt that none of `recipients` got the message."""
    receipt = Receipt.of(error)
    if receipt is None or not receipt.verdicts:
        outcome = Outcome.UNKNOWN if isinstance(error, OutcomeUnknown) else Outcome.NOT_SENT
        return Receipt(tuple([Verdict(one, outcome) for one in recipients]), error.reply, error)
    return receipt if receipt.error is not None else receipt._replace(error=error)


def _recipient_result(
    verdict: Verdict, receipt: Receipt, rule: Rule | None, on_unknown: OnUnknown
) -> RecipientResult:
    recipient, outcome, reply = verdict
    if outcome is Outcome.ACCEPTED:
        return RecipientResult(recipient, Fate.DELIVERED, reply)
    if outcome is Outcome.REFUSED and reply is not None:
        return RecipientResult(recipient, _fate_of_refused(reply, receipt.error, rule), reply)
    reason = _description(receipt.error)
    if outcome is Outcome.UNKNOWN:
        if on_unknown == "hold":
            return RecipientResult(recipient, Fate.FAILED, None, UNKNOWN)
        return RecipientResult(recipient, Fate.DEFERRED, None, reason)
    # If other recipients were accepted, there is no error for this one, which can always be sent again.
    return RecipientResult(recipient, Fate.DEFERRED if rule is None else rule.fate, None, reason)


def _description(error: SMTPError | None) -> str:
    """Return the reason for a queue file or a report.

    The text of a reply to AUTH is left out, because a server may repeat the credentials in it.
    """
    if error is None:
        return "the message was not sent"
    if error.reply is not None and (isinstance(error, AuthenticationFailed) or error.stage == "AUTH"):
        return " ".join(str(part) for part in (error.message, error.reply.code, error.reply.enhanced) if part)
    return str(error)


def _fate_of_refused(reply: Reply, error: SMTPError | None, rule: Rule | None) -> Fate:
    if rule is not None and rule.scope is Scope.HOST:
        return Fate.DEFERRED
    at_rcpt = error is None or isinstance(error, RecipientsRefused)
    return Fate.FAILED if reply.permanent and not (at_rcpt and reply.too_many_recipients) else Fate.DEFERRED
