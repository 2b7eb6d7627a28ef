"""job_files.py: finding, opening, reading and renaming the files of jobs; files that are no jobs."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import Busy, RecordInvalid, RecordNewer
from smtp_async.spool.directory.job_files import (
    SMALL,
    LockedJob,
    NeedsThread,
    directories_changed_by_delete,
    file_name,
    hashed_directory,
)
from smtp_async.spool.directory.limits import DirectoryLimits
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.spool.entry import State
from smtp_async.testing.contracts import TEXT
from tests.spool.directory.parts import Parts

LARGE = TEXT + (b"y" * 70 + b"\r\n") * 2000


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts[SystemCalls]]:
    with Parts(tmp_path / "spool", SystemCalls) as parts:
        yield parts


def opened(parts: Parts[Any], id: str, state: State = State.QUEUED, **options: Any) -> LockedJob:
    locked = parts.files.open_locked("C", id, state, **options)
    assert locked is not None
    return locked


# --- finding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "marked"), [*[(state, False) for state in State], (State.SENDING, True)])
async def test_a_job_is_found_in_every_state(parts: Parts[SystemCalls], state: State, marked: bool) -> None:
    id = await parts.put()
    (parts.path / f"{id}.queued").rename(parts.path / file_name(id, state, marked=marked))
    assert parts.files.find(id) == (id, state, marked)
    assert parts.files.find("other") is None


async def test_a_job_is_found_in_its_subdirectory(tmp_path: Path) -> None:
    with Parts(tmp_path / "spool", SystemCalls, limits=DirectoryLimits(root_files=0)) as parts:
        id = await parts.put()
        path = f"{hashed_directory(id)}/{id}"
        assert parts.files.find(id) == (path, State.QUEUED, False)
        assert opened(parts, path).name == f"{path}.queued"


def test_subdirectories_have_two_hexadecimal_digits() -> None:
    found = {hashed_directory(str(number)) for number in range(5000)}
    assert len(found) == 256 and all(re.fullmatch("[0-9a-f]{2}", one) for one in found)


# --- opening -------------------------------------------------------------------------------------------------


async def test_a_job_has_one_holder(parts: Parts[SystemCalls]) -> None:
    id = await parts.put()
    locked = opened(parts, id)
    with pytest.raises(Busy, match="locked by another process"):
        parts.files.open_locked("C", id, State.QUEUED)
    os.close(locked.detach())
    assert locked.fd == -1
    assert opened(parts, id).entry.id == id


async def test_a_small_message_is_read_with_its_job_and_a_large_one_is_left(
    parts: Parts[SystemCalls],
) -> None:
    small, large = await parts.put(), await parts.put(LARGE)
    assert len(LARGE) > SMALL
    assert opened(parts, small).body == TEXT
    locked = opened(parts, large)
    assert (locked.body, locked.damage, locked.entry.size) == (None, "", len(LARGE))


async def test_a_large_message_is_not_read_in_the_event_loop(parts: Parts[SystemCalls]) -> None:
    id = await parts.put(LARGE)
    with pytest.raises(NeedsThread):
        parts.files.open_locked("C", id, State.QUEUED, inline=True)
    # And it was left unlocked.
    assert opened(parts, id).entry.id == id


async def test_a_job_whose_name_changes_before_it_is_locked_is_not_opened(tmp_path: Path) -> None:
    class Late(SystemCalls):
        def lock(self, step: str, fd: int) -> bool:
            (name,) = (one.name for one in path.glob("*.queued"))
            (path / name).rename(path / name.replace("queued", "sending"))
            return super().lock(step, fd)

    path = tmp_path / "spool"
    with Parts(path, Late) as parts:
        id = await parts.put()
        with pytest.raises(FileNotFoundError):
            parts.files.open_locked("C", id, State.QUEUED)
        assert (path / f"{id}.sending").exists()


@pytest.mark.parametrize("large", [False, True])
async def test_a_damaged_message_can_be_opened_and_says_so(parts: Parts[SystemCalls], large: bool) -> None:
    body = LARGE if large else TEXT
    id = await parts.put(body)
    file = parts.path / f"{id}.queued"
    file.write_bytes(file.read_bytes().replace(body, body.swapcase()))
    assert "SHA-256" in opened(parts, id).damage


async def test_a_job_by_more_names_than_a_crash_leaves_is_damaged(parts: Parts[SystemCalls]) -> None:
    id = await parts.put()
    os.link(parts.path / f"{id}.queued", parts.path / "second")
    locked = opened(parts, id)
    assert locked.damage == ""
    os.close(locked.detach())
    os.link(parts.path / f"{id}.queued", parts.path / "third")
    assert "has 3 names" in opened(parts, id).damage


# --- files that are no jobs ----------------------------------------------------------------------------------


def plant(file: Path, kind: str) -> None:
    if kind == "link":
        file.symlink_to("/etc/passwd")
    elif kind == "directory":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "empty":
        file.touch()
    else:
        file.write_bytes(os.urandom(1000))


@pytest.mark.parametrize("kind", ["link", "directory", "pipe", "empty", "noise"])
def test_what_is_no_job_goes_to_quarantine(parts: Parts[SystemCalls], kind: str) -> None:
    plant(parts.path / "x.queued", kind)
    assert parts.files.open_locked("C", "x", State.QUEUED) is None
    assert not os.path.lexists(parts.path / "x.queued")
    (kept,) = (parts.path / "quarantine").iterdir()
    assert kept.name.startswith("x.queued.")
    (told,) = parts.files.unreadable()
    assert (told.id, told.kept) == ("x", False) and told.reason
    assert parts.files.unreadable() == [], "each is reported once"


async def test_a_job_under_the_name_of_another_goes_to_quarantine(parts: Parts[SystemCalls]) -> None:
    id = await parts.put()
    (parts.path / f"{id}.queued").rename(parts.path / "other.queued")
    assert parts.files.open_locked("C", "other", State.QUEUED) is None
    assert "name of another job" in parts.files.unreadable()[0].reason


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_a_file_of_another_user_goes_to_quarantine(parts: Parts[SystemCalls]) -> None:
    id = await parts.put()
    os.chown(parts.path / f"{id}.queued", 12345, 12345)
    assert parts.files.open_locked("C", id, State.QUEUED) is None
    assert "another user" in parts.files.unreadable()[0].reason


def test_the_check_of_a_file(parts: Parts[SystemCalls], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    parts.files.check_file(os.stat(tmp_path / "file"))
    (tmp_path / "file").touch()
    parts.files.check_file(os.stat(tmp_path / "file"))
    with pytest.raises(RecordInvalid, match="not a regular file"):
        parts.files.check_file(os.stat(tmp_path))


@pytest.mark.parametrize("state", State)
async def test_a_job_of_a_later_version_is_left_alone_and_reported_while_it_is_pending(
    parts: Parts[SystemCalls], state: State
) -> None:
    id = await parts.put()
    file = parts.path / f"{id}.queued"
    data = file.read_bytes().replace(b"SPOOL1 ", b"SPOOL2 ", 1)
    file.unlink()
    file = parts.path / f"{id}.{state.value}"
    file.write_bytes(data)
    with pytest.raises(RecordNewer):
        parts.files.open_locked("C", id, state)
    assert file.read_bytes() == data
    pending = state in (State.QUEUED, State.SENDING)
    assert [one.id for one in parts.files.unreadable()] == [id] * pending
    file.unlink()
    parts.files.forget_ended_newer()
    assert parts.files.unreadable() == []


# --- changes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_rename_may_be_repeated(parts: Parts[SystemCalls], key: str | None) -> None:
    id = await parts.put(key=key)
    locked = opened(parts, id)
    for _ in range(2):
        locked.renamed(State.QUEUED)  # what an earlier try that reported an error leaves
        parts.files.rename("C5", locked, State.SENDING)
        assert locked.name == f"{id}.sending" and (parts.path / locked.name).exists()


async def test_a_rename_of_a_job_that_is_gone_is_an_error(parts: Parts[SystemCalls]) -> None:
    id = await parts.put()
    locked = opened(parts, id)
    (parts.path / f"{id}.queued").unlink()
    with pytest.raises(FileNotFoundError):
        parts.files.rename("C5", locked, State.SENDING)
    assert locked.state is State.QUEUED


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_deletion_may_be_repeated(parts: Parts[SystemCalls], key: str | None) -> None:
    id = await parts.put(key=key)
    locked = opened(parts, id)
    for _ in range(2):
        parts.files.delete("S1", locked)
    assert parts.files.find(id) is None
    assert (parts.path / "keys" / id).exists() is (key is not None)
    assert directories_changed_by_delete(locked) == (["keys", ""] if key else [""])


async def test_two_names_of_a_file_are_the_same_file(parts: Parts[SystemCalls]) -> None:
    id, other = await parts.put(), await parts.put()
    os.link(parts.path / f"{id}.queued", parts.path / "second")
    assert parts.files.is_same_file("E9", "second", f"{id}.queued")
    assert not parts.files.is_same_file("E9", "second", f"{other}.queued")
    assert not parts.files.is_same_file("E9", "missing", f"{id}.queued")


def test_the_directory_of_keys_may_be_missing_when_it_is_synced(parts: Parts[SystemCalls]) -> None:
    parts.files.sync_names("S2", "keys")
    with pytest.raises(FileNotFoundError):
        parts.files.sync_names("S2", "0a")
