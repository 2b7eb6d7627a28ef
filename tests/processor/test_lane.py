"""A lane: its room, and how long a job that it cannot take should wait."""

from typing import Any

import pytest

from smtp_async.processor import ProcessorOptions
from smtp_async.processor.breakers import Breakers
from smtp_async.processor.control import RunControl
from smtp_async.processor.lane import Lane
from tests.lab import until
from tests.processor.fakes import STEADY, ManualClock, dead

pytestmark = pytest.mark.usefixtures("no_leaks")


class Job:
    """Stands for a lease; a lane looks into none."""


class FakeAttempts:
    """Attempts that take as long as the clock is moved, and end one by one."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        self.clock = clock
        self.seconds = seconds
        self.ran: list[Any] = []

    async def run(self, lease: Any) -> None:
        self.clock.move(self.seconds)
        self.ran.append(lease)


class Lab:
    """A lane with four workers, whose server takes half a second for each job."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        options = ProcessorOptions(clock=clock, monotonic=clock, chance=lambda: 1.0)
        self.events: list[Any] = []
        self.breakers = Breakers(STEADY, options, self.publish, lambda: None, host="mx.test")
        self.attempts = FakeAttempts(clock, 0.5)
        attempts: Any = self.attempts
        self.lane = Lane(
            "mx.test", attempts, self.breakers, concurrency=4, control=RunControl(1.0), monotonic=clock
        )

    async def publish(self, event: Any) -> None:
        self.events.append(event)

    async def run(self, jobs: int) -> None:
        """Let the workers try this number of jobs."""
        ran = len(self.attempts.ran)
        workers = self.lane.start(lambda lane: None)
        leases: Any = [Job() for _ in range(jobs)]
        assert self.lane.take(leases)
        await until(lambda: len(self.attempts.ran) == ran + jobs)
        for worker in workers:
            worker.cancel()
        await until(lambda: all(worker.done() for worker in workers))

    def fill(self, jobs: int) -> None:
        """Give it jobs that no worker takes."""
        leases: Any = [Job() for _ in range(jobs)]
        assert self.lane.take(leases)

    def turn_away(self) -> float:
        """Turn a job away, and return how long it waits."""
        seconds = self.lane.seconds_to_turn(1.0)
        self.lane.turned_away(seconds)
        return seconds


@pytest.fixture
def lab(clock: ManualClock) -> Lab:
    return Lab(clock)


def test_room_is_for_a_batch(lab: Lab) -> None:
    assert (lab.lane.room, lab.lane.takes_one(), lab.lane.paused) == (4, True, False)
    lab.fill(2)
    assert (lab.lane.room, lab.lane.takes_one()) == (2, True)
    lab.fill(1)
    assert (lab.lane.room, lab.lane.takes_one()) == (0, True)
    lab.fill(1)
    assert (lab.lane.room, lab.lane.takes_one()) == (0, False)


async def test_a_pause_has_no_room_and_then_room_for_a_probe(lab: Lab) -> None:
    await lab.breakers.server_failed(dead())
    assert (lab.lane.room, lab.lane.takes_one(), lab.lane.paused) == (0, False, True)
    assert not lab.lane.take([])
    assert lab.lane.seconds_to_turn(1.0) == 5.0
    assert lab.lane.seconds_to_turn(7.0) == 7.0
    found = lab.lane.statistics()
    assert (found.host, found.problem, found.paused_until) == ("mx.test", "cannot connect", lab.clock() + 5)
    lab.clock.move(5)
    assert lab.lane.room == 1
    lab.fill(1)
    assert (lab.lane.room, lab.lane.probing, lab.lane.paused) == (0, True, False)
    # The others wait for the probe.
    assert lab.lane.seconds_to_turn(1.0) == 1.0
    assert [event.host for event in lab.events] == ["mx.test"]


async def test_jobs_that_are_turned_away_come_back_twice_as_fast_as_the_last_ones_were_taken(
    lab: Lab,
) -> None:
    await lab.run(200)
    lab.fill(4)
    waits = [lab.turn_away() for _ in range(20)]
    steps = [later - sooner for sooner, later in zip(waits, waits[1:], strict=False)]
    assert steps == pytest.approx([0.25] * 19, rel=0.01)
    assert waits[0] == pytest.approx(5 * 0.25, rel=0.01)
    waits = [lab.turn_away() for _ in range(1000)]
    assert max(waits) == 60.0


async def test_an_estimate_changes_no_later_one(lab: Lab) -> None:
    """A job with two routes asks both, and is turned away by one of them."""
    await lab.run(200)
    lab.fill(4)
    assert len({lab.lane.seconds_to_turn(1.0) for _ in range(20)}) == 1
    lab.turn_away()
    assert len({lab.lane.seconds_to_turn(1.0) for _ in range(20)}) == 1


async def test_a_server_that_hangs_makes_jobs_wait_ever_longer(lab: Lab) -> None:
    lab.fill(4)
    assert lab.turn_away() == 0.01
    lab.clock.move(2.0)
    assert lab.turn_away() == pytest.approx(5.0)
    lab.clock.move(100.0)
    assert lab.lane.seconds_to_turn(1.0) == 60.0


async def test_idle_time_is_not_held_against_a_server(lab: Lab) -> None:
    await lab.run(100)
    lab.clock.move(3600)
    lab.fill(4)
    assert lab.lane.seconds_to_turn(1.0) < 2.0
