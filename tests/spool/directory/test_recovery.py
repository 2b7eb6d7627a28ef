"""recovery.py: what is forgotten in time, and what dead workers left of keys."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smtp_async.spool.directory import recovery
from smtp_async.spool.directory.lease import DirectoryLease
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import Files
from smtp_async.testing.contracts import QUEUED, TEXT, receipt_for


@pytest.fixture
async def spool(tmp_path: Path):
    async with DirectorySpool(tmp_path / "spool", create=True, low_water=0) as spool:
        yield spool


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are counted by every look."""
    monkeypatch.setattr(recovery, "COUNT_EACH", -1.0)


async def delivered(spool: DirectorySpool, key: str) -> Path:
    """Put and deliver a message; return the file that remembers its key."""
    id = await spool.put(TEXT, key=key)
    [lease] = await spool.claim()
    await lease.settle(receipt_for(lease, QUEUED))
    # Its file is emptied behind that.
    await spool._threads.wait_idle()
    return Path(spool._path) / "keys" / id


async def known(spool: DirectorySpool, key: str) -> bool:
    """Tell whether putting it adds nothing."""
    before = (await spool.statistics()).queued
    await spool.put(TEXT, key=key)
    return (await spool.statistics()).queued == before


async def test_a_key_is_remembered_as_an_empty_file(spool: DirectorySpool) -> None:
    before = time.time()
    file = await delivered(spool, "k")
    await spool.close()
    status = file.stat()
    assert (status.st_size, status.st_nlink, oct(status.st_mode)) == (0, 1, "0o100600")
    assert before - 1 <= status.st_mtime <= time.time() + 1


async def test_keys_that_are_too_old_are_forgotten(spool: DirectorySpool) -> None:
    old, new = await delivered(spool, "old"), await delivered(spool, "new")
    os.utime(old, (0, time.time() - spool.key_retention - 1))
    os.utime(new, (0, time.time() - spool.key_retention + 60))
    assert not await known(spool, "old"), "it is not known, although it is still there"
    await spool.recover()
    assert not old.exists() and new.exists()
    assert await known(spool, "new")


async def test_where_there_are_too_many_the_oldest_are_forgotten(
    spool: DirectorySpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "MAX_KEYS", 3)
    monkeypatch.setattr(recovery, "AT_ONCE", 2)
    files = [await delivered(spool, f"{number}") for number in range(8)]
    for number, file in enumerate(files):
        os.utime(file, (0, time.time() - 100 + number))
    os.utime(files[5], (0, time.time() - spool.key_retention - 1))
    await spool.recover()
    assert [number for number, file in enumerate(files) if file.exists()] == [4, 6, 7]


async def test_keys_are_counted_when_many_were_added(
    spool: DirectorySpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "COUNT_EACH", 1e9)
    monkeypatch.setattr(recovery, "MAX_KEYS", 10)
    spool._shelf.counted_at = time.monotonic()
    file = await delivered(spool, "0")
    os.utime(file, (0, 1))
    await spool.recover()
    assert file.exists()
    for number in range(1, 3):
        await delivered(spool, f"{number}")
    await spool.recover()
    assert not file.exists()


async def test_what_a_dead_worker_did_not_empty_is_emptied(spool: DirectorySpool) -> None:
    full, young = await delivered(spool, "k"), await delivered(spool, "young")
    for file in (full, young):
        file.write_bytes(TEXT)
    when = time.time() - 2 * recovery.EMPTIED
    os.utime(full, (0, when))
    await spool.recover()
    assert full.read_bytes() == b"" and young.read_bytes() == TEXT
    assert await known(spool, "k")


async def test_a_key_that_a_clock_ahead_has_stamped_is_forgotten_in_time(
    spool: DirectorySpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await delivered(spool, "k")
    ahead = time.time() + 10 * 365 * 86400
    os.utime(file, (0, ahead))
    await spool.recover()
    assert abs(file.stat().st_mtime - time.time()) < 60 and await known(spool, "k")
    later = time.time() + spool.key_retention + 60
    monkeypatch.setattr(time, "time", lambda: later)
    await spool.recover()
    assert not file.exists() and not await known(spool, "k")


async def test_a_key_whose_file_is_emptied_late_is_not_younger_for_that(spool: DirectorySpool) -> None:
    old, aged = await delivered(spool, "old"), await delivered(spool, "aged")
    for file, age in ((old, spool.key_retention + 60), (aged, spool.key_retention - 60)):
        file.write_bytes(TEXT)
        os.utime(file, (0, time.time() - age))
    before = aged.stat().st_mtime
    await spool.recover()
    assert not old.exists()
    assert aged.read_bytes() == b"" and abs(aged.stat().st_mtime - before) < 1


@pytest.mark.parametrize("step", ["T1", "T2", "F1", "F2", "F3", "F4", "F5", "K1"])
async def test_what_cannot_be_cleaned_does_not_hide_who_was_recovered(
    tmp_path: Path, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = False

    class Broken(Files):
        def call(self, here: str, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
            if broken and here == step:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().call(here, function, *args, **named)

    async with DirectorySpool(tmp_path / "spool", create=True, low_water=0, files=Broken) as spool:
        files = [await delivered(spool, key) for key in ("old", "full", "ahead")]
        files[1].write_bytes(TEXT)
        for file, age in zip(files, (2 * spool.key_retention, 2 * recovery.EMPTIED, -86400), strict=True):
            os.utime(file, (0, time.time() - age))
        abandoned = tmp_path / "spool" / "tmp" / "x"
        abandoned.touch()
        os.link(abandoned, tmp_path / "second")
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        assert isinstance(lease, DirectoryLease)
        spool._delivery.forget(lease._held)
        broken = True
        assert (await spool.recover()).requeued == (id,)
        broken = False
        assert "cannot be put in order" in caplog.text
        await spool.recover()
        assert not files[0].exists() and files[1].read_bytes() == b"" and not abandoned.exists()
        assert files[2].stat().st_mtime < time.time() + 60


async def test_it_is_logged_when_keys_are_forgotten_before_their_time(
    spool: DirectorySpool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recovery, "MAX_KEYS", 1)
    for key in ("1", "2", "3"):
        await delivered(spool, key)
    await spool.recover()
    assert "2 keys are forgotten before their time" in caplog.text


async def test_the_directory_of_keys_may_vanish_before_it_is_synced(tmp_path: Path) -> None:
    class Vanishing(Files):
        def sync_directory(self, step: str, name: str) -> None:
            if name == "keys":
                shutil.rmtree(tmp_path / "spool" / "keys")
            super().sync_directory(step, name)

    async with DirectorySpool(tmp_path / "spool", create=True, low_water=0, files=Vanishing) as spool:
        await delivered(spool, "k")
        await spool.remove(await spool.put(TEXT, key="k"))
        assert [entry async for entry in spool.list()] == []


async def test_a_key_that_was_made_anew_meanwhile_stays(tmp_path: Path) -> None:
    class Late(Files):
        def look(self, step: str, name: str) -> os.stat_result | None:
            if step == "F2":
                os.utime(tmp_path / "spool" / name)
            return super().look(step, name)

    async with DirectorySpool(tmp_path / "spool", create=True, low_water=0, files=Late) as spool:
        file = await delivered(spool, "k")
        os.utime(file, (0, 1))
        await spool.recover()
        assert file.exists() and await known(spool, "k")


async def test_strange_files_among_the_keys_are_passed_over(spool: DirectorySpool) -> None:
    file = await delivered(spool, "k")
    (file.parent / "directory").mkdir()
    (file.parent / "link").symlink_to("/nowhere")
    os.utime(file, (0, 1))
    await spool.recover()
    assert not file.exists() and len(list(file.parent.iterdir())) == 2


async def test_the_memory_of_keys_may_be_thrown_away_at_any_time(spool: DirectorySpool) -> None:
    file = await delivered(spool, "k")
    file.unlink()
    file.parent.rmdir()
    await spool.recover()
    assert not await known(spool, "k")
    [lease] = await spool.claim()
    await lease.settle(receipt_for(lease, QUEUED))
    assert file.exists() and await known(spool, "k")
