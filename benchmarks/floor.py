"""The yardstick: the same bytes on the same sockets, pipelined the same way, and nothing else.

StreamReader and StreamWriter, one task per connection; body, dot and the next envelope in one write; replies are
counted, not read. No queue, no callers, no outcomes, no deadlines: no client can be cheaper on these streams.
Mode `alone` sends as one lone caller would make a client do: the envelope, its replies, the body, its reply. Mode
`small` has asyncio read 64 KiB at a time instead of 256: the larger buffer is mapped and unmapped for every read.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sender import Task, serve, shares

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Floor:
    """Bare streams."""

    def __init__(self, task: Task) -> None:
        self._task = task
        rcpts = "".join(f"RCPT TO:<{one}>\r\n" for one in task.recipients)
        self._envelope = f"MAIL FROM:<{task.sender}>\r\n{rcpts}DATA\r\n".encode()
        self._body = task.data + b".\r\n"
        self._replies = len(task.recipients) + 2
        self._streams: list[_Streams] = []

    async def open(self) -> None:
        """Connect and say EHLO."""
        for _ in range(self._task.connections):
            reader, writer = await asyncio.open_connection(self._task.host, self._task.port)
            await reader.readline()
            writer.write(b"EHLO client.example\r\n")
            while (await reader.readline())[3:4] == b"-":
                pass
            if self._task.mode == "small" and hasattr(writer.transport, "max_size"):
                writer.transport.max_size = 65536
            self._streams.append((reader, writer))

    async def send(self, count: int) -> dict[str, Any]:
        """Share the messages among the connections."""
        one = self._alone if self._task.mode == "alone" else self._pipelined
        parts = shares(count, len(self._streams))
        await asyncio.gather(*[one(*pair, part) for pair, part in zip(self._streams, parts, strict=True)])
        return {}

    async def close(self) -> None:
        """Disconnect without a word."""
        for _, writer in self._streams:
            writer.transport.abort()

    async def _pipelined(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int
    ) -> None:
        writer.write(self._envelope)
        await _lines(reader, self._replies)
        both = self._body + self._envelope
        for _ in range(count - 1):
            writer.write(both)
            await _lines(reader, self._replies + 1)
        writer.write(self._body)
        await _lines(reader, 1)

    async def _alone(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int) -> None:
        for _ in range(count):
            writer.write(self._envelope)
            await _lines(reader, self._replies)
            writer.write(self._body)
            await _lines(reader, 1)


async def _lines(reader: asyncio.StreamReader, count: int) -> None:
    while count:
        data = await reader.read(65536)
        if not data or data[:1] not in b"23":
            raise ConnectionError(repr(data))
        count -= data.count(b"\n")


if __name__ == "__main__":
    serve(Floor)
