"""Limits of messages, bytes and connections against Postfix, which has limits of its own and enforces them."""

import time

from smtp_async import Outcome, PoolLimits, RateLimits, Raw, SenderRefused
from smtp_async.events import Direction, PITrail
from tests.lab import PATIENCE, client_of, gathered, mail
from tests.servers.postfix import Postfix
from tests.transport.test_throttle import most_within

SECONDS = 2


async def test_100_messages_per_second_over_5_connections(postfix: Postfix) -> None:
    """Neither what is written in any second nor what is answered in any second is more than a hundred messages."""
    written: list[float] = []
    answered: list[float] = []
    rates = RateLimits(messages_per_second=100)
    async with client_of(
        postfix, port=postfix.plain_port, rates=rates, pool=PoolLimits(max_connections=5)
    ) as client:

        def note(event: PITrail) -> None:
            if event.direction is Direction.CLIENT and event.command == "MAIL":
                written.append(time.monotonic())
            elif (
                event.direction is Direction.SERVER
                and event.reply is not None
                and event.command == "end of data"
            ):
                answered.append(time.monotonic())

        client.on(PITrail, note)
        start = time.monotonic()
        receipts = await gathered(*(client.send(mail(n)) for n in range(100 * SECONDS + 1)))
        took = time.monotonic() - start
        statistics = client.statistics()
    assert {receipt.outcome for receipt in receipts} == {Outcome.ACCEPTED}
    assert len(written) == len(answered) == 100 * SECONDS + 1
    assert most_within(written, 1.0) <= 100
    assert most_within(answered, 1.0) <= 100
    # A place is taken for the time of its message, too.
    assert SECONDS <= took < PATIENCE
    assert statistics.message_pauses > 0


async def test_the_number_of_connections_becomes_that_which_the_server_takes(postfix: Postfix) -> None:
    limits, rates = PoolLimits(max_connections=15, min_backoff=0.01), RateLimits(messages_per_second=20)
    async with client_of(postfix, port=postfix.limited_port, pool=limits, rates=rates) as client:
        receipts = await gathered(*(client.send(mail(n)) for n in range(60)))
        bound = client.statistics().bound
    assert {receipt.outcome for receipt in receipts} == {Outcome.ACCEPTED}
    assert "Connection concurrency limit exceeded" in postfix.log()
    assert 1 <= bound <= 5


async def test_a_server_that_takes_100_messages_in_two_seconds_refuses_none(postfix: Postfix) -> None:
    rates = RateLimits(messages_per_second=25)
    limits = PoolLimits(max_connections=5)
    async with client_of(postfix, port=postfix.limited_port, rates=rates, pool=limits) as client:
        receipts = await gathered(*(client.send(mail(n)) for n in range(120)))
    assert {receipt.outcome for receipt in receipts} == {Outcome.ACCEPTED}
    # Without limits of this side it refuses some.
    async with client_of(postfix, port=postfix.limited_port, pool=limits) as client:
        results = await gathered(*(client.send(mail(n)) for n in range(350)))
    refused = [result for result in results if isinstance(result, SenderRefused)]
    assert refused and {error.reply.code for error in refused if error.reply is not None} == {450}


async def test_a_megabyte_per_second(postfix: Postfix) -> None:
    size = 1_500_000
    body = (b"x" * 70 + b"\r\n") * (size // 72)
    message = Raw(b"Subject: large\r\n\r\n" + body, "ann@example.com", ["bob@example.org"])
    async with client_of(postfix, port=postfix.plain_port, rates=RateLimits(send_rate=1_000_000)) as client:
        await client.send(mail("warm"))
        start = time.monotonic()
        receipt = await client.send(message)
        took = time.monotonic() - start
    assert receipt.outcome is Outcome.ACCEPTED
    # The reply comes when the last part has left, and that part is not paid for any more.
    # On a busy machine it is less.
    assert 300_000 < size / took < 1_050_000
