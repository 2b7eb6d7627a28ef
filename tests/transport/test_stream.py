"""One connection, against a server in the same loop."""

import asyncio
import gc
import pickle
import socket
import threading
import tracemalloc
from typing import Any

import pytest

from smtp_async.errors import (
    ConnectionLost,
    DecryptionFailed,
    EncryptionFailed,
    HandshakeFailed,
    PlaintextInjected,
    Timeout,
)
from smtp_async.transport import Stream, dial, stream_over
from smtp_async.transport import stream as module
from tests.transport.lab import (
    MANNERS,
    cancelled_everywhere,
    client_context,
    echo,
    encrypt,
    implicit,
    reset,
    server_context,
    serving,
    sink,
    starttls,
    turns,
    until,
)

SERVER = server_context()
CLIENT = client_context()


async def read_exactly(stream: Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.read()
        assert piece, "the stream ended"
        data += piece
    return data


async def to_starttls(port: int) -> Stream:
    """Dial and go as far as the 220 to STARTTLS."""
    stream = await dial("127.0.0.1", port)
    assert await read_exactly(stream, 8) == b"220 hi\r\n"
    stream.write(b"STARTTLS\r\n")
    assert await read_exactly(stream, 8) == b"220 go\r\n"
    return stream


class TestBytes:
    def test_go_both_ways_and_are_counted(self, run):
        async def scenario():
            async with serving(echo) as server:
                stream: Any = await dial("127.0.0.1", server.port)
                assert stream.peer == ("127.0.0.1", server.port)
                assert stream.local[0] == "127.0.0.1"
                assert not stream.encrypted
                assert stream.ssl_object is None
                assert not stream.is_closing()
                stream.write(b"abc")
                stream.write(bytearray(b"de"))
                stream.write(memoryview(b"f"))
                await stream.drain()
                assert await read_exactly(stream, 6) == b"abcdef"
                assert (stream.traffic.sent, stream.traffic.received) == (6, 6)
                assert "plain sent=6 received=6" in repr(stream)
                await stream.close()
                assert "closed" in repr(stream)

        run(scenario())

    def test_read_takes_at_most_n(self, run):
        async def scenario():
            async with serving(echo) as server:
                stream = await dial("127.0.0.1", server.port)
                stream.write(b"abcdef")
                assert await stream.read(2) == b"ab"
                assert await read_exactly(stream, 4) == b"cdef"
                await stream.close()

        run(scenario())

    def test_end_of_stream_is_empty(self, run):
        async def goodbye(reader, writer):
            writer.write(b"221 bye\r\n")
            writer.close()

        async def scenario():
            async with serving(goodbye) as server:
                stream = await dial("127.0.0.1", server.port)
                assert await read_exactly(stream, 9) == b"221 bye\r\n"
                assert await stream.read() == b""
                assert await stream.read() == b""
                await stream.close()

        run(scenario())

    def test_bytes_before_a_reset_are_delivered_first(self, run):
        async def cut(reader, writer):
            writer.write(b"421 too many errors\r\n")
            await reader.read(1)
            reset(writer)

        async def scenario():
            async with serving(cut) as server:
                stream = await dial("127.0.0.1", server.port)
                stream.write(b"x")
                await until(stream.is_closing)
                assert await stream.read() == b"421 too many errors\r\n"
                with pytest.raises(ConnectionLost) as caught:
                    await stream.read()
                assert isinstance(caught.value.__cause__, ConnectionResetError)
                assert caught.value.temporary
                with pytest.raises(ConnectionLost):
                    stream.write(b"x")
                with pytest.raises(ConnectionLost):
                    await stream.drain()
                await stream.close()

        run(scenario())

    def test_a_second_reader_is_refused(self, run):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port)
                first = asyncio.ensure_future(stream.read())
                await turns()
                with pytest.raises(RuntimeError):
                    await stream.read()
                stream.abort()
                assert await first == b""

        run(scenario())

    @pytest.mark.parametrize(("manner", "moment"), MANNERS)
    def test_cancelling_a_read_loses_nothing(self, run, manner, moment):
        async def scenario():
            async with serving(echo) as server:
                stream = await dial("127.0.0.1", server.port)
                received = b""

                async def ask():
                    stream.write(b"abc")

                async def three():
                    nonlocal received
                    while len(received) % 3 or not received:
                        received += await stream.read(1)

                async for step in cancelled_everywhere(three, manner, moment, prepare=ask):
                    while len(received) < 3:
                        received += await stream.read(1)
                    assert received == b"abc", f"cancelled at await {step.at}"
                    received = b""
                await stream.close()

        run(scenario())

    def test_drain_waits_for_the_peer_and_may_be_cancelled(self, run):
        async def scenario():
            go = asyncio.Event()
            total = 0

            async def late(reader, writer):
                nonlocal total
                await go.wait()
                while data := await reader.read(65536):
                    total += len(data)

            async with serving(late) as server:
                stream = await dial("127.0.0.1", server.port)
                stream.write(bytes(16 << 20))
                for _ in range(2):
                    draining = asyncio.ensure_future(stream.drain())
                    await turns(20)
                    assert not draining.done()
                    draining.cancel()
                    await asyncio.wait({draining})
                both = [asyncio.ensure_future(stream.drain()) for _ in range(2)]
                go.set()
                await asyncio.gather(*both)
                await stream.close(limit=15)
                await server.quiet()
                assert total == 16 << 20

        run(scenario())

    def test_what_the_loop_raises_becomes_ours(self, run, monkeypatch):
        import ssl

        async def scenario():
            async with serving(sink) as server:
                stream: Any = await dial("127.0.0.1", server.port)

                class Broken:
                    def __init__(self, error):
                        self.error = error

                    def is_closing(self):
                        return False

                    def write(self, data):
                        raise self.error

                    async def drain(self):
                        raise self.error

                writer, transport = stream._writer, stream._transport
                for error, expected in [
                    (RuntimeError("unable to perform operation"), ConnectionLost),
                    (OSError("broken"), ConnectionLost),
                    (ssl.SSLError(1, "bad"), EncryptionFailed),
                ]:
                    stream._writer = stream._transport = Broken(error)
                    with pytest.raises(expected) as caught:
                        stream.write(b"x")
                    assert caught.value.__cause__ is error
                    with pytest.raises(expected):
                        await stream.drain()
                    pickle.loads(pickle.dumps(caught.value))
                stream._writer, stream._transport = writer, transport
                assert stream.traffic.sent == 0
                await stream.close()

        run(scenario())


def how_it_ends(listener: socket.socket, hold: threading.Event | None = None) -> tuple[bytes, str]:
    """Take one connection under TLS, in a thread: return what came, and how it ended. Read only after `hold`."""
    connection, _ = listener.accept()
    received = b""
    with SERVER.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as tls:
        tls.sendall(b"220 ")
        if hold is not None:
            hold.wait()
        try:
            while data := tls.recv(65536):
                received += data
        except OSError:
            return received, "cut"
    return received, "close_notify"


class TestEnd:
    def test_abort_is_at_once_and_final(self, run):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port)
                reading = asyncio.ensure_future(stream.read())
                await turns()
                stream.abort()
                stream.abort()
                assert stream.is_closing()
                with pytest.raises(ConnectionLost):
                    stream.write(b"x")
                with pytest.raises(ConnectionLost):
                    await stream.drain()
                assert await reading == b""
                await server.quiet()
                await stream.close()

        run(scenario())

    @pytest.mark.parametrize("spoken", [b"", b"QUIT\r\n"])
    def test_abort_of_tls_tells_the_peer(self, run, spoken):
        """A peer must be able to tell the end of a connection from one that was cut."""

        async def scenario():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                ended = asyncio.ensure_future(asyncio.to_thread(how_it_ends, listener))
                stream = await dial("127.0.0.1", listener.getsockname()[1])
                await stream.start_tls(CLIENT, "localhost")
                assert await read_exactly(stream, 4) == b"220 "
                if spoken:
                    stream.write(spoken)
                stream.abort()
                assert stream.is_closing()
                assert await ended == (spoken, "close_notify")
                assert await stream.read() == b""

        run(scenario())

    def test_abort_of_tls_behind_what_cannot_leave_is_a_cut(self, run):
        async def scenario():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                hold = threading.Event()
                ended = asyncio.ensure_future(asyncio.to_thread(how_it_ends, listener, hold))
                stream = await dial("127.0.0.1", listener.getsockname()[1])
                await stream.start_tls(CLIENT, "localhost")
                assert await read_exactly(stream, 4) == b"220 "
                stream.write(bytes(16 << 20))
                stream.abort()
                hold.set()
                received, end = await ended
                assert len(received) < 16 << 20
                assert end == "cut"

        run(scenario())

    def test_close_sends_what_is_buffered(self, run):
        async def scenario():
            received = b""

            async def collect(reader, writer):
                nonlocal received
                received = await reader.read(-1)

            async with serving(collect) as server:
                stream = await dial("127.0.0.1", server.port)
                stream.write(b"x" * 1_000_000)
                await stream.close(limit=10)
                await server.quiet()
                assert len(received) == 1_000_000

        run(scenario())

    def test_close_and_abort_after_more_than_the_socket_holds(self, run):
        async def scenario():
            closing = asyncio.Event()
            total = 0

            async def late(reader, writer):
                nonlocal total
                await closing.wait()
                while data := await reader.read(65536):
                    total += len(data)

            async with serving(late) as server:
                stream = await dial("127.0.0.1", server.port)
                stream.write(bytes(16 << 20))
                close = asyncio.ensure_future(stream.close(limit=15))
                await until(stream.is_closing)
                closing.set()
                await close
                stream.abort()
                await server.quiet()
                assert total == 16 << 20

        run(scenario())

    def test_close_has_a_limit(self, run):
        async def scenario():
            never = asyncio.Event()

            async def deaf(reader, writer):
                await never.wait()

            async with serving(deaf) as server:
                stream = await dial("127.0.0.1", server.port)
                stream.write(bytes(16 << 20))
                started = asyncio.get_running_loop().time()
                await stream.close(limit=0.05)
                assert asyncio.get_running_loop().time() - started < 1
                assert stream.is_closing()
                never.set()

        run(scenario())

    def test_close_of_tls_does_not_wait_for_a_mute_peer(self, run):
        async def scenario():
            never = asyncio.Event()

            async def deaf(reader, writer):
                writer.transport.pause_reading()
                await never.wait()

            async with serving(implicit(SERVER, deaf)) as server:
                stream = await dial("127.0.0.1", server.port)
                await stream.start_tls(CLIENT, "localhost")
                started = asyncio.get_running_loop().time()
                await stream.close(limit=0.05)
                assert asyncio.get_running_loop().time() - started < 1
                never.set()

        run(scenario())

    def test_close_again_and_together(self, run):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port)
                await asyncio.gather(stream.close(), stream.close())
                await stream.close()
                assert await stream.read() == b""

        run(scenario())

    def test_close_swallows_the_error_of_the_connection(self, run):
        async def cut(reader, writer):
            await reader.read(1)
            reset(writer)

        async def scenario():
            async with serving(cut) as server:
                stream = await dial("127.0.0.1", server.port)
                stream.write(b"x")
                await until(stream.is_closing)
                await stream.close()

        run(scenario())

    @pytest.mark.parametrize(("manner", "moment"), MANNERS)
    def test_a_cancelled_close_aborts(self, run, manner, moment):
        async def scenario():
            async with serving(implicit(SERVER, sink)) as server:
                streams = []

                async def prepare():
                    streams.append(await dial("127.0.0.1", server.port))
                    await streams[-1].start_tls(CLIENT, "localhost")

                async for _ in cancelled_everywhere(
                    lambda: streams[-1].close(), manner, moment, prepare=prepare
                ):
                    assert streams[-1].is_closing()
                    await server.quiet()
                    await streams[-1].close()

        run(scenario())


class TestTLS:
    @pytest.mark.parametrize("way", [starttls, implicit])
    def test_upgrade(self, run, way):
        async def scenario():
            async with serving(way(SERVER, echo)) as server:
                stream: Any
                if way is starttls:
                    stream = await to_starttls(server.port)
                else:
                    stream = await dial("127.0.0.1", server.port)
                sent = stream.traffic.sent
                await stream.start_tls(CLIENT, "localhost")
                gc.collect()
                assert stream.encrypted
                assert "TLS" in repr(stream)
                assert stream.ssl_object.version() == "TLSv1.3"
                assert stream.peer == ("127.0.0.1", server.port)
                stream.write(b"x" * 300_000)
                await stream.drain()
                assert await read_exactly(stream, 300_000) == b"x" * 300_000
                assert stream.traffic.sent - sent == 300_000
                await stream.close()
                assert await stream.read() == b""
                # Still readable afterwards.
                assert stream.ssl_object.cipher()
                await server.quiet()

        run(scenario())

    def test_server_may_speak_at_once(self, run):
        async def greet(reader, writer):
            writer.write(b"220 hello\r\n")
            await sink(reader, writer)

        async def scenario():
            async with serving(implicit(SERVER, greet)) as server:
                stream = await dial("127.0.0.1", server.port)
                await stream.start_tls(CLIENT, "localhost")
                assert await read_exactly(stream, 11) == b"220 hello\r\n"
                stream.abort()
                await server.quiet()

        run(scenario())

    @pytest.mark.parametrize("extra", [b"X", b"250-AUTH PLAIN\r\n250 OK\r\n", b"\x16"])
    def test_plaintext_behind_the_reply_is_refused(self, run, extra):
        async def scenario():
            async with serving(starttls(SERVER, sink, reply=b"220 go\r\n" + extra)) as server:
                stream = await dial("127.0.0.1", server.port)
                assert await read_exactly(stream, 8) == b"220 hi\r\n"
                stream.write(b"STARTTLS\r\n")
                # The parser takes the reply and leaves the rest.
                assert await stream.read(8) == b"220 go\r\n"
                with pytest.raises(PlaintextInjected) as caught:
                    await stream.start_tls(CLIENT, "localhost")
                assert caught.value.stage == "STARTTLS"
                assert stream.early == extra
                assert stream.is_closing()
                assert not stream.encrypted
                assert await stream.read() == b""
                await server.quiet()
                await stream.close()

        run(scenario())

    def test_plaintext_that_comes_later_breaks_the_handshake(self, run):
        async def scenario():
            go = asyncio.Event()

            async def late(reader, writer):
                writer.write(b"220 hi\r\n")
                await reader.readline()
                writer.write(b"220 go\r\n")
                await go.wait()
                writer.write(b"250-AUTH PLAIN\r\n250 OK\r\n")
                await sink(reader, writer)

            async with serving(late) as server:
                stream = await to_starttls(server.port)
                upgrade = asyncio.ensure_future(stream.start_tls(CLIENT, "localhost"))
                await turns()
                go.set()
                with pytest.raises(HandshakeFailed):
                    await upgrade
                assert not stream.encrypted
                assert await stream.read() == b""
                await server.quiet()
                await stream.close()

        run(scenario())

    def test_server_that_closed_behind_the_reply(self, run):
        async def leave(reader, writer):
            writer.write(b"220 hi\r\n")
            await reader.readline()
            writer.write(b"220 go\r\n")
            writer.close()

        async def scenario():
            async with serving(leave) as server:
                stream = await to_starttls(server.port)
                await until(lambda: stream._reader.at_eof())
                with pytest.raises(ConnectionLost):
                    await stream.start_tls(CLIENT, "localhost")
                assert stream.is_closing()
                await stream.close()

        run(scenario())

    def test_server_that_closes_in_the_handshake(self, run):
        async def leave(reader, writer):
            await reader.read(1)
            writer.close()

        async def scenario():
            async with serving(leave) as server:
                stream = await dial("127.0.0.1", server.port)
                with pytest.raises(HandshakeFailed) as caught:
                    await stream.start_tls(CLIENT, "localhost")
                assert isinstance(caught.value.__cause__, ConnectionError)
                await stream.close()

        run(scenario())

    def test_deadline(self, run):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port)
                loop = asyncio.get_running_loop()
                with pytest.raises(Timeout) as caught:
                    await stream.start_tls(CLIENT, "localhost", deadline=loop.time() + 0.05)
                assert caught.value.stage == "tls"
                assert isinstance(caught.value, TimeoutError)
                await server.quiet()
                with pytest.raises(ConnectionLost):
                    stream.write(b"x")
                await stream.close()

        run(scenario())

    def test_abort_in_the_handshake(self, run):
        async def scenario():
            async with serving(sink) as server:
                stream = await dial("127.0.0.1", server.port)
                upgrade = asyncio.ensure_future(stream.start_tls(CLIENT, "localhost"))
                await turns()
                stream.abort()
                with pytest.raises(HandshakeFailed):
                    await upgrade
                await server.quiet()
                await stream.close()

        run(scenario())

    def test_a_name_that_cannot_be_one(self, run):
        async def scenario():
            async with serving(implicit(SERVER, sink)) as server:
                stream = await dial("127.0.0.1", server.port)
                with pytest.raises(HandshakeFailed):
                    await stream.start_tls(CLIENT, ".localhost")
                await server.quiet()
                await stream.close()

        run(scenario())

    def test_broken_record(self, run):
        async def scenario():
            async def garbage(reader, writer):
                raw = writer.transport
                await encrypt(writer, SERVER)
                writer.write(b"220 hello\r\n")
                await reader.read(1)
                raw.write(b"\x17\x03\x03\x00\x20" + bytes(32))
                await sink(reader, writer)

            async with serving(garbage) as server:
                stream = await dial("127.0.0.1", server.port)
                await stream.start_tls(CLIENT, "localhost")
                assert await read_exactly(stream, 11) == b"220 hello\r\n"
                stream.write(b"x")
                with pytest.raises(DecryptionFailed):
                    await stream.read()
                await stream.close()

        run(scenario())

    @pytest.mark.parametrize(("manner", "moment"), MANNERS)
    def test_cancelled_anywhere_the_connection_is_gone(self, run, manner, moment):
        async def scenario():
            async with serving(starttls(SERVER, sink)) as server:
                streams = []

                async def prepare():
                    streams.append(await to_starttls(server.port))

                async def upgrade():
                    await streams[-1].start_tls(CLIENT, "localhost")

                async for step in cancelled_everywhere(upgrade, manner, moment, prepare=prepare):
                    if not step.injected:
                        streams[-1].abort()
                    assert streams[-1].is_closing()
                    # The server has read to the end: our socket is closed.
                    await server.quiet()
                    await streams[-1].close()
                assert len(streams) > 1

        run(scenario())


def test_idle_costs_little(run):
    async def scenario():
        pairs = [socket.socketpair() for _ in range(100)]
        for ours, _ in pairs:
            ours.setblocking(False)
        (await stream_over(pairs[0][0])).abort()
        await turns()
        gc.collect()
        tracemalloc.start()
        streams = [await stream_over(ours) for ours, _ in pairs[1:]]
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size / len(streams) <= 12 * 1024
        for stream in streams:
            stream.abort()
        for _, theirs in pairs:
            theirs.close()
        await turns()

    run(scenario())


@pytest.mark.parametrize(
    ("name", "endpoint", "shown"),
    [
        (("192.0.2.1", 25), ("192.0.2.1", 25), "192.0.2.1:25"),
        (("::1", 25, 0, 0), ("::1", 25), "[::1]:25"),
        ("/run/lmtp", "/run/lmtp", "/run/lmtp"),
        ("", None, "the server"),
        (None, None, "the server"),
    ],
)
def test_endpoints(name, endpoint, shown):
    assert module._endpoint(name) == endpoint
    assert module._named(endpoint) == shown
