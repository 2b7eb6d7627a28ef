"""limits.py: which numbers make sense."""

from typing import Any

import pytest

from smtp_async import PoolLimits
from smtp_async.errors import InvalidArgument


@pytest.mark.parametrize("name", ["max_connections", "window", "max_messages", "max_waiting"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_a_count_is_an_integer_above_zero(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} must be an integer above 0"):
        PoolLimits(**{name: value})


@pytest.mark.parametrize("name", ["idle_time", "max_age", "min_backoff", "max_backoff"])
@pytest.mark.parametrize("value", [0, -0.5, float("nan"), False, "3"])
def test_a_time_is_a_number_above_zero(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} must be a number above 0"):
        PoolLimits(**{name: value})


def test_only_bounds_that_a_pool_can_do_without_may_be_none() -> None:
    free = PoolLimits(max_messages=None, idle_time=None, max_age=None, max_waiting=None)
    assert free.max_connections == 10
    for name in ("max_connections", "window", "min_backoff", "max_backoff"):
        with pytest.raises(InvalidArgument):
            PoolLimits(**{name: None})  # type: ignore[arg-type]


def test_the_longest_pause_is_not_shorter_than_the_first() -> None:
    assert PoolLimits(min_backoff=2.0, max_backoff=2.0).max_backoff == 2.0
    with pytest.raises(InvalidArgument, match="max_backoff must not be below min_backoff"):
        PoolLimits(min_backoff=20.0)
