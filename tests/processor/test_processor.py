"""The processor: runs, signals, cancellation, and a real client."""

import asyncio
import os
import signal
import time
from functools import partial
from typing import Any

import pytest

from smtp_async import PoolLimits
from smtp_async.errors import Busy, InvalidArgument, NotConnected
from smtp_async.processor import QueueProcessor, RetryPolicy
from smtp_async.spool.entry import State
from smtp_async.testing import CancelManner, CancelMoment, cancellations
from smtp_async.testing.memory import MemorySpool
from tests.lab import client_of, every_loop, mail, speaking, turns, until
from tests.processor.fakes import FailingSpool, FakeClient, ManualClock, entries, filled, processor

pytestmark = pytest.mark.usefixtures("no_leaks")


# --- run_once ------------------------------------------------------------------------------------------------


async def test_everything_due_is_sent_once(spool: FailingSpool) -> None:
    ids = await filled(spool, 100)
    client = FakeClient()
    report = await processor(spool, client).run_once()
    assert sorted(report.sent) == sorted(ids) and report
    assert sorted(client.recipients) == sorted([f"user{n}@example.org"] for n in range(100))
    assert await entries(spool) == []


async def test_an_empty_spool_makes_an_empty_report(spool: FailingSpool) -> None:
    report = await processor(spool, FakeClient()).run_once()
    assert report and report.tried == 0


async def test_a_job_that_is_not_due_waits(spool: FailingSpool, clock: ManualClock) -> None:
    await spool.put(mail(), not_before=clock() + 60)
    assert (await processor(spool, FakeClient()).run_once()).tried == 0
    clock.move(60)
    assert (await processor(spool, FakeClient()).run_once()).tried == 1


async def test_sent_mail_is_kept_if_wanted(spool: FailingSpool) -> None:
    (id,) = await filled(spool)
    await processor(spool, FakeClient(), keep_sent=True).run_once()
    entry = await spool.get(id)
    assert entry.state is State.SENT and not entry.flagged
    assert entry.results[0] is not None and entry.results[0].queue_id == "X1"


async def test_a_processor_can_run_again(spool: FailingSpool) -> None:
    queue = processor(spool, FakeClient())
    for count in (1, 2):
        await filled(spool, 1)
        assert len((await queue.run_once()).sent) == 1
        assert queue.statistics().sent == count


async def test_a_second_run_at_the_same_time_is_refused(spool: FailingSpool) -> None:
    queue = processor(spool, FakeClient())
    running = asyncio.ensure_future(queue.run())
    await until(lambda: "wait" in spool.calls)
    with pytest.raises(Busy):
        await queue.run_once()
    queue.stop()
    await running


@pytest.mark.parametrize("once", [True, False])
async def test_a_refused_second_run_leaves_the_report_of_the_first_alone(
    spool: FailingSpool, once: bool
) -> None:
    ids = await filled(spool, 2)
    answer = asyncio.Event()

    async def wait(message: Any) -> str:
        await answer.wait()
        return "250 ok"

    queue = processor(spool, FakeClient("250 ok", wait), concurrency=1)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: queue.statistics().sent == 1)
    with pytest.raises(Busy):
        await (queue.run_once() if once else queue.run())
    answer.set()
    assert sorted((await running).sent) == sorted(ids)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (PoolLimits(), 40),
        (PoolLimits(max_connections=1), 4),
        (PoolLimits(max_connections=5, window=8), 80),
        (PoolLimits(max_waiting=3), 3),
    ],
)
async def test_the_default_concurrency_keeps_every_connection_busy(
    spool: FailingSpool, limits: PoolLimits, expected: int
) -> None:
    await filled(spool, 2 * expected)
    client = FakeClient(pool=limits)
    client.gate.clear()
    queue = processor(spool, client)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: client.waiting == expected)
    await turns()
    client.gate.set()
    await running
    assert client.most == expected


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5, "4"])
def test_a_concurrency_that_is_no_positive_integer_is_refused(spool: FailingSpool, concurrency: Any) -> None:
    with pytest.raises(InvalidArgument, match="concurrency"):
        processor(spool, FakeClient(), concurrency=concurrency)


# --- run -----------------------------------------------------------------------------------------------------


def sent(queue: QueueProcessor, count: int) -> bool:
    return queue.statistics().sent == count


async def test_new_mail_is_sent_as_it_arrives(spool: FailingSpool) -> None:
    queue = processor(spool, FakeClient(), poll=10.0)
    running = asyncio.ensure_future(queue.run())
    for count in range(1, 4):
        await filled(spool)
        await until(partial(sent, queue, count))
    queue.stop()
    await running


async def test_deferred_mail_is_tried_again_when_it_is_due(spool: FailingSpool, clock: ManualClock) -> None:
    await filled(spool)
    client = FakeClient("451 later", "451 later", "250 ok")
    queue = processor(spool, client, retry=RetryPolicy(first=0.001, jitter=False))
    running = asyncio.ensure_future(queue.run())
    await until(lambda: queue.statistics().deferred == 1)
    clock.move(1)
    await until(lambda: queue.statistics().deferred == 2)
    clock.move(1)
    await until(lambda: queue.statistics().sent == 1)
    queue.stop()
    await running


async def test_a_closed_client_raises(spool: FailingSpool) -> None:
    await filled(spool, 5)
    with pytest.raises(NotConnected):
        await processor(spool, FakeClient(NotConnected("the client is closed"))).run()
    assert {(entry.state, entry.attempts) for entry in await entries(spool)} == {(State.QUEUED, 0)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_processor(spool: FailingSpool, number: signal.Signals) -> None:
    await filled(spool, 1)
    client = FakeClient()
    client.replies.clear()
    before = signal.getsignal(number)
    queue = processor(spool, client)
    running = asyncio.ensure_future(queue.run(signals=True))
    await until(lambda: client.left)
    os.kill(os.getpid(), number)
    await until(lambda: queue.stops)
    assert not running.done()
    os.kill(os.getpid(), number)
    await running
    assert queue.statistics().unknown == 1
    assert signal.getsignal(number) in (before, signal.default_int_handler, signal.SIG_DFL)


async def test_the_processor_runs_where_signal_handlers_are_not_supported(
    spool: FailingSpool, monkeypatch: Any
) -> None:
    def refuse(*args: Any) -> None:
        raise NotImplementedError

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "add_signal_handler", refuse)
    queue = processor(spool, FakeClient())
    running = asyncio.ensure_future(queue.run(signals=True))
    await until(lambda: "wait" in spool.calls)
    queue.stop()
    await running


# --- cancellation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", CancelMoment)
@pytest.mark.parametrize("manner", CancelManner)
@every_loop
async def test_cancelling_at_any_await_loses_no_job(manner: CancelManner, moment: CancelMoment) -> None:
    spool = FailingSpool()
    client = FakeClient("250 ok", "451 later", "550 never", "250 ok")
    endless = RetryPolicy(expires=None)
    queue = processor(spool, client, concurrency=2, clock=lambda: 2.0**39, retry=endless)

    async def scenario() -> None:
        for number in range(6):
            await queue.put(mail(number))
        spool.clock = lambda: 2.0**39
        await queue.run_once()

    async for run in cancellations(scenario, manner=manner, moment=moment):
        assert run.error is None or run.cancelled, run.error
        await queue.wait_stopped()
        if spool.changes:
            await asyncio.wait(spool.changes)
        assert {entry.state for entry in await entries(spool)} <= {State.QUEUED, State.FAILED}, run.at
        assert not any(entry.flagged for entry in await entries(spool)), run.at
        # Accepted jobs are gone, the others are still there.
        left = [entry.message_id for entry in await entries(spool)]
        assert len(left) == len(set(left))
        for entry in await entries(spool):
            await spool.remove(entry.id)


async def test_cancelling_the_workers_loses_no_job() -> None:
    """An event loop that ends cancels every task, those of the processor too."""
    for at in range(1, 12):
        spool = FailingSpool()
        await filled(spool, 4)
        spool.clock = lambda: 2.0**39
        client = FakeClient("250 ok", "451 later")
        queue = processor(
            spool, client, concurrency=2, clock=lambda: 2.0**39, retry=RetryPolicy(expires=None)
        )
        before = asyncio.all_tasks()
        running = asyncio.ensure_future(queue.run())
        for _ in range(at):
            await asyncio.sleep(0)
        tasks = asyncio.all_tasks() - before - spool.changes
        for task in tasks:
            task.cancel()
        await asyncio.wait({running, *tasks})
        if spool.changes:
            await asyncio.wait(spool.changes)
        left = await entries(spool)
        assert {entry.state for entry in left} <= {State.QUEUED}, at
        assert len(left) >= 4 - len(client.left), at


async def test_cancelling_waits_for_messages_being_sent(spool: FailingSpool) -> None:
    await filled(spool, 2)
    client = FakeClient()
    client.replies.clear()
    queue = processor(spool, client)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: len(client.left) == 2)
    running.cancel()
    await until(lambda: queue.stops)
    assert not running.done()
    client.replies.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert queue.statistics().sent == 2


# --- a real client -------------------------------------------------------------------------------------------


@every_loop
async def test_a_real_client_delivers_the_queue() -> None:
    spool = MemorySpool()
    await filled(spool, 200)
    async with speaking() as server, client_of(server) as client:
        report = await processor(spool, client, clock=lambda: time.time() + 1).run_once()
        assert len(report.sent) == 200 and report
        assert len(server.messages) == 200 and server.violations == []


async def test_a_real_client_without_a_server_counts_no_attempt() -> None:
    spool = MemorySpool()
    await filled(spool, 30)
    async with speaking() as server:
        nowhere = server.port
    async with client_of(None, host="127.0.0.1", port=nowhere) as client:
        report = await processor(spool, client, clock=lambda: time.time() + 1).run_once()
    assert report.tried == 0 and report.error is not None
    assert {(entry.state, entry.attempts) for entry in await entries(spool)} == {(State.QUEUED, 0)}
