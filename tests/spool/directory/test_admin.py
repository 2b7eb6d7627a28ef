"""admin.py: what operators see and change, and what they are refused."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import Busy, NoSuchJob, RecordInvalid, RecordNewer, UsageError
from smtp_async.spool.directory.due_queue import HELD_UNTIL
from smtp_async.spool.directory.lease_end import LeaseEnd
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.spool.entry import State
from smtp_async.testing.contracts import TEXT
from tests.spool.directory.parts import Parts


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts[SystemCalls]]:
    with Parts(tmp_path / "spool", SystemCalls) as parts:
        yield parts


def end(parts: Parts[Any], state: State) -> None:
    """End the one job that is due in this state."""
    (locked,) = parts.claim()
    assert parts.claims.end([LeaseEnd(locked, state)]) == [None]


# --- reading -------------------------------------------------------------------------------------------------


async def test_an_entry_and_its_message_are_read(parts: Parts[SystemCalls]) -> None:
    id = await parts.put(expires=2.0**33)
    entry = parts.admin.entry(id)
    assert (entry.id, entry.state, entry.size, entry.expires) == (id, State.QUEUED, len(TEXT), 2.0**33)
    assert parts.admin.message(id) == TEXT


async def test_a_job_that_is_being_sent_can_be_read_but_not_changed(parts: Parts[SystemCalls]) -> None:
    id = await parts.put()
    parts.claim()
    assert parts.admin.entry(id).state is State.SENDING and parts.admin.message(id) == TEXT
    for change in (parts.admin.hold, parts.admin.release, parts.admin.remove):
        with pytest.raises(Busy, match="is being sent"):
            change(id)
    with pytest.raises(Busy, match="is being sent"):
        parts.admin.requeue(id, None, None)


@pytest.mark.parametrize("id", ["", "no-such-job", "../etc/passwd", "a/b", ".", "x.queued\0", None])
async def test_an_id_of_no_job_is_refused(parts: Parts[SystemCalls], id: Any) -> None:
    for call in (parts.admin.entry, parts.admin.message, parts.admin.hold, parts.admin.remove):
        with pytest.raises(NoSuchJob):
            call(id)


async def test_a_job_whose_name_changes_between_lookup_and_opening_is_found(tmp_path: Path) -> None:
    class Moving(SystemCalls):
        moves = 2

        def open(self, step: str, name: str, *, write: bool = False) -> int:
            if step == "L7" and self.moves:
                self.moves -= 1
                new = name.replace(".queued", ".failed") if self.moves else name.replace(".failed", ".queued")
                self.rename("L7", name, new)
            return super().open(step, name, write=write)

    with Parts(tmp_path / "spool", Moving) as parts:
        id = await parts.put()
        assert parts.admin.entry(id).id == id
        assert parts.syscalls.moves == 0


async def test_names_are_those_of_one_state_or_of_all(parts: Parts[SystemCalls]) -> None:
    failed = await parts.put()
    end(parts, State.FAILED)
    queued = await parts.put()
    (parts.path / "README").touch()
    assert parts.admin.names("", State.QUEUED) == [f"{queued}.queued"]
    assert sorted(parts.admin.names("", None)) == sorted([f"{failed}.failed", f"{queued}.queued"])
    assert parts.admin.names("", State.SENT) == []


async def test_files_that_are_no_jobs_or_gone_are_left_out_of_a_list(parts: Parts[SystemCalls]) -> None:
    id = await parts.put()
    (parts.path / "bad.queued").write_bytes(b"not a job")
    (parts.path / "link.queued").symlink_to("/etc/passwd")
    names = [f"{id}.queued", "bad.queued", "gone.queued", "link.queued"]
    assert [entry.id for entry in parts.admin.entries(names)] == [id]
    assert (parts.path / "bad.queued").exists(), "a list changes nothing"


async def test_a_job_of_a_later_version_is_reported_by_a_list(parts: Parts[SystemCalls]) -> None:
    id = await parts.put()
    file = parts.path / f"{id}.queued"
    file.write_bytes(file.read_bytes().replace(b"SPOOL1 ", b"SPOOL2 ", 1))
    with pytest.raises(RecordNewer):
        parts.admin.entry(id)
    assert parts.admin.entries([file.name]) == []
    assert [(one.id, one.kept) for one in parts.files.unreadable()] == [(id, True)]


async def test_a_damaged_message_can_be_listed_and_not_read(parts: Parts[SystemCalls]) -> None:
    id = await parts.put()
    file = parts.path / f"{id}.queued"
    file.write_bytes(file.read_bytes().replace(TEXT, TEXT.swapcase()))
    assert parts.admin.entry(id).id == id
    with pytest.raises(RecordInvalid, match="SHA-256"):
        parts.admin.message(id)


# --- statistics ----------------------------------------------------------------------------------------------


async def test_statistics_of_an_empty_spool(parts: Parts[SystemCalls]) -> None:
    assert parts.admin.statistics() == (0, 0, 0, 0, 0, 0, None, None)


async def test_statistics_count_without_opening_a_job(tmp_path: Path) -> None:
    class Closed(SystemCalls):
        counting = False

        def open(self, step: str, name: str, *, write: bool = False) -> int:
            assert not self.counting
            return super().open(step, name, write=write)

    with Parts(tmp_path / "spool", Closed) as parts:
        before = time.time()
        await parts.put()
        end(parts, State.SENT)
        await parts.put()
        end(parts, State.FAILED)
        await parts.put()
        parts.claim()
        later = time.time() + 1000
        held, _ = await parts.put(), await parts.put(not_before=later)
        parts.admin.hold(held)
        (parts.path / "bad.queued").touch()
        assert parts.files.open_locked("C", "bad", State.QUEUED) is None
        parts.syscalls.counting = True
        counts = parts.admin.statistics()
    assert (counts.queued, counts.sending, counts.sent, counts.failed) == (2, 1, 1, 1)
    assert (counts.held, counts.quarantined) == (1, 1)
    assert counts.next_due == pytest.approx(later, abs=0.01)
    assert counts.oldest is not None and before <= counts.oldest <= time.time()


async def test_the_age_of_a_job_with_a_key_is_that_of_its_file(parts: Parts[SystemCalls]) -> None:
    """The id has no time in it."""
    before = time.time()
    await parts.put(key="k", not_before=before + 1000)
    oldest = parts.admin.statistics().oldest
    assert oldest is not None and before - 1 <= oldest <= time.time() + 1


# --- changing ------------------------------------------------------------------------------------------------


async def test_a_held_job_is_not_due_until_it_is_released(parts: Parts[SystemCalls]) -> None:
    id = await parts.put()
    parts.admin.hold(id)
    assert parts.admin.entry(id).held and parts.claim(now=HELD_UNTIL - 1) == []
    assert (parts.path / f"{id}.queued").stat().st_mtime == HELD_UNTIL
    parts.admin.release(id)
    assert not parts.admin.entry(id).held
    assert [locked.entry.id for locked in parts.claim()] == [id]


@pytest.mark.parametrize("state", [State.SENT, State.FAILED])
async def test_only_a_queued_job_can_be_held(parts: Parts[SystemCalls], state: State) -> None:
    id = await parts.put()
    end(parts, state)
    for change in (parts.admin.hold, parts.admin.release):
        with pytest.raises(UsageError, match=f"is not queued but {state.value}"):
            change(id)


async def test_other_processes_notice_a_change_by_the_mtime_of_the_directory(
    parts: Parts[SystemCalls],
) -> None:
    id = await parts.put()
    for change in (parts.admin.hold, parts.admin.release):
        os.utime(parts.path, (1, 1))
        change(id)
        assert parts.path.stat().st_mtime > 1


async def test_a_failed_job_is_queued_again(parts: Parts[SystemCalls]) -> None:
    id = await parts.put()
    end(parts, State.FAILED)
    when = time.time() + 50
    parts.admin.requeue(id, when, when + 10)
    entry = parts.admin.entry(id)
    assert (entry.state, entry.not_before, entry.expires) == (State.QUEUED, when, when + 10)
    assert parts.claim() == []
    assert [locked.entry.id for locked in parts.claim(now=when + 1)] == [id]


async def test_a_damaged_job_is_not_queued_again(parts: Parts[SystemCalls]) -> None:
    id = await parts.put()
    end(parts, State.FAILED)
    file = parts.path / f"{id}.failed"
    file.write_bytes(file.read_bytes().replace(TEXT, TEXT.swapcase()))
    with pytest.raises(RecordInvalid, match="cannot be sent any more"):
        parts.admin.requeue(id, None, None)
    assert file.exists()


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_removed_job_leaves_only_its_key(parts: Parts[SystemCalls], key: str | None) -> None:
    id = await parts.put(key=key)
    parts.admin.remove(id)
    with pytest.raises(NoSuchJob):
        parts.admin.entry(id)
    left = {
        str(one.relative_to(parts.path)): one.stat().st_size for one in parts.path.rglob("*") if one.is_file()
    }
    assert left == ({} if key is None else {f"keys/{id}": 0})


async def test_a_change_leaves_no_job_locked(parts: Parts[SystemCalls]) -> None:
    """Whether it succeeds or is refused."""
    failed = await parts.put()
    end(parts, State.FAILED)
    queued = await parts.put()
    parts.admin.hold(queued)
    with pytest.raises(UsageError):
        parts.admin.hold(failed)
    for path, state in ((queued, State.QUEUED), (failed, State.FAILED)):
        locked = parts.files.open_locked("O", path, state)
        assert locked is not None
        os.close(locked.fd)
