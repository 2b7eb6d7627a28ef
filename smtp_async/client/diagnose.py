"""What is wrong with a server, in words.

Strategy: one ordinary session, opened by the same code that sends mail, so that a report tells what a message would
meet. The facts that it leaves are collected, also where it broke off half-way, and `findings_of` judges them as a
careful administrator would. Where the session failed, its error is a sentence already, and the first finding.

One question is asked on a second connection: a port that expects TLS from the first byte is silent to a client that
waits for a greeting, as is a web server, and the greeting may take minutes by RFC 5321. After a few seconds of silence,
fewer if the greeting has little time, a handshake is tried on another connection. If it succeeds, or something answers
that is no mail server, the wait for the greeting ends.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ..connection.dial_route import dial_route
from ..connection.route import Login, Route, SharedResources
from ..connection.stage_times import StageTimes
from ..errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    ProtocolViolation,
    SMTPError,
    UsageError,
    WrongTLSMode,
)
from ..model.reply import Reply
from ..model.timeouts import Timeouts
from ..protocol.extensions import NO_EXTENSIONS, Extensions
from ..protocol.other_services import MASKED_STARTTLS, masks_starttls, not_smtp, spoken_by
from ..tls.certificate import Certificate
from ..tls.context import Security, reference_name
from ..tls.handshake_witness import Evidence, evidence_of, observe
from ..tls.info import ConnectionInfo

if TYPE_CHECKING:
    from ..connection.connection import Connection
    from ..connection.session import Session
    from ..pool.pool import Pool
    from ..transport.stream import Stream

__all__ = ["EXPIRES_SOON", "ServerReport", "examine", "findings_of", "silence_before_probe"]

#: Seconds without a greeting after which a handshake is tried, but at most this share of the time that the greeting may
#: take; and seconds that the handshake may take.
_SILENCE: Final = 3.0
_SHARE: Final = 0.1
_PROBE: Final = 10.0
#: What a web server answers, and the octets that tell its protocol.
_QUESTION: Final = b"HEAD / HTTP/1.0\r\n\r\n"
_FIRST: Final = 16
#: On this port servers take a client that speaks first for a spammer, and TLS never comes first.
_NEVER_PROBED: Final = 25
#: With TLS from the first byte, nothing else is spoken here.
_SMTPS: Final = 465
#: A certificate that expires sooner is a finding.
EXPIRES_SOON: Final = timedelta(days=21)
#: What was seen of a failed handshake is looked for in so many chained errors.
_CAUSES: Final = 5
_OLD_TLS: Final = frozenset({"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """What `SMTPClient.check` saw.

    Attributes:
        server: host and port, or the path of the socket.
        security: how TLS was to start; AUTO is resolved.
        greeting: the server's first reply, None if none came.
        extensions: what the server offers, under TLS if TLS was established.
        offered_in_clear: what the server offered before TLS; None if TLS came first, or the check ended before.
        info: what was negotiated, None if the connection was not established.
        certificate: the facts of the server's certificate, also after a handshake that failed.
        logged_in: whether the login succeeded; None without credentials, or if the check ended before.
        error: what ended the check early.
        findings: everything that is wrong, one sentence each.
        stage_seconds: how long each stage of the opening took: `"DNS"`, `"TCP"`, `"proxy"`, `"greeting"`, `"EHLO"`,
            `"TLS"`, `"AUTH"`; those that were passed, in their order. EHLO is the sum of two or three.
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
    stage_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.error is None and not self.findings

    @property
    def auth(self) -> tuple[str, ...]:
        """The mechanisms that the server offers for logging in, under TLS if TLS was established."""
        return self.extensions.auth


async def examine(pool: Pool, session_on: Callable[[Connection], Session], route: Route) -> ServerReport:
    """Open a connection, send NOOP and QUIT, and return the report.

    Args:
        pool: gives the connection.
        session_on: makes the session of a connection.
        route: the client's.

    Raises:
        UsageError: the client cannot be used, or its settings make no sense. What the server does is part of the
            report.
    """
    try:
        connection = await pool.lend()
    except UsageError:
        raise
    except SMTPError as error:
        # A login that was refused a moment ago is not tried again.
        return _with_findings(ServerReport(server=route.name, security=route.security, error=error), route)
    # A resumed session would show the certificate of yesterday.
    connection.route = replace(connection.route, tls=replace(connection.route.tls, session_reuse=False))
    times = connection.channel.stage_times = StageTimes(connection.channel.now)
    try:
        connected, failed = await _converse(connection, session_on(connection), route)
    finally:
        connection.let_go()
        pool.give_back(connection)
    channel = connection.channel
    info = channel.info
    return _with_findings(
        ServerReport(
            server=connection.route.name,
            security=route.security,
            greeting=channel.machine.greeting.reply,
            extensions=connection.extensions,
            offered_in_clear=channel.offered_in_clear,
            info=info,
            certificate=await asyncio.to_thread(_certificate, info, failed),
            logged_in=_login(route, connected, failed),
            error=failed,
            stage_seconds=times.seconds,
        ),
        route,
    )


async def _converse(connection: Connection, session: Session, route: Route) -> tuple[bool, SMTPError | None]:
    """Return whether the connection was established, and what went wrong."""
    connected = False
    try:
        await _connect(connection, session, route)
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


async def _connect(connection: Connection, session: Session, route: Route) -> None:
    watch = asyncio.create_task(_probe_silent_server(connection, route))
    try:
        await session.connect()
    finally:
        watch.cancel()
        await asyncio.wait((watch,))


async def _probe_silent_server(connection: Connection, route: Route) -> None:
    timeouts = connection.channel.timeouts
    silence = silence_before_probe(route, timeouts)
    if silence is None:
        return
    await asyncio.sleep(silence)
    # By now that of one mail exchanger, where the client's names a domain.
    route = connection.route
    if connection.channel.machine.greeting.reply is not None or route.mx:
        return
    speaks_tls, protocol = await _probe(route, connection.shared, timeouts.tls)
    error: SMTPError
    if protocol is not None:
        error = ProtocolViolation(not_smtp(route.name, protocol), stage="greeting")
    elif speaks_tls and route.security is not Security.IMPLICIT:
        mode = "expects TLS from the first byte: use security=Security.IMPLICIT"
        error = WrongTLSMode(f"{route.name} {mode}", stage="greeting")
    else:
        return
    connection.abort(error)


def silence_before_probe(route: Route, timeouts: Timeouts) -> float | None:
    """Return the seconds without a greeting after which a handshake is tried, None if none is tried."""
    known = route.port == _NEVER_PROBED or (route.port == _SMTPS and route.security is Security.IMPLICIT)
    if route.path is not None or route.tunnel or known:
        return None
    return _SILENCE if timeouts.greeting is None else min(_SILENCE, timeouts.greeting * _SHARE)


async def _probe(route: Route, shared: SharedResources, limit: float | None) -> tuple[bool, str | None]:
    """Tell whether the port answers a handshake, and which protocol other than SMTP it speaks, as far as is seen.

    Nothing is verified, because nothing else is sent but a question that only a web server answers.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    observe(context)
    deadline = asyncio.get_running_loop().time() + min(_PROBE, limit or _PROBE)
    try:
        stream = await dial_route(route, shared, deadline=deadline)
        try:
            await stream.start_tls(context, reference_name(route.host, route.tls), deadline=deadline)
            return True, spoken_by(await _first_words(stream, deadline))
        finally:
            stream.abort()
    except SMTPError as error:
        # A web server answers the handshake with an error page; others greet in clear.
        return False, spoken_by(_seen(error).first_bytes)


async def _first_words(stream: Stream, deadline: float) -> bytes:
    """Return what a server says first under TLS, or when it is asked for a page."""
    now = asyncio.get_running_loop().time()
    for question, until in ((b"", (now + deadline) / 2), (_QUESTION, deadline)):
        try:
            async with asyncio.timeout_at(until):
                stream.write(question)
                return await stream.read(_FIRST)
        except TimeoutError:
            continue
    return b""


def _login(route: Route, connected: bool, error: SMTPError | None) -> bool | None:
    if not route.logs_in or route.login is Login.MANUAL:
        return None
    refused = isinstance(error, AuthenticationFailed | AuthenticationUnavailable)
    return connected or (False if refused else None)


def _certificate(info: ConnectionInfo | None, error: BaseException | None) -> Certificate | None:
    """Return the facts of the certificate; after a failed handshake the error has it."""
    if info is not None:
        return info.facts
    chain = _seen(error).chain
    return Certificate.of(chain[0]) if chain else None


def _seen(error: BaseException | None) -> Evidence:
    """Return what was seen of a failed handshake, which one of the chained errors has."""
    for _ in range(_CAUSES):
        evidence = evidence_of(error)
        if evidence.chain or evidence.first_bytes:
            return evidence
        error = error.__cause__ if error is not None else None
    return Evidence()


# --- findings ------------------------------------------------------------------------------------------------


def _with_findings(report: ServerReport, route: Route) -> ServerReport:
    return replace(report, findings=tuple(findings_of(report, route, datetime.now(UTC))))


def findings_of(report: ServerReport, route: Route, now: datetime) -> Iterator[str]:
    """Judge the facts of a report: one sentence for each thing that is wrong."""
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
        if info.verified is False and info.validation is not None:
            yield f"the server's identity as {info.host} is not proved: {info.validation.reason}"
    elif clear is not None and clear.starttls:
        yield f"STARTTLS is offered, but with security={route.security.name} mail is sent unencrypted"
    elif clear is not None and masks_starttls(clear):
        yield f"STARTTLS is not offered: {MASKED_STARTTLS[0].lower()}{MASKED_STARTTLS[1:]}"
    elif route.security is Security.OPPORTUNISTIC:
        yield "STARTTLS is not offered: the mail can be read and changed on the network"


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
            "would send its password unencrypted"
        )
    submission = route.security in (Security.IMPLICIT, Security.STARTTLS) and not route.lmtp
    if report.error is None and route.credentials is None and submission and not report.auth:
        yield "no login (AUTH) is offered: only clients that the server knows in another way can send through it"
