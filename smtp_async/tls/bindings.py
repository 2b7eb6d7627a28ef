"""Channel bindings: values that tie a login to this TLS connection, so that it fails on another one (RFC 5056).

* tls-exporter (RFC 9266): the standard for TLS 1.3; if Python offers it.
* tls-unique (RFC 5929 section 3): up to TLS 1.2. Not with TLS 1.3, for which it is not defined although Python returns
  a value, and not on a resumed session, which need not be tied to the handshake that began it (RFC 7627).
* tls-server-end-point (RFC 5929 section 4): a hash of the server's certificate, on every connection.
"""

from __future__ import annotations

import hashlib
import ssl
from typing import TYPE_CHECKING, Final

from .certificate import Certificate

if TYPE_CHECKING:
    from .info import ConnectionInfo

__all__ = ["channel_bindings", "server_end_point"]

#: Hashes that SHA-256 replaces, even if the certificate was signed with one of them.
_BROKEN: Final = frozenset({"md5", "sha1"})


def channel_bindings(tls: ssl.SSLObject | None, info: ConnectionInfo) -> dict[str, bytes]:
    """Return the bindings of a connection by their type, the preferred one first; empty without TLS.

    Args:
        tls: the TLS layer of the connection.
        info: the negotiated properties of the connection.
    """
    found: dict[str, bytes] = {}
    if tls is None:
        return found
    modern = info.tls_version == "TLSv1.3"
    wanted = "tls-exporter" if modern else "" if info.session_resumed else "tls-unique"
    if wanted in ssl.CHANNEL_BINDING_TYPES and (data := tls.get_channel_binding(wanted)):
        found[wanted] = data
    if info.certificate is not None and (data := server_end_point(info.certificate)):
        found["tls-server-end-point"] = data
    return found


def server_end_point(der: bytes) -> bytes | None:
    """Return the hash of a certificate, with the hash of its signature (RFC 5929 section 4.1).

    None if that is not defined, because the signature has no separate hash (Ed25519), or an unknown one.
    """
    from cryptography.exceptions import UnsupportedAlgorithm

    certificate = Certificate.of(der)
    if certificate is None:
        return None
    try:
        algorithm = certificate.x509.signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError):
        return None
    if algorithm is None:
        return None
    name = algorithm.name
    try:
        return hashlib.new("sha256" if name in _BROKEN else name.replace("-", "_"), der).digest()
    except ValueError:
        return None
