"""Scenes whose spool is in PostgreSQL.

The leases of a process that was killed are over at once, as if fifteen minutes had passed: when the database has ended
the statement that the process had sent, if any.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from smtp_async.spool.entry import Entry
from smtp_async.spool.postgres.rows import entry_of, require_intact
from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.spool.record import read_header_text
from tests.servers.postgres import Postgres
from tests.torture import ledger
from tests.torture.children import Spec
from tests.torture.ledger import Account
from tests.torture.points import Scene
from tests.torture.template import Template

__all__ = ["DatabaseScene"]

_numbers = itertools.count(1)


class DatabaseScene(Scene):
    """A scene with tables of its own.

    Args:
        template, path, options: as for `Scene`.
        server: the database.
    """

    whens = ("before", "amid", "after")
    mark_step = "update"
    half_put = ("call", "put_limited", 1, "amid")
    putting = ("put_limited", "notify")
    working = ("claim", "update", "recover", "extend", "next_due", "statistics", "forget_keys", "release_all")

    def __init__(self, template: Template, path: Path, *, server: Postgres, **options: Any) -> None:
        super().__init__(template, path, **options)
        self._server = server
        self.schema = f"torture_{os.getpid()}_{next(_numbers)}"

    async def __aenter__(self) -> DatabaseScene:
        await super().__aenter__()
        async with self.open_spool() as spool:
            await spool.create_schema()
        return self

    async def __aexit__(self, *details: object) -> None:
        await super().__aexit__(*details)
        await asyncio.to_thread(self._execute, f"drop schema {self.schema} cascade")

    def take_after(self, other: Scene) -> None:
        super().take_after(other)
        assert isinstance(other, DatabaseScene)
        for table in ("keys", "jobs"):
            self._execute(f"insert into {self.schema}.{table} select * from {other.schema}.{table}")

    def spec(self, role: str, **fields: Any) -> Spec:
        return super().spec(role, url=self._server.url(), schema=self.schema, **fields)

    def open_spool(self) -> PostgresSpool:
        return PostgresSpool(self._server.url(), schema=self.schema)

    async def died(self, pid: int) -> None:
        await super().died(pid)
        running = f"select count(*) from pg_stat_activity where application_name = 'p{pid}'"
        for pause in itertools.repeat(0.01):
            if not (await asyncio.to_thread(self._execute, running))[0]["count"]:
                break
            await asyncio.sleep(pause)
        over = f"update {self.schema}.jobs set lease_until = 0 where state = 'sending' and holder like '%:{pid}:%'"
        await asyncio.to_thread(self._execute, over)

    def account(self, **rules: Any) -> Account:
        return ledger.balanced(self._entries(), self.log(), self.recorder, deaths=self.deaths, **rules)

    def _entries(self) -> dict[str, Entry]:
        """Read every job completely."""
        found = {}
        for row in self._execute(
            f"select *, header::text as header, results::text as results from {self.schema}.jobs"
        ):
            require_intact(read_header_text(row["header"].encode()), row["body"])
            found[row["id"]] = entry_of(row)
        return found

    def _execute(self, sql: str) -> list[dict[str, Any]]:
        with psycopg.connect(self._server.url(), autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []
