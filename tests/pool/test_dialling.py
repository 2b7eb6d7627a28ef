"""dialling.py: when the next connection may be dialled, on a clock of its own."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from smtp_async.errors import AuthenticationFailed, CommandRefused, ConnectionLost, GreetingRefused, SMTPError
from smtp_async.model.reply import Reply
from smtp_async.pool.bound import Bound
from smtp_async.pool.dialling import Dialling
from tests.lab import Clock

LOST = ConnectionLost("the server closed the connection")


@dataclass
class Connection:
    opened_at: float
    carried: bool = False
    dialled_at: float = 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


def dialling(clock: Clock, again: Callable[[], None] = lambda: None) -> Dialling:
    loop: Any = clock
    return Dialling(loop, again, Bound(4, loop, lambda: None))


def test_without_a_failure_any_number_may_be_dialled(clock: Clock) -> None:
    assert dialling(clock).room(0, ()) == math.inf
    assert dialling(clock).room(5, [Connection(clock.now)]) == math.inf


def test_the_pause_doubles_up_to_ten_seconds_and_each_ends_with_one_probe(clock: Clock) -> None:
    rung: list[float] = []
    one = dialling(clock, lambda: rung.append(clock.now))
    for pause in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0):
        one.failed(Connection(math.inf, dialled_at=clock.now), LOST, ())
        failed_at = clock.now
        assert one.room(0, ()) == one.room(0, ()) == 0
        clock.advance(pause - 0.01)
        assert rung == []
        clock.advance(0.01 + 1e-9)
        assert rung == [pytest.approx(failed_at + pause)]
        assert one.room(0, ()) == 1
        # The probe is on its way.
        assert one.room(1, ()) == 0
        rung.clear()


def test_dials_that_fail_together_count_once(clock: Clock) -> None:
    loop: Any = clock
    lowered = Bound(4, loop, lambda: None)
    one = Dialling(loop, lambda: None, lowered)
    together = [Connection(math.inf, dialled_at=clock.now) for _ in range(4)]
    busy = GreetingRefused("", reply=Reply(421))
    for dialled in together:
        clock.advance(0.01)
        one.failed(dialled, busy, ())
    assert lowered.now == 3
    clock.advance(0.07 + 1e-9)
    assert one.room(0, ()) == 1
    # The probe does.
    one.failed(Connection(math.inf, dialled_at=clock.now), busy, ())
    assert lowered.now == 2
    clock.advance(0.19)
    assert one.room(0, ()) == 0
    clock.advance(0.01 + 1e-9)
    assert one.room(0, ()) == 1


def test_a_connection_that_only_opened_ends_no_series_of_failures(clock: Clock) -> None:
    one = dialling(clock)
    one.failed(Connection(math.inf, dialled_at=clock.now), LOST, ())
    clock.advance(0.11)
    assert one.room(0, [Connection(clock.now)]) == 0
    assert one.in_doubt


def test_one_that_stands_for_a_second_does(clock: Clock) -> None:
    rung: list[float] = []
    one = dialling(clock, lambda: rung.append(clock.now))
    one.failed(Connection(math.inf, dialled_at=clock.now), LOST, ())
    clock.advance(0.11)
    probe = Connection(clock.now)
    assert one.room(0, [probe]) == 0
    clock.advance(0.99)
    assert rung == []
    clock.advance(0.011)
    assert len(rung) == 1
    assert one.room(0, [probe]) == math.inf
    assert not one.in_doubt


def test_one_that_carried_a_message_does(clock: Clock) -> None:
    one = dialling(clock)
    one.failed(Connection(math.inf, dialled_at=clock.now), LOST, ())
    clock.advance(0.11)
    assert one.room(0, [Connection(clock.now, carried=True)]) == math.inf
    one.failed(Connection(math.inf, dialled_at=clock.now), LOST, ())
    one.proved()
    clock.advance(0.11)
    assert one.room(0, ()) == math.inf


@pytest.mark.parametrize(
    ("error", "beside", "bound"),
    [
        (LOST, None, 4),
        (LOST, Connection(100.0), 4),
        (LOST, Connection(98.0), 3),
        (LOST, Connection(100.0, carried=True), 3),
        (GreetingRefused("", reply=Reply(421)), None, 3),
        (GreetingRefused("", reply=Reply(454)), None, 3),
        (GreetingRefused("", reply=Reply(554)), None, 4),
        (CommandRefused("", reply=Reply(421)), None, 3),
        (AuthenticationFailed("", reply=Reply(454)), None, 4),
    ],
)
def test_what_lowers_the_bound_for_a_minute(
    clock: Clock, error: SMTPError, beside: Connection | None, bound: int
) -> None:
    loop: Any = clock
    lowered = Bound(4, loop, lambda: None)
    one = Dialling(loop, lambda: None, lowered)
    one.failed(Connection(math.inf), error, () if beside is None else [beside])
    assert lowered.now == bound
    clock.advance(61)
    assert lowered.now == 4


def test_a_refused_login_is_remembered_for_a_minute(clock: Clock) -> None:
    one = dialling(clock)
    one.demand_login()
    error = AuthenticationFailed("no", reply=Reply(535))
    one.latch(error)
    for _ in range(2):
        with pytest.raises(AuthenticationFailed) as caught:
            one.demand_login()
        assert caught.value is not error
    clock.advance(61)
    one.demand_login()
    assert not one.latched
    one.latch(error)
    one.logged_in()
    one.demand_login()


def test_a_timer_that_was_stopped_rings_no_more(clock: Clock) -> None:
    rung: list[float] = []
    one = dialling(clock, lambda: rung.append(clock.now))
    one.failed(Connection(math.inf, dialled_at=clock.now), LOST, ())
    one.room(0, ())
    one.stop()
    one.stop()
    clock.advance(1)
    assert rung == []
