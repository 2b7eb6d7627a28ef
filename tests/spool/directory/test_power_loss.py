"""A power failure at every system call: what the disk has by then, no more, or all that was written.

The model of a disk keeps a copy of the spool: sync of a directory brings its names to the copy, sync of a file its
octets. It is stricter than the file systems, which keep more; the other extreme, where everything was written, is the
spool itself. After each call both are opened by another process, in effect: recovered, and the job claimed.

Between the extremes lie the mixtures of `tests.torture.power`, of what several processes do on one directory.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smtp_async.spool.contract import Lease
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.testing.contracts import LATER, QUEUED, TEXT, receipt_for
from tests.spool.directory.made import Made
from tests.torture.directories import quick_directory
from tests.torture.power import Books, lose_power, put
from tests.torture.tape import Tape


class Disk(SystemCalls):
    """Keeps what was synced, and photographs both extremes after each call of a step that changes something.

    Attributes:
        photographs: names and octets of the files of the spool's root: as synced, and as written.
        promised: what the spool has promised by each photograph.
    """

    def __init__(self, root: int, **options: Any) -> None:
        super().__init__(root, **options)
        self.path = Path(os.readlink(f"/proc/self/fd/{root}"))
        self.photographs: list[tuple[dict[str, bytes], dict[str, bytes], str]] = []
        self.promised = ""
        self._names: dict[str, int] = {}
        self._octets: dict[int, bytes] = {}

    def call(self, step: str, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        result = super().call(step, function, *args, **named)
        if function.__name__ == "_sync_directory":
            self._names = {name.name: name.stat().st_ino for name in self._files()}
        elif function.__name__ == "_sync":
            # Opened anew, because the file may be open for writing only.
            self._octets[os.fstat(args[0]).st_ino] = Path(f"/proc/self/fd/{args[0]}").read_bytes()
        if step[0] in "CDS":
            self.photograph()
        return result

    def _files(self) -> list[Path]:
        return [path for path in self.path.iterdir() if path.is_file()]

    def photograph(self) -> None:
        """Keep both extremes of this moment."""
        synced = {name: self._octets.get(inode, b"") for name, inode in self._names.items()}
        written = {path.name: path.read_bytes() for path in self._files()}
        self.photographs.append((synced, written, self.promised))


def make(path: Path, files: dict[str, bytes]) -> None:
    """Make a spool of these files, in place of the one before."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    for name, octets in files.items():
        (path / name).write_bytes(octets)


async def found_after(path: Path, files: dict[str, bytes]) -> tuple[int, bool]:
    """Return how many jobs a spool with these files has, and whether one of them is flagged."""
    make(path, files)
    async with DirectorySpool(path, durable=False, low_water=0) as spool:
        await spool.recover()
        leases = await spool.claim(9, now=4e9)
        return len(leases), any(lease.entry.flagged for lease in leases)


async def settle(lease: Lease) -> None:
    await lease.settle(receipt_for(lease, QUEUED))


async def defer(lease: Lease) -> None:
    await lease.defer(receipt_for(lease, LATER), 0.0)


async def release(lease: Lease) -> None:
    await lease.release()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the path of an open directory is read there")
@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("marked", [False, True], ids=["each", "claim"])
@pytest.mark.parametrize("end", [settle, defer, release], ids=["settle", "defer", "release"])
async def test_a_power_failure_loses_no_job_and_no_mark(
    tmp_path: Path, attempt: int, marked: bool, end: Callable[[Lease], Any]
) -> None:
    made = Made(Disk)
    async with DirectorySpool(tmp_path / "s", create=True, syscalls=made) as spool:
        await spool.put(TEXT)
        for _ in range(attempt - 1):
            (lease,) = await spool.claim(now=4e9)
            await lease.mark_end_of_data()
            await lease.defer(receipt_for(lease, LATER), 0.0)
        disk = made.calls
        disk.photographs.clear()
        disk.promised = "kept"
        (lease,) = await spool.claim(now=4e9, marked=marked)
        await lease.mark_end_of_data()
        # From here on the message may have been sent.
        disk.promised = "flagged"
        disk.photograph()
        disk.promised = "ending"
        await end(lease)
        disk.promised = "gone" if end is settle else "clear"
        disk.photograph()
        photographs = disk.photographs[:]
    assert len({promised for *_, promised in photographs}) == 4
    for *extremes, promised in photographs:
        for files in extremes:
            count, flagged = await found_after(tmp_path / "after", files)
            if promised in ("kept", "clear", "flagged"):
                assert count == 1
            if promised in ("clear", "flagged"):
                assert flagged == (promised == "flagged")
            if promised == "gone":
                assert count == 0
            if promised == "ending" and count:
                # Until the end is on disk, a copy may be sent, and then the job has to say so.
                assert flagged or end is not settle


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the path of an open directory is read there")
@pytest.mark.timeout(120)
async def test_whatever_mixture_a_disk_is_left_in_the_promises_hold() -> None:
    """`make torture` opens ten times as many."""
    with quick_directory() as path:
        books = await lose_power(path, states=1000, each=10, chance=random.Random(21))
    assert not books.wrong, books.wrong[:5]
    assert books.states == 1000


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the path of an open directory is read there")
async def test_without_syncs_the_same_check_finds_what_is_lost(tmp_path: Path) -> None:
    tape, books = Tape(), Books(tmp_path / "after")
    async with tape.spool(tmp_path / "before", durable=False) as spool:
        await put(tape, spool, 0)
    for state in tape.states(100, random.Random(1)):
        await books.open(state)
    assert any(" is gone" in one for one in books.wrong)
