"""The rivals of `proxy.py`: python-socks by hand, and on its socket aiosmtplib, or bare asyncio streams.

The mode `direct` is aiosmtplib without a proxy.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

# Run as a script in the rivals' own environment, which has neither this project nor its tools.
from aiosmtplib import SMTP  # type: ignore[import-not-found]
from python_socks.async_.asyncio import Proxy
from sender import Task, serve  # type: ignore[import-not-found]

_NAME = "client.example"


class ByHand:
    """A connection at a time."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._url = f"socks5://{task.host}:{task.port}"
        self._say_hello = _by_aiosmtplib if task.mode == "aiosmtplib" else _by_streams

    async def open(self) -> None:
        """Load everything."""
        await self.send(1)

    async def send(self, count: int) -> dict[str, Any]:
        """Connect `count` times, one after the other."""
        for _ in range(count):
            if self._task.mode == "direct":
                where = {"hostname": self._task.host, "port": self._task.port}
                await _greet(SMTP(**where, start_tls=False, local_hostname=_NAME))
            else:
                await self._say_hello(await Proxy.from_url(self._url).connect("mail.example", 25, timeout=30))
        return {}

    async def close(self) -> None:
        """Do nothing."""


async def _by_aiosmtplib(sock: socket.socket) -> None:
    await _greet(SMTP(hostname=None, port=None, sock=sock, start_tls=False, local_hostname=_NAME))


async def _greet(client: SMTP) -> None:
    await client.connect()
    await client.ehlo()
    assert client.supports_extension("pipelining")
    client.close()


async def _by_streams(sock: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)
    assert (await reader.readline()).startswith(b"220 ")
    writer.write(b"EHLO client.example\r\n")
    while (await reader.readline())[3:4] == b"-":
        pass
    writer.transport.abort()


if __name__ == "__main__":
    serve(ByHand)
