"""The yardstick of `tls.py`: a message of 100 MiB over bare asyncio streams with TLS."""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sender import Task, serve
from benchmarks.tls_large import large
from smtp_async.model.octets import dots_doubled, survey

_SLICE = 65536


class Streams:
    """One connection."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._whole = large()
        self._data = memoryview(self._whole)
        self._scans = task.mode == "scanned"

    async def open(self) -> None:
        """Connect and say EHLO."""
        context = ssl.create_default_context(cafile=sys.argv[1])
        self._reader, self._writer = await asyncio.open_connection(
            self._task.host, self._task.port, ssl=context
        )
        await self._reader.readline()
        await self._ask(b"EHLO client.example\r\n", 3)

    async def send(self, count: int) -> dict[str, Any]:
        """Send `count` messages, in slices that wait for each other."""
        for _ in range(count):
            if self._scans:
                survey(self._whole)
            await self._ask(b"MAIL FROM:<a@lab.test>\r\nRCPT TO:<b@lab.test>\r\nDATA\r\n", 3)
            for start in range(0, len(self._data), _SLICE):
                slice_ = self._data[start : start + _SLICE]
                self._writer.write(dots_doubled(bytes(slice_)) if self._scans else slice_)
                await self._writer.drain()
            self._writer.write(b".\r\n")
            assert (await self._reader.readline()).startswith(b"250")
        return {}

    async def close(self) -> None:
        """Disconnect without a word."""
        self._writer.transport.abort()

    async def _ask(self, commands: bytes, lines: int) -> None:
        self._writer.write(commands)
        for _ in range(lines):
            assert (await self._reader.readline())[:1] in b"23"


if __name__ == "__main__":
    serve(Streams)
