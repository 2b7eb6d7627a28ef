"""marks.py: a first attempt is marked by a name, a later one by a record; and what an error leaves."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import SpoolError
from smtp_async.spool.directory.lease_end import LeaseEnd
from smtp_async.spool.directory.limits import DirectoryLimits
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.spool.entry import State
from smtp_async.testing.contracts import QUEUED, TEXT, receipt_for
from tests.spool.directory.parts import Parts, die
from tests.spool.directory.test_claim import claimed, claimed_again
from tests.spool.directory.test_enqueue import watched


def names(path: Path) -> list[str]:
    return sorted(name.name.rpartition(".")[2] for name in path.iterdir() if name.is_file())


async def test_marks_of_first_attempts_share_one_sync(tmp_path: Path) -> None:
    files = watched()
    with Parts(tmp_path / "s", files) as parts:
        jobs = await claimed(parts, 5)
        files.steps.clear()
        assert parts.claims.mark(jobs) == [None] * 5
        assert files.steps == [*[("D1", "rename")] * 5, ("D1", "_sync_directory")]
        assert names(tmp_path / "s") == ["marked"] * 5
        assert all(locked.marked for locked in jobs)


async def test_a_later_attempt_is_marked_by_a_record(tmp_path: Path) -> None:
    """A name cannot tell to which attempt it belongs."""
    files = watched()
    with Parts(tmp_path / "s", files) as parts:
        first, (again,) = (await claimed(parts, 1))[0], await claimed_again(parts, 1)
        files.steps.clear()
        assert parts.claims.mark([again, first]) == [None, None]
        calls = [call for call in files.steps if call[0] == "D1"]
        assert calls == [("D1", "write"), ("D1", "rename"), ("D1", "_sync_directory"), ("D1", "_sync")]
        assert names(tmp_path / "s") == ["marked", "sending"]


async def test_marks_in_subdirectories_sync_those(tmp_path: Path) -> None:
    files = watched()
    with Parts(tmp_path / "s", files, limits=DirectoryLimits(root_files=0)) as parts:
        jobs = await claimed(parts, 2)
        files.steps.clear()
        assert parts.claims.mark(jobs) == [None, None]
        directories = {locked.path.partition("/")[0] for locked in jobs}
        assert files.steps.count(("D1", "_sync_directory")) == len(directories)


async def test_a_mark_whose_name_cannot_be_synced_is_none(tmp_path: Path) -> None:
    files = watched("D1", 3)
    with Parts(tmp_path / "s", files) as parts:
        jobs = await claimed(parts, 2)
        files.steps.clear()
        assert [type(error) for error in parts.claims.mark(jobs)] == [SpoolError] * 2
        assert not any(locked.marked for locked in jobs)
        assert parts.claims.end([parts.claims.release_end(locked) for locked in jobs]) == [None, None]
        assert names(tmp_path / "s") == ["queued"] * 2
        assert not any(parts.admin.entry(locked.entry.id).flagged for locked in jobs)


class Unsure(SystemCalls):
    """A network file system: the rename of a mark is made and reports an error, and so does looking for it."""

    calls = 0

    def call(self, step: str, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        result = super().call(step, function, *args, **named)
        if step == "D1" and function in (os.rename, os.stat):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return result


@pytest.mark.parametrize("state", [None, State.QUEUED, State.FAILED], ids=["settle", "release", "fail"])
async def test_a_mark_that_was_made_in_spite_of_its_error_keeps_no_end_from_its_job(
    tmp_path: Path, state: State | None
) -> None:
    with Parts(tmp_path / "s", Unsure) as parts:
        (locked,) = await claimed(parts, 1)
        assert isinstance(parts.claims.mark([locked])[0], SpoolError)
        assert names(tmp_path / "s") == ["marked"]
        assert parts.claims.end([LeaseEnd(locked, state)]) == [None]
        assert names(tmp_path / "s") == ([] if state is None else [state.value])


async def test_a_mark_may_be_repeated(tmp_path: Path) -> None:
    files = watched("D1", 2)
    with Parts(tmp_path / "s", files) as parts:
        (locked,) = await claimed(parts, 1)
        files.steps.clear()
        assert isinstance(parts.claims.mark([locked])[0], SpoolError)
        assert parts.claims.mark([locked]) == [None] and locked.marked
        assert files.steps.count(("D1", "rename")) == 1


async def test_jobs_that_are_claimed_marked_are_renamed_once(tmp_path: Path) -> None:
    files = watched()
    async with DirectorySpool(tmp_path / "s", create=True, syscalls=files) as spool:
        ids = [await spool.put(TEXT) for _ in range(3)]
        files.steps.clear()
        leases = await spool.claim(3, marked=True)
        assert files.steps.count(("C5", "rename")) == 3
        assert [call for call in files.steps if call[0] == "D1"] == [("D1", "_sync_directory")]
        assert names(tmp_path / "s") == ["marked"] * 3
        for lease in leases:
            await lease.mark_end_of_data()
            die(lease)
        assert sorted((await spool.recover()).flagged) == sorted(ids)


@pytest.mark.parametrize("durable", [True, False])
async def test_a_marked_job_is_shown_as_being_sent(tmp_path: Path, durable: bool) -> None:
    async with DirectorySpool(tmp_path / "s", create=True, durable=durable) as spool:
        id = await spool.put(TEXT, key="k")
        (lease,) = await spool.claim()
        await lease.mark_end_of_data()
        assert (await spool.get(id)).state is State.SENDING
        assert [entry.id async for entry in spool.list(State.SENDING)] == [id]
        assert (await spool.statistics()).sending == 1
        assert await spool.read(id) == TEXT
        assert await spool.put(TEXT, key="k") == id
        await lease.settle(receipt_for(lease, QUEUED))
        assert await spool.put(TEXT, key="k") == id
