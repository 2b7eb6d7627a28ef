"""One attempt: what becomes of a job by what the server, the spool and the client say."""

import asyncio
import logging
from typing import Any

import pytest

from smtp_async import Outcome
from smtp_async.errors import LeaseLost, SpoolFull
from smtp_async.events import JobSent, JobStarted, QueuePaused
from smtp_async.processor import RetryPolicy, Unfinished
from smtp_async.spool.entry import State
from tests.lab import mail, until
from tests.processor.fakes import (
    BRISK,
    FailingSpool,
    FakeClient,
    ManualClock,
    dead,
    entries,
    filled,
    kill_worker,
    processor,
)

pytestmark = pytest.mark.usefixtures("no_leaks")


# --- results of an attempt -----------------------------------------------------------------------------------


async def test_a_temporary_failure_is_deferred_to_the_next_attempt(
    spool: FailingSpool, clock: ManualClock
) -> None:
    (id,) = await filled(spool)
    report = await processor(spool, FakeClient("451 4.7.1 greylisted")).run_once()
    assert report.deferred == (Unfinished(id, "451 4.7.1 greylisted", clock() + 60),) and not report
    entry = await spool.get(id)
    assert (entry.state, entry.not_before, entry.attempts) == (State.QUEUED, clock() + 60, 1)
    clock.move(60)
    report = await processor(spool, FakeClient("451 4.7.1 greylisted")).run_once()
    assert report.deferred[0].not_before == clock() + 120


async def test_a_permanent_failure_is_kept_with_its_reason(spool: FailingSpool) -> None:
    (id,) = await filled(spool)
    report = await processor(spool, FakeClient("550 5.7.1 spam")).run_once()
    assert report.failed == (Unfinished(id, "550 5.7.1 spam"),)
    entry = await spool.get(id)
    assert (entry.state, entry.reason) == (State.FAILED, "550 5.7.1 spam")


async def test_with_one_attempt_every_error_is_final(spool: FailingSpool) -> None:
    ids = await filled(spool, 3)
    client = FakeClient("451 later", ("450 later",), dead())
    report = await processor(spool, client, retry=RetryPolicy(attempts=1), concurrency=1).run_once()
    assert sorted(one.id for one in report.failed) == sorted(ids)
    assert {entry.state for entry in await entries(spool)} == {State.FAILED}


async def test_a_retry_delay_of_zero_is_for_the_next_run(spool: FailingSpool) -> None:
    await filled(spool, 3)
    client = FakeClient("451 later")
    report = await processor(spool, client, retry=RetryPolicy(first=0.0, jitter=False)).run_once()
    assert len(report.deferred) == 3 and len(client.tried) == 3


async def test_only_pending_recipients_are_tried_again(spool: FailingSpool, clock: ManualClock) -> None:
    (id,) = await filled(spool, to="ann@x.test, bob@x.test, cid@x.test")
    client = FakeClient(("250 ok", "450 later", "550 never"), ("450 later",), ("250 ok",))
    queue = processor(spool, client)
    assert len((await queue.run_once()).deferred) == 1
    clock.move(3600)
    assert len((await queue.run_once()).deferred) == 1
    clock.move(3600)
    report = await queue.run_once()
    assert client.recipients == [["ann@x.test", "bob@x.test", "cid@x.test"], ["bob@x.test"], ["bob@x.test"]]
    # One recipient never got the message, so an operator has to see the job.
    assert [one.id for one in report.failed] == [id]
    entry = await spool.get(id)
    assert [str(who.address) for who, _ in entry.failed] == ["cid@x.test"]


async def test_every_attempt_sends_the_same_bytes(spool: FailingSpool, clock: ManualClock) -> None:
    await filled(spool)
    client = FakeClient("451 later", "250 ok")
    queue = processor(spool, client)
    await queue.run_once()
    clock.move(60)
    await queue.run_once()
    first, second = (one.content().join() for one in client.tried)
    assert first == second and b"Message-ID:" in first


async def test_an_expired_job_is_tried_once_more(spool: FailingSpool, clock: ManualClock) -> None:
    (id,) = [await spool.put(mail(), expires=clock() + 30)]
    client = FakeClient("451 later")
    queue = processor(spool, client)
    await queue.run_once()
    assert (await spool.get(id)).not_before == clock() + 30
    clock.move(30)
    report = await queue.run_once()
    assert report.failed[0].reason == "it could not be delivered in time 451 later"


async def test_an_unexpected_exception_costs_one_attempt(spool: FailingSpool, caplog: Any) -> None:
    await filled(spool, 2)
    client = FakeClient(ValueError("what"), "250 ok")
    with caplog.at_level(logging.ERROR, "smtp_async"):
        report = await processor(spool, client).run_once()
    assert (len(report.sent), len(report.deferred)) == (1, 1)
    assert "raised" in caplog.text


# --- unknown outcomes ----------------------------------------------------------------------------------------


async def test_an_unknown_outcome_is_tried_again(spool: FailingSpool) -> None:
    (id,) = await filled(spool)
    queue = processor(spool, FakeClient(Outcome.UNKNOWN))
    report = await queue.run_once()
    assert len(report.deferred) == 1 and queue.statistics().unknown == 1
    assert (await spool.get(id)).flagged


async def test_every_attempt_after_an_unknown_one_is_flagged(spool: FailingSpool, clock: ManualClock) -> None:
    await filled(spool)
    queue = processor(spool, FakeClient(Outcome.UNKNOWN, "451 later", "250 ok"))
    told: list[tuple[int, bool]] = []
    queue.on(JobStarted, lambda event: told.append((event.attempt, event.flagged)))
    for _ in range(3):
        await queue.run_once()
        clock.move(3600)
    assert told == [(1, False), (2, True), (3, True)]


async def test_a_later_processor_holds_an_unknown_job_too(spool: FailingSpool, clock: ManualClock) -> None:
    (id,) = await filled(spool)
    await processor(spool, FakeClient(Outcome.UNKNOWN)).run_once()
    clock.move(3600)
    client = FakeClient()
    report = await processor(spool, client, on_unknown="hold").run_once()
    assert client.tried == [] and report.failed == (Unfinished(id, "unknown"),)


@pytest.mark.parametrize("first", ["retry", "hold"])
async def test_requeuing_an_unknown_job_allows_one_attempt(
    spool: FailingSpool, clock: ManualClock, first: Any
) -> None:
    (id,) = await filled(spool)
    await processor(spool, FakeClient(Outcome.UNKNOWN), on_unknown=first).run_once()
    await spool.requeue(id)
    clock.move(1)
    client = FakeClient("451 later")
    queue = processor(spool, client, on_unknown="hold")
    told: list[bool] = []
    queue.on(JobStarted, lambda event: told.append(event.flagged))
    await queue.run_once()
    assert told == [True] and len(client.tried) == 1
    # The requeue allowed one attempt.
    clock.move(3600)
    assert (await queue.run_once()).failed == (Unfinished(id, "unknown"),)
    assert len(client.tried) == 1


async def test_an_unknown_outcome_is_held_if_wanted(spool: FailingSpool) -> None:
    (id,) = await filled(spool)
    report = await processor(spool, FakeClient(Outcome.UNKNOWN), on_unknown="hold").run_once()
    assert report.failed == (Unfinished(id, "unknown"),)
    await spool.requeue(id)
    assert (await spool.get(id)).pending


@pytest.mark.parametrize(("on_unknown", "tried"), [("retry", 1), ("hold", 0)])
async def test_a_marked_job_of_a_dead_worker_is_unknown(
    spool: FailingSpool, on_unknown: Any, tried: int
) -> None:
    await filled(spool)
    await kill_worker(spool, flagged=True)
    client = FakeClient()
    report = await processor(spool, client, on_unknown=on_unknown).run_once()
    assert len(client.tried) == tried
    assert len(report.sent) == tried and len(report.failed) == 1 - tried


@pytest.mark.parametrize("on_unknown", ["retry", "hold"])
async def test_an_unmarked_job_of_a_dead_worker_is_sent(spool: FailingSpool, on_unknown: Any) -> None:
    await filled(spool)
    await kill_worker(spool, flagged=False)
    assert len((await processor(spool, FakeClient(), on_unknown=on_unknown).run_once()).sent) == 1


# --- marks and leases ----------------------------------------------------------------------------------------


async def test_a_message_that_cannot_be_marked_is_not_sent(spool: FailingSpool) -> None:
    await filled(spool, 10)
    spool.broken["mark"] = SpoolFull("no space left")
    client = FakeClient()
    queue = processor(spool, client, concurrency=2)
    report = await queue.run_once()
    assert client.left == [] and report.tried == 0 and isinstance(report.error, SpoolFull)
    assert len(client.tried) <= 2
    assert {(entry.state, entry.attempts, entry.flagged) for entry in await entries(spool)} == {
        (State.QUEUED, 0, False)
    }


async def test_mail_flows_again_when_marks_can_be_written(spool: FailingSpool) -> None:
    await filled(spool, 10)
    spool.broken["mark"] = SpoolFull("no space left")
    client = FakeClient()
    queue = processor(spool, client, retry=BRISK, clock=asyncio.get_running_loop().time)
    spool.clock = lambda: 2.0**39
    paused: list[Any] = []

    def heal(event: Any) -> None:
        paused.append(event)
        if len(paused) == 3:
            del spool.broken["mark"]

    queue.on(QueuePaused, heal)
    queue.on(JobSent, lambda event: queue.stop() if queue.statistics().sent == 10 else None)
    await queue.run()
    assert len(client.left) == 10 and len(paused) == 3


async def test_a_message_whose_lease_is_lost_is_not_sent(spool: FailingSpool, caplog: Any) -> None:
    await filled(spool)
    spool.broken["mark"] = LeaseLost("gone")
    client = FakeClient()
    with caplog.at_level(logging.WARNING, "smtp_async"):
        report = await processor(spool, client).run_once()
    assert client.left == [] and report.tried == 0
    assert "taken away" in caplog.text


async def test_marking_with_the_claim_needs_no_mark_per_message(spool: FailingSpool) -> None:
    await filled(spool, 20)
    report = await processor(spool, FakeClient(), marking="claim").run_once()
    assert len(report.sent) == 20 and "mark" not in spool.calls


async def test_jobs_marked_at_the_claim_go_back_unflagged(spool: FailingSpool) -> None:
    await filled(spool, 20)
    client = FakeClient()
    client.gate.clear()
    queue = processor(spool, client, concurrency=4, marking="claim", on_unknown="hold")
    running = asyncio.ensure_future(queue.run())
    await until(lambda: client.waiting == 4)
    queue.stop(grace=0)
    await running
    assert {(entry.state, entry.attempts, entry.flagged) for entry in await entries(spool)} == {
        (State.QUEUED, 0, False)
    }


async def test_a_cancelled_send_without_a_receipt_is_unknown(spool: FailingSpool) -> None:
    (id,) = await filled(spool)
    client = FakeClient()

    async def silent(message: Any, **_: Any) -> Any:
        client.tried.append(message)
        await asyncio.Event().wait()

    client.send = silent  # type: ignore[method-assign]
    queue = processor(spool, client)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: client.tried)
    queue.stop(grace=0)
    await running
    assert (await spool.get(id)).flagged and queue.statistics().unknown == 1
