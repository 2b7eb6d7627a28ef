"""A throw-away certificate authority and the leaves that TLS tests need, good and bad."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOSTS = ("localhost", "127.0.0.1", "::1", "mail.lab.test")
#: The common name of the client's certificate.
CLIENT_NAME = "user@lab.test"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate with its key, as PEM files.

    Attributes:
        certificate: The certificate, and those of its issuers that a server sends along.
        key: Its private key, not encrypted.
        combined: Key and certificate in one file.
    """

    certificate: Path
    key: Path
    combined: Path


class Pki:
    """A certificate authority in a directory.

    Attributes:
        ca_file: The authority's certificate: the one thing a client must trust.
        server: For localhost, 127.0.0.1, ::1 and mail.lab.test; its key is on a curve.
        rsa: The same names, with an RSA key of 2048 bits.
        expired: The same names, valid until a month ago.
        wrong_host: Valid, for other.example only.
        self_signed: The same names, signed by no authority.
        client: For a client that shows a certificate; its common name is user@lab.test.
        chained_client: The same, signed by an intermediate authority, whose certificate follows.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA(organization_name="smtp_async tests")
        self.ca_file = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca_file)
        past = datetime.now(UTC) - timedelta(days=60)
        issue = self._authority.issue_cert
        self.server = self._store("server", issue(*HOSTS, common_name="localhost"))
        rsa = issue(*HOSTS, common_name="localhost", key_type=trustme.KeyType.RSA)
        self.rsa = self._store("rsa", rsa)
        self.expired = self._store(
            "expired",
            issue(*HOSTS, common_name="localhost", not_before=past, not_after=past + timedelta(days=30)),
        )
        self.wrong_host = self._store("wrong-host", issue("other.example", common_name="other.example"))
        self.client = self._store("client", issue(CLIENT_NAME, common_name=CLIENT_NAME))
        chained = self._authority.create_child_ca().issue_cert(CLIENT_NAME, common_name=CLIENT_NAME)
        self.chained_client = self._store("chained-client", chained)
        self.self_signed = self._self_signed("self-signed")

    def client_context(self, *, identity: Leaf | None = None) -> ssl.SSLContext:
        """A client's context that trusts this authority alone, and shows `identity` if asked."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if identity:
            context.load_cert_chain(identity.combined)
        return context

    def server_context(self, leaf: Leaf | None = None, *, ask_client: bool = False) -> ssl.SSLContext:
        """A server's context that shows `leaf` (the good one), and demands a certificate if told to."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca_file)
        context.load_cert_chain((leaf or self.server).combined)
        context.verify_mode = ssl.CERT_REQUIRED if ask_client else ssl.CERT_NONE
        return context

    def _store(self, name: str, leaf: trustme.LeafCert) -> Leaf:
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return self._write(name, leaf.private_key_pem.bytes(), chain)

    def _write(self, name: str, key: bytes, chain: bytes) -> Leaf:
        leaf = Leaf(*(self._directory / f"{name}.{suffix}" for suffix in ("crt", "key", "pem")))
        leaf.certificate.write_bytes(chain)
        for path, content in ((leaf.key, key), (leaf.combined, key + chain)):
            path.touch(mode=0o600)
            path.write_bytes(content)
        return leaf

    def _self_signed(self, name: str) -> Leaf:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        names = [_general_name(host) for host in HOSTS]
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        form = serialization.PrivateFormat.PKCS8
        private = key.private_bytes(pem, form, serialization.NoEncryption())
        return self._write(name, private, certificate.public_bytes(pem))


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
