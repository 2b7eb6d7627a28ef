"""worker.py: work that nobody can stop, and who closes after it."""

import asyncio
import subprocess
import sys
import threading

import anyio
import pytest

from smtp_async.errors import Busy, UsageError
from smtp_async.sources import ThreadWork
from smtp_async.sources.worker import THREADS, loop_limiters
from tests.lab import PATIENCE, every_loop, turns, until


class Work(ThreadWork):
    """Remembers how it was closed."""

    def __init__(self, limiter=None):
        super().__init__(limiter)
        self.released = []
        self.started = threading.Event()
        self.go_on = threading.Event()

    def wait(self):
        self.started.set()
        assert self.go_on.wait(PATIENCE)
        assert self.released == []
        return "done"

    def _close_files(self, *, streams):
        assert not self.busy
        self.released.append(streams)


@every_loop
async def test_work_is_done_in_a_thread():
    work = Work()
    assert await work.in_thread(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await work.in_thread(lambda: 1 // 0)
    assert not work.busy
    work.close(streams=False)
    work.close()
    assert (work.released, work.closed) == ([False], True)
    with pytest.raises(UsageError, match="closed"):
        await work.in_thread(threading.get_ident)


FIRST_WORK = """
import asyncio, sys, threading

class Watch:
    found = set()

    def find_spec(self, name, *_):
        if name.partition(".")[0] == "anyio":
            self.found.add(threading.current_thread() is threading.main_thread())

async def main():
    from smtp_async.sources.worker import in_thread

    sys.meta_path.insert(0, Watch())
    first, *others = [asyncio.create_task(in_thread(threading.get_ident)) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    print(*[await task != threading.get_ident() for task in others], first.cancelled(), Watch.found)

asyncio.run(main())
"""


def test_anyio_is_imported_in_a_thread():
    """It takes 20 ms. The first caller may be cancelled meanwhile, and others may begin."""
    done = subprocess.run([sys.executable, "-c", FIRST_WORK], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True True True {False}"


async def begun(work):
    task = asyncio.create_task(work.in_thread(work.wait))
    await until(work.started.is_set)
    assert work.busy
    return task


@every_loop
async def test_closing_waits_for_the_thread_but_not_the_caller():
    work = Work()
    task = await begun(work)
    work.close(streams=False)
    await turns()
    assert work.released == []
    work.go_on.set()
    assert await task == "done"
    assert work.released == [False]


@every_loop
async def test_a_caller_may_go_while_the_thread_works():
    work = Work()
    task = await begun(work)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert work.busy
    with pytest.raises(Busy):
        await work.in_thread(work.wait)
    work.close()
    assert work.released == []
    work.go_on.set()
    await until(lambda: work.released)
    assert work.released == [True]


async def test_a_scope_that_is_cancelled_does_not_wait_for_the_thread():
    work = Work()
    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        await work.in_thread(work.wait)
    assert scope.cancelled_caught
    work.close()
    work.go_on.set()
    await until(lambda: work.released)


async def test_work_that_was_closed_before_its_thread_began_is_not_done():
    limiter = anyio.CapacityLimiter(1)
    first, second = Work(limiter), Work(limiter)
    running = await begun(first)
    waiting = asyncio.create_task(second.in_thread(second.wait))
    await turns()
    second.close()
    assert second.released == [True]
    first.go_on.set()
    await running
    with pytest.raises(UsageError, match="closed"):
        await waiting
    assert not second.started.is_set()


@every_loop
async def test_the_limiter_is_our_own_and_the_loop_has_one():
    from anyio import to_thread

    limiter = loop_limiters().few
    assert limiter is loop_limiters().few
    assert limiter is not to_thread.current_default_thread_limiter()
    assert limiter.total_tokens == THREADS
    work = Work()
    task = await begun(work)
    assert limiter.borrowed_tokens == 1
    work.go_on.set()
    await task
    assert limiter.borrowed_tokens == 0


def test_every_loop_has_its_own_limiter():
    async def mine():
        return loop_limiters().few

    assert asyncio.run(mine()) is not asyncio.run(mine())


@every_loop
async def test_a_thread_that_is_stuck_keeps_its_place():
    """Its caller has gone; the bound is on threads, not on callers."""
    limiter = anyio.CapacityLimiter(2)
    works = [Work(limiter) for _ in range(5)]
    tasks = [asyncio.create_task(work.in_thread(work.wait)) for work in works]
    await until(lambda: sum(work.started.is_set() for work in works) == 2)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert limiter.borrowed_tokens == 2
    late = Work(limiter)
    task = asyncio.create_task(late.in_thread(late.wait))
    await turns(5)
    assert not late.started.is_set()
    stuck = [work for work in works if work.started.is_set()]
    assert len(stuck) == 2
    late.go_on.set()
    stuck[0].go_on.set()
    assert await task == "done"
    stuck[1].go_on.set()
    await until(lambda: limiter.borrowed_tokens == 0)
