"""When TLS starts, and the `ssl.SSLContext` that follows from the options."""

from __future__ import annotations

import logging
import os
import ssl
import sys
from enum import Enum
from typing import Final, TypeVar

from ..errors import InvalidArgument
from .anchors import load_trust, trusted_by
from .handshake_witness import observe
from .options import TLSOptions
from .settings import configure
from .system import shared_contexts
from .trust import TrustOptions

__all__ = [
    "Security",
    "UnverifiedContext",
    "default_port",
    "legacy_context",
    "make_context",
    "reference_name",
    "resolve_security",
]

_log = logging.getLogger("smtp_async")


class Security(Enum):
    """When TLS starts. Each member names the attacks that remain possible."""

    #: One of the other members, by port and credentials: see `resolve_security`.
    AUTO = "auto"
    #: TLS from the first byte (RFC 8314 section 3.3), always verified. An attacker on the network path can read and
    #: change nothing, but sees the server's address and the amount of data.
    IMPLICIT = "implicit"
    #: TLS after a greeting and EHLO in clear (RFC 3207), required and always verified. An attacker on the network path
    #: sees and may change these first lines and can prevent the connection, but cannot make the client go on in clear.
    STARTTLS = "starttls"
    #: STARTTLS without verification where it is offered, in clear otherwise (RFC 7435). A passive eavesdropper reads
    #: nothing of a TLS connection; an attacker who can change bytes reads and changes everything. Never carries
    #: credentials.
    OPPORTUNISTIC = "opportunistic"
    #: No TLS. Every attacker on the network path reads and changes everything: only for this machine, or a network
    #: that is as safe.
    PLAINTEXT = "plaintext"


def resolve_security(security: Security, port: int, *, credentials: bool) -> Security:
    """Return the member that AUTO stands for; return any other member unchanged.

    Port 465 is implicit TLS (RFC 8314). On every other port STARTTLS is required if credentials are set, and on 587 in
    any case. Without credentials, other ports use STARTTLS if it is offered.

    Args:
        security: the application's choice.
        port: the server's port.
        credentials: whether credentials are set.

    Raises:
        InvalidArgument: OPPORTUNISTIC was asked for by name together with credentials.
    """
    if security is Security.OPPORTUNISTIC and credentials:
        raise InvalidArgument(
            "OPPORTUNISTIC does not verify the server, so it never carries credentials: "
            "use STARTTLS or IMPLICIT"
        )
    if security is not Security.AUTO:
        return security
    if port == 465:
        return Security.IMPLICIT
    return Security.STARTTLS if credentials or port == 587 else Security.OPPORTUNISTIC


def default_port(security: Security, *, lmtp: bool = False) -> int:
    """Return the port where none is given: 465 implicit, 25 without required TLS, 24 for LMTP, else 587."""
    if lmtp:
        return 24
    if security is Security.IMPLICIT:
        return 465
    return 25 if security in (Security.PLAINTEXT, Security.OPPORTUNISTIC) else 587


class UnverifiedContext(ssl.SSLContext):
    """A context whose handshake accepts every certificate, because the chain is judged afterwards.

    Attributes:
        anchors: the trusted certificates in DER.
    """

    anchors: tuple[bytes, ...] = ()


def make_context(options: TLSOptions, *, verify: bool = True) -> ssl.SSLContext:
    """Return the context for `options`; by default TLS 1.2 or newer, certificate and host name verified.

    Reading certificates takes tens of milliseconds: call it in a thread and keep the result. Equal options share one
    context, for which they are read once per process; nothing may be changed in it.

    Args:
        options: what is trusted, or a context of the application.
        verify: False for OPPORTUNISTIC. Where the options want what OpenSSL cannot judge, the context does not verify
            either, and `secure` judges the chain after the handshake.

    Raises:
        CertificateStoreError: a file or folder of trusted certificates cannot be read or holds none.
        ClientIdentityError: OpenSSL does not take the key or the certificate of the identity.
        TLSLibraryError: OpenSSL refuses an option, or the file for keys cannot be written.
    """
    if options.prng_seed:
        # It adds to what the system gives, and counts for nothing.
        ssl.RAND_add(options.prng_seed, 0.0)
    verify = verify and not options.judged_after_handshake
    if _is_shareable(options):
        trust = options.trust
        files = (trust.ca_file, trust.ca_path, *trust.ca_search_paths)
        context = shared_contexts.get(
            lambda: _made(options, verify),
            verify=verify,
            options=options.in_a_context if options.needs_own_context else None,
            files=[path for path in files if path is not None],
        )
    else:
        context = _made(options, verify)
    observe(context)
    _warn_of_key_log(context)
    _warn_of_old_versions(options)
    return context


def _is_shareable(options: TLSOptions) -> bool:
    if options.context is not None or not options.trust.shared_system_store:
        return False
    try:
        hash(options.in_a_context)
    except TypeError:  # a path of another library, for example
        return False
    return True


def _made(options: TLSOptions, verify: bool) -> ssl.SSLContext:
    if not verify:
        return _unverified(options)
    if options.context is not None:
        return options.context
    context = _verifying(options.trust)
    configure(context, options)
    return context


def legacy_context(trust: TrustOptions | None = None) -> ssl.SSLContext:
    """Return a context for servers that know nothing newer than TLS 1.0 and the suites of that time.

    Versions, suites and short keys that are broken are offered, and an attacker can choose the weakest of them: never
    for a server that can do better. Certificate and host name are verified nevertheless. A warning is logged, once per
    process. Reading certificates takes tens of milliseconds.

    Args:
        trust: which certificates are trusted.

    Raises:
        CertificateStoreError: `ca_file` cannot be read or holds no certificate.
    """
    options = TLSOptions(
        trust=trust or TrustOptions(), minimum_version=ssl.TLSVersion.TLSv1, legacy_renegotiation=True
    )
    context = _verifying(options.trust)
    configure(context, options)
    _warn_of_old_versions(options)
    return context


def reference_name(host: str, options: TLSOptions) -> str:
    """Return the name that the certificate must contain: the one the user gave (RFC 9525 section 6.1.1).

    Without the final dot, brackets and scope of the notation, and as A-labels.
    """
    name = options.server_hostname or host
    name = name.removeprefix("[").removesuffix("]").partition("%")[0].removesuffix(".")
    if name.isascii():
        return name
    import idna  # anyio brings it; most names do not need it

    try:
        return idna.encode(name, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError as error:
        raise InvalidArgument(f"{name!r} is not a host name: {error}") from error


def _verifying(trust: TrustOptions) -> ssl.SSLContext:
    context = _new(ssl.SSLContext)
    load_trust(context, trust)
    # The certificate of one server may be trusted without its issuer; the default from Python 3.13 on.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not trust.tolerate_minor:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    if ssl.HAS_NEVER_CHECK_COMMON_NAME:
        # RFC 9525 section 2: only the subject alternative names count.
        context.hostname_checks_common_name = False
    return context


def _unverified(options: TLSOptions) -> UnverifiedContext:
    context = _new(UnverifiedContext)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if options.context is None:
        context.anchors = trusted_by(_verifying(options.trust), options.trust)
        configure(context, options)
    else:
        context.anchors = tuple(options.context.get_ca_certs(binary_form=True))
    return context


_Context = TypeVar("_Context", bound=ssl.SSLContext)


def _new(kind: type[_Context]) -> _Context:
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    key_log = os.environ.get("SSLKEYLOGFILE")
    if key_log and not sys.flags.ignore_environment:
        # As `ssl.create_default_context` does.
        context.keylog_filename = key_log
    return context


#: The key logs that this process has warned of; one warning is enough.
key_logs_warned_of: Final[set[str]] = set()
#: The oldest version that this process has warned of; one warning is enough here, too.
old_versions_warned_of: Final[set[ssl.TLSVersion]] = set()


def _warn_of_old_versions(options: TLSOptions) -> None:
    oldest = options.minimum_version
    if oldest is not None and oldest < ssl.TLSVersion.TLSv1_2 and not old_versions_warned_of:
        old_versions_warned_of.add(oldest)
        _log.warning(
            "TLS versions before 1.2 and cipher suites of their time are allowed: an attacker on the network may be "
            "able to read what is sent, passwords included"
        )


def _warn_of_key_log(context: ssl.SSLContext) -> None:
    path = getattr(context, "keylog_filename", None)
    if path and not key_logs_warned_of:
        key_logs_warned_of.add(path)
        _log.warning(
            "TLS keys are written to %s (SSLKEYLOGFILE or key_log): a reader of that file can decrypt the "
            "connections of this process, passwords included",
            path,
        )
