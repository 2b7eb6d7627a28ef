"""From a route to a connection that is ready for mail: dial, TLS, greeting, EHLO, STARTTLS, AUTH.

Straight-line dialogue, run by the session's task. What is learnt before TLS is forgotten after it (RFC 3207
section 4.2); credentials are sent only over a verified TLS connection, a Unix socket, or where the user allowed clear
text by name; a refusal of EHLO falls back to HELO only where neither TLS nor AUTH is wanted, since an attacker could
have caused it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import socket
import ssl
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from threading import Thread
from typing import Final

from ..auth.mechanism import Credentials, Mechanism
from ..auth.select import select
from ..errors import (
    AuthenticationFailed,
    ConnectionLost,
    GreetingRefused,
    HelloRefused,
    InvalidArgument,
    PlaintextInjected,
    ProtocolViolation,
    SMTPError,
    StartTLSRefused,
    StartTLSUnavailable,
    Timeout,
    WrongTLSMode,
    status_code,
)
from ..events import ConnectionKind, ConnectionStatus, Notification, SSLStatus
from ..model.domain import full_host_name
from ..model.reply import Reply
from ..protocol.machine import ClientProtocol, Exchange
from ..protocol.states import Verb
from ..tls import verify
from ..tls.context import Security, make_context
from ..tls.info import ConnectionInfo
from ..tls.options import TLSOptions
from ..tls.sessions import SessionCache
from ..tls.verify import hint_for_silence, looks_like_tls
from ..transport.dial import SocketOptions, dial, dial_unix
from ..transport.stream import Endpoint, Stream
from .channel import Link

__all__ = ["Route", "Surroundings", "authenticate", "greet_again", "notify", "open_link", "say_tls"]

_log = logging.getLogger("smtp_async")

#: An initial response that makes the AUTH line longer waits for the server's 334 (RFC 4954 section 4).
_INITIAL_LINE = 512
#: RFC 5321 section 4.2.3: the server closes the connection. In place of a greeting it is none, whatever its class.
_CLOSING = 221
#: No mechanism needs more rounds.
_MAX_ROUNDS = 10
#: Seconds after which the address stands for a host name that the resolver does not tell.
_LOOKUP: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a session connects to, and how.

    Attributes:
        host, port: the server; for LMTP over a Unix socket `path` instead.
        security: never AUTO: the client resolves it.
        lmtp: speak LMTP.
        credentials: logged in with when the connection opens.
        hello: the name for EHLO; None looks up the full local host name.
        extensions: greet with EHLO; False greets with HELO and uses no extension.
        pipelining: use PIPELINING where offered.
        send_rset: write RSET after an aborted transaction.
        window: the most messages on their way unanswered.
    """

    host: str
    port: int = 0
    path: str | None = None
    security: Security = Security.PLAINTEXT
    lmtp: bool = False
    credentials: Credentials | None = None
    hello: str | None = None
    extensions: bool = True
    pipelining: bool = True
    send_rset: bool = True
    window: int = 1
    tls: TLSOptions = field(default_factory=TLSOptions)
    socket: SocketOptions = field(default_factory=SocketOptions)

    @property
    def name(self) -> str:
        """The server for messages: host and port, or the path."""
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")


class Surroundings:
    """What all sessions of a client share and what is slow to make: the TLS context, the local host name.

    Each is made once, in a thread, also when many sessions open at the same moment.

    Attributes:
        tls_sessions: those that later connections go on with.
    """

    __slots__ = ("_context", "_making", "_name", "tls_sessions")

    def __init__(self) -> None:
        self.tls_sessions = SessionCache()
        self._context: ssl.SSLContext | None = None
        self._making: asyncio.Future[ssl.SSLContext] | None = None
        self._name: _NameLookup | None = None

    async def context(self, options: TLSOptions, *, verify: bool) -> ssl.SSLContext:
        """Return the TLS context; loading the trusted certificates takes long."""
        if self._context is None:
            if self._making is None:
                make = partial(make_context, options, verify=verify)
                self._making = asyncio.get_running_loop().run_in_executor(None, make)
                self._making.add_done_callback(self._made)
            # One session that is given up must not take it from the others.
            self._context = await asyncio.shield(self._making)
        return self._context

    def _made(self, made: asyncio.Future[ssl.SSLContext]) -> None:
        self._making = None
        if not made.cancelled():
            # The sessions that wait for the context hear of it; there may be none.
            made.exception()

    async def local_name(self, endpoint: Endpoint, *, limit: float | None) -> str:
        """Return this host's full name, or its address as a literal where it has none (RFC 5321 section 4.1.4).

        A resolver that fails or is silent costs the name, not the connection: the address stands for it then.

        Args:
            endpoint: this end of the connection.
            limit: seconds for EHLO; the look-up may take half of them, and 5 s at most.
        """
        if self._name is None:
            self._name = _NameLookup(_LOOKUP if limit is None else min(limit / 2, _LOOKUP))
        return full_host_name(await self._name.result()) or _literal(endpoint)


class _NameLookup:
    """The look-up of the local host name, in a thread of its own that neither the loop's end nor the process waits for.

    Args:
        patience: seconds that the sessions wait for it, counted from the first; a late name is used by later sessions.
    """

    __slots__ = ("_due", "_name", "_over")

    def __init__(self, patience: float) -> None:
        loop = asyncio.get_running_loop()
        self._name = ""
        self._due = loop.time() + patience
        self._over: asyncio.Future[None] = loop.create_future()
        thread = Thread(target=self._look_up, args=(loop,), name="smtp_async host name", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system lets no more threads begin
            _log.warning("the name of this host cannot be looked up: %s", error)
            self._end()

    async def result(self) -> str:
        """Return the name, an empty one if there is none yet."""
        if not self._over.done():
            left = self._due - asyncio.get_running_loop().time()
            # `wait` does not cancel what it waits for.
            await asyncio.wait((self._over,), timeout=max(0.0, left))
        return self._name

    def _look_up(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._name = socket.getfqdn()
        except Exception as error:
            _log.warning("the name of this host cannot be looked up: %s", error)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


async def open_link(link: Link, route: Route, surroundings: Surroundings) -> ConnectionInfo:
    """Open the connection of `link` along `route` until mail can be sent.

    Raises:
        SMTPError: of the class that names the step; the connection is of no use then.
    """
    await _dial(link, route)
    if route.security is Security.IMPLICIT:
        await _encrypt(link, route, surroundings)
    await _greet(link, route)
    name = route.hello or await surroundings.local_name(_stream(link).local, limit=link.timeouts.hello)
    await _hello(link, route, name)
    if route.security is not Security.IMPLICIT:
        link.offered_in_clear = link.machine.extensions
    if route.security in (Security.STARTTLS, Security.OPPORTUNISTIC) and await _starttls(
        link, route, surroundings
    ):
        await _hello(link, route, name)
    _distrust_clear_text(link)
    info = link.info
    if info is not None and route.tls.session_reuse:
        verify.keep_session(surroundings.tls_sessions, _stream(link), info, route.tls)
    if info is None:
        port = route.port if route.path is None else None
        link.info = info = ConnectionInfo.of(_stream(link), host=route.host, port=port)
    if route.credentials is not None:
        await authenticate(link, route.credentials, secure=secure(route, info))
    return info


async def greet_again(link: Link) -> None:
    """Ask once more what the server offers; a refusal, 503 for example, leaves what is known.

    A server that has announced its end is asked nothing: its 421 is the reason for what fails here.
    """
    if link.machine.goodbye is not None:
        return
    link.watch()
    await link.converse(link.machine.hello_again())
    _distrust_clear_text(link)


def _distrust_clear_text(link: Link) -> None:
    if not _stream(link).encrypted:
        # RFC 8689 section 3: offered in clear it counts for nothing, whoever wrote it.
        link.machine.extensions = link.machine.extensions.without("REQUIRETLS")


def secure(route: Route, info: ConnectionInfo) -> bool:
    """May credentials travel here? Over verified TLS, or without leaving this machine's kernel."""
    return route.path is not None or (info.encrypted and info.verified is True)


def _stream(link: Link) -> Stream:
    assert link.stream is not None
    return link.stream


def _deadline(limit: float | None) -> float | None:
    return None if limit is None else asyncio.get_running_loop().time() + limit


async def _dial(link: Link, route: Route) -> None:
    link.remark("connecting to %s", route.name)
    if link.noted:
        await link.tell()
    deadline = _deadline(link.timeouts.connect)
    if route.path is not None:
        link.stream = await dial_unix(route.path, deadline=deadline)
    else:
        link.stream = await dial(route.host, route.port, options=route.socket, deadline=deadline)
    if link.failure is not None:
        link.stream.abort()
        raise link.failure
    link.remark("connected to %s", route.name)
    await _status(link, ConnectionKind.CONNECTED, description=route.name)


async def _status(
    link: Link,
    kind: ConnectionKind,
    *,
    code: int = 0,
    description: str,
    info: ConnectionInfo | None = None,
) -> None:
    if link.wants(ConnectionStatus):
        link.note(
            ConnectionStatus(
                session=link.number, kind=kind, status_code=code, description=description, info=info
            )
        )
    if link.noted:
        await link.tell()


def notify(link: Link, name: str, parameter: str, remark: str) -> None:
    """Note a step that has no event class of its own; `remark` says it as a line, with `%s` for the parameter."""
    link.remark(remark, parameter)
    if link.wants(Notification):
        link.note(Notification(session=link.number, name=name, parameter=parameter))


# --- TLS -----------------------------------------------------------------------------------------------------


async def _encrypt(link: Link, route: Route, surroundings: Surroundings) -> None:
    believed = route.security is not Security.OPPORTUNISTIC
    context = await surroundings.context(route.tls, verify=believed)
    name = route.tls.server_hostname or route.host
    say_tls(link, "TLS handshake with %s begins", name)
    try:
        link.info = info = await verify.secure(
            _stream(link),
            context,
            host=route.host,
            port=route.port if route.path is None else None,
            security=route.security,
            options=route.tls,
            sessions=surroundings.tls_sessions if route.tls.session_reuse else None,
            deadline=_deadline(link.timeouts.tls),
            tell=partial(say_tls, link, "%s") if route.tls.log_handshake else None,
        )
    except SMTPError as error:
        failed = link.failure or error
        link.handshake_failed = failed is error and not isinstance(error, PlaintextInjected)
        say_tls(link, "TLS handshake failed: %s", failed)
        await _status(link, ConnectionKind.TLS_BROKEN, code=status_code(failed), description=str(failed))
        if failed is error:
            raise
        raise failed from error
    said = f"{info.tls_version}, {info.suite}, {info.bits} bits"
    say_tls(link, "TLS handshake with %s is complete: %s", name, said)
    await _status(link, ConnectionKind.TLS_UP, description=str(info.tls_version), info=info)


def say_tls(link: Link, message: str, *words: object) -> None:
    """Note a step of TLS: an event of its own, and a line among those of the dialogue."""
    link.remark(message, *words)
    if link.wants(SSLStatus):
        link.note(SSLStatus(session=link.number, message=message % words))


async def _starttls(link: Link, route: Route, surroundings: Surroundings) -> bool:
    """Upgrade the connection; False where it may stay in clear (OPPORTUNISTIC)."""
    required = route.security is Security.STARTTLS
    machine = link.machine
    if not machine.extensions.starttls:
        if required:
            raise StartTLSUnavailable(
                f"{route.name} does not offer STARTTLS, which this client requires; nothing was sent in clear. "
                "Port 465 usually speaks TLS from the first byte: security=IMPLICIT",
                stage="STARTTLS",
            )
        return False
    link.watch()
    reply = await link.converse(machine.starttls())
    if not reply.positive:
        if required:
            raise StartTLSRefused(f"{route.name} refused STARTTLS", reply=reply, stage="STARTTLS")
        return False
    await _encrypt(link, route, surroundings)
    machine.tls_established()
    return True


# --- greeting and EHLO ---------------------------------------------------------------------------------------


async def _greet(link: Link, route: Route) -> None:
    try:
        reply = await link.converse(link.machine.greeting)
    except (ProtocolViolation, ConnectionLost, Timeout) as error:
        if looks_like_tls(link.first):
            raise WrongTLSMode(
                f"{route.name} speaks TLS from the first byte: use security=IMPLICIT (the usual port is 465)",
                stage="greeting",
            ) from error
        hint = hint_for_silence(route.port, route.security) if isinstance(error, Timeout) else ""
        if hint:
            raise Timeout(f"{error.message}; {hint}", stage="greeting") from error
        raise
    if not reply.positive or reply.code == _CLOSING:
        raise GreetingRefused(f"{route.name} refused the connection", reply=reply, stage="greeting")


async def _hello(link: Link, route: Route, name: str) -> None:
    machine = link.machine
    link.watch()
    if route.extensions:
        reply = await link.converse(machine.hello(name))
        if reply.positive:
            return
        if not _may_fall_back(link, route, reply):
            raise HelloRefused(
                f"{route.name} refused {'LHLO' if route.lmtp else 'EHLO'}", reply=reply, stage="EHLO"
            )
        notify(link, "helo", "EHLO was refused: going on without extensions", "%s")
        link.watch()
    reply = await link.converse(machine.helo(name))
    if not reply.positive:
        raise HelloRefused(f"{route.name} refused HELO", reply=reply, stage="HELO")


def _may_fall_back(link: Link, route: Route, reply: Reply) -> bool:
    """HELO means no TLS and no AUTH: only where nobody asked for them, and the server lives on."""
    wanted = route.credentials is not None or route.security in (Security.STARTTLS, Security.IMPLICIT)
    return reply.permanent and not wanted and not route.lmtp and link.machine.goodbye is None


# --- AUTH ----------------------------------------------------------------------------------------------------


async def authenticate(link: Link, credentials: Credentials, *, secure: bool) -> Reply:
    """Log in, RFC 4954; one mechanism, because a second one would show a refused password again.

    A server may offer other extensions to those whom it knows, so it is asked once more.

    Raises:
        AuthenticationUnavailable: no mechanism fits.
        AuthenticationFailed: the server refused.
        ProtocolViolation: it broke the mechanism's rules.
        UsageError: AUTH cannot be written now.
    """
    machine = link.machine
    machine.demand(Verb.AUTH)
    mechanism = select(machine.extensions.auth, credentials, secure=secure)
    notify(link, "mechanism", mechanism.name, "logging in with %s")
    await _prepare(mechanism, None)
    link.watch()
    exchange, initial_waits = _auth_command(machine, mechanism)
    reply = await link.converse(exchange)
    for _ in range(_MAX_ROUNDS):
        if not reply.intermediate:
            break
        link.watch()
        try:
            if not initial_waits:
                await _prepare(mechanism, mechanism.challenge(reply.raw[0]))
            exchange = _auth_response(machine, mechanism, None if initial_waits else reply)
        except SMTPError:
            await link.converse(machine.auth_response(None))
            raise
        initial_waits = False
        reply = await link.converse(exchange)
    if reply.intermediate:
        raise ProtocolViolation(f"{mechanism.name} did not end after {_MAX_ROUNDS} rounds", stage="AUTH")
    if not reply.positive:
        raise AuthenticationFailed(
            f"the server refused the credentials ({mechanism.name})", reply=reply, stage="AUTH"
        )
    if not mechanism.complete:
        raise ProtocolViolation(
            f"the server ended {mechanism.name} before it was complete", reply=reply, stage="AUTH"
        )
    await greet_again(link)
    return reply


# Responses hold the password. They live only in frames that neither await nor raise for what the server does, so
# that no traceback shows them.


async def _prepare(mechanism: Mechanism, challenge: bytes | None) -> None:
    pending = mechanism.pending(challenge)
    if pending is None:
        return
    if pending.blocking:
        await asyncio.to_thread(pending.work)
    else:
        result = pending.work()
        if inspect.isawaitable(result):
            await result


def _auth_command(machine: ClientProtocol, mechanism: Mechanism) -> tuple[Exchange, bool]:
    """Write AUTH; return also whether the initial response waits for the empty challenge."""
    initial = mechanism.initial_response()
    # Base64 grows by a third; the verb and the name come before it.
    if initial is None or len(initial) * 4 // 3 + len(mechanism.name) + 12 <= _INITIAL_LINE:
        return machine.auth(mechanism.name, initial, mechanism.secrets()), False
    return machine.auth(mechanism.name, None), True


def _auth_response(machine: ClientProtocol, mechanism: Mechanism, challenge: Reply | None) -> Exchange:
    """Write the answer to `challenge`; None: the initial response that waited."""
    try:
        if challenge is None:
            response = mechanism.initial_response()
        else:
            response = mechanism.respond(mechanism.challenge(challenge.raw[0]))
        return machine.auth_response(response, mechanism.secrets())
    except InvalidArgument as error:
        problem = str(error)
    # Not chained: the frames below hold the response.
    raise InvalidArgument(problem, stage="AUTH")


def _literal(endpoint: Endpoint) -> str:
    if not isinstance(endpoint, tuple):
        return "[127.0.0.1]"
    address = ip_address(endpoint[0].partition("%")[0])
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"
