"""statements.py: every query finds its rows by an index."""

import re
from typing import Any

import asyncpg
import pytest

from smtp_async.spool.postgres.rows import NewJob
from smtp_async.spool.postgres.statements import Statements
from smtp_async.spool.submission import submission
from smtp_async.testing.contracts import TEXT
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import execute, new_spool, schema_of

#: As large as small messages, or the planner would rather read the whole table to count.
ROWS = 50_000

FILL = """
insert into {schema}.jobs (id, keyed, state, created, not_before, scheduled_at, held, lease_until, holder,
    size, header, body)
select 'job' || n, false,
    case n % 50 when 0 then 'failed' when 1 then 'sent' when 2 then 'sending' else 'queued' end,
    n, n, 0, n % 50 = 3, case n % 50 when 2 then n + 1e10 end, case n % 50 when 2 then 'h' || n % 5 end, 100, '{{}}',
    decode(repeat('ab', 700), 'hex')
from generate_series(1, {rows}) n
"""

IDS, TOKENS = ["job2", "job52"], [0, 0]


def queries(sql: Statements) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Every statement of a spool, and values for it."""
    none: tuple[Any, ...] = ([], [], [], [], [], [], [], [])
    return {
        "claim": (sql.claim, (10, None, False, 900.0, "h")),
        "unclaim": (sql.unclaim, ("h1", ["job2"])),
        "release_all": (sql.release_all, ("h1",)),
        "extend": (sql.extend, (IDS, TOKENS, 900.0)),
        "mark": (sql.update, (IDS, TOKENS, 900.0, [], [], *none)),
        "settle": (sql.update, ([], [], 900.0, IDS, TOKENS, *none)),
        "defer": (
            sql.update,
            (
                [],
                [],
                900.0,
                [],
                [],
                IDS,
                TOKENS,
                ["queued"] * 2,
                *[[True, True]] * 2,
                ["", ""],
                [None] * 2,
                [5.0] * 2,
            ),
        ),
        "ended": (sql.ended, (IDS,)),
        "recover": (sql.recover, (3, 1000)),
        "set_aside": (sql.set_aside, ("job2", 0, "why")),
        "forget_keys": (sql.forget_keys, (60.0, 1000)),
        "entry": (sql.entry, ("job2",)),
        "entry_for_update": (sql.entry_for_update, ("job2",)),
        "requeue": (sql.requeue, ("job50", 5.0, None, "[]", False, 5.0)),
        "hold": (sql.hold, ("job5", True)),
        "remove": (sql.remove, ("job5",)),
        "withdraw": (sql.withdraw, ("job5",)),
        "state": (sql.state, ("job5",)),
        "body": (sql.body, ("job5",)),
        "slice": (sql.slice, ("job5", 1, 10)),
        "list": (sql.list[""], ("job5", 500)),
        "list queued": (sql.list["queued"], ("job5", 500)),
        "list sending": (sql.list["sending"], ("job5", 500)),
        "list sent": (sql.list["sent"], (5.0, "job5", 500)),
        "list failed": (sql.list["failed"], (5.0, "job5", 500)),
        "statistics": (sql.statistics, ()),
        "next_due": (sql.next_due, ()),
        "holders": (sql.holders, ()),
    }


@pytest.mark.server
async def test_every_query_uses_an_index(postgres: Postgres) -> None:
    """With plans for any values, as they are kept for a connection that works for long."""
    async with await new_spool(postgres) as spool:
        schema = schema_of(spool)
        sql = Statements(schema)
        execute(postgres, FILL.format(schema=schema, rows=ROWS))
        execute(postgres, f"insert into {schema}.keys select 'k' || n, n from generate_series(1, 20000) n")
        execute(postgres, f"vacuum analyze {schema}.jobs, {schema}.keys")
        connection = await asyncpg.connect(postgres.url())
        try:
            await connection.execute("set plan_cache_mode = force_generic_plan")
            put = [[value] for value in NewJob.of(await submission(TEXT))]
            statements = {
                **queries(sql),
                "put": (sql.put, (*put, 60.0)),
                "put_limited": (sql.put_limited, (*put, 60.0, "1000")),
            }
            wrong = {}
            for name, (text, values) in statements.items():
                async with connection.transaction():
                    rows = await connection.fetch(f"explain {text}", *values)
                plan = "\n".join(row[0] for row in rows)
                if re.search(r"Seq Scan on (jobs|keys)", plan):
                    wrong[name] = plan
            assert wrong == {}
        finally:
            await connection.close()


def test_a_driver_has_its_own_placeholders() -> None:
    text = Statements("mail").put_one("%({name})s")
    assert "cast(%(id)s as text)" in text and "mail.jobs" in text and "$" not in text
