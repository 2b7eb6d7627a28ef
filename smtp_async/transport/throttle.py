"""How fast a client may go: bytes per second, and messages per second, minute, hour and day.

Arithmetic only: the time is an argument, and the caller waits.

Strategy for bytes: a token bucket that is filled at the limit's rate, and whose balance may become negative. What is
written or read is never cut or refused; the next write or read waits until the balance is zero again. Timers fire late
rather than early, so the balance may rise to the bytes of a twentieth of a second, which makes up for the delay.

Strategy for messages: a message counts against a window from the moment in which it is given to a connection until the
window's length after its conclusion. Somewhere in between the server counts it, at MAIL or at the end of data, so that
the server never sees more in any window than the limit, whatever the delays on the way. The cost is that a place is
taken for the length of the window and the time of one message.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..errors import InvalidArgument

__all__ = ["ByteRate", "ClientThrottle", "MessageRate", "RateLimits", "Throttle"]

#: The highest balance of a bucket, in seconds of its rate, which makes up for timers that fire late.
_AHEAD: Final = 0.05
#: Parts of a second in which a throttled body or read is cut, and the fewest bytes of such a part.
_PARTS: Final = 20
_FEWEST: Final = 1024
#: Conclusions within this part of a window share one entry, which bounds the memory of a long window.
_GRAIN: Final = 1 / 1000
#: Seconds for which a place is kept beyond the window, because clocks are read at different moments.
_MARGIN: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """How fast a client may go; None is no limit.

    Messages wait in the client's queue, before they are given to a connection. The limits of messages hold for all
    connections of the client together, and in every window of their length as the server sees it.

    Attributes:
        messages_per_second, messages_per_minute, messages_per_hour, messages_per_day: the most messages in any second,
            minute, hour or day. A message that goes out in several transactions counts once for each.
        send_rate: bytes per second that one connection writes.
        receive_rate: bytes per second that one connection reads. What comes faster waits in the system's buffers, and
            TCP slows the server down.
        total_send_rate, total_receive_rate: the same for all connections of the client together.
    """

    messages_per_second: int | None = None
    messages_per_minute: int | None = None
    messages_per_hour: int | None = None
    messages_per_day: int | None = None
    send_rate: float | None = None
    receive_rate: float | None = None
    total_send_rate: float | None = None
    total_receive_rate: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is None:
                continue
            whole = name.startswith("messages")
            kinds = int if whole else int | float
            if not isinstance(value, kinds) or isinstance(value, bool) or not 0 < value < math.inf:
                kind = "an integer" if whole else "a number of bytes per second"
                raise InvalidArgument(f"{name} must be {kind} above 0, not {value!r}")

    @property
    def windows(self) -> tuple[tuple[int, float], ...]:
        """The limits of messages, as pairs of count and seconds."""
        pairs = (
            (self.messages_per_second, 1.0),
            (self.messages_per_minute, 60.0),
            (self.messages_per_hour, 3600.0),
            (self.messages_per_day, 86400.0),
        )
        return tuple((count, seconds) for count, seconds in pairs if count is not None)


# --- messages ------------------------------------------------------------------------------------------------


class _Window:
    """The messages that were concluded within one window."""

    __slots__ = ("_entries", "_grain", "_kept", "count", "most")

    def __init__(self, most: int, seconds: float) -> None:
        self.most = most
        self.count = 0
        self._kept = seconds + _MARGIN
        self._grain = seconds * _GRAIN
        # Each entry: the times of its first and its last conclusion, and how many there are.
        self._entries: deque[list[float]] = deque()

    def add(self, now: float) -> None:
        self.count += 1
        if self._entries:
            entry = self._entries[-1]
            if now - entry[0] < self._grain:
                entry[1], entry[2] = max(now, entry[1]), entry[2] + 1
                return
        self._entries.append([now, now, 1])

    def forget(self, now: float) -> None:
        entries = self._entries
        while entries and entries[0][1] + self._kept <= now:
            self.count -= int(entries.popleft()[2])

    def next_change(self, now: float) -> float:
        return self._entries[0][1] + self._kept if self._entries else now + self._kept


class MessageRate:
    """Counts messages against all limits of a client.

    Args:
        windows: pairs of the most messages and the seconds of the window.
    """

    __slots__ = ("_under_way", "_windows")

    def __init__(self, windows: Iterable[tuple[int, float]]) -> None:
        self._windows = [_Window(count, seconds) for count, seconds in windows]
        self._under_way = 0

    def begin(self) -> None:
        """Count a message that is given to a connection."""
        self._under_way += 1

    def conclude(self, now: float) -> None:
        """Note that a message was answered, or that its connection has ended."""
        self._under_way -= 1
        for window in self._windows:
            window.add(now)

    def withdraw(self) -> None:
        """Take back a message of which nothing was written."""
        self._under_way -= 1

    def free(self, now: float) -> int:
        """Return how many messages may begin now."""
        for window in self._windows:
            window.forget(now)
        return min(max(0, window.most - window.count - self._under_way) for window in self._windows)

    def next_change(self, now: float) -> float:
        """Return the time before which none may begin; ask only if none is `free` now.

        It is the earliest time known: while messages are under way, it is not known yet when their places are free.
        """
        full = (window for window in self._windows if window.most <= window.count + self._under_way)
        return max((window.next_change(now) for window in full), default=now)


# --- bytes ---------------------------------------------------------------------------------------------------


class ByteRate:
    """A token bucket for bytes, whose balance may become negative.

    Args:
        rate: bytes per second.
    """

    __slots__ = ("_paid_at", "rate")

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._paid_at = -math.inf

    def take(self, count: int, now: float) -> None:
        """Note that `count` bytes were written or read."""
        self._paid_at = max(self._paid_at, now - _AHEAD) + count / self.rate

    def delay(self, now: float) -> float:
        """Return the seconds until the debt is paid, 0 if there is none."""
        return max(0.0, self._paid_at - now)


class Throttle:
    """The limits of bytes of one connection, its share in those of the client included.

    Args:
        client: what all connections share.
        sending, receiving: the buckets.

    Attributes:
        part: the most bytes of a body to write at a time, so that a slow connection goes evenly.
    """

    __slots__ = ("_client", "_receiving", "_sending", "part")

    def __init__(
        self, client: ClientThrottle, sending: tuple[ByteRate, ...], receiving: tuple[ByteRate, ...]
    ) -> None:
        self._client = client
        self._sending = sending
        self._receiving = receiving
        self.part = _part(sending)

    @property
    def read_part(self) -> int | None:
        """The most bytes to read at a time, None where reading is not limited."""
        return _part(self._receiving) if self._receiving else None

    def sent(self, count: int, now: float) -> None:
        """Note that `count` bytes were written."""
        for bucket in self._sending:
            bucket.take(count, now)

    def send_delay(self, now: float) -> float:
        """Return the seconds for which nothing may be written."""
        return max((bucket.delay(now) for bucket in self._sending), default=0.0)

    def received(self, count: int, now: float) -> float:
        """Note that `count` bytes were read, and return the seconds for which no more may be read."""
        for bucket in self._receiving:
            bucket.take(count, now)
        delay = max((bucket.delay(now) for bucket in self._receiving), default=0.0)
        self.waited(delay)
        return delay

    def waited(self, seconds: float) -> None:
        """Add to the time that connections have waited."""
        self._client.waited += seconds


def _part(buckets: tuple[ByteRate, ...]) -> int:
    rate = min((bucket.rate for bucket in buckets), default=math.inf)
    return 64 * 1024 if rate == math.inf else min(64 * 1024, max(_FEWEST, int(rate / _PARTS)))


class ClientThrottle:
    """The limits of bytes of one client.

    Args:
        limits: all of its limits.

    Attributes:
        waited: seconds for which connections waited because of them, added up.
    """

    __slots__ = ("_limits", "_receiving", "_sending", "waited")

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._sending = _buckets(limits.total_send_rate)
        self._receiving = _buckets(limits.total_receive_rate)
        self.waited = 0.0

    @classmethod
    def of(cls, limits: RateLimits) -> ClientThrottle | None:
        """Return the limits of a client, None if no bytes are limited."""
        rates = (
            limits.send_rate,
            limits.receive_rate,
            limits.total_send_rate,
            limits.total_receive_rate,
        )
        return cls(limits) if any(rate is not None for rate in rates) else None

    def for_connection(self) -> Throttle:
        """Return the limits of one more connection."""
        limits = self._limits
        return Throttle(
            self,
            self._sending + _buckets(limits.send_rate),
            self._receiving + _buckets(limits.receive_rate),
        )


def _buckets(rate: float | None) -> tuple[ByteRate, ...]:
    return () if rate is None else (ByteRate(rate),)
