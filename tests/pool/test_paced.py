"""paced.py: messages wait in the queue for the client's own limits."""

import asyncio
import time
from functools import partial
from typing import Any

import pytest

from smtp_async import NotSent, Outcome, PoolLimits, RateLimits, Receipt, SMTPClient, Timeouts
from smtp_async.errors import ExtensionMissing, GreetingRefused, Interrupted, NotConnected, QueueFull
from smtp_async.pool.paced import PacedPool
from smtp_async.pool.pool import Pool
from smtp_async.testing import CancelManner, ScriptedServer, cancellations, close, flush, reply
from tests.lab import (
    PATIENCE,
    client_of,
    every_loop,
    every_settable_loop,
    gathered,
    mail,
    pool_of,
    set_clock_forward,
    speaking,
    turns,
    until,
)
from tests.transport.test_throttle import most_within

pytestmark = pytest.mark.usefixtures("no_leaks")


def limited(server: Any, rates: RateLimits, **more: Any) -> SMTPClient:
    return client_of(server, rates=rates, **more)


def subjects(server: ScriptedServer) -> list[str]:
    return [message.subject for message in server.messages]


async def test_only_a_client_with_such_limits_has_a_pool_that_keeps_them() -> None:
    async with speaking() as server:
        for rates, kind in (
            (RateLimits(), Pool),
            (RateLimits(send_rate=1e9), Pool),
            (RateLimits(messages_per_hour=10), PacedPool),
        ):
            async with limited(server, rates) as client:
                assert type(pool_of(client)) is kind


@every_loop
async def test_no_second_holds_more_than_the_limit_and_little_time_is_lost() -> None:
    times: list[float] = []

    async def note(step: Any) -> None:
        times.append(time.monotonic())

    async with speaking() as server:
        server.on("MAIL", note, reply(250, "2.1.0 Ok"))
        async with limited(
            server, RateLimits(messages_per_second=50), pool=PoolLimits(max_connections=5)
        ) as client:
            before = time.monotonic()
            await gathered(*(client.send(mail(n)) for n in range(150)))
            took = time.monotonic() - before
            statistics = client.statistics()
    assert len(times) == 150
    assert most_within(times, 1.0) <= 50
    assert 2.0 <= took < PATIENCE
    assert 1.5 < statistics.message_pauses < PATIENCE
    assert (statistics.open, statistics.byte_pauses) == (5, 0.0)


@every_settable_loop
async def test_messages_wait_for_the_window_in_order() -> None:
    async with speaking() as server, limited(server, RateLimits(messages_per_hour=3)) as client:
        tasks = [asyncio.create_task(client.send(mail(n))) for n in range(7)]
        await until(lambda: len(server.messages) == 3)
        await turns(20)
        assert (len(server.messages), client.statistics().waiting) == (3, 4)
        set_clock_forward(100)  # of 120 s, the deadline of `send`
        await turns(20)
        assert len(server.messages) == 3
        for task in tasks[3:]:
            task.cancel()
        await asyncio.wait(tasks)
        assert client.statistics().waiting == 0
        # Nothing waits any more.
        pauses = client.statistics().message_pauses
        set_clock_forward(1000)
        assert client.statistics().message_pauses == pauses >= 100


@every_settable_loop
async def test_send_all_waits_for_as_long_as_it_takes() -> None:
    async with speaking() as server, limited(server, RateLimits(messages_per_hour=3)) as client:
        receipts: list[Receipt] = []

        def reached(number: int) -> bool:
            return len(receipts) == number

        async def consume() -> None:
            async for _, receipt in client.send_all(mail(n) for n in range(7)):
                receipts.append(receipt)

        task = asyncio.create_task(consume())
        for expected in (3, 6, 7):
            await until(partial(reached, expected))
            await turns(20)
            assert len(receipts) == expected
            set_clock_forward(3601)
        await task
        assert {receipt.outcome for receipt in receipts} == {Outcome.ACCEPTED}
        assert subjects(server) == [f"message {n}" for n in range(7)]
        assert client.statistics().message_pauses >= 7200


async def test_a_deadline_that_passes_in_the_queue_names_the_limit() -> None:
    async with speaking() as server, limited(server, RateLimits(messages_per_hour=1)) as client:
        await client.send(mail(1))
        with pytest.raises(NotSent, match="RateLimits") as caught:
            await client.send(mail(2), deadline=0.05)
        assert caught.value.receipt is not None
        assert caught.value.receipt.outcome is Outcome.NOT_SENT
        assert len(server.messages) == 1


async def test_the_queue_stays_bounded() -> None:
    async with speaking() as server:
        async with limited(server, RateLimits(messages_per_hour=1), pool=PoolLimits(max_waiting=1)) as client:
            await client.send(mail(1))
            waiting = asyncio.create_task(client.send(mail(2)))
            await turns(3)
            with pytest.raises(QueueFull):
                await client.send(mail(3))
            waiting.cancel()
            await asyncio.wait({waiting})


async def test_closing_the_client_fails_what_waits() -> None:
    async with speaking() as server, limited(server, RateLimits(messages_per_hour=1)) as client:
        await client.send(mail(1))
        waiting = asyncio.create_task(client.send(mail(2)))
        await turns(3)
        await client.close()
        with pytest.raises(Interrupted, match="the client was closed"):
            await waiting


async def test_a_refused_message_and_a_lost_one_have_taken_their_places() -> None:
    async with speaking() as server, limited(server, RateLimits(messages_per_hour=2)) as client:
        server.on("MAIL", reply(550, "5.7.1 no"), nth=1)
        server.on("MAIL", flush(), close(), nth=2)
        results = await gathered(*(client.send(mail(n), deadline=0.2) for n in range(2)))
        assert {type(result).__name__ for result in results} == {"SenderRefused", "NotSent"}
        # The lost one would need a third place.
        assert server.verbs().count("MAIL") == 2


@every_settable_loop
async def test_a_message_that_is_prepared_twice_takes_one_place() -> None:
    """The first connection tells what the server offers; only then is the message prepared and begun."""
    async with speaking() as server, limited(server, RateLimits(messages_per_hour=2)) as client:
        for sent in (2, 4):
            await gathered(*(client.send(mail(n), deadline=1.0) for n in range(2)))
            assert len(server.messages) == sent
            # Both places are free again.
            set_clock_forward(3601)


@every_settable_loop
async def test_no_connection_is_opened_for_messages_that_may_not_leave_yet() -> None:
    async with speaking() as server, limited(server, RateLimits(messages_per_hour=2)) as client:
        tasks = [asyncio.create_task(client.send(mail(n))) for n in range(20)]
        await until(lambda: len(server.messages) == 2)
        await turns(20)
        assert server.connections.opened <= 2
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class TestSessions:
    async def test_a_message_in_several_transactions_counts_for_each(self) -> None:
        async with speaking(extensions=["PIPELINING", "LIMITS RCPTMAX=1"]) as server:
            async with (
                limited(server, RateLimits(messages_per_hour=3)) as client,
                client.session() as session,
            ):
                await session.connect()
                await session.send(mail(1, to=["a@example.org", "b@example.org"]))
                assert server.verbs().count("MAIL") == 2
                # One place is left.
                await client.send(mail(2))
                with pytest.raises(NotSent, match="RateLimits"):
                    await client.send(mail(3), deadline=0.05)

    @every_settable_loop
    async def test_messages_of_a_session_count_with_the_others(self) -> None:
        async with speaking() as server, limited(server, RateLimits(messages_per_hour=2)) as client:
            async with client.session() as session:
                await session.connect()
                await session.send(mail(1))
                await client.send(mail(2))
                sending = asyncio.create_task(session.send(mail(3)))
                await turns(20)
                assert len(server.messages) == 2
                set_clock_forward(3601)
                await sending
            assert subjects(server) == ["message 1", "message 2", "message 3"]

    @every_settable_loop
    async def test_the_place_of_a_message_that_a_session_cannot_send_is_free_after_its_window(self) -> None:
        async with (
            speaking(extensions=["PIPELINING"]) as server,
            limited(server, RateLimits(messages_per_hour=1)) as client,
        ):
            async with client.session() as session:
                await session.connect()
                # Nothing of it was offered to the server.
                with pytest.raises(ExtensionMissing):
                    await session.send(mail(1, to=["b\u00f6b@example.org"]))
                set_clock_forward(3601)
                await session.send(mail(2))
            assert subjects(server) == ["message 2"]

    @pytest.mark.parametrize("manner", CancelManner)
    async def test_a_session_that_waits_can_be_cancelled_at_every_await(self, manner: CancelManner) -> None:
        """No place and no turn is lost, and what was cancelled in its wait was not sent."""
        async with speaking() as server, limited(server, RateLimits(messages_per_second=2)) as client:

            async def scenario() -> None:
                async with client.session() as session:
                    await session.connect()
                    for n in range(3):
                        await session.send(mail(n))

            runs = 0
            async for _ in cancellations(scenario, manner=manner):
                runs += 1
            assert runs > 3
            await until(lambda: not client.statistics().open)
            # Once the window has passed, nothing waits, and both places are free.
            set_clock_forward(2)
            await turns()
            pauses = client.statistics().message_pauses
            set_clock_forward(1000)
            await gathered(*(client.send(mail(n), deadline=1.0) for n in (8, 9)))
            assert subjects(server)[-2:] == ["message 8", "message 9"]
            assert client.statistics().message_pauses == pauses
            # No turn is left: as soon as the only waiting caller gives up, no pause is counted.
            waiting = asyncio.create_task(client.send(mail(10)))
            await turns()
            waiting.cancel()
            await asyncio.wait({waiting})
            pauses = client.statistics().message_pauses
            set_clock_forward(0.5)
            assert client.statistics().message_pauses == pauses

    async def test_closing_the_client_ends_the_wait(self) -> None:
        async with speaking() as server, limited(server, RateLimits(messages_per_hour=1)) as client:
            async with client.session() as session:
                await session.connect()
                await session.send(mail(1))
                sending = asyncio.create_task(session.send(mail(2)))
                await turns(5)
                await client.close()
                with pytest.raises(NotConnected):
                    await sending


async def test_during_an_outage_send_all_waits_no_longer_than_without_limits() -> None:
    async with speaking() as server:
        timeouts = Timeouts(queue=0.2)
        async with limited(server, RateLimits(messages_per_hour=2), timeouts=timeouts) as client:
            server.on("GREETING", reply(421, "4.3.2 gone"), close())
            outcomes = []
            with pytest.raises(GreetingRefused):
                async for _, receipt in client.send_all(mail(n) for n in range(3)):
                    outcomes.append(receipt.outcome)
    assert outcomes == [Outcome.NOT_SENT] * 3
