"""The AUTH dialogue, RFC 4954.

One mechanism is tried and no second one, because that would show a refused password again. Responses hold the
password: they live only in functions that neither await nor raise for what the server does, so that no traceback shows
them.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Final

from ..auth.credentials import Credentials
from ..auth.mechanism import Mechanism
from ..auth.select import select
from ..errors import AuthenticationFailed, InvalidArgument, ProtocolViolation, SMTPError
from ..model.reply import Reply
from ..protocol.machine import ClientProtocol, Exchange
from ..protocol.states import Verb
from ..tls.info import ConnectionInfo
from .channel import Channel
from .route import Route

__all__ = ["authenticate", "protects_credentials"]

#: Octets of an AUTH line; a longer initial response waits for the server's 334 (RFC 4954 section 4).
_INITIAL_LINE: Final = 512
#: No mechanism needs more rounds.
_MAX_ROUNDS: Final = 10


def protects_credentials(route: Route, info: ConnectionInfo) -> bool:
    """May credentials travel on this connection? Over verified TLS, or over a Unix socket."""
    return route.path is not None or (info.encrypted and info.verified is True)


async def authenticate(channel: Channel, credentials: Credentials, *, secure: bool) -> Reply:
    """Log in with the best mechanism that both sides know, and return the server's last reply.

    Args:
        channel: an open one, outside a transaction.
        credentials: the credentials to log in with.
        secure: may the password travel as it is?

    Raises:
        AuthenticationUnavailable: no mechanism fits.
        AuthenticationFailed: the server refused.
        ProtocolViolation: the server broke the mechanism's rules.
        UsageError: AUTH cannot be written now.
    """
    machine = channel.machine
    machine.demand(Verb.AUTH)
    mechanism = select(machine.extensions.auth, credentials, secure=secure)
    channel.transcript.notify("mechanism", mechanism.name, "logging in with %s")
    reply = await _exchange_challenges(channel, mechanism)
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
    return reply


async def _exchange_challenges(channel: Channel, mechanism: Mechanism) -> Reply:
    """Write AUTH, answer every challenge, and return the first other reply, or the challenge after the last round."""
    machine = channel.machine
    await _prepare(mechanism, None)
    channel.record_lines()
    exchange, initial_waits = _auth_command(machine, mechanism)
    reply = await channel.converse(exchange)
    for _ in range(_MAX_ROUNDS):
        if not reply.intermediate:
            break
        channel.record_lines()
        try:
            if not initial_waits:
                await _prepare(mechanism, mechanism.challenge(reply.raw[0]))
            exchange = _auth_response(machine, mechanism, None if initial_waits else reply)
        except SMTPError:
            # "*" cancels the exchange, RFC 4954 section 4.
            await channel.converse(machine.auth_response(None))
            raise
        initial_waits = False
        reply = await channel.converse(exchange)
    return reply


async def _prepare(mechanism: Mechanism, challenge: bytes | None) -> None:
    """Do what the mechanism must wait for before it can respond: a token, for example, or a slow hash."""
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
