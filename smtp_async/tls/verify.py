"""Is this the right server? And when it is not, an error that says what was found and what to do.

`secure` is the one way to TLS: the stream's handshake, the translation of whatever goes wrong, and the
`ConnectionInfo` of what came out. It goes on with an earlier TLS session where there is one. OpenSSL verifies
within the handshake for IMPLICIT and STARTTLS. OPPORTUNISTIC lets every certificate pass; `judge` tells
afterwards whether it would have been believed.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ..errors import (
    CertificateRejected,
    ChainInvalid,
    ChainNotFound,
    HandshakeFailed,
    PlaintextInjected,
    ServerCertificateMissing,
    TLSError,
    WrongTLSMode,
)
from ..model.reply import printable
from .certificate import Certificate
from .context import OpportunisticContext, Security, reference_name
from .demands import check_demands
from .handshake_witness import evidence_of, handshake_of, looks_like_tls, offering
from .info import ConnectionInfo
from .options import TLSOptions
from .sessions import KeptSession, SessionCache, SessionKey, shared_sessions

if TYPE_CHECKING:
    from cryptography import x509

    from ..transport.stream import Stream

__all__ = ["explain", "hint_for_silence", "judge", "keep_session", "looks_like_tls", "secure"]

# X509_V_ERR_ numbers of OpenSSL (x509_vfy.h); they are part of its stable interface.
_NOT_YET, _EXPIRED = 9, 10
_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN, _NO_ISSUER, _NO_LEAF_SIGNATURE, _NO_PARENT = 18, 19, 20, 21, 2
_REVOKED, _WRONG_PURPOSE, _REJECTED = 23, 26, 28
_WRONG_HOST, _WRONG_ADDRESS = 62, 64

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
#: So many names of a certificate are told.
_NAMES_SHOWN: Final = 8


async def secure(
    stream: Stream,
    context: ssl.SSLContext,
    *,
    host: str,
    port: int | None,
    security: Security,
    options: TLSOptions,
    sessions: SessionCache | None = None,
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
        deadline: loop time at which the handshake must be done.
        tell: called with a line for each message of the handshake; it must not raise.

    Raises:
        PlaintextInjected: bytes came behind the 220 to STARTTLS.
        WrongTLSMode: the server of an implicit-TLS connection spoke plaintext.
        CertificateRejected: the certificate is for another name or out of date.
        ChainNotFound: its issuer is not trusted.
        ChainInvalid: its chain is broken in another way.
        ServerCertificateMissing: there was none, although one must be verified.
        HandshakeFailed: anything else in the handshake.
        ConnectionLost: the connection ended before the handshake began.
        Timeout: the deadline passed; its stage is `"tls"`.
    """
    name = reference_name(host, options)
    key = SessionKey.of(host, port, name, across_hosts=options.resume_across_hosts)
    cache = _of_all(sessions, context, options) if sessions is not None else SessionCache()
    try:
        earlier = await _shake_hands(stream, context, key, cache, deadline, tell)
        verified, problem = await _opportunistic_verdict(stream, context, name, earlier)
    except PlaintextInjected:
        if security is not Security.IMPLICIT:
            raise
        # No reply came before these bytes: they are the greeting of a plaintext server.
        raise _plaintext(_where(host, port), security, stream.early) from None
    except HandshakeFailed as failed:
        if (cause := failed.__cause__) is None:
            raise
        raise explain(cause, host=host, port=port, security=security, name=name) from cause
    info = ConnectionInfo.of(
        stream, host=host, port=port, verified=verified, verification_error=problem, resumed=earlier
    )
    _demand_certificate(stream, info)
    _demand_what_was_asked_for(stream, info, options)
    return info


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


def _demand_certificate(stream: Stream, info: ConnectionInfo) -> None:
    """Refuse a server that proved nothing: OpenSSL verifies no certificate where the suite wants none."""
    if info.verified and not info.server_authenticated:
        stream.abort()
        raise ServerCertificateMissing(
            f"{_where(info.host, info.port)} showed no certificate: the suite {info.suite}, which the "
            "application's SSLContext allows, does without, and anybody could have answered"
        )


def _demand_what_was_asked_for(stream: Stream, info: ConnectionInfo, options: TLSOptions) -> None:
    if (problem := check_demands(info, options)) is not None:
        stream.abort()
        raise HandshakeFailed(f"{_where(info.host, info.port)} {problem}")


async def _opportunistic_verdict(
    stream: Stream, context: ssl.SSLContext, name: str, earlier: ConnectionInfo | None
) -> tuple[bool | None, str | None]:
    if not isinstance(context, OpportunisticContext) or stream.ssl_object is None:
        return None, None
    if earlier is not None:
        return earlier.verified, earlier.verification_error
    try:
        chain = handshake_of(stream.ssl_object).chain
        problem = await asyncio.to_thread(judge, chain, name, context.anchors)
    except BaseException:
        stream.abort()
        raise
    return problem is None, problem


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
        now: the time to compare with.
    """
    evidence = evidence_of(error)
    where = _where(host, port)
    said = evidence.first_bytes if first_bytes is None else first_bytes
    # Only errors that OpenSSL made have a reason.
    reason = getattr(error, "reason", None)
    if isinstance(error, ssl.SSLCertVerificationError):
        certificates = _readable(evidence.chain if chain is None else chain)
        explained = _refused(error, where, name or host, certificates, now or datetime.now(UTC))
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

    A server that expects TLS from the first byte waits for the client, and the client for its greeting.
    """
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


# --- certificates -----------------------------------------------------------------------------------------


def _readable(chain: Sequence[bytes]) -> list[Certificate]:
    return [found for der in chain if (found := Certificate.of(der)) is not None]


def _refused(
    error: ssl.SSLCertVerificationError,
    where: str,
    name: str,
    certificates: list[Certificate],
    now: datetime,
) -> TLSError:
    code = error.verify_code
    if code in (_WRONG_HOST, _WRONG_ADDRESS):
        return CertificateRejected(_wrong_name(where, name, certificates))
    if code in (_NOT_YET, _EXPIRED):
        return CertificateRejected(_wrong_time(where, certificates, now, expired=code == _EXPIRED))
    if code in (_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN, _NO_ISSUER, _NO_LEAF_SIGNATURE, _NO_PARENT):
        return ChainNotFound(_unknown_issuer(where, certificates, code))
    kind = CertificateRejected if code in (_REVOKED, _WRONG_PURPOSE, _REJECTED) else ChainInvalid
    return kind(f"the certificate of {where} does not verify: {error.verify_message}{_issued(certificates)}")


def _wrong_name(where: str, name: str, certificates: list[Certificate]) -> str:
    if not certificates:
        return f"the certificate of {where} is not for {name}; what it contains could not be seen"
    names = certificates[0].names
    if not names:
        return (
            f"the certificate of {where} names no host, so it is not for {name} "
            f"(its subject, {certificates[0].subject or 'empty'}, does not count)"
        )
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return (
        f"the certificate of {where} is for {', '.join(names[:_NAMES_SHOWN])}{more}, not for {name}: "
        "connect to a name that it contains, or set TLSOptions.server_hostname"
    )


def _wrong_time(where: str, certificates: list[Certificate], now: datetime, *, expired: bool) -> str:
    for place, one in enumerate(certificates):
        whose = f"the certificate of {where}" if place == 0 else f"the issuer certificate {one.subject}"
        if expired and one.not_after < now:
            return f"{whose} expired on {one.not_after:%Y-%m-%d %H:%M} UTC, {_ago(now - one.not_after)}"
        if not expired and one.not_before > now:
            return (
                f"{whose} is not valid before {one.not_before:%Y-%m-%d %H:%M} UTC; "
                f"the clock of this machine says {now:%Y-%m-%d %H:%M}"
            )
    return f"a certificate in the chain of {where} {'has expired' if expired else 'is not valid yet'}"


def _ago(span: timedelta) -> str:
    if span.days:
        return f"{span.days} day{'s' if span.days > 1 else ''} ago"
    return "less than a day ago"


def _unknown_issuer(where: str, certificates: list[Certificate], code: int) -> str:
    subject = f" ({certificates[0].subject})" if certificates else ""
    if code == _SELF_SIGNED:
        return (
            f"the certificate of {where} is self-signed{subject} and not trusted: "
            "if it is the right one, give it as TrustOptions(ca_file=…)"
        )
    if code == _SELF_SIGNED_IN_CHAIN:
        root = f" with {certificates[-1].issuer}" if certificates else ""
        return (
            f"the certificate chain of {where} ends{root}, which is not trusted: "
            "if it is the right authority, give its certificate as TrustOptions(ca_file=…)"
        )
    issuer = f" {certificates[-1].issuer}" if certificates else ""
    return (
        f"the issuer{issuer} of the certificate of {where} is not known: the server may have left out an "
        "intermediate certificate, or give the authority's certificate as TrustOptions(ca_file=…)"
    )


def _issued(certificates: list[Certificate]) -> str:
    return (
        f" (issued to {certificates[0].subject or 'nobody'} by {certificates[0].issuer})"
        if certificates
        else ""
    )


# --- after an unverified handshake ------------------------------------------------------------------------


def judge(
    chain: Sequence[bytes], name: str, anchors: tuple[bytes, ...], *, now: datetime | None = None
) -> str | None:
    """Return why a chain would not have been believed, in words; None if it would.

    Checked are signatures up to a trusted certificate, dates, the name, that issuers are authorities and that
    the server's certificate is one for servers: what OpenSSL checks by default. Takes milliseconds: call it in
    a thread.

    Args:
        chain: certificates in DER, the server's own first.
        name: the host name or address that it must be for.
        anchors: the trusted certificates in DER.
        now: the time to compare with.
    """
    from cryptography.x509 import verification

    now = now or datetime.now(UTC)
    certificates = _readable(chain)
    if len(certificates) < len(chain) or not certificates:
        return "the server's certificates cannot be read" if chain else "the server showed no certificate"
    if not certificates[0].not_before <= now <= certificates[0].not_after:
        return _wrong_time(name, certificates, now, expired=certificates[0].not_after < now)
    store = _store(anchors)
    if store is None:
        return "there are no trusted certificates to compare with"
    leaf, *others = [one.x509 for one in certificates]
    try:
        verifier = _policy().store(store).time(now).build_server_verifier(subject_of(name))
        verifier.verify(leaf, others)
    except (verification.VerificationError, ValueError) as error:
        # The library appends the certificate as Python shows it.
        return in_words(printable(str(error).partition(" (encountered")[0]), name, certificates)
    return None


def in_words(reason: str, name: str, certificates: list[Certificate]) -> str:
    """Return what the verifier means, in the words of a refused handshake; what is not known stays as it is."""
    if reason.endswith("no matching subjectAltName"):
        return _wrong_name(name, name, certificates)
    ends_in_itself = certificates[-1].self_issued
    # An authority that issued itself is followed in a circle until the chain is too long.
    if reason.endswith("no interior errors") or (ends_in_itself and reason.endswith("max depth")):
        if len(certificates) == 1 and ends_in_itself:
            return _unknown_issuer(name, certificates, _SELF_SIGNED)
        return _unknown_issuer(name, certificates, _SELF_SIGNED_IN_CHAIN if ends_in_itself else _NO_ISSUER)
    return f"the certificate does not verify for {name}: {reason}{_issued(certificates)}"


def _policy() -> x509.verification.PolicyBuilder:
    """Return OpenSSL's rules: those of the web PKI, the library's default, refuse many private authorities."""
    from cryptography import x509
    from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder

    server = ExtensionPolicy.permit_all()
    server = server.require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    server = server.may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _demand_server)
    issuer = ExtensionPolicy.permit_all()
    issuer = issuer.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    return PolicyBuilder().extension_policies(ca_policy=issuer, ee_policy=server)


def _demand_server(_policy: object, _certificate: object, usage: x509.ExtendedKeyUsage | None) -> None:
    from cryptography.x509.oid import ExtendedKeyUsageOID as Oid

    if usage is not None and not {Oid.SERVER_AUTH, Oid.ANY_EXTENDED_KEY_USAGE} & set(usage):
        raise ValueError("it is not for servers")


def subject_of(name: str) -> x509.DNSName | x509.IPAddress:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@functools.lru_cache(maxsize=4)
def _store(anchors: tuple[bytes, ...]) -> x509.verification.Store | None:
    from cryptography import x509
    from cryptography.x509 import verification

    trusted = [x509.load_der_x509_certificate(der) for der in anchors]
    return verification.Store(trusted) if trusted else None
