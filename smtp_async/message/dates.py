"""The value of a Date field, RFC 5322 section 3.3."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

from ..errors import InvalidArgument, InvalidHeader
from ..model.reply import printable

__all__ = ["clock_date", "date_text"]

_DATE: Final = re.compile(
    r"(?:[A-Za-z]{3},? )?\d{1,2} [A-Za-z]{3} \d{4} \d\d:\d\d(?::\d\d)? (?:[+-]\d{4}|[A-Z]{1,4})(?: \([A-Za-z]{1,8}\))?",
    re.ASCII,
)
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def clock_date(seconds: float) -> str:
    """Return a time, in seconds of the epoch, as a Date in the local zone, RFC 5322 section 3.3."""
    return _clock_date(int(seconds // 1), time.tzname)


@lru_cache(maxsize=4)
def _clock_date(seconds: int, zone: tuple[str, str]) -> str:
    """Return a Date, cached because a busy program writes thousands of messages within a second."""
    t = time.localtime(seconds)
    return _date(t.tm_wday, t.tm_mday, t.tm_mon, t.tm_year, t.tm_hour, t.tm_min, t.tm_sec, t.tm_gmtoff // 60)


def date_text(when: datetime | str) -> str:
    """Return a time as a Date, RFC 5322 section 3.3; without a zone it is UTC, and written as `-0000` (zone unknown).

    A text is returned unchanged.

    Raises:
        InvalidArgument: a year before 1900.
        InvalidHeader: the text is not a date.
    """
    if not isinstance(when, datetime | str):
        raise InvalidArgument(f"a date is a datetime or a text, not {type(when).__name__}")
    if isinstance(when, str):
        if _DATE.fullmatch(when) is None:
            raise InvalidHeader(f"“{printable(when, 80)}” is not a date of the form in RFC 5322 section 3.3")
        return when
    offset = when.utcoffset()
    minutes = None
    if offset is not None:
        minutes = offset // timedelta(minutes=1)
        if offset % timedelta(minutes=1):  # offsets before 1972 have seconds, which a Date cannot express
            when = when.astimezone(timezone(timedelta(minutes=minutes)))
    if when.year < 1900:
        raise InvalidArgument(f"the year of a Date is at least 1900, not {when.year} (RFC 5322 section 3.3)")
    return _date(
        when.weekday(), when.day, when.month, when.year, when.hour, when.minute, when.second, minutes
    )


def _date(
    weekday: int, day: int, month: int, year: int, hour: int, minute: int, second: int, zone: int | None
) -> str:
    sign = "-" if zone is None or zone < 0 else "+"
    hours, minutes = divmod(abs(zone or 0), 60)
    return (
        f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} "
        f"{hour:02}:{minute:02}:{min(second, 59):02} {sign}{hours:02}{minutes:02}"
    )
