"""The keys that sign messages: in this process, or with a signer outside of this library.

`signer_of` takes what a caller may give as a key: a private key of the package cryptography, a key on a token, an
async callable, or an `ExternalSigner`, which is such a callable with everything that it is to be told.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, get_args, runtime_checkable

from ..errors import InvalidArgument, SigningError, SMTPError
from ..model.secret import Secret
from ..model.signing import (
    AskSigner,
    HashAlgorithm,
    KeyAlgorithm,
    LocalSigner,
    Method,
    RemoteSigner,
    SignAnswer,
    Signer,
    SignRequest,
    ToSign,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hashes import HashAlgorithm as Hash

__all__ = ["ExternalSigner", "KeySigner", "TokenSigner", "public_key_of", "signer_of", "verifies"]

#: Octets of a signature by an Ed25519 key.
_ED25519_SIZE: Final = 64
#: An Ed25519 key as RFC 8032 writes it, in base64.
_SEED: Final = re.compile(rb"[A-Za-z0-9+/]{43}=\s*\Z")
#: No signature is longer; a CMS SignedData has certificates in it.
_MOST: Final = 1 << 20


@runtime_checkable
class _TokenKey(Protocol):
    """A private key that does not leave its token, as `CertificateStore` reads one."""

    @property
    def public_key_der(self) -> bytes:
        """Its public half, as SubjectPublicKeyInfo."""

    def sign(self, data: bytes, *, hash_name: str = "SHA256", pss: bool = False) -> bytes:
        """Return a signature of `data`; blocks."""


class KeySigner:
    """A private key in this process.

    Args:
        key: an RSA, elliptic or Ed25519 key of the package cryptography. It never shows.

    Attributes:
        key_algorithm: its kind.
        quick: a signature takes microseconds. Those of other keys are made in a thread.
        public_key: the public half.

    Raises:
        InvalidArgument: a key of another kind.
    """

    __slots__ = ("_key", "key_algorithm", "public_key", "quick")

    def __init__(self, key: Any) -> None:
        algorithm = _algorithm_of(key)
        if algorithm is None:
            raise InvalidArgument(f"messages are not signed with a {type(key).__name__}")
        self._key = key
        self.key_algorithm = algorithm
        self.quick = algorithm == "ed25519"
        self.public_key = key.public_key()

    @classmethod
    def load(cls, source: str | PathLike[str] | bytes, password: str | Secret | None = None) -> Self:
        """Read a private key: PEM or DER, PKCS #8 or the older forms, or 32 octets in base64 for Ed25519.

        Args:
            source: the path of the file, or its content as bytes.
            password: opens an encrypted key.

        Raises:
            SigningError: it cannot be read, holds no such key, or the password is missing or wrong.
        """
        secret = None if password is None else Secret(password)
        return cls(_loaded(source, secret))

    def __repr__(self) -> str:
        return f"<KeySigner {self.key_algorithm}>"

    def sign(self, wanted: ToSign) -> bytes:
        """Return the signature: of an RSA key by PKCS #1 v1.5, of an elliptic key in DER.

        Raises:
            SigningError: the key is damaged.
        """
        key: Any = self._key
        try:
            if self.key_algorithm == "ed25519":
                signature: bytes = key.sign(wanted.hash() if wanted.of_hash else wanted.data)
            elif self.key_algorithm == "rsa":
                from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

                signature = key.sign(wanted.data, PKCS1v15(), _hash(wanted.hash_algorithm))
            else:
                from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

                signature = key.sign(wanted.data, ECDSA(_hash(wanted.hash_algorithm)))
        except ValueError as error:
            raise SigningError(f"the {self.key_algorithm} key does not sign: {error}") from error
        return signature


class TokenSigner:
    """A key on a token of this machine, which is waited for in a thread.

    Args:
        key: the key, of `CertificateStore.load("pkcs11:…")`.
    """

    __slots__ = ("_key", "key_algorithm", "public_key", "quick")

    def __init__(self, key: _TokenKey) -> None:
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        self._key = key
        self.quick = False
        self.public_key = load_der_public_key(key.public_key_der)
        algorithm = _algorithm_of(self.public_key)
        if algorithm is None:
            raise InvalidArgument("messages are not signed with a key of this kind")
        self.key_algorithm: KeyAlgorithm = algorithm

    def sign(self, wanted: ToSign) -> bytes:
        """Return the signature by the token.

        Raises:
            SigningError: the token or its key is gone, or does not sign.
        """
        try:
            return self._key.sign(wanted.data, hash_name=wanted.hash_algorithm.upper())
        except SMTPError as error:
            raise SigningError(f"the token does not sign: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalSigner:
    """A key that this process does not have: in an HSM, a KMS, with a service, on another machine.

    Attributes:
        ask: awaited with a `SignRequest` for each signature; returns the signature, or a `SignAnswer`. It may be
            called by several tasks at once, and is cancelled when its caller is.
        key_algorithm: the kind of the key.
        hash_algorithm: the hash to sign with; None leaves it to what is signed.
        hash_outside: ask with the data instead of their hash. So an Ed25519 key is asked in any case, except for DKIM,
            where it signs a hash (RFC 8463).
        method: `"pkcs1"` for a signature, `"pkcs7"` for a CMS SignedData, which only S/MIME can use.
        key_id, params, echo: passed on with each request. Where `echo` is given, the answer has to be a `SignAnswer`
            that repeats it.
        key_secret: a secret that both sides know, from which `SignRequest.mac` is computed.
        timeout: seconds for one signature.
        public_key: the public half, an object of the package cryptography. With it each signature is verified before
            it is used.

    Raises:
        InvalidArgument: a value that is not allowed.
    """

    ask: AskSigner
    key_algorithm: KeyAlgorithm = "rsa"
    hash_algorithm: HashAlgorithm | None = None
    hash_outside: bool = False
    method: Method = "pkcs1"
    key_id: str = ""
    key_secret: str | Secret | None = field(default=None, repr=False)
    params: str = ""
    echo: str = ""
    timeout: float = 30.0
    public_key: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not callable(self.ask):
            raise InvalidArgument(f"ask is an async callable, not {self.ask!r}")
        _one_of("key_algorithm", self.key_algorithm, get_args(KeyAlgorithm))
        _one_of("method", self.method, get_args(Method))
        if self.hash_algorithm is not None:
            _one_of("hash_algorithm", self.hash_algorithm, get_args(HashAlgorithm))
        if isinstance(self.timeout, bool) or not self.timeout > 0:
            raise InvalidArgument(f"timeout is a number of seconds above 0, not {self.timeout!r}")
        if self.key_secret is not None:
            object.__setattr__(self, "key_secret", Secret(self.key_secret))
        if self.public_key is not None and _algorithm_of(self.public_key) != self.key_algorithm:
            raise InvalidArgument(f"public_key is not the public half of a key of kind {self.key_algorithm}")

    def request(self, wanted: ToSign) -> SignRequest:
        """Return what to ask."""
        with_data = self.hash_outside or (self.key_algorithm == "ed25519" and not wanted.of_hash)
        request = SignRequest(
            wanted.data if with_data else None,
            None if with_data else wanted.hash(),
            wanted.hash_algorithm,
            self.key_algorithm,
            self.method,
            self.key_id,
            self.params,
            self.echo,
        )
        return request if self.key_secret is None else request.with_mac(Secret(self.key_secret))

    def accepted(self, wanted: ToSign, request: SignRequest, answer: object) -> bytes:
        """Return the signature in `answer`.

        Raises:
            SigningError: there is none, its `echo` is not that of the request, or it is no signature of `wanted`.
        """
        given, echo = answer if isinstance(answer, SignAnswer) else (answer, "")
        if not isinstance(given, bytes | bytearray | memoryview):
            raise SigningError(f"the signer returned {type(given).__name__} instead of bytes")
        if request.echo and echo != request.echo:
            raise SigningError("the signer's answer does not repeat the echo of the request")
        signature = bytes(given)
        if not 0 < len(signature) <= _MOST:
            raise SigningError(f"the signer returned {len(signature)} octets, which are no signature")
        if self.method == "pkcs7":
            return signature
        if self.key_algorithm == "ed25519" and len(signature) != _ED25519_SIZE:
            raise SigningError(f"the signer returned {len(signature)} octets; Ed25519 makes {_ED25519_SIZE}")
        if self.public_key is not None and not verifies(self.public_key, signature, wanted):
            raise SigningError("the signer's signature does not verify with its public key")
        return signature


def signer_of(key: Any) -> Signer:
    """Return the signer for what a caller gives as a key.

    Args:
        key: a private key of the package cryptography, a key on a token, an `ExternalSigner`, an async callable
            `(SignRequest) -> signature` with an RSA key behind it, or a signer of any other kind.

    Raises:
        InvalidArgument: it is none of these.
    """
    if isinstance(key, LocalSigner | RemoteSigner):
        return key
    if _algorithm_of(key) is not None and hasattr(key, "sign"):
        return KeySigner(key)
    if isinstance(key, _TokenKey):
        return TokenSigner(key)
    if callable(key):
        return ExternalSigner(ask=key)
    raise InvalidArgument(
        f"a {type(key).__name__} is no key to sign with: a private key, an ExternalSigner or an async callable is"
    )


def public_key_of(signer: Signer) -> Any:
    """Return the public half of a signer's key, None if that is not known."""
    return getattr(signer, "public_key", None)


def verifies(public_key: Any, signature: bytes, wanted: ToSign) -> bool:
    """Tell whether `signature` is one of `wanted` by the private half of `public_key`."""
    from cryptography.exceptions import InvalidSignature

    algorithm = _algorithm_of(public_key)
    try:
        if algorithm == "ed25519":
            public_key.verify(signature, wanted.hash() if wanted.of_hash else wanted.data)
        elif algorithm == "rsa":
            from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

            public_key.verify(signature, wanted.data, PKCS1v15(), _hash(wanted.hash_algorithm))
        else:
            from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

            public_key.verify(signature, wanted.data, ECDSA(_hash(wanted.hash_algorithm)))
    except (InvalidSignature, ValueError):
        return False
    return True


def _algorithm_of(key: Any) -> KeyAlgorithm | None:
    """Return the kind of a private or public key of the package cryptography, None for anything else."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return "rsa"
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return "ec"
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return "ed25519"
    return None


def _hash(name: HashAlgorithm) -> Hash:
    from cryptography.hazmat.primitives import hashes

    known: dict[HashAlgorithm, Hash] = {
        "sha256": hashes.SHA256(),
        "sha384": hashes.SHA384(),
        "sha512": hashes.SHA512(),
    }
    return known[name]


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidArgument(f"{name} is one of {', '.join(allowed)}, not {value!r}")


# --- key files -----------------------------------------------------------------------------------------------


def _loaded(source: str | PathLike[str] | bytes, password: Secret | None) -> Any:
    where = "the key"
    if isinstance(source, bytes):
        data = source
    else:
        where = f"the key file {source}"
        try:
            data = Path(source).read_bytes()
        except (OSError, ValueError) as error:
            raise SigningError(
                f"{where} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error
    try:
        return _parsed(data, password)
    except TypeError as error:
        # What cryptography raises for a password too few, and for one too many.
        fault = "is encrypted, and no password is given" if password is None else "is not encrypted"
        raise SigningError(f"{where} {fault}") from error
    except Exception as error:
        hint = "the password is wrong, or it" if password is not None else "it"
        raise SigningError(f"{where} is not read: {hint} is damaged or no private key") from error


def _parsed(data: bytes, password: Secret | None) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

    secret = None if password is None else password.reveal().encode()
    if b"-----BEGIN " in data:
        return load_pem_private_key(data, secret)
    if _SEED.match(data):
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(data))
    return load_der_private_key(data, secret)
