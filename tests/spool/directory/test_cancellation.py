"""A cancelled call has happened completely or not at all."""

import asyncio
import errno
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from smtp_async.errors import NoSuchJob, SpoolError
from smtp_async.spool.contract import Lease
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.spool.entry import State
from smtp_async.testing.contracts import LATER, QUEUED, TEXT, receipt_for
from smtp_async.testing.faults import CancelManner, CancelMoment, cancellations
from tests.lab import PATIENCE, turns
from tests.spool.directory.made import Made
from tests.spool.directory.test_spool import open_files

EVERY = [(manner, moment) for manner in CancelManner for moment in CancelMoment]


@pytest.fixture
async def spool(tmp_path: Path):
    async with DirectorySpool(tmp_path / "spool", create=True, low_water=0) as spool:
        yield spool


async def ids(spool: DirectorySpool, state: State | None = None) -> set[str]:
    return {entry.id async for entry in spool.list(state)}


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize(("manner", "moment"), EVERY)
async def test_a_cancelled_put_returns_its_id_or_leaves_nothing(
    spool: DirectorySpool, manner, moment, key
) -> None:
    returned = cancelled = 0
    async for run in cancellations(lambda: spool.put(TEXT, key=key), manner=manner, moment=moment):
        if run.cancelled:
            cancelled += 1
            assert await ids(spool) == set(), f"cancelled at await {run.at}"
        else:
            returned += 1
            assert await ids(spool) == {run.result}
            await spool.remove(run.result)
    assert returned and cancelled
    assert await spool.claim() == []


@pytest.mark.parametrize(("manner", "moment"), EVERY)
async def test_a_cancelled_put_with_a_known_key_removes_nothing(
    spool: DirectorySpool, manner, moment
) -> None:
    id = await spool.put(TEXT, key="k")
    async for _ in cancellations(lambda: spool.put(TEXT, key="k"), manner=manner, moment=moment):
        assert await ids(spool) == {id}


@pytest.mark.parametrize(("manner", "moment"), EVERY)
async def test_jobs_of_a_cancelled_claim_are_released(spool: DirectorySpool, manner, moment) -> None:
    id = await spool.put(TEXT)
    async for run in cancellations(lambda: spool.claim(5), manner=manner, moment=moment):
        leases = run.result if not run.cancelled else await spool.claim(5)
        [lease] = leases
        assert (lease.entry.id, lease.entry.attempts, lease.entry.flagged) == (id, 0, False)
        await lease.release()


@pytest.mark.parametrize("end", ["settle", "keep", "defer", "fail", "release", "mark_end_of_data"])
@pytest.mark.parametrize(("manner", "moment"), EVERY)
async def test_an_end_is_recorded_although_its_caller_is_cancelled(
    spool: DirectorySpool, manner, moment, end: str
) -> None:
    async def once() -> Lease:
        await spool.put(TEXT)
        [lease] = await spool.claim()
        return lease

    async def scenario() -> None:
        receipt = receipt_for(lease, LATER if end == "defer" else QUEUED)
        if end in ("settle", "keep"):
            await lease.settle(receipt, keep=end == "keep")
        elif end == "defer":
            await lease.defer(receipt, 5.0)
        elif end == "fail":
            await lease.fail(receipt)
        else:
            await getattr(lease, end)()

    lease = await once()
    async for run in cancellations(scenario, manner=manner, moment=moment):
        id = lease.entry.id
        if end == "settle":
            with pytest.raises(NoSuchJob):
                await spool.get(id)
        elif end == "mark_end_of_data":
            # The cancellation may have arrived before the call started.
            entry = await spool.get(id)
            assert entry.flagged or run.cancelled
            await lease.release()
            assert not (await spool.get(id)).flagged
            await spool.remove(id)
        else:
            wanted = {"keep": State.SENT, "fail": State.FAILED}.get(end, State.QUEUED)
            entry = await spool.get(id)
            assert (entry.state, entry.attempts) == (wanted, int(end != "release"))
            await spool.remove(id)
        lease = await once()


class Behind(SystemCalls):
    """System calls that do something when a `put` has made its last one."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.go_on = threading.Event()
        self.behind: Callable[[], None] | None = None

    def call(self, step: str, function: Any, /, *args: Any, **named: Any) -> Any:
        result = super().call(step, function, *args, **named)
        if step == "E8" and self.behind is not None:
            self.behind()
        return result


def with_a_worker(
    calls: Behind, other: DirectorySpool
) -> tuple[asyncio.Future[list[Lease]], threading.Event]:
    """Let `other` claim a job before its `put`, which makes `calls`, returns.

    Returns:
        The leases, and the event that lets the put go on.
    """
    loop = asyncio.get_running_loop()
    seen = loop.create_future()

    def claim() -> None:
        taken = asyncio.run_coroutine_threadsafe(other.claim(), loop).result()
        loop.call_soon_threadsafe(seen.set_result, taken)
        assert calls.go_on.wait(PATIENCE)

    calls.behind = claim
    return seen, calls.go_on


async def test_a_cancelled_put_that_a_worker_has_claimed_is_not_withdrawn(tmp_path: Path) -> None:
    """The call returns the id, and its task is cancelled at its next await."""

    path = tmp_path / "spool"
    made = Made(Behind)
    async with DirectorySpool(path, create=True, syscalls=made) as spool, DirectorySpool(path) as other:
        seen, go_on = with_a_worker(made.calls, other)
        told = []

        async def caller() -> None:
            told.append(await spool.put(TEXT))
            await asyncio.sleep(10)
            told.append("not cancelled")

        task = asyncio.ensure_future(caller())
        [lease] = await seen
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert told == [lease.entry.id]
        await lease.settle(receipt_for(lease, QUEUED))


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_time_limit_too_late_for_a_put_ends_with_its_block(tmp_path: Path, goes_on) -> None:
    """An await inside the block is cancelled; one behind the block is not."""
    path = tmp_path / "spool"
    made = Made(Behind)
    async with DirectorySpool(path, create=True, syscalls=made) as spool, DirectorySpool(path) as other:
        seen, go_on = with_a_worker(made.calls, other)
        loop = asyncio.get_running_loop()

        def expire(_: object) -> None:
            limit.reschedule(loop.time())
            loop.call_soon(go_on.set)

        id = None
        with suppress(TimeoutError) if goes_on else nullcontext():
            async with asyncio.timeout(None) as limit:
                seen.add_done_callback(expire)
                id = await spool.put(TEXT)
                if goes_on:
                    await asyncio.sleep(10)
                    raise AssertionError("it went on")
        assert limit.expired()
        [lease] = seen.result()
        assert id == lease.entry.id
        await turns()
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await lease.settle(receipt_for(lease, QUEUED))


# --- two puts with the same key, one of which is cancelled or fails -------------------------------------------


class Stopping(SystemCalls):
    """System calls in which the first fsync of a directory for a `put` waits and then may fail."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.error: OSError | None = None
        self.synced = 0

    def call(self, step: str, function: Any, /, *args: Any, **named: Any) -> Any:
        if step == "E8":
            if not self.begun.is_set():
                self.begun.set()
                assert self.go_on.wait(10)
                if self.error is not None:
                    raise self.error
            self.synced += 1
        return super().call(step, function, *args, **named)


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_a_second_put_with_the_same_key_keeps_the_job_if_the_first_is_cancelled(
    tmp_path: Path, how: str
) -> None:
    """A web handler whose client has disconnected, and the handler, in another process, of the repeated request."""
    path = tmp_path / "spool"
    one, two = Made(Stopping), Made(Stopping)
    async with (
        DirectorySpool(path, create=True, low_water=0, syscalls=one) as spool,
        DirectorySpool(path, low_water=0, syscalls=two) as other,
    ):
        files, others = one.calls, two.calls
        others.begun.set()
        first = asyncio.ensure_future(spool.put(TEXT, key="k"))
        await asyncio.to_thread(files.begun.wait, 10)
        id = await other.put(TEXT, key="k")
        # The second put did not rely on the first to sync the directory.
        assert others.synced == 1
        if how == "cancelled":
            first.cancel()
        else:
            files.error = OSError(errno.EIO, "no")
        files.go_on.set()
        with suppress(SpoolError, asyncio.CancelledError):
            assert await first == id
        assert await ids(spool) == {id}
        assert await spool.put(TEXT, key="k") == id


# --- cancelled tasks ------------------------------------------------------------------------------------------


async def test_a_timeout_is_a_timeout(tmp_path: Path) -> None:
    """The task's count of cancellation requests is right afterwards."""
    path, made = tmp_path / "spool", Made(Behind)
    async with DirectorySpool(path, create=True, syscalls=made) as spool:
        started = asyncio.Event()
        loop = asyncio.get_running_loop()
        released = made.calls.go_on

        def wait() -> None:
            loop.call_soon_threadsafe(started.set)
            assert released.wait(PATIENCE)

        made.calls.behind = wait
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                started_by = asyncio.ensure_future(started.wait())
                started_by.add_done_callback(lambda _: limit.reschedule(loop.time()))
                loop.call_later(0.05, released.set)
                await spool.put(TEXT)
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        assert await ids(spool) == set()


async def test_a_cancelled_anyio_scope_waits_without_a_busy_loop(spool: DirectorySpool) -> None:
    with anyio.move_on_after(0) as scope:
        await spool.put(TEXT)
    assert scope.cancelled_caught
    assert await ids(spool) == set()


async def test_more_callers_than_threads_can_be_cancelled(spool: DirectorySpool) -> None:
    tasks = [asyncio.ensure_future(spool.put(TEXT)) for _ in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    stored = {result for result in results if isinstance(result, str)}
    assert stored == await ids(spool)
    assert len(stored) >= 50
    await spool.put(TEXT)


def test_an_event_loop_that_ends_leaves_nothing_half_done(tmp_path: Path) -> None:
    """`asyncio.run` cancels the remaining tasks."""
    path = tmp_path / "spool"
    spool = DirectorySpool(path, create=True)
    told: list[str] = []

    async def one() -> None:
        told.append(await spool.put(TEXT))

    async def settle(lease) -> None:
        await lease.settle(receipt_for(lease, QUEUED))

    async def main() -> None:
        await spool.put(TEXT)
        [lease] = await spool.claim()
        for _ in range(20):
            asyncio.ensure_future(one())
        asyncio.ensure_future(settle(lease))
        await asyncio.sleep(0)

    async def left() -> set[str]:
        found = await ids(spool)
        await spool.close()
        return found

    asyncio.run(main())
    assert asyncio.run(left()) == set(told)


@pytest.mark.parametrize(("manner", "moment"), EVERY)
async def test_a_cancelled_close_is_completed(tmp_path: Path, manner, moment) -> None:
    """While other tasks put, claim and settle."""
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    spools: list[DirectorySpool] = []
    before = open_files()

    async def scenario() -> None:
        spool = DirectorySpool(path)
        spools.append(spool)
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(spool.put(TEXT)) for _ in range(3)]
        await spool.put(TEXT)
        [lease] = await spool.claim()
        tasks.append(asyncio.ensure_future(lease.settle(receipt_for(lease, QUEUED))))
        try:
            await spool.close()
        finally:
            await asyncio.gather(*tasks, return_exceptions=True)

    async for _ in cancellations(scenario, manner=manner, moment=moment):
        for spool in spools:
            await spool.close()
        async with DirectorySpool(path) as again:
            async for entry in again.list():
                assert entry.state is State.QUEUED
                await again.remove(entry.id)
        assert open_files() == before
