"""contract.py: every spool passes the contract tests."""

from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import InvalidArgument
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.testing.contracts import SpoolContract
from smtp_async.testing.memory import MemorySpool


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
