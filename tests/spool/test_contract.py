"""Every spool keeps the contract."""

import pytest

from smtp_async.testing.contracts import SpoolContract
from smtp_async.testing.memory import MemorySpool


class TestMemorySpool(SpoolContract):
    @pytest.fixture
    async def spool(self):
        async with MemorySpool() as spool:
            yield spool

    def abandon(self, spool, lease):
        spool.abandon(lease)
