"""The end of a job is written, however often the spool fails."""

import asyncio

import pytest

from smtp_async.errors import LeaseLost, SpoolError
from tests.lab import until
from tests.processor.fakes import BRISK, FailingSpool, FakeClient, filled, processor

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.mark.parametrize("name", ["settle", "defer", "fail"])
async def test_a_message_whose_end_cannot_be_written_is_not_sent_twice(
    spool: FailingSpool, name: str
) -> None:
    answers = {"settle": "250 ok", "defer": "451 later", "fail": "550 never"}
    await filled(spool, 1)
    spool.broken[name] = SpoolError("i/o error")
    client = FakeClient(answers[name])
    queue = processor(spool, client, retry=BRISK)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: spool.calls.count(name) == 5)
    assert len(client.left) == 1 and not running.done()
    del spool.broken[name]
    report = await running
    assert report.tried == 1 and len(client.left) == 1


async def test_no_other_message_is_sent_while_an_end_cannot_be_written(spool: FailingSpool) -> None:
    await filled(spool, 20)
    spool.broken["settle"] = SpoolError("i/o error")
    client = FakeClient()
    queue = processor(spool, client, concurrency=2, retry=BRISK)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: spool.calls.count("settle") > 10)
    assert len(client.left) <= 2
    del spool.broken["settle"]
    spool.clock = lambda: 2.0**39
    await until(lambda: queue.statistics().sent == 20)
    queue.stop()
    await running
    assert len(client.left) == 20


async def test_a_lease_that_is_lost_at_its_end_is_not_written_again(spool: FailingSpool) -> None:
    await filled(spool)
    spool.broken["settle"] = LeaseLost("gone")
    report = await processor(spool, FakeClient()).run_once()
    assert report.tried == 0 and report.error is None
