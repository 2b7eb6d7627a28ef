"""gssapi.py, with a Kerberos library that is played; `test_real_logins.py` has a real one, and its servers."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from smtp_async.auth import Credentials
from smtp_async.auth.gssapi import GSSAPI
from smtp_async.auth.mechanism import Peer
from smtp_async.errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    InvalidArgument,
    ProtocolViolation,
)

PEER = Peer(host="mail.lab.test")


class KerberosError(Exception):
    def __init__(self, text, min_code=0):
        super().__init__(text)
        self.min_code = min_code


class Library:
    """As much of the library gssapi as the mechanism uses."""

    def __init__(self):
        self.asked: list[Any] = []
        self.fail: Exception | None = None
        self.context: Any = None
        self.MechType = SimpleNamespace(kerberos="krb5")
        self.NameType = SimpleNamespace(user="user", kerberos_principal="principal")
        self.RequirementFlag = SimpleNamespace(
            mutual_authentication=1, integrity=2, out_of_sequence_detection=4
        )
        self.raw = SimpleNamespace(acquire_cred_with_password=self._acquire)

    def Name(self, text, kind):
        return text, kind

    def Credentials(self, **more):
        self.asked.append(more)
        return more

    def _acquire(self, name, password, **more):
        self.asked.append((name, password))
        if self.fail is not None:
            raise self.fail
        return SimpleNamespace(creds="fetched")

    def SecurityContext(self, **more):
        self.asked.append(more)
        if self.fail is not None:
            raise self.fail
        self.context = Context()
        return self.context


class Context:
    def __init__(self):
        self.complete = False
        self.steps: list[bytes | None] = []

    def step(self, token):
        self.steps.append(token)
        if token == b"bad":
            raise KerberosError("not a token")
        self.complete = token == b"server token"
        return b"client token" if token is None else None

    def unwrap(self, message):
        if not message.startswith(b"<"):
            raise KerberosError("not wrapped")
        return SimpleNamespace(message=message[1:-1])

    def wrap(self, message, encrypt):
        assert encrypt is False
        return SimpleNamespace(message=b"<" + message + b">")


@pytest.fixture
def library(monkeypatch):
    played = Library()
    monkeypatch.setitem(sys.modules, "gssapi", played)
    return played


def begin(mechanism):
    pending = mechanism.pending(None)
    assert pending is not None and pending.blocking
    pending.work()
    return mechanism.initial_response()


def answer(mechanism, challenge):
    pending = mechanism.pending(challenge)
    assert pending is not None and pending.blocking
    pending.work()
    return mechanism.respond(challenge)


def established(**credentials):
    one = GSSAPI(Credentials(**credentials), PEER)
    begin(one)
    assert answer(one, b"server token") == b""
    assert not one.complete
    return one


def test_an_exchange(library):
    """RFC 4752 section 3.1."""
    one = GSSAPI(Credentials(authzid="bob"), PEER)
    assert begin(one) == b"client token"
    assert one.pending(None) is None
    assert answer(one, b"server token") == b""
    assert answer(one, b"<\7\0\xff\xff>") == b"<\1\0\0\0bob>"
    assert one.complete
    assert one.secrets() == ()
    with pytest.raises(ProtocolViolation, match="another challenge"):
        answer(one, b"<\7\0\0\0>")


def test_the_host_is_not_looked_up(library):
    """A host-based service would be: it is a principal, in the host's realm."""
    begin(GSSAPI(Credentials(), PEER))
    [asked] = library.asked
    assert asked["name"] == ("smtp/mail.lab.test@", "principal")
    assert (asked["mech"], asked["usage"], asked["flags"], asked["creds"]) == ("krb5", "initiate", 7, None)
    begin(GSSAPI(Credentials(), Peer(host="h", service="lmtp")))
    assert library.asked[1]["name"] == ("lmtp/h@", "principal")


def test_whose_ticket(library):
    begin(GSSAPI(Credentials(username="ann"), PEER))
    assert library.asked[0] == {"name": ("ann", "user"), "mechs": ["krb5"], "usage": "initiate"}
    begin(GSSAPI(Credentials(username="ann", password="süß"), PEER))
    assert library.asked[2] == (("ann", "user"), "süß".encode())
    assert library.asked[3] == {"base": "fetched"}


def test_a_server_that_got_no_initial_response_asks_for_it(library):
    one = GSSAPI(Credentials(), PEER)
    begin(one)
    assert answer(one, b"") == b"client token"
    assert answer(one, b"server token") == b""


class TestHostile:
    @pytest.mark.parametrize(
        ("offer", "words"),
        [
            (b"<>", "malformed"),
            (b"<\1\0\0>", "malformed"),
            (b"<\1\0\0\0\0>", "malformed"),
            (b"<\6\0\xff\xff>", "demands a security layer"),
            (b"garbage", "not wrapped"),
        ],
    )
    def test_layers(self, library, offer, words):
        one = established()
        with pytest.raises(ProtocolViolation, match=words) as caught:
            answer(one, offer)
        assert caught.value.__cause__ is None
        assert not one.complete

    def test_a_bad_token(self, library):
        one = GSSAPI(Credentials(), PEER)
        begin(one)
        with pytest.raises(ProtocolViolation, match="not a token"):
            answer(one, b"bad")

    def test_tokens_for_ever(self, library):
        one = GSSAPI(Credentials(), PEER)
        begin(one)
        with pytest.raises(ProtocolViolation, match="another challenge"):
            for _ in range(10):
                answer(one, b"more")
        assert len(library.context.steps) < 10


class TestNoTicket:
    def test_nothing_is_sent(self, library):
        library.fail = KerberosError("No credentials cache found")
        with pytest.raises(
            AuthenticationUnavailable, match=r"mail\.lab\.test: No credentials cache"
        ) as caught:
            begin(GSSAPI(Credentials(), PEER))
        assert caught.value.__cause__ is None

    @pytest.mark.parametrize("number", [6, 18, 23, 24, 31])
    def test_a_refused_password_counts_as_a_535(self, library, number):
        library.fail = KerberosError("no", 2529638912 + number)
        with pytest.raises(AuthenticationFailed) as caught:
            begin(GSSAPI(Credentials(username="ann", password="c4n4ry"), PEER))
        assert not caught.value.temporary
        assert "c4n4ry" not in str(caught.value)

    def test_an_unreachable_center_does_not(self, library):
        library.fail = KerberosError("Cannot contact any KDC", 2529638912 + 156)
        with pytest.raises(AuthenticationUnavailable):
            begin(GSSAPI(Credentials(username="ann", password="c4n4ry"), PEER))

    @pytest.mark.parametrize("field", ["username", "password"])
    def test_bad_text(self, library, field):
        values: dict[str, Any] = {field: "a\0"}
        with pytest.raises(InvalidArgument):
            begin(GSSAPI(Credentials(**values), PEER))


@pytest.mark.parametrize(("platform", "library"), [("linux", "gssapi"), ("win32", "spnego")])
def test_the_extra_that_is_missing(monkeypatch, platform, library):
    asked = []

    def find(name):
        asked.append(name)

    monkeypatch.setattr("smtp_async.auth.gssapi.find_spec", find)
    monkeypatch.setattr(sys, "platform", platform)
    assert GSSAPI.missing() == "smtp-async[kerberos]"
    assert asked == [library]


def test_on_windows_the_system_does_it(monkeypatch):
    import spnego

    asked: list[Any] = []

    class Windows(Context):
        def wrap(self, message, encrypt):
            return SimpleNamespace(data=super().wrap(message, encrypt).message)

        def unwrap(self, message):
            return SimpleNamespace(data=super().unwrap(message).message)

    def client(*args, **more):
        asked.append((args, more))
        return Windows()

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(spnego, "client", client)
    one = GSSAPI(Credentials(), PEER)
    assert begin(one) == b"client token"
    answer(one, b"server token")
    assert answer(one, b"<\1\0\0\0>") == b"<\1\0\0\0>"
    [(args, more)] = asked
    assert args == (None, None)
    assert (more["hostname"], more["service"], more["protocol"]) == ("mail.lab.test", "smtp", "kerberos")
