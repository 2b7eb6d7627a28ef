"""Some hundred corrupted examples of each target, and how the targets that hypothesis drives are found."""

import random

import pytest

from smtp_async.errors import ProtocolViolation
from tests.fuzz.__main__ import fuzz, targets
from tests.fuzz.corrupted import TARGETS, Target, exercise, seeds


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_corrupted_input_gives_an_error_of_this_library_at_most(target: Target) -> None:
    examples = 300 if target.name != "socks" else 100
    assert exercise(target, random.Random(7), examples=examples) >= examples
    assert len(seeds(target)) >= 2


def test_any_other_error_is_found() -> None:
    def broken(data: bytes) -> None:
        if b"\0" in data:
            raise ValueError

    with pytest.raises(AssertionError, match="ValueError"):
        exercise(Target("replies", broken), random.Random(7), examples=2000)


def test_what_takes_longer_than_its_length_allows_is_found() -> None:
    def slow(data: bytes) -> None:
        sum(range(10 * len(data) ** 2))

    with pytest.raises(AssertionError, match=" ms for "):
        exercise(Target("replies", slow), random.Random(7), examples=2000)


def test_an_error_of_this_library_is_none() -> None:
    def refusing(data: bytes) -> None:
        raise ProtocolViolation("no", stage="test")

    assert exercise(Target("replies", refusing), random.Random(7), examples=100) >= 100


def test_methods_are_targets_of_hypothesis_too() -> None:
    name = "TestHead.test_anything_is_a_reply_or_a_proxy_error"
    found = dict(targets("test_http_reply.py"))
    assert fuzz(found[f"transport.proxy.test_http_reply.{name}"], 0.05) > 0


def test_functions_are_targets() -> None:
    assert "protocol.test_parser.test_any_bytes_give_replies_or_a_violation" in dict(
        targets("test_parser.py")
    )
