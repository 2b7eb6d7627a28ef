"""syscalls.py: each call does what the protocol of the files relies on, and errors have the right class."""

import errno
import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import FileError, SpoolError, SpoolFull, SpoolUnsafe
from smtp_async.spool.directory.syscalls import SystemCalls, logged_errors, open_directory, translated


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir(mode=0o700)
    return tmp_path / "spool"


@pytest.fixture
def root(path: Path) -> Iterator[int]:
    root = open_directory(path, create=False)
    yield root
    os.close(root)


@pytest.fixture
def calls(root: int) -> SystemCalls:
    return SystemCalls(root)


class Failing(SystemCalls):
    """Every call of one function fails, and those that were made are counted."""

    def __init__(self, root: int, function: str = "", number: int = errno.EIO, **options: Any) -> None:
        super().__init__(root, **options)
        self.function, self.number = function, number
        self.made: list[str] = []

    def call(self, step: str, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        self.made.append(function.__name__)
        if function.__name__ == self.function:
            raise OSError(self.number, os.strerror(self.number))
        return super().call(step, function, *args, **named)


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_a_class_of_its_own(number: int) -> None:
    error = translated(OSError(number, "no"), "the job x")
    assert type(error) is SpoolFull and error.errno == number and "the job x" in str(error)


def test_other_errors_are_spool_errors() -> None:
    error = translated(OSError(errno.EIO, "no"), "the job x")
    assert type(error) is SpoolError and error.errno == errno.EIO
    assert translated(error, "again") is error


def test_errors_of_recovery_are_logged_unless_a_file_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    with logged_errors("x.sending"):
        raise FileNotFoundError
    assert caplog.records == []
    with logged_errors("x.sending"):
        raise OSError(errno.EIO, "bad block")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR and "x.sending" in record.getMessage()
    with pytest.raises(ValueError), logged_errors("x.sending"):
        raise ValueError


# --- the directory -------------------------------------------------------------------------------------------


def test_a_directory_is_created_for_its_owner_only(tmp_path: Path) -> None:
    os.close(open_directory(tmp_path / "new", create=True))
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    os.close(open_directory(tmp_path / "new", create=True))


@pytest.mark.parametrize("kind", ["missing", "file", "link", "writable"])
def test_a_directory_that_cannot_be_used_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.touch()
    elif kind == "link":
        place.symlink_to(tmp_path)
    elif kind == "writable":
        place.mkdir()
        place.chmod(0o777)
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    with pytest.raises(FileError if kind in ("missing", "file") else SpoolUnsafe):
        open_directory(place, create=False)
    assert sys.platform != "linux" or len(os.listdir("/proc/self/fd")) <= before


def test_a_directory_may_be_renamed_while_it_is_open(calls: SystemCalls, path: Path) -> None:
    path.rename(path.with_name("moved"))
    os.close(calls.create("E1", "x"))
    assert (path.with_name("moved") / "x").exists()


def test_a_subdirectory_is_made_once_and_checked_each_time(calls: SystemCalls, path: Path) -> None:
    calls.make_directory("E6", "0a")
    calls.make_directory("E6", "0a")
    assert stat.S_IMODE((path / "0a").stat().st_mode) == 0o700
    (path / "0a").chmod(0o770)
    with pytest.raises(SpoolUnsafe, match="mode is 770"):
        calls.make_directory("E6", "0a")
    (path / "0b").touch()
    with pytest.raises(SpoolUnsafe, match="not a directory"):
        calls.make_directory("E6", "0b")


def test_entries_are_listed_and_the_directory_is_closed(calls: SystemCalls, path: Path) -> None:
    for name in ("a", "b"):
        (path / name).touch()
    assert sorted(entry.name for entry in calls.entries("L2", "")) == ["a", "b"]
    if sys.platform == "linux":
        before = len(os.listdir("/proc/self/fd"))
        entries = calls.entries("L2", "")
        next(entries)
        entries.close()  # type: ignore[attr-defined]  # a generator
        assert len(os.listdir("/proc/self/fd")) <= before


def test_touching_a_directory_changes_its_mtime(calls: SystemCalls, path: Path) -> None:
    os.utime(path, (1, 1))
    calls.touch_directory("O7", "")
    assert abs(path.stat().st_mtime - time.time()) < 10


# --- files ---------------------------------------------------------------------------------------------------


def test_a_new_file_belongs_to_its_owner_only_and_is_never_an_old_one(calls: SystemCalls, path: Path) -> None:
    os.close(calls.create("E1", "x"))
    assert stat.S_IMODE((path / "x").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        calls.create("E1", "x")


def test_a_link_is_not_followed(calls: SystemCalls, path: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"x")
    before = (tmp_path / "target").stat()
    (path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError) as caught:
        calls.open("C1", "link", write=True)
    assert caught.value.errno in (errno.ELOOP, errno.EMLINK)
    calls.due_at("O6", "link", 5.0)
    found = calls.look("L4", "link")
    assert found is not None and stat.S_ISLNK(found.st_mode)
    assert (tmp_path / "target").stat().st_mtime == before.st_mtime


def test_opening_a_pipe_does_not_wait_for_its_writer(calls: SystemCalls, path: Path) -> None:
    os.mkfifo(path / "pipe")
    os.close(calls.open("C1", "pipe"))


class Short(SystemCalls):
    """Every read and write takes at most three octets."""

    def call(self, step: str, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        if function is os.write:
            return os.write(args[0], bytes(args[1])[:3])
        if function is os.pread:
            return os.pread(args[0], min(3, args[1]), args[2])
        return super().call(step, function, *args, **named)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 10])
def test_short_reads_and_writes_are_continued(root: int, path: Path, size: int) -> None:
    calls, data = Short(root), b"0123456789"[:size]
    fd = calls.create("E1", "x")
    calls.write("E2", fd, data)
    calls.close("E5", fd)
    assert (path / "x").read_bytes() == data
    fd = calls.open("C1", "x", write=True)
    assert calls.read("C4", fd, 100, 0) == data
    assert calls.read("C4", fd, 4, 2) == data[2:6]
    calls.empty("S5", fd)
    calls.close("S5", fd)
    assert (path / "x").read_bytes() == b""


def test_what_is_written_is_appended(calls: SystemCalls, path: Path) -> None:
    (path / "x").write_bytes(b"one")
    fd = calls.open("D1", "x", write=True)
    calls.write("D1", fd, b"two")
    os.close(fd)
    assert (path / "x").read_bytes() == b"onetwo"


def test_reserved_room_does_not_lengthen_a_file(calls: SystemCalls, path: Path) -> None:
    fd = calls.create("E1", "x")
    calls.write("E2", fd, b"x")
    calls.reserve("E3", fd, 1, 100_000)
    os.close(fd)
    status = (path / "x").stat()
    assert status.st_size == 1
    if sys.platform == "linux":
        assert status.st_blocks * 512 >= 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="the calls are of Linux")
@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOSPC])
def test_room_that_cannot_be_reserved_is_an_error_only_if_there_is_none(root: int, number: int) -> None:
    calls = Failing(root, "fallocate", number)
    fd = calls.create("E1", "x")
    try:
        if number == errno.ENOSPC:
            with pytest.raises(OSError, match="No space"):
                calls.reserve("E3", fd, 0, 10)
        else:
            calls.reserve("E3", fd, 0, 10)
        assert calls.made[-1] == "fallocate"
    finally:
        os.close(fd)


@pytest.mark.skipif(sys.platform != "linux", reason="the calls are of Linux")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.ESPIPE, errno.EIO])
def test_a_hint_that_is_not_taken_is_no_error_but_a_failed_write_is(root: int, number: int) -> None:
    calls = Failing(root, "sync_file_range", number)
    if number == errno.EIO:
        with pytest.raises(OSError):
            calls.begin_sync(root)
    else:
        calls.begin_sync(root)
    assert calls.made == ["sync_file_range"]


def test_nothing_is_synced_without_durability(root: int, path: Path) -> None:
    (path / "0a").mkdir()
    calls = Failing(root, durable=False)
    calls.sync("E4", root)
    calls.begin_sync(root)
    calls.sync_directory("E8", "")
    calls.sync_directory("E8", "0a")
    assert calls.made == []


def test_a_lock_belongs_to_one_open_file(calls: SystemCalls) -> None:
    first = calls.create("E1", "x")
    second = calls.open("C1", "x")
    assert calls.lock("C2", first) and not calls.lock("C2", second)
    os.close(first)
    assert calls.lock("C2", second)
    os.close(second)


def test_a_shared_job_is_marked_on_its_file(calls: SystemCalls) -> None:
    fd = calls.create("E1", "x")
    assert not calls.is_shared("E9", fd)
    calls.share("E6", "x")
    assert calls.is_shared("E9", fd)
    os.close(fd)


# --- names ---------------------------------------------------------------------------------------------------


def test_a_name_leads_to_its_file(calls: SystemCalls, path: Path) -> None:
    (path / "x").write_bytes(b"x")
    status = calls.look("L4", "x")
    assert status is not None and status.st_size == 1
    assert calls.look("L4", "y") is None and not calls.is_at("C3", "y", status)
    calls.link("E6", "x", "y")
    assert calls.is_at("C3", "y", status)
    with pytest.raises(FileExistsError):
        calls.link("E6", "x", "y")
    calls.unlink("E7", "x")
    calls.rename("C5", "y", "z")
    assert [one.name for one in path.iterdir()] == ["z"] and calls.is_at("C3", "z", status)


def test_a_file_is_due_at_its_mtime(calls: SystemCalls, path: Path) -> None:
    (path / "x").touch()
    calls.due_at("O6", "x", 4102444800.25)
    assert (path / "x").stat().st_mtime == 4102444800.25


def test_free_room_is_that_of_the_file_system(calls: SystemCalls, path: Path) -> None:
    found = os.statvfs(path)
    assert calls.free() == pytest.approx(found.f_bavail * found.f_frsize, rel=0.5)
