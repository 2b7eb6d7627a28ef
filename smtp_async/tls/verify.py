"""The handshake, and the errors that say what was found and what to do when it does not lead to the right server.

`secure` is the one way to TLS: the stream's handshake, the translation of whatever goes wrong, and the
`ConnectionInfo` of what came out. It goes on with an earlier TLS session where there is one.

Without options that OpenSSL does not know, OpenSSL verifies within the handshake; a chain that it refused is judged
once more here, to find all that is wrong. With such options, and for OPPORTUNISTIC, the handshake accepts every
certificate, and `tls/verdict` judges it before the first byte of SMTP. OPPORTUNISTIC goes on whatever the verdict,
unless the application forbade the server.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import (
    HandshakeFailed,
    PlaintextInjected,
    ServerCertificateMissing,
    Timeout,
    TLSError,
    WrongTLSMode,
)
from ..model.reply import printable
from ..protocol.other_services import not_smtp, service_of_port, spoken_by
from .certificate import Certificate
from .context import Security, UnverifiedContext, reference_name
from .handshake_witness import evidence_of, handshake_of, looks_like_tls, offering
from .info import ConnectionInfo, judged_by_openssl
from .options import TLSOptions
from .path_validation import ValidationTarget, unknown_authority, wrong_name, wrong_time
from .problems import ABSOLUTE, ChainProblem, ChainValidation, Fault
from .requirements import check_requirements
from .sessions import KeptSession, SessionCache, SessionKey, shared_sessions
from .verdict import RevocationCheck, Server, error_for, judge, judge_server, judged_here

if TYPE_CHECKING:
    from ..transport.stream import Stream

__all__ = ["explain", "hint_for_silence", "keep_session", "looks_like_tls", "secure"]

# X509_V_ERR_ numbers of OpenSSL (x509_vfy.h); they are part of its stable interface.
_NOT_YET, _EXPIRED = 9, 10
_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN, _NO_ISSUER, _NO_LEAF_SIGNATURE, _NO_PARENT = 18, 19, 20, 21, 2
_WRONG_HOST, _WRONG_ADDRESS = 62, 64
#: Other numbers → the kind of problem.
_PROBLEMS: Final = {
    7: ChainProblem.INVALID_SIGNATURE,
    _NOT_YET: ChainProblem.NOT_YET_VALID,
    _EXPIRED: ChainProblem.EXPIRED,
    23: ChainProblem.REVOKED,
    24: ChainProblem.NOT_AUTHORIZED,
    25: ChainProblem.NOT_AUTHORIZED,
    26: ChainProblem.USAGE,
    28: ChainProblem.USAGE,
    34: ChainProblem.UNKNOWN_EXTENSION,
    47: ChainProblem.NAME_CONSTRAINTS,
    48: ChainProblem.NAME_CONSTRAINTS,
    66: ChainProblem.WEAK,
    67: ChainProblem.WEAK,
    68: ChainProblem.WEAK,
}

#: The reason of an SSLError → what it means, after "server:port …".
_REASONS: Final = {
    "UNSUPPORTED_PROTOCOL": "speaks no TLS version that is safe: 1.2 or newer is required",
    "TLSV1_ALERT_PROTOCOL_VERSION": "speaks no TLS version that is safe: 1.2 or newer is required",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "found no TLS version and cipher suite that both sides know",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": "found what this side offers too weak",
    "TLSV1_UNRECOGNIZED_NAME": "does not know the name that was asked for",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "wants a client certificate",
    "DH_KEY_TOO_SMALL": "uses a Diffie-Hellman key that is too small to be safe",
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": "needs the unsafe renegotiation that RFC 5746 replaced",
}
#: OpenSSL's reasons for "this is no TLS record".
_NO_TLS: Final = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "UNKNOWN_PROTOCOL",
        "RECORD_LAYER_FAILURE",
        "PACKET_LENGTH_TOO_LONG",
    }
)


async def secure(
    stream: Stream,
    context: ssl.SSLContext,
    *,
    host: str,
    port: int | None,
    security: Security,
    options: TLSOptions,
    sessions: SessionCache | None = None,
    revocation: RevocationCheck | None = None,
    deadline: float | None = None,
    tell: Callable[[str], None] | None = None,
) -> ConnectionInfo:
    """Do the TLS handshake on `stream`; on failure it is aborted.

    Args:
        stream: freshly dialled (IMPLICIT), or just behind the 220 to STARTTLS; the caller is its only reader.
        context: from `make_context`.
        host: the server as the user named it.
        port: its port, for the words of errors; None on a Unix socket.
        security: how the connection came to TLS.
        options: the name to verify, if it is not the host, and what else is demanded.
        sessions: where one to go on with may be; None begins anew.
        revocation: finds out whether certificates were revoked; None does not ask.
        deadline: loop time at which the handshake must be done.
        tell: called with a line for each message of the handshake; it must not raise.

    Raises:
        PlaintextInjected: bytes came behind the 220 to STARTTLS.
        WrongTLSMode: the server of an implicit-TLS connection spoke plaintext.
        CertificateRejected: the certificate is for another name, out of date, revoked or forbidden.
        ChainNotFound: its issuer is not trusted.
        ChainInvalid: its chain is broken in another way.
        ServerCertificateMissing: there was none, although one must be verified.
        HandshakeFailed: anything else in the handshake.
        ConnectionLost: the connection ended before the handshake began.
        Timeout: the deadline passed; its stage is `"tls"`.
    """
    attempt = _Attempt(reference_name(host, options), context, options, security, revocation, deadline)
    key = SessionKey.of(host, port, attempt.name, across_hosts=options.resume_across_hosts)
    cache = _of_all(sessions, context, options) if sessions is not None else SessionCache()
    try:
        earlier = await _shake_hands(stream, context, key, cache, deadline, tell)
    except PlaintextInjected:
        if security is not Security.IMPLICIT:
            raise
        # No reply came before these bytes: they are the greeting of a plaintext server.
        raise _plaintext(_where(host, port), security, stream.early) from None
    except HandshakeFailed as failed:
        if (cause := failed.__cause__) is None:
            raise
        found = await _judge_refused(cause, _where(host, port), attempt)
        raise explain(
            cause, host=host, port=port, security=security, name=attempt.name, validation=found
        ) from cause
    try:
        return await _authenticated(stream, host, port, earlier, attempt)
    except BaseException:
        stream.abort()
        raise


class _Attempt(NamedTuple):
    """What is asked of a handshake; see `secure`."""

    name: str
    context: ssl.SSLContext
    options: TLSOptions
    security: Security
    revocation: RevocationCheck | None
    deadline: float | None


async def _judge_refused(error: BaseException, where: str, attempt: _Attempt) -> ChainValidation | None:
    """Return all that is wrong with a chain that OpenSSL refused; None if it refused something else."""
    chain = evidence_of(error).chain
    if not isinstance(error, ssl.SSLCertVerificationError) or not chain:
        return None
    return await asyncio.to_thread(
        judge, Server(where, attempt.name, chain), attempt.context, attempt.options
    )


async def _authenticated(
    stream: Stream, host: str, port: int | None, earlier: ConnectionInfo | None, attempt: _Attempt
) -> ConnectionInfo:
    """Return what was negotiated, with the verdict on the server.

    Args:
        stream: behind the handshake.
        host, port: the server as the user named it.
        earlier: the connection whose session the handshake went on with, None if it began anew.
        attempt: what was asked for.

    Raises:
        TLSError: the server is refused.
        Timeout: the deadline passed.
    """
    where = _where(host, port)
    tls = stream.ssl_object
    assert tls is not None
    if earlier is not None and earlier.validation is not None:
        found, verified = earlier.validation, earlier.verified
    else:
        found = judged_by_openssl(tls)
        verified = found.verified
    verdict = found
    if judged_here(attempt.context, attempt.options):
        chain = handshake_of(tls).chain if earlier is None else earlier.chain
        # Behind a proxy the peer is the proxy, whose private address says nothing about the server.
        peer = None if stream.via else stream.peer
        server = Server(where, attempt.name, chain, peer, earlier is not None)
        verdict = await _judged(server, found, attempt)
        if verdict is not found and isinstance(attempt.context, UnverifiedContext):
            verified = verdict.verified
    info = ConnectionInfo.of(
        stream, host=host, port=port, resumed=earlier, validation=verdict, verified=verified
    )
    counted = verdict.counted
    if counted and (attempt.security is not Security.OPPORTUNISTIC or counted & ABSOLUTE):
        raise error_for(verdict, missing=not info.chain)
    _demand_certificate(info, where)
    _demand_what_was_asked_for(info, attempt.options, where)
    return info


async def _judged(server: Server, found: ChainValidation, attempt: _Attempt) -> ChainValidation:
    try:
        async with asyncio.timeout_at(attempt.deadline):
            return await judge_server(server, attempt.context, attempt.options, found, attempt.revocation)
    except TimeoutError as late:
        text = f"{server.where} was not verified within the time of the handshake"
        raise Timeout(text, stage="tls") from late


async def _shake_hands(
    stream: Stream,
    context: ssl.SSLContext,
    key: SessionKey,
    sessions: SessionCache,
    deadline: float | None,
    tell: Callable[[str], None] | None,
) -> ConnectionInfo | None:
    """Return the connection whose session the handshake goes on with, None if it began anew."""
    kept = sessions.find(key, context)
    try:
        with offering(context, key.name, kept.session if kept is not None else None, tell):
            await stream.start_tls(context, key.name, deadline=deadline)
    except HandshakeFailed:
        if kept is not None:
            sessions.refused(key, kept)
        raise
    earlier = _gone_on_with(stream, kept)
    if kept is not None and earlier is None:
        sessions.refused(key, kept)
    return earlier


def keep_session(sessions: SessionCache, stream: Stream, info: ConnectionInfo, options: TLSOptions) -> None:
    """Keep the TLS session of `stream` for later connections; call it when the first reply within it was read.

    Args:
        sessions: where.
        stream: the connection.
        info: what `secure` returned for it.
        options: as they were there.
    """
    if stream.ssl_object is not None:
        name = reference_name(info.host, options)
        key = SessionKey.of(info.host, info.port, name, across_hosts=options.resume_across_hosts)
        _of_all(sessions, stream.ssl_object.context, options).keep(key, stream.ssl_object, info)


def _of_all(sessions: SessionCache, context: ssl.SSLContext, options: TLSOptions) -> SessionCache:
    return shared_sessions(context) if options.resume_across_hosts else sessions


def _gone_on_with(stream: Stream, kept: KeptSession | None) -> ConnectionInfo | None:
    """Return what was negotiated when the session began that this connection goes on with, None if it is a new one."""
    tls = stream.ssl_object
    return kept.info if kept is not None and tls is not None and tls.session_reused else None


def _demand_certificate(info: ConnectionInfo, where: str) -> None:
    """Refuse a server that proved nothing: OpenSSL verifies no certificate where the suite wants none."""
    if info.verified and not info.server_authenticated:
        raise ServerCertificateMissing(
            f"{where} showed no certificate: the suite {info.suite}, which the "
            "application's SSLContext allows, does without, and anybody could have answered"
        )


def _demand_what_was_asked_for(info: ConnectionInfo, options: TLSOptions, where: str) -> None:
    if (problem := check_requirements(info, options)) is not None:
        raise HandshakeFailed(f"{where} {problem}")


# --- what went wrong --------------------------------------------------------------------------------------


def explain(
    error: BaseException,
    *,
    host: str,
    port: int | None,
    security: Security,
    name: str | None = None,
    chain: Sequence[bytes] | None = None,
    first_bytes: bytes | None = None,
    validation: ChainValidation | None = None,
    now: datetime | None = None,
) -> TLSError:
    """Return the error of ours for what a TLS handshake failed with.

    Args:
        error: the `ssl.SSLError` or `OSError`.
        host: the server as the user named it.
        port: its port; None on a Unix socket.
        security: how the connection came to TLS.
        name: the name that was verified, if it is not the host.
        chain: what the server showed, in DER, its own certificate first; None takes what `error` knows.
        first_bytes: what it sent first if that was no TLS; None takes what `error` knows.
        validation: what was found in its chain, after OpenSSL refused it.
        now: the time to compare with.
    """
    evidence = evidence_of(error)
    where = _where(host, port)
    said = evidence.first_bytes if first_bytes is None else first_bytes
    # Only errors that OpenSSL made have a reason.
    reason = getattr(error, "reason", None)
    if isinstance(error, ssl.SSLCertVerificationError):
        shown = tuple(evidence.chain if chain is None else chain)
        if validation is not None and validation.counted:
            explained = error_for(validation)
        else:
            explained = _refused_by_openssl(
                error, Server(where, name or host, shown), now or datetime.now(UTC)
            )
    elif said or reason in _NO_TLS:
        explained = _plaintext(where, security, said)
    elif reason in _REASONS:
        explained = HandshakeFailed(f"{where} {_REASONS[reason]}")
    elif isinstance(error, (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        explained = _cut_off(where)
    else:
        explained = HandshakeFailed(f"the TLS handshake with {where} failed: {error}")
    explained.__cause__ = error
    return explained


def hint_for_silence(port: int | None, security: Security) -> str:
    """Return what may be wrong when a server sends no greeting, for the end of an error's sentence.

    A server that expects TLS from the first byte waits for the client, and the client for its greeting. So does a web
    server, under TLS too.
    """
    service = service_of_port(port)
    if service is not None:
        return f"port {port} is usually that of {service}, which speaks HTTP: mail is sent to port 587 or 465"
    if security is Security.IMPLICIT:
        return ""
    if port == 465:
        return "port 465 expects TLS from the first byte: use security=Security.IMPLICIT"
    return (
        "a server that expects TLS from the first byte waits in silence too: try security=Security.IMPLICIT"
    )


def _where(host: str, port: int | None) -> str:
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _plaintext(where: str, security: Security, said: bytes) -> HandshakeFailed:
    line = printable(said.split(b"\r\n", 1)[0].decode("utf-8", "backslashreplace"), 120)
    quoted = f'plaintext ("{line}")' if line else "something that is no TLS"
    if security is Security.IMPLICIT:
        protocol = spoken_by(said)
        if protocol is not None:
            return HandshakeFailed(f"{not_smtp(where, protocol)}; it answered with {quoted}")
        return WrongTLSMode(
            f"{where} answered with {quoted} where TLS was expected from the first byte: "
            "use security=Security.STARTTLS, or the server's port for implicit TLS (usually 465)"
        )
    return HandshakeFailed(
        f"{where} sent {quoted} in place of the TLS handshake that it agreed to: "
        "the server is broken, or somebody injects bytes"
    )


def _cut_off(where: str) -> HandshakeFailed:
    """The server said nothing: not why, and not that it speaks something else."""
    error = HandshakeFailed(
        f"{where} closed the connection during the TLS handshake: it may be restarting, or refuse this client"
    )
    error.cut_off = True
    return error


# --- certificates that OpenSSL refused ----------------------------------------------------------------------


def _refused_by_openssl(error: ssl.SSLCertVerificationError, server: Server, now: datetime) -> TLSError:
    """Return the error where only OpenSSL has found something."""
    path = tuple(found for der in server.chain if (found := Certificate.of(der)) is not None)
    faults = tuple(_faults_named(error, ValidationTarget(server.where, server.name, now, 0, False), path))
    return error_for(
        ChainValidation(
            faults=faults, log=(f"OpenSSL: {error.verify_message}",), complete=False, trusted=False
        )
    )


def _faults_named(
    error: ssl.SSLCertVerificationError, target: ValidationTarget, path: tuple[Certificate, ...]
) -> Iterator[Fault]:
    code = error.verify_code
    if code in (_WRONG_HOST, _WRONG_ADDRESS):
        yield wrong_name(target.where, target.name, path)
    elif code in (_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN, _NO_ISSUER, _NO_LEAF_SIGNATURE, _NO_PARENT):
        yield unknown_authority(target.where, path[:1] if code == _SELF_SIGNED else path)
    elif code in (_NOT_YET, _EXPIRED) and (found := [*wrong_time(target, path)]):
        yield from found
    else:
        issued = (
            f" (issued to {path[0].subject or 'a holder without a name'} by {path[0].issuer})" if path else ""
        )
        text = f"the certificate of {target.where} does not verify: {error.verify_message}{issued}"
        yield Fault(_PROBLEMS.get(code, ChainProblem.BAD_DATA), text)
