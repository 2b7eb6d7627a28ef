"""The rival aiosmtplib: connects and says EHLO."""

from __future__ import annotations

from typing import Any

# Run as a script in the rival's own environment, which has neither this project nor its tools.
from aiosmtplib import SMTP  # type: ignore[import-not-found]
from sender import Task, serve  # type: ignore[import-not-found]


class Rival:
    """A client for each connection."""

    def __init__(self, task: Task) -> None:
        self._task = task

    async def open(self) -> None:
        """Load everything."""
        await self.send(1)

    async def send(self, count: int) -> dict[str, Any]:
        """Connect `count` times."""
        for _ in range(count):
            client = SMTP(
                hostname=self._task.host,
                port=self._task.port,
                start_tls=False,
                local_hostname="client.example",
            )
            await client.connect()
            await client.ehlo()
            client.close()
        return {}

    async def close(self) -> None:
        """Nothing is left open."""


if __name__ == "__main__":
    serve(Rival)
