"""calls.py: callers who are cancelled, and statements that callers share."""

import asyncio
from collections.abc import Sequence

import pytest

from smtp_async.spool.postgres.calls import Calls, StatementBatcher
from tests.lab import every_loop


class Gate:
    """A function of a batch that waits until it is opened."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.entered = asyncio.Event()

    async def __call__(self, items: list[int]) -> Sequence[int | Exception]:
        self.batches.append(items)
        self.entered.set()
        await self.open.wait()
        return [10 * item if item >= 0 else ValueError(str(item)) for item in items]


@every_loop
async def test_items_that_arrive_meanwhile_share_the_next_call() -> None:
    gate = Gate()
    batcher = StatementBatcher(Calls(), gate, most=3)
    callers = [asyncio.ensure_future(batcher.run(n)) for n in range(5)]
    await gate.entered.wait()
    gate.open.set()
    assert await asyncio.gather(*callers) == [0, 10, 20, 30, 40]
    assert all([len(batch) <= 3 for batch in gate.batches])
    assert await batcher.run(9) == 90
    assert sum(gate.batches, []) == [0, 1, 2, 3, 4, 9]


@every_loop
async def test_calls_at_once_share_the_callers() -> None:
    gate = Gate()
    batcher = StatementBatcher(Calls(), gate, at_once=2, most=10)
    callers = [asyncio.ensure_future(batcher.run(n)) for n in range(7)]
    await gate.entered.wait()
    later = [asyncio.ensure_future(batcher.run(n)) for n in range(7, 9)]
    await asyncio.sleep(0)
    # Neither are all in one call, nor is there a third one. An eager call takes what is there when it is made.
    assert gate.batches in ([[0, 1, 2, 3], [4, 5, 6]], [[0], [1]])
    gate.open.set()
    assert await asyncio.gather(*callers, *later) == [10 * n for n in range(9)]


async def test_a_call_is_there_for_each_of_few_callers() -> None:
    gate = Gate()
    batcher = StatementBatcher(Calls(), gate, at_once=2, most=10)
    callers = [asyncio.ensure_future(batcher.run(1))]
    await gate.entered.wait()
    gate.entered.clear()
    callers.append(asyncio.ensure_future(batcher.run(2)))
    await gate.entered.wait()
    gate.open.set()
    assert await asyncio.gather(*callers) == [10, 20]
    assert gate.batches == [[1], [2]]


async def test_large_items_do_not_share_a_call() -> None:
    gate = Gate()
    batcher = StatementBatcher(Calls(), gate, most=10, octets=lambda item: item, most_octets=10)
    callers = [asyncio.ensure_future(batcher.run(n)) for n in (1, 6, 4, 20, 1)]
    gate.open.set()
    await asyncio.gather(*callers)
    assert gate.batches == [[1, 6], [4], [20], [1]]


async def test_an_error_is_that_of_its_item() -> None:
    gate = Gate()
    gate.open.set()
    batcher = StatementBatcher(Calls(), gate, most=10)
    first, second = await asyncio.gather(batcher.run(1), batcher.run(-1), return_exceptions=True)
    assert first == 10 and isinstance(second, ValueError)


async def test_an_error_of_the_call_is_that_of_all() -> None:
    async def fails(items: list[int]) -> Sequence[int]:
        raise OSError("no")

    batcher = StatementBatcher(Calls(), fails, most=10)
    found = await asyncio.gather(batcher.run(1), batcher.run(2), return_exceptions=True)
    assert all([isinstance(one, OSError) for one in found])


async def test_a_cancelled_caller_waits_for_its_call() -> None:
    gate, undone = Gate(), list[int]()

    async def undo(value: int) -> bool:
        undone.append(value)
        return True

    batcher = StatementBatcher(Calls(), gate, most=10)
    caller = asyncio.ensure_future(batcher.run(1, undo=undo))
    await gate.entered.wait()
    caller.cancel()
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert undone == [10]


async def test_what_cannot_be_undone_is_returned() -> None:
    gate = Gate()

    async def undo(value: int) -> bool:
        return False

    batcher, got = StatementBatcher(Calls(), gate, most=10), list[int]()

    async def use() -> None:
        got.append(await batcher.run(1, undo=undo))
        await asyncio.Event().wait()

    caller = asyncio.ensure_future(use())
    await gate.entered.wait()
    caller.cancel()
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert got == [10]


async def test_an_item_that_waits_is_withdrawn() -> None:
    gate = Gate()

    async def undo(value: int) -> bool:
        raise AssertionError("nothing was done")

    batcher = StatementBatcher(Calls(), gate, most=10)
    first = asyncio.ensure_future(batcher.run(1))
    await gate.entered.wait()
    second = asyncio.ensure_future(batcher.run(2, undo=undo))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.open.set()
    assert await first == 10
    assert gate.batches == [[1]]


async def test_calls_are_waited_for_at_the_end() -> None:
    calls, gate, done = Calls(), asyncio.Event(), list[int]()

    async def work() -> None:
        await gate.wait()
        done.append(1)

    calls.start(work())
    waiting = asyncio.ensure_future(calls.wait_idle())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert done == [1]
