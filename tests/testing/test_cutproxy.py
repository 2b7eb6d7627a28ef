"""Cutting at every byte."""

import asyncio
from functools import partial

import pytest

from smtp_async.testing import (
    Cut,
    CutManner,
    CutProxy,
    Direction,
    ScriptedServer,
)


async def converse(host, port):
    """One message in lock-step; what came back, complete or not, and the error that ended it."""
    reader, writer = await asyncio.open_connection(host, port)
    received = b""
    try:
        received += await reader.readuntil(b"\n")
        for line in (b"HELO me", b"MAIL FROM:<a@x.org>", b"RCPT TO:<b@x.org>", b"DATA", b"hi\r\n.", b"QUIT"):
            writer.write(line + b"\r\n")
            received += await reader.readuntil(b"\n")
        received += await reader.read()
        return received, None
    except asyncio.IncompleteReadError as error:
        return received + error.partial, EOFError()
    except ConnectionError as error:
        return received, error
    finally:
        writer.transport.abort()


def opened(server, count):
    return server.connections.opened >= count


async def test_proxy_that_only_counts():
    async with ScriptedServer() as server, CutProxy(server.host, server.port) as proxy:
        received, error = await converse(proxy.host, proxy.port)
        assert error is None
        (link,) = proxy.links
        assert link.passed[Direction.TO_CLIENT] == received
        assert link.passed[Direction.TO_SERVER] == server.connections[0].raw
        assert link.counts == {
            Direction.TO_SERVER: len(server.connections[0].raw),
            Direction.TO_CLIENT: len(received),
        }
        assert not link.cut


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("manner", [CutManner.FIN, CutManner.RST])
async def test_cut_after_every_byte(direction, manner):
    async with ScriptedServer() as server:
        async with CutProxy(server.host, server.port) as proxy:
            await converse(proxy.host, proxy.port)
            total = proxy.links[0].counts[direction]
        for after in range(total):
            number = server.connections.opened
            async with CutProxy(server.host, server.port, Cut(after, direction, manner)) as proxy:
                received, error = await converse(proxy.host, proxy.port)
                assert proxy.links[0].cut and proxy.links[0].counts[direction] == after
                if direction is Direction.TO_CLIENT and manner is CutManner.FIN:
                    assert len(received) == after
                assert manner is CutManner.FIN or isinstance(error, ConnectionError)
            await server.wait_until(partial(opened, server, number + 1))
            await server.wait_for_disconnect()
            if direction is Direction.TO_SERVER and manner is CutManner.FIN:
                assert server.connections[number].bytes_received == after


async def test_only_one_link_is_cut():
    async with ScriptedServer() as server:
        async with CutProxy(server.host, server.port, Cut(0, link=1)) as proxy:
            errors = [(await converse(proxy.host, proxy.port))[1] for _ in range(3)]
            assert [error is None for error in errors] == [True, False, True]
        async with CutProxy(server.host, server.port, Cut(3, link=None)) as proxy:
            errors = [(await converse(proxy.host, proxy.port))[1] for _ in range(2)]
            assert None not in errors


async def test_stall():
    async with ScriptedServer() as server:
        cut = Cut(20, Direction.TO_CLIENT, CutManner.STALL)
        async with CutProxy(server.host, server.port, cut) as proxy:
            reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
            assert len(await reader.readexactly(20)) == 20
            writer.write(b"QUIT\r\n")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reader.read()
            assert server.commands == [] and server.connections.open == 1
            writer.transport.abort()
        await server.wait_for_disconnect()
        assert server.commands == []


async def test_much_goes_through_with_a_slow_reader():
    size = 20_000_000
    async with ScriptedServer(keep_raw=False) as server, CutProxy(server.host, server.port) as proxy:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        writer.write(
            b"HELO me\r\nMAIL FROM:<a@x.org>\r\nRCPT TO:<b@x.org>\r\nDATA\r\n" + b"x" * size + b"\r\n.\r\n"
        )
        await server.wait_for_messages()
        assert len(server.messages[0].data) == size + 2
        writer.write_eof()
        assert (await reader.read()).count(b"\n") == 6
        writer.transport.abort()


async def test_a_server_that_is_not_there():
    async with ScriptedServer() as server:
        port = server.port
    async with CutProxy("127.0.0.1", port) as proxy:
        assert (await converse(proxy.host, proxy.port))[1] is not None


async def test_proxy_to_a_unix_socket(tmp_path):
    path = str(tmp_path / "smtp")
    async with ScriptedServer(path=path), CutProxy("", 0, path=path) as proxy:
        assert (await converse(proxy.host, proxy.port))[1] is None
