"""Every spool keeps the contract."""

import pytest

from smtp_async.spool.directory import DirectorySpool
from smtp_async.testing.contracts import SpoolContract
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
        # What the kernel does when a process dies.
        spool._delivery.forget(lease._held)


class TestDirectorySpoolWithoutSync(TestDirectorySpool):
    @pytest.fixture
    async def spool(self, tmp_path):
        async with DirectorySpool(tmp_path / "spool", create=True, durable=False) as spool:
            yield spool
