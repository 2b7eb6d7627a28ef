"""From a route to a connection that is ready for mail: dial, TLS, greeting, EHLO, STARTTLS, login.

A dialogue in a straight line, run by the connection's task. What is learnt before TLS is forgotten after it (RFC 3207
section 4.2). Credentials are sent only over a verified TLS connection, over a Unix socket, or where the user allowed
clear text by name. A refusal of EHLO falls back to HELO only where neither TLS nor a login is wanted, because an
attacker could have caused it.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from ..auth.credentials import Credentials
from ..errors import (
    CertificateRejected,
    ConnectionLost,
    GreetingRefused,
    HelloRefused,
    PlaintextInjected,
    ProtocolViolation,
    SMTPError,
    StartTLSRefused,
    StartTLSUnavailable,
    Timeout,
    TLSError,
    WrongTLSMode,
    status_code,
)
from ..events import ConnectionKind
from ..model.reply import Reply
from ..protocol.machine import Exchange
from ..protocol.other_services import MASKED_STARTTLS, masks_starttls, not_smtp, spoken_by
from ..tls import verify
from ..tls.context import Security
from ..tls.info import ConnectionInfo
from ..tls.problems import ABSOLUTE, ChainValidation
from ..tls.verify import hint_for_silence, looks_like_tls
from ..transport.stream import Stream
from .channel import Channel
from .dial_route import dial_route
from .login import authenticate
from .route import Login, Route, SharedResources

__all__ = ["greet_again", "log_in", "open_channel"]

#: RFC 5321 section 4.2.3: the server closes the connection. As a greeting it is a refusal, although its class is 2.
_CLOSING: Final = 221


async def open_channel(channel: Channel, route: Route, shared: SharedResources) -> None:
    """Open the connection of `channel` along `route` until mail can be sent.

    Raises:
        SMTPError: of the class that names the step; the connection is of no use then.
    """
    await _dial(channel, route, shared)
    if route.security is Security.IMPLICIT:
        await _encrypt(channel, route, shared)
    said = await _greet(channel, route, shared)
    channel.passed("greeting")
    name = route.hello or await shared.local_name(_stream(channel).local, limit=channel.timeouts.hello)
    channel.passed("")
    machine = channel.machine
    await _hello(channel, route, name, said)
    machine.extensions = shared.share_offer(machine.extensions)
    if route.security is not Security.IMPLICIT:
        channel.offered_in_clear = machine.extensions
    if route.security in (Security.STARTTLS, Security.OPPORTUNISTIC) and await _starttls(
        channel, route, shared
    ):
        await _hello(channel, route, name)
        machine.extensions = shared.share_offer(machine.extensions)
    _ignore_offers_in_clear(channel)
    info = channel.info
    if info is None:
        channel.opened_in_clear(route.host, route.port if route.path is None else None)
    elif route.tls.session_reuse:
        verify.keep_session(shared.tls_sessions, _stream(channel), info, route.tls)
    if route.logs_in and route.login is not Login.MANUAL:
        await log_in(channel, route, shared, route.credentials or Credentials())


async def log_in(channel: Channel, route: Route, shared: SharedResources, credentials: Credentials) -> Reply:
    """Authenticate and return the server's reply; then ask again what it offers, which may differ after a login.

    Raises:
        SMTPError: as `authenticate`.
    """
    reply = await authenticate(channel, route, shared, credentials)
    channel.passed("AUTH")
    await greet_again(channel)
    channel.passed("EHLO")
    return reply


async def greet_again(channel: Channel) -> None:
    """Send EHLO once more; after a refusal, 503 for example, the earlier offer remains valid.

    A server that has announced its end is asked nothing: its 421 is the reason for what fails here.
    """
    if channel.machine.reply_421 is not None:
        return
    channel.record_lines()
    await channel.converse(channel.machine.hello_again())
    _ignore_offers_in_clear(channel)


def _ignore_offers_in_clear(channel: Channel) -> None:
    machine = channel.machine
    if machine.extensions.requiretls and not _stream(channel).encrypted:
        # RFC 8689 section 3: REQUIRETLS counts only over TLS, because an attacker could have added it.
        machine.extensions = machine.extensions.without("REQUIRETLS")


def _stream(channel: Channel) -> Stream:
    assert channel.stream is not None
    return channel.stream


def _deadline(channel: Channel, limit: float | None) -> float | None:
    return None if limit is None else channel.now() + limit


async def _dial(channel: Channel, route: Route, shared: SharedResources) -> None:
    transcript, hooks = channel.transcript, channel.hooks
    if hooks.active:
        transcript.remark("connecting to %s", route.name)
        await transcript.tell()
    deadline = _deadline(channel, channel.timeouts.connect)
    channel.stream = stream = await dial_route(route, shared, deadline=deadline, passed=channel.passed)
    if channel.failure is not None:
        stream.abort()
        raise channel.failure
    if stream.via:
        transcript.proxied(stream.via)
        transcript.remark("through %s", stream.via)
    if channel.pacer is not None:
        stream.limit_reading(channel.pacer.throttle)
    if hooks.active:
        transcript.remark("connected to %s", route.name)
        await _tell_status(channel, ConnectionKind.CONNECTED, description=route.name)


async def _tell_status(
    channel: Channel,
    kind: ConnectionKind,
    *,
    code: int = 0,
    description: str,
    info: ConnectionInfo | None = None,
) -> None:
    channel.transcript.status(kind, code=code, description=description, info=info)
    if channel.transcript.events:
        await channel.transcript.tell()


# --- TLS -----------------------------------------------------------------------------------------------------


async def _encrypt(channel: Channel, route: Route, shared: SharedResources) -> None:
    verified = route.security is not Security.OPPORTUNISTIC
    context = await shared.context(route.tls, verify=verified)
    hooks = channel.hooks
    name = route.tls.server_hostname or route.host
    if hooks.active:
        channel.transcript.tls_step("TLS handshake with %s begins", name)
    try:
        info = await verify.secure(
            _stream(channel),
            context,
            host=route.host,
            port=route.port if route.path is None else None,
            security=route.security,
            options=route.tls,
            sessions=shared.tls_sessions if route.tls.session_reuse else None,
            revocation=shared.revocation(route.tls),
            deadline=_deadline(channel, channel.timeouts.tls),
            tell=partial(channel.transcript.tls_step, "%s") if route.tls.log_handshake else None,
        )
    except SMTPError as error:
        failed = channel.failure or error
        # A server that the application forbade, or has not decided about, is not spoken with in clear either.
        undecided = isinstance(error, Timeout) and _stream(channel).encrypted
        forbidden = isinstance(error, PlaintextInjected | CertificateRejected) or _is_forbidden(error)
        channel.handshake_failed = failed is error and not (forbidden or undecided)
        channel.transcript.tls_step("TLS handshake failed: %s", failed)
        await _tell_status(
            channel, ConnectionKind.TLS_BROKEN, code=status_code(failed), description=str(failed)
        )
        if failed is error:
            raise
        raise failed from error
    channel.secured(info)
    channel.passed("TLS")
    if hooks.active:
        step = "TLS handshake with %s is complete: %s, %s, %s bits"
        channel.transcript.tls_step(step, name, info.tls_version, info.suite, info.bits)
        await _tell_status(channel, ConnectionKind.TLS_UP, description=str(info.tls_version), info=info)


def _is_forbidden(error: SMTPError) -> bool:
    """Did the application say no, whatever else is wrong? The class of the error may be that of something else."""
    found = error.validation if isinstance(error, TLSError) else None
    return isinstance(found, ChainValidation) and bool(found.counted & ABSOLUTE)


async def _starttls(channel: Channel, route: Route, shared: SharedResources) -> bool:
    """Upgrade the connection; return False if it stays in clear, which only OPPORTUNISTIC allows."""
    required = route.security is Security.STARTTLS
    machine = channel.machine
    if not machine.extensions.starttls:
        if required:
            masked = f"{MASKED_STARTTLS}. " if masks_starttls(machine.extensions) else ""
            raise StartTLSUnavailable(
                f"{route.name} does not offer STARTTLS, which this client requires; nothing was sent in clear. "
                f"{masked}Port 465 usually speaks TLS from the first byte: security=Security.IMPLICIT",
                stage="STARTTLS",
            )
        return False
    channel.record_lines()
    reply = await channel.converse(machine.starttls())
    if not reply.positive:
        if required:
            raise StartTLSRefused(f"{route.name} refused STARTTLS", reply=reply, stage="STARTTLS")
        return False
    await _encrypt(channel, route, shared)
    machine.tls_established()
    return True


# --- greeting and EHLO ---------------------------------------------------------------------------------------


async def _greet(channel: Channel, route: Route, shared: SharedResources) -> Exchange | None:
    """Read the greeting; return EHLO, if it has been written already."""
    hello = _PromptHello(channel, route, shared)
    try:
        reply = await channel.converse(channel.machine.greeting, hello.answer)
    except (ProtocolViolation, ConnectionLost, Timeout) as error:
        if hello.said is not None:
            raise
        protocol = spoken_by(channel.first_bytes)
        if protocol is not None:
            raise ProtocolViolation(not_smtp(route.name, protocol), stage="greeting") from error
        if looks_like_tls(channel.first_bytes):
            raise WrongTLSMode(
                f"{route.name} speaks TLS from the first byte: use security=IMPLICIT (the usual port is 465)",
                stage="greeting",
            ) from error
        guessing = isinstance(error, Timeout) and not route.tunnel
        hint = hint_for_silence(route.port, route.security) if guessing else ""
        if hint:
            raise Timeout(f"{error.message}; {hint}", stage="greeting") from error
        raise
    if not _welcomes(reply):
        raise GreetingRefused(f"{route.name} refused the connection", reply=reply, stage="greeting")
    return hello.said


def _welcomes(reply: Reply) -> bool:
    return reply.positive and reply.code != _CLOSING


class _PromptHello:
    """Answers the greeting with EHLO in the same iteration of the event loop in which it arrives.

    Attributes:
        said: EHLO, None if it was not written: the task has something to do first.
    """

    __slots__ = ("_channel", "_route", "_shared", "said")

    def __init__(self, channel: Channel, route: Route, shared: SharedResources) -> None:
        self._channel = channel
        self._route = route
        self._shared = shared
        self.said: Exchange | None = None

    def answer(self) -> bool:
        """Return whether EHLO was written, so that the task can wait for the next reply."""
        channel, route = self._channel, self._route
        name = route.hello or self._shared.known_name(_stream(channel).local)
        reply = channel.machine.greeting.reply
        if not (name and route.extensions and reply is not None and _welcomes(reply)):
            return False
        self.said = channel.machine.hello(name)
        channel.flush()
        return True


async def _hello(channel: Channel, route: Route, name: str, said: Exchange | None = None) -> None:
    """Say EHLO, or HELO if it is refused, and read the reply; `said` is EHLO that was written already."""
    machine = channel.machine
    channel.record_lines()
    if route.extensions:
        reply = await channel.converse(said or machine.hello(name))
        channel.passed("EHLO")
        if reply.positive:
            return
        if not _may_fall_back(channel, route, reply):
            raise HelloRefused(
                f"{route.name} refused {'LHLO' if route.lmtp else 'EHLO'}", reply=reply, stage="EHLO"
            )
        channel.transcript.notify("helo", "EHLO was refused: going on without extensions", "%s")
        channel.record_lines()
    reply = await channel.converse(machine.helo(name))
    channel.passed("EHLO")
    if not reply.positive:
        raise HelloRefused(f"{route.name} refused HELO", reply=reply, stage="HELO")


def _may_fall_back(channel: Channel, route: Route, reply: Reply) -> bool:
    """May HELO follow a refused EHLO? Not where TLS or a login is wanted, nor after a 421."""
    wanted = route.logs_in or route.security in (Security.STARTTLS, Security.IMPLICIT)
    return reply.permanent and not wanted and not route.lmtp and channel.machine.reply_421 is None
