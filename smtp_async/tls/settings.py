"""TLS options as settings of an `ssl.SSLContext`."""

from __future__ import annotations

import os
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from ..errors import TLSLibraryError
from .offers import (
    can_choose_groups,
    can_choose_schemes,
    can_choose_tls13_suites,
    openssl_group,
    read_ciphers,
)
from .options import TLSOptions
from .suites import find_group, find_suite

__all__ = ["configure"]

_TLS12: Final = ssl.TLSVersion.TLSv1_2
#: Flags of OpenSSL 3 that have no name in Python, or only from 3.12 on.
_NO_EXTENDED_MASTER_SECRET: Final = 0x1
_LEGACY_SERVER_CONNECT: Final = 0x4
#: Suites for pre-shared keys that Python's choice does not contain, the best first.
_PSK_CIPHERS: Final = "kECDHEPSK+CHACHA20:kDHEPSK+AESGCM:kDHEPSK+CHACHA20:PSK+AESGCM"


def configure(context: ssl.SSLContext, options: TLSOptions) -> None:
    """Apply `options`, but not those of trust, to `context`, which must not be in use.

    Raises:
        ClientIdentityError: OpenSSL does not accept the key or the certificate of the identity.
        TLSLibraryError: OpenSSL refuses an option, or the file for keys cannot be written.
    """
    _set_versions(context, options)
    try:
        _set_suites(context, options)
        _set_groups(context, options)
        if options.signature_algorithms and can_choose_schemes():
            _newer(context).set_server_sigalgs(":".join(options.signature_algorithms))
    except (ssl.SSLError, ValueError) as error:
        raise TLSLibraryError(f"OpenSSL cannot offer what the TLS options name: {error}") from error
    _set_flags(context, options)
    if options.key_log is not None:
        _log_keys(context, options.key_log)
    if options.identity is not None:
        chain = (*options.identity.chain, *options.extra_chain) if options.include_chain else ()
        replace(options.identity, chain=chain, check_key=False).load_into(context)
    if options.psk is not None:
        shared = (options.psk.identity, options.psk.key)
        _newer(context).set_psk_client_callback(lambda hint: shared)


def _newer(context: ssl.SSLContext) -> Any:
    """Return `context` with the methods that only newer versions of Python have."""
    return context


def _oldest(options: TLSOptions) -> ssl.TLSVersion:
    if read_ciphers(options.ciphers).only_tls13:
        return ssl.TLSVersion.TLSv1_3
    return _TLS12 if options.minimum_version is None else options.minimum_version


def _set_versions(context: ssl.SSLContext, options: TLSOptions) -> None:
    oldest, newest = _oldest(options), options.maximum_version
    if min(oldest, newest or oldest) < _TLS12:
        # Python warns of each use of these versions; an application that names one has chosen it.
        warnings.filterwarnings("ignore", r"ssl\.TLSVersion\.TLSv1(_1)? is deprecated", DeprecationWarning)
    context.minimum_version = oldest
    if newest is not None:
        context.maximum_version = newest


# --- suites --------------------------------------------------------------------------------------------------


def _set_suites(context: ssl.SSLContext, options: TLSOptions) -> None:
    ciphers = _up_to_tls12(options)
    if ciphers is not None:
        context.set_ciphers(ciphers)
    if options.psk is not None and options.ciphers is None:
        context.set_ciphers(f"{_names_in(context)}:{_PSK_CIPHERS}{_without_ffdhe(options)}")
    if options.minimum_bits:
        _drop_weak(context, options.minimum_bits, options.maximum_version)
    chosen = _of_tls13(options)
    if chosen and can_choose_tls13_suites():
        _newer(context).set_ciphersuites(":".join(chosen))


def _up_to_tls12(options: TLSOptions) -> str | None:
    """Return OpenSSL's list of suites; None keeps Python's choice."""
    ciphers = read_ciphers(options.ciphers).up_to_tls12 or options.profile.ciphers
    old = _oldest(options) < _TLS12
    if ciphers is None:
        # Python's choice contains no suite older than TLS 1.2; without ffdhe it has to be written out.
        ciphers = "DEFAULT" if old else None
    if old and "@SECLEVEL" not in (ciphers or ""):
        # The signatures of TLS 1.0 and 1.1 are too weak for OpenSSL's other levels.
        ciphers = f"{ciphers}:@SECLEVEL=0"
    if not options.ffdhe:
        ciphers = ciphers or _names_in(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        ciphers += _without_ffdhe(options)
    return ciphers


def _without_ffdhe(options: TLSOptions) -> str:
    return "" if options.ffdhe else ":!kDHE:!kDHEPSK"


def _names_in(context: ssl.SSLContext, least_bits: int = 0) -> str:
    """Return the suites of `context` up to TLS 1.2 whose keys are long enough."""
    found = (one["name"] for one in context.get_ciphers() if (one["strength_bits"] or 0) >= least_bits)
    return ":".join(name for name in found if not name.startswith("TLS_"))


def _drop_weak(context: ssl.SSLContext, bits: int, newest: ssl.TLSVersion | None) -> None:
    names = _names_in(context, bits)
    if names:
        context.set_ciphers(names)
        return
    if newest is not None and newest < ssl.TLSVersion.TLSv1_3:
        raise TLSLibraryError(f"no offered cipher suite up to TLS 1.2 has keys of {bits} bits")
    context.minimum_version = ssl.TLSVersion.TLSv1_3


def _of_tls13(options: TLSOptions) -> tuple[str, ...]:
    """Return the chosen suites of TLS 1.3; an empty tuple keeps OpenSSL's choice."""
    wanted = read_ciphers(options.ciphers).tls13
    if wanted is None and not options.minimum_bits:
        return ()
    names = wanted or ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
    return tuple(name for name in names if (found := find_suite(name)) and found.bits >= options.minimum_bits)


# --- groups and flags ----------------------------------------------------------------------------------------


def _set_groups(context: ssl.SSLContext, options: TLSOptions) -> None:
    groups = tuple(openssl_group(name) for name in options.groups)
    if can_choose_groups():
        if not groups and not options.ffdhe:
            groups = tuple(name for name in _newer(context).get_groups() if not _is_ffdhe(name))
        if groups:
            _newer(context).set_groups(":".join(_with_marks(groups, options)))
    elif groups:
        context.set_ecdh_curve(groups[0])


def _with_marks(groups: tuple[str, ...], options: TLSOptions) -> Iterator[str]:
    """Mark the groups for which a key is sent at once; without marks OpenSSL sends one for the first group."""
    wanted = options.key_share_groups
    marked = {openssl_group(name) for name in wanted} if wanted != options.groups[:1] else set()
    return (f"*{name}" if name in marked else name for name in groups)


def _is_ffdhe(name: str) -> bool:
    group = find_group(name)
    return group is not None and group.key_exchange == "DHE"


def _set_flags(context: ssl.SSLContext, options: TLSOptions) -> None:
    if not options.extended_master_secret:
        context.options |= _NO_EXTENDED_MASTER_SECRET
    if not options.renegotiation:
        context.options |= ssl.OP_NO_RENEGOTIATION
    if options.legacy_renegotiation:
        context.options |= _LEGACY_SERVER_CONNECT
    else:
        context.options &= ~_LEGACY_SERVER_CONNECT


def _log_keys(context: ssl.SSLContext, path: str | os.PathLike[str]) -> None:
    try:
        context.keylog_filename = os.fspath(path)
    except OSError as error:
        raise TLSLibraryError(f"keys cannot be logged to {path}: {error.strerror or error}") from error
