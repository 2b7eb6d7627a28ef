"""What was negotiated: addresses, TLS version and cipher, the certificate and whether it was verified."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from .certificate import Certificate
from .handshake_witness import chain_of

if TYPE_CHECKING:
    from ..transport.stream import Endpoint, Stream

__all__ = ["ConnectionInfo"]


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
    def facts(self) -> Certificate | None:
        """What the server's certificate says; read anew at each call."""
        return Certificate.of(self.certificate) if self.certificate else None


def _judged_by(context: ssl.SSLContext) -> tuple[bool, str | None]:
    if context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname:
        return True, None
    return False, "the application's SSLContext does not verify certificate and host name"
