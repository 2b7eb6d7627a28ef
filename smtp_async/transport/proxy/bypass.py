"""Servers that are connected to without the proxy: names, wildcards, domains, addresses, networks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from ...errors import InvalidArgument

__all__ = ["bypasses", "read_patterns"]


def read_patterns(exceptions: Iterable[str] | str) -> tuple[str, ...]:
    """Return the patterns, in lower case, without empty ones.

    Raises:
        InvalidArgument: a pattern with a slash is no network.
    """
    entries = re.split(r"[;,\s]+", exceptions) if isinstance(exceptions, str) else exceptions
    patterns = tuple(entry.strip().lower().rstrip(".") for entry in entries if entry.strip())
    for pattern in patterns:
        if "/" in pattern and not _is_network(pattern):
            raise InvalidArgument(f"{pattern!r} in the exceptions of the proxy is no network")
    return patterns


def bypasses(patterns: Iterable[str], host: str, addresses: Iterable[str] = ()) -> bool:
    """Return whether a pattern names the server.

    Args:
        patterns: as `read_patterns` returns them.
        host: the server's name or address, in any case.
        addresses: its addresses, where they are known.
    """
    patterns = tuple(patterns)
    if not patterns:
        return False
    name = host.lower().rstrip(".").removeprefix("[").removesuffix("]")
    known = [found for text in (name, *addresses) if (found := _address(text)) is not None]
    return any(_fits(pattern, name, known) for pattern in patterns)


def _fits(pattern: str, name: str, addresses: list[IPv4Address | IPv6Address]) -> bool:
    if "/" in pattern:
        network = ip_network(pattern, strict=False)
        return any(address.version == network.version and address in network for address in addresses)
    own = _address(pattern.removeprefix("[").removesuffix("]"))
    if own is not None:
        return own in addresses
    if pattern.startswith("."):
        return name == pattern[1:] or name.endswith(pattern)
    return _matches(pattern.split("*"), name)


def _matches(parts: list[str], name: str) -> bool:
    """Match a pattern that was split at its wildcards; linear, whatever the pattern."""
    first, *rest = parts
    if not rest:
        return name == first
    *middle, last = rest
    if not name.startswith(first):
        return False
    at = len(first)
    for part in middle:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(name) - len(last) >= at and name.endswith(last)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # 10.0.0.0/8 is meant to hold ::ffff:10.0.0.1, too.
    return getattr(address, "ipv4_mapped", None) or address


def _is_network(pattern: str) -> bool:
    try:
        ip_network(pattern, strict=False)
    except ValueError:
        return False
    return True
