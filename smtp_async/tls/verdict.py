"""The verdict on a server after the handshake: the chain, its revocation, the application's policy, in this order.

All of it happens before the first byte of SMTP, within the time of the handshake. A resumed session shows no
certificate: the chain of the connection that began it is judged anew.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from ..errors import (
    CertificateRejected,
    ChainInvalid,
    ChainNotFound,
    ServerCertificateMissing,
    TLSError,
)
from .anchors import anchors_of
from .chain_validation import validate_chain
from .context import UnverifiedContext
from .problems import ABSOLUTE, ChainProblem, ChainValidation, Fault
from .revocation_options import RevocationOptions, RevocationState, RevocationStatus
from .revocation_proofs import demands_staple
from .trust import ServerAuthentication

if TYPE_CHECKING:
    from ..transport.stream import Endpoint
    from .certificate import Certificate
    from .options import TLSOptions
    from .trust import AuthenticateServer

__all__ = ["RevocationCheck", "Server", "error_for", "judge", "judge_server", "judged_here"]

_log = logging.getLogger("smtp_async")

_REJECTED: Final = (
    ABSOLUTE | ChainProblem.REVOKED | ChainProblem.TIME | ChainProblem.HOST_NAME | ChainProblem.USAGE
)
_UNKNOWN_AUTHORITY: Final = ChainProblem.UNKNOWN_AUTHORITY_REVOCATION
#: A chain that took fewer seconds than this is judged without a thread the next time.
_LITTLE: Final = 0.001
#: Such chains of each context, oldest first, and how many are remembered. Another context may trust more, and what it
#: trusts may not have been read yet. A dict as a set that keeps its order.
_cheap: Final[WeakKeyDictionary[ssl.SSLContext, dict[tuple[bytes, ...], None]]] = WeakKeyDictionary()
_MOST_CHEAP: Final = 64


class Server(NamedTuple):
    """The server that is judged.

    Attributes:
        where: host and port, for sentences.
        name: the name that its certificate must be for.
        chain: its certificates in DER, its own first.
        peer: the address that it was reached at; None behind a proxy.
        resumed: is the chain that of an earlier connection, whose session was resumed?
    """

    where: str
    name: str
    chain: tuple[bytes, ...]
    peer: Endpoint = None
    resumed: bool = False


class RevocationCheck(Protocol):
    """Finds out whether the certificates of a path were revoked: a `RevocationChecker`, one for a client."""

    @property
    def options(self) -> RevocationOptions: ...

    async def check(
        self, path: Sequence[Certificate], *, peer_address: Endpoint, now: datetime
    ) -> Sequence[RevocationStatus]: ...


def judged_here(context: ssl.SSLContext, options: TLSOptions) -> bool:
    """Tell whether `judge_server` has something to do: otherwise what is known from the handshake is the verdict."""
    return isinstance(context, UnverifiedContext) or options.authenticate_server is not None


async def judge_server(
    server: Server,
    context: ssl.SSLContext,
    options: TLSOptions,
    found: ChainValidation,
    revocation: RevocationCheck | None = None,
) -> ChainValidation:
    """Return the verdict on a server after the handshake.

    Args:
        server: the server.
        context: what the handshake was done with.
        options: the options of the application.
        found: what is known without looking at the chain here: OpenSSL's verdict, or that of the connection whose
            session was resumed.
        revocation: finds out whether certificates were revoked; None does not ask.

    Raises:
        CertificateRejected: `authenticate_server` raised, and the exception is chained; or it answered with something
            else than True, False and None.
    """
    if not judged_here(context, options):
        return found
    unverified = isinstance(context, UnverifiedContext)
    policy = options.authenticate_server
    if not options.trust.validate:
        _log.warning(
            "the certificate of %s is not verified, because of TrustOptions(validate=False): an attacker on the "
            "network can be the server",
            server.where,
        )
    if unverified and not server.chain and options.psk is not None and not options.trust.pins:
        verdict = ChainValidation(log=("the server proved that it knows the pre-shared key",))
    else:
        verdict = await _judged(server, context, options)
    if revocation is not None and verdict.judged and verdict.trusted and not verdict.problems & ABSOLUTE:
        verdict = await _with_revocation(verdict, server, revocation)
    overlooked = not unverified and found.accepted
    if overlooked and found.judged:
        # OpenSSL has verified what the application's own context says.
        verdict = verdict.excusing(verdict.problems)
    if policy is not None and not verdict.problems & ABSOLUTE:
        verdict = await _ask(policy, server, verdict)
    # A context without verification takes every server, except one that the policy has refused.
    return verdict.excusing(verdict.problems) if overlooked else verdict


async def _judged(server: Server, context: ssl.SSLContext, options: TLSOptions) -> ChainValidation:
    """Judge a chain: in a thread, unless it is one that has turned out to cost little."""
    cheap = _cheap.setdefault(context, {})
    if server.chain in cheap:
        return judge(server, context, options)
    verdict, spent = await asyncio.to_thread(_timed, server, context, options)
    if spent < _LITTLE:
        while len(cheap) >= _MOST_CHEAP:
            cheap.pop(next(iter(cheap)), None)
        cheap[server.chain] = None
    return verdict


def _timed(server: Server, context: ssl.SSLContext, options: TLSOptions) -> tuple[ChainValidation, float]:
    began = time.thread_time()
    return judge(server, context, options), time.thread_time() - began


def judge(
    server: Server, context: ssl.SSLContext, options: TLSOptions, *, now: datetime | None = None
) -> ChainValidation:
    """Return what is wrong with the certificates of a server. It takes a millisecond: call it in a thread."""
    ders = None
    if isinstance(context, UnverifiedContext):
        ders = context.anchors
    elif options.context is not None:
        ders = tuple(context.get_ca_certs(binary_form=True))
    return validate_chain(
        server.chain,
        server.name,
        trust=options.trust,
        anchors=anchors_of(context, ders, options.trust),
        where=server.where,
        level=context.security_level,
        now=now,
    )


async def _with_revocation(
    verdict: ChainValidation, server: Server, revocation: RevocationCheck
) -> ChainValidation:
    path = verdict.path
    found = await revocation.check(path, peer_address=server.peer, now=datetime.now(UTC))
    hard = revocation.options.hard_fail
    faults = []
    for place, status in enumerate(found):
        if status.state is RevocationState.REVOKED:
            text = f"{server.where} shows a certificate that was revoked: {status.text}"
            faults.append(Fault(ChainProblem.REVOKED, text, place))
        elif status.state is RevocationState.UNKNOWN and (hard or (place == 0 and demands_staple(path[0]))):
            problem = _UNKNOWN_AUTHORITY if place else ChainProblem.UNKNOWN_REVOCATION
            faults.append(Fault(problem, f"{server.where} is not trusted, because {status.text}", place))
    told = (status.text for status in found)
    return replace(verdict.plus(*faults).noting(*told), revocation=tuple(found))


async def _ask(policy: AuthenticateServer, server: Server, verdict: ChainValidation) -> ChainValidation:
    chain = verdict.path
    question = ServerAuthentication(
        host=server.name,
        chain=chain,
        subject=chain[0].subject if chain else "",
        issuer=chain[0].issuer if chain else "",
        problems=verdict.counted,
        status=verdict.status,
        validation=verdict,
        session_resumed=server.resumed,
    )
    answer = await _answer(policy, question, server.where)
    if answer is None:
        return verdict.noting("authenticate_server has no opinion")
    if not answer:
        refusal = f"authenticate_server refused the certificate of {server.where}"
        return verdict.plus(Fault(ChainProblem.REFUSED, refusal)).noting(refusal)
    return verdict.excusing(verdict.problems).noting("authenticate_server accepted the certificate")


async def _answer(policy: AuthenticateServer, question: ServerAuthentication, where: str) -> bool | None:
    failed = f"authenticate_server failed for {where}, and so the connection ends"
    try:
        answer: object = policy(question)
        if inspect.isawaitable(answer):
            answer = await answer
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # What the policy waited for was cancelled, not this connection.
        raise CertificateRejected(f"{failed}: it raised CancelledError, and nobody cancelled it") from error
    except Exception as error:
        raise CertificateRejected(f"{failed}: {type(error).__name__}: {error}") from error
    if answer is None or isinstance(answer, bool):
        return answer
    raise CertificateRejected(f"{failed}: it returned {type(answer).__name__}, not True, False or None")


def error_for(verdict: ChainValidation, *, missing: bool = False) -> TLSError:
    """Return the error for a verdict with problems that count; its class is that of the gravest.

    Args:
        verdict: what is wrong.
        missing: did the server show no certificate at all?
    """
    gravest = next((fault.problem for fault in verdict.faults if fault.problem & verdict.counted), None)
    if missing:
        kind: type[TLSError] = ServerCertificateMissing
    elif gravest is not None and gravest & _REJECTED:
        kind = CertificateRejected
    elif gravest is not None and gravest & ChainProblem.UNKNOWN_AUTHORITY:
        kind = ChainNotFound
    else:
        kind = ChainInvalid
    error = kind(verdict.status)
    error.validation = verdict
    return error
