"""The identity of a client: a certificate with its key, and how OpenSSL gets them."""

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
    """A certificate, its key, and the certificates between it and an authority. The key is never shown.

    Args:
        certificate: the certificate of the client.
        key: the private key, an object of the package cryptography, or a key on a token.
        chain: the certificate of the issuer, that of its issuer, and so on; the last, self-signed one may be left out.
        check_key: check that the key is valid and belongs to the certificate.

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
        """Load certificate, key and chain into `context`, for servers that request a certificate.

        OpenSSL reads keys from files only. The key is written to a file that no other user may read, encrypted with a
        random password, and the file is removed before this returns. The call blocks: make it in a thread.

        Raises:
            FeatureUnavailable: the key is on a token, which only a provider of OpenSSL can use.
            ClientIdentityError: OpenSSL does not accept the key or the certificate, or the file cannot be written.
        """
        self.require_local_key()
        password = secrets.token_hex(32)
        try:
            with _file(self._pem(password)) as path:
                context.load_cert_chain(path, password=password)
        except ssl.SSLError as error:
            # Only errors of OpenSSL have a reason.
            reason = getattr(error, "reason", None) or error
            raise ClientIdentityError(
                f"OpenSSL does not accept the key or the certificate of {self.certificate.subject}: {reason}"
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
    """Yield the path of a file that only this user may read (0600); remove the file afterwards."""
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
    # A signature by a token may need a touch of the user, so the key of a token is not checked.
    if not isinstance(key, RemoteKey) and not signs(key):
        raise ClientIdentityError(
            f"the private key of {certificate.subject} is damaged: its signature does not verify"
        )
