"""A certificate with its key: who this side is, and how OpenSSL gets to know it."""

from __future__ import annotations

import contextlib
import os
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from ..errors import ClientCertificateMissing, ClientIdentityError, FeatureUnavailable
from .certificate import Certificate
from .tokens import TokenKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    PrivateKey: TypeAlias = PrivateKeyTypes | TokenKey

__all__ = ["Identity", "fits", "public_der"]


@dataclass(frozen=True)
class Identity:
    """A certificate, its key, and the certificates that lead from it to an authority. The key never shows.

    Args:
        certificate: whom this side is.
        key: its private key, an object of the package cryptography, or a key on a token.
        chain: who issued the certificate, who issued that one's, and so on; the last, which signed itself, may be
            left out.
        check_key: try whether the key is sound and belongs to the certificate.

    Raises:
        ClientCertificateMissing: there is no key.
        ClientIdentityError: the key does not belong to the certificate, is damaged or of a kind that TLS does not use.
    """

    certificate: Certificate
    key: PrivateKey = field(repr=False)
    chain: tuple[Certificate, ...] = ()
    _: KW_ONLY
    check_key: bool = field(default=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.key is None:
            raise ClientCertificateMissing(f"the identity {self.certificate.subject} has no private key")
        if self.check_key:
            _check(self.certificate, self.key)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Give certificate, key and chain to `context`, for servers that ask for a certificate.

        OpenSSL takes keys from files only. It gets one that nobody else may read, with the key encrypted for a
        password of its own, which is removed before this returns. Reads and writes a file: call it in a thread.

        Raises:
            FeatureUnavailable: the key is on a token, which only a provider of OpenSSL can use.
            ClientIdentityError: OpenSSL does not take the key or the certificate, or the file cannot be written.
        """
        if isinstance(self.key, TokenKey):
            raise FeatureUnavailable(
                f"the key of {self.certificate.subject} does not leave its token, and Python's ssl takes keys from "
                "files: see docs/how-to/client-certificates.md",
                needs="OpenSSL's provider for PKCS#11 and a context of your own",
            )
        password = secrets.token_hex(32)
        try:
            with _file(self._pem(password)) as path:
                context.load_cert_chain(path, password=password)
        except ssl.SSLError as error:
            # Only errors that OpenSSL made have a reason.
            reason = getattr(error, "reason", None) or error
            raise ClientIdentityError(
                f"OpenSSL does not take the key or the certificate of {self.certificate.subject}: {reason}"
            ) from error
        except OSError as error:
            raise ClientIdentityError(
                f"the key of {self.certificate.subject} cannot be handed to OpenSSL in a file: "
                f"{error.strerror or error}"
            ) from error

    def _pem(self, password: str) -> bytes:
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            PrivateFormat,
        )

        assert not isinstance(self.key, TokenKey)
        key = self.key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode())
        )
        return key + "".join(one.pem for one in (self.certificate, *self.chain)).encode()


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    """Give the path of a file that only this user may read (0600), and remove it."""
    descriptor, path = tempfile.mkstemp(prefix="smtp_async-", suffix=".pem")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        yield path
    finally:
        os.unlink(path)


def public_der(key: PrivateKey) -> bytes:
    """Return the public half of a private key, as SubjectPublicKeyInfo."""
    if isinstance(key, TokenKey):
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
    except Exception:  # an algorithm that is not known, or numbers that are no key
        return False


def _check(certificate: Certificate, key: PrivateKey) -> None:
    if not fits(public_der(key), certificate):
        raise ClientIdentityError(
            f"the private key does not belong to the certificate of {certificate.subject}"
        )
    # What a token signs may cost a touch of a finger: its key is believed.
    if not isinstance(key, TokenKey) and not _signs(key):
        raise ClientIdentityError(
            f"the private key of {certificate.subject} is damaged: its signature does not verify"
        )


def _signs(key: PrivateKeyTypes) -> bool:
    """Tell whether a signature by the private half verifies with the public half."""
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
