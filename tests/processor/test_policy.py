"""The truth table of the queue, line by line: what an error means for a recipient, and whom it concerns."""

import errno as numbers
from typing import Any

import pytest

from smtp_async import Outcome, Receipt, Recipient, Reply, Verdict, errors
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
    TooManyRecipients,
    WrongTLSMode,
)
from smtp_async.processor.policy import (
    RULINGS,
    UNKNOWN,
    Fate,
    Scope,
    judge,
    receipt_of,
    ruling,
)

ANN, BOB, CID = (Recipient(f"{name}@example.org") for name in ("ann", "bob", "cid"))
HOST, MESSAGE, RECIPIENT = Scope.HOST, Scope.MESSAGE, Scope.RECIPIENT
DELIVERED, DEFER, FAIL = Fate.DELIVERED, Fate.DEFER, Fate.FAIL


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
    # The host, or the way to it: nobody's mail bounces.
    (refused(GreetingRefused, "554 no"), HOST, DEFER),
    (refused(GreetingRefused, "421 busy"), HOST, DEFER),
    (refused(HelloRefused, "550 no"), HOST, DEFER),
    (refused(StartTLSRefused, "454 not now"), HOST, DEFER),
    (refused(StartTLSRefused, "502 never"), HOST, DEFER),
    (StartTLSUnavailable("not offered"), HOST, DEFER),
    (refused(AuthenticationFailed, "535 5.7.8 wrong"), HOST, DEFER),
    (refused(AuthenticationFailed, "454 4.7.0 not now"), HOST, DEFER),
    (AuthenticationUnavailable("none"), HOST, DEFER),
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
    (refused(RecipientsRefused, "550 5.1.1 nobody"), RECIPIENT, FAIL),
    # DATA and its end.
    (refused(MessageRefused, "451 4.3.0 not now"), MESSAGE, DEFER),
    (refused(MessageRefused, "554 5.7.1 spam"), MESSAGE, FAIL),
    # On its way when the connection ended.
    (caused(NotSent("lost"), ConnectionLost("reset", stage="DATA")), MESSAGE, DEFER),
    (caused(NotSent("late"), Timeout("no reply", stage="MAIL")), MESSAGE, DEFER),
    (caused(NotSent("closed"), refused(ConnectionLost, "421 4.3.2 bye")), MESSAGE, DEFER),
    (caused(NotSent("closed"), refused(ConnectionLost, "421 4.7.0 rate")), HOST, DEFER),
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
def test_the_table(error: SMTPError, scope: Scope, fate: Fate) -> None:
    line = ruling(error)
    assert (line.scope, line.fate) == (scope, fate)


def test_every_line_of_the_table_is_tried() -> None:
    tried = {id(ruling(error)) for error, *_ in TABLE}
    assert [line for line in RULINGS if id(line) not in tried] == []


@pytest.mark.parametrize("number", sorted(errors.BY_NUMBER))
def test_every_error_has_a_ruling(number: int) -> None:
    kind: Any = errors.BY_NUMBER[number]
    error = kind("x", needs="y") if kind is FeatureUnavailable else kind("x")
    assert ruling(error).fate in (DEFER, FAIL)


def test_no_problem_of_the_host_fails_a_message() -> None:
    assert {line.fate for line in RULINGS if line.scope is HOST} == {DEFER}


# --- judging a receipt ---------------------------------------------------------------------------------------


def receipt(*verdicts: tuple[Recipient, Outcome, str | None], error: SMTPError | None = None) -> Receipt:
    made = [Verdict(who, outcome, reply(text) if text else None) for who, outcome, text in verdicts]
    return Receipt(tuple(made), error.reply if error else None, error)


def fates(found: Receipt, **options: Any) -> list[Fate]:
    return [sentence.fate for sentence in judge(found, **options).sentences]


def test_each_recipient_is_judged_by_his_own_reply() -> None:
    found = receipt(
        (ANN, Outcome.ACCEPTED, "250 2.0.0 queued"),
        (BOB, Outcome.REFUSED, "550 5.1.1 nobody"),
        (CID, Outcome.REFUSED, "450 4.2.0 greylisted"),
    )
    assert fates(found) == [DELIVERED, FAIL, DEFER]
    disposition = judge(found)
    assert disposition.host is None and not disposition.unknown
    assert [one.recipient for one in disposition.delivered] == [ANN]
    assert [one.recipient for one in disposition.failed] == [BOB]
    assert [one.recipient for one in disposition.deferred] == [CID]


def test_all_refused_at_rcpt_are_judged_one_by_one() -> None:
    error = refused(RecipientsRefused, "550 5.1.1 nobody")
    found = receipt(
        (ANN, Outcome.REFUSED, "550 5.1.1 nobody"), (BOB, Outcome.REFUSED, "450 later"), error=error
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


def test_those_refused_at_rcpt_keep_their_reply_when_the_message_is_refused_for_now() -> None:
    error = refused(MessageRefused, "451 not now")
    found = receipt(
        (ANN, Outcome.REFUSED, "550 5.1.1 nobody"), (BOB, Outcome.REFUSED, "451 not now"), error=error
    )
    assert fates(found) == [FAIL, DEFER]


def test_unknown_is_tried_again_or_held() -> None:
    found = receipt((ANN, Outcome.UNKNOWN, None), error=OutcomeUnknown("no reply"))
    assert fates(found, on_unknown="retry") == [DEFER]
    assert fates(found, on_unknown="hold") == [FAIL]
    held = judge(found, on_unknown="hold")
    assert held.unknown and held.sentences[0].reason == UNKNOWN


def test_unknown_is_never_a_problem_of_the_host() -> None:
    found = receipt((ANN, Outcome.UNKNOWN, None), error=ConnectionLost("reset"))
    disposition = judge(found)
    assert disposition.host is None and disposition.unknown


def test_a_dead_host_leaves_a_message_untried() -> None:
    error = SocketError("refused", errno=numbers.ECONNREFUSED)
    disposition = judge(receipt((ANN, Outcome.NOT_SENT, None), error=error))
    assert disposition.host is error and disposition.untried


def test_a_sender_who_must_log_in_was_tried_and_is_deferred() -> None:
    error = refused(SenderRefused, "530 log in first")
    disposition = judge(receipt((ANN, Outcome.REFUSED, "530 log in first"), error=error))
    assert disposition.host is error and not disposition.untried
    assert [one.fate for one in disposition.sentences] == [DEFER]


def test_not_sent_beside_accepted_is_tried_again() -> None:
    found = receipt((ANN, Outcome.ACCEPTED, "250 ok"), (BOB, Outcome.NOT_SENT, None))
    assert fates(found) == [DELIVERED, DEFER]


# --- from an exception to a receipt --------------------------------------------------------------------------


def test_an_exception_without_receipt_is_about_everybody() -> None:
    found = receipt_of(NotConnected("closed"), [ANN, BOB])
    assert [verdict.outcome for verdict in found.verdicts] == [Outcome.NOT_SENT] * 2
    assert isinstance(found.error, NotConnected)
    unknown = receipt_of(OutcomeUnknown("no reply"), [ANN])
    assert unknown.outcome is Outcome.UNKNOWN


def test_the_receipt_of_an_exception_is_taken() -> None:
    error = refused(MessageRefused, "554 spam")
    error.receipt = receipt((ANN, Outcome.REFUSED, "554 spam"))
    found = receipt_of(error, [BOB])
    assert found.verdicts[0].recipient is ANN and found.error is error
