"""How many connections a client may have, and the statistics of its pool: values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from ..errors import InvalidArgument

__all__ = ["PoolLimits", "PoolStatistics"]

_SECONDS: Final = ("idle_time", "max_age", "min_backoff", "max_backoff")
_NEVER_NONE: Final = ("max_connections", "window", "min_backoff", "max_backoff")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How many connections a client may have, and for how long.

    Attributes:
        max_connections: the most connections open or being opened at once.
        window: the most messages sent over one connection without waiting for their replies, where the server offers
            CHUNKING and PIPELINING. With 1, the default, the next envelope is still written together with the end of a
            message. A larger window saves nearly all waiting where the round trip is long; it is also the most messages
            that a lost connection can leave unknown.
        max_messages: messages per connection, None for no limit.
        idle_time: seconds after which an idle connection is closed, None for no limit.
        max_age: seconds after which a connection takes no new message, None for no limit.
        max_waiting: the most messages waiting for a connection, None for no limit; one more raises `QueueFull`.
        min_backoff: seconds before the next connection is tried after one that failed; doubled with each failure in a
            row.
        max_backoff: the most seconds between two tries.
        adaptive: let the number of connections follow what the server accepts, between 1 and `max_connections`: fewer
            after refusals because of the load and where replies have become slow, more when it accepts them
            again. False only allows one fewer for a minute after a refused connection.
    """

    max_connections: int = 10
    window: int = 1
    max_messages: int | None = 1000
    idle_time: float | None = 60.0
    max_age: float | None = 3600.0
    max_waiting: int | None = None
    min_backoff: float = 0.1
    max_backoff: float = 10.0
    adaptive: bool = True

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if name == "adaptive" or (value is None and name not in _NEVER_NONE):
                continue
            kinds = int | float if name in _SECONDS else int
            if not isinstance(value, kinds) or isinstance(value, bool) or not value > 0:
                raise InvalidArgument(
                    f"{name} must be {'a number' if kinds is not int else 'an integer'} above 0, "
                    f"not {value!r}"
                )
        if self.max_backoff < self.min_backoff:
            raise InvalidArgument("max_backoff must not be below min_backoff")


class PoolStatistics(NamedTuple):
    """A pool's present state and what it has done.

    Attributes:
        bound: the most connections allowed now; may be below `max_connections` after the server refused one.
        open, opening, idle, busy: connections by state; `busy` and `idle` add up to `open`.
        waiting: messages without a connection.
        sent, refused, not_sent, unknown: messages by outcome since the start; `sent` counts partial ones too.
        reconnects: how often messages went back to the queue because their connection died.
        round_trips: how often a connection wrote and then waited for the server.
        message_pauses: seconds for which messages waited only because of the limits of `RateLimits` on messages.
        byte_pauses: seconds for which connections waited because of the limits on bytes, added up.
    """

    bound: int
    open: int
    opening: int
    idle: int
    busy: int
    waiting: int
    sent: int
    refused: int
    not_sent: int
    unknown: int
    reconnects: int
    round_trips: int
    message_pauses: float = 0.0
    byte_pauses: float = 0.0
