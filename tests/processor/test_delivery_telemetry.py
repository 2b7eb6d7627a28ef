"""delivery_telemetry.py: each attempt has metrics and a span, linked to the span of `put` over processes and files."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from smtp_async import SMTPClient, Timeouts
from smtp_async.client.telemetry import Telemetry
from smtp_async.errors import SpoolFull
from smtp_async.model.envelope import Envelope
from smtp_async.processor import RetryPolicy
from smtp_async.processor.delivery_telemetry import DeliveryTelemetry
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.entry import Entry, SpoolStatistics
from smtp_async.testing import delay, reply
from tests.lab import client_of, gathered, mail, speaking, until
from tests.otel import Telling
from tests.processor.fakes import ManualClock, processor
from tests.servers.postfix import Postfix

pytestmark = pytest.mark.usefixtures("no_leaks")

HOURLY = RetryPolicy(first=3600.0, factor=1.0, jitter=False)


@pytest.fixture
def telling() -> Telling:
    return Telling()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    return path


async def put_under(telling: Telling, path: Path, *messages: Any) -> Any:
    """Put messages under one span of the application, and return that span."""
    async with DirectorySpool(path, telemetry=telling.telemetry) as spool:
        with telling.tracer.start_as_current_span("handler") as handler:
            for message in messages:
                await spool.put(message)
    return handler.get_span_context()


async def test_an_attempt_is_linked_to_the_put_over_the_spool(telling: Telling, path: Path) -> None:
    handler = await put_under(telling, path, mail())
    (put,) = telling.spans("smtp put")
    assert put.parent is not None and put.parent.span_id == handler.span_id and put.kind.name == "PRODUCER"
    stored = put.attributes or {}
    assert stored["smtp.recipients"] == 1
    async with speaking() as server, client_of(server, telemetry=telling.telemetry) as client:
        async with DirectorySpool(path) as spool:
            # The processor's own context has nothing to do with the message.
            with telling.tracer.start_as_current_span("worker"):
                await processor(spool, client).run_once()
    (deliver,), (send,) = telling.spans("smtp deliver"), telling.spans("smtp send")
    assert deliver.parent is None and deliver.kind.name == "CONSUMER"
    assert [link.context.span_id for link in deliver.links] == [put.context.span_id]
    assert [link.context.trace_id for link in deliver.links] == [handler.trace_id]
    assert send.parent is not None and send.parent.span_id == deliver.context.span_id
    attributes = deliver.attributes or {}
    assert attributes["smtp.queue.job"] == stored["smtp.queue.job"]
    assert (attributes["smtp.queue.attempt"], attributes["smtp.outcome"]) == (1, "accepted")
    assert telling.sum("smtp.queue.puts") == 1
    assert telling.sum("smtp.queue.attempts", **{"smtp.outcome": "accepted"}) == 1


async def test_every_attempt_is_told(telling: Telling, path: Path) -> None:
    clock = ManualClock()
    await put_under(telling, path, mail())
    async with speaking() as server, client_of(server, telemetry=telling.telemetry) as client:
        server.on("MAIL", reply(450, "4.2.0 later"), nth=1)
        server.on("MAIL", reply(550, "5.7.1 no"), nth=2)
        for _ in range(2):
            async with DirectorySpool(path) as spool:
                await processor(spool, client, retry=HOURLY, clock=clock).run_once()
            clock.move(4000.0)
    spans = [span.attributes or {} for span in telling.spans("smtp deliver")]
    assert [span["smtp.queue.attempt"] for span in spans] == [1, 2]
    assert [span["smtp.reply.code"] for span in spans] == [450, 550]
    assert {span["smtp.outcome"] for span in spans} == {"refused"}
    assert len({link.context.span_id for span in telling.spans("smtp deliver") for link in span.links}) == 1


async def test_depth_and_age_of_the_queue(telling: Telling, path: Path) -> None:
    await put_under(telling, path, mail(1), mail(2), mail(3))
    async with speaking() as server, client_of(server, telemetry=telling.telemetry) as client:
        server.on("MAIL", reply(450, "4.2.0 later"))
        async with DirectorySpool(path) as spool:
            oldest = (await spool.statistics()).oldest
            assert oldest is not None
            await processor(spool, client, retry=HOURLY, clock=lambda: oldest + 600).run_once()
    # Told again at the end of the run.
    assert telling.sum("smtp.queue.jobs", **{"smtp.queue.state": "queued"}) == 3
    assert telling.sum("smtp.queue.oldest") == pytest.approx(600.0)


async def test_an_empty_spool_has_no_age(telling: Telling) -> None:
    DeliveryTelemetry(telling.telemetry).note_spool(SpoolStatistics(failed=2), 5.0)
    assert telling.sum("smtp.queue.oldest") == 0.0
    assert telling.sum("smtp.queue.jobs", **{"smtp.queue.state": "failed"}) == 2


async def test_an_attempt_that_is_withdrawn_ends_its_span(telling: Telling, path: Path) -> None:
    await put_under(telling, path, mail())
    options: dict[str, Any] = {"telemetry": telling.telemetry, "timeouts": Timeouts(close=0.1)}
    async with speaking() as server, client_of(server, **options) as client:
        server.on(".", delay(asyncio.Event()))
        async with DirectorySpool(path) as spool:
            queue = processor(spool, client)
            running = asyncio.create_task(queue.run())
            await until(lambda: "." in server.verbs())
            queue.stop(grace=0.0)
            await gathered(running)
            assert (await spool.statistics()).queued == 1
        (span,) = telling.spans("smtp deliver")
        assert (span.attributes or {})["error.type"] == "CancelledError"
        assert telling.sum("smtp.queue.attempts", **{"smtp.outcome": "unknown"}) == 1


async def test_a_put_that_fails_ends_its_span(telling: Telling, path: Path) -> None:
    async with DirectorySpool(path, telemetry=telling.telemetry, low_water=2**62) as spool:
        with pytest.raises(SpoolFull):
            await spool.put(mail())
    (span,) = telling.spans("smtp put")
    assert (span.attributes or {})["error.type"] == "SpoolFull"
    assert span.status.status_code.name == "ERROR"
    assert telling.sum("smtp.queue.puts") == 0


async def test_a_put_that_is_cancelled_ends_its_span(telling: Telling, path: Path) -> None:
    never = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield b"From: a@x.test\r\nTo: b@x.test\r\n\r\n"
        await never.wait()

    async with DirectorySpool(path, telemetry=telling.telemetry) as spool:
        putting = asyncio.create_task(spool.put(source()))
        await until(lambda: telling.begun)
        putting.cancel()
        (ended,) = await gathered(putting)
        assert isinstance(ended, asyncio.CancelledError)
        assert (await spool.statistics()).queued == 0
    (span,) = telling.spans("smtp put")
    assert (span.attributes or {})["error.type"] == "CancelledError"


@pytest.mark.parametrize(
    "trace", [None, "00-00000000000000000000000000000000-0000000000000000-01", "ff-rubbish", "x" * 5000]
)
async def test_what_names_no_span_links_to_none(trace: str | None, telling: Telling) -> None:
    async def outcome() -> None:
        return None

    entry = Entry(id="1", envelope=Envelope("a@x.test", ["b@x.test"]), created=1.0, size=1, trace=trace)
    await DeliveryTelemetry(telling.telemetry).deliver(entry, outcome())
    (span,) = telling.spans("smtp deliver")
    assert span.links == () and "smtp.outcome" not in (span.attributes or {})


async def test_without_an_sdk_jobs_keep_no_trace(path: Path) -> None:
    async with DirectorySpool(path, telemetry=Telemetry()) as spool:
        id = await spool.put(mail())
        assert (await spool.get(id)).trace is None


@pytest.mark.server
async def test_from_a_put_to_postfix(postfix: Postfix, telling: Telling, path: Path) -> None:
    await put_under(telling, path, mail(to="bob@lab.test"))
    client: SMTPClient = client_of(postfix, port=postfix.ports.plain, telemetry=telling.telemetry)
    async with client, DirectorySpool(path) as spool:
        report = await processor(spool, client).run_once()
    assert len(report.sent) == 1
    (deliver,) = telling.spans("smtp deliver")
    assert [link.context.span_id for link in deliver.links] == [telling.spans("smtp put")[0].context.span_id]
