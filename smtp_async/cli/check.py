"""`smtp-async check`: show what a server is, what it offers, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from ..client.client import SMTPClient
from ..client.diagnose import ServerReport
from ..events import PITrail
from ..model.reply import printable
from ..tls.certificate import Certificate
from ..tls.context import Security
from .exits import Exit, exit_for_error
from .screen import Screen, sentence

__all__ = ["check"]

_WITHOUT_TLS = {
    Security.IMPLICIT: "none, although wanted from the first byte",
    Security.STARTTLS: "none, although required by STARTTLS",
    Security.OPPORTUNISTIC: "none",
    Security.PLAINTEXT: "none, as asked for",
}
#: The most names of a certificate that are shown.
_MAX_NAMES = 6


async def check(screen: Screen, client: SMTPClient, *, verbose: bool) -> Exit:
    """Check the server, show the report, and return the exit code."""
    if verbose:
        client.on(PITrail, screen.trail)
    async with client:
        report = await client.check()
    _show(screen, report)
    if report.error is not None:
        return exit_for_error(report.error)
    return Exit.REFUSED if report.findings else Exit.OK


def _show(screen: Screen, report: ServerReport) -> None:
    rows = list(_rows(report))
    if screen.is_terminal:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        for label, text in rows:
            table.add_row(f"  {label}", Text(printable(text, 2000)))
        screen.line(report.server, "bold")
        screen.out.print(table)
        screen.line()
    else:
        screen.line(f"Server: {report.server}")
        for label, text in rows:
            screen.line(f"{label}: {printable(text, 2000)}")
    for finding in report.findings:
        screen.problem(sentence(finding))
    if report.ok:
        screen.success("Nothing wrong was found.")


def _rows(report: ServerReport) -> Iterator[tuple[str, str]]:
    yield "Greeting", str(report.greeting) if report.greeting else "none"
    yield "TLS", _tls(report)
    if report.certificate is not None:
        yield from _certificate(report.certificate)
    if report.info is not None and report.info.encrypted:
        yield "Verified", "yes" if report.info.verified else "no"
    offer = report.extensions
    if offer.domain:
        words = [f"{keyword} {offer[keyword]}".rstrip() for keyword in offer if keyword != "AUTH"]
        yield ("Offers" if report.info is not None else "In clear"), ", ".join(words) or "nothing"
        # A careful server offers no login before TLS.
        if report.info is not None or offer.auth:
            yield "Login", _login(report)


def _tls(report: ServerReport) -> str:
    info = report.info
    if info is None or not info.encrypted:
        return _WITHOUT_TLS[report.security]
    start = "from the first byte" if report.security is Security.IMPLICIT else "by STARTTLS"
    return f"{info.tls_version}, {info.suite}, {info.bits} bits, {start}"


def _certificate(certificate: Certificate) -> Iterator[tuple[str, str]]:
    more = f" and {len(certificate.names) - _MAX_NAMES} more" if len(certificate.names) > _MAX_NAMES else ""
    yield "Certificate", f"for {', '.join(certificate.names[:_MAX_NAMES]) or 'no host name'}{more}"
    yield "Issued by", "itself" if certificate.self_issued else certificate.issuer
    days = (certificate.not_after - datetime.now(UTC)).days
    when = f"{days} days left" if days >= 0 else "expired"
    yield "Valid", f"from {certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d} ({when})"
    yield "SHA-256", certificate.sha256


def _login(report: ServerReport) -> str:
    offered = ", ".join(report.auth) or "not offered"
    if report.logged_in is None:
        return offered
    return f"{offered}; ours {'succeeded' if report.logged_in else 'failed'}"
