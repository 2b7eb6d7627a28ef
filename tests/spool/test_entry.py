"""entry.py: what an attempt, an operator and a clock make of a job."""

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument, UsageError
from smtp_async.model.envelope import Envelope, Recipient
from smtp_async.model.receipt import Outcome, Receipt, Verdict
from smtp_async.model.reply import Reply
from smtp_async.spool.entry import (
    CLOCK_STEP,
    MAX_TEXT,
    Entry,
    Result,
    State,
    check_receipt,
    flagged_after,
    requeued,
    results_after,
    should_retry,
)

QUEUED = Reply(250, (b"2.0.0 Ok: queued as 4ABC",))
LATER = Reply(451, (b"4.3.0 later",))
NEVER = Reply(550, (b"5.1.1 nobody",))
OUTCOMES = {QUEUED: Outcome.ACCEPTED, LATER: Outcome.REFUSED, NEVER: Outcome.REFUSED, None: Outcome.UNKNOWN}


def entry(*results: Result | None, recipients: int = 3, **fields: Any) -> Entry:
    people = [f"user{number}@x.test" for number in range(len(results) or recipients)]
    return Entry(
        id="1", envelope=Envelope("a@x.test", people), created=1.0, size=5, results=results, **fields
    )


def verdict(reply: Reply | None, recipient: str = "b@x.test") -> Verdict:
    return Verdict(Recipient(recipient), OUTCOMES[reply], reply)


def receipt(*replies: Reply | None) -> Receipt:
    return Receipt(tuple([verdict(reply) for reply in replies]))


def result(outcome: Outcome, *, final: bool = True) -> Result:
    return Result(outcome, final, 1.0)


# --- results -------------------------------------------------------------------------------------------------


def test_a_result_keeps_what_the_reply_says() -> None:
    found = Result.of(verdict(NEVER), final=True, at=7.0)
    assert found[:5] == (Outcome.REFUSED, True, 7.0, 550, "5.1.1")
    assert "nobody" in found.text and found.queue_id is None
    assert Result.of(verdict(QUEUED), final=True, at=7.0).queue_id == "4ABC"


def test_a_result_without_a_reply_has_no_code() -> None:
    assert Result.of(verdict(None), final=False, at=7.0) == Result(Outcome.UNKNOWN, False, 7.0)


def test_the_text_of_a_reply_is_one_short_printable_line() -> None:
    lines = (b"5.0.0 first", b"5.0.0 \x1b[31msecond", b"5.0.0 " + b"x" * 1000)
    text = Result.of(verdict(NEVER)._replace(reply=Reply(550, lines)), final=True, at=1.0).text
    assert "first" in text and "second" in text and text.isprintable() and len(text) <= MAX_TEXT


@pytest.mark.parametrize(("reply", "again"), [(QUEUED, False), (LATER, True), (NEVER, False), (None, True)])
def test_what_is_temporary_or_unknown_is_tried_again(reply: Reply | None, again: bool) -> None:
    assert should_retry(verdict(reply)) is again


def test_an_attempt_changes_the_pending_recipients_only() -> None:
    before = entry(result(Outcome.ACCEPTED), None, result(Outcome.REFUSED, final=False))
    after = results_after(before, receipt(LATER, NEVER), None, 9.0)
    assert after[0] == before.results[0]
    assert [(one.outcome, one.final, one.at) for one in after[1:] if one] == [
        (Outcome.REFUSED, False, 9.0),
        (Outcome.REFUSED, True, 9.0),
    ]
    assert before.results[1] is None, "the entry is left as it was"


def test_the_caller_may_decide_what_is_tried_again_but_not_what_was_accepted() -> None:
    found = results_after(entry(recipients=3), receipt(QUEUED, LATER, NEVER), lambda one: True, 1.0)
    assert [one.final for one in found if one] == [True, False, False]
    found = results_after(entry(recipients=3), receipt(QUEUED, LATER, NEVER), lambda one: False, 1.0)
    assert [one.final for one in found if one] == [True, True, True]


def test_without_a_receipt_nothing_changes() -> None:
    before = entry(result(Outcome.ACCEPTED), None)
    assert results_after(before, None, None, 9.0) is before.results


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_receipt_has_a_verdict_for_each_pending_recipient(count: int) -> None:
    before = entry(None, None, result(Outcome.ACCEPTED))
    with pytest.raises(InvalidArgument, match=f"{count} verdicts, but 2 recipients are pending"):
        results_after(before, receipt(*[QUEUED] * count), None, 1.0)
    check_receipt(before, receipt(QUEUED, QUEUED))
    check_receipt(before, None)


# --- an entry ------------------------------------------------------------------------------------------------


def test_a_new_job_has_a_place_for_each_result() -> None:
    new = entry(recipients=2)
    assert new.results == (None, None) and new.pending == new.envelope.recipients and new.failed == ()


def test_pending_and_failed_are_told_by_the_results() -> None:
    lost = result(Outcome.UNKNOWN)
    one = entry(result(Outcome.ACCEPTED), lost, result(Outcome.REFUSED, final=False), None)
    people = one.envelope.recipients
    assert one.pending == people[2:] and one.failed == ((people[1], lost),)


def test_a_flag_is_set_by_an_unknown_outcome_that_is_tried_again_and_never_cleared() -> None:
    unknown = result(Outcome.UNKNOWN, final=False)
    assert flagged_after(entry(None), [unknown])
    assert not flagged_after(
        entry(None), [result(Outcome.UNKNOWN), result(Outcome.REFUSED, final=False), None]
    )
    assert flagged_after(entry(None, flagged=True), [result(Outcome.ACCEPTED)])


@pytest.mark.parametrize(
    ("scheduled_at", "not_before", "due"),
    [
        # A time that the caller named is kept, however far off.
        (0.0, 1e9, 1e9),
        (0.0, 50.0, 50.0),
        # Computed in the past, or within the tolerated difference of clocks.
        (90.0, 150.0, 150.0),
        (100.0 + CLOCK_STEP, 150.0, 150.0),
        # Computed by a clock that was ahead and has been set back.
        (1000.0, 1500.0, 100.0 - CLOCK_STEP),
        (1000.0, 50.0, 50.0),
    ],
)
def test_when_a_job_is_due(scheduled_at: float, not_before: float, due: float) -> None:
    assert entry(scheduled_at=scheduled_at, not_before=not_before).due(100.0) == due


# --- requeueing ----------------------------------------------------------------------------------------------


def test_a_requeued_job_is_tried_for_those_who_do_not_have_it() -> None:
    before = entry(
        result(Outcome.ACCEPTED),
        result(Outcome.REFUSED),
        None,
        state=State.FAILED,
        attempts=5,
        recoveries=2,
        held=True,
        reason="no",
    )
    after = requeued(before, 50.0, 90.0, 40.0)
    assert after == replace(
        before,
        state=State.QUEUED,
        not_before=50.0,
        expires=90.0,
        attempts=0,
        recoveries=0,
        held=False,
        results=(before.results[0], result(Outcome.REFUSED, final=False), None),
        confirmed=True,
        scheduled_at=0.0,
    )
    assert before.state is State.FAILED and after.pending == before.envelope.recipients[1:]


def test_a_time_that_was_computed_is_told_from_one_that_was_named() -> None:
    now = time.time()
    assert requeued(entry(None), now, None, now).scheduled_at == now
    assert requeued(entry(None), now + 5, None, now).scheduled_at == 0.0


@pytest.mark.parametrize("final", [True, False])
def test_a_job_that_may_have_been_delivered_stays_flagged(final: bool) -> None:
    assert requeued(entry(result(Outcome.UNKNOWN, final=final)), 1.0, None, 1.0).flagged
    assert requeued(entry(result(Outcome.REFUSED), flagged=True), 1.0, None, 1.0).flagged
    assert not requeued(entry(result(Outcome.REFUSED)), 1.0, None, 1.0).flagged


def test_a_job_that_all_have_is_not_queued_again() -> None:
    with pytest.raises(UsageError, match="every recipient of the job 1 was accepted"):
        requeued(entry(result(Outcome.ACCEPTED), result(Outcome.ACCEPTED)), 1.0, None, 1.0)


@given(st.lists(st.sampled_from([QUEUED, LATER, NEVER, None]), min_size=1, max_size=6))
def test_each_recipient_is_pending_failed_or_has_it(replies: list[Reply | None]) -> None:
    before = entry(recipients=len(replies))
    after = replace(before, results=results_after(before, receipt(*replies), None, 2.0))
    accepted = [one for one in after.results if one and one.outcome is Outcome.ACCEPTED]
    assert len(after.pending) + len(after.failed) + len(accepted) == len(replies)
    # Accepted is final, whatever follows.
    if after.pending:
        last = replace(
            after, results=results_after(after, receipt(*[QUEUED] * len(after.pending)), None, 3.0)
        )
        assert last.pending == () and last.failed == after.failed
