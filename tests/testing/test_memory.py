"""memory.py: the spool in memory passes the tests of every spool, on a clock that a test sets."""

import pytest

from smtp_async.errors import LeaseLost, UsageError
from smtp_async.spool.entry import State
from smtp_async.testing.contracts import QUEUED, TEXT, SpoolContract, receipt_for
from smtp_async.testing.memory import MemorySpool


class TestMemorySpool(SpoolContract):
    @pytest.fixture
    async def spool(self):
        async with MemorySpool() as spool:
            yield spool

    def abandon(self, spool, lease):
        spool.abandon(lease)


async def delivered(spool: MemorySpool, key: str) -> str:
    id = await spool.put(TEXT, key=key)
    [lease] = await spool.claim()
    await lease.settle(receipt_for(lease, QUEUED))
    return id


async def test_a_key_from_a_clock_that_was_ahead_is_forgotten() -> None:
    times = [1000.0]
    async with MemorySpool(clock=lambda: times[-1]) as spool:
        times.append(10 * 365 * 86400.0)
        await spool.put(TEXT, key="k", not_before=1.0)
        [lease] = await spool.claim()
        await lease.settle(receipt_for(lease, QUEUED))
        times.append(2000.0)
        await spool.recover()
        await spool.put(TEXT, key="k")
        assert [entry async for entry in spool.list()] == []
        times.append(2000.0 + spool.key_retention)
        await spool.put(TEXT, key="k")
        assert len([entry async for entry in spool.list()]) == 1


async def test_the_clock_is_the_caller_s() -> None:
    now = 1000.0
    async with MemorySpool(clock=lambda: now) as spool:
        id = await spool.put(TEXT, not_before=1500.0)
        assert await spool.claim() == [] and (await spool.statistics()).next_due == 1500.0
        now = 1500.0
        [lease] = await spool.claim()
        assert lease.entry.id == id


async def test_a_key_is_remembered_for_its_time_and_no_longer() -> None:
    now = 1000.0
    async with MemorySpool(clock=lambda: now, key_retention=60.0) as spool:
        id = await delivered(spool, "k")
        now += 59
        assert await spool.put(TEXT, key="k") == id and (await spool.statistics()).queued == 0
        now += 2
        assert await spool.put(TEXT, key="k") == id and (await spool.statistics()).queued == 1


async def test_the_holder_of_an_abandoned_lease_has_lost_it() -> None:
    async with MemorySpool() as spool:
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        spool.abandon(lease)
        with pytest.raises(LeaseLost):
            await lease.settle(receipt_for(lease, QUEUED))
        assert (await spool.get(id)).state is State.SENDING
        assert (await spool.recover()).requeued == (id,)


async def test_nothing_can_be_done_with_a_closed_spool() -> None:
    async with MemorySpool() as spool:
        pass
    for call in (lambda: spool.put(TEXT), spool.claim, spool.recover, lambda: spool.wait(0)):
        with pytest.raises(UsageError):
            await call()
