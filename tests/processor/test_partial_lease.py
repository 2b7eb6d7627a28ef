"""The part of a job that one route delivers, and what is left of the job for the others."""

import pytest

from smtp_async.errors import LeaseLost
from smtp_async.model.receipt import Receipt
from smtp_async.processor.partial_lease import PartialLease, pending_places, tried_since_due
from smtp_async.processor.results import OtherRoutes
from smtp_async.spool.entry import State
from smtp_async.testing import MemorySpool
from smtp_async.testing.lease_contract import LATER, NEVER, QUEUED, TEXT, receipt_for

PEOPLE = ["a@x.test", "b@x.test", "c@x.test"]


class Clock:
    now = 2e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def spool(clock: Clock) -> MemorySpool:
    spool = MemorySpool(clock=clock)
    await spool.put(TEXT, recipients=PEOPLE, not_before=clock.now)
    return spool


async def part(spool: MemorySpool, *places: int) -> PartialLease:
    [lease] = await spool.claim()
    return PartialLease(lease, places)


async def test_a_part_is_a_job_with_fewer_recipients(spool: MemorySpool) -> None:
    lease = await part(spool, 0, 2)
    assert [str(one.address) for one in lease.entry.pending] == ["a@x.test", "c@x.test"]
    assert lease.mail().envelope() == lease.entry.envelope
    assert lease.mail().content().join() == TEXT
    assert [str(one.address) for one in lease.whole.pending] == PEOPLE
    assert (lease.entry.id, lease.token, lease.others) == (lease.whole.id, 1, OtherRoutes.UNTRIED)


async def test_the_ends_of_a_part_leave_the_other_recipients(spool: MemorySpool) -> None:
    lease = await part(spool, 0, 2)
    id, due = lease.entry.id, lease.whole.not_before
    await lease.extend()
    await lease.mark_end_of_data()
    await lease.defer(receipt_for(lease, QUEUED, LATER), due, counts=False)
    entry = await spool.get(id)
    assert pending_places(entry) == [1, 2]
    assert [tried_since_due(entry, place) for place in range(3)] == [True, False, True]
    lease = await part(spool, 1)
    assert lease.others is OtherRoutes.DEFERRED
    await lease.fail(receipt_for(lease, NEVER), reason="no")
    entry = await spool.get(id)
    assert (entry.state, entry.reason, pending_places(entry)) == (State.FAILED, "no", [2])
    await spool.requeue(id, not_before=due)
    lease = await part(spool, 1, 2)
    assert lease.others is OtherRoutes.NONE
    await lease.settle(receipt_for(lease, QUEUED), keep=True)
    assert (await spool.get(id)).state is State.SENT
    with pytest.raises(LeaseLost):
        await lease.release()


async def test_a_released_part_is_a_released_job(spool: MemorySpool) -> None:
    lease = await part(spool, 1)
    await lease.release()
    assert pending_places(await spool.get(lease.entry.id)) == [0, 1, 2]


async def test_a_new_due_time_begins_a_new_round(spool: MemorySpool, clock: Clock) -> None:
    lease = await part(spool, 0)
    await lease.defer(receipt_for(lease, LATER), clock.now + 60, reason="later")
    clock.now += 60
    entry = await spool.get(lease.entry.id)
    assert not any(tried_since_due(entry, place) for place in range(3))


async def test_a_receipt_about_the_part_is_not_one_about_the_job(spool: MemorySpool) -> None:
    lease = await part(spool, 0)
    receipt = receipt_for(lease, QUEUED)
    assert isinstance(receipt, Receipt) and len(receipt.verdicts) == 1
    await lease.settle(receipt)
    assert (await spool.statistics()).queued == 0
