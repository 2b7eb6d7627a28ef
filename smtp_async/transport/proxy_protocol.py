"""The PROXY protocol: tell a server behind a load balancer whose connection this is, before anything else is sent.

Versions 1 and 2 as in haproxy.org's proxy-protocol.txt, sections 2.1 and 2.2. Postfix, Exim, Dovecot and HAProxy take
both.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..errors import InvalidArgument

__all__ = ["ProxyProtocol"]

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Pair: TypeAlias = tuple[str, int]

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
#: Version 2 in the upper half of the octet, the command in the lower.
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
#: TCP over IPv4 and over IPv6.
_FAMILIES: Final = {4: 0x11, 6: 0x21}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyProtocol:
    """The header that is sent first.

    Attributes:
        version: 1 (text) or 2 (binary).
        source: address and port of the client on whose behalf the connection is made; None names this connection's own.
        destination: address and port that this client had connected to; None names this connection's own.
    """

    version: int = 2
    source: tuple[str, int] | None = None
    destination: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        if self.version not in (1, 2):
            raise InvalidArgument(f"the PROXY protocol has versions 1 and 2, not {self.version}")
        for pair in (self.source, self.destination):
            if pair is not None:
                _parsed(pair)

    def header(self, local: object, peer: object) -> bytes:
        """Return the header for a connection.

        Args:
            local, peer: its own addresses with their ports; anything else (a Unix socket's) has none.
        """
        source = self.source or _pair(local)
        destination = self.destination or _pair(peer)
        if source is None or destination is None:
            # The connection speaks for itself.
            return b"PROXY UNKNOWN\r\n" if self.version == 1 else _SIGNATURE + bytes((_LOCAL, 0, 0, 0))
        return _header(self.version, _parsed(source), _parsed(destination))


def _pair(endpoint: object) -> _Pair | None:
    match endpoint:
        case (str(host), int(port)):
            return host, port
    return None


def _parsed(pair: _Pair) -> tuple[_Address, int]:
    try:
        host, port = pair
        address = ipaddress.ip_address(host.partition("%")[0])
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port}")
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidArgument(f"the PROXY protocol takes an IP address and a port, not {pair!r}") from error
    return address, port


def _header(version: int, source: tuple[_Address, int], destination: tuple[_Address, int]) -> bytes:
    (a, from_port), (b, to_port) = source, destination
    if a.version != b.version:
        a, b = _as_v6(a), _as_v6(b)
    if version == 1:
        return f"PROXY TCP{a.version} {a} {b} {from_port} {to_port}\r\n".encode("ascii")
    addresses = a.packed + b.packed + struct.pack("!HH", from_port, to_port)
    return _SIGNATURE + struct.pack("!BBH", _PROXY, _FAMILIES[a.version], len(addresses)) + addresses


def _as_v6(address: _Address) -> ipaddress.IPv6Address:
    """Return the address, an IPv4 one mapped (RFC 4291 section 2.5.5.2)."""
    if isinstance(address, ipaddress.IPv6Address):
        return address
    return ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
