"""Which failures and delays are reported to senders, and where the reports go."""

import asyncio
import logging
from typing import Any

import pytest

from smtp_async import Outcome
from smtp_async.errors import SpoolError, SpoolFull
from smtp_async.processor import ReportOptions, parse_report
from smtp_async.testing.memory import MemorySpool
from tests.lab import until
from tests.processor.fakes import BRISK, FailingSpool, FakeClient, ManualClock, entries, filled, processor

pytestmark = pytest.mark.usefixtures("no_leaks")


HERE = ReportOptions(reporting="here.test")


async def notices(spool: MemorySpool) -> list[Any]:
    found = [entry for entry in await entries(spool) if entry.envelope.sender is None]
    return [parse_report(await MemorySpool.read(spool, entry.id)) for entry in found]


async def test_a_failure_is_reported_through_the_spool(spool: FailingSpool) -> None:
    await filled(spool, to="ann@x.test, bob@x.test")
    await processor(spool, FakeClient(("250 ok", "550 5.1.1 no such user")), bounce=HERE).run_once()
    (report,) = await notices(spool)
    assert [(one.address, one.code, one.remote) for one in report.recipients] == [
        ("bob@x.test", 550, "mx.example.org")
    ]
    assert report.reporting == "here.test"


async def test_a_report_that_fails_is_not_reported(spool: FailingSpool, clock: ManualClock) -> None:
    await filled(spool)
    queue = processor(spool, FakeClient("550 never"), bounce=HERE)
    await queue.run_once()
    clock.move(1)
    report = await queue.run_once()
    assert len(report.failed) == 1 and len(await notices(spool)) == 1


async def test_without_options_no_report_is_written(spool: FailingSpool) -> None:
    await filled(spool)
    await processor(spool, FakeClient("550 never")).run_once()
    assert await notices(spool) == []


async def test_an_unknown_outcome_is_not_reported_as_a_failure(spool: FailingSpool) -> None:
    await filled(spool)
    await processor(spool, FakeClient(Outcome.UNKNOWN), bounce=HERE, on_unknown="hold").run_once()
    assert await notices(spool) == []


async def test_expiry_is_reported(spool: FailingSpool, clock: ManualClock) -> None:
    await filled(spool)
    clock.move(6 * 86400)
    await processor(spool, FakeClient("451 4.2.0 later"), bounce=HERE).run_once()
    (report,) = await notices(spool)
    assert str(report.recipients[0].status) == "4.2.0" and "in time" not in report.recipients[0].diagnostic


@pytest.mark.parametrize("fault", [ValueError("cannot"), KeyError("cannot"), MemoryError()])
async def test_a_report_that_cannot_be_written_causes_no_second_copy(
    spool: FailingSpool, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    spool.broken["read"] = fault
    (id,) = await filled(spool, to=["a@example.org", "b@example.org"])
    others = await filled(spool, 3)
    client = FakeClient(("250 ok", "550 never"), "550 never", "250 ok")
    report = await processor(spool, client, bounce=HERE, concurrency=1).run_once()
    assert report.error is None and [one.id for one in report.failed] == [id, others[0]]
    results = (await spool.get(id)).results
    assert [one.outcome for one in results if one] == [Outcome.ACCEPTED, Outcome.REFUSED]
    assert report.sent == tuple(others[1:])
    assert f"the report about the job {id} could not be written" in caplog.text
    assert await notices(spool) == []


async def test_an_accepted_recipient_is_written_to_the_spool_before_the_report(spool: FailingSpool) -> None:
    await filled(spool, to=["a@example.org", "b@example.org"])
    spool.calls.clear()
    await processor(spool, FakeClient(("250 ok", "550 never")), bounce=HERE).run_once()
    # The message is read for the report, which is put.
    assert [call for call in spool.calls if call in ("fail", "read", "put")] == ["fail", "read", "put"]


async def test_a_job_that_fails_again_after_a_requeue_is_reported_again(
    spool: FailingSpool, clock: ManualClock
) -> None:
    (id,) = await filled(spool)
    queue = processor(spool, FakeClient("550 never"), bounce=HERE)
    for _ in range(2):
        await queue.run_once()
        clock.move(1)
        await spool.requeue(id)
    assert len(await notices(spool)) == 2


async def test_a_message_that_cannot_be_read_is_reported_without_its_header(spool: FailingSpool) -> None:
    await filled(spool)
    spool.broken["read"] = SpoolError("i/o error")
    await processor(spool, FakeClient("550 never"), bounce=HERE).run_once()
    del spool.broken["read"]
    (report,) = await notices(spool)
    assert [one.address for one in report.recipients] == ["user0@example.org"]


async def test_reports_can_be_delivered_by_the_application(spool: FailingSpool, caplog: Any) -> None:
    await filled(spool, 2)
    told: list[Any] = []

    async def deliver(notice: Any) -> None:
        told.append(notice)
        if len(told) == 2:
            raise ValueError("cannot")

    options = ReportOptions(reporting="here.test", deliver=deliver)
    with caplog.at_level(logging.ERROR, "smtp_async"):
        report = await processor(spool, FakeClient("550 never"), bounce=options).run_once()
    assert len(report.failed) == 2 and len(told) == 2 and await notices(spool) == []
    assert "could not be written or delivered" in caplog.text


async def test_a_delay_is_reported_once(spool: FailingSpool, clock: ManualClock) -> None:
    (id,) = await filled(spool)
    options = ReportOptions(reporting="here.test", delay_after=3600)
    queue = processor(spool, FakeClient("451 4.7.1 later"), bounce=options)
    told = []
    for _ in range(12):
        await queue.run_once()
        for entry in await entries(spool):
            if entry.id != id:
                told.append(parse_report(await spool.read(entry.id)).recipients[0].action)
                await spool.remove(entry.id)
        clock.move((await spool.get(id)).not_before - clock())
    assert told == ["delayed"]


async def test_a_report_waits_until_the_spool_has_room(spool: FailingSpool) -> None:
    await filled(spool)
    spool.broken["put"] = SpoolFull("no space left")
    client = FakeClient("550 never")
    queue = processor(spool, client, bounce=HERE, retry=BRISK)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: spool.calls.count("put") > 3)
    del spool.broken["put"]
    assert len((await running).failed) == 1 and len(client.left) == 1
    assert len(await notices(spool)) == 1
