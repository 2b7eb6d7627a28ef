"""due_queue.py: which jobs are due, without opening files, in bounded memory, however many there are."""

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

from smtp_async.spool.directory import due_queue as module
from smtp_async.spool.directory.due_queue import HELD, Lineup
from smtp_async.spool.directory.syscalls import Files, open_directory
from tests.lab import PATIENCE

NOW = 1000.0


class Counting(Files):
    """Count the looks."""

    def __init__(self, root: int, **options) -> None:
        super().__init__(root, **options)
        self.counts: dict[str, int] = {}

    def call(self, step, function, /, *args, **named):
        self.counts[step] = self.counts.get(step, 0) + 1
        return super().call(step, function, *args, **named)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir(mode=0o700)
    return tmp_path / "spool"


@pytest.fixture
def files(path: Path):
    root = open_directory(path, create=False)
    yield Counting(root)
    os.close(root)


@pytest.fixture
def lineup(files: Counting) -> Lineup:
    return Lineup(files, poll=1.0)


def take(lineup: Lineup, now: float, most: int) -> list[str]:
    """Return the paths only."""
    return [path for _, path in lineup.take(now, most)]


def queue(path: Path, *names: str, when: float = 1.0, age: float = 100.0) -> None:
    """Make files that are due at `when`, and let their directories look as if that was long ago."""
    for name in names:
        file = path / f"{name}.queued"
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (when, when))
        for directory in {path, file.parent}:
            os.utime(directory, (time.time() - age,) * 2)


def test_what_is_due_longest_comes_first(path: Path, lineup: Lineup) -> None:
    queue(path, "b", when=2)
    queue(path, "a", when=3)
    queue(path, "0f/c", when=1)
    queue(path, "later", when=NOW + 1)
    assert take(lineup, NOW, 2) == ["0f/c", "b"]
    assert take(lineup, NOW, 5) == ["a"]
    assert take(lineup, NOW, 5) == []
    assert lineup.next_due(NOW) == lineup.known_due() == NOW + 1
    assert take(lineup, NOW + 2, 5) == ["later"]


def test_other_files_are_not_jobs(path: Path, lineup: Lineup) -> None:
    queue(path, "tmp/a", "quarantine/b", "0/c", "000/d", "xy/e")
    (path / "f.sending").touch()
    (path / "README").touch()
    assert take(lineup, NOW, 9) == []
    assert lineup.directories() == [""]


def test_quiet_directories_are_not_read_again(path: Path, lineup: Lineup, files: Counting) -> None:
    queue(path, *[f"{number:02x}/{number}" for number in range(20)], when=NOW + 1)
    assert take(lineup, NOW, 9) == []
    read = dict(files.counts)
    assert read["L2"] >= 21 and read["L3"] == 20
    for _ in range(3):
        assert take(lineup, NOW, 9) == []
    # One look at each directory, none into it.
    assert files.counts["L1"] == read["L1"] + 3 * 21
    assert (files.counts["L2"], files.counts["L3"]) == (read["L2"], read["L3"])
    queue(path, "07/new", age=50)
    assert take(lineup, NOW, 9) == ["07/new"]
    # The root looks changed, too, since its own time was set.
    assert files.counts["L3"] == read["L3"] + 2


def test_a_change_in_the_same_tick_is_not_missed(path: Path, lineup: Lineup) -> None:
    for number in range(20):
        queue(path, str(number), age=0)
        assert take(lineup, NOW, 9) == [str(number)]
        (path / f"{number}.queued").unlink()


def test_everything_is_read_again_once_a_minute(path: Path, lineup: Lineup, monkeypatch) -> None:
    queue(path, "a", when=NOW + 50)
    assert take(lineup, NOW, 9) == []
    os.utime(path / "a.queued", (1, 1))
    assert take(lineup, NOW, 9) == []
    monkeypatch.setattr(module, "ALL_AGAIN", 0.0)
    assert take(lineup, NOW, 9) == ["a"]


def test_a_busy_spool_does_not_forget_the_jobs_of_others(path: Path, lineup: Lineup, monkeypatch) -> None:
    queue(path, *[f"b{number}" for number in range(10)], when=10)
    assert take(lineup, NOW, 1) == ["b0"]
    queue(path, "a", when=1, age=50)
    assert take(lineup, NOW, 1) == ["b1"], "there is enough to do"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2)
    assert take(lineup, NOW, 1) == ["a"]


def test_memory_is_bounded_and_nothing_is_forgotten(path: Path, lineup: Lineup, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    names = [f"{number % 7:02x}/{number:03d}" for number in range(200)]
    for place, name in enumerate(names):
        queue(path, name, when=float(place * 37 % 200 + 1))
    taken = []
    while found := take(lineup, NOW, 3):
        taken += found
        assert len(lineup._when) <= 20 and len(lineup._heap) <= 20
        for one in found:
            (path / f"{one}.queued").unlink()
    assert sorted(taken) == sorted(names)
    assert taken == sorted(names, key=lambda name: names.index(name) * 37 % 200)


def test_a_very_large_directory_takes_no_more_memory_than_a_large_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is made up: twenty times as many files as are kept in mind, each due at another time."""
    monkeypatch.setattr(module, "MOST", 2_000)

    class Endless(Files):
        def entries(self, step: str, name: str) -> Any:
            for number in range(40_000):
                status = SimpleNamespace(st_mtime=1.0 + number * 7919 % 40_009)
                stat = partial(lambda found, **_: found, status)
                yield SimpleNamespace(name=f"{number:052d}.queued", stat=stat)

    root = os.open(path, os.O_RDONLY)
    try:
        lineup = Lineup(Endless(root), poll=1.0)
        tracemalloc.start()
        taken = take(lineup, 1e6, 3)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        os.close(root)
    assert [int(name) * 7919 % 40_009 for name in taken] == [0, 1, 2]
    assert len(lineup._when) <= 2 * module.MOST
    assert most < 3 * 2**20


def test_what_is_pushed_beyond_the_bound_is_found_in_its_directory(
    path: Path, lineup: Lineup, monkeypatch
) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    assert take(lineup, NOW, 1) == []
    names = [f"{number}" for number in range(9)]
    for place, name in enumerate(names):
        queue(path, name, when=float(place + 1))
        lineup.push(float(place + 1), name)
    taken = []
    while found := take(lineup, NOW, 1):
        taken += found
        (path / f"{found[0]}.queued").unlink()
    assert taken == names


def test_a_job_may_be_moved_in_time(path: Path, lineup: Lineup) -> None:
    lineup.push(5.0, "a")
    lineup.push(NOW + 9, "a")
    assert take(lineup, NOW, 9) == []
    lineup.push(7.0, "a")
    assert take(lineup, NOW, 9) == ["a"]
    lineup.push(8.0, "b")
    lineup.drop("b")
    assert take(lineup, NOW, 9) == []


def test_a_directory_that_disappears_is_no_harm(path: Path, lineup: Lineup) -> None:
    queue(path, "0a/x", when=NOW + 5)
    assert take(lineup, NOW, 1) == []
    (path / "0a" / "x.queued").unlink()
    (path / "0a").rmdir()
    assert take(lineup, NOW, 1) == []
    assert lineup.directories() == [""]


def test_a_push_does_not_wait_for_a_scan(path: Path, files: Counting, lineup: Lineup, monkeypatch) -> None:
    """The event loop pushes, a thread scans; what was pushed meanwhile is newer than what the scan finds."""
    queue(path, "a", "b", when=NOW - 10)
    scanning, go_on = threading.Event(), threading.Event()
    entries = files.entries

    def slow(step: str, name: str):
        scanning.set()
        assert go_on.wait(PATIENCE)
        return entries(step, name)

    monkeypatch.setattr(files, "entries", slow)
    with ThreadPoolExecutor() as pool:
        scan = pool.submit(lineup.next_due, NOW)
        assert scanning.wait(PATIENCE)
        pushed = pool.submit(lineup.push, NOW + 60, "a")
        pushed.result(PATIENCE)
        assert not scan.done()
        go_on.set()
        assert scan.result(PATIENCE) == NOW - 10
    assert take(lineup, NOW, 9) == ["b"]
    assert take(lineup, NOW + 60, 9) == ["a"]


def test_pushes_of_many_threads_are_all_taken(lineup: Lineup) -> None:
    lineup.next_due(NOW)
    with ThreadPoolExecutor() as pool:
        for n in range(2000):
            pool.submit(lineup.push, NOW - 1, f"job{n}")
    assert len(take(lineup, NOW, 5000)) == 2000


class SetBack(Counting):
    """Files that were changed at a moment that has not come yet."""

    changed = time.time() + 86400

    def call(self, step, function, /, *args, **named):
        found = super().call(step, function, *args, **named)
        if step != "L3":
            return found
        return SimpleNamespace(st_mtime=found.st_mtime, st_ctime=self.changed)


def test_a_time_that_was_set_by_a_clock_ahead_is_not_believed(path: Path) -> None:
    now = time.time()
    queue(path, "ahead", when=now + 86400)
    queue(path, "held", when=HELD)
    root = open_directory(path, create=False)
    try:
        assert take(Lineup(Counting(root), poll=1.0), now, 9) == []
        assert take(Lineup(SetBack(root), poll=1.0), now, 9) == ["ahead"]
    finally:
        os.close(root)


def test_when_the_clock_is_set_back_every_job_is_looked_at_once(
    path: Path, lineup: Lineup, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, real = time.time(), time.time
    queue(path, "a", "0a/b", when=now + 9 * 86400)
    queue(path, "held", when=HELD)
    monkeypatch.setattr(time, "time", lambda: real() + 86400)
    assert take(lineup, now, 9) == []
    monkeypatch.setattr(time, "time", real)
    assert sorted(take(lineup, now, 9)) == ["0a/b", "a"]
    for name in ("a", "0a/b"):
        lineup.push(now + 9 * 86400, name)
    assert take(lineup, now, 9) == []
