"""PLAIN and LOGIN, byte by byte."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.auth import Credentials, Mechanism
from smtp_async.auth.plain import Login, Plain
from smtp_async.errors import InvalidArgument, ProtocolViolation

TIM = Credentials(username="tim", password="tanstaaftanstaaf")
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


class TestPlain:
    def test_example_of_rfc_4616(self):
        plain = Plain(TIM)
        assert plain.initial_response() == b"\0tim\0tanstaaftanstaaf"
        assert plain.complete

    def test_example_of_rfc_4954(self):
        plain = Plain(Credentials(username="test", password="1234", authzid="test"))
        assert base64.b64encode(plain.initial_response()) == b"dGVzdAB0ZXN0ADEyMzQ="

    def test_the_password_is_its_secret(self):
        assert Plain(TIM).secrets() == (b"tanstaaftanstaaf",)

    def test_for_an_empty_challenge(self):
        plain = Plain(TIM)
        assert not plain.complete
        assert plain.respond(b"") == b"\0tim\0tanstaaftanstaaf"
        assert plain.complete

    def test_once_only(self):
        plain = Plain(TIM)
        plain.initial_response()
        with pytest.raises(ProtocolViolation):
            plain.respond(b"")

    def test_no_challenge(self):
        with pytest.raises(ProtocolViolation):
            Plain(TIM).respond(b"realm?")

    @given(texts, texts, st.one_of(st.just(""), texts))
    def test_any_text_is_utf8_between_two_nuls(self, username, password, authzid):
        message = Plain(Credentials(username=username, password=password, authzid=authzid)).initial_response()
        assert [part.decode() for part in message.split(b"\0")] == [authzid, username, password]

    @pytest.mark.parametrize("field", ["username", "password", "authzid"])
    @pytest.mark.parametrize("bad", ["\0", "\udc80"])
    def test_what_would_change_the_message(self, field, bad):
        values: dict[str, Any] = {"username": "tim", "password": "p", field: f"se{bad}cret"}
        credentials = Credentials(**values)
        plain = Plain(credentials)
        with pytest.raises(InvalidArgument) as caught:
            plain.initial_response()
        assert "cret" not in str(caught.value)
        assert not plain.complete


class TestLogin:
    @given(st.binary(max_size=200))
    def test_a_prompt_is_ignored_whatever_it_is(self, prompt):
        login = Login(TIM)
        answers = [login.respond(login.challenge(prompt)) for _ in range(2)]
        assert answers == [TIM.username.encode(), TIM.password.reveal().encode()]

    @pytest.mark.parametrize(
        "prompts", [(b"Username:", b"Password:"), (b"User Name\0", b"Password\0"), (b"", b""), (b"?", b"?")]
    )
    def test_user_then_password_whatever_the_prompts(self, prompts):
        login: Mechanism = Login(TIM)
        assert login.initial_response() is None
        assert login.respond(prompts[0]) == b"tim"
        assert not login.complete
        assert login.respond(prompts[1]) == b"tanstaaftanstaaf"
        assert login.complete
        with pytest.raises(ProtocolViolation):
            login.respond(prompts[1])

    @pytest.mark.parametrize("bad", ["\0", "\udc80"])
    def test_bad_text(self, bad):
        with pytest.raises(InvalidArgument):
            Login(Credentials(username=bad, password="p")).respond(b"")
        login = Login(Credentials(username="tim", password=bad))
        login.respond(b"")
        with pytest.raises(InvalidArgument):
            login.respond(b"")
        assert not login.complete


def test_the_secret_of_login_is_what_it_sends_second():
    login = Login(TIM)
    login.respond(b"User Name\0")
    assert login.secrets() == ()
    login.respond(b"Password\0")
    assert login.secrets() == (b"tanstaaftanstaaf",)
