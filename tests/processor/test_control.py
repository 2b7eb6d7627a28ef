"""Stopping a processor: the grace, and what the report says."""

import asyncio
from typing import Any

import pytest

from smtp_async.errors import SpoolError
from smtp_async.processor.control import RunControl
from smtp_async.spool.entry import State
from tests.lab import turns, until
from tests.processor.fakes import BRISK, FailingSpool, FakeClient, entries, filled, processor

pytestmark = pytest.mark.usefixtures("no_leaks")


# --- the control alone ---------------------------------------------------------------------------------------


async def test_sleep_ends_with_wake_and_remembers_a_wake_before() -> None:
    control = RunControl(grace=60.0)
    control.begin(lambda: None)
    control.wake()
    await control.sleep(None)
    sleeping = asyncio.ensure_future(control.sleep(None))
    await turns()
    assert not sleeping.done()
    control.wake()
    await sleeping


async def test_sleep_ends_after_its_longest_time() -> None:
    control = RunControl(grace=60.0)
    control.begin(lambda: None)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await control.sleep(0.01)
    assert 0.009 < loop.time() - begun < 60.0


async def test_the_grace_ends_once_and_withdraws() -> None:
    withdrawn: list[str] = []
    control = RunControl(grace=60.0)
    control.begin(lambda: withdrawn.append("x"))
    assert not control.grace_over
    control.stop(grace=0.0)
    await control.wait_for_grace(10.0)
    assert control.grace_over and withdrawn == ["x"]
    control.run_ended()
    assert not control.stopping


async def test_the_first_error_counts() -> None:
    control = RunControl(grace=60.0)
    first, second = ValueError("first"), ValueError("second")
    control.stop_early(first)
    control.stop_for_good(second)
    control.note_untried_jobs()
    assert (control.error, control.fatal, control.stopping) == (first, second, True)
    control.reset()
    assert (control.error, control.fatal, control.stopping) == (None, None, True)


def test_stop_without_a_run_counts_for_the_next() -> None:
    control = RunControl(grace=60.0)
    control.stop()
    assert control.stopping and control.grace_over


# --- stopping ------------------------------------------------------------------------------------------------


async def test_messages_being_sent_may_end_after_stop(spool: FailingSpool) -> None:
    await filled(spool, 20)
    client = FakeClient()
    client.replies.clear()
    queue = processor(spool, client, concurrency=4)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: len(client.left) == 4)
    queue.stop()
    await until(lambda: queue.statistics().ahead == 0)
    assert not running.done()
    client.replies.set()
    await running
    assert len(client.tried) == 4 and queue.statistics().sent == 4
    assert {entry.state for entry in await entries(spool)} == {State.QUEUED}


async def test_messages_that_have_not_left_go_back_after_the_grace(spool: FailingSpool) -> None:
    await filled(spool, 20)
    client = FakeClient()
    client.gate.clear()
    queue = processor(spool, client, concurrency=4)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: client.waiting == 4)
    queue.stop(grace=0)
    await running
    assert client.waiting == 0
    assert {(entry.state, entry.attempts, entry.flagged) for entry in await entries(spool)} == {
        (State.QUEUED, 0, False)
    }


@pytest.mark.parametrize("marking", ["each", "claim"])
@pytest.mark.parametrize(("on_unknown", "state"), [("retry", State.QUEUED), ("hold", State.FAILED)])
async def test_messages_that_may_have_left_are_unknown_after_the_grace(
    spool: FailingSpool, on_unknown: Any, state: State, marking: Any
) -> None:
    (id,) = await filled(spool)
    client = FakeClient()
    client.replies.clear()
    queue = processor(spool, client, on_unknown=on_unknown, marking=marking)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: client.left)
    queue.stop()
    queue.stop(grace=0)
    await running
    entry = await spool.get(id)
    assert (entry.state, entry.attempts, queue.statistics().unknown) == (state, 1, 1)


async def test_stop_ends_a_run_while_the_spool_cannot_be_written(spool: FailingSpool) -> None:
    await filled(spool, 20)
    for name in ("settle", "release", "mark"):
        spool.broken[name] = SpoolError("i/o error")
    del spool.broken["mark"]
    client = FakeClient()
    queue = processor(spool, client, concurrency=2, retry=BRISK)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: spool.calls.count("settle") > 3)
    queue.stop(grace=0)
    await running
    assert len(client.left) == 2


# --- stop and the report -------------------------------------------------------------------------------------


@pytest.mark.parametrize("once", [True, False])
async def test_stop_before_the_first_step_counts_for_that_run(spool: FailingSpool, once: bool) -> None:
    (id,) = await filled(spool)
    client = FakeClient()
    queue = processor(spool, client)
    running = asyncio.ensure_future(queue.run_once() if once else queue.run())
    queue.stop()
    async with asyncio.timeout(10.0):
        await running
    assert client.tried == []
    assert (await queue.run_once()).sent == (id,)


async def test_stop_between_two_runs_counts_for_the_next(spool: FailingSpool) -> None:
    queue = processor(spool, FakeClient())
    await queue.run_once()
    queue.stop()
    (id,) = await filled(spool)
    report = await queue.run_once()
    assert not report and report.tried == 0 and "stopped" in str(report.error)
    report = await queue.run_once()
    assert report and report.sent == (id,)


@pytest.mark.parametrize("count", [2, 20])
async def test_the_report_says_that_jobs_went_back_because_of_stop(spool: FailingSpool, count: int) -> None:
    await filled(spool, count)
    client = FakeClient()
    client.gate.clear()
    queue = processor(spool, client, concurrency=4)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: client.waiting == min(count, 4))
    queue.stop(grace=0)
    report = await running
    assert not report and report.tried == 0 and "stopped" in str(report.error)


async def test_stop_after_the_last_job_was_started_is_no_error(spool: FailingSpool) -> None:
    await filled(spool, 2)
    client = FakeClient()
    client.replies.clear()
    queue = processor(spool, client, concurrency=4)
    running = asyncio.ensure_future(queue.run_once())
    # The claims return one job, the other job, and none.
    await until(lambda: len(client.left) == 2 and spool.calls.count("claim") == 3)
    await turns()
    queue.stop()
    client.replies.set()
    report = await running
    assert report and len(report.sent) == 2
