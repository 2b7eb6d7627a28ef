"""lease.py: what a lease gives, how it ends, and that it ends once; every spool's rules are in the contract's tests."""

import asyncio
import io
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from smtp_async.errors import LeaseLost, RecordInvalid
from smtp_async.model.content import Source
from smtp_async.spool.contract import Lease
from smtp_async.spool.directory.job_files import SMALL
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.spool.entry import MAX_TEXT, State
from smtp_async.testing.contracts import LATER, QUEUED, TEXT, receipt_for
from tests.spool.directory.parts import die

LARGE = TEXT + b"".join(b"%06d\r\n" % number for number in range(20_000))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
async def spool(path: Path):
    async with DirectorySpool(path, create=True, low_water=0) as spool:
        yield spool


async def leased(spool: DirectorySpool, body: bytes = TEXT) -> Lease:
    await spool.put(body, sender="a@x.test", recipients=["b@x.test"])
    (lease,) = await spool.claim()
    return lease


def window(lease: Lease) -> BinaryIO:
    """Return the file object by which a large message is read."""
    (segment,) = lease.mail().content().segments
    assert isinstance(segment, Source)
    return segment.origin  # type: ignore[return-value]  # it is one


ENDS: dict[str, Any] = {
    "settle": lambda lease: lease.settle(receipt_for(lease, QUEUED)),
    "defer": lambda lease: lease.defer(receipt_for(lease, LATER), 5.0),
    "fail": lambda lease: lease.fail(None),
    "release": lambda lease: lease.release(),
}


# --- the message ---------------------------------------------------------------------------------------------


async def test_a_small_message_is_in_memory_and_a_large_one_is_not(spool: DirectorySpool) -> None:
    assert (await leased(spool)).mail().content().segments == (TEXT,)
    large = await leased(spool, LARGE)
    assert len(LARGE) > SMALL and large.mail().content().size == len(LARGE)
    assert isinstance(large.mail().content().segments[0], Source)


async def test_the_window_on_a_large_message_is_a_file_of_its_own(spool: DirectorySpool) -> None:
    """It ends where the journal begins, and two windows have two positions."""
    lease = await leased(spool, LARGE)
    await lease.mark_end_of_data()
    one, other = window(lease), window(lease)
    assert one.readable() and one.seekable() and not one.writable()
    assert one.seek(-10, io.SEEK_END) == one.tell() == len(LARGE) - 10
    assert one.read(100) == LARGE[-10:] and one.read(100) == b""
    assert one.seek(7) == 7 and one.seek(3, io.SEEK_CUR) == 10
    assert one.read(5) == LARGE[10:15]
    assert other.read(4) == LARGE[:4]
    assert one.seek(len(LARGE) + 5) > len(LARGE) and one.read(1) == b""
    with pytest.raises(ValueError, match="before the beginning"):
        one.seek(-1)


async def test_the_window_is_closed_with_the_lease(spool: DirectorySpool) -> None:
    lease = await leased(spool, LARGE)
    file = window(lease)
    await lease.release()
    with pytest.raises(ValueError, match="has ended"):
        file.read(1)


async def test_the_mail_of_a_damaged_job_is_refused(spool: DirectorySpool, path: Path) -> None:
    id = await spool.put(TEXT)
    file = path / f"{id}.queued"
    file.write_bytes(file.read_bytes().replace(TEXT, TEXT.swapcase()))
    (lease,) = await spool.claim()
    with pytest.raises(RecordInvalid, match="cannot be sent any more"):
        lease.mail()
    await lease.fail(None)


# --- ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ENDS)
@pytest.mark.parametrize("first", ENDS)
async def test_a_lease_ends_once(spool: DirectorySpool, first: str, second: str) -> None:
    lease = await leased(spool)
    await ENDS[first](lease)
    with pytest.raises(LeaseLost):
        await ENDS[second](lease)
    for call in (lease.extend, lease.mark_end_of_data):
        with pytest.raises(LeaseLost):
            await call()
    with pytest.raises(LeaseLost):
        lease.mail()


@pytest.mark.parametrize("durable", [True, False])
async def test_of_two_ends_at_once_one_is_lost(path: Path, durable: bool) -> None:
    async with DirectorySpool(path, create=True, durable=durable) as spool:
        lease = await leased(spool)
        results = await asyncio.gather(ENDS["settle"](lease), ENDS["release"](lease), return_exceptions=True)
        assert [type(one) for one in results] == [type(None), LeaseLost]
        assert (await spool.statistics()).queued == 0


@pytest.mark.parametrize(
    ("end", "state"), [("defer", State.QUEUED), ("fail", State.FAILED), ("release", State.QUEUED)]
)
async def test_an_end_shows_in_the_name_of_the_file(
    spool: DirectorySpool, path: Path, end: str, state: State
) -> None:
    lease = await leased(spool)
    assert (path / f"{lease.entry.id}.sending").exists()
    await ENDS[end](lease)
    assert (path / f"{lease.entry.id}.{state.value}").exists()


async def test_a_released_lease_leaves_no_record(spool: DirectorySpool, path: Path) -> None:
    lease = await leased(spool)
    file = path / f"{lease.entry.id}.queued"
    before = (path / f"{lease.entry.id}.sending").read_bytes()
    await lease.release()
    assert file.read_bytes() == before
    (again,) = await spool.claim()
    await again.mark_end_of_data()
    await again.release()
    assert file.read_bytes() == before
    assert not (await spool.get(lease.entry.id)).flagged


async def test_a_released_lease_takes_its_record_back(spool: DirectorySpool, path: Path) -> None:
    lease = await leased(spool)
    await lease.defer(None, 0.0)
    (again,) = await spool.claim()
    await again.mark_end_of_data()
    await again.release()
    # Otherwise the mark would say that the message may have been sent.
    assert b'"r":"untouched"' in (path / f"{lease.entry.id}.queued").read_bytes()
    assert not (await spool.get(lease.entry.id)).flagged


async def test_a_mark_is_written_once(spool: DirectorySpool, path: Path) -> None:
    lease = await leased(spool)
    for _ in range(3):
        await lease.mark_end_of_data()
    assert (path / f"{lease.entry.id}.marked").exists()
    await lease.defer(None, 0.0)
    (lease,) = await spool.claim()
    for _ in range(3):
        await lease.mark_end_of_data()
    assert (path / f"{lease.entry.id}.sending").read_bytes().count(b'"r":"eod"') == 1


async def test_a_long_reason_is_cut(spool: DirectorySpool) -> None:
    lease = await leased(spool)
    await lease.fail(None, reason="x" * 10_000)
    assert (await spool.get(lease.entry.id)).reason == "x" * MAX_TEXT


async def test_an_abandoned_job_waits_for_recovery(spool: DirectorySpool) -> None:
    lease = await leased(spool)
    await lease.mark_end_of_data()
    die(lease)
    assert await spool.claim() == []
    with pytest.raises(LeaseLost):
        await ENDS["settle"](lease)
    recovery = await spool.recover()
    assert recovery.requeued == recovery.flagged == (lease.entry.id,)


async def test_repr_shows_the_attempt_and_how_far_it_is(path: Path) -> None:
    class Broken(SystemCalls):
        def unlink(self, step: str, name: str) -> None:
            if step == "S1" and broken:
                raise OSError(5, "broken")
            super().unlink(step, name)

    broken = True
    async with DirectorySpool(path, create=True, syscalls=Broken) as spool:
        lease = await leased(spool)
        start = f"<DirectoryLease {lease.entry.id} attempt 1: "
        assert repr(lease) == f"{start}held>"
        with pytest.raises(OSError):
            await ENDS["settle"](lease)
        assert repr(lease) == f"{start}ending>"
        broken = False
        await ENDS["settle"](lease)
        assert repr(lease) == f"{start}ended>"
