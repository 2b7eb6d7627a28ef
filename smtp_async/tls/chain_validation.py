"""Validation of a chain of certificates that OpenSSL cannot judge within the handshake, or has refused there.

`validate_chain` reads what the server sent within bounds, looks for a way to a trusted certificate, has every part of
it judged, and applies the options of the application. It takes a millisecond or less: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from .certificate import Certificate
from .path_validation import ValidationTarget, judge_path, pin_fault
from .paths import MOST_SENT, Anchors, Path, find_paths, read_certificate
from .problems import ChainProblem, ChainValidation, Fault, by_gravity
from .trust import TrustOptions

__all__ = ["validate_chain"]


def validate_chain(
    chain: Sequence[bytes],
    name: str,
    *,
    trust: TrustOptions,
    anchors: Anchors,
    where: str | None = None,
    level: int = 2,
    now: datetime | None = None,
) -> ChainValidation:
    """Return what there is to say about a chain of certificates. Revocation is not asked here.

    Args:
        chain: the certificates in DER, the server's own first.
        name: the name that it must be for: see `reference_name`.
        trust: the options of the application.
        anchors: the trusted certificates.
        where: the server, for sentences; None is its name.
        level: OpenSSL's security level, which bounds the strength of keys and signatures.
        now: the time to compare with.
    """
    target = ValidationTarget(where or name, name, now or datetime.now(UTC), level, not trust.tolerate_minor)
    sent, notes, fault = _read(chain, trust, target)
    if fault is not None:
        faults = by_gravity([*_undecidable(chain, trust, target), fault])
        texts = (one.text for one in faults)
        return ChainValidation(faults=tuple(faults), log=(*notes, *texts), complete=False, trusted=False)
    if not trust.validate:
        path, judged, faults = Path((sent[0],)), False, []
        notes.append("the chain was not judged, because of TrustOptions(validate=False)")
    else:
        path, faults = _best(sent, trust, anchors, target)
        judged = True
        notes += _account(path)
    absolute = list(_absolute(sent, path, trust, target))
    if judged and faults and sent[0] in trust.accepted:
        notes += [f"{fault.text}: it is accepted all the same" for fault in faults]
        faults = []
    faults = by_gravity([*absolute, *faults])
    return ChainValidation(
        faults=tuple(faults),
        excused=trust.ignore,
        log=(*notes, *(fault.text for fault in faults)),
        path_der=tuple(one.der for one in path.certificates),
        judged=judged,
        complete=path.trusted or path.certificates[-1].self_issued,
        trusted=path.trusted and not path.unsigned,
    )


_Read = tuple[list[Certificate], list[str], Fault | None]


def _read(chain: Sequence[bytes], trust: TrustOptions, target: ValidationTarget) -> _Read:
    """Return the certificates that can be read, notes on others, and what makes all else pointless."""
    if not chain:
        return [], [], Fault(ChainProblem.BAD_DATA, f"{target.where} showed no certificate")
    if len(chain) > MOST_SENT:
        return (
            [],
            [],
            Fault(
                ChainProblem.BAD_DATA,
                f"{target.where} sent {len(chain)} certificates, of {MOST_SENT} at most",
            ),
        )
    found: list[Certificate] = []
    notes: list[str] = []
    for place, der in enumerate(chain):
        one = read_certificate(der, trust.max_asn1_length, trust.max_asn1_depth)
        if isinstance(one, Certificate):
            found.append(one)
        elif place == 0:
            text = f"the certificate of {target.where} cannot be read: {one}"
            return [], notes, Fault(ChainProblem.BAD_DATA, text)
        else:
            notes.append(f"certificate {place + 1} of the chain is passed over: {one}")
    return found, notes, None


def _best(
    sent: list[Certificate], trust: TrustOptions, anchors: Anchors, target: ValidationTarget
) -> tuple[Path, list[Fault]]:
    """Return the path with the fewest problems that count, of those with a pin if there is one, and all its faults."""
    best: tuple[tuple[bool, bool, int], Path, list[Fault]] | None = None
    for path in find_paths(sent[0], sent[1:], trust.known, anchors):
        faults = list(judge_path(path, target))
        counted = sum(not fault.problem & trust.ignore for fault in faults)
        pinned = _has_pin(path, trust)
        rank = (not pinned, not path.trusted, counted)
        if best is None or rank < best[0]:
            best = rank, path, faults
        if pinned and path.trusted and not faults:
            break
    assert best is not None
    return best[1], best[2]


def _account(path: Path) -> Iterable[str]:
    for one in path.certificates:
        yield (
            f"{one.subject or 'a certificate without a name'}, issued by {one.issuer or 'no name'}, "
            f"valid from {one.not_before:%Y-%m-%d} to {one.not_after:%Y-%m-%d}"
        )
    if path.trusted:
        yield f"{path.certificates[-1].subject or 'the last one'} is trusted"


def _undecidable(chain: Sequence[bytes], trust: TrustOptions, target: ValidationTarget) -> Iterable[Fault]:
    """Yield the faults of a certificate that cannot be read: it may be a blocked one, and has none of the pins."""
    if trust.blocked and chain:
        shown = {one.der for one in trust.blocked}.intersection(chain)
        text = "shows a certificate" if shown else "may show a certificate, or its key,"
        yield Fault(ChainProblem.BLOCKED, f"{target.where} {text} which TrustOptions.blocked forbids")
    if trust.pins:
        yield pin_fault((), target)


def _absolute(
    sent: list[Certificate], path: Path, trust: TrustOptions, target: ValidationTarget
) -> Iterable[Fault]:
    """Yield what nothing excuses."""
    blocked = frozenset(one.public_key_sha256 for one in trust.blocked)
    if blocked:
        for one in dict.fromkeys((*sent, *path.certificates)):
            if one.public_key_sha256 in blocked:
                yield Fault(
                    ChainProblem.BLOCKED,
                    f"{target.where} shows the certificate {one.subject or 'without a name'} ({one.sha256}), which "
                    "TrustOptions.blocked forbids, or its key",
                    path.certificates.index(one) if one in path.certificates else 0,
                )
    if not _has_pin(path, trust):
        yield pin_fault(path.certificates, target)


def _has_pin(path: Path, trust: TrustOptions) -> bool:
    """Has a certificate of `path` one of the pins? True if there are none."""
    # Every server can send a pinned certificate along: it counts if the path to it is signed.
    signed = path.certificates[: min(path.unsigned, default=len(path.certificates)) + 1]
    pins = trust.pins
    return not pins or any(one.sha256 in pins or one.public_key_sha256 in pins for one in signed)
