"""spool.py: a spool in a directory, files that other users plant in it, and what is on disk."""

import asyncio
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from smtp_async.errors import (
    Busy,
    FeatureUnavailable,
    FileError,
    InvalidArgument,
    LeaseLost,
    NoSuchJob,
    RecordInvalid,
    RecordNewer,
    SpoolError,
    SpoolFull,
    SpoolUnsafe,
    UsageError,
)
from smtp_async.mail.coerce import Raw
from smtp_async.message import Message
from smtp_async.model.envelope import Recipient
from smtp_async.sources import read_all
from smtp_async.spool.directory import job_files, keys, syscalls
from smtp_async.spool.directory.job_files import hashed_directory
from smtp_async.spool.directory.lease import DirectoryLease
from smtp_async.spool.directory.limits import DirectoryLimits
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.entry import State
from smtp_async.spool.record import encode_header, journal_record
from smtp_async.spool.submission import submission
from smtp_async.testing.contracts import LATER, NEVER, QUEUED, TEXT, receipt_for
from tests.spool.directory.clock import Clock, ClockCalls
from tests.spool.directory.parts import die


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
async def spool(path: Path):
    async with DirectorySpool(path, low_water=0) as spool:
        yield spool


def names(path: Path) -> list[str]:
    """Return the names of all files of a spool, including subdirectories."""
    return sorted(str(one.relative_to(path)) for one in path.rglob("*") if not one.is_dir())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0


async def queue_file(id: str, body: bytes = TEXT) -> bytes:
    job = await submission(body)
    return encode_header(job, id) + job.body


#: Every new job goes to a subdirectory.
CROWDED = DirectoryLimits(root_files=0)


def keys_in(directory: str, most: int) -> list[str]:
    """Return keys whose jobs go to this subdirectory of a crowded spool."""
    ids = ((key, hashlib.sha256(key.encode()).hexdigest()[:32]) for key in map(str, count()))
    return list(islice((key for key, id in ids if hashed_directory(id) == directory), most))


async def deliver(spool: DirectorySpool) -> list[str]:
    """Deliver until no job is due, and return the ids."""
    delivered = []
    while leases := await spool.claim(10):
        for lease in leases:
            lease.mail().content()
            await lease.mark_end_of_data()
            await lease.settle(receipt_for(lease, QUEUED))
            delivered.append(lease.entry.id)
    return delivered


# --- the directory ---


async def test_the_directory_must_exist_unless_create_is_given(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        DirectorySpool(tmp_path / "missing")
    assert caught.value.code == 302
    with pytest.raises(FileError):
        DirectorySpool(tmp_path / "missing" / "deeper", create=True)
    (tmp_path / "file").touch()
    with pytest.raises(FileError):
        DirectorySpool(tmp_path / "file")
    async with DirectorySpool(tmp_path / "new", create=True) as spool:
        await spool.put(TEXT)
    async with DirectorySpool(tmp_path / "new", create=True) as spool:
        assert len(await spool.claim()) == 1


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o027])
async def test_no_other_user_can_read_the_spool_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with DirectorySpool(tmp_path / "spool", create=True) as spool:
            await spool.put(TEXT)
    finally:
        os.umask(before)
    for one in (tmp_path / "spool").rglob("*"):
        assert stat.S_IMODE(one.stat().st_mode) == (0o700 if one.is_dir() else 0o600)
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722, 0o1777])
def test_a_directory_that_other_users_may_write_to_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(SpoolUnsafe):
        DirectorySpool(path)


@pytest.mark.parametrize("kind", ["link", "file", "of all"])
@pytest.mark.parametrize("name", [keys.KEYS, job_files.TMP])
async def test_a_planted_link_or_file_for_a_subdirectory_is_refused(
    path: Path, tmp_path: Path, name: str, kind: str
) -> None:
    def plant() -> None:
        if kind == "link":
            (tmp_path / "elsewhere").mkdir(mode=0o700)
            (path / name).symlink_to(tmp_path / "elsewhere")
        elif kind == "file":
            (path / name).touch()
        else:
            (path / name).mkdir()
            (path / name).chmod(0o777)

    if name == keys.KEYS:
        async with DirectorySpool(path) as spool:
            plant()
            with pytest.raises(SpoolUnsafe, match=name):
                await spool.put(TEXT, key="k")
    else:
        plant()
    with pytest.raises(SpoolUnsafe, match=name):
        DirectorySpool(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(path: Path) -> None:
    os.chown(path, 12345, 12345)
    with pytest.raises(SpoolUnsafe):
        DirectorySpool(path)


def test_a_symbolic_link_to_a_directory_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    for tail in ("", "/", "//", "/.", "/./"):
        with pytest.raises(SpoolUnsafe):
            DirectorySpool(f"{tmp_path / 'link'}{tail}")
        with pytest.raises(SpoolUnsafe):
            DirectorySpool(f"{tmp_path / 'link'}{tail}", create=True)


async def test_a_path_may_end_with_a_slash(tmp_path: Path) -> None:
    for tail in ("/", "/."):
        async with DirectorySpool(f"{tmp_path}/new{tail}", create=True) as spool:
            await spool.put(TEXT)
    with pytest.raises(FileError):
        DirectorySpool("")


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the names of synced files are added from now on."""
    found: list[str] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        found.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    return found


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EROFS, errno.EIO])
async def test_an_existing_spool_is_opened_although_its_parent_cannot_be_synced(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fsync = os.fsync

    def refusing(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == str(path.parent):
            raise OSError(number, os.strerror(number))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", refusing)
    async with DirectorySpool(path, low_water=0, create=True) as spool:
        await spool.put(TEXT)
    if number == errno.EINVAL:
        # A file system that cannot sync directories.
        async with DirectorySpool(path.parent / "new", low_water=0, create=True) as spool:
            await spool.put(TEXT)
    else:
        with pytest.raises(SpoolError):
            DirectorySpool(path.parent / "new", low_water=0, create=True)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
async def test_an_existing_subdirectory_is_synced_before_it_is_used(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have created the directory and died before its name was on disk."""
    (path / "0a").mkdir(mode=0o700)
    first, second = keys_in("0a", 2)
    found = synced(monkeypatch)
    async with DirectorySpool(path, low_water=0, create=True, limits=CROWDED) as spool:
        assert str(path.parent) in found
        found.clear()
        await spool.put(TEXT, key=first)
        assert found.index(str(path)) < found.index(f"{path}/0a")
        found.clear()
        await spool.put(TEXT, key=second)
        assert str(path) not in found and f"{path}/0a" in found


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another user")
def test_a_directory_with_an_unreadable_parent_can_be_opened(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    inner = tmp_path / "private"
    (inner / "spool").mkdir(mode=0o700, parents=True)
    os.chown(inner / "spool", 12345, 12345)
    inner.chmod(0o711)
    program = f"""
import os
from smtp_async.spool.directory.spool import DirectorySpool
import smtp_async.spool.directory.syscalls, fcntl, ctypes
os.chdir({str(inner)!r})
os.seteuid(12345)
DirectorySpool("spool", create=True)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", ["tmp", "quarantine", "00"])
async def test_a_subdirectory_that_is_a_link_is_not_followed(path: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (path / name).symlink_to(tmp_path / "elsewhere")
    [key] = keys_in("00", 1)
    refused = []
    (path / "bad.queued").write_bytes(b"")
    try:
        async with DirectorySpool(path, low_water=0, limits=CROWDED) as spool:
            for use in (lambda: spool.put(TEXT, key=key), spool.claim):
                try:
                    await use()
                except OSError as error:
                    refused.append(error)
    except OSError as error:
        refused.append(error)
    assert refused and list((tmp_path / "elsewhere").iterdir()) == []


def test_the_constructor_refuses_a_system_without_posix(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtp_async.spool.directory.syscalls.sys.platform", "win32")
    with pytest.raises(FeatureUnavailable):
        DirectorySpool(path)


#: A system without locks, without the directory calls of POSIX, without users and forks. What the package imports
#: from elsewhere is imported before, because the standard library would miss its own modules for that system.
ELSEWHERE = """
import anyio._backends._asyncio, asyncio, os, sys
import smtp_async.processor, smtp_async.testing.memory
for name in [name for name in sys.modules if name.partition(".")[0] == "smtp_async"]:
    del sys.modules[name]

sys.modules["fcntl"] = None
for name in ("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "register_at_fork", "fork", "geteuid", "fstatvfs"):
    delattr(os, name)
sys.platform = "win32"

import smtp_async.processor
from smtp_async import DirectorySpool, Message, QueueProcessor, serialize
from smtp_async.errors import FeatureUnavailable
from smtp_async.testing.memory import MemorySpool
try:
    DirectorySpool(".")
except FeatureUnavailable as error:
    print("refused:", error.needs)

async def main():
    message = Message(sender="ann@example.com", to="bob@example.org", text="x")
    print((await serialize(message))[:6])
    async with MemorySpool() as spool:
        id = await spool.put(message)
        async def send(mail, *, options, deadline):
            await options.before_end_of_data()
            return smtp_async.Receipt((smtp_async.Verdict(mail.envelope().recipients[0], smtp_async.Outcome.ACCEPTED),))
        client = smtp_async.SMTPClient("mx.example.org", security=smtp_async.Security.PLAINTEXT)
        client.send = send
        print((await QueueProcessor(spool, client).run_once()).sent == (id,))
asyncio.run(main())
"""


def test_everything_but_the_directory_spool_works_without_flock() -> None:
    """Only this package runs as on another operating system."""
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["refused: a POSIX system", "SPOOL1", "True"]


def test_a_poll_interval_of_zero_is_refused(path: Path) -> None:
    with pytest.raises(InvalidArgument):
        DirectorySpool(path, poll=0)


# --- files on disk ---


async def test_a_queue_file_is_readable(spool: DirectorySpool, path: Path) -> None:
    id = await spool.put(Message(sender="ann@example.com", to="bob@example.org", subject="Hi", text="Grüße"))
    text = (path / f"{id}.queued").read_text("ascii")
    first, header, message = text.split("\n", 2)
    assert first.startswith("SPOOL1 ")
    assert '"recipients":[["bob@example.org","To"]]' in header
    assert "Subject: Hi\n" in message
    assert "\0" not in text


async def test_file_names_show_the_state(spool: DirectorySpool, path: Path) -> None:
    id = await spool.put(TEXT)
    assert names(path) == [f"{id}.queued"]
    [lease] = await spool.claim()
    assert names(path) == [f"{id}.sending"]
    await lease.fail(receipt_for(lease, NEVER))
    assert names(path) == [f"{id}.failed"]
    await spool.requeue(id)
    [lease] = await spool.claim()
    await lease.settle(receipt_for(lease, QUEUED), keep=True)
    assert names(path) == [f"{id}.sent"]
    await spool.remove(id)
    assert names(path) == []


async def test_bcc_is_in_the_envelope_only(spool: DirectorySpool, path: Path) -> None:
    message = Message(sender="ann@example.com", to="bob@example.org", bcc="eve@example.net", text="x")
    id = await spool.put(message)
    body = await spool.read(id)
    assert b"eve" not in body
    assert Recipient("eve@example.net").address in [
        one.address for one in (await spool.get(id)).envelope.recipients
    ]


@pytest.mark.parametrize("kind", ["bytes", "file", "awaited", "Raw", "Raw of a file", "octets"])
async def test_bcc_of_a_complete_message_is_in_no_file(spool: DirectorySpool, path: Path, kind: str) -> None:
    whole = b"From: ann@example.com\r\nBcc: eve@example.net\r\nTo: bob@example.org\r\n\r\ngr\xc3\xbcn\r\n"

    async def awaited() -> AsyncIterator[bytes]:
        yield whole

    raw: Any = {"bytes": whole, "file": io.BytesIO(whole), "awaited": awaited()}.get(kind)
    message: Any = Message(sender="ann@example.com", to="bob@example.org", raw=raw)
    if kind == "octets":
        message = whole
    elif raw is None:
        file = io.BytesIO(whole)
        message = Raw(whole if kind == "Raw" else file, "ann@example.com", ["bob@example.org"], close=True)
    id = await spool.put(message)
    (name,) = names(path)
    if kind != "octets":  # there she is in the envelope, which no server shows anybody
        assert b"eve" not in (path / name).read_bytes()
    assert await spool.read(id) == whole.replace(b"Bcc: eve@example.net\r\n", b"")
    assert kind != "Raw of a file" or file.closed


async def test_the_bytes_are_the_same_in_every_attempt(spool: DirectorySpool) -> None:
    message = Message(sender="ann@example.com", to="bob@example.org", text="Grüße")
    await spool.put(message)
    seen = set()
    for _ in range(3):
        [lease] = await spool.claim()
        for eightbit in (False, True):
            seen.add(lease.mail().content(eightbit=eightbit, utf8=eightbit, binary=eightbit).join())
        await lease.defer(receipt_for(lease, LATER), 0.0)
    assert len(seen) == 1


async def test_a_large_message_is_read_from_the_file(spool: DirectorySpool, path: Path) -> None:
    body = TEXT + b"x" * 70 + b"\r\n"
    body += (b"y" * 70 + b"\r\n") * 50_000
    id = await spool.put(body)
    [lease] = await spool.claim()
    await lease.mark_end_of_data()
    for _ in range(2):
        content = lease.mail().content()
        assert content.size == len(body)
        assert not any(isinstance(segment, bytes) for segment in content.segments)
        assert await read_all(content) == body
    await lease.defer(receipt_for(lease, LATER), 0.0)
    assert await spool.read(id) == body
    assert [one.id for one in [entry async for entry in spool.list()]] == [id]
    with pytest.raises(OSError):
        await read_all(content)


async def test_a_crowded_directory_gets_subdirectories(path: Path) -> None:
    async with DirectorySpool(path, low_water=0, limits=DirectoryLimits(root_files=10)) as spool:
        ids = [await spool.put(TEXT, key=f"k{n}" if n % 2 else None) for n in range(40)]
        deep = [name for name in names(path) if "/" in name]
        assert 20 <= len(deep) <= 35
        assert [await spool.put(TEXT, key=f"k{n}") for n in range(1, 40, 2)] == ids[1::2]
        assert {entry.id async for entry in spool.list()} == set(ids)
        assert (await spool.statistics()).queued == 40
        await spool.hold(ids[-1])
        await spool.release(ids[-1])
    async with DirectorySpool(path) as other:
        assert sorted(await deliver(other)) == sorted(ids)
        assert [name for name in names(path) if not name.startswith("keys/")] == []
        assert [await other.put(TEXT, key=f"k{n}") for n in range(1, 40, 2)] == ids[1::2]
        assert await other.claim() == []


async def test_two_spools_share_a_directory(path: Path) -> None:
    async with DirectorySpool(path) as one, DirectorySpool(path) as two:
        assert await two.claim() == []
        id = await one.put(TEXT)
        [lease] = await two.claim()
        assert await one.claim() == []
        with pytest.raises(Busy):
            await one.remove(id)
        await lease.defer(None, time.time() + 1000)
        assert await one.claim() == []
        await one.requeue(id)
        [lease] = await two.claim()
        await lease.settle(receipt_for(lease, QUEUED))
        with pytest.raises(NoSuchJob):
            await one.get(id)


async def test_wait_notices_the_jobs_of_another_process(path: Path) -> None:
    async with DirectorySpool(path) as one, DirectorySpool(path, poll=0.01) as two:
        waiting = asyncio.create_task(two.wait(10))
        await asyncio.sleep(0)
        await one.put(TEXT)
        assert await waiting
        assert len(await two.claim()) == 1


async def test_the_same_key_at_the_same_time_is_one_job(path: Path) -> None:
    async with DirectorySpool(path) as one, DirectorySpool(path) as two:
        ids = await asyncio.gather(*[spool.put(TEXT, key="k") for spool in (one, two) * 10])
        assert len(set(ids)) == 1
        assert len(names(path)) == 1
        assert await deliver(one) == ids[:1]


async def test_a_put_with_the_key_of_a_job_that_is_being_requeued_is_one_job(path: Path) -> None:
    async with DirectorySpool(path) as one, DirectorySpool(path) as two:

        async def go_round() -> None:
            for _ in range(30):
                [lease] = await one.claim()
                await lease.defer(None, 0.0)

        id = await two.put(TEXT, key="k")
        round_and_round = asyncio.create_task(go_round())
        while not round_and_round.done():
            assert await two.put(TEXT, key="k") == id
        await round_and_round
        assert names(path) == [f"{id}.queued"]


# --- room ---


async def test_the_low_water_mark_is_kept(path: Path) -> None:
    async with DirectorySpool(path, low_water=2**60) as spool:
        with pytest.raises(SpoolFull) as caught:
            await spool.put(TEXT)
        assert caught.value.temporary
    assert names(path) == []


# --- planted files ---

MADE = {
    "symlink": lambda target, secret: target.symlink_to(secret),
    "dangling": lambda target, secret: target.symlink_to("/nowhere"),
    "fifo": lambda target, secret: os.mkfifo(target),
    "directory": lambda target, secret: target.mkdir(),
    "socket": lambda target, secret: socket.socket(socket.AF_UNIX).bind(str(target)),
    "hard link": lambda target, secret: os.link(secret, target),
    "empty": lambda target, secret: target.touch(),
    "garbage": lambda target, secret: target.write_bytes(b"\x80\x04cos\nsystem\n(S'id'\ntR."),
    "mail": lambda target, secret: target.write_bytes(TEXT),
}
if os.geteuid() == 0:
    MADE["device"] = lambda target, secret: os.mknod(target, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    MADE["of another"] = lambda target, secret: shutil.chown(secret.rename(target), 12345)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("state", ["queued", "sending"])
async def test_planted_files_are_quarantined_and_other_jobs_go_on(
    path: Path, tmp_path: Path, kind: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"keep out")
    # The name of a Unix socket must be short.
    monkeypatch.chdir(path)
    MADE[kind](Path(f"0.{state}"), secret)
    async with DirectorySpool(path, low_water=0) as spool:
        ids = [await spool.put(TEXT) for _ in range(3)]
        await spool.recover()
        assert sorted(await deliver(spool)) == ids
        assert [(one.id, one.kept) for one in spool.unreadable()] == [("0", False)]
        assert not spool.unreadable()
        assert (await spool.statistics()).quarantined == 1
    assert not (path / f"0.{state}").is_symlink() and not (path / f"0.{state}").exists()
    assert kind == "of another" or secret.read_bytes() == b"keep out"
    assert len(list((path / "quarantine").iterdir())) == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", [kind for kind in MADE if kind != "hard link"])
@pytest.mark.parametrize("state", ["queued", "sending", "sent", "failed"])
async def test_planted_files_do_not_keep_other_jobs_from_being_listed(
    path: Path, tmp_path: Path, kind: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"keep out")
    monkeypatch.chdir(path)
    MADE[kind](Path(f"0.{state}"), secret)
    async with DirectorySpool(path, low_water=0) as spool:
        id = await spool.put(TEXT)
        assert [entry.id async for entry in spool.list()] == [id]


@pytest.mark.parametrize("error", [errno.EACCES, errno.EPERM])
async def test_files_that_may_not_be_opened_are_not_listed(path: Path, error: int) -> None:
    """For example, a file that an operator has edited as root."""

    class Strict(syscalls.SystemCalls):
        def open(self, step: str, name: str, *, write: bool = False) -> int:
            if name == "x.failed":
                raise OSError(error, os.strerror(error))
            return super().open(step, name, write=write)

    (path / "x.failed").touch(mode=0o600)
    async with DirectorySpool(path, low_water=0, syscalls=Strict) as spool:
        id = await spool.put(TEXT)
        assert [entry.id async for entry in spool.list()] == [id]


async def test_list_raises_the_error_of_a_failing_disk(path: Path) -> None:
    class Failing(syscalls.SystemCalls):
        def open(self, step: str, name: str, *, write: bool = False) -> int:
            if step == "L7":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().open(step, name, write=write)

    async with DirectorySpool(path, low_water=0, syscalls=Failing) as spool:
        await spool.put(TEXT)
        with pytest.raises(SpoolError):
            [entry async for entry in spool.list()]


DAMAGED = {
    "truncated header": lambda data: data[:40],
    "truncated message": lambda data: data[:-20],
    "another id": lambda data: data.replace(b'"id":"x-1"', b'"id":"x-2"'),
    "id that climbs": lambda data: data.replace(b'"id":"x-1"', b'"id":"../"'),
    "newline in a recipient": lambda data: data.replace(b"bob@example.org", b"b\\r\\nDATA\\r\\n@d", 1),
    "newline in the sender": lambda data: data.replace(b"ann@example.com", b"ann@example\\n.cm", 1),
    "a record that lies": lambda data: data + b'\nb4b1e5a1 {"r":"eod"}\n',
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("state", ["queued", "sending", "failed"])
async def test_damaged_files_are_quarantined_and_other_jobs_go_on(path: Path, kind: str, state: str) -> None:
    data = DAMAGED[kind](await queue_file("x-1"))
    if kind == "a record that lies":
        data = await queue_file("x-1") + journal_record(r="eod", n="many")
    name = path / f"x-1.{state}"
    name.write_bytes(data)
    name.chmod(0o600)
    async with DirectorySpool(path, low_water=0) as spool:
        with pytest.raises(RecordInvalid):
            await spool.get("x-1")
        id = await spool.put(TEXT)
        assert {entry.id async for entry in spool.list()} == {id}
        await spool.recover()
        assert await deliver(spool) == [id]
        if state == "failed":
            with pytest.raises(NoSuchJob):
                await spool.requeue("x-1")
        (found,) = spool.unreadable()
        assert (found.id, found.kept) == ("x-1", False) and found.reason.startswith("not a job")
    assert not name.exists() and len(list((path / "quarantine").iterdir())) == 1


async def test_quarantined_files_are_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (path / "x.queued").write_bytes(b"nothing")
    async with DirectorySpool(path, low_water=0) as spool:
        assert await spool.claim() == []
    (record,) = caplog.records
    assert record.levelname == "ERROR" and "x.queued" in record.getMessage()


@pytest.mark.parametrize("state", ["queued", "sending", "failed", "sent"])
async def test_a_job_of_a_later_version_is_left_alone_and_reported(
    path: Path, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = path / f"x-1.{state}"
    data = (await queue_file("x-1")).replace(b"SPOOL1", b"SPOOL2", 1)
    name.write_bytes(data)
    async with DirectorySpool(path, low_water=0) as spool:
        id = await spool.put(TEXT)
        for _ in range(2):
            await spool.recover()
        assert [entry.id async for entry in spool.list()] == [id]
        for _ in range(2):
            told = [(one.id, one.kept, "version is 2" in one.reason) for one in spool.unreadable()]
            assert told == ([("x-1", True, True)] if state in ("queued", "sending") else [])
        assert await deliver(spool) == [id]
        for call in (spool.get, spool.read):
            with pytest.raises(RecordNewer):
                await call("x-1")
        for change in (spool.hold, spool.release, spool.requeue, spool.remove):
            with pytest.raises(Busy if state == "sending" else RecordNewer):
                await change("x-1")
        if state in ("failed", "sent"):
            assert spool.unreadable() == []
    assert name.read_bytes() == data and not (path / "quarantine").exists()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_jobs_of_a_later_version_that_are_gone_are_no_longer_reported(path: Path) -> None:
    for number in range(2):
        data = (await queue_file(f"x-{number}")).replace(b"SPOOL1", b"SPOOL2", 1)
        (path / f"x-{number}.queued").write_bytes(data)
    async with DirectorySpool(path, low_water=0, poll=0.001) as spool:
        assert await spool.claim() == []
        assert {one.id for one in spool.unreadable()} == {"x-0", "x-1"}
        (path / "x-0.queued").unlink()
        await spool.recover()
        assert {one.id for one in spool.unreadable()} == {"x-1"}


async def test_jobs_of_a_later_version_are_opened_once_a_minute(
    path: Path,
) -> None:
    opened: list[str] = []
    clock = Clock()

    class Watched(ClockCalls):
        def open(self, step: str, name: str, *, write: bool = False) -> int:
            opened.append(name)
            return super().open(step, name, write=write)

    for number in range(5):
        data = (await queue_file(f"x-{number}")).replace(b"SPOOL1", b"SPOOL2", 1)
        (path / f"x-{number}.queued").write_bytes(data)
    async with DirectorySpool(path, low_water=0, poll=0.001, syscalls=partial(Watched, clock=clock)) as spool:
        for _ in range(20):
            # Each put changes the directory, so it is read again.
            id = await spool.put(TEXT)
            assert await deliver(spool) == [id]
        assert len([name for name in opened if name.startswith("x-")]) == 5
        assert len(spool.unreadable()) == 5
        # Changes to them are noticed when every directory is read again, once a minute.
        clock.advance(61.0)
        (path / "x-0.queued").write_bytes(await queue_file("x-0"))
        for number in range(1, 5):
            (path / f"x-{number}.queued").unlink()
        assert await deliver(spool) == ["x-0"]
        assert not spool.unreadable()


def flipped(file: Path, elsewhere: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-4] ^= 1
    file.write_bytes(data)


def linked(file: Path, elsewhere: Path) -> None:
    for number in range(2):
        os.link(file, elsewhere / str(number))


@pytest.mark.parametrize("harm", [flipped, linked])
@pytest.mark.parametrize("text", [TEXT, TEXT + b"x" * 70_000], ids=["small", "large"])
@pytest.mark.parametrize("marked", [True, False])
async def test_a_job_with_a_damaged_message_can_only_fail(
    spool: DirectorySpool, path: Path, tmp_path: Path, harm: Any, text: bytes, marked: bool
) -> None:
    """Its envelope can be read, so the job fails with a reason and is not quarantined."""
    (tmp_path / "backup").mkdir()
    id = await spool.put(text)
    harm(path / f"{id}.queued", tmp_path / "backup")
    [lease] = await spool.claim(marked=marked)
    with pytest.raises(RecordInvalid) as caught:
        lease.mail()
    await lease.fail(None, reason=str(caught.value))
    entry = await spool.get(id)
    assert (entry.state, entry.reason) == (State.FAILED, str(caught.value))
    assert not (path / "quarantine").exists() and not spool.unreadable()
    with pytest.raises(RecordInvalid):
        await spool.requeue(id)
    if harm is flipped:
        with pytest.raises(RecordInvalid):
            await spool.read(id)
    else:
        for file in (tmp_path / "backup").iterdir():
            file.unlink()
        await spool.requeue(id)
        assert await deliver(spool) == [id]
        return
    await spool.remove(id)
    with pytest.raises(NoSuchJob):
        await spool.get(id)


async def test_a_damaged_job_of_a_dead_worker_is_recovered(spool: DirectorySpool, path: Path) -> None:
    id = await spool.put(TEXT)
    [lease] = await spool.claim()
    die(lease)
    flipped(path / f"{id}.sending", path)
    assert (await spool.recover()).requeued == (id,)
    [lease] = await spool.claim()
    with pytest.raises(RecordInvalid):
        lease.mail()


async def test_a_second_name_for_a_job_is_quarantined(spool: DirectorySpool, path: Path) -> None:
    id = await spool.put(TEXT)
    os.link(path / f"{id}.queued", path / "0.queued")
    assert await deliver(spool) == [id]
    assert [one.id for one in spool.unreadable()] == ["0"]


@pytest.mark.parametrize(
    "id", ["../x", "/etc/passwd", "a/../b", "", ".", "..", ".x", "a\0", "a\n", "x" * 300, "ü", "*", None, 7]
)
async def test_an_id_never_leads_out_of_the_directory(spool: DirectorySpool, path: Path, id) -> None:
    (path.parent / "x.queued").write_bytes(b"")
    for call in (spool.get, spool.read, spool.hold, spool.release, spool.requeue, spool.remove):
        with pytest.raises(NoSuchJob):
            await call(id)
    assert (path.parent / "x.queued").exists()


@pytest.mark.parametrize("key", ["../x", "a\0b", "\n", "/", "é\ud800", "k" * 1000])
async def test_a_key_never_becomes_a_file_name(spool: DirectorySpool, path: Path, key: str) -> None:
    id = await spool.put(TEXT, key=key)
    assert len(id) == 32 and id.isalnum()
    assert names(path) == [f"{id}.queued"]
    assert await spool.put(TEXT, key=key) == id


async def test_a_file_exchanged_between_open_and_lock_is_left_alone(path: Path) -> None:
    """C3: the name is checked again once the file is locked."""

    class Exchanged(syscalls.SystemCalls):
        def call(self, step, function, /, *args, **named):
            if step == "C2" and not getattr(self, "done", False):
                self.done = True
                [name] = path.glob("*.queued")
                os.rename(name, path / "aside")
                (path / name.name).write_bytes(data)
            return super().call(step, function, *args, **named)

    async with DirectorySpool(path, low_water=0) as other:
        id = await other.put(TEXT)
    data = (path / f"{id}.queued").read_bytes()
    async with DirectorySpool(path, syscalls=Exchanged, low_water=0) as spool:
        assert await spool.claim() == []
        (path / f"{id}.queued").chmod(0o600)
        assert await deliver(spool) == [id]


async def test_credentials_are_nowhere_in_a_file(spool: DirectorySpool, path: Path) -> None:
    """`put` takes no credentials, and a file has no fields but those of the header."""
    id = await spool.put(TEXT, key="k")
    fields = json.loads((path / f"{id}.queued").read_bytes().split(b"\n")[1])
    assert set(fields) == {
        *("id", "key", "created", "not_before", "expires", "sender", "recipients", "needs"),
        *("message_id", "body_len", "sha256"),
    }


# --- recovery ---


async def test_a_second_name_left_by_a_crash_is_harmless(spool: DirectorySpool, path: Path) -> None:
    id = await spool.put(TEXT)
    os.link(path / f"{id}.queued", path / "tmp" / id)
    [lease] = await spool.claim()
    await spool.recover()
    assert list((path / "tmp").iterdir()) == []
    await lease.settle(receipt_for(lease, QUEUED))
    assert names(path) == []


@pytest.mark.parametrize("end", ["fail", "settle"])
async def test_an_end_that_was_recorded_survives_a_crash_before_the_rename(
    spool: DirectorySpool, path: Path, end: str
) -> None:
    id = await spool.put(TEXT)
    [lease] = await spool.claim()
    if end == "fail":
        await lease.fail(receipt_for(lease, NEVER))
    else:
        await lease.settle(receipt_for(lease, QUEUED), keep=True)
    [old] = names(path)
    for other in ("sending", "queued"):
        (path / old).rename(path / f"{id}.{other}")
        recovery = await spool.recover()
        assert recovery.requeued == recovery.poisoned == ()
        assert await spool.claim() == []
        assert names(path) == [old]


async def test_a_crash_between_result_and_rename_keeps_the_result(spool: DirectorySpool, path: Path) -> None:
    id = await spool.put(TEXT, recipients=["a@example.org", "b@example.org"])
    [lease] = await spool.claim()
    later = time.time() + 1000
    await lease.defer(receipt_for(lease, QUEUED, LATER), later)
    (path / f"{id}.queued").rename(path / f"{id}.sending")
    assert (await spool.recover()).requeued == (id,)
    entry = await spool.get(id)
    assert [str(one.address) for one in entry.pending] == ["b@example.org"]
    assert await spool.claim() == []
    assert len(await spool.claim(now=later + 1)) == 1


async def test_a_power_failure_after_the_mark_leaves_the_job_flagged(
    spool: DirectorySpool, path: Path
) -> None:
    """The rename to `.sending` was never synced, but the mark was, which is a record in a second attempt."""
    id = await spool.put(TEXT)
    [lease] = await spool.claim()
    await lease.defer(None, 0.0)
    [lease] = await spool.claim()
    await lease.mark_end_of_data()
    die(lease)
    (path / f"{id}.sending").rename(path / f"{id}.queued")
    async with DirectorySpool(path) as other:
        [lease] = await other.claim()
        assert lease.entry.flagged


async def test_the_mtime_of_a_file_is_only_a_hint(spool: DirectorySpool, path: Path) -> None:
    later = time.time() + 1000
    id = await spool.put(TEXT, not_before=later)
    os.utime(path / f"{id}.queued")
    async with DirectorySpool(path) as other:
        assert await other.claim() == []
        assert abs((path / f"{id}.queued").stat().st_mtime - later) < 0.01
        assert len(await other.claim(now=later + 1)) == 1


# --- forks, ends, repr ---


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_needs_a_spool_of_its_own(path: Path) -> None:
    async def claimed() -> tuple[DirectorySpool, DirectoryLease]:
        spool = DirectorySpool(path)
        await spool.put(TEXT)
        [lease] = await spool.claim()
        assert isinstance(lease, DirectoryLease)
        return spool, lease

    spool, lease = asyncio.run(claimed())
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            spool.claim().send(None)
        except UsageError:
            # The kernel keeps a lock while any copy of the descriptor is open, and the child has closed its own.
            code = 0 if "ended" in repr(lease) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    asyncio.run(lease.settle(receipt_for(lease, QUEUED)))
    asyncio.run(spool.close())


def test_a_living_child_does_not_keep_the_jobs_of_its_dead_parent(path: Path) -> None:
    program = (
        "import asyncio, os, sys, time\n"
        "from smtp_async.spool.directory.spool import DirectorySpool\n"
        "async def main():\n"
        "    spool = DirectorySpool(sys.argv[1])\n"
        "    await spool.put(b'From: a@example.com\\r\\nTo: b@example.org\\r\\n\\r\\n')\n"
        "    await spool.claim()\n"
        "    pid = os.fork()\n"
        "    if pid: print(pid, flush=True)\n"
        "    else: time.sleep(60)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )

    async def recovered() -> bool:
        async with DirectorySpool(path) as spool:
            # The child may not have run yet.
            while not (await spool.recover()).requeued:
                await spool.wait(0.01)
            return len(await spool.claim()) == 1

    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as done:
        assert done.stdout is not None
        child = int(done.stdout.readline())
    try:
        assert asyncio.run(recovered())
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_lease_that_was_not_ended_stays_locked(spool: DirectorySpool) -> None:
    await spool.put(TEXT)
    await spool.claim()
    assert (await spool.recover()).requeued == ()
    assert await spool.claim() == []


async def test_closing_waits_and_leaves_no_file_open(path: Path) -> None:
    before = open_files()
    spool = DirectorySpool(path)
    ids = await asyncio.gather(*[spool.put(TEXT) for _ in range(10)])
    leases = await spool.claim(10)
    settled = [asyncio.ensure_future(lease.settle(None)) for lease in leases[:5]]
    await asyncio.sleep(0)
    await spool.close()
    await asyncio.gather(*settled)
    assert len([name for name in names(path) if name.endswith(".queued")]) == 5
    assert open_files() <= before
    for lease in leases[5:]:
        with pytest.raises(LeaseLost):
            lease.mail().content()
    assert len(ids) == 10


async def test_repr_shows_state_and_path(spool: DirectorySpool, path: Path) -> None:
    assert str(path) in repr(spool)
    await spool.put(TEXT)
    [lease] = await spool.claim()
    assert "held" in repr(lease)
    await lease.release()
    assert "ended" in repr(lease)
    assert await spool.claim(0) == []


def test_a_spool_may_be_used_by_one_event_loop_after_another(path: Path) -> None:
    spool = DirectorySpool(path)

    async def once() -> State:
        id = await spool.put(TEXT)
        await spool.wait(0.01)
        return (await spool.get(id)).state

    assert asyncio.run(once()) is State.QUEUED
    assert asyncio.run(once()) is State.QUEUED
    asyncio.run(spool.close())
