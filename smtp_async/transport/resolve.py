"""Resolvers: the system's, one that asks DNS servers of the user's choice, or the application's own.

`Resolver` is the contract. `DNSResolver` asks by aiodns, with limits for each query and for a whole look-up, and
follows aliases (CNAME) itself, because servers may leave that to their clients. With `secure=True` it asks by dnspython
and takes only what a validating resolver on this machine vouches for (see `dnssec.py`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from ..errors import InvalidArgument, InvalidPort, ResolveError
from .names import AddressFamily, AddressFilter, AddressInfo, is_address, resolve_by_system
from .records import MX, SRV, Record, canonical, follow

if TYPE_CHECKING:
    import aiodns

__all__ = [
    "DNSMode",
    "DNSOptions",
    "DNSResolver",
    "Resolver",
    "SystemResolver",
    "look_up",
    "resolver_of",
]

#: Seconds that the addresses of one family are waited for when those of the other are known (RFC 8305 section 3).
_RESOLUTION_DELAY: Final = 0.05
#: How often c-ares asks each server; the limit of a query is doubled with each round.
_ROUNDS: Final = 2
#: The records that hold addresses, IPv6 first.
_KINDS: Final[dict[str, int]] = {"AAAA": socket.AF_INET6, "A": socket.AF_INET}
_LOOPBACK: Final[dict[int, list[str]]] = {socket.AF_INET: ["127.0.0.1"], socket.AF_INET6: ["::1"]}


class Resolver(Protocol):
    """Finds addresses and servers for names.

    Names are given in ASCII, international ones as A-labels. Each method raises `ResolveError`: with code 11001 if the
    name does not exist, 11002 if asking again may help, 11003 if it may not, 11004 if there is no such record.
    """

    async def addresses(self, name: str, family: AddressFamily) -> Sequence[str]:
        """Return the IP addresses of `name`, in the order in which they are to be tried."""
        ...

    async def mx(self, domain: str) -> Sequence[MX]:
        """Return the mail exchangers of `domain`, in any order."""
        ...

    async def srv(self, service: str) -> Sequence[SRV]:
        """Return the servers of a service, `_submission._tcp.example.org` for example, in any order."""
        ...


class DNSMode(Enum):
    """Which resolver is asked."""

    #: OWN where servers are named or `secure` is set, SYSTEM otherwise.
    AUTO = "auto"
    #: The system's, which knows /etc/hosts and other sources beside DNS. MX and SRV records are asked for from the DNS
    #: servers that the system is configured for.
    SYSTEM = "system"
    #: DNS only: the servers that are named, or those that the system is configured for.
    OWN = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class DNSOptions:
    """How names are resolved.

    Attributes:
        resolver: the system's resolver, the library's own, or an object that satisfies `Resolver`.
        servers: IP addresses of the DNS servers to ask, each with a port of its own if one follows it
            (`"192.0.2.1:5300"`, `"[2001:db8::1]:5300"`); empty takes those of the system.
        port: the port of servers without one.
        query_timeout: seconds for the first query to each server; the second takes twice as long.
        total_timeout: seconds for one name altogether. `Timeouts.connect` limits it, too.
        secure: take only answers that DNSSEC protects, as a validating resolver on this machine says (the AD flag, RFC
            4035 section 3.2.3): `servers` must be loopback addresses. What is not signed, or signed wrongly, is a
            `ResolveError` with code 11003. Needs the extra `dnssec`.
        address_filter: called with each address before a connection to it begins; False forbids the connection. For
            applications whose users name the server (`lambda ip: ip.is_global`).
    """

    resolver: DNSMode | Resolver = DNSMode.AUTO
    servers: tuple[str, ...] = ()
    port: int = 53
    query_timeout: float = 3.0
    total_timeout: float = 15.0
    secure: bool = False
    address_filter: AddressFilter | None = None

    def __post_init__(self) -> None:
        if self.resolver not in (DNSMode.AUTO, DNSMode.OWN) and (self.servers or self.secure):
            raise InvalidArgument(
                "servers and secure are options of the library's own resolver: resolver=DNSMode.OWN"
            )
        _demand_tuple(self.servers)
        if not 0 < self.port < 65536:
            raise InvalidPort(f"a port is between 1 and 65535, not {self.port}")
        for seconds in (self.query_timeout, self.total_timeout):
            # `not >` refuses NaN too.
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
                raise InvalidArgument(f"a time limit is a positive number of seconds, not {seconds!r}")
        servers = [endpoint(server, self.port) for server in self.servers]
        if self.secure and not all(ipaddress.ip_address(host).is_loopback for host, _ in servers):
            raise InvalidArgument(
                "secure=True relies on a validating resolver on this machine: on the way from another one, the answer "
                "could be forged. Name a loopback address in servers"
            )


def _demand_tuple(servers: object) -> None:
    if isinstance(servers, str):
        raise InvalidArgument("servers is a tuple of addresses, not one text")


def endpoint(server: str, port: int) -> tuple[str, int]:
    """Return address and port of a DNS server.

    Raises:
        InvalidArgument: it is not an IP address with or without a port.
    """
    host, number = server, str(port)
    if server.startswith("[") or server.count(":") == 1:
        host, _, behind = server.removeprefix("[").rpartition("]" if server.startswith("[") else ":")
        number = behind.removeprefix(":") or number
    sound = number.isascii() and number.isdigit() and 0 < int(number) < 65536
    if not is_address(host) or not sound:
        raise InvalidArgument(f"a DNS server is an IP address with or without a port, not {server!r}")
    return host, int(number)


# --- resolvers -------------------------------------------------------------------------------------------------


class DNSResolver:
    """Ask DNS servers by aiodns, or with `secure` by dnspython.

    It may be used by any number of tasks, and by one event loop after the other.

    Args:
        options: servers and time limits.
    """

    def __init__(self, options: DNSOptions = DNSOptions()) -> None:
        self._options = options
        self._servers = [endpoint(server, options.port) for server in options.servers]
        self._aiodns: aiodns.DNSResolver | None = None

    def close(self) -> None:
        """End all look-ups and release sockets and thread. Synchronous; the resolver may be used again."""
        resolver, self._aiodns = self._aiodns, None
        if resolver is not None:
            # Its own `close` must be awaited; without a reference it does the same.
            resolver.cancel()

    async def addresses(self, name: str, family: AddressFamily) -> Sequence[str]:
        """Return the addresses of `name`; IPv6 and IPv4 alternate, IPv6 first (RFC 8305 section 4)."""
        if canonical(name).rpartition(".")[2] == "localhost":
            # RFC 6761 section 6.3: not a matter of DNS.
            return [a for number in _kinds(family).values() for a in _LOOPBACK[number]]
        return await self._within(name, self._addresses(name, family))

    async def mx(self, domain: str) -> Sequence[MX]:
        """Return the mail exchangers of `domain`."""
        return await self._within(domain, self._records(domain, "MX"))

    async def srv(self, service: str) -> Sequence[SRV]:
        """Return the servers of a service."""
        return await self._within(service, self._records(service, "SRV"))

    async def _within(self, name: str, look_up: Awaitable[list[Any]]) -> list[Any]:
        seconds = self._options.total_timeout
        try:
            async with asyncio.timeout(seconds):
                return await look_up
        except TimeoutError as error:
            message = f"cannot resolve {name}: the DNS servers did not answer within {seconds:g} s"
            raise ResolveError(message, code=11002) from error

    async def _addresses(self, name: str, family: AddressFamily) -> list[str]:
        queries = {kind: self._records(name, kind) for kind in _kinds(family)}
        if len(queries) == 1:
            return await next(iter(queries.values()))
        tasks = [asyncio.ensure_future(query) for query in queries.values()]
        try:
            await _first_then_soon(tasks)
            return _merged(tasks)
        finally:
            for task in tasks:
                if not task.cancel() and not task.cancelled():
                    # Mark a failure as retrieved: the other family may have been enough.
                    task.exception()

    async def _records(self, name: str, kind: str) -> list[Any]:
        """Return the records of `name`, asking again for each alias that an answer ends with."""
        seen: list[str] = []
        current = name
        while True:
            answer = await self._ask(current, kind)
            target, found = follow(answer, current, kind, seen)
            if found:
                return found
            if target == canonical(current):
                raise ResolveError(f"{name} has no {kind} record", code=11004)
            current = target

    async def _ask(self, name: str, kind: str) -> list[Record]:
        if self._options.secure:
            from . import dnssec

            return await dnssec.ask(name, kind, self._servers, limit=self._options.query_timeout)
        import aiodns

        resolver = self._aiodns
        if resolver is None or resolver.loop is not asyncio.get_running_loop():
            resolver = self._aiodns = self._new()
        try:
            answer = await resolver.query_dns(name, kind)
        except aiodns.error.DNSError as error:
            raise _failed(name, kind, error) from error
        return [record for one in answer.answer if (record := _record(one)) is not None]

    def _new(self) -> aiodns.DNSResolver:
        import aiodns

        # c-ares takes the address of a server with its port in this form only.
        servers = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self._servers]
        return aiodns.DNSResolver(
            servers or None,
            loop=asyncio.get_running_loop(),
            # c-ares counts whole milliseconds, and takes 0 for its own default.
            timeout=max(self._options.query_timeout, 0.001),
            tries=_ROUNDS,
        )


def _kinds(family: AddressFamily) -> dict[str, int]:
    return {kind: number for kind, number in _KINDS.items() if family.number in (number, socket.AF_UNSPEC)}


async def _first_then_soon(tasks: Sequence[asyncio.Future[list[Any]]]) -> None:
    """Wait until one family has addresses and the other had its chance, or both have failed."""
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if pending:
        succeeded = any(task.exception() is None for task in done)
        await asyncio.wait(pending, timeout=_RESOLUTION_DELAY if succeeded else None)


def _merged(tasks: Sequence[asyncio.Future[list[Any]]]) -> list[str]:
    """Return the addresses of both families, alternating; raise the gravest failure if there are none."""
    ended = [task for task in tasks if task.done()]
    failures = [error for task in ended if (error := task.exception()) is not None]
    lists = [task.result() for task in ended if task.exception() is None]
    if not lists:
        # A server that could not be asked may have had the answer; "no such record" says less than the other.
        raise min(failures, key=_gravity)
    return [address for pair in zip_longest(*lists) for address in pair if address is not None]


def _gravity(error: BaseException) -> int:
    order = (11002, 11003, 11001, 11004)
    return order.index(error.code) if isinstance(error, ResolveError) else -1


#: c-ares' numbers of answers and failures → Winsock's; every other is 11003.
_ARES_CODES: Final = {
    "ENOTFOUND": 11001,
    "ENODATA": 11004,
    "ESERVFAIL": 11002,
    "ETIMEOUT": 11002,
    "ECONNREFUSED": 11002,
}


def _failed(name: str, kind: str, error: Exception) -> ResolveError:
    import aiodns

    number = error.args[0] if error.args else 0
    known = {getattr(aiodns.error, f"ARES_{word}"): code for word, code in _ARES_CODES.items()}
    code = known.get(number, 11003)
    if code == 11004:
        return ResolveError(f"{name} has no {kind} record", code=code)
    reason = error.args[1] if len(error.args) > 1 else str(error)
    return ResolveError(f"cannot resolve {name}: {reason}", errno=number, code=code)


def _record(record: Any) -> Record | None:
    data = record.data
    make = _VALUES.get(type(data).__name__)
    return None if make is None else Record(record.name, *make(data))


_Made: TypeAlias = tuple[str, Any]
#: What c-ares found, by the name of its class, as the value of a record.
_VALUES: Final[dict[str, Callable[[Any], _Made]]] = {
    "ARecordData": lambda data: ("A", data.addr),
    "AAAARecordData": lambda data: ("AAAA", data.addr),
    "CNAMERecordData": lambda data: ("CNAME", data.cname),
    "MXRecordData": lambda data: ("MX", MX(data.priority, canonical(data.exchange))),
    "SRVRecordData": lambda data: (
        "SRV",
        SRV(data.priority, data.weight, data.port, canonical(data.target)),
    ),
}


class SystemResolver(DNSResolver):
    """The system's resolver for addresses; MX and SRV records come from the DNS servers of the system."""

    async def addresses(self, name: str, family: AddressFamily) -> Sequence[str]:
        """Return the addresses of `name`, in the system's order."""
        return [str(info[4][0]) for info in await resolve_by_system(name, 0, family)]


def resolver_of(options: DNSOptions) -> Resolver:
    """Return the resolver that the options name."""
    chosen = options.resolver
    if not isinstance(chosen, DNSMode):
        return chosen
    own = chosen is DNSMode.OWN or options.servers or options.secure
    return DNSResolver(options) if own else SystemResolver(options)


async def look_up(
    name: str, port: int, family: AddressFamily, resolver: Resolver | None = None
) -> list[AddressInfo]:
    """Return the addresses of `name` as sockets take them.

    Args:
        name: as `host_name` returns it; an address is not looked up.
        port: becomes part of each.
        family: the wanted family or families.
        resolver: None takes the system's.

    Raises:
        InvalidHost, ResolveError: as `resolve_by_system`.
    """
    if resolver is None or type(resolver) is SystemResolver or is_address(name):
        return await resolve_by_system(name, port, family)
    found: list[AddressInfo] = []
    for address in await resolver.addresses(name, family):
        if not is_address(address):
            raise ResolveError(f"the resolver gave {address!r} for {name}, which is no address", code=11003)
        if family.number in (socket.AF_UNSPEC, socket.AF_INET6 if ":" in address else socket.AF_INET):
            found += await resolve_by_system(address, port, AddressFamily.AUTO)
    if not found:
        raise ResolveError(f"{name} has no address of the wanted family", code=11004)
    return found
