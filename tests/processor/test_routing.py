"""Several routes: each job goes to its client, and no route holds up another one."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from smtp_async import DKIM, DirectorySpool, Outcome
from smtp_async.errors import InvalidArgument
from smtp_async.events import Event, JobDeferred, JobFailed, JobSent, QueuePaused, QueueResumed
from smtp_async.processor import ReportOptions, RetryPolicy, Routes, Unfinished
from smtp_async.spool.contract import Spool
from smtp_async.spool.entry import State
from smtp_async.testing import MemorySpool
from tests.lab import mail, until
from tests.processor.fakes import (
    BRISK,
    STEADY,
    FailingSpool,
    FakeClient,
    ManualClock,
    dead,
    entries,
    filled,
    processor,
)
from tests.spool.postgres.databases import new_spool

pytestmark = pytest.mark.usefixtures("no_leaks")

A, B = "a.test", "b.test"


@pytest.fixture(params=["memory", "directory", pytest.param("postgres", marks=pytest.mark.server)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Spool]:
    """Each spool in turn, with the clock of the system."""
    if request.param == "memory":
        async with MemorySpool() as memory:
            yield memory
        return
    if request.param == "postgres":
        async with await new_spool(request.getfixturevalue("postgres")) as shared:
            yield shared
        return
    async with DirectorySpool(tmp_path / "spool", create=True, durable=False, poll=0.02) as directory:
        yield directory


class Named(FakeClient):
    """A fake client with a host of its own."""

    def __init__(self, host: str, *answers: Any, **pool: Any) -> None:
        super().__init__(*answers, **pool)
        self.host = host


def pair(a: Any = "250 ok", b: Any = "250 ok") -> tuple[Named, Named, Routes]:
    """Return two clients, and the table of routes by the domain of the recipient."""
    first, second = Named("mx.a.test", a), Named("mx.b.test", b)
    routes: dict[str, Any] = {A: first, B: second}
    return first, second, Routes(by_recipient=routes)


def on_the_clock(store: Spool, **options: Any) -> Any:
    """Return a processor on the clock of the system."""
    options.setdefault("retry", BRISK)
    return processor(store, None, clock=time.time, monotonic=time.monotonic, **options)


# --- the choice ----------------------------------------------------------------------------------------------


async def test_each_job_goes_to_its_client(store: Spool) -> None:
    bulk, partner, news, plain = (Named(name) for name in ("bulk", "partner", "news", "plain"))
    tables: dict[str, dict[str, Any]] = {
        "by_tag": {"bulk": bulk},
        "by_recipient": {A: partner},
        "by_sender": {"news.test": news},
    }
    await store.put(mail(to="1@x.test"), tag="bulk")
    await store.put(mail(to=f"2@{A}"))
    await store.put(mail(to="3@x.test", sender="ann@news.test"))
    await store.put(mail(to="4@x.test"))
    report = await processor(store, plain, routes=Routes(**tables), clock=time.time).run_once()
    assert len(report.sent) == 4
    found = [client.recipients for client in (bulk, partner, news, plain)]
    assert found == [[["1@x.test"]], [[f"2@{A}"]], [["3@x.test"]], [["4@x.test"]]]


async def test_a_job_of_another_spool_keeps_the_route_of_its_tag(store: Spool) -> None:
    bulk, plain = Named("bulk"), Named("plain")
    tags: dict[str, Any] = {"bulk": bulk}
    async with MemorySpool() as old:
        id = await old.put(mail(to="1@x.test"), tag="bulk")
        await store.adopt(await old.get(id), await old.read(id))
    queue = processor(store, plain, routes=Routes(by_tag=tags), clock=time.time)
    assert (await queue.run_once()).sent == (id,)
    assert (bulk.recipients, plain.recipients) == ([["1@x.test"]], [])


async def test_routes_may_be_a_function(spool: FailingSpool) -> None:
    first, second = Named("first"), Named("second")
    queue = processor(
        spool, None, routes=lambda entry, recipient: first if recipient.address.local == "user0" else second
    )
    await filled(spool, 3)
    assert queue.statistics().routes == ()
    assert len((await queue.run_once()).sent) == 3
    assert (len(first.tried), len(second.tried)) == (1, 2)
    assert [route.host for route in queue.statistics().routes] == ["first", "second"]


async def test_a_processor_needs_a_client_or_routes(spool: FailingSpool) -> None:
    with pytest.raises(InvalidArgument, match="needs a client, or routes"):
        processor(spool, None)
    with pytest.raises(InvalidArgument, match="routes are Routes or a function"):
        processor(spool, None, routes={A: FakeClient()})


async def test_a_client_that_signs_needs_a_spool_that_does(spool: FailingSpool) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    signing: Any = Named("signing", sign=DKIM("example.com", "s1", key))
    with pytest.raises(InvalidArgument, match="the client signs and the spool does not"):
        processor(spool, FakeClient(), routes=Routes(by_tag={"x": signing}))
    (id,) = await filled(spool)
    report = await processor(spool, None, routes=lambda entry, recipient: signing).run_once()
    [failed] = report.failed
    assert failed.id == id and "cannot be used: the client signs" in failed.reason and not signing.tried


@pytest.mark.parametrize(
    ("routes", "reason"),
    [
        (lambda entry, recipient: None, "no route for user0@example.org"),
        (lambda entry, recipient: "mx", "the route for user0@example.org is 'mx', and not a client"),
    ],
    ids=["none", "no client"],
)
async def test_a_job_without_a_route_fails_with_the_reason(
    spool: FailingSpool, routes: Any, reason: str
) -> None:
    """It is kept for an operator, and no report goes to its sender: the routes are wrong, not the message."""
    (id,) = await filled(spool)
    heard: list[Event] = []
    queue = processor(spool, None, routes=routes, bounce=ReportOptions(reporting="mx.test"))
    queue.on(JobFailed, heard.append)
    report = await queue.run_once()
    assert report.failed == (Unfinished(id, reason),)
    assert [event.reason for event in heard] == [reason]  # type: ignore[attr-defined]
    entry = await spool.get(id)
    assert (entry.state, entry.reason, len(entry.pending)) == (State.FAILED, reason, 1)
    assert spool.calls.count("put") == 1
    await spool.requeue(id)
    assert (await processor(spool, FakeClient()).run_once()).sent == (id,)


async def test_jobs_without_a_route_do_not_hold_up_the_others(spool: FailingSpool) -> None:
    await filled(spool, 30, to="x@nowhere.test")
    first, _, routes = pair()
    good = await filled(spool, 3, to=f"x@{A}")
    report = await processor(spool, None, routes=routes, concurrency=4).run_once()
    assert set(report.sent) == set(good) and len(report.failed) == 30 and len(first.tried) == 3


# --- messages with several routes ----------------------------------------------------------------------------


async def test_a_message_is_delivered_route_by_route(store: Spool) -> None:
    first, second, routes = pair("250 2.0.0 queued as A1", "250 2.0.0 queued as B1")
    id = await store.put(mail(to=f"1@{A}, 2@{B}, 3@{A}"))
    heard: list[Event] = []
    queue = on_the_clock(store, routes=routes, keep_sent=True)
    for kind in (JobSent, JobDeferred):
        queue.on(kind, heard.append)
    report = await queue.run_once()
    assert (report.sent, report.deferred, bool(report)) == ((id,), (), True)
    assert (first.recipients, second.recipients) == ([[f"1@{A}", f"3@{A}"]], [[f"2@{B}"]])
    assert [type(event) for event in heard] == [JobDeferred, JobSent]
    entry = await store.get(id)
    assert (entry.state, entry.attempts, entry.flagged) == (State.SENT, 1, False)
    assert [one.queue_id for one in entry.results if one is not None] == ["A1", "B1", "A1"]


async def test_only_the_route_that_failed_is_tried_again(spool: FailingSpool, clock: ManualClock) -> None:
    first, second, routes = pair("451 4.7.1 later")
    id = await spool.put(mail(to=f"1@{A}, 2@{B}"))
    queue = processor(spool, None, routes=routes)
    assert (await queue.run_once()).deferred == (Unfinished(id, "451 4.7.1 later", clock() + 60),)
    entry = await spool.get(id)
    assert (entry.attempts, [str(one.address) for one in entry.pending]) == (1, [f"1@{A}"])
    clock.move(60)
    first.answers = ["250 ok"]
    assert (await queue.run_once()).sent == (id,)
    assert (first.recipients, second.recipients) == ([[f"1@{A}"]] * 2, [[f"2@{B}"]])


@pytest.mark.parametrize("answers", [("550 5.1.1 never", "250 ok"), ("250 ok", "550 5.1.1 never")])
async def test_a_job_fails_if_one_route_refused_it(spool: FailingSpool, answers: Any) -> None:
    first, second, routes = pair(*answers)
    id = await spool.put(mail(to=f"1@{A}, 2@{B}"))
    queue = processor(
        spool, Named("default", dead()), routes=routes, bounce=ReportOptions(reporting="mx.test")
    )
    report = await queue.run_once()
    assert [one.id for one in report.failed] == [id]
    entry = await spool.get(id)
    assert (entry.state, entry.reason, entry.pending) == (State.FAILED, "550 5.1.1 never", ())
    assert (len(first.tried), len(second.tried)) == (1, 1)
    [report_id] = [one.id for one in await entries(spool) if one.id != id]
    refused = 1 if answers[0].startswith("550") else 2
    assert f"Final-Recipient: rfc822; {refused}@".encode() in await spool.read(report_id)


async def test_attempts_are_counted_by_round(spool: FailingSpool, clock: ManualClock) -> None:
    """Three routes that refuse for now, and three attempts: each is tried three times, with the usual waits."""
    clients = {f"{name}.test": Named(name, "451 later") for name in "abc"}
    table: Any = clients
    id = await spool.put(mail(to=", ".join(f"x@{domain}" for domain in clients)))
    retry = RetryPolicy(attempts=3, jitter=False)
    queue = processor(spool, None, routes=Routes(by_recipient=table), retry=retry)
    for wait in (60, 120):
        [deferred] = (await queue.run_once()).deferred
        assert deferred.not_before == clock() + wait
        clock.move(wait)
    report = await queue.run_once()
    assert report.failed == (Unfinished(id, "451 later"),)
    assert [len(client.tried) for client in clients.values()] == [3, 3, 3]
    assert (await spool.get(id)).attempts == 3


async def test_a_crash_between_two_routes_repeats_neither(spool: FailingSpool) -> None:
    first, second, routes = pair()
    id = await spool.put(mail(to=f"1@{A}, 2@{B}"))
    queue = processor(spool, None, routes=routes)
    queue.on(JobDeferred, lambda event: queue.stop())
    await queue.run()
    [lease] = await spool.claim(1, now=spool.clock() + 1)
    spool.abandon(lease)
    report = await processor(spool, None, routes=routes).run_once()
    assert report.sent == (id,)
    assert (first.recipients, second.recipients) == ([[f"1@{A}"]], [[f"2@{B}"]])


async def test_an_unknown_outcome_on_one_route_is_held_without_stopping_the_other(
    spool: FailingSpool,
) -> None:
    first, second, routes = pair(Outcome.UNKNOWN)
    id = await spool.put(mail(to=f"1@{A}, 2@{B}"))
    report = await processor(spool, None, routes=routes, on_unknown="hold").run_once()
    assert report.failed == (Unfinished(id, "unknown"),)
    assert (first.recipients, second.recipients) == ([[f"1@{A}"]], [[f"2@{B}"]])
    await spool.requeue(id)
    first.answers = ["250 ok"]
    assert (await processor(spool, None, routes=routes, on_unknown="hold").run_once()).sent == (id,)
    assert len(second.tried) == 1


# --- no route holds up another -------------------------------------------------------------------------------


async def test_a_dead_server_does_not_hold_up_the_others(store: Spool) -> None:
    first, second, routes = pair(dead())
    stuck = [await store.put(mail(n, to=f"x@{A}")) for n in range(60)]
    sent = [await store.put(mail(n, to=f"x@{B}")) for n in range(5)]
    retry = RetryPolicy(pause=3600, longest_pause=3600, jitter=False)
    queue = on_the_clock(store, routes=routes, concurrency=4, retry=retry)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: queue.statistics().sent == 5)
    assert len(second.tried) == 5 and len(first.tried) <= 4
    a, b = queue.statistics().routes
    assert (a.host, b.host, a.problem, b.problem) == ("mx.a.test", "mx.b.test", "cannot connect", "")
    assert a.paused_until is not None and b.paused_until is None
    # Jobs that were turned away wait in the spool until the pause is over, and no attempt was counted.
    late = await store.put(mail(to=f"late@{B}"))
    await until(lambda: queue.statistics().sent == 6)
    queue.stop()
    await running
    left = await entries(store)  # type: ignore[arg-type]
    assert {entry.id for entry in left} == set(stuck) and late not in stuck + sent
    assert {(entry.attempts, entry.state) for entry in left} == {(0, State.QUEUED)}
    assert any(entry.not_before > time.time() + 3000 for entry in left)


async def test_a_route_whose_pause_is_over_is_probed_with_one_message(
    spool: FailingSpool, clock: ManualClock
) -> None:
    first, second, routes = pair(dead())
    await filled(spool, 20, to=f"x@{A}")
    heard: list[Any] = []
    queue = processor(spool, None, routes=routes, concurrency=4)
    queue.on(QueuePaused, heard.append)
    queue.on(QueueResumed, heard.append)
    report = await queue.run_once()
    assert str(report.error) == "cannot connect" and not report.sent
    assert [(type(event), event.host) for event in heard] == [(QueuePaused, "mx.a.test")]
    tried = len(first.tried)
    await filled(spool, 2, to=f"x@{B}")
    clock.move(6)
    assert len((await queue.run_once()).sent) == 2
    # The probe found the server dead again.
    assert len(first.tried) == tried + 1
    clock.move(60)
    first.answers = ["250 ok"]
    gathered = list((await queue.run_once()).sent)
    clock.move(60)
    gathered += (await queue.run_once()).sent
    assert len(gathered) == 20
    assert [type(event) for event in heard] == [QueuePaused, QueuePaused, QueueResumed]


async def test_jobs_of_a_paused_route_expire(spool: FailingSpool, clock: ManualClock) -> None:
    first, _, routes = pair(dead())
    await filled(spool, to=f"x@{A}")
    retry = RetryPolicy(pause=3600, longest_pause=3600, jitter=False)
    queue = processor(spool, None, routes=routes, retry=retry)
    await queue.run_once()
    id = await spool.put(mail(to=f"x@{A}"), expires=clock() + 60)
    assert not (await queue.run_once()).failed
    assert (await spool.get(id)).not_before == clock() + 60
    clock.move(61)
    [failed] = (await queue.run_once()).failed
    assert failed.id == id and "could not be delivered in time" in failed.reason and len(first.tried) == 1


async def test_a_slow_server_does_not_hold_up_the_others(store: Spool) -> None:
    first, second, routes = pair()
    first.gate.clear()
    for n in range(60):
        await store.put(mail(n, to=f"x@{A}"))
    for n in range(5):
        await store.put(mail(n, to=f"x@{B}"))
    queue = on_the_clock(store, routes=routes, concurrency=3)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: queue.statistics().sent == 5)
    await store.put(mail(to=f"late@{B}"))
    await until(lambda: queue.statistics().sent == 6)
    assert (len(second.tried), first.waiting, first.most) == (6, 3, 3)
    first.gate.set()
    # The three that were held up, and the first of those that were turned away; the others are due at the pace of the
    # server so far.
    await until(lambda: queue.statistics().sent > 9)
    queue.stop()
    await running
    assert first.most == 3


async def test_a_run_of_every_due_job_tries_each_of_a_slow_route_too(store: Spool) -> None:
    first, second, routes = pair()
    for n in range(40):
        await store.put(mail(n, to=f"x@{(A, B)[n % 3 == 0]}"))
    report = await on_the_clock(store, routes=routes, concurrency=2).run_once()
    assert len(report.sent) == 40 and bool(report)
    assert len(first.tried) + len(second.tried) == 40


async def test_a_job_waits_for_its_paused_route_while_the_other_has_its_turn(
    spool: FailingSpool, clock: ManualClock
) -> None:
    first, second, routes = pair(dead())
    await filled(spool, to=f"x@{A}")
    retry = RetryPolicy(pause=600, longest_pause=600, jitter=False)
    queue = processor(spool, None, routes=routes, retry=retry)
    await queue.run_once()
    id = await spool.put(mail(to=f"1@{A}, 2@{B}"))
    await queue.run_once()
    entry = await spool.get(id)
    assert ([str(one.address) for one in entry.pending], entry.attempts) == ([f"1@{A}"], 0)
    assert entry.not_before == clock() + 600 and second.recipients == [[f"2@{B}"]]
    first.answers = ["250 ok"]
    clock.move(601)
    await queue.run_once()
    clock.move(601)
    await queue.run_once()
    assert not await entries(spool) and len(second.tried) == 1


async def test_a_recipient_that_was_deferred_keeps_its_wait_while_another_route_pauses(
    spool: FailingSpool, clock: ManualClock
) -> None:
    first, second, routes = pair(dead(), "451 later")
    await filled(spool, to=f"x@{A}")
    queue = processor(spool, None, routes=routes, retry=STEADY)
    await queue.run_once()
    id = await spool.put(mail(to=f"1@{A}, 2@{B}"))
    await queue.run_once()
    entry = await spool.get(id)
    assert (entry.attempts, entry.not_before, len(second.tried)) == (1, clock() + 60, 1)


async def test_a_broken_spool_stops_every_route(spool: FailingSpool) -> None:
    first, second, routes = pair()
    await filled(spool, 3, to=f"x@{A}")
    await filled(spool, 3, to=f"x@{B}")
    spool.broken["mark"] = OSError(5, "i/o error")
    queue = processor(spool, None, routes=routes, concurrency=1)
    report = await queue.run_once()
    assert report.error is not None and not report.sent
    assert not first.left and not second.left


async def test_several_runs_use_the_same_routes(spool: FailingSpool) -> None:
    first, second, routes = pair()
    queue = processor(spool, None, routes=routes)
    for _ in range(3):
        await filled(spool, 2, to=f"x@{A}, y@{B}")
        assert len((await queue.run_once()).sent) == 2
    assert (len(first.tried), len(second.tried)) == (6, 6)


async def test_a_stop_returns_the_jobs_of_every_route(store: Spool) -> None:
    first, second, routes = pair()
    first.gate.clear()
    second.gate.clear()
    for n in range(20):
        await store.put(mail(n, to=f"x@{(A, B)[n % 2]}"))
    queue = on_the_clock(store, routes=routes, concurrency=2, grace=0.0)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: first.waiting == second.waiting == 2)
    queue.stop()
    await running
    found = await store.statistics()
    assert (found.queued, found.sending, queue.statistics().sending) == (20, 0, 0)
