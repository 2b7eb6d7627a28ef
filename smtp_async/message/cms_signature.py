"""SignedData of CMS (RFC 5652 section 5): the attributes that are signed, and the container around a signature.

Strategy. What is signed are a few attributes, one of which is the hash of the message (section 5.4). So a key that is
elsewhere is asked for a signature of some hundred octets, and the message can be hashed while it passes by. A signer
that returns a whole SignedData is believed nothing: its hash, its certificate and its signature are checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, Final, NamedTuple, get_args

from ..errors import FeatureUnavailable, InvalidArgument, SigningError
from ..model.reply import printable
from ..model.signing import HashAlgorithm, KeyAlgorithm, Signer, ToSign
from .mail_certificate import MailCertificate
from .sign import verifies

__all__ = [
    "ReceivedSignature",
    "certificate_attribute",
    "demand_asn1",
    "hash_for",
    "received",
    "signed_attributes",
    "signed_data",
]

#: The hash that goes with a curve (RFC 5753 section 8).
_OF_CURVE: Final[dict[str, HashAlgorithm]] = {
    "secp256r1": "sha256",
    "secp384r1": "sha384",
    "secp521r1": "sha512",
}
#: The attributes that have to be there (RFC 5652 section 11).
_ABOUT_CONTENT: Final = frozenset(("content_type", "message_digest"))
_SIGNING_CERTIFICATE_V2: Final = "1.2.840.113549.1.9.16.2.47"
#: What `verifies` can verify: the names that asn1crypto has for the algorithms of signatures, by kind of key.
_VERIFIABLE: Final[dict[KeyAlgorithm, frozenset[str]]] = {
    "rsa": frozenset({"rsassa_pkcs1v15"}),
    "ec": frozenset({"ecdsa"}),
    "ed25519": frozenset({"ed25519"}),
}


def demand_asn1() -> None:
    """Refuse S/MIME where asn1crypto is not installed.

    Raises:
        FeatureUnavailable: the extra is needed.
    """
    if find_spec("asn1crypto") is None:
        raise FeatureUnavailable("S/MIME is written with asn1crypto", needs="smtp-async[smime]")


def hash_for(key_algorithm: KeyAlgorithm, public_key: Any, wanted: HashAlgorithm | None) -> HashAlgorithm:
    """Return the hash to sign with.

    Args:
        key_algorithm: the kind of the key.
        public_key: its public half, None if that is not known.
        wanted: what the caller or the signer asks for, None for no wish.

    Raises:
        InvalidArgument: the key does not sign with it.
    """
    if key_algorithm == "ed25519":
        if wanted not in (None, "sha512"):
            raise InvalidArgument(f"an Ed25519 key signs mail with sha512 (RFC 8419), not with {wanted}")
        return "sha512"
    if wanted is not None:
        return wanted
    curve = getattr(getattr(public_key, "curve", None), "name", "")
    return _OF_CURVE.get(curve, "sha256")


def certificate_attribute(certificate: MailCertificate, hash_algorithm: HashAlgorithm) -> bytes:
    """Return the attribute that names the signer's certificate, in DER (RFC 5035 section 3).

    It takes a millisecond to make, and is the same in all messages.

    Args:
        certificate: the signer's.
        hash_algorithm: the hash that it is named by.
    """
    from asn1crypto import cms, tsp  # the second teaches the first this attribute

    assert tsp
    identifier = {
        "hash_algorithm": {"algorithm": hash_algorithm},
        "cert_hash": hashlib.new(hash_algorithm, certificate.der).digest(),
    }
    values = [{"certs": [identifier]}]
    # By its number: names that are taught after the first use of the module are not found.
    der: bytes = cms.CMSAttribute({"type": _SIGNING_CERTIFICATE_V2, "values": values}).dump()
    return der


def signed_attributes(digest: bytes, now: float, certificate: bytes) -> bytes:
    """Return what is signed, in DER: type and hash of the content, the time, and which certificate it is.

    Capabilities (RFC 8551 section 2.5.2) are left out, because a sender of mail does not know what its reader can do.

    Args:
        digest: the hash of the content.
        now: seconds since the epoch.
        certificate: what `certificate_attribute` returned.
    """
    from asn1crypto import cms

    moment = datetime.fromtimestamp(int(now), UTC)
    # RFC 5652 section 11.3: from 2050 on, and only then, with four digits of the year.
    time = cms.Time({"utc_time" if moment.year < 2050 else "generalized_time": moment})
    attributes = cms.CMSAttributes(
        [
            cms.CMSAttribute({"type": "content_type", "values": ["data"]}),
            cms.CMSAttribute({"type": "message_digest", "values": [digest]}),
            cms.CMSAttribute({"type": "signing_time", "values": [time]}),
            cms.CMSAttribute.load(certificate),
        ]
    )
    der: bytes = attributes.dump()
    return der


def signed_data(
    attributes: bytes,
    signature: bytes,
    key_algorithm: KeyAlgorithm,
    hash_algorithm: HashAlgorithm,
    certificates: Sequence[MailCertificate],
    content: bytes | None,
) -> bytes:
    """Return a ContentInfo with a SignedData, in DER.

    Args:
        attributes: what `signed_attributes` returned.
        signature: the signature of them.
        key_algorithm, hash_algorithm: what it was made with.
        certificates: the signer's, and those that lead to an authority.
        content: what was signed, to be carried within; None where it stands beside.
    """
    from asn1crypto import cms, x509

    signer = x509.Certificate.load(certificates[0].der)
    name = {"rsa": "rsassa_pkcs1v15", "ec": f"{hash_algorithm}_ecdsa", "ed25519": "ed25519"}[key_algorithm]
    encapsulated: dict[str, Any] = {"content_type": "data"}
    if content is not None:
        encapsulated["content"] = content
    container = cms.SignedData(
        {
            "version": "v1",
            "digest_algorithms": [{"algorithm": hash_algorithm}],
            "encap_content_info": encapsulated,
            "certificates": [x509.Certificate.load(one.der) for one in certificates],
            "signer_infos": [
                {
                    "version": "v1",
                    "sid": cms.SignerIdentifier(
                        {
                            "issuer_and_serial_number": {
                                "issuer": signer.issuer,
                                "serial_number": signer.serial_number,
                            }
                        }
                    ),
                    "digest_algorithm": {"algorithm": hash_algorithm},
                    "signed_attrs": cms.CMSAttributes.load(attributes),
                    "signature_algorithm": {"algorithm": name},
                    "signature": signature,
                }
            ],
        }
    )
    der: bytes = cms.ContentInfo({"content_type": "signed_data", "content": container}).dump()
    return der


# --- a container that a signer outside of this library made ------------------------------------------------------


class ReceivedSignature(NamedTuple):
    """A SignedData that was checked.

    Attributes:
        container: a ContentInfo in DER, with the content or without it, as was asked for.
        hash_algorithm: the hash that the content was signed with.
        certificate: the signer's.
    """

    container: bytes
    hash_algorithm: HashAlgorithm
    certificate: MailCertificate


def received(
    answer: bytes, signed: bytes, *, within: bool, certificate: MailCertificate | None, signer: Signer
) -> ReceivedSignature:
    """Check a SignedData, and return it.

    Args:
        answer: a ContentInfo with a SignedData, in DER.
        signed: the content that it has to be about.
        within: carry the content within.
        certificate: the signer's, if that is known before.
        signer: who made it.

    Raises:
        SigningError: it is none, or not about this content, or its signature does not verify.
    """
    from asn1crypto import cms

    try:
        outer = cms.ContentInfo.load(answer, strict=True)
        if outer["content_type"].native != "signed_data":
            raise SigningError(f"the signer returned {outer['content_type'].native} instead of a SignedData")
        container = outer["content"]
        infos = list(container["signer_infos"])
        if len(infos) != 1:
            raise SigningError(f"the signer's SignedData has {len(infos)} signatures instead of one")
        found = _check(infos[0], container, signed, certificate, signer)
        if container["encap_content_info"]["content_type"].native != "data":
            raise SigningError("the signer's SignedData is not about the data of a message")
        inner: dict[str, Any] = {"content_type": "data"}
        if within:
            inner["content"] = signed
        # What else is there keeps its octets, because a signature may cover them.
        container["encap_content_info"] = type(container["encap_content_info"])(inner)
        return ReceivedSignature(outer.dump(), *found)
    except SigningError:
        raise
    except Exception as error:  # octets from elsewhere, which can break a parser in many ways
        raise SigningError(
            f"the signer returned no SignedData that can be read: {printable(str(error))}"
        ) from error


def _check(
    info: Any, container: Any, signed: bytes, certificate: MailCertificate | None, signer: Signer
) -> tuple[HashAlgorithm, MailCertificate]:
    hash_algorithm: HashAlgorithm = info["digest_algorithm"]["algorithm"].native
    if hash_algorithm not in get_args(HashAlgorithm):
        raise SigningError(f"the signer's SignedData hashes with {hash_algorithm}")
    made_by = _certificate(info["sid"], container["certificates"])
    if certificate is not None and made_by.der != certificate.der:
        raise SigningError(f"the signer's SignedData is by {made_by.name}, not by {certificate.name}")
    try:
        made_by.permitting("sign")
    except InvalidArgument as error:
        raise SigningError(f"the signer's certificate does not fit: {error}") from error
    attributes = info["signed_attrs"]
    covered = signed
    if attributes:
        digest = hashlib.new(hash_algorithm, signed).digest()
        # No others are looked into: the package takes a tenth of a second to write one again.
        found = [
            (name, one["values"].native)
            for one in attributes
            if (name := one["type"].native) in _ABOUT_CONTENT
        ]
        if sorted(found) != [("content_type", ["data"]), ("message_digest", [digest])]:
            raise SigningError("the signer's SignedData is not about this message")
        covered = attributes.untag().dump()
    algorithm = made_by.key_algorithm
    name = info["signature_algorithm"].signature_algo
    if algorithm is None or name not in _VERIFIABLE[algorithm]:
        raise SigningError(f"the signer's SignedData has a signature of another kind: {name}")
    wanted = ToSign(signer, covered, hash_algorithm)
    if not verifies(made_by.public_key, info["signature"].native, wanted):
        raise SigningError("the signature in the signer's SignedData does not verify")
    return hash_algorithm, made_by


def _certificate(sid: Any, certificates: Any) -> MailCertificate:
    """Return the certificate that the identifier of a signer names."""
    for one in certificates:
        if one.name != "certificate":
            continue
        found = one.chosen
        if sid.name == "issuer_and_serial_number":
            named = sid.chosen
            same = found.issuer == named["issuer"] and found.serial_number == named["serial_number"].native
        else:
            same = found.key_identifier == sid.chosen.native
        if same:
            return MailCertificate(found.dump())
    raise SigningError("the signer's SignedData has not the signer's certificate")
