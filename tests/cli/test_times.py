"""Times as they are typed and as they are shown."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.cli.times import format_time, parse_time
from smtp_async.errors import InvalidArgument

NOW = 1_900_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("+15m", 900), (" 2 h ", 7200), ("1.5d", 129600), ("1w", 604800), ("0s", 0)],
)
def test_a_span_counts_from_now(text, seconds):
    assert parse_time(text, NOW) == NOW + seconds


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2030-01-31T08:00+01:00", datetime(2030, 1, 31, 7, tzinfo=UTC)),
        ("2030-01-31 08:00:30Z", datetime(2030, 1, 31, 8, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_date_may_have_a_time_zone(text, wanted):
    assert parse_time(text, NOW) == wanted.timestamp()


def test_a_date_without_a_time_zone_is_local():
    assert parse_time("2030-01-31T08:00") == time.mktime((2030, 1, 31, 8, 0, 0, 0, 0, -1))
    assert parse_time("2030-01-31") == time.mktime((2030, 1, 31, 0, 0, 0, 0, 0, -1))


def test_a_time_before_the_epoch_is_the_epoch():
    assert parse_time("1969-01-01T00:00Z") == 0.0


def test_without_now_the_clock_is_used():
    assert time.time() + 59 < parse_time("1m") < time.time() + 61


@pytest.mark.parametrize("text", ["", "tomorrow", "2x", "-2h", "12345678901s", "2030-02-30", "٣h", "\x1b[2J"])
def test_other_texts_are_refused(text):
    with pytest.raises(InvalidArgument) as caught:
        parse_time(text, NOW)
    assert "\x1b" not in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_refused(text):
    try:
        assert parse_time(text, NOW) >= 0
    except InvalidArgument:
        pass


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9998, 1, 1)))
def test_a_formatted_time_can_be_parsed(when):
    seconds = when.replace(tzinfo=UTC, microsecond=0).timestamp()
    assert parse_time(format_time(seconds)) == seconds


@pytest.mark.parametrize("seconds", [1e12, 1e18, float(2**62)])
def test_a_time_after_the_year_9999_is_shown_as_its_end(seconds):
    assert format_time(seconds) == "9999-12-31T23:59:59Z"
