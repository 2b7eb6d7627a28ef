"""watch.py: the numbers of a spool, counted no more often than it is cheap."""

import pytest

from smtp_async import Message, QueueProcessor, SMTPClient
from smtp_async.errors import SpoolError
from smtp_async.testing import MemorySpool, ScriptedServer
from smtp_async.web.console.watch import Watch


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class CountingSpool(MemorySpool):
    """Takes `seconds` for a count, and may fail."""

    def __init__(self, clock, seconds=0.0):
        super().__init__()
        self.clock, self.seconds, self.counts, self.broken = clock, seconds, 0, False

    async def statistics(self):
        self.counts += 1
        self.clock.now += self.seconds
        if self.broken:
            raise SpoolError("the disk is gone")
        return await super().statistics()


def letter(to="bob@example.org"):
    return Message(sender="ann@example.com", to=to, subject="x", text="x")


@pytest.fixture
def clock():
    return Clock()


async def test_the_numbers_of_a_spool_without_a_processor(clock):
    spool = CountingSpool(clock)
    ids = [await spool.put(letter()) for _ in range(3)]
    await spool.hold(ids[0])
    told = await Watch(spool, clock=clock, monotonic=clock).snapshot()
    assert told["counts"] == {"queued": 2, "held": 1, "sending": 0, "failed": 0, "sent": 0, "quarantined": 0}
    assert told["processor"] is None and told["problem"] == "" and told["curve"] == [[1000.0, 3, 0]]


async def test_counting_that_is_slow_is_done_less_often(clock):
    spool = CountingSpool(clock, seconds=2.0)
    watch = Watch(spool, clock=clock, monotonic=clock)
    for step, counts in ((0, 1), (1, 1), (38, 1), (2, 2), (39, 2), (2, 3)):
        clock.now += step
        await watch.snapshot()
        assert spool.counts == counts


async def test_a_spool_that_fails_is_told_and_the_last_numbers_stay(clock):
    spool = CountingSpool(clock)
    await spool.put(letter())
    watch = Watch(spool, clock=clock, monotonic=clock)
    await watch.snapshot()
    spool.broken = True
    clock.now += 5
    told = await watch.snapshot()
    assert told["problem"] == "the disk is gone" and told["counts"]["queued"] == 1
    spool.broken = False
    clock.now += 5
    assert (await watch.snapshot())["problem"] == ""


async def test_rates_and_pauses_of_a_processor(clock):
    async with ScriptedServer() as server, SMTPClient.from_url(server.url) as client:
        spool = CountingSpool(clock)
        processor = QueueProcessor(spool, client)
        watch = Watch(spool, processor, clock=clock, monotonic=clock)
        assert (await watch.snapshot())["processor"]["rates"]["sent"] == 0
        for _ in range(20):
            await spool.put(letter())
        await processor.run_once()
        clock.now += 5
        told = (await watch.snapshot())["processor"]
        assert told["sent"] == 20 and told["rates"]["sent"] == 4.0 and told["paused_until"] is None
        for _ in range(12):
            clock.now += 1
            told = await watch.snapshot()
        assert told["processor"]["rates"]["sent"] == 0 and told["curve"][-1][2] == 20
    async with SMTPClient("127.0.0.1", 9) as client:
        processor = QueueProcessor(spool, client)
        await spool.put(letter())
        await processor.run_once()
        told = (await Watch(spool, processor, clock=clock, monotonic=clock).snapshot())["processor"]
        assert told["paused_until"] is not None and told["problem"]
