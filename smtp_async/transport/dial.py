"""Dialling: resolve a host name, race its addresses, return a Stream.

A name may have several addresses, and an address that does not answer must not delay the others. The next attempt
starts a quarter of a second after the previous one, or as soon as the previous one has failed, and the first
established connection is used (RFC 8305 section 5). The resolver's order is kept. aiohappyeyeballs runs the race,
because uvloop lacks asyncio's `happy_eyeballs_delay`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import math
import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, cast

from ..errors import (
    FeatureUnavailable,
    InvalidHost,
    InvalidPort,
    MissingHost,
    ResolveError,
    SocketError,
    Timeout,
)
from .stream import Stream, stream_over, stream_to

__all__ = ["AddressFamily", "SocketOptions", "dial", "dial_unix"]

#: A result of getaddrinfo: family, type, protocol, canonical name, address.
_AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]

#: Seconds after which the next address is tried while an earlier one has not answered: RFC 8305 section 8.
_ATTEMPT_DELAY: Final = 0.25


class AddressFamily(Enum):
    """Which addresses of the server may be used."""

    AUTO = socket.AF_UNSPEC
    IPV4 = socket.AF_INET
    IPV6 = socket.AF_INET6


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketOptions:
    """Options of the client's sockets.

    Attributes:
        local_address: address of the interface to connect from; None leaves it to the system.
        local_port: port to connect from; 0 leaves it to the system. With a fixed port the server's addresses are
            tried one after the other, because two sockets cannot share the port.
        family: IPv4, IPv6 or both.
        nodelay: send small packets at once (TCP_NODELAY). Turning it off delays pipelined commands.
        keepalive: let the system probe an idle connection (SO_KEEPALIVE).
        keepalive_time: seconds of silence before the first probe; None is the system's default, often two hours.
            This and the next two turn `keepalive` on.
        keepalive_interval: seconds between unanswered probes.
        keepalive_count: unanswered probes after which the peer counts as gone.
    """

    local_address: str | None = None
    local_port: int = 0
    family: AddressFamily = AddressFamily.AUTO
    nodelay: bool = True
    keepalive: bool = False
    keepalive_time: float | None = None
    keepalive_interval: float | None = None
    keepalive_count: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.local_port <= 65535:
            raise InvalidPort(f"local_port must be between 0 and 65535, not {self.local_port}")


async def dial(
    host: str,
    port: int,
    *,
    options: SocketOptions = SocketOptions(),
    deadline: float | None = None,
) -> Stream:
    """Connect to `host` at `port`.

    Args:
        host: a name or an IP address; brackets around an IPv6 address are allowed.
        port: 1 to 65535.
        options: how the socket is made.
        deadline: loop time by which the connection must be established, name resolution included.

    Raises:
        MissingHost: the host is empty.
        InvalidHost: the host is the all-zero address, or cannot be a host name.
        InvalidPort: the port is out of range.
        ResolveError: the name has no address of the wanted family, or the resolver failed.
        SocketError: no address could be reached. It is the last error; the earlier ones are its notes.
        Timeout: the deadline passed; its stage is `"connect"`.
    """
    if not 0 < port < 65536:
        raise InvalidPort(f"a port is between 1 and 65535, not {port}")
    name = host_name(host)
    try:
        async with asyncio.timeout_at(deadline):
            addresses = _usable(await resolve(name, port, options.family), host)
            attempts = _Attempts(options, await _local_addresses(options))
            sock = await attempts.race(addresses)
            stream = await stream_over(sock)
    except TimeoutError as error:
        raise Timeout(f"connecting to {host}:{port} took too long", stage="connect") from error
    with contextlib.suppress(OSError):  # the server may have closed the connection already
        # Set last, because the event loops turn TCP_NODELAY on when they take the socket.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, options.nodelay)
    return stream


async def dial_unix(path: str | os.PathLike[str], *, deadline: float | None = None) -> Stream:
    """Connect to the Unix socket at `path`.

    Raises:
        FeatureUnavailable: this system or event loop has no Unix sockets.
        SocketError: the connection was refused, or the socket does not exist.
        Timeout: the deadline passed; its stage is `"connect"`.
    """
    name = os.fspath(path)
    try:
        async with asyncio.timeout_at(deadline):
            return await stream_to(name)
    except TimeoutError as error:
        raise Timeout(f"connecting to {name} took too long", stage="connect") from error
    except NotImplementedError as error:
        raise FeatureUnavailable("this event loop has no Unix sockets", needs="a POSIX system") from error
    except OSError as error:
        raise SocketError.of(error, f"cannot connect to {name}: {error.strerror or error}") from error


# --- names ------------------------------------------------------------------------------------------------


def host_name(host: str) -> str:
    """Return `host` as the resolver wants it: without brackets, international names as A-labels."""
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


async def resolve(name: str, port: int, family: AddressFamily, *, flags: int = 0) -> list[_AddressInfo]:
    how = {"family": family.value, "type": socket.SOCK_STREAM}
    try:
        if is_address(name):
            # Nobody is asked, so it does not block; the loop would start a thread for it.
            found = socket.getaddrinfo(name, port, flags=flags | socket.AI_NUMERICHOST, **how)
        else:
            found = await asyncio.get_running_loop().getaddrinfo(name, port, flags=flags, **how)
    except socket.gaierror as error:
        code = _RESOLVER_CODES.get(error.errno or 0, 11003)
        message = f"cannot resolve {name}: {error.strerror or error}"
        raise ResolveError(message, errno=error.errno, code=code) from error
    except UnicodeError as error:
        # The resolver's IDNA codec refuses over-long labels also where the name is ASCII.
        raise InvalidHost(f"{name!r} is not a host name: {error}") from error
    return cast("list[_AddressInfo]", found)


@functools.lru_cache(maxsize=128)
def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _resolver_codes() -> dict[int, int]:
    # Winsock's numbers: 11001 no such host, 11002 try again, 11003 no recovery, 11004 no address of that kind.
    table = {"NONAME": 11001, "AGAIN": 11002, "FAIL": 11003, "NODATA": 11004, "ADDRFAMILY": 11004}
    # On Windows NODATA and NONAME are the same number; the first entry is used.
    numbers = {getattr(socket, f"EAI_{name}", None): code for name, code in reversed(table.items())}
    return {number: code for number, code in numbers.items() if number is not None}


#: The resolver's errno → the number that the replaced components used.
_RESOLVER_CODES: Final = _resolver_codes()


def _usable(found: Iterable[_AddressInfo], host: str) -> list[_AddressInfo]:
    """Drop the all-zero address, because systems connect it to the local machine."""
    addresses = [info for info in found if not is_unspecified(str(info[4][0]))]
    if not addresses:
        raise InvalidHost(f"{host} is the all-zero address, which names no server")
    return addresses


@functools.lru_cache(maxsize=128)
def is_unspecified(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_unspecified


async def _local_addresses(options: SocketOptions) -> list[_AddressInfo]:
    if options.local_address is None and not options.local_port:
        return []
    if options.local_address is None:
        return [
            (socket.AF_INET, 0, 0, "", ("0.0.0.0", options.local_port)),
            (socket.AF_INET6, 0, 0, "", ("::", options.local_port)),
        ]
    return await resolve(options.local_address, options.local_port, options.family, flags=socket.AI_PASSIVE)


# --- sockets ----------------------------------------------------------------------------------------------


class _Attempts:
    """The attempts to connect to a server's addresses, and the failure of each.

    For several failures, aiohappyeyeballs raises one error without an errno. This class stands between aiohappyeyeballs
    and the event loop, where each failure is seen by itself.
    """

    def __init__(self, options: SocketOptions, local: list[_AddressInfo]) -> None:
        self._options = options
        self._local = local
        self._failures: list[tuple[str, OSError]] = []

    async def race(self, addresses: list[_AddressInfo]) -> socket.socket:
        """Return the first connected socket."""
        if len(addresses) == 1:
            return await self._connect(addresses[0])
        from aiohappyeyeballs import start_connection

        task = asyncio.current_task()
        cancels = task.cancelling() if task else 0
        try:
            sock = await start_connection(
                cast("Any", addresses),
                happy_eyeballs_delay=None if self._options.local_port else _ATTEMPT_DELAY,
                interleave=0,
                loop=cast("asyncio.AbstractEventLoop", self),
                socket_factory=self._open,
            )
        except (OSError, RuntimeError) as error:
            raise self._failed(error) from error
        if task and task.cancelling() > cancels:
            # aiohappyeyeballs swallows a cancellation that arrives while it cancels the other attempts.
            sock.close()
            raise asyncio.CancelledError
        return sock

    async def _connect(self, info: _AddressInfo) -> socket.socket:
        """Connect to the only address."""
        try:
            sock = self._open(info)
            try:
                sock.setblocking(False)
                await self.sock_connect(sock, info[4])
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            raise self._failed(error) from error
        return sock

    def _open(self, info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            _configure(sock, self._options)
            self._bind(sock)
        except OSError as error:
            if sock is not None:
                sock.close()
            self._failures.append((_place(address), error))
            raise
        return sock

    def _bind(self, sock: socket.socket) -> None:
        if not self._local:
            return
        fitting = [info[4] for info in self._local if info[0] == sock.family]
        if not fitting:
            raise OSError(errno.EADDRNOTAVAIL, "the local address is of another family")
        sock.bind(fitting[0])

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect through the event loop; the only method of a loop that `start_connection` uses."""
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except OSError as error:
            self._failures.append((_place(address), error))
            raise

    def _failed(self, error: OSError | RuntimeError) -> SocketError:
        if not self._failures:
            return SocketError(f"cannot connect: {error}")
        *earlier, (place, last) = self._failures
        failed = SocketError.of(last, f"cannot connect to {place}: {_reason(last)}")
        for place, other in earlier:
            failed.add_note(f"also tried {place}: {_reason(other)}")
        return failed


def _configure(sock: socket.socket, options: SocketOptions) -> None:
    if options.local_port and sys.platform != "win32":
        # A fixed port must be usable while its last connection is in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probing = (options.keepalive_time, options.keepalive_interval, options.keepalive_count)
    if options.keepalive or any(value is not None for value in probing):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for names, value in zip(_KEEPALIVE, probing, strict=True):
        option = next((getattr(socket, name) for name in names if hasattr(socket, name)), None)
        if value is not None and option is not None:
            # The system takes whole seconds, at least one.
            sock.setsockopt(socket.IPPROTO_TCP, option, max(1, math.ceil(value)))


#: The options for time, interval and count; macOS has its own name for the first.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), ("TCP_KEEPINTVL",), ("TCP_KEEPCNT",))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _place(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
