"""producer.py: puts that share a statement, and keys that meet in it."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from smtp_async.errors import SpoolError
from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.testing.contracts import QUEUED, TEXT, receipt_for
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import Delegate, ReplacingPool, execute, new_spool, schema_of

pytestmark = pytest.mark.server


async def test_many_puts_take_few_statements(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        await spool.put(TEXT)
        count = f"select count(distinct xmin::text) from {schema_of(spool)}.jobs"
        found = await asyncio.gather(*(spool.put(TEXT) for _ in range(300)))
        assert len(set(found)) == 300
        assert execute(postgres, count)[0][0] <= 8


async def test_puts_of_many_callers_have_two_connections_and_those_of_one_have_one(
    postgres: Postgres,
) -> None:
    async with await new_spool(postgres) as spool:
        schema = schema_of(spool)
    name = f"puts of {schema}"
    opened = f"select count(*) from pg_stat_activity where application_name = '{name}'"
    url = f"{postgres.url()}?application_name={name.replace(' ', '%20')}"
    async with PostgresSpool(url, schema=schema) as spool:
        for _ in range(5):
            await spool.put(TEXT)
        assert execute(postgres, opened) == [(1,)]
        await asyncio.gather(*(spool.put(TEXT) for _ in range(20)))
        assert execute(postgres, opened) == [(2,)]


async def test_the_same_key_at_the_same_time_is_one_job(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        others = [PostgresSpool(postgres.url(), schema=schema_of(spool)) for _ in range(4)]
        for round in range(5):
            calls = [one.put(TEXT, key=f"{round} {n % 3}") for one in others for n in range(9)]
            assert len(set(await asyncio.gather(*calls))) == 3
        assert (await spool.statistics()).queued == 15
        for one in others:
            await one.close()


async def test_a_key_that_is_put_while_its_job_is_settled_is_not_stored_again(postgres: Postgres) -> None:
    async with (
        await new_spool(postgres) as spool,
        PostgresSpool(postgres.url(), schema=schema_of(spool)) as other,
    ):
        for n in range(40):
            await spool.put(TEXT, key=str(n))
            [lease] = await spool.claim()
            await asyncio.gather(lease.settle(receipt_for(lease, QUEUED)), other.put(TEXT, key=str(n)))
        assert (await spool.statistics())[:4] == (0, 0, 0, 0)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same process", "another process"])
@pytest.mark.parametrize("pause", range(1, 6))
async def test_a_cancelled_put_keeps_the_job_that_another_caller_was_told_of(
    postgres: Postgres, pause: int, elsewhere: bool
) -> None:
    async with (
        await new_spool(postgres) as spool,
        PostgresSpool(postgres.url(), schema=schema_of(spool)) as other,
    ):
        await asyncio.gather(spool.put(TEXT, key="open"), other.put(TEXT, key="open"))
        first = asyncio.ensure_future(spool.put(TEXT, key="k"))
        second = asyncio.ensure_future((other if elsewhere else spool).put(TEXT, key="k"))
        # Far enough for both to have been sent, and not so far that one was answered.
        for _ in range(pause):
            await asyncio.sleep(0)
        first.cancel()
        id = await second
        await asyncio.gather(first, return_exceptions=True)
        assert (await spool.get(id)).key


async def test_a_message_that_postgres_refuses_does_not_spoil_the_spool(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        jobs = f"{schema_of(spool)}.jobs"
        execute(postgres, f"alter table {jobs} add constraint small check (size < 1000)")
        with pytest.raises(SpoolError, match="small"):
            await spool.put(TEXT + b"x" * 950 + b"\r\n")
        await spool.put(TEXT)
        assert (await spool.statistics()).queued == 1


class Deaf(Delegate):
    """A connection that is lost together with the answer to each message that was stored."""

    async def fetch(self, sql: str, *values: Any) -> Any:
        found = await self.wrapped.fetch(sql, *values)
        if "insert into" in sql:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return found


def unreachable(connection: Any) -> Any:
    connection.terminate()
    raise ConnectionRefusedError(111, "refused")


class Unprivileged(Delegate):
    """A connection that may read nothing."""

    async def fetch(self, sql: str, *values: Any) -> Any:
        raise asyncpg.InsufficientPrivilegeError("permission denied")


@pytest.mark.parametrize("then", [unreachable, Deaf, Unprivileged], ids=lambda then: then.__name__)
@pytest.mark.parametrize("key", [None, "k"])
async def test_whatever_fails_after_a_loss_leaves_open_whether_the_message_is_stored(
    postgres: Postgres, key: str | None, then: Callable[[Any], Any]
) -> None:
    async with await new_spool(postgres) as spool, asyncpg.create_pool(postgres.url(), min_size=0) as pool:
        replacing: Any = ReplacingPool(pool, Deaf, then)
        losing = PostgresSpool(replacing, schema=schema_of(spool))
        if key is None and then is Deaf:
            # The second connection finds the message.
            await losing.put(TEXT)
        else:
            with pytest.raises(SpoolError, match="may or may not") as caught:
                await losing.put(TEXT, key=key)
            assert type(caught.value) is SpoolError
        assert (await spool.statistics()).queued == 1
        await losing.close()


class Mute(Delegate):
    """A connection over which nothing can be notified."""

    async def execute(self, sql: str, *values: Any) -> Any:
        if "pg_notify" in sql:
            raise asyncpg.QueryCanceledError("canceling statement due to statement timeout")
        return await self.wrapped.execute(sql, *values)


@pytest.mark.parametrize("pooler", [False, True], ids=["direct", "pooler"])
async def test_a_message_is_stored_although_nobody_can_be_told(postgres: Postgres, pooler: bool) -> None:
    async with await new_spool(postgres) as spool, asyncpg.create_pool(postgres.url(), min_size=0) as pool:
        replacing: Any = ReplacingPool(pool, Mute, Mute)
        async with PostgresSpool(replacing, schema=schema_of(spool), pooler=pooler) as muted:
            id = await muted.put(TEXT)
            assert (await spool.get(id)).id == id


async def test_a_key_in_an_open_transaction_stops_only_the_puts_of_that_key(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.url())
    async with await new_spool(postgres) as spool:
        try:
            async with connection.transaction():
                id = await spool.put(TEXT, connection=connection, key="held")
                assert await connection.fetchval("show lock_timeout") == "0"
                blocked = asyncio.ensure_future(spool.put(TEXT, key="held"))
                others = [spool.put(TEXT, key=None if n % 2 else str(n)) for n in range(10)]
                assert len(set(await asyncio.gather(*others))) == 10
                with pytest.raises(SpoolError, match="still open") as caught:
                    await blocked
                assert caught.value.temporary
            assert await spool.put(TEXT, key="held") == id
            assert (await spool.statistics()).queued == 11
        finally:
            await connection.close()
