"""claim.py: marks and ends of many jobs, claims in the event loop, and closing."""

import asyncio
import errno
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import LeaseLost, NoSuchJob, RecordNewer, SpoolError
from smtp_async.spool.directory.claim import MAX_CLOSERS, MAX_REMOVED_OPEN
from smtp_async.spool.directory.job_files import LockedJob
from smtp_async.spool.directory.lease import DirectoryLease
from smtp_async.spool.directory.lease_end import LeaseEnd
from smtp_async.spool.directory.spool import MAX_INLINE_CLAIM, DirectorySpool
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.spool.entry import State
from smtp_async.spool.record import journal_record
from smtp_async.testing.contracts import QUEUED, TEXT, receipt_for
from tests.lab import PATIENCE, turns
from tests.spool.directory.made import Made
from tests.spool.directory.parts import Parts, open_files_of_gone_jobs, until_closed
from tests.spool.directory.test_enqueue import LARGE, Watched, watched
from tests.spool.directory.test_spool import open_files


async def leased(spool: DirectorySpool, count: int) -> list[DirectoryLease]:
    for _ in range(count):
        await spool.put(TEXT)
    leases = await spool.claim(count)
    assert len(leases) == count
    return [lease for lease in leases if isinstance(lease, DirectoryLease)]


async def claimed(parts: Parts[Any], count: int) -> list[LockedJob]:
    for _ in range(count):
        await parts.put()
    jobs = parts.claim(count)
    assert len(jobs) == count
    return jobs


async def claimed_again(parts: Parts[Any], count: int) -> list[LockedJob]:
    """Claim jobs that were tried before."""
    for locked in await claimed(parts, count):
        record = journal_record(r="untouched", n=locked.job.token, at=0.0)
        assert parts.claims.end([LeaseEnd(locked, State.QUEUED, record)]) == [None]
    jobs = parts.claim(count)
    assert len(jobs) == count
    return jobs


async def spool_of(tmp_path: Path, files: type[Watched]) -> DirectorySpool:
    return DirectorySpool(tmp_path / "s", create=True, syscalls=files)


async def test_marks_and_ends_share_one_sync_of_the_directory(tmp_path: Path) -> None:
    files = watched()
    with Parts(tmp_path / "s", files) as parts:
        jobs = await claimed(parts, 6)
        files.steps.clear()
        news = [locked if place % 2 else LeaseEnd(locked, None) for place, locked in enumerate(jobs)]
        assert parts.claims.update(news) == [None] * 6
        calls = [call for call in files.steps if call[0] in ("D1", "S1", "S2")]
        assert calls == [*[("D1", "rename")] * 3, *[("S1", "unlink")] * 3, ("S2", "_sync_directory")]
        for place, locked in enumerate(jobs):
            if place % 2:
                assert parts.admin.entry(locked.entry.id).flagged
            else:
                with pytest.raises(NoSuchJob):
                    parts.admin.entry(locked.entry.id)


async def test_all_results_are_written_before_the_first_is_synced(tmp_path: Path) -> None:
    """A server that defers every message: each job has its own record, and all share the syncs."""
    files = watched()
    with Parts(tmp_path / "s", files) as parts:
        jobs = await claimed(parts, 3)
        files.steps.clear()
        news = [
            LeaseEnd(locked, State.QUEUED, journal_record(r="untouched", n=1, at=0.0), when=9.0)
            for locked in jobs
        ]
        assert parts.claims.update([*news]) == [None] * 3
        calls = [call for call in files.steps if call[0] in ("S3", "H1", "S2")]
        hints = [("H1", "sync_file_range")] * 3 if ("H1", "sync_file_range") in calls else []
        each = [("S3", "_sync"), ("S3", "utime"), ("S3", "rename")]
        assert calls == [*[("S3", "write")] * 3, *hints, *each * 3, ("S2", "_sync_directory")]
        assert parts.admin.statistics().queued == 3


@pytest.mark.parametrize("call", range(1, 13))
async def test_a_result_that_cannot_be_recorded_keeps_only_its_own_job_locked(
    tmp_path: Path, call: int
) -> None:
    files = watched("S3", call)
    async with await spool_of(tmp_path, files) as spool:
        leases = await leased(spool, 3)
        files.steps.clear()
        results = await asyncio.gather(*[lease.defer(None, 0.0) for lease in leases], return_exceptions=True)
        assert sum(isinstance(result, SpoolError) for result in results) == 1
        for lease, result in zip(leases, results, strict=True):
            if isinstance(result, SpoolError):
                await lease.defer(None, 0.0)
        assert len(await spool.claim(5)) == 3


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6])
async def test_the_error_of_a_mark_is_raised_to_its_own_caller(tmp_path: Path, call: int) -> None:
    """The write or the sync of a later attempt fails; the other jobs may be sent."""
    files = watched("D1", call)
    with Parts(tmp_path / "s", files) as parts:
        jobs = await claimed_again(parts, 3)
        files.steps.clear()
        errors = parts.claims.mark(jobs)
        failed = (call - 1) % 3
        assert [isinstance(error, SpoolError) for error in errors] == [place == failed for place in range(3)]
        assert [locked.marked for locked in jobs] == [place != failed for place in range(3)]
        for locked in jobs:
            assert parts.claims.end([parts.claims.release_end(locked)]) == [None]
            assert not parts.admin.entry(locked.entry.id).flagged


async def test_an_end_that_fails_does_not_affect_marks_of_the_same_batch(tmp_path: Path) -> None:
    files = watched("S1", 1)
    with Parts(tmp_path / "s", files) as parts:
        one, other = await claimed(parts, 2)
        files.steps.clear()
        error, none = parts.claims.update([LeaseEnd(one, None), other])
        assert isinstance(error, SpoolError) and none is None
        assert other.marked


async def test_jobs_are_marked_where_the_sync_hint_is_unsupported(tmp_path: Path) -> None:
    files = watched("H1", 1, errno.ENOSYS)
    with Parts(tmp_path / "s", files) as parts:
        assert parts.claims.mark(await claimed_again(parts, 2)) == [None, None]


@pytest.mark.skipif(sys.platform != "linux", reason="no such call")
async def test_a_write_error_of_the_sync_hint_fails_the_mark(tmp_path: Path) -> None:
    """The system reports a write error once, to the first call that can."""
    files = watched("H1", 1)
    with Parts(tmp_path / "s", files) as parts:
        jobs = await claimed_again(parts, 2)
        failed, marked = parts.claims.mark(jobs)
        assert isinstance(failed, SpoolError) and marked is None
        assert [locked.marked for locked in jobs] == [False, True]


async def test_a_job_that_is_marked_twice_at_once_has_one_mark(tmp_path: Path) -> None:
    files = watched()
    async with await spool_of(tmp_path, files) as spool:
        [lease] = await leased(spool, 1)
        await asyncio.gather(lease.mark_end_of_data(), lease.mark_end_of_data())
        await lease.mark_end_of_data()
        assert (tmp_path / "s" / f"{lease.entry.id}.marked").exists()
        assert files.steps.count(("D1", "rename")) == 1


async def test_a_removed_file_is_closed_after_its_caller_was_told(tmp_path: Path) -> None:
    before = open_files()
    files = watched()
    async with await spool_of(tmp_path, files) as spool:
        leases = await leased(spool, 5)
        files.steps.clear()
        await asyncio.gather(*[lease.settle(receipt_for(lease, QUEUED)) for lease in leases])
        await until_closed(tmp_path / "s")
        assert files.steps.count(("S5", "close")) == 5
    assert open_files() <= before


class SlowToFree(SystemCalls):
    """A disk that takes longer to free a removed file than for any other operation."""

    most = now = 0

    def call(self, step: str, function: Any, /, *args: Any, **named: Any) -> Any:
        if step != "S5":
            return super().call(step, function, *args, **named)
        cls = type(self)
        cls.now += 1
        cls.most = max(cls.most, cls.now)
        time.sleep(0.005)
        cls.now -= 1
        return super().call(step, function, *args, **named)


async def test_the_number_of_removed_files_that_wait_to_be_closed_is_bounded(tmp_path: Path) -> None:
    files: type[SlowToFree] = type("NeedsThread", (SlowToFree,), {})
    async with DirectorySpool(tmp_path / "s", create=True, syscalls=files) as spool:
        leases = await leased(spool, 4 * MAX_REMOVED_OPEN)
        for lease in leases:
            await lease.settle(receipt_for(lease, QUEUED))
            # Those that wait, that of this lease, and those that are being closed.
            assert len(open_files_of_gone_jobs(tmp_path / "s")) <= MAX_REMOVED_OPEN + 1 + MAX_CLOSERS
        # And the call that waits for the others to be closed.
        assert files.most <= MAX_CLOSERS + 1


async def test_an_end_that_is_recorded_later_leaves_no_file_open(tmp_path: Path) -> None:
    files = watched("S1")
    async with await spool_of(tmp_path, files) as spool:
        [lease] = await leased(spool, 1)
        with pytest.raises(SpoolError):
            await lease.settle(receipt_for(lease, QUEUED))
        assert await spool.claim(1) == []
        assert open_files_of_gone_jobs(tmp_path / "s") == []


@pytest.mark.parametrize("state", [State.SENT, State.FAILED, State.QUEUED])
async def test_a_job_that_stays_is_unlocked_before_its_caller_is_told(tmp_path: Path, state: State) -> None:
    async with await spool_of(tmp_path, watched()) as spool:
        [lease] = await leased(spool, 1)
        if state is State.SENT:
            await lease.settle(receipt_for(lease, QUEUED), keep=True)
        elif state is State.FAILED:
            await lease.fail(None)
        else:
            await lease.release()
        # A locked job cannot be removed.
        await spool.remove(lease.entry.id)
        assert (await spool.statistics()).queued == 0


# --- claims without durability -------------------------------------------------------------------------------


class Whereabouts(SystemCalls):
    """System calls that record in which threads jobs are claimed."""

    threads: set[int]

    def call(self, step: str, function: Any, /, *args: Any, **named: Any) -> Any:
        if step == "C5":
            type(self).threads.add(threading.get_ident())
        return super().call(step, function, *args, **named)


async def claiming_threads(
    tmp_path: Path, bodies: list[bytes], n: int, *, durable: bool = False, key: str | None = None
) -> set[int]:
    """Return the threads of the second of two claims; the first reads the directories."""
    files: type[Whereabouts] = type("Here", (Whereabouts,), {"threads": set()})
    async with DirectorySpool(tmp_path / "s", create=True, durable=durable, poll=60, syscalls=files) as spool:
        await spool.put(TEXT)
        [first] = await spool.claim(1)
        await first.settle(receipt_for(first, QUEUED))
        files.threads.clear()
        ids = [
            await spool.put(body, sender="a@example.com", recipients=["b@example.org"], key=key)
            for body in bodies
        ]
        leases = await spool.claim(n)
        assert [lease.entry.id for lease in leases] == ids[: len(leases)] and leases
        rest = await spool.claim(n) if len(leases) < len(ids) else []
        assert [lease.entry.id for lease in leases + rest] == ids
    return files.threads


async def test_a_few_small_jobs_are_claimed_without_a_thread(tmp_path: Path) -> None:
    assert await claiming_threads(tmp_path, [TEXT] * 5, 10) == {threading.get_ident()}


@pytest.mark.parametrize(
    ("bodies", "n", "durable", "key"),
    [
        ([LARGE], 10, False, None),
        ([TEXT], 10, False, "k"),
        ([TEXT] * 5, MAX_INLINE_CLAIM + 1, False, None),
        ([TEXT] * 5, 10, True, None),
    ],
    ids=["large", "of a name that others may change", "many", "durable"],
)
async def test_claims_that_may_take_long_are_made_in_a_thread(
    tmp_path: Path, bodies: list[bytes], n: int, durable: bool, key: str | None
) -> None:
    threads = await claiming_threads(tmp_path, bodies, n, durable=durable, key=key)
    assert threads and threading.get_ident() not in threads


async def test_small_jobs_before_a_large_one_are_claimed_first_and_none_is_skipped(tmp_path: Path) -> None:
    threads = await claiming_threads(tmp_path, [TEXT, TEXT, LARGE, TEXT], 10)
    assert len(threads) == 2


@pytest.mark.parametrize(("body", "key"), [(LARGE, None), (TEXT, "k")], ids=["large", "with a key"])
async def test_jobs_that_need_a_thread_keep_their_place(tmp_path: Path, body: bytes, key: str | None) -> None:
    """For any number of small jobs before and after the large one."""
    async with DirectorySpool(tmp_path / "s", create=True, durable=False, poll=60) as spool:
        await spool.claim(1)
        envelope: dict[str, Any] = {"sender": "a@example.com", "recipients": ["b@example.org"]}
        ids = [await spool.put(TEXT, **envelope) for _ in range(2)]
        ids.append(await spool.put(body, **envelope, key=key))
        ids += [await spool.put(TEXT, **envelope) for _ in range(20)]
        order = []
        while leases := await spool.claim(3):
            order += [lease.entry.id for lease in leases]
            for lease in leases:
                await lease.settle(receipt_for(lease, QUEUED))
        assert order == ids


# --- leases while the spool closes ---------------------------------------------------------------------------


class GivingBack(SystemCalls):
    """System calls that wait before a job is released."""

    def __init__(self, root: int, **options: Any) -> None:
        super().__init__(root, **options)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def call(self, step: str, function: Any, /, *args: Any, **named: Any) -> Any:
        if function is os.rename and step == "S3":
            self.begun.set()
            assert self.go_on.wait(10)
        return super().call(step, function, *args, **named)


async def test_a_lease_that_is_settled_while_it_is_released_ends_in_one_way(tmp_path: Path) -> None:
    path = tmp_path / "s"
    made = Made(GivingBack)
    spool = DirectorySpool(path, create=True, syscalls=made)
    files = made.calls
    [lease] = await leased(spool, 1)
    await lease.mark_end_of_data()
    closing = asyncio.ensure_future(spool.close())
    await asyncio.to_thread(files.begun.wait, 10)
    settling = asyncio.ensure_future(lease.settle(receipt_for(lease, QUEUED)))
    await asyncio.wait({settling}, timeout=0.2)
    files.go_on.set()
    with pytest.raises(LeaseLost):
        await settling
    await closing
    async with DirectorySpool(path) as other:
        # The message may have been sent.
        [again] = await other.claim(5)
        assert again.entry.flagged


class SlowToMark(SystemCalls):
    """System calls that wait before a mark is written."""

    def __init__(self, root: int, **options: Any) -> None:
        super().__init__(root, **options)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def call(self, step: str, function: Any, /, *args: Any, **named: Any) -> Any:
        if step == "D1" and function is os.rename:
            self.begun.set()
            assert self.go_on.wait(PATIENCE)
            # The directory is closed afterwards, because another file may then have its descriptor.
            os.fstat(self.root)
        return super().call(step, function, *args, **named)


async def test_a_call_in_progress_is_completed_before_the_spool_is_closed(tmp_path: Path) -> None:
    path, made = tmp_path / "s", Made(SlowToMark)
    spool = DirectorySpool(path, create=True, syscalls=made)
    [lease] = await leased(spool, 1)
    marking = asyncio.ensure_future(lease.mark_end_of_data())
    await asyncio.to_thread(made.calls.begun.wait, PATIENCE)
    closing = asyncio.ensure_future(spool.close())
    await turns()
    assert not closing.done()
    made.calls.go_on.set()
    await marking
    await closing
    async with DirectorySpool(path) as other:
        [again] = await other.claim()
        assert again.entry.flagged


@pytest.mark.parametrize("durable", [True, False])
async def test_an_end_that_could_not_be_recorded_is_lost_when_the_spool_closes(
    tmp_path: Path, durable: bool
) -> None:

    class Broken(SystemCalls):
        def call(self, step: str, function: Any, /, *args: Any, **named: Any) -> Any:
            if step == "S1":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().call(step, function, *args, **named)

    spool = DirectorySpool(tmp_path / "s", create=True, durable=durable, syscalls=Broken)
    [lease] = await leased(spool, 1)
    with pytest.raises(SpoolError):
        await lease.settle(receipt_for(lease, QUEUED))
    await spool.close()
    async with asyncio.timeout(5):
        with pytest.raises(LeaseLost):
            await lease.settle(receipt_for(lease, QUEUED))


async def test_a_marked_job_stays_flagged_when_the_spool_closes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with DirectorySpool(path, create=True) as spool:
        marked, untouched = await leased(spool, 2)
        await marked.mark_end_of_data()
    async with DirectorySpool(path) as other:
        flagged = {lease.entry.id: lease.entry.flagged for lease in await other.claim(5)}
    assert flagged == {marked.entry.id: True, untouched.entry.id: False}


@pytest.mark.parametrize("key", ["k", None])
@pytest.mark.parametrize("how", ["claim", "repeat"])
async def test_the_event_loop_never_waits_for_an_end_that_is_retried(
    tmp_path: Path, key: str | None, how: str
) -> None:
    """The end may need the lock of keys, which another process or a waiting thread may have."""
    on_loop: list[str] = []
    failing = True
    loop = threading.get_ident()

    class Dead(SystemCalls):
        def call(self, step: str, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
            if step == "S1" and function in (os.rename, os.unlink):
                if failing:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                if threading.get_ident() == loop:
                    on_loop.append(step)
            return super().call(step, function, *args, **named)

    async with DirectorySpool(tmp_path / "s", create=True, durable=False, syscalls=Dead) as spool:
        await spool.put(TEXT, key=key)
        [lease] = await spool.claim()
        with pytest.raises(SpoolError):
            await lease.settle(receipt_for(lease, QUEUED))
        failing = False
        if how == "claim":
            assert await spool.claim() == []
        else:
            await lease.settle(receipt_for(lease, QUEUED))
        assert [entry async for entry in spool.list()] == []
    assert on_loop == []


async def test_the_event_loop_never_waits_for_a_thread_that_reads_directories(tmp_path: Path) -> None:
    """Not even when the event loop finds a job of a later version."""

    class Slow(SystemCalls):
        reading, go_on = threading.Event(), threading.Event()

        def call(self, step: str, function: Any, /, *args: Any, **named: Any) -> Any:
            if step == "L2":
                self.reading.set()
                assert self.go_on.wait(PATIENCE)
            return super().call(step, function, *args, **named)

    with Parts(tmp_path / "s", Slow, durable=False) as parts:
        thread = asyncio.ensure_future(asyncio.to_thread(parts.due_queue.next_due, 0.0))
        await asyncio.to_thread(Slow.reading.wait, PATIENCE)
        parts.files.skip_newer("x", State.QUEUED, RecordNewer("its version is 2"))
        assert [one.id for one in parts.files.unreadable()] == ["x"]
        assert parts.claims.claim(1, 0.0, marked=False, inline=True) == []
        Slow.go_on.set()
        await thread


@pytest.mark.parametrize("how", ["settle", "keep", "defer", "release"])
async def test_the_event_loop_never_waits_for_the_lock_of_keys(tmp_path: Path, how: str) -> None:
    """Another process may hold the lock and be suspended."""
    path = tmp_path / "s"
    async with DirectorySpool(path, create=True, durable=False) as spool:
        await spool.put(TEXT, key="k")
        [lease] = await spool.claim()
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            receipt = receipt_for(lease, QUEUED)
            if how in ("settle", "keep"):
                ending = asyncio.ensure_future(lease.settle(receipt, keep=how == "keep"))
            elif how == "defer":
                ending = asyncio.ensure_future(lease.defer(None, 5.0))
            else:
                ending = asyncio.ensure_future(lease.release())
            # The event loop runs.
            await turns()
        finally:
            os.close(lock)
        await ending
        assert (await spool.statistics()).sending == 0


async def test_after_the_clock_was_set_back_computed_waits_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs put for now, or deferred, while the clock was ahead are due; a time that the caller named is kept."""
    real = time.time
    async with DirectorySpool(tmp_path / "s", create=True, low_water=0) as spool:
        monkeypatch.setattr(time, "time", lambda: real() + 86400)
        deferred = await spool.put(TEXT)
        [lease] = await spool.claim()
        await lease.defer(None, time.time() + 60)
        fresh = await spool.put(TEXT)
        again = await spool.put(TEXT, not_before=time.time() + 1000)
        await spool.requeue(again)
        named = await spool.put(TEXT, not_before=real() + 3600)
        moved = await spool.put(TEXT)
        await spool.requeue(moved, not_before=real() + 2 * 86400)
        monkeypatch.setattr(time, "time", real)
        assert await spool.wait(10)
        claimed = {lease.entry.id for lease in await spool.claim(9)}
        assert claimed == {deferred, fresh, again}
        for id, when in ((named, 3600), (moved, 2 * 86400)):
            assert (await spool.get(id)).not_before == pytest.approx(real() + when, abs=60)
        assert await spool.claim(9) == []
        assert {lease.entry.id for lease in await spool.claim(9, now=real() + 3700)} == {named}


async def calls_of_a_delivery(tmp_path: Path, key: str | None) -> list[tuple[str, str]]:
    """Put and deliver a message, and return the system calls of the delivery."""
    files = watched()
    async with DirectorySpool(tmp_path / "s", create=True, syscalls=files) as spool:
        for number in range(2):
            await spool.put(TEXT, key=f"warm {number}" if key else None)
            [lease] = await spool.claim()
            await lease.settle(receipt_for(lease, QUEUED))
        await until_closed(tmp_path / "s")
        files.steps.clear()
        await spool.put(TEXT, key=key)
        [lease] = await spool.claim()
        await lease.mark_end_of_data()
        await lease.settle(receipt_for(lease, QUEUED))
        await until_closed(tmp_path / "s")
    return [call for call in files.steps if call[0][0] not in "LH" and call[1] != "fstatvfs"]


async def test_a_delivery_without_a_key_makes_no_call_for_keys(tmp_path: Path) -> None:
    steps = [step for step, _ in await calls_of_a_delivery(tmp_path, None)]
    put = [f"E{number}" for number in range(1, 9)]
    assert steps == [*put, "C1", "C2", "C3", "C3", "C4", "C5", "D1", "D1", "S1", "S2", "S5"]


async def test_without_syncs_a_removed_file_is_closed_with_its_end(tmp_path: Path) -> None:
    files = watched()
    async with DirectorySpool(tmp_path / "s", create=True, durable=False, syscalls=files) as spool:
        await spool.put(TEXT)
        [lease] = await spool.claim()
        files.steps.clear()
        await lease.mark_end_of_data()
        await lease.settle(receipt_for(lease, QUEUED))
        assert files.steps == [("D1", "rename"), ("S1", "unlink"), ("S5", "close")]


async def test_a_key_is_synced_before_its_job_is_gone_and_emptied_afterwards(tmp_path: Path) -> None:
    calls = [call for call in await calls_of_a_delivery(tmp_path, "k") if call[0][0] == "S"]
    assert calls == [
        ("S1", "utime"),
        ("S1", "rename"),
        ("S2", "open"),
        ("S2", "_sync_directory"),
        ("S2", "_sync_directory"),
        ("S5", "ftruncate"),
        ("S5", "close"),
    ]


@pytest.mark.parametrize("step", ["S1", "S2", "S5"])
@pytest.mark.parametrize("number", range(1, 9))
async def test_an_end_that_fails_does_not_forget_the_key(tmp_path: Path, step: str, number: int) -> None:
    """Whichever system call fails, the end is tried again, and there is no second job."""
    files = watched(step, number, errno.EIO)
    path = tmp_path / "s"
    async with DirectorySpool(path, create=True, syscalls=files) as spool:
        id = await spool.put(TEXT, key="k")
        [lease] = await spool.claim()
        try:
            await lease.settle(receipt_for(lease, QUEUED))
        except SpoolError:
            assert await spool.put(TEXT, key="k") == id
            await lease.settle(receipt_for(lease, QUEUED))
        assert await spool.put(TEXT, key="k") == id
        assert [entry.id async for entry in spool.list()] == []
        assert (path / "keys" / id).exists()


async def test_a_put_with_the_key_of_a_job_that_is_ending_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with DirectorySpool(path, create=True) as spool, DirectorySpool(path) as other:
        for number in range(30):
            id = await spool.put(TEXT, key=f"{number}")
            [lease] = await spool.claim()
            puts = [other.put(TEXT, key=f"{number}") for _ in range(4)]
            *ids, _ = await asyncio.gather(*puts, lease.settle(receipt_for(lease, QUEUED)))
            assert set(ids) == {id}
        assert [entry async for entry in spool.list()] == []
