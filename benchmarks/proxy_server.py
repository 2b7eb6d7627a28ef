"""The proxy and server of `proxy.py`: SOCKS5 without a login, then SMTP as far as EHLO on the same connection.

Prints the port of the proxy and that of the server without one, and runs until standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

_GREETING = b"220 mx.lab.test\r\n"
_EHLO = b"250-mx.lab.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"


class _Server(asyncio.Protocol):
    """Answers each thing that comes, in one piece on loopback, with the next reply."""

    replies: tuple[bytes, ...] = (_EHLO,)
    first = _GREETING

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is no instance of asyncio.Transport.
        self._transport: Any = transport
        self._left = list(self.replies)
        if self.first:
            self._transport.write(self.first)

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._transport.write(self._left.pop(0))


class _Proxy(_Server):
    replies = (b"\x05\x00", b"\x05\x00\x00\x01" + bytes(6) + _GREETING, _EHLO)
    first = b""


async def _main() -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(one, "127.0.0.1", 0, backlog=2000) for one in (_Proxy, _Server)]
    print(*[server.sockets[0].getsockname()[1] for server in servers], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.run(_main())
        sys.exit()
    asyncio.run(_main())
