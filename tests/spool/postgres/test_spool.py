"""spool.py: arguments, opening and closing, waiting, cancelled callers, large messages."""

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest

from smtp_async.errors import InvalidArgument, LeaseLost, NoSuchJob, SpoolError, UsageError
from smtp_async.sources import read_all
from smtp_async.spool.contract import Lease
from smtp_async.spool.entry import State
from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.testing.contracts import LATER, QUEUED, TEXT, receipt_for
from smtp_async.testing.faults import CancelManner, CancelMoment, cancellations
from tests.lab import every_loop
from tests.servers.postgres import PgBouncer, Postgres
from tests.spool.postgres.databases import eventually, execute, new_spool, schema_of

URL = "postgresql://ann:canary@db.example.com/mail"
EVERY = [(manner, moment) for manner in CancelManner for moment in CancelMoment]


@pytest.fixture
async def spool(postgres: Postgres):
    async with await new_spool(postgres) as spool:
        yield spool


async def ids(spool: PostgresSpool) -> set[str]:
    return {entry.id async for entry in spool.list()}


# --- arguments ---


@pytest.mark.parametrize(
    "options",
    [
        {"source": "mysql://db/mail"},
        {"source": 7},
        {"schema": "no-schema"},
        {"lease": 0},
        {"poll": "1"},
        {"timeout": float("nan")},
        {"key_retention": -1},
    ],
    ids=str,
)
def test_invalid_arguments_are_refused(options: dict[str, Any]) -> None:
    source = options.pop("source", URL)
    with pytest.raises(InvalidArgument):
        PostgresSpool(source, **options)


async def test_the_password_is_not_shown() -> None:
    spool = PostgresSpool(URL.replace("db.example.com", "127.0.0.1:1"), timeout=5.0)
    assert repr(spool) == "<PostgresSpool 127.0.0.1:1/mail schema smtp_async>"
    with pytest.raises(SpoolError) as caught:
        await spool.put(TEXT)
    assert "canary" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
    await spool.close()
    assert repr(spool).endswith("smtp_async: closed>")


def test_the_driver_is_an_extra() -> None:
    program = (
        "import sys; sys.modules['asyncpg'] = None\n"
        "from smtp_async import PostgresSpool, errors\n"
        "try: PostgresSpool('postgresql://db/mail')\n"
        "except errors.FeatureUnavailable as error: print(error.needs)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "smtp-async[postgres]" in done.stdout


# --- opening and closing ---


@pytest.mark.server
@every_loop
async def test_nothing_is_left_open(postgres: Postgres, no_leaks: None) -> None:
    async with await new_spool(postgres) as spool:
        await spool.put(TEXT)
        [lease] = await spool.claim()
        await lease.settle(receipt_for(lease, QUEUED))
        assert not await spool.wait(0.05)


@pytest.mark.server
def test_another_event_loop_needs_its_own(postgres: Postgres) -> None:
    spool = PostgresSpool(postgres.url())

    async def open_and_close() -> None:
        await spool.create_schema()

    asyncio.run(open_and_close())
    for call in (spool.claim, spool.recover, lambda: spool.put(TEXT), lambda: spool.wait(1)):
        with pytest.raises(UsageError, match="event loop"):
            asyncio.run(call())


@pytest.mark.server
@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
async def test_a_forked_child_makes_its_own(spool: PostgresSpool) -> None:
    await spool.put(TEXT)
    pid = os.fork()
    if not pid:
        try:
            asyncio.set_event_loop(None)
            spool.claim(1).send(None)
        except UsageError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) == 7
    assert len(await spool.claim()) == 1


@pytest.mark.server
async def test_marked_jobs_stay_flagged_when_the_spool_is_closed(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        first, second = await spool.put(TEXT), await spool.put(TEXT)
        for lease in await spool.claim(2):
            if lease.entry.id == first:
                await lease.mark_end_of_data()
        schema = schema_of(spool)
    async with PostgresSpool(postgres.url(), schema=schema) as spool:
        assert (await spool.get(first)).flagged and not (await spool.get(second)).flagged
        assert len(await spool.claim(5)) == 2


# --- waiting ---


@pytest.mark.server
async def test_another_process_is_told_of_a_new_job(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        async with PostgresSpool(postgres.url(), schema=schema_of(spool), poll=60.0) as other:
            waiting = asyncio.ensure_future(other.wait(60))
            listening = "select count(*) from pg_stat_activity where query like %s"
            await eventually(lambda: execute(postgres, listening, f"LISTEN%{schema_of(spool)}%")[0][0])
            await spool.put(TEXT)
            async with asyncio.timeout(10):
                assert await waiting


@pytest.mark.server
async def test_jobs_of_another_process_are_found_without_being_told(
    postgres: Postgres, pgbouncer: PgBouncer
) -> None:
    async with await new_spool(postgres) as spool:
        url, schema = postgres.url(port=pgbouncer.port), schema_of(spool)
        async with PostgresSpool(url, schema=schema, poll=0.1, pooler=True) as other:
            waiting = asyncio.ensure_future(other.wait(60))
            await spool.put(TEXT)
            async with asyncio.timeout(10):
                assert await waiting


# --- cancelled callers ---


@pytest.mark.server
@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize(("manner", "moment"), EVERY)
async def test_a_cancelled_put_returns_its_id_or_leaves_nothing(
    spool: PostgresSpool, manner, moment, key
) -> None:
    returned = cancelled = 0
    async for run in cancellations(lambda: spool.put(TEXT, key=key), manner=manner, moment=moment):
        if run.cancelled:
            cancelled += 1
            assert await ids(spool) == set(), f"cancelled at await {run.at}"
        else:
            returned += 1
            assert await ids(spool) == {run.result}
            await spool.remove(run.result)
            spool.key_retention = 0.0
    # One with a key stays if its statement was sent.
    assert returned and (cancelled or key)
    assert await spool.claim() == []


@pytest.mark.server
@pytest.mark.parametrize(("manner", "moment"), EVERY)
async def test_a_cancelled_put_with_a_known_key_removes_nothing(spool: PostgresSpool, manner, moment) -> None:
    id = await spool.put(TEXT, key="k")
    async for _ in cancellations(lambda: spool.put(TEXT, key="k"), manner=manner, moment=moment):
        assert await ids(spool) == {id}


@pytest.mark.server
@pytest.mark.parametrize(("manner", "moment"), EVERY)
async def test_jobs_of_a_cancelled_claim_are_released(spool: PostgresSpool, manner, moment) -> None:
    id = await spool.put(TEXT)
    async for run in cancellations(lambda: spool.claim(5), manner=manner, moment=moment):
        leases = run.result if not run.cancelled else await spool.claim(5)
        [lease] = leases
        assert (lease.entry.id, lease.entry.attempts, lease.entry.flagged) == (id, 0, False)
        await lease.release()


@pytest.mark.server
@pytest.mark.parametrize("end", ["settle", "keep", "defer", "fail", "release", "mark_end_of_data", "extend"])
@pytest.mark.parametrize(("manner", "moment"), EVERY)
async def test_an_end_is_stored_although_its_caller_is_cancelled(
    spool: PostgresSpool, manner, moment, end: str
) -> None:
    async def once() -> Lease:
        await spool.put(TEXT)
        [lease] = await spool.claim()
        return lease

    async def scenario() -> None:
        receipt = receipt_for(lease, LATER if end == "defer" else QUEUED)
        if end in ("settle", "keep"):
            await lease.settle(receipt, keep=end == "keep")
        elif end == "defer":
            await lease.defer(receipt, 5.0)
        elif end == "fail":
            await lease.fail(receipt)
        else:
            await getattr(lease, end)()

    lease = await once()
    async for run in cancellations(scenario, manner=manner, moment=moment):
        id = lease.entry.id
        if end == "settle":
            with pytest.raises(NoSuchJob):
                await spool.get(id)
        elif end in ("mark_end_of_data", "extend"):
            assert (await spool.get(id)).flagged or run.cancelled or end == "extend"
            await lease.release()
            await spool.remove(id)
        else:
            wanted = {"keep": State.SENT, "fail": State.FAILED}.get(end, State.QUEUED)
            entry = await spool.get(id)
            assert (entry.state, entry.attempts) == (wanted, int(end != "release"))
            await spool.remove(id)
        lease = await once()


@pytest.mark.server
@pytest.mark.parametrize(
    "call", ["hold", "release", "requeue", "remove", "get", "read", "recover", "statistics"]
)
async def test_a_cancelled_command_has_happened_or_has_not(spool: PostgresSpool, call: str) -> None:
    id = await spool.put(TEXT)

    async def command() -> None:
        await (getattr(spool, call)() if call in ("recover", "statistics") else getattr(spool, call)(id))

    async for _ in cancellations(command):
        if call == "remove" and not await ids(spool):
            id = await spool.put(TEXT)
        assert await ids(spool) == {id}


# --- large messages ---


@pytest.mark.server
async def test_a_large_message_is_read_in_slices_and_again(spool: PostgresSpool) -> None:
    body = TEXT + b"".join(b"%070d\r\n" % n for n in range(30_000))
    id = await spool.put(body)
    assert await spool.read(id) == body
    [lease] = await spool.claim()
    content = lease.mail().content()
    assert content.size == len(body) and len(content.sources) == 1
    for _ in range(2):
        assert await read_all(content) == body
    await lease.settle(receipt_for(lease, QUEUED))
    with pytest.raises(LeaseLost):
        await read_all(content)


@pytest.mark.server
async def test_a_list_has_pages(postgres: Postgres, spool: PostgresSpool) -> None:
    await asyncio.gather(*(spool.put(TEXT) for _ in range(1200)))
    leases = await spool.claim(600)
    await asyncio.gather(*(lease.fail(None) for lease in leases))
    # What was put at once shares a statement, and its time.
    execute(postgres, f"update {schema_of(spool)}.jobs set created = created + random()")
    assert len(await ids(spool)) == 1200
    assert len([entry async for entry in spool.list(State.FAILED)]) == 600
    assert len([entry async for entry in spool.list(State.QUEUED)]) == 600
    assert (await spool.statistics())[:4] == (600, 0, 0, 600)


@pytest.mark.server
async def test_a_row_that_is_no_job_does_not_stop_the_others(
    postgres: Postgres, spool: PostgresSpool
) -> None:
    bad, good = await spool.put(TEXT), await spool.put(TEXT)
    execute(postgres, f"update {schema_of(spool)}.jobs set header = '{{}}' where id = %s", bad)
    [lease] = await spool.claim(5)
    assert lease.entry.id == good
    [found] = spool.unreadable()
    assert (found.id, found.kept) == (bad, False)
    assert not spool.unreadable()
    assert await spool.claim(5) == [] and await ids(spool) == {good}
    assert (await spool.statistics()).failed == 1


@pytest.mark.server
async def test_who_holds_leases(spool: PostgresSpool) -> None:
    for _ in range(3):
        await spool.put(TEXT)
    assert await spool.holders() == []
    await spool.claim(2)
    [holder] = await spool.holders()
    assert holder.leases == 2 and f":{os.getpid()}:" in holder.name
    assert holder.left is not None and 800 < holder.left <= 900


@pytest.mark.server
async def test_rows_that_an_operator_deletes_leave_their_keys(
    postgres: Postgres, spool: PostgresSpool
) -> None:
    id = await spool.put(TEXT, key="k")
    execute(postgres, f"delete from {schema_of(spool)}.jobs")
    assert await spool.put(TEXT, key="k") == id
    assert await ids(spool) == set()
    spool.key_retention = 0.0
    await spool.recover()
    assert execute(postgres, f"select count(*) from {schema_of(spool)}.keys") == [(0,)]


@pytest.mark.server
async def test_many_workers_share_the_jobs(postgres: Postgres, spool: PostgresSpool) -> None:
    await asyncio.gather(*(spool.put(TEXT, key=f"{n % 50}") for n in range(100)))
    others = [PostgresSpool(postgres.url(), schema=schema_of(spool)) for _ in range(4)]
    claimed = await asyncio.gather(*(other.claim(20) for other in others))
    found = [lease.entry.id for leases in claimed for lease in leases]
    assert len(found) == len(set(found)) == 50
    for other in others:
        await other.close()
    assert (await spool.statistics()).queued == 50


async def test_a_closed_spool_says_so() -> None:
    spool = PostgresSpool(URL)
    await spool.close()
    for call in (lambda: spool.create_schema(), lambda: spool.holders(), lambda: spool.wait(1)):
        with pytest.raises(UsageError, match="closed"):
            await call()
    with pytest.raises(UsageError, match="running"):
        spool.put_blocking(TEXT, connection=None)
