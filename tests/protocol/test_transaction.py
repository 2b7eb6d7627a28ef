"""transaction.py: what is planned, who is to blame, what becomes of whom."""

import itertools

import pytest

from smtp_async.errors import (
    ConnectionLost,
    ExtensionMissing,
    InvalidAddress,
    MessageRefused,
    MessageTooLarge,
    NotSent,
    OutcomeUnknown,
    ProtocolViolation,
    RecipientsRefused,
    SenderRefused,
)
from smtp_async.model.address import Address
from smtp_async.model.content import Content, Source
from smtp_async.model.envelope import EVERYONE, NOBODY, Envelope, Kind, Recipient
from smtp_async.model.receipt import Outcome
from smtp_async.model.reply import Reply
from smtp_async.protocol.extensions import NO_EXTENSIONS, Extensions
from smtp_async.protocol.options import SMALL_BODY, SendOptions
from smtp_async.protocol.plan import plan
from tests.protocol.talk import BODY, bob, receipt_of

OK = Reply(250, (b"ok",))
GO = Reply(354, (b"go",))
NO = Reply(550, (b"no",))
LATER = Reply(451, (b"later",))
LOST = ConnectionLost("lost", stage="end of data")


def offer(*keywords, **values):
    return Extensions(dict.fromkeys(keywords, "") | values)


def planned(
    *recipients,
    sender: str | None = "ann@example.com",
    body=BODY,
    extensions=NO_EXTENSIONS,
    content=None,
    **options,
):
    envelope = Envelope(sender, recipients or [bob()])
    return plan(envelope, content or Content.of_bytes(body), extensions, SendOptions(**options))


def answered(rcpts, *, mail=OK, data=None, final=(), handed=False, kinds=(), **options):
    """A transaction with these answers read."""
    recipients = [
        bob(f"r{i}", kind)
        for i, (_, kind) in enumerate(itertools.zip_longest(rcpts, kinds, fillvalue=Kind.TO))
    ]
    transaction = planned(*recipients, **options)
    transaction.mail_answer = mail
    transaction.mail_refused = mail is not None and not mail.positive
    transaction.answers = list(rcpts)[: len(recipients)]
    transaction.accepted = sum(answer.positive for answer in rcpts)
    transaction.data_answer = data
    transaction.final = list(final)
    transaction.handed = handed
    return transaction


def outcomes(transaction):
    return [verdict.outcome for verdict in receipt_of(transaction).verdicts]


def replies(transaction):
    return [verdict.reply for verdict in receipt_of(transaction).verdicts]


# --- planning ---


def test_lines_are_made_at_once():
    transaction = planned(bob("b"), bob("c", Kind.BCC))
    assert transaction.mail == b"MAIL FROM:<ann@example.com>\r\n"
    assert transaction.rcpts == (b"RCPT TO:<b@example.org>\r\n", b"RCPT TO:<c@example.org>\r\n")
    assert transaction.envelope == transaction.mail + b"".join(transaction.rcpts)
    assert planned().envelope == planned().mail + planned().rcpts[0]


def test_the_null_return_path():
    assert planned(sender=None).mail == b"MAIL FROM:<>\r\n"


@pytest.mark.parametrize(
    ("extensions", "parameters"),
    [
        (NO_EXTENSIONS, b""),
        (offer(SIZE=""), b" SIZE=%d" % len(BODY)),
        (offer(SIZE="0"), b" SIZE=%d" % len(BODY)),
        (offer(SIZE=str(len(BODY))), b" SIZE=%d" % len(BODY)),
        (offer("8BITMIME", "SMTPUTF8", SIZE="9999"), b" SIZE=%d" % len(BODY)),
    ],
)
def test_size_is_told_where_it_is_asked_for(extensions, parameters):
    assert planned(extensions=extensions).mail == b"MAIL FROM:<ann@example.com>" + parameters + b"\r\n"


def test_a_message_over_the_limit_is_not_begun():
    with pytest.raises(MessageTooLarge, match="takes 10"):
        planned(extensions=offer(SIZE="10"))


def test_an_unknown_size_is_not_told():
    transaction = planned(content=Content([Source([])]), extensions=offer(SIZE="10"))
    assert transaction.mail == b"MAIL FROM:<ann@example.com>\r\n"
    assert transaction.payload is None


def test_eight_bit_content_needs_8bitmime():
    body = "Subject: x\r\n\r\nGrüße\r\n".encode()
    assert planned(body=body, extensions=offer("8BITMIME")).mail.endswith(b"> BODY=8BITMIME\r\n")
    with pytest.raises(ExtensionMissing, match="8BITMIME"):
        planned(body=body)


@pytest.mark.parametrize(
    "message",
    [
        {"sender": "änn@example.com"},
        {"recipients": [Recipient("böb@example.org")]},
        {"body": "Subject: ä\r\n\r\nx\r\n".encode()},
    ],
)
def test_text_beyond_ascii_in_addresses_or_header_needs_smtputf8(message):
    recipients = message.pop("recipients", [bob()])
    transaction = planned(*recipients, extensions=offer("8BITMIME", "SMTPUTF8"), **message)
    assert transaction.mail.endswith(b"> BODY=8BITMIME SMTPUTF8\r\n")
    with pytest.raises(ExtensionMissing, match="SMTPUTF8"):
        planned(*recipients, extensions=offer("8BITMIME"), **message)
    with pytest.raises(ExtensionMissing, match="8BITMIME"):
        planned(*recipients, extensions=offer("SMTPUTF8"), **message)


def test_binary_content_is_refused():
    with pytest.raises(ExtensionMissing, match="BINARYMIME"):
        planned(body=b"A: b\r\n\r\nx\0\r\n", extensions=offer("8BITMIME"))


def test_an_address_that_would_break_the_line_is_refused():
    class Forged(Address):
        def wire(self, *, utf8):
            return b"b@example.org> AUTH=<x"

    with pytest.raises(InvalidAddress):
        planned(Recipient(Forged("b", "example.org")))


def test_a_small_body_is_framed_at_once_and_safely():
    assert planned().payload == BODY + b".\r\n"
    assert planned(body=b"A: b\n\n.\n").payload == b"A: b\r\n\r\n..\r\n.\r\n"
    forged = Content([b"A: b\r\n\r\nx\n.\nMAIL FROM:<x@example.com>\n"])
    assert planned(content=forged).payload == b"A: b\r\n\r\nx\r\n..\r\nMAIL FROM:<x@example.com>\r\n.\r\n"


def test_a_large_body_is_left_to_its_caller():
    head = b"A: b\r\n\r\n"
    line = b"x" * 70 + b"\r\n"
    body = head + line * ((SMALL_BODY - len(head)) // len(line))
    body += b"x" * (SMALL_BODY - len(body) - 2) + b"\r\n"
    assert len(body) == SMALL_BODY
    assert planned(body=body).payload == body + b".\r\n"
    assert planned(body=b"x" + body).payload is None


def test_the_message_id_is_known():
    assert planned(body=b"Message-ID: <1@example.com>\r\n\r\nx").message_id == "<1@example.com>"


def test_a_transaction_can_be_tried_again():
    transaction = answered([OK], data=GO, final=[OK], handed=True)
    transaction.conclude(per_recipient=False)
    transaction.renew()
    fresh = planned()
    for name in (
        "written",
        "replies_owed",
        "answers",
        "accepted",
        "final",
        "handed",
        "ended",
        "receipt",
        "withdrawn",
    ):
        assert getattr(transaction, name) == getattr(fresh, name)
    assert transaction.mail_answer is transaction.data_answer is None


@pytest.mark.parametrize(
    ("kinds", "must_accept", "decides"),
    [
        ([Kind.TO], EVERYONE, False),
        ([Kind.TO, Kind.TO], EVERYONE, True),
        ([Kind.TO, Kind.BCC], SendOptions().must_accept, True),
        ([Kind.BCC, Kind.BCC], SendOptions().must_accept, False),
        ([Kind.BCC, Kind.BCC], EVERYONE, True),
        ([Kind.TO, Kind.CC], NOBODY, False),
    ],
)
def test_data_waits_only_where_a_refusal_can_decide(kinds, must_accept, decides):
    recipients = [bob(f"r{i}", kind) for i, kind in enumerate(kinds)]
    assert planned(*recipients, must_accept=must_accept).decides is decides


def test_to_and_cc_must_be_accepted_by_default():
    assert SendOptions().must_accept == {Kind.TO, Kind.CC}


def test_a_recipient_too_many_is_no_veto_where_it_may_wait():
    full = Reply(452, (b"4.5.3 too many recipients",))
    for split, vetoed in ((True, False), (False, True)):
        assert answered([OK, full], split=split).vetoed is vetoed
    assert answered([full, full], split=True).vetoed
    assert answered([OK, NO], split=True).vetoed
    assert not answered([OK, NO], must_accept=NOBODY).vetoed


# --- concluding ---


def test_the_dot_is_thanked():
    transaction = answered([OK], data=GO, final=[OK], handed=True)
    transaction.bytes_sent = 7
    transaction.conclude(per_recipient=False)
    receipt = receipt_of(transaction)
    assert (receipt.outcome, receipt.reply, receipt.error, receipt.bytes_sent) == (
        Outcome.ACCEPTED,
        OK,
        None,
        7,
    )


def test_a_refused_mail_is_blamed_for_what_comes_behind_it():
    behind = Reply(503, (b"MAIL first",))
    full = Reply(552, (b"too large",))
    transaction = answered([behind, behind], mail=full, data=behind)
    transaction.conclude(per_recipient=False)
    receipt = receipt_of(transaction)
    assert isinstance(receipt.error, SenderRefused)
    assert receipt.reply == receipt.error.reply == full
    assert replies(transaction) == [full, full]
    assert outcomes(transaction) == [Outcome.REFUSED] * 2


def test_a_message_accepted_after_a_refused_mail_has_an_unknown_end():
    transaction = answered([OK], mail=NO, final=[OK], handed=True)
    transaction.conclude(per_recipient=False)
    receipt = receipt_of(transaction)
    assert receipt.outcome is Outcome.UNKNOWN
    assert isinstance(receipt.error, OutcomeUnknown)
    assert isinstance(receipt.error.__cause__, ProtocolViolation)
    assert receipt.reply == NO


@pytest.mark.parametrize(
    ("rcpts", "data", "final", "expected", "error", "blamed"),
    [
        # accepted for some: the refused one is told
        ([OK, NO], GO, [OK], [Outcome.ACCEPTED, Outcome.REFUSED], None, NO),
        ([OK, OK], GO, [OK], [Outcome.ACCEPTED, Outcome.ACCEPTED], None, OK),
        # refused as a whole: those refused before are not the reason
        ([OK, NO], GO, [LATER], [Outcome.REFUSED, Outcome.REFUSED], MessageRefused, LATER),
        ([OK, NO], LATER, [], [Outcome.REFUSED, Outcome.REFUSED], MessageRefused, LATER),
        ([OK], LATER, [], [Outcome.REFUSED], MessageRefused, LATER),
        ([OK], GO, [NO], [Outcome.REFUSED], MessageRefused, NO),
        # nobody accepted: DATA's 554 only repeats it
        ([NO, LATER], Reply(554), [], [Outcome.REFUSED, Outcome.REFUSED], RecipientsRefused, NO),
        ([LATER, NO], None, [], [Outcome.REFUSED, Outcome.REFUSED], RecipientsRefused, LATER),
        # a lone dot that was accepted delivers nothing
        ([NO, NO], GO, [OK], [Outcome.REFUSED, Outcome.REFUSED], RecipientsRefused, NO),
        ([NO], GO, [NO], [Outcome.REFUSED], RecipientsRefused, NO),
    ],
)
def test_blame_follows_cause(rcpts, data, final, expected, error, blamed):
    transaction = answered(rcpts, data=data, final=final, handed=bool(final), must_accept=NOBODY)
    transaction.conclude(per_recipient=False)
    receipt = receipt_of(transaction)
    assert outcomes(transaction) == expected
    assert receipt.reply == blamed
    assert (type(receipt.error) if receipt.error else None) is error
    if receipt.error is not None:
        assert receipt.error.reply == blamed
    for answer, verdict in zip(rcpts, receipt.verdicts, strict=True):
        assert answer.positive or verdict.reply == answer


def test_a_veto_is_blamed_on_a_recipient_that_had_to_be_accepted():
    transaction = answered([NO, OK, LATER], kinds=[Kind.BCC, Kind.TO, Kind.TO])
    transaction.conclude(per_recipient=False)
    receipt = receipt_of(transaction)
    assert outcomes(transaction) == [Outcome.REFUSED, Outcome.NOT_SENT, Outcome.REFUSED]
    assert isinstance(receipt.error, RecipientsRefused)
    assert receipt.error.reply == receipt.reply == LATER
    assert receipt.error.temporary


def test_only_so_many_refused_recipients_are_named():
    transaction = answered([NO] * 5)
    transaction.conclude(per_recipient=False)
    error = receipt_of(transaction).error
    assert error is not None
    assert error.message == "refused: r0@example.org, r1@example.org, r2@example.org and 2 more"


def test_lmtp_answers_each_accepted_recipient():
    transaction = answered([OK, NO, OK, OK], data=GO, final=[OK, LATER, OK], handed=True, must_accept=NOBODY)
    transaction.conclude(per_recipient=True)
    receipt = receipt_of(transaction)
    assert outcomes(transaction) == [Outcome.ACCEPTED, Outcome.REFUSED, Outcome.REFUSED, Outcome.ACCEPTED]
    assert replies(transaction) == [OK, NO, LATER, OK]
    assert (receipt.reply, receipt.error) == (NO, None)


@pytest.mark.parametrize("rcpts", [[], [OK], [OK, OK], [OK, NO]])
def test_what_was_withdrawn_was_not_sent(rcpts):
    transaction = answered(rcpts, kinds=[Kind.TO, Kind.TO], must_accept=NOBODY)
    transaction.conclude(per_recipient=False)
    receipt = receipt_of(transaction)
    assert isinstance(receipt.error, NotSent)
    expected = [Outcome.NOT_SENT if answer is not NO else Outcome.REFUSED for answer in rcpts]
    assert outcomes(transaction) == expected + [Outcome.NOT_SENT] * (2 - len(rcpts))


# --- a dead connection ---


@pytest.mark.parametrize("after_421", [False, True])
@pytest.mark.parametrize("rcpts", [[], [OK], [NO]])
def test_what_was_not_handed_over_was_not_sent(rcpts, after_421):
    transaction = answered(rcpts, kinds=[Kind.TO])
    transaction.give_up(LOST, after_421=after_421)
    receipt = receipt_of(transaction)
    assert outcomes(transaction) == [Outcome.NOT_SENT]
    assert isinstance(receipt.error, NotSent)
    assert receipt.error.__cause__ is LOST
    assert receipt.error.stage == "end of data"


def test_what_was_handed_over_has_an_unknown_end():
    transaction = answered([OK, NO, OK], data=GO, handed=True, must_accept=NOBODY)
    transaction.give_up(LOST, after_421=False)
    receipt = receipt_of(transaction)
    assert outcomes(transaction) == [Outcome.UNKNOWN, Outcome.REFUSED, Outcome.UNKNOWN]
    assert (receipt.outcome, receipt.reply) == (Outcome.UNKNOWN, NO)
    assert isinstance(receipt.error, OutcomeUnknown)
    assert receipt.error.__cause__ is LOST


def test_what_was_handed_over_unread_has_an_unknown_end():
    transaction = answered([OK], kinds=[Kind.TO, Kind.TO], handed=True)
    transaction.give_up(LOST, after_421=False)
    assert outcomes(transaction) == [Outcome.UNKNOWN, Outcome.UNKNOWN]


def test_nothing_behind_a_421_was_accepted():
    transaction = answered([OK, NO], handed=True, must_accept=NOBODY)
    transaction.give_up(LOST, after_421=True)
    assert outcomes(transaction) == [Outcome.NOT_SENT, Outcome.REFUSED]
    assert isinstance(receipt_of(transaction).error, NotSent)


def test_a_lone_dot_without_reply_leaves_nothing_unknown():
    transaction = answered([NO, LATER], data=GO, handed=True, must_accept=NOBODY)
    transaction.give_up(LOST, after_421=False)
    receipt = receipt_of(transaction)
    assert receipt.outcome is Outcome.REFUSED
    assert isinstance(receipt.error, RecipientsRefused)
    assert receipt.error.reply == receipt.reply == NO


def test_a_refused_mail_stays_refused():
    transaction = answered([NO], mail=LATER, handed=True)
    transaction.give_up(LOST, after_421=False)
    assert isinstance(receipt_of(transaction).error, SenderRefused)


@pytest.mark.parametrize(
    ("final", "after_421", "expected", "error"),
    [
        ([OK], False, [Outcome.ACCEPTED, Outcome.UNKNOWN, Outcome.UNKNOWN], OutcomeUnknown),
        ([OK, NO], False, [Outcome.ACCEPTED, Outcome.REFUSED, Outcome.UNKNOWN], OutcomeUnknown),
        ([OK], True, [Outcome.ACCEPTED, Outcome.NOT_SENT, Outcome.NOT_SENT], None),
        ([NO], True, [Outcome.REFUSED, Outcome.NOT_SENT, Outcome.NOT_SENT], NotSent),
    ],
)
def test_lmtp_keeps_the_replies_that_came(final, after_421, expected, error):
    transaction = answered([OK, OK, OK], data=GO, final=final, handed=True)
    transaction.give_up(LOST, after_421=after_421)
    receipt = receipt_of(transaction)
    assert outcomes(transaction) == expected
    assert (type(receipt.error) if receipt.error else None) is error


def test_everything_a_transaction_knows_is_declared():
    with pytest.raises(AttributeError):
        planned().surprise = 1
    assert not hasattr(planned(), "__dict__")


@pytest.mark.parametrize(
    ("other", "suits"),
    [
        (offer("PIPELINING", "8BITMIME", SIZE="5000"), True),
        (Extensions({"PIPELINING": "", "8BITMIME": "", "SIZE": "5000"}, domain="other.example"), True),
        (offer("PIPELINING", "8BITMIME", "DSN", SIZE="9000"), True),
        (offer("PIPELINING", SIZE="5000"), False),
        (offer("PIPELINING", "8BITMIME"), False),
        (offer("PIPELINING", "8BITMIME", SIZE="1"), False),
        (offer("PIPELINING", "8BITMIME", SIZE="5000", LIMITS="RCPTMAX=1"), False),
    ],
)
def test_a_plan_suits_whoever_offers_no_less(other, suits):
    assert planned(extensions=offer("PIPELINING", "8BITMIME", SIZE="5000")).suits(other) is suits
