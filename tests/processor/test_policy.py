"""The failure policy: the table rule by rule, what becomes of recipients, and what becomes of jobs."""

import errno as numbers
from dataclasses import replace
from typing import Any

import pytest

from smtp_async import Envelope, Outcome, Receipt, Recipient, Reply, Verdict, errors
from smtp_async.errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    CertificateRejected,
    CommandRefused,
    ConnectionLost,
    ExtensionMissing,
    FeatureUnavailable,
    FileError,
    GreetingRefused,
    HandshakeFailed,
    HelloRefused,
    Interrupted,
    InvalidAddress,
    InvalidArgument,
    InvalidHeader,
    MessageRefused,
    MessageTooLarge,
    MissingHost,
    NotConnected,
    NotSent,
    OutcomeUnknown,
    PlaintextInjected,
    ProtocolViolation,
    ProxyError,
    QueueFull,
    RecipientsRefused,
    RecordInvalid,
    ResolveError,
    SenderRefused,
    SMTPError,
    SocketError,
    StartTLSRefused,
    StartTLSUnavailable,
    Timeout,
    TokenRefused,
    TokenUnavailable,
    TooManyRecipients,
    WrongTLSMode,
)
from smtp_async.processor.policy import (
    RULES,
    OnUnknown,
    Scope,
    judge_job,
    judge_recipients,
    receipt_of,
    recipients_to_retry,
    rule_for,
)
from smtp_async.processor.results import EXPIRED, UNKNOWN, Fate, JobResult
from smtp_async.processor.schedule import RetryPolicy, expiry
from smtp_async.spool.entry import Entry, Result
from tests.processor.fakes import STEADY
from tests.processor.fakes import receipt as receipt_for

ANN, BOB, CID = (Recipient(f"{name}@example.org") for name in ("ann", "bob", "cid"))
HOST, MESSAGE, RECIPIENT = Scope.HOST, Scope.MESSAGE, Scope.RECIPIENT
DELIVERED, DEFER, FAIL = Fate.DELIVERED, Fate.DEFERRED, Fate.FAILED


def reply(text: str) -> Reply:
    return Reply(int(text[:3]), (text[4:].encode(),))


def refused(kind: type[SMTPError], text: str) -> SMTPError:
    return kind("no", reply=reply(text))


def caused(error: SMTPError, cause: SMTPError) -> SMTPError:
    error.__cause__ = cause
    return error


def file_error(number: int) -> FileError:
    error = FileError("cannot be read")
    error.errno = number
    return error


TABLE: list[tuple[SMTPError, Scope, Fate]] = [
    # The host, or the way to it: no mail bounces.
    (refused(GreetingRefused, "554 no"), HOST, DEFER),
    (refused(GreetingRefused, "421 busy"), HOST, DEFER),
    (refused(HelloRefused, "550 no"), HOST, DEFER),
    (refused(StartTLSRefused, "454 not now"), HOST, DEFER),
    (refused(StartTLSRefused, "502 never"), HOST, DEFER),
    (StartTLSUnavailable("not offered"), HOST, DEFER),
    (refused(AuthenticationFailed, "535 5.7.8 wrong"), HOST, DEFER),
    (refused(AuthenticationFailed, "454 4.7.0 not now"), HOST, DEFER),
    (AuthenticationUnavailable("none"), HOST, DEFER),
    (TokenRefused("consent was withdrawn"), HOST, DEFER),
    (TokenUnavailable("the authorization server is down"), HOST, DEFER),
    (CertificateRejected("expired"), HOST, DEFER),
    (HandshakeFailed("no"), HOST, DEFER),
    (WrongTLSMode("465"), HOST, DEFER),
    (SocketError("refused", errno=numbers.ECONNREFUSED), HOST, DEFER),
    (SocketError("unreachable", errno=numbers.EHOSTUNREACH), HOST, DEFER),
    (ResolveError("no such name", code=11001), HOST, DEFER),
    (ProxyError("no"), HOST, DEFER),
    (Timeout("connecting", stage="connect"), HOST, DEFER),
    (Timeout("no greeting", stage="greeting"), HOST, DEFER),
    (ConnectionLost("in EHLO", stage="EHLO"), HOST, DEFER),
    (Interrupted("the client was closed"), HOST, DEFER),
    (ProtocolViolation("no SMTP"), HOST, DEFER),
    (PlaintextInjected("attack"), HOST, DEFER),
    (refused(CommandRefused, "421 4.3.2 going down"), HOST, DEFER),
    (InvalidArgument("the password cannot be written", stage="AUTH"), HOST, DEFER),
    (MissingHost("no server"), HOST, DEFER),
    (NotConnected("the client is closed"), HOST, DEFER),
    (FeatureUnavailable("no", needs="[sasl]"), HOST, DEFER),
    (QueueFull("100 are waiting"), HOST, DEFER),
    (caused(NotSent("too late"), Timeout("the deadline passed", stage="queue")), HOST, DEFER),
    # MAIL.
    (refused(SenderRefused, "530 5.7.0 log in first"), HOST, DEFER),
    (refused(SenderRefused, "538 encrypt first"), HOST, DEFER),
    (refused(SenderRefused, "450 4.7.0 not from you"), HOST, DEFER),
    (refused(SenderRefused, "451 4.7.1 greylisted"), MESSAGE, DEFER),
    (refused(SenderRefused, "452 4.3.1 full"), MESSAGE, DEFER),
    (refused(SenderRefused, "550 5.1.8 no"), MESSAGE, FAIL),
    (refused(SenderRefused, "552 5.3.4 too large"), MESSAGE, FAIL),
    # RCPT.
    (refused(RecipientsRefused, "450 4.2.1 busy"), RECIPIENT, DEFER),
    (refused(RecipientsRefused, "550 5.1.1 no such user"), RECIPIENT, FAIL),
    # DATA and its end.
    (refused(MessageRefused, "451 4.3.0 not now"), MESSAGE, DEFER),
    (refused(MessageRefused, "554 5.7.1 spam"), MESSAGE, FAIL),
    # Being sent when the connection ended.
    (caused(NotSent("lost"), ConnectionLost("reset", stage="DATA")), MESSAGE, DEFER),
    (caused(NotSent("late"), Timeout("no reply", stage="MAIL")), MESSAGE, DEFER),
    (caused(NotSent("closed"), refused(ConnectionLost, "421 4.3.2 bye")), MESSAGE, DEFER),
    (caused(NotSent("closed"), refused(ConnectionLost, "421 4.7.0 rate")), HOST, DEFER),
    (caused(NotSent("stopped by its source"), RecordInvalid("damaged")), MESSAGE, FAIL),
    (OutcomeUnknown("no reply"), MESSAGE, DEFER),
    # This side.
    (ExtensionMissing("SMTPUTF8"), MESSAGE, FAIL),
    (MessageTooLarge("11 MB"), MESSAGE, FAIL),
    (TooManyRecipients("5 of 7"), MESSAGE, DEFER),
    (InvalidAddress("no"), MESSAGE, FAIL),
    (InvalidHeader("no"), MESSAGE, FAIL),
    (file_error(numbers.ENOENT), MESSAGE, FAIL),
    (file_error(numbers.EMFILE), MESSAGE, DEFER),
    (file_error(numbers.EIO), MESSAGE, DEFER),
    (RecordInvalid("its file was damaged"), MESSAGE, FAIL),
    (SMTPError("what is this"), MESSAGE, DEFER),
]


@pytest.mark.parametrize(
    ("error", "scope", "fate"), TABLE, ids=[f"{type(error).__name__}-{error}" for error, *_ in TABLE]
)
def test_the_rule_for_an_error_gives_scope_and_fate(error: SMTPError, scope: Scope, fate: Fate) -> None:
    rule = rule_for(error)
    assert (rule.scope, rule.fate) == (scope, fate)


def test_every_rule_is_tested() -> None:
    tried = {id(rule_for(error)) for error, *_ in TABLE}
    assert [rule for rule in RULES if id(rule) not in tried] == []


@pytest.mark.parametrize("number", sorted(errors.BY_NUMBER))
def test_every_error_has_a_rule(number: int) -> None:
    kind: Any = errors.BY_NUMBER[number]
    error = kind("x", needs="y") if kind is FeatureUnavailable else kind("x")
    assert rule_for(error).fate in (DEFER, FAIL)


def test_no_problem_of_the_host_fails_a_message() -> None:
    assert {rule.fate for rule in RULES if rule.scope is HOST} == {DEFER}


# --- recipients ----------------------------------------------------------------------------------------------


def receipt(*verdicts: tuple[Recipient, Outcome, str | None], error: SMTPError | None = None) -> Receipt:
    made = [Verdict(who, outcome, reply(text) if text else None) for who, outcome, text in verdicts]
    return Receipt(tuple(made), error.reply if error else None, error)


def fates(found: Receipt, **options: Any) -> list[Fate]:
    return [one.fate for one in judge_recipients(found, **options)]


def test_each_recipient_is_judged_by_its_own_reply() -> None:
    found = receipt(
        (ANN, Outcome.ACCEPTED, "250 2.0.0 queued"),
        (BOB, Outcome.REFUSED, "550 5.1.1 no such user"),
        (CID, Outcome.REFUSED, "450 4.2.0 greylisted"),
    )
    assert fates(found) == [DELIVERED, FAIL, DEFER]


def test_recipients_all_refused_at_rcpt_are_judged_one_by_one() -> None:
    error = refused(RecipientsRefused, "550 5.1.1 no such user")
    found = receipt(
        (ANN, Outcome.REFUSED, "550 5.1.1 no such user"), (BOB, Outcome.REFUSED, "450 later"), error=error
    )
    assert fates(found) == [FAIL, DEFER]


@pytest.mark.parametrize(
    ("text", "fate"),
    [
        ("452 too many recipients", DEFER),
        ("552 too many recipients", DEFER),
        ("552 5.5.3 too many recipients", DEFER),
        ("552 5.2.2 mailbox full", FAIL),
        ("550 5.5.3 too many recipients", DEFER),
    ],
)
def test_too_many_recipients_are_tried_again(text: str, fate: Fate) -> None:
    found = receipt((ANN, Outcome.ACCEPTED, "250 ok"), (BOB, Outcome.REFUSED, text))
    assert fates(found) == [DELIVERED, fate]


def test_552_to_the_message_is_about_its_size() -> None:
    error = refused(MessageRefused, "552 too large")
    found = receipt((ANN, Outcome.REFUSED, "552 too large"), error=error)
    assert fates(found) == [FAIL]


def test_a_recipient_refused_at_rcpt_keeps_its_reply_when_the_message_is_refused_for_now() -> None:
    error = refused(MessageRefused, "451 not now")
    found = receipt(
        (ANN, Outcome.REFUSED, "550 5.1.1 no such user"), (BOB, Outcome.REFUSED, "451 not now"), error=error
    )
    assert fates(found) == [FAIL, DEFER]


def test_an_unknown_recipient_is_tried_again_or_held() -> None:
    found = receipt((ANN, Outcome.UNKNOWN, None), error=OutcomeUnknown("no reply"))
    assert fates(found, on_unknown="retry") == [DEFER]
    assert fates(found, on_unknown="hold") == [FAIL]
    assert judge_recipients(found, on_unknown="hold")[0].reason == UNKNOWN


def test_a_recipient_not_sent_beside_an_accepted_one_is_tried_again() -> None:
    found = receipt((ANN, Outcome.ACCEPTED, "250 ok"), (BOB, Outcome.NOT_SENT, None))
    assert fates(found) == [DELIVERED, DEFER]


# --- receipts of exceptions ----------------------------------------------------------------------------------


def test_an_exception_without_a_receipt_concerns_every_recipient() -> None:
    found = receipt_of(NotConnected("closed"), [ANN, BOB])
    assert [verdict.outcome for verdict in found.verdicts] == [Outcome.NOT_SENT] * 2
    assert isinstance(found.error, NotConnected)
    unknown = receipt_of(OutcomeUnknown("no reply"), [ANN])
    assert unknown.outcome is Outcome.UNKNOWN


def test_the_receipt_of_an_exception_is_used() -> None:
    error = refused(MessageRefused, "554 spam")
    error.receipt = receipt((ANN, Outcome.REFUSED, "554 spam"))
    found = receipt_of(error, [BOB])
    assert found.verdicts[0].recipient is ANN and found.error is error


# --- jobs ----------------------------------------------------------------------------------------------------


ENTRY = Entry(id="a", envelope=Envelope("x@y.test", ["ann@z.test", "bob@z.test"]), created=1000.0, size=1)
DEAD = SocketError("cannot connect")


def after(
    *answers: Any, entry: Entry = ENTRY, now: float = 1000.0, on_unknown: OnUnknown = "retry", **policy: Any
) -> JobResult:
    """Return what becomes of `entry` after an attempt with a receipt, or with these answers per recipient."""
    found = answers[0] if isinstance(answers[0], Receipt) else receipt_for(entry.pending, *answers)
    return judge_job(entry, found, replace(STEADY, **policy), now=now, on_unknown=on_unknown)


@pytest.mark.parametrize("kind", [AuthenticationFailed, NotConnected])
def test_no_reply_to_a_login_is_a_reason(kind: Any) -> None:
    """A server may repeat the credentials in it, whatever class its refusal has."""
    error = kind("no login", reply=reply("454 4.7.0 you said c2VjcmV0"), stage="AUTH")
    found = judge_recipients(receipt_of(error, [ANN]), on_unknown="retry")
    assert found[0].reason == "no login 454 4.7.0"


def test_a_job_that_every_recipient_accepted_is_delivered() -> None:
    assert after("250 ok").fate is Fate.DELIVERED


def test_a_job_waits_as_long_as_one_recipient_is_left() -> None:
    found = after("250 ok", "450 later")
    assert (found.fate, found.not_before) == (Fate.DEFERRED, 1060.0)
    assert found.reason == "450 later"
    found = after("550 never", "450 later")
    assert found.fate is Fate.DEFERRED and found.reason == "550 never"
    assert [str(one.recipient.address) for one in found.failed] == ["ann@z.test"]
    assert [str(one.recipient.address) for one in found.deferred] == ["bob@z.test"]


def test_a_job_fails_when_none_is_left_and_one_recipient_failed() -> None:
    assert after("250 ok", "550 never").fate is Fate.FAILED
    assert after("550 never").fate is Fate.FAILED


def test_a_recipient_that_failed_before_fails_the_job() -> None:
    results = (Result(Outcome.REFUSED, final=True, at=1000.0, code=550), None)
    entry = replace(ENTRY, results=results, reason="550 never")
    found = after("250 ok", entry=entry)
    assert (found.fate, found.reason, found.failed) == (Fate.FAILED, "550 never", ())


def test_each_attempt_lengthens_the_delay() -> None:
    assert after("450 later", entry=replace(ENTRY, attempts=2)).not_before == 1240.0


def test_with_one_attempt_every_error_is_final() -> None:
    found = after("450 later", attempts=1)
    assert (found.fate, found.reason, len(found.failed)) == (Fate.FAILED, "450 later", 2)
    assert after(receipt_for(ENTRY.pending, Outcome.NOT_SENT, error=DEAD), attempts=1).fate is Fate.FAILED


def test_an_attempt_at_a_dead_host_does_not_count() -> None:
    found = after(
        receipt_for(ENTRY.pending, Outcome.NOT_SENT, error=DEAD), attempts=2, entry=replace(ENTRY, attempts=1)
    )
    assert (found.fate, found.reason, found.host_error) == (Fate.RELEASED, "cannot connect", DEAD)


def test_an_expired_job_fails_even_if_the_host_is_dead() -> None:
    late = 1000.0 + 5 * 86400
    found = after("450 later", now=late)
    assert found.fate is Fate.FAILED and found.reason.startswith(EXPIRED)
    found = after(receipt_for(ENTRY.pending, Outcome.NOT_SENT, error=DEAD), now=late)
    assert found.fate is Fate.FAILED and found.reason == f"{EXPIRED}: cannot connect"


def test_the_expiry_of_a_job_overrides_that_of_the_policy() -> None:
    assert expiry(replace(ENTRY, expires=1030.0), STEADY) == 1030.0
    assert expiry(ENTRY, STEADY) == 1000.0 + 5 * 86400
    assert expiry(ENTRY, RetryPolicy(expires=None)) is None
    assert after("450 later", entry=replace(ENTRY, expires=1030.0)).not_before == 1030.0


def test_an_unknown_job_is_tried_again_or_held() -> None:
    found = receipt_for(ENTRY.pending, Outcome.UNKNOWN, error=OutcomeUnknown("no reply"))
    assert after(found).fate is Fate.DEFERRED
    held = after(found, on_unknown="hold")
    assert (held.fate, held.reason) == (Fate.FAILED, UNKNOWN)


def test_a_delay_of_zero_is_not_due_at_once() -> None:
    assert after("450 later", first=0.0).not_before > 1000.0


def test_a_lease_is_told_which_recipients_are_tried_again() -> None:
    found = receipt_for(ENTRY.pending, "550 never", "450 later")
    retry = recipients_to_retry(found, after(found))
    assert [retry(verdict) for verdict in found.verdicts] == [False, True]
    retry = recipients_to_retry(found, after(found, attempts=1))
    assert [retry(verdict) for verdict in found.verdicts] == [False, False]


def test_a_recipient_named_twice_has_two_results() -> None:
    entry = replace(ENTRY, envelope=Envelope("x@y.test", ["ann@z.test", "ann@z.test"]), results=())
    found = receipt_for(entry.pending, "250 ok", "450 later")
    retry = recipients_to_retry(found, after(found, entry=entry))
    assert [retry(verdict) for verdict in found.verdicts] == [False, True]


def test_an_unknown_outcome_is_never_a_problem_of_the_host() -> None:
    found = after(receipt_for(ENTRY.pending, Outcome.UNKNOWN, error=ConnectionLost("reset")))
    assert found.host_error is None and found.unknown


def test_a_message_refused_for_want_of_a_login_is_deferred_and_counts() -> None:
    error = refused(SenderRefused, "530 log in first")
    found = after(receipt_for(ENTRY.pending, "530 log in first", error=error))
    assert (found.fate, found.host_error) == (Fate.DEFERRED, error)


def test_results_are_grouped_by_fate() -> None:
    entry = replace(ENTRY, envelope=Envelope("x@y.test", [ANN, BOB, CID]), results=())
    found = after("250 ok", "550 5.1.1 unknown", "450 later", entry=entry)
    assert [one.recipient for one in found.delivered] == [ANN]
    assert [one.recipient for one in found.failed] == [BOB]
    assert [one.recipient for one in found.deferred] == [CID]
    assert found.host_error is None and not found.unknown
