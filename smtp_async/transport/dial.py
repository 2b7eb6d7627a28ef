"""Dialling: resolve a host name, race its addresses, return a Stream.

A name may have several addresses, and an address that does not answer must not delay the others. The next attempt
starts a quarter of a second after the previous one, or as soon as the previous one has failed, and the first
established connection is used (RFC 8305 section 5). The resolver's order is kept unless a family is preferred.
aiohappyeyeballs runs the race, because uvloop lacks asyncio's `happy_eyeballs_delay`.

Names are resolved in `resolve.py`, and `names.py` judges addresses. `dial_by` takes sockets that the application has
connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from ..errors import (
    FeatureUnavailable,
    InvalidArgument,
    InvalidPort,
    SMTPError,
    SocketError,
    Timeout,
)
from .names import (
    AddressFamily,
    AddressFilter,
    AddressInfo,
    host_name,
    ordered,
    permitted,
    resolve_by_system,
)
from .proxy_protocol import ProxyProtocol
from .resolve import Resolver, look_up
from .stream import Stream, held_stream, stream_over, stream_to

__all__ = ["Dialer", "SocketOptions", "dial", "dial_by", "dial_unix"]

#: Seconds after which the next address is tried while an earlier one has not answered: RFC 8305 section 8.
_ATTEMPT_DELAY: Final = 0.25
#: Elsewhere a second call to connect fails once the first has succeeded.
_CONNECTS_AT_ONCE: Final = sys.platform == "linux"
#: The shortest limit of a reply line, in bytes; RFC 5321 section 4.5.3.1.5 allows servers 512.
_SHORTEST_LINE: Final = 256

#: Makes the connections of an application that wants to make them itself: returns a connected stream socket for host
#: and port, which the client owns from then on. When it is cancelled it closes what it has opened.
Dialer: TypeAlias = Callable[[str, int], Awaitable[socket.socket]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketOptions:
    """Options of the client's sockets.

    Attributes:
        local_address: address of the interface to connect from; None leaves it to the system.
        local_port: port to connect from; 0 leaves it to the system. With a fixed port the server's addresses are
            tried one after the other, because two sockets cannot share the port.
        family: IPv4, IPv6 or both, and which is tried first.
        nodelay: send small packets at once (TCP_NODELAY). Turning it off delays pipelined commands.
        keepalive: let the system probe an idle connection (SO_KEEPALIVE).
        keepalive_time: seconds of silence before the first probe; None is the system's default, often two hours.
            This and the next two turn `keepalive` on.
        keepalive_interval: seconds between unanswered probes.
        keepalive_count: unanswered probes after which the peer counts as gone.
        receive_buffer, send_buffer: bytes that the system is asked to buffer; what it cannot provide it replaces.
        linger: let the system deliver pending data when a connection is closed; False drops the data and resets the
            connection.
        linger_time: seconds that pending data may take after the end, then the connection is reset; 0 leaves that to
            the system. Closing never waits for it. Only Linux has such a limit; elsewhere it has no effect.
        max_line_length: bytes of the longest reply line that is accepted, its end included; at least 256.
        proxy_protocol: tells a server behind a load balancer whose connection this is, before anything else is sent.
    """

    local_address: str | None = None
    local_port: int = 0
    family: AddressFamily = AddressFamily.AUTO
    nodelay: bool = True
    keepalive: bool = False
    keepalive_time: float | None = None
    keepalive_interval: float | None = None
    keepalive_count: int | None = None
    receive_buffer: int | None = None
    send_buffer: int | None = None
    linger: bool = True
    linger_time: float = 0.0
    max_line_length: int = 8192
    proxy_protocol: ProxyProtocol | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.local_port <= 65535:
            raise InvalidPort(f"local_port must be between 0 and 65535, not {self.local_port}")
        if not self.max_line_length >= _SHORTEST_LINE:
            raise InvalidArgument(
                f"max_line_length must be at least {_SHORTEST_LINE}, not {self.max_line_length}"
            )
        if not 0 <= self.linger_time < math.inf:
            raise InvalidArgument(f"linger_time must be a number of seconds, not {self.linger_time}")
        for name in ("receive_buffer", "send_buffer"):
            size = getattr(self, name)
            if size is not None and not 0 < size < 2**31:
                raise InvalidArgument(f"{name} must be a number of bytes, not {size}")


async def dial(
    host: str,
    port: int,
    *,
    options: SocketOptions = SocketOptions(),
    deadline: float | None = None,
    resolver: Resolver | None = None,
    address_filter: AddressFilter | None = None,
    any_address: bool = False,
    tls_first: bool = False,
    passed: Callable[[str], None] = lambda stage: None,
) -> Stream:
    """Connect to `host` at `port`.

    Args:
        host: a name or an IP address; brackets around an IPv6 address are allowed.
        port: 1 to 65535.
        options: how the socket is made.
        deadline: loop time by which the connection must be established, name resolution included.
        resolver: resolves the name; None takes the system's.
        address_filter: judges each address before a connection to it begins.
        any_address: allow the all-zero address, which systems connect to the local machine.
        tls_first: `start_tls` is what the stream is used for next: it reads and writes nothing before.
        passed: called with "DNS" when the name is resolved, with "TCP" when the connection is established.

    Raises:
        MissingHost: the host is empty.
        InvalidHost: the host is the all-zero address, cannot be a host name, or has no address that the filter allows.
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
            found = await look_up(name, port, options.family, resolver)
            addresses = permitted(found, host, address_filter=address_filter, any_address=any_address)
            passed("DNS")
            attempts = _Attempts(options, await _local_addresses(options))
            sock = await attempts.race(ordered(addresses, options.family))
            stream = await _stream(sock, options, tls_first=tls_first)
            passed("TCP")
    except TimeoutError as error:
        raise Timeout(f"connecting to {host}:{port} took too long", stage="connect") from error
    return stream


async def dial_by(
    dialer: Dialer,
    host: str,
    port: int,
    *,
    options: SocketOptions = SocketOptions(),
    deadline: float | None = None,
    address_filter: AddressFilter | None = None,
    tls_first: bool = False,
) -> Stream:
    """Have the application connect to `host` at `port`, and take over the socket.

    Args:
        dialer: makes the connection.
        host, port: passed to the dialer as they are.
        options: those that can be set on a connected socket.
        deadline: loop time by which the connection must be established.
        address_filter: judges the address that the socket is connected to.
        tls_first: as for `dial`.

    Raises:
        InvalidHost: the filter forbids the address.
        InvalidArgument: the dialer returned something that is no connected stream socket.
        SocketError: the dialer raised an OSError.
        Timeout: the deadline passed; its stage is `"connect"`.
    """
    try:
        async with asyncio.timeout_at(deadline):
            sock = await dialer(host, port)
            try:
                _demand_connected(sock, host, address_filter)
                _configure(sock, options)
                sock.setblocking(False)
            except BaseException:
                if isinstance(sock, socket.socket):
                    sock.close()
                raise
            return await _stream(sock, options, tls_first=tls_first)
    except SMTPError:
        raise
    except TimeoutError as error:
        raise Timeout(f"connecting to {host}:{port} took too long", stage="connect") from error
    except OSError as error:
        raise SocketError.of(error, f"cannot connect to {host}:{port}: {_reason(error)}") from error


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


# --- sockets ----------------------------------------------------------------------------------------------


async def _stream(sock: socket.socket, options: SocketOptions, *, tls_first: bool = False) -> Stream:
    """Return the stream over a connected socket."""
    # uvloop closes the descriptor of a socket that fails before its handshake, and the socket object would close that
    # number again, when another file may have it. A transport that TLS opens later would turn TCP_NODELAY on.
    held = tls_first and options.nodelay and isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
    stream = held_stream(sock) if held else await stream_over(sock)
    if options.linger:
        stream.linger_time = options.linger_time
    # The event loops turn TCP_NODELAY on when they take the socket, but asyncio only if it was made for TCP by name.
    if (not options.nodelay or sock.proto != socket.IPPROTO_TCP) and isinstance(stream.peer, tuple):
        with contextlib.suppress(OSError):  # the server may have closed the connection already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, options.nodelay)
    return stream


def _demand_connected(sock: object, host: str, address_filter: AddressFilter | None) -> None:
    """Raise unless `sock` is a stream socket that is connected to an address that the filter allows."""
    if not isinstance(sock, socket.socket) or sock.type != socket.SOCK_STREAM:
        raise InvalidArgument(f"the dialer must return a connected stream socket, not {type(sock).__name__}")
    try:
        peer = sock.getpeername()
    except OSError as error:
        raise InvalidArgument("the dialer returned a socket that is not connected") from error
    if address_filter is not None and isinstance(peer, tuple):
        permitted([(sock.family, sock.type, sock.proto, "", peer)], host, address_filter=address_filter)


async def _local_addresses(options: SocketOptions) -> list[AddressInfo]:
    if options.local_address is None and not options.local_port:
        return []
    if options.local_address is None:
        return [
            (socket.AF_INET, 0, 0, "", ("0.0.0.0", options.local_port)),
            (socket.AF_INET6, 0, 0, "", ("::", options.local_port)),
        ]
    address, port = options.local_address, options.local_port
    return await resolve_by_system(address, port, options.family, flags=socket.AI_PASSIVE)


class _Attempts:
    """The attempts to connect to a server's addresses, and the failure of each.

    For several failures, aiohappyeyeballs raises one error without an errno. This class stands between aiohappyeyeballs
    and the event loop, where each failure is seen by itself.
    """

    def __init__(self, options: SocketOptions, local: list[AddressInfo]) -> None:
        self._options = options
        self._local = local
        self._failures: list[tuple[str, OSError]] = []

    async def race(self, addresses: list[AddressInfo]) -> socket.socket:
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

    async def _connect(self, info: AddressInfo) -> socket.socket:
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
            if _CONNECTS_AT_ONCE:
                # To a server of this machine the connection is established by now, which the call in `sock_connect`
                # then finds: no iteration of the loop is needed.
                if sock.connect_ex(address) == 0:
                    return
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
    if options.receive_buffer is not None:
        _resize(sock, socket.SO_RCVBUF, options.receive_buffer)
    if options.send_buffer is not None:
        _resize(sock, socket.SO_SNDBUF, options.send_buffer)
    if not options.linger:
        # With a time of 0, closing never waits; with any other it would stop the event loop.
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii" if _LONG_LINGER else "hh", 1, 0)
        )
    if options.local_port and sys.platform != "win32":
        # A fixed port must be usable while its last connection is in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probing = (options.keepalive_time, options.keepalive_interval, options.keepalive_count)
    if not options.keepalive and probing == (None, None, None):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        # The socket of a dialer, without TCP.
        return
    for names, value in zip(_KEEPALIVE, probing, strict=True):
        option = next((getattr(socket, name) for name in names if hasattr(socket, name)), None)
        if value is not None and option is not None:
            # The system takes whole seconds, at least one.
            sock.setsockopt(socket.IPPROTO_TCP, option, max(1, math.ceil(value)))


def _resize(sock: socket.socket, buffer: int, size: int) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, buffer, size)


#: Windows has its `struct linger` of two shorts.
_LONG_LINGER: Final = sys.platform != "win32"
#: The options for time, interval and count; macOS has its own name for the first.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), ("TCP_KEEPINTVL",), ("TCP_KEEPCNT",))


def _reason(error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.ECONNREFUSED:
        reason += ": nothing listens there, so start the server, or give its right port"
    return reason


def _place(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
