"""send_pacer.py: bytes written per second, the clock of the server meanwhile, and what becomes of what waits."""

import asyncio
import time
from typing import Any

import pytest

from smtp_async import NotSent, Outcome, PoolLimits, RateLimits, Raw, Security, SMTPClient
from smtp_async.connection.clock import ReplyClock
from smtp_async.connection.send_pacer import SendPacer
from smtp_async.errors import Timeout
from smtp_async.events import PITrail
from smtp_async.testing import CancelManner, RecordingSink, cancellations
from smtp_async.transport.throttle import ClientThrottle
from tests.connection.test_clock import LIMITS
from tests.lab import (
    Clock,
    client_of,
    every_loop,
    gathered,
    impatient,
    mail,
    speaking,
    tls_server,
    trusting,
    turns,
    until,
)
from tests.protocol.talk import Talk
from tests.servers.pki import Pki

pytestmark = pytest.mark.usefixtures("no_leaks")


class Paced:
    """A pacer in a test's own time; `passed` counts the bytes that were written."""

    def __init__(self, rate: float) -> None:
        self.time = Clock()
        loop: Any = self.time
        self.talk = Talk.ready(offer=("PIPELINING",))
        self.errors: list[Timeout] = []
        self.clock = ReplyClock(self.talk.machine, LIMITS, self.errors.append, loop)
        self.clock.resume()
        self.client = ClientThrottle(RateLimits(send_rate=rate))
        self.waiting: list[int] = []
        self.passed = 0
        self.pacer = SendPacer(self.client.for_connection(), self.clock, self.flush, loop)

    def flush(self) -> None:
        while self.waiting and self.pacer.may_write(self.waiting[0]):
            self.passed += self.waiting.pop(0)


def test_what_is_too_fast_waits_and_leaves_by_itself() -> None:
    one = Paced(1000)
    one.waiting = [1000, 500, 10]
    one.flush()
    assert (one.passed, one.pacer.holding) == (1000, True)
    one.time.advance(0.94)
    assert one.passed == 1000
    one.time.advance(0.02)
    assert one.passed == 1500
    one.time.advance(0.5)
    assert (one.passed, one.pacer.holding) == (1510, False)
    assert one.client.waited == pytest.approx(1.45)


def test_the_clock_of_the_server_stands_still_during_a_pause() -> None:
    one = Paced(1)
    one.talk.machine.noop()
    one.talk.machine.data_to_send()
    one.clock.restart(one.time.now)
    assert one.clock.due is not None
    one.waiting = [100, 100]
    one.flush()
    assert one.pacer.holding and one.clock.due is None
    one.time.advance(99)
    assert one.errors == []
    one.time.advance(1)
    # Two hundred bytes are written: now the second hundred is being paid for, and the pause is over.
    assert not one.pacer.holding
    assert one.clock.due is not None and one.clock.due > one.time.now
    one.time.advance(50)
    assert len(one.errors) == 1


def test_a_pacer_that_is_stopped_writes_no_more() -> None:
    one = Paced(1000)
    one.waiting = [1000, 500]
    one.flush()
    one.pacer.stop()
    one.time.advance(10)
    assert (one.passed, one.pacer.holding) == (1000, False)


# --- clients -------------------------------------------------------------------------------------------------


def slow(server: Any, rate: float, **more: Any) -> SMTPClient:
    return client_of(server, rates=RateLimits(send_rate=rate), **more)


def large(size: int) -> Raw:
    return Raw(
        b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * (size // 72),
        "a@example.com",
        ["b@example.org"],
    )


@every_loop
async def test_a_megabyte_per_second(pki: Pki) -> None:
    async with RecordingSink() as server, slow(server, 1_000_000) as client:
        start = time.monotonic()
        await client.send(large(1_000_000))
        # On a busy machine it is less.
        assert 300_000 < 1_000_000 / (time.monotonic() - start) < 1_050_000
        assert 0.1 < client.statistics().byte_pauses < 1.2


async def test_over_tls_too(pki: Pki) -> None:
    async with tls_server(pki) as server:
        rates = RateLimits(send_rate=200_000)
        options: dict[str, Any] = {"tls": trusting(pki), "security": Security.STARTTLS, "host": "localhost"}
        async with client_of(server, rates=rates, **options) as client:
            start = time.monotonic()
            await client.send(large(200_000))
            assert 60_000 < 200_000 / (time.monotonic() - start) < 220_000


async def test_many_small_messages_share_the_limit_of_the_client() -> None:
    async with RecordingSink() as server:
        rates = RateLimits(total_send_rate=100_000)
        async with client_of(server, rates=rates, pool=PoolLimits(max_connections=4)) as client:
            start = time.monotonic()
            receipts = await gathered(*(client.send(mail(n, text="x" * 9_000 + "\n")) for n in range(15)))
            took = time.monotonic() - start
            assert {receipt.outcome for receipt in receipts} == {Outcome.ACCEPTED}
            assert len(server.messages) == 15
            sent = sum(receipt.bytes_sent for receipt in receipts)
            # The last message is not waited for.
            assert took >= (sent - 4 * 9_500) / 100_000 - 0.1


async def test_a_pause_is_longer_than_the_time_for_a_reply() -> None:
    """The server has 0.2 s for each reply; the client's own pauses take several times as long."""
    async with speaking() as server, slow(server, 30_000, timeouts=impatient(0.2)) as client:
        first = await client.send(mail(1, text="x" * 15_000 + "\n"))
        second = await client.send(mail(2, text="y" * 15_000 + "\n"))
        assert (first.outcome, second.outcome) == (Outcome.ACCEPTED, Outcome.ACCEPTED)
        assert client.statistics().byte_pauses > 0.4


async def test_what_waits_in_a_pause_was_not_sent() -> None:
    """The end of the message is still here, so that it is not `unknown`."""
    async with speaking() as server, slow(server, 2_000) as client:
        await client.send(mail(1, text="x" * 4_000 + "\n"))
        with pytest.raises(NotSent):
            await client.send(mail(2), deadline=0.3)
        assert [message.subject for message in server.messages] == ["message 1"]


async def test_a_message_is_told_to_hooks_when_it_leaves() -> None:
    seen: list[str] = []
    async with speaking() as server, slow(server, 20_000) as client:
        client.on(PITrail, lambda event: seen.append(event.message))
        await client.send(mail(1, text="x" * 2_000 + "\n"))
        await client.send(mail(2))
    assert sum(line.startswith("MAIL") for line in seen) == 2


async def test_closing_the_client_in_a_pause_waits_no_longer_than_asked() -> None:
    async with speaking() as server, slow(server, 100, timeouts=impatient(0.2)) as client:
        sending = asyncio.create_task(client.send(mail(1, text="x" * 50_000 + "\n"), deadline=30))
        await until(lambda: client.statistics().open)
        await turns(50)
        async with asyncio.timeout(5):
            await client.close()
        with pytest.raises(Exception, match="closed"):
            await sending


@pytest.mark.parametrize("manner", CancelManner)
async def test_a_message_can_be_cancelled_at_every_await(manner: CancelManner) -> None:
    async with speaking() as server, slow(server, 400_000) as client:

        async def scenario() -> None:
            await client.send(large(150_000))

        runs = 0
        async for _ in cancellations(scenario, manner=manner):
            runs += 1
        assert runs > 3
        assert len(server.messages) >= 1
        await client.send(mail("afterwards"))


async def test_a_streamed_message_can_be_cancelled_in_a_pause() -> None:
    async with speaking() as server, slow(server, 10_000) as client:
        sending = asyncio.create_task(client.send(large(500_000)))
        await until(lambda: client.statistics().byte_pauses > 0.2)
        sending.cancel()
        await asyncio.wait({sending})
        assert sending.cancelled()
        await until(lambda: client.statistics().open == 0)
        assert server.messages == []
