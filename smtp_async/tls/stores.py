"""Certificates and keys from files of any kind, from memory, and from tokens.

    store = CertificateStore.load("ann.pfx", password="…")
    identity = store.identity()                                     # the only identity in the store
    identity = store.identity_for(store.find("CN=Ann, O=Example"))  # one of several

The kind of a file is detected from its content. Reading files and deriving keys from passwords takes up to seconds:
call it in a thread.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from ..errors import (
    CertificateNotFound,
    CertificateStoreError,
    ClientCertificateMissing,
    ClientIdentityError,
    InvalidArgument,
    SMTPError,
)
from ..model.reply import printable
from ..model.secret import Secret
from .certificate import Certificate
from .containers import Contents, read_der, read_pem
from .distinguished_name import is_part_of_subject, is_subject
from .identity import Identity
from .keys import fits, public_der

if TYPE_CHECKING:
    from .keys import PrivateKey

__all__ = ["CertificateStore"]

_Reader: TypeAlias = Callable[[bytes, Secret | None], Contents]

#: Maximum of octets of a store; the system's store of authorities has about 250 KiB.
_LARGEST: Final = 4 << 20
#: A longer text is not a path, unless there is such a file.
_PATH: Final = 255
_BEGINNINGS: Final = ("{", "<", "ssh-", "ecdsa-", "-----BEGIN ", "---- BEGIN ", "PuTTY-User-Key-File-")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/\s]{40,}+={0,2}\s*+\Z")
_WINDOWS: Final = frozenset({"MY", "CA", "ROOT"})
#: The module of a failed assertion in cryptography, which is not an Exception: a short IV in a PEM key causes one.
_PANIC: Final = "pyo3_runtime"
#: Maximum of holders that an error names.
_NAMED: Final = 5


class CertificateStore:
    """Certificates and private keys from one source.

    Attributes:
        certificates: every certificate, in the order of the source, without duplicates.
        public_keys: every public key, in DER (SubjectPublicKeyInfo); some sources contain nothing else.
    """

    __slots__ = ("_keys", "_where", "certificates", "public_keys")

    def __init__(
        self,
        certificates: Iterable[Certificate] = (),
        keys: Iterable[PrivateKey] = (),
        *,
        public_keys: Iterable[bytes] = (),
        where: str = "the store",
    ) -> None:
        self._keys = {public_der(key): key for key in keys}
        self._where = where
        self.certificates = tuple(dict.fromkeys(certificates))
        self.public_keys = tuple(dict.fromkeys([*self._keys, *public_keys]))

    @classmethod
    def load(
        cls, source: str | bytes | os.PathLike[str], password: str | bytes | Secret | None = None
    ) -> Self:
        """Read a store: PFX (PKCS#12), PEM, DER, PKCS#7, with the extra `[keys]` JKS, JWK, PPK, SSH and XML.

        Args:
            source: a path, or the content of such a file as bytes or text, base64 included; or a `pkcs11:` URI
                (RFC 7512) with a module-path, for a token, with the extra `[pkcs11]`.
            password: decrypts the store; the PIN of a token.

        Raises:
            CertificateStoreError: the store cannot be read, is of another kind or empty, or the password is missing or
                wrong.
            FeatureUnavailable: an extra is needed.
            InvalidArgument: source or password are of another type, or the password is not UTF-8.
        """
        secret = _secret(password)
        if isinstance(source, str) and source.lower().startswith("pkcs11:"):
            from .tokens import read_token

            return cls._read("the token", lambda: read_token(source, secret))
        content, where = _content(source)
        return cls._read(where, lambda: _reader(content)(content, secret))

    @classmethod
    def _read(cls, where: str, read: Callable[[], Contents]) -> Self:
        try:
            found = read()
        except CertificateStoreError as error:
            raise CertificateStoreError(f"{where}: {error}") from error
        except SMTPError:
            raise
        except BaseException as error:  # parsers raise many kinds of errors
            if not isinstance(error, Exception) and type(error).__module__ != _PANIC:
                raise
            raise CertificateStoreError(_in_words(error, where)) from error
        if not (found.certificates or found.keys or found.public_keys):
            raise CertificateStoreError(f"{where} holds neither a certificate nor a key")
        return cls(found.certificates, found.keys, public_keys=found.public_keys, where=where)

    def union(self, other: CertificateStore) -> CertificateStore:
        """Return a store with the content of both, for example a PKCS#7 bundle and its key."""
        return CertificateStore(
            (*self.certificates, *other.certificates),
            (*self._keys.values(), *other._keys.values()),
            public_keys=(*self.public_keys, *other.public_keys),
            where=f"{self._where} with {other._where}",
        )

    def find(self, subject: str) -> Certificate:
        """Return the certificate of `subject`. Certificates with a key in this store are preferred.

        Args:
            subject: the whole name of the holder, `CN=Ann, O="Example, Inc.", C=DE`, with its fields in any order and
                case; if no certificate has exactly this name, a part of the name; `*` for any certificate.

        Raises:
            CertificateNotFound: there is no such certificate.
            InvalidArgument: `subject` is empty.
        """
        if not subject.strip():
            raise InvalidArgument("an empty subject finds nothing: * finds any certificate")
        ours = sorted(self.certificates, key=lambda one: self._key_of(one) is None)
        for matches in (is_subject, is_part_of_subject, lambda wanted, _: wanted.strip() == "*"):
            for one in ours:
                if matches(subject, one):
                    return one
        raise CertificateNotFound(
            f"{self._where} has no certificate for {printable(subject)}: {_named(self.certificates)}"
        )

    def identity(self, *, check_key: bool = True) -> Identity:
        """Return the only certificate with a key in this store, with the key and the chain.

        Args:
            check_key: check that the key is valid and belongs to the certificate.

        Raises:
            ClientCertificateMissing: there is no key, or no certificate for it.
            ClientIdentityError: there are several, or the key is damaged.
        """
        having = [one for one in self.certificates if self._key_of(one) is not None]
        if len(having) == 1:
            return self.identity_for(having[0], check_key=check_key)
        if having:
            raise ClientIdentityError(
                f"{self._where} has {len(having)} certificates with their keys: {_named(having)}: "
                "choose one with find() and identity_for()"
            )
        if not self._keys:
            raise ClientCertificateMissing(
                f"{self._where} holds no private key, so it cannot be used to log in"
            )
        if not self.certificates:
            raise ClientCertificateMissing(f"{self._where} holds a private key, but no certificate for it")
        raise ClientIdentityError(
            f"the private key in {self._where} belongs to none of its certificates: {_named(self.certificates)}"
        )

    def identity_for(self, certificate: Certificate | bytes | str, *, check_key: bool = True) -> Identity:
        """Return `certificate` with its key from this store, and its chain.

        Args:
            certificate: from this or another source; also as PEM, DER or base64.
            check_key: check that the key is valid and belongs to the certificate. Without it the only key of the
                store is assumed to be the certificate's.

        Raises:
            ClientCertificateMissing: there is no key in the store.
            ClientIdentityError: no key belongs to the certificate, or the key is damaged.
            CertificateStoreError: `certificate` is not a certificate.
        """
        if not isinstance(certificate, Certificate):
            certificate = Certificate.load(certificate)
        key = self._key_of(certificate)
        if key is None and not check_key and len(self._keys) == 1:
            (key,) = self._keys.values()
        if key is None:
            if not self._keys:
                raise ClientCertificateMissing(
                    f"{self._where} holds no private key for {certificate.subject}"
                )
            raise ClientIdentityError(f"no private key in {self._where} belongs to {certificate.subject}")
        return Identity(certificate, key, self._chain(certificate), check_key=check_key)

    def key(self) -> PrivateKey:
        """Return the only private key in this store, which may have no certificate, as keys for DKIM have none.

        Raises:
            ClientIdentityError: there is none, or there are several.
        """
        if len(self._keys) != 1:
            count = len(self._keys) or "no"
            raise ClientIdentityError(
                f"{self._where} holds {count} private key{'s' if self._keys else ''}, not one"
            )
        (key,) = self._keys.values()
        return key

    def _key_of(self, certificate: Certificate) -> PrivateKey | None:
        found = self._keys.get(certificate.public_key_der)
        if found is None:
            found = next((key for public, key in self._keys.items() if fits(public, certificate)), None)
        return found

    def _chain(self, certificate: Certificate) -> tuple[Certificate, ...]:
        """Return the issuers, without the self-signed one at the end, which every party that trusts it has."""
        chain: list[Certificate] = []
        while True:
            last = chain[-1] if chain else certificate
            issuers = (
                one for one in self.certificates if one not in (certificate, *chain) and last.issued_by(one)
            )
            issuer = next(issuers, None)
            if issuer is None or issuer.self_signed:
                return tuple(chain)
            chain.append(issuer)

    def __repr__(self) -> str:
        return f"<CertificateStore certificates={len(self.certificates)} keys={len(self._keys)}>"


def _in_words(error: BaseException, where: str) -> str:
    """Return the error of a parser as a text."""
    from cryptography.exceptions import UnsupportedAlgorithm

    why = printable(str(error) or type(error).__name__)
    if isinstance(error, UnsupportedAlgorithm):
        return f"{where} needs what is missing here: {why}"
    return f"{where} is damaged, or the password is wrong: {why}"


def _named(certificates: Iterable[Certificate]) -> str:
    subjects = [one.subject or "one without a name" for one in certificates]
    more = f" and {len(subjects) - _NAMED} more" if len(subjects) > _NAMED else ""
    return f"there is {'; '.join(subjects[:_NAMED])}{more}" if subjects else "there is none at all"


# --- the source of a store -----------------------------------------------------------------------------------


def _secret(password: str | bytes | Secret | None) -> Secret | None:
    if password is None:
        return None
    if not isinstance(password, str | bytes | Secret):
        raise InvalidArgument(f"the password of a store is text, not {type(password).__name__}")
    try:
        secret = Secret(password.decode() if isinstance(password, bytes) else password)
        secret.reveal().encode()
    except UnicodeError:
        # The error of `encode` would show the password.
        raise InvalidArgument(
            "the password of a store is text: this one cannot be written in UTF-8"
        ) from None
    return secret


def _content(source: str | bytes | os.PathLike[str]) -> tuple[bytes, str]:
    """Return the bytes of a store, and its name for errors."""
    if isinstance(source, bytes | bytearray | memoryview):
        content, where = bytes(source), "the store"
    elif isinstance(source, str) and _is_content(source):
        content, where = source.encode("utf-8", "surrogatepass"), "the store"
    elif isinstance(source, str | os.PathLike):
        content, where = _file(source), printable(os.fsdecode(source))
    else:
        raise InvalidArgument(f"a store is a path, bytes or text, not {type(source).__name__}")
    if len(content) > _LARGEST:
        raise CertificateStoreError(f"{where} is no certificate store: it has more than {_LARGEST >> 20} MiB")
    if not content.strip():
        raise CertificateStoreError(f"{where} is empty")
    return content, where


def _is_content(text: str) -> bool:
    """Tell whether a text is a store, not the path of one: errors show a path, but must not show a key."""
    if "\n" in text or text.startswith(_BEGINNINGS):
        return True
    maybe = len(text) > _PATH or text.startswith("[") or _BASE64.match(text.encode("utf-8", "replace"))
    return bool(maybe) and not os.path.exists(text)


def _file(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        shown = printable(os.fsdecode(path))
        if isinstance(error, FileNotFoundError) and os.fsdecode(path).upper() in _WINDOWS:
            raise CertificateStoreError(
                f"{shown} is a certificate store of Windows, which is not read here: export a PFX file from it"
            ) from error
        why = getattr(error, "strerror", None) or str(error)
        raise CertificateStoreError(f"the certificate store {shown} cannot be read: {why}") from error


# --- the kind of a store -------------------------------------------------------------------------------------


def _reader(content: bytes) -> _Reader:
    """Return the parser of a store, by its first bytes."""
    from . import keyfiles

    start = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    if b"-----BEGIN " in content:
        return read_pem
    if content[:1] == b"\x30":
        return read_der
    if found := keyfiles.reader(start):
        return found
    if _BASE64.match(content):
        return _read_base64
    raise CertificateStoreError(
        "is of a kind that is not known: neither PEM, DER, PKCS#7, PKCS#12, JKS, JWK, PPK, an SSH key, XML nor base64"
    )


def _read_base64(content: bytes, password: Secret | None) -> Contents:
    try:
        inner = base64.b64decode(b"".join(content.split()), validate=True)
    except binascii.Error as error:
        raise CertificateStoreError("looks like base64, but is damaged") from error
    if _BASE64.match(inner):
        raise CertificateStoreError("is base64 of base64")
    return _reader(inner)(inner, password)
