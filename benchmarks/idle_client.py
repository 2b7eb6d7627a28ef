"""The clients of `idle.py`: open connections, send one message on each, print what a connection weighs in bytes.

One connection is opened before the first look at the memory, so that modules and tables do not count.
"""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ours import Prepared
from benchmarks.sender import Task, rss
from smtp_async import ClientOptions, PoolLimits, Security, SMTPClient, TLSOptions

_Opener = Callable[[int], Awaitable[object]]


def _weight(before: int, opened: int) -> float:
    gc.collect()
    return (rss() - before) / opened


async def _measure(first: _Opener, rest: _Opener, count: int) -> float:
    kept = [await first(1)]
    await asyncio.sleep(0.2)
    gc.collect()
    before = rss()
    kept.append(await rest(count))
    # What was closed or cancelled is dropped in the loop's next turns.
    await asyncio.sleep(0.5)
    return _weight(before, count)


async def _in_portions(one: Callable[[], Awaitable[object]], count: int) -> list[object]:
    """Open `count`, few at once: what a crowd of handshakes needs would count for the sessions."""
    opened: list[object] = []
    while len(opened) < count:
        opened += await asyncio.gather(*[one() for _ in range(min(10, count - len(opened)))])
    return opened


async def _ours(task: Task, context: ssl.SSLContext | None) -> float:
    mail = Prepared(task)

    async def open_sessions(count: int) -> object:
        client = SMTPClient(
            task.host if context is None else "localhost",
            task.port,
            security=Security.PLAINTEXT if context is None else Security.IMPLICIT,
            options=ClientOptions(
                tls=TLSOptions(context=context),
                pool=PoolLimits(max_connections=count),
                hello="client.example",
            ),
        )

        async def one() -> object:
            # As the pool's own sessions, but none is used twice: no crowd of callers is needed to have many.
            holder = client.session()
            session = await holder.__aenter__()
            await session.connect()
            await session.send(mail)
            return holder

        return await _in_portions(one, count)

    return await _measure(open_sessions, open_sessions, task.connections)


async def _bare(task: Task, context: ssl.SSLContext | None) -> float:
    envelope = f"MAIL FROM:<{task.sender}>\r\nRCPT TO:<{task.recipients[0]}>\r\nDATA\r\n".encode()

    async def one() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            task.host, task.port, ssl=context, server_hostname=None if context is None else "localhost"
        )
        await reader.readline()
        for data, lines in ((b"EHLO client.example\r\n", 3), (envelope, 3), (task.data + b".\r\n", 1)):
            writer.write(data)
            for _ in range(lines):
                await reader.readline()
        return reader, writer

    async def open_streams(count: int) -> object:
        return await _in_portions(one, count)

    return await _measure(open_streams, open_streams, task.connections)


def _main() -> None:
    who, authority = sys.argv[1:]
    task = Task(**json.load(sys.stdin))
    context = ssl.create_default_context(cafile=authority) if task.mode == "tls" else None
    print(asyncio.run({"ours": _ours, "bare": _bare}[who](task, context)))


if __name__ == "__main__":
    _main()
