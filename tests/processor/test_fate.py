"""What follows from a try: sent, deferred, failed, or back as it was."""

from dataclasses import replace
from typing import Any

from smtp_async import Envelope, Outcome, Receipt
from smtp_async.errors import OutcomeUnknown, SocketError
from smtp_async.processor.bounce import EXPIRED
from smtp_async.processor.fate import Conclusion, End, conclude, expiry, retry_of
from smtp_async.processor.policy import UNKNOWN, judge
from smtp_async.processor.schedule import RetryPolicy
from smtp_async.spool.entry import Entry, Result
from tests.processor.office import STEADY, receipt

ENTRY = Entry(id="a", envelope=Envelope("x@y.test", ["ann@z.test", "bob@z.test"]), created=1000.0, size=1)
DEAD = SocketError("cannot connect")


def after(
    *answers: Any, entry: Entry = ENTRY, now: float = 1000.0, on_unknown: Any = "retry", **policy: Any
) -> Conclusion:
    found = answers[0] if isinstance(answers[0], Receipt) else receipt(entry.pending, *answers)
    rule = replace(STEADY, **policy)
    return conclude(entry, judge(found, on_unknown=on_unknown), rule, now=now)


def test_accepted_by_all_is_sent() -> None:
    assert after("250 ok").end is End.SENT


def test_as_long_as_anybody_is_left_it_waits() -> None:
    found = after("250 ok", "450 later")
    assert (found.end, found.not_before) == (End.DEFERRED, 1060.0)
    assert found.reason == "450 later"
    found = after("550 never", "450 later")
    assert found.end is End.DEFERRED and found.reason == "550 never"
    assert [str(one.recipient.address) for one in found.given_up] == ["ann@z.test"]
    assert [str(one.recipient.address) for one in found.waiting] == ["bob@z.test"]


def test_nobody_left_and_somebody_without_it_is_failed() -> None:
    assert after("250 ok", "550 never").end is End.FAILED
    assert after("550 never").end is End.FAILED


def test_who_failed_before_is_not_forgotten() -> None:
    results = (Result(Outcome.REFUSED, final=True, at=1000.0, code=550), None)
    entry = replace(ENTRY, results=results, reason="550 never")
    found = after("250 ok", entry=entry)
    assert (found.end, found.reason, found.given_up) == (End.FAILED, "550 never", ())


def test_attempts_grow_the_wait() -> None:
    assert after("450 later", entry=replace(ENTRY, attempts=2)).not_before == 1240.0


def test_with_one_attempt_every_error_is_final() -> None:
    found = after("450 later", attempts=1)
    assert (found.end, found.reason, len(found.given_up)) == (End.FAILED, "450 later", 2)
    assert after(receipt(ENTRY.pending, Outcome.NOT_SENT, error=DEAD), attempts=1).end is End.FAILED


def test_a_dead_host_does_not_count() -> None:
    found = after(
        receipt(ENTRY.pending, Outcome.NOT_SENT, error=DEAD), attempts=2, entry=replace(ENTRY, attempts=1)
    )
    assert found == Conclusion(End.RELEASED, reason="cannot connect")


def test_expired_is_failed_also_when_the_host_is_dead() -> None:
    late = 1000.0 + 5 * 86400
    found = after("450 later", now=late)
    assert found.end is End.FAILED and found.reason.startswith(EXPIRED)
    found = after(receipt(ENTRY.pending, Outcome.NOT_SENT, error=DEAD), now=late)
    assert found.end is End.FAILED and found.reason == f"{EXPIRED}: cannot connect"


def test_an_expiry_of_its_own_goes_first() -> None:
    assert expiry(replace(ENTRY, expires=1030.0), STEADY) == 1030.0
    assert expiry(ENTRY, STEADY) == 1000.0 + 5 * 86400
    assert expiry(ENTRY, RetryPolicy(expires=None)) is None
    assert after("450 later", entry=replace(ENTRY, expires=1030.0)).not_before == 1030.0


def test_unknown_is_tried_again_or_held() -> None:
    found = receipt(ENTRY.pending, Outcome.UNKNOWN, error=OutcomeUnknown("no reply"))
    assert after(found).end is End.DEFERRED
    held = after(found, on_unknown="hold")
    assert (held.end, held.reason) == (End.FAILED, UNKNOWN)


def test_a_wait_of_nothing_is_not_due_at_once() -> None:
    assert after("450 later", first=0.0).not_before > 1000.0


def test_a_lease_is_told_who_is_tried_again() -> None:
    found = receipt(ENTRY.pending, "550 never", "450 later")
    disposition = judge(found)
    deferred = conclude(ENTRY, disposition, STEADY, now=1000.0)
    retry = retry_of(found, disposition, deferred)
    assert [retry(verdict) for verdict in found.verdicts] == [False, True]
    failed = conclude(ENTRY, disposition, replace(STEADY, attempts=1), now=1000.0)
    retry = retry_of(found, disposition, failed)
    assert [retry(verdict) for verdict in found.verdicts] == [False, False]


def test_the_same_recipient_twice_is_told_apart() -> None:
    entry = replace(ENTRY, envelope=Envelope("x@y.test", ["ann@z.test", "ann@z.test"]), results=())
    found = receipt(entry.pending, "250 ok", "450 later")
    disposition = judge(found)
    retry = retry_of(found, disposition, conclude(entry, disposition, STEADY, now=1000.0))
    assert [retry(verdict) for verdict in found.verdicts] == [False, True]
