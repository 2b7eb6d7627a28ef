"""scram.py: the examples of the RFCs, channel binding and its flags, and servers that cheat."""

import base64
import sys
import threading
from dataclasses import replace
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramMechanism

from smtp_async.auth import Credentials, Strength
from smtp_async.auth.mechanism import Peer
from smtp_async.auth.scram import (
    ScramSHA1,
    ScramSHA1Plus,
    ScramSHA256,
    ScramSHA256Plus,
    ScramSHA512,
    ScramSHA512Plus,
)
from smtp_async.auth.select import select
from smtp_async.errors import InvalidArgument, ProtocolViolation
from tests.auth import servers

USER = Credentials(username="user", password="pencil")
BARE = (ScramSHA1, ScramSHA256, ScramSHA512)
PLUS = (ScramSHA1Plus, ScramSHA256Plus, ScramSHA512Plus)
END_POINT = {"tls-server-end-point": b"0123456789abcdef"}


def respond(mechanism, challenge):
    """Answer a challenge as a connection does."""
    pending = mechanism.pending(challenge)
    if pending is not None:
        assert pending.blocking
        pending.work()
    return mechanism.respond(challenge)


def converse(mechanism, server, users):
    """Let a mechanism log in to a server's generator; return the user, or None."""
    exchange = server(users, mechanism.initial_response())
    try:
        challenge = next(exchange)
        while True:
            challenge = exchange.send(respond(mechanism, challenge))
    except StopIteration as end:
        return end.value


RFCS = [
    (
        ScramSHA1,
        "fyko+d2lbbFgONRv9qkxdawL",
        b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    (
        ScramSHA256,
        "rOprNGfwEbeRWgbNEkqO",
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
]


@pytest.mark.parametrize(("mechanism", "nonce", "first", "proof", "last"), RFCS, ids=["5802", "7677"])
def test_examples_of_the_rfcs(mechanism, nonce, first, proof, last):
    """RFC 5802 section 5, RFC 7677 section 3."""
    one = mechanism(USER, nonce=nonce)
    assert one.pending(None) is None
    assert one.initial_response() == f"n,,n=user,r={nonce}".encode()
    assert one.secrets() == ()
    assert respond(one, first) == proof
    assert one.secrets() == (proof.rpartition(b"p=")[2],)
    assert not one.complete
    assert respond(one, last) == b""
    assert one.complete


@pytest.mark.parametrize("mechanism", BARE)
def test_each_hash(mechanism):
    one = mechanism(USER)
    assert converse(one, servers.scram(one.name), {"user": "pencil"}) == "user"
    assert one.complete
    other = mechanism(USER)
    assert converse(other, servers.scram(one.name), {"user": "wrong"}) is None
    assert not other.complete
    assert other.explanation


def test_a_server_that_got_no_initial_response_asks_for_it():
    one = ScramSHA256(USER)
    exchange = servers.scram(one.name)({"user": "pencil"}, None)
    challenge = next(exchange)
    assert challenge == b""
    challenge = exchange.send(respond(one, challenge))
    with pytest.raises(StopIteration):
        exchange.send(respond(one, exchange.send(respond(one, challenge))))
    assert one.complete


class TestNames:
    def test_saslprep_and_escapes(self):
        one = ScramSHA1(Credentials(username="a=b,c\u00ad\u2168", password="p"), nonce="x")
        assert one.initial_response() == b"n,,n=a=3Db=2CcIX,r=x"

    def test_an_authzid(self):
        one = ScramSHA1(Credentials(username="ann", password="p", authzid="b=o,b"), nonce="x")
        assert one.initial_response() == b"n,a=b=3Do=2Cb,n=ann,r=x"
        proof = respond(one, b"r=xy,s=QSXCR+Q6sek8bf92,i=4096")
        assert base64.b64decode(proof.split(b",")[0][2:]) == b"n,a=b=3Do=2Cb,"

    @pytest.mark.parametrize("field", ["username", "password"])
    @pytest.mark.parametrize("bad", ["a\0", "\udc80", "a\u0007", "\u0627x"])
    def test_bad_text(self, field, bad):
        values: dict[str, Any] = {"username": "a", "password": "b", field: bad}
        with pytest.raises(InvalidArgument) as caught:
            ScramSHA256(Credentials(**values)).initial_response()
        assert caught.value.__cause__ is None

    def test_the_nonce_is_random(self):
        assert len({ScramSHA256(USER).initial_response() for _ in range(20)}) == 20


# --- channel binding -----------------------------------------------------------------------------------------


class TestBinding:
    @pytest.mark.parametrize("mechanism", PLUS)
    @pytest.mark.parametrize("kind", ["tls-server-end-point", "tls-unique"])
    def test_bound(self, mechanism, kind):
        one = mechanism(USER, Peer(bindings={kind: b"0123"}, offered=frozenset({mechanism.name})))
        assert one.initial_response().startswith(f"p={kind},,n=user,".encode())
        assert converse(one, servers.scram(one.name, binding=(kind, b"0123")), {"user": "pencil"}) == "user"
        assert one.complete
        assert one.strength is Strength.BOUND

    def test_tls_exporter(self):
        """Scramp does not know it: the formulas of RFC 5802."""
        one = ScramSHA256Plus(
            Credentials(username="user", password="pencil", authzid="ann"),
            Peer(bindings={"tls-exporter": b"\0" * 32, "tls-server-end-point": b"x"}),
            nonce="n",
        )
        assert one.initial_response() == b"p=tls-exporter,a=ann,n=user,r=n"
        proof = respond(one, b"r=n2,s=QSXCR+Q6sek8bf92,i=4096")
        bound = base64.b64encode(b"p=tls-exporter,a=ann," + b"\0" * 32)
        assert proof.startswith(b"c=" + bound + b",r=n2,p=")
        mechanism = ScramMechanism("SCRAM-SHA-256")
        _, _, key, _ = mechanism.make_auth_info(
            "pencil", salt=base64.b64decode(b"QSXCR+Q6sek8bf92"), iteration_count=4096
        )
        import hmac

        message = b"n=user,r=n,r=n2,s=QSXCR+Q6sek8bf92,i=4096,c=" + bound + b",r=n2"
        signature = base64.b64encode(hmac.digest(key, message, "sha256"))
        respond(one, b"v=" + signature)
        assert one.complete

    def test_another_channel_is_refused(self):
        """The login of a client that talks to somebody in between, who passes it on."""
        one = ScramSHA256Plus(USER, Peer(bindings=END_POINT))
        server = servers.scram(one.name, binding=("tls-server-end-point", b"the server's own"))
        assert converse(one, server, {"user": "pencil"}) is None
        assert one.explanation == "channel-bindings-dont-match"
        assert not one.complete

    @pytest.mark.parametrize("mechanism", BARE)
    def test_a_stripped_offer_is_noticed(self, mechanism):
        """The server supports binding, this side, too, but no -PLUS arrived: flag y, which the server refuses."""
        one = mechanism(USER, Peer(bindings=END_POINT, offered=frozenset({mechanism.name})))
        assert one.initial_response().startswith(b"y,,")
        server = servers.scram(one.name, binding=("tls-server-end-point", b"0123456789abcdef"))
        assert converse(one, server, {"user": "pencil"}) is None
        assert one.explanation == "server-does-support-channel-binding"

    def test_flag_y_is_no_obstacle_where_nothing_was_stripped(self):
        one = ScramSHA256(USER, Peer(bindings=END_POINT, offered=frozenset({"SCRAM-SHA-256"})))
        assert converse(one, servers.scram(one.name), {"user": "pencil"}) == "user"

    def test_flag_n_where_this_side_cannot_bind_or_was_told_not_to(self):
        offered = frozenset({"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"})
        for peer in (Peer(offered=offered), Peer(bindings=END_POINT, offered=offered)):
            assert ScramSHA256(USER, peer).initial_response().startswith(b"n,,")

    def test_plus_is_chosen_first_where_it_can_be(self):
        names = {one.name for one in (*BARE, *PLUS)}
        for _ in range(3):
            bound = Peer(secure=True, offered=frozenset(names), bindings={"tls-unique": b"x"})
            best = select(USER, bound).name
            assert best == max(names, key=lambda name: (int(name.split("-")[2]), name.endswith("-PLUS")))
            names -= {best}
            unbound = Peer(secure=True, offered=frozenset({*names, best}))
            assert select(USER, unbound).name == best.removesuffix("-PLUS")
            names -= {best.removesuffix("-PLUS")}

    def test_a_binding_that_mail_servers_do_not_know_is_used_where_it_is_asked_for(self):
        offered = frozenset({"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"})
        peer = Peer(secure=True, offered=offered, bindings=END_POINT)
        assert select(USER, peer).name == "SCRAM-SHA-256"
        for asked_for in ({"mechanisms": ["SCRAM-SHA-256-PLUS"]}, {"minimum_strength": Strength.BOUND}):
            one = select(replace(USER, **asked_for), peer)
            assert one.name == "SCRAM-SHA-256-PLUS"
            assert (one.initial_response() or b"").startswith(b"p=tls-server-end-point,,")


# --- servers that cheat --------------------------------------------------------------------------------------

FIRST = b"r=%b,s=QSXCR+Q6sek8bf92,i=%b"


class TestHostile:
    @pytest.mark.parametrize(
        "challenge",
        [
            FIRST % (b"nonce2", b"1"),
            FIRST % (b"nonce2", b"4095"),
            FIRST % (b"nonce2", b"1000001"),
            FIRST % (b"nonce2", b"2147483648"),
            FIRST % (b"nonce2", b"9" * 5000),
            FIRST % (b"nonce2", b"+4096"),
            FIRST % (b"nonce2", b" 4096"),
            FIRST % (b"nonce2", b"4096x"),
            FIRST % (b"nonce2", b"0x1000"),
            FIRST % (b"nonce2", b"04096"),
            FIRST % (b"nonce2", "٤٠٩٦".encode()),
            FIRST % (b"nonce2", b""),
            FIRST % (b"nonce", b"4096"),
            FIRST % (b"other", b"4096"),
            FIRST % (b"xnonce2", b"4096"),
            FIRST % (b"", b"4096"),
            b"m=x," + FIRST % (b"nonce2", b"4096"),
            b"r=nonce2,s=QSXCR+Q6sek8bf92",
            b"r=nonce2,i=4096",
            b"s=QSXCR+Q6sek8bf92,i=4096",
            b"r=nonce2,s=,i=4096",
            b"r=nonce2,s=!!!,i=4096",
            b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            b"garbage",
            b"\xff\xfe",
            b"r=nonce2,r=nonce3,s=QSXCR+Q6sek8bf92,i=4096",
        ],
    )
    @pytest.mark.parametrize("mechanism", BARE)
    def test_first_messages(self, mechanism, challenge):
        one = mechanism(USER, nonce="nonce")
        one.initial_response()
        with pytest.raises(ProtocolViolation) as caught:
            respond(one, challenge)
        assert caught.value.__cause__ is None
        assert not one.complete

    @pytest.mark.parametrize("iterations", [4096, 5000])
    def test_the_bounds_themselves_are_taken(self, iterations):
        one = ScramSHA1(USER, nonce="nonce")
        one.initial_response()
        assert one.pending(FIRST % (b"nonce2", b"%d" % iterations)) is not None
        most = ScramSHA1(USER, nonce="nonce")
        most.initial_response()
        assert most.pending(FIRST % (b"nonce2", b"1000000")) is not None

    @pytest.mark.parametrize(
        "last",
        [
            b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            b"v=",
            b"v=!!!",
            b"",
            b"garbage",
            b"v=rmF9pqV8S7suAoZWja4dJRkFsKU=",
        ],
    )
    def test_a_server_that_does_not_know_the_password(self, last):
        mechanism, nonce, first, _, _ = RFCS[0]
        one = mechanism(USER, nonce=nonce)
        one.initial_response()
        respond(one, first)
        with pytest.raises(ProtocolViolation) as caught:
            respond(one, last)
        assert not one.complete
        # Nor is it told what would have been right.
        assert "rmF9pqV8S7suAoZWja4dJRkFsKQ" not in str(caught.value)

    @pytest.mark.parametrize("when", [0, 1])
    def test_an_error_message_is_told_and_answered(self, when):
        mechanism, nonce, first, _, _ = RFCS[0]
        one = mechanism(USER, nonce=nonce)
        one.initial_response()
        for challenge in [first][:when]:
            respond(one, challenge)
        assert respond(one, b"e=unknown-user\x1b[2J" + b"x" * 1000) == b""
        assert one.explanation.startswith("unknown-user\\x1b[2J")
        assert len(one.explanation) <= 100
        assert not one.complete
        with pytest.raises(ProtocolViolation, match="another challenge"):
            respond(one, b"e=again")

    def test_a_third_message(self):
        mechanism, nonce, first, _, last = RFCS[0]
        one = mechanism(USER, nonce=nonce)
        one.initial_response()
        respond(one, first)
        respond(one, last)
        with pytest.raises(ProtocolViolation, match="another challenge"):
            respond(one, b"")

    @given(st.binary(max_size=200) | st.text("rsim=,+/4096n", max_size=40).map(str.encode))
    def test_anything(self, challenge):
        one = ScramSHA1(USER, nonce="nonce")
        one.initial_response()
        try:
            respond(one, challenge)
        except ProtocolViolation:
            pass
        assert not one.complete


def test_the_key_is_derived_where_waiting_is_allowed(monkeypatch):
    import hashlib

    where = []
    derive = hashlib.pbkdf2_hmac

    def watched(*args):
        where.append(threading.current_thread())
        return derive(*args)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", watched)
    one = ScramSHA1(USER, nonce="nonce")
    one.initial_response()
    pending = one.pending(FIRST % (b"nonce2", b"4096"))
    assert where == []
    assert pending is not None and pending.blocking
    thread = threading.Thread(target=pending.work)
    thread.start()
    thread.join()
    assert where == [thread]
    assert one.respond(FIRST % (b"nonce2", b"4096")).startswith(b"c=biws,r=nonce2,p=")
    assert where == [thread]


def test_the_extra_that_is_missing(monkeypatch):
    assert ScramSHA1.missing() == ""
    monkeypatch.setitem(sys.modules, "scramp", None)

    def nothing(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr("smtp_async.auth.scram.find_spec", nothing)
    assert ScramSHA512Plus.missing() == "smtp-async[sasl]"
