"""When to try again. Pure functions: clock and randomness are arguments.

After its n-th failed attempt a message waits a random time between 0 and `first` × `factor`^(n-1), at most `most`
("full jitter", so that a thousand messages that failed together are not retried together), until it expires. The last
attempt is at the time of expiry, so a message never fails between two attempts.

For a server that fails as a whole, and a spool that cannot be written, there are other pauses (`breakers`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ..errors import InvalidArgument
from ..spool.entry import Entry

__all__ = ["RetryPolicy", "expiry", "next_attempt", "pause_length", "retry_delay"]

_DAY: Final = 86400.0
#: Shortest duration in seconds, except 0.
_SHORTEST: Final = 1e-6
#: Longest duration in seconds, three hundred years; a longer one is a mistake.
_LONGEST: Final = 1e10


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and for how long a message is tried.

    Attributes:
        attempts: attempts before a message fails, None without limit. With 1, every error is final.
        first: the longest wait after the first failed attempt, in seconds.
        factor: multiplies the wait after each further attempt.
        most: the longest wait in seconds.
        jitter: draw each wait at random between 0 and its length; without it, waits are of full length.
        expires: seconds after which a message without its own expiry fails; None: never. RFC 5321 section 4.5.4.1
            recommends four to five days.
        pause: seconds without any attempt after the server could not be reached or refused the login, doubled with each
            failed probe.
        longest_pause: the longest of these pauses in seconds.

    Raises:
        InvalidArgument: a number is out of its range.
    """

    attempts: int | None = None
    first: float = 60.0
    factor: float = 2.0
    most: float = 3600.0
    jitter: bool = True
    expires: float | None = 5 * _DAY
    pause: float = 5.0
    longest_pause: float = 300.0

    def __post_init__(self) -> None:
        if self.attempts is not None and (
            not isinstance(self.attempts, int) or isinstance(self.attempts, bool) or self.attempts < 1
        ):
            raise InvalidArgument(f"attempts must be an integer above 0 or None, not {self.attempts!r}")
        for name in ("first", "most", "pause", "longest_pause"):
            value = getattr(self, name)
            _check_number(name, value, least=0.0 if value == 0 else _SHORTEST)
        _check_number("factor", self.factor, least=1.0)
        if self.expires is not None:
            _check_number("expires", self.expires, least=0.0)


def _check_number(name: str, value: float, *, least: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= _LONGEST:
        raise InvalidArgument(f"{name} must be a number from {least:g} to {_LONGEST:g}, not {value!r}")


def expiry(entry: Entry, policy: RetryPolicy) -> float | None:
    """Return when a job expires, in seconds of the epoch; None if it never does."""
    if entry.expires is not None:
        return entry.expires
    return None if policy.expires is None else entry.created + policy.expires


def next_attempt(
    policy: RetryPolicy, attempts: int, *, now: float, expires: float | None, chance: float
) -> float | None:
    """Return when to try a message again, in seconds of the epoch; None for never.

    Args:
        policy: the numbers.
        attempts: how often the message was tried, the last attempt included.
        now: the wall clock, in seconds of the epoch.
        expires: when the message expires, likewise; None never.
        chance: a random number from 0 to 1.
    """
    if policy.attempts is not None and attempts >= policy.attempts:
        return None
    if expires is not None and now >= expires:
        return None
    due = now + retry_delay(policy, attempts, chance)
    return due if expires is None else min(due, expires)


def retry_delay(policy: RetryPolicy, attempts: int, chance: float = 1.0) -> float:
    """Return how many seconds to wait after `attempts` failed attempts, from 1.

    Args:
        policy: the numbers.
        attempts: how often the message was tried.
        chance: a random number from 0 to 1; ignored without jitter.
    """
    length = _grown(policy.first, policy.factor, attempts, policy.most)
    return length * chance if policy.jitter else length


def pause_length(policy: RetryPolicy, failures: int, chance: float = 1.0) -> float:
    """Return the length of a pause in seconds after `failures` failures in a row, from 1.

    At least half of the full length, because an immediate probe would only repeat the failure.
    """
    length = _grown(policy.pause, 2.0, failures, policy.longest_pause)
    return length * (0.5 + chance / 2) if policy.jitter else length


def _grown(first: float, factor: float, times: int, most: float) -> float:
    """Return `first` × `factor`^(`times` - 1), at most `most`, without an overflow."""
    if first >= most or factor == 1.0 or first == 0.0:
        return min(first, most)
    steps = min(times - 1, math.ceil(math.log(most / first, factor)))
    return float(min(most, first * factor**steps))
