"""An authority for mail, people with certificates, and OpenSSL as the reader of what they send each other."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from smtp_async.message.sign import signer_of
from smtp_async.model.signing import LocalSigner, MessageSigner
from tests.servers.machine import program

__all__ = [
    "NOW",
    "Person",
    "applied",
    "authority",
    "decrypted",
    "inner_of",
    "issued",
    "key_of",
    "openssl",
    "person",
    "verified",
]

#: The time at which messages are signed.
NOW = datetime.now(UTC).timestamp()
DAY = timedelta(days=1)
MAIL = ExtendedKeyUsageOID.EMAIL_PROTECTION


class Person(NamedTuple):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@cache
def key_of(kind: str) -> Any:
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:] or 2048))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curve = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "k1": ec.SECP256K1()}[
        kind
    ]
    return ec.generate_private_key(curve)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _build(subject: x509.Name, issuer: x509.Name, key: Any, valid: tuple[datetime, datetime]) -> Any:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
    )


@cache
def authority() -> Person:
    key, name, now = key_of("p256"), _name("Lab CA"), datetime.now(UTC)
    builder = _build(name, name, key, (now - DAY, now + 30 * DAY))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return Person(builder.sign(key, SHA256()), key)


def issued(
    kind: str,
    *,
    emails: Sequence[str] = ("ann@example.com",),
    usage: Iterable[str] | None = ("digital_signature", "key_encipherment", "key_agreement"),
    purposes: Sequence[x509.ObjectIdentifier] | None = (MAIL,),
    valid: tuple[timedelta, timedelta] = (-DAY, 10 * DAY),
    names: Sequence[x509.GeneralName] = (),
    subject: x509.Name | None = None,
) -> Person:
    """Issue a certificate."""
    key, now, ca = key_of(kind), datetime.now(UTC), authority()
    builder = _build(
        subject or _name(f"Ann {kind}"), ca.certificate.subject, key, (now + valid[0], now + valid[1])
    )
    alternatives = [*map(x509.RFC822Name, emails), *names]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    if usage is not None:
        every = (
            "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign "
            "crl_sign encipher_only decipher_only"
        ).split()
        chosen = set(usage)
        flags = {name: name in chosen for name in every}
        builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    return Person(builder.sign(ca.key, SHA256()), key)


@cache
def person(kind: str) -> Person:
    """Return Ann with a key of that kind; always the same."""
    return issued(kind)


# --- the way of a message ----------------------------------------------------------------------------------------


def inner_of(message: bytes) -> bytes:
    """Return what becomes the content: the Content- fields and all behind the header."""
    header, _, body = message.partition(b"\r\n\r\n")
    fields: list[bytes] = []
    for line in header.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            fields[-1] += b"\r\n" + line
        else:
            fields.append(line)
    return b"".join([one + b"\r\n" for one in fields if one.lower().startswith(b"content-")]) + b"\r\n" + body


def applied(message: bytes, *ways: MessageSigner, step: int | None = None) -> bytes:
    """Return a message as those make it, whose keys are all in this process; fed in pieces of `step` octets."""
    for one in ways:
        end = message.index(b"\r\n\r\n") + 4
        signing = one.begin(message[:end], NOW)
        assert signing is not None
        size = step or len(message)
        for start in range(end, len(message), size):
            signing.feed(message[start : start + size])
        signatures = []
        for wanted in signing.end():
            signer = signer_of(wanted.signer)
            assert isinstance(signer, LocalSigner)
            signatures.append(signer.sign(wanted))
        before, start_kept, after = signing.finish(signatures)
        message = before + (b"" if start_kept is None else message[start_kept:]) + after
    return message


def openssl(directory: Path, words: str) -> None:
    """Run `openssl cms` in a directory; its complaints are the text of an AssertionError."""
    command: list[str | Path] = [program("openssl"), "cms", *words.split()]
    done = subprocess.run(command, cwd=directory, capture_output=True, timeout=15)
    assert done.returncode == 0, done.stderr.decode()


def verified(directory: Path, message: bytes) -> bytes:
    """Return the content of a signed message, whose signature OpenSSL verifies up to the authority, for mail."""
    (directory / "ca.pem").write_bytes(authority().pem)
    (directory / "signed.eml").write_bytes(message)
    words = "-verify -purpose smimesign -CAfile ca.pem -in signed.eml -out content"
    openssl(directory, words)
    return (directory / "content").read_bytes()


def decrypted(directory: Path, message: bytes, reader: Person) -> bytes:
    """Return the content of an encrypted message, as OpenSSL reads it for `reader`."""
    (directory / "encrypted.eml").write_bytes(message)
    (directory / "reader.pem").write_bytes(reader.pem)
    (directory / "reader.key").write_bytes(reader.key_pem)
    words = "-decrypt -binary -in encrypted.eml -recip reader.pem -inkey reader.key -out decrypted"
    openssl(directory, words)
    return (directory / "decrypted").read_bytes()
