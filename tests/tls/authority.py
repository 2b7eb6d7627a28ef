"""Certificates of every kind, good and bad, made one by one."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from smtp_async.tls import Certificate

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
_PEM = serialization.Encoding.PEM
_FLAGS = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


class Entity(NamedTuple):
    """A certificate, its key and the certificates that a server sends along."""

    x509: x509.Certificate
    key: Any
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        return self.x509.public_bytes(serialization.Encoding.DER)

    @property
    def certificate(self) -> Certificate:
        return Certificate(self.der)

    @property
    def ders(self) -> tuple[bytes, ...]:
        """What a server sends, in DER."""
        return (self.der, *(one.public_bytes(serialization.Encoding.DER) for one in self.chain))

    @property
    def pem(self) -> bytes:
        return self.x509.public_bytes(_PEM)

    def sending(self, *others: Entity) -> Entity:
        """Return this with other certificates to send along."""
        return self._replace(chain=tuple(one.x509 for one in others))

    def server_context(self) -> ssl.SSLContext:
        """Return a server's context that shows this chain."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Weak keys and signatures are shown, too.
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "server.pem"
            path.write_bytes(self.combined)
            context.load_cert_chain(path)
        return context

    @property
    def combined(self) -> bytes:
        """The key and what a server sends, in PEM."""
        key = bytes(
            self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return key + self.pem + b"".join(one.public_bytes(_PEM) for one in self.chain)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def general_names(names: Sequence[str | x509.GeneralName]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        if isinstance(name, x509.GeneralName):
            found.append(name)
            continue
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def key_usage(*flags: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{flag: flag in flags for flag in _FLAGS})


def subject_of(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) if name else x509.Name([])


def make(
    name: str,
    issuer: Entity | None = None,
    *,
    names: Sequence[str | x509.GeneralName] | None = ("localhost", "127.0.0.1"),
    ca: bool = False,
    basic: bool = True,
    path_length: int | None = None,
    key: Any = None,
    begin: datetime = NOW - DAY,
    end: datetime = NOW + 30 * DAY,
    usage: Sequence[str] | None = None,
    purposes: Sequence[x509.ObjectIdentifier] | None = None,
    constraints: x509.NameConstraints | None = None,
    digest: Any = None,
    others: Sequence[tuple[x509.ExtensionType, bool]] = (),
    signer: Any = None,
    issuer_name: str | None = None,
    identifiers: bool = True,
    serial: int | None = None,
) -> Entity:
    """Make a certificate; without `issuer` it signs itself."""
    key = key or ec_key()
    signing = signer or (issuer.key if issuer else key)
    issued_by = subject_of(issuer_name) if issuer_name is not None else None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject_of(name))
        .issuer_name(issued_by or (issuer.x509.subject if issuer else subject_of(name)))
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = list(others)
    if basic:
        extensions.append((x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), True))
    if identifiers:
        extensions.append((x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False))
        above = issuer.key.public_key() if issuer else key.public_key()
        extensions.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(above), False))
    if names and not ca:
        extensions.append((x509.SubjectAlternativeName(general_names(names)), False))
    if usage is None and ca:
        usage = ("key_cert_sign", "crl_sign")
    if usage:
        extensions.append((key_usage(*usage), True))
    if purposes:
        extensions.append((x509.ExtendedKeyUsage(purposes), False))
    if constraints is not None:
        extensions.append((constraints, True))
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    return Entity(builder.sign(signing, digest or hashes.SHA256()), key)


#: Names of algorithms in certificates, all of one length.
SHA256_RSA, SHA1_RSA, MD5_RSA = (bytes.fromhex(f"06092a864886f70d0101{last}") for last in ("0b", "05", "04"))


def signed_with_old_hash(entity: Entity, issuer: Entity, *, md5: bool = False) -> Entity:
    """Return `entity`, which `issuer` signed with an RSA key, signed with SHA-1 or MD5: libraries do not do that."""
    old = entity.x509
    named = MD5_RSA if md5 else SHA1_RSA
    content = old.tbs_certificate_bytes.replace(SHA256_RSA, named)
    signature = issuer.key.sign(content, padding.PKCS1v15(), hashes.MD5() if md5 else hashes.SHA1())
    der = entity.der.replace(old.tbs_certificate_bytes, content).replace(SHA256_RSA, named)
    return entity._replace(x509=x509.load_der_x509_certificate(der.replace(old.signature, signature)))


@cache
def root() -> Entity:
    """Return the authority that the tests trust."""
    return make("Root", ca=True, end=NOW + 365 * DAY)


@cache
def intermediate() -> Entity:
    """Return an authority below it."""
    return make("Intermediate", root(), ca=True, end=NOW + 200 * DAY)
