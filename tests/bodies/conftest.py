"""What is opened is closed."""

import gc
import time
from collections.abc import Iterator

import pytest

from tests.bodies.origins import open_files
from tests.lab import PATIENCE


@pytest.fixture
def no_open_files() -> Iterator[None]:
    """The test leaves no file open, also where a thread still had to finish."""
    before = open_files()
    yield
    limit = time.monotonic() + PATIENCE
    while open_files() > before and time.monotonic() < limit:
        gc.collect()
    assert open_files() <= before
