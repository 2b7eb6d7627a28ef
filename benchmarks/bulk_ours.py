"""The contestant of `bulk.py`: one `send_all` over an iterator that builds a `Message` for each reader."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ours import Ours
from benchmarks.personal import SENDER, letters
from benchmarks.sender import serve
from smtp_async import Message


class Bulk(Ours):
    """Builds and sends."""

    async def open(self) -> None:
        """Open the connections: what a pool does by itself under load."""
        await self.send(10 * self._task.connections)

    async def send(self, count: int) -> dict[str, Any]:
        """Send in one call."""
        octets = accepted = 0
        async for _, receipt in self._client.send_all(_messages(count)):
            accepted += bool(receipt.accepted)
            octets += receipt.bytes_sent
        assert accepted == count, accepted
        return {"octets": octets / count}


def _messages(count: int) -> Iterator[Message]:
    for letter in letters(count):
        yield Message(sender=SENDER, to=letter.to, subject=letter.subject, text=letter.text, html=letter.html)


if __name__ == "__main__":
    serve(Bulk)
