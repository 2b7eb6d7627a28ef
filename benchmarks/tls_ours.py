"""The contestant of `tls.py`: `smtp_async`.

Modes: `full`, `pinned` and `resumed` connect and hear the reply to EHLO, `pinned` with a chain that is judged after the
handshake; `raw` sends complete messages on open connections, `large` sends one of 100 MiB at a time.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ours import limits
from benchmarks.sender import Task, serve, shares
from benchmarks.tls_large import large
from smtp_async import Certificate, ClientOptions, Security, SMTPClient, Timeouts, TLSOptions, TrustOptions


class Ours:
    """One client."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._large = large() if task.mode == "large" else b""
        authority = Path(sys.argv[1])
        pins = [Certificate.load(authority.read_bytes()).public_key_sha256] if task.mode == "pinned" else []
        trust = TrustOptions(ca_file=authority, pins=pins)
        tls = TLSOptions(trust=trust, session_reuse=task.mode == "resumed")
        options = ClientOptions(
            tls=tls, pool=limits(task), hello="client.example", timeouts=Timeouts(send=600.0)
        )
        self._client = SMTPClient(task.host, task.port, security=Security.IMPLICIT, options=options)

    async def open(self) -> None:
        """Load everything, and open the connections that are used again."""
        if self._task.mode == "raw":
            await asyncio.gather(*[self._some(1) for _ in range(self._task.connections)])
        else:
            await self._connect()

    async def send(self, count: int) -> dict[str, Any]:
        """Connect, or send, `count` times."""
        if self._task.mode == "raw":
            await asyncio.gather(*[self._some(part) for part in shares(count, self._task.callers)])
        for _ in range(count if self._task.mode == "large" else 0):
            receipt = await self._client.send_raw(self._large, sender="a@lab.test", recipients=["b@lab.test"])
            receipt.raise_for_outcome()
        resumed = 0
        for _ in range(count if self._task.mode in ("full", "pinned", "resumed") else 0):
            resumed += await self._connect()
        assert resumed == (count if self._task.mode == "resumed" else 0), resumed
        return {}

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    async def _some(self, count: int) -> None:
        task = self._task
        data, recipients = task.data, list(task.recipients)
        for _ in range(count):
            await self._client.send_raw(data, sender=task.sender, recipients=recipients)

    async def _connect(self) -> bool:
        async with self._client.session() as session:
            await session.connect()
            resumed = session.info.session_resumed
            session.abort()
        return resumed


if __name__ == "__main__":
    serve(Ours)
