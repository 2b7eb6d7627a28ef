"""One connection, against a server in the same loop: what `StreamContract` does not ask of every transport."""

import asyncio
import gc
import pickle
import socket
import ssl
import threading
import tracemalloc
from typing import Any

import pytest

from smtp_async.errors import (
    ConnectionLost,
    EncryptionFailed,
    HandshakeFailed,
)
from smtp_async.transport import Stream, dial, stream_over
from tests.transport.lab import (
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


class LoopTransport(asyncio.Transport):
    """A transport of the event loop whose `write` fails."""

    def __init__(
        self, *, peername: object = None, error: Exception | None = None, closing: bool = False
    ) -> None:
        super().__init__(extra={"peername": peername})
        self.protocol: Any = None
        self._error = error
        self._closing = closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: object) -> None:
        assert self._error is not None
        raise self._error

    def close(self) -> None:
        self._closing = True


async def stream_on(transport: LoopTransport, monkeypatch: pytest.MonkeyPatch) -> Stream:
    """Return a stream for which the event loop has made `transport`."""

    async def create_connection(factory, sock):
        transport.protocol = factory()
        transport.protocol.connection_made(transport)
        return transport, transport.protocol

    with monkeypatch.context() as patch, socket.socket() as sock:
        patch.setattr(asyncio.get_running_loop(), "create_connection", create_connection, raising=False)
        return await stream_over(sock)


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

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (RuntimeError("unable to perform operation"), ConnectionLost),
            (OSError("broken"), ConnectionLost),
            (ssl.SSLError(1, "bad"), EncryptionFailed),
        ],
    )
    def test_what_the_loop_raises_becomes_an_error_of_the_library(self, run, monkeypatch, error, expected):
        async def scenario():
            transport = LoopTransport(error=error)
            stream = await stream_on(transport, monkeypatch)
            with pytest.raises(expected) as caught:
                stream.write(b"x")
            assert caught.value.__cause__ is error
            assert stream.traffic.sent == 0
            transport.protocol.connection_lost(error)
            with pytest.raises(expected) as caught:
                await stream.drain()
            assert caught.value.__cause__ is error
            assert type(pickle.loads(pickle.dumps(caught.value))) is expected

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

    def test_a_name_that_cannot_be_one(self, run):
        async def scenario():
            async with serving(implicit(SERVER, sink)) as server:
                stream = await dial("127.0.0.1", server.port)
                with pytest.raises(HandshakeFailed):
                    await stream.start_tls(CLIENT, ".localhost")
                await server.quiet()
                await stream.close()

        run(scenario())


class TestReadUntil:
    @pytest.mark.parametrize("whole", [True, False])
    def test_what_follows_stays_for_the_next_read(self, run, whole):
        async def lines(reader, writer):
            for part in [b"one\ntwo\nrest"] if whole else [bytes([one]) for one in b"one\ntwo\nrest"]:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            await sink(reader, writer)

        async def scenario():
            async with serving(lines) as server:
                stream = await dial("127.0.0.1", server.port)
                assert await stream.read_until(b"\n", limit=10) == b"one\n"
                assert await stream.read_until(b"\n", limit=10) == b"two\n"
                assert await read_exactly(stream, 4) == b"rest"
                assert stream.traffic.received == 12
                await stream.close()

        run(scenario())

    def test_the_end_of_the_stream_and_the_limit(self, run):
        async def says(reader, writer):
            writer.write(b"x" * 70_000 if (await reader.read(1)) == b"x" else b"no line")

        async def scenario():
            async with serving(says) as server:
                for said, found in ((b"x", b"x" * 100), (b"y", b"no line")):
                    stream = await dial("127.0.0.1", server.port)
                    stream.write(said)
                    assert await stream.read_until(b"\n", limit=100) == found
                    stream.abort()

        run(scenario())

    def test_a_broken_connection(self, run):
        async def breaks(reader, writer):
            await reader.read(1)
            reset(writer)

        async def scenario():
            async with serving(breaks) as server:
                stream = await dial("127.0.0.1", server.port)
                stream.write(b"x")
                with pytest.raises(ConnectionLost):
                    await stream.read_until(b"\n", limit=100)
                await stream.close()

        run(scenario())


def test_tls_with_a_proxy_carries_tls_with_the_server(run):
    async def proxy(reader, writer):
        await encrypt(writer, SERVER)
        assert await reader.readexactly(4) == b"next"
        writer.write(b"ok")
        # The server's own TLS, behind the proxy's.
        await encrypt(writer, SERVER)
        await echo(reader, writer)

    async def scenario():
        async with serving(proxy) as server:
            stream = await dial("127.0.0.1", server.port)
            await stream.start_tls(CLIENT, "localhost", to_proxy=True)
            assert not stream.encrypted and stream.ssl_object is None
            stream.write(b"next")
            assert await read_exactly(stream, 2) == b"ok"
            await stream.start_tls(CLIENT, "localhost")
            assert stream.encrypted
            stream.write(b"x" * 100_000)
            assert await read_exactly(stream, 100_000) == b"x" * 100_000
            await stream.close()

    run(scenario())


async def test_a_reader_need_not_wait_for_the_transport_behind_abort():
    """Under TLS the transport reports its end some iterations of the loop later."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = asyncio.ensure_future(asyncio.to_thread(how_it_ends, listener))
        stream = await dial("127.0.0.1", listener.getsockname()[1])
        await stream.start_tls(CLIENT, "localhost")
        assert await read_exactly(stream, 4) == b"220 "
        reader = asyncio.create_task(stream.read())
        await turns()
        stream.abort()
        await asyncio.sleep(0)
        assert reader.done() and reader.result() == b""
        await ended


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
def test_an_endpoint_is_named_in_errors(run, monkeypatch, name, endpoint, shown):
    async def scenario():
        stream = await stream_on(LoopTransport(peername=name, closing=True), monkeypatch)
        assert stream.peer == endpoint
        with pytest.raises(ConnectionLost) as caught:
            stream.write(b"x")
        assert str(caught.value) == f"the connection to {shown} is closed"

    run(scenario())
