"""Facts about a connection: addresses, TLS version and cipher, the certificate and whether it was verified."""

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
    """One connection, as it was when it was established. The values stay after the connection is closed.

    Attributes:
        host: the server's name, as the application gave it.
        port: the server's port; None on a Unix socket.
        peer: the server's address: host and port, or the path of a Unix socket.
        local: the client's address.
        encrypted: whether TLS is on.
        tls_version: for example `"TLSv1.3"`.
        cipher: name of the cipher suite.
        bits: the strength of the cipher in bits.
        verified: whether the certificate was verified, name included; None without TLS, or if it is not known.
        verification_error: why the certificate was not verified, in words.
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
        """Return the facts about `stream`; call it right after the handshake."""
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
        """The server's certificate, parsed at each call."""
        return Certificate.of(self.certificate) if self.certificate else None


def _judged_by(context: ssl.SSLContext) -> tuple[bool, str | None]:
    if context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname:
        return True, None
    return False, "the application's SSLContext does not verify certificate and host name"
