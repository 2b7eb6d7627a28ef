"""bindings.py: the hash of a certificate by its signature, and which bindings a connection has."""

import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from smtp_async import ConnectionInfo, Security, TLSOptions, TrustOptions
from smtp_async.tls.bindings import channel_bindings, server_end_point
from tests.lab import client_of, tls_server
from tests.servers.pki import Pki


def certificate(key: Any, algorithm: Any, **how: Any) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), 7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    return builder.sign(key, algorithm, **how).public_bytes(serialization.Encoding.DER)


RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP384R1())


class TestServerEndPoint:
    """RFC 5929 section 4.1."""

    @pytest.mark.parametrize(
        ("algorithm", "expected"),
        [
            (hashes.SHA256(), "sha256"),
            (hashes.SHA384(), "sha384"),
            (hashes.SHA512(), "sha512"),
            (hashes.SHA3_256(), "sha3_256"),
            (hashes.SHA224(), "sha224"),
        ],
    )
    @pytest.mark.parametrize("key", [RSA, EC], ids=["rsa", "ec"])
    def test_the_hash_of_the_signature(self, key: Any, algorithm: Any, expected: str) -> None:
        der = certificate(key, algorithm)
        assert server_end_point(der) == hashlib.new(expected, der).digest()

    def test_the_hash_of_pss(self) -> None:
        pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
        der = certificate(RSA, hashes.SHA384(), rsa_padding=pss)
        assert server_end_point(der) == hashlib.sha384(der).digest()

    @pytest.mark.parametrize(
        ("oid", "old"),
        [
            # sha256WithRSAEncryption becomes sha1With… and md5With…: the signature is not looked at.
            (bytes.fromhex("2a864886f70d010105"), "sha1"),
            (bytes.fromhex("2a864886f70d010104"), "md5"),
        ],
    )
    def test_broken_hashes_become_sha_256(self, oid: bytes, old: str) -> None:
        der = certificate(RSA, hashes.SHA256()).replace(bytes.fromhex("2a864886f70d01010b"), oid)
        found = x509.load_der_x509_certificate(der).signature_hash_algorithm
        assert found is not None and found.name == old
        assert server_end_point(der) == hashlib.sha256(der).digest()

    def test_not_defined_without_a_hash(self) -> None:
        assert server_end_point(certificate(ed25519.Ed25519PrivateKey.generate(), None)) is None

    def test_not_defined_for_what_is_not_known(self) -> None:
        der = certificate(RSA, hashes.SHA256())
        assert server_end_point(der.replace(bytes.fromhex("2a864886f70d01010b"), bytes(9))) is None
        assert server_end_point(b"garbage") is None


class Played:
    """A TLS layer whose bindings are known."""

    def __init__(self, **bindings: bytes) -> None:
        self.bindings = {kind.replace("_", "-"): data for kind, data in bindings.items()}

    def get_channel_binding(self, kind: str) -> bytes | None:
        return self.bindings.get(kind)


def info_of(version: str, **more: Any) -> ConnectionInfo:
    der = certificate(EC, hashes.SHA256())
    return ConnectionInfo(host="h", encrypted=True, tls_version=version, chain=(der,), **more)


class TestWhich:
    BOTH: Any = Played(tls_exporter=b"e", tls_unique=b"u")

    @pytest.mark.parametrize(
        ("version", "resumed", "runtime", "kinds"),
        [
            ("TLSv1.3", False, ["tls-unique"], ["tls-server-end-point"]),
            ("TLSv1.3", False, ["tls-unique", "tls-exporter"], ["tls-exporter", "tls-server-end-point"]),
            ("TLSv1.3", True, ["tls-unique", "tls-exporter"], ["tls-exporter", "tls-server-end-point"]),
            ("TLSv1.2", False, ["tls-unique"], ["tls-unique", "tls-server-end-point"]),
            ("TLSv1.2", True, ["tls-unique"], ["tls-server-end-point"]),
            ("TLSv1.2", False, [], ["tls-server-end-point"]),
        ],
    )
    def test_by_version_and_runtime(
        self,
        monkeypatch: pytest.MonkeyPatch,
        version: str,
        resumed: bool,
        runtime: list[str],
        kinds: list[str],
    ) -> None:
        monkeypatch.setattr(ssl, "CHANNEL_BINDING_TYPES", runtime)
        assert list(channel_bindings(self.BOTH, info_of(version, session_resumed=resumed))) == kinds

    def test_none_without_tls_or_certificate(self) -> None:
        assert channel_bindings(None, ConnectionInfo(host="h")) == {}
        assert channel_bindings(self.BOTH, ConnectionInfo(host="h", tls_version="TLSv1.3")) == {}

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_both_ends_have_the_same(self, pki: Pki, version: ssl.TLSVersion) -> None:
        trust = TrustOptions(ca_file=pki.ca_file)
        tls = TLSOptions(trust=trust, maximum_version=version)
        async with (
            tls_server(pki) as server,
            client_of(server, host="localhost", security=Security.STARTTLS, tls=tls) as client,
            client.session() as session,
        ):
            await session.connect()
            stream = session._connection.channel.stream
            assert stream is not None
            found = channel_bindings(stream.ssl_object, session.info)
            theirs = server.connections[0].tls
            assert theirs is not None
            der = session.info.certificate
            assert der is not None
            assert found["tls-server-end-point"] == hashlib.sha256(der).digest()
            if version is ssl.TLSVersion.TLSv1_2:
                assert found["tls-unique"] == theirs.get_channel_binding("tls-unique")
            else:
                assert "tls-unique" not in found
