"""Private keys of PuTTY, versions 2 and 3 (its manual, appendix C).

    PuTTY-User-Key-File-3: ssh-ed25519
    Encryption: aes256-cbc
    Comment: ann
    Public-Lines: 2
    (that many lines of base64)
    Key-Derivation: Argon2id            only if it is encrypted, with four lines that begin Argon2-
    Private-Lines: 1
    (that many lines of base64)
    Private-MAC: (hexadecimal)

Both blobs are encoded as in SSH (RFC 4251 section 5): strings, each preceded by its length in four octets.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import CertificateStoreError, FeatureUnavailable
from ..model.secret import Secret
from .containers import Contents, locked

if TYPE_CHECKING:
    from .keys import PrivateKey

__all__ = ["read_ppk"]

_MARK: Final = "PuTTY-User-Key-File-"
_CURVES: Final = {"nistp256": "SECP256R1", "nistp384": "SECP384R1", "nistp521": "SECP521R1"}
_MAC_KEY: Final = b"putty-private-key-file-mac-key"
#: Octets of the AES-256 key, of the initial vector and of the MAC key, which version 3 derives from the password.
_KEY, _IV, _CHECK = 32, 16, 32
#: Limits of Argon2. PuTTY uses 8 MiB and about a hundred milliseconds; a file that needs far more is hostile.
_MOST_MEMORY: Final = 1 << 20
_MOST_WORK: Final = 1 << 24


class _File(NamedTuple):
    """The parts of a file."""

    version: int
    algorithm: str
    fields: dict[str, str]
    public: bytes
    private: bytes

    @property
    def encrypted(self) -> bool:
        return self.fields["Encryption"] != "none"


class _Keys(NamedTuple):
    """The keys that are derived from the password."""

    cipher: bytes
    iv: bytes
    mac: bytes


def read_ppk(data: bytes, password: Secret | None) -> Contents:
    """Read the key. The file has no certificate: pass one to `CertificateStore.identity_for`.

    Raises:
        CertificateStoreError: the password is missing or wrong, or the key is damaged or of a kind that TLS does not
            use.
        FeatureUnavailable: cryptography or OpenSSL cannot derive the key of version 3.
    """
    try:
        file = _parts(data.decode("utf-8"))
    except (ValueError, KeyError, IndexError) as error:
        raise CertificateStoreError("is a PuTTY key that is damaged") from error
    if file.encrypted and not password:
        raise locked("the PuTTY key")
    secret = password.reveal().encode() if password and file.encrypted else b""
    keys = _derived_2(secret) if file.version == 2 else _derived_3(file, secret)
    private = _decrypted(file, keys)
    _verify(file, private, keys)
    return Contents(keys=[_key(file, private)])


def _parts(text: str) -> _File:
    lines = iter(text.splitlines())
    first, _, algorithm = next(lines, "").partition(": ")
    version = int(first.removeprefix(_MARK))
    if version not in (2, 3):
        raise CertificateStoreError(f"is a PuTTY key of version {version}; versions 2 and 3 are read")
    fields: dict[str, str] = {}
    blobs = {}
    for line in lines:
        name, _, value = line.partition(": ")
        fields[name] = value
        if name.endswith("-Lines"):
            body = "".join(next(lines, "") for _ in range(min(int(value), len(text))))
            blobs[name] = base64.b64decode(body, validate=True)
    return _File(version, algorithm, fields, blobs["Public-Lines"], blobs["Private-Lines"])


# --- the password --------------------------------------------------------------------------------------------


def _derived_2(password: bytes) -> _Keys:
    blocks = [hashlib.sha1(bytes([0, 0, 0, n]) + password, usedforsecurity=False).digest() for n in (0, 1)]
    mac = hashlib.sha1(_MAC_KEY + password, usedforsecurity=False).digest()
    return _Keys(b"".join(blocks)[:_KEY], bytes(_IV), mac)


def _derived_3(file: _File, password: bytes) -> _Keys:
    if not file.encrypted:
        return _Keys(b"", b"", b"")
    octets = _argon2(file.fields, password)
    return _Keys(octets[:_KEY], octets[_KEY : _KEY + _IV], octets[_KEY + _IV :])


def _argon2(fields: dict[str, str], password: bytes) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf import argon2

    name = fields.get("Key-Derivation", "")
    if name not in ("Argon2id", "Argon2d", "Argon2i"):
        raise CertificateStoreError("derives its key in a way that is not known")
    derivation = getattr(argon2, name, None)
    if derivation is None:
        raise FeatureUnavailable(f"this PuTTY key needs {name}", needs="smtp-async[keys]")
    memory, passes, lanes = (
        int(fields.get(f"Argon2-{one}", 0)) for one in ("Memory", "Passes", "Parallelism")
    )
    if memory > _MOST_MEMORY or memory * passes > _MOST_WORK:
        raise CertificateStoreError("wants too much memory or time for its password")
    salt = bytes.fromhex(fields.get("Argon2-Salt", ""))
    length = _KEY + _IV + _CHECK
    try:
        made = derivation(salt=salt, length=length, iterations=passes, lanes=lanes, memory_cost=memory)
    except UnsupportedAlgorithm as error:
        raise FeatureUnavailable(f"this PuTTY key needs {name}", needs="OpenSSL 3.2") from error
    return bytes(made.derive(password))


def _decrypted(file: _File, keys: _Keys) -> bytes:
    if not file.encrypted:
        return file.private
    if file.fields["Encryption"] != "aes256-cbc":
        raise CertificateStoreError("is encrypted in a way that is not known")
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    decryptor = Cipher(algorithms.AES(keys.cipher), modes.CBC(keys.iv)).decryptor()
    return decryptor.update(file.private) + decryptor.finalize()


def _verify(file: _File, private: bytes, keys: _Keys) -> None:
    names = (file.algorithm, file.fields["Encryption"], file.fields["Comment"])
    signed = b"".join(
        len(one).to_bytes(4) + one for one in (*(name.encode() for name in names), file.public, private)
    )
    digest = hmac.new(keys.mac, signed, "sha1" if file.version == 2 else "sha256").hexdigest()
    if not hmac.compare_digest(digest, file.fields.get("Private-MAC", "").lower()):
        raise CertificateStoreError(
            "the password is wrong, or the PuTTY key is damaged"
            if file.encrypted
            else "is a PuTTY key that is damaged"
        )


# --- the key -------------------------------------------------------------------------------------------------


def _strings(blob: bytes) -> list[bytes]:
    """Return the strings in a blob, without the padding of the encryption."""
    found, at = [], 0
    while at + 4 <= len(blob):
        length = int.from_bytes(blob[at : at + 4])
        if at + 4 + length > len(blob):
            break
        found.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def _key(file: _File, private: bytes) -> PrivateKey:
    public, secret = _strings(file.public), _strings(private)
    kind = file.algorithm
    if kind == "ssh-rsa":
        return _rsa([int.from_bytes(one) for one in public[1:3]], [int.from_bytes(one) for one in secret[:4]])
    if kind.startswith("ecdsa-sha2-"):
        return _elliptic(public[1].decode("ascii"), public[2], int.from_bytes(secret[0]))
    if kind in ("ssh-ed25519", "ssh-ed448"):
        return _edwards(kind, secret[0])
    raise CertificateStoreError("holds a PuTTY key of a kind that TLS does not use")


def _rsa(public: list[int], private: list[int]) -> PrivateKey:
    from cryptography.hazmat.primitives.asymmetric import rsa

    e, n = public
    d, p, q, inverse = private
    numbers = rsa.RSAPublicNumbers(e=e, n=n)
    made = rsa.RSAPrivateNumbers(
        p=p, q=q, d=d, dmp1=d % (p - 1), dmq1=d % (q - 1), iqmp=inverse, public_numbers=numbers
    )
    return made.private_key()


def _elliptic(curve: str, point: bytes, scalar: int) -> PrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    kind = getattr(ec, _CURVES[curve])()
    public = ec.EllipticCurvePublicKey.from_encoded_point(kind, point)
    return ec.EllipticCurvePrivateNumbers(scalar, public.public_numbers()).private_key()


def _edwards(kind: str, octets: bytes) -> PrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ed448, ed25519

    # A little-endian number without zeros at its end.
    if kind == "ssh-ed25519":
        return ed25519.Ed25519PrivateKey.from_private_bytes(octets.ljust(32, b"\0"))
    return ed448.Ed448PrivateKey.from_private_bytes(octets.ljust(57, b"\0"))
