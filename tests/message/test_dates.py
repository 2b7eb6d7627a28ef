"""dates.py: a Date reads back as the moment that it was made of."""

from datetime import UTC, date, datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument
from smtp_async.message.dates import clock_date, date_text


@given(
    st.datetimes(min_value=datetime(1900, 1, 2), max_value=datetime(9999, 12, 30)),
    st.none() | st.integers(-23 * 60, 23 * 60),
)
def test_dates_are_those_of_the_standard_library(when, minutes):
    if minutes is not None:
        when = when.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert date_text(when) == format_datetime(when)


def test_zones_with_seconds():
    when = datetime(1930, 1, 1, tzinfo=timezone(timedelta(minutes=19, seconds=32)))
    assert parsedate_to_datetime(date_text(when)) == when
    when = datetime(1930, 1, 1, tzinfo=timezone(-timedelta(minutes=19, seconds=32)))
    assert parsedate_to_datetime(date_text(when)) == when


@pytest.mark.parametrize("year", [1, 1899])
def test_dates_before_1900_do_not_exist(year):
    with pytest.raises(InvalidArgument, match="1900"):
        date_text(datetime(year, 6, 1, tzinfo=UTC))


@given(st.integers(0, 4_000_000_000))
def test_clock_dates(seconds):
    assert parsedate_to_datetime(clock_date(seconds + 0.75)).timestamp() == seconds


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns", "XXX-05:45"])
def test_clock_dates_in_other_zones(zone, monkeypatch):
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert parsedate_to_datetime(clock_date(1_700_000_000)).timestamp() == 1_700_000_000
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_date_is_a_datetime_or_a_text():
    wrong: Any
    for wrong in (date(2024, 1, 1), 1_700_000_000, b"now"):
        with pytest.raises(InvalidArgument, match=type(wrong).__name__):
            date_text(wrong)
