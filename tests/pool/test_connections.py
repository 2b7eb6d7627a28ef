"""connections.py: which connections there are, what they count, and which may carry a streamed body."""

from typing import Any

import pytest

from smtp_async.pool.connections import Connections


class Connection:
    def __init__(self, **state: Any) -> None:
        self.channel = self.deliveries = self
        self.streaming = state.get("streaming", False)
        self.leaving = state.get("leaving", False)
        self.connected = state.get("connected", True)
        self.round_trips = state.get("round_trips", 0)


def connection(**state: Any) -> Any:
    return Connection(**state)


def test_every_connection_counts_once_against_the_bound() -> None:
    connections = Connections()
    busy, idle = connection(), connection()
    connections.open.update(dict.fromkeys((busy, idle)))
    connections.idle[idle] = None
    for state in (connections.opening, connections.failed, connections.private):
        state[connection()] = None
    assert len(connections) == len(connections.all()) == 5


def test_a_connection_that_ended_is_in_no_state_and_its_round_trips_are_kept() -> None:
    connections = Connections()
    opening, idle, private = connection(), connection(round_trips=3), connection(round_trips=2)
    connections.opening[opening] = connections.open[idle] = connections.idle[idle] = None
    connections.private[private] = None
    assert connections.total_round_trips() == 5
    assert connections.remove(opening) == (True, False)
    assert connections.remove(idle) == (False, True)
    assert connections.remove(private) == (False, False)
    assert connections.all() == [] and not connections.idle
    assert connections.total_round_trips() == 5


def test_private_sessions_are_usable_once_they_are_connected() -> None:
    connections = Connections()
    connections.open[connection()] = None
    connections.private[connection(connected=False)] = None
    assert connections.usable == 1
    connections.private[connection()] = None
    assert connections.usable == 2


@pytest.mark.parametrize(
    ("bound", "streaming", "allowed"),
    [(1, 0, True), (1, 1, False), (2, 0, True), (2, 1, False), (3, 1, True), (3, 2, False)],
)
def test_the_last_connection_is_for_small_messages(bound: int, streaming: int, allowed: bool) -> None:
    connections = Connections()
    for n in range(bound):
        connections.open[connection(streaming=n < streaming)] = None
    assert connections.may_stream(bound) is allowed


def test_connections_that_take_no_more_messages_are_counted() -> None:
    connections = Connections()
    connections.open.update(dict.fromkeys((connection(leaving=True), connection(), connection(leaving=True))))
    assert connections.leaving == 2
