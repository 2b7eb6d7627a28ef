"""Retry times: exponential, jittered, bounded; expiry; the pauses of a host that fails as a whole."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument
from smtp_async.processor.schedule import Breaker, RetryPolicy, next_try, pause, wait

FIXED = RetryPolicy(jitter=False)


def test_waits_double_up_to_the_longest() -> None:
    waits = [wait(FIXED, tries) for tries in range(1, 10)]
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_jitter_is_full() -> None:
    policy = RetryPolicy()
    assert wait(policy, 3, chance=0.0) == 0.0
    assert wait(policy, 3, chance=0.5) == 120.0
    assert wait(policy, 3, chance=1.0) == 240.0


@given(
    tries=st.integers(1, 10**9),
    first=st.floats(1e-6, 1e10),
    factor=st.floats(1.0, 1e10),
    most=st.floats(1e-6, 1e10),
    chance=st.floats(0, 1),
)
def test_a_wait_is_never_longer_than_the_longest(tries, first, factor, most, chance) -> None:
    policy = RetryPolicy(first=first, factor=factor, most=most)
    assert 0 <= wait(policy, tries, chance) <= most
    assert wait(policy, tries, 1.0) <= wait(policy, tries + 1, 1.0)


def test_no_wait_at_all() -> None:
    assert wait(RetryPolicy(first=0.0), 5) == 0.0


# --- the next try --------------------------------------------------------------------------------------------


def due(tries: int, *, now: float = 1000.0, expires: float | None = None, **policy: Any) -> float | None:
    return next_try(RetryPolicy(jitter=False, **policy), tries, now=now, expires=expires)


def test_the_next_try_is_after_the_wait() -> None:
    assert due(1) == 1060.0
    assert due(2) == 1120.0


def test_one_attempt_makes_every_error_final() -> None:
    assert due(1, attempts=1) is None


def test_attempts_are_counted() -> None:
    assert due(2, attempts=3) is not None
    assert due(3, attempts=3) is None


def test_the_last_try_is_at_the_expiry() -> None:
    assert due(1, now=1000, expires=1030) == 1030
    assert due(1, now=1029, expires=1030) == 1030
    assert due(1, now=1030, expires=1030) is None
    assert due(1, now=2000, expires=1030) is None


@given(st.integers(1, 100), st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1))
def test_nothing_is_tried_after_its_expiry(tries, now, expires, chance) -> None:
    found = next_try(RetryPolicy(), tries, now=now, expires=expires, chance=chance)
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
def test_a_policy_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        RetryPolicy(**wrong)


def test_never_and_at_once_can_be_meant() -> None:
    assert RetryPolicy(expires=None, first=0, pause=0, attempts=None).expires is None


# --- the breaker ---------------------------------------------------------------------------------------------


def breaker(**policy: Any) -> Breaker:
    return Breaker(RetryPolicy(jitter=False, pause=5.0, longest_pause=60.0, **policy), lambda: 1.0)


def test_mail_flows_at_first() -> None:
    assert breaker().closed and breaker().admits(0.0) == math.inf


def test_a_failure_stops_all_until_the_pause_is_over() -> None:
    host = breaker()
    assert host.failed(100.0)
    assert not host.closed
    assert host.admits(104.9) == 0
    assert host.admits(105.0) == 1


def test_those_that_were_under_way_do_not_lengthen_the_pause() -> None:
    host = breaker()
    host.failed(100.0)
    assert not host.failed(101.0)
    assert (host.failures, host.until) == (1, 105.0)


def test_the_probe_goes_alone() -> None:
    host = breaker()
    host.failed(100.0)
    host.begun()
    assert host.admits(105.0) == 0


def test_pauses_double_with_each_failed_probe() -> None:
    host, now, pauses = breaker(), 0.0, []
    for _ in range(6):
        assert host.failed(now)
        pauses.append(host.until - now)
        now = host.until
        host.begun()
    assert pauses == [5, 10, 20, 40, 60, 60]


def test_a_probe_that_tells_nothing_lets_another_one_follow() -> None:
    host = breaker()
    host.failed(0.0)
    host.begun()
    host.undecided()
    assert host.admits(5.0) == 1


def test_a_probe_that_succeeds_lets_mail_flow() -> None:
    host = breaker()
    host.failed(0.0)
    host.begun()
    host.succeeded()
    assert host.closed and host.admits(0.0) == math.inf
    assert host.failed(100.0) and host.until == 105.0


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_half_of_a_pause_is_certain(failures, chance) -> None:
    policy = RetryPolicy(pause=5.0, longest_pause=60.0)
    full = pause(RetryPolicy(jitter=False, pause=5.0, longest_pause=60.0), failures)
    assert full / 2 <= pause(policy, failures, chance) <= full <= 60.0
