"""What a check has found, as labelled lines, as a tree of certificates, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..client.diagnose import EXPIRES_SOON, ServerReport
from ..tls.certificate import Certificate
from ..tls.context import Security
from ..tls.info import ConnectionInfo
from ..tls.problems import ChainValidation
from .output import in_shell_words

__all__ = ["Node", "as_object", "chain_of", "rows_after_chain", "rows_before_chain", "rows_of_times"]

_Rows = Iterator[tuple[str, str]]

_WITHOUT_TLS = {
    Security.IMPLICIT: "none, although wanted from the first byte",
    Security.STARTTLS: "none, although required by STARTTLS",
    Security.OPPORTUNISTIC: "none",
    Security.PLAINTEXT: "none, as asked for",
}
_BAR = "\N{FULL BLOCK}"
#: The most names of a certificate that are shown.
_MAX_NAMES = 6
#: What `ConnectionInfo` tells of TLS, for programs.
_TLS_FACTS = (
    "tls_version",
    "suite",
    "cipher",
    "bits",
    "aead",
    "digest",
    "key_exchange",
    "key_exchange_bits",
    "group",
    "forward_secrecy",
    "signature_algorithm",
    "session_resumed",
    "client_auth_requested",
    "client_authenticated",
    "verified",
)


class Node(NamedTuple):
    """One certificate of the chain.

    Attributes:
        label: what it is to the server.
        title: whom it is for.
        rows: what else it says.
        ends_soon: has it ended, or does it end within three weeks?
    """

    label: str
    title: str
    rows: list[tuple[str, str]]
    ends_soon: bool


def rows_before_chain(report: ServerReport) -> _Rows:
    """Return greeting and TLS parameters."""
    info = report.info
    if info is not None and info.via:
        yield "Through", info.via
    yield "Greeting", str(report.greeting) if report.greeting else "none"
    if info is None or not info.encrypted:
        yield "TLS", _WITHOUT_TLS[report.security]
        return
    start = "from the first byte" if report.security is Security.IMPLICIT else "by STARTTLS"
    yield "TLS", f"{info.tls_version}, {info.suite}, {info.bits} bits, {start}"
    yield "Keys", _keys(info)
    if info.signature_algorithm is not None:
        yield "Signed with", info.signature_algorithm
    if info.client_auth_requested is not None:
        yield "Client certificate", _client(info)


def rows_after_chain(report: ServerReport) -> _Rows:
    """Return the verdict and what the server offers."""
    if report.info is not None and report.info.encrypted:
        yield "Verified", _verified(report.info)
    offer = report.extensions
    if offer.domain:
        words = [f"{keyword} {offer[keyword]}".rstrip() for keyword in offer if keyword != "AUTH"]
        yield ("Offers" if report.info is not None else "In clear"), ", ".join(words) or "nothing"
        # A careful server offers no login before TLS.
        if report.info is not None or offer.auth:
            yield "Login", _login(report)


def _verified(info: ConnectionInfo) -> str:
    if info.verified:
        return "yes"
    accepted = info.validation is not None and info.validation.accepted
    return "no, but accepted as you asked" if accepted else "no"


def rows_of_times(report: ServerReport, width: int) -> _Rows:
    """Return how long each stage took, and with a `width` a bar that begins where the stage before ends."""
    total = sum(report.stage_seconds.values())
    before = 0.0
    for stage, seconds in report.stage_seconds.items():
        text = f"{seconds * 1000:.1f} ms"
        if width and total:
            start, end = (round(width * part / total) for part in (before, before + seconds))
            text = f"{' ' * start}{_BAR * max(1, end - start)}".ljust(width + 1) + f" {text:>12}"
        before += seconds
        yield f"Time {stage}", text


def _keys(info: ConnectionInfo) -> str:
    words = [info.key_exchange or "unknown key exchange"]
    if info.group is not None:
        words.append(info.group)
    if info.key_exchange_bits:
        words.append(f"{info.key_exchange_bits} bits")
    words.append("forward secrecy" if info.forward_secrecy else "no forward secrecy")
    return ", ".join(words)


def _client(info: ConnectionInfo) -> str:
    if not info.client_auth_requested:
        return "not asked for"
    return f"asked for, {'ours was shown' if info.client_authenticated else 'none was shown'}"


def _login(report: ServerReport) -> str:
    offered = ", ".join(report.auth) or "not offered"
    if report.logged_in is None:
        return offered
    return f"{offered}; ours {'succeeded' if report.logged_in else 'failed'}"


# --- certificates --------------------------------------------------------------------------------------------


def chain_of(report: ServerReport) -> list[Node]:
    """Return the way from the server's certificate to a trusted one, or what the server has shown of it."""
    now = datetime.now(UTC)
    validation = _validation(report)
    faults = validation.faults if validation is not None else ()
    states = validation.revocation if validation is not None else ()
    nodes = []
    for place, one in enumerate(_certificates(report)):
        node = _node("Certificate" if place == 0 else "Issuer", one, now)
        if place < len(states):
            node.rows.append(("Revocation", states[place].text))
        node.rows.extend(("Problem", in_shell_words(fault.text)) for fault in faults if fault.place == place)
        nodes.append(node)
    return nodes


def _validation(report: ServerReport) -> ChainValidation | None:
    if report.info is not None:
        return report.info.validation
    found = getattr(report.error, "validation", None)
    return found if isinstance(found, ChainValidation) else None


def _certificates(report: ServerReport) -> list[Certificate]:
    validation = _validation(report)
    if validation is not None and (path := validation.path):
        return list(path)
    chain = report.info.chain if report.info is not None else ()
    read = [found for der in chain if (found := Certificate.of(der)) is not None]
    return read or ([report.certificate] if report.certificate is not None else [])


def _node(label: str, certificate: Certificate, now: datetime) -> Node:
    names = certificate.names
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    title = certificate.subject
    if label == "Certificate":
        title = f"for {', '.join(names[:_MAX_NAMES]) or 'no host name'}{more}"
    left = certificate.not_after - now
    soon = left < EXPIRES_SOON
    when = f"{left.days} days left{': renew it' if soon else ''}" if left.days >= 0 else "expired"
    rows = [
        ("Issued by", "itself" if certificate.self_issued else certificate.issuer),
        ("Valid", f"from {certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d} ({when})"),
        ("Key", f"{certificate.curve or certificate.key_algorithm}, {certificate.key_bits} bits"),
        ("SHA-256", certificate.sha256),
    ]
    return Node(label, title, rows, soon)


# --- for programs --------------------------------------------------------------------------------------------


def as_object(report: ServerReport) -> dict[str, Any]:
    """Return the report as an object for JSON."""
    info = report.info
    encrypted = info is not None and info.encrypted
    return {
        "server": report.server,
        "ok": report.ok,
        "security": report.security.value,
        "via": info.via or None if info is not None else None,
        "greeting": str(report.greeting) if report.greeting else None,
        "tls": {name: getattr(info, name) for name in _TLS_FACTS} if encrypted else None,
        "validation": _judged(_validation(report)),
        "chain": [_facts(one) for one in _certificates(report)],
        "extensions": {keyword: report.extensions[keyword] for keyword in report.extensions},
        "auth": list(report.auth),
        "logged_in": report.logged_in,
        "error": None if report.error is None else {"code": report.error.code, "text": str(report.error)},
        "findings": list(report.findings),
        "stage_seconds": dict(report.stage_seconds),
    }


def _judged(validation: ChainValidation | None) -> dict[str, Any] | None:
    if validation is None:
        return None
    return {
        "result": validation.result.name,
        "problems": [
            {
                "kind": fault.problem.name,
                "text": fault.text,
                "excused": bool(fault.problem & validation.excused),
            }
            for fault in validation.faults
        ],
        "revocation": [
            {"state": status.state.value, "text": status.text} for status in validation.revocation
        ],
        "log": list(validation.log),
    }


def _facts(certificate: Certificate) -> dict[str, Any]:
    return {
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "names": list(certificate.names),
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "days_left": (certificate.not_after - datetime.now(UTC)).days,
        "key_algorithm": certificate.key_algorithm,
        "key_bits": certificate.key_bits,
        "curve": certificate.curve,
        "sha256": certificate.sha256,
    }
