"""Loss of power: several processes use a directory, the power goes, and the promises are checked.

`Books` opens a spool made of each state that `tape.Tape` draws, recovers it, and checks the promises.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from smtp_async.errors import RecordInvalid
from smtp_async.spool.contract import Lease
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.entry import State
from smtp_async.testing.contracts import LATER, QUEUED, receipt_for
from tests.torture import letters
from tests.torture.tape import DiskState, Files, Tape

# --- what the processes do -----------------------------------------------------------------------------------

ENDS = ("settle", "keep", "defer", "release", "fail")


async def put(tape: Tape, spool: DirectorySpool, number: int) -> None:
    """Put a message, and note the promise."""
    id = await spool.put(
        letters.body(number),
        sender=letters.SENDER,
        recipients=letters.recipients(number),
        key=letters.key(number),
    )
    tape.promise(number, "put", id)


async def deliver(tape: Tape, lease: Lease, end: str, *, mark: bool) -> None:
    """Mark a message and end its lease, as a worker does."""
    number, id = number_of(lease), lease.entry.id
    claim = tape.claimed(number, id)
    if mark:
        await lease.mark_end_of_data()
        tape.promise(number, "marked", id)
    tape.promise(number, f"{end} begins", id)
    if end in ("settle", "keep"):
        await lease.settle(receipt_for(lease, QUEUED), keep=end == "keep")
    elif end == "defer":
        await lease.defer(receipt_for(lease, LATER), 0.0)
    elif end == "fail":
        await lease.fail(None, reason="unknown")
    else:
        await lease.release()
    # Another worker may have the job again by now.
    if tape.claims[number] == claim:
        tape.promise(number, end, id)


def number_of(lease: Lease) -> int:
    """Return the number of a leased message."""
    return letters.read_address(lease.entry.envelope.recipients[0].address.addr_spec)[0]


async def work(tape: Tape, path: Path, ends: Sequence[str], chance: random.Random) -> None:
    """Deliver as many messages as there are ends."""
    async with tape.spool(path) as spool:
        for end in ends:
            leases = await spool.claim(1, now=4e9)
            while not leases:
                await spool.wait(0.01)
                leases = await spool.claim(1, now=4e9)
            await deliver(tape, leases[0], end, mark=chance.random() < 0.7)


async def produce(tape: Tape, path: Path, numbers: Sequence[int]) -> None:
    """Put messages, each two of them at once, so that they share the sync of their names."""
    async with tape.spool(path) as spool:
        for pair in zip(numbers[::2], numbers[1::2], strict=True):
            await asyncio.gather(*(put(tape, spool, number) for number in pair))


async def record(path: Path, chance: random.Random) -> Tape:
    """Record two producers, two workers and one that recovers, on one directory."""
    tape = Tape()
    ends = [*ENDS, *chance.choices(ENDS, k=1)]
    chance.shuffle(ends)
    async with tape.spool(path):
        pass
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(produce(tape, path, (1, 4, 2, 5)))
        tasks.create_task(produce(tape, path, (7, 6)))
        tasks.create_task(work(tape, path, ends[:3], chance))
        tasks.create_task(work(tape, path, ends[3:], chance))
        tasks.create_task(recover(tape, path))
    return tape


async def recover(tape: Tape, path: Path) -> None:
    """Recover while the others work."""
    async with tape.spool(path) as spool:
        await spool.recover()


# --- the check -----------------------------------------------------------------------------------------------


class Books:
    """Opens the states of a disk, and compares them with the promises.

    Args:
        path: the directory that is made anew for each.

    Attributes:
        states: number of states that were opened.
        wrong: broken promises, in words.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.states = 0
        self.wrong: list[str] = []

    async def open(self, state: DiskState) -> None:
        """Recover a spool in this state and check each message."""
        self.states += 1
        self._make(state.files)
        async with DirectorySpool(self._path, create=True, durable=False, low_water=0) as spool:
            await spool.recover()
            if spool.unreadable():
                self.wrong.append(f"unreadable: {spool.unreadable()} in {self._told(state)}")
            # A job whose end is in its journal, and not in its name, has its name after this.
            leases = {lease.entry.id: lease for lease in await spool.claim(100, now=4e9)}
            failed = {entry.id async for entry in spool.list(State.FAILED)}
            kept = {entry.id async for entry in spool.list(State.SENT)}
            for lease in leases.values():
                try:
                    whole = await spool.read(lease.entry.id) == letters.body(number_of(lease))
                except RecordInvalid:
                    whole = False
                if not whole:
                    self.wrong.append(f"{number_of(lease)} is spoilt in {self._told(state)}")
            for number in {promise.number for promise in state.promises}:
                self._check(number, state, leases, failed, kept)
            if any(promise.what == "settle" for promise in state.promises):
                await self._put_again(spool, state)

    def _check(
        self, number: int, state: DiskState, leases: dict[str, Lease], failed: set[str], kept: set[str]
    ) -> None:
        mine = [promise for promise in state.promises if promise.number == number]
        # A message may be leased before its put returns.
        last = [promise.what for promise in mine if promise.what != "put"][-1:] or ["put"]
        id = mine[0].id
        lease = leases.get(id)
        flagged = lease is not None and lease.entry.flagged
        claims = [place for place, promise in enumerate(mine) if promise.what == "claimed"]
        marked = any(promise.what == "marked" for promise in mine[claims[-1] :]) if claims else False
        where = "leased" if lease else "failed" if id in failed else "kept" if id in kept else "gone"
        allowed: dict[str, tuple[tuple[str, ...], bool | None]] = {
            "put": (("leased",), None),
            "claimed": (("leased",), None),
            "marked": (("leased",), True),
            "settle begins": (("leased", "gone"), marked),
            "settle": (("gone",), None),
            "keep begins": (("leased", "kept"), marked),
            "keep": (("kept",), None),
            "defer begins": (("leased",), None),
            "defer": (("leased",), False),
            "release begins": (("leased",), None),
            "release": (("leased",), False),
            "fail begins": (("leased", "failed"), None),
            "fail": (("failed",), None),
        }
        places, flag = allowed[last[0]]
        if where not in places or (lease is not None and flag is not None and flagged != flag):
            self.wrong.append(
                f"{number} is {where}, flagged {flagged}, after {last[0]} in {self._told(state)}"
            )

    async def _put_again(self, spool: DirectorySpool, state: DiskState) -> None:
        """Put each message with a key again that was delivered: it has the id that it had, and no second job."""
        ids = {promise.number: promise.id for promise in state.promises if promise.id}
        for number in {promise.number for promise in state.promises if promise.what == "settle"}:
            key = letters.key(number)
            if key is not None and number in ids:
                again = await spool.put(
                    letters.body(number), sender=letters.SENDER, recipients=["a@b.test"], key=key
                )
                if again != ids[number] or await spool.claim(1, now=4e9):
                    self.wrong.append(f"the key of {number} is forgotten in {self._told(state)}")

    def _make(self, files: Files) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir(mode=0o700)
        made: dict[int, Path] = {}
        for name, (number, octets) in sorted(files.items()):
            path = self._path / name
            if octets is None:
                path.mkdir(mode=0o700, exist_ok=True)
            elif number in made:
                os.link(made[number], path)
            else:
                path.write_bytes(octets.data)
                path.chmod(0o600)
                os.utime(path, ns=(octets.when, octets.when))
                made[number] = path

    @staticmethod
    def _told(state: DiskState) -> str:
        sizes = {name: octets and len(octets.data) for name, (_, octets) in state.files.items()}
        return f"{sizes} after {[promise[:2] for promise in state.promises]}"


async def lose_power(path: Path, *, states: int, each: int, chance: random.Random) -> Books:
    """Record and open until so many states were opened, `each` at most after one call."""
    books = Books(path / "after")
    for number in itertools.count():
        tape = await record(path / f"before{number}", chance)
        for state in tape.states(each, chance):
            await books.open(state)
            if books.states >= states:
                return books
    raise AssertionError("unreachable")
