"""Moving jobs between spools: nothing is lost and nothing is sent twice, whenever the move dies."""

import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from smtp_async import DirectorySpool
from smtp_async.cli.spools import name_of
from smtp_async.errors import SpoolFull, UsageError
from smtp_async.model.content import Content
from smtp_async.model.envelope import Envelope
from smtp_async.spool.contract import Lease, Spool
from smtp_async.spool.entry import Entry, State
from smtp_async.spool.moving import PARKED, move
from smtp_async.testing import CancelManner, MemorySpool, cancellations
from smtp_async.testing.lease_contract import LATER, QUEUED, TEXT, receipt_for
from tests.spool.postgres.databases import new_spool, schema_of

MANY = 4
#: Moments before and after a change: three changes for each job, and two for the one that is held.
CHANGES = 2 * (3 * MANY - 1)


async def all_of(spool: Spool, state: State | None = None) -> list[Entry]:
    return [entry async for entry in spool.list(state)]


async def lease_of(spool: Spool, id: str) -> Lease:
    """Return the lease of a job that is due, and release the others."""
    leases = {lease.entry.id: lease for lease in await spool.claim(99)}
    found = leases.pop(id)
    for lease in leases.values():
        await lease.release()
    return found


async def moved(source: Spool, target: Spool, name: str = "target") -> list[str]:
    return [id async for id in move(source, target, name)]


@pytest.fixture(params=["memory", "directory", "postgres"])
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Spool]:
    if request.param == "memory":
        async with MemorySpool() as memory:
            yield memory
    elif request.param == "directory":
        async with DirectorySpool(tmp_path / "target", create=True) as directory:
            yield directory
    else:
        async with await new_spool(request.getfixturevalue("postgres")) as database:
            yield database


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[DirectorySpool]:
    async with DirectorySpool(tmp_path / "source", create=True) as spool:
        yield spool


async def test_every_queued_job_moves_with_its_history(source: DirectorySpool, target: Spool) -> None:
    now = time.time()
    plain = await source.put(TEXT, tag="news")
    keyed = await source.put(TEXT, key="invoice 7", expires=now + 5000)
    later = await source.put(TEXT, not_before=now + 1000)
    held = await source.put(TEXT)
    await source.hold(held)
    tried = await source.put(TEXT, recipients=["a@example.org", "b@example.org"])
    lease = await lease_of(source, tried)
    await lease.defer(receipt_for(lease, QUEUED, LATER), now + 60, reason="451 later")
    failed = await source.put(TEXT)
    lease = await lease_of(source, failed)
    await lease.fail(None, reason="550 no")
    before = {entry.id: entry for entry in await all_of(source)}
    assert set(await moved(source, target)) == {plain, keyed, later, held, tried}
    assert [entry.id for entry in await all_of(source)] == [failed]
    after = {entry.id: entry for entry in await all_of(target)}
    assert set(after) == {plain, keyed, later, held, tried}
    for id, entry in after.items():
        old = before[id]
        # All but the key, because every job that was moved is remembered.
        old.key = id
        assert entry == old
        assert await target.read(id) == TEXT
    assert await target.put(TEXT, key="invoice 7") == keyed
    assert await moved(source, target) == []


async def test_jobs_that_are_being_sent_stay(source: DirectorySpool, target: Spool) -> None:
    await source.put(TEXT)
    [lease] = await source.claim()
    assert await moved(source, target) == []
    await lease.release()
    assert len(await moved(source, target)) == 1


async def test_a_large_message_moves(source: DirectorySpool, target: Spool) -> None:
    data = TEXT + (b"x" * 100 + b"\r\n") * 3000
    id = await source.put(data)
    await moved(source, target)
    assert await target.read(id) == data
    [lease] = await target.claim()
    assert lease.mail().content().size == len(data)
    await lease.release()


class Exact:
    """A message whose octets are not changed, with bare line endings."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def envelope(self) -> Envelope:
        return Envelope("ann@example.com", ["bob@example.org"])

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        return Content.of_bytes(self.data, exact=True)


async def test_an_exact_message_stays_exact(target: Spool) -> None:
    bare = TEXT + b"bare\nline\rends\0\r\n\xff\r\n"
    async with MemorySpool(adapt=lambda message, sender, recipients: message) as other:
        id = await other.put(Exact(bare))
        await moved(other, target)
    [lease] = await target.claim()
    content = lease.mail().content()
    assert (content.binary, content.eightbit, content.exact) == (True, True, True)
    assert await target.read(id) == bare
    await lease.release()


async def test_a_full_target_parks_the_job_until_there_is_room(
    source: DirectorySpool, tmp_path: Path
) -> None:
    ids = {await source.put(TEXT) for _ in range(2)}
    async with DirectorySpool(tmp_path / "full", create=True, low_water=2**62) as full:
        with pytest.raises(SpoolFull):
            await moved(source, full)
    [parked] = await all_of(source, State.FAILED)
    assert (parked.reason, parked.attempts) == (f"{PARKED}target: ", 0)
    async with MemorySpool() as other:
        with pytest.raises(UsageError, match="is being moved to target: complete that first"):
            await moved(source, other, "elsewhere")
        assert set(await moved(source, other)) == ids
        assert {entry.reason for entry in await all_of(other)} == {""}


async def test_a_damaged_message_fails_and_the_others_move(source: DirectorySpool, tmp_path: Path) -> None:
    damaged, whole = await source.put(TEXT), await source.put(TEXT)
    path = tmp_path / "source" / f"{damaged}.queued"
    path.write_bytes(path.read_bytes().replace(b"Hello", b"Jello"))
    async with MemorySpool() as other:
        assert await moved(source, other) == [whole]
    [entry] = await all_of(source)
    assert (entry.id, entry.state) == (damaged, State.FAILED) and "SHA-256" in entry.reason


@pytest.mark.parametrize("manner", CancelManner)
async def test_a_move_may_be_cancelled_at_every_await(
    source: DirectorySpool, tmp_path: Path, manner: CancelManner
) -> None:
    async with DirectorySpool(tmp_path / "other", create=True) as other:
        ids = [await source.put(TEXT)]
        async for run in cancellations(lambda: moved(source, other), manner=manner):
            if not run.injected:
                break
            await moved(source, other)
            assert not await all_of(source), f"cancelled at await {run.at}"
            ids.append(await source.put(TEXT))
        assert sorted(entry.id for entry in await all_of(other)) == sorted(ids)


# --- a move that dies ----------------------------------------------------------------------------------------


class Died(BaseException):
    """The move was killed."""


class Mortal:
    """Kills the move before or after its n-th change of a spool."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.calls = 0

    async def change(self, change: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            change.close()
            raise Died
        result = await change
        self.calls += 1
        if self.calls == self.at:
            raise Died
        return result


class MortalSpool(MemorySpool):
    """A spool whose changes may kill the move."""

    def __init__(self, mortal: Mortal) -> None:
        super().__init__()
        self.mortal: Mortal | None = mortal
        self.lent: list[Lease] = []

    async def claim(self, *arguments: Any, **options: Any) -> Any:
        leases = await super().claim(*arguments, **options)
        self.lent += leases
        if self.mortal is None:
            return leases
        for lease in leases:
            fail, mortal = lease.fail, self.mortal
            lease.fail = lambda *a, fail=fail, mortal=mortal, **o: mortal.change(fail(*a, **o))  # type: ignore[method-assign]
        return leases

    async def adopt(self, *arguments: Any) -> str:
        change = super().adopt(*arguments)
        return await (change if self.mortal is None else self.mortal.change(change))

    async def remove(self, id: str) -> None:
        change = super().remove(id)
        await (change if self.mortal is None else self.mortal.change(change))

    def die(self) -> None:
        """Leave the leases as a process does that died."""
        self.mortal = None
        for lease in self.lent:
            try:
                self.abandon(lease)
            except KeyError:
                continue


async def delivered(spool: Spool, sent: Counter[str]) -> None:
    """Send what a spool has."""
    await spool.recover()
    while leases := await spool.claim():
        sent[leases[0].entry.id] += 1
        await leases[0].settle(receipt_for(leases[0], QUEUED))


@pytest.mark.parametrize("at", range(1, CHANGES + 1))
@pytest.mark.parametrize("working", ["both", "source", "target", "neither"])
async def test_a_kill_at_every_change_loses_and_doubles_nothing(at: int, working: str) -> None:
    """Also if workers of either spool go on at once."""
    mortal = Mortal(at)
    source, target = MortalSpool(mortal), MortalSpool(mortal)
    ids = [await source.put(TEXT) for _ in range(MANY - 1)] + [await source.put(TEXT, key="k")]
    await source.hold(ids[0])
    sent: Counter[str] = Counter()
    with pytest.raises(Died):
        await moved(source, target)
    source.die()
    target.die()
    if working in ("both", "source"):
        await delivered(source, sent)
    if working in ("both", "target"):
        await delivered(target, sent)
    await moved(source, target)
    assert [entry.state for entry in await all_of(source)] == []
    await target.release(ids[0])
    await delivered(target, sent)
    assert sent == Counter(ids)


#: Moves the jobs of one spool to another, and prints the id of each.
PROGRAM = """
import asyncio, sys
from smtp_async.cli.spools import name_of, open_spool
from smtp_async.spool.moving import move

async def main(source, target):
    async with open_spool(source) as old, open_spool(target) as new:
        async for id in move(old, new, name_of(target)):
            print(id, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def kill_a_move(source: Path, target: str, lines: int) -> None:
    """Start a move in a process, and kill it when it has moved so many jobs."""
    command = [sys.executable, "-c", PROGRAM, str(source), target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline()
        process.kill()
    assert process.returncode == -signal.SIGKILL


# A process is started, which takes longer than a test may if the machine is busy.
@pytest.mark.timeout(60)
@pytest.mark.parametrize("lines", [1, 5])
@pytest.mark.parametrize("kind", ["directory", "postgres"])
async def test_a_kill_of_the_process_loses_and_doubles_nothing(
    kind: str, lines: int, source: DirectorySpool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "directory":
        place = str(tmp_path / "target")
        target: Spool = DirectorySpool(place, create=True)
    else:
        server = request.getfixturevalue("postgres")
        database = await new_spool(server)
        place = f"{server.url()}?schema={schema_of(database)}"
        target = database
    ids = await asyncio.gather(*[source.put(TEXT) for _ in range(30)])
    sent: Counter[str] = Counter()
    async with target:
        await asyncio.to_thread(kill_a_move, tmp_path / "source", place, lines)
        # Workers of the target send what is there meanwhile.
        await delivered(target, sent)
        assert await all_of(source)
        await moved(source, target, name_of(place))
        await delivered(target, sent)
    assert sent == Counter(ids)
    assert await all_of(source) == []
