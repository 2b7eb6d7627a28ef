"""throttle.py: how many messages and bytes in which time; the time is an argument."""

import math
import random
import tracemalloc
from collections import deque
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import RateLimits
from smtp_async.errors import InvalidArgument
from smtp_async.transport.throttle import ByteRate, ClientThrottle, MessageRate

HOUR, DAY = 3600.0, 86400.0


# --- the values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
@pytest.mark.parametrize("unit", ["second", "minute", "hour", "day"])
def test_messages_are_counted_in_integers_above_zero(unit: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"messages_per_{unit} must be an integer above 0"):
        RateLimits(**{f"messages_per_{unit}": value})


@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf, False, "3"])
@pytest.mark.parametrize("name", ["send_rate", "receive_rate", "total_send_rate", "total_receive_rate"])
def test_bytes_are_a_number_above_zero(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} must be a number of bytes per second above 0"):
        RateLimits(**{name: value})


def test_the_windows_are_those_that_were_given() -> None:
    assert RateLimits().windows == ()
    assert RateLimits(messages_per_second=5, messages_per_day=9).windows == ((5, 1.0), (9, DAY))


# --- messages ------------------------------------------------------------------------------------------------


def most_within(times: list[float], seconds: float) -> int:
    """Return the most of `times` in any window of `seconds`, both ends included."""
    window: deque[float] = deque()
    most = 0
    for time in sorted(times):
        window.append(time)
        while time - window[0] > seconds:
            window.popleft()
        most = max(most, len(window))
    return most


def sent(windows: list[tuple[int, float]], until: float, latency: random.Random, places: int) -> list[float]:
    """Send as fast as `windows` allow over `places` connections; return when the server counted each message.

    A message takes up to 30 ms, and the server counts it somewhere in between.
    """
    rate, now = MessageRate(windows), 0.0
    ends: list[float] = []
    counted: list[float] = []
    while now < until:
        if len(ends) < places and rate.free(now):
            rate.begin()
            took = latency.uniform(0.001, 0.03)
            counted.append(now + latency.uniform(0, took))
            ends.append(now + took)
            continue
        blocked = math.inf if len(ends) >= places else rate.next_change(now)
        end = min(ends, default=math.inf)
        if end <= blocked:
            ends.remove(end)
            now = max(now, end)
            rate.conclude(now)
        else:
            assert blocked > now
            now = blocked
    return counted


@pytest.mark.parametrize("seed", range(5))
def test_ten_seconds_at_100_messages_per_second(seed: int) -> None:
    times = sent([(100, 1.0)], 10.0, random.Random(seed), places=5)
    assert most_within(times, 1.0) <= 100
    assert len(times) >= 970


def test_a_week_of_an_hourly_and_a_daily_limit() -> None:
    times = sent([(120, HOUR), (1000, DAY)], 7 * DAY, random.Random(1), places=5)
    assert most_within(times, HOUR) <= 120
    assert most_within(times, DAY) <= 1000
    assert len(times) >= 0.97 * 7000


def test_all_four_limits_at_once() -> None:
    windows = [(10, 1.0), (100, 60.0), (1000, HOUR), (5000, DAY)]
    times = sent(windows, 2 * DAY, random.Random(2), places=5)
    for most, seconds in windows:
        assert most_within(times, seconds) <= most
    assert len(times) >= 0.97 * 10_000


@given(
    most=st.integers(1, 5),
    gaps=st.lists(st.floats(0, 1.5), max_size=60),
    long=st.lists(st.floats(0, 3), min_size=60, max_size=60),
)
def test_whatever_the_arrivals_no_window_holds_too_many(
    most: int, gaps: list[float], long: list[float]
) -> None:
    rate, now = MessageRate([(most, 1.0)]), 0.0
    under_way: list[tuple[float, float]] = []
    spans: list[tuple[float, float]] = []
    for gap, took in zip(gaps, long, strict=False):
        now += gap
        for span in sorted(under_way, key=lambda span: span[1]):
            if span[1] <= now:
                under_way.remove(span)
                rate.conclude(span[1])
        if rate.free(now):
            rate.begin()
            under_way.append((now, now + took))
            spans.append((now, now + took))
        else:
            assert rate.next_change(now) > now
    # The server may count each of them at its beginning or at its end.
    for start, end in spans:
        others = [span for span in spans if span[0] <= start and span[1] >= start - 1]
        assert len(others) <= most, (start, end)


def test_a_message_of_which_nothing_was_written_gives_its_place_back() -> None:
    rate = MessageRate([(1, DAY)])
    rate.begin()
    assert not rate.free(0)
    rate.withdraw()
    assert rate.free(0) == 1


def test_a_long_window_needs_little_memory() -> None:
    """Messages share entries: a thousand, of some 200 bytes each, hold the whole window."""
    rate = MessageRate([(1_000_000, DAY)])
    tracemalloc.start()
    try:
        for number in range(200_000):
            rate.begin()
            rate.conclude(number * DAY / 200_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rate.free(DAY) == 800_000
    assert peak < 500_000


# --- bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [0.0, 0.002, 0.02])
def test_bytes_per_second_hold_though_timers_are_late(late: float) -> None:
    bucket, now, total = ByteRate(1_000_000), 0.0, 0
    while now < 10:
        now += bucket.delay(now) + late
        bucket.take(50_000, now)
        total += 50_000
    assert total / now == pytest.approx(1_000_000, rel=0.05)


def test_a_pause_is_no_credit() -> None:
    bucket = ByteRate(1000)
    bucket.take(1000, 100.0)
    assert bucket.delay(100.0) == pytest.approx(0.95)
    assert bucket.delay(500.0) == 0.0
    bucket.take(1000, 500.0)
    assert bucket.delay(500.0) == pytest.approx(0.95)


def test_connections_share_the_limit_of_their_client() -> None:
    client = ClientThrottle(RateLimits(send_rate=1000, total_send_rate=1500))
    one, other = client.for_connection(), client.for_connection()
    one.sent(1000, 10.0)
    assert one.send_delay(10.0) == pytest.approx(0.95)
    assert 0 < other.send_delay(10.0) < one.send_delay(10.0)
    other.sent(1000, 10.0)
    assert one.send_delay(10.0) == other.send_delay(10.0) == pytest.approx(2000 / 1500 - 0.05)
    assert client.waited == 0


def test_a_slow_connection_writes_and_reads_in_small_parts() -> None:
    def parts(rate: float) -> tuple[int, int | None]:
        one = ClientThrottle(RateLimits(send_rate=rate, receive_rate=rate)).for_connection()
        return one.part, one.read_part

    assert [parts(rate) for rate in (10, 200_000, 1e9)] == [
        (1024, 1024),
        (10_000, 10_000),
        (65536, 65536),
    ]
    unlimited = ClientThrottle(RateLimits(total_receive_rate=5)).for_connection()
    assert (unlimited.part, unlimited.read_part) == (65536, 1024)


def test_what_was_read_tells_how_long_to_wait() -> None:
    client = ClientThrottle(RateLimits(receive_rate=1000))
    one = client.for_connection()
    delays = [one.received(100, 10.0 + n * 0.05) for n in range(4)]
    assert delays == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert all(later > earlier for earlier, later in pairwise(delays))
    assert client.waited == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("limits", "needed"),
    [
        (RateLimits(), False),
        (RateLimits(messages_per_day=1), False),
        (RateLimits(total_receive_rate=1.5), True),
        (RateLimits(send_rate=1), True),
    ],
)
def test_bytes_are_only_counted_where_they_are_limited(limits: RateLimits, needed: bool) -> None:
    assert (ClientThrottle.of(limits) is not None) is needed
