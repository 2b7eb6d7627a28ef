"""Proxies in the test's own loop, which relay for real and write down what they were asked."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Thread

from tests.transport.lab import Handler, encrypt, serving

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Asked:
    """What proxies were asked.

    Attributes:
        targets: host and port of each request that was granted.
        heads: the whole head of each CONNECT.
    """

    def __init__(self) -> None:
        self.targets: list[tuple[str, int]] = []
        self.heads: list[str] = []


async def relay(client: Streams, host: str, port: int, granted: bytes, asked: Asked) -> None:
    """Connect to the target, say so, and carry bytes both ways until one side closes."""
    asked.targets.append((host, port))
    server = await asyncio.open_connection(host, port)
    try:
        client[1].write(granted)
        pumps = [
            asyncio.ensure_future(pump(client[0], server[1])),
            asyncio.ensure_future(pump(server[0], client[1])),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in pumps:
                one.cancel()
            await asyncio.wait(pumps)
    finally:
        server[1].transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def socks5(asked: Asked, account: tuple[str, str] | None = None) -> Handler:
    """RFC 1928, and RFC 1929 where there is an account."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 0 if account is None else 2
        writer.write(bytes([5, wanted if wanted in methods else 255]))
        if wanted not in methods:
            return
        if account is not None:
            assert (await reader.readexactly(1)) == b"\x01"
            given = [await reader.readexactly((await reader.readexactly(1))[0]) for _ in range(2)]
            right = tuple(one.decode() for one in given) == account
            writer.write(bytes([1, 0 if right else 1]))
            if not right:
                return
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        port = int.from_bytes(await reader.readexactly(2), "big")
        await relay((reader, writer), host, port, b"\x05\0\0\x01" + bytes(6), asked)

    return handler


def socks4(asked: Asked) -> Handler:
    """SOCKS4 and its extension for names."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(8)
        await reader.readuntil(b"\0")
        host = str(ipaddress.ip_address(head[4:]))
        if head[4:7] == b"\0\0\0":
            host = (await reader.readuntil(b"\0"))[:-1].decode()
        port = int.from_bytes(head[2:4], "big")
        await relay((reader, writer), host, port, b"\0\x5a" + bytes(6), asked)

    return handler


def http(
    asked: Asked,
    account: str = "",
    *,
    version: str = "1.1",
    refusal: Callable[[str], bytes] | None = None,
    behind: bytes = b"",
) -> Handler:
    """CONNECT, with Basic where there is an account.

    Args:
        asked: where requests are written down.
        account: user and password with a colon between.
        version: with "1.0" the connection is closed after a 407.
        refusal: makes the whole reply of a head; an empty one grants the request.
        behind: what follows the 200 in the same write.
    """
    wanted = f"Basic {b64encode(account.encode()).decode()}"

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            asked.heads.append(head)
            if refusal is not None and (reply := refusal(head)):
                writer.write(reply)
                await writer.drain()
                continue
            if account and f"Proxy-Authorization: {wanted}\r\n" not in head:
                body = b"" if version == "1.0" else b"Content-Length: 4\r\n"
                writer.write(
                    b"HTTP/%b 407 no\r\nProxy-Authenticate: Basic\r\n%b\r\nbody" % (version.encode(), body)
                )
                if version == "1.0":
                    await writer.drain()
                    return
                continue
            target = head.split(" ")[1]
            host, _, port = target.rpartition(":")
            granted = f"HTTP/{version} 200 Connection established\r\nVia: lab\r\n\r\n".encode() + behind
            await relay((reader, writer), host.strip("[]"), int(port), granted, asked)
            return

    return handler


def over_tls(context: ssl.SSLContext, handler: Handler) -> Handler:
    """The same over TLS."""

    async def encrypted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await encrypt(writer, context)
        await handler(reader, writer)

    return encrypted


def answers(*replies: bytes, close: bool = True) -> Handler:
    """A proxy that reads before each of its replies, whatever comes, and closes or falls silent behind the last."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            await reader.read(65536)
            writer.write(reply)
            await writer.drain()
        while not close and await reader.read(65536):
            pass

    return handler


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A proxy that never answers."""
    while await reader.read(65536):
        pass


@contextlib.contextmanager
def in_a_thread(handler: Handler) -> Iterator[int]:
    """Run a proxy in an event loop of its own; yield its port."""
    started: Future[int] = Future()
    over = asyncio.Event()

    async def run() -> None:
        async with serving(handler) as server:
            started.set_result(server.port)
            await over.wait()

    with asyncio.Runner() as runner:
        thread = Thread(target=runner.run, args=(run(),))
        thread.start()
        try:
            yield started.result(10)
        finally:
            runner.get_loop().call_soon_threadsafe(over.set)
            thread.join()
