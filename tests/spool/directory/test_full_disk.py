"""A disk of one MiB fills up and refuses messages, and every stored message is delivered."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import SpoolFull
from smtp_async.spool.directory.keys import KEYS
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.testing.contracts import LATER, QUEUED, TEXT, receipt_for
from tests.spool.directory.made import Made


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of one MiB."""
    path = tmp_path / "disk"
    path.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting takes root")
async def test_jobs_stored_before_the_disk_was_full_can_be_tried_and_recorded(small_disk: Path) -> None:
    body = TEXT + b"x" * 60 + b"\r\n"
    async with DirectorySpool(small_disk, low_water=0) as spool:
        ids: list[str] = []
        with pytest.raises(SpoolFull):
            while True:
                ids.append(await spool.put(body, key=None if len(ids) % 2 else str(len(ids))))
        assert len(ids) > 20
        filler = small_disk / "filler"
        with pytest.raises(OSError), filler.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()
        assert list((small_disk / "tmp").iterdir()) == []
        # The disk is full: marks and results use the reserved room.
        for attempt in range(3):
            leases = await spool.claim(len(ids) + 1, now=2.0**33)
            assert len(leases) == len(ids)
            for lease in leases:
                await lease.mark_end_of_data()
                await lease.defer(receipt_for(lease, LATER), 5.0, reason="try again")
            assert (await spool.get(ids[0])).attempts == attempt + 1
        with pytest.raises(SpoolFull):
            await spool.put(body)
        for lease in await spool.claim(len(ids), now=2.0**33):
            await lease.mark_end_of_data()
            await lease.settle(receipt_for(lease, QUEUED))
        statistics = await spool.statistics()
        assert statistics.queued == statistics.sending == 0
        filler.unlink()
        await spool.put(body)


def test_a_file_size_limit_counts_as_a_full_disk(tmp_path: Path) -> None:
    program = (
        "import asyncio, resource, sys\n"
        "from smtp_async.errors import SpoolFull\n"
        "from smtp_async.spool.directory.spool import DirectorySpool\n"
        "async def main():\n"
        "    spool = DirectorySpool(sys.argv[1], create=True, durable=False)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "    text = b'From: a@example.com\\r\\nTo: b@example.org\\r\\n\\r\\n'\n"
        "    try: await spool.put(text + b'x\\r\\n' * 40_000)\n"
        "    except SpoolFull: print('full')\n"
        "    await spool.put(text)\n"
        "    print((await spool.statistics()).queued)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "spool")], capture_output=True, text=True
    )
    assert done.stdout.split() == ["full", "1"], done.stderr


class NoRoomForKeys(SystemCalls):
    """A disk on which, once `full` is set, a directory has no room for another name."""

    full = 0

    def call(self, step: str, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        makes = function is os.mkdir and args[0] == KEYS
        moves = function is os.rename and args[1].startswith(f"{KEYS}/")
        if self.full and (makes or moves):
            raise OSError(self.full, os.strerror(self.full))
        return super().call(step, function, *args, **named)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMLINK])
@pytest.mark.parametrize("thrown_away", [False, True])
async def test_a_job_ends_although_there_is_no_room_for_its_key(
    tmp_path: Path, number: int, thrown_away: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spool"
    made = Made(NoRoomForKeys)
    async with DirectorySpool(path, create=True, syscalls=made, low_water=0) as spool:
        await spool.put(TEXT, key="k")
        await spool.put(TEXT)
        if thrown_away:
            (path / KEYS).rmdir()
        made.calls.full = number
        for lease in await spool.claim(2):
            await lease.mark_end_of_data()
            await lease.settle(receipt_for(lease, QUEUED))
        assert await spool.claim() == []
        assert [entry async for entry in spool.list()] == []
        assert "is forgotten" in caplog.text


async def test_a_job_can_be_removed_although_there_is_no_room_for_its_key(tmp_path: Path) -> None:
    made = Made(NoRoomForKeys)
    async with DirectorySpool(tmp_path / "spool", create=True, syscalls=made, low_water=0) as spool:
        id = await spool.put(TEXT, key="k")
        made.calls.full = errno.ENOSPC
        await spool.remove(id)
        assert [entry async for entry in spool.list()] == []


async def test_the_first_put_with_a_key_fails_if_there_is_no_room_for_keys(tmp_path: Path) -> None:
    made = Made(NoRoomForKeys)
    async with DirectorySpool(tmp_path / "spool", create=True, syscalls=made, low_water=0) as spool:
        made.calls.full = errno.ENOSPC
        with pytest.raises(SpoolFull):
            await spool.put(TEXT, key="k")
        await spool.put(TEXT)
        made.calls.full = 0
        await spool.put(TEXT, key="k")
