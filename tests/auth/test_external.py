"""external.py: EXTERNAL and ANONYMOUS."""

import pytest

from smtp_async.auth import Credentials
from smtp_async.auth.external import Anonymous, External
from smtp_async.errors import InvalidArgument, ProtocolViolation


@pytest.mark.parametrize(
    ("mechanism", "credentials", "message"),
    [
        (External, Credentials(), b""),
        (External, Credentials(username="ann"), b"ann"),
        (External, Credentials(username="ann", authzid="bob"), b"bob"),
        (Anonymous, Credentials(), b""),
        (Anonymous, Credentials(username="Jürgen@example.com"), "Jürgen@example.com".encode()),
    ],
)
def test_one_message(mechanism, credentials, message):
    for way in (lambda one: one.initial_response(), lambda one: one.respond(b"")):
        one = mechanism(credentials)
        assert not one.complete
        assert way(one) == message
        assert one.complete
        assert one.secrets() == ()


@pytest.mark.parametrize("mechanism", [External, Anonymous])
def test_no_challenge(mechanism):
    with pytest.raises(ProtocolViolation, match="has no challenge"):
        mechanism(Credentials()).respond(b"who?")
    one = mechanism(Credentials())
    one.initial_response()
    with pytest.raises(ProtocolViolation, match="has no challenge"):
        one.respond(b"")


@pytest.mark.parametrize("mechanism", [External, Anonymous])
def test_bad_text(mechanism):
    with pytest.raises(InvalidArgument):
        mechanism(Credentials(username="a\0b")).initial_response()
