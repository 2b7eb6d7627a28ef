"""The contestant: `smtp_async`.

Modes: `send` gives prepared bytes to `client.send`, `raw` the same bytes to `send_raw`, `message` builds and renders
a `Message` for every call, `send_all` feeds one iterator of prepared bytes, `send_all_raw` one of `Raw`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sender import Task, serve, shares
from smtp_async import (
    NOBODY,
    ClientOptions,
    Envelope,
    Message,
    PoolLimits,
    Raw,
    Security,
    SendOptions,
    SMTPClient,
)
from smtp_async.model.content import Content


class Prepared:
    """A mail whose envelope and content are ready: what is left is the library's own work."""

    def __init__(self, task: Task) -> None:
        self._envelope = Envelope(task.sender, task.recipients)
        self._content = Content.of_bytes(task.data)

    def envelope(self) -> Envelope:
        """Return the envelope, the same for every message."""
        return self._envelope

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        """Return the content, the same for every message."""
        return self._content


def limits(task: Task) -> PoolLimits:
    """Return the default limits but for the number of connections and the window."""
    chosen: dict[str, Any] = {"max_connections": task.connections}
    if task.window > 1:
        chosen["window"] = task.window
    return PoolLimits(**chosen)


class Ours:
    """One client, many callers."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._mail = Prepared(task)
        self._text = task.data.partition(b"\r\n\r\n")[2].decode().replace("\r\n", "\n")
        nobody = SendOptions(must_accept=NOBODY) if task.mode == "nobody" else SendOptions()
        options = ClientOptions(pool=limits(task), hello="client.example", send=nobody)
        self._client = SMTPClient(task.host, task.port, security=Security.PLAINTEXT, options=options)

    async def open(self) -> None:
        """Open every connection: one message each, at once."""
        await asyncio.gather(*[self._client.send(self._mail) for _ in range(self._task.connections)])

    async def send(self, count: int) -> dict[str, Any]:
        """Send with as many callers as the task says."""
        before = self._client.statistics()
        if self._task.mode in ("send_all", "send_all_raw"):
            await self._send_all(count)
        else:
            call = {"raw": self._raw, "message": self._message}.get(self._task.mode, self._prepared)
            await asyncio.gather(*[call(part) for part in shares(count, self._task.callers)])
        after = self._client.statistics()
        assert after.sent - before.sent == count, after
        return {"flights": (after.round_trips - before.round_trips) / count}

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    async def _prepared(self, count: int) -> None:
        client, mail = self._client, self._mail
        for _ in range(count):
            await client.send(mail)

    async def _raw(self, count: int) -> None:
        client, task = self._client, self._task
        data, recipients = task.data, list(task.recipients)
        for _ in range(count):
            await client.send_raw(data, sender=task.sender, recipients=recipients)

    async def _message(self, count: int) -> None:
        client, task, text = self._client, self._task, self._text
        for _ in range(count):
            message = Message(sender=task.sender, to=task.recipients, subject="A benchmark", text=text)
            await client.send(message)

    async def _send_all(self, count: int) -> None:
        accepted = 0
        async for _, receipt in self._client.send_all(self._mails(count)):
            accepted += bool(receipt.accepted)
        assert accepted == count, accepted

    def _mails(self, count: int) -> Iterator[Any]:
        task = self._task
        data, recipients = task.data, list(task.recipients)
        for _ in range(count):
            yield Raw(data, task.sender, recipients) if task.mode == "send_all_raw" else self._mail


if __name__ == "__main__":
    serve(Ours)
