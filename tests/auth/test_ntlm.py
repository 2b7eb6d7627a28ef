"""ntlm.py: version 2, with the keys of [MS-NLMP], channel binding, and servers that send anything."""

import hashlib
import hmac
import logging
import struct
from typing import Any

import pytest
import spnego
from hypothesis import given
from hypothesis import strategies as st
from spnego.channel_bindings import GssChannelBindings

from smtp_async.auth import Credentials
from smtp_async.auth.mechanism import Peer
from smtp_async.auth.ntlm import NTLM
from smtp_async.errors import FeatureUnavailable, InvalidArgument, ProtocolViolation

PASSWORD = "Password"
ANN = Credentials(username="Domain\\User", password=PASSWORD)
#: [MS-NLMP] section 4.2.4.1.1: NTOWFv2 of the domain "Domain", the user "User" and the password "Password".
NTOWF = bytes.fromhex("0c868a403bfd7a93a3001ef22ef02e3f")
#: [MS-NLMP] section 4.2.1.
SERVER_CHALLENGE = bytes.fromhex("0123456789abcdef")
#: [MS-NLMP] section 4.2.4.3: the CHALLENGE_MESSAGE.
CHALLENGE = bytes.fromhex(
    "4e544c4d53535000020000000c000c003800000033828ae20123456789abcdef00000000000000002400240044000000"
    "060070170000000f53006500720076006500720002000c0044006f006d00610069006e0001000c0053006500720076006500"
    "720000000000"
)


@pytest.fixture
def users(tmp_path, monkeypatch):
    """The server's accounts, as pyspnego's own server finds them."""
    path = tmp_path / "users"
    path.write_text(f"Domain:User:{PASSWORD}\n:ann@lab.test:{PASSWORD}\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(path))


def nt_response(message):
    """Return the NtChallengeResponse of an AUTHENTICATE_MESSAGE, [MS-NLMP] section 2.2.1.3."""
    length, _, offset = struct.unpack("<HHI", message[20:28])
    return message[offset : offset + length]


def login(credentials, peer=Peer(), bindings=None):  # noqa: B008
    server = spnego.server(
        protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm, channel_bindings=bindings
    )
    one = NTLM(credentials, peer)
    one.secrets()
    challenge = server.step(one.initial_response())
    assert challenge is not None and not one.complete
    server.step(one.respond(challenge))
    assert one.complete
    return server


def test_version_2_with_the_keys_of_ms_nlmp():
    one = NTLM(ANN)
    assert one.initial_response().startswith(b"NTLMSSP\0\1\0\0\0")
    assert one.secrets() == ()
    message = one.respond(CHALLENGE)
    assert message.startswith(b"NTLMSSP\0\3\0\0\0")
    proof, blob = nt_response(message)[:16], nt_response(message)[16:]
    # Version 1 has 24 octets, and no proof with the client's own challenge.
    assert blob.startswith(b"\1\1\0\0\0\0\0\0")
    assert hmac.digest(NTOWF, SERVER_CHALLENGE + blob, "md5") == proof
    assert one.secrets() == (message,)


@pytest.mark.parametrize("username", ["Domain\\User", "ann@lab.test"])
def test_a_server_takes_it(users, username):
    server = login(Credentials(username=username, password=PASSWORD))
    assert server.complete
    assert server.client_principal == username


def test_a_wrong_password_is_refused(users):
    with pytest.raises(spnego.exceptions.SpnegoError):
        login(Credentials(username="Domain\\User", password="wrong"))


class TestBinding:
    DATA = hashlib.sha256(b"a certificate").digest()
    PEER = Peer(bindings={"tls-exporter": b"x", "tls-server-end-point": DATA})

    def test_bound(self, users):
        right = GssChannelBindings(application_data=b"tls-server-end-point:" + self.DATA)
        assert login(ANN, self.PEER, right).complete

    def test_another_channel_is_refused(self, users):
        other = GssChannelBindings(application_data=b"tls-server-end-point:" + bytes(32))
        with pytest.raises(spnego.exceptions.BadBindingsError):
            login(ANN, self.PEER, other)


def test_a_server_that_got_no_initial_response_asks_for_it():
    one = NTLM(ANN)
    assert one.respond(b"") == NTLM(ANN).initial_response()
    assert one.respond(CHALLENGE)
    assert one.complete


@pytest.mark.parametrize(
    "challenge", [b"", b"garbage", b"NTLMSSP\0", CHALLENGE[:40], b"NTLMSSP\0\3\0\0\0" + bytes(80)]
)
def test_malformed_challenges(challenge):
    one = NTLM(ANN)
    one.initial_response()
    with pytest.raises(ProtocolViolation, match="malformed") as caught:
        one.respond(challenge)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert not one.complete


def test_a_second_challenge():
    one = NTLM(ANN)
    one.initial_response()
    one.respond(CHALLENGE)
    with pytest.raises(ProtocolViolation, match="another challenge"):
        one.respond(CHALLENGE)


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: CHALLENGE[:20] + tail))
def test_anything(challenge):
    one = NTLM(ANN)
    one.initial_response()
    try:
        answer = one.respond(challenge)
    except ProtocolViolation:
        return
    assert answer.startswith(b"NTLMSSP\0\3")


@pytest.mark.parametrize("field", ["username", "password"])
@pytest.mark.parametrize("bad", ["a\0", "\udc80"])
def test_bad_text(field, bad):
    values: dict[str, Any] = {"username": "a", "password": "b", field: bad}
    with pytest.raises(InvalidArgument):
        NTLM(Credentials(**values)).initial_response()


def test_any_password_that_can_be_written():
    one = NTLM(Credentials(username="jürgen", password="süß €𝕏" * 10))
    first, answer = one.initial_response(), one.respond(CHALLENGE)
    assert first is not None and first.startswith(b"NTLMSSP\0\x01") and answer.startswith(b"NTLMSSP\0\x03")
    assert "jürgen".encode("utf-16-le") in answer


@pytest.mark.parametrize("level", ["0", "1", "2", "x"])
def test_the_environment_cannot_ask_for_version_1(monkeypatch, level):
    monkeypatch.setenv("LM_COMPAT_LEVEL", level)
    with pytest.raises(FeatureUnavailable, match="version 1"):
        NTLM(ANN).initial_response()


def test_the_messages_are_not_logged(caplog):
    with caplog.at_level(logging.DEBUG):
        one = NTLM(ANN)
        one.initial_response()
        one.respond(CHALLENGE)
    assert caplog.text == ""


def test_the_extra_that_is_missing(monkeypatch):
    assert NTLM.missing() == ""
    monkeypatch.setattr("smtp_async.auth.ntlm.find_spec", lambda name: None)
    assert NTLM.missing() == "smtp-async[sasl]"
