"""due_queue.py: the due jobs are found without opening files, in bounded memory, in spools of any size."""

import os
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from smtp_async.spool.directory.due_queue import HELD_UNTIL, DueQueue
from smtp_async.spool.directory.syscalls import SystemCalls, open_directory
from tests.lab import PATIENCE
from tests.spool.directory.clock import Clock, ClockCalls

NOW = 1000.0


class Counting(ClockCalls):
    """Count the system calls by step."""

    def __init__(self, root: int, **options) -> None:
        self.clock = Clock()
        super().__init__(root, clock=self.clock, **options)
        self.counts: dict[str, int] = {}

    def call(self, step, function, /, *args, **named):
        self.counts[step] = self.counts.get(step, 0) + 1
        return super().call(step, function, *args, **named)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir(mode=0o700)
    return tmp_path / "spool"


@pytest.fixture
def calls(path: Path):
    root = open_directory(path, create=False)
    yield Counting(root)
    os.close(root)


@pytest.fixture
def due_queue(calls: Counting) -> DueQueue:
    return DueQueue(calls, poll=1.0, most=10_000)


def take(due_queue: DueQueue, now: float, most: int) -> list[str]:
    """Return the paths of due jobs."""
    return [path for _, path in due_queue.take(now, most)]


def queue(path: Path, *names: str, when: float = 1.0, age: float = 100.0) -> None:
    """Create files that are due at `when`, with an mtime of their directories `age` seconds ago."""
    for name in names:
        file = path / f"{name}.queued"
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (when, when))
        for directory in {path, file.parent}:
            os.utime(directory, (time.time() - age,) * 2)


def test_the_longest_overdue_job_comes_first(path: Path, due_queue: DueQueue) -> None:
    queue(path, "b", when=2)
    queue(path, "a", when=3)
    queue(path, "0f/c", when=1)
    queue(path, "later", when=NOW + 1)
    assert take(due_queue, NOW, 2) == ["0f/c", "b"]
    assert take(due_queue, NOW, 5) == ["a"]
    assert take(due_queue, NOW, 5) == []
    assert due_queue.next_due(NOW) == NOW + 1
    assert take(due_queue, NOW + 2, 5) == ["later"]


def test_other_files_are_not_jobs(path: Path, due_queue: DueQueue) -> None:
    queue(path, "tmp/a", "quarantine/b", "0/c", "000/d", "xy/e")
    (path / "f.sending").touch()
    (path / "README").touch()
    assert take(due_queue, NOW, 9) == []
    assert due_queue.directories() == [""]


def test_quiet_directories_are_not_read_again(path: Path, due_queue: DueQueue, calls: Counting) -> None:
    queue(path, *[f"{number:02x}/{number}" for number in range(20)], when=NOW + 1)
    assert take(due_queue, NOW, 9) == []
    read = dict(calls.counts)
    assert read["L2"] >= 21 and read["L3"] == 20
    for _ in range(3):
        assert take(due_queue, NOW, 9) == []
    # The status of each directory is read, but not its contents.
    assert calls.counts["L1"] == read["L1"] + 3 * 21
    assert (calls.counts["L2"], calls.counts["L3"]) == (read["L2"], read["L3"])
    queue(path, "07/new", age=50)
    assert take(due_queue, NOW, 9) == ["07/new"]
    # The mtime of the root was set, too, so it is read again.
    assert calls.counts["L3"] == read["L3"] + 2


class Slow(Counting):
    """A disk on which a directory takes a second to read."""

    def call(self, step, function, /, *args, **named):
        if step == "L2":
            self.clock.advance(1.0)
        return super().call(step, function, *args, **named)


def test_a_slow_reading_is_repeated_after_ten_times_its_duration(path: Path) -> None:
    root = open_directory(path, create=False)
    try:
        calls = Slow(root)
        due_queue = DueQueue(calls, poll=0.01, most=100)
        assert take(due_queue, NOW, 9) == []
        duration = calls.counts["L2"]
        queue(path, "a", age=50)
        calls.clock.advance(9.0 * duration)
        assert take(due_queue, NOW, 9) == []
        calls.clock.advance(1.5 * duration)
        assert take(due_queue, NOW, 9) == ["a"]
    finally:
        os.close(root)


def test_a_change_in_the_same_tick_is_not_missed(path: Path, due_queue: DueQueue) -> None:
    for number in range(20):
        queue(path, str(number), age=0)
        assert take(due_queue, NOW, 9) == [str(number)]
        (path / f"{number}.queued").unlink()


def test_every_directory_is_read_again_once_a_minute(
    path: Path, calls: Counting, due_queue: DueQueue
) -> None:
    queue(path, "a", when=NOW + 50)
    assert take(due_queue, NOW, 9) == []
    os.utime(path / "a.queued", (1, 1))
    assert take(due_queue, NOW, 9) == []
    calls.clock.advance(61.0)
    assert take(due_queue, NOW, 9) == ["a"]


def test_a_busy_spool_finds_the_jobs_of_other_processes(
    path: Path, calls: Counting, due_queue: DueQueue
) -> None:
    queue(path, *[f"b{number}" for number in range(10)], when=10)
    assert take(due_queue, NOW, 1) == ["b0"]
    queue(path, "a", when=1, age=50)
    assert take(due_queue, NOW, 1) == ["b1"], "jobs are due, so the directories are not read yet"
    calls.clock.advance(2.0)
    assert take(due_queue, NOW, 1) == ["a"]


def test_every_job_is_found_although_few_fit_into_memory(path: Path, calls: Counting) -> None:
    due_queue = DueQueue(calls, poll=1.0, most=10)
    names = [f"{number % 7:02x}/{number:03d}" for number in range(200)]
    for place, name in enumerate(names):
        queue(path, name, when=float(place * 37 % 200 + 1))
    taken = []
    while found := take(due_queue, NOW, 3):
        taken += found
        for one in found:
            (path / f"{one}.queued").unlink()
    assert sorted(taken) == sorted(names)
    assert taken == sorted(names, key=lambda name: names.index(name) * 37 % 200)


def test_a_very_large_directory_takes_no_more_memory_than_a_large_one(path: Path) -> None:
    """The directory is simulated: twenty times as many files as are kept in memory, each due at another time."""

    class Endless(SystemCalls):
        def entries(self, step: str, name: str) -> Any:
            for number in range(40_000):
                status = SimpleNamespace(st_mtime=1.0 + number * 7919 % 40_009)
                stat = partial(lambda found, **_: found, status)
                yield SimpleNamespace(name=f"{number:052d}.queued", stat=stat)

    root = os.open(path, os.O_RDONLY)
    try:
        due_queue = DueQueue(Endless(root), poll=1.0, most=2_000)
        tracemalloc.start()
        taken = take(due_queue, 1e6, 3)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        os.close(root)
    assert [int(name) * 7919 % 40_009 for name in taken] == [0, 1, 2]
    assert most < 3 * 2**20


def test_pushed_jobs_that_do_not_fit_are_found_in_their_directory(path: Path, calls: Counting) -> None:
    due_queue = DueQueue(calls, poll=1.0, most=2)
    assert take(due_queue, NOW, 1) == []
    names = [f"{number}" for number in range(9)]
    for place, name in enumerate(names):
        queue(path, name, when=float(place + 1))
        due_queue.push(float(place + 1), name)
    taken = []
    while found := take(due_queue, NOW, 1):
        taken += found
        (path / f"{found[0]}.queued").unlink()
    assert taken == names


def test_the_latest_due_time_of_a_job_counts(path: Path, due_queue: DueQueue) -> None:
    due_queue.push(5.0, "a")
    due_queue.push(NOW + 9, "a")
    assert take(due_queue, NOW, 9) == []
    due_queue.push(7.0, "a")
    assert take(due_queue, NOW, 9) == ["a"]


def test_a_directory_that_disappears_is_ignored(path: Path, due_queue: DueQueue) -> None:
    queue(path, "0a/x", when=NOW + 5)
    assert take(due_queue, NOW, 1) == []
    (path / "0a" / "x.queued").unlink()
    (path / "0a").rmdir()
    assert take(due_queue, NOW, 1) == []
    assert due_queue.directories() == [""]


def test_a_push_does_not_wait_for_a_scan(
    path: Path, calls: Counting, due_queue: DueQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop pushes while a thread scans. The pushed time is newer than the one that the scan finds."""
    queue(path, "a", "b", when=NOW - 10)
    scanning, go_on = threading.Event(), threading.Event()
    entries = calls.entries

    def slow(step: str, name: str):
        scanning.set()
        assert go_on.wait(PATIENCE)
        return entries(step, name)

    monkeypatch.setattr(calls, "entries", slow)
    with ThreadPoolExecutor() as pool:
        scan = pool.submit(due_queue.next_due, NOW)
        assert scanning.wait(PATIENCE)
        pushed = pool.submit(due_queue.push, NOW + 60, "a")
        pushed.result(PATIENCE)
        assert not scan.done()
        go_on.set()
        assert scan.result(PATIENCE) == NOW - 10
    assert take(due_queue, NOW, 9) == ["b"]
    assert take(due_queue, NOW + 60, 9) == ["a"]


def test_pushes_of_many_threads_are_all_taken(due_queue: DueQueue) -> None:
    due_queue.next_due(NOW)
    with ThreadPoolExecutor() as pool:
        for n in range(2000):
            pool.submit(due_queue.push, NOW - 1, f"job{n}")
    assert len(take(due_queue, NOW, 5000)) == 2000


class ChangedInTheFuture(Counting):
    """System calls that report a ctime in the future."""

    changed = time.time() + 86400

    def call(self, step, function, /, *args, **named):
        found = super().call(step, function, *args, **named)
        if step != "L3":
            return found
        return SimpleNamespace(st_mtime=found.st_mtime, st_ctime=self.changed)


def test_a_due_time_written_by_a_clock_that_was_ahead_is_ignored(path: Path) -> None:
    now = time.time()
    queue(path, "ahead", when=now + 86400)
    queue(path, "held", when=HELD_UNTIL)
    root = open_directory(path, create=False)
    try:
        assert take(DueQueue(Counting(root), poll=1.0, most=100), now, 9) == []
        assert take(DueQueue(ChangedInTheFuture(root), poll=1.0, most=100), now, 9) == ["ahead"]
    finally:
        os.close(root)


def test_when_the_clock_is_set_back_every_job_is_due_once(
    path: Path, calls: Counting, due_queue: DueQueue
) -> None:
    now = time.time()
    queue(path, "a", "0a/b", when=now + 9 * 86400)
    queue(path, "held", when=HELD_UNTIL)
    calls.clock.wall = 86400.0
    assert take(due_queue, now, 9) == []
    calls.clock.wall = 0.0
    assert sorted(take(due_queue, now, 9)) == ["0a/b", "a"]
    for name in ("a", "0a/b"):
        due_queue.push(now + 9 * 86400, name)
    assert take(due_queue, now, 9) == []
