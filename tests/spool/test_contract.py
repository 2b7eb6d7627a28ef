"""contract.py: every spool passes the contract tests."""

from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import InvalidArgument
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.testing.contracts import QUEUED, TEXT, SpoolContract, receipt_for
from smtp_async.testing.memory import MemorySpool


class TestMemorySpool(SpoolContract):
    @pytest.fixture
    async def spool(self):
        async with MemorySpool() as spool:
            yield spool

    def abandon(self, spool, lease):
        spool.abandon(lease)


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


@pytest.mark.parametrize("seconds", ["7", None, True, -1, float("nan")])
def test_an_invalid_key_retention_is_refused(tmp_path: Path, seconds: Any) -> None:
    for make in (MemorySpool, lambda **options: DirectorySpool(tmp_path / "spool", create=True, **options)):
        with pytest.raises(InvalidArgument, match="key_retention"):
            make(key_retention=seconds)


async def test_a_memory_spool_forgets_a_key_from_a_clock_that_was_ahead() -> None:
    times = [1000.0]
    async with MemorySpool(clock=lambda: times[-1]) as spool:
        times.append(10 * 365 * 86400.0)
        await spool.put(TEXT, key="k", not_before=1.0)
        [lease] = await spool.claim()
        await lease.settle(receipt_for(lease, QUEUED))
        times.append(2000.0)
        await spool.recover()
        await spool.put(TEXT, key="k")
        assert [entry async for entry in spool.list()] == []
        times.append(2000.0 + spool.key_retention)
        await spool.put(TEXT, key="k")
        assert len([entry async for entry in spool.list()]) == 1
