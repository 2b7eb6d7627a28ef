"""What is wrong with a server, in words.

Strategy: one ordinary conversation, opened by the same code that sends mail, so that a report tells what a message
would meet. Whatever it left behind is collected, also where it broke off half-way, and `_findings` reads that like a
careful administrator would. Where the conversation failed, its error is a sentence already, and the first finding.

One question is asked on a second connection: a port that expects TLS from the first byte is silent to a client that
waits for a greeting, and the greeting may take minutes by RFC 5321. After a few seconds of silence a handshake is
tried beside; if it comes to pass, there is nothing to wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ..connection.opening import Route
from ..errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    ConnectFirst,
    SMTPError,
    UsageError,
    WrongTLSMode,
)
from ..model.reply import Reply
from ..protocol.extensions import NO_EXTENSIONS, Extensions
from ..tls.certificate import Certificate
from ..tls.context import Security, reference_name
from ..tls.handshake_witness import evidence_of
from ..tls.info import ConnectionInfo
from ..transport.dial import dial

if TYPE_CHECKING:
    from ..connection.session import Session
    from ..pool.pool import Pool

__all__ = ["EXPIRES_SOON", "ServerReport", "examine"]

#: Seconds without a greeting after which a handshake is tried, and seconds for that.
_SILENCE: Final = 3.0
_PROBE: Final = 10.0
#: On this port a client that speaks before it is spoken to is taken for a spammer's, and TLS never comes first.
_NEVER_PROBED: Final = 25
#: A certificate that ends sooner is worth a word.
EXPIRES_SOON: Final = timedelta(days=21)
#: An error's certificate is known to one of so many causes.
_CAUSES: Final = 5
_OLD_TLS: Final = frozenset({"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """What a check saw.

    Attributes:
        server: host and port, or the path of the socket.
        security: how TLS was to start; AUTO is resolved.
        greeting: the server's first reply, None if none came.
        extensions: what it offers, under TLS if that came up.
        offered_in_clear: what it offered before TLS; None if TLS came first, or it did not come that far.
        info: what was negotiated, None if the connection did not stand.
        certificate: what the server's certificate says, also that of a handshake that failed.
        logged_in: did the login succeed? None without credentials, or if it did not come that far.
        error: what ended the check early.
        findings: everything that is wrong, one sentence each.
    """

    server: str
    security: Security = Security.PLAINTEXT
    greeting: Reply | None = None
    extensions: Extensions = NO_EXTENSIONS
    offered_in_clear: Extensions | None = None
    info: ConnectionInfo | None = None
    certificate: Certificate | None = None
    logged_in: bool | None = None
    error: SMTPError | None = None
    findings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return self.error is None and not self.findings

    @property
    def auth(self) -> tuple[str, ...]:
        """The mechanisms that the server offers for logging in, under TLS if that came up."""
        return self.extensions.auth


async def examine(pool: Pool, route: Route) -> ServerReport:
    """Open a session, say NOOP and QUIT, and report.

    Raises:
        UsageError: the client cannot be used, or its settings make no sense. Nothing else: what the server does is
            part of the report.
    """
    try:
        session = await pool.lend()
    except UsageError:
        raise
    except SMTPError as error:
        # A login that was refused a moment ago is not tried again.
        return _with_findings(ServerReport(server=route.name, security=route.security, error=error), route)
    try:
        connected, failed = await _converse(session, route)
    finally:
        session.let_go()
        pool.give_back(session)
    info = _info(session)
    return _with_findings(
        ServerReport(
            server=route.name,
            security=route.security,
            greeting=session.greeting,
            extensions=session.extensions,
            offered_in_clear=session.offered_in_clear,
            info=info,
            certificate=await asyncio.to_thread(_certificate, info, failed),
            logged_in=_login(route, connected, failed),
            error=failed,
        ),
        route,
    )


async def _converse(session: Session, route: Route) -> tuple[bool, SMTPError | None]:
    """Return whether the connection came to stand, and what went wrong."""
    connected = False
    try:
        await _connect(session, route)
        connected = True
        await session.noop()
        await session.quit()
    except UsageError as error:
        if not connected:
            raise
        # "Not connected": the server hung up.
        return connected, error
    except SMTPError as error:
        return connected, error
    return connected, None


async def _connect(session: Session, route: Route) -> None:
    watch = asyncio.create_task(_mind_silence(session, route))
    try:
        await session.connect()
    finally:
        watch.cancel()
        await asyncio.wait((watch,))


async def _mind_silence(session: Session, route: Route) -> None:
    if route.security is Security.IMPLICIT or route.path is not None or route.port == _NEVER_PROBED:
        return
    await asyncio.sleep(_SILENCE)
    if session.greeting is None and await _speaks_tls(route):
        session.abort(
            WrongTLSMode(
                f"{route.name} expects TLS from the first byte: use security=Security.IMPLICIT",
                stage="greeting",
            )
        )


async def _speaks_tls(route: Route) -> bool:
    """Does the port answer a handshake? Nothing else is said, so nothing need be verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    deadline = asyncio.get_running_loop().time() + _PROBE
    try:
        stream = await dial(route.host, route.port, options=route.socket, deadline=deadline)
        try:
            await stream.start_tls(context, reference_name(route.host, route.tls), deadline=deadline)
        finally:
            stream.abort()
    except SMTPError:
        return False
    return True


def _login(route: Route, connected: bool, error: SMTPError | None) -> bool | None:
    if route.credentials is None:
        return None
    refused = isinstance(error, AuthenticationFailed | AuthenticationUnavailable)
    return connected or (False if refused else None)


def _info(session: Session) -> ConnectionInfo | None:
    with contextlib.suppress(ConnectFirst):
        return session.info
    return None


def _certificate(info: ConnectionInfo | None, error: BaseException | None) -> Certificate | None:
    """Return what the certificate says; of a failed handshake the error knows it."""
    if info is not None:
        return info.facts
    for _ in range(_CAUSES):
        if chain := evidence_of(error).chain:
            return Certificate.of(chain[0])
        error = error.__cause__ if error is not None else None
    return None


# --- what is wrong -------------------------------------------------------------------------------------------


def _with_findings(report: ServerReport, route: Route) -> ServerReport:
    return replace(report, findings=tuple(_findings(report, route, datetime.now(UTC))))


def _findings(report: ServerReport, route: Route, now: datetime) -> Iterator[str]:
    if report.error is not None:
        yield str(report.error)
    yield from _about_tls(report, route)
    yield from _about_dates(report, now)
    yield from _about_login(report, route)
    if report.error is None and route.extensions and not report.extensions.domain:
        yield "EHLO is not understood, only HELO: neither TLS nor a login nor any other extension can be used"


def _about_tls(report: ServerReport, route: Route) -> Iterator[str]:
    info, clear = report.info, report.offered_in_clear
    if info is None:
        return
    if info.encrypted:
        if info.tls_version in _OLD_TLS:
            yield f"{info.tls_version} is not safe any more: the server should speak TLS 1.2 or newer"
        if info.verified is False:
            yield f"the server cannot be believed to be {info.host}: {info.verification_error}"
    elif clear is not None and clear.starttls:
        yield f"STARTTLS is offered, but with security={route.security.name} mail travelled in clear"
    elif route.security is Security.OPPORTUNISTIC:
        yield "STARTTLS is not offered: everybody on the way can read and change the mail"


def _about_dates(report: ServerReport, now: datetime) -> Iterator[str]:
    certificate = report.certificate
    if report.error is None and certificate is not None and now <= certificate.not_after < now + EXPIRES_SOON:
        days = (certificate.not_after - now).days
        left = f"in {days} day{'s' if days > 1 else ''}" if days else "within a day"
        yield f"the certificate expires {left}, on {certificate.not_after:%Y-%m-%d %H:%M} UTC"


def _about_login(report: ServerReport, route: Route) -> Iterator[str]:
    clear = report.offered_in_clear
    if clear is not None and clear.auth and route.path is None:
        where = "before TLS" if clear.starttls else "on a connection without TLS"
        yield (
            f"a login ({', '.join(clear.auth)}) is offered {where}: a client less careful than this one "
            "would show its password to everybody on the way"
        )
    submission = route.security in (Security.IMPLICIT, Security.STARTTLS) and not route.lmtp
    if report.error is None and route.credentials is None and submission and not report.auth:
        yield "no login (AUTH) is offered: nobody can send through this server whom it does not know in another way"
