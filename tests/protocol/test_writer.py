"""writer.py: bodies that their callers write, in chunks, or let go behind a gate."""

import pytest

from smtp_async.errors import ProtocolViolation, UsageError
from smtp_async.model.receipt import Outcome
from smtp_async.model.reply import Reply
from smtp_async.protocol.options import SendOptions
from tests.protocol.talk import BODY, Talk, bob, lines, receipt_of
from tests.protocol.test_pipeline import LOST, MAIL, chunk_group, group, outcome, rcpt, windowed

# --- chunks, by their caller ---


def chunking(deliver, *recipients, **options):
    """A message in chunks whose caller may write."""
    talk = windowed(deliver, **options)
    transaction = talk.plan(*recipients, chunking=True)
    transaction.set_payload(None)
    talk.machine.pipeline.begin(transaction)
    talk.machine.data_to_send()
    talk.says(*["250 ok"] * (1 + len(transaction.rcpts)))
    assert talk.settled() == [transaction]
    assert transaction.turn and transaction.receipt is None
    return talk, transaction


def test_chunks_leave_one_behind_the_other_and_the_last_is_judged(deliver):
    talk, transaction = chunking(deliver)
    for chunk in (b"Subject: x\r\n", b"", b"\r\n.x\r\n"):
        talk.machine.pipeline.write_body(transaction, chunk)
    talk.writes(b"BDAT 12\r\nSubject: x\r\nBDAT 6\r\n\r\n.x\r\n")
    assert talk.machine.expected == "block"
    talk.says("250 12 octets")
    talk.machine.pipeline.write_body(transaction, b"y\r\n")
    talk.machine.pipeline.end_body(transaction)
    talk.writes(b"BDAT 3\r\ny\r\nBDAT 0 LAST\r\n")
    talk.says("250 6 octets", "250 3 octets")
    assert talk.machine.expected == "end_of_data"
    assert not talk.settled()
    talk.says("250 queued")
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.ACCEPTED
    assert receipt_of(transaction).reply == Reply(250, (b"queued",))
    # BDAT LAST was accepted: no RSET is needed.
    talk.begin(chunking=True)
    talk.writes(chunk_group())


def test_a_refused_chunk_refuses_the_message_and_leaves_the_connection(deliver):
    talk, transaction = chunking(deliver)
    for _ in range(3):
        talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.machine.data_to_send()
    talk.says("250 ok", "552 5.3.4 too large")
    assert not talk.settled()
    with pytest.raises(UsageError):
        talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.says("503 no transaction")
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.REFUSED
    assert receipt_of(transaction).reply == Reply(552, (b"5.3.4 too large",))
    assert talk.machine.pipeline.can_begin
    talk.begin(chunking=True)
    talk.writes("RSET", MAIL, rcpt())


def test_a_refused_last_chunk_refuses_the_message(deliver):
    talk, transaction = chunking(deliver)
    talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.machine.pipeline.end_body(transaction)
    talk.machine.data_to_send()
    talk.says("250 ok", "451 later")
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.REFUSED
    assert receipt_of(transaction).temporary


def test_a_server_that_refuses_a_chunk_and_takes_the_last_contradicts_itself(deliver):
    talk, transaction = chunking(deliver)
    talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.machine.pipeline.end_body(transaction)
    talk.machine.data_to_send()
    talk.says("552 no")
    with pytest.raises(ProtocolViolation):
        talk.says("250 queued")
    talk.machine.fail(LOST)
    assert outcome(transaction) is Outcome.UNKNOWN


def test_by_lmtp_too(deliver):
    talk, transaction = chunking(deliver, bob(), bob("eve"), lmtp=True)
    talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.machine.pipeline.end_body(transaction)
    talk.machine.data_to_send()
    talk.says("552 no")
    with pytest.raises(ProtocolViolation):
        talk.says("250 for bob")
    talk.machine.fail(LOST)
    assert outcome(transaction) is Outcome.UNKNOWN


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("ended", [False, True])
def test_a_refused_chunk_counts_for_everybody_although_the_connection_dies(deliver, ended, lmtp):
    talk, transaction = chunking(deliver, bob(), bob("eve"), lmtp=lmtp)
    for _ in range(2):
        talk.machine.pipeline.write_body(transaction, b"x\r\n")
    if ended:
        talk.machine.pipeline.end_body(transaction)
    talk.machine.data_to_send()
    talk.says("552 5.3.4 too large")
    talk.machine.fail(LOST)
    receipt = receipt_of(transaction)
    assert [verdict.outcome for verdict in receipt.verdicts] == [Outcome.REFUSED] * 2
    assert receipt.reply == Reply(552, (b"5.3.4 too large",))


def test_a_chunk_that_is_answered_with_the_end_of_the_connection_is_not_sent(deliver):
    talk, transaction = chunking(deliver)
    for _ in range(2):
        talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.machine.data_to_send()
    talk.says("421 bye")
    talk.machine.fail(LOST)
    assert outcome(transaction) is Outcome.NOT_SENT


def test_a_cut_between_chunks_is_not_sent_and_behind_the_last_is_unknown(deliver):
    for ended, expected in ((False, Outcome.NOT_SENT), (True, Outcome.UNKNOWN)):
        talk, transaction = chunking(deliver)
        talk.machine.pipeline.write_body(transaction, b"x\r\n")
        if ended:
            talk.machine.pipeline.end_body(transaction)
        talk.machine.data_to_send()
        talk.says("250 ok")
        talk.machine.fail(LOST)
        assert outcome(transaction) is expected
        assert talk.machine.pipeline.breakdown is None


def test_lmtp_answers_the_last_chunk_for_each_recipient(deliver):
    talk, transaction = chunking(deliver, bob(), bob("eve"), lmtp=True)
    talk.machine.pipeline.write_body(transaction, b"x\r\n")
    talk.machine.pipeline.end_body(transaction)
    talk.machine.data_to_send()
    talk.says("250 ok", "250 for bob", "450 not for eve")
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.PARTIAL


def test_exact_chunks_keep_every_octet(deliver):
    talk, transaction = chunking(deliver)
    transaction.exact = True
    talk.machine.pipeline.write_body(transaction, b"a\nb\rc")
    talk.machine.pipeline.end_body(transaction)
    talk.writes(b"BDAT 5\r\na\nb\rcBDAT 0 LAST\r\n")


def test_withdrawn_between_chunks_only_the_end_of_the_connection_helps(deliver):
    talk, transaction = chunking(deliver)
    talk.machine.pipeline.write_body(transaction, b"x\r\n")
    assert talk.machine.pipeline.withdraw(transaction)
    assert talk.machine.pipeline.exhausted


def test_the_trail_shows_chunks_by_their_commands(deliver):
    talk, transaction = chunking(deliver)
    talk.machine.recorder.recording = True
    talk.machine.pipeline.write_body(transaction, b"s3cret\r\n")
    talk.machine.pipeline.end_body(transaction)
    assert [line.line.decode() for line in talk.machine.recorder.take()] == ["BDAT 8", "BDAT 0 LAST"]


# --- gates ---


@pytest.mark.parametrize("chunked", [False, True])
def test_a_gated_body_leaves_when_its_caller_lets_it_go_and_shares_the_write(deliver, chunked):
    async def gate(): ...

    talk = windowed(deliver)
    transaction = talk.begin(chunking=chunked, options=SendOptions(before_end_of_data=gate))
    talk.writes(group(data=not chunked))
    talk.says(*["250 ok", "250 ok"] + ([] if chunked else ["354 go"]))
    assert talk.settled() == [transaction]
    assert not talk.machine.pipeline.can_begin
    talk.writes()
    talk.machine.pipeline.write_payload(transaction)
    following = talk.begin(chunking=chunked)
    end = BODY + b".\r\n" if not chunked else b"BDAT %d LAST\r\n" % len(BODY) + BODY
    behind = b"".join(lines(line) for line in ["RSET", MAIL, rcpt()])
    written = talk.machine.data_to_send()
    assert written.startswith(end + behind)
    assert transaction.handed
    talk.says("250 queued")
    assert talk.settled() == [transaction]
    assert outcome(transaction) is Outcome.ACCEPTED
    assert following.receipt is None


def test_a_gated_body_is_let_go_only_when_it_may(deliver):
    async def gate(): ...

    talk = Talk.ready(deliver)
    transaction = talk.begin(options=SendOptions(before_end_of_data=gate))
    with pytest.raises(UsageError):
        talk.machine.pipeline.write_payload(transaction)
    talk.machine.data_to_send()
    talk.says("250 ok", "250 ok", "354 go")
    assert talk.machine.pipeline.withdraw(transaction)
    assert talk.machine.pipeline.exhausted


def test_a_turn_that_is_lost_in_the_same_breath_is_settled_once(deliver):
    talk = Talk.ready(deliver)
    before = talk.begin()
    talk.machine.data_to_send()
    talk.says("250 ok", "250 ok", "354 go")
    transaction = talk.begin(streamed=True)
    talk.machine.data_to_send()
    with pytest.raises(ProtocolViolation) as caught:
        talk.says("250 queued", "250 ok", "250 ok", "354 go", "250 what")
    talk.machine.fail(caught.value)
    assert talk.settled() == [before, transaction]
