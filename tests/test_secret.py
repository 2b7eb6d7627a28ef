"""A text that never shows itself."""

import copy
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.secret import Secret

CANARY = "c4n4ry-p4ssw0rd"


@given(st.text())
def test_reveal_gives_it_back(text):
    assert Secret(text).reveal() == text
    assert Secret(Secret(text)).reveal() == text


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        format,
        ascii,
        "{}".format,
        "{!r:>40}".format,
        lambda secret: f"{secret:>40}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031  # as logging does
        lambda secret: repr({"password": secret}),
        lambda secret: repr([getattr(secret, name) for name in secret.__slots__]),
    ],
)
def test_nothing_shows_it(show):
    assert CANARY not in show(Secret(CANARY))


def test_format_keeps_the_width():
    assert f"{Secret(CANARY):>5}" == "  ***"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_not_pickled(protocol):
    with pytest.raises(TypeError) as caught:
        pickle.dumps(Secret(CANARY), protocol)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy])
def test_not_copied(way):
    with pytest.raises(TypeError):
        way(Secret(CANARY))


def test_traceback_with_locals():
    def fail(secret):
        holder = {"secret": secret, "list": [secret]}
        raise ValueError(holder)

    secret = Secret("".join(reversed(CANARY[::-1])))
    try:
        fail(secret)
    except ValueError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "holder" in shown
    assert CANARY not in shown


def test_equality_and_truth():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("a")
    assert not Secret("")


def test_hash():
    assert hash(Secret("a")) == hash(Secret("a"))
    assert hash(Secret("a")) != hash(Secret("b"))
    assert hash(Secret("a")) != hash("a")
