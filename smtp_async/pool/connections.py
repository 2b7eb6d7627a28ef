"""The connections of one pool, by state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..connection.connection import Connection
from ..errors import SMTPError
from ..model.receipt import Outcome
from .limits import PoolStatistics

__all__ = ["Connections", "Observer"]


class Observer(Protocol):
    """Notified of the connections that a pool opens."""

    def connected(self, connection: Connection, error: SMTPError | None) -> None:
        """Note that a connection was opened, or could not be: `error` says why."""


class Connections:
    """The connections of one pool. Each is in one state; the idle ones are among the open ones.

    Dictionaries stand for ordered sets.

    Attributes:
        opening: being dialled and opened.
        failed: could not be opened, and are saying QUIT.
        open: can carry messages.
        idle: open, and have nothing to do. The last one used is taken first, so that the others may grow old and be
            closed.
        private: lent to a caller of `SMTPClient.session`.
        dropped: lent, and aborted by the caller, so that their sockets are closed before another one is made.
        round_trips: how often connections that have ended wrote something and then waited for the server.
    """

    __slots__ = ("dropped", "failed", "idle", "open", "opening", "private", "round_trips")

    def __init__(self) -> None:
        self.opening: dict[Connection, None] = {}
        self.failed: dict[Connection, None] = {}
        self.open: dict[Connection, None] = {}
        self.idle: dict[Connection, None] = {}
        self.private: dict[Connection, None] = {}
        self.dropped: dict[Connection, None] = {}
        self.round_trips = 0

    def __len__(self) -> int:
        """How many count against the bound."""
        return len(self.open) + len(self.opening) + len(self.failed) + len(self.private)

    def all(self) -> list[Connection]:
        """Return all connections."""
        return [*self.opening, *self.failed, *self.open, *self.private, *self.dropped]

    def remove(self, connection: Connection) -> tuple[bool, bool]:
        """Forget a connection that has ended; return whether it was being opened, and whether it was open."""
        self.round_trips += connection.channel.round_trips
        was_opening, was_open = connection in self.opening, connection in self.open
        if was_opening:
            del self.opening[connection]
        elif was_open:
            del self.open[connection]
            self.idle.pop(connection, None)
        else:
            self.failed.pop(connection, None)
            self.private.pop(connection, None)
            self.dropped.pop(connection, None)
        return was_opening, was_open

    def release(self, connection: Connection) -> bool:
        """Free the place of a lent connection whose task has ended, or that was aborted; return whether it is free."""
        if connection.task is None or connection.task.done():
            self.private.pop(connection, None)
            return True
        if not connection.dropped or connection not in self.private:
            return False
        del self.private[connection]
        self.dropped[connection] = None
        return True

    def may_stream(self, bound: int) -> bool:
        """Tell whether one more connection may carry a streamed body: the last one is for the small messages."""
        left = max(1, bound - 1)
        for connection in self.open:
            if connection.deliveries.streaming:
                left -= 1
                if not left:
                    return False
        return True

    @property
    def usable(self) -> int:
        """How many can carry messages, private ones included."""
        return len(self.open) + sum(connection.connected for connection in self.private)

    @property
    def leaving(self) -> int:
        """How many open connections take no more messages."""
        return sum(connection.leaving for connection in self.open)

    def total_round_trips(self) -> int:
        """Return the round trips of all connections, ended or not."""
        return self.round_trips + sum(
            one.channel.round_trips for one in (*self.open, *self.private, *self.dropped)
        )

    def statistics(
        self, counts: Mapping[Outcome, int], *, bound: int, waiting: int, reconnects: int
    ) -> PoolStatistics:
        """Return the state of the pool, given how many messages had each outcome and what the pool knows itself."""
        idle, usable = len(self.idle), self.usable
        return PoolStatistics(
            bound=bound,
            open=usable,
            opening=len(self.opening) + len(self.failed),
            idle=idle,
            busy=usable - idle,
            waiting=waiting,
            sent=counts[Outcome.ACCEPTED] + counts[Outcome.PARTIAL],
            refused=counts[Outcome.REFUSED],
            not_sent=counts[Outcome.NOT_SENT],
            unknown=counts[Outcome.UNKNOWN],
            reconnects=reconnects,
            round_trips=self.total_round_trips(),
        )
