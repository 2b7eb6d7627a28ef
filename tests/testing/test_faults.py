"""Cancelling at every await, cutting at every byte."""

import asyncio
import contextlib
from functools import partial

import pytest

from smtp_async.testing import (
    CancelManner,
    CancelMoment,
    Cut,
    CutManner,
    CutProxy,
    Direction,
    ScriptedServer,
    cancellations,
    run_cancelled_at,
)

MOMENTS = list(CancelMoment)


async def three():
    for _ in range(3):
        await asyncio.sleep(0)
    return "done"


@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", MOMENTS)
async def test_every_await_has_its_turn(manner, moment):
    runs = [run async for run in cancellations(three, manner=manner, moment=moment)]
    assert [(run.at, run.awaits, run.injected, run.cancelled) for run in runs] == [
        (1, 1, True, True),
        (2, 2, True, True),
        (3, 3, True, True),
        (4, 3, False, False),
    ]
    assert runs[-1].result == "done" and runs[-1].error is None


@pytest.mark.parametrize("manner, cleaned", [(CancelManner.ONCE, True), (CancelManner.UNTIL_DONE, False)])
async def test_cleanup_that_awaits_survives_only_one_cancellation(manner, cleaned):
    clean = []

    async def scenario():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            clean.append(True)

    run = await run_cancelled_at(1, scenario, manner=manner)
    assert run.cancelled and bool(clean) is cleaned
    assert run.awaits == 2


@pytest.mark.parametrize("moment, lost", [(CancelMoment.WAITING, False), (CancelMoment.READY, True)])
async def test_the_moment_decides_whether_a_result_is_lost(moment, lost):
    loop = asyncio.get_running_loop()
    result = loop.create_future()

    def arrive():
        if not result.done():
            result.set_result("precious")

    async def scenario():
        loop.call_soon(arrive)
        return await result

    run = await run_cancelled_at(1, scenario, moment=moment)
    assert run.cancelled
    assert (result.cancelled(), lost) in [(True, False), (False, True)]


async def test_what_a_scenario_raises_and_swallows_is_told():
    async def raises():
        await asyncio.sleep(0)
        raise LookupError

    async def swallows():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        return "swallowed"

    assert isinstance((await run_cancelled_at(9, raises)).error, LookupError)
    run = await run_cancelled_at(1, swallows)
    assert (run.injected, run.cancelled, run.result) == (True, False, "swallowed")


async def test_awaits_of_real_streams_are_counted_and_nothing_leaks():
    async with ScriptedServer() as server:

        async def scenario():
            reader, writer = await asyncio.open_connection(server.host, server.port)
            try:
                await reader.readline()
                writer.write(b"QUIT\r\n")
                return await reader.readline()
            finally:
                writer.transport.abort()

        runs = [run async for run in cancellations(scenario, manner=CancelManner.UNTIL_DONE)]
        assert runs[-1].result.startswith(b"221") and len(runs) >= 4
        await server.wait_for_disconnect()
    assert len(asyncio.all_tasks()) == 1


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
