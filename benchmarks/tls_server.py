"""The server of `tls.py` and `connect.py`: takes every message as fast as it comes.

With the file of a certificate as its argument it speaks TLS from the first byte.

Prints its port and runs until standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from typing import Any

_EHLO = b"250-mx.lab.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
_END = b"\r\n.\r\n"


class _Conversation(asyncio.Protocol):
    """Answers commands; of a message it keeps no more than its last octets."""

    def __init__(self) -> None:
        self._left = b""
        self._in_message = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is no instance of asyncio.Transport.
        self._transport: Any = transport
        self._transport.write(b"220 mx.lab.test\r\n")

    def data_received(self, data: bytes) -> None:
        replies: list[bytes] = []
        self._left += data
        while self._take_message(replies) if self._in_message else self._take_line(replies):
            pass
        if replies:
            self._transport.write(b"".join(replies))

    def _take_message(self, replies: list[bytes]) -> bool:
        end = self._left.find(_END)
        if end < 0:
            self._left = self._left[-4:]
            return False
        self._left = self._left[end + len(_END) :]
        self._in_message = False
        replies.append(b"250 taken\r\n")
        return True

    def _take_line(self, replies: list[bytes]) -> bool:
        line, end, rest = self._left.partition(b"\n")
        if not end:
            return False
        self._left = rest
        verb = line[:4].upper()
        self._in_message = verb == b"DATA"
        replies.append({b"EHLO": _EHLO, b"DATA": b"354 go on\r\n"}.get(verb, b"250 ok\r\n"))
        return True


async def _main() -> None:
    context = None
    if len(sys.argv) > 1:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[1])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Conversation, "127.0.0.1", 0, backlog=2000, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.run(_main())
        sys.exit()
    asyncio.run(_main())
