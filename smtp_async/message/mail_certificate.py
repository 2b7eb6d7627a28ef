"""Certificates for mail (RFC 8550): what they permit, and the addresses that are in them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from ..errors import InvalidAddress, InvalidArgument, SigningError
from ..model.address import Address
from ..model.reply import printable
from ..model.signing import KeyAlgorithm

if TYPE_CHECKING:
    from cryptography.x509 import Certificate as X509Certificate

__all__ = ["MailCertificate", "certificates_of"]

Use = Literal["sign", "encrypt"]

#: The fewest bits of an RSA key (RFC 8551 section 4.3).
_RSA_BITS: Final = 2048
#: Curves with a name in CMS (RFC 5753 section 7.1.3).
_CURVES: Final = frozenset(("secp256r1", "secp384r1", "secp521r1"))
#: An address with a local part in UTF-8 (RFC 9598).
_UTF8_MAILBOX: Final = "1.3.6.1.5.5.7.8.9"
_PEM: Final = b"-----BEGIN CERTIFICATE-----"


class MailCertificate:
    """A certificate that signs mail, or for which mail is encrypted.

    Args:
        given: a `Certificate` of this library or of the package cryptography, or bytes in PEM or DER.

    Attributes:
        x509: the certificate, as the package cryptography has it.
        der: its octets.
        key_algorithm: the kind of its key, None for one that is not used in mail.
        emails: the mail addresses in it, in lower case; those that cannot be read are left out.

    Raises:
        InvalidArgument: it is no certificate, or a damaged one.
    """

    __slots__ = ("der", "emails", "key_algorithm", "x509")

    def __init__(self, given: Any) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding

        self.x509 = _parsed(given)
        self.der = self.x509.public_bytes(Encoding.DER)
        try:
            self.emails = frozenset(_emails(self.x509))
            self.key_algorithm = _key_algorithm(self.x509)
        except Exception as error:  # whatever made the certificate chose these octets
            raise InvalidArgument(f"the certificate cannot be read: {printable(str(error))}") from error

    def __repr__(self) -> str:
        return f"<MailCertificate {self.name}>"

    @property
    def name(self) -> str:
        """Whom it was issued to, for messages."""
        return printable(self.x509.subject.rfc4514_string() or ", ".join(sorted(self.emails)))

    @property
    def public_key(self) -> Any:
        """Its key, an object of the package cryptography."""
        return self.x509.public_key()

    def permitting(self, use: Use) -> Self:
        """Return the certificate, which may be used to sign mail, or to encrypt it.

        Raises:
            InvalidArgument: its key is of another kind or too short, or it is issued for something else.
        """
        key = self.public_key
        if self.key_algorithm is None or (use == "encrypt" and self.key_algorithm == "ed25519"):
            raise InvalidArgument(f"mail is not {use}ed with a key of this kind: {self.name}")
        if self.key_algorithm == "rsa" and key.key_size < _RSA_BITS:
            raise InvalidArgument(f"an RSA key has {_RSA_BITS} bits or more, not {key.key_size}: {self.name}")
        if self.key_algorithm == "ec" and key.curve.name not in _CURVES:
            raise InvalidArgument(f"mail does not use the curve {key.curve.name}: {self.name}")
        _check_usage(self, use)
        return self

    def check_time(self, now: float) -> None:
        """Refuse a certificate that is not valid at `now`.

        Args:
            now: seconds since the epoch.

        Raises:
            SigningError: it is not valid yet, or not any more.
        """
        moment = datetime.fromtimestamp(now, UTC)
        if moment > self.x509.not_valid_after_utc:
            raise SigningError(
                f"the certificate expired on {self.x509.not_valid_after_utc:%Y-%m-%d}: {self.name}"
            )
        if moment < self.x509.not_valid_before_utc:
            raise SigningError(
                f"the certificate is not valid before {self.x509.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: {self.name}"
            )

    def check_author(self, authors: Sequence[Address]) -> None:
        """Refuse to sign for an author who is not in the certificate (RFC 8550 section 3).

        Args:
            authors: the addresses of From and Sender.

        Raises:
            SigningError: the certificate has mail addresses, and none of them is the author's.
        """
        if self.emails and self.emails.isdisjoint([_comparable(one) for one in authors]):
            raise SigningError(
                f"the certificate is for {', '.join(sorted(self.emails))}, and the message is from "
                f"{', '.join(map(str, authors)) or 'nobody'}"
            )


def certificates_of(name: str, given: Any) -> tuple[MailCertificate, ...]:
    """Return a sequence of certificates as `MailCertificate`s; bytes may hold several in PEM.

    Raises:
        InvalidArgument: it is no sequence, or one of them cannot be read.
    """
    if isinstance(given, bytes) and given.count(_PEM) > 1:
        given = [_PEM + one for one in given.split(_PEM)[1:]]
    elif isinstance(given, bytes | str) or not isinstance(given, Sequence):
        raise InvalidArgument(f"{name} is a sequence of certificates: put the one that you have into a list")
    return tuple([one if isinstance(one, MailCertificate) else MailCertificate(one) for one in given])


def _parsed(given: Any) -> X509Certificate:
    from cryptography import x509

    if isinstance(given, x509.Certificate):
        return given
    inner = getattr(given, "x509", None)
    if isinstance(inner, x509.Certificate):
        return inner
    if not isinstance(given, bytes | bytearray | memoryview):
        raise InvalidArgument(
            f"a {type(given).__name__} is no certificate: CertificateStore.load reads them from files"
        )
    data = bytes(given)
    try:
        return x509.load_pem_x509_certificate(data) if _PEM in data else x509.load_der_x509_certificate(data)
    except Exception as error:
        raise InvalidArgument(
            f"this is no certificate, neither in PEM nor in DER: {printable(str(error))}"
        ) from error


def _key_algorithm(certificate: X509Certificate) -> KeyAlgorithm | None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.x509.oid import PublicKeyAlgorithmOID

    key = certificate.public_key()
    if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        return None  # it must not be used with PKCS #1 v1.5 (RFC 4055 section 1.2)
    if isinstance(key, rsa.RSAPublicKey):
        return "rsa"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "ec"
    return "ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else None


def _check_usage(certificate: MailCertificate, use: Use) -> None:
    """Refuse a certificate that is issued for something else (RFC 8550 section 4.4)."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    extensions = certificate.x509.extensions
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        if use == "sign":
            permitted = usage.digital_signature or usage.content_commitment
        else:
            permitted = usage.key_encipherment if certificate.key_algorithm == "rsa" else usage.key_agreement
    except x509.ExtensionNotFound:
        permitted = True
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        mail = {ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
        permitted = permitted and not mail.isdisjoint(purposes)
    except x509.ExtensionNotFound:
        pass
    if not permitted:
        raise InvalidArgument(f"the certificate is not issued to {use} mail: {certificate.name}")


def _emails(certificate: X509Certificate) -> list[str]:
    """Return the addresses in the alternative names, and those that old authorities put into the subject."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    found = [one.value for one in certificate.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    found += names.get_values_for_type(x509.RFC822Name)
    for other in names.get_values_for_type(x509.OtherName):
        if other.type_id.dotted_string == _UTF8_MAILBOX:
            found.append(_utf8_string(other.value))
    read = []
    for text in found:
        try:
            read.append(_comparable(Address.parse(str(text))))
        except InvalidAddress:
            continue
    return read


def _utf8_string(der: bytes) -> str:
    """Return the text of a UTF8String of less than 128 octets, empty for anything else."""
    if len(der) < 2 or der[0] != 0x0C or der[1] != len(der) - 2 or der[1] > 127:
        return ""
    return der[2:].decode("utf-8", "replace")


def _comparable(address: Address) -> str:
    """Return an address in the form in which it is compared.

    The local part, too, in lower case: RFC 5280 would compare it exactly, but readers do not.
    """
    return f"{address.local.lower()}@{address.ascii_domain.lower()}"
