"""What a handshake leaves behind: the parser of the Certificate message, and the watching itself."""

import pickle
import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls import TLSOptions, handshake_witness, looks_like_tls, make_context
from smtp_async.tls.handshake_witness import Evidence, evidence_of, handshake_of, observe
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
    first, second = handshake_witness._watching(context), handshake_witness._watching(context)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert context._msg_callback is handshake_witness._report
    second.__exit__(None, None, None)
    assert context._msg_callback is None
