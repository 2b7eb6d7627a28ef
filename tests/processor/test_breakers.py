"""Whether mail may flow: the breaker, and pauses of a processor whose server fails as a whole."""

import asyncio
import math
import time
from typing import Any

import pytest

from smtp_async.errors import AuthenticationFailed, SenderRefused, SpoolError, SpoolFull
from smtp_async.events import Event, JobSent, QueuePaused, QueueResumed
from smtp_async.processor import ProcessorOptions, ReportOptions, RetryPolicy
from smtp_async.processor.breakers import Breaker, Breakers
from smtp_async.spool.entry import State
from tests.lab import mail, turns, until
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
    receipt,
    reply,
)

pytestmark = pytest.mark.usefixtures("no_leaks")


# --- one breaker ---------------------------------------------------------------------------------------------


def new_breaker(**policy: Any) -> Breaker:
    return Breaker(RetryPolicy(jitter=False, pause=5.0, longest_pause=60.0, **policy), lambda: 1.0)


def test_a_new_breaker_is_closed() -> None:
    assert new_breaker().closed and new_breaker().messages_allowed(0.0) == math.inf


def test_a_failure_admits_no_message_until_the_pause_is_over() -> None:
    breaker = new_breaker()
    assert breaker.failed(100.0)
    assert not breaker.closed
    assert breaker.messages_allowed(104.9) == 0
    assert breaker.messages_allowed(105.0) == 1


def test_failures_of_messages_already_being_sent_do_not_lengthen_the_pause() -> None:
    breaker = new_breaker()
    breaker.failed(100.0)
    assert not breaker.failed(101.0)
    assert (breaker.failures, breaker.until) == (1, 105.0)


def test_the_probe_goes_alone() -> None:
    breaker = new_breaker()
    breaker.failed(100.0)
    breaker.started()
    assert breaker.messages_allowed(105.0) == 0


def test_pauses_double_with_each_failed_probe() -> None:
    breaker, now, pauses = new_breaker(), 0.0, []
    for _ in range(6):
        assert breaker.failed(now)
        pauses.append(breaker.until - now)
        now = breaker.until
        breaker.started()
    assert pauses == [5, 10, 20, 40, 60, 60]


def test_an_inconclusive_probe_lets_another_one_follow() -> None:
    breaker = new_breaker()
    breaker.failed(0.0)
    breaker.started()
    breaker.allow_next_probe()
    assert breaker.messages_allowed(5.0) == 1


def test_a_probe_that_succeeds_lets_mail_flow() -> None:
    breaker = new_breaker()
    breaker.failed(0.0)
    breaker.started()
    breaker.recovered()
    assert breaker.closed and breaker.messages_allowed(0.0) == math.inf
    assert breaker.failed(100.0) and breaker.until == 105.0


# --- both breakers -------------------------------------------------------------------------------------------


class Recorder:
    """Breakers on a manual clock, and what they publish."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.events: list[Event] = []
        self.changes = 0
        options = ProcessorOptions(clock=self.clock, monotonic=self.clock, chance=lambda: 1.0)
        self.breakers = Breakers(STEADY, options, self.publish, self.changed)

    async def publish(self, event: Event) -> None:
        self.events.append(event)

    def changed(self) -> None:
        self.changes += 1


async def test_mail_flows_again_only_when_server_and_spool_have_recovered() -> None:
    recorder = Recorder()
    breakers = recorder.breakers
    await breakers.server_failed(dead())
    await breakers.spool_failed(SpoolFull("no space left"))
    recorder.clock.move(5)
    assert breakers.messages_allowed() == 1
    await breakers.server_recovered()
    assert not breakers.mail_flows and breakers.error is not None
    await breakers.spool_recovered()
    assert breakers.mail_flows and breakers.error is None and breakers.messages_allowed() == math.inf
    assert [type(event) for event in recorder.events] == [QueuePaused, QueuePaused, QueueResumed]


async def test_a_recovery_while_mail_flows_is_no_news() -> None:
    recorder = Recorder()
    await recorder.breakers.server_recovered()
    await recorder.breakers.spool_recovered()
    assert recorder.events == [] and recorder.changes == 0


async def test_the_pause_that_is_published_ends_with_the_later_breaker() -> None:
    recorder = Recorder()
    await recorder.breakers.server_failed(dead())
    assert recorder.events == [QueuePaused(error=dead(), until=recorder.clock() + 5)]
    recorder.clock.move(3)
    await recorder.breakers.spool_failed(SpoolError("i/o error"))
    assert recorder.breakers.seconds_left == 5
    assert recorder.breakers.paused_until == recorder.clock() + 5


# --- a processor and a dead server ---------------------------------------------------------------------------


async def test_a_dead_server_ends_the_run_and_counts_against_no_job(spool: FailingSpool) -> None:
    await filled(spool, 50)
    client = FakeClient(dead())
    report = await processor(spool, client, concurrency=4).run_once()
    assert report.tried == 0 and report.error is not None and "cannot connect" in str(report.error)
    assert len(client.tried) <= 4
    left = await entries(spool)
    assert {(entry.state, entry.attempts) for entry in left} == {(State.QUEUED, 0)} and len(left) == 50


async def test_a_wrong_password_bounces_no_mail(spool: FailingSpool) -> None:
    (id,) = await filled(spool)
    error = AuthenticationFailed("wrong", reply=reply("535 5.7.8 wrong"), stage="AUTH")
    options = ReportOptions(reporting="here.test")
    report = await processor(spool, FakeClient(error), bounce=options).run_once()
    assert report.error is not None and "535" in str(report.error)
    assert [entry.id for entry in await entries(spool)] == [id]


async def test_mail_flows_again_after_the_pause(spool: FailingSpool) -> None:
    await filled(spool, 50)
    heard: list[Any] = []
    client = FakeClient(*[dead()] * 6, "250 ok")
    queue = processor(spool, client, concurrency=4, retry=BRISK, clock=asyncio.get_running_loop().time)
    spool.clock = lambda: 2.0**39
    queue.on(QueuePaused, heard.append)
    queue.on(QueueResumed, heard.append)
    queue.on(JobSent, lambda event: queue.stop() if queue.statistics().sent == 50 else None)
    await queue.run()
    assert queue.statistics().sent == 50 and len(client.tried) == 56
    # At most four messages met the dead server at once; after that, each probe was alone.
    assert [type(event) for event in heard[-2:]] == [QueuePaused, QueueResumed]
    assert queue.statistics().problem == "" and queue.statistics().paused_until is None


async def test_a_withdrawn_probe_does_not_stop_the_next_run(spool: FailingSpool) -> None:
    await filled(spool, 2)
    client = FakeClient(dead(), "250 ok")
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


async def test_a_job_claimed_when_the_pause_begins_is_no_probe(spool: FailingSpool) -> None:
    """As a probe, the job would be released with the last message being sent, and no other probe would follow."""
    await filled(spool)
    client = FakeClient(dead(), "250 ok")
    client.gate.clear()
    queue = processor(
        spool, client, concurrency=4, retry=BRISK, poll=0.01, clock=asyncio.get_running_loop().time
    )
    spool.clock = lambda: 2.0**39
    claim, paused = spool.claim, asyncio.Event()

    async def slow_claim(*args: Any, **options: Any) -> Any:
        leases = await claim(*args, **options)
        if leases and client.waiting:
            client.gate.set()
            await paused.wait()
        return leases

    async def note(event: QueuePaused) -> None:
        paused.set()
        # Keeps the first message in work while the second job is handed out.
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


async def test_the_statistics_say_why_the_processor_pauses(spool: FailingSpool, clock: ManualClock) -> None:
    await filled(spool)
    queue = processor(spool, FakeClient(dead()))
    await queue.run_once()
    numbers = queue.statistics()
    assert numbers.problem == "cannot connect" and numbers.paused_until == pytest.approx(clock() + 5)
    assert numbers.released == 1


@pytest.mark.parametrize("step", [-86400.0, 86400.0])
async def test_a_pause_keeps_its_length_when_the_wall_clock_is_set(
    spool: FailingSpool, clock: ManualClock, step: float
) -> None:
    (id,) = await filled(spool)
    steady = ManualClock()
    told: list[QueuePaused] = []
    queue = processor(spool, FakeClient(dead(), "250 ok"), monotonic=steady)
    queue.on(QueuePaused, told.append)
    await queue.run_once()
    assert told[0].until == pytest.approx(clock() + 5)
    clock.move(step)
    steady.move(4.9)
    assert (await queue.run_once()).error is not None
    assert queue.statistics().paused_until == pytest.approx(clock() + 0.1)
    steady.move(0.2)
    assert (await queue.run_once()).sent == (id,)


async def test_a_message_refused_for_want_of_a_login_does_not_block_the_others(spool: FailingSpool) -> None:
    ids = await filled(spool, 2)
    error = SenderRefused("no", reply=reply("530 log in first"), stage="MAIL")

    async def refuse(message: Any) -> Any:
        return receipt(message.envelope().recipients, "530 log in first", error=error)

    client = FakeClient(refuse, "250 ok")
    queue = processor(spool, client, concurrency=1)
    report = await queue.run_once()
    assert len(report.deferred) == 1 and report.error is not None
    assert sorted(entry.attempts for entry in await entries(spool)) == [0, 1]
    assert {entry.id for entry in await entries(spool)} == set(ids)


async def test_expired_mail_fails_while_the_server_is_dead(spool: FailingSpool, clock: ManualClock) -> None:
    for number in range(5):
        await spool.put(mail(number), expires=clock() + 10)
    await filled(spool, 5)
    clock.move(10)
    queue = processor(spool, FakeClient(dead()), concurrency=10)
    report = await queue.run_once()
    assert len(report.failed) == 5
    assert {entry.state for entry in await entries(spool)} == {State.QUEUED, State.FAILED}
