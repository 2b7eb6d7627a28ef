"""The exchange of challenges and responses between AUTH and its last reply, RFC 4954 section 4."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Final, TypeVar

from ..auth.mechanism import Mechanism, Pending
from ..errors import AuthenticationUnavailable, SMTPError, Timeout
from ..model.reply import Reply
from ..protocol.machine import ClientProtocol, Exchange
from ..sources.worker import in_thread
from .channel import Channel

if TYPE_CHECKING:
    from anyio import CapacityLimiter

__all__ = ["MAX_ROUNDS", "exchange_challenges", "is_cancelled", "refusal_of"]

_T = TypeVar("_T")

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
        AuthenticationUnavailable: the mechanism cannot be used after all, or failed.
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
                await _prepare(channel, mechanism, reply, threads)
            exchange = _auth_response(machine, mechanism, None if initial_waits else reply)
        except SMTPError:
            # "*" cancels the exchange, RFC 4954 section 4.
            await channel.converse(machine.auth_response(None))
            raise
        initial_waits = False
        reply = await channel.converse(exchange)
    return reply


async def _prepare(
    channel: Channel, mechanism: Mechanism, reply: Reply | None, threads: CapacityLimiter
) -> None:
    """Do what the mechanism must wait for before it can respond: a slow hash, for example, or a ticket."""
    pending = _demand(_pending_of(channel.machine, mechanism, reply))
    if pending is None:
        return
    limit = channel.timeouts.auth
    problem: SMTPError
    try:
        async with asyncio.timeout(limit):
            await channel.wait_outside(_work(pending, threads))
    except SMTPError as error:
        problem = refusal_of(mechanism.name, error)
    except TimeoutError:
        problem = Timeout(f"{mechanism.name} took more than {limit:g} s in this process", stage="AUTH")
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        problem = refusal_of(mechanism.name, error)
    except Exception as error:
        problem = refusal_of(mechanism.name, error)
    else:
        return
    raise problem


async def _work(pending: Pending, threads: CapacityLimiter) -> None:
    if pending.blocking:
        await in_thread(pending.work, threads)
        return
    result = pending.work()
    if inspect.isawaitable(result):
        await result


# --- where secrets are ---------------------------------------------------------------------------------------
#
# A response holds the password, and a challenge may repeat it. The functions below return an error in place of raising
# it, so that their frames are in no traceback. They catch every exception, because that of an application's own
# mechanism may have the password in its text. Nothing in them waits, so a CancelledError is such an exception, too.


def _auth_command(machine: ClientProtocol, mechanism: Mechanism) -> tuple[Exchange, bool]:
    """Write AUTH; return also whether the initial response waits for the empty challenge."""
    return _demand(_command_of(machine, mechanism))


def _auth_response(machine: ClientProtocol, mechanism: Mechanism, challenge: Reply | None) -> Exchange:
    """Write the answer to `challenge`; None: the initial response that waited."""
    return _demand(_response_to(machine, mechanism, challenge))


def _command_of(machine: ClientProtocol, mechanism: Mechanism) -> tuple[Exchange, bool] | SMTPError:
    try:
        initial = mechanism.initial_response()
        # Base64 grows by a third; the verb and the name come before it.
        if initial is None or len(initial) * 4 // 3 + len(mechanism.name) + 12 <= _INITIAL_LINE:
            return machine.auth(mechanism.name, initial, mechanism.secrets()), False
        return machine.auth(mechanism.name, None), True
    except (Exception, asyncio.CancelledError) as error:
        return refusal_of(mechanism.name, error)


def _pending_of(
    machine: ClientProtocol, mechanism: Mechanism, reply: Reply | None
) -> Pending | SMTPError | None:
    try:
        return mechanism.pending(None if reply is None else mechanism.challenge(machine.challenge(reply)))
    except (Exception, asyncio.CancelledError) as error:
        return refusal_of(mechanism.name, error)


def _response_to(
    machine: ClientProtocol, mechanism: Mechanism, challenge: Reply | None
) -> Exchange | SMTPError:
    try:
        if challenge is None:
            response = mechanism.initial_response()
        else:
            response = mechanism.respond(mechanism.challenge(machine.challenge(challenge)))
        return machine.auth_response(response, mechanism.secrets())
    except (Exception, asyncio.CancelledError) as error:
        return refusal_of(mechanism.name, error)


def refusal_of(name: str, error: BaseException) -> SMTPError:
    """Return the error for what the mechanism `name` raised, without the frames and causes that led to it.

    Of an exception that is not the library's only the type is told.
    """
    if not isinstance(error, SMTPError):
        return AuthenticationUnavailable(f"{name} failed: {type(error).__name__}", stage="AUTH")
    error.__cause__ = error.__context__ = None
    error.stage = error.stage or "AUTH"
    return error.with_traceback(None)


def is_cancelled() -> bool:
    """Tell whether the current task is being cancelled, in contrast to a CancelledError of something it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _demand(found: _T | SMTPError) -> _T:
    """Return `found`, unless it is an error, which is raised."""
    if isinstance(found, SMTPError):
        raise found
    return found
