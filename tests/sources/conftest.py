"""What is opened is closed."""

import asyncio
import gc
import time
from collections.abc import Iterator

import pytest

from tests.lab import LOOPS, PATIENCE
from tests.sources.origins import open_files


@pytest.fixture(scope="session")
def loops_have_run() -> None:
    """The first loop of a kind opens what the process keeps for all of them."""
    for make in LOOPS.values():
        with asyncio.Runner(loop_factory=make) as runner:
            runner.run(asyncio.sleep(0))


@pytest.fixture
def no_open_files(loops_have_run: None) -> Iterator[None]:
    """The test leaves no file open, also where a thread still had to finish."""
    before = open_files()
    yield
    limit = time.monotonic() + PATIENCE
    while open_files() > before and time.monotonic() < limit:
        gc.collect()
    assert open_files() <= before
