"""What every transport must do, as tests that any stream runs.

A transport is an object with the methods of `smtp_async.transport.Stream`. Derive from `StreamContract` with a fixture
`connected`, which connects such an object to a peer:

    class TestMyStream(StreamContract):
        @pytest.fixture
        def connected(self):
            @asynccontextmanager
            async def connected(peer):
                async with await asyncio.start_server(peer, "127.0.0.1", 0) as server:
                    yield await my_dial("127.0.0.1", server.sockets[0].getsockname()[1])

            return connected

The peer is a callback of `asyncio.start_server`, called with the reader and the writer of the server's end. The tests
end both ends; the fixture closes the server. A stream that has `start_tls` runs `UpgradeContract` too.

The tests are coroutines; pytest needs a plugin that runs them (pytest-asyncio in its `auto` mode, or anyio).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import AsyncIterator
from typing import ClassVar, Final

from ..errors import ConnectionLost
from ..transport.stream import Stream
from .faults import CancelManner, CancelMoment, cancellations, run_cancelled_at
from .stream_peers import (
    BLOCK,
    LIMIT,
    MORE_THAN_BUFFERS,
    Connected,
    collect,
    deaf_until,
    echo,
    exactly,
    expected,
    filled,
    says,
    talking,
    turns,
    until,
)

__all__ = ["StreamContract"]

CANCELLATIONS: Final = tuple(itertools.product(CancelManner, CancelMoment))


class StreamContract:
    """Tests of a transport: derive from it, with a fixture `connected`.

    Attributes:
        half_close: the stream can still be written to after the peer has ended its own direction, as over TCP. asyncio
            closes a TLS connection at once.
    """

    half_close: ClassVar[bool] = True

    def cut(self, writer: asyncio.StreamWriter) -> None:
        """End the connection from the server's side as a failure: by RST, or with bytes left unread.

        Called when the writer's transport does not read and the client has sent something.
        """
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    @contextlib.asynccontextmanager
    async def _cut_off(self, connected: Connected, last_words: bytes) -> AsyncIterator[Stream]:
        """Yield a stream whose peer has said `last_words` and cut the connection."""
        deaf, go = asyncio.Event(), asyncio.Event()

        async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(last_words)
            deaf.set()
            await go.wait()
            self.cut(writer)

        async with talking(connected, peer) as (stream, _):
            await deaf.wait()
            stream.write(b"unread")
            await turns()
            go.set()
            await until(stream.is_closing)
            yield stream

    # --- bytes ---

    async def test_bytes_go_both_ways_in_order_and_are_counted(self, connected: Connected) -> None:
        async with talking(connected, echo) as (stream, _):
            before = stream.traffic.sent, stream.traffic.received
            for data in (b"abc", bytearray(b"de"), memoryview(b"f")):
                stream.write(data)
            await stream.drain()
            assert await exactly(stream, 6) == b"abcdef"
            assert (stream.traffic.sent - before[0], stream.traffic.received - before[1]) == (6, 6)

    async def test_a_large_amount_arrives_whole(self, connected: Connected) -> None:
        data = bytes(range(256)) * 4096
        async with talking(connected, echo) as (stream, _):
            reading = asyncio.ensure_future(exactly(stream, len(data)))
            for start in range(0, len(data), 50_000):
                stream.write(data[start : start + 50_000])
                await stream.drain()
            assert await reading == data

    async def test_read_returns_at_most_the_bytes_asked_for(self, connected: Connected) -> None:
        async with talking(connected, echo) as (stream, _):
            stream.write(b"abcdef")
            first = await stream.read(2)
            assert 1 <= len(first) <= 2
            assert first + await exactly(stream, 6 - len(first)) == b"abcdef"

    async def test_read_waits_for_at_least_one_byte(self, connected: Connected) -> None:
        async with talking(connected, echo) as (stream, _):
            reading = asyncio.ensure_future(stream.read())
            await turns()
            assert not reading.done()
            stream.write(b"x")
            assert await reading == b"x"

    async def test_an_open_stream_says_so(self, connected: Connected) -> None:
        async with talking(connected, echo) as (stream, _):
            assert not stream.is_closing()
            assert not stream.ended
            assert stream.encrypted is (stream.ssl_object is not None)

    async def test_cancelling_a_read_loses_nothing(self, connected: Connected) -> None:
        async with talking(connected, echo) as (stream, _):
            received = b""

            async def ask() -> None:
                nonlocal received
                stream.write(b"abc")
                while len(received) < 3:
                    received += await stream.read(1)

            for manner, moment in CANCELLATIONS:
                async for run in cancellations(ask, manner=manner, moment=moment):
                    received += await exactly(stream, 3 - len(received))
                    assert received == b"abc", f"cancelled at await {run.at}, {manner.value}, {moment.value}"
                    received = b""

    # --- backpressure ---

    async def test_drain_does_not_wait_while_little_is_unsent(self, connected: Connected) -> None:
        never = asyncio.Event()
        async with talking(connected, deaf_until(never)) as (stream, _):
            stream.write(b"x")
            await stream.drain()
            never.set()

    async def test_drain_waits_for_the_peer_in_any_number_of_tasks(self, connected: Connected) -> None:
        heard = asyncio.Event()
        async with talking(connected, deaf_until(heard)) as (stream, peer):
            first, written = await filled(stream)
            others = [asyncio.ensure_future(stream.drain()) for _ in range(2)]
            await turns()
            assert not any(task.done() for task in (first, *others))
            heard.set()
            await asyncio.gather(first, *others)
            await stream.close(limit=LIMIT)
            assert await peer == written

    async def test_cancelling_a_drain_loses_nothing(self, connected: Connected) -> None:
        heard = asyncio.Event()
        async with talking(connected, deaf_until(heard)) as (stream, peer):
            draining, written = await filled(stream)
            for _ in range(2):
                assert draining.cancel()
                await asyncio.wait({draining})
                draining = asyncio.ensure_future(stream.drain())
                await turns()
            heard.set()
            await draining
            await stream.close(limit=LIMIT)
            assert await peer == written

    async def test_a_peer_is_held_back_while_nothing_is_read(self, connected: Connected) -> None:
        drained = asyncio.Event()

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(MORE_THAN_BUFFERS // len(BLOCK)):
                writer.write(BLOCK)
                await writer.drain()
            drained.set()
            await reader.read()

        async with talking(connected, flood) as (stream, _):
            assert len(await stream.read(1)) == 1
            await turns(200)
            assert not drained.is_set()
            left = MORE_THAN_BUFFERS - 1
            while left:
                piece = await stream.read()
                assert piece, f"{left} bytes are missing"
                left -= len(piece)
            await drained.wait()

    # --- the peer ends the connection ---

    async def test_the_end_of_the_stream_is_empty_and_stays_so(self, connected: Connected) -> None:
        async with talking(connected, says(b"221 bye\r\n")) as (stream, _):
            assert await exactly(stream, 9) == b"221 bye\r\n"
            assert await stream.read() == b""
            assert await stream.read() == b""
            assert stream.ended

    async def test_a_stream_has_not_ended_while_bytes_are_unread(self, connected: Connected) -> None:
        async with talking(connected, says(b"221 bye\r\n")) as (stream, peer):
            await peer
            assert len(await stream.read(1)) == 1
            assert not stream.ended
            assert await exactly(stream, 8) == b"21 bye\r\n"

    async def test_after_the_peers_end_bytes_arrive_or_are_refused(self, connected: Connected) -> None:
        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
            if writer.can_write_eof():
                writer.write_eof()
            else:
                writer.close()
            return await reader.read(-1)

        async with talking(connected, half) as (stream, peer):
            assert await stream.read() == b""
            if self.half_close:
                await turns()
                assert not stream.is_closing()
                stream.write(b"QUIT\r\n")
                await stream.close()
                assert await peer == b"QUIT\r\n"
            else:
                await until(stream.is_closing)
                with expected(ConnectionLost):
                    stream.write(b"QUIT\r\n")

    async def test_bytes_before_a_failure_are_read_first(self, connected: Connected) -> None:
        async with self._cut_off(connected, b"421 too many errors\r\n") as stream:
            assert await exactly(stream, 21) == b"421 too many errors\r\n"
            with expected(ConnectionLost) as caught:
                await stream.read()
            assert isinstance(caught[0].__cause__, OSError)
            assert caught[0].temporary

    async def test_a_broken_connection_refuses_bytes(self, connected: Connected) -> None:
        async with self._cut_off(connected, b"") as stream:
            sent = stream.traffic.sent
            with expected(ConnectionLost):
                stream.write(b"x")
            with expected(ConnectionLost):
                await stream.drain()
            assert stream.traffic.sent == sent

    async def test_close_does_not_raise_the_failure_of_the_connection(self, connected: Connected) -> None:
        async with self._cut_off(connected, b"") as stream:
            await stream.close()

    # --- the client ends the connection ---

    async def test_abort_is_at_once_and_final(self, connected: Connected) -> None:
        async with talking(connected, collect) as (stream, peer):
            reading = asyncio.ensure_future(stream.read())
            await turns()
            stream.abort()
            stream.abort()
            assert stream.is_closing()
            with expected(ConnectionLost):
                stream.write(b"x")
            with expected(ConnectionLost):
                await stream.drain()
            assert await reading == b""
            await peer
            await stream.close()

    async def test_close_sends_what_is_buffered(self, connected: Connected) -> None:
        async with talking(connected, collect) as (stream, peer):
            stream.write(b"x" * 1_000_000)
            await stream.close(limit=LIMIT)
            assert await peer == b"x" * 1_000_000

    async def test_read_is_empty_after_a_close_that_the_peer_answers_with_a_failure(
        self, connected: Connected
    ) -> None:
        closing = asyncio.Event()

        async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await closing.wait()
            self.cut(writer)

        async with talking(connected, rude) as (stream, _):
            stream.write(b"QUIT\r\n")
            close = asyncio.ensure_future(stream.close(limit=LIMIT))
            await turns()
            closing.set()
            await close
            assert await stream.read() == b""

    async def test_close_may_be_called_again_and_by_several_tasks(self, connected: Connected) -> None:
        async with talking(connected, collect) as (stream, peer):
            await asyncio.gather(stream.close(), stream.close())
            await stream.close()
            assert stream.is_closing()
            assert await stream.read() == b""
            assert await peer == b""

    async def test_close_waits_no_longer_than_its_limit(self, connected: Connected) -> None:
        never = asyncio.Event()
        async with talking(connected, deaf_until(never)) as (stream, peer):
            stream.write(bytes(MORE_THAN_BUFFERS))
            async with asyncio.timeout(LIMIT / 2):
                await stream.close(limit=0.05)
            assert stream.is_closing()
            never.set()
            assert await peer != MORE_THAN_BUFFERS

    async def test_abort_ends_a_close_that_waits(self, connected: Connected) -> None:
        never = asyncio.Event()
        async with talking(connected, deaf_until(never)) as (stream, _):
            stream.write(bytes(MORE_THAN_BUFFERS))
            closing = asyncio.ensure_future(stream.close(limit=LIMIT))
            await until(stream.is_closing)
            stream.abort()
            await closing
            never.set()

    async def test_a_cancelled_close_aborts(self, connected: Connected) -> None:
        for manner, moment in CANCELLATIONS:
            for at in itertools.count(1):
                async with talking(connected, collect) as (stream, peer):
                    run = await run_cancelled_at(at, stream.close, manner=manner, moment=moment)
                    assert stream.is_closing()
                    await peer
                    await stream.close()
                if not run.injected:
                    break

    # --- handing over ---

    async def test_what_arrives_is_handed_over_until_the_taker_refuses(self, connected: Connected) -> None:
        async with talking(connected, echo) as (stream, _):
            taken: list[bytes] = []

            def taker(data: bytes) -> bool:
                if data == b"enough":
                    return False
                taken.append(data)
                return True

            stream.hand_over(taker)
            reading = asyncio.ensure_future(stream.read())
            stream.write(b"one")
            await until(lambda: bool(taken))
            assert not reading.done()
            stream.write(b"enough")
            assert await reading == b"enough"
            stream.write(b"two")
            assert await exactly(stream, 3) == b"two"
            assert taken == [b"one"]
            assert stream.traffic.received == 12

    async def test_nothing_is_handed_over_after_it_was_ended(self, connected: Connected) -> None:
        async with talking(connected, echo) as (stream, _):
            taken: list[bytes] = []
            stream.hand_over(lambda data: not taken.append(data))  # type: ignore[func-returns-value]
            stream.write(b"one")
            await until(lambda: bool(taken))
            stream.hand_over(None)
            stream.write(b"two")
            assert await exactly(stream, 3) == b"two"
            assert taken == [b"one"]

    async def test_the_end_of_the_stream_wakes_a_reader_while_bytes_are_handed_over(
        self, connected: Connected
    ) -> None:
        async with talking(connected, collect) as (stream, peer):
            stream.hand_over(lambda data: True)
            reading = asyncio.ensure_future(stream.read())
            await turns()
            stream.abort()
            assert await reading == b""
            await peer
