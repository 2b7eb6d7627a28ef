"""Java key stores: JKS, and JCEKS, which encrypts its keys slightly better.

Java up to version 8 wrote them; later versions write PKCS#12. All numbers are big-endian.

    magic, version, number of entries: 4 octets each
    an entry: its kind (4 octets), its alias (a text), its date (8 octets), then
        1, a private key: the encrypted key (octets), the number of certificates (4 octets), certificates
        2, a certificate
        3, a symmetric key (JCEKS): a serialised Java object, whose end only Java can find
    SHA-1 of the password, "Mighty Aphrodite" and everything before

A text is preceded by its length in 2 octets, octets by their length in 4. A certificate is the name of its kind (a
text), and octets.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from ..errors import CertificateStoreError
from ..model.secret import Secret
from . import der
from .certificate import Certificate
from .containers import Contents, locked

if TYPE_CHECKING:
    from .keys import PrivateKey

__all__ = ["read_jks"]

_PRIVATE_KEY: Final = 1
_CERTIFICATE: Final = 2
_SHA1: Final = 20
_WHITENER: Final = b"Mighty Aphrodite"
#: How the keys of JKS are encrypted, and those of JCEKS: with PBEWithMD5AndTripleDES.
_SUN: Final = bytes.fromhex("2b060104012a02110101")
_TRIPLE_DES: Final = bytes.fromhex("2b060104012a021301")
#: Java refuses more iterations.
_MOST_ITERATIONS: Final = 5_000_000


class _Cursor:
    """Reads a store from its beginning to its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) < length:
            raise CertificateStoreError("is a Java key store that is cut off")
        self._at += length
        return taken

    def number(self, size: int = 4) -> int:
        return int.from_bytes(self.take(size))

    def octets(self) -> bytes:
        return self.take(self.number())

    def text(self) -> bytes:
        return self.take(self.number(2))


def read_jks(data: bytes, password: Secret | None) -> Contents:
    """Read every certificate and private key.

    The password of the store must also be that of its keys. Without a password, a store without keys can be read.

    Raises:
        CertificateStoreError: the password is missing or wrong, or the store is damaged or contains symmetric keys.
    """
    body = data[:-_SHA1]
    if password:
        _verify(body, data[-_SHA1:], password)
    cursor = _Cursor(body)
    cursor.take(4)
    version = cursor.number()
    if version not in (1, 2):
        raise CertificateStoreError(f"is a Java key store of version {version}, which is not known")
    found = Contents()
    for _ in range(cursor.number()):
        _read_entry(found, cursor, password, named=version == 2)
    return found


def _verify(body: bytes, digest: bytes, password: Secret) -> None:
    computed = hashlib.sha1(_wide(password) + _WHITENER + body, usedforsecurity=False).digest()
    if not hmac.compare_digest(computed, digest):
        raise CertificateStoreError("the password is wrong, or the Java key store is damaged")


def _wide(password: Secret) -> bytes:
    return password.reveal().encode("utf-16-be")


def _narrow(password: Secret) -> bytes:
    try:
        return password.reveal().encode("ascii")
    except UnicodeEncodeError:
        # The error of `encode` would show the password.
        raise CertificateStoreError("the password of a JCEKS store has ASCII characters only") from None


def _read_entry(found: Contents, cursor: _Cursor, password: Secret | None, *, named: bool) -> None:
    kind = cursor.number()
    cursor.text()
    cursor.take(8)
    if kind == _CERTIFICATE:
        found.certificates.append(_certificate(cursor, named=named))
    elif kind == _PRIVATE_KEY:
        key = cursor.octets()
        if not password:
            raise locked("the Java key store")
        found.keys.append(_decrypted(key, password))
        found.certificates += [_certificate(cursor, named=named) for _ in range(cursor.number())]
    else:
        raise CertificateStoreError(
            "holds a symmetric key, which only Java can read: remove it with keytool -delete"
        )


def _certificate(cursor: _Cursor, *, named: bool) -> Certificate:
    if named:
        cursor.text()
    return Certificate(cursor.octets())


# --- keys ----------------------------------------------------------------------------------------------------


def _decrypted(info: bytes, password: Secret) -> PrivateKey:
    """Return the key in an EncryptedPrivateKeyInfo of Java."""
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    algorithm, encrypted = der.children(info)
    oid, parameters = der.children(algorithm.whole)
    if oid.content == _SUN:
        plain = _without_keystream(encrypted.content, _wide(password))
    elif oid.content == _TRIPLE_DES:
        plain = _without_triple_des(encrypted.content, parameters, password)
    else:
        raise CertificateStoreError("encrypts its keys in a way that is not known")
    return load_der_private_key(plain, None)


def _without_keystream(encrypted: bytes, password: bytes) -> bytes:
    """Undo Java's cipher: the key, XORed with a chain of SHA-1 hashes of the password and the previous hash."""
    salt, text, check = encrypted[:_SHA1], encrypted[_SHA1:-_SHA1], encrypted[-_SHA1:]
    stream, block = bytearray(), salt
    while len(stream) < len(text):
        block = hashlib.sha1(password + block, usedforsecurity=False).digest()
        stream += block
    plain = bytes(one ^ other for one, other in zip(text, stream, strict=False))
    if not hmac.compare_digest(hashlib.sha1(password + plain, usedforsecurity=False).digest(), check):
        raise CertificateStoreError("a key in it has another password than the store, or is damaged")
    return plain


def _without_triple_des(encrypted: bytes, parameters: der.Element, password: Secret) -> bytes:
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
    from cryptography.hazmat.primitives.ciphers import Cipher, modes
    from cryptography.hazmat.primitives.padding import PKCS7

    salt, rounds = (one.content for one in der.children(parameters.whole))
    iterations = int.from_bytes(rounds)
    if iterations > _MOST_ITERATIONS:
        raise CertificateStoreError(
            f"wants {iterations} iterations for its password, of {_MOST_ITERATIONS} at most"
        )
    secret, derived = _narrow(password), b""
    for half in (salt[:4], salt[4:]):
        block = half
        for _ in range(iterations):
            block = hashlib.md5(block + secret, usedforsecurity=False).digest()
        derived += block
    decryptor = Cipher(TripleDES(derived[:24]), modes.CBC(derived[24:])).decryptor()
    padded = decryptor.update(encrypted) + decryptor.finalize()
    unpadder = PKCS7(64).unpadder()
    try:
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError as error:
        raise CertificateStoreError(
            "a key in it has another password than the store, or is damaged"
        ) from error
