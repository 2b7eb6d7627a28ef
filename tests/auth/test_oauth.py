"""oauth.py: XOAUTH2 and OAUTHBEARER, and what a server says of a token that it refuses."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.auth import Credentials, Token
from smtp_async.auth.mechanism import Peer
from smtp_async.auth.oauth import OAuthBearer, XOAuth2
from smtp_async.errors import InvalidArgument, ProtocolViolation

TOKEN = "vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg=="
PEER = Peer(host="server.example.com", port=143)


def someone(**more):
    return Credentials(username="someuser@example.com", token=TOKEN, **more)


class TestMessage:
    def test_example_of_google(self):
        """The message in Google's description of XOAUTH2."""
        credentials = Credentials(
            username="someuser@example.com", token="ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
        )
        one = XOAuth2(credentials)
        assert base64.b64encode(one.initial_response()) == (
            b"dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQm"
            b"hkSFJoZG1semRHRXVZMjl0Q2cBAQ=="
        )
        assert one.complete

    def test_example_of_rfc_7628(self):
        """Section 4.1, with its token and its host and port."""
        credentials = Credentials(username="user@example.com", token=TOKEN)
        one = OAuthBearer(credentials, PEER)
        assert one.initial_response() == (
            b"n,a=user@example.com,\1host=server.example.com\1port=143\1auth=Bearer "
            b"vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg==\1\1"
        )
        assert one.secrets() == (TOKEN.encode(),)

    def test_the_account_is_escaped_and_may_be_another_one(self):
        assert OAuthBearer(someone(authzid="a=b,c")).initial_response().startswith(b"n,a=a=3Db=2Cc,\1")
        assert OAuthBearer(Credentials(token="t")).initial_response() == b"n,,\1auth=Bearer t\1\1"

    @pytest.mark.parametrize("mechanism", [XOAuth2, OAuthBearer])
    def test_a_server_that_got_no_initial_response_asks_for_it(self, mechanism):
        one = mechanism(someone(), PEER)
        assert one.respond(b"") == mechanism(someone(), PEER).initial_response()
        assert one.complete

    @pytest.mark.parametrize("mechanism", [XOAuth2, OAuthBearer])
    @pytest.mark.parametrize("bad", ["a\1b", "a\nb", "a\0b", "\udc80"])
    def test_bad_text(self, mechanism, bad):
        for credentials in (Credentials(username=bad, token="t"), Credentials(username="ann", token=bad)):
            with pytest.raises(InvalidArgument):
                mechanism(credentials).initial_response()

    def test_a_provider_has_been_asked_before(self):
        async def provider() -> Token:
            return Token("t")

        with pytest.raises(InvalidArgument, match="needs a token"):
            XOAuth2(Credentials(username="ann", token=provider)).initial_response()


@pytest.mark.parametrize(("mechanism", "answer"), [(XOAuth2, b""), (OAuthBearer, b"\1")])
class TestRefusal:
    def begun(self, mechanism):
        one = mechanism(someone(), PEER)
        one.initial_response()
        return one

    def test_the_explanation_is_answered_and_told(self, mechanism, answer):
        one = self.begun(mechanism)
        example = b'{"status":"invalid_token","scope":"example_scope","openid-configuration":"https://example.com/x"}'
        assert one.respond(example) == answer
        assert one.explanation == "status invalid_token, scope example_scope, see https://example.com/x"
        assert not one.complete
        assert one.secrets() == ()

    @pytest.mark.parametrize(
        "challenge", [b"", b"garbage", b"[1]", b"\xff", b"[" * 100_000, b'{"status":{}}', b'{"scope":null}']
    )
    def test_garbage_is_answered_all_the_same(self, mechanism, answer, challenge):
        one = self.begun(mechanism)
        assert one.respond(challenge) == answer
        assert one.explanation == ""

    def test_a_second_one_is_a_violation(self, mechanism, answer):
        one = self.begun(mechanism)
        one.respond(b"{}")
        with pytest.raises(ProtocolViolation, match="second explanation"):
            one.respond(b"{}")

    @pytest.mark.parametrize(
        "echo", [TOKEN, f"Bearer {TOKEN}", base64.b64encode(TOKEN.encode()).decode(), TOKEN[3:30]]
    )
    def test_a_token_that_the_server_repeats_is_masked(self, mechanism, answer, echo):
        one = self.begun(mechanism)
        one.respond(json.dumps({"status": f"no: {echo}", "scope": echo}).encode())
        assert "***" in one.explanation
        for at in range(len(TOKEN) - 8):
            assert TOKEN[at : at + 8] not in one.explanation

    def test_what_is_told_is_bounded_and_printable(self, mechanism, answer):
        one = self.begun(mechanism)
        one.respond(json.dumps({"status": "x\x1b[2J\u202e" * 1000, "scope": "y" * 10_000}).encode())
        assert len(one.explanation) < 500
        assert one.explanation.isprintable()

    @given(
        challenge=st.binary(max_size=300)
        | st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=20),
            lambda some: st.lists(some) | st.dictionaries(st.sampled_from(["status", "scope", "x"]), some),
        ).map(lambda found: json.dumps(found).encode())
    )
    def test_anything(self, mechanism, answer, challenge):
        one = self.begun(mechanism)
        assert one.respond(challenge) == answer
        assert one.explanation.isprintable()


def test_xoauth2_needs_a_user_name():
    assert XOAuth2.objection(Credentials(token="t"), PEER) == "it needs a user name"
    assert XOAuth2.objection(someone(), PEER) == ""
