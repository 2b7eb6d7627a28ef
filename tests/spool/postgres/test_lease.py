"""lease.py: marks and ends that fail and are repeated, and what a lease shows."""

import pytest

from smtp_async import QueueProcessor, Security, SMTPClient
from smtp_async.errors import LeaseLost, RecordInvalid, SpoolError
from smtp_async.spool.entry import State
from smtp_async.testing import RecordingSink
from smtp_async.testing.contracts import LATER, QUEUED, TEXT, receipt_for
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import execute, expire, new_spool, schema_of

pytestmark = pytest.mark.server


@pytest.fixture
async def spool(postgres: Postgres):
    async with await new_spool(postgres) as spool:
        yield spool


async def test_a_lease_tells_its_state(spool) -> None:
    id = await spool.put(TEXT)
    [lease] = await spool.claim()
    assert repr(lease) == f"<PostgresLease {id} attempt 1: held>"
    await lease.release()
    assert repr(lease) == f"<PostgresLease {id} attempt 1: ended>"


async def test_an_end_that_failed_is_repeated_as_it_was(postgres: Postgres, spool) -> None:
    id = await spool.put(TEXT)
    [lease] = await spool.claim()
    await lease.mark_end_of_data()
    jobs, hidden = f"{schema_of(spool)}.jobs", f"{schema_of(spool)}.hidden"
    execute(postgres, f"alter table {jobs} rename to hidden")
    with pytest.raises(SpoolError, match="queue init"):
        await lease.defer(receipt_for(lease, LATER), 7.0)
    execute(postgres, f"alter table {hidden} rename to jobs")
    # The outcome that was to be stored first is the one that is stored.
    await lease.settle(receipt_for(lease, QUEUED))
    entry = await spool.get(id)
    assert (entry.not_before, entry.attempts) == (7.0, 1)
    with pytest.raises(LeaseLost):
        await lease.settle(receipt_for(lease, QUEUED))


async def test_a_lease_that_is_over_still_holds_until_another_worker_has_the_job(
    postgres: Postgres, spool
) -> None:
    await spool.put(TEXT)
    [lease] = await spool.claim()
    expire(postgres, spool, lease)
    await lease.mark_end_of_data()
    # The mark was a sign of life.
    assert (await spool.recover()).requeued == ()
    expire(postgres, spool, lease)
    assert len((await spool.recover()).flagged) == 1
    for call in (lease.extend, lambda: lease.settle(None), lease.release):
        with pytest.raises(LeaseLost):
            await call()


async def test_a_lease_that_was_found_lost_has_ended_and_gives_its_message_no_more(
    postgres: Postgres, spool
) -> None:
    id = await spool.put(TEXT)
    [lease] = await spool.claim()
    expire(postgres, spool, lease)
    await spool.recover()
    with pytest.raises(LeaseLost):
        await lease.extend()
    assert repr(lease) == f"<PostgresLease {id} attempt 1: ended>"
    with pytest.raises(LeaseLost):
        lease.mail()


async def test_a_mark_is_written_once(postgres: Postgres, spool) -> None:
    await spool.put(TEXT)
    [lease] = await spool.claim(marked=True)
    execute(postgres, f"update {schema_of(spool)}.jobs set marked = false")
    await lease.mark_end_of_data()
    assert execute(postgres, f"select marked from {schema_of(spool)}.jobs") == [(False,)]


async def test_a_reason_of_any_characters_is_stored(spool) -> None:
    id = await spool.put(TEXT)
    [lease] = await spool.claim()
    await lease.defer(None, 0.0, reason="a\0b\ud800\nc" + "x" * 600)
    reason = (await spool.get(id)).reason
    assert reason.startswith("a\\x00b\\ud800\\nc") and len(reason) <= 512


@pytest.mark.parametrize(
    "damage", ["overlay(body placing 'y' from 70000)", "substring(body for 70000)", "''"]
)
async def test_a_large_message_that_was_damaged_is_not_sent_whole_and_fails(
    postgres: Postgres, spool, damage: str
) -> None:
    body = TEXT + b"x" * 70 + b"\r\n" + (b"x" * 70 + b"\r\n") * 2000
    id = await spool.put(body)
    execute(postgres, f"update {schema_of(spool)}.jobs set body = {damage}")
    [lease] = await spool.claim()
    read = b""
    with pytest.raises(RecordInvalid, match="digest"):
        async for data in lease.mail().content().sources[0].origin:
            read += data
    assert len(read) < len(body)
    async with (
        RecordingSink() as sink,
        SMTPClient(sink.host, sink.port, security=Security.PLAINTEXT) as client,
    ):
        await lease.release()
        report = await QueueProcessor(spool, client).run_once()
        assert sink.messages == []
        assert [one.id for one in report.failed] == [id] and "digest" in report.failed[0].reason
        entry = await spool.get(id)
        assert entry.state is State.FAILED and "digest" in entry.reason
