"""Parsers of PEM, DER, PKCS#7 and PKCS#12 files."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..errors import CertificateStoreError
from ..model.secret import Secret
from . import der
from .certificate import Certificate
from .keys import public_der

if TYPE_CHECKING:
    from .keys import PrivateKey

__all__ = ["Contents", "locked", "octets", "read_der", "read_pem", "read_pfx", "read_pkcs7"]

_BEGIN: Final = b"-----BEGIN "
_DASHES: Final = b"-----"
_SIGNED_DATA: Final = bytes.fromhex("2a864886f70d010702")
_PLAIN_DATA: Final = bytes.fromhex("2a864886f70d010701")
#: The two kinds of bag that hold a key (RFC 7292 section 4.2): in clear and encrypted.
_KEY_BAGS: Final = (bytes.fromhex("2a864886f70d010c0a0101"), bytes.fromhex("2a864886f70d010c0a0102"))
_PFX_VERSION: Final = b"\x03"


@dataclass(slots=True)
class Contents:
    """The content of a file.

    Attributes:
        certificates: in the order of the file.
        keys: private keys.
        public_keys: keys without a private half, as SubjectPublicKeyInfo in DER.
    """

    certificates: list[Certificate] = field(default_factory=list)
    keys: list[PrivateKey] = field(default_factory=list)
    public_keys: list[bytes] = field(default_factory=list)

    def add_public_key(self, key: Any) -> None:
        """Add a public key, an object of the package cryptography."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self.public_keys.append(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def octets(password: Secret | None) -> bytes | None:
    """Return a password in UTF-8, which most formats use; None for no password."""
    return password.reveal().encode() if password else None


def locked(what: str) -> CertificateStoreError:
    """Return the error for an encrypted key without a password."""
    return CertificateStoreError(f"{what} is encrypted: it needs a password")


# --- PEM (RFC 7468) ------------------------------------------------------------------------------------------


def read_pem(data: bytes, password: Secret | None) -> Contents:
    """Read every certificate and key, encrypted or not, and ignore other blocks.

    Raises:
        CertificateStoreError: the file has neither, the password is missing or wrong, or a part is damaged.
    """
    found = Contents()
    labels = set()
    for label, block in _blocks(data):
        labels.add(label)
        if read := _PEM_READERS.get(label):
            read(found, block, password)
    if not (found.certificates or found.keys or found.public_keys):
        seen = ", ".join(sorted(labels)) or "nothing that is complete"
        raise CertificateStoreError(f"holds neither a certificate nor a key, only {seen}")
    return found


def _blocks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each label with its block, from BEGIN to END."""
    at = data.find(_BEGIN)
    while at >= 0:
        label, closed, _ = data[at + len(_BEGIN) : at + len(_BEGIN) + 80].partition(_DASHES)
        mark = b"-----END " + label + _DASHES
        end = data.find(mark, at) if closed else -1
        if end < 0:
            raise CertificateStoreError("a PEM block does not end")
        end += len(mark)
        yield label.decode("ascii", "replace"), data[at:end]
        at = data.find(_BEGIN, end)


def _body(block: bytes) -> bytes:
    lines = [line for line in block.splitlines()[1:-1] if b":" not in line]
    return base64.b64decode(b"".join(b"".join(lines).split()), validate=True)


def _certificate(found: Contents, block: bytes, _password: Secret | None) -> None:
    # Behind a "trusted" certificate OpenSSL writes its trusted purposes.
    found.certificates.append(Certificate(next(der.elements(_body(block))).whole))


def _plain_certificate(found: Contents, block: bytes, _password: Secret | None) -> None:
    found.certificates.append(Certificate(_body(block)))


def _bundle(found: Contents, block: bytes, _password: Secret | None) -> None:
    found.certificates += read_pkcs7(_body(block)).certificates


def _private_key(found: Contents, block: bytes, password: Secret | None) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    found.keys.append(_unlocked(load_pem_private_key, block, password))


def _openssh_key(found: Contents, block: bytes, password: Secret | None) -> None:
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    found.keys.append(_unlocked(load_ssh_private_key, block, password))


def _public_key(found: Contents, block: bytes, _password: Secret | None) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found.add_public_key(load_pem_public_key(block))


_PEM_READERS: Final[dict[str, Callable[[Contents, bytes, Secret | None], None]]] = {
    "CERTIFICATE": _plain_certificate,
    "X509 CERTIFICATE": _plain_certificate,
    "TRUSTED CERTIFICATE": _certificate,
    "PKCS7": _bundle,
    "CMS": _bundle,
    "PRIVATE KEY": _private_key,
    "ENCRYPTED PRIVATE KEY": _private_key,
    "RSA PRIVATE KEY": _private_key,
    "EC PRIVATE KEY": _private_key,
    "DSA PRIVATE KEY": _private_key,
    "OPENSSH PRIVATE KEY": _openssh_key,
    "PUBLIC KEY": _public_key,
    "RSA PUBLIC KEY": _public_key,
}


def _unlocked(load: Callable[[bytes, bytes | None], Any], data: bytes, password: Secret | None) -> Any:
    """Return a private key that may be encrypted; a superfluous password is ignored."""
    try:
        return load(data, octets(password))
    except TypeError:
        # cryptography raises TypeError if a password is missing or superfluous.
        if not password:
            raise locked("the private key") from None
    except ValueError as error:
        if password and "password" in str(error).lower():
            raise CertificateStoreError("the password is wrong") from error
        raise
    return load(data, None)


# --- DER (X.690) -----------------------------------------------------------------------------------------------------


def read_der(data: bytes, password: Secret | None) -> Contents:
    """Read a certificate, a private or public key, PKCS#7 or PKCS#12.

    Raises:
        CertificateStoreError: the file is of another kind or damaged, or the password is missing or wrong.
    """
    first, *others = itertools.islice(der.children(data), 3)
    match [first.tag, *(one.tag for one in others)]:
        case [der.INTEGER, der.SEQUENCE, *_] if first.content == _PFX_VERSION:
            return read_pfx(data, password)
        case [der.OID, *_] if first.content == _SIGNED_DATA:
            return read_pkcs7(data)
        case [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]:
            return Contents(certificates=[Certificate(data)])
        case [der.SEQUENCE, der.BIT_STRING]:
            return _der_public_key(data)
        case [der.SEQUENCE, der.OCTET_STRING] | [
            der.INTEGER,
            der.SEQUENCE | der.INTEGER | der.OCTET_STRING,
            *_,
        ]:
            return _der_private_key(data, password)
        case [der.SEQUENCE, der.SEQUENCE]:
            raise CertificateStoreError(
                "looks like a Bouncy Castle FIPS key store (BCFKS), which is not read: "
                "convert it with keytool -importkeystore -deststoretype PKCS12"
            )
    raise CertificateStoreError("is DER, but neither a certificate, a key, PKCS#7 nor PKCS#12")


def _der_private_key(data: bytes, password: Secret | None) -> Contents:
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    return Contents(keys=[_unlocked(load_der_private_key, data, password)])


def _der_public_key(data: bytes) -> Contents:
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    found = Contents()
    found.add_public_key(load_der_public_key(data))
    return found


def read_pkcs7(data: bytes) -> Contents:
    """Read the certificates of a PKCS#7 bundle in DER (RFC 2315 section 9.1), which has no keys."""
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

    found = pkcs7.load_der_pkcs7_certificates(data)
    return Contents(certificates=[Certificate(one.public_bytes(Encoding.DER)) for one in found])


# --- PKCS#12 (RFC 7292) --------------------------------------------------------------------------------------


def read_pfx(data: bytes, password: Secret | None) -> Contents:
    """Read every certificate and key of a PFX.

    Raises:
        CertificateStoreError: the password is missing or wrong, or the file is damaged.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    opened, used = _opened(data, password)
    found = Contents()
    if opened.key is not None:
        found.keys.append(opened.key)
    for one in (opened.cert, *opened.additional_certs):
        if one is not None:
            found.certificates.append(Certificate(one.certificate.public_bytes(Encoding.DER)))
    found.keys += _further_keys(data, used, found.keys)
    return found


def _opened(data: bytes, password: Secret | None) -> tuple[Any, bytes | None]:
    from cryptography.hazmat.primitives.serialization import pkcs12

    failure: ValueError | None = None
    # No password and an empty one are encoded differently (RFC 7292 appendix B.1), and programs use both.
    for candidate in (octets(password),) if password else (None, b""):
        try:
            return pkcs12.load_pkcs12(data, candidate), candidate
        except ValueError as error:
            failure = failure or error
    if failure is None or "password" not in str(failure).lower():
        raise CertificateStoreError("is a damaged PKCS#12 file") from failure
    if not password:
        raise CertificateStoreError("is a PKCS#12 file that needs a password") from failure
    raise CertificateStoreError("the password is wrong, or the PKCS#12 file is damaged") from failure


def _further_keys(data: bytes, password: bytes | None, known: list[PrivateKey]) -> Iterator[PrivateKey]:
    """Yield the keys behind the first, which is the only one that cryptography returns."""
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    seen = {public_der(key) for key in known}
    for encrypted, bag in key_bags(data):
        key = load_der_private_key(bag, (password or b"") if encrypted else None)
        if (public := public_der(key)) not in seen:
            seen.add(public)
            yield key


def key_bags(data: bytes) -> list[tuple[bool, bytes]]:
    """Return each key that is not inside encrypted content, and whether the key itself is encrypted.

    A file in BER yields no keys: the few programs that write BER write a single key.
    """
    bags = []
    try:
        _, content, *_ = der.children(data)
        for part in der.children(_octets_in(content)):
            if next(der.children(part.whole)).content != _PLAIN_DATA:
                continue
            for bag in der.children(_octets_in(part)):
                kind, value, *_ = der.children(bag.whole)
                if kind.content in _KEY_BAGS:
                    bags.append((kind.content == _KEY_BAGS[1], value.content))
    except (ValueError, StopIteration):
        pass
    return bags


def _octets_in(info: der.Element) -> bytes:
    """Return the content of a ContentInfo of the type `data`, which is a SEQUENCE."""
    _, explicit = der.children(info.whole)
    return next(der.children(explicit.whole)).content
