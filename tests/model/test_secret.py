"""A text that never shows itself, and a mask for what a server repeats of it."""

import base64
import copy
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.model.secret import Mask, Secret

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


class TestMask:
    @staticmethod
    def mask(password: bytes = b"Tr0ub4dor&3") -> tuple[Mask, bytes]:
        mask, sent = Mask(), base64.b64encode(b"\0ann\0" + password)
        mask.add_sent(sent)
        mask.add_secrets([password])
        return mask, sent

    def test_an_empty_one_changes_nothing(self):
        assert Mask()(b"2.0.0 Ok: queued as 4F2K1") == b"2.0.0 Ok: queued as 4F2K1"

    @pytest.mark.parametrize(
        ("text", "masked"),
        [
            (b'"AUTH PLAIN %b"', b'"AUTH PLAIN ***"'),
            (b"%b", b"***"),
            (b"%b %b", b"*** ***"),
            (b"no such command", b"no such command"),
        ],
    )
    def test_what_was_sent_is_hidden(self, text, masked):
        mask, sent = self.mask()
        assert mask(text.replace(b"%b", sent)) == masked

    @pytest.mark.parametrize(
        "change", [bytes.upper, bytes.lower, lambda sent: sent[:9], lambda sent: sent[5:14]]
    )
    def test_a_part_of_it_in_either_case_is_hidden(self, change):
        mask, sent = self.mask()
        assert mask(b"unknown: " + change(sent)) == b"unknown: ***"

    def test_the_secret_is_hidden_decoded_and_encoded_anew(self):
        mask, _ = self.mask()
        assert mask(b"bad password Tr0ub4dor&3!") == b"bad password ***!"
        assert mask(base64.b64encode(b"Tr0ub4dor&3")) == b"***"

    def test_each_line_of_a_secret_is_hidden(self):
        mask, _ = self.mask(b"first line\nsecond line")
        assert mask(b"x first line") == b"x ***"
        assert mask(b"second line") == b"***"

    @pytest.mark.parametrize(
        ("text", "masked"), [(b"2.1.0 Ok", b"2.1.0 ***"), (b"Okay, bOk", b"Okay, bOk"), (b"Ok.", b"***.")]
    )
    def test_a_short_secret_counts_where_it_stands_alone(self, text, masked):
        mask, _ = self.mask(b"Ok")
        assert mask(text) == masked

    def test_it_does_not_show_what_it_knows(self):
        mask, sent = self.mask()
        shown = repr([mask, *(getattr(mask, name) for name in mask.__slots__)])
        assert "Tr0ub4dor" not in shown and sent.decode() not in shown

    @given(st.binary(min_size=6), st.binary(), st.binary())
    def test_no_secret_passes_wherever_it_stands(self, password, before, after):
        password = password.replace(b"\n", b"n").replace(b"\r", b"r")
        mask, sent = self.mask(password)
        assert password == b"***" or password not in mask(before + password + after) or password in b"***"
        assert sent not in mask(before + sent + after)
