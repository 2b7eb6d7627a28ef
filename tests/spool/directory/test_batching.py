"""batching.py: blocking calls in threads, for one caller or for many."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from anyio import CancelScope

from smtp_async.errors import SpoolError
from smtp_async.spool.directory.batching import ThreadBatcher, Threads
from tests.lab import until


class NeedsThread:
    """Work that waits until the test releases it, and remembers its arguments."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.undone: list[str] = []
        self._go = threading.Semaphore(0)

    def go(self, times: int = 1) -> None:
        self._go.release(times)

    def __call__(self, items: list[str]) -> Sequence[str | Exception]:
        self.calls.append(items)
        assert self._go.acquire(timeout=10)
        return [ValueError(item) if item.startswith("bad") else item.upper() for item in items]

    def undo(self, value: str) -> bool:
        self.undone.append(value)
        return True


def begun(together: ThreadBatcher[str, str], *items: str, **options: object) -> list[asyncio.Task[str]]:
    return [asyncio.ensure_future(together.run(item, **options)) for item in items]  # type: ignore[arg-type]


@pytest.fixture
async def threads():
    threads = Threads(4)
    yield threads
    await threads.wait_idle()
    threads.stop()


async def test_callers_that_arrive_during_a_call_share_the_next(threads: Threads) -> None:
    slow = NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=1, most=10)
    tasks = begun(together, "a", "b", "c")
    slow.go(2)
    assert await asyncio.gather(*tasks) == ["A", "B", "C"]
    assert slow.calls == [["a"], ["b", "c"]]


async def test_the_size_of_a_batch_is_bounded(threads: Threads) -> None:
    slow = NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=1, most=2)
    tasks = begun(together, *"abcdef")
    slow.go(4)
    await asyncio.gather(*tasks)
    assert slow.calls == [["a"], ["b", "c"], ["d", "e"], ["f"]]


async def test_the_number_of_concurrent_calls_is_bounded(threads: Threads) -> None:
    slow = NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=2, most=10)
    tasks = begun(together, *"abcd")
    await until(lambda: len(slow.calls) == 2)
    assert sorted(slow.calls) == [["a"], ["b"]]
    slow.go(3)
    await asyncio.gather(*tasks)
    assert slow.calls[2:] == [["c", "d"]]


async def test_the_error_of_an_item_is_raised_to_its_caller(threads: Threads) -> None:
    slow = NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=1, most=10)
    tasks = begun(together, "a", "b", "bad", "c")
    slow.go(2)
    a, b, bad, c = await asyncio.gather(*tasks, return_exceptions=True)
    assert (a, b, c) == ("A", "B", "C")
    assert isinstance(bad, ValueError)


async def test_a_call_that_raises_fails_for_all_its_callers_and_the_next_runs(threads: Threads) -> None:
    def work(items: list[str]) -> list[str | Exception]:
        if "bad" in items:
            raise RuntimeError("all of it")
        return [*items]

    together: ThreadBatcher[str, str] = ThreadBatcher(threads, work, parallel=1, most=3)
    results = await asyncio.gather(*begun(together, "a", "b", "bad", "c", "d"), return_exceptions=True)
    assert [type(result) for result in results] == [str, RuntimeError, RuntimeError, RuntimeError, str]


async def test_a_cancelled_caller_whose_call_has_not_started_leaves_the_queue(threads: Threads) -> None:
    slow = NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=1, most=10)
    first, second, third = begun(together, "a", "b", "c", undo=slow.undo)
    await until(lambda: slow.calls)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    slow.go(2)
    assert [await first, await third] == ["A", "C"]
    assert slow.calls == [["a"], ["c"]]
    assert slow.undone == []


async def test_a_call_without_undo_is_completed_although_its_caller_is_cancelled(threads: Threads) -> None:
    slow = NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=1, most=10)
    first, second = begun(together, "a", "b")
    await until(lambda: slow.calls)
    second.cancel()
    await asyncio.sleep(0)
    assert not second.done()
    slow.go(2)
    assert await first == "A"
    with pytest.raises(asyncio.CancelledError):
        await second
    assert slow.calls == [["a"], ["b"]]


async def test_a_cancelled_caller_waits_until_its_share_is_undone(threads: Threads) -> None:
    slow = NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=1, most=10)
    first, second, third = begun(together, "a", "b", "c", undo=slow.undo)
    slow.go()
    assert await first == "A"
    await until(lambda: len(slow.calls) == 2)
    second.cancel()
    slow.go()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await third == "C"
    assert slow.undone == ["B"]


async def test_only_wait_idle_waits_for_the_afterwards_call(threads: Threads) -> None:
    slow, go_on, ended = NeedsThread(), threading.Event(), list[bool]()

    def afterwards() -> None:
        ended.append(go_on.wait(10))

    together: ThreadBatcher[str, str] = ThreadBatcher(
        threads, slow, parallel=1, most=10, afterwards=afterwards
    )
    slow.go(2)
    assert [await together.run("a"), await together.run("b")] == ["A", "B"]
    assert ended == []
    go_on.set()
    await threads.wait_idle()
    assert ended == [True, True]


async def test_the_thread_of_a_call_makes_the_afterwards_call(threads: Threads) -> None:
    slow, names = NeedsThread(), list[str]()

    def function(items: list[str]) -> Sequence[str | Exception]:
        names.append(threading.current_thread().name)
        return slow(items)

    def afterwards() -> None:
        names.append(threading.current_thread().name)

    together: ThreadBatcher[str, str] = ThreadBatcher(
        threads, function, parallel=1, most=10, afterwards=afterwards
    )
    slow.go()
    assert await together.run("a") == "A"
    await threads.wait_idle()
    assert len(names) == 2 and len({*names}) == 1


async def test_a_call_after_a_shared_one_waits_a_moment_for_more_callers(threads: Threads) -> None:
    slow = NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=1, most=10, gather=0.2)
    slow.go(3)
    await asyncio.gather(*begun(together, "a", "b", "c"))
    assert await asyncio.gather(*begun(together, "d", "e")) == ["D", "E"]
    assert slow.calls == [["a"], ["b", "c"], ["d", "e"]]


async def test_a_call_that_waits_for_more_callers_keeps_its_bound(threads: Threads) -> None:
    slow = NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=1, most=2, gather=0.2)
    slow.go(4)
    await asyncio.gather(*begun(together, "a", "b", "c"))
    await asyncio.gather(*begun(together, "d", "e", "f"))
    assert slow.calls == [["a"], ["b", "c"], ["d", "e"], ["f"]]


async def test_a_caller_alone_does_not_wait_for_others(threads: Threads) -> None:
    slow = NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=1, most=10, gather=60)
    slow.go(3)
    assert [await together.run(item) for item in "abc"] == ["A", "B", "C"]


async def test_wait_idle_returns_after_every_caller_was_woken(threads: Threads) -> None:
    slow = NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=1, most=1)
    tasks = begun(together, "a", "b", "c")
    await until(lambda: slow.calls)
    slow.go(3)
    await threads.wait_idle()
    assert len(slow.calls) == 3
    assert await asyncio.gather(*tasks) == ["A", "B", "C"]


def test_an_event_loop_that_was_closed_does_not_delay_another() -> None:
    threads, slow = Threads(4), NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=1, most=10)
    loop = asyncio.new_event_loop()
    tasks = []

    async def begin() -> None:
        tasks.extend(begun(together, "a", "b"))
        await until(lambda: slow.calls)

    loop.run_until_complete(begin())
    loop.close()
    slow.go(2)

    async def again() -> str:
        value = await together.run("c")
        await threads.wait_idle()
        return value

    assert asyncio.run(again()) == "C"
    assert slow.calls == [["a"], ["c"]]
    threads.stop()
    for task in tasks:
        task.get_coro().close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_a_call_for_one_caller_is_undone_when_it_is_cancelled(threads: Threads) -> None:
    slow, undone = NeedsThread(), list[object]()

    def undo(value: object) -> bool:
        undone.append(value)
        return True

    task = asyncio.ensure_future(threads.run(lambda: slow(["a"]), undo=undo))
    await until(lambda: slow.calls)
    task.cancel()
    slow.go()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == [["A"]]


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_without_any_thread_the_caller_gets_an_error_and_the_next_is_served(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, lambda items: items, parallel=1, most=10)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(SpoolError, match="new thread"):
            await together.run("a")
        with pytest.raises(SpoolError, match="new thread"):
            await threads.run(lambda: "a")
        await threads.wait_idle()
    assert await together.run("b") == "b"


async def test_existing_threads_do_the_work_if_no_more_can_be_started(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = NeedsThread()
    together: ThreadBatcher[str, str] = ThreadBatcher(threads, slow, parallel=3, most=1)
    (first,) = begun(together, "a")
    await until(lambda: slow.calls)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        others = begun(together, "b", "c")
        slow.go(3)
        assert await asyncio.gather(first, *others) == ["A", "B", "C"]


def test_two_event_loops_do_not_deadlock() -> None:
    threads = Threads(4)
    together: ThreadBatcher[int, int] = ThreadBatcher(threads, lambda items: items, parallel=1, most=10)
    ended = []

    async def many() -> None:
        for number in range(50):
            await asyncio.gather(*[together.run(number) for _ in range(5)])
        ended.append(True)

    both = [threading.Thread(target=asyncio.run, args=(many(),), daemon=True) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(10)
    assert ended == [True, True]
    threads.stop()


async def test_idle_threads_end_and_are_counted() -> None:
    threads, together = Threads(4, idle_timeout=1.0), threading.Barrier(3)
    began: set[threading.Thread] = set()

    def work() -> None:
        began.add(threading.current_thread())
        together.wait(10)

    await asyncio.gather(*[threads.run(work) for _ in range(3)])
    await until(lambda: not any(one.is_alive() for one in began))
    # If the threads that have ended were counted wrongly, each of the later calls would start another one.
    for _ in range(4):
        await asyncio.gather(*[threads.run(work) for _ in range(3)])
        assert sum(one.is_alive() for one in began) == 3
    threads.stop()


async def test_a_call_after_stop_does_not_wait_for_an_ended_thread() -> None:
    threads = Threads(4)
    assert await threads.run(lambda: "a") == "a"
    threads.stop()
    async with asyncio.timeout(5):
        assert await threads.run(lambda: "b") == "b"
    threads.stop()


@pytest.mark.parametrize("stay", [True, False])
async def test_a_call_that_could_not_be_undone_leaves_an_anyio_scope_unchanged(
    threads: Threads, stay: bool
) -> None:
    """The cancellation arrives at the next await inside the scope, and not behind it."""
    slow, values = NeedsThread(), list[object]()
    with CancelScope() as scope:
        asyncio.get_running_loop().call_later(0.01, scope.cancel)
        asyncio.get_running_loop().call_later(0.05, slow.go)
        values.append(await threads.run(lambda: slow(["a"]), undo=lambda value: False))
        if stay:
            await asyncio.sleep(1)
            values.append("not reached")
    assert values == [["A"]]
    assert scope.cancelled_caught == stay
    task = asyncio.current_task()
    assert task is not None and not task.cancelling()
    await asyncio.sleep(0.01)


async def test_a_cancelled_scope_of_anyio_wakes_who_waits_for_a_call_once(threads: Threads) -> None:
    """Such a scope cancels at every turn of the loop, which would keep a processor busy as long as the call takes."""
    loop, slow, made = asyncio.get_running_loop(), NeedsThread(), 0
    make = loop.create_future

    def counted() -> asyncio.Future[object]:
        nonlocal made
        made += 1
        return make()

    with CancelScope() as scope:
        await threads.run(lambda: None)  # the thread and the limiter are there
        loop.create_future = counted  # type: ignore[method-assign]
        loop.call_later(0.01, scope.cancel)
        loop.call_later(0.05, slow.go)
        await threads.run(lambda: slow(["a"]))
    assert scope.cancelled_caught and slow.calls == [["a"]]
    assert made < 5
