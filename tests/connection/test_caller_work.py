"""caller_work.py: work in the caller's own task that can be stopped, and abandoned whatever it does."""

import asyncio
import contextvars
import gc
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
import pytest

from smtp_async.connection.caller_work import CallerWork, WorkAbandoned, WorkStopped
from tests.lab import PATIENCE, every_loop, gathered, turns, until

pytestmark = pytest.mark.usefixtures("no_leaks")

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")


@every_loop
async def test_work_runs_in_the_callers_task_and_context() -> None:
    variable.set("before")

    async def work() -> Any:
        assert variable.get() == "before"
        await asyncio.sleep(0)
        variable.set("behind")
        await asyncio.sleep(0.001)
        await anyio.to_thread.run_sync(int)
        return asyncio.current_task()

    assert await CallerWork(work()) is asyncio.current_task()
    assert variable.get() == "behind"


@every_loop
async def test_exceptions_pass_from_the_work_and_into_it() -> None:
    async def work() -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(OSError("inner"))
        with pytest.raises(OSError):
            await future
        task = asyncio.ensure_future(asyncio.sleep(10))
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        with anyio.move_on_after(0.001):
            await asyncio.Event().wait()
        raise ValueError("outer")

    with pytest.raises(ValueError, match="outer"):
        await CallerWork(work())
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


# --- what work may do when it is cancelled ---


async def obeys(log: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        log.append("ended")


async def cleans_up(log: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        log.append("ended")


async def takes_no_notice(log: list[str]) -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.sleep(0.05)
    log.append("ended")


async def spins(log: list[str]) -> None:
    for _ in range(50):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    log.append("ended")


async def waits_for_a_task(log: list[str]) -> None:
    try:
        await asyncio.ensure_future(takes_no_notice([]))
    finally:
        log.append("ended")


async def waits_for_a_thread(log: list[str]) -> None:
    try:
        await asyncio.to_thread(lambda: None)
        await asyncio.Event().wait()
    finally:
        log.append("ended")


WORK: list[Callable[[list[str]], Coroutine[Any, Any, None]]] = [
    obeys,
    cleans_up,
    takes_no_notice,
    spins,
    waits_for_a_task,
    waits_for_a_thread,
]
ENDS_AT_ONCE = {obeys, waits_for_a_thread}


async def started(
    work: Coroutine[Any, Any, Any], **options: Any
) -> tuple[CallerWork[Any], asyncio.Task[Any]]:
    caller_work: CallerWork[Any] = CallerWork(work, **options)

    async def caller() -> Any:
        return await caller_work

    task = asyncio.create_task(caller())
    await turns(3)
    return caller_work, task


@every_loop
@pytest.mark.parametrize("work", WORK)
async def test_a_caller_can_abandon_work_whatever_the_work_does(work: Any) -> None:
    log: list[str] = []
    caller_work, task = await started(work(log))
    caller_work.abandon()
    await turns(3)
    assert task.done() and isinstance(task.exception(), WorkAbandoned)
    if work in ENDS_AT_ONCE:
        assert log == ["ended"]
    # The rest goes to its end.
    await until(lambda: log == ["ended"])


@every_loop
@pytest.mark.parametrize("work", WORK)
async def test_the_clean_up_of_stopped_work_is_waited_for(work: Any) -> None:
    log: list[str] = []
    caller_work, task = await started(work(log))
    caller_work.stop()
    caller_work.stop()
    await asyncio.wait({task}, timeout=PATIENCE)
    assert log == ["ended"]
    # What takes no notice has a result.
    error = task.exception()
    assert type(error) is WorkStopped or (
        error is None and work in {takes_no_notice, spins, waits_for_a_task}
    )


@every_loop
@pytest.mark.parametrize("work", WORK)
async def test_work_that_cleans_up_after_a_stop_can_be_abandoned(work: Any) -> None:
    log: list[str] = []
    caller_work, task = await started(work(log))
    caller_work.stop()
    await turns(1)
    caller_work.abandon()
    await turns(3)
    assert task.done()
    await until(lambda: log == ["ended"])


@every_loop
@pytest.mark.parametrize("work", WORK)
async def test_a_cancellation_reaches_the_work_as_in_any_task(work: Any) -> None:
    ours: list[str] = []
    theirs: list[str] = []
    _, task = await started(work(ours))
    plain = asyncio.create_task(work(theirs))
    await turns(3)
    for one in (task, plain):
        one.cancel()
        assert one.cancelling() == 1
    await asyncio.wait({task, plain}, timeout=PATIENCE)
    assert task.cancelled() == plain.cancelled()
    assert ours == theirs == ["ended"]


@every_loop
@pytest.mark.parametrize("first", ["abandon", "cancel"])
async def test_a_cancellation_beside_an_order_is_not_lost(first: str) -> None:
    log: list[str] = []
    caller_work, task = await started(cleans_up(log))
    orders: list[Callable[[], Any]] = [caller_work.abandon, task.cancel]
    for order in orders if first == "abandon" else reversed(orders):
        order()
    await asyncio.wait({task}, timeout=PATIENCE)
    assert task.cancelled()
    await until(lambda: log == ["ended"])


@every_loop
async def test_work_of_a_cancelled_caller_can_be_abandoned_too() -> None:
    log: list[str] = []
    caller_work, task = await started(cleans_up(log))
    task.cancel()
    await turns(3)
    assert not task.done()
    caller_work.abandon()
    await turns(3)
    assert task.cancelled()
    await until(lambda: log == ["ended"])


@every_loop
async def test_the_result_of_abandoned_work_goes_to_its_disposer() -> None:
    async def work() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)
        return "result"

    gone: list[str] = []
    caller_work, task = await started(work(), unwanted=gone.append)
    caller_work.abandon()
    await turns(3)
    assert isinstance(task.exception(), WorkAbandoned)
    await until(lambda: gone == ["result"])


async def test_an_order_after_the_end_does_nothing() -> None:
    async def work() -> int:
        return 1

    caller_work = CallerWork(work())
    assert await caller_work == 1
    caller_work.abandon()
    caller_work.stop()


def test_a_loop_that_ends_closes_it() -> None:
    log: list[str] = []

    async def main() -> None:
        await started(obeys(log))

    asyncio.run(main())
    gc.collect()
    assert log == ["ended"]


# --- what others wait for, too ---


async def awaits(what: asyncio.Future[str]) -> str:
    return await what


async def waits_on(what: asyncio.Future[str]) -> str:
    """Takes no notice of the first cancellation, and waits on."""
    with suppress(asyncio.CancelledError):
        await asyncio.shield(what)
    return await what


@every_loop
@pytest.mark.parametrize("kind", ["future", "task"])
@pytest.mark.parametrize("abandoned", [False, True], ids=["waited for", "abandoned"])
async def test_another_task_may_wait_for_the_same(kind: str, abandoned: bool) -> None:
    gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    shared = gate if kind == "future" else asyncio.create_task(awaits(gate))
    results: list[str] = []
    caller_work, task = await started(waits_on(shared), unwanted=results.append)
    if abandoned:
        caller_work.abandon()
    others = []
    for _ in range(5):
        # One for each step in which the work may be abandoned.
        others.append(asyncio.create_task(awaits(shared)))
        await turns(1)
    assert task.done() == abandoned
    gate.set_result("result")
    assert await gathered(*others) == ["result"] * 5
    if abandoned:
        await until(lambda: results == ["result"])
        assert isinstance(task.exception(), WorkAbandoned)
    else:
        assert await task == "result"


@every_loop
@pytest.mark.parametrize("kind", ["future", "task"])
async def test_another_task_may_wait_for_the_same_future(kind: str) -> None:
    gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    shared = gate if kind == "future" else asyncio.create_task(awaits(gate))
    _, task = await started(awaits(shared))
    other = asyncio.create_task(awaits(shared))
    await turns(3)
    gate.set_result("result")
    assert await gathered(task, other) == ["result", "result"]


@every_loop
@pytest.mark.parametrize("order", [CallerWork.stop, CallerWork.abandon])
async def test_a_failure_beside_an_order_is_not_reported_as_lost(
    order: Callable[[CallerWork[Any]], None],
) -> None:
    loop = asyncio.get_running_loop()
    reported: list[Any] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))

    async def wait_for(future: asyncio.Future[None]) -> None:
        await future

    async def both() -> None:
        future = loop.create_future()
        caller_work = CallerWork(wait_for(future))
        task = asyncio.ensure_future(gathered(caller_work))
        await turns(2)
        order(caller_work)
        future.set_exception(OSError("gone"))
        await asyncio.wait({task})

    await both()
    gc.collect()
    await turns(2)
    assert reported == []
