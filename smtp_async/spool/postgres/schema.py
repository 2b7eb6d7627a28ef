"""The tables of a spool in PostgreSQL, their versions, and the privileges that their users need.

A job is a row of `jobs`. What never changes is in `header`, the text that the file of a job begins with (`record`), and
in `body`; everything else has a column. Times are seconds since the epoch by the clock of the database.

`keys` has a row for each job that was put with a key; `gone` is set when the job is deleted, by whatever statement. A
key that is put again meets this row, whose lock decides between a put and a deletion at the same time.

The version is a row of `version`. `create` brings a schema of any earlier version to this one, and refuses a later one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ...errors import InvalidArgument, SpoolUnsafe

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["VERSION", "checked_schema", "create_schema", "demand_version", "privileges"]

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,47}")

_FIRST: Final = """
create table {schema}.jobs (
    id text primary key,
    keyed boolean not null,
    state text not null default 'queued' check (state in ('queued', 'sending', 'sent', 'failed')),
    created float8 not null,
    not_before float8 not null,
    scheduled_at float8 not null,
    expires float8,
    held boolean not null default false,
    token bigint not null default 0,
    attempts integer not null default 0,
    recoveries integer not null default 0,
    flagged boolean not null default false,
    confirmed boolean not null default false,
    marked boolean not null default false,
    lease_until float8,
    holder text,
    reason text not null default '',
    results json,
    size bigint not null,
    header json not null,
    body bytea not null
);
-- Not compressed, so that a slice of a large message is read without the rest.
alter table {schema}.jobs alter column body set storage external;
-- Rows live for seconds: vacuum soon, and by number rather than by share of the table.
alter table {schema}.jobs set (
    fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.05
);
create index jobs_due on {schema}.jobs (not_before, id) include (created) where state = 'queued' and not held;
create index jobs_held on {schema}.jobs (id) include (created) where state = 'queued' and held;
create index jobs_leased on {schema}.jobs (lease_until, id) include (created) where state = 'sending';
create index jobs_kept on {schema}.jobs (state, created, id) where state in ('sent', 'failed');

create table {schema}.keys (id text primary key, gone float8);
create index keys_gone on {schema}.keys (gone) where gone is not null;

create function {schema}.remember_key() returns trigger language plpgsql as $$
begin
    update {schema}.keys set gone = extract(epoch from statement_timestamp()) where id = old.id;
    return null;
end
$$;
create trigger remember_key after delete on {schema}.jobs
    for each row when (old.keyed) execute function {schema}.remember_key();
"""

#: The statements that lead from each version to the next, from version 0, an empty schema.
MIGRATIONS: Final = (_FIRST,)
#: The version of the tables that this library uses.
VERSION: Final = len(MIGRATIONS)

_PUT: Final = """\
grant usage on schema {schema} to {role};
grant select on {schema}.version to {role};
grant insert, select (id) on {schema}.jobs to {role};
grant select, insert, update on {schema}.keys to {role};
"""
_WORK: Final = """\
grant usage on schema {schema} to {role};
grant select on {schema}.version to {role};
grant select, insert, update, delete on {schema}.jobs to {role};
grant select, insert, update, delete on {schema}.keys to {role};
"""


def checked_schema(schema: str) -> str:
    """Return the name of a schema.

    Raises:
        InvalidArgument: it has characters that would need quotes.
    """
    if not isinstance(schema, str) or not _NAME.fullmatch(schema):
        raise InvalidArgument(
            f"a schema has 1 to 48 lower-case letters, digits and underscores, which {schema!r} has not"
        )
    return schema


def privileges(schema: str, role: str, *, put_only: bool = False) -> str:
    """Return the SQL that grants a role what it needs.

    Args:
        schema: the schema of the spool.
        role: the role.
        put_only: for an application that puts mail and does nothing else; otherwise for workers and operators.

    Raises:
        InvalidArgument: a name has characters that would need quotes.
    """
    if not isinstance(role, str) or not _NAME.fullmatch(role):
        raise InvalidArgument(
            f"a role has 1 to 48 lower-case letters, digits and underscores, which {role!r} has not"
        )
    return (_PUT if put_only else _WORK).format(schema=checked_schema(schema), role=role)


async def create_schema(
    connection: Connection, schema: str, migrations: Sequence[str] = MIGRATIONS
) -> tuple[int, int]:
    """Create the tables, or bring those of an earlier version to this one.

    Returns:
        The version before, 0 if there was none, and the version now.

    Raises:
        SpoolUnsafe: the tables are of a later version.
    """
    async with connection.transaction():
        # One at a time, because two processes that are started together do the same.
        await connection.execute(
            "select pg_advisory_xact_lock(hashtextextended($1, 0))", f"smtp_async {schema}"
        )
        known = await connection.fetchval("select to_regnamespace($1) is not null", schema)
        if not known:
            await connection.execute(f"create schema {schema}")
        await connection.execute(f"create table if not exists {schema}.version (version integer not null)")
        before = await connection.fetchval(f"select version from {schema}.version") or 0
        demand_version(before, schema, len(migrations), at_least=0)
        for migration in migrations[before:]:
            await connection.execute(migration.format(schema=schema))
        if before < len(migrations):
            await connection.execute(f"delete from {schema}.version")
            await connection.execute(f"insert into {schema}.version values ($1)", len(migrations))
    return before, len(migrations)


def demand_version(
    found: int | None, schema: str, version: int = VERSION, *, at_least: int = VERSION
) -> None:
    """Check the version of the tables.

    Raises:
        SpoolUnsafe: it is another one.
    """
    if found is None or found < at_least:
        raise SpoolUnsafe(
            f"the tables of the schema {schema} are of version {found or 0}, and this library needs version {version}: "
            "run `smtp-async queue init`, or call create_schema()"
        )
    if found > version:
        raise SpoolUnsafe(
            f"the tables of the schema {schema} are of version {found}, and this library knows version {version}: "
            "upgrade smtp-async"
        )
