"""lease_end.py: the steps of an end, and the directories in which it changes names."""

from pathlib import Path

from smtp_async.spool.directory.keys import KEYS
from smtp_async.spool.directory.lease_end import LeaseEnd
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.spool.entry import State
from tests.spool.directory.parts import Parts


async def test_an_end_knows_its_steps_and_directories(tmp_path: Path) -> None:
    with Parts(tmp_path / "s", SystemCalls) as parts:
        await parts.put()
        await parts.put(key="k")
        plain, keyed = sorted(parts.claim(2), key=lambda locked: locked.has_key)
        assert LeaseEnd(plain, None).directories == [""]
        assert LeaseEnd(keyed, None).directories == [KEYS, ""]
        assert LeaseEnd(keyed, State.FAILED).directories == [""]
        assert [LeaseEnd(plain, state).step for state in (State.QUEUED, State.FAILED)] == ["S3", "S4"]


async def test_a_record_is_synced_unless_the_name_says_the_same(tmp_path: Path) -> None:
    with Parts(tmp_path / "s", SystemCalls) as parts:
        await parts.put()
        (locked,) = parts.claim()
        assert not LeaseEnd(locked, None).needs_sync
        assert not LeaseEnd(locked, State.SENT, b"x", record_optional=True).needs_sync
        end = LeaseEnd(locked, State.FAILED, b"x")
        assert end.needs_sync
        end.record_written()
        assert not end.needs_sync
