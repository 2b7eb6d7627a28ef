"""When to try again: pure numbers. Clock and chance are arguments.

A message waits after its n-th failed try a random time between nothing and `first` × `factor`^(n-1), at most `most`
("full jitter": a thousand messages that failed together must not come back together), until it expires; its last try
is at the moment of its expiry, so a message is never given up between two tries.

A host that fails as a whole has a pause of its own, kept by `Breaker`: nothing is tried before its end, then one
message alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..errors import InvalidArgument

__all__ = ["Breaker", "RetryPolicy", "next_try", "pause", "wait"]

_DAY: Final = 86400.0
#: Seconds below which a wait is none, and may be written so: 0.
_SHORTEST: Final = 1e-6
#: Seconds beyond which a duration is a mistake: three hundred years.
_LONGEST: Final = 1e10


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long a message is tried.

    Attributes:
        attempts: tries before a message fails, None without limit. With 1, every error is final.
        first: seconds that the wait after the first failed try has at most.
        factor: what each further try multiplies them by.
        most: the longest wait in seconds.
        jitter: draw each wait at random between 0 and its length; without it, waits are of full length.
        expires: seconds after which a message that has no expiry of its own fails, None never. RFC 5321 section
            4.5.4.1 asks for four to five days.
        pause: seconds without any try after the server could not be reached or refused the login, doubled with each
            failed probe.
        longest_pause: the longest of these pauses in seconds.
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
            _demand(name, value, least=0.0 if value == 0 else _SHORTEST)
        _demand("factor", self.factor, least=1.0)
        if self.expires is not None:
            _demand("expires", self.expires, least=0.0)


def _demand(name: str, value: float, *, least: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= _LONGEST:
        raise InvalidArgument(f"{name} must be a number from {least:g} to {_LONGEST:g}, not {value!r}")


def wait(policy: RetryPolicy, tries: int, chance: float = 1.0) -> float:
    """Return how long to wait after the `tries`-th failed try, from 1.

    Args:
        policy: the numbers.
        tries: how often it was tried.
        chance: a random number from 0 to 1; ignored without jitter.
    """
    length = _grown(policy.first, policy.factor, tries, policy.most)
    return length * chance if policy.jitter else length


def next_try(
    policy: RetryPolicy, tries: int, *, now: float, expires: float | None, chance: float = 1.0
) -> float | None:
    """Return when to try a message again, None for never.

    Args:
        policy: the numbers.
        tries: how often it was tried, this time included.
        now: the wall clock, in seconds of the epoch.
        expires: when the message expires, likewise; None never.
        chance: a random number from 0 to 1.
    """
    if policy.attempts is not None and tries >= policy.attempts:
        return None
    if expires is not None and now >= expires:
        return None
    due = now + wait(policy, tries, chance)
    return due if expires is None else min(due, expires)


def pause(policy: RetryPolicy, failures: int, chance: float = 1.0) -> float:
    """Return how long to leave the server alone after so many failures in a row, from 1.

    Half of it is certain: a probe at once would only prove what is known.
    """
    length = _grown(policy.pause, 2.0, failures, policy.longest_pause)
    return length * (0.5 + chance / 2) if policy.jitter else length


def _grown(first: float, factor: float, times: int, most: float) -> float:
    """`first` × `factor`^(`times` - 1), at most `most`, however large `times` is."""
    if first >= most or factor == 1.0 or first == 0.0:
        return min(first, most)
    steps = min(times - 1, math.ceil(math.log(most / first, factor)))
    return float(min(most, first * factor**steps))


class Breaker:
    """The pause of a host that fails as a whole: closed, open, half open.

    Args:
        policy: the numbers.
        chance: draws a random number from 0 to 1.

    Attributes:
        failures: how often it failed in a row; 0 means that mail flows.
        until: when the pause ends, on the clock that is given to the methods.
    """

    __slots__ = ("_chance", "_policy", "_probing", "failures", "until")

    def __init__(self, policy: RetryPolicy, chance: Callable[[], float]) -> None:
        self._policy = policy
        self._chance = chance
        self._probing = False
        self.failures = 0
        self.until = -math.inf

    @property
    def closed(self) -> bool:
        """Mail flows."""
        return not self.failures

    def admits(self, now: float) -> float:
        """Return how many messages may be begun now: any number, the probe alone, or none."""
        if not self.failures:
            return math.inf
        return 0 if self._probing or now < self.until else 1

    def begun(self) -> None:
        """A message is being tried; while the host is in doubt, it is the probe."""
        self._probing = bool(self.failures)

    def failed(self, now: float) -> bool:
        """The host failed: return whether the pause that follows is a new one."""
        if self.failures and not self._probing:
            # Others that were under way when the first one failed: they tell nothing new.
            return False
        self._probing = False
        self.failures += 1
        self.until = now + pause(self._policy, self.failures, self._chance())
        return True

    def undecided(self) -> None:
        """The probe ended without telling anything: the next message is one."""
        self._probing = False

    def succeeded(self) -> None:
        """The host took part in a transaction: mail flows again."""
        self._probing = False
        self.failures = 0
