"""Cancelling at every await."""

import asyncio
import contextlib

import pytest

from smtp_async.testing import (
    CancelManner,
    CancelMoment,
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
