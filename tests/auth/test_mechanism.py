"""mechanism.py: who we are, the framing, and that no password shows."""

import asyncio
import base64
import copy
import dataclasses
import hmac
import pickle
import traceback
from dataclasses import FrozenInstanceError
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.auth import Credentials, Mechanism, Pending, decode_challenge
from smtp_async.auth import select as selecting
from smtp_async.auth.mechanism import Peer
from smtp_async.errors import ProtocolViolation
from smtp_async.model.secret import Secret

CANARY = "c4n4ry-p4ssw0rd"
ANN = Credentials(username="ann", password=CANARY)
CLEAR = Credentials(username="ann", password=CANARY, allow_cleartext=True)
ALL = ("CRAM-MD5", "LOGIN", "PLAIN")
PASSWORD_MECHANISMS = (*ALL, "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512", "NTLM")


def select(offered, credentials, *, secure):
    peer = Peer(offered=frozenset(name.upper() for name in offered), secure=secure)
    return selecting.select(credentials, peer)


def named(*mechanisms, **kwargs):
    return Credentials(username="ann", password=CANARY, mechanisms=mechanisms, **kwargs)


class TestCredentials:
    def test_the_password_is_a_secret(self):
        assert ANN.password == Secret(CANARY)
        assert Credentials(password=Secret("x")).password == Secret("x")
        assert Credentials().password == Secret("")

    def test_are_values(self):
        assert Credentials(username="ann", password=CANARY) == ANN
        assert Credentials(username="ann", password="other") != ANN
        assert dataclasses.replace(ANN, username="bob").password == Secret(CANARY)
        cls: Any = Credentials
        with pytest.raises(FrozenInstanceError):
            cls().username = "bob"
        with pytest.raises(TypeError):
            cls("ann")

    def test_mechanisms_become_a_tuple(self):
        assert Credentials(mechanisms=["PLAIN", "LOGIN"]).mechanisms == ("PLAIN", "LOGIN")
        # Parentheses alone make no tuple.
        assert Credentials(mechanisms=("PLAIN")).mechanisms == ("PLAIN",)


class TestFraming:
    @given(st.binary(max_size=500))
    def test_round_trip(self, data):
        assert decode_challenge(base64.b64encode(data)) == data

    @given(st.binary(max_size=200))
    def test_anything(self, data):
        try:
            decoded = decode_challenge(data)
        except ProtocolViolation:
            return
        assert len(base64.b64encode(decoded)) == len(data)

    @pytest.mark.parametrize(
        "text",
        [b"a", b"ab=", b"====", b"YWJj\r\n", b" YWJj", b"YW Jj", b"YWJj=", b"\xff\xff\xff\xff", b"YQ==YQ=="],
    )
    def test_no_base64(self, text):
        with pytest.raises(ProtocolViolation) as caught:
            decode_challenge(text)
        assert caught.value.stage == "AUTH"

    def test_bounds(self):
        assert len(decode_challenge(b"A" * 12_288)) == 9216
        with pytest.raises(ProtocolViolation, match="too long"):
            decode_challenge(b"A" * 12_292)

    def test_empty(self):
        assert decode_challenge(b"") == b""


class Slow(Mechanism):
    """Needs a derived key, and a token from a provider, before its first response."""

    name = "SLOW"

    def __init__(self, credentials):
        super().__init__(credentials)
        self.key = self.token = None

    def pending(self, challenge):
        if challenge is None:
            return Pending(self._derive, blocking=True)
        return Pending(self._ask, blocking=False) if challenge == b"token?" else None

    def _derive(self):
        self.key = b"key"

    async def _ask(self):
        await asyncio.sleep(0)
        self.token = b"token"

    def initial_response(self):
        return self.key

    def respond(self, challenge):
        self.complete = True
        return self.token

    def secrets(self):
        return (self.token,) if self.token else ()


async def test_work_that_must_wait_is_done_between_the_steps():
    async def ready(mechanism, challenge):
        """What the owner of the loop does."""
        pending = mechanism.pending(challenge)
        if pending is None:
            return
        if pending.blocking:
            await asyncio.to_thread(pending.work)
        elif (waiting := pending.work()) is not None:
            await waiting

    mechanism = Slow(ANN)
    await ready(mechanism, None)
    assert mechanism.initial_response() == b"key"
    await ready(mechanism, b"token?")
    assert mechanism.respond(b"token?") == b"token"
    await ready(select(ALL, ANN, secure=True), None)


def forms(secret):
    """Return what a secret may look like somewhere."""
    raw = secret.encode()
    plain = b"\0ann\0" + raw
    encoded = [base64.b64encode(blob).decode() for blob in (raw, plain)]
    return [secret, *encoded, raw.hex(), plain.hex(), quote(secret, safe=""), secret[2:-2]]


def everything_shown(thing):
    """Return every text that Python makes of an object without being asked to reveal it."""
    yield from (repr(thing), str(thing), f"{thing}", ascii(thing), repr([thing]))
    yield repr({slot: getattr(thing, slot, None) for slot in getattr(thing, "__slots__", ())})
    yield repr(getattr(thing, "__dict__", {}))
    try:
        yield repr(pickle.dumps(thing))
    except TypeError as error:
        yield str(error)


class TestCanary:
    @pytest.mark.parametrize("name", PASSWORD_MECHANISMS)
    def test_objects_hide_it(self, name):
        mechanism = select([name], named(name), secure=True)
        for thing in (ANN, mechanism, copy.copy(mechanism)):
            for text in everything_shown(thing):
                assert not [form for form in forms(CANARY) if form in text]

    @pytest.mark.parametrize("thing", [ANN, named("PLAIN")])
    def test_not_pickled_and_not_taken_apart(self, thing):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
        with pytest.raises(TypeError):
            dataclasses.asdict(thing)

    def test_tracebacks_with_local_variables_hide_it(self, monkeypatch):
        monkeypatch.setattr(hmac, "digest", refuse_md5)
        for fail in (
            lambda: select((), ANN, secure=True),
            lambda: select(ALL, Credentials(password=CANARY), secure=True),
            lambda: used(select(["LOGIN"], ANN, secure=True)).respond(b""),
            lambda: used(select(["PLAIN"], ANN, secure=True)).respond(b""),
            lambda: select(["PLAIN"], broken("\0"), secure=True).initial_response(),
            lambda: select(["PLAIN"], broken("\udc80"), secure=True).initial_response(),
            lambda: answered(select(["LOGIN"], broken("\udc80"), secure=True)).respond(b""),
            lambda: select(["CRAM-MD5"], named("CRAM-MD5"), secure=True).respond(b"<1@x>"),
            lambda: select(["CRAM-MD5"], broken("\udc80", "CRAM-MD5"), secure=True).respond(b"<1@x>"),
        ):
            with pytest.raises(Exception) as caught:  # noqa: B017, PT011
                fail()
            error: BaseException = caught.value
            shown = traceback.TracebackException.from_exception(
                error, capture_locals=True, lookup_lines=False
            )
            text = "".join(shown.format()) + repr(error) + repr(error.__dict__)
            # What a reporter finds that follows contexts which Python would not show.
            while error.__context__ is not None:
                error = error.__context__
                text += repr(error) + repr(getattr(error, "object", ""))
            assert "mechanism.py" in text or "plain.py" in text or "cram.py" in text
            assert not [form for form in forms(CANARY) if form in text], text


def refuse_md5(key, message, digest):
    raise ValueError("no MD5 here")


def broken(character, *mechanisms):
    return Credentials(username="ann", password=CANARY + character, mechanisms=mechanisms)


def used(mechanism):
    """Bring a mechanism to its end."""
    if mechanism.initial_response() is None:
        mechanism.respond(b"")
        mechanism.respond(b"")
    return mechanism


def answered(mechanism):
    mechanism.respond(b"")
    return mechanism
