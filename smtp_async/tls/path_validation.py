"""Validates a path of certificates (RFC 5280 section 6): one check per rule, so that every problem is found.

The rules are those by which OpenSSL verifies a server, its extension bits and security levels included, so that both
come to the same verdict. Each problem is described in one sentence, with what the certificate contains and what to do
about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, NamedTuple

from .certificate import Certificate, KeyUsage
from .constraints import violation
from .names import covers
from .paths import Path
from .problems import ChainProblem, Fault
from .strength import key_strength, least_bits, signature_strength

__all__ = ["ValidationTarget", "judge_path", "pin_fault", "unknown_authority", "wrong_name", "wrong_time"]

#: The most names of a certificate that a message shows.
_NAMES_SHOWN: Final = 8
#: What the key of a server may be used for in TLS.
_TLS_USAGES: Final = KeyUsage.DIGITAL_SIGNATURE | KeyUsage.KEY_ENCIPHERMENT | KeyUsage.KEY_AGREEMENT
#: The purpose of TLS servers, and those of Netscape and Microsoft that preceded it; OpenSSL accepts all.
_SERVER_USAGES: Final = frozenset({"SERVER_AUTH", "2.16.840.1.113730.4.1", "1.3.6.1.4.1.311.10.3.3"})
#: Critical extensions that are checked here, or that have no meaning in TLS; the same ones as in OpenSSL.
_UNDERSTOOD: Final = frozenset(
    {
        "2.5.29.14",  # subjectKeyIdentifier
        "2.5.29.15",  # keyUsage
        "2.5.29.17",  # subjectAltName
        "2.5.29.19",  # basicConstraints
        "2.5.29.30",  # nameConstraints
        "2.5.29.31",  # cRLDistributionPoints
        "2.5.29.32",  # certificatePolicies
        "2.5.29.33",  # policyMappings
        "2.5.29.35",  # authorityKeyIdentifier
        "2.5.29.36",  # policyConstraints
        "2.5.29.37",  # extKeyUsage
        "2.5.29.54",  # inhibitAnyPolicy
        "1.3.6.1.5.5.7.48.1.5",  # OCSP no check
        "2.16.840.1.113730.1.1",  # Netscape's kind of certificate
    }
)


class ValidationTarget(NamedTuple):
    """What a path is judged for.

    Attributes:
        where: the server, for sentences.
        name: the name that its certificate must be for.
        now: the time.
        level: OpenSSL's security level.
        strict: do formal faults count?
    """

    where: str
    name: str
    now: datetime
    level: int
    strict: bool

    def of(self, path: tuple[Certificate, ...], place: int) -> str:
        """Return what to call the certificate at `place`."""
        if place == 0:
            return f"the certificate of {self.where}"
        return f"the issuer certificate {path[place].subject or 'without a name'}"


def judge_path(path: Path, target: ValidationTarget) -> Iterator[Fault]:
    """Yield what is wrong with `path`; blocked, pinned and revoked certificates are not looked for here."""
    certificates = path.certificates
    yield from _judge_signatures(path, target)
    if not path.trusted:
        yield unknown_authority(target.where, certificates)
    yield from wrong_time(target, certificates)
    if not covers(certificates[0], target.name):
        yield wrong_name(target.where, target.name, certificates)
    yield from _judge_usage(certificates, target)
    yield from _judge_authorities(certificates, target)
    yield from _judge_constraints(certificates, target)
    yield from _judge_strength(path, target)
    yield from _judge_extensions(certificates, target)
    if target.strict:
        yield from _judge_minor(certificates, target)


def _judge_signatures(path: Path, target: ValidationTarget) -> Iterator[Fault]:
    for place in sorted(path.unsigned):
        issuer = path.certificates[place].issuer
        yield Fault(
            ChainProblem.INVALID_SIGNATURE,
            f"{target.of(path.certificates, place)} was not signed with the key of {issuer}: it was changed, or the "
            "server sends an authority that has the same name but another key",
            place,
        )
    if path.loop:
        yield Fault(
            ChainProblem.LOOP,
            f"the certificates that {target.where} sent have issued each other in a circle",
            len(path.certificates) - 1,
        )


# --- authority, dates and names -------------------------------------------------------------------------------


def unknown_authority(where: str, certificates: tuple[Certificate, ...]) -> Fault:
    """Return the fault of a path that does not end with a trusted certificate; an empty one could not be seen."""
    last = certificates[-1] if certificates else None
    subject = f" ({certificates[0].subject})" if certificates else ""
    if last is not None and last.self_issued and len(certificates) == 1:
        text = (
            f"the certificate of {where} is self-signed{subject} and not trusted: "
            "if it is the right one, give it as TrustOptions(ca_file=…)"
        )
    elif last is not None and last.self_issued:
        text = (
            f"the certificate chain of {where} ends with {last.issuer}, which is not trusted: "
            "if it is the right authority, give its certificate as TrustOptions(ca_file=…)"
        )
    else:
        issuer = f" {last.issuer}" if last is not None else ""
        text = (
            f"the issuer{issuer} of the certificate of {where} is not known: the server may have left out an "
            "intermediate certificate, or give the authority's certificate as TrustOptions(ca_file=…)"
        )
    return Fault(ChainProblem.UNKNOWN_AUTHORITY, text, max(len(certificates) - 1, 0))


def wrong_time(target: ValidationTarget, certificates: tuple[Certificate, ...]) -> Iterator[Fault]:
    """Yield the certificates that are not valid at the time of the validation."""
    now = target.now
    for place, one in enumerate(certificates):
        whose = target.of(certificates, place)
        if one.not_after < now:
            yield Fault(
                ChainProblem.EXPIRED,
                f"{whose} expired on {one.not_after:%Y-%m-%d %H:%M} UTC, {_ago(now - one.not_after)}",
                place,
            )
        elif one.not_before > now:
            yield Fault(
                ChainProblem.NOT_YET_VALID,
                f"{whose} is not valid before {one.not_before:%Y-%m-%d %H:%M} UTC; "
                f"the clock of this machine says {now:%Y-%m-%d %H:%M}",
                place,
            )


def _ago(span: timedelta) -> str:
    if span.days:
        return f"{span.days} day{'s' if span.days > 1 else ''} ago"
    return "less than a day ago"


def wrong_name(where: str, name: str, certificates: tuple[Certificate, ...]) -> Fault:
    """Return the fault of a certificate that is for other names than `name`."""
    names = certificates[0].names if certificates else ()
    if not certificates:
        text = f"the certificate of {where} is not for {name}; what it contains could not be seen"
    elif not names:
        text = (
            f"the certificate of {where} names no host, so it is not for {name} "
            f"(its subject, {certificates[0].subject or 'empty'}, does not count)"
        )
    else:
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        text = (
            f"the certificate of {where} is for {', '.join(names[:_NAMES_SHOWN])}{more}, not for {name}: "
            "connect to a name that it contains, or set TLSOptions.server_hostname"
        )
    return Fault(ChainProblem.HOST_NAME, text)


# --- what certificates and keys are for ------------------------------------------------------------------------


def _judge_usage(certificates: tuple[Certificate, ...], target: ValidationTarget) -> Iterator[Fault]:
    for place, one in enumerate(certificates):
        purposes = one.extended_key_usage
        if purposes and not _SERVER_USAGES & set(purposes):
            yield Fault(
                ChainProblem.USAGE,
                f"{target.of(certificates, place)} is not for servers, only for {', '.join(purposes[:_NAMES_SHOWN])}: "
                "the server shows the wrong certificate, or its authority made the wrong one",
                place,
            )
    usage = _usage_of(certificates[0])
    if usage is not None and not usage & _TLS_USAGES:
        yield Fault(
            ChainProblem.USAGE,
            f"the key of {target.of(certificates, 0)} may not be used for TLS, only for {_named(usage) or 'nothing'}: "
            "its authority has to make another one",
        )


def _usage_of(certificate: Certificate) -> KeyUsage | None:
    """Return what the key may be used for, which may be nothing; None if the certificate does not limit it."""
    from cryptography import x509

    return certificate.key_usage if certificate.extension(x509.KeyUsage) is not None else None


def _named(usage: KeyUsage) -> str:
    return ", ".join(flag.name or "" for flag in usage)


def _judge_authorities(certificates: tuple[Certificate, ...], target: ValidationTarget) -> Iterator[Fault]:
    below = 0
    for place, one in enumerate(certificates[1:], 1):
        if not _may_issue(one, last=place == len(certificates) - 1):
            yield Fault(
                ChainProblem.NOT_AUTHORIZED,
                f"{target.of(certificates, place)} is no authority and may not issue that of {target.where}: the "
                "server sends a chain that is not its own, or an impostor made one",
                place,
            )
        most = _most_below(one)
        if most is not None and below > most:
            yield Fault(
                ChainProblem.NOT_AUTHORIZED,
                f"{target.of(certificates, place)} allows {most} authorities below it, and there "
                f"{'is one' if below == 1 else f'are {below}'}",
                place,
            )
        below += not one.self_issued


def _may_issue(certificate: Certificate, *, last: bool) -> bool:
    from cryptography import x509

    usage = _usage_of(certificate)
    if usage is not None and not usage & KeyUsage.KEY_CERT_SIGN:
        return False
    if not last or certificate.extension(x509.BasicConstraints) is not None:
        return certificate.is_authority
    # A root that is older than the extension: of version 1, or with the right key usage only.
    return usage is not None or (certificate.self_issued and certificate.x509.version is x509.Version.v1)


def _most_below(certificate: Certificate) -> int | None:
    from cryptography import x509

    found = certificate.extension(x509.BasicConstraints)
    return found.path_length if found is not None else None


def _judge_constraints(certificates: tuple[Certificate, ...], target: ValidationTarget) -> Iterator[Fault]:
    for place, one in enumerate(certificates[:-1]):
        if place and one.self_issued:
            continue
        for issuer in certificates[place + 1 :]:
            name = violation(one, issuer, None if place else target.name)
            if name is not None:
                yield Fault(
                    ChainProblem.NAME_CONSTRAINTS,
                    f"the authority {issuer.subject} may not issue for {name[:200]!r}, as "
                    f"{target.of(certificates, place)} has it: its name constraints exclude that",
                    place,
                )


# --- strength and form -----------------------------------------------------------------------------------------


def _judge_strength(path: Path, target: ValidationTarget) -> Iterator[Fault]:
    least = least_bits(target.level)
    last = len(path.certificates) - 1
    for place, one in enumerate(path.certificates):
        whose = target.of(path.certificates, place)
        strength = key_strength(one)
        if strength is not None and strength < least:
            size = f" of {one.key_bits} bits" if one.key_bits else ""
            yield Fault(
                ChainProblem.WEAK,
                f"the key of {whose} is too weak: {one.key_algorithm}{size}, and {least} bits of strength are demanded "
                "(RSA: 2048 bits, elliptic curves: 224); its holder needs a new one",
                place,
            )
        # Nothing follows from the signature of a trusted certificate, or of one that signed itself.
        strength = signature_strength(one) if place < last or not (path.trusted or one.self_issued) else None
        if strength is not None and strength < least:
            yield Fault(
                ChainProblem.WEAK,
                f"{whose} is signed with {one.signature_algorithm}, which can be forged: its authority has to issue "
                "it anew",
                place,
            )


def _judge_extensions(certificates: tuple[Certificate, ...], target: ValidationTarget) -> Iterator[Fault]:
    for place, one in enumerate(certificates):
        for extension in one.x509.extensions:
            oid = extension.oid.dotted_string
            if extension.critical and oid not in _UNDERSTOOD:
                yield Fault(
                    ChainProblem.UNKNOWN_EXTENSION,
                    f"{target.of(certificates, place)} demands that its extension {oid} is understood, which it is not "
                    "here",
                    place,
                )


def _judge_minor(certificates: tuple[Certificate, ...], target: ValidationTarget) -> Iterator[Fault]:
    minor = ChainProblem.MINOR
    for place, (one, issuer) in enumerate(pairwise(certificates)):
        whose = target.of(certificates, place)
        if one.not_before < issuer.not_before or one.not_after > issuer.not_after:
            yield Fault(
                ChainProblem.NESTED_TIMES,
                f"{whose} is valid from {one.not_before:%Y-%m-%d} to {one.not_after:%Y-%m-%d}, which is not within the "
                f"time of its issuer ({issuer.not_before:%Y-%m-%d} to {issuer.not_after:%Y-%m-%d})",
                place,
            )
        if not one.authority_key_id:
            yield Fault(minor, f"{whose} does not name the key of its issuer (authorityKeyIdentifier)", place)
    for place, one in enumerate(certificates):
        whose = target.of(certificates, place)
        if place and not one.subject_key_id:
            yield Fault(minor, f"{whose} does not name its key (subjectKeyIdentifier)", place)
        if place and not one.key_usage & KeyUsage.KEY_CERT_SIGN:
            yield Fault(minor, f"{whose} does not say that it may sign certificates (keyUsage)", place)
        if one.x509.serial_number <= 0:
            yield Fault(minor, f"{whose} has no positive serial number", place)


def pin_fault(certificates: tuple[Certificate, ...], target: ValidationTarget) -> Fault:
    """Return the fault of a chain in which no certificate has one of the pins."""
    leaf = certificates[0] if certificates else None
    shown = (
        f", the server's have {leaf.sha256} (certificate) and {leaf.public_key_sha256} (key)" if leaf else ""
    )
    return Fault(
        ChainProblem.PIN,
        f"no certificate in the chain of {target.where} has one of the pins{shown}: if that is the right server, give "
        "one of its fingerprints as TrustOptions(pins=…)",
    )
