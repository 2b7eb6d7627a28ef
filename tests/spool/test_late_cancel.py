"""late_cancel.py: a task whose call could not be undone gets the result first, and its cancellation afterwards."""

import asyncio

import pytest

from smtp_async.spool.late_cancel import cancel_again
from tests.lab import turns


async def _held(results: list[str]) -> None:
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError as error:
        cancel_again(error)
    results.append("result")
    await turns()
    results.append("went on")


async def test_a_task_is_cancelled_at_its_next_await() -> None:
    results: list[str] = []
    task = asyncio.ensure_future(_held(results))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert results == ["result"] and task.cancelled()


async def test_a_time_limit_whose_block_ends_with_the_call_withdraws_its_request() -> None:
    async def in_time() -> str:
        async with asyncio.timeout(0):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError as error:
                cancel_again(error)
            return "result"

    assert await in_time() == "result"
    await turns()
    task = asyncio.current_task()
    assert task is not None and not task.cancelling()


async def test_a_cancelled_scope_of_anyio_repeats_its_cancellation_itself() -> None:
    async def scoped(results: list[str]) -> None:
        cancel_again(asyncio.CancelledError("Cancelled via cancel scope 1a2b"))
        await turns()
        results.append("went on")

    results: list[str] = []
    await asyncio.ensure_future(scoped(results))
    assert results == ["went on"]
