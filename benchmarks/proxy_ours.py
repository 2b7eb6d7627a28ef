"""The contestant of `proxy.py`: `smtp_async`, through the proxy or, in the mode `direct`, without one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sender import Task, serve
from smtp_async import ClientOptions, ProxyOptions, ProxyType, Security, SMTPClient


class Ours:
    """One client."""

    def __init__(self, task: Task) -> None:
        proxy = None
        host, port = task.host, task.port
        if task.mode != "direct":
            proxy = ProxyOptions(type=ProxyType.SOCKS5, host=task.host, port=task.port)
            host, port = "mail.example", 25
        options = ClientOptions(proxy=proxy, hello="client.example")
        self._client = SMTPClient(host, port, security=Security.PLAINTEXT, options=options)

    async def open(self) -> None:
        """Load everything."""
        await self.send(1)

    async def send(self, count: int) -> dict[str, Any]:
        """Connect `count` times, one after the other."""
        for _ in range(count):
            async with self._client.session() as session:
                await session.connect()
                assert session.extensions.pipelining
                session.abort()
        return {}

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


if __name__ == "__main__":
    serve(Ours)
