"""schema.py: tables that are created, brought to a later version, refused, and the privileges for them."""

import asyncpg
import pytest

from smtp_async.errors import InvalidArgument, SpoolUnsafe
from smtp_async.spool.postgres.schema import (
    MIGRATIONS,
    VERSION,
    checked_schema,
    create_schema,
    demand_version,
    privileges,
)
from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.testing.contracts import QUEUED, TEXT, receipt_for
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import execute, new_schema, schema_of


@pytest.mark.parametrize("name", ["", "Upper", "1a", "a b", 'a"b', "a;b", "a" * 49, "é", None])
def test_a_name_that_needs_quotes_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="lower-case"):
        checked_schema(name)
    with pytest.raises(InvalidArgument, match="lower-case"):
        privileges("smtp_async", name)


@pytest.mark.parametrize(
    ("found", "says"), [(None, "queue init"), (0, "queue init"), (VERSION + 1, "upgrade")]
)
def test_another_version_is_refused(found: int | None, says: str) -> None:
    with pytest.raises(SpoolUnsafe, match=says):
        demand_version(found, "smtp_async")
    demand_version(VERSION, "smtp_async")


@pytest.mark.server
async def test_tables_are_created_once(postgres: Postgres) -> None:
    async with PostgresSpool(postgres.url(), schema=new_schema()) as spool:
        assert await spool.create_schema() == (0, VERSION)
        id = await spool.put(TEXT)
        assert await spool.create_schema() == (VERSION, VERSION)
        assert await spool.read(id) == TEXT


@pytest.mark.server
async def test_tables_of_an_earlier_version_are_brought_to_a_later_one(postgres: Postgres) -> None:
    schema = new_schema()
    connection = await asyncpg.connect(postgres.url())
    try:
        later = (
            *MIGRATIONS,
            "alter table {schema}.jobs add column more text; create index on {schema}.jobs (more)",
        )
        assert await create_schema(connection, schema) == (0, VERSION)
        assert await create_schema(connection, schema, later) == (VERSION, VERSION + 1)
        assert await connection.fetchval(f"select version from {schema}.version") == VERSION + 1
        assert await create_schema(connection, schema, later) == (VERSION + 1, VERSION + 1)
        with pytest.raises(SpoolUnsafe, match="upgrade"):
            await create_schema(connection, schema)
    finally:
        await connection.close()


@pytest.mark.server
async def test_a_migration_that_fails_changes_nothing(postgres: Postgres) -> None:
    schema = new_schema()
    connection = await asyncpg.connect(postgres.url())
    try:
        with pytest.raises(asyncpg.PostgresError):
            await create_schema(
                connection, schema, (*MIGRATIONS, "alter table {schema}.nothing add column a text")
            )
        assert await connection.fetchval("select to_regnamespace($1)", schema) is None
    finally:
        await connection.close()


def new_role(postgres: Postgres, grants: str, schema: str) -> str:
    role = f"role_{schema}"
    execute(postgres, f"create role {role} login password '{postgres.password}'")
    if grants:
        execute(postgres, grants.replace("ROLE", role))
    return role


@pytest.mark.server
async def test_the_privileges_of_a_producer_suffice_to_put(postgres: Postgres) -> None:
    async with PostgresSpool(postgres.url(), schema=new_schema()) as spool:
        await spool.create_schema()
        schema = schema_of(spool)
        role = new_role(
            postgres, privileges(schema, "ROLE".lower(), put_only=True).replace("role;", "ROLE;"), schema
        )
        async with PostgresSpool(postgres.url(user=role), schema=schema) as limited:
            id = await limited.put(TEXT)
            assert await limited.put(TEXT, key="k") == await limited.put(TEXT, key="k")
            for call in (lambda: limited.claim(), lambda: limited.read(id), lambda: limited.remove(id)):
                with pytest.raises(SpoolUnsafe, match="privilege"):
                    await call()
        assert len(await spool.claim(5)) == 2


@pytest.mark.server
async def test_the_privileges_of_a_worker_suffice_for_everything_else(postgres: Postgres) -> None:
    async with PostgresSpool(postgres.url(), schema=new_schema()) as spool:
        await spool.create_schema()
        schema = schema_of(spool)
        role = new_role(postgres, privileges(schema, "ROLE".lower()).replace("role;", "ROLE;"), schema)
        async with PostgresSpool(postgres.url(user=role), schema=schema) as limited:
            for key in ("a", "b"):
                id = await limited.put(TEXT, key=key)
            await limited.hold(id)
            await limited.release(id)
            await limited.requeue(id)
            await limited.remove(id)
            [lease] = await limited.claim(marked=True)
            await lease.extend()
            await lease.settle(receipt_for(lease, QUEUED))
            await limited.recover()
            assert (await limited.statistics()).queued == 0
            with pytest.raises(SpoolUnsafe, match="privilege"):
                await PostgresSpool(postgres.url(user=role), schema="other_schema").create_schema()
