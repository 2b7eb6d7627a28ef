"""disk_copy.py: copies of what can be read only once."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import FileError, UsageError
from smtp_async.model.content import Content, Source
from smtp_async.sources import DiskCopy, read_all
from tests.sources.conftest import loops_have_run, no_open_files

__all__ = ["loops_have_run", "no_open_files"]

pytestmark = pytest.mark.usefixtures("no_open_files")


async def test_a_copy_is_the_source_again(tmp_path: Path) -> None:
    kept = DiskCopy(Source([b""], name="a.txt"), tmp_path)
    for data in (b"one", b"", b"two" * 100_000):
        await kept.write(data)
    source = await kept.seal()
    assert (source.name, source.encoding, source.length, source.close) == ("a.txt", "identity", 300_003, True)
    assert await read_all(Content((source,))) == b"one" + b"two" * 100_000
    assert await read_all(Content((source,)), close_streams=True) == b"one" + b"two" * 100_000


async def test_of_nothing(tmp_path: Path) -> None:
    source = await DiskCopy(Source([b""]), tmp_path).seal()
    assert await read_all(Content((source,)), close_streams=True) == b""


async def test_it_has_no_name_and_is_for_this_user_alone(tmp_path: Path) -> None:
    kept = DiskCopy(Source([b""]), tmp_path)
    await kept.write(b"secret")
    file: Any = (await kept.seal()).origin
    assert os.listdir(tmp_path) == []
    assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
    kept.close()
    assert file.closed


async def test_one_that_is_dropped_is_written_no_more(tmp_path: Path) -> None:
    kept = DiskCopy(Source([b""]), tmp_path)
    kept.close()
    with pytest.raises(UsageError):
        await kept.write(b"x")


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    kept = DiskCopy(Source([b""]), tmp_path / "missing")
    with pytest.raises(FileError, match="cannot be kept for a second reading"):
        await kept.write(b"x")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
async def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(dir: Any) -> Any:
        return open("/dev/full", "r+b", buffering=0)

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    kept = DiskCopy(Source([b""], name="a.txt"), tmp_path)
    with pytest.raises(FileError, match=r"a\.txt.*cannot be kept.*No space"):
        await kept.write(b"x")
    kept.close()
