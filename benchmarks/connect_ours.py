"""The contestant of `connect.py`: `smtp_async`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sender import Task, serve
from smtp_async import ClientOptions, Security, SMTPClient


class Ours:
    """One client."""

    def __init__(self, task: Task) -> None:
        options = ClientOptions(hello="client.example")
        self._client = SMTPClient(task.host, task.port, security=Security.PLAINTEXT, options=options)

    async def open(self) -> None:
        """Load everything."""
        await self.send(1)

    async def send(self, count: int) -> dict[str, Any]:
        """Connect `count` times."""
        for _ in range(count):
            async with self._client.session() as session:
                await session.connect()
                session.abort()
        return {}

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


if __name__ == "__main__":
    serve(Ours)
