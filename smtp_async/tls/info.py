"""What was negotiated: addresses, TLS version and cipher, the certificate and whether it was verified."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Self

from ..model.reply import printable
from .handshake_witness import chain_of

if TYPE_CHECKING:
    from cryptography import x509

    from ..transport.stream import Endpoint, Stream

__all__ = ["CertificateFacts", "ConnectionInfo"]

#: A name in a certificate is shown up to this many characters.
_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What a certificate says, for people; control characters are escaped.

    Attributes:
        subject: whom it was issued to, in the notation of RFC 4514.
        issuer: who issued it.
        names: the host names and addresses it is for (RFC 9525 section 2); the subject does not count.
        not_before: valid from, UTC.
        not_after: valid until, UTC.
        serial_number: the issuer's number for it.
        sha256: the SHA-256 fingerprint of the whole certificate, in hexadecimal.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    serial_number: int
    sha256: str

    @property
    def self_issued(self) -> bool:
        """Are subject and issuer the same?"""
        return self.subject == self.issuer

    @classmethod
    def of(cls, der: bytes) -> Self | None:
        """Return what the certificate in `der` says, None if it cannot be read."""
        import hashlib

        from cryptography import x509

        try:
            certificate = x509.load_der_x509_certificate(der)
            return cls(
                subject=printable(certificate.subject.rfc4514_string(), _SHOWN),
                issuer=printable(certificate.issuer.rfc4514_string(), _SHOWN),
                names=tuple(printable(name, _SHOWN) for name in _alternative_names(certificate)),
                not_before=certificate.not_valid_before_utc,
                not_after=certificate.not_valid_after_utc,
                serial_number=certificate.serial_number,
                sha256=hashlib.sha256(der).hexdigest(),
            )
        except Exception:  # a stranger chose these bytes, and the parser has many ways to complain
            return None


def _alternative_names(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return [*extension.value.get_values_for_type(x509.DNSName), *map(str, addresses)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionInfo:
    """One connection, as it was when it stood. It stays true after the connection is closed.

    Attributes:
        host: the server as it was named.
        port: its port; None on a Unix socket.
        peer: the address it was reached at: host and port, or the path of a Unix socket.
        local: our own address.
        encrypted: is TLS on?
        tls_version: for example `"TLSv1.3"`.
        cipher: name of the cipher suite.
        bits: its strength in bits.
        verified: was the certificate verified, name included? None without TLS, or if nobody can tell.
        verification_error: why it was not, in words.
        certificate: the server's certificate in DER.
        chain: the certificates that the server sent, its own first, in DER.
    """

    host: str
    port: int | None = None
    peer: Endpoint = None
    local: Endpoint = None
    encrypted: bool = False
    tls_version: str | None = None
    cipher: str | None = None
    bits: int | None = None
    verified: bool | None = None
    verification_error: str | None = None
    certificate: bytes | None = field(default=None, repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        stream: Stream,
        *,
        host: str,
        port: int | None = None,
        verified: bool | None = None,
        verification_error: str | None = None,
    ) -> Self:
        """Return what is known of `stream` now; ask right after the handshake."""
        tls = stream.ssl_object
        if tls is None:
            return cls(host=host, port=port, peer=stream.peer, local=stream.local)
        if verified is None and verification_error is None:
            verified, verification_error = _judged_by(tls.context)
        cipher, _, bits = tls.cipher() or (None, None, None)
        chain = chain_of(tls)
        return cls(
            host=host,
            port=port,
            peer=stream.peer,
            local=stream.local,
            encrypted=True,
            tls_version=tls.version(),
            cipher=cipher,
            bits=bits,
            verified=verified,
            verification_error=verification_error,
            certificate=chain[0] if chain else None,
            chain=chain,
        )

    @property
    def facts(self) -> CertificateFacts | None:
        """What the server's certificate says; read anew at each call."""
        return CertificateFacts.of(self.certificate) if self.certificate else None


def _judged_by(context: ssl.SSLContext) -> tuple[bool, str | None]:
    if context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname:
        return True, None
    return False, "the application's SSLContext does not verify certificate and host name"
