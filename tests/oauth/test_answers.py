"""answers.py: whatever a server sends is a token or a failure, and no failure holds a secret."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import Secret
from smtp_async.errors import TokenRefused, TokenUnavailable
from smtp_async.oauth.answers import Answer, Failure, error_of, read_answer, read_object

GOOD = {"access_token": "ya29.a0", "token_type": "Bearer", "expires_in": 3599}
SECRET = "1//0gLongRefreshToken-with_parts.And+more/of=it"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("access_token", "token_type", "expires_in", "refresh_token", "error", "error_description")


def read(found: Any, status: int = 200, secrets: Any = ()) -> Answer | Failure:
    body = found if isinstance(found, bytes) else json.dumps(found).encode()
    return read_answer(status, body, secrets, "the token endpoint auth.test")


def failure(found: Any, status: int = 200, secrets: Any = ()) -> Failure:
    answer = read(found, status, secrets)
    assert isinstance(answer, Failure)
    return answer


class TestTokens:
    def test_all_that_is_told(self) -> None:
        answer = read({**GOOD, "refresh_token": "r2", "scope": "mail", "more": [1]})
        assert answer == Answer(Secret("ya29.a0"), 3599.0, Secret("r2"))

    @pytest.mark.parametrize("kind", ["bearer", "BEARER"])
    def test_case_of_the_type(self, kind: str) -> None:
        assert isinstance(read({**GOOD, "token_type": kind}), Answer)

    @pytest.mark.parametrize(
        ("life", "expected"),
        [
            ("3600", 3600.0),
            (0, 0.0),
            (1.5, 1.5),
            (None, None),
            (-1, None),
            (True, None),
            ("soon", None),
            ("9" * 30, None),
            (1e300, None),
            ([], None),
        ],
    )
    def test_life(self, life: Any, expected: float | None) -> None:
        answer = read({**GOOD, "expires_in": life})
        assert isinstance(answer, Answer) and answer.expires_in == expected

    def test_a_malformed_refresh_token_is_left_out(self) -> None:
        answer = read({**GOOD, "refresh_token": "a b"})
        assert isinstance(answer, Answer) and answer.refresh_token is None


class TestFailures:
    @pytest.mark.parametrize(
        ("found", "said"),
        [
            (b"<html>", "no JSON object"),
            (b"\xff\xfe", "no JSON object"),
            (b"[" * 100_000, "no JSON object"),
            ([GOOD], "no JSON object"),
            ({**GOOD, "access_token": None}, "access_token is missing or malformed"),
            ({**GOOD, "access_token": ""}, "access_token is missing or malformed"),
            ({**GOOD, "access_token": "a b"}, "access_token is missing or malformed"),
            ({**GOOD, "access_token": "a\r\nRCPT"}, "access_token is missing or malformed"),
            ({**GOOD, "token_type": "mac"}, 'token_type is not "Bearer"'),
            ({"access_token": "x"}, 'token_type is not "Bearer"'),
        ],
    )
    def test_wrong_json_is_temporary(self, found: Any, said: str) -> None:
        wrong = failure(found)
        assert said in wrong.problem and not wrong.permanent
        assert isinstance(error_of(wrong), TokenUnavailable) and error_of(wrong).temporary

    @pytest.mark.parametrize(
        "code", ["invalid_grant", "invalid_client", "unauthorized_client", "access_denied", "a_new_one"]
    )
    @pytest.mark.parametrize("status", [200, 400, 401])
    def test_a_refusal_is_permanent(self, code: str, status: int) -> None:
        wrong = failure({"error": code, "error_description": "Token has been\nrevoked."}, status)
        assert wrong.permanent
        error = error_of(wrong)
        assert isinstance(error, TokenRefused) and not error.temporary and error.code == 20031
        assert str(error) == (
            f"the token endpoint auth.test refuses to issue a token ({code}): Token has been revoked."
        )

    @pytest.mark.parametrize(
        ("found", "status"),
        [
            (b"oops", 500),
            ({"error": "invalid_grant"}, 503),
            ({"error": "invalid_request"}, 429),
            ({"error": "temporarily_unavailable"}, 400),
            (b"", 404),
            ({"error": {"code": 1}}, 400),
        ],
    )
    def test_a_failure_of_the_server_is_temporary(self, found: Any, status: int) -> None:
        assert isinstance(error_of(failure(found, status)), TokenUnavailable)

    def test_a_redirect_is_named(self) -> None:
        assert "redirect" in failure(b"", 302).problem

    def test_words_are_one_line_and_bounded(self) -> None:
        wrong = failure({"error": "x\x1b[2J", "error_description": "long " * 1000}, 400)
        assert "\x1b" not in wrong.problem and len(wrong.problem) < 500

    @pytest.mark.parametrize("part", [SECRET, SECRET[:20], "gLongRefreshToken", "And%2Bmore%2Fof%3Dit"])
    def test_what_the_server_repeats_is_masked(self, part: str) -> None:
        wrong = failure({"error": "bad", "error_description": f"no {part} here"}, 400, [Secret(SECRET)])
        assert part not in wrong.problem and "***" in wrong.problem

    def test_codes_are_told_whole(self) -> None:
        wrong = failure({"error": "invalid_grant"}, 400, [Secret("invalid_grant_secret")])
        assert wrong.error == "invalid_grant" and "invalid_grant" in wrong.problem


@given(st.integers(100, 599), st.binary(max_size=200))
def test_any_octets(status: int, body: bytes) -> None:
    answer = read_answer(status, body, [Secret(SECRET)], "server")
    assert isinstance(answer, Failure) or (status == 200 and read_object(body) is not None)


@given(st.sampled_from((200, 400, 500)), st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_object(status: int, found: dict[str, Any]) -> None:
    answer = read(found, status, [Secret(SECRET)])
    if isinstance(answer, Answer):
        assert status == 200 and answer.token.reveal() == found["access_token"]
        assert answer.expires_in is None or answer.expires_in >= 0
    else:
        assert answer.problem.isprintable() and len(answer.problem) < 600


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60), st.data())
def test_no_secret_in_any_words(secret: str, data: st.DataObject) -> None:
    # The code is a word of the RFC's, which a secret might be, too.
    around = data.draw(st.text(max_size=20))
    wrong = failure({"error": "bad", "error_description": f"{around}{secret}{around}"}, 400, [Secret(secret)])
    assert secret not in wrong.problem
