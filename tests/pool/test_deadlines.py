"""deadlines.py: one timer for all messages; and the limit of the queue, which is a deadline too."""

import asyncio
import gc
import random
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import Attachment, NotSent, Outcome, OutcomeUnknown, PoolLimits, SendOptions, Timeouts
from smtp_async.errors import Timeout
from smtp_async.events import Abandoned
from smtp_async.pool.deadlines import Deadlines
from smtp_async.testing import close, default, delay, stall
from tests.lab import PATIENCE, Clock, client_of, every_loop, gathered, mail, pool_of, speaking, until
from tests.sources.origins import SlowToMeasure


class Watch:
    """Deadlines on such a clock, and whom they called."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.passed: list[Any] = []
        loop: Any = self.clock
        self.deadlines: Deadlines[Any] = Deadlines(loop, self.passed.append)

    def add(self, seconds: float | None) -> Any:
        job = Named(None if seconds is None else self.clock.now + seconds)
        self.deadlines.add(job)
        return job


class Named:
    def __init__(self, due: float | None) -> None:
        self.due = due


class TestTimer:
    def test_each_item_is_called_at_its_time(self) -> None:
        watch = Watch()
        late, early = watch.add(20), watch.add(10)
        watch.clock.advance(9.9)
        assert watch.passed == []
        watch.clock.advance(0.1)
        assert watch.passed == [early]
        watch.clock.advance(10)
        assert watch.passed == [early, late]
        assert watch.clock.timers == []

    def test_a_discarded_item_is_not_called(self) -> None:
        watch = Watch()
        ended, other = watch.add(10), watch.add(15)
        watch.deadlines.discard(ended)
        watch.deadlines.discard(ended)
        watch.clock.advance(100)
        assert watch.passed == [other]

    def test_an_item_without_a_deadline_is_never_called(self) -> None:
        watch = Watch()
        watch.add(None)
        watch.clock.advance(1e6)
        assert watch.passed == [] and watch.clock.made == 0

    def test_a_message_costs_no_timer(self) -> None:
        """All have the same patience, as with the default: a timer is set when the first one's time is over."""
        watch = Watch()
        for _ in range(1000):
            job = watch.add(120)
            watch.clock.advance(0.01)
            watch.deadlines.discard(job)
        assert watch.clock.made == 1
        watch.clock.advance(1000)
        assert watch.clock.made <= 2 and watch.clock.timers == []

    def test_an_earlier_deadline_moves_the_timer(self) -> None:
        watch = Watch()
        watch.add(100)
        early = watch.add(1)
        assert len(watch.clock.timers) == 1
        watch.clock.advance(1)
        assert watch.passed == [early]

    def test_a_job_that_is_added_again_counts_with_its_new_deadline(self) -> None:
        watch = Watch()
        job = watch.add(100)
        job.due = watch.clock.now + 1
        watch.deadlines.add(job)
        watch.clock.advance(1)
        assert watch.passed == [job]
        later = watch.add(1)
        later.due = watch.clock.now + 50
        watch.clock.advance(49)
        assert watch.passed == [job]
        watch.clock.advance(1)
        assert watch.passed == [job, later]

    def test_deadlines_close_together_share_one_firing(self) -> None:
        watch = Watch()
        chance = random.Random(1)
        jobs = [watch.add(1 + chance.random()) for _ in range(5000)]
        watch.clock.advance(2.1)
        assert set(watch.passed) == set(jobs)
        assert watch.clock.made < 300

    def test_the_timer_looks_only_at_items_whose_time_has_come(self) -> None:
        """All callers wait, each with a deadline of its own: a look at all of them for each would be quadratic."""
        watch = Watch()
        looks = 0

        class Seen(Named):
            @property
            def due(self) -> float | None:
                nonlocal looks
                looks += 1
                return self.at

            @due.setter
            def due(self, due: float | None) -> None:
                self.at = due

        for n in range(10_000):
            watch.deadlines.add(Seen(watch.clock.now + 1 + n / 1000))
        watch.clock.advance(20)
        assert len(watch.passed) == 10_000
        assert looks < 10 * 10_000

    def test_ended_calls_do_not_pile_up(self) -> None:
        """Many short calls under many deadlines, while the timer rings all the time."""
        watch = Watch()
        ended: list[weakref.ref[Any]] = []
        for _ in range(5000):
            watch.add(0.01)
            jobs = [watch.add(1000) for _ in range(10)]
            ended += map(weakref.ref, jobs)
            watch.clock.advance(0.02)
            for job in jobs:
                watch.deadlines.discard(job)
        assert len(watch.passed) == 5000
        assert len(watch.deadlines) == 0
        del job, jobs
        gc.collect()
        assert sum(one() is not None for one in ended) < 200

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["add", "discard", "move", "pass"]), st.integers(0, 9), st.floats(0, 3)
            ),
            max_size=60,
        )
    )
    def test_whatever_is_moved_and_dropped_each_is_called_once_and_in_time(
        self, steps: list[tuple[str, int, float]]
    ) -> None:
        watch = Watch()
        jobs: dict[int, Any] = {}
        for step, number, seconds in steps:
            job = jobs.get(number)
            if step == "pass":
                watch.clock.advance(seconds)
                for job in watch.passed:
                    assert job.due <= watch.clock.now
                for other in jobs.values():
                    assert other in watch.passed or other.due > watch.clock.now - 0.011
                jobs = {number: job for number, job in jobs.items() if job not in watch.passed}
            elif step == "discard" and job is not None:
                watch.deadlines.discard(jobs.pop(number))
            elif job is None:
                jobs[number] = watch.add(seconds)
            else:
                # Later without a word, earlier with one: as the pool does it.
                earlier = watch.clock.now + seconds < job.due
                job.due = watch.clock.now + seconds
                if earlier:
                    watch.deadlines.add(job)
        watch.clock.advance(10)
        assert len(watch.passed) == len(set(watch.passed))
        assert set(jobs.values()) <= set(watch.passed)

    def test_no_item_is_called_too_early_or_noticeably_late(self) -> None:
        watch = Watch()
        chance = random.Random(2)
        jobs = [watch.add(chance.random()) for _ in range(200)]
        for _ in range(1200):
            watch.clock.advance(0.001)
            for job in watch.passed:
                assert job.due <= watch.clock.now + 1e-9
            passed = set(watch.passed)
            assert all(job in passed or job.due > watch.clock.now - 0.02 for job in jobs)
        assert len(watch.passed) == 200

    def test_after_stop_no_item_is_called(self) -> None:
        watch = Watch()
        watch.deadlines.stop()
        watch.add(1)
        watch.deadlines.stop()
        watch.clock.advance(10)
        assert watch.passed == [] and watch.clock.timers == []


@pytest.mark.usefixtures("no_leaks")
class TestQueue:
    """`timeouts.queue`."""

    @every_loop
    async def test_a_message_that_waits_too_long_is_not_sent_and_says_why(self) -> None:
        gate = asyncio.Event()
        async with (
            speaking() as server,
            client_of(server, pool=one(), timeouts=Timeouts(queue=0.3)) as client,
        ):
            server.on("DATA", delay(gate), default())
            running = asyncio.create_task(client.send(mail(1)))
            await server.wait_until(lambda: "DATA" in server.verbs())
            (error,) = await gathered(client.send(mail(2)))
            assert isinstance(error, NotSent)
            assert isinstance(error.__cause__, Timeout) and error.__cause__.stage == "queue"
            assert error.receipt is not None and error.receipt.outcome is Outcome.NOT_SENT
            assert client.statistics().not_sent == 1
            gate.set()
            assert (await running).outcome is Outcome.ACCEPTED
            assert (await client.send(mail(3))).outcome is Outcome.ACCEPTED
        assert [message.subject for message in server.messages] == ["message 1", "message 3"]

    async def test_a_message_on_a_connection_is_no_longer_limited(self) -> None:
        """The queue's limit is much shorter than what the message takes on the wire."""
        gate = asyncio.Event()
        async with (
            speaking() as server,
            client_of(server, pool=one(), timeouts=Timeouts(queue=0.3)) as client,
        ):
            await client.send(mail(0))
            rule = server.on(".", delay(gate), default())
            first = asyncio.create_task(client.send(mail(1)))
            second = asyncio.create_task(client.send(mail(2)))
            await server.wait_fired(rule)
            assert client.statistics().waiting == 0
            (third,) = await gathered(client.send(mail(3)))
            assert isinstance(third, NotSent)
            assert not first.done() and not second.done()
            gate.set()
            assert [r.outcome for r in await gathered(first, second)] == [Outcome.ACCEPTED] * 2

    async def test_waiting_for_the_dial_is_limited_too(self) -> None:
        gate = asyncio.Event()
        async with (
            speaking() as server,
            client_of(server, pool=one(), timeouts=Timeouts(queue=0.3)) as client,
        ):
            server.on("GREETING", delay(gate), default())
            errors = await gathered(*(client.send(mail(n)) for n in range(20)))
            assert {type(error) for error in errors} == {NotSent}
            gate.set()
            assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
        assert [message.subject for message in server.messages] == ["message B"]

    async def test_the_earlier_of_deadline_and_limit_counts(self) -> None:
        gate = asyncio.Event()
        async with (
            speaking() as server,
            client_of(server, pool=one(), timeouts=Timeouts(queue=1000, send=0.05)) as client,
        ):
            server.on("GREETING", delay(gate), default())
            (error,) = await gathered(client.send(mail(1)))
            assert isinstance(error, NotSent)
            gate.set()

    async def test_a_message_that_returns_to_the_queue_waits_anew_but_not_for_ever(self) -> None:
        gate = asyncio.Event()
        async with (
            speaking() as server,
            client_of(server, pool=one(), timeouts=Timeouts(queue=0.3)) as client,
        ):
            await client.send(mail(0))
            server.on("RCPT", close())
            server.on("GREETING", delay(gate), default())
            (error,) = await gathered(client.send(mail(1)))
            assert isinstance(error, NotSent)
            assert isinstance(error.__cause__, Timeout)
            assert client.statistics().reconnects == 1
            gate.set()

    async def test_any_number_of_messages_costs_one_timer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        made = 0
        at = loop.call_at

        def counted(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            nonlocal made
            made += 1
            return at(*args, **kwargs)

        monkeypatch.setattr(loop, "call_at", counted)
        async with (
            speaking() as server,
            client_of(server, pool=one(), timeouts=Timeouts(queue=60)) as client,
        ):
            await gathered(*(client.send(mail(n)) for n in range(300)))
            assert made < 20

    async def test_send_all_reports_the_limit_as_a_receipt_and_continues(self) -> None:
        gate = asyncio.Event()
        async with (
            speaking() as server,
            client_of(server, pool=one(), timeouts=Timeouts(queue=0.3)) as client,
        ):
            await client.send(mail(0))
            rule = server.on("DATA", delay(gate), default(), nth=1)
            running = asyncio.create_task(client.send(mail("slow")))
            await server.wait_fired(rule)
            outcomes = []
            async with asyncio.timeout(PATIENCE):
                async for _, receipt in client.send_all(mail(n) for n in range(1, 6)):
                    outcomes.append(receipt.outcome)
                    if receipt.outcome is Outcome.NOT_SENT:
                        gate.set()
            assert outcomes[0] is Outcome.NOT_SENT
            assert len(outcomes) == 5
            await running


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("many", [False, True])
async def test_a_deadline_that_passes_while_files_are_opened_sends_nothing(many: bool) -> None:
    """The connection is there already, and the message was promised not to be sent."""
    source = SlowToMeasure(b"x" * 100_000)
    async with (
        speaking() as server,
        client_of(server, pool=one(), timeouts=Timeouts(send=0.1)) as client,
    ):
        told: list[Abandoned] = []
        client.on(Abandoned, told.append)
        message = mail(attachments=[Attachment(source)])

        async def send() -> Any:
            if not many:
                return await client.send(message)
            return [receipt.error async for _, receipt in client.send_all([message])][0]

        task = asyncio.create_task(send())
        await until(source.asked.is_set)
        pool = pool_of(client)
        assert len(pool.deadlines)
        await until(lambda: not len(pool.deadlines))
        source.go.set()
        (error,) = await gathered(task)
        assert isinstance(error, NotSent) and isinstance(error.__cause__, Timeout)
        assert (await client.send(mail(2), deadline=PATIENCE)).outcome is Outcome.ACCEPTED
        assert server.verbs().count("MAIL") == 1
        assert server.connections.opened == 1 and told == []


@pytest.mark.usefixtures("no_leaks")
async def test_closing_the_client_keeps_deadlines() -> None:
    """The server is silent at the end of the data: the caller is told when its own time is over."""
    async with speaking() as server, client_of(server, timeouts=Timeouts(close=1.0)) as client:
        rule = server.on(".", stall())
        sending = asyncio.create_task(client.send(mail(1), deadline=0.2))
        await server.wait_fired(rule)
        await client.close()
        (error,) = await gathered(sending)
        assert isinstance(error, OutcomeUnknown)
        assert isinstance(error.__cause__, Timeout)


def one() -> PoolLimits:
    return PoolLimits(max_connections=1)


async def test_the_time_of_a_block_does_not_run_while_a_gate_is_waited_for() -> None:
    """The server owes nothing then."""

    async def gate() -> None:
        passed.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.15)

    passed: list[float] = []
    async with speaking() as server, client_of(server, timeouts=Timeouts(block=0.05)) as client:
        receipt = await client.send(mail(1), options=SendOptions(before_end_of_data=gate))
        assert receipt.outcome is Outcome.ACCEPTED
        assert len(passed) == 1


class TestCallersOfBodies:
    """A caller that sits in its own gate or source gets its answer in time, too."""

    @every_loop
    async def test_a_gate_that_never_opens(self) -> None:
        never = asyncio.Event()

        async def wait() -> None:
            await never.wait()

        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
            options = SendOptions(before_end_of_data=wait)
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(NotSent) as caught:
                    await client.send(mail("A"), options=options, deadline=0.05)
            assert isinstance(caught.value.__cause__, Timeout)
            assert_uncancelled()
            assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
        assert [message.subject for message in server.messages] == ["message B"]

    @every_loop
    async def test_a_source_that_never_goes_on(self) -> None:
        never = asyncio.Event()
        ended = []

        async def source() -> AsyncIterator[bytes]:
            try:
                # More than is read ahead of a stream: it stops in mid-body.
                yield (
                    b"Subject: A\r\nTo: bob@example.org\r\nFrom: ann@example.com\r\n\r\n" + b"x\r\n" * 30_000
                )
                await never.wait()
            finally:
                ended.append(True)

        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(NotSent):
                    await client.send_raw(source(), deadline=0.05)
            assert_uncancelled()
            assert ended
            assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED

    async def test_one_that_is_cancelled_from_outside_as_well_is_cancelled(self) -> None:
        entered = asyncio.Event()

        async def wait() -> None:
            entered.set()
            await asyncio.Event().wait()

        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
            options = SendOptions(before_end_of_data=wait)
            task = asyncio.create_task(client.send(mail("A"), options=options, deadline=PATIENCE))
            await entered.wait()
            ((job,),) = [one.deliveries.jobs for one in pool_of(client).connections.open]
            pool_of(client).expire(job)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


def assert_uncancelled() -> None:
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
