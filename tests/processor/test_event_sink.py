"""What hooks and reports are told of a run."""

import asyncio
import logging
from typing import Any

import pytest

from smtp_async import Outcome
from smtp_async.events import Event, JobDeferred, JobFailed, JobQueued, JobSent, JobStarted
from smtp_async.spool.entry import State
from tests.lab import mail
from tests.processor.fakes import FailingSpool, FakeClient, ManualClock, entries, filled, processor

pytestmark = pytest.mark.usefixtures("no_leaks")


async def test_hooks_receive_every_event_of_a_job(spool: FailingSpool, clock: ManualClock) -> None:
    heard: list[Any] = []
    queue = processor(spool, FakeClient("250 ok", "451 later", "550 never"), concurrency=1)

    @queue.on(Event)
    async def hear(event: Event) -> None:
        await asyncio.sleep(0)
        heard.append(event)

    ids = [await queue.put(mail(number)) for number in range(3)]
    await queue.run_once()
    assert [(type(event), event.id) for event in heard] == [
        *[(JobQueued, id) for id in ids],
        (JobStarted, ids[0]),
        (JobSent, ids[0]),
        (JobStarted, ids[1]),
        (JobDeferred, ids[1]),
        (JobStarted, ids[2]),
        (JobFailed, ids[2]),
    ]
    started, deferred, failed = heard[3], heard[6], heard[8]
    assert (started.attempt, len(started.recipients), started.flagged) == (1, 1, False)
    assert (deferred.not_before, deferred.reason) == (clock() + 60, "451 later")
    assert failed.receipt.outcome is Outcome.REFUSED
    queue.off(Event, hear)
    await filled(spool)
    await queue.run_once()
    assert len(heard) == 9


async def test_a_hook_that_raises_stops_no_job(spool: FailingSpool, caplog: Any) -> None:
    await filled(spool, 3)
    queue = processor(spool, FakeClient())

    def fail(event: Event) -> None:
        raise ValueError("hook")

    queue.on(Event, fail)
    with caplog.at_level(logging.ERROR, "smtp_async"):
        assert len((await queue.run_once()).sent) == 3
    assert "hook" in caplog.text


async def test_with_stop_on_error_no_job_is_started_after_the_first_failure(spool: FailingSpool) -> None:
    await filled(spool, 10)
    client = FakeClient("250 ok", "550 never", "250 ok")
    report = await processor(spool, client, stop_on_error=True, concurrency=1).run_once()
    assert (len(report.sent), len(report.failed)) == (1, 1) and "550 never" in str(report.error)
    assert len(client.tried) == 2
    left = await entries(spool, State.QUEUED)
    assert [entry.attempts for entry in left] == [0] * 8
