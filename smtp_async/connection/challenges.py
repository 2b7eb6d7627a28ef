"""The exchange of challenges and responses between AUTH and its last reply, RFC 4954 section 4.

Responses hold the password: they live only in functions that neither await nor raise for what the server does, so that
no traceback shows them.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Final

from ..auth.mechanism import Mechanism, Pending
from ..errors import InvalidArgument, SMTPError, Timeout
from ..model.reply import Reply
from ..protocol.machine import ClientProtocol, Exchange
from ..sources.worker import in_thread
from .channel import Channel

if TYPE_CHECKING:
    from anyio import CapacityLimiter

__all__ = ["MAX_ROUNDS", "exchange_challenges"]

#: Octets of an AUTH line; a longer initial response waits for the server's 334 (RFC 4954 section 4).
_INITIAL_LINE: Final = 512
#: No mechanism needs more rounds.
MAX_ROUNDS: Final = 10


async def exchange_challenges(channel: Channel, mechanism: Mechanism, threads: CapacityLimiter) -> Reply:
    """Write AUTH, answer every challenge, and return the reply that is none, or one challenge too many.

    Args:
        channel: an open one, outside a transaction.
        mechanism: a new one.
        threads: bounds those in which mechanisms compute.

    Raises:
        AuthenticationUnavailable: the mechanism cannot be used after all; nothing was sent.
        InvalidArgument: the credentials do not fit the mechanism.
        ProtocolViolation: the server broke the mechanism's rules.
        Timeout: the mechanism itself took too long.
    """
    machine = channel.machine
    await _prepare(channel, mechanism, None, threads)
    channel.record_lines()
    exchange, initial_waits = _auth_command(machine, mechanism)
    reply = await channel.converse(exchange)
    for _ in range(MAX_ROUNDS):
        if not reply.intermediate:
            break
        channel.record_lines()
        try:
            if not initial_waits:
                await _prepare(channel, mechanism, mechanism.challenge(reply.raw[0]), threads)
            exchange = _auth_response(machine, mechanism, None if initial_waits else reply)
        except SMTPError:
            # "*" cancels the exchange, RFC 4954 section 4.
            await channel.converse(machine.auth_response(None))
            raise
        initial_waits = False
        reply = await channel.converse(exchange)
    return reply


async def _prepare(
    channel: Channel, mechanism: Mechanism, challenge: bytes | None, threads: CapacityLimiter
) -> None:
    """Do what the mechanism must wait for before it can respond: a slow hash, for example, or a ticket."""
    pending = mechanism.pending(challenge)
    if pending is None:
        return
    limit = channel.timeouts.auth
    try:
        async with asyncio.timeout(limit):
            await _work(pending, threads)
    except TimeoutError:
        problem = f"{mechanism.name} took more than {limit:g} s on this side"
    else:
        return
    raise Timeout(problem, stage="AUTH")


async def _work(pending: Pending, threads: CapacityLimiter) -> None:
    if pending.blocking:
        await in_thread(pending.work, threads)
        return
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
