"""dialling.py: when the next connection may be dialled, and how many there may be, on a clock of its own."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from smtp_async.errors import AuthenticationFailed, CommandRefused, ConnectionLost, GreetingRefused, SMTPError
from smtp_async.model.reply import Reply
from smtp_async.pool.connection_bound import ConnectionBound
from smtp_async.pool.dialling import Dialling
from tests.lab import Clock

BACKOFF = (0.1, 10.0)
LOST = ConnectionLost("the server closed the connection")


@dataclass
class Connection:
    opened_at: float
    carried: bool = False
    dialled_at: float = 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


def dialling(clock: Clock, retry: Callable[[], None] = lambda: None) -> Dialling:
    loop: Any = clock
    return Dialling(loop, retry, ConnectionBound(4, loop, lambda: None), BACKOFF)


def test_without_a_failure_any_number_may_be_dialled(clock: Clock) -> None:
    assert dialling(clock).room(0, ()) == math.inf
    assert dialling(clock).room(5, [Connection(clock.now)]) == math.inf


def test_the_pause_doubles_up_to_ten_seconds_and_ends_with_one_probe_each_time(clock: Clock) -> None:
    called: list[float] = []
    one = dialling(clock, lambda: called.append(clock.now))
    for pause in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0):
        one.note_failure(Connection(math.inf, dialled_at=clock.now), LOST, ())
        failed_at = clock.now
        assert one.room(0, ()) == one.room(0, ()) == 0
        clock.advance(pause - 0.01)
        assert called == []
        clock.advance(0.01 + 1e-9)
        assert called == [pytest.approx(failed_at + pause)]
        assert one.room(0, ()) == 1
        # The probe is on its way.
        assert one.room(1, ()) == 0
        called.clear()


def test_dials_that_fail_together_count_once(clock: Clock) -> None:
    loop: Any = clock
    lowered = ConnectionBound(4, loop, lambda: None)
    one = Dialling(loop, lambda: None, lowered, BACKOFF)
    together = [Connection(math.inf, dialled_at=clock.now) for _ in range(4)]
    busy = GreetingRefused("", reply=Reply(421))
    for dialled in together:
        clock.advance(0.01)
        one.note_failure(dialled, busy, ())
    assert lowered.current == 3
    clock.advance(0.07 + 1e-9)
    assert one.room(0, ()) == 1
    # The probe does.
    one.note_failure(Connection(math.inf, dialled_at=clock.now), busy, ())
    assert lowered.current == 2
    clock.advance(0.19)
    assert one.room(0, ()) == 0
    clock.advance(0.01 + 1e-9)
    assert one.room(0, ()) == 1


def test_a_connection_that_was_only_opened_does_not_end_a_series_of_failures(clock: Clock) -> None:
    one = dialling(clock)
    one.note_failure(Connection(math.inf, dialled_at=clock.now), LOST, ())
    clock.advance(0.11)
    assert one.room(0, [Connection(clock.now)]) == 0
    assert one.in_doubt


def test_a_connection_that_is_open_for_a_second_ends_a_series_of_failures(clock: Clock) -> None:
    called: list[float] = []
    one = dialling(clock, lambda: called.append(clock.now))
    one.note_failure(Connection(math.inf, dialled_at=clock.now), LOST, ())
    clock.advance(0.11)
    probe = Connection(clock.now)
    assert one.room(0, [probe]) == 0
    clock.advance(0.99)
    assert called == []
    clock.advance(0.011)
    assert len(called) == 1
    assert one.room(0, [probe]) == math.inf
    assert not one.in_doubt


def test_a_connection_that_carried_a_message_ends_a_series_of_failures(clock: Clock) -> None:
    one = dialling(clock)
    one.note_failure(Connection(math.inf, dialled_at=clock.now), LOST, ())
    clock.advance(0.11)
    assert one.room(0, [Connection(clock.now, carried=True)]) == math.inf
    one.note_failure(Connection(math.inf, dialled_at=clock.now), LOST, ())
    one.note_proof()
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
def test_some_failures_lower_the_bound_for_a_minute(
    clock: Clock, error: SMTPError, beside: Connection | None, bound: int
) -> None:
    loop: Any = clock
    lowered = ConnectionBound(4, loop, lambda: None)
    one = Dialling(loop, lambda: None, lowered, BACKOFF)
    one.note_failure(Connection(math.inf), error, () if beside is None else [beside])
    assert lowered.current == bound
    clock.advance(61)
    assert lowered.current == 4


def test_a_refused_login_is_remembered_for_a_minute(clock: Clock) -> None:
    one = dialling(clock)
    one.demand_login()
    error = AuthenticationFailed("no", reply=Reply(535))
    one.note_refused_login(error)
    for _ in range(2):
        with pytest.raises(AuthenticationFailed) as caught:
            one.demand_login()
        assert caught.value is not error
    clock.advance(61)
    one.demand_login()
    assert not one.login_refused
    one.note_refused_login(error)
    one.note_login()
    one.demand_login()


def test_after_stop_retry_is_not_called(clock: Clock) -> None:
    called: list[float] = []
    one = dialling(clock, lambda: called.append(clock.now))
    one.note_failure(Connection(math.inf, dialled_at=clock.now), LOST, ())
    one.room(0, ())
    one.stop()
    one.stop()
    clock.advance(1)
    assert called == []


# --- the bound -----------------------------------------------------------------------------------------------


def watched(clock: Clock, most: int) -> tuple[ConnectionBound, list[int]]:
    loop: Any = clock
    risen: list[int] = []
    bound = ConnectionBound(most, loop, lambda: risen.append(bound.current))
    return bound, risen


def test_a_lowered_bound_rises_again_and_says_so(clock: Clock) -> None:
    bound, risen = watched(clock, 4)
    bound.lower(60)
    clock.advance(10)
    bound.lower(60)
    assert bound.current == 2 and risen == []
    clock.advance(50)
    assert (bound.current, risen) == (3, [3])
    clock.advance(10)
    assert (bound.current, risen) == (4, [3, 4])
    assert clock.timers == []


def test_the_bound_is_at_least_one(clock: Clock) -> None:
    bound, _ = watched(clock, 2)
    for _ in range(5):
        bound.lower(60)
    assert bound.current == 1
    clock.advance(60)
    assert bound.current == 2


def test_a_stopped_bound_has_no_timer(clock: Clock) -> None:
    bound, risen = watched(clock, 2)
    bound.lower(60)
    bound.stop()
    clock.advance(100)
    assert risen == [] and clock.timers == []


def test_the_pause_is_what_the_caller_chose(clock: Clock) -> None:
    loop: Any = clock
    one = Dialling(loop, lambda: None, ConnectionBound(4, loop, lambda: None), (1.0, 1.5))
    for pause in (1.0, 1.5, 1.5):
        one.note_failure(Connection(clock.now, dialled_at=clock.now), LOST, ())
        clock.advance(pause - 0.01)
        assert one.room(0, ()) == 0
        clock.advance(0.02)
        assert one.room(0, ()) == 1
