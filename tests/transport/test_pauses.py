"""pauses.py: a limit of bytes per second stops reading, and TCP slows the server down."""

import asyncio
import contextlib
import time
from typing import Any

import pytest

from smtp_async import RateLimits
from smtp_async.transport import Stream, dial
from smtp_async.transport.throttle import ByteRate, ClientThrottle, Throttle
from tests.lab import LoopTimers
from tests.transport.lab import client_context, implicit, server_context, serving, turns

SERVER = server_context()
CLIENT = client_context()


def reading(rate: float) -> Throttle:
    return ClientThrottle(RateLimits(receive_rate=rate)).for_connection()


class Flood:
    """Writes without end; `written` says how much the system has taken."""

    def __init__(self) -> None:
        self.written = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A first byte, for a client that limits reading only behind it.
        writer.write(b"x")
        await reader.read(1)
        # uvloop raises RuntimeError where the client has gone.
        with contextlib.suppress(RuntimeError):
            while True:
                writer.write(bytes(32_768))
                await writer.drain()
                self.written += 32_768


async def flooded(server: Any, throttle: Throttle, *, encrypted: bool = False) -> Stream:
    """Return a stream that is limited before the flood begins."""
    stream = await dial("127.0.0.1", server.port)
    stream.limit_reading(throttle)
    if encrypted:
        await stream.start_tls(CLIENT, "localhost")
    assert await stream.read() == b"x"
    stream.write(b"x")
    return stream


async def read_for(stream: Stream, seconds: float) -> float:
    """Return the bytes per second that arrived."""
    start = time.monotonic()
    total = 0
    while (took := time.monotonic() - start) < seconds:
        total += len(await stream.read())
    return total / took


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_megabyte_per_second(run: Any, encrypted: bool) -> None:
    async def scenario() -> None:
        flood = Flood()
        async with serving(implicit(SERVER, flood) if encrypted else flood) as server:
            stream = await flooded(server, reading(1_000_000), encrypted=encrypted)
            await read_for(stream, 0.3)
            # On a busy machine it is less.
            assert 300_000 < await read_for(stream, 1.0) < (1_200_000 if encrypted else 1_100_000)
            stream.abort()

    run(scenario())


def test_the_server_is_slowed_down(run: Any) -> None:
    async def scenario() -> None:
        flood = Flood()
        async with serving(flood) as server:
            stream = await flooded(server, reading(1000))
            await stream.read()
            await turns(2000)
            # What the buffers of the system hold, and no more however long it lasts.
            held = flood.written
            await turns(2000)
            assert flood.written == held
            assert stream.traffic.received <= 65_537
            stream.abort()

    run(scenario())


def test_an_abort_during_a_pause_ends_it(run: Any) -> None:
    async def scenario() -> None:
        async with serving(Flood()) as server:
            stream = await flooded(server, reading(1000))
            timers = LoopTimers()
            await stream.read()
            assert len(timers.pending()) == 1
            stream.abort()
            await turns()
            assert timers.pending() == []

    run(scenario())


class Asked(Throttle):
    """Notes what it is asked about reading."""

    def __init__(self, limits: RateLimits, *receiving: ByteRate) -> None:
        super().__init__(ClientThrottle(limits), (), receiving)
        self.counts: list[int] = []

    def received(self, count: int, now: float) -> float:
        self.counts.append(count)
        return super().received(count, now)


@pytest.mark.parametrize("limited", [False, True])
def test_an_unlimited_direction_costs_nothing(run: Any, limited: bool) -> None:
    async def scenario() -> None:
        async with serving(Flood()) as server:
            throttle = Asked(RateLimits(send_rate=1), *[ByteRate(1e9)] * limited)
            stream = await flooded(server, throttle)
            while stream.traffic.received < 1_000_000:
                await stream.read()
            assert (throttle.counts != []) is limited
            stream.abort()

    run(scenario())
