"""The names that a certificate is for (RFC 9525): the subject alternative names count, the subject does not."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, TypeAlias

from .certificate import Certificate

__all__ = ["covers", "matches"]

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
#: What a wildcard may stand for: one label.
_LABEL: Final = re.compile(r"[A-Za-z0-9-]+")


def covers(certificate: Certificate, name: str) -> bool:
    """Tell whether `certificate` is for `name`, a host name in A-labels or an address without brackets."""
    from cryptography import x509

    found = certificate.extension(x509.SubjectAlternativeName)
    if found is None:
        return False
    address = _address(name)
    if address is not None:
        return address in found.get_values_for_type(x509.IPAddress)
    return any(matches(pattern, name) for pattern in found.get_values_for_type(x509.DNSName))


def matches(pattern: str, name: str) -> bool:
    """Tell whether the DNS name `pattern` of a certificate stands for `name` (RFC 9525 section 6.3).

    A wildcard is the whole leftmost label, stands for one label, and has at least two labels behind it, because the
    names below a top-level domain have many owners.
    """
    pattern, name = pattern.lower(), name.lower()
    if not name or not pattern.startswith("*."):
        return pattern == name != ""
    label, dot, rest = name.partition(".")
    fits = bool(dot) and "." in rest and rest == pattern[2:]
    return fits and (label == "*" or _LABEL.fullmatch(label) is not None)


def _address(name: str) -> _Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
