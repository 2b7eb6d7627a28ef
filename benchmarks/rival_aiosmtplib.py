"""The rival aiosmtplib, as its manual advises: one client per connection, kept open; prepared bytes by `sendmail`."""

from __future__ import annotations

import asyncio
from typing import Any

# Run as a script in the rival's own environment, which has neither this project nor its tools.
from aiosmtplib import SMTP  # type: ignore[import-not-found]
from sender import Task, serve, shares  # type: ignore[import-not-found]


class Rival:
    """As many clients as connections, each used by one caller at a time (a client has a lock inside)."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._data = task.data
        self._clients: list[SMTP] = []

    async def open(self) -> None:
        """Connect every client and send one message."""
        task = self._task
        for _ in range(task.connections):
            client = SMTP(
                hostname=task.host,
                port=task.port,
                use_tls=False,
                start_tls=False,
                local_hostname="client.example",
            )
            await client.connect()
            self._clients.append(client)
        await self.send(task.connections)

    async def send(self, count: int) -> dict[str, Any]:
        """Share the messages among the clients."""
        parts = shares(count, len(self._clients))
        await asyncio.gather(*[self._one(*pair) for pair in zip(self._clients, parts, strict=True)])
        return {}

    async def close(self) -> None:
        """Disconnect."""
        for client in self._clients:
            client.close()

    async def _one(self, client: SMTP, count: int) -> None:
        sender, recipients, data = self._task.sender, list(self._task.recipients), self._data
        for _ in range(count):
            await client.sendmail(sender, recipients, data)


if __name__ == "__main__":
    serve(Rival)
