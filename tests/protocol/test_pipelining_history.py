"""What is held against a server that does not take pipelining well, and for how long."""

import pytest

from smtp_async.errors import ConnectionLost, Interrupted, ProtocolViolation, SocketError, Timeout
from smtp_async.model.receipt import Outcome
from smtp_async.protocol.extensions import Extensions
from smtp_async.protocol.pipelining_history import Breakdown, PipeliningHistory
from smtp_async.protocol.states import Stage
from tests.protocol.talk import BODY, DOT, Talk, bob, lines, receipt_of

OFFER = Extensions({"PIPELINING": ""})
OTHER = Extensions({"PIPELINING": "", "8BITMIME": ""})
LOST = ConnectionLost("gone")
MAIL, RCPT = "MAIL FROM:<ann@example.com>", "RCPT TO:<bob@example.org>"
GROUP = lines(MAIL, RCPT, "DATA")


# --- what is held against a server ---------------------------------------------------------------------------


@pytest.mark.parametrize("breakdown", Breakdown)
def test_only_what_proves_nothing_needs_a_second_time(breakdown: Breakdown) -> None:
    history = PipeliningHistory()
    sure = breakdown in (Breakdown.MISMATCHED, Breakdown.NOT_FOLLOWED)
    about_groups = breakdown in (Breakdown.MISMATCHED, Breakdown.PARTLY_ANSWERED)
    history.broke_down(breakdown, OFFER, 0.0)
    if not sure:
        assert history.allows_following and history.allows_groups(OFFER, 0.0)
        history.broke_down(breakdown, OFFER, 1.0)
    assert history.allows_groups(OFFER, 2.0) is not about_groups
    assert history.allows_following is about_groups


@pytest.mark.parametrize(
    ("breakdown", "behind", "cleared"),
    [
        (Breakdown.PARTLY_ANSWERED, False, True),
        (Breakdown.PARTLY_ANSWERED, True, True),
        (Breakdown.LOST_AT_END_OF_DATA, False, False),
        (Breakdown.LOST_AT_END_OF_DATA, True, True),
    ],
)
def test_a_suspicion_ends_with_a_message_that_shows_the_opposite(
    breakdown: Breakdown, behind: bool, cleared: bool
) -> None:
    history = PipeliningHistory()
    history.broke_down(breakdown, OFFER, 0.0)
    history.accepted(behind=behind)
    assert (history.suspicion is None) is cleared


def test_two_different_suspicions_are_not_one_twice() -> None:
    history = PipeliningHistory()
    for breakdown in (
        Breakdown.LOST_AT_END_OF_DATA,
        Breakdown.PARTLY_ANSWERED,
        Breakdown.LOST_AT_END_OF_DATA,
    ):
        history.broke_down(breakdown, OFFER, 0.0)
    assert history.allows_following and history.allows_groups(OFFER, 0.0)


def test_lock_step_ends_after_ten_minutes_or_with_another_offer() -> None:
    history = PipeliningHistory()
    history.broke_down(Breakdown.MISMATCHED, OFFER, 100.0)
    assert not history.allows_groups(OFFER, 699.9)
    assert history.allows_groups(OFFER, 700.0)
    history.broke_down(Breakdown.MISMATCHED, OFFER, 1000.0)
    assert not history.allows_groups(OFFER, 1001.0)
    assert history.allows_groups(OTHER, 1002.0)
    # Once trusted it is, also where the old offer is made again.
    assert history.allows_groups(OFFER, 1003.0)


def test_nothing_is_written_behind_an_end_of_data_for_ten_minutes_and_then_it_is_proved_anew() -> None:
    history = PipeliningHistory()
    history.proven = True
    history.broke_down(Breakdown.NOT_FOLLOWED, OFFER, 100.0)
    assert history.allows_groups(OTHER, 699.9)
    assert not history.allows_following
    history.allows_groups(OFFER, 700.0)
    assert history.allows_following and not history.proven


def test_its_repr_tells_what_is_allowed() -> None:
    history = PipeliningHistory()
    assert repr(history) == "<PipeliningHistory: in groups, across messages>"
    history.broke_down(Breakdown.MISMATCHED, OFFER, 0.0)
    history.broke_down(Breakdown.NOT_FOLLOWED, OFFER, 0.0)
    assert repr(history) == "<PipeliningHistory: in lock-step, one message at a time>"


# --- what the machine makes of it ----------------------------------------------------------------------------


def unproven(first: bool = True) -> Talk:
    """A connection that has written the end of its first message."""
    talk = Talk.ready(proven=not first)
    talk.begin()
    talk.writes(GROUP)
    talk.says("250 ok", "250 ok", "354 go")
    return talk


def test_the_first_time_rset_alone_is_written_behind_an_end_of_data() -> None:
    talk = unproven()
    second = talk.begin()
    talk.writes(BODY + DOT + lines("RSET"))
    assert talk.machine.expected == "end_of_data"
    talk.says("250 queued")
    assert talk.machine.expected == "probe"
    assert not talk.machine.pipeline.can_begin
    talk.says("250 reset")
    assert talk.history.proven
    talk.writes(GROUP)
    assert talk.machine.expected == "mail"
    talk.says("250 ok", "250 ok", "354 go")
    third = talk.begin()
    talk.writes(BODY + DOT + lines("RSET") + GROUP)
    talk.says("250 queued", "250 reset", "250 ok", "250 ok", "354 go")
    assert [receipt_of(second).outcome, third.receipt] == [Outcome.ACCEPTED, None]


def test_a_reset_in_a_write_of_its_own_proves_nothing() -> None:
    """It may come in a packet of its own, and a server that drops what comes with the dot answers it."""
    talk = unproven()
    talk.writes(BODY + DOT)
    for _ in range(2):
        talk.begin()
        talk.writes(lines("RSET"))
        talk.says("250 queued", "250 reset")
        assert not talk.history.proven
        talk.writes(GROUP)
        talk.says("250 ok", "250 ok", "354 go")
        talk.writes(BODY + DOT)


def test_a_reset_that_is_answered_late_proves_nothing_against_what_another_connection_learnt() -> None:
    talk = unproven()
    talk.begin()
    talk.writes(BODY + DOT + lines("RSET"))
    talk.history.broke_down(Breakdown.NOT_FOLLOWED, talk.machine.extensions, 0.0)
    talk.says("250 queued", "250 reset")
    assert not talk.history.proven
    talk.history.allows_groups(talk.machine.extensions, 601.0)
    assert talk.history.allows_following and not talk.history.proven


def test_a_message_in_chunks_follows_the_proof_whole() -> None:
    talk = Talk.ready(offer=["PIPELINING", "CHUNKING"], window=8, proven=False)
    talk.begin(chunking=True)
    talk.machine.data_to_send()
    talk.says("250 ok", "250 ok", "250 queued")
    talk.begin(chunking=True)
    talk.begin(chunking=True)
    assert talk.machine.data_to_send().endswith(BODY + lines("RSET"))
    talk.says("250 ok", "250 ok", "250 queued", "250 reset")
    assert talk.machine.data_to_send().startswith(lines(MAIL, RCPT) + b"BDAT ")


def test_a_probe_that_was_withdrawn_writes_no_envelope() -> None:
    talk = unproven()
    second = talk.begin()
    talk.writes(BODY + DOT + lines("RSET"))
    assert talk.machine.pipeline.withdraw(second)
    talk.says("250 queued", "250 reset")
    talk.writes()
    assert receipt_of(second).outcome is Outcome.NOT_SENT
    assert talk.machine.pipeline.can_begin and not talk.machine.pipeline.exhausted


@pytest.mark.parametrize("error", [Timeout("no reply"), LOST, SocketError("reset")])
def test_silence_behind_an_end_of_data_says_that_the_server_does_not_read_on(error: ConnectionLost) -> None:
    for first in (True, False):
        talk = unproven(first)
        second = talk.begin()
        talk.machine.data_to_send()
        talk.says("250 queued")
        talk.machine.fail(error)
        assert talk.machine.pipeline.breakdown is Breakdown.NOT_FOLLOWED
        assert receipt_of(second).outcome is Outcome.NOT_SENT


def test_a_refused_probe_says_so_too() -> None:
    talk = unproven()
    second = talk.begin()
    talk.machine.data_to_send()
    talk.says("250 queued", "500 MA?")
    assert talk.machine.pipeline.exhausted
    talk.machine.fail(Interrupted("exhausted"))
    assert talk.machine.pipeline.breakdown is Breakdown.NOT_FOLLOWED
    assert receipt_of(second).outcome is Outcome.NOT_SENT


@pytest.mark.parametrize(
    ("error", "breakdown"),
    [
        (LOST, Breakdown.LOST_AT_END_OF_DATA),
        (Timeout("no reply"), Breakdown.LOST_AT_END_OF_DATA),
        (Interrupted("closed by this side"), None),
        (ProtocolViolation("garbage"), Breakdown.MISMATCHED),
    ],
)
def test_an_end_at_an_end_of_data_with_commands_behind_it_is_suspicious(
    error: ConnectionLost, breakdown: Breakdown | None
) -> None:
    talk = unproven(False)
    talk.begin()
    talk.machine.data_to_send()
    talk.machine.fail(error)
    assert talk.machine.pipeline.breakdown is breakdown


def test_an_end_at_an_end_of_data_without_anything_behind_it_tells_nothing() -> None:
    talk = unproven()
    talk.writes(BODY + DOT)
    talk.machine.fail(LOST)
    assert talk.machine.pipeline.breakdown is None


def test_a_421_tells_nothing() -> None:
    talk = unproven()
    talk.begin()
    talk.machine.data_to_send()
    talk.says("250 queued", "421 bye")
    talk.machine.fail(LOST)
    assert talk.machine.pipeline.breakdown is None


def test_a_server_that_does_not_read_on_gets_nothing_behind_an_end_of_data() -> None:
    talk = unproven()
    talk.history.broke_down(Breakdown.NOT_FOLLOWED, OFFER, 0.0)
    talk.writes(BODY + DOT)
    assert not talk.machine.pipeline.can_begin
    talk.says("250 queued")
    assert talk.machine.pipeline.can_begin
    talk.begin(bob("c"))
    # Nothing is open there, so no RSET is needed.
    talk.writes(MAIL, "RCPT TO:<c@example.org>", "DATA")


def test_a_suspicion_is_taken_back_by_a_message_behind_another() -> None:
    talk = unproven(False)
    talk.history.broke_down(Breakdown.LOST_AT_END_OF_DATA, OFFER, 0.0)
    talk.begin()
    talk.machine.data_to_send()
    talk.says("250 queued", "250 reset", "250 ok", "250 ok", "354 go")
    assert talk.history.suspicion is Breakdown.LOST_AT_END_OF_DATA
    talk.machine.data_to_send()
    talk.says("250 queued")
    assert talk.history.suspicion is None


# --- RSET and EHLO -------------------------------------------------------------------------------------------


def test_without_rset_nothing_is_written_behind_an_end_of_data() -> None:
    talk = Talk.ready(send_rset=False)
    talk.begin()
    talk.writes(GROUP)
    talk.says("250 ok", "250 ok", "354 go")
    talk.writes(BODY + DOT)
    assert not talk.machine.pipeline.can_begin
    talk.says("250 queued")
    assert talk.machine.pipeline.can_begin and not talk.machine.pipeline.exhausted


@pytest.mark.parametrize("end", ["250 queued", "554 no"])
def test_a_message_after_an_end_of_data_needs_rset_only_where_it_was_refused(end: str) -> None:
    talk = unproven()
    talk.writes(BODY + DOT)
    talk.says(end)
    talk.begin()
    # After a refusal the envelope goes first.
    talk.writes(GROUP if end.startswith("2") else lines("RSET", MAIL, RCPT))


@pytest.mark.parametrize(
    ("answer", "offer"),
    [("250 mx.example.org", set()), ("250-mx\r\n250 DSN", {"DSN"}), ("503 duplicate", {"PIPELINING"})],
)
@pytest.mark.parametrize("lmtp", [False, True])
def test_a_second_ehlo_replaces_the_offer_unless_it_is_refused(
    answer: str, offer: set[str], lmtp: bool
) -> None:
    talk = Talk.ready(lmtp=lmtp)
    exchange = talk.machine.hello_again()
    talk.writes(f"{'LHLO' if lmtp else 'EHLO'} me.example")
    talk.stands(Stage.REGREETED)
    talk.says(*answer.split("\r\n"))
    assert exchange.reply is not None
    talk.stands(Stage.READY)
    assert set(talk.machine.extensions) == offer


@pytest.mark.parametrize("lmtp", [False, True])
def test_a_second_ehlo_does_not_end_lock_step(lmtp: bool) -> None:
    talk = Talk.ready(lmtp=lmtp)
    talk.machine.forgo_pipelining()
    assert not talk.machine.pipelining
    talk.machine.hello_again()
    talk.writes(f"{'LHLO' if lmtp else 'EHLO'} me.example")
    talk.says("250-mx", "250-DSN", "250 PIPELINING")
    assert set(talk.machine.extensions) == {"DSN"}
