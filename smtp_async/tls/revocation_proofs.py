"""What CRLs and OCSP responses prove about a certificate.

pyhanko-certvalidator verifies them: signatures, delegated responders, scopes and dates (RFC 5280 section 6.3, RFC 6960
section 3.2). It trusts only the path above the certificate in question, which was validated before. Nothing is fetched
here. Call these functions in a thread, because they take milliseconds, and seconds for a long CRL that contains the
certificate.

cryptography parses the octets first, because it is strict and quick: malformed octets never reach the parser in Python.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..model.reply import printable
from .der import SEQUENCE, children

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509 import ocsp

    from .certificate import Certificate

__all__ = [
    "HASHES",
    "Finding",
    "Sources",
    "crl_octets",
    "demands_staple",
    "judge_crls",
    "judge_ocsp",
    "ocsp_request",
    "response_octets",
    "sources_of",
]

#: The hashes that identify an issuer in OCSP requests; the validator knows no others.
HASHES: Final = ("sha1", "sha256")
#: Signatures with these can be forged.
_WEAK: Final = frozenset({"md5", "sha1"})
#: Clocks may differ by so much; OpenSSL allows the same.
_SKEW: Final = timedelta(minutes=5)
#: How long an answer without a nextUpdate is valid; the validator uses the same time.
_VALIDITY: Final = timedelta(minutes=30)
#: The most sources of a kind that are used; a certificate of a real authority names fewer.
_MOST_URLS: Final = 4
#: The most bytes that the validator parses before it has verified a signature: of an OCSP response, or of a CRL without
#: its entries.
_LONGEST: Final = 256 * 1024
#: UTCTime and GeneralizedTime.
_TIMES: Final = frozenset({0x17, 0x18})
_SHOWN: Final = 200
_NO_REVOCATION_AVAILABLE: Final = "2.5.29.56"


class Sources(NamedTuple):
    """Where a certificate says that its revocation can be asked for.

    Attributes:
        ocsp, crl: URLs with http or https, a few at most.
        elsewhere: does it name other places only, such as a directory (LDAP)?
        never: its issuer revokes no such certificates (RFC 9608).
    """

    ocsp: tuple[str, ...] = ()
    crl: tuple[str, ...] = ()
    elsewhere: bool = False
    never: bool = False


class Finding(NamedTuple):
    """What a source says about a certificate.

    Attributes:
        revoked: True or False; None if the source does not tell.
        why: why it does not, as the end of a sentence about the source.
        reason: why it was revoked, in words.
        since: when it was revoked.
        until: until when a definite answer is valid.
    """

    revoked: bool | None
    why: str = ""
    reason: str = ""
    since: datetime | None = None
    until: datetime | None = None


def sources_of(certificate: Certificate) -> Sources:
    """Return where the revocation of a certificate can be asked for."""
    from cryptography import x509
    from cryptography.x509.oid import AuthorityInformationAccessOID as Oid

    ocsp: list[str] = []
    crl: list[str] = []
    never = False
    for extension in certificate.x509.extensions:
        if isinstance(extension.value, x509.AuthorityInformationAccess):
            found = [one.access_location for one in extension.value if one.access_method == Oid.OCSP]
            ocsp += _urls(found)
        elif isinstance(extension.value, x509.CRLDistributionPoints):
            for point in extension.value:
                crl += _urls(point.full_name or ())
        never |= extension.oid.dotted_string == _NO_REVOCATION_AVAILABLE
    over_http = _over_http(ocsp), _over_http(crl)
    return Sources(*over_http, elsewhere=bool(ocsp or crl) and not any(over_http), never=never)


def demands_staple(certificate: Certificate) -> bool:
    """Tell whether a server must send an OCSP response within the handshake with this certificate (RFC 7633).

    Python's `ssl` neither asks for one nor shows it, so whether the server would have sent it cannot be told.
    """
    from cryptography import x509

    return any(
        isinstance(extension.value, x509.TLSFeature) and x509.TLSFeatureType.status_request in extension.value
        for extension in certificate.x509.extensions
    )


def ocsp_request(certificate: Certificate, issuer: Certificate, hash_name: str) -> bytes:
    """Return the OCSP request for a certificate in DER, without a nonce, so that responders may answer from a cache.

    Args:
        certificate, issuer: the certificate and its issuer's.
        hash_name: one of `HASHES`.
    """
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509 import ocsp

    algorithm: hashes.HashAlgorithm = getattr(hashes, hash_name.upper())()
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate.x509, issuer.x509, algorithm)
    return builder.build().public_bytes(serialization.Encoding.DER)


def crl_octets(data: bytes) -> bytes:
    """Return the CRL in `data`, PEM or DER, in DER.

    Raises:
        ValueError: it is none.
    """
    return _read_crl(data)[0]


def response_octets(data: bytes) -> bytes:
    """Return `data`, an OCSP response in DER.

    Raises:
        ValueError: it is none.
    """
    from cryptography.x509 import ocsp

    ocsp.load_der_ocsp_response(data)
    return data


def judge_crls(
    certificate: Certificate, issuers: Sequence[Certificate], crls: Sequence[bytes], now: datetime
) -> Finding:
    """Return what CRLs say together, each of which may cover a part of the reasons. For a thread.

    Args:
        certificate: the certificate.
        issuers: the path above it, which has been judged: its issuer's certificate first.
        crls: PEM or DER, not trusted.
        now: the time to compare with.
    """
    parsed: list[tuple[bytes, x509.CertificateRevocationList]] = []
    why = "is no CRL"
    for data in crls:
        try:
            der, crl = _read_crl(data)
            why = _refusal(crl.signature_hash_algorithm)
        except Exception as error:  # a stranger chose these octets
            why = f"is no CRL that can be read: {_why(error)}"
            continue
        if not why:
            parsed.append((der, crl))
    if not parsed:
        return Finding(None, why)
    finding = _judged(certificate, issuers, now, crls=[der for der, _ in parsed])
    ends = [crl.next_update_utc or crl.last_update_utc + _VALIDITY for _, crl in parsed]
    current = [end for end in ends if end > now - _SKEW]
    return finding._replace(until=min(current, default=None))


def judge_ocsp(
    certificate: Certificate, issuers: Sequence[Certificate], response: bytes, now: datetime
) -> Finding:
    """Return what an OCSP response says. For a thread.

    Args:
        certificate: the certificate.
        issuers: the path above it, which has been judged: its issuer's certificate first.
        response: DER, not trusted.
        now: the time to compare with.
    """
    from cryptography.x509 import ocsp

    if len(response) > _LONGEST:
        return Finding(None, f"sends an OCSP response of {len(response)} bytes, of {_LONGEST} at most")
    try:
        parsed = ocsp.load_der_ocsp_response(response)
        if parsed.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return Finding(None, f"answers {parsed.response_status.name.lower().replace('_', ' ')}")
        if why := _refusal(parsed.signature_hash_algorithm):
            return Finding(None, why)
        ours = [one for one in parsed.responses if one.serial_number == certificate.serial_number]
        if not ours:
            return Finding(None, "answers for other certificates only")
        if all(one.certificate_status is ocsp.OCSPCertStatus.UNKNOWN for one in ours):
            return Finding(None, "does not know the certificate")
        until = min(_end(one) for one in ours)
    except Exception as error:  # a stranger chose these octets
        return Finding(None, f"sends no OCSP response that can be read: {_why(error)}")
    return _judged(certificate, issuers, now, ocsps=[response])._replace(until=until)


# --- the validator -----------------------------------------------------------------------------------------


def _judged(
    certificate: Certificate,
    issuers: Sequence[Certificate],
    now: datetime,
    *,
    crls: Sequence[bytes] = (),
    ocsps: Sequence[bytes] = (),
) -> Finding:
    from pyhanko_certvalidator.errors import (
        CRLNoMatchesError,
        CRLValidationIndeterminateError,
        OCSPNoMatchesError,
        OCSPValidationIndeterminateError,
        RevokedError,
    )

    try:
        # The validator's functions are coroutines for the sake of fetching, which is off.
        asyncio.run(_judge(certificate, issuers, now, crls, ocsps))
    except RevokedError as error:
        return Finding(True, reason=error.reason.human_friendly, since=error.revocation_dt)
    except (CRLNoMatchesError, OCSPNoMatchesError):
        return Finding(None, "is not about this certificate, or not from its issuer")
    except (CRLValidationIndeterminateError, OCSPValidationIndeterminateError) as error:
        failures: list[Any] = error.failures
        return Finding(
            None, f"is no proof: {printable(str(failures[-1][0]), _SHOWN)}" if failures else "is no proof"
        )
    except Exception as error:  # a stranger chose the octets, and the parser has many ways to complain
        return Finding(None, f"is no proof: {_why(error)}")
    return Finding(False)


async def _judge(
    certificate: Certificate,
    issuers: Sequence[Certificate],
    now: datetime,
    crls: Sequence[bytes],
    ocsps: Sequence[bytes],
) -> None:
    from asn1crypto.crl import CertificateList
    from asn1crypto.x509 import Certificate as Parsed
    from pyhanko_certvalidator.authority import AuthorityWithCert, NamedKeyAuthority, TrustAnchor
    from pyhanko_certvalidator.context import ValidationContext
    from pyhanko_certvalidator.ltv.types import ValidationTimingInfo, ValidationTimingParams
    from pyhanko_certvalidator.path import ValidationPath
    from pyhanko_certvalidator.revinfo.validate_crl import verify_crl
    from pyhanko_certvalidator.revinfo.validate_ocsp import verify_ocsp_response

    leaf = Parsed.load(certificate.der)
    above = [Parsed.load(one.der) for one in reversed(issuers)]
    if issuers[-1].self_issued:
        anchor = TrustAnchor(AuthorityWithCert(above[0]))
        between = above[1:]
    else:
        # An intermediate certificate that is trusted as it is. The validator needs the name and
        # the key of its issuer. The key is a stand-in: nothing is verified with it, and nothing would verify.
        anchor = TrustAnchor(NamedKeyAuthority(above[0].issuer, above[0].public_key))
        between = above
    lists = [CertificateList.load(der) for der in crls]
    for one in lists:
        _leave_out_others(one, leaf)
    context: Any = ValidationContext(
        trust_roots=[anchor],
        # Never the certificate in question: it may not vouch for itself.
        other_certs=between,
        moment=now,
        time_tolerance=_SKEW,
        allow_fetching=False,
        crls=lists,
        ocsps=ocsps,
    )
    # At a given time the validator looks back: what was revoked later counts as good. A clock that is slow must not.
    present = ValidationTimingInfo(
        validation_time=now, best_signature_time=now, point_in_time_validation=False
    )
    context.timing_params = ValidationTimingParams(present, time_tolerance=_SKEW)
    for place, one in enumerate(between):
        context.record_validation(one, ValidationPath(anchor, between[:place], one))
    path = ValidationPath(anchor, between, leaf)
    if lists:
        # Delta CRLs are not fetched. A list that names one is complete without it (RFC 5280 section 5.2.6).
        deltas = any(one.delta_crl_indicator_value is not None for one in lists)
        await verify_crl(leaf, path, context, use_deltas=deltas)
    else:
        await verify_ocsp_response(leaf, path, context)


def _leave_out_others(crl: Any, certificate: Any) -> None:
    """Spare the validator the entries of a CRL if none of them can be about `certificate`.

    It parses one after the other, 20 µs each, and compares the encoded serial number. Where these octets do not occur
    at all, no entry can match. The encoded list, which is what the signature is about, stays as it is.
    """
    entries = crl["tbs_cert_list"]["revoked_certificates"]
    if certificate["tbs_certificate"]["serial_number"].dump() not in (entries.contents or b""):
        entries.children = []


# --- parts -------------------------------------------------------------------------------------------------


def _read_crl(data: bytes) -> tuple[bytes, x509.CertificateRevocationList]:
    """Return a CRL in DER, and parsed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    if data.lstrip().startswith(b"-----BEGIN"):
        crl = x509.load_pem_x509_crl(data)
        data = crl.public_bytes(serialization.Encoding.DER)
    else:
        crl = x509.load_der_x509_crl(data)
    behind_dates = False
    for part in children(crl.tbs_certlist_bytes):
        behind_dates |= part.tag in _TIMES
        # The entries may be long: they are not looked at before the signature.
        if len(part.content) > _LONGEST and not (behind_dates and part.tag == SEQUENCE):
            raise ValueError(f"its issuer or its extensions have more than {_LONGEST} bytes")
    return data, crl


def _refusal(algorithm: hashes.HashAlgorithm | None) -> str:
    """Return why a signature with this hash does not count; empty if it does, or has no hash of its own (EdDSA)."""
    return f"is signed with {algorithm.name.upper()}" if algorithm and algorithm.name in _WEAK else ""


def _end(single: ocsp.OCSPSingleResponse) -> datetime:
    return single.next_update_utc or single.this_update_utc + _VALIDITY


def _urls(names: Sequence[x509.GeneralName]) -> list[str]:
    from cryptography import x509

    return [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]


def _over_http(urls: list[str]) -> tuple[str, ...]:
    found = [url for url in dict.fromkeys(urls) if url.lower().startswith(("http://", "https://"))]
    return tuple(found[:_MOST_URLS])


def _why(error: Exception) -> str:
    return printable(str(error) or type(error).__name__, _SHOWN)
