"""stall_watch.py: one more connection is allowed while one is silent and something waits."""

from typing import Any

from smtp_async.pool.stall_watch import StallWatch
from tests.lab import Clock


class Connection:
    """An open connection; `unanswered_since` is None while its server owes no reply."""

    def __init__(self, unanswered_since: float | None = None) -> None:
        self.channel = self
        self.unanswered_since = unanswered_since


class Lab:
    def __init__(self) -> None:
        self.clock = Clock()
        self.open: list[Any] = []
        self.waiting: list[int] = []
        self.grown: list[float] = []
        loop: Any = self.clock
        queues: tuple[list[int], ...] = ([], self.waiting)
        self.watch = StallWatch(loop, self.open, queues, lambda: self.grown.append(self.clock.now))

    def silent(self) -> Connection:
        self.open.append(Connection(self.clock.now))
        return self.open[-1]


def test_one_more_is_allowed_after_thirty_silent_seconds() -> None:
    lab = Lab()
    lab.waiting.append(1)
    lab.silent()
    lab.watch.start()
    lab.clock.advance(29.9)
    assert lab.watch.spare == 0 and lab.grown == []
    lab.clock.advance(0.1)
    assert lab.watch.spare == 1 and len(lab.grown) == 1


def test_several_silent_connections_allow_one_more_together() -> None:
    lab = Lab()
    lab.waiting.append(1)
    for _ in range(3):
        lab.silent()
    lab.watch.start()
    lab.clock.advance(60)
    assert lab.watch.spare == 1


def test_a_connection_that_has_been_silent_before_counts_at_once() -> None:
    lab = Lab()
    lab.silent()
    lab.clock.advance(30)
    lab.waiting.append(1)
    lab.watch.start()
    assert lab.watch.spare == 1


def test_a_connection_that_answers_in_time_allows_no_other() -> None:
    lab = Lab()
    lab.waiting.append(1)
    lab.open.append(Connection())
    one = lab.silent()
    lab.watch.start()
    for _ in range(10):
        lab.clock.advance(20)
        one.unanswered_since = lab.clock.now
    assert lab.watch.spare == 0 and lab.grown == []


def test_without_anything_that_waits_there_is_no_timer() -> None:
    lab = Lab()
    lab.silent()
    lab.watch.start()
    assert lab.clock.made == 0
    lab.waiting.append(1)
    lab.watch.start()
    lab.waiting.clear()
    lab.clock.advance(100)
    assert lab.watch.spare == 0 and lab.clock.timers == []


def test_the_spare_place_goes_with_the_silent_connection() -> None:
    lab = Lab()
    lab.waiting.append(1)
    one = lab.silent()
    lab.watch.start()
    lab.clock.advance(30)
    lab.open.remove(one)
    lab.watch.connection_ended()
    assert lab.watch.spare == 0
    other = lab.silent()
    lab.clock.advance(30)
    assert lab.watch.spare == 1
    lab.watch.connection_ended()
    assert lab.watch.spare == 1, "the silent one is still there"
    lab.open.remove(other)
    lab.watch.connection_ended()
    assert lab.watch.spare == 0


def test_after_stop_nothing_is_allowed_and_no_timer_is_left() -> None:
    lab = Lab()
    lab.waiting.append(1)
    lab.silent()
    lab.watch.start()
    lab.clock.advance(30)
    lab.watch.stop()
    assert lab.watch.spare == 0 and lab.clock.timers == []
