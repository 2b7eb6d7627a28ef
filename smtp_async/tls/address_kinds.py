"""Which addresses may be connected to because a certificate names them.

A certificate comes from a server that is not trusted yet. If it could make this client connect to any address, it could
reach services that only this host or its network can reach (server-side request forgery). So what is named in it must
be on the public Internet, unless the mail server is itself on a private address.
"""

from __future__ import annotations

import ipaddress
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..transport.stream import Endpoint

__all__ = ["AddressKind", "kind_of", "allowed_kinds"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_THIS_NETWORK: Final = ipaddress.ip_network("0.0.0.0/8")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class AddressKind(Enum):
    """How far an address reaches: from where it can be connected to."""

    PUBLIC = "public"
    PRIVATE = "private"
    LINK_LOCAL = "link-local"
    LOOPBACK = "loopback"
    UNUSABLE = "unusable"


_ALLOWED: Final = {
    AddressKind.PRIVATE: frozenset({AddressKind.PUBLIC, AddressKind.PRIVATE}),
    AddressKind.LINK_LOCAL: frozenset({AddressKind.PUBLIC, AddressKind.PRIVATE, AddressKind.LINK_LOCAL}),
    AddressKind.LOOPBACK: frozenset({AddressKind.PUBLIC, AddressKind.PRIVATE, AddressKind.LOOPBACK}),
}
_PUBLIC_ONLY: Final = frozenset({AddressKind.PUBLIC})


def allowed_kinds(peer: Endpoint) -> frozenset[AddressKind]:
    """Return the kinds of addresses that a certificate may name if the mail server `peer` showed it.

    Args:
        peer: the address of the mail server: text, or a pair with the port. None, or what is no IP address, is not
            known; then only public addresses may be named.
    """
    host = peer[0] if isinstance(peer, tuple) else peer
    try:
        return _ALLOWED.get(kind_of(host or ""), _PUBLIC_ONLY)
    except ValueError:
        return _PUBLIC_ONLY


def kind_of(address: str) -> AddressKind:
    """Return the kind of an IP address; an IPv6 address that stands for an IPv4 address has the kind of that address.

    Raises:
        ValueError: `address` is no IP address.
    """
    ip = _meant(ipaddress.ip_address(address))
    if ip.is_unspecified or ip.is_multicast or ip in _THIS_NETWORK:
        # 0.0.0.0 reaches this host on Linux.
        return AddressKind.UNUSABLE
    if ip.is_loopback:
        return AddressKind.LOOPBACK
    if ip.is_link_local:
        return AddressKind.LINK_LOCAL
    return AddressKind.PUBLIC if ip.is_global else AddressKind.PRIVATE


def _meant(ip: _Address) -> _Address:
    """Return the address of IPv4 inside one of IPv6: mapped, 6to4, Teredo, NAT64 or the obsolete compatible form."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip.ipv4_mapped or ip.sixtofour:
        return ip.ipv4_mapped or ip.sixtofour or ip
    if ip.teredo:
        return ip.teredo[1]
    compatible = int(ip) >> 32 == 0 and not (ip.is_loopback or ip.is_unspecified)
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 or compatible else ip
