"""admin.py: commands of operators, and what refuses them."""

import pytest

from smtp_async.errors import Busy, NoSuchJob, RecordInvalid, UsageError
from smtp_async.spool.entry import State
from smtp_async.testing.contracts import NEVER, QUEUED, TEXT, receipt_for
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import execute, new_spool, schema_of

pytestmark = pytest.mark.server


@pytest.fixture
async def spool(postgres: Postgres):
    async with await new_spool(postgres) as spool:
        yield spool


async def test_a_refusal_says_in_which_state_the_job_is(spool) -> None:
    id = await spool.put(TEXT)
    [lease] = await spool.claim()
    with pytest.raises(Busy, match="is being sent"):
        await spool.remove(id)
    await lease.fail(receipt_for(lease, NEVER))
    with pytest.raises(UsageError, match="is not queued but failed"):
        await spool.hold(id)
    await spool.remove(id)
    with pytest.raises(NoSuchJob, match=id):
        await spool.hold(id)


async def test_a_requeued_job_is_as_if_it_were_new(spool) -> None:
    id = await spool.put(TEXT, recipients=["a@example.org", "b@example.org"])
    [lease] = await spool.claim()
    await lease.fail(receipt_for(lease, QUEUED, NEVER), reason="no")
    await spool.requeue(id, not_before=5.0, expires=9e9)
    entry = await spool.get(id)
    assert (entry.state, entry.not_before, entry.expires) == (State.QUEUED, 5.0, 9e9)
    assert (entry.attempts, entry.confirmed, len(entry.pending)) == (0, True, 1)


async def test_a_message_that_was_changed_is_not_returned(postgres: Postgres, spool) -> None:
    id = await spool.put(TEXT)
    execute(postgres, f"update {schema_of(spool)}.jobs set body = 'changed' where id = %s", id)
    with pytest.raises(RecordInvalid, match="digest"):
        await spool.read(id)
    [lease] = await spool.claim()
    with pytest.raises(RecordInvalid, match="cannot be sent any more"):
        lease.mail()


async def test_statistics_tell_the_oldest_and_the_next(spool) -> None:
    held, later = await spool.put(TEXT), await spool.put(TEXT, not_before=9e9)
    await spool.hold(held)
    found = await spool.statistics()
    assert (found.queued, found.held, found.next_due) == (2, 1, 9e9)
    assert found.oldest == (await spool.get(held)).created < (await spool.get(later)).created
