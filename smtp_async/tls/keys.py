"""Operations on private keys, in memory and on tokens."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from ..errors import ClientIdentityError
from .certificate import Certificate

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    PrivateKey: TypeAlias = "PrivateKeyTypes | RemoteKey"

__all__ = ["RemoteKey", "fits", "public_der", "signs"]


@runtime_checkable
class RemoteKey(Protocol):
    """A private key that stays in its place, for example on a token, and signs there."""

    @property
    def public_key_der(self) -> bytes:
        """The public key, as SubjectPublicKeyInfo."""

    def sign(self, data: bytes, *, hash_name: str = "SHA256", pss: bool = False) -> bytes:
        """Return a signature of `data`; see `smtp_async.tls.tokens.TokenKey.sign`."""


def public_der(key: PrivateKey) -> bytes:
    """Return the public key of a private key, as SubjectPublicKeyInfo."""
    if isinstance(key, RemoteKey):
        return key.public_key_der
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def fits(public: bytes, certificate: Certificate) -> bool:
    """Tell whether `public`, from `public_der`, is the key of `certificate`."""
    if public == certificate.public_key_der:
        return True
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        # The same key can be written in several ways: with a curve's name or its numbers, for PSS alone or not.
        key = certificate.x509.public_key()
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == public
    except Exception:  # an unknown algorithm, or numbers that are not a key
        return False


def signs(key: PrivateKeyTypes) -> bool:
    """Tell whether a signature by the private key verifies with the public key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

    message, sha256 = secrets.token_bytes(32), hashes.SHA256()
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(message, padding.PKCS1v15(), sha256)
            key.public_key().verify(signature, message, padding.PKCS1v15(), sha256)
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            signature = key.sign(message, ec.ECDSA(sha256))
            key.public_key().verify(signature, message, ec.ECDSA(sha256))
        elif isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
            key.public_key().verify(key.sign(message), message)
        else:
            raise ClientIdentityError(f"TLS does not sign with a key of this kind: {type(key).__name__}")
    except (InvalidSignature, ValueError):
        return False
    return True
