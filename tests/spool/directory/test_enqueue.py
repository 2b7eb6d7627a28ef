"""enqueue.py: messages that are put together behave like single ones, but share the syncs."""

import asyncio
import errno
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import SpoolError, SpoolFull
from smtp_async.spool.directory.enqueue import Stored
from smtp_async.spool.directory.job_files import SMALL
from smtp_async.spool.directory.limits import DirectoryLimits
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.spool.submission import NO_OPTIONS, JobOptions, Submission, submission
from smtp_async.testing.contracts import QUEUED, TEXT, receipt_for
from tests.spool.directory.parts import Parts

LARGE = TEXT + b"x" * 100 + (b"\r\n" + b"y" * 70) * 2000


class Watched(SystemCalls):
    """Records each call, and makes those of one step and number fail.

    Class attributes, because the spool makes the instance.
    """

    steps: list[tuple[str, str]]
    failing: tuple[str, int]
    error: int

    def call(self, step: str, function: Any, /, *args: Any, **named: Any) -> Any:
        cls = type(self)
        cls.steps.append((step, function.__name__))
        wanted, number = cls.failing
        if step == wanted and sum(1 for one, _ in cls.steps if one == step) == number:
            if function is os.close:
                super().call(step, function, *args, **named)
            raise OSError(cls.error, os.strerror(cls.error))
        return super().call(step, function, *args, **named)


def watched(step: str = "", number: int = 1, error: int = errno.EIO) -> type[Watched]:
    return type("Once", (Watched,), {"steps": [], "failing": (step, number), "error": error})


async def jobs(count: int, options: JobOptions = NO_OPTIONS) -> list[Submission]:
    return [
        await submission(TEXT + f"{number}".encode(), "a@example.com", ["b@example.org"], options=options)
        for number in range(count)
    ]


def files_in(path: Path) -> list[str]:
    return sorted(str(one.relative_to(path)) for one in path.rglob("*") if one.is_file())


async def test_a_batch_is_synced_before_any_of_its_jobs_has_a_name(tmp_path: Path) -> None:
    files = watched()
    with Parts(tmp_path / "s", files) as parts:
        batch = await jobs(3)
        files.steps.clear()
        stored = parts.enqueuer.put(batch)
        assert all(isinstance(one, Stored) for one in stored)
        steps = [step for step, _ in files.steps if step[0] == "E" and step != "E0"]
        assert steps == [*["E1", "E2", "E3"] * 3, *["E4", "E5"] * 3, *["E6", "E7"] * 3, "E8"]
        assert {locked.entry.id for locked in parts.claim(5)} == {one.id for one in stored}  # type: ignore[union-attr]


async def test_a_single_put_takes_the_steps_of_the_protocol(tmp_path: Path) -> None:
    files = watched()
    async with DirectorySpool(tmp_path / "s", create=True, syscalls=files) as spool:
        files.steps.clear()
        await spool.put(TEXT)
        assert [step for step, _ in files.steps if step[0] in "EH" and step != "E0"] == [
            f"E{number}" for number in range(1, 9)
        ]


@pytest.mark.parametrize("step", ["E1", "E2", "E3", "H1", "E4", "E5", "E6", "E7"])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
async def test_a_failed_system_call_affects_its_own_job_only(
    tmp_path: Path, step: str, number: int, error: int
) -> None:
    if step == "H1" and not sys.platform.startswith("linux"):
        pytest.skip("no such call")
    files = watched(step, number, error)
    path = tmp_path / "s"
    with Parts(path, files) as parts:
        files.steps.clear()
        results = parts.enqueuer.put(await jobs(3))
        wanted = SpoolFull if error == errno.ENOSPC else SpoolError
        for place, result in enumerate(results, 1):
            assert isinstance(result, wanted if place == number else Stored), f"{place}: {result}"
        stored = {f"{one.id}.queued" for one in results if isinstance(one, Stored)}
        assert set(files_in(path)) == stored
        leases = parts.claim(5)
        assert {f"{lease.entry.id}.queued" for lease in leases} == stored


async def test_all_names_are_removed_if_their_directory_cannot_be_synced(tmp_path: Path) -> None:
    files = watched("E8")
    path = tmp_path / "s"
    with Parts(path, files) as parts:
        results = parts.enqueuer.put(await jobs(3))
        assert all(isinstance(one, SpoolError) for one in results)
        assert files_in(path) == []
        assert parts.claim(5) == []


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
async def test_jobs_are_stored_where_the_sync_hint_is_unsupported(tmp_path: Path, error: int) -> None:
    files = watched("H1", 2, error)
    with Parts(tmp_path / "s", files) as parts:
        assert all(isinstance(one, Stored) for one in parts.enqueuer.put(await jobs(3)))
        assert ("H1", "sync_file_range") in files.steps or os.uname().sysname != "Linux"


class Few(SystemCalls):
    """System calls with a limit of three open files."""

    open_now = 0
    refused = 0

    def call(self, step: str, function: Any, /, *args: Any, **named: Any) -> Any:
        if step == "E1" and self.open_now == 3:
            self.refused += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.open_now += (step == "E1") - (step == "E5")
        return super().call(step, function, *args, **named)


async def test_a_batch_larger_than_the_limit_of_open_files_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Parts(path, Few) as parts:
        results = parts.enqueuer.put(await jobs(8))
        assert all(isinstance(one, Stored) for one in results)
        assert parts.syscalls.refused == 5
        assert len(files_in(path)) == 8
        assert len(parts.claim(10)) == 8


async def test_a_single_put_without_a_free_descriptor_fails(tmp_path: Path) -> None:
    files = watched("E1", 1, errno.EMFILE)
    with Parts(tmp_path / "s", files) as parts:
        [error] = parts.enqueuer.put(await jobs(1))
        assert isinstance(error, SpoolError) and error.errno == errno.EMFILE


async def test_two_puts_with_one_key_in_a_batch_are_one_job(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Parts(path, SystemCalls) as parts:
        results = parts.enqueuer.put(await jobs(3, JobOptions("k")))
        assert len({one.id for one in results if isinstance(one, Stored)}) == 1
        assert [one.path is None for one in results if isinstance(one, Stored)] == [False, True, True]
        assert len(files_in(path)) == 1


async def test_subdirectories_are_synced_once_each(tmp_path: Path) -> None:
    files, limits = watched(), DirectoryLimits(root_files=0)
    with Parts(tmp_path / "s", files, limits=limits) as parts:
        batch = await jobs(20)
        results = parts.enqueuer.put(batch)
        directories = {one.path.partition("/")[0] for one in results if isinstance(one, Stored) and one.path}
        synced = [name for step, name in files.steps if (step, name) == ("E8", "_sync_directory")]
        assert len(synced) == len(directories) > 1


async def test_concurrent_callers_share_a_call(tmp_path: Path) -> None:
    files = watched()
    async with DirectorySpool(tmp_path / "s", create=True, syscalls=files) as spool:
        ids = await asyncio.gather(*[spool.put(TEXT) for _ in range(30)])
        assert len(set(ids)) == 30
        syncs = sum(1 for step, name in files.steps if (step, name) == ("E8", "_sync_directory"))
        assert syncs < 30


class Batches(SystemCalls):
    """Records the sizes of the writes between two syncs of the directory by the same thread."""

    batches: list[list[int]]
    unfinished: dict[int, list[int]]

    def call(self, step: str, function: Any, /, *args: Any, **named: Any) -> Any:
        sizes = self.unfinished.setdefault(threading.get_ident(), [])
        if step == "E2":
            sizes.append(len(args[1]))
        elif step == "E8":
            self.batches.append(sizes.copy())
            sizes.clear()
        return super().call(step, function, *args, **named)


async def test_a_large_message_does_not_delay_small_ones(tmp_path: Path) -> None:
    """Large and small messages do not share a call."""
    files: type[Batches] = type("Once", (Batches,), {"batches": [], "unfinished": {}})
    async with DirectorySpool(tmp_path / "s", create=True, syscalls=files) as spool:
        assert len(LARGE) > SMALL
        await asyncio.gather(*[spool.put(LARGE if number % 2 else TEXT) for number in range(8)])
        # A large message is written apart from its header.
        large = [batch for batch in files.batches if max(batch) > SMALL]
        assert [len(batch) for batch in large] == [2] * 4
        assert sum(len(batch) for batch in files.batches if batch not in large) == 4
        for lease in await spool.claim(10):
            await lease.settle(receipt_for(lease, QUEUED))


@pytest.mark.parametrize("call", ["unlink", "_sync_directory"])
@pytest.mark.parametrize("done", [True, False])
async def test_a_withdrawn_job_is_not_reported_as_stored(tmp_path: Path, call: str, done: bool) -> None:
    """Although the disk reports an error for the last steps."""

    class Failing(SystemCalls):
        def call(self, step: str, function: Any, /, *args: Any, **named: Any) -> Any:
            if step != "E9" or function.__name__ != call:
                return super().call(step, function, *args, **named)
            if done:
                super().call(step, function, *args, **named)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "s"
    with Parts(path, Failing) as parts:
        enqueuer = parts.enqueuer
        [stored] = enqueuer.put(await jobs(1))
        assert isinstance(stored, Stored)
        assert enqueuer.withdraw(stored) == (files_in(path) == [])
