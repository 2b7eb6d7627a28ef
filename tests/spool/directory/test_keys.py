"""keys.py: keys of jobs that are gone are remembered, and forgotten in time."""

import os
import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from smtp_async.spool.directory.keys import COUNT_INTERVAL, EMPTY_DELAY, KEYS_PER_LOCK
from smtp_async.spool.directory.limits import DirectoryLimits
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.testing.contracts import QUEUED, TEXT, receipt_for
from tests.spool.directory.clock import Clock, ClockCalls
from tests.spool.directory.parts import until_closed


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
async def spool(path: Path, clock: Clock, request: pytest.FixtureRequest):
    """A spool that remembers as many keys as the parameter says."""
    limits = DirectoryLimits(keys=getattr(request, "param", 1000))
    calls = partial(ClockCalls, clock=clock)
    async with DirectorySpool(path, create=True, low_water=0, limits=limits, syscalls=calls) as spool:
        yield spool


def remembering(keys: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("spool", [keys], indirect=True)


@pytest.fixture
def recover(spool: DirectorySpool, clock: Clock):
    """Recover the spool when it is time to count the keys."""

    async def recover() -> None:
        clock.monotonic += COUNT_INTERVAL + 1
        await spool.recover()

    return recover


async def delivered(spool: DirectorySpool, path: Path, key: str) -> Path:
    """Put and deliver a message, and return the file that remembers its key."""
    id = await spool.put(TEXT, key=key)
    [lease] = await spool.claim()
    await lease.settle(receipt_for(lease, QUEUED))
    # The file is emptied after the caller was told.
    await until_closed(path)
    return path / "keys" / id


async def known(spool: DirectorySpool, key: str) -> bool:
    """Return whether a `put` with the key adds no job."""
    before = (await spool.statistics()).queued
    await spool.put(TEXT, key=key)
    return (await spool.statistics()).queued == before


async def test_a_key_is_remembered_as_an_empty_file(spool: DirectorySpool, path: Path) -> None:
    before = time.time()
    file = await delivered(spool, path, "k")
    await spool.close()
    status = file.stat()
    assert (status.st_size, status.st_nlink, oct(status.st_mode)) == (0, 1, "0o100600")
    assert before - 1 <= status.st_mtime <= time.time() + 1


async def test_keys_that_are_too_old_are_forgotten(spool: DirectorySpool, path: Path, recover) -> None:
    old, new = await delivered(spool, path, "old"), await delivered(spool, path, "new")
    os.utime(old, (0, time.time() - spool.key_retention - 1))
    os.utime(new, (0, time.time() - spool.key_retention + 60))
    assert not await known(spool, "old"), "the key is too old, although its file still exists"
    await recover()
    assert not old.exists() and new.exists()
    assert await known(spool, "new")


@remembering(3)
async def test_the_oldest_of_too_many_keys_are_forgotten(spool: DirectorySpool, path: Path, recover) -> None:
    files = [await delivered(spool, path, f"{number}") for number in range(8)]
    for number, file in enumerate(files):
        os.utime(file, (0, time.time() - 100 + number))
    os.utime(files[5], (0, time.time() - spool.key_retention - 1))
    await recover()
    assert [number for number, file in enumerate(files) if file.exists()] == [4, 6, 7]


@remembering(3)
async def test_many_keys_are_forgotten_although_few_change_under_one_lock(
    spool: DirectorySpool, path: Path, recover
) -> None:
    await delivered(spool, path, "k")
    for number in range(2 * KEYS_PER_LOCK + 1):
        file = path / "keys" / f"{number:032x}"
        file.touch(mode=0o600)
        os.utime(file, (0, time.time() - 1000 + number))
    await recover()
    left = sorted(int(file.name, 16) for file in (path / "keys").iterdir() if file.name[0] == "0")
    assert left == [2 * KEYS_PER_LOCK - 1, 2 * KEYS_PER_LOCK]


@remembering(10)
async def test_keys_are_counted_early_when_many_were_added(spool: DirectorySpool, path: Path) -> None:
    await spool.recover()
    file = await delivered(spool, path, "0")
    os.utime(file, (0, 1))
    await spool.recover()
    assert file.exists()
    for number in range(1, 3):
        await delivered(spool, path, f"{number}")
    await spool.recover()
    assert not file.exists()


async def test_recovery_empties_what_a_dead_worker_did_not_empty(
    spool: DirectorySpool, path: Path, recover
) -> None:
    full, young = await delivered(spool, path, "k"), await delivered(spool, path, "young")
    for file in (full, young):
        file.write_bytes(TEXT)
    when = time.time() - 2 * EMPTY_DELAY
    os.utime(full, (0, when))
    await recover()
    assert full.read_bytes() == b"" and young.read_bytes() == TEXT
    assert await known(spool, "k")


async def test_a_key_from_a_clock_that_was_ahead_is_forgotten_in_time(
    spool: DirectorySpool, path: Path, clock: Clock, recover
) -> None:
    file = await delivered(spool, path, "k")
    ahead = time.time() + 10 * 365 * 86400
    os.utime(file, (0, ahead))
    await recover()
    assert abs(file.stat().st_mtime - time.time()) < 60 and await known(spool, "k")
    clock.advance(spool.key_retention + 60)
    await recover()
    assert not file.exists() and not await known(spool, "k")


async def test_emptying_a_file_late_does_not_prolong_its_key(
    spool: DirectorySpool, path: Path, recover
) -> None:
    old, aged = await delivered(spool, path, "old"), await delivered(spool, path, "aged")
    for file, age in ((old, spool.key_retention + 60), (aged, spool.key_retention - 60)):
        file.write_bytes(TEXT)
        os.utime(file, (0, time.time() - age))
    before = aged.stat().st_mtime
    await recover()
    assert not old.exists()
    assert aged.read_bytes() == b"" and abs(aged.stat().st_mtime - before) < 1


@remembering(1)
async def test_keys_that_are_forgotten_early_are_logged(
    spool: DirectorySpool, path: Path, recover, caplog: pytest.LogCaptureFixture
) -> None:
    for key in ("1", "2", "3"):
        await delivered(spool, path, key)
    await recover()
    assert "2 keys are forgotten early" in caplog.text


async def test_the_directory_of_keys_may_vanish_before_it_is_synced(tmp_path: Path) -> None:
    class Vanishing(SystemCalls):
        def sync_directory(self, step: str, name: str) -> None:
            if name == "keys":
                shutil.rmtree(tmp_path / "spool" / "keys")
            super().sync_directory(step, name)

    async with DirectorySpool(tmp_path / "spool", create=True, low_water=0, syscalls=Vanishing) as spool:
        await delivered(spool, tmp_path / "spool", "k")
        await spool.remove(await spool.put(TEXT, key="k"))
        assert [entry async for entry in spool.list()] == []


async def test_a_key_that_was_renewed_meanwhile_stays(tmp_path: Path) -> None:
    class Late(SystemCalls):
        def look(self, step: str, name: str) -> os.stat_result | None:
            if step == "F2":
                os.utime(tmp_path / "spool" / name)
            return super().look(step, name)

    async with DirectorySpool(tmp_path / "spool", create=True, low_water=0, syscalls=Late) as spool:
        file = await delivered(spool, tmp_path / "spool", "k")
        os.utime(file, (0, 1))
        await spool.recover()
        assert file.exists() and await known(spool, "k")


async def test_other_files_among_the_keys_are_ignored(spool: DirectorySpool, path: Path, recover) -> None:
    file = await delivered(spool, path, "k")
    (file.parent / "directory").mkdir()
    (file.parent / "link").symlink_to("/nowhere")
    os.utime(file, (0, 1))
    await recover()
    assert not file.exists() and len(list(file.parent.iterdir())) == 2


async def test_the_directory_of_keys_may_be_removed_at_any_time(
    spool: DirectorySpool, path: Path, recover
) -> None:
    file = await delivered(spool, path, "k")
    file.unlink()
    file.parent.rmdir()
    await recover()
    assert not await known(spool, "k")
    [lease] = await spool.claim()
    await lease.settle(receipt_for(lease, QUEUED))
    assert file.exists() and await known(spool, "k")
