"""Times on the command line: `90s`, `2h`, `3d` from now, or an ISO 8601 date."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Final

from ..errors import InvalidArgument
from ..model.reply import printable

__all__ = ["format_time", "parse_time"]

_SPAN: Final = re.compile(r"\+?(\d{1,9}(?:\.\d{1,9})?)\s?([smhdw])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_time(text: str, now: float | None = None) -> float:
    """Return a time in seconds of the epoch.

    Args:
        text: a number with one of s, m, h, d, w: a span from now. Or a date, optionally with a time and a time zone;
            without a time zone it is local time.
        now: the current time, in seconds of the epoch; None asks the clock.

    Raises:
        InvalidArgument: the text is neither.
    """
    text = text.strip()
    if span := _SPAN.fullmatch(text):
        return (time.time() if now is None else now) + float(span[1]) * _SECONDS[span[2]]
    try:
        return max(datetime.fromisoformat(text).timestamp(), 0.0)
    except (ValueError, OverflowError, OSError):
        raise InvalidArgument(
            f"“{printable(text, 40)}” is not a time: write 90s, 15m, 2h, 3d or 1w from now, or 2030-01-31T08:00"
        ) from None


def format_time(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC, to the second: `2030-01-31T07:00:00Z`."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        # A year beyond 9999.
        return "9999-12-31T23:59:59Z"
