"""Fixtures of the tests of the processor."""

import pytest

from tests.processor.fakes import FailingSpool, ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def spool(clock: ManualClock) -> FailingSpool:
    return FailingSpool(clock=clock)
