"""connections.py: what a database must be like, and one clear line if it is not."""

import dataclasses
import json
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument, SpoolError, SpoolUnsafe
from smtp_async.spool.postgres.connections import DatabaseConnections, SerialConnection, database_of
from smtp_async.spool.postgres.schema import VERSION
from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.testing.contracts import LATER, TEXT, receipt_for
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import execute, new_schema, new_spool, schema_of

pytestmark = pytest.mark.server


async def refusal(spool: PostgresSpool, kind: type[SpoolError] = SpoolUnsafe) -> str:
    """Return the text of the error of a put."""
    async with spool:
        with pytest.raises(SpoolError) as caught:
            await spool.put(TEXT)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value) and "canary" not in str(caught.value)
    return str(caught.value)


async def test_tables_that_are_missing(postgres: Postgres) -> None:
    assert "queue init" in await refusal(PostgresSpool(postgres.url(), schema=new_schema()))


async def test_a_table_that_is_missing(postgres: Postgres) -> None:
    spool = await new_spool(postgres)
    execute(postgres, f"drop table {schema_of(spool)}.jobs")
    assert "queue init" in await refusal(spool)


@pytest.mark.parametrize(("version", "says"), [(VERSION + 1, "upgrade"), (0, "queue init")])
async def test_tables_of_another_version(postgres: Postgres, version: int, says: str) -> None:
    spool = await new_spool(postgres)
    execute(postgres, f"update {schema_of(spool)}.version set version = %s", version)
    assert says in await refusal(spool)


async def test_a_wrong_password(postgres: Postgres) -> None:
    role = new_schema()
    execute(postgres, f"create role {role} login password 'other'")
    assert "password" in await refusal(PostgresSpool(postgres.url(user=role)))


async def test_a_missing_database(postgres: Postgres) -> None:
    assert "no such database" in await refusal(PostgresSpool(postgres.url("nothing")))


async def test_a_missing_privilege(postgres: Postgres) -> None:
    spool, role = await new_spool(postgres), new_schema()
    execute(postgres, f"create role {role} login password '{postgres.password}'")
    limited = PostgresSpool(postgres.url(user=role), schema=schema_of(spool))
    assert "privilege" in await refusal(limited)
    await spool.close()


@pytest.mark.parametrize(
    ("setting", "says", "kind"),
    [
        ("synchronous_commit = off", "synchronous_commit is off", SpoolUnsafe),
        ("default_transaction_read_only = on", "read-only", SpoolError),
    ],
)
async def test_a_setting_that_loses_mail(
    postgres: Postgres, setting: str, says: str, kind: type[SpoolError]
) -> None:
    spool, role = await new_spool(postgres), new_schema()
    execute(postgres, f"create role {role} login superuser password '{postgres.password}'")
    execute(postgres, f"alter role {role} set {setting}")
    assert says in await refusal(PostgresSpool(postgres.url(user=role), schema=schema_of(spool)), kind)
    await spool.close()


async def test_a_server_that_does_not_answer() -> None:
    assert "cannot be reached" in await refusal(PostgresSpool("postgresql://127.0.0.1:1/x"), SpoolError)


async def test_a_connection_that_was_closed_is_opened_again(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        await spool.put(TEXT)
        execute(
            postgres,
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'smtp_async'",
        )
        # An answer that was lost is told, and nothing else.
        for _ in range(2):
            try:
                await spool.put(TEXT, key="k")
            except SpoolError:
                continue
        assert (await spool.statistics()).queued == 2


async def test_a_pool_whose_connections_are_all_in_use(postgres: Postgres) -> None:
    async with (
        await new_spool(postgres) as spool,
        asyncpg.create_pool(postgres.url(), min_size=0, max_size=1) as pool,
        PostgresSpool(pool, schema=schema_of(spool), timeout=0.3) as pooled,
    ):
        async with pool.acquire():
            with pytest.raises(SpoolError, match="all are in use") as caught:
                await pooled.put(TEXT)
            assert caught.value.temporary


async def decode_json(connection: Any) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


async def test_a_pool_may_decode_json(postgres: Postgres) -> None:
    async with (
        await new_spool(postgres) as spool,
        asyncpg.create_pool(postgres.url(), min_size=0, init=decode_json) as pool,
        PostgresSpool(pool, schema=schema_of(spool)) as pooled,
    ):
        id = await pooled.put(TEXT)
        [lease] = await pooled.claim()
        await lease.defer(receipt_for(lease, LATER), 0.0)
        [lease] = await pooled.claim()
        assert lease.entry.results[0] is not None and lease.entry.results[0].code == LATER.code
        await lease.fail(receipt_for(lease, LATER))
        await pooled.requeue(id)
        assert [entry.id async for entry in pooled.list()] == [id]
        assert await pooled.read(id) == TEXT
        entry = await pooled.get(id)
        await pooled.remove(id)
        assert await pooled.adopt(dataclasses.replace(entry, id="other"), TEXT) == "other"
        assert (await pooled.get("other")).results == entry.results


async def test_work_that_others_undid_is_repeated(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        lane, calls = (
            SerialConnection(
                DatabaseConnections(postgres.url(), schema_of(spool), pooler=False, timeout=10.0)
            ),
            list[int](),
        )

        async def work(connection: object) -> int:
            calls.append(1)
            if len(calls) < 3:
                raise asyncpg.SerializationError("could not serialize")
            return 7

        assert await lane.run(work, doing="it failed") == 7
        await lane.close()


async def test_a_name_of_this_process_is_shown_to_operators(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        await spool.put(TEXT)
        names = execute(postgres, "select application_name from pg_stat_activity where usename = 'postgres'")
        assert ("smtp_async",) in names


# --- the URL ---


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://app:canary@db.example.com/app", "db.example.com/app"),
        ("postgres://app:can%2Fary@db:5432/app?sslmode=require", "db:5432/app"),
        ("postgresql://app@one:1,two:2/app", "one:1,two:2/app"),
        ("postgresql://app:canary@[::1]:5432/app", "[::1]:5432/app"),
        ("postgresql:///app?host=/run/postgresql", "/app"),
        ("postgresql://app@%2Frun%2Fpostgresql/app", "%2Frun%2Fpostgresql/app"),
        ("postgresql://db", "db"),
    ],
)
def test_the_database_of_a_url(url: str, shown: str) -> None:
    assert database_of(url) == shown


def tree(error: BaseException | None) -> str:
    """Return the texts of an exception, of its causes and of its contexts."""
    if error is None:
        return ""
    return f"{error} {error!r} {tree(error.__cause__)} {tree(error.__context__)}"


def refused(url: str) -> str:
    """Return all that is shown of a URL that is refused."""
    with pytest.raises(InvalidArgument) as caught:
        PostgresSpool(url)
    return tree(caught.value)


@pytest.mark.parametrize("mark", "/?#@[")
@pytest.mark.parametrize("rest", ["@db.example.com/app", "@db.example.com:5432", ""])
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(mark: str, rest: str) -> None:
    shown = refused(f"postgresql://app:canary{mark}canary{rest or mark}")
    assert "percent-encode" in shown and "canary" not in shown


@given(
    st.text(st.characters(codec="ascii")),
    st.sampled_from(["@db.example.com/app", "@db:5432/a?sslmode=disable"]),
)
def test_no_password_is_shown(password: str, rest: str) -> None:
    try:
        assert database_of(f"postgresql://app:{password}{rest}") == rest[1:].partition("?")[0]
    except InvalidArgument as error:
        assert error.__cause__ is error.__context__ is None


@pytest.mark.parametrize("options", ["sslmode=canary", "ssl_min_protocol_version=canary", "canary"])
async def test_the_errors_of_the_driver_about_a_url_are_not_shown(options: str) -> None:
    async with PostgresSpool(f"postgresql://app@127.0.0.1/app?{options}") as spool:
        with pytest.raises(SpoolUnsafe, match="options") as caught:
            await spool.put(TEXT)
    assert "canary" not in tree(caught.value)


# --- the place of the database -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://app:canary@db.test/shop", ("db.test", 5432, "shop")),
        ("postgres://DB.test.:5433/shop?sslmode=require", ("db.test", 5433, "shop")),
        ("postgresql://localhost/shop", ("127.0.0.1", 5432, "shop")),
        ("postgresql://[::1]/shop", ("localhost", 5432, "shop")),
        ("postgresql:///shop", ("", 5432, "shop")),
        ("postgresql://?host=/run/postgresql&port=5433&dbname=shop", ("/run/postgresql", 5433, "shop")),
        ("postgresql://%2Frun%2Fpostgresql/a%20shop", ("/run/postgresql", 5432, "a shop")),
    ],
)
def test_the_place_of_a_database_is_known_from_its_url(url: str, place: tuple[str, int, str]) -> None:
    spool, (host, port, name) = PostgresSpool(url), place
    assert spool.is_in(host, port, name)
    assert not spool.is_in("other.test", port, name)
    assert not spool.is_in(host, port + 1, name)
    assert not spool.is_in(host, port, "other")


@pytest.mark.parametrize(
    "url",
    ["postgresql://a.test:5432,b.test:5432/shop", "postgresql://a.test?port=x"],
    ids=["several", "option"],
)
def test_a_url_with_several_places_names_none(url: str) -> None:
    assert not PostgresSpool(url).is_in("a.test", 5432, "shop")


@given(st.text(min_size=1), st.integers(1, 65535))
def test_any_name_of_a_database_is_found_again(name: str, port: int) -> None:
    try:
        quoted = quote(name, safe="")
    except UnicodeEncodeError:
        return
    assert PostgresSpool(f"postgresql://db.test:{port}/{quoted}").is_in("db.test", port, name)


async def test_the_place_of_a_pool_is_not_known(postgres: Postgres) -> None:
    async with asyncpg.create_pool(postgres.url(), min_size=0) as pool:
        assert not PostgresSpool(pool).is_in("127.0.0.1", postgres.port, "postgres")
