"""The record by which the DNS publishes a DKIM key: RFC 6376 section 3.6.1, for Ed25519 RFC 8463 section 4."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final, NamedTuple

from ..errors import SigningError
from .sign import public_key_of, signer_of

__all__ = ["DKIMRecord", "dkim_record"]

_BLANKS: Final = re.compile(r"[ \t\r\n]+")
_TAG: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
#: Longer texts are no record: an RSA key of 16384 bits has fewer characters.
_MOST: Final = 8192


class DKIMRecord(NamedTuple):
    """A record as it was read.

    Attributes:
        key_algorithm: the kind of the key (`k=`).
        public_key: the key, an object of the package cryptography; None where it was revoked (an empty `p=`).
        hashes: the hashes that may be used (`h=`), empty for any.
        services: the services that it is for (`s=`).
        flags: `y` and `s` of `t=`.
    """

    key_algorithm: str
    public_key: Any
    hashes: tuple[str, ...] = ()
    services: tuple[str, ...] = ("*",)
    flags: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> DKIMRecord:
        """Read a record.

        Raises:
            SigningError: it is none, or its key cannot be read.
        """
        tags = _tags(text)
        if tags.get("v", "DKIM1") != "DKIM1" or "p" not in tags:
            raise SigningError("the record is not one of a DKIM key")
        algorithm = tags.get("k", "rsa")
        return cls(
            algorithm,
            _public_key(algorithm, tags["p"]) if tags["p"] else None,
            tuple(filter(None, tags.get("h", "").split(":"))),
            tuple(tags.get("s", "*").split(":")),
            tuple(filter(None, tags.get("t", "").split(":"))),
        )

    def demand_fit(self, public_key: Any, *, subdomain_identity: bool = False) -> None:
        """Refuse a key that verifiers would not find in this record.

        Args:
            public_key: the public half of the key that signs; None if it is not known.
            subdomain_identity: the signature has an `i=` below its domain.

        Raises:
            SigningError: the record has another key, or may not be used for this.
        """
        if self.public_key is None:
            raise SigningError("the key was revoked: its record has an empty p=")
        if public_key is not None and _raw(public_key) != _raw(self.public_key):
            raise SigningError("the record has another key")
        if self.hashes and "sha256" not in self.hashes:
            raise SigningError(f"the record allows only the hashes {', '.join(self.hashes)}")
        if not {"*", "email"}.intersection(self.services):
            raise SigningError("the record is not for mail (s=)")
        if subdomain_identity and "s" in self.flags:
            raise SigningError("the record allows no identity below its domain (t=s)")


def dkim_record(key: Any) -> str:
    """Return the text of the record for a key, private or public.

    Args:
        key: what `DKIM` takes as key and whose public half is known, or a public key of the package cryptography.

    Raises:
        SigningError: the public half is not known, or no key of DKIM.
    """
    public = (
        key if not hasattr(key, "sign") and hasattr(key, "public_bytes") else public_key_of(signer_of(key))
    )
    if public is None:
        raise SigningError("the public half of the key is not known")
    algorithm = _algorithm(public)
    return f"v=DKIM1; k={algorithm}; p={base64.b64encode(_raw(public)).decode()}"


def _algorithm(public_key: Any) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(public_key, Ed25519PublicKey):
        return "ed25519"
    if isinstance(public_key, RSAPublicKey):
        return "rsa"
    raise SigningError("DKIM has RSA and Ed25519 keys only")


def _raw(public_key: Any) -> bytes:
    """Return the octets of a key as a record has them."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if _algorithm(public_key) == "ed25519":
        raw: bytes = public_key.public_bytes_raw()
        return raw
    spki: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return spki


def _tags(text: str) -> dict[str, str]:
    """Read a list of tags (section 3.2).

    Raises:
        SigningError: it is too long, a part has no name, or a name is there twice.
    """
    if len(text) > _MOST:
        raise SigningError(f"the record is longer than {_MOST} characters")
    found: dict[str, str] = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        name = name.strip(" \t\r\n")
        if not (name or equals):
            continue
        if not equals or not _TAG.match(name) or name in found:
            raise SigningError("the record is not a list of tags")
        found[name] = _BLANKS.sub("", value)
    return found


def _public_key(algorithm: str, text: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        octets = base64.b64decode(text, validate=True)
        key: Any = (
            Ed25519PublicKey.from_public_bytes(octets)
            if algorithm == "ed25519"
            else load_der_public_key(octets)
        )
        fits = _algorithm(key) == algorithm
    except SigningError:
        fits = False
    except (binascii.Error, ValueError, TypeError) as error:
        raise SigningError(f"the key of the record is not one of kind {algorithm}") from error
    except Exception as error:  # an algorithm that cryptography does not know
        raise SigningError("the key of the record cannot be read") from error
    if not fits:
        raise SigningError(f"the key of the record is not one of kind {algorithm}")
    return key
