"""Every system call of a spool fails once: nothing is lost, nothing is sent twice, and work goes on."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from smtp_async.errors import SpoolError, SpoolFull
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import FULL, SystemCalls
from smtp_async.spool.submission import JobOptions, job_id, submission
from smtp_async.testing.contracts import LATER, NEVER, QUEUED, TEXT, receipt_for
from tests.lab import sampled
from tests.spool.directory.parts import die, until_closed

SHORT = -1
#: Looking must not fail in the middle of these tests: what is found is what is checked.
LOOKING = ("L", "E0")


class Quick(SystemCalls):
    """Skip the real fsync: these tests check that it is called, not what a power failure would leave."""

    def call(self, step, function, /, *args, **named):
        if "sync" in function.__name__:
            return None
        return super().call(step, function, *args, **named)


class Faulty(Quick):
    """Makes the call of one number fail, once.

    Class attributes, because the spool makes the instance: the number of the call, the errno, and whether the
    call is made all the same.
    """

    number = 0
    fault = 0
    done_anyhow = False
    count = 0
    armed = False
    steps: list[str]

    def call(self, step, function, /, *args, **named):
        cls = type(self)
        if not cls.armed or step.startswith(LOOKING):
            return super().call(step, function, *args, **named)
        cls.count += 1
        cls.steps.append(f"{step} {function.__name__}")
        if cls.count != cls.number:
            return super().call(step, function, *args, **named)
        if cls.fault == SHORT:
            if function is not os.write:
                return super().call(step, function, *args, **named)
            # Half of the data is written; then the disk is full.
            os.write(args[0], bytes(args[1])[: len(args[1]) // 2])
            raise OSError(errno.ENOSPC, "full")
        if function is os.close or cls.done_anyhow:
            made = super().call(step, function, *args, **named)
            if function is os.open:
                os.close(made)
            elif function is os.scandir:
                made.close()
        raise OSError(cls.fault, os.strerror(cls.fault))


def faulty(number: int, fault: int, *, done_anyhow: bool = False) -> type[Faulty]:
    return type(
        "Once",
        (Faulty,),
        {
            "number": number,
            "fault": fault,
            "done_anyhow": done_anyhow,
            "count": 0,
            "armed": False,
            "steps": [],
        },
    )


class World:
    """What callers were promised, and what arrived at the server."""

    def __init__(self, spool: DirectorySpool) -> None:
        self.spool = spool
        self.promised: set[str] = set()
        self.arrived: list[str] = []
        self.refused: set[str] = set()
        self.failures = 0

    async def put(self, **options) -> None:
        try:
            self.promised.add(await self.spool.put(TEXT, **options))
        except SpoolError:
            self.failures += 1

    async def work(self) -> None:
        """A worker: deliver, defer once, fail what is refused, and go on after an error."""
        idle, now = 0, 2.0**33
        while idle < 3:
            # A file that could not be read is tried again half a minute later.
            now += 60
            leases = []
            try:
                await self.spool.recover()
                leases = await self.spool.claim(2, now=now)
            except SpoolError:
                self.failures += 1
                continue
            idle = 0 if leases else idle + 1
            for lease in leases:
                try:
                    await self.send(lease)
                except SpoolError:
                    self.failures += 1

    async def send(self, lease) -> None:
        try:
            await lease.mark_end_of_data()
        except SpoolError:
            self.failures += 1
            await lease.release()
            return
        if lease.entry.key is not None and lease.entry.attempts == 0:
            await lease.defer(receipt_for(lease, LATER), 5.0)
        elif lease.entry.expires == 7.0:
            self.refused.add(lease.entry.id)
            await lease.fail(receipt_for(lease, NEVER))
        else:
            self.arrived.append(lease.entry.id)
            await lease.settle(receipt_for(lease, QUEUED), keep=lease.entry.expires == 8.0)


async def story(path: Path, files: type[Faulty]) -> World:
    """Put, deliver, defer, fail and keep jobs with one fault on the way, and check the result."""
    async with DirectorySpool(path, syscalls=files, low_water=0) as spool:
        world = World(spool)
        # A job whose worker is dead, for recovery.
        await world.put(key="dead")
        [lease] = await spool.claim()
        die(lease)
        files.armed = True
        await world.put()
        await world.put(key="k")
        await world.put(key="k")
        await world.put(expires=7.0)
        await world.put(expires=8.0)
        await world.work()
        # Files of removed jobs are closed afterwards.
        await until_closed(path)
        files.armed = False
        await world.work()
        # A promised key is not sent again, unless there was no room for the key when its job ended.
        for key in ("dead", "k"):
            id = job_id(await submission(TEXT, options=JobOptions(key)))
            if id in world.promised:
                assert await spool.put(TEXT, key=key) == id
        forgotten = files.fault in FULL and files.steps[files.number - 1].startswith("S1 ")
        again = await spool.claim(9, now=2.0**34)
        assert len(again) <= forgotten
        for lease in again:
            await lease.settle(receipt_for(lease, QUEUED))
    return world


def check(world: World, path: Path) -> None:
    assert len(world.arrived) == len(set(world.arrived)), "nothing is sent twice"
    assert world.promised <= set(world.arrived) | world.refused, "nothing is lost"
    left = {one.name for one in path.iterdir() if one.is_file()}
    kept = {name.partition(".")[0] for name in left}
    assert all(name.endswith((".failed", ".sent")) for name in left), left
    assert kept <= set(world.arrived) | world.refused
    assert not any(one.stat().st_nlink > 1 for one in (path / "tmp").iterdir())


async def count_calls(path: Path) -> list[str]:
    files = faulty(0, 0)
    world = await story(path, files)
    assert world.failures == 0
    assert (len(world.promised), len(world.arrived), len(world.refused)) == (5, 4, 1)
    check(world, path)
    return files.steps


@pytest.mark.parametrize(
    ("fault", "done_anyhow", "first"),
    [
        ("ENOSPC", False, 0),
        ("EDQUOT", False, 1),
        ("EIO", False, 2),
        ("EIO", True, 0),
        ("EROFS", False, 1),
        ("EACCES", False, 2),
    ],
)
async def test_a_system_call_that_fails_once_loses_nothing(
    tmp_path: Path, fault: str, done_anyhow: bool, first: int
) -> None:
    (tmp_path / "well").mkdir(mode=0o700)
    steps = await count_calls(tmp_path / "well")
    assert len(set(steps)) >= 25, sorted(set(steps))
    for number in sampled(range(1, len(steps) + 1), 3, first=first):
        path = tmp_path / str(number)
        path.mkdir(mode=0o700)
        files = faulty(number, getattr(errno, fault), done_anyhow=done_anyhow)
        world = await story(path, files)
        assert files.count >= number
        try:
            check(world, path)
        except AssertionError as error:
            raise AssertionError(f"{fault} at call {number}, {steps[number - 1]}") from error


async def test_a_write_that_fails_half_way_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "well").mkdir(mode=0o700)
    steps = await count_calls(tmp_path / "well")
    writes = [number for number, step in enumerate(steps, 1) if step.endswith(" write")]
    assert len(writes) >= 10
    for number in writes:
        path = tmp_path / str(number)
        path.mkdir(mode=0o700)
        check(await story(path, faulty(number, SHORT)), path)


async def test_short_writes_are_no_error(tmp_path: Path) -> None:
    class Sluggish(SystemCalls):
        def call(self, step, function, /, *args, **named):
            if function is os.write:
                return os.write(args[0], bytes(args[1])[:7])
            if function is os.pread:
                return os.pread(args[0], min(args[1], 5), args[2])
            return super().call(step, function, *args, **named)

    async with DirectorySpool(tmp_path / "spool", create=True, syscalls=Sluggish) as spool:
        world = World(spool)
        await world.put()
        await world.put(key="k")
        assert await spool.read(next(iter(world.promised))) == TEXT
        await world.work()
        assert set(world.arrived) == world.promised


async def test_a_full_disk_raises_spool_full(tmp_path: Path) -> None:
    files = faulty(2, errno.ENOSPC)
    async with DirectorySpool(tmp_path / "spool", create=True, syscalls=files) as spool:
        files.armed = True
        with pytest.raises(SpoolFull) as caught:
            await spool.put(TEXT)
        assert caught.value.errno == errno.ENOSPC
        assert isinstance(caught.value.__cause__, OSError)
        assert await spool.claim() == []


class Stuck(SystemCalls):
    """A disk that became read-only: names cannot be changed any more."""

    stuck = False

    def call(self, step, function, /, *args, **named):
        if type(self).stuck and function in (os.unlink, os.rename):
            raise OSError(errno.EROFS, "read-only")
        return super().call(step, function, *args, **named)


async def test_no_job_is_claimed_while_ends_cannot_be_recorded(tmp_path: Path) -> None:
    class Disk(Stuck):
        elapsed = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.elapsed

    path = tmp_path / "spool"
    async with DirectorySpool(path, create=True, syscalls=Disk) as spool:
        for _ in range(3):
            await spool.put(TEXT)
        [one, two] = await spool.claim(2)
        Disk.stuck = True
        for lease in (one, two):
            with pytest.raises(SpoolError):
                await lease.settle(receipt_for(lease, QUEUED))
        for _ in range(2):
            with pytest.raises(SpoolError):
                await spool.claim()
        Disk.stuck = False
        # The pause before the next try is not over.
        with pytest.raises(SpoolError):
            await spool.claim()
        # No other process may send them either.
        async with DirectorySpool(path) as other:
            assert (await other.recover()).requeued == ()
        Disk.elapsed += 61
        [three] = await spool.claim(5)
        assert three.entry.id not in (one.entry.id, two.entry.id)
        # The call may be repeated, although the spool has recorded the end by itself.
        await one.settle(receipt_for(one, QUEUED))
        await three.settle(None)
        assert [name for name in os.listdir(path) if "." in name] == []


async def test_an_end_that_failed_can_be_repeated(tmp_path: Path) -> None:
    class Disk(Stuck): ...

    async with DirectorySpool(tmp_path / "spool", create=True, syscalls=Disk) as spool:
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        Disk.stuck = True
        with pytest.raises(SpoolError):
            await lease.defer(receipt_for(lease, LATER), 5.0)
        Disk.stuck = False
        await asyncio.gather(*[lease.defer(receipt_for(lease, LATER), 5.0) for _ in range(3)])
        assert (await spool.get(id)).attempts == 1


async def test_a_job_that_could_not_be_marked_is_not_flagged_after_its_release(tmp_path: Path) -> None:
    """The record was written and the sync failed, so the record may be on disk or not."""

    class Unsynced(SystemCalls):
        armed = True

        def call(self, step, function, /, *args, **named):
            if step == "D1" and function is not os.write and type(self).armed:
                raise OSError(errno.EIO, "bad block")
            return super().call(step, function, *args, **named)

    async with DirectorySpool(tmp_path / "spool", create=True, syscalls=Unsynced) as spool:
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        with pytest.raises(SpoolError):
            await lease.mark_end_of_data()
        Unsynced.armed = False
        await lease.release()
        assert not (await spool.get(id)).flagged
        Unsynced.armed = True
        with pytest.raises(SpoolError):
            await spool.claim(marked=True)
        Unsynced.armed = False
        [lease] = await spool.claim(now=2.0**33)
        assert not lease.entry.flagged


async def test_one_file_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    class Bad(SystemCalls):
        bad = ""

        def call(self, step, function, /, *args, **named):
            if step == "C1" and args[0].startswith(type(self).bad):
                raise OSError(errno.EIO, "bad block")
            return super().call(step, function, *args, **named)

    async with DirectorySpool(tmp_path / "spool", create=True, syscalls=Bad) as spool:
        Bad.bad, *others = [await spool.put(TEXT) for _ in range(3)]
        with pytest.raises(SpoolError):
            await spool.claim(5)
        assert [lease.entry.id for lease in await spool.claim(5)] == others


async def test_closing_with_a_broken_disk_ends(tmp_path: Path) -> None:
    class Disk(Stuck): ...

    spool = DirectorySpool(tmp_path / "spool", create=True, syscalls=Disk)
    await spool.put(TEXT)
    [lease] = await spool.claim()
    Disk.stuck = True
    with pytest.raises(SpoolError):
        await lease.settle(None)
    await spool.close()
    assert "ended" in repr(lease)
