"""timeouts.py: a positive number of seconds for each stage, or none at all."""

import dataclasses
import math
import pickle
from typing import Any

import pytest

from smtp_async.errors import InvalidArgument
from smtp_async.model.timeouts import Timeouts

NAMES = [field.name for field in dataclasses.fields(Timeouts)]


def test_the_defaults():
    assert dataclasses.asdict(Timeouts()) == {
        "connect": 30.0,
        "tls": 60.0,
        "greeting": 300.0,
        "hello": 300.0,
        "auth": 120.0,
        "mail": 300.0,
        "probe": 5.0,
        "rcpt": 300.0,
        "data": 120.0,
        "block": 180.0,
        "end_of_data": 600.0,
        "command": 300.0,
        "quit": 5.0,
        "close": 10.0,
        "send": 120.0,
        "queue": None,
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, 0.0, -0.0, -1, -1e-9, math.nan, -math.inf])
def test_what_is_no_duration_is_refused(name, value):
    with pytest.raises(InvalidArgument, match=f"timeout {name} "):
        Timeouts(**{name: value})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, 1, 0.001, 1e9, math.inf])
def test_a_duration_or_none_is_taken(name, value):
    assert getattr(Timeouts(**{name: value}), name) == value


@pytest.mark.parametrize("value", ["5", b"5", [5], True, 1j])
def test_what_is_no_number_is_refused_in_the_same_way(value):
    with pytest.raises(InvalidArgument, match="timeout mail must be a positive number"):
        Timeouts(mail=value)


def test_timeouts_are_values():
    limits: Any = Timeouts(mail=5)
    assert limits == dataclasses.replace(Timeouts(), mail=5.0)
    assert pickle.loads(pickle.dumps(limits)) == limits
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.mail = 6


def test_one_limit_for_all_stages():
    limits = dataclasses.asdict(Timeouts.all(60))
    assert (limits.pop("send"), limits.pop("queue"), limits.pop("probe")) == (None, None, 5.0)
    assert set(limits.values()) == {60}
    assert Timeouts.all(2).probe == 2
    assert set(dataclasses.asdict(Timeouts.all(None)).values()) == {None}


def test_an_absolute_limit_is_one_for_a_whole_send():
    limits = Timeouts.all(60, absolute=True)
    assert (limits.send, limits.queue, limits.end_of_data) == (60, None, 60)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, True, "60"])
def test_what_is_no_limit_for_all(seconds):
    with pytest.raises(InvalidArgument):
        Timeouts.all(seconds)
