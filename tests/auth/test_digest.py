"""digest.py: DIGEST-MD5 with the examples of RFC 2831, quoting, charsets, and the server's proof."""

import contextlib
import hashlib
import string
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.auth import Credentials
from smtp_async.auth.digest import DigestMD5, parse_directives
from smtp_async.auth.mechanism import Peer
from smtp_async.errors import FeatureUnavailable, InvalidArgument, ProtocolViolation

CHRIS = Credentials(username="chris", password="secret")
CHALLENGE = b'realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",qop="auth",algorithm=md5-sess,charset=utf-8'


def digest(credentials=CHRIS, nonce="OA6MHXh6VqTrRk", **peer):
    return DigestMD5(
        credentials, Peer(**{"service": "imap", "host": "elwood.innosoft.com", **peer}), nonce=nonce
    )


def test_example_of_rfc_2831():
    """Section 4, the IMAP example."""
    one = digest()
    assert one.initial_response() is None
    answer = dict(parse_directives(one.respond(CHALLENGE)))
    assert answer == {
        "charset": b"utf-8",
        "username": b"chris",
        "realm": b"elwood.innosoft.com",
        "nonce": b"OA6MG9tEQGm2hh",
        "nc": b"00000001",
        "cnonce": b"OA6MHXh6VqTrRk",
        "digest-uri": b"imap/elwood.innosoft.com",
        "response": b"d388dad90d4bbd760a152321f2143af7",
        "qop": b"auth",
    }
    assert one.secrets() == (b"d388dad90d4bbd760a152321f2143af7",)
    assert not one.complete
    assert one.respond(b"rspauth=ea40f60335c427b5527b84dbabcdfffd") == b""
    assert one.complete


def test_second_example_of_rfc_2831():
    """Section 4, the ACAP example."""
    one = digest(nonce="OA9BSuZWMSpW8m", service="acap")
    challenge = (
        b'realm="elwood.innosoft.com",nonce="OA9BSXrbuRhWay",qop="auth",algorithm=md5-sess,charset=utf-8'
    )
    assert b"response=6084c6db3fede7352c551284490fd0fc," in one.respond(challenge)
    one.respond(b"rspauth=2f0b3d7c3c2e486600ef710726aa2eae")
    assert one.complete


class TestProof:
    @pytest.mark.parametrize(
        "last", [b"", b"rspauth=", b"rspauth=ea40f60335c427b5527b84dbabcdfff0", b"ok=1", CHALLENGE]
    )
    def test_without_it_the_login_does_not_count(self, last):
        one = digest()
        one.respond(CHALLENGE)
        with pytest.raises(ProtocolViolation, match="rspauth"):
            one.respond(last)
        assert not one.complete

    def test_a_third_challenge(self):
        one = digest()
        one.respond(CHALLENGE)
        one.respond(b"rspauth=ea40f60335c427b5527b84dbabcdfffd")
        with pytest.raises(ProtocolViolation, match="third"):
            one.respond(b"")


class TestChallenge:
    @pytest.mark.parametrize(
        ("challenge", "words"),
        [
            (b"", "one nonce"),
            (b"garbage", "not a list"),
            (b'nonce="x', "not a list"),
            (b'nonce="x" qop="auth"', "not a list"),
            (b'nonce="",algorithm=md5-sess', "one nonce"),
            (b'nonce="x",nonce="y",algorithm=md5-sess', "one nonce"),
            (b'nonce="x"', "md5-sess"),
            (b'nonce="x",algorithm=md5', "md5-sess"),
            (b'nonce="x",algorithm=md5-sess,qop="auth-int,auth-conf"', "security layer"),
            (b'nonce="x",algorithm=md5-sess,opaque="%b"' % (b"y" * 2048), "too long"),
        ],
    )
    def test_refused(self, challenge, words):
        with pytest.raises(ProtocolViolation, match=words):
            digest().respond(challenge)

    @pytest.mark.parametrize(
        "challenge",
        [
            b'realm="",nonce="a\\"b\\\\c",algorithm="md5-sess"',
            b', ,realm="" , nonce="a\\"b\\\\c" , algorithm = MD5-sess,,qop="auth-int , auth",maxbuf=9,cipher="des,rc4"',
        ],
    )
    def test_quoting_as_servers_do_it(self, challenge):
        answer = digest().respond(challenge)
        assert b'nonce="a\\"b\\\\c"' in answer
        assert dict(parse_directives(answer))["nonce"] == b'a"b\\c'

    def test_names_are_quoted(self):
        answer = digest(Credentials(username='an"n\\', password="x")).respond(CHALLENGE)
        assert b'username="an\\"n\\\\"' in answer

    def test_the_realm_is_that_of_the_user_name_or_the_first(self):
        two = b'realm="one",realm="two",nonce="x",algorithm=md5-sess'
        assert b'username="ann",realm="two"' in digest(Credentials(username="ann@two", password="x")).respond(
            two
        )
        assert b'username="ann",realm="one"' in digest(Credentials(username="ann", password="x")).respond(two)
        # Servers with a single realm may have whole addresses as user names.
        assert b'username="ann@one",realm="one"' in digest(
            Credentials(username="ann@one", password="x")
        ).respond(b'realm="one",nonce="x",algorithm=md5-sess')
        assert b"realm" not in digest().respond(b'nonce="x",algorithm=md5-sess')

    def test_an_authzid(self):
        one = digest(Credentials(username="chris", password="secret", authzid="bob"))
        answer = one.respond(CHALLENGE)
        assert answer.endswith(b',authzid="bob"')
        assert b"d388dad90d4bbd760a152321f2143af7" not in answer


class TestCharset:
    def response(self, username, password, *, utf8):
        challenge = b'nonce="x",algorithm=md5-sess' + (b",charset=utf-8" if utf8 else b"")
        one = digest(Credentials(username=username, password=password))
        return dict(parse_directives(one.respond(challenge)))

    def expected(self, secret):
        a1 = hashlib.md5(hashlib.md5(secret).digest() + b":x:OA6MHXh6VqTrRk").hexdigest()
        a2 = hashlib.md5(b"AUTHENTICATE:imap/elwood.innosoft.com").hexdigest()
        return hashlib.md5(f"{a1}:x:00000001:OA6MHXh6VqTrRk:auth:{a2}".encode()).hexdigest().encode()

    def test_what_fits_into_latin_1_is_digested_in_it(self):
        """Section 2.1.2.1, as Cyrus SASL does it: each part by itself."""
        found = self.response("jürgen", "süß", utf8=True)
        assert found["username"] == "jürgen".encode()
        assert found["response"] == self.expected("jürgen::süß".encode("latin-1"))
        found = self.response("jürgen", "süß €", utf8=True)
        assert found["response"] == self.expected("jürgen::".encode("latin-1") + "süß €".encode())

    def test_without_utf_8_everything_is_latin_1(self):
        found = self.response("jürgen", "süß", utf8=False)
        assert found["username"] == "jürgen".encode("latin-1")
        assert found["response"] == self.expected("jürgen::süß".encode("latin-1"))
        for username, password in (("€", "x"), ("x", "€")):
            with pytest.raises(InvalidArgument, match="ISO 8859-1"):
                self.response(username, password, utf8=False)

    @pytest.mark.parametrize("field", ["username", "password", "authzid"])
    def test_bad_text(self, field):
        values: dict[str, Any] = {"username": "a", "password": "b", field: "a\0"}
        with pytest.raises(InvalidArgument):
            digest(Credentials(**values)).respond(CHALLENGE)


def test_without_md5(monkeypatch):
    def refuse(*args, **more):
        raise ValueError("disabled for FIPS")

    monkeypatch.setattr(hashlib, "md5", refuse)
    with pytest.raises(FeatureUnavailable, match="MD5"):
        digest().respond(CHALLENGE)


def test_the_nonce_is_random():
    answers = {DigestMD5(CHRIS).respond(CHALLENGE) for _ in range(20)}
    assert len(answers) == 20


class TestParser:
    @given(st.binary(max_size=200) | st.text('=",\\\\ \ta1', max_size=60).map(str.encode))
    def test_anything(self, text):
        try:
            found = parse_directives(text)
        except ProtocolViolation:
            return
        assert all(name == name.lower() and name for name, _ in found)

    @given(
        st.lists(st.tuples(st.text(string.ascii_lowercase, min_size=1), st.binary(max_size=20)), max_size=5)
    )
    def test_round_trip(self, directives):
        text = b",".join(
            b'%b="%b"' % (name.encode(), value.replace(b"\\", b"\\\\").replace(b'"', b'\\"'))
            for name, value in directives
        )
        assert parse_directives(text) == directives

    def test_it_is_linear(self):
        for text in (b"," * 2048, b'a="' + b"\\" * 2000, b"a=" * 1000, b" " * 2048, b"a" * 2048):
            begun = time.process_time()
            with contextlib.suppress(ProtocolViolation):
                parse_directives(text)
            assert time.process_time() - begun < 1
