"""A socket that waits for TLS: nothing happens on it before, and nothing of it is left afterwards."""

import asyncio
import gc
import os
import socket
import struct
from typing import Any

import pytest

from smtp_async.errors import ConnectionLost, HandshakeFailed, Timeout
from smtp_async.transport import SocketOptions, dial
from smtp_async.transport.held_socket import HeldSocket
from smtp_async.transport.receiving import Receiver, Traffic
from tests.transport.lab import (
    MANNERS,
    cancelled_everywhere,
    client_context,
    echo,
    server_context,
    serving,
    sink,
    turns,
    until,
)

#: uvloop has no sockets that are held: see the last test.
where_it_is_held = pytest.mark.parametrize("run", ["asyncio"], indirect=True)


async def dialled(server, **options) -> Any:
    return await dial("127.0.0.1", server.port, tls_first=True, **options)


async def echo_tls(reader, writer):
    """Do the server's part of TLS with the first byte; then send everything back."""
    await writer.start_tls(server_context())
    await echo(reader, writer)


@where_it_is_held
def test_a_transport_is_opened_by_the_handshake_alone(run):
    async def scenario():
        async with serving(echo_tls) as server:
            stream = await dialled(server)
            assert isinstance(stream._transport, HeldSocket)
            assert stream.peer == ("127.0.0.1", server.port)
            assert stream.local[0] == "127.0.0.1"
            assert "plain" in repr(stream)
            await stream.start_tls(client_context(), "localhost")
            assert stream.encrypted
            stream.write(b"hello")
            await stream.drain()
            assert await stream.read() == b"hello"
            await stream.close()

    run(scenario())


@where_it_is_held
def test_nothing_is_read_before_the_handshake(run):
    """A server that greets in clear has its greeting in the handshake's evidence, as the first thing that is read."""

    async def greet(reader, writer):
        writer.write(b"220 hello\r\n")
        await sink(reader, writer)

    async def scenario():
        async with serving(greet) as server:
            stream = await dialled(server)
            await turns(20)
            with pytest.raises(HandshakeFailed):
                await stream.start_tls(client_context(), "localhost")
            assert not stream.traffic.received
            await server.quiet()

    run(scenario())


@where_it_is_held
@pytest.mark.parametrize("polite", [False, True])
def test_closed_before_the_handshake(run, polite):
    async def scenario():
        async with serving(sink) as server:
            stream = await dialled(server)
            sock = stream._transport.get_extra_info("socket")
            if polite:
                await stream.close()
            else:
                stream.abort()
            assert stream.is_closing() and sock.fileno() < 0
            stream.abort()
            await turns()
            with pytest.raises(ConnectionLost):
                await stream.start_tls(client_context(), "localhost")
            assert await stream.read() == b""
            await server.quiet()

    run(scenario())


@where_it_is_held
@pytest.mark.parametrize(("manner", "moment"), MANNERS)
def test_cancelled_anywhere_no_socket_is_left(run, manner, moment):
    """The server sees the end of each connection."""

    async def scenario():
        context = client_context()
        async with serving(echo_tls) as server:
            streams = []

            async def connect():
                streams.append(await dialled(server))
                await streams[-1].start_tls(context, "localhost")

            async for step in cancelled_everywhere(connect, manner, moment):
                if streams:
                    sock = streams[-1]._transport.get_extra_info("socket")
                    if not step.injected:
                        streams[-1].abort()
                    assert streams[-1].is_closing()
                    await streams[-1].close()
                    assert sock is None or sock.fileno() < 0
                await server.quiet()
            assert step.at > 1

    run(scenario())


@where_it_is_held
def test_aborted_by_another_task_during_the_handshake(run):
    async def scenario():
        heard = asyncio.Event()

        async def listen(reader, writer):
            await reader.read(1)
            heard.set()
            await sink(reader, writer)

        async with serving(listen) as server:
            stream = await dialled(server)
            sock = stream._transport.get_extra_info("socket")
            task = asyncio.ensure_future(stream.start_tls(client_context(), "localhost"))
            await heard.wait()
            stream.abort()
            with pytest.raises(HandshakeFailed):
                await task
            await until(lambda: sock.fileno() < 0)
            await server.quiet()

    run(scenario())


def test_deadline(run):
    async def scenario():
        async with serving(sink) as server:
            stream = await dialled(server)
            deadline = asyncio.get_running_loop().time() + 0.05
            with pytest.raises(Timeout) as caught:
                await stream.start_tls(client_context(), "localhost", deadline=deadline)
            assert caught.value.stage == "tls"
            await server.quiet()

    run(scenario())


def test_small_packets_are_delayed_where_that_is_wanted(run):
    """A transport turns TCP_NODELAY on when it is made, which would be after the option was set."""

    async def scenario():
        async with serving(echo_tls) as server:
            stream = await dialled(server, options=SocketOptions(nodelay=False))
            await stream.start_tls(client_context(), "localhost")
            sock = stream._transport.get_extra_info("socket")
            assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await stream.close()

    run(scenario())


def test_the_addresses_of_a_connection_that_was_reset(run):
    async def scenario():
        loop = asyncio.get_running_loop()
        receiver = Receiver(loop, Traffic())
        held = HeldSocket(socket.socket(), receiver, loop)
        assert held.get_extra_info("peername", "unknown") == "unknown"
        assert held.get_write_buffer_size() == 0
        held.pause_reading()
        held.resume_reading()
        held.close()
        held.abort()
        await turns()
        assert receiver.ended

    run(scenario())


def test_a_thousand_cancelled_connections_leave_no_file_open(run):
    """Every other one goes to TLS; each is cancelled after a few iterations of the loop, or closed if that is late."""

    async def scenario():
        context = client_context()

        async def connect(*, encrypted):
            stream = await dialled(server) if encrypted else await dial("127.0.0.1", server.port)
            if encrypted:
                await stream.start_tls(context, "localhost")
            return stream

        async with serving(sink) as server:
            (await dial("127.0.0.1", server.port)).abort()
            await turns()
            await server.quiet()
            before = len(os.listdir("/proc/self/fd"))
            cancelled = 0
            for number in range(1000):
                task = asyncio.ensure_future(connect(encrypted=number % 2 == 0))
                await turns(number % 5)
                task.cancel()
                await asyncio.wait({task})
                cancelled += task.cancelled()
                if not task.cancelled():
                    task.result().abort()
            assert cancelled > 500
            await turns()
            await server.quiet()
            assert len(os.listdir("/proc/self/fd")) <= before

    run(scenario())


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_connection_that_is_reset_before_the_handshake_closes_no_other_file(run):
    """Where an event loop closed the descriptor itself, the socket object would close what has the number by then."""

    async def scenario():
        reset = asyncio.Event()

        async def refuse(reader, writer):
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            reset.set()

        async with serving(refuse) as server:
            stream = await dialled(server)
            await reset.wait()
            await turns()
            with pytest.raises((HandshakeFailed, ConnectionLost)):
                await stream.start_tls(client_context(), "localhost")
            ours = [os.open(os.devnull, os.O_RDONLY) for _ in range(6)]
            stream.abort()
            del stream
            gc.collect()
            await turns()
            assert {os.readlink(f"/proc/self/fd/{one}") for one in ours} == {os.devnull}
            for one in ours:
                os.close(one)

    run(scenario())
