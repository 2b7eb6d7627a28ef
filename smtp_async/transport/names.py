"""Host names and addresses: what may be connected to, and the system's resolver.

A name is made of A-labels before any resolver is asked. The all-zero address is refused, because systems connect it to
the local machine. `permitted` is the one place where addresses pass before a socket is made.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from itertools import zip_longest
from typing import Any, Final, TypeAlias, cast

from ..errors import InvalidHost, MissingHost, ResolveError

__all__ = [
    "AddressFamily",
    "AddressFilter",
    "AddressInfo",
    "address_of",
    "host_name",
    "is_address",
    "ordered",
    "permitted",
    "resolve_by_system",
]

#: A result of getaddrinfo: family, type, protocol, canonical name, address.
AddressInfo: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
#: Told each address before a connection to it begins; returns whether it may be connected to.
AddressFilter: TypeAlias = Callable[[ipaddress.IPv4Address | ipaddress.IPv6Address], bool]


class AddressFamily(Enum):
    """Which addresses of the server may be used, and which are tried first."""

    #: Both families in the order of the resolver.
    AUTO = "auto"
    #: IPv4 only.
    IPV4 = "ipv4"
    #: IPv6 only.
    IPV6 = "ipv6"
    #: Both, an IPv4 address first.
    PREFER_IPV4 = "prefer ipv4"
    #: Both, an IPv6 address first.
    PREFER_IPV6 = "prefer ipv6"

    @property
    def number(self) -> int:
        """The family that the system's resolver is asked for."""
        return _NUMBERS.get(self, socket.AF_UNSPEC)


_NUMBERS: Final = {AddressFamily.IPV4: socket.AF_INET, AddressFamily.IPV6: socket.AF_INET6}
_PREFERRED: Final = {
    AddressFamily.PREFER_IPV4: socket.AF_INET,
    AddressFamily.PREFER_IPV6: socket.AF_INET6,
}


@functools.lru_cache(maxsize=128)
def host_name(host: str) -> str:
    """Return `host` as a resolver wants it: without brackets, international names as A-labels.

    Raises:
        MissingHost: the host is empty.
        InvalidHost: the host cannot be a host name.
    """
    if not host:
        raise MissingHost("the host is empty")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or any(c <= " " or c == "\x7f" for c in host):
        raise InvalidHost(f"{host!r} is not a host name")
    return host if host.isascii() else _a_labels(host)


def _a_labels(host: str) -> str:
    import idna  # anyio brings it; most hosts do not need it

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise InvalidHost(f"{host!r} is not a host name: {error}") from error


@functools.lru_cache(maxsize=128)
def is_address(name: str) -> bool:
    """Tell whether `name` is an IP address, perhaps with a zone."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


async def resolve_by_system(
    name: str, port: int, family: AddressFamily, *, flags: int = 0
) -> list[AddressInfo]:
    """Return the addresses of `name`, in the order of the system's resolver.

    Raises:
        InvalidHost: the system says that this cannot be a host name.
        ResolveError: the name has no address of that family, or the resolver failed.
    """
    try:
        if is_address(name):
            # Nobody is asked, so it does not block; the loop would start a thread for it.
            found: Any = _numeric(name, port, family.number, flags)
        else:
            found = await asyncio.get_running_loop().getaddrinfo(
                name, port, family=family.number, type=socket.SOCK_STREAM, flags=flags
            )
    except socket.gaierror as error:
        code = _RESOLVER_CODES.get(error.errno or 0, 11003)
        unknown = "; is the name of the server spelt right?" if code == _NO_SUCH_HOST else ""
        message = f"cannot resolve {name}: {error.strerror or error}{unknown}"
        raise ResolveError(message, errno=error.errno, code=code) from error
    except UnicodeError as error:
        # The resolver's IDNA codec refuses over-long labels also where the name is ASCII.
        raise InvalidHost(f"{name!r} is not a host name: {error}") from error
    return cast("list[AddressInfo]", list(found))


@functools.lru_cache(maxsize=128)
def _numeric(address: str, port: int, family: int, flags: int) -> tuple[Any, ...]:
    flags |= socket.AI_NUMERICHOST
    return tuple(socket.getaddrinfo(address, port, family, socket.SOCK_STREAM, flags=flags))


#: Winsock's number of a name that does not exist.
_NO_SUCH_HOST: Final = 11001


def _resolver_codes() -> dict[int, int]:
    # Winsock's numbers: 11001 no such host, 11002 try again, 11003 no recovery, 11004 no address of that kind.
    table = {"NONAME": 11001, "AGAIN": 11002, "FAIL": 11003, "NODATA": 11004, "ADDRFAMILY": 11004}
    # On Windows NODATA and NONAME are the same number; the first entry is used.
    numbers = {getattr(socket, f"EAI_{name}", None): code for name, code in reversed(table.items())}
    return {number: code for number, code in numbers.items() if number is not None}


#: The resolver's errno → the number that the replaced components used.
_RESOLVER_CODES: Final = _resolver_codes()


def address_of(info: AddressInfo) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address that a connection would reach: of an IPv4-mapped one, the IPv4 address (RFC 4291 2.5.5.2)."""
    return _unmapped(str(info[4][0]))


@functools.lru_cache(maxsize=128)
def _unmapped(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


def is_unspecified(address: str) -> bool:
    """Tell whether `address` is the all-zero address, which systems connect to the local machine."""
    return _unmapped(address).is_unspecified


def permitted(
    found: Iterable[AddressInfo],
    host: str,
    *,
    address_filter: AddressFilter | None,
    any_address: bool = False,
) -> list[AddressInfo]:
    """Return the addresses that may be connected to.

    Args:
        found: the addresses of the host.
        host: for errors.
        address_filter: the application's own judgement.
        any_address: whether the all-zero address may be connected to.

    Raises:
        InvalidHost: none of them.
    """
    addresses = [info for info in found if any_address or not address_of(info).is_unspecified]
    if not addresses:
        raise InvalidHost(f"{host} is the all-zero address, which names no server")
    if address_filter is None:
        return addresses
    addresses = [info for info in addresses if address_filter(address_of(info))]
    if not addresses:
        # Without the addresses: the text may reach a user who must not learn about the inner network.
        raise InvalidHost(f"address_filter forbids to connect to {host}")
    return addresses


def ordered(addresses: Sequence[AddressInfo], family: AddressFamily) -> list[AddressInfo]:
    """Return the addresses in the order in which they are tried.

    With a preferred family, addresses of both alternate (RFC 8305 section 4), so that a family that does not work
    delays the connection by one attempt only.
    """
    preferred = _PREFERRED.get(family)
    if preferred is None:
        return list(addresses)
    first = [info for info in addresses if info[0] == preferred]
    others = [info for info in addresses if info[0] != preferred]
    return [info for pair in zip_longest(first, others) for info in pair if info is not None]
