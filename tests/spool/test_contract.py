"""contract.py: every spool passes the contract tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest

from smtp_async.errors import InvalidArgument, MissingRecipient
from smtp_async.spool.contract import Spool
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.testing.contracts import SpoolContract
from smtp_async.testing.memory import MemorySpool
from tests.spool.postgres.databases import expire, new_spool, schema_of


class TestDirectorySpool(SpoolContract):
    @pytest.fixture
    async def spool(self, tmp_path):
        async with DirectorySpool(tmp_path / "spool", create=True) as spool:
            yield spool

    def abandon(self, spool, lease):
        lease.abandon()


class TestDirectorySpoolWithoutSync(TestDirectorySpool):
    @pytest.fixture
    async def spool(self, tmp_path):
        async with DirectorySpool(tmp_path / "spool", create=True, durable=False) as spool:
            yield spool


@pytest.mark.server
class TestPostgresSpool(SpoolContract):
    @pytest.fixture
    async def spool(self, postgres):
        self.postgres = postgres
        async with await new_spool(postgres) as spool:
            yield spool

    def abandon(self, spool, lease):
        expire(self.postgres, spool, lease)


class TestPostgresSpoolWithAPool(TestPostgresSpool):
    """Connections that the application gives."""

    @pytest.fixture
    async def spool(self, postgres):
        self.postgres = postgres
        async with await new_spool(postgres) as made:
            schema = schema_of(made)
        async with (
            asyncpg.create_pool(postgres.url(), min_size=0, max_size=3) as pool,
            PostgresSpool(pool, schema=schema, poll=0.2) as spool,
        ):
            yield spool


class TestPostgresSpoolBehindAPooler(TestPostgresSpool):
    """Each transaction may have another connection."""

    @pytest.fixture
    async def spool(self, postgres, pgbouncer):
        self.postgres = postgres
        async with await new_spool(postgres) as made:
            schema = schema_of(made)
        url = postgres.url(port=pgbouncer.port)
        async with PostgresSpool(url, schema=schema, poll=0.2, pooler=True) as spool:
            yield spool


@pytest.mark.parametrize("seconds", ["7", None, True, -1, float("nan")])
def test_an_invalid_key_retention_is_refused(tmp_path: Path, seconds: Any) -> None:
    for make in (MemorySpool, lambda **options: DirectorySpool(tmp_path / "spool", create=True, **options)):
        with pytest.raises(InvalidArgument, match="key_retention"):
            make(key_retention=seconds)


class Spans:
    """Plays the telemetry of a spool."""

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    def __init__(self) -> None:
        self.told: list[Any] = []

    @contextmanager
    def putting(self) -> Iterator[Self]:
        self.told.append("begun")
        try:
            yield self
        finally:
            self.told.append("ended")

    def stored(self, id: str, size: int, recipients: int) -> None:
        self.told.append((id, size, recipients))


@pytest.mark.parametrize("kind", ["memory", "directory"])
async def test_telemetry_is_told_of_each_put(kind: str, tmp_path: Path) -> None:
    spans = Spans()
    made: Spool = (
        MemorySpool(telemetry=spans)
        if kind == "memory"
        else DirectorySpool(tmp_path / "spool", create=True, telemetry=spans)
    )
    async with made as spool:
        id = await spool.put(b"From: a@x.test\r\nTo: b@x.test, c@x.test\r\n\r\nHi\r\n")
        entry = await spool.get(id)
        assert entry.trace == spans.trace
        assert spans.told == ["begun", (id, entry.size, 2), "ended"]
        with pytest.raises(MissingRecipient):
            await spool.put(b"From: a@x.test\r\n\r\nHi\r\n")
    assert spans.told[3:] == ["begun", "ended"]
