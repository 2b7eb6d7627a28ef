"""Requirements of a connection beyond its certificate, checked after the handshake and before mail is sent.

Python cannot choose every suite, group and signature scheme before a handshake, see `smtp_async.tls.offers`. The result
is known afterwards, from the messages of the handshake; a connection that does not meet the options is then closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .offers import read_ciphers
from .suites import find_group

if TYPE_CHECKING:
    from .info import ConnectionInfo
    from .options import TLSOptions

__all__ = ["check_requirements"]


def check_requirements(info: ConnectionInfo, options: TLSOptions) -> str | None:
    """Return the violations of a connection, as the end of a sentence that begins with the server; None without any.

    Absent properties are not checked: with RSA key exchange there is no group and no signature.
    """
    if options.context is not None:
        return None
    return next(_violations(info, options), None)


def _violations(info: ConnectionInfo, options: TLSOptions) -> Iterator[str]:
    if info.bits is not None and info.bits < options.minimum_bits:
        yield f"chose {info.suite} with {info.bits} bits, and minimum_bits demands {options.minimum_bits}"
    chosen = read_ciphers(options.ciphers).tls13
    if chosen is not None and info.tls_version == "TLSv1.3" and info.suite not in chosen:
        yield f"chose the cipher suite {info.suite}, which is not among ciphers"
    if info.group is not None:
        if options.groups and info.group not in options.groups:
            yield f"agreed on keys in the group {info.group}, which is not among groups"
        group = find_group(info.group)
        if not options.ffdhe and group is not None and group.key_exchange == "DHE":
            yield f"agreed on keys in the group {info.group}, which ffdhe=False excludes"
    if options.signature_algorithms:
        yield from _wrong_signatures(info, options.signature_algorithms)


def _wrong_signatures(info: ConnectionInfo, allowed: Sequence[str]) -> Iterator[str]:
    scheme = info.signature_algorithm
    if scheme is not None and scheme not in allowed:
        yield f"signed the handshake with {scheme}, which is not among signature_algorithms"
    certificate = info.facts
    if certificate is not None and not _is_allowed(certificate.signature_algorithm, allowed):
        yield (
            f"showed a certificate that is signed with {certificate.signature_algorithm}, which is not among "
            "signature_algorithms"
        )


def _is_allowed(signature: str, allowed: Sequence[str]) -> bool:
    """Tell whether a scheme has the hash and kind of key of a signature; curves and padding are ignored."""
    kind, _, digest = signature.lower().partition("_with_")
    if digest:
        return any(one.startswith(kind) and one.endswith(digest) for one in allowed)
    return kind in allowed or not kind.startswith("ed")
