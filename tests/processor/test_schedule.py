"""Retry delays: exponential, jittered, bounded; expiry; the lengths of pauses."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument
from smtp_async.processor.schedule import RetryPolicy, next_attempt, pause_length, retry_delay

FIXED = RetryPolicy(jitter=False)


def test_delays_double_up_to_the_longest() -> None:
    delays = [retry_delay(FIXED, tries) for tries in range(1, 10)]
    assert delays == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_jitter_covers_the_whole_delay() -> None:
    policy = RetryPolicy()
    assert retry_delay(policy, 3, chance=0.0) == 0.0
    assert retry_delay(policy, 3, chance=0.5) == 120.0
    assert retry_delay(policy, 3, chance=1.0) == 240.0


@given(
    tries=st.integers(1, 10**9),
    first=st.floats(1e-6, 1e10),
    factor=st.floats(1.0, 1e10),
    most=st.floats(1e-6, 1e10),
    chance=st.floats(0, 1),
)
def test_no_delay_is_longer_than_the_longest(tries, first, factor, most, chance) -> None:
    policy = RetryPolicy(first=first, factor=factor, most=most)
    assert 0 <= retry_delay(policy, tries, chance) <= most
    assert retry_delay(policy, tries, 1.0) <= retry_delay(policy, tries + 1, 1.0)


def test_a_first_delay_of_zero_stays_zero() -> None:
    assert retry_delay(RetryPolicy(first=0.0), 5) == 0.0


# --- the next attempt ----------------------------------------------------------------------------------------


def due(tries: int, *, now: float = 1000.0, expires: float | None = None, **policy: Any) -> float | None:
    return next_attempt(RetryPolicy(jitter=False, **policy), tries, now=now, expires=expires, chance=1.0)


def test_the_next_attempt_is_after_the_delay() -> None:
    assert due(1) == 1060.0
    assert due(2) == 1120.0


def test_one_attempt_makes_every_error_final() -> None:
    assert due(1, attempts=1) is None


def test_attempts_are_counted() -> None:
    assert due(2, attempts=3) is not None
    assert due(3, attempts=3) is None


def test_the_last_attempt_is_at_the_expiry() -> None:
    assert due(1, now=1000, expires=1030) == 1030
    assert due(1, now=1029, expires=1030) == 1030
    assert due(1, now=1030, expires=1030) is None
    assert due(1, now=2000, expires=1030) is None


@given(st.integers(1, 100), st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1))
def test_no_attempt_is_after_the_expiry(tries, now, expires, chance) -> None:
    found = next_attempt(RetryPolicy(), tries, now=now, expires=expires, chance=chance)
    assert (found is None) == (now >= expires)
    assert found is None or now <= found <= expires


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": True},
        {"attempts": 1.5},
        {"first": -1},
        {"first": math.nan},
        {"most": math.inf},
        {"factor": 0.5},
        {"expires": -1},
        {"pause": "5"},
        {"longest_pause": True},
    ],
)
def test_a_policy_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        RetryPolicy(**wrong)


def test_zero_and_none_are_allowed() -> None:
    assert RetryPolicy(expires=None, first=0, pause=0, attempts=None).expires is None


# --- pauses --------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_a_pause_has_at_least_half_of_its_length(failures, chance) -> None:
    policy = RetryPolicy(pause=5.0, longest_pause=60.0)
    full = pause_length(RetryPolicy(jitter=False, pause=5.0, longest_pause=60.0), failures)
    assert full / 2 <= pause_length(policy, failures, chance) <= full <= 60.0
