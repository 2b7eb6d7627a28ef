"""The process side of a contestant: open connections, then send on request and tell what it cost.

The benchmark writes one JSON line per request to standard input and reads one JSON line from standard output. The
first line is the task, every other one a round: `{"count": 5000}` is answered with seconds, CPU seconds and whatever
else the sender wants to tell. Standard library only: the rivals' environment runs this file too.
"""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol


class Task(NamedTuple):
    """What all contestants of a race have to do.

    Attributes:
        host, port: the server.
        connections: how many to open.
        callers: how many tasks call the library at once, where it allows more than connections.
        mode: which way of sending, for contestants that have several.
        loop: `asyncio` or `uvloop`.
        sender: the envelope's sender.
        recipients: the envelope's recipients.
        message: what is sent, complete, in base64.
        window: messages that one connection may have unanswered; 1 is the library's default.
    """

    host: str
    port: int
    connections: int = 10
    callers: int = 100
    mode: str = "send"
    loop: str = "asyncio"
    sender: str = "ann@example.com"
    recipients: tuple[str, ...] = ("bob@lab.test",)
    message: str = ""
    window: int = 1

    @property
    def data(self) -> bytes:
        """The message as bytes."""
        return base64.b64decode(self.message)


class Contestant(Protocol):
    """A way of sending."""

    async def open(self) -> None:
        """Connect, and whatever else comes before the first message."""

    async def send(self, count: int) -> dict[str, Any]:
        """Send `count` messages; what it returns is added to the answer.

        Raises:
            Exception: a message was not accepted.
        """

    async def close(self) -> None:
        """Disconnect."""


def serve(make: Callable[[Task], Contestant]) -> None:
    """Answer requests until standard input ends."""
    task = Task(**json.loads(sys.stdin.readline()))
    if task.loop == "uvloop":
        import uvloop

        uvloop.run(_serve(make(task)))
    else:
        asyncio.run(_serve(make(task)))


async def _serve(contestant: Contestant) -> None:
    loop = asyncio.get_running_loop()
    await contestant.open()
    _answer({"ready": True})
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        count = json.loads(line)["count"]
        _answer(await timed(contestant.send, count))
    await contestant.close()


async def timed(send: Callable[[int], Awaitable[dict[str, Any]]], count: int) -> dict[str, Any]:
    """Await `send(count)` and add to what it returns: seconds, user and system CPU seconds of this process."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    told = await send(count)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "user": after.ru_utime - before.ru_utime,
        "system": after.ru_stime - before.ru_stime,
        **told,
    }


def rss() -> int:
    """Return the memory of this process in bytes, as far as it is in RAM."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _answer(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def shares(count: int, parts: int) -> list[int]:
    """Cut `count` into `parts` nearly equal numbers."""
    return [count // parts + (index < count % parts) for index in range(parts)]
