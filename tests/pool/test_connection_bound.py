"""connection_bound.py: timers and measurements around the decisions of `adaptive`; servers with limits of their own."""

from typing import Any

import pytest

from smtp_async import Outcome, PoolLimits, SMTPClient
from smtp_async.errors import MessageRefused
from smtp_async.model.receipt import Receipt
from smtp_async.model.reply import Reply
from smtp_async.pool.connection_bound import AdaptiveConnectionBound, Load
from smtp_async.testing import ScriptedServer, Step, close, default, reply
from tests.lab import (
    Clock,
    LoopTimers,
    client_of,
    every_settable_loop,
    gathered,
    mail,
    set_clock_forward,
    speaking,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks")


class Bounded:
    """A bound of ten in a test's own time, and what it called."""

    def __init__(self) -> None:
        self.time = Clock()
        self.load = Load(0, 0, 0, 10, 0)
        self.raised: list[int] = []
        self.lowered: list[int] = []
        loop: Any = self.time
        self.bound = AdaptiveConnectionBound(10, loop, self.rise, self.lowered.append, lambda: self.load)

    def rise(self) -> None:
        self.raised.append(self.bound.current)

    def measure(self, *ended: int, late: float = 0.0) -> None:
        """Take a reading for each of `ended`, the messages that have ended since the one before.

        Args:
            ended: numbers of messages.
            late: seconds from one reading to the next, as after a sleep of the machine; by default the reading's timer
                is in time.
        """
        for more in ended:
            self.load = self.load._replace(ended=self.load.ended + more)
            self.time.now += late
            self.time.advance(0 if late else 1)


def overloaded() -> Receipt:
    reply = Reply(452, (b"4.3.2 too many",))
    return Receipt((), reply=reply, error=MessageRefused("", reply=reply))


def test_it_falls_at_once_and_rises_by_its_timer() -> None:
    one = Bounded()
    one.bound.message_failed(overloaded())
    assert (one.bound.current, one.lowered, one.raised) == (7, [7], [])
    one.time.advance(2.5)
    assert (one.bound.current, one.raised) == (9, [8, 9])
    one.time.advance(60)
    assert one.bound.current == 10
    assert one.time.timers == []


def test_a_refused_connection_leaves_those_that_are_open_or_may_be() -> None:
    one = Bounded()
    one.load = one.load._replace(open=5, opening=1)
    one.bound.connection_refused()
    assert (one.bound.current, one.lowered) == (6, [6])


def test_other_refusals_change_nothing() -> None:
    one = Bounded()
    one.bound.message_failed(Receipt((), reply=Reply(550), error=MessageRefused("", reply=Reply(550))))
    assert (one.bound.current, one.lowered, one.time.timers) == (10, [], [])


def test_it_measures_while_messages_wait_and_then_no_more() -> None:
    one = Bounded()
    one.load = Load(0, 10, 5, 10, 0)
    one.bound.watch()
    one.bound.watch()
    assert len(one.time.timers) == 1
    # Ten under way and forty ended in a second: a quarter of a second for each.
    one.measure(40, 40)
    # Less than four times as long changes nothing, more does.
    one.measure(11, 11, 11)
    assert (one.bound.current, one.lowered) == (10, [])
    one.measure(9, 9, 9)
    assert (one.bound.current, one.lowered) == (7, [7])
    one.load = one.load._replace(waiting=0)
    one.time.advance(100)
    assert one.bound.current == 10
    assert one.time.timers == []


def test_a_reading_that_is_late_by_far_tells_nothing_of_the_server() -> None:
    one = Bounded()
    one.load = Load(0, 10, 5, 10, 0)
    one.bound.watch()
    # A late reading is not taken for quick replies, beside which those that follow would be slow.
    one.measure(1_000_000, late=61)
    one.measure(40, 40, 40, 40)
    assert one.bound.current == 10
    # Nor are late readings taken for slow replies.
    one.measure(*[100] * 5, late=61)
    assert (one.bound.current, one.lowered) == (10, [])


def test_a_stopped_bound_has_no_timer() -> None:
    one = Bounded()
    one.load = Load(0, 10, 5, 10, 0)
    one.bound.watch()
    one.bound.message_failed(overloaded())
    one.bound.stop()
    assert one.time.timers == []


# --- clients -------------------------------------------------------------------------------------------------


async def test_adaptive_is_the_default_and_can_be_turned_off() -> None:
    async with speaking() as server:
        server.on("MAIL", reply(452, "4.3.2 too many messages"))
        for limits, bound in ((PoolLimits(), 1), (PoolLimits(adaptive=False), 10)):
            async with client_of(server, pool=limits) as client:
                await gathered(client.send(mail()))
                assert client.statistics().bound == bound


class Crowded:
    """Refuses connections above `capacity` with 421, as Postfix does with smtpd_client_connection_count_limit."""

    def __init__(self, server: ScriptedServer, capacity: int) -> None:
        self.capacity = capacity
        self.served: list[Any] = []
        self.refused = 0
        server.on("GREETING", self)

    async def __call__(self, step: Step) -> None:
        if sum(log.open for log in self.served) >= self.capacity:
            self.refused += 1
            await reply(421, "4.7.0 too many connections")(step)
            await close()(step)
        else:
            self.served.append(step.connection.log)
            await default()(step)


async def send_for_a_while(client: SMTPClient, count: int) -> None:
    receipts = await gathered(*(client.send(mail(n)) for n in range(count)))
    assert {getattr(receipt, "outcome", receipt) for receipt in receipts} == {Outcome.ACCEPTED}


@every_settable_loop
async def test_a_server_with_room_for_three_is_asked_once_and_again_when_it_may_have_more() -> None:
    limits = PoolLimits(max_connections=8, idle_time=None, min_backoff=0.001, max_backoff=0.002)
    async with speaking() as server, client_of(server, pool=limits) as client:
        crowd = Crowded(server, 3)
        await send_for_a_while(client, 1)
        await send_for_a_while(client, 300)
        statistics = client.statistics()
        assert statistics.bound == statistics.open == 3
        # Five dials that were under way together, and one for each step down.
        assert crowd.refused <= 10
        before = crowd.refused
        await send_for_a_while(client, 300)
        assert crowd.refused == before
        crowd.capacity = 8
        for _ in range(7):
            set_clock_forward(61)
            await send_for_a_while(client, 100)
        assert client.statistics().bound == 8


async def test_too_many_messages_close_connections_when_their_messages_have_ended() -> None:
    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=8)) as client:
        await send_for_a_while(client, 200)
        await until(lambda: client.statistics().idle == 8)
        server.on("MAIL", reply(452, "4.3.2 too many messages"), nth=1)
        [result] = await gathered(client.send(mail("refused")))
        assert type(result).__name__ == "SenderRefused"
        assert client.statistics().bound == 5
        await until(lambda: client.statistics().open == 5)
        await send_for_a_while(client, 100)
        assert client.statistics().open <= 6


async def test_closing_the_client_leaves_no_timer() -> None:
    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=2)) as client:
        server.on("MAIL", reply(452, "4.3.2 too many messages"), nth=1)
        timers = LoopTimers()
        await gathered(*(client.send(mail(n)) for n in range(20)))
        assert client.statistics().bound == 1
        await client.close()
        assert timers.pending() == []
