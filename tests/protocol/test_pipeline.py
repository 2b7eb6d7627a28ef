"""pipeline.py: how far a message is written unread, what its replies make of it, and when nothing can be trusted."""

import itertools

import pytest

from smtp_async.errors import (
    ConnectionLost,
    MessageRefused,
    NotSent,
    OutcomeUnknown,
    ProtocolViolation,
    RecipientsRefused,
    SenderRefused,
    Timeout,
    UsageError,
)
from smtp_async.model.envelope import EVERYONE, NOBODY, Kind
from smtp_async.model.receipt import Outcome
from smtp_async.model.reply import Reply
from smtp_async.protocol.options import SendOptions
from smtp_async.protocol.pipelining_history import Breakdown
from smtp_async.protocol.states import Stage, Verb
from tests.protocol.talk import BODY, DOT, Talk, bob, lines, receipt_of, whole

MAIL = "MAIL FROM:<ann@example.com>"
LOST = ConnectionLost("lost")
NOBODY_MUST = SendOptions(must_accept=NOBODY)
LOCK_STEP: list[str] = []


def rcpt(name="bob"):
    return f"RCPT TO:<{name}@example.org>"


def outcome(transaction):
    return receipt_of(transaction).outcome


def group(*names, data=True, reset=False):
    """An envelope in one write."""
    return lines(
        *(["RSET"] if reset else []), MAIL, *map(rcpt, names or ["bob"]), *(["DATA"] if data else [])
    )


# --- how far a message is written unread ---


def test_lock_step_writes_one_command_and_waits(deliver):
    talk = Talk.ready(deliver, LOCK_STEP)
    transaction = talk.begin(bob("b"), bob("c"))
    for text, clock, answer in [
        (MAIL, "mail", "250 ok"),
        (rcpt("b"), "rcpt", "250 ok"),
        (rcpt("c"), "rcpt", "251 ok"),
        ("DATA", "data", "354 go"),
    ]:
        talk.writes(text)
        assert talk.machine.expected == clock
        assert not talk.machine.pipeline.can_begin
        talk.says(answer)
    talk.writes(BODY + DOT)
    assert talk.machine.expected == "end_of_data"
    assert not talk.machine.pipeline.can_begin
    talk.says("250 queued")
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.ACCEPTED
    assert talk.machine.pipeline.can_begin
    assert talk.machine.idle
    assert receipt_of(transaction).bytes_sent == len(group("b", "c") + BODY + DOT)


def test_an_envelope_is_one_write(deliver):
    talk = Talk.ready(deliver)
    transaction = talk.begin(bob("b"), bob("c"), options=NOBODY_MUST)
    talk.writes(group("b", "c"))
    talk.says("250 ok", "250 ok", "250 ok", "354 go")
    talk.writes(BODY + DOT)
    talk.says("250 queued")
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.ACCEPTED


def test_data_waits_where_a_refusal_can_decide_or_the_connection_is_in_doubt(deliver):
    talk = Talk.ready(deliver)
    talk.begin(bob("b"), bob("c"))
    talk.writes(group("b", "c", data=False))
    talk.says("250 ok", "250 ok")
    talk.writes()
    talk.says("250 ok")
    talk.writes("DATA")
    talk.says("354 go")
    talk.writes(BODY + DOT)
    second = talk.begin(hold=True)
    talk.says("250 queued")
    talk.writes(group(data=False, reset=True))
    talk.says("250 reset", "250 ok", "250 ok")
    talk.writes("DATA")
    talk.says("354 go")
    talk.writes(BODY + DOT)
    talk.says("250 queued")
    assert outcome(second) is Outcome.ACCEPTED


def test_the_end_of_a_message_shares_its_write_with_the_next_envelope(deliver):
    talk = Talk.ready(deliver)
    machine = talk.machine
    transactions = [talk.begin()]
    talk.writes(group())
    assert not machine.pipeline.can_begin
    for n in range(5):
        talk.says(*["250 reset"] * bool(n), "250 ok", "250 ok", "354 go")
        assert machine.pipeline.can_begin
        transactions.append(talk.begin())
        talk.writes(BODY + DOT + group(reset=True))
        assert (machine.expected, machine.answering) == ("end_of_data", "end of data")
        talk.says("250 queued")
        assert talk.settled() == [transactions[-2]]
    assert [outcome(t) for t in transactions[:-1]] == [Outcome.ACCEPTED] * 5
    assert transactions[-1].receipt is None


def test_a_refused_dot_does_not_touch_the_envelope_behind_it(deliver):
    talk = Talk.ready(deliver)
    first = talk.begin()
    talk.writes(group())
    talk.says("250 ok", "250 ok", "354 go")
    second = talk.begin(bob("c"))
    talk.writes(BODY + DOT + group("c", reset=True))
    talk.says("552 too large", "250 reset", "250 ok", "250 ok", "354 go")
    talk.writes(BODY + DOT)
    talk.says("250 queued")
    assert talk.settled() == [first, second]
    assert isinstance(receipt_of(first).error, MessageRefused)
    assert outcome(second) is Outcome.ACCEPTED


def test_lmtp_is_pipelined_too(deliver):
    talk = Talk.ready(deliver, lmtp=True)
    first = talk.begin(bob("b"), bob("c"), options=NOBODY_MUST)
    talk.writes(group("b", "c"))
    talk.says("250 ok", "250 ok", "250 ok", "354 go")
    second = talk.begin(bob("d"))
    talk.writes(BODY + DOT + group("d", reset=True))
    talk.says("250 b")
    assert (talk.settled(), talk.machine.expected) == ([], "end_of_data")
    talk.says("450 c", "250 reset", "250 ok", "250 ok", "354 go")
    talk.writes(BODY + DOT)
    talk.says("250 d")
    assert talk.settled() == [first, second]
    assert (outcome(first), outcome(second)) == (Outcome.PARTIAL, Outcome.ACCEPTED)


# --- recipients × DATA × policy ---

POLICIES = {"to and cc": SendOptions().must_accept, "everyone": EVERYONE, "nobody": NOBODY}
KINDS = (Kind.TO, Kind.CC, Kind.BCC, Kind.BCC)
CODES = (550, 451, 553, 554)
DATA = {"354": "354 go", "451": "451 later", "554": "554 no"}


def play(talk, names, pattern, data, options):
    """Write the envelope as far as it goes and answer it; tell whether DATA was written."""
    recipients = [bob(name, kind) for name, kind in zip(names, KINDS, strict=True)]
    transaction = talk.begin(*recipients, options=options)
    pipelined = talk.machine.pipelining
    answers = ["250 ok" if accepted else f"{code} no" for code, accepted in zip(CODES, pattern, strict=True)]
    if not pipelined:
        talk.writes(MAIL)
        talk.says("250 ok")
        for name, answer in zip(names, answers, strict=True):
            talk.writes(rcpt(name))
            talk.says(answer)
    else:
        talk.writes(group(*names, data=not transaction.decides))
        talk.says("250 ok", *answers)
    written = pipelined and not transaction.decides
    if not written:
        out = talk.machine.data_to_send()
        assert out in (b"", b"DATA\r\n")
        written = bool(out)
    if written:
        talk.says(DATA[data])
    return transaction, written


@pytest.mark.parametrize("level", ["lock-step", "pipelined"])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_pattern_of_recipients(deliver, policy, data, level):
    names = ["a", "b", "c", "d"]
    must_accept = POLICIES[policy]
    for pattern in itertools.product([True, False], repeat=4):
        talk = Talk.ready(deliver, ["PIPELINING"] if level == "pipelined" else LOCK_STEP)
        transaction, written = play(talk, names, pattern, data, SendOptions(must_accept=must_accept))
        veto = any(
            kind in must_accept and not accepted for kind, accepted in zip(KINDS, pattern, strict=True)
        )
        hopeless = veto or not any(pattern)
        unread = level == "pipelined" and not must_accept
        assert written is (unread or not hopeless)

        ended = written and data == "354"
        if ended:
            talk.writes(BODY + DOT if any(pattern) else DOT)
            assert talk.settled() == []
            talk.says("250 queued")
        talk.writes()
        assert talk.settled() == [transaction]
        receipt = receipt_of(transaction)

        refused = [number for number, accepted in enumerate(pattern) if not accepted]
        for number, verdict in enumerate(receipt.verdicts):
            if number in refused:
                assert (verdict.outcome, verdict.reply) == (Outcome.REFUSED, Reply(CODES[number], (b"no",)))
            elif hopeless:
                assert verdict.outcome is Outcome.NOT_SENT
            else:
                assert verdict.outcome is (Outcome.ACCEPTED if data == "354" else Outcome.REFUSED)
                assert verdict.reply is not None and verdict.reply.code == (
                    250 if data == "354" else int(data)
                )
        if hopeless:
            assert isinstance(receipt.error, RecipientsRefused)
            blame = [n for n in refused if not any(pattern) or KINDS[n] in must_accept]
            assert receipt.reply == receipt.error.reply == Reply(CODES[blame[0]], (b"no",))
        elif data == "354":
            assert receipt.error is None
            assert receipt.reply is not None and receipt.reply.code == (CODES[refused[0]] if refused else 250)
        else:
            assert isinstance(receipt.error, MessageRefused)
            assert receipt.reply == receipt.error.reply
            assert receipt.reply is not None and receipt.reply.code == int(data)

        # RSET comes first unless the end of data was written.
        following = talk.begin()
        assert talk.machine.data_to_send().startswith(following.mail if ended else b"RSET\r\n")


@pytest.mark.parametrize("end", ["250 ok", "554 no recipients", "451 later"])
def test_a_lone_dot_delivers_nothing_whatever_is_answered(deliver, end):
    talk = Talk.ready(deliver)
    transaction = talk.begin()
    talk.writes(group())
    talk.says("250 ok", "550 no", "354 go")
    talk.writes(DOT)
    assert talk.machine.pipeline.can_begin
    talk.says(end)
    assert isinstance(receipt_of(transaction).error, RecipientsRefused)
    assert outcome(transaction) is Outcome.REFUSED
    talk.begin()
    talk.writes(group(data=False, reset=not end.startswith("2")))


def test_an_lmtp_server_may_not_ask_for_a_message_without_recipients(deliver):
    talk = Talk.ready(deliver, lmtp=True)
    transaction = talk.begin()
    talk.writes(group())
    with pytest.raises(ProtocolViolation, match="without recipients") as caught:
        talk.says("250 ok", "550 no", "354 go")
    talk.machine.fail(caught.value)
    talk.writes()
    assert outcome(transaction) is Outcome.NOT_SENT


# --- MAIL refused ---


@pytest.mark.parametrize("offer", [LOCK_STEP, ["PIPELINING"]], ids=["lock-step", "pipelined"])
def test_a_refused_sender_is_refused_once_and_needs_no_rset(deliver, offer):
    talk = Talk.ready(deliver, offer)
    transaction = talk.begin()
    if offer:
        talk.writes(group())
        talk.says("552 too large", "503 no MAIL", "503 no RCPT")
    else:
        talk.writes(MAIL)
        talk.says("552 too large")
    talk.writes()
    assert talk.settled() == [transaction]
    receipt = receipt_of(transaction)
    assert isinstance(receipt.error, SenderRefused)
    assert receipt.reply == receipt.verdicts[0].reply == Reply(552, (b"too large",))
    talk.stands(Stage.READY)
    talk.begin()
    talk.writes(group(data=False) if offer else MAIL)


def test_a_refused_sender_held_back_from_data(deliver):
    talk = Talk.ready(deliver)
    transaction = talk.begin(hold=True)
    talk.writes(group(data=False))
    talk.says("550 no", "503 no")
    talk.writes()
    assert isinstance(receipt_of(transaction).error, SenderRefused)
    assert talk.machine.pipeline.can_begin


def test_a_server_that_refuses_the_sender_and_asks_for_the_message_gets_nothing(deliver):
    talk = Talk.ready(deliver)
    transaction = talk.begin()
    talk.writes(group())
    with pytest.raises(ProtocolViolation, match="refused the sender") as caught:
        talk.says("550 no", "250 ok", "354 go")
    talk.machine.fail(caught.value)
    talk.writes()
    assert outcome(transaction) is Outcome.NOT_SENT
    assert talk.settled() == [transaction]


def test_a_server_that_refuses_the_sender_and_takes_the_message_may_have_delivered(deliver):
    talk = Talk.ready(deliver)
    transaction = talk.begin()
    talk.writes(group())
    talk.says("250 ok", "250 ok", "354 go")
    talk.writes(BODY + DOT)
    # As it would be with MAIL and the whole message in one write.
    transaction.mail_answer, transaction.mail_refused = Reply(550, (b"no",)), True
    with pytest.raises(ProtocolViolation, match="accepted the message"):
        talk.says("250 queued")
    assert talk.settled() == [transaction]
    assert isinstance(receipt_of(transaction).error, OutcomeUnknown)
    assert outcome(transaction) is Outcome.UNKNOWN


def test_a_refused_sender_of_an_older_message_leaves_the_newer_alone(deliver):
    talk = Talk.ready(deliver)
    first = talk.begin()
    talk.writes(group())
    talk.says("250 ok", "250 ok", "354 go")
    talk.begin()
    talk.writes(BODY + DOT + group(reset=True))
    first.mail_answer, first.mail_refused = Reply(550), True
    talk.says("550 no")
    assert isinstance(receipt_of(first).error, SenderRefused)
    talk.stands(Stage.DATA)


@pytest.mark.parametrize("text", ["250 what?", "200 ok"])
def test_data_answered_with_success_is_a_violation(deliver, text):
    talk = Talk.ready(deliver)
    transaction = talk.begin()
    talk.writes(group())
    with pytest.raises(ProtocolViolation, match="DATA was answered") as caught:
        talk.says("250 ok", "250 ok", text)
    talk.machine.fail(caught.value)
    assert outcome(transaction) is Outcome.NOT_SENT


# --- replies that cannot be answers ---


@pytest.mark.parametrize("extra", ["250 queued", "550 no", "354 go"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_reply_behind_the_354_never_answers_the_dot(deliver, extra, streamed):
    talk = Talk.ready(deliver)
    transaction = talk.begin(streamed=streamed)
    talk.writes(group())
    with pytest.raises(ProtocolViolation, match="no command asked for") as caught:
        talk.says("250 ok", "250 ok", "354 go", extra)
    talk.machine.fail(caught.value)
    talk.writes()
    assert outcome(transaction) is Outcome.NOT_SENT
    assert isinstance(receipt_of(transaction).error, NotSent)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_more_replies_than_commands_are_a_violation_in_lock_step(deliver, count):
    talk = Talk.ready(deliver, LOCK_STEP)
    transaction = talk.begin()
    talk.writes(MAIL)
    for answer, following in [("250 ok", rcpt()), ("250 ok", "DATA"), ("354 go", None)][: count - 1]:
        talk.says(answer)
        talk.writes(following if following else BODY + DOT)
    reply = "354 go" if count == 3 else "250 ok"
    with pytest.raises(ProtocolViolation) as caught:
        talk.says(reply, "250 ok")
    talk.machine.fail(caught.value)
    assert outcome(transaction) is (Outcome.ACCEPTED if count == 4 else Outcome.NOT_SENT)


def test_nothing_is_answered_before_it_was_handed_over(deliver):
    talk = Talk.ready(deliver)
    transaction = talk.begin()
    with pytest.raises(ProtocolViolation) as caught:
        talk.says("250 ok", "250 ok", "354 go")
    talk.machine.fail(caught.value)
    assert (outcome(transaction), transaction.mail_answer) == (Outcome.NOT_SENT, None)


def test_the_end_of_a_streamed_body_is_not_answered_before_it_was_handed_over(deliver):
    talk = Talk.ready(deliver)
    transaction = talk.begin(streamed=True)
    talk.writes(group())
    talk.says("250 ok", "250 ok", "354 go")
    talk.machine.pipeline.write_body(transaction, b"Subject: x\r\n")
    talk.writes("Subject: x")
    talk.machine.pipeline.end_body(transaction)
    with pytest.raises(ProtocolViolation) as caught:
        talk.says("250 queued")
    talk.settled()
    talk.machine.fail(caught.value)
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.NOT_SENT


@pytest.mark.parametrize("verb", [Verb.MAIL, Verb.RCPT, Verb.END_OF_DATA])
def test_an_intermediate_reply_where_nothing_more_can_come_is_a_violation(deliver, verb):
    talk = Talk.ready(deliver)
    transaction = talk.begin()
    talk.writes(group())
    before = {Verb.MAIL: [], Verb.RCPT: ["250 ok"], Verb.END_OF_DATA: ["250 ok", "250 ok", "354 go"]}[verb]
    talk.says(*before)
    talk.machine.data_to_send()
    with pytest.raises(ProtocolViolation, match=f"{verb.value} was answered with 354 again") as caught:
        talk.says("354 again")
    talk.machine.fail(caught.value)
    assert outcome(transaction) is (Outcome.UNKNOWN if verb is Verb.END_OF_DATA else Outcome.NOT_SENT)
    assert talk.settled() == [transaction]


@pytest.mark.parametrize("place", range(5))
def test_one_line_of_garbage_never_makes_a_message_look_sent(deliver, place):
    talk = Talk.ready(deliver)
    transaction = talk.begin()
    talk.writes(group())
    said = 0

    def say(*texts):
        nonlocal said
        for text in texts:
            if said == place:
                talk.says("!!")
            said += 1
            talk.says(text)

    with pytest.raises(ProtocolViolation) as caught:
        say("250 ok", "250 ok", "354 go")
        talk.writes(BODY + DOT)
        talk.machine.noop()
        talk.writes("NOOP")
        say("250 queued", "250 ok")
    talk.machine.fail(caught.value)
    expected = [Outcome.NOT_SENT] * 3 + [Outcome.UNKNOWN, Outcome.ACCEPTED]
    assert outcome(transaction) is expected[place]


# --- RSET ---


@pytest.mark.parametrize("offer", [LOCK_STEP, ["PIPELINING"]], ids=["lock-step", "pipelined"])
def test_an_aborted_transaction_is_reset_before_the_next(deliver, offer):
    talk = Talk.ready(deliver, offer)
    first = talk.begin()
    if offer:
        talk.writes(group())
        talk.says("250 ok", "550 no", "554 no recipients")
    else:
        talk.writes(MAIL)
        talk.says("250 ok")
        talk.writes(rcpt())
        talk.says("550 no")
    assert isinstance(receipt_of(first).error, RecipientsRefused)
    second = talk.begin()
    talk.writes("RSET", group(data=False)) if offer else talk.writes("RSET")
    assert talk.machine.expected == "mail"
    talk.says("250 ok")
    if not offer:
        talk.writes(MAIL)
    talk.says("250 ok")
    if not offer:
        talk.writes(rcpt())
    talk.says("250 ok")
    talk.writes("DATA")
    talk.says("354 go")
    talk.writes(BODY + DOT)
    talk.says("250 queued")
    assert outcome(second) is Outcome.ACCEPTED
    assert receipt_of(second).bytes_sent == len(b"RSET\r\n" + group() + BODY + DOT)


def begun_by_hand(talk):
    """The server has a transaction open, so the next one is preceded by RSET."""
    talk.machine.command("MAIL FROM:<>")
    talk.writes("MAIL FROM:<>")
    talk.says("250 ok")
    talk.settled()


@pytest.mark.parametrize("offer", [LOCK_STEP, ["PIPELINING"]], ids=["lock-step", "pipelined"])
@pytest.mark.parametrize(
    "behind",
    [["503 nested", "250 ok", "354 go"], ["503 nested", "503 no", "503 no"], ["250 ok", "250 ok", "354 go"]],
)
def test_a_refused_rset_blames_nobody_and_ends_the_connection(deliver, offer, behind):
    talk = Talk.ready(deliver, offer)
    begun_by_hand(talk)
    transaction = talk.begin()
    talk.writes("RSET", group()) if offer else talk.writes("RSET")
    talk.says("500 what?", *(behind if offer else []))
    talk.writes()
    assert talk.machine.pipeline.exhausted
    assert talk.settled() == []
    talk.machine.fail(LOST)
    assert talk.settled() == [transaction]
    assert isinstance(receipt_of(transaction).error, NotSent)
    assert outcome(transaction) is Outcome.NOT_SENT


def test_a_server_that_knows_no_rset_is_left_after_an_aborted_transaction(deliver):
    talk = Talk.ready(deliver, send_rset=False)
    talk.begin()
    talk.writes(group())
    talk.says("250 ok", "250 ok", "354 go")
    talk.writes(BODY + DOT)
    talk.says("250 queued")
    assert talk.machine.pipeline.can_begin
    talk.begin()
    talk.writes(group())
    assert not talk.machine.pipeline.exhausted
    talk.says("250 ok", "550 no", "554 no recipients")
    assert talk.machine.pipeline.exhausted
    assert not talk.machine.pipeline.can_begin


def test_a_server_that_knows_no_rset_is_kept_after_a_refused_sender(deliver):
    talk = Talk.ready(deliver, send_rset=False)
    talk.begin()
    talk.writes(group())
    talk.says("550 no", "503 no", "503 no")
    assert talk.machine.pipeline.can_begin


# --- 421 ---


@pytest.mark.parametrize("offer", [LOCK_STEP, ["PIPELINING"]], ids=["lock-step", "pipelined"])
@pytest.mark.parametrize("place", range(3))
def test_a_421_before_the_body_means_not_sent(deliver, offer, place):
    talk = Talk.ready(deliver, offer)
    transaction = talk.begin()
    answers = ["250 ok", "250 ok", "354 go"][:place] + ["421 closing"]
    for answer in answers:
        talk.machine.data_to_send()
        talk.says(answer)
    talk.writes()
    assert talk.machine.pipeline.exhausted
    assert talk.settled() == []
    talk.machine.fail(LOST)
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.NOT_SENT
    assert talk.machine.reply_421 == Reply(421, (b"closing",))


def test_a_421_to_every_command_means_not_sent(deliver):
    talk = Talk.ready(deliver)
    transaction = talk.begin()
    talk.writes(group())
    talk.says(*["421 closing"] * 3)
    assert talk.machine.expected is None
    talk.machine.fail(LOST)
    assert outcome(transaction) is Outcome.NOT_SENT


def test_a_421_to_the_dot_refuses_it_and_takes_the_next_message_along(deliver):
    talk = Talk.ready(deliver)
    first = talk.begin()
    talk.writes(group())
    talk.says("250 ok", "250 ok", "354 go")
    second = talk.begin()
    talk.writes(BODY + DOT + group(reset=True))
    talk.says("421 closing")
    assert talk.settled() == [first]
    assert isinstance(receipt_of(first).error, MessageRefused)
    assert receipt_of(first).temporary
    talk.machine.fail(LOST)
    assert talk.settled() == [second]
    assert outcome(second) is Outcome.NOT_SENT


def test_a_421_while_idle_lets_nothing_begin(deliver):
    talk = Talk.ready(deliver)
    talk.says("421 idle")
    assert not talk.machine.pipeline.can_begin
    assert talk.machine.idle


def test_a_421_out_of_turn_keeps_the_pairing(deliver):
    talk = Talk.ready(deliver)
    transaction = talk.begin(streamed=True)
    talk.writes(group())
    talk.says("250 ok", "250 ok", "354 go")
    talk.says("421 shutting down")
    assert transaction.receipt is None
    talk.machine.fail(LOST)
    assert outcome(transaction) is Outcome.NOT_SENT


# --- streamed bodies ---


def streaming(talk, *recipients, **how):
    """A message up to its 354."""
    transaction = talk.begin(*recipients, streamed=True, **how)
    talk.machine.data_to_send()
    talk.says("250 ok", *["250 ok"] * max(len(recipients), 1), "354 go")
    assert talk.settled() == [transaction]
    assert transaction.receipt is None
    return transaction


def test_a_streamed_body_is_written_by_its_caller_and_settled_twice(deliver):
    talk = Talk.ready(deliver)
    machine = talk.machine
    transaction = streaming(talk)
    assert (machine.pipeline.writing, machine.expected) == (transaction, None)
    assert not machine.pipeline.can_begin
    for chunk, wire in [
        (b"A: b\n\n.", b"A: b\r\n\r\n.."),
        (b"\r", b""),
        (b".\r", b"\r\n.."),
        (b"\nc", b"\r\nc"),
    ]:
        machine.pipeline.write_body(transaction, chunk)
        talk.writes(wire)
        assert machine.expected == "block"
    assert transaction.streamed == 7 + 1 + 2 + 2
    machine.pipeline.end_body(transaction)
    assert machine.expected == "end_of_data"
    assert machine.pipeline.can_begin
    second = talk.begin()
    talk.writes(b"\r\n.\r\n" + group(reset=True))
    assert (transaction.handed, transaction.ended) == (True, True)
    talk.says("250 queued")
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.ACCEPTED
    assert second.receipt is None


def test_an_empty_streamed_body_has_its_dot(deliver):
    talk = Talk.ready(deliver)
    transaction = streaming(talk)
    talk.machine.pipeline.end_body(transaction)
    talk.writes(DOT)
    talk.says("250 queued")
    assert outcome(transaction) is Outcome.ACCEPTED


@pytest.mark.parametrize("text", ["552 too large", "451 later", "421 closing"])
def test_a_refusal_in_mid_body_stands_and_ends_the_connection(deliver, text):
    talk = Talk.ready(deliver)
    transaction = streaming(talk)
    talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.writes(b"x\r\n")
    talk.says(text)
    assert talk.settled() == [transaction]
    receipt = receipt_of(transaction)
    assert isinstance(receipt.error, MessageRefused)
    assert receipt.reply == Reply(int(text[:3]), (text[4:].encode(),))
    assert talk.machine.pipeline.exhausted
    assert talk.machine.pipeline.writing is None
    assert not transaction.handed
    for write in (
        lambda: talk.machine.pipeline.write_body(transaction, b"y"),
        lambda: talk.machine.pipeline.end_body(transaction),
    ):
        with pytest.raises(UsageError):
            write()
    talk.writes()


@pytest.mark.parametrize("text", ["250 queued", "354 more"])
def test_success_in_mid_body_is_a_violation(deliver, text):
    talk = Talk.ready(deliver)
    transaction = streaming(talk)
    talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.writes(b"x\r\n")
    with pytest.raises(ProtocolViolation) as caught:
        talk.says(text)
    talk.machine.fail(caught.value)
    assert outcome(transaction) is Outcome.NOT_SENT


def test_an_early_refusal_by_lmtp_is_for_every_accepted_recipient(deliver):
    talk = Talk.ready(deliver, lmtp=True)
    transaction = streaming(talk, bob("b"), bob("c"), options=NOBODY_MUST)
    talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.writes(b"x\r\n")
    talk.says("552 too large")
    assert talk.settled() == [transaction]
    assert [verdict.outcome for verdict in receipt_of(transaction).verdicts] == [Outcome.REFUSED] * 2


def test_a_body_is_written_in_its_turn_only(deliver):
    talk = Talk.ready(deliver)
    transaction = talk.begin(streamed=True)
    for write in (
        lambda: talk.machine.pipeline.write_body(transaction, b"QUIT\r\n"),
        lambda: talk.machine.pipeline.end_body(transaction),
    ):
        with pytest.raises(UsageError):
            write()
    talk.writes(group())


# --- LMTP ---


@pytest.mark.parametrize("refused", [None, 0, 1, 2])
def test_lmtp_owes_one_reply_for_each_accepted_recipient(deliver, refused):
    talk = Talk.ready(deliver, lmtp=True)
    names = ["b", "c", "d"]
    transaction = talk.begin(*map(bob, names), options=NOBODY_MUST)
    talk.writes(group(*names))
    talk.says("250 ok", *("550 no" if n == refused else "250 ok" for n in range(3)), "354 go")
    talk.writes(BODY + DOT)
    accepted = [n for n in range(3) if n != refused]
    for number in accepted:
        assert talk.settled() == []
        talk.says(f"250 {names[number]}")
    assert talk.settled() == [transaction]
    for number, verdict in enumerate(receipt_of(transaction).verdicts):
        text = b"no" if number == refused else names[number].encode()
        assert verdict.reply == Reply(550 if number == refused else 250, (text,))
    with pytest.raises(ProtocolViolation):
        talk.says("250 one too many")


@pytest.mark.parametrize("read", [0, 1, 2])
def test_lmtp_keeps_what_was_read_when_the_connection_dies(deliver, read):
    talk = Talk.ready(deliver, lmtp=True)
    transaction = talk.begin(*map(bob, "bcd"), options=NOBODY_MUST)
    talk.writes(group(*"bcd"))
    talk.says("250 ok", *["250 ok"] * 3, "354 go")
    talk.writes(BODY + DOT)
    talk.says(*["250 ok"] * read)
    talk.machine.fail(LOST)
    assert talk.settled() == [transaction]
    expected = [Outcome.ACCEPTED] * read + [Outcome.UNKNOWN] * (3 - read)
    assert [verdict.outcome for verdict in receipt_of(transaction).verdicts] == expected
    assert outcome(transaction) is Outcome.UNKNOWN


# --- withdraw ---


@pytest.mark.parametrize("offer", [LOCK_STEP, ["PIPELINING"]], ids=["lock-step", "pipelined"])
@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_withdrawn_before_the_354_it_is_never_sent(deliver, offer, hold, place):
    talk = Talk.ready(deliver, offer)
    transaction = talk.begin(bob("b"), bob("c"), options=NOBODY_MUST, hold=hold)
    for _ in range(place):
        talk.machine.data_to_send()
        talk.says("250 ok")
    talk.machine.data_to_send()
    assert talk.machine.pipeline.withdraw(transaction)
    if not offer:
        talk.says("250 ok")
    else:
        talk.says(*["250 ok"] * (3 - place))
        if not hold:
            talk.says("354 go")
            assert talk.machine.pipeline.exhausted
            assert talk.settled() == []
            talk.machine.fail(LOST)
    talk.writes()
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.NOT_SENT
    assert isinstance(receipt_of(transaction).error, NotSent)
    if not offer or hold:
        assert talk.machine.pipeline.writing is None
        talk.begin()
        talk.writes("RSET", group(data=False)) if offer else talk.writes("RSET")


def test_withdrawn_behind_its_own_rset_in_lock_step(deliver):
    talk = Talk.ready(deliver, LOCK_STEP)
    begun_by_hand(talk)
    transaction = talk.begin()
    talk.writes("RSET")
    assert talk.machine.pipeline.withdraw(transaction)
    talk.says("250 ok")
    talk.writes()
    assert outcome(transaction) is Outcome.NOT_SENT
    talk.begin()
    talk.writes(MAIL)


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        (["550 no", "503 no", "503 no"], SenderRefused),
        (["250 ok", "550 no", "554 no"], RecipientsRefused),
        (["250 ok", "250 ok", "451 later"], MessageRefused),
    ],
)
def test_withdrawn_and_refused_it_is_refused(deliver, answers, error):
    talk = Talk.ready(deliver)
    transaction = talk.begin()
    talk.writes(group())
    assert talk.machine.pipeline.withdraw(transaction)
    talk.says(*answers)
    assert talk.settled() == [transaction]
    assert isinstance(receipt_of(transaction).error, error)
    assert not talk.machine.pipeline.exhausted


def test_withdrawn_before_the_first_slice_takes_the_connection_along(deliver):
    talk = Talk.ready(deliver)
    transaction = streaming(talk)
    assert talk.machine.pipeline.withdraw(transaction)
    assert talk.machine.pipeline.exhausted
    assert talk.machine.expected is None
    talk.machine.fail(LOST)
    talk.writes()
    assert outcome(transaction) is Outcome.NOT_SENT


def test_withdrawn_in_mid_body_takes_the_connection_along(deliver):
    talk = Talk.ready(deliver)
    transaction = streaming(talk)
    talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.writes(b"x\r\n")
    assert talk.machine.pipeline.withdraw(transaction)
    assert talk.machine.pipeline.exhausted
    assert talk.machine.expected == "block"
    talk.machine.fail(LOST)
    assert outcome(transaction) is Outcome.NOT_SENT


def test_withdrawn_too_late_it_runs_to_its_end(deliver):
    talk = Talk.ready(deliver)
    transaction = talk.begin()
    talk.writes(group())
    talk.says("250 ok", "250 ok", "354 go")
    assert not talk.machine.pipeline.withdraw(transaction)
    talk.writes(BODY + DOT)
    assert not talk.machine.pipeline.withdraw(transaction)
    talk.says("250 queued")
    assert not talk.machine.pipeline.withdraw(transaction)
    assert outcome(transaction) is Outcome.ACCEPTED
    assert not talk.machine.pipeline.exhausted


def test_withdrawing_one_leaves_the_message_before_it_alone(deliver):
    talk = Talk.ready(deliver)
    first = talk.begin()
    talk.writes(group())
    talk.says("250 ok", "250 ok", "354 go")
    second = talk.begin(hold=True)
    talk.writes(BODY + DOT + group(data=False, reset=True))
    assert talk.machine.pipeline.withdraw(second)
    talk.says("250 queued", "250 reset", "250 ok", "250 ok")
    assert talk.settled() == [first, second]
    assert [outcome(first), outcome(second)] == [Outcome.ACCEPTED, Outcome.NOT_SENT]
    assert talk.machine.pipeline.can_begin


# --- fail ---


@pytest.mark.parametrize("offer", [LOCK_STEP, ["PIPELINING"]], ids=["lock-step", "pipelined"])
@pytest.mark.parametrize(
    ("answers", "handed", "expected"),
    [
        (0, False, Outcome.NOT_SENT),
        (0, True, Outcome.NOT_SENT),
        (1, True, Outcome.NOT_SENT),
        (2, True, Outcome.NOT_SENT),
        (3, False, Outcome.NOT_SENT),
        (3, True, Outcome.UNKNOWN),
    ],
)
def test_a_dead_connection_tells_not_sent_from_unknown(deliver, offer, answers, handed, expected):
    talk = Talk.ready(deliver, offer)
    transaction = talk.begin()
    for answer in ["250 ok", "250 ok", "354 go"][:answers]:
        talk.machine.data_to_send()
        talk.says(answer)
    if handed:
        talk.machine.data_to_send()
    talk.machine.fail(LOST)
    assert talk.settled() == [transaction]
    receipt = receipt_of(transaction)
    assert receipt.outcome is expected
    assert receipt.error is not None and receipt.error.__cause__ is LOST
    talk.writes()
    talk.stands(Stage.CLOSED)
    assert talk.machine.pipeline.exhausted
    assert (talk.machine.expected, talk.machine.pipeline.writing) == (None, None)


def test_a_dead_connection_settles_every_message_in_order(deliver):
    talk = Talk.ready(deliver)
    first = talk.begin()
    talk.writes(group())
    talk.says("250 ok", "250 ok", "354 go")
    second = talk.begin()
    talk.writes(BODY + DOT + group(reset=True))
    talk.machine.fail(LOST)
    assert talk.settled() == [first, second]
    assert [outcome(first), outcome(second)] == [Outcome.UNKNOWN, Outcome.NOT_SENT]
    talk.machine.fail(LOST)
    assert talk.settled() == []


def test_what_was_settled_before_the_end_is_not_settled_again(deliver):
    talk = Talk.ready(deliver)
    transaction = streaming(talk)
    talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.writes(b"x\r\n")
    talk.says("552 no")
    talk.machine.fail(LOST)
    assert talk.settled() == [transaction]
    assert isinstance(receipt_of(transaction).error, MessageRefused)


def test_an_open_exchange_stays_without_reply():
    talk = Talk.ready()
    exchange = talk.machine.noop()
    talk.writes("NOOP")
    talk.machine.fail(LOST)
    assert exchange.reply is None
    assert talk.settled() == []
    with pytest.raises(ProtocolViolation):
        talk.says("250 late")


# --- windows of whole messages ---

CHUNKING = ["PIPELINING", "CHUNKING"]
CHUNK = b"BDAT %d LAST\r\n" % len(BODY) + BODY
UP = ("250 ok", "250 ok", "250 queued")


def chunk_group(*names, reset=False):
    return lines(*(["RSET"] if reset else []), MAIL, *map(rcpt, names or ["bob"])) + CHUNK


def windowed(deliver, most=64, **options):
    return Talk.ready(deliver, CHUNKING, window=most, **options)


def fill(talk):
    """Begin as many messages as are admitted."""
    begun = []
    while talk.machine.pipeline.admits(transaction := talk.plan(chunking=True)):
        talk.machine.pipeline.begin(transaction)
        begun.append(transaction)
    return begun


def test_a_whole_message_is_one_write(deliver):
    talk = windowed(deliver)
    transaction = talk.begin(chunking=True)
    assert talk.machine.expected == "mail"
    talk.writes(chunk_group())
    assert transaction.handed
    talk.says("250 ok", "250 ok")
    assert talk.machine.expected == "end_of_data"
    talk.says("250 queued")
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.ACCEPTED
    talk.begin(chunking=True)
    talk.writes(chunk_group())


def test_the_window_doubles_with_every_accepted_message_up_to_its_bound(deliver):
    talk = windowed(deliver, most=4)
    waiting = fill(talk)
    assert len(waiting) == 1
    written = []
    for _ in range(6):
        talk.machine.data_to_send()
        written.append(waiting.pop(0))
        talk.says(*(["250 ok"] if written[-1].reset else []), *UP)
        waiting += fill(talk)
    assert talk.settled() == written
    assert [outcome(one) for one in written] == [Outcome.ACCEPTED] * 6
    assert len(waiting) == 4


def test_every_message_but_a_known_first_is_preceded_by_rset(deliver):
    talk = windowed(deliver)
    fill(talk)
    talk.writes(chunk_group())
    talk.says(*UP)
    fill(talk)
    talk.writes(chunk_group(), chunk_group(reset=True))


def test_a_refusal_in_the_window_harms_no_neighbour_and_makes_the_next_cautious(deliver):
    talk = windowed(deliver)
    fill(talk)
    talk.machine.data_to_send()
    talk.says(*UP)
    first, second = fill(talk)
    talk.machine.data_to_send()
    talk.settled()
    talk.says("250 ok", "550 no", "554 no recipients")
    assert talk.settled() == [first]
    assert isinstance(receipt_of(first).error, RecipientsRefused)
    assert not talk.machine.pipeline.admits(talk.plan(chunking=True))
    talk.says("250 reset", "552 too large", "503 no", "503 no")
    assert talk.settled() == [second]
    assert isinstance(receipt_of(second).error, SenderRefused)
    (third,) = fill(talk)
    talk.writes(group(data=False))
    assert third.hold
    talk.says("250 ok", "250 ok")
    talk.writes(CHUNK)
    talk.says("250 queued")
    assert outcome(third) is Outcome.ACCEPTED
    assert len(fill(talk)) == 2


def test_a_refused_chunk_leaves_the_transaction_open(deliver):
    talk = windowed(deliver)
    first = talk.begin(chunking=True)
    talk.writes(chunk_group())
    talk.says("250 ok", "250 ok", "451 later")
    assert isinstance(receipt_of(first).error, MessageRefused)
    talk.begin(chunking=True)
    talk.writes("RSET", group(data=False))


def test_a_cut_in_the_window_leaves_what_was_handed_over_unknown(deliver):
    talk = windowed(deliver)
    fill(talk)
    talk.machine.data_to_send()
    talk.says(*UP)
    first, second = fill(talk)
    talk.machine.data_to_send()
    talk.settled()
    talk.says("250 ok", "250 ok")
    talk.machine.fail(LOST)
    assert talk.settled() == [first, second]
    assert [outcome(first), outcome(second)] == [Outcome.UNKNOWN, Outcome.UNKNOWN]


def test_nothing_behind_a_421_in_the_window_was_accepted(deliver):
    talk = windowed(deliver)
    fill(talk)
    talk.machine.data_to_send()
    talk.says(*UP)
    first, second = fill(talk)
    talk.machine.data_to_send()
    talk.settled()
    talk.says("250 ok", "250 ok", "421 too many errors")
    assert talk.settled() == [first]
    assert outcome(first) is Outcome.REFUSED
    talk.machine.fail(LOST)
    assert talk.settled() == [second]
    assert outcome(second) is Outcome.NOT_SENT


@pytest.mark.parametrize(
    "answers", [["421 bye"] * 3, ["250 ok"] + ["421 bye"] * 2, ["250 ok", "421 bye", "503 no"]]
)
def test_a_421_to_every_command_of_a_whole_message_means_not_sent(deliver, answers):
    talk = windowed(deliver)
    transaction = talk.begin(chunking=True)
    talk.writes(chunk_group())
    talk.says(*answers)
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.NOT_SENT
    assert isinstance(receipt_of(transaction).error, NotSent)


@pytest.mark.parametrize("read", [1, 2])
def test_a_421_before_the_end_of_a_whole_message_means_not_sent(deliver, read):
    talk = windowed(deliver)
    transaction = talk.begin(chunking=True)
    talk.writes(chunk_group())
    talk.says(*["250 ok"] * (read - 1), "421 bye")
    talk.machine.fail(LOST)
    assert outcome(transaction) is Outcome.NOT_SENT


def nested(talk):
    """A message behind RSET whose MAIL is answered with 503 all the same."""
    begun_by_hand(talk)
    transaction = talk.begin(chunking=True)
    talk.writes(chunk_group(reset=True))
    talk.says("250 reset", "503 nested MAIL", "250 ok")
    assert talk.machine.pipeline.breakdown is Breakdown.MISMATCHED
    assert talk.machine.pipeline.exhausted
    return transaction


def test_a_server_that_loses_count_refuses_nobody(deliver):
    talk = windowed(deliver)
    transaction = nested(talk)
    talk.says("503 no MAIL")
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.NOT_SENT


def test_a_server_that_loses_count_may_have_delivered(deliver):
    talk = windowed(deliver)
    transaction = nested(talk)
    talk.machine.fail(LOST)
    assert outcome(transaction) is Outcome.UNKNOWN


def test_a_server_that_loses_count_and_takes_the_message_has_delivered_it_somehow(deliver):
    talk = windowed(deliver)
    transaction = nested(talk)
    with pytest.raises(ProtocolViolation):
        talk.says("250 queued")
    assert outcome(transaction) is Outcome.UNKNOWN


def test_a_refused_sender_of_a_whole_message_stays_refused_when_the_connection_dies(deliver):
    talk = windowed(deliver)
    transaction = talk.begin(chunking=True)
    talk.writes(chunk_group())
    talk.says("550 no", "503 no")
    talk.machine.fail(LOST)
    assert isinstance(receipt_of(transaction).error, SenderRefused)
    assert talk.machine.pipeline.breakdown is None


@pytest.mark.parametrize(
    ("error", "answers", "told"),
    [
        (Timeout("no reply"), ["250 ok"], Breakdown.PARTLY_ANSWERED),
        (Timeout("no reply"), [], None),
        (Timeout("no reply"), ["250 ok", "250 ok", "354 go"], None),
        (ProtocolViolation("garbage"), ["250 ok"], Breakdown.MISMATCHED),
        (LOST, ["250 ok"], None),
    ],
)
@pytest.mark.parametrize("offer", [LOCK_STEP, ["PIPELINING"]], ids=["lock-step", "pipelined"])
def test_a_group_that_was_not_followed_is_told(deliver, offer, error, answers, told):
    talk = Talk.ready(deliver, offer)
    talk.begin()
    for answer in answers:
        talk.machine.data_to_send()
        talk.says(answer)
    talk.machine.fail(error)
    assert talk.machine.pipeline.breakdown is (told if offer else None)


def test_lmtp_answers_a_chunk_for_each_accepted_recipient(deliver):
    talk = windowed(deliver, lmtp=True)
    transaction = talk.begin(bob("b"), bob("c"), options=NOBODY_MUST, chunking=True)
    talk.writes(chunk_group("b", "c"))
    talk.says("250 ok", "250 ok", "250 ok", "250 b")
    assert talk.settled() == []
    talk.says("452 c")
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.PARTIAL
    refused = talk.begin(chunking=True)
    talk.machine.data_to_send()
    talk.says("250 ok", "550 no", "503 no")
    assert talk.settled() == [refused]


def test_a_large_body_needs_an_empty_window_and_goes_in_chunks_behind_its_envelope(deliver):
    talk = windowed(deliver)
    talk.begin(chunking=True)
    talk.machine.data_to_send()
    large = talk.plan(chunking=True)
    large.set_payload(None)
    assert not talk.machine.pipeline.admits(large)
    talk.says(*UP)
    assert talk.machine.pipeline.admits(large)
    talk.machine.pipeline.begin(large)
    talk.writes(MAIL, rcpt())
    assert not large.turn


def test_nothing_is_admitted_that_may_not_begin(deliver):
    talk = windowed(deliver)
    talk.says("421 bye")
    assert not talk.machine.pipeline.can_begin


def test_the_trail_shows_a_chunk_by_its_command(deliver):
    talk = windowed(deliver)
    talk.machine.recorder.recording = True
    talk.begin(chunking=True)
    assert [line.line.decode() for line in talk.machine.recorder.take()] == [
        MAIL,
        rcpt(),
        f"BDAT {len(BODY)} LAST",
    ]


# --- what is recorded ---


@pytest.mark.parametrize("offer", [LOCK_STEP, ["PIPELINING"]], ids=["lock-step", "pipelined"])
def test_the_trail_shows_every_line_of_a_message_but_its_body(deliver, offer):
    talk = Talk.ready(deliver, offer)
    talk.machine.recorder.recording = True
    transaction = talk.begin(body=b"Subject: s3cret\r\n\r\ns3cret\r\n")
    for answer in ["250 ok", "250 ok", "354 go", "250 queued"]:
        talk.machine.data_to_send()
        talk.says(answer)
    recorder = talk.machine.recorder.take()
    assert [line.line.decode() for line in recorder if line.reply is None] == [MAIL, rcpt(), "DATA", "."]
    answered = [(line.verb, line.reply.code) for line in recorder if line.reply]
    assert answered == [(Verb.MAIL, 250), (Verb.RCPT, 250), (Verb.DATA, 354), (Verb.END_OF_DATA, 250)]
    assert all(line.transaction is transaction for line in recorder)


def test_the_trail_shows_rset_and_streamed_ends(deliver):
    talk = Talk.ready(deliver)
    begun_by_hand(talk)
    talk.machine.recorder.recording = True
    transaction = talk.begin(streamed=True)
    talk.machine.data_to_send()
    talk.says("250 ok", "250 ok", "250 ok", "354 go")
    talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.machine.pipeline.end_body(transaction)
    shown = [line.line.decode() for line in talk.machine.recorder.take() if line.reply is None]
    assert shown == ["RSET", MAIL, rcpt(), "DATA", "."]


def test_a_long_conversation_leaves_nothing_behind():
    talk = Talk.ready(whole)
    talk.begin()
    for n in range(300):
        talk.machine.data_to_send()
        talk.says(*["250 reset"] * bool(n), "250 ok", "250 ok", "354 go")
        talk.begin()
        talk.machine.data_to_send()
        talk.says("250 queued")
    talk.says("250 reset", "250 ok", "250 ok", "554 no")
    assert len(talk.settled()) == 301
    assert talk.machine.idle
