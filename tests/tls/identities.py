"""Keys, certificates and authorities for tests of stores, and files that other programs wrote."""

from __future__ import annotations

import datetime
import functools
import hashlib
import operator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs7,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from smtp_async.tls.certificate import Certificate

FILES = Path(__file__).parent / "files"
#: The password of every file there that has one.
PASSWORD = "changeit"

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)

KEYS = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
}


@functools.cache
def key(kind: str, number: int) -> Any:
    """Return a key, for each number another one."""
    return KEYS[kind]()


def name(common_name: str) -> x509.Name:
    """Return the name of someone at Example, Inc."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "Land"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Town"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example, Inc."),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Mail"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "ann@example.com"),
        ]
    )


def issue(
    holder: Any, subject: x509.Name, issuer: x509.Name, by: Any, *, authority: bool = False
) -> Certificate:
    """Return a certificate for the key `holder`, signed with the key `by`."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(holder.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 30 * DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    edwards = isinstance(by, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return Certificate(builder.sign(by, None if edwards else hashes.SHA256()).public_bytes(Encoding.DER))


ROOT_KEY, MIDDLE_KEY = key("ec", 100), key("ec", 101)
ROOT = issue(ROOT_KEY, name("root"), name("root"), ROOT_KEY, authority=True)
MIDDLE = issue(MIDDLE_KEY, name("middle"), name("root"), ROOT_KEY, authority=True)


@functools.cache
def leaf(common_name: str = "ann", kind: str = "ec", number: int = 0) -> Certificate:
    """Return a certificate that the authority in the middle issued."""
    return issue(key(kind, number), name(common_name), name("middle"), MIDDLE_KEY)


ANN, BOB = leaf("ann"), leaf("bob", "rsa", 1)


def key_pem(holder: Any, password: str | None = None) -> bytes:
    """Return a key in PKCS#8."""
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return bytes(holder.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


def key_der(holder: Any, password: str | None = None) -> bytes:
    """Return a key in PKCS#8, in DER."""
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return bytes(holder.private_bytes(Encoding.DER, PrivateFormat.PKCS8, encryption))


def public_der(holder: Any) -> bytes:
    """Return the public half of a key."""
    return bytes(holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def public_pem(holder: Any) -> bytes:
    """Return the public half of a key in PEM."""
    return bytes(holder.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def pems(*certificates: Certificate) -> bytes:
    """Return certificates one after the other."""
    return "".join(one.pem for one in certificates).encode()


def pfx(
    holder: Any, certificate: Certificate | None, *chain: Certificate, password: str | None = PASSWORD
) -> bytes:
    """Return a PKCS#12 file."""
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    leaf = certificate.x509 if certificate else None
    return pkcs12.serialize_key_and_certificates(b"it", holder, leaf, [one.x509 for one in chain], encryption)


def jks(holder: Any, *chain: Certificate, password: str = PASSWORD) -> bytes:
    """Return a store as Java wrote them, with one identity."""
    secret, salt, block, stream = password.encode("utf-16-be"), bytes(20), bytes(20), b""
    plain = key_der(holder)
    while len(stream) < len(plain):
        block = hashlib.sha1(secret + block).digest()
        stream += block
    hidden = salt + bytes(map(operator.xor, plain, stream)) + hashlib.sha1(secret + plain).digest()
    # An EncryptedPrivateKeyInfo: Sun's own algorithm, and what it made.
    method = bytes.fromhex("300e060a2b060104012a021101010500")
    octets = b"\x04\x82" + len(hidden).to_bytes(2) + hidden
    info = b"\x30\x82" + (len(method) + len(octets)).to_bytes(2) + method + octets
    entry = (1).to_bytes(4) + b"\0\x02it" + bytes(8) + len(info).to_bytes(4) + info + len(chain).to_bytes(4)
    entry += b"".join(b"\0\x05X.509" + len(one.der).to_bytes(4) + one.der for one in chain)
    body = b"\xfe\xed\xfe\xed" + (2).to_bytes(4) + (1).to_bytes(4) + entry
    return body + hashlib.sha1(secret + b"Mighty Aphrodite" + body).digest()


def p7b(*certificates: Certificate) -> bytes:
    """Return a PKCS#7 bundle."""
    return pkcs7.serialize_certificates([one.x509 for one in certificates], Encoding.DER)
