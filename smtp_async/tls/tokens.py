"""Certificates and keys on a token (PKCS#11), accessed through the library of its vendor.

A token has one login state for the whole process, and closing a session logs out all others. Therefore each call here
opens a new session, and only one call runs at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, unquote_to_bytes

from ..errors import CertificateStoreError, ClientIdentityError, FeatureUnavailable
from ..model.reply import printable
from ..model.secret import Secret
from .certificate import Certificate
from .containers import Contents

__all__ = ["TokenKey", "read_token"]

_HASHES: Final = ("SHA1", "SHA224", "SHA256", "SHA384", "SHA512")
_WRONG_PIN: Final = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange"})
#: Attributes of a URI (RFC 7512 section 2.3) that choose a token or an object, and those that tell how to access it.
_CHOOSING: Final = frozenset({"token", "serial", "manufacturer", "model", "object", "id", "type"})
_REACHING: Final = frozenset({"module-path", "pin-value"})

_one_at_a_time: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Place:
    """A token, and how to access it."""

    module: str
    wanted: dict[str, str] = field(hash=False)
    pin: Secret | None

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        """Open the token; errors of its library are raised as errors of ours.

        Raises:
            CertificateStoreError: there is no such token, or the PIN is missing, wrong or locked.
        """
        pkcs11 = _pkcs11()
        with _one_at_a_time:
            try:
                token = self._token(pkcs11)
                with self._opened(pkcs11, token) as session:
                    yield session
            except pkcs11.PKCS11Error as error:
                raise CertificateStoreError(in_words(error)) from error

    def _opened(self, pkcs11: Any, token: Any) -> Any:
        try:
            return token.open(user_pin=self.pin.reveal() if self.pin else None)
        except pkcs11.UserAlreadyLoggedIn:
            # Another part of the application is logged in, which applies to every session.
            return token.open()

    def _token(self, pkcs11: Any) -> Any:
        try:
            library = pkcs11.lib(self.module)
        except (RuntimeError, OSError) as error:
            raise CertificateStoreError(
                f"the PKCS#11 library {self.module} cannot be loaded: {error}"
            ) from error
        tokens = [slot.get_token() for slot in library.get_slots(token_present=True)]
        matching = [one for one in tokens if self._is_wanted(one)]
        if len(matching) == 1:
            return matching[0]
        labels = ", ".join(sorted(printable(_stripped(one.label)) or "one without a label" for one in tokens))
        problem = "several tokens fit the URI" if matching else "there is no such token"
        raise CertificateStoreError(f"{problem}: the library knows {labels or 'none'}")

    def _is_wanted(self, token: Any) -> bool:
        found = {
            "token": token.label,
            "serial": token.serial,
            "manufacturer": token.manufacturer_id,
            "model": token.model,
        }
        return all(
            _stripped(value) == self.wanted[name] for name, value in found.items() if name in self.wanted
        )


@dataclass(frozen=True, slots=True, eq=False)
class TokenKey:
    """A private key that stays on its token and signs there.

    Attributes:
        public_key_der: the public key, as SubjectPublicKeyInfo.
        label: the label of the key on the token.
    """

    public_key_der: bytes = field(repr=False)
    label: str
    _id: bytes = field(repr=False)
    _place: _Place = field(repr=False)

    def sign(self, data: bytes, *, hash_name: str = "SHA256", pss: bool = False) -> bytes:
        """Return a signature by the token; by an elliptic-curve key in DER. The call blocks: make it in a thread.

        Args:
            data: the data to sign, not their hash.
            hash_name: SHA1, SHA224, SHA256, SHA384 or SHA512.
            pss: sign with RSASSA-PSS, the salt as long as the hash; for RSA keys only.

        Raises:
            ClientIdentityError: the key is gone, or of a kind that does not support these arguments.
            CertificateStoreError: the token is gone, or the PIN is no longer accepted.
        """
        if hash_name not in _HASHES:
            raise ClientIdentityError(
                f"a token does not sign with {hash_name!r}, only with {', '.join(_HASHES)}"
            )
        pkcs11 = _pkcs11()
        with self._place.session() as session:
            wanted = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.Attribute.ID: self._id}
            key = next(iter(session.get_objects(wanted)), None)
            if key is None:
                raise ClientIdentityError(f"the key {self.label} is not on its token any more")
            return signature_by(pkcs11, key, data, hash_name, pss=pss)


def signature_by(pkcs11: Any, key: Any, data: bytes, hash_name: str, *, pss: bool) -> bytes:
    mechanisms = pkcs11.Mechanism
    if key.key_type == pkcs11.KeyType.RSA and pss:
        size = {"SHA1": 20}.get(hash_name) or int(hash_name[3:]) // 8
        parameters = (
            getattr(mechanisms, hash_name.replace("SHA1", "SHA_1")),
            getattr(pkcs11.MGF, hash_name),
            size,
        )
        mechanism = getattr(mechanisms, f"{hash_name}_RSA_PKCS_PSS")
        return bytes(key.sign(data, mechanism=mechanism, mechanism_param=parameters))
    if pss:
        raise ClientIdentityError("only an RSA key signs with PSS")
    if key.key_type == pkcs11.KeyType.RSA:
        return bytes(key.sign(data, mechanism=getattr(mechanisms, f"{hash_name}_RSA_PKCS")))
    if key.key_type == pkcs11.KeyType.EC:
        import hashlib

        digest = hashlib.new(hash_name.lower(), data).digest()
        return bytes(pkcs11.util.ec.encode_ecdsa_signature(key.sign(digest, mechanism=mechanisms.ECDSA)))
    raise ClientIdentityError("the key on the token is neither RSA nor elliptic")


# --- objects on a token --------------------------------------------------------------------------------------


def read_token(uri: str, password: Secret | None) -> Contents:
    """Return the certificates on a token, and the private keys with a certificate or a public key there.

    Args:
        uri: `pkcs11:token=…;object=…?module-path=/usr/lib/….so` (RFC 7512).
        password: the PIN; if None, the `pin-value` of the URI. Without a PIN, only public objects are read.

    Raises:
        CertificateStoreError: the URI is invalid, there is no such token, or the PIN is wrong.
        FeatureUnavailable: python-pkcs11 is not installed.
    """
    place = _place(uri, password)
    pkcs11 = _pkcs11()
    found = Contents()
    with place.session() as session:
        publics: dict[bytes, bytes] = {}
        for one in session.get_objects(_template(pkcs11, place, pkcs11.ObjectClass.CERTIFICATE)):
            certificate = Certificate(bytes(one[pkcs11.Attribute.VALUE]))
            found.certificates.append(certificate)
            publics[bytes(one[pkcs11.Attribute.ID])] = certificate.public_key_der
        for one in session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY}):
            if bytes(one.id) not in publics and (der := public_half(pkcs11, one)) is not None:
                publics[bytes(one.id)] = der
        for one in session.get_objects(_template(pkcs11, place, pkcs11.ObjectClass.PRIVATE_KEY)):
            if public := publics.get(bytes(one.id)):
                found.keys.append(TokenKey(public, printable(one.label or ""), bytes(one.id), place))
    return found


def _place(uri: str, password: Secret | None) -> _Place:
    path, _, query = uri.partition(":")[2].partition("?")
    wanted = _attributes(path, ";", _CHOOSING)
    reach = _attributes(query, "&", _REACHING)
    if "module-path" not in reach:
        raise CertificateStoreError("the URI of a token needs ?module-path=, the library that reaches it")
    pin = reach.get("pin-value")
    if password is None and pin is not None:
        password = Secret(pin)
    return _Place(reach["module-path"], wanted, password)


def _attributes(text: str, separator: str, known: frozenset[str]) -> dict[str, str]:
    found = {}
    for part in filter(None, text.split(separator)):
        name, equals, value = part.partition("=")
        if not equals or name in found:
            raise CertificateStoreError(f"the URI of a token is malformed at {printable(name)!r}")
        if name not in known:
            # RFC 7512 section 2.3: unknown attributes must not be ignored.
            raise CertificateStoreError(
                f"the URI of a token has {printable(name)!r}, which is not known here"
            )
        # An identifier consists of octets, which Latin-1 preserves.
        found[name] = unquote_to_bytes(value).decode("latin-1") if name == "id" else unquote(value)
    return found


def _template(pkcs11: Any, place: _Place, kind: Any) -> dict[Any, Any]:
    template = {pkcs11.Attribute.CLASS: kind}
    if "object" in place.wanted:
        template[pkcs11.Attribute.LABEL] = place.wanted["object"]
    if "id" in place.wanted:
        template[pkcs11.Attribute.ID] = place.wanted["id"].encode("latin-1")
    return template


def public_half(pkcs11: Any, key: Any) -> bytes | None:
    """Return a public key on a token as SubjectPublicKeyInfo, None if it is of a kind that TLS does not use."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

    if key.key_type == pkcs11.KeyType.RSA:
        encoded = pkcs11.util.rsa.encode_rsa_public_key(key)
    elif key.key_type == pkcs11.KeyType.EC:
        encoded = pkcs11.util.ec.encode_ec_public_key(key)
    else:
        return None
    return load_der_public_key(encoded).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _pkcs11() -> Any:
    try:
        import pkcs11
    except ImportError:
        raise FeatureUnavailable(
            "tokens are reached with python-pkcs11", needs="smtp-async[pkcs11]"
        ) from None
    return pkcs11


def in_words(error: Exception) -> str:
    name = type(error).__name__
    if name in _WRONG_PIN:
        return "the PIN is wrong; after some wrong ones a token locks itself"
    if name == "PinLocked":
        return "the PIN is locked: its administrator can set a new one"
    return f"the token says {name}" + (f": {error}" if str(error) else "")


def _stripped(text: Any) -> str:
    value = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return value.rstrip("\0 ")
