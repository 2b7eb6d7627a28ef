"""What was negotiated: addresses, TLS version, suite and keys, the certificate and whether it was verified."""

from __future__ import annotations

import functools
import os
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from ..model.proxy_response import ProxyResponse
from ..transport.receiving import Traffic
from .certificate import Certificate
from .handshake_witness import Handshake, handshake_of
from .problems import ChainValidation
from .suites import Suite, find_group, find_suite

if TYPE_CHECKING:
    from ..transport.stream import Endpoint, Stream

__all__ = ["ConnectionInfo", "judged_by_openssl"]


#: The argument of a private method of Python before 3.13 (OpenSSL's X509_FILETYPE_ASN1).
_IN_DER: Final = 2


def _new_id() -> str:
    return os.urandom(16).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionInfo:
    """The properties of a connection when it was established; they do not change after it is closed.

    Properties that a resumed session does not negotiate again are those of the original handshake. Without TLS, and
    if a property does not exist, an attribute is None; `group`, `signature_algorithm`, `client_auth_requested` and
    `client_authenticated` are also None if the handshakes of an application's `SSLContext` cannot be observed.

    Attributes:
        host: the server as the application named it.
        port: the port; None on a Unix socket.
        peer: the address of the server: host and port, or the path of a Unix socket.
        local: the local address.
        id: 32 hexadecimal digits, unique to this connection.
        encrypted: the connection uses TLS.
        tls_version: for example `"TLSv1.3"`.
        suite: IANA's name of the cipher suite, for example `"TLS_AES_256_GCM_SHA384"`.
        bits: strength of the cipher in bits.
        key_exchange: the key exchange: `"ECDHE"`, `"DHE"`, `"RSA"`, `"PSK"`, or `"ECDHE-MLKEM"` for a hybrid.
        group: IANA's name of the group of the key exchange, for example `"x25519"`.
        prime_bits: size of the prime of a Diffie-Hellman exchange without a named group (up to TLS 1.2).
        signature_algorithm: IANA's name of the scheme with which the server signed the handshake, for example
            `"ecdsa_secp256r1_sha256"`; None also if there is no signature.
        psk_hint: the server's hint for the pre-shared key (up to TLS 1.2).
        session_resumed: the handshake resumed an earlier session.
        client_auth_requested: the server requested a client certificate.
        client_authenticated: the client proved a certificate.
        verified: the server's identity is proved, name included, with no error excused; None without TLS.
        validation: the result of validating the server's certificates; None without TLS.
        chain: the certificates that the server sent, its own first, in DER.
        via: the proxies that the connection goes through, empty without one; `peer` is the nearest of them.
        proxy_response: what the last HTTP proxy of them answered to CONNECT.
        traffic: the bytes on the connection, counted until it is closed.
    """

    host: str
    port: int | None = None
    peer: Endpoint = None
    local: Endpoint = None
    id: str = field(default_factory=_new_id)
    encrypted: bool = False
    tls_version: str | None = None
    suite: str | None = None
    bits: int | None = None
    key_exchange: str | None = None
    group: str | None = None
    prime_bits: int | None = None
    signature_algorithm: str | None = None
    psk_hint: str | None = None
    session_resumed: bool = False
    client_auth_requested: bool | None = None
    client_authenticated: bool | None = None
    verified: bool | None = None
    validation: ChainValidation | None = field(default=None, repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    via: str = ""
    proxy_response: ProxyResponse | None = None
    traffic: Traffic = field(default_factory=Traffic, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        stream: Stream,
        *,
        host: str,
        port: int | None = None,
        resumed: ConnectionInfo | None = None,
        validation: ChainValidation | None = None,
        verified: bool | None = None,
    ) -> Self:
        """Return the properties of `stream`; call this right after the handshake.

        Args:
            stream: the connection.
            host, port: the server as the application named it.
            resumed: the connection whose session this one resumes.
            validation, verified: the verdict on the server.
        """
        tls = stream.ssl_object
        if tls is None:
            return cls(
                host=host,
                port=port,
                peer=stream.peer,
                local=stream.local,
                via=stream.via,
                proxy_response=stream.proxy_response,
                traffic=stream.traffic,
            )
        seen = handshake_of(tls) if resumed is None else _resumed(handshake_of(tls), resumed)
        name, _, bits = tls.cipher() or (None, None, None)
        suite = find_suite(name) if name else None
        return cls(
            host=host,
            port=port,
            peer=stream.peer,
            local=stream.local,
            encrypted=True,
            tls_version=tls.version(),
            suite=suite.name if suite is not None else name,
            bits=bits,
            session_resumed=resumed is not None,
            verified=verified,
            validation=validation,
            via=stream.via,
            proxy_response=stream.proxy_response,
            traffic=stream.traffic,
            **seen._asdict(),
        )

    @property
    def certificate(self) -> bytes | None:
        """The server's certificate in DER."""
        return self.chain[0] if self.chain else None

    @property
    def facts(self) -> Certificate | None:
        """The parsed certificate of the server; parsed again at each access."""
        return Certificate.of(self.chain[0]) if self.chain else None

    @property
    def public_key_bits(self) -> int | None:
        """Size of the key in the server's certificate; parsed again at each access."""
        facts = self.facts
        return facts.key_bits if facts is not None else None

    # --- properties of the suite -------------------------------------------------------------------------------

    @property
    def _suite(self) -> Suite | None:
        return find_suite(self.suite) if self.suite is not None else None

    @property
    def cipher(self) -> str | None:
        """The symmetric algorithm, for example `"AES-256-GCM"`."""
        return suite.cipher if (suite := self._suite) else None

    @property
    def block_size(self) -> int | None:
        """Octets of a block of the cipher; 0 for a stream cipher."""
        return suite.block_size if (suite := self._suite) else None

    @property
    def aead(self) -> bool | None:
        """Whether the cipher authenticates the encrypted data (RFC 5116)."""
        return suite.aead if (suite := self._suite) else None

    @property
    def digest(self) -> str | None:
        """The hash of the MAC, or of the key derivation if the cipher authenticates: for example `"SHA-384"`."""
        return suite.digest if (suite := self._suite) else None

    @property
    def exportable(self) -> bool | None:
        """Whether the suite was weakened for export; OpenSSL has not supported these since 1.1."""
        return suite.exportable if (suite := self._suite) else None

    # --- derived properties ------------------------------------------------------------------------------------

    @property
    def key_exchange_bits(self) -> int | None:
        """Size of the keys of the key exchange; with RSA the size of the certificate's key."""
        group = find_group(self.group) if self.group is not None else None
        if group is not None:
            return group.bits
        return self.public_key_bits if self.key_exchange == "RSA" else self.prime_bits

    @property
    def forward_secrecy(self) -> bool | None:
        """Whether recorded data stay secret if the server's key becomes known later."""
        return None if self.key_exchange is None else "DHE" in self.key_exchange

    @property
    def server_authenticated(self) -> bool:
        """Whether the server proved that it has a key; see `verified` for whether the key is trusted."""
        suite = self._suite
        return bool(self.chain) if suite is None else suite.authentication != "anon"

    @property
    def bytes_sent(self) -> int:
        """Bytes that were passed to the connection so far, before encryption."""
        return self.traffic.sent

    @property
    def bytes_received(self) -> int:
        """Bytes that were received so far, after decryption."""
        return self.traffic.received


def _resumed(seen: Handshake, earlier: ConnectionInfo) -> Handshake:
    """Add the properties of the original handshake, because a resumed one has no certificates and signatures."""
    return Handshake(
        chain=earlier.chain,
        # TLS 1.3 has a new key exchange, TLS 1.2 continues with the old keys.
        key_exchange=seen.key_exchange or earlier.key_exchange,
        group=seen.group or (None if seen.key_exchange == "PSK" else earlier.group),
        prime_bits=seen.prime_bits or earlier.prime_bits,
        signature_algorithm=earlier.signature_algorithm,
        psk_hint=earlier.psk_hint,
        client_auth_requested=earlier.client_auth_requested,
        client_authenticated=earlier.client_authenticated,
    )


def judged_by_openssl(tls: ssl.SSLObject) -> ChainValidation:
    """Return what OpenSSL found out about the server within the handshake."""
    context = tls.context
    if context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname:
        return ChainValidation(
            log=("OpenSSL verified the chain and the name within the handshake",),
            path_der=_verified_path(tls),
        )
    return ChainValidation(
        judged=False,
        complete=False,
        trusted=False,
        log=("the application's SSLContext does not verify certificate and host name",),
    )


def _verified_path(tls: Any) -> tuple[bytes, ...]:
    """Return the path that OpenSSL found, empty if Python lacks the method, which is private before 3.13."""
    ask = getattr(tls, "get_verified_chain", None) or getattr(
        getattr(tls, "_sslobj", None), "get_verified_chain", None
    )
    found = ask() if ask is not None else None
    return tuple(_kept(one if isinstance(one, bytes) else one.public_bytes(_IN_DER)) for one in found or ())


@functools.lru_cache(maxsize=64)
def _kept(der: bytes) -> bytes:
    """Return `der` as an object that many connections share, so that idle ones need less memory."""
    return der
