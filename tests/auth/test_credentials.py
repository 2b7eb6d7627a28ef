"""credentials.py: secrets from the first moment, and never pickled."""

import copy
import pickle
import time

import pytest

from smtp_async.auth import Credentials, Strength, Token
from smtp_async.auth.plain import Plain
from smtp_async.model.secret import Secret

CANARY = "c4n4ry-t0ken"


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

    @pytest.mark.parametrize("way", [pickle.dumps, copy.deepcopy])
    def test_not_pickled_and_why(self, way):
        with pytest.raises(TypeError, match="Credentials cannot be pickled, because they hold a password"):
            way(Credentials(username="ann", password="x"))
