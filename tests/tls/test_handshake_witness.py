"""What a handshake leaves behind."""

import contextlib
import pickle
import ssl
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls import TLSOptions, handshake_witness, looks_like_tls, make_context
from smtp_async.tls.handshake_witness import (
    Evidence,
    Handshake,
    cut_short,
    evidence_of,
    handshake_of,
    observe,
)
from smtp_async.tls.suites import find_suite
from tests.tls.certificates import der
from tests.transport.lab import CA, client_context, server_context

LEAF = CA.issue_cert("localhost")


class TestLooksLikeTLS:
    @pytest.mark.parametrize("data", [b"\x15", b"\x16\x03", b"\x15\x03\x01\x00\x02\x02\x46", b"\x17\x03\x03"])
    def test_yes(self, data):
        assert looks_like_tls(data)

    @pytest.mark.parametrize(
        "data", [b"", b"2", b"220 ", b"\x15\x02", b"\x16\x03\x05", b"\x0d\x0a", b"\x80\x03"]
    )
    def test_no(self, data):
        assert not looks_like_tls(data)

    @given(st.from_regex(rb"\A[2-5][0-9]{2}[ -].*"))
    def test_no_reply_does(self, data):
        assert not looks_like_tls(data)


def handshake(client_side, server_side, name="localhost"):
    """Do a handshake in memory; return the client's object, raise what it raises."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for one in (client, server):
            try:
                one.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return client


class TestWatching:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_a_refused_certificate_is_seen(self, version):
        server = server_context(LEAF)
        server.maximum_version = version
        client: Any = client_context()
        observe(client)
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            handshake(client, server, "other.example")
        assert evidence_of(caught.value) == Evidence(der(LEAF))
        assert evidence_of(pickle.loads(pickle.dumps(caught.value))) == Evidence(der(LEAF))
        assert client._msg_callback is None

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_an_accepted_chain_is_seen(self, version):
        leaf = CA.create_child_ca().issue_cert("localhost")
        server = server_context(leaf)
        server.maximum_version = version
        client: Any = client_context()
        observe(client)
        assert handshake_of(handshake(client, server)).chain == der(leaf)
        assert len(der(leaf)) == 2
        assert client._msg_callback is None

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    @pytest.mark.parametrize("asked", [True, False])
    @pytest.mark.parametrize("shown", [True, False])
    def test_keys_signature_and_client_certificate_are_seen(self, version, asked, shown):
        server, client = server_context(LEAF), client_context()
        server.maximum_version = version
        observe(client)
        if asked:
            CA.configure_trust(server)
            server.verify_mode = ssl.CERT_OPTIONAL
        if shown:
            CA.issue_cert("me@test").configure_cert(client)
        seen = handshake_of(handshake(client, server))
        # A server that trusts its own authority shows it, too.
        assert seen.chain[:1] == der(LEAF)
        assert seen._replace(chain=()) == Handshake(
            key_exchange="ECDHE",
            group="x25519",
            signature_algorithm="ecdsa_secp256r1_sha256",
            client_auth_requested=asked,
            client_authenticated=asked and shown,
        )

    def test_of_two_groups_the_one_that_counts_is_seen(self):
        """The server asks for another share than the client sent (HelloRetryRequest)."""
        server, client = server_context(LEAF), client_context()
        server.set_ecdh_curve("secp384r1")
        observe(client)
        assert handshake_of(handshake(client, server)).group == "secp384r1"

    @pytest.mark.parametrize(("version", "scheme"), [(0x0302, "ecdsa_sha1"), (0x0303, "rsa_pkcs1_sha1")])
    def test_old_ways_to_sign(self, version, scheme):
        parameters = b"\x03\0\x17\x01p" + (b"\x02\x01" if version == 0x0303 else b"") + b"\0\x01s"
        hello = version.to_bytes(2, "big") + bytes(32) + b"\0\xc0\x09\0"
        seen = handshake_witness.keys_in(
            find_suite("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"),
            b"\x02" + len(hello).to_bytes(3, "big") + hello,
            b"\x0c" + len(parameters).to_bytes(3, "big") + parameters,
        )
        assert seen == Handshake(key_exchange="ECDHE", group="secp256r1", signature_algorithm=scheme)

    def test_a_hint_for_a_shared_key(self):
        hello = b"\x03\x03" + bytes(32) + b"\0\0\xa8\0"
        seen = handshake_witness.keys_in(
            find_suite("PSK-AES128-GCM-SHA256"),
            b"\x02" + len(hello).to_bytes(3, "big") + hello,
            b"\x0c\0\0\x06\0\x04a\x1bb\xff",
        )
        assert seen == Handshake(key_exchange="PSK", psk_hint="a\\x1bb\\xff")

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="Python speaks TLS with shared keys from 3.13 on")
    @pytest.mark.parametrize(
        ("suite", "exchange", "group"),
        [("PSK-AES128-GCM-SHA256", "PSK", None), ("ECDHE-PSK-CHACHA20-POLY1305", "ECDHE", "x25519")],
    )
    def test_a_handshake_with_a_shared_key(self, suite, exchange, group):
        client: Any = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        server: Any = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        for one in (client, server):
            one.maximum_version = ssl.TLSVersion.TLSv1_2
            one.set_ciphers(suite)
        client.set_psk_client_callback(lambda hint: ("me", bytes(32)))
        server.set_psk_server_callback(lambda identity: bytes(32), "the hint")
        observe(client)
        seen = handshake_of(handshake(client, server))
        assert (seen.key_exchange, seen.group, seen.psk_hint, seen.chain) == (exchange, group, "the hint", ())

    def test_keys_from_an_earlier_secret_alone(self):
        assert handshake_witness.agreed_in(None) == Handshake(key_exchange="PSK")
        assert handshake_witness.agreed_in(0xFE00) == Handshake(group="0xfe00")
        assert handshake_witness.keys_in(None, b"", b"") == Handshake()

    def test_nothing_but_a_farewell_ends_tls_politely(self):
        server, client = server_context(LEAF), client_context()
        observe(client)
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours: Any = client.wrap_bio(to_client, to_server, server_hostname="localhost")
        theirs = server.wrap_bio(to_server, to_client, server_side=True)
        for one in (ours, theirs, ours, theirs):
            with contextlib.suppress(ssl.SSLWantReadError):
                one.do_handshake()
        theirs.write(b"bye")
        buffer = bytearray(2)
        assert ours.read(2, buffer) == 2 and ours.read(2) == b"e" and buffer == b"by"
        assert cut_short(ours)
        with contextlib.suppress(ssl.SSLWantReadError):
            theirs.unwrap()
        assert ours.read(1) == b""
        assert not cut_short(ours)
        assert not cut_short(theirs)

    def test_plaintext_is_seen(self):
        client: Any = client_context()
        observe(client)
        incoming = ssl.MemoryBIO()
        one = client.wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            one.do_handshake()
        incoming.write(b"220 mail.example ESMTP\r\n" + b"x" * 10_000)
        with pytest.raises(ssl.SSLError) as caught:
            one.do_handshake()
        seen = evidence_of(caught.value).first_bytes
        assert seen.startswith(b"220 mail.example ESMTP\r\n")
        assert len(seen) < 600

    def test_a_context_with_a_callback_keeps_it(self):
        seen = []
        client: Any = client_context()
        client._msg_callback = lambda *args: seen.append(args)
        mine = client._msg_callback
        observe(client)
        assert handshake_of(handshake(client, server_context(LEAF))).chain == der(LEAF)
        assert client._msg_callback is mine
        assert seen

    def test_a_context_with_objects_of_its_own_keeps_them(self):
        class Own(ssl.SSLObject):
            pass

        client: Any = client_context()
        client.sslobject_class = Own
        observe(client)
        assert type(handshake(client, server_context(LEAF))) is Own
        with pytest.raises(ssl.SSLError) as caught:
            handshake(client, server_context(LEAF), "other.example")
        assert evidence_of(caught.value) == Evidence()

    def test_the_applications_context_is_watched(self):
        own = client_context()
        make_context(TLSOptions(context=own))
        with pytest.raises(ssl.SSLError) as caught:
            handshake(own, server_context(LEAF), "other.example")
        assert evidence_of(caught.value).chain == der(LEAF)

    def test_no_certificate(self):
        class Nobody:
            def getpeercert(self, binary_form):
                return None

            def cipher(self):
                return None

        nobody: Any = Nobody()
        assert handshake_of(nobody).chain == ()
        assert evidence_of(None) == Evidence()


def test_a_context_of_two_threads_is_watched_until_the_last_has_left() -> None:
    context: Any = ssl.create_default_context()
    first, second = handshake_witness.watching(context), handshake_witness.watching(context)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert context._msg_callback is handshake_witness.report
    second.__exit__(None, None, None)
    assert context._msg_callback is None
