"""Claiming in batches, bounded concurrency, and jobs whose workers have died."""

import asyncio
from typing import Any

import pytest

from smtp_async.errors import LeaseLost, SpoolError, SpoolUnsafe, UsageError
from smtp_async.events import Event, JobFailed, JobQueued
from tests.lab import until
from tests.processor import fakes
from tests.processor.fakes import (
    BRISK,
    FailingLease,
    FailingSpool,
    FakeClient,
    filled,
    kill_worker,
    processor,
)

pytestmark = pytest.mark.usefixtures("no_leaks")


# --- claiming ------------------------------------------------------------------------------------------------


async def test_jobs_are_claimed_in_batches(spool: FailingSpool) -> None:
    await filled(spool, 200)
    await processor(spool, FakeClient(), concurrency=20).run_once()
    assert spool.calls.count("claim") <= 200 / 10 + 2


async def test_concurrency_is_bounded(spool: FailingSpool) -> None:
    await filled(spool, 50)
    client = FakeClient()
    client.gate.clear()
    queue = processor(spool, client, concurrency=7)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: client.waiting == 7)
    client.gate.set()
    await running
    assert client.most == 7


@pytest.mark.parametrize("name", ["claim", "recover", "wait"])
async def test_a_spool_that_fails_is_tried_again(spool: FailingSpool, name: str) -> None:
    spool.broken[name] = SpoolError("i/o error")
    spool.clock = lambda: 2.0**39
    queue = processor(spool, FakeClient(), retry=BRISK, clock=asyncio.get_running_loop().time)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: queue.statistics().problem)
    del spool.broken[name]
    await filled(spool)
    await until(lambda: queue.statistics().sent)
    queue.stop()
    await running


@pytest.mark.parametrize("name", ["claim", "recover", "wait"])
@pytest.mark.parametrize("error", [SpoolUnsafe("others may write"), UsageError("the spool is closed")])
async def test_a_spool_that_cannot_be_used_raises(spool: FailingSpool, name: str, error: Exception) -> None:
    if name == "wait" and isinstance(error, SpoolUnsafe):
        pytest.skip("waiting looks at no files")
    spool.broken[name] = error
    with pytest.raises(type(error)):
        await processor(spool, FakeClient()).run()


# --- dead workers --------------------------------------------------------------------------------------------


async def test_a_message_that_kills_three_workers_fails(spool: FailingSpool) -> None:
    (id,) = await filled(spool)
    heard: list[Event] = []
    queue = processor(spool, FakeClient())
    queue.on(JobFailed, heard.append)
    await kill_worker(spool, flagged=False)
    for _ in range(2):
        await spool.recover()
        await kill_worker(spool, flagged=False)
    assert (await queue.run_once()).tried == 0
    assert (await spool.get(id)).reason == "poison"
    assert [(event.id, event.reason) for event in heard] == [(id, "poison")]  # type: ignore[attr-defined]


async def test_a_job_whose_worker_died_is_tried_alone(spool: FailingSpool) -> None:
    """Because the job may be what killed the worker: if it does so again, no other job counts as poison with it."""
    await filled(spool, 3)
    doomed = await spool.claim(2, now=spool.clock() + 1)
    for lease in doomed:
        spool.abandon(lease)
    await filled(spool, 20)
    suspects = {str(lease.entry.pending[0].address) for lease in doomed}
    client = FakeClient()
    beside: list[tuple[str, int, int]] = []

    async def look(message: Any) -> str:
        await asyncio.sleep(0)
        name = str(message.envelope().recipients[0].address)
        beside.append((name, client.waiting, (await spool.statistics()).sending))
        return "250 ok"

    client.answers = [look]
    report = await processor(spool, client, concurrency=5).run_once()
    assert len(report.sent) == 23
    assert [(waiting, held) for name, waiting, held in beside[:2]] == [(1, 1), (1, 1)]
    assert {name for name, *_ in beside[:2]} == suspects
    assert client.most == 5


async def test_jobs_claimed_before_a_suspect_do_not_wait_for_it(spool: FailingSpool) -> None:
    ids = await filled(spool, 10)
    for lease in await spool.claim(10, now=spool.clock() + 1):
        if lease.entry.id == ids[4]:
            spool.abandon(lease)
        else:
            await lease.release()
    client = FakeClient()
    client.gate.clear()
    queue = processor(spool, client, concurrency=10)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: client.waiting == 4)
    client.gate.set()
    assert len((await running).sent) == 10


async def test_leases_are_extended_and_jobs_of_dead_workers_recovered(spool: FailingSpool) -> None:
    await filled(spool, 2)
    await kill_worker(spool, flagged=False)
    client = FakeClient()
    client.replies.clear()
    queue = processor(spool, client, heartbeat=0.01, concurrency=1)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: client.left)
    await until(lambda: "extend" in spool.calls and spool.calls.count("recover") > 1)
    spool.broken["extend"] = LeaseLost("gone")
    before = spool.calls.count("recover")
    await until(lambda: spool.calls.count("recover") > before)
    client.replies.set()
    await until(lambda: queue.statistics().sent == 2)
    queue.stop()
    await running


class TogetherLease(FailingLease):
    """A lease whose extension ends when those of three leases have begun."""

    async def extend(self) -> None:
        calls: Any = self._spool
        calls.calls.append("extend")
        await until(lambda: calls.calls.count("extend") >= 3)


async def test_leases_are_extended_together(spool: FailingSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "FailingLease", TogetherLease)
    await filled(spool, 3)
    client = FakeClient()
    client.gate.clear()
    queue = processor(spool, client, heartbeat=0.01)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: client.waiting == 3)
    await until(lambda: spool.calls.count("extend") >= 3)
    client.gate.set()
    queue.stop()
    await running


async def test_a_recovered_job_is_published_as_queued(spool: FailingSpool) -> None:
    (id,) = await filled(spool)
    await kill_worker(spool, flagged=False)
    heard: list[Any] = []
    queue = processor(spool, FakeClient())
    queue.on(JobQueued, heard.append)
    await queue.run_once()
    assert [(event.id, event.recovered) for event in heard] == [(id, True)]


# --- jobs that no lane has yet -------------------------------------------------------------------------------


def nowhere(entry: Any, recipient: Any) -> Any:
    """Routes without a client."""


async def test_the_leases_of_jobs_without_a_lane_are_extended(spool: FailingSpool) -> None:
    """While the end of one of them cannot be written, the others of its batch wait."""
    await filled(spool, 4)
    spool.broken["fail"] = SpoolError("i/o error")
    queue = processor(spool, None, routes=nowhere, retry=BRISK, heartbeat=0.01, poll=0.001)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: spool.calls.count("extend") >= 4)
    del spool.broken["fail"]
    await until(lambda: queue.statistics().failed == 4)
    queue.stop()
    await running


async def test_an_error_releases_the_jobs_without_a_lane(spool: FailingSpool) -> None:
    await filled(spool, 8)
    spool.broken["fail"] = UsageError("the spool is closed")
    queue = processor(spool, None, routes=nowhere)
    with pytest.raises(UsageError):
        await queue.run()
    found = await spool.statistics()
    assert (found.queued, found.sending) == (8, 0)
