"""bound.py: the server lowers it, time raises it again, and those who wait are told."""

from typing import Any

import pytest

from smtp_async.pool.bound import Bound
from tests.lab import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def watched(clock: Clock, most: int) -> tuple[Bound, list[int]]:
    loop: Any = clock
    risen: list[int] = []
    bound = Bound(most, loop, lambda: risen.append(bound.now))
    return bound, risen


def test_it_rises_again_and_says_so(clock: Clock) -> None:
    bound, risen = watched(clock, 4)
    bound.lower(60)
    clock.advance(10)
    bound.lower(60)
    assert bound.now == 2 and risen == []
    clock.advance(50)
    assert (bound.now, risen) == (3, [3])
    clock.advance(10)
    assert (bound.now, risen) == (4, [3, 4])
    assert clock.timers == []


def test_it_is_one_at_least(clock: Clock) -> None:
    bound, _ = watched(clock, 2)
    for _ in range(5):
        bound.lower(60)
    assert bound.now == 1
    clock.advance(60)
    assert bound.now == 2


def test_when_it_is_stopped_nothing_ticks(clock: Clock) -> None:
    bound, risen = watched(clock, 2)
    bound.lower(60)
    bound.stop()
    clock.advance(100)
    assert risen == [] and clock.timers == []
