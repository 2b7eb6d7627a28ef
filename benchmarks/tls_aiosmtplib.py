"""The rival aiosmtplib over TLS: connects and says EHLO, or sends on clients that stay open."""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import Any

# Run as a script in the rival's own environment, which has neither this project nor its tools.
from aiosmtplib import SMTP  # type: ignore[import-not-found]
from sender import Task, serve, shares  # type: ignore[import-not-found]


class Rival:
    """As many clients as connections."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._data = task.data
        self._context = ssl.create_default_context(cafile=sys.argv[1])
        self._clients: list[SMTP] = []

    async def open(self) -> None:
        """Load everything, and open the connections that are used again."""
        if self._task.mode == "full":
            (await self._connected()).close()
            return
        for _ in range(self._task.connections):
            self._clients.append(await self._connected())
        await self.send(self._task.connections)

    async def send(self, count: int) -> dict[str, Any]:
        """Connect, or send, `count` times."""
        if self._task.mode == "full":
            for _ in range(count):
                (await self._connected()).close()
            return {}
        parts = shares(count, len(self._clients))
        await asyncio.gather(*[self._some(*pair) for pair in zip(self._clients, parts, strict=True)])
        return {}

    async def close(self) -> None:
        """Disconnect."""
        for client in self._clients:
            client.close()

    async def _connected(self) -> SMTP:
        client = SMTP(
            hostname=self._task.host,
            port=self._task.port,
            use_tls=True,
            tls_context=self._context,
            local_hostname="client.example",
        )
        await client.connect()
        await client.ehlo()
        return client

    async def _some(self, client: SMTP, count: int) -> None:
        sender, recipients, data = self._task.sender, list(self._task.recipients), self._data
        for _ in range(count):
            await client.sendmail(sender, recipients, data)


if __name__ == "__main__":
    serve(Rival)
