"""name_syncs.py: each directory is synced once, and its error belongs to the jobs in it."""

import errno
from pathlib import Path

from smtp_async.errors import SpoolError
from smtp_async.spool.directory.keys import KEYS
from smtp_async.spool.directory.name_syncs import NameSyncs
from tests.spool.directory.parts import Parts
from tests.spool.directory.test_enqueue import watched


def test_each_directory_is_synced_once_and_that_of_keys_first(tmp_path: Path) -> None:
    files = watched()
    with Parts(tmp_path / "s", files) as parts:
        for name in ("ab", KEYS):
            parts.syscalls.make_directory("E6", name)
        files.steps.clear()
        syncs = NameSyncs(parts.files)
        syncs.add("D1", "", "ab")
        syncs.add("S2", "ab", KEYS)
        syncs.run()
        assert [step for step, name in files.steps if name == "_sync_directory"] == ["S2", "D1", "S2"]
        syncs.run()
        assert len(files.steps) == 5  # two of them opened a subdirectory
        assert not syncs.failed and syncs.error_of("", "ab", KEYS) is None


def test_an_error_belongs_to_the_directory(tmp_path: Path) -> None:
    files = watched("D1", 1, errno.EIO)
    with Parts(tmp_path / "s", files) as parts:
        parts.syscalls.make_directory("E6", "ab")
        files.steps.clear()
        syncs = NameSyncs(parts.files)
        syncs.add("D1", "", "ab")
        syncs.run()
        assert syncs.failed
        assert isinstance(syncs.error_of(""), SpoolError) and syncs.error_of("ab") is None
        assert isinstance(syncs.error_of("ab", ""), SpoolError)
