"""What was negotiated, and what a certificate says."""

import copy
import datetime
import hashlib
import pickle
import ssl
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls import CertificateFacts, ConnectionInfo, TLSOptions, make_context
from smtp_async.transport import dial
from tests.tls.certificates import NOW, der
from tests.transport.lab import CA, client_context, implicit, server_context, serving, sink

LEAF = CA.issue_cert("mail.example.com", "*.example.org", "192.0.2.1", "2001:db8::1", common_name="mail")


def read(der: bytes) -> Any:
    """Return what a certificate says."""
    return CertificateFacts.of(der)


class TestFacts:
    def test_of_a_certificate(self):
        (leaf,) = der(LEAF)
        facts = read(leaf)
        assert facts.names == ("mail.example.com", "*.example.org", "192.0.2.1", "2001:db8::1")
        assert "CN=mail" in facts.subject
        assert "trustme" in facts.issuer
        assert facts.not_before < NOW < facts.not_after
        assert facts.not_after.tzinfo is datetime.UTC
        assert facts.sha256 == hashlib.sha256(leaf).hexdigest()
        assert facts.serial_number == x509.load_der_x509_certificate(leaf).serial_number
        assert not facts.self_issued

    @given(st.binary(max_size=300))
    def test_of_anything(self, data):
        assert read(data) is None

    @given(st.data())
    def test_of_a_damaged_one(self, data):
        blob = bytearray(der(LEAF)[0])
        blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
        facts = read(bytes(blob))
        assert facts is None or all(map(str.isprintable, (facts.subject, facts.issuer, *facts.names)))

    def test_names_cannot_forge_a_log_line(self):
        leaf = CA.issue_cert("localhost", common_name="a\r\n\x1b[2J\u202e")
        facts = read(der(leaf)[0])
        assert facts.subject.isprintable()
        assert "\u202e" not in facts.subject

    def test_self_issued(self):
        root = ssl.PEM_cert_to_DER_cert(CA.cert_pem.bytes().decode())
        assert read(root).self_issued
        assert read(root).names == ()


class TestInfo:
    def test_plain(self, run):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port)
                info: Any = ConnectionInfo.of(stream, host="localhost", port=server.port)
                assert (info.host, info.port) == ("localhost", server.port)
                assert info.peer == ("127.0.0.1", server.port)
                assert info.local == stream.local
                assert not info.encrypted
                assert info.verified is None
                assert info.certificate is None
                assert info.facts is None
                stream.abort()

        run(scenario())

    @pytest.mark.parametrize("verifies", [True, False])
    def test_tls(self, run, verifies):
        async def scenario():
            context = client_context()
            if not verifies:
                context.check_hostname = False
            make_context(TLSOptions(context=context))
            leaf = CA.issue_cert("localhost")
            async with serving(implicit(server_context(leaf), sink)) as server:
                stream = await dial("127.0.0.1", server.port)
                await stream.start_tls(context, "localhost")
                info: Any = ConnectionInfo.of(stream, host="localhost", port=server.port)
                assert info.encrypted
                assert info.tls_version == "TLSv1.3"
                assert info.cipher.startswith("TLS_")
                assert info.bits >= 128
                assert info.verified is verifies
                assert (info.verification_error is None) is verifies
                assert info.chain == der(leaf)
                assert info.certificate == der(leaf)[0]
                assert info.facts.names == ("localhost",)
                assert repr(info.certificate) not in repr(info)
                assert pickle.loads(pickle.dumps(info)) == copy.copy(info) == info
                stream.abort()

        run(scenario())
