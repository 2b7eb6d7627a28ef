"""recovery.py: errors do not hide which jobs were recovered."""

import errno
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from smtp_async.spool.directory.keys import COUNT_INTERVAL, EMPTY_DELAY
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.testing.contracts import TEXT
from tests.spool.directory.clock import Clock, ClockCalls
from tests.spool.directory.parts import die
from tests.spool.directory.test_keys import delivered


@pytest.mark.parametrize("step", ["T1", "T2", "F1", "F2", "F3", "F4", "F5", "K1"])
async def test_errors_of_the_clean_up_do_not_hide_which_jobs_were_recovered(
    tmp_path: Path, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken, clock = False, Clock()

    class Broken(ClockCalls):
        def call(self, here: str, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
            if broken and here == step:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().call(here, function, *args, **named)

    async with DirectorySpool(
        tmp_path / "spool", create=True, low_water=0, syscalls=partial(Broken, clock=clock)
    ) as spool:
        files = [await delivered(spool, tmp_path / "spool", key) for key in ("old", "full", "ahead")]
        files[1].write_bytes(TEXT)
        for file, age in zip(files, (2 * spool.key_retention, 2 * EMPTY_DELAY, -86400), strict=True):
            os.utime(file, (0, time.time() - age))
        abandoned = tmp_path / "spool" / "tmp" / "x"
        abandoned.touch()
        os.link(abandoned, tmp_path / "second")
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        die(lease)
        broken = True
        clock.monotonic += COUNT_INTERVAL + 1
        assert (await spool.recover()).requeued == (id,)
        broken = False
        clock.monotonic += COUNT_INTERVAL + 1
        assert "failed: " in caplog.text
        await spool.recover()
        assert not files[0].exists() and files[1].read_bytes() == b"" and not abandoned.exists()
        assert files[2].stat().st_mtime < time.time() + 60


async def test_unfinished_puts_are_removed_after_a_day_and_a_half(tmp_path: Path) -> None:
    clock, half = Clock(), tmp_path / "spool" / "tmp" / "half"
    calls = partial(ClockCalls, clock=clock)
    async with DirectorySpool(tmp_path / "spool", create=True, syscalls=calls) as spool:
        half.write_bytes(b"SPOOL1 ")
        await spool.recover()
        assert half.exists()
        clock.advance(36 * 3600 + 10)
        await spool.recover()
        assert not half.exists()
