"""outbox.py: mail that is queued in the transaction of the caller, with each driver, as the manual shows it."""

import ast
import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import django
import psycopg
import pytest
from django.apps import apps
from django.conf import settings
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from smtp_async.errors import InvalidArgument, UsageError
from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.testing.contracts import TEXT
from smtp_async.testing.faults import cancellations
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import execute, new_spool, schema_of

pytestmark = pytest.mark.server

PAGE = Path(__file__).parents[3] / "docs/how-to/outbox.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


class Undone(Exception):
    """Rolls a transaction back."""


# --- drivers ---


@asynccontextmanager
async def with_asyncpg(postgres: Postgres) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres.url())
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def with_a_pool(postgres: Postgres) -> AsyncIterator[Any]:
    async with (
        asyncpg.create_pool(postgres.url(), min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        yield connection


@asynccontextmanager
async def with_psycopg(postgres: Postgres) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(postgres.url()) as connection:
        yield connection


@asynccontextmanager
async def with_a_session(postgres: Postgres) -> AsyncIterator[Any]:
    engine = create_async_engine(postgres.url().replace("postgresql", "postgresql+asyncpg", 1))
    try:
        async with AsyncSession(engine) as session, session.begin():
            yield session
    finally:
        await engine.dispose()


@asynccontextmanager
async def with_a_connection_of_sqlalchemy(postgres: Postgres) -> AsyncIterator[Any]:
    engine = create_async_engine(postgres.url().replace("postgresql", "postgresql+psycopg", 1))
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


@contextmanager
def blocking_psycopg(postgres: Postgres) -> Iterator[Any]:
    with psycopg.connect(postgres.url()) as connection:
        yield connection


@contextmanager
def blocking_session(postgres: Postgres) -> Iterator[Any]:
    engine = create_engine(postgres.url().replace("postgresql", "postgresql+psycopg", 1))
    try:
        with Session(engine) as session, session.begin():
            yield session
    finally:
        engine.dispose()


@contextmanager
def blocking_django(postgres: Postgres) -> Iterator[Any]:
    with django_of(postgres, "postgres") as connection:
        from django.db import transaction

        with transaction.atomic():
            yield connection


@contextmanager
def django_of(postgres: Postgres, database: str) -> Iterator[Any]:
    """Django's connection, to this database."""
    engine = "django.db.backends.postgresql"
    values = {
        "ENGINE": engine,
        "NAME": database,
        "HOST": postgres.host,
        "PORT": postgres.port,
        "USER": postgres.user,
    }
    from django.db import connection, connections

    # Other tests of this process may have configured Django already, without a database.
    if not settings.configured:
        settings.configure(USE_TZ=True)
    if not apps.ready:
        django.setup()
    before = connections.settings
    connections.settings = connections.configure_settings({"default": values})
    connections["default"] = connections.create_connection("default")
    try:
        yield connection
    finally:
        connection.close()
        del connections["default"]
        connections.settings = before


ASYNCHRONOUS = [with_asyncpg, with_a_pool, with_psycopg, with_a_session, with_a_connection_of_sqlalchemy]
BLOCKING = [blocking_psycopg, blocking_session, blocking_django]


# --- one transaction ---


@pytest.mark.parametrize("driver", ASYNCHRONOUS, ids=lambda driver: driver.__name__)
async def test_a_message_is_queued_when_the_caller_commits(postgres: Postgres, driver: Any) -> None:
    async with await new_spool(postgres) as spool:
        async with driver(postgres) as connection:
            id = await spool.put(TEXT, connection=connection, expires=9e9)
            await spool.put(TEXT, connection=connection, key="k")
            assert (await spool.statistics()).queued == 0
        assert (await spool.statistics()).queued == 2
        assert await spool.put(TEXT, key="k") == await spool.put(TEXT, key="k")
        assert ((await spool.get(id)).expires, await spool.read(id)) == (9e9, TEXT)
        assert len(await spool.claim(5)) == 2


@pytest.mark.parametrize("driver", ASYNCHRONOUS, ids=lambda driver: driver.__name__)
async def test_a_message_is_never_sent_if_the_caller_rolls_back(postgres: Postgres, driver: Any) -> None:
    async with await new_spool(postgres) as spool:
        with pytest.raises(Undone):
            async with driver(postgres) as connection:
                await spool.put(TEXT, connection=connection, key="k")
                raise Undone
        assert (await spool.statistics()).queued == 0
        await spool.put(TEXT, key="k")
        assert (await spool.statistics()).queued == 1


@pytest.fixture
def schema(postgres: Postgres) -> str:
    """The schema of a spool, made without an event loop."""

    async def make() -> str:
        async with await new_spool(postgres) as spool:
            return schema_of(spool)

    return asyncio.run(make())


@pytest.mark.parametrize("driver", BLOCKING, ids=lambda driver: driver.__name__)
def test_a_caller_without_an_event_loop(postgres: Postgres, schema: str, driver: Any) -> None:
    spool = PostgresSpool(postgres.url(), schema=schema)
    count = f"select count(*) from {schema}.jobs"
    with pytest.raises(Undone), driver(postgres) as connection:
        spool.put_blocking(TEXT, connection=connection, key="k")
        raise Undone
    assert execute(postgres, count) == [(0,)]
    with driver(postgres) as connection:
        first = spool.put_blocking(TEXT, connection=connection, key="k")
        assert spool.put_blocking(TEXT, connection=connection, key="k") == first
        spool.put_blocking(TEXT, connection=connection)
        assert execute(postgres, count) == [(0,)]
    assert execute(postgres, count) == [(2,)]


async def test_a_connection_of_the_wrong_kind_is_refused(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        with pytest.raises(InvalidArgument, match="builtins.object"):
            await spool.put(TEXT, connection=object())
        with blocking_psycopg(postgres) as connection, pytest.raises(UsageError, match="put_blocking"):
            await spool.put(TEXT, connection=connection)


@pytest.mark.parametrize("driver", [with_asyncpg, with_psycopg], ids=lambda driver: driver.__name__)
def test_an_asynchronous_connection_is_refused_without_an_event_loop(
    postgres: Postgres, schema: str, driver: Any
) -> None:

    kept: list[Any] = []

    async def connect() -> None:
        async with driver(postgres) as connection:
            kept.append(connection)

    asyncio.run(connect())
    with pytest.raises(UsageError, match=r"put\(\)"):
        PostgresSpool(postgres.url(), schema=schema).put_blocking(TEXT, connection=kept[0])


async def test_a_cancelled_put_leaves_the_transaction_to_the_caller(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:

        async def scenario() -> None:
            async with with_asyncpg(postgres) as connection:
                await spool.put(TEXT, connection=connection)

        async for run in cancellations(scenario):
            queued = (await spool.statistics()).queued
            assert queued <= 1 and (queued or run.cancelled)
            for lease in await spool.claim(5):
                await lease.settle(None)


# --- the manual ---


@pytest.fixture(scope="module")
def shop(postgres: Postgres) -> str:
    """The database of the manual."""
    execute(postgres, "create database shop")
    with psycopg.connect(postgres.url("shop"), autocommit=True) as connection:
        connection.execute("create table orders (customer text)")
    return postgres.url("shop")


@pytest.mark.parametrize("program", PROGRAMS, ids=[f"program{n}" for n in range(1, len(PROGRAMS) + 1)])
async def test_the_programs_of_the_manual_run(postgres: Postgres, shop: str, program: str) -> None:

    async with PostgresSpool(shop) as spool:
        await spool.create_schema()
        with psycopg.connect(shop, autocommit=True) as connection:
            connection.execute("truncate orders, smtp_async.jobs")
        host = shop.partition("://")[2]
        source = program.replace("app@db.example.com/shop", host)
        code = compile(source, "<manual>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, {})
        else:
            await asyncio.to_thread(run_blocking, postgres, code)
        with psycopg.connect(shop, autocommit=True) as connection:
            assert connection.execute("select customer from orders").fetchall() == [("bob@example.org",)]
        [lease] = await spool.claim(5)
        assert [str(one.address) for one in lease.entry.pending] == ["bob@example.org"]


def run_blocking(postgres: Postgres, code: Any) -> None:
    with django_of(postgres, "shop"):
        exec(code, {})
