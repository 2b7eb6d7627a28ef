"""The ways from a server's certificate to a trusted one, RFC 5280 section 6 and RFC 4158.

An issuer is found by its name, and by the identifier of its key where both certificates have one; it is the issuer if
its key verifies the signature. Trusted certificates are tried first, as OpenSSL does; unlike OpenSSL, other ways are
tried when one has a fault. The search is bounded, because an attacker may choose what is searched: certificates that
issue each other, and hundreds with the same name and key.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from .certificate import Certificate
from .der import DERError, check_shape

__all__ = ["LONGEST", "MOST_SENT", "Anchors", "Path", "find_paths", "forget_certificates", "read_certificate"]

#: The most certificates that a server may send, and that a path may have.
MOST_SENT: Final = 32
LONGEST: Final = 10
#: The most paths that are looked at, and signatures that are verified to find them.
_MOST_PATHS: Final = 8
_MOST_SIGNATURES: Final = 32
#: The most values in a certificate: one with a thousand names has some more than a thousand.
_MOST_VALUES: Final = 5000


class Path(NamedTuple):
    """A way up from the server's certificate.

    Attributes:
        certificates: that of the server, its issuer, and so on.
        trusted: does it end with a trusted certificate?
        unsigned: places of certificates that the next one did not sign, although it has the name of their issuer.
        loop: did it stop because certificates have issued each other in a circle?
    """

    certificates: tuple[Certificate, ...]
    trusted: bool = False
    unsigned: frozenset[int] = frozenset()
    loop: bool = False


class CertificatePool:
    """Certificates, found by the name of their holder."""

    def __init__(self, certificates: Iterable[Certificate] = ()) -> None:
        self._by_subject: dict[bytes, list[Certificate]] = {}
        for one in certificates:
            self._by_subject.setdefault(one.subject_der, []).append(one)

    def issuers_of(self, certificate: Certificate) -> Iterator[Certificate]:
        """Yield those that may have issued `certificate`, by their names and the identifiers of their keys."""
        for one in self._by_subject.get(certificate.issuer_der, ()):
            wanted, has = certificate.authority_key_id, one.subject_key_id
            if not wanted or not has or wanted == has:
                yield one

    def __contains__(self, certificate: Certificate) -> bool:
        return certificate in self._by_subject.get(certificate.subject_der, ())


class Anchors(CertificatePool):
    """Trusted certificates. What cannot be read is left out."""

    def __init__(self, ders: Iterable[bytes]) -> None:
        # Not by `read`, which has bounds for what servers send, and remembers little.
        super().__init__(found for der in dict.fromkeys(ders) if (found := Certificate.of(der)) is not None)

    def __bool__(self) -> bool:
        return bool(self._by_subject)


@functools.lru_cache(maxsize=128)
def read_certificate(der: bytes, max_length: int, max_depth: int) -> Certificate | str:
    """Return the certificate in `der`, which a server sent, or what is wrong with it.

    The same few certificates come with every connection, so that the last ones are kept.

    Args:
        der: the certificate.
        max_length, max_depth: bounds, see `TrustOptions`.
    """
    try:
        check_shape(der, max_length=max_length, max_depth=max_depth, max_values=_MOST_VALUES)
    except DERError as error:
        return str(error)
    return Certificate.of(der) or "it is no certificate, or a damaged one"


@functools.lru_cache(maxsize=512)
def _issued(certificate: Certificate, issuer: Certificate) -> bool:
    return certificate.issued_by(issuer)


def forget_certificates() -> None:
    """Forget the certificates and signatures that are remembered."""
    read_certificate.cache_clear()
    _issued.cache_clear()


def find_paths(
    leaf: Certificate, others: Sequence[Certificate], known: Sequence[Certificate], anchors: Anchors
) -> Iterator[Path]:
    """Yield the ways up from `leaf`, at least one; the last may end without a trusted certificate.

    Args:
        leaf: the server's certificate.
        others: what it sent besides.
        known: what else may lead to a trusted certificate.
        anchors: the trusted certificates.
    """
    search = _Search(anchors, CertificatePool((*others, *known)))
    for count, path in enumerate(search.paths((leaf,), frozenset()), 1):
        yield path
        if count == _MOST_PATHS:
            return


class _Search:
    def __init__(self, anchors: Anchors, others: CertificatePool) -> None:
        self._anchors = anchors
        self._others = others
        self._signatures = _MOST_SIGNATURES

    def paths(self, way: tuple[Certificate, ...], unsigned: frozenset[int]) -> Iterator[Path]:
        last = way[-1]
        if last in self._anchors:
            yield Path(way, True, unsigned)
            return
        issuers, loop = self._issuers_of(way)
        if not issuers or len(way) == LONGEST:
            yield Path(way, False, unsigned, loop)
            return
        signers = [one for one in issuers if self._has_signed(one, last)]
        if not signers:
            unsigned |= {len(way) - 1}
        for issuer in signers or issuers[:1]:
            yield from self.paths((*way, issuer), unsigned)

    def _issuers_of(self, way: tuple[Certificate, ...]) -> tuple[list[Certificate], bool]:
        """Return the candidates that are not on the way yet, trusted ones first, and whether others are."""
        found = [*self._anchors.issuers_of(way[-1]), *self._others.issuers_of(way[-1])]
        fresh = [one for one in dict.fromkeys(found) if one not in way]
        return fresh, bool(found) and not fresh and not way[-1].self_issued

    def _has_signed(self, issuer: Certificate, certificate: Certificate) -> bool:
        if self._signatures == 0:
            return False
        self._signatures -= 1
        return _issued(certificate, issuer)
