"""signing_threads.py: keys sign in threads that stay, and whose results wake the event loop together."""

import asyncio
import contextvars
import os
import threading

import pytest

from smtp_async.errors import SignerUnavailable
from smtp_async.mail.signing_threads import SigningThreads, in_signing_thread

_HERE: contextvars.ContextVar[str] = contextvars.ContextVar("here", default="")


async def test_the_work_runs_in_a_thread_and_in_the_context_of_the_caller() -> None:
    _HERE.set("caller")
    found = await in_signing_thread(
        lambda: (threading.current_thread() is threading.main_thread(), _HERE.get())
    )
    assert found == (False, "caller")


@pytest.mark.parametrize("error", [ZeroDivisionError, StopIteration])
async def test_the_caller_gets_the_error(error: type[Exception]) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(RuntimeError if error is StopIteration else error):
        await in_signing_thread(fail)


async def test_one_caller_after_the_other_has_the_same_thread() -> None:
    assert len({await in_signing_thread(threading.get_ident) for _ in range(5)}) == 1


async def test_a_crowd_has_no_more_threads_than_there_may_be() -> None:
    threads = SigningThreads(threads=2)
    idents = await asyncio.gather(*[threads.call(threading.get_ident) for _ in range(100)])
    assert 1 <= len(set(idents)) <= 2


async def test_results_that_come_together_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    done, wakes = threading.Event(), []
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda call: wakes.append(call))
    threads = SigningThreads(threads=1)
    works = [loop.create_task(threads.call(lambda number=number: number)) for number in range(9)]  # type: ignore[misc]
    works.append(loop.create_task(threads.call(done.set)))
    await asyncio.sleep(0)
    # The last one has begun, so that the others have ended.
    assert done.wait(10)
    (wake,) = wakes[:1]
    monkeypatch.undo()
    wake()
    assert await asyncio.gather(*works[:9]) == [*range(9)]
    wakes[-1]()
    await asyncio.wait(works)
    assert len(wakes) <= 2


async def test_a_caller_that_is_cancelled_leaves_its_work() -> None:
    threads = SigningThreads(threads=1)
    begun, go_on, late = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go_on.wait(10)

    first, second = (asyncio.create_task(threads.call(work)) for work in (hold, late.set))
    await asyncio.sleep(0)
    assert begun.wait(10)
    first.cancel()
    second.cancel()
    await asyncio.wait([first, second])
    go_on.set()
    # Work that has begun ends, and what follows is not lost; work that has not begun is not done.
    assert await threads.call(lambda: 1) == 1
    assert first.cancelled() and second.cancelled() and not late.is_set()


async def test_a_thread_ends_when_it_is_not_needed() -> None:
    threads = SigningThreads(idle=0.01)
    thread = await threads.call(threading.current_thread)
    thread.join(10)
    assert not thread.is_alive()
    assert await threads.call(threading.current_thread) is not thread


def test_a_loop_that_is_closed_leaves_its_work() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> threading.Thread:
        begun.set()
        go_on.wait(10)
        return threading.current_thread()

    async def leave() -> None:
        task = asyncio.create_task(in_signing_thread(hold))
        await asyncio.sleep(0)
        assert begun.wait(10)
        task.cancel()

    asyncio.run(leave())
    go_on.set()
    assert asyncio.run(in_signing_thread(lambda: 1)) == 1


def test_loops_that_come_and_go_share_the_threads() -> None:
    idents = {asyncio.run(in_signing_thread(threading.get_ident)) for _ in range(50)}
    assert len(idents) <= (os.cpu_count() or 1)


def no_threads(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_a_thread_that_cannot_be_started_is_an_error_and_the_next_caller_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = SigningThreads(threads=1)
    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", no_threads)
        for _ in range(2):
            with pytest.raises(SignerUnavailable, match="can't start new thread") as caught:
                await threads.call(lambda: 1)
            assert caught.value.temporary
    assert await threads.call(lambda: 2) == 2


async def test_without_another_thread_those_that_run_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = SigningThreads(threads=2)
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go_on.wait(10)

    first = asyncio.create_task(threads.call(hold))
    await asyncio.sleep(0)
    assert begun.wait(10)
    monkeypatch.setattr(threading.Thread, "start", no_threads)
    second = asyncio.create_task(threads.call(lambda: 2))
    await asyncio.sleep(0)
    go_on.set()
    assert await second == 2
    await first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_child_that_goes_on_with_the_loop_has_threads_of_its_own() -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(in_signing_thread(lambda: 1))
    child = os.fork()
    if not child:
        status = 1
        try:
            status = loop.run_until_complete(asyncio.wait_for(in_signing_thread(lambda: 0), 10))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    loop.close()
