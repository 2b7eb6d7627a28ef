"""A certificate with its key: who this side is, and how OpenSSL gets to know it."""

from __future__ import annotations

import contextlib
import os
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from ..errors import ClientCertificateMissing, ClientIdentityError, FeatureUnavailable
from .certificate import Certificate
from .keys import RemoteKey, fits, public_der, signs

if TYPE_CHECKING:
    from .keys import PrivateKey

__all__ = ["Identity"]


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
        self.require_local_key()
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

    def require_local_key(self) -> None:
        """Refuse a key on a token.

        Raises:
            FeatureUnavailable: only a provider of OpenSSL can use the key.
        """
        if isinstance(self.key, RemoteKey):
            raise FeatureUnavailable(
                f"the key of {self.certificate.subject} does not leave its token, and Python's ssl takes keys from "
                "files: see docs/how-to/client-certificates.md",
                needs="OpenSSL's provider for PKCS#11 and a context of your own",
            )

    def _pem(self, password: str) -> bytes:
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            PrivateFormat,
        )

        assert not isinstance(self.key, RemoteKey)
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


def _check(certificate: Certificate, key: PrivateKey) -> None:
    if not fits(public_der(key), certificate):
        raise ClientIdentityError(
            f"the private key does not belong to the certificate of {certificate.subject}"
        )
    # What a token signs may cost a touch of a finger: its key is believed.
    if not isinstance(key, RemoteKey) and not signs(key):
        raise ClientIdentityError(
            f"the private key of {certificate.subject} is damaged: its signature does not verify"
        )
