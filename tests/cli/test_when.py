"""Times as they are typed and as they are shown."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.cli.when import moment, shown
from smtp_async.errors import InvalidArgument

NOW = 1_900_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("+15m", 900), (" 2 h ", 7200), ("1.5d", 129600), ("1w", 604800), ("0s", 0)],
)
def test_from_now(text, seconds):
    assert moment(text, NOW) == NOW + seconds


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2030-01-31T08:00+01:00", datetime(2030, 1, 31, 7, tzinfo=UTC)),
        ("2030-01-31 08:00:30Z", datetime(2030, 1, 31, 8, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_date_with_a_zone(text, wanted):
    assert moment(text, NOW) == wanted.timestamp()


def test_a_date_without_a_zone_is_of_here():
    assert moment("2030-01-31T08:00") == time.mktime((2030, 1, 31, 8, 0, 0, 0, 0, -1))
    assert moment("2030-01-31") == time.mktime((2030, 1, 31, 0, 0, 0, 0, 0, -1))


def test_before_the_epoch_is_the_epoch():
    assert moment("1969-01-01T00:00Z") == 0.0


def test_the_clock_is_asked():
    assert time.time() + 59 < moment("1m") < time.time() + 61


@pytest.mark.parametrize("text", ["", "tomorrow", "2x", "-2h", "12345678901s", "2030-02-30", "٣h", "\x1b[2J"])
def test_what_is_no_time(text):
    with pytest.raises(InvalidArgument) as caught:
        moment(text, NOW)
    assert "\x1b" not in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_refused(text):
    try:
        assert moment(text, NOW) >= 0
    except InvalidArgument:
        pass


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9998, 1, 1)))
def test_what_is_shown_is_understood(when):
    seconds = when.replace(tzinfo=UTC, microsecond=0).timestamp()
    assert moment(shown(seconds)) == seconds


@pytest.mark.parametrize("seconds", [1e12, 1e18, float(2**62)])
def test_a_time_beyond_all_calendars(seconds):
    assert shown(seconds) == "9999-12-31T23:59:59Z"
