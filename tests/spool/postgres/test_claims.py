"""claims.py: leases, the clocks of workers, and jobs of dead workers."""

import asyncio
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from smtp_async.errors import LeaseLost, SpoolError
from smtp_async.processor.partial_lease import PartialLease, tried_since_due
from smtp_async.processor.results import OtherRoutes
from smtp_async.spool.entry import State
from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.testing.contracts import LATER, QUEUED, TEXT, receipt_for
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import (
    Delegate,
    ReplacingPool,
    eventually,
    execute,
    expire,
    new_spool,
    schema_of,
)

pytestmark = pytest.mark.server

DAY = 86400.0


@pytest.fixture
async def spool(postgres: Postgres):
    async with await new_spool(postgres) as spool:
        yield spool


@pytest.mark.parametrize("ahead", [DAY, -DAY])
async def test_a_worker_whose_clock_is_wrong_by_a_day_works_as_the_others(
    postgres: Postgres, spool, ahead: float
) -> None:
    def clock() -> float:
        return time.time() + ahead

    now = time.time()
    soon = await spool.put(TEXT, not_before=now + 3600, expires=now + 7200)
    due = await spool.put(TEXT, not_before=now - 60, expires=now + 7200)
    async with PostgresSpool(postgres.url(), schema=schema_of(spool), clock=clock) as other:
        [lease] = await other.claim(5, now=clock())
        assert lease.entry.id == due
        # The worker sees the times by its own clock: an hour and a half are left.
        assert lease.entry.expires == pytest.approx(clock() + 7200, abs=30)
        assert lease.entry.not_before == pytest.approx(clock() - 60, abs=30)
        await lease.defer(receipt_for(lease, LATER), clock() + 600)
        entry = await spool.get(due)
        assert entry.not_before == pytest.approx(time.time() + 600, abs=30)
        result = entry.results[0]
        assert result is not None and result.at == pytest.approx(time.time(), abs=30)
        assert [one.entry.id for one in await other.claim(5, now=clock() + 1800)] == [due]
        # And a message that it puts is due when the database says so.
        new = await other.put(TEXT)
        assert [one.entry.id for one in await spool.claim(5)] == [new]
    assert (await spool.get(soon)).not_before == now + 3600


@pytest.mark.parametrize("ahead", [DAY, -DAY])
async def test_a_worker_whose_clock_is_wrong_sees_which_recipients_had_their_turn(
    postgres: Postgres, spool, ahead: float
) -> None:
    def clock() -> float:
        return time.time() + ahead

    # Due for a minute: how long a statement took, the comparison of the clocks leaves open.
    id = await spool.put(TEXT, recipients=["a@x.test", "b@x.test"], not_before=time.time() - 60)
    async with PostgresSpool(postgres.url(), schema=schema_of(spool), clock=clock) as other:
        [lease] = await other.claim(now=clock())
        due = lease.entry.not_before
        part = PartialLease(lease, [0])
        assert part.others is OtherRoutes.UNTRIED
        await part.defer(receipt_for(part, LATER), due, counts=False)
        first = (await spool.get(id)).results[0]
        [lease] = await other.claim(now=clock())
        assert [tried_since_due(lease.entry, place) for place in (0, 1)] == [True, False]
        part = PartialLease(lease, [1])
        assert part.others is OtherRoutes.DEFERRED
        # Another route, tried again later, leaves the result of the first one as it is.
        await part.defer(receipt_for(part, LATER), clock() - 1.0)
        entry = await spool.get(id)
        assert first is not None and entry.results[0] is not None and entry.results[1] is not None
        assert entry.results[0].at == pytest.approx(first.at, abs=1e-3)
        assert entry.results[1].at == pytest.approx(time.time(), abs=30)


async def test_clocks_that_agree_leave_every_time_as_it_is(spool) -> None:
    await spool.put(TEXT)
    [lease] = await spool.claim()
    again = time.time() + 600.123456789
    await lease.defer(receipt_for(lease, LATER), again)
    assert (await spool.get(lease.entry.id)).not_before == again


def over(postgres: Postgres, spool: PostgresSpool) -> bool:
    """Return whether the lease of the only job is over."""
    sql = f"select lease_until < extract(epoch from clock_timestamp()) from {schema_of(spool)}.jobs"
    return bool(execute(postgres, sql)[0][0])


STOPPED = """
import asyncio, sys
from smtp_async import PostgresSpool
from smtp_async.errors import LeaseLost
from smtp_async.testing.contracts import QUEUED, receipt_for

async def main(url, schema):
    async with PostgresSpool(url, schema=schema, lease=1.0) as spool:
        [lease] = await spool.claim()
        await lease.extend()
        print("claimed", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        for call in (lease.mark_end_of_data, lambda: lease.settle(receipt_for(lease, QUEUED)), lease.release):
            try:
                await call()
            except LeaseLost:
                print("lost", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_worker_that_was_stopped_beyond_its_lease_sends_and_settles_nothing(
    postgres: Postgres, spool
) -> None:
    id = await spool.put(TEXT)
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STOPPED, postgres.url(), schema_of(spool)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert worker.stdout is not None
    assert await worker.stdout.readline() == b"claimed\n"
    os.kill(worker.pid, signal.SIGSTOP)
    await eventually(lambda: over(postgres, spool))
    found = await spool.recover()
    assert (found.requeued, found.flagged) == ((id,), ())
    [lease] = await spool.claim()
    await lease.mark_end_of_data()
    os.kill(worker.pid, signal.SIGCONT)
    told, _ = await worker.communicate(b"go on\n")
    assert told == b"lost\n" * 3
    await lease.settle(receipt_for(lease, QUEUED))
    assert await spool.claim() == []


async def test_claims_marks_and_ends_share_statements(postgres: Postgres, spool) -> None:
    await asyncio.gather(*(spool.put(TEXT) for _ in range(60)))

    def transactions() -> int:
        return execute(postgres, f"select count(distinct xmin::text) from {schema_of(spool)}.jobs")[0][0]

    leases = await spool.claim(60)
    assert len(leases) == 60 and transactions() == 1
    await asyncio.gather(*(lease.mark_end_of_data() for lease in leases))
    assert transactions() <= 2
    await asyncio.gather(*(lease.settle(receipt_for(lease, QUEUED), keep=True) for lease in leases))
    assert transactions() <= 2
    assert (await spool.statistics()).sent == 60


class LateClaim(Delegate):
    """A connection that is lost at the first claim, which the server has not begun by then."""

    def __init__(self, wrapped: Any, late: list[Any]) -> None:
        super().__init__(wrapped)
        self.late = late

    async def fetch(self, sql: str, *values: Any) -> Any:
        if "skip locked" in sql and not self.late:
            self.late += [sql, *values]
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return await self.wrapped.fetch(sql, *values)


@pytest.mark.parametrize("closed", [False, True])
async def test_jobs_of_a_claim_that_takes_effect_after_its_connection_was_lost_are_queued_unflagged(
    postgres: Postgres, spool, closed: bool
) -> None:
    ids = {await spool.put(TEXT) for _ in range(3)}
    late: list[Any] = []
    async with asyncpg.create_pool(postgres.url(), min_size=0) as pool:
        replaced = partial(LateClaim, late=late)
        replacing: Any = ReplacingPool(pool, replaced, replaced)
        async with PostgresSpool(replacing, schema=schema_of(spool)) as losing:
            with pytest.raises(SpoolError, match="cannot be reached"):
                await losing.claim(1, marked=True)
            [first] = await losing.claim(1)
            assert len(await pool.fetch(*late)) == 1
            if not closed:
                found = [first, *await losing.claim(5)]
                assert {lease.entry.id for lease in found} == ids
                assert not [lease for lease in found if lease.entry.flagged]
    left = [entry async for entry in spool.list(State.QUEUED)]
    assert len(left) == 3 and not [entry for entry in left if entry.flagged]


async def test_heartbeats_keep_a_lease(postgres: Postgres, spool) -> None:
    await spool.put(TEXT)
    [lease] = await spool.claim()
    until = f"select lease_until - extract(epoch from now()) from {schema_of(spool)}.jobs"
    execute(postgres, f"update {schema_of(spool)}.jobs set lease_until = extract(epoch from now()) + 5")
    await lease.extend()
    assert execute(postgres, until)[0][0] > 800


async def test_many_dead_workers_are_recovered_at_once(postgres: Postgres, spool) -> None:
    await asyncio.gather(*(spool.put(TEXT) for _ in range(1100)))
    leases = await spool.claim(1100)
    execute(postgres, f"update {schema_of(spool)}.jobs set lease_until = 0")
    assert len((await spool.recover()).requeued) == 1100
    with pytest.raises(LeaseLost):
        await leases[0].mark_end_of_data()


async def test_two_processes_recover_each_job_once(postgres: Postgres, spool) -> None:
    for _ in range(20):
        await spool.put(TEXT)
    for lease in await spool.claim(20):
        expire(postgres, spool, lease)
    async with PostgresSpool(postgres.url(), schema=schema_of(spool)) as other:
        found = await asyncio.gather(spool.recover(), other.recover())
    assert sum(len(one.requeued) for one in found) == 20


async def test_jobs_are_claimed_although_a_row_that_is_none_cannot_be_set_aside(
    postgres: Postgres, spool
) -> None:
    bad, good = await spool.put(TEXT), await spool.put(TEXT)
    jobs = f"{schema_of(spool)}.jobs"
    execute(postgres, f"update {jobs} set header = '{{}}' where id = %s", bad)
    execute(postgres, f"alter table {jobs} add constraint no_failures check (state <> 'failed')")
    [lease] = await spool.claim(5)
    assert lease.entry.id == good and not spool.unreadable()
    await lease.settle(receipt_for(lease, QUEUED))
    execute(postgres, f"alter table {jobs} drop constraint no_failures")
    execute(postgres, f"update {jobs} set lease_until = 0")
    assert (await spool.recover()).requeued == (bad,)
    assert await spool.claim(5) == []
    assert [one.id for one in spool.unreadable()] == [bad]
