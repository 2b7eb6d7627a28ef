"""A browser for the tests of the pages."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.web.lab import Browser, chromium


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium; the test fails if a script of a page failed."""
    async with chromium() as running:
        yield running
        assert running.problems == []
