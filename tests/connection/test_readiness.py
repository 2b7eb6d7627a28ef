"""The wait of the caller of `connect`."""

import asyncio
from typing import Any

import pytest

from smtp_async.connection.readiness import Readiness
from smtp_async.errors import ConnectionLost, SMTPError


@pytest.fixture
async def waiting():
    """A caller that waits, with what it is told; `admit` asks `answers`, an exception is raised."""
    readiness = Readiness()
    answers: list[Any] = []
    reasons: list[SMTPError] = []

    def admit():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    readiness.begin(asyncio.get_running_loop())
    assert readiness.pending and not readiness.awaited
    caller = asyncio.create_task(readiness.wait(admit, lambda: reasons[-1] if reasons else None))
    await asyncio.sleep(0)
    assert readiness.awaited
    yield readiness, answers, reasons, caller
    caller.cancel()


async def test_woken_and_admitted(waiting):
    readiness, answers, _, caller = waiting
    answers.append(True)
    readiness.wake()
    readiness.wake()
    await caller
    assert not readiness.pending


async def test_woken_too_early_it_waits_for_the_verdict(waiting):
    readiness, answers, _, caller = waiting
    answers.append(False)
    readiness.wake()
    await asyncio.sleep(0)
    assert readiness.pending and not caller.done()
    readiness.refuse(ConnectionLost("gone"))
    with pytest.raises(ConnectionLost, match="gone"):
        await caller


async def test_a_fault_of_the_library_is_left_to_the_task(waiting):
    readiness, answers, _, caller = waiting
    answers += [RuntimeError("a bug"), True]
    readiness.wake()
    await asyncio.sleep(0)
    assert not caller.done()
    readiness.wake()
    await caller


async def test_the_end_that_came_before_is_the_reason(waiting):
    readiness, answers, reasons, caller = waiting
    answers.append(False)
    reasons.append(ConnectionLost("gone before"))
    readiness.wake()
    with pytest.raises(ConnectionLost, match="gone before"):
        await caller


def test_nobody_waits_for_one_that_has_not_begun():
    readiness = Readiness()
    readiness.wake()
    readiness.refuse(ConnectionLost("gone"))
    assert not readiness.pending
