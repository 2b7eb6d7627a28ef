"""deliveries.py: jobs begun, written and settled, against a stream that is a list and an owner that is a queue."""

import asyncio
from typing import Any

import pytest

from smtp_async import Message, Outcome, SendOptions, Timeouts
from smtp_async.connection.channel import Channel
from smtp_async.connection.deliveries import Deliveries
from smtp_async.connection.send_job import CallerStep, SendJob
from smtp_async.errors import ConnectionLost, Interrupted, NotSent, SMTPError
from smtp_async.hooks import Hooks
from smtp_async.protocol.machine import ClientProtocol
from tests.connection.owner import Recorder
from tests.lab import mail


class Wire:
    """A stream that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False
        self.ended = False

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    async def drain(self) -> None:
        if self.closing:
            raise ConnectionLost("gone")


class Carrier:
    """Stands for the connection."""

    def __init__(self) -> None:
        self.dialled_at = self.opened_at = 0.0
        self.carried = False
        self.deliveries: Deliveries[Carrier] | None = None

    async def write_body(self, job: SendJob) -> None:
        assert self.deliveries is not None
        await self.deliveries.write_body(job)

    def cancel(self, job: SendJob) -> bool:
        assert self.deliveries is not None
        return self.deliveries.cancel(job)


class Rig:
    """Deliveries of a connection that was opened, to a server that offers `offer`."""

    def __init__(self, *offer: str) -> None:
        self.wire = Wire()
        self.queue = Recorder()
        self.connection = Carrier()
        self.asked_anew: list[int] = []
        self.channel = Channel(1, ClientProtocol(), Timeouts(), Hooks())
        stream: Any = self.wire
        self.channel.stream = stream
        self.deliveries = Deliveries(
            self.connection, self.channel, self.queue, lambda job, _: self.asked_anew.append(job.number)
        )
        self.connection.deliveries = self.deliveries
        self.says("220 mx.test")
        self.channel.machine.hello("me.test")
        self.channel.flush()
        words = ["mx.test", *(offer or ("PIPELINING", "8BITMIME"))]
        self.says(*(f"250{'-' if word is not words[-1] else ' '}{word}" for word in words))
        self.wire.written.clear()

    def says(self, *lines: str) -> None:
        """Read these lines from the server, and settle what they settle."""
        self.channel.feed("".join(f"{line}\r\n" for line in lines).encode())
        self.deliveries.settle(self.channel.machine.take_settled())

    def job(self, number: int = 1, message: Message | None = None, **options: Any) -> SendJob:
        one = SendJob(number, message or mail(number), SendOptions(**options))
        one.server_offer = self.channel.machine.extensions
        assert one.prepare()
        one.waiter = asyncio.get_running_loop().create_future()
        return one

    def ends(self, error: SMTPError) -> None:
        """The connection ends, as its task has it end."""
        self.channel.abort(error)
        self.channel.machine.fail(error)
        self.deliveries.settle(self.channel.machine.take_settled(), dead=True)

    def verbs(self) -> list[str]:
        """The first words of what was written since the last time."""
        lines = b"".join(self.wire.written).decode().splitlines()
        self.wire.written.clear()
        return [line.partition(" ")[0] for line in lines]


ENVELOPE = ["MAIL", "RCPT", "DATA"]


class TestBeginning:
    async def test_an_offered_job_is_written_at_once(self) -> None:
        rig = Rig()
        job = rig.job()
        assert rig.deliveries.begin_now(job)
        assert rig.verbs() == ENVELOPE
        assert rig.deliveries.jobs == {job}
        assert job.connection is rig.connection

    async def test_a_job_planned_for_another_offer_goes_back_to_its_caller(self) -> None:
        rig = Rig()
        job = rig.job(message=mail(1, text="Grüße"))
        rig.channel.machine.extensions = rig.channel.machine.extensions.without("8BITMIME")
        assert not rig.deliveries.begin_now(job)
        assert job.waiter is not None and job.waiter.result() is CallerStep.PREPARE
        assert job.server_offer == rig.channel.machine.extensions and job.connection is None
        assert rig.verbs() == [] and not rig.deliveries.jobs

    async def test_refilling_takes_jobs_until_one_is_being_written(self) -> None:
        rig = Rig()
        rig.queue.waiting += [rig.job(1), rig.job(2)]
        rig.deliveries.refill()
        assert rig.verbs() == ENVELOPE and len(rig.queue.waiting) == 1

    async def test_an_idle_connection_is_asked_before_a_body_is_trusted_to_it(self) -> None:
        rig = Rig()
        rig.channel.active_at -= 10
        rig.deliveries.begin_now(rig.job())
        assert rig.verbs() == ["MAIL", "RCPT"]

    async def test_on_a_closed_stream_the_channel_keeps_the_reason(self) -> None:
        rig = Rig()
        rig.wire.closing = True
        assert rig.deliveries.begin_now(rig.job())
        assert isinstance(rig.channel.failure, ConnectionLost)
        assert rig.verbs() == []


class TestSettling:
    async def test_an_accepted_message_is_finished(self) -> None:
        rig = Rig()
        rig.deliveries.begin_now(rig.job())
        rig.says("250 ok", "250 ok", "354 go")
        rig.channel.flush()
        rig.says("250 2.0.0 queued")
        assert rig.queue.done == [(1, Outcome.ACCEPTED)]
        assert rig.connection.carried and rig.deliveries.messages == 1 and not rig.deliveries.jobs
        assert rig.channel.last_reply is not None and rig.channel.last_reply.text == "2.0.0 queued"
        assert rig.deliveries.idle_since == rig.channel.active_at

    async def test_a_refused_message_shows_that_the_server_takes_mail(self) -> None:
        rig = Rig()
        rig.deliveries.begin_now(rig.job())
        rig.says("250 ok", "550 5.1.1 no", "554 no")
        assert rig.queue.done == [(1, Outcome.REFUSED)] and rig.connection.carried

    async def test_jobs_of_a_dead_connection_go_back_oldest_last(self) -> None:
        rig = Rig("PIPELINING", "CHUNKING")
        rig.deliveries.begin_now(rig.job(1))
        rig.says("250 ok", "250 ok", "354 go")
        rig.wire.closing = True
        rig.queue.waiting.append(rig.job(2))
        rig.deliveries.refill()
        rig.ends(ConnectionLost("reset"))
        # Each is put at the head of the queue, so that the oldest stands first in the end.
        assert rig.queue.unsent == [2, 1]
        assert not rig.connection.carried

    async def test_what_was_handed_over_when_the_connection_died_is_unknown(self) -> None:
        rig = Rig()
        rig.deliveries.begin_now(rig.job())
        rig.says("250 ok", "250 ok", "354 go")
        rig.channel.flush()
        rig.ends(ConnectionLost("reset"))
        assert rig.queue.done == [(1, Outcome.UNKNOWN)] and rig.queue.unsent == []

    async def test_after_refused_parameters_the_server_is_asked_what_it_offers(self) -> None:
        rig = Rig()
        job = rig.job(message=mail(1, text="Grüße"))
        rig.deliveries.begin_now(job)
        rig.says("555 5.5.4 what is BODY", "503 no", "503 no")
        assert rig.asked_anew == [1] and rig.queue.done == []

    async def test_parameters_that_are_refused_again_refuse_the_message(self) -> None:
        rig = Rig()
        job = rig.job(message=mail(1, text="Grüße"))
        job.asked_anew = True
        rig.deliveries.begin_now(job)
        rig.says("555 5.5.4 what is BODY", "503 no", "503 no")
        assert rig.asked_anew == [] and rig.queue.done == [(1, Outcome.REFUSED)]

    async def test_a_caller_with_the_write_turn_is_told_to_write(self) -> None:
        async def gate() -> None: ...

        rig = Rig()
        job = rig.job(before_end_of_data=gate)
        rig.deliveries.begin_now(job)
        assert rig.deliveries.streaming
        rig.says("250 ok", "250 ok", "354 go")
        assert job.waiter is not None and job.waiter.result() is CallerStep.WRITE
        assert rig.queue.done == [] and rig.deliveries.jobs == {job}


class TestBodies:
    async def test_after_a_body_the_next_job_shares_its_write(self) -> None:
        async def gate() -> None: ...

        rig = Rig()
        job = rig.job(before_end_of_data=gate)
        rig.deliveries.begin_now(job)
        rig.says("250 ok", "250 ok", "354 go")
        rig.verbs()
        rig.queue.waiting.append(rig.job(2))
        await rig.deliveries.write_body(job)
        assert len(rig.wire.written) == 1
        assert b"\r\n.\r\nRSET\r\n" in rig.wire.written[0]

    async def test_without_the_write_turn_nothing_is_written(self) -> None:
        """The connection that asked for the body has died, and this one has not asked yet."""

        async def gate() -> None: ...

        rig = Rig()
        job = rig.job(before_end_of_data=gate)
        rig.deliveries.begin_now(job)
        rig.verbs()
        await rig.deliveries.write_body(job)
        assert rig.verbs() == []

    async def test_a_gate_that_raises_stops_the_message(self) -> None:
        async def gate() -> None:
            raise ValueError("changed my mind")

        rig = Rig()
        job = rig.job(before_end_of_data=gate)
        rig.deliveries.begin_now(job)
        rig.says("250 ok", "250 ok", "354 go")
        rig.verbs()
        with pytest.raises(NotSent, match="changed my mind") as caught:
            await rig.deliveries.write_body(job)
        assert isinstance(caught.value.__cause__, ValueError)
        assert rig.verbs() == []


class TestCancelling:
    async def test_what_is_not_handed_over_will_not_be_sent(self) -> None:
        rig = Rig()
        job = rig.job()
        rig.deliveries.begin_now(job)
        job.abandoned = True
        assert rig.deliveries.cancel(job)
        rig.says("250 ok", "250 ok", "354 go")
        assert rig.verbs() == ENVELOPE and rig.channel.machine.pipeline.exhausted
        rig.ends(Interrupted("exhausted"))
        # Its caller has gone: it is settled, and not tried again.
        assert rig.queue.done == [(1, Outcome.NOT_SENT)] and rig.queue.unsent == []

    async def test_what_is_handed_over_runs_to_its_end(self) -> None:
        rig = Rig()
        job = rig.job()
        rig.deliveries.begin_now(job)
        rig.says("250 ok", "250 ok", "354 go")
        rig.channel.flush()
        assert not rig.deliveries.cancel(job)
        rig.says("250 2.0.0 queued")
        assert rig.queue.done == [(1, Outcome.ACCEPTED)]

    async def test_with_the_write_turn_only_the_end_of_the_connection_stops_it(self) -> None:
        async def gate() -> None: ...

        rig = Rig()
        job = rig.job(before_end_of_data=gate)
        rig.deliveries.begin_now(job)
        rig.says("250 ok", "250 ok", "354 go")
        assert rig.deliveries.cancel(job)
        assert isinstance(rig.channel.failure, Interrupted) and rig.wire.closing


class TestLimits:
    async def test_after_so_many_messages_it_is_spent(self) -> None:
        rig = Rig()
        rig.deliveries.retire(messages=1, age=None)
        assert not rig.deliveries.spent
        rig.deliveries.begin_now(rig.job())
        assert rig.deliveries.spent

    async def test_the_servers_own_limit_counts_too(self) -> None:
        rig = Rig("LIMITS MAILMAX=1")
        rig.deliveries.retire(messages=None, age=None)
        rig.deliveries.begin_now(rig.job())
        assert rig.deliveries.spent

    async def test_at_its_age_it_is_spent(self) -> None:
        rig = Rig()
        rig.connection.opened_at = rig.deliveries.idle_since = rig.channel.now()
        rig.deliveries.retire(messages=None, age=5.0)
        assert not rig.deliveries.spent
        rig.deliveries.idle_since += 5.0
        assert rig.deliveries.spent

    async def test_without_limits_it_never_is(self) -> None:
        rig = Rig()
        rig.deliveries.retire(messages=None, age=None)
        rig.deliveries.idle_since += 1e9
        assert not rig.deliveries.spent
