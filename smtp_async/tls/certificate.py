"""An X.509 certificate, parsed completely when the object is made, so that later access cannot fail."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntFlag
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

from ..errors import CertificateStoreError
from ..model.reply import printable
from .der import children

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509 import Certificate as X509Certificate

__all__ = ["Certificate", "KeyUsage"]

#: A name in a certificate is shown up to this many characters.
_SHOWN: Final = 200
#: Maximum of octets. A certificate has a few KiB; OpenSSL accepts 100 KiB in a handshake.
_LARGEST: Final = 256 * 1024
_PEM_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_PEM_END: Final = "-----END CERTIFICATE-----"
_KEY_ALGORITHMS: Final = {
    "1.2.840.113549.1.1.1": "RSA",
    "1.2.840.113549.1.1.10": "RSA-PSS",
    "1.2.840.10045.2.1": "EC",
    "1.2.840.10040.4.1": "DSA",
    "1.3.101.110": "X25519",
    "1.3.101.111": "X448",
    "1.3.101.112": "Ed25519",
    "1.3.101.113": "Ed448",
    "2.16.840.1.101.3.4.3.17": "ML-DSA-44",
    "2.16.840.1.101.3.4.3.18": "ML-DSA-65",
    "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
}
#: Algorithms that include a curve, and the bits of their keys.
_BITS: Final = {"X25519": 255, "X448": 448, "Ed25519": 255, "Ed448": 448}


class KeyUsage(IntFlag):
    """What the key of a certificate may be used for (RFC 5280 section 4.2.1.3)."""

    DIGITAL_SIGNATURE = 1
    NON_REPUDIATION = 2
    KEY_ENCIPHERMENT = 4
    DATA_ENCIPHERMENT = 8
    KEY_AGREEMENT = 16
    KEY_CERT_SIGN = 32
    CRL_SIGN = 64
    ENCIPHER_ONLY = 128
    DECIPHER_ONLY = 256


_USAGES: Final = (
    (KeyUsage.DIGITAL_SIGNATURE, "digital_signature"),
    (KeyUsage.NON_REPUDIATION, "content_commitment"),
    (KeyUsage.KEY_ENCIPHERMENT, "key_encipherment"),
    (KeyUsage.DATA_ENCIPHERMENT, "data_encipherment"),
    (KeyUsage.KEY_AGREEMENT, "key_agreement"),
    (KeyUsage.KEY_CERT_SIGN, "key_cert_sign"),
    (KeyUsage.CRL_SIGN, "crl_sign"),
    (KeyUsage.ENCIPHER_ONLY, "encipher_only"),
    (KeyUsage.DECIPHER_ONLY, "decipher_only"),
)


@dataclass(frozen=True)
class Certificate:
    """An X.509 certificate (RFC 5280). Text attributes have control characters escaped.

    Two certificates are equal if their bytes are. A certificate can be pickled and copied.

    Args:
        der: the certificate in DER.

    Attributes:
        der: the bytes of the certificate.
        x509: the certificate as an object of the package cryptography.

    Raises:
        CertificateStoreError: `der` is not a certificate, or has more than 256 KiB.
    """

    der: bytes = field(repr=False)
    x509: X509Certificate = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.der) > _LARGEST:
            raise CertificateStoreError(
                f"this is no certificate: it has {len(self.der)} bytes, of {_LARGEST} at most"
            )
        try:
            object.__setattr__(self, "x509", _parsed(self.der))
        except Exception as error:  # the bytes may be hostile, and the parser raises many kinds of errors
            raise CertificateStoreError(f"this is no certificate that can be read: {_why(error)}") from error

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self.der,)

    def __repr__(self) -> str:
        return f"<Certificate {self.subject!r} sha256={self.sha256[:16]}…>"

    @classmethod
    def of(cls, der: bytes) -> Self | None:
        """Return the certificate in `der`, None if it cannot be parsed: for untrusted bytes."""
        try:
            return cls(der)
        except CertificateStoreError:
            return None

    @classmethod
    def load(cls, data: bytes | str) -> Self:
        """Return the one certificate in `data`: PEM, DER, or DER in base64.

        Raises:
            CertificateStoreError: there is no certificate or more than one, or it cannot be parsed.
        """
        text = data if isinstance(data, str) else _as_text(data)
        if text is None:
            return cls(bytes(data))  # type: ignore[arg-type]  # bytes, as text is None
        if text.count(_PEM_BEGIN) > 1:
            raise CertificateStoreError(
                "there is more than one certificate: CertificateStore.load takes several"
            )
        text = text.partition(_PEM_BEGIN)[2].partition(_PEM_END)[0] or text
        try:
            return cls(base64.b64decode("".join(text.split()), validate=True))
        except (binascii.Error, ValueError) as error:
            raise CertificateStoreError("this is no certificate: neither PEM, nor DER, nor base64") from error

    # --- names and validity ---

    @cached_property
    def subject(self) -> str:
        """The name of the holder, in the notation of RFC 4514."""
        return printable(self.x509.subject.rfc4514_string(), _SHOWN)

    @cached_property
    def issuer(self) -> str:
        """The name of the issuer, in the notation of RFC 4514."""
        return printable(self.x509.issuer.rfc4514_string(), _SHOWN)

    @cached_property
    def subject_der(self) -> bytes:
        """The holder's name in DER."""
        return self.x509.subject.public_bytes()

    @cached_property
    def issuer_der(self) -> bytes:
        """The issuer's name in DER."""
        return self.x509.issuer.public_bytes()

    @cached_property
    def common_name(self) -> str:
        """The holder's common name, else the organisation; empty if both are missing."""
        return _called(self.x509.subject)

    @cached_property
    def issuer_common_name(self) -> str:
        """The issuer's common name, else the organisation; empty if both are missing."""
        return _called(self.x509.issuer)

    @cached_property
    def subject_rdn(self) -> tuple[tuple[str, str], ...]:
        """The holder's name as pairs of OID and value, in the order of the certificate; values are not escaped."""
        return _pairs(self.x509.subject)

    @cached_property
    def issuer_rdn(self) -> tuple[tuple[str, str], ...]:
        """The issuer's name as pairs of OID and value, in the order of the certificate; values are not escaped."""
        return _pairs(self.x509.issuer)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The host names and addresses of the certificate (RFC 9525 section 2), without the subject."""
        from cryptography import x509

        found = self.extension(x509.SubjectAlternativeName)
        if found is None:
            return ()
        addresses = found.get_values_for_type(x509.IPAddress)
        every = [*found.get_values_for_type(x509.DNSName), *map(str, addresses)]
        return tuple(printable(name, _SHOWN) for name in every)

    @cached_property
    def email_addresses(self) -> tuple[str, ...]:
        """The mail addresses among the alternative names."""
        from cryptography import x509

        found = self.extension(x509.SubjectAlternativeName)
        every = found.get_values_for_type(x509.RFC822Name) if found is not None else ()
        return tuple(printable(name, _SHOWN) for name in every)

    @property
    def serial_number(self) -> int:
        """The serial number, assigned by the issuer."""
        return self.x509.serial_number

    @property
    def not_before(self) -> datetime:
        """The begin of the validity, UTC."""
        return self.x509.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """The end of the validity, UTC."""
        return self.x509.not_valid_after_utc

    # --- encodings and fingerprints ---

    @property
    def pem(self) -> str:
        """The certificate in PEM (RFC 7468)."""
        return ssl.DER_cert_to_PEM_cert(self.der)

    @cached_property
    def sha1(self) -> str:
        """The SHA-1 fingerprint of the whole certificate in hexadecimal, for old lists; it can be forged."""
        return hashlib.sha1(self.der, usedforsecurity=False).hexdigest()

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 fingerprint of the whole certificate, in hexadecimal."""
        return hashlib.sha256(self.der).hexdigest()

    # --- the key ---

    @cached_property
    def public_key_der(self) -> bytes:
        """The public key in DER, as in the certificate (SubjectPublicKeyInfo)."""
        fields = list(children(next(children(self.der)).whole))
        # The version, a [0], is missing in certificates of version 1; the key is the sixth element after it.
        return fields[6 if fields[0].tag == 0xA0 else 5].whole

    @cached_property
    def public_key_sha256(self) -> str:
        """The SHA-256 fingerprint of the public key, in hexadecimal; the same after a renewal with the same key."""
        return hashlib.sha256(self.public_key_der).hexdigest()

    @cached_property
    def key_algorithm(self) -> str:
        """`"RSA"`, `"EC"`, `"Ed25519"` and so on; the OID of an unknown algorithm."""
        oid = self.x509.public_key_algorithm_oid.dotted_string
        return _KEY_ALGORITHMS.get(oid, oid)

    @cached_property
    def key_bits(self) -> int | None:
        """The length of the key in bits, None if it is not known."""
        key = self._public_key
        return getattr(key, "key_size", _BITS.get(self.key_algorithm)) if key is not None else None

    @cached_property
    def curve(self) -> str | None:
        """The curve of an elliptic-curve key, for example `"secp256r1"`; None for other keys."""
        curve = getattr(self._public_key, "curve", None)
        if curve is not None:
            return str(curve.name)
        return self.key_algorithm if self.key_algorithm in _BITS else None

    @cached_property
    def _public_key(self) -> object | None:
        try:
            return self.x509.public_key()
        except (
            Exception
        ):  # an unknown algorithm, or numbers that are not a key: the other attributes can still be read
            return None

    # --- usage, signature and issuer ---

    @cached_property
    def key_usage(self) -> KeyUsage:
        """The allowed uses of the key; empty if the certificate has no such extension."""
        from cryptography import x509

        usage = self.extension(x509.KeyUsage)
        flags = KeyUsage(0)
        if usage is not None:
            for flag, name in _USAGES:
                # The last two have no meaning without key agreement, and reading them would then raise.
                if (flag < KeyUsage.ENCIPHER_ONLY or usage.key_agreement) and getattr(usage, name):
                    flags |= flag
        return flags

    @cached_property
    def extended_key_usage(self) -> tuple[str, ...]:
        """The purposes of the certificate: `"SERVER_AUTH"`, `"CLIENT_AUTH"` and so on, or OIDs; empty: any purpose."""
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        usage = self.extension(x509.ExtendedKeyUsage)
        return tuple(_name_of(oid, ExtendedKeyUsageOID) for oid in usage) if usage is not None else ()

    @cached_property
    def signature_algorithm(self) -> str:
        """The algorithm of the issuer's signature: `"ECDSA_WITH_SHA256"` and so on, or the OID."""
        from cryptography.x509.oid import SignatureAlgorithmOID

        return _name_of(self.x509.signature_algorithm_oid, SignatureAlgorithmOID)

    @cached_property
    def subject_key_id(self) -> bytes:
        """The identifier of the key; empty if there is none."""
        from cryptography import x509

        found = self.extension(x509.SubjectKeyIdentifier)
        return found.digest if found is not None else b""

    @cached_property
    def authority_key_id(self) -> bytes:
        """The identifier of the issuer's key; empty if there is none."""
        from cryptography import x509

        found = self.extension(x509.AuthorityKeyIdentifier)
        return (found.key_identifier or b"") if found is not None else b""

    @cached_property
    def is_authority(self) -> bool:
        """Whether the certificate may issue others (RFC 5280 section 4.2.1.9)."""
        from cryptography import x509

        found = self.extension(x509.BasicConstraints)
        return found is not None and found.ca

    @property
    def self_issued(self) -> bool:
        """Whether subject and issuer are the same."""
        return self.subject_der == self.issuer_der

    @cached_property
    def self_signed(self) -> bool:
        """Whether the certificate is signed with its own key; False also if the signature cannot be verified."""
        return self.issued_by(self)

    def issued_by(self, issuer: Certificate) -> bool:
        """Tell whether `issuer` has the name of this certificate's issuer, and its key made the signature."""
        try:
            if (hashed := _old_hash(self.x509)) is None:
                self.x509.verify_directly_issued_by(issuer.x509)
            elif self.x509.issuer != issuer.x509.subject:
                return False
            else:
                _verify_old(self.x509, issuer.x509, hashed)
        except Exception:  # another name, another signature, or an unknown algorithm
            return False
        return True

    def extension(self, kind: type[Any]) -> Any:
        """Return the value of the extension of class `kind` (of `cryptography.x509`); None if there is none."""
        return self._extensions.get(kind)

    @cached_property
    def _extensions(self) -> dict[type[Any], Any]:
        return {type(extension.value): extension.value for extension in self.x509.extensions}


def _parsed(der: bytes) -> X509Certificate:
    """Return the certificate after parsing every part that may be malformed, because cryptography parses on access."""
    from cryptography import x509

    found = x509.load_der_x509_certificate(der)
    for name in (found.subject, found.issuer):
        name.rfc4514_string()
    for extension in found.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            extension.value.get_values_for_type(x509.IPAddress)
    _ = found.not_valid_before_utc, found.not_valid_after_utc, found.signature_algorithm_oid
    return found


def _old_hash(certificate: X509Certificate) -> hashes.HashAlgorithm | None:
    """Return the hash of a signature that can be forged, which cryptography does not verify in certificates."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import SignatureAlgorithmOID as Oid

    oid = certificate.signature_algorithm_oid
    if oid in (Oid.RSA_WITH_SHA1, Oid.ECDSA_WITH_SHA1):
        return hashes.SHA1()
    return hashes.MD5() if oid == Oid.RSA_WITH_MD5 else None


def _verify_old(certificate: X509Certificate, issuer: X509Certificate, hashed: hashes.HashAlgorithm) -> None:
    """Raise an exception if `issuer` has not signed `certificate`, however weak the signature is."""
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    key = issuer.public_key()
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, signed, padding.PKCS1v15(), hashed)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(hashed))
    else:
        raise TypeError(f"{key} does not sign with {hashed.name}")


def _why(error: Exception) -> str:
    return printable(str(error) or type(error).__name__, _SHOWN)


def _as_text(data: bytes) -> str | None:
    """Return `data` as text if it is PEM or base64, None if it is DER."""
    if data[:1] == b"\x30" and not data.isascii():
        return None
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        return None


def _called(name: x509.Name) -> str:
    from cryptography.x509.oid import NameOID

    for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        if found := name.get_attributes_for_oid(oid):
            return printable(_text(found[-1].value), _SHOWN)
    return ""


def _pairs(name: x509.Name) -> tuple[tuple[str, str], ...]:
    return tuple((one.oid.dotted_string, _text(one.value)) for one in name)


def _text(value: str | bytes) -> str:
    # Only a unique identifier is a bit string.
    return value if isinstance(value, str) else value.hex()


def _name_of(oid: x509.ObjectIdentifier, names: type[object]) -> str:
    """Return cryptography's name of `oid`, from the attributes of the class `names`."""
    for name, value in vars(names).items():
        if value == oid and not name.startswith("_"):
            return name
    return oid.dotted_string
