"""Name constraints (RFC 5280 section 4.2.1.10): the names for which an authority may issue certificates.

As in OpenSSL, a kind of name of which nothing is permitted or excluded is free, the subject counts as a directory name
and its mail addresses as mail addresses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from .certificate import Certificate
from .names import matches

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["violation"]

#: A certificate with more names, times the constraints of an issuer, is not compared any more.
_MOST_COMPARISONS: Final = 1 << 16


def violation(certificate: Certificate, issuer: Certificate, wanted: str | None = None) -> str | None:
    """Return the name in `certificate` for which `issuer`, somewhere above it, may not issue; None if there is none.

    Args:
        certificate: the certificate.
        issuer: an authority above it.
        wanted: the name that the server must have. A wildcard may stand for it, and is not itself below a name that is
            excluded.
    """
    from cryptography import x509

    limits = issuer.extension(x509.NameConstraints)
    if limits is None:
        return None
    permitted, excluded = limits.permitted_subtrees or (), limits.excluded_subtrees or ()
    names = list(_names(certificate))
    if len(names) * (len(permitted) + len(excluded)) > _MOST_COMPARISONS:
        return f"{len(names)} names"
    for name in names:
        inside = [_within(name, one) for one in permitted if type(one) is type(name)]
        if (inside and not any(inside)) or any(
            _within(name, one, unknown=True) for one in excluded if type(one) is type(name)
        ):
            return _shown(name)
    if wanted is not None and _stands_for(certificate, wanted):
        for one in excluded:
            if isinstance(one, x509.DNSName) and _dns_within(wanted, one.value):
                return wanted
    return None


def _stands_for(certificate: Certificate, name: str) -> bool:
    from cryptography import x509

    return any(isinstance(one, x509.DNSName) and matches(one.value, name) for one in _names(certificate))


def _names(certificate: Certificate) -> Iterator[x509.GeneralName]:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = certificate.x509.subject
    if len(subject):
        yield x509.DirectoryName(subject)
    for one in subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS):
        if isinstance(one.value, str) and one.value.isascii():
            yield x509.RFC822Name(one.value)
    yield from certificate.extension(x509.SubjectAlternativeName) or ()


def _within(name: x509.GeneralName, subtree: x509.GeneralName, *, unknown: bool = False) -> bool:
    """Is `name` in `subtree`, which is of the same kind? Return `unknown` for a kind that cannot be compared."""
    compare = _comparisons().get(type(name))
    return unknown if compare is None else compare(name.value, subtree.value)


@functools.cache
def _comparisons() -> dict[type, Callable[[Any, Any], bool]]:
    from cryptography import x509

    return {
        x509.DNSName: _dns_within,
        x509.IPAddress: _address_within,
        x509.RFC822Name: _mailbox_within,
        x509.UniformResourceIdentifier: _uri_within,
        x509.DirectoryName: _directory_within,
    }


def _dns_within(name: str, subtree: str) -> bool:
    name, subtree = name.lower(), subtree.lower()
    if not subtree or name == subtree:
        return True
    return name.endswith(subtree if subtree.startswith(".") else f".{subtree}")


def _address_within(address: Any, network: Any) -> bool:
    return bool(address.version == network.version and address in network)


def _mailbox_within(mailbox: str, subtree: str) -> bool:
    local, _, domain = mailbox.rpartition("@")
    if "@" in subtree:
        its_local, _, its_domain = subtree.rpartition("@")
        return (not its_local or its_local == local) and its_domain.lower() == domain.lower()
    return _host_within(domain, subtree)


def _uri_within(uri: str, subtree: str) -> bool:
    try:
        host = urlsplit(uri).hostname or ""
    except ValueError:
        return False
    return _host_within(host, subtree)


def _host_within(host: str, subtree: str) -> bool:
    host, subtree = host.lower(), subtree.lower()
    return host.endswith(subtree) if subtree.startswith(".") else host == subtree


def _directory_within(name: x509.Name, subtree: x509.Name) -> bool:
    inner, outer = _folded(name), _folded(subtree)
    return inner[: len(outer)] == outer


def _folded(name: x509.Name) -> list[frozenset[tuple[str, str]]]:
    """Return a name with what does not count in a comparison (RFC 5280 section 7.1) taken away."""
    return [
        frozenset((one.oid.dotted_string, " ".join(str(one.value).lower().split())) for one in rdn)
        for rdn in name.rdns
    ]


def _shown(name: x509.GeneralName) -> str:
    from cryptography import x509

    value = name.value
    return value.rfc4514_string() if isinstance(value, x509.Name) else str(value)
