"""CRAM-MD5, with the example of its RFC."""

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.auth import Credentials, Mechanism
from smtp_async.auth.cram import CramMD5
from smtp_async.errors import FeatureUnavailable, InvalidArgument, ProtocolViolation

TIM = Credentials(username="tim", password="tanstaaftanstaaf")
CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"


def test_example_of_rfc_2195():
    cram: Mechanism = CramMD5(TIM)
    assert cram.initial_response() is None
    assert not cram.complete
    assert cram.secrets() == ()
    assert cram.respond(CHALLENGE) == b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert cram.complete
    assert cram.secrets() == (b"b913a602c7eda7a495b4e6e7334d3890",)


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    st.binary(min_size=1),
)
def test_any_challenge(password, challenge):
    answer = CramMD5(Credentials(username="ä b", password=password)).respond(challenge)
    digest = hmac.new(password.encode(), challenge, hashlib.md5).hexdigest()
    assert answer == "ä b ".encode() + digest.encode()


def test_empty_challenge():
    with pytest.raises(ProtocolViolation, match="empty"):
        CramMD5(TIM).respond(b"")


def test_second_challenge():
    cram = CramMD5(TIM)
    cram.respond(CHALLENGE)
    with pytest.raises(ProtocolViolation, match="second"):
        cram.respond(CHALLENGE)


@pytest.mark.parametrize("field", ["username", "password"])
@pytest.mark.parametrize("bad", ["\0", "\udc80"])
def test_bad_text(field, bad):
    values: dict[str, Any] = {"username": "tim", "password": "p", field: bad}
    with pytest.raises(InvalidArgument):
        CramMD5(Credentials(**values)).respond(CHALLENGE)


def test_without_md5(monkeypatch):
    def refuse(*args):
        raise ValueError("disabled for FIPS")

    monkeypatch.setattr(hmac, "digest", refuse)
    with pytest.raises(FeatureUnavailable) as caught:
        CramMD5(TIM).respond(CHALLENGE)
    assert caught.value.code == 270
