"""window.py: how many messages may be on their way."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_async.protocol.window import MAX_OCTETS, MAX_REPLIES, Window


def admits(window, octets=100, *, chunked=True, replies=3):
    return window.admits(octets, chunked=chunked, replies=replies)


def sizes(most, answers):
    window = Window(most)
    for accepted in answers:
        window.began(100)
        window.ended(100, accepted=accepted)
        yield window.size


@pytest.mark.parametrize(
    ("most", "answers", "expected"),
    [
        (64, [True] * 8, [2, 4, 8, 16, 32, 64, 64, 64]),
        (1, [True] * 3, [1, 1, 1]),
        (3, [True] * 3, [2, 3, 3]),
        (64, [True, True, False, True], [2, 4, 1, 2]),
        (64, [False, False], [1, 1]),
    ],
)
def test_it_doubles_with_success_and_falls_to_one_after_a_refusal(most, answers, expected):
    assert list(sizes(most, answers)) == expected


def test_a_refusal_makes_cautious_until_a_message_is_accepted():
    window = Window(8)
    assert not window.cautious
    for accepted in (False, False, True, True):
        window.began(1)
        window.ended(1, accepted=accepted)
        assert window.cautious is not accepted


def test_one_message_is_always_admitted():
    assert admits(Window(1), 10 * MAX_OCTETS, replies=10 * MAX_REPLIES)
    assert admits(Window(1), None)


def test_the_window_counts_messages():
    window = Window(8)
    window.began(1)
    assert not admits(window)
    window.ended(1, accepted=True)
    for expected in (True, True, False):
        assert admits(window) is expected
        window.began(1)
    window.ended(1, accepted=True)
    assert window.messages == 2
    assert admits(window)


def test_without_chunking_the_next_may_always_be_written_behind_the_dot():
    window = Window(1)
    window.began(1)
    assert admits(window, chunked=False)
    window.began(1)
    assert not admits(window, chunked=False)


def test_the_window_counts_octets_and_replies():
    window = Window(64)
    window.size = 64
    window.began(MAX_OCTETS - 100)
    assert admits(window, 100)
    assert not admits(window, 101)
    assert admits(window, 1, replies=MAX_REPLIES)
    assert not admits(window, 1, replies=MAX_REPLIES + 1)


def test_a_streamed_message_needs_an_empty_window():
    window = Window(64)
    window.size = 64
    window.began(1)
    assert not admits(window, None)
    window.ended(1, accepted=True)
    assert admits(window, None)
    window.began(None)
    window.ended(None, accepted=True)
    assert window.messages == 0


@settings(deadline=None)
@given(st.integers(1, 64), st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), max_size=60))
def test_its_bounds_hold_whatever_comes(most, messages):
    window = Window(most)
    under_way: list[int] = []
    for octets, accepted in messages:
        while not admits(window, octets, replies=4 * len(under_way)):
            window.ended(under_way.pop(0), accepted=accepted)
        window.began(octets)
        under_way.append(octets)
        assert 1 <= window.size <= most
        assert window.messages == len(under_way)
        assert len(under_way) == 1 or sum(under_way) <= MAX_OCTETS
