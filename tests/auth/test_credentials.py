"""credentials.py: secrets from the first moment, and never pickled."""

import copy
import math
import pickle
import time
import traceback
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from smtp_async.auth import Credentials, Strength, Token
from smtp_async.auth.plain import Plain
from smtp_async.errors import InvalidArgument
from smtp_async.model.secret import Secret

CANARY = "c4n4ry-t0ken"
OCTETS: Any = CANARY.encode()


class TestToken:
    def test_its_value_is_a_secret(self):
        token = Token(CANARY, expires_at=time.time() + 60)
        assert token.value == Secret(CANARY)
        assert CANARY not in repr(token)
        assert Token(Secret(CANARY)) == Token(CANARY)

    @pytest.mark.parametrize("text", ["Bearer abc", "bearer abc", "BEARER  abc ", "abc"])
    def test_the_word_bearer_is_dropped(self, text):
        assert Token(text).value.reveal() == "abc"
        assert Token(Secret(text)).value.reveal() == "abc"

    def test_a_datetime_is_converted(self):
        moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
        assert Token("t", expires_at=moment).expires_at == moment.timestamp()

    @pytest.mark.parametrize("wrong", [datetime(2030, 1, 2), "2030-01-02", "1893553445", True, math.nan, [1]])
    def test_an_end_that_is_no_instant(self, wrong):
        """It would never come, or raise where no one waits."""
        with pytest.raises(InvalidArgument, match="expires_at is"):
            Token(CANARY, expires_at=wrong)

    def test_a_value_that_is_no_text(self):
        with pytest.raises(InvalidArgument, match="is text, not bytes") as caught:
            Token(OCTETS)
        assert CANARY not in str(caught.value)

    def test_not_pickled(self):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(Token(CANARY))


class TestCredentials:
    def test_a_token_is_a_secret(self):
        credentials = Credentials(username="ann", token=f"Bearer {CANARY}")
        assert credentials.token == Secret(CANARY)
        assert CANARY not in repr(credentials)
        assert Credentials(token=Secret(CANARY)).token == Secret(CANARY)

    def test_a_provider_is_kept_as_it_is(self):
        async def provider() -> Token:
            return Token(CANARY)

        assert Credentials(token=provider).token is provider
        assert Credentials(token=provider) == Credentials(token=provider)

    def test_mechanisms_are_names_or_classes(self):
        assert Credentials(mechanisms=[Plain, "LOGIN"]).mechanisms == (Plain, "LOGIN")

    def test_the_least_strength_is_none(self):
        assert Credentials().minimum_strength is Strength.NONE
        assert sorted(Strength) == [
            Strength.NONE,
            Strength.REVEALED,
            Strength.PROVED,
            Strength.MUTUAL,
            Strength.BOUND,
        ]

    def test_not_pickled_and_why(self):
        with pytest.raises(TypeError, match="Credentials cannot be pickled, because they hold a password"):
            pickle.dumps(Credentials(username="ann", password="x"))

    def test_a_deep_copy_is_the_same_object(self):
        key = Credentials(username="ann", password="x")
        assert copy.deepcopy({"key": key})["key"] is key

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"username": b"ann"}, "username is a str, not bytes"),
            ({"username": None}, "username is a str, not NoneType"),
            ({"password": CANARY.encode()}, "password is text, not bytes"),
            ({"password": Secret(OCTETS)}, "password is text, not bytes"),
            ({"password": None}, "password is text, not NoneType"),
            ({"token": CANARY.encode()}, "the token, if it is no TokenProvider, is text, not bytes"),
            ({"token": Token(CANARY)}, "the token, if it is no TokenProvider, is text, not Token"),
            ({"authzid": 1}, "authzid is a str, not int"),
            ({"minimum_strength": "MUTUAL"}, "minimum_strength is a Strength, not str"),
            ({"minimum_strength": 3}, "minimum_strength is a Strength, not int"),
            ({"allow_cleartext": "no"}, "allow_cleartext is a bool, not str"),
        ],
    )
    def test_types(self, wrong, said):
        with pytest.raises(InvalidArgument, match=said) as caught:
            Credentials(**wrong)
        told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        mine = [
            frame for frame in told.stack if "smtp_async/" in frame.filename and "tests" not in frame.filename
        ]
        assert CANARY not in str(caught.value) + str([frame.locals for frame in mine])
