"""Key files of other programs: JSON Web Keys, XML, SSH public keys; and the detection of their kind.

They belong to the extra `[keys]`, but only JSON Web Keys and some keys of PuTTY need more than cryptography.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from xml.etree import ElementTree

from ..errors import CertificateStoreError, FeatureUnavailable
from ..model.secret import Secret
from .certificate import Certificate
from .containers import Contents
from .jks import read_jks
from .ppk import read_ppk

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

__all__ = ["read_jwk", "read_ssh", "read_xml", "reader"]

_Reader: TypeAlias = Callable[[bytes, Secret | None], Contents]

_SSH2_BEGIN: Final = "---- BEGIN SSH2 PUBLIC KEY ----"
_SSH2_END: Final = "---- END SSH2 PUBLIC KEY ----"
_OID_URN: Final = "urn:oid:"


def reader(start: bytes) -> _Reader | None:
    """Return the parser for a file with this beginning, None if its kind is not known here.

    Args:
        start: the content, without leading blanks and byte order mark.
    """
    for sign, read in _SIGNS:
        if start.startswith(sign):
            return read
    return None


# --- JSON Web Keys (RFC 7517) --------------------------------------------------------------------------------


def read_jwk(data: bytes, _password: Secret | None = None) -> Contents:
    """Read one key, a set of keys or a list of them, with the certificates in `x5c`.

    Raises:
        CertificateStoreError: the file is not JSON, or a key in it is damaged or of a kind that TLS does not use.
        FeatureUnavailable: joserfc is not installed.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CertificateStoreError("looks like a JSON Web Key, but is no JSON") from error
    found = Contents()
    for member in _members(document):
        for text in member.get("x5c", ()):
            found.certificates.append(Certificate(base64.b64decode(text, validate=True)))
        _add_jwk(found, member)
    return found


def _members(document: Any) -> list[dict[str, Any]]:
    members = document.get("keys", [document]) if isinstance(document, dict) else document
    if not isinstance(members, list) or not all(isinstance(one, dict) and "kty" in one for one in members):
        raise CertificateStoreError("is JSON, but neither a JSON Web Key nor a set of them")
    return members


def _add_jwk(found: Contents, member: dict[str, Any]) -> None:
    try:
        from joserfc import jwk
    except ImportError:
        raise FeatureUnavailable("JSON Web Keys are read with joserfc", needs="smtp-async[keys]") from None
    if member["kty"] == "oct":
        raise CertificateStoreError("holds a symmetric key, which is for no certificate")
    key: Any = jwk.import_key(member)
    if key.is_private:
        found.keys.append(key.private_key)
    else:
        found.add_public_key(key.public_key)


# --- SSH public keys (RFC 4253 section 6.6, RFC 4716) --------------------------------------------------------


def read_ssh(data: bytes, _password: Secret | None = None) -> Contents:
    """Read public keys: a line for each, or the framed form of RFC 4716. Their only use is pinning.

    Raises:
        CertificateStoreError: one of them is damaged.
    """
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    found = Contents()
    text = data.decode("utf-8", "replace")
    for line in _framed(text) if text.startswith(_SSH2_BEGIN) else text.splitlines():
        if line.strip() and not line.startswith("#"):
            found.add_public_key(load_ssh_public_key(line.encode()))
    return found


def _framed(text: str) -> Iterator[str]:
    """Yield each framed key as a line."""
    for block in text.split(_SSH2_BEGIN)[1:]:
        body, end, _ = block.partition(_SSH2_END)
        if not end:
            raise CertificateStoreError("an SSH public key does not end")
        # A header line may continue in the next one (RFC 4716 section 3.3).
        lines = body.replace("\r\n", "\n").replace("\\\n", "").splitlines()
        blob = "".join(line.strip() for line in lines if ":" not in line)
        octets = base64.b64decode(blob, validate=True)
        kind = octets[4 : 4 + int.from_bytes(octets[:4])]
        yield f"{kind.decode('ascii')} {blob}"


# --- XML (XML Signature section 4.5, and the keys of .NET) ---------------------------------------------------


class _WithoutDTD(ElementTree.TreeBuilder):
    """Refuses a document type, which could define entities that grow without limit or read other files."""

    def doctype(self, _name: str, _public: str | None, _system: str | None) -> None:
        raise CertificateStoreError("is XML with a document type, which no key needs: it is not read")


def read_xml(data: bytes, _password: Secret | None = None) -> Contents:
    """Read every X509Certificate, RSAKeyValue and ECKeyValue at any level.

    Raises:
        CertificateStoreError: the file is not XML, has a document type, or a key in it is damaged.
    """
    parser = ElementTree.XMLParser(target=_WithoutDTD())
    try:
        parser.feed(data)
        root = parser.close()
    except ElementTree.ParseError as error:
        raise CertificateStoreError(f"looks like XML, but is damaged: {error}") from error
    found = Contents()
    for element in root.iter():
        match _local(element):
            case "X509Certificate":
                found.certificates.append(Certificate(_octets(element)))
            case "RSAKeyValue" | "RSAKeyPair":
                _add_rsa(found, element)
            case "ECKeyValue":
                found.add_public_key(_elliptic(element))
    return found


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _octets(element: ElementTree.Element) -> bytes:
    return base64.b64decode("".join((element.text or "").split()), validate=True)


def _add_rsa(found: Contents, element: ElementTree.Element) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    numbers = {_local(one): int.from_bytes(_octets(one)) for one in element}
    public = rsa.RSAPublicNumbers(e=numbers["Exponent"], n=numbers["Modulus"])
    if "D" in numbers:
        found.keys.append(_private_rsa(numbers, public))
    else:
        found.add_public_key(public.public_key())


def _private_rsa(numbers: dict[str, int], public: rsa.RSAPublicNumbers) -> rsa.RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric import rsa

    p, q, d = numbers["P"], numbers["Q"], numbers["D"]
    dp, dq, inverse = numbers["DP"], numbers["DQ"], numbers["InverseQ"]
    return rsa.RSAPrivateNumbers(
        p=p, q=q, d=d, dmp1=dp, dmq1=dq, iqmp=inverse, public_numbers=public
    ).private_key()


def _elliptic(element: ElementTree.Element) -> ec.EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import ObjectIdentifier

    parts = {_local(one): one for one in element}
    name = parts["NamedCurve"].get("URI", "").removeprefix(_OID_URN)
    curve = ec.get_curve_for_oid(ObjectIdentifier(name))
    return ec.EllipticCurvePublicKey.from_encoded_point(curve(), _octets(parts["PublicKey"]))


_SIGNS: Final[tuple[tuple[bytes, _Reader], ...]] = (
    (b"\xfe\xed\xfe\xed", read_jks),
    (b"\xce\xce\xce\xce", read_jks),
    (b"PuTTY-User-Key-File-", read_ppk),
    (b"{", read_jwk),
    (b"[", read_jwk),
    (b"<", read_xml),
    (b"ssh-", read_ssh),
    (b"ecdsa-sha2-", read_ssh),
    (_SSH2_BEGIN.encode(), read_ssh),
)
