"""The processor: what becomes of jobs, in whatever order the server, the spool and the caller fail."""

import asyncio
import logging
import os
import signal
import time
from functools import partial
from typing import Any

import pytest

from smtp_async import Outcome, PoolLimits
from smtp_async.errors import (
    AuthenticationFailed,
    Busy,
    InvalidArgument,
    LeaseLost,
    NotConnected,
    SenderRefused,
    SpoolError,
    SpoolFull,
    SpoolUnsafe,
    UsageError,
)
from smtp_async.events import (
    Event,
    JobDeferred,
    JobFailed,
    JobQueued,
    JobSent,
    JobStarted,
    QueuePaused,
    QueueResumed,
)
from smtp_async.processor import QueueProcessor, ReportOptions, RetryPolicy, Unfinished, parse_report
from smtp_async.spool.entry import State
from smtp_async.testing import CancelManner, CancelMoment, cancellations
from smtp_async.testing.memory import MemorySpool
from tests.lab import client_of, every_loop, mail, speaking, turns, until
from tests.processor.office import (
    BRISK,
    Clock,
    FrailSpool,
    Postman,
    dead,
    entries,
    filled,
    processor,
    receipt,
    reply,
)

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(clock: Clock) -> FrailSpool:
    return FrailSpool(clock=clock)


# --- one look at the queue -----------------------------------------------------------------------------------


async def test_everything_due_is_sent_once(spool: FrailSpool) -> None:
    ids = await filled(spool, 100)
    client = Postman()
    report = await processor(spool, client).run_once()
    assert sorted(report.sent) == sorted(ids) and report
    assert sorted(client.recipients) == sorted([f"user{n}@example.org"] for n in range(100))
    assert await entries(spool) == []


async def test_an_empty_spool_is_nothing_to_do(spool: FrailSpool) -> None:
    report = await processor(spool, Postman()).run_once()
    assert report and report.tried == 0


async def test_what_is_not_due_waits(spool: FrailSpool, clock: Clock) -> None:
    await spool.put(mail(), not_before=clock() + 60)
    assert (await processor(spool, Postman()).run_once()).tried == 0
    clock.move(60)
    assert (await processor(spool, Postman()).run_once()).tried == 1


async def test_sent_mail_is_kept_if_wanted(spool: FrailSpool) -> None:
    (id,) = await filled(spool)
    await processor(spool, Postman(), keep_sent=True).run_once()
    entry = await spool.get(id)
    assert entry.state is State.SENT and not entry.flagged
    assert entry.results[0] is not None and entry.results[0].queue_id == "X1"


async def test_temporary_failures_go_back_with_their_next_time(spool: FrailSpool, clock: Clock) -> None:
    (id,) = await filled(spool)
    report = await processor(spool, Postman("451 4.7.1 greylisted")).run_once()
    assert report.deferred == (Unfinished(id, "451 4.7.1 greylisted", clock() + 60),) and not report
    entry = await spool.get(id)
    assert (entry.state, entry.not_before, entry.attempts) == (State.QUEUED, clock() + 60, 1)
    clock.move(60)
    report = await processor(spool, Postman("451 4.7.1 greylisted")).run_once()
    assert report.deferred[0].not_before == clock() + 120


async def test_permanent_failures_are_kept_with_their_reason(spool: FrailSpool) -> None:
    (id,) = await filled(spool)
    report = await processor(spool, Postman("550 5.7.1 spam")).run_once()
    assert report.failed == (Unfinished(id, "550 5.7.1 spam"),)
    entry = await spool.get(id)
    assert (entry.state, entry.reason) == (State.FAILED, "550 5.7.1 spam")


async def test_one_attempt_ends_every_error_as_failed(spool: FrailSpool) -> None:
    ids = await filled(spool, 3)
    client = Postman("451 later", ("450 later",), dead())
    report = await processor(spool, client, retry=RetryPolicy(attempts=1), concurrency=1).run_once()
    assert sorted(one.id for one in report.failed) == sorted(ids)
    assert {entry.state for entry in await entries(spool)} == {State.FAILED}


async def test_nothing_new_is_begun_after_the_first_failure(spool: FrailSpool) -> None:
    await filled(spool, 10)
    client = Postman("250 ok", "550 never", "250 ok")
    report = await processor(spool, client, stop_on_error=True, concurrency=1).run_once()
    assert (len(report.sent), len(report.failed)) == (1, 1) and "550 never" in str(report.error)
    assert len(client.tried) == 2
    left = await entries(spool, State.QUEUED)
    assert [entry.attempts for entry in left] == [0] * 8


async def test_a_wait_of_nothing_is_for_the_next_look(spool: FrailSpool) -> None:
    await filled(spool, 3)
    client = Postman("451 later")
    report = await processor(spool, client, retry=RetryPolicy(first=0.0, jitter=False)).run_once()
    assert len(report.deferred) == 3 and len(client.tried) == 3


async def test_only_those_who_are_left_are_tried_again(spool: FrailSpool, clock: Clock) -> None:
    (id,) = await filled(spool, to="ann@x.test, bob@x.test, cid@x.test")
    client = Postman(("250 ok", "450 later", "550 never"), ("450 later",), ("250 ok",))
    queue = processor(spool, client)
    assert len((await queue.run_once()).deferred) == 1
    clock.move(3600)
    assert len((await queue.run_once()).deferred) == 1
    clock.move(3600)
    report = await queue.run_once()
    assert client.recipients == [["ann@x.test", "bob@x.test", "cid@x.test"], ["bob@x.test"], ["bob@x.test"]]
    # One of them never got it: that is for a person to see.
    assert [one.id for one in report.failed] == [id]
    entry = await spool.get(id)
    assert [str(who.address) for who, _ in entry.failed] == ["cid@x.test"]


async def test_the_bytes_never_change(spool: FrailSpool, clock: Clock) -> None:
    await filled(spool)
    client = Postman("451 later", "250 ok")
    queue = processor(spool, client)
    await queue.run_once()
    clock.move(60)
    await queue.run_once()
    first, second = (one.content().join() for one in client.tried)
    assert first == second and b"Message-ID:" in first


async def test_an_expired_job_is_tried_a_last_time(spool: FrailSpool, clock: Clock) -> None:
    (id,) = [await spool.put(mail(), expires=clock() + 30)]
    client = Postman("451 later")
    queue = processor(spool, client)
    await queue.run_once()
    assert (await spool.get(id)).not_before == clock() + 30
    clock.move(30)
    report = await queue.run_once()
    assert report.failed[0].reason == "it could not be delivered in time 451 later"


# --- unknown -------------------------------------------------------------------------------------------------


async def test_unknown_is_tried_again(spool: FrailSpool) -> None:
    (id,) = await filled(spool)
    queue = processor(spool, Postman(Outcome.UNKNOWN))
    report = await queue.run_once()
    assert len(report.deferred) == 1 and queue.statistics().unknown == 1
    assert (await spool.get(id)).flagged


async def test_every_try_after_an_unknown_one_is_told_that_it_may_make_a_second_copy(
    spool: FrailSpool, clock: Clock
) -> None:
    await filled(spool)
    queue = processor(spool, Postman(Outcome.UNKNOWN, "451 later", "250 ok"))
    told: list[tuple[int, bool]] = []
    queue.on(JobStarted, lambda event: told.append((event.attempt, event.flagged)))
    for _ in range(3):
        await queue.run_once()
        clock.move(3600)
    assert told == [(1, False), (2, True), (3, True)]


async def test_what_was_unknown_is_held_also_by_a_later_processor(spool: FrailSpool, clock: Clock) -> None:
    (id,) = await filled(spool)
    await processor(spool, Postman(Outcome.UNKNOWN)).run_once()
    clock.move(3600)
    client = Postman()
    report = await processor(spool, client, on_unknown="hold").run_once()
    assert client.tried == [] and report.failed == (Unfinished(id, "unknown"),)


@pytest.mark.parametrize("first", ["retry", "hold"])
async def test_who_requeues_what_is_unknown_has_decided(spool: FrailSpool, clock: Clock, first: Any) -> None:
    (id,) = await filled(spool)
    await processor(spool, Postman(Outcome.UNKNOWN), on_unknown=first).run_once()
    await spool.requeue(id)
    clock.move(1)
    client = Postman("451 later")
    queue = processor(spool, client, on_unknown="hold")
    told: list[bool] = []
    queue.on(JobStarted, lambda event: told.append(event.flagged))
    await queue.run_once()
    assert told == [True] and len(client.tried) == 1
    # That was for one try.
    clock.move(3600)
    assert (await queue.run_once()).failed == (Unfinished(id, "unknown"),)
    assert len(client.tried) == 1


async def test_unknown_is_held_if_wanted(spool: FrailSpool) -> None:
    (id,) = await filled(spool)
    report = await processor(spool, Postman(Outcome.UNKNOWN), on_unknown="hold").run_once()
    assert report.failed == (Unfinished(id, "unknown"),)
    await spool.requeue(id)
    assert (await spool.get(id)).pending


async def die(spool: FrailSpool, *, flagged: bool) -> None:
    (lease,) = await spool.claim(1, now=spool._clock() + 1)
    if flagged:
        await lease.mark_end_of_data()
    spool.abandon(lease)


@pytest.mark.parametrize(("on_unknown", "tried"), [("retry", 1), ("hold", 0)])
async def test_what_a_dead_worker_may_have_sent(spool: FrailSpool, on_unknown: Any, tried: int) -> None:
    await filled(spool)
    await die(spool, flagged=True)
    client = Postman()
    report = await processor(spool, client, on_unknown=on_unknown).run_once()
    assert len(client.tried) == tried
    assert len(report.sent) == tried and len(report.failed) == 1 - tried


@pytest.mark.parametrize("on_unknown", ["retry", "hold"])
async def test_what_a_dead_worker_had_not_sent_is_sent(spool: FrailSpool, on_unknown: Any) -> None:
    await filled(spool)
    await die(spool, flagged=False)
    assert len((await processor(spool, Postman(), on_unknown=on_unknown).run_once()).sent) == 1


async def test_a_poison_message_fails(spool: FrailSpool) -> None:
    (id,) = await filled(spool)
    heard: list[Event] = []
    queue = processor(spool, Postman())
    queue.on(JobFailed, heard.append)
    await die(spool, flagged=False)
    for _ in range(2):
        await spool.recover()
        await die(spool, flagged=False)
    assert (await queue.run_once()).tried == 0
    assert (await spool.get(id)).reason == "poison"
    assert [(event.id, event.reason) for event in heard] == [(id, "poison")]  # type: ignore[attr-defined]


async def test_a_job_whose_worker_died_is_tried_alone(spool: FrailSpool) -> None:
    """It may be what killed it: if it does so again, no other job is to be counted with it."""
    await filled(spool, 3)
    doomed = await spool.claim(2, now=spool._clock() + 1)
    for lease in doomed:
        spool.abandon(lease)
    await filled(spool, 20)
    suspects = {str(lease.entry.pending[0].address) for lease in doomed}
    client = Postman()
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


async def test_those_before_a_suspect_are_not_kept_waiting(spool: FrailSpool) -> None:
    ids = await filled(spool, 10)
    (lease,) = (one for one in await spool.claim(10, now=spool._clock() + 1) if one.entry.id == ids[4])
    for other in [job.lease for job in spool._jobs.values() if job.lease not in (None, lease)]:
        await other.release()
    spool.abandon(lease)
    client = Postman()
    client.gate.clear()
    queue = processor(spool, client, concurrency=10)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: client.waiting == 4)
    client.gate.set()
    assert len((await running).sent) == 10


# --- the server as a whole -----------------------------------------------------------------------------------


async def test_a_dead_server_ends_the_look_and_counts_against_nobody(spool: FrailSpool) -> None:
    await filled(spool, 50)
    client = Postman(dead())
    report = await processor(spool, client, concurrency=4).run_once()
    assert report.tried == 0 and report.error is not None and "cannot connect" in str(report.error)
    assert len(client.tried) <= 4
    left = await entries(spool)
    assert {(entry.state, entry.attempts) for entry in left} == {(State.QUEUED, 0)} and len(left) == 50


async def test_a_wrong_password_bounces_nothing(spool: FrailSpool) -> None:
    (id,) = await filled(spool)
    error = AuthenticationFailed("wrong", reply=reply("535 5.7.8 wrong"), stage="AUTH")
    options = ReportOptions(reporting="here.test")
    report = await processor(spool, Postman(error), bounce=options).run_once()
    assert report.error is not None and "535" in str(report.error)
    assert [entry.id for entry in await entries(spool)] == [id]


async def test_mail_flows_again_after_the_pause(spool: FrailSpool) -> None:
    await filled(spool, 50)
    heard: list[Any] = []
    client = Postman(*[dead()] * 6, "250 ok")
    queue = processor(spool, client, concurrency=4, retry=BRISK, clock=asyncio.get_running_loop().time)
    spool._clock = lambda: 2.0**39
    queue.on(QueuePaused, heard.append)
    queue.on(QueueResumed, heard.append)
    queue.on(JobSent, lambda event: queue.stop() if queue.statistics().sent == 50 else None)
    await queue.run()
    assert queue.statistics().sent == 50 and len(client.tried) == 56
    # At most four met the dead server at once; each probe after that went alone.
    assert [type(event) for event in heard[-2:]] == [QueuePaused, QueueResumed]
    assert queue.statistics().problem == "" and queue.statistics().paused_until is None


async def test_a_probe_that_was_withdrawn_does_not_stop_the_next_run(spool: FrailSpool) -> None:
    await filled(spool, 2)
    client = Postman(dead(), "250 ok")
    queue = processor(spool, client, retry=BRISK, concurrency=1, clock=time.time)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: len(client.tried) == 1)
    client.gate.clear()
    await until(lambda: len(client.tried) == 2 and client.waiting)
    queue.stop(grace=0)
    await running
    assert client.left == []
    client.gate.set()
    running = asyncio.ensure_future(queue.run())
    await until(lambda: queue.statistics().sent == 2)
    queue.stop()
    await running


async def test_what_was_being_claimed_when_the_pause_began_is_no_probe(spool: FrailSpool) -> None:
    """It would be given back with the last of those that were under way, and no other probe would follow."""
    await filled(spool)
    client = Postman(dead(), "250 ok")
    client.gate.clear()
    queue = processor(
        spool, client, concurrency=4, retry=BRISK, poll=0.01, clock=asyncio.get_running_loop().time
    )
    spool._clock = lambda: 2.0**39
    claim, paused = spool.claim, asyncio.Event()

    async def slow_claim(*args: Any, **options: Any) -> Any:
        leases = await claim(*args, **options)
        if leases and client.waiting:
            client.gate.set()
            await paused.wait()
        return leases

    async def note(event: QueuePaused) -> None:
        paused.set()
        # The first job is still under way when the second is handed out.
        await turns()

    spool.claim = slow_claim  # type: ignore[method-assign]
    queue.on(QueuePaused, note)
    queue.on(JobSent, lambda event: queue.stop() if queue.statistics().sent == 2 else None)
    running = asyncio.create_task(queue.run())
    await until(lambda: client.waiting == 1)
    await filled(spool)
    async with asyncio.timeout(10.0):
        await running
    assert queue.statistics().sent == 2


async def test_a_paused_processor_says_so(spool: FrailSpool, clock: Clock) -> None:
    await filled(spool)
    queue = processor(spool, Postman(dead()))
    await queue.run_once()
    numbers = queue.statistics()
    assert numbers.problem == "cannot connect" and numbers.paused_until == pytest.approx(clock() + 5)
    assert numbers.released == 1


@pytest.mark.parametrize("step", [-86400.0, 86400.0])
async def test_a_pause_has_its_length_whatever_is_done_to_the_wall_clock(
    spool: FrailSpool, clock: Clock, step: float
) -> None:
    (id,) = await filled(spool)
    steady = Clock()
    told: list[QueuePaused] = []
    queue = processor(spool, Postman(dead(), "250 ok"), monotonic=steady)
    queue.on(QueuePaused, told.append)
    await queue.run_once()
    assert told[0].until == pytest.approx(clock() + 5)
    clock.move(step)
    steady.move(4.9)
    assert (await queue.run_once()).error is not None
    assert queue.statistics().paused_until == pytest.approx(clock() + 0.1)
    steady.move(0.2)
    assert (await queue.run_once()).sent == (id,)


async def test_a_sender_who_must_log_in_does_not_block_the_others(spool: FrailSpool) -> None:
    ids = await filled(spool, 2)
    error = SenderRefused("no", reply=reply("530 log in first"), stage="MAIL")

    async def refuse(message: Any) -> Any:
        return receipt(message.envelope().recipients, "530 log in first", error=error)

    client = Postman(refuse, "250 ok")
    queue = processor(spool, client, concurrency=1)
    report = await queue.run_once()
    assert len(report.deferred) == 1 and report.error is not None
    assert sorted(entry.attempts for entry in await entries(spool)) == [0, 1]
    assert {entry.id for entry in await entries(spool)} == set(ids)


async def test_expired_mail_fails_while_the_server_is_dead(spool: FrailSpool, clock: Clock) -> None:
    for number in range(5):
        await spool.put(mail(number), expires=clock() + 10)
    await filled(spool, 5)
    clock.move(10)
    queue = processor(spool, Postman(dead()), concurrency=10)
    report = await queue.run_once()
    assert len(report.failed) == 5
    assert {entry.state for entry in await entries(spool)} == {State.QUEUED, State.FAILED}


async def test_a_closed_client_is_an_error(spool: FrailSpool) -> None:
    await filled(spool, 5)
    with pytest.raises(NotConnected):
        await processor(spool, Postman(NotConnected("the client is closed"))).run()
    assert {(entry.state, entry.attempts) for entry in await entries(spool)} == {(State.QUEUED, 0)}


async def test_a_fault_of_the_program_costs_one_try(spool: FrailSpool, caplog: Any) -> None:
    await filled(spool, 2)
    client = Postman(ValueError("what"), "250 ok")
    with caplog.at_level(logging.ERROR, "smtp_async"):
        report = await processor(spool, client).run_once()
    assert (len(report.sent), len(report.deferred)) == (1, 1)
    assert "raised" in caplog.text


# --- the spool -----------------------------------------------------------------------------------------------


async def test_what_cannot_be_marked_is_not_sent(spool: FrailSpool) -> None:
    await filled(spool, 10)
    spool.broken["mark"] = SpoolFull("no space left")
    client = Postman()
    queue = processor(spool, client, concurrency=2)
    report = await queue.run_once()
    assert client.left == [] and report.tried == 0 and isinstance(report.error, SpoolFull)
    assert len(client.tried) <= 2
    assert {(entry.state, entry.attempts, entry.flagged) for entry in await entries(spool)} == {
        (State.QUEUED, 0, False)
    }


async def test_it_goes_on_when_the_spool_can_be_written_again(spool: FrailSpool) -> None:
    await filled(spool, 10)
    spool.broken["mark"] = SpoolFull("no space left")
    client = Postman()
    queue = processor(spool, client, retry=BRISK, clock=asyncio.get_running_loop().time)
    spool._clock = lambda: 2.0**39
    paused: list[Any] = []

    def heal(event: Any) -> None:
        paused.append(event)
        if len(paused) == 3:
            del spool.broken["mark"]

    queue.on(QueuePaused, heal)
    queue.on(JobSent, lambda event: queue.stop() if queue.statistics().sent == 10 else None)
    await queue.run()
    assert len(client.left) == 10 and len(paused) == 3


@pytest.mark.parametrize("name", ["settle", "defer", "fail"])
async def test_nothing_is_sent_twice_because_its_end_cannot_be_noted(spool: FrailSpool, name: str) -> None:
    answers = {"settle": "250 ok", "defer": "451 later", "fail": "550 never"}
    await filled(spool, 1)
    spool.broken[name] = SpoolError("i/o error")
    client = Postman(answers[name])
    queue = processor(spool, client, retry=BRISK)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: spool.calls.count(name) == 5)
    assert len(client.left) == 1 and not running.done()
    del spool.broken[name]
    report = await running
    assert report.tried == 1 and len(client.left) == 1


async def test_while_an_end_cannot_be_noted_nothing_else_is_sent(spool: FrailSpool) -> None:
    await filled(spool, 20)
    spool.broken["settle"] = SpoolError("i/o error")
    client = Postman()
    queue = processor(spool, client, concurrency=2, retry=BRISK)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: spool.calls.count("settle") > 10)
    assert len(client.left) <= 2
    del spool.broken["settle"]
    spool._clock = lambda: 2.0**39
    await until(lambda: queue.statistics().sent == 20)
    queue.stop()
    await running
    assert len(client.left) == 20


async def test_a_lease_that_was_lost_is_not_sent(spool: FrailSpool, caplog: Any) -> None:
    await filled(spool)
    spool.broken["mark"] = LeaseLost("gone")
    client = Postman()
    with caplog.at_level(logging.WARNING, "smtp_async"):
        report = await processor(spool, client).run_once()
    assert client.left == [] and report.tried == 0
    assert "taken away" in caplog.text


async def test_a_lease_that_is_lost_at_its_end_is_left_alone(spool: FrailSpool) -> None:
    await filled(spool)
    spool.broken["settle"] = LeaseLost("gone")
    report = await processor(spool, Postman()).run_once()
    assert report.tried == 0 and report.error is None


@pytest.mark.parametrize("name", ["claim", "recover", "wait"])
async def test_an_unreadable_spool_is_tried_again(spool: FrailSpool, name: str) -> None:
    spool.broken[name] = SpoolError("i/o error")
    spool._clock = lambda: 2.0**39
    queue = processor(spool, Postman(), retry=BRISK, clock=asyncio.get_running_loop().time)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: queue.statistics().problem)
    del spool.broken[name]
    await filled(spool)
    await until(lambda: queue.statistics().sent)
    queue.stop()
    await running


@pytest.mark.parametrize("name", ["claim", "recover", "wait"])
@pytest.mark.parametrize("error", [SpoolUnsafe("others may write"), UsageError("the spool is closed")])
async def test_a_spool_that_cannot_be_used_is_an_error(
    spool: FrailSpool, name: str, error: Exception
) -> None:
    if name == "wait" and isinstance(error, SpoolUnsafe):
        pytest.skip("waiting looks at no files")
    spool.broken[name] = error
    with pytest.raises(type(error)):
        await processor(spool, Postman()).run()


# --- running on and stopping ---------------------------------------------------------------------------------


def sent(queue: QueueProcessor, count: int) -> bool:
    return queue.statistics().sent == count


async def test_new_mail_is_sent_as_it_comes(spool: FrailSpool) -> None:
    queue = processor(spool, Postman(), poll=10.0)
    running = asyncio.ensure_future(queue.run())
    for count in range(1, 4):
        await filled(spool)
        await until(partial(sent, queue, count))
    queue.stop()
    await running


async def test_deferred_mail_is_tried_again_when_it_is_due(spool: FrailSpool) -> None:
    await filled(spool)
    client = Postman("451 later", "451 later", "250 ok")
    queue = processor(spool, client, retry=RetryPolicy(first=0.001, jitter=False))
    running = asyncio.ensure_future(queue.run())
    await until(lambda: queue.statistics().deferred == 1)
    spool._clock.move(1)  # type: ignore[attr-defined]
    await until(lambda: queue.statistics().deferred == 2)
    spool._clock.move(1)  # type: ignore[attr-defined]
    await until(lambda: queue.statistics().sent == 1)
    queue.stop()
    await running


async def test_stopping_lets_what_is_under_way_end(spool: FrailSpool) -> None:
    await filled(spool, 20)
    client = Postman()
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


async def test_after_the_grace_what_has_not_left_goes_back(spool: FrailSpool) -> None:
    await filled(spool, 20)
    client = Postman()
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


async def test_marked_when_they_were_claimed_they_go_back_untouched_all_the_same(spool: FrailSpool) -> None:
    await filled(spool, 20)
    client = Postman()
    client.gate.clear()
    queue = processor(spool, client, concurrency=4, marking="claim", on_unknown="hold")
    running = asyncio.ensure_future(queue.run())
    await until(lambda: client.waiting == 4)
    queue.stop(grace=0)
    await running
    assert {(entry.state, entry.attempts, entry.flagged) for entry in await entries(spool)} == {
        (State.QUEUED, 0, False)
    }


async def test_a_client_that_does_not_tell_leaves_it_unknown(spool: FrailSpool) -> None:
    (id,) = await filled(spool)
    client = Postman()

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


@pytest.mark.parametrize("marking", ["each", "claim"])
@pytest.mark.parametrize(("on_unknown", "state"), [("retry", State.QUEUED), ("hold", State.FAILED)])
async def test_after_the_grace_what_may_have_left_is_unknown(
    spool: FrailSpool, on_unknown: Any, state: State, marking: Any
) -> None:
    (id,) = await filled(spool)
    client = Postman()
    client.replies.clear()
    queue = processor(spool, client, on_unknown=on_unknown, marking=marking)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: client.left)
    queue.stop()
    queue.stop(grace=0)
    await running
    entry = await spool.get(id)
    assert (entry.state, entry.attempts, queue.statistics().unknown) == (state, 1, 1)


async def test_stopping_ends_also_while_the_spool_cannot_be_written(spool: FrailSpool) -> None:
    await filled(spool, 20)
    for name in ("settle", "release", "mark"):
        spool.broken[name] = SpoolError("i/o error")
    del spool.broken["mark"]
    client = Postman()
    queue = processor(spool, client, concurrency=2, retry=BRISK)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: spool.calls.count("settle") > 3)
    queue.stop(grace=0)
    await running
    assert len(client.left) == 2


async def test_a_processor_can_run_again(spool: FrailSpool) -> None:
    queue = processor(spool, Postman())
    for count in (1, 2):
        await filled(spool, 1)
        assert len((await queue.run_once()).sent) == 1
        assert queue.statistics().sent == count


@pytest.mark.parametrize("once", [True, False])
async def test_a_stop_before_the_first_step_counts_for_that_run(spool: FrailSpool, once: bool) -> None:
    (id,) = await filled(spool)
    client = Postman()
    queue = processor(spool, client)
    running = asyncio.ensure_future(queue.run_once() if once else queue.run())
    queue.stop()
    async with asyncio.timeout(10.0):
        await running
    assert client.tried == []
    assert (await queue.run_once()).sent == (id,)


async def test_a_stop_that_came_after_a_run_is_told_by_the_report_of_the_next(spool: FrailSpool) -> None:
    queue = processor(spool, Postman())
    await queue.run_once()
    queue.stop()
    (id,) = await filled(spool)
    report = await queue.run_once()
    assert not report and report.tried == 0 and "stopped" in str(report.error)
    report = await queue.run_once()
    assert report and report.sent == (id,)


@pytest.mark.parametrize("count", [2, 20])
async def test_a_report_tells_that_jobs_went_back_because_of_a_stop(spool: FrailSpool, count: int) -> None:
    await filled(spool, count)
    client = Postman()
    client.gate.clear()
    queue = processor(spool, client, concurrency=4)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: client.waiting == min(count, 4))
    queue.stop(grace=0)
    report = await running
    assert not report and report.tried == 0 and "stopped" in str(report.error)


async def test_a_stop_after_the_last_job_was_begun_is_no_fault(spool: FrailSpool) -> None:
    await filled(spool, 2)
    client = Postman()
    client.replies.clear()
    queue = processor(spool, client, concurrency=4)
    running = asyncio.ensure_future(queue.run_once())
    # One alone, the other, and none.
    await until(lambda: len(client.left) == 2 and spool.calls.count("claim") == 3)
    await turns()
    queue.stop()
    client.replies.set()
    report = await running
    assert report and len(report.sent) == 2


async def test_it_runs_once_at_a_time(spool: FrailSpool) -> None:
    queue = processor(spool, Postman())
    running = asyncio.ensure_future(queue.run())
    await until(lambda: "wait" in spool.calls)
    with pytest.raises(Busy):
        await queue.run_once()
    queue.stop()
    await running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it(spool: FrailSpool, number: signal.Signals) -> None:
    await filled(spool, 1)
    client = Postman()
    client.replies.clear()
    before = signal.getsignal(number)
    queue = processor(spool, client)
    running = asyncio.ensure_future(queue.run(signals=True))
    await until(lambda: client.left)
    os.kill(os.getpid(), number)
    await until(lambda: queue._crew.stopping)
    assert not running.done()
    os.kill(os.getpid(), number)
    await running
    assert queue.statistics().unknown == 1
    assert signal.getsignal(number) in (before, signal.default_int_handler, signal.SIG_DFL)


async def test_without_signals_it_still_runs(spool: FrailSpool, monkeypatch: Any) -> None:
    def refuse(*args: Any) -> None:
        raise NotImplementedError

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "add_signal_handler", refuse)
    queue = processor(spool, Postman())
    running = asyncio.ensure_future(queue.run(signals=True))
    await until(lambda: "wait" in spool.calls)
    queue.stop()
    await running


# --- cancellation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", CancelMoment)
@pytest.mark.parametrize("manner", CancelManner)
@every_loop
async def test_cancelled_at_any_await_nothing_is_lost(manner: CancelManner, moment: CancelMoment) -> None:
    spool = FrailSpool()
    client = Postman("250 ok", "451 later", "550 never", "250 ok")
    endless = RetryPolicy(expires=None)
    queue = processor(spool, client, concurrency=2, clock=lambda: 2.0**39, retry=endless)

    async def scenario() -> None:
        for number in range(6):
            await queue.put(mail(number))
        spool._clock = lambda: 2.0**39
        await queue.run_once()

    async for run in cancellations(scenario, manner=manner, moment=moment):
        assert run.error is None or run.cancelled, run.error
        await queue.wait_stopped()
        if spool.changes:
            await asyncio.wait(spool.changes)
        assert {entry.state for entry in await entries(spool)} <= {State.QUEUED, State.FAILED}, run.at
        assert not any(entry.flagged for entry in await entries(spool)), run.at
        # Whatever was accepted is gone, whatever was not is still there.
        left = [entry.message_id for entry in await entries(spool)]
        assert len(left) == len(set(left))
        for entry in await entries(spool):
            await spool.remove(entry.id)


async def test_cancelled_workers_lose_nothing() -> None:
    """When a loop ends it cancels every task, those of the processor too."""
    for at in range(1, 12):
        spool = FrailSpool()
        await filled(spool, 4)
        spool._clock = lambda: 2.0**39
        client = Postman("250 ok", "451 later")
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


async def test_cancelling_waits_for_what_is_under_way(spool: FrailSpool) -> None:
    await filled(spool, 2)
    client = Postman()
    client.replies.clear()
    queue = processor(spool, client)
    running = asyncio.ensure_future(queue.run())
    await until(lambda: len(client.left) == 2)
    running.cancel()
    await until(lambda: queue._crew.stopping)
    assert not running.done()
    client.replies.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert queue.statistics().sent == 2


# --- concurrency ---------------------------------------------------------------------------------------------


async def test_concurrency_is_bounded(spool: FrailSpool) -> None:
    await filled(spool, 50)
    client = Postman()
    client.gate.clear()
    queue = processor(spool, client, concurrency=7)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: client.waiting == 7)
    client.gate.set()
    await running
    assert client.most == 7


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (PoolLimits(), 40),
        (PoolLimits(max_connections=1), 4),
        (PoolLimits(max_connections=5, window=8), 80),
        (PoolLimits(max_waiting=3), 3),
    ],
)
async def test_by_default_the_client_is_never_starved(
    spool: FrailSpool, limits: PoolLimits, expected: int
) -> None:
    await filled(spool, 2 * expected)
    client = Postman(pool=limits)
    client.gate.clear()
    queue = processor(spool, client)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: client.waiting == expected)
    client.gate.set()
    await running


async def test_jobs_are_claimed_in_batches(spool: FrailSpool) -> None:
    await filled(spool, 200)
    await processor(spool, Postman(), concurrency=20).run_once()
    assert spool.calls.count("claim") <= 200 / 10 + 2


async def test_marking_with_the_claim_is_no_call_of_its_own(spool: FrailSpool) -> None:
    await filled(spool, 20)
    report = await processor(spool, Postman(), marking="claim").run_once()
    assert len(report.sent) == 20 and "mark" not in spool.calls


async def test_leases_are_kept_alive_and_dead_workers_found(spool: FrailSpool) -> None:
    await filled(spool, 2)
    await die(spool, flagged=False)
    client = Postman()
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


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"concurrency": True},
        {"on_unknown": "drop"},
        {"marking": "never"},
        {"poll": -1},
        {"grace": float("nan")},
        {"heartbeat": "60"},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        QueueProcessor(object(), Postman(), **wrong)  # type: ignore[arg-type]


# --- hooks ---------------------------------------------------------------------------------------------------


async def test_hooks_hear_of_everything(spool: FrailSpool, clock: Clock) -> None:
    heard: list[Any] = []
    queue = processor(spool, Postman("250 ok", "451 later", "550 never"), concurrency=1)

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


async def test_a_hook_that_raises_breaks_nothing(spool: FrailSpool, caplog: Any) -> None:
    await filled(spool, 3)
    queue = processor(spool, Postman())

    def fail(event: Event) -> None:
        raise ValueError("hook")

    queue.on(Event, fail)
    with caplog.at_level(logging.ERROR, "smtp_async"):
        assert len((await queue.run_once()).sent) == 3
    assert "hook" in caplog.text


async def test_a_recovered_job_is_queued_again(spool: FrailSpool) -> None:
    (id,) = await filled(spool)
    await die(spool, flagged=False)
    heard: list[Any] = []
    queue = processor(spool, Postman())
    queue.on(JobQueued, heard.append)
    await queue.run_once()
    assert [(event.id, event.recovered) for event in heard] == [(id, True)]


# --- reports -------------------------------------------------------------------------------------------------


HERE = ReportOptions(reporting="here.test")


async def notices(spool: MemorySpool) -> list[Any]:
    found = [entry for entry in await entries(spool) if entry.envelope.sender is None]
    return [parse_report(await MemorySpool.read(spool, entry.id)) for entry in found]


async def test_a_failure_is_reported_into_the_spool(spool: FrailSpool) -> None:
    await filled(spool, to="ann@x.test, bob@x.test")
    await processor(spool, Postman(("250 ok", "550 5.1.1 nobody")), bounce=HERE).run_once()
    (report,) = await notices(spool)
    assert [(one.address, one.code, one.remote) for one in report.recipients] == [
        ("bob@x.test", 550, "mx.example.org")
    ]
    assert report.reporting == "here.test"


async def test_a_report_that_fails_is_not_reported(spool: FrailSpool, clock: Clock) -> None:
    await filled(spool)
    queue = processor(spool, Postman("550 never"), bounce=HERE)
    await queue.run_once()
    clock.move(1)
    report = await queue.run_once()
    assert len(report.failed) == 1 and len(await notices(spool)) == 1


async def test_without_options_nobody_is_told(spool: FrailSpool) -> None:
    await filled(spool)
    await processor(spool, Postman("550 never")).run_once()
    assert await notices(spool) == []


async def test_unknown_is_never_reported_as_failure(spool: FrailSpool) -> None:
    await filled(spool)
    await processor(spool, Postman(Outcome.UNKNOWN), bounce=HERE, on_unknown="hold").run_once()
    assert await notices(spool) == []


async def test_expiry_is_reported(spool: FrailSpool, clock: Clock) -> None:
    await filled(spool)
    clock.move(6 * 86400)
    await processor(spool, Postman("451 4.2.0 later"), bounce=HERE).run_once()
    (report,) = await notices(spool)
    assert str(report.recipients[0].status) == "4.2.0" and "in time" not in report.recipients[0].diagnostic


@pytest.mark.parametrize("fault", [ValueError("cannot"), InvalidArgument("cannot"), MemoryError()])
async def test_a_report_that_cannot_be_written_costs_nobody_a_second_copy(
    spool: FrailSpool, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def bounce(*args: Any, **options: Any) -> Any:
        raise fault

    monkeypatch.setattr("smtp_async.processor.attempt.bounce", bounce)
    (id,) = await filled(spool, to=["a@example.org", "b@example.org"])
    others = await filled(spool, 3)
    client = Postman(("250 ok", "550 never"), "550 never", "250 ok")
    report = await processor(spool, client, bounce=HERE, concurrency=1).run_once()
    assert report.error is None and [one.id for one in report.failed] == [id, others[0]]
    results = (await spool.get(id)).results
    assert [one.outcome for one in results if one] == [Outcome.ACCEPTED, Outcome.REFUSED]
    assert report.sent == tuple(others[1:])


async def test_what_was_accepted_is_noted_before_a_report_is_written(
    spool: FrailSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def bounce(*args: Any, **options: Any) -> Any:
        calls.append(spool.calls.count("fail"))

    monkeypatch.setattr("smtp_async.processor.attempt.bounce", bounce)
    await filled(spool, to=["a@example.org", "b@example.org"])
    await processor(spool, Postman(("250 ok", "550 never")), bounce=HERE).run_once()
    assert calls == [1]


async def test_a_job_that_fails_again_after_it_was_requeued_is_reported_again(
    spool: FrailSpool, clock: Clock
) -> None:
    (id,) = await filled(spool)
    queue = processor(spool, Postman("550 never"), bounce=HERE)
    for _ in range(2):
        await queue.run_once()
        clock.move(1)
        await spool.requeue(id)
    assert len(await notices(spool)) == 2


async def test_a_message_that_cannot_be_read_any_more_is_reported_without_it(spool: FrailSpool) -> None:
    await filled(spool)
    spool.broken["read"] = SpoolError("i/o error")
    await processor(spool, Postman("550 never"), bounce=HERE).run_once()
    del spool.broken["read"]
    (report,) = await notices(spool)
    assert [one.address for one in report.recipients] == ["user0@example.org"]


async def test_reports_can_be_delivered_otherwise(spool: FrailSpool, caplog: Any) -> None:
    await filled(spool, 2)
    told: list[Any] = []

    async def deliver(notice: Any) -> None:
        told.append(notice)
        if len(told) == 2:
            raise ValueError("cannot")

    options = ReportOptions(reporting="here.test", deliver=deliver)
    with caplog.at_level(logging.ERROR, "smtp_async"):
        report = await processor(spool, Postman("550 never"), bounce=options).run_once()
    assert len(report.failed) == 2 and len(told) == 2 and await notices(spool) == []
    assert "could not be written or delivered" in caplog.text


async def test_the_sender_hears_once_of_a_delay(spool: FrailSpool, clock: Clock) -> None:
    (id,) = await filled(spool)
    options = ReportOptions(reporting="here.test", delay_after=3600)
    queue = processor(spool, Postman("451 4.7.1 later"), bounce=options)
    told = []
    for _ in range(12):
        await queue.run_once()
        for entry in await entries(spool):
            if entry.id != id:
                told.append(parse_report(await spool.read(entry.id)).recipients[0].action)
                await spool.remove(entry.id)
        clock.move((await spool.get(id)).not_before - clock())
    assert told == ["delayed"]


async def test_a_report_waits_for_room(spool: FrailSpool) -> None:
    await filled(spool)
    spool.broken["put"] = SpoolFull("no space left")
    client = Postman("550 never")
    queue = processor(spool, client, bounce=HERE, retry=BRISK)
    running = asyncio.ensure_future(queue.run_once())
    await until(lambda: spool.calls.count("put") > 3)
    del spool.broken["put"]
    assert len((await running).failed) == 1 and len(client.left) == 1
    assert len(await notices(spool)) == 1


# --- with a real client --------------------------------------------------------------------------------------


@every_loop
async def test_through_a_real_client() -> None:
    spool = MemorySpool()
    async with speaking() as server, client_of(server) as client:
        for number in range(200):
            await spool.put(mail(number))
        queue = QueueProcessor(spool, client, clock=lambda: 2.0**39)
        spool._clock = lambda: 2.0**39
        report = await queue.run_once()
        assert len(report.sent) == 200 and report
        assert len(server.messages) == 200 and server.violations == []


async def test_a_real_client_without_server() -> None:
    spool = MemorySpool()
    await filled(spool, 30)
    async with speaking() as server:
        nowhere = server.port
    async with client_of(None, host="127.0.0.1", port=nowhere) as client:
        spool._clock = lambda: 2.0**39
        report = await QueueProcessor(
            spool, client, clock=lambda: 2.0**39, retry=RetryPolicy(expires=None)
        ).run_once()
    assert report.tried == 0 and report.error is not None
    assert {(entry.state, entry.attempts) for entry in await entries(spool)} == {(State.QUEUED, 0)}
