"""ending.py: callers are woken when a task ends, whatever became of it and of other callers."""

import asyncio

from smtp_async.connection.ending import Ending


async def test_a_caller_is_woken_right_behind_the_last_step_of_the_task() -> None:
    ending, over = Ending(), asyncio.Event()

    async def work() -> None:
        ending.task = asyncio.current_task()
        await over.wait()
        ending.release()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    waiter = asyncio.create_task(ending.wait(task))
    await asyncio.sleep(0)
    over.set()
    # The task ends in the next iteration of the loop, and the waiter in the one behind it.
    for _ in range(2):
        await asyncio.sleep(0)
    assert task.done() and waiter.done()


async def test_a_task_that_was_cancelled_before_its_first_step_has_ended() -> None:
    ending = Ending()

    async def work() -> None:
        raise AssertionError("never begun")

    task = asyncio.create_task(work())
    task.cancel()
    async with asyncio.timeout(5):
        await ending.wait(task)
        await ending.wait(task)
    assert task.cancelled()


async def test_a_caller_that_was_cancelled_keeps_nobody_else_waiting() -> None:
    ending, over = Ending(), asyncio.Event()

    async def work() -> None:
        ending.task = asyncio.current_task()
        await over.wait()
        ending.release()

    task = asyncio.create_task(work())
    gone, waiter = asyncio.create_task(ending.wait(task)), asyncio.create_task(ending.wait(task))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    assert not task.done()
    over.set()
    await asyncio.wait_for(waiter, 5)
    assert gone.cancelled() and task.done() and not task.cancelled()
