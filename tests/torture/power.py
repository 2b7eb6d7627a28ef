"""Loss of power: the calls of several processes on one directory, and every state that a disk may be left in.

`Tape` records the calls that change something, in their order, and what the spool had promised by each of them. A disk
may then hold more than was synced, in any mixture:

- Octets that were written after the last fsync of a file are there, in part, not at all, or as zeros; so is its time.
- A name that was made, renamed or removed after the last fsync of its directory has been so, or not, each by itself. A
  rename into another directory may leave both names.

`Tape.states` draws states at every call. `Books` opens a spool made of one, recovers it, and checks the promises.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeAlias

from smtp_async.errors import RecordInvalid
from smtp_async.spool.contract import Lease
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.spool.entry import State
from smtp_async.testing.contracts import LATER, QUEUED, receipt_for
from tests.torture import letters

#: The size of the blocks that a disk writes or does not.
BLOCK = 4096


class Octets(NamedTuple):
    """What a file holds, and when it is due."""

    data: bytes
    when: int


@dataclass
class Inode:
    """A file: what is on disk, and what was written since."""

    synced: Octets
    written: Octets

    def variants(self) -> list[Octets]:
        """Return what the disk may hold."""
        old, new = self.synced, self.written
        if old == new:
            return [new]
        found = {new: None, old: None, Octets(new.data, old.when): None, Octets(old.data, new.when): None}
        if new.data.startswith(old.data):
            start, size = len(old.data), len(new.data)
            ends = {start + (size - start) // 2, size - 1, *range(BLOCK * (start // BLOCK + 1), size, BLOCK)}
            for end in sorted(ends - {start, size}):
                if start < end < size:
                    found[Octets(new.data[:end], new.when)] = None
                    found[Octets(new.data[:end] + bytes(size - end), new.when)] = None
                    found[Octets(old.data + bytes(end - start) + new.data[end:], new.when)] = None
            found[Octets(old.data + bytes(size - start), new.when)] = None
        return list(found)


class Change(NamedTuple):
    """A change of names that may not be on disk.

    Attributes:
        old: the name that goes; empty for none.
        new: the name that comes; empty for none.
        inode: the file; -1 for a directory.
    """

    old: str
    new: str
    inode: int

    def directories(self) -> set[str]:
        """Return the directories whose fsync brings the change to disk."""
        return {_directory(name) for name in (self.old, self.new) if name}

    def ways(self) -> list[tuple[Change, ...]]:
        """Return what may be on disk of it."""
        ways: list[tuple[Change, ...]] = [(), (self,)]
        if len(self.directories()) == 2:
            ways.append((Change("", self.new, self.inode),))
        return ways


Names: TypeAlias = dict[str, int]
Files: TypeAlias = dict[str, tuple[int, Octets | None]]


class Promise(NamedTuple):
    """What a caller was told about a message: `put`, `claimed`, `marked`, the name of an end, or that it begins."""

    number: int
    what: str
    id: str


@dataclass
class Moment:
    """The disk after one call."""

    names: Names
    changes: list[Change]
    inodes: dict[int, Inode]
    promises: tuple[Promise, ...]

    def possible(self) -> int:
        """Return how many mixtures there are."""
        count = 1
        for change in self.changes:
            count *= len(change.ways())
        for inode in self.inodes.values():
            count *= len(inode.variants())
        return count

    def states(self, most: int, chance: random.Random) -> Iterator[Files]:
        """Return all mixtures; `most` of them, with both extremes, if there are more."""
        parts: list[list[Any]] = [change.ways() for change in self.changes]
        parts += [inode.variants() for inode in self.inodes.values()]
        mixtures: Iterator[tuple[Any, ...]] | list[tuple[Any, ...]] = itertools.product(*parts)
        if self.possible() > most:
            # The first of a change is "not done", the first of a file is "all of it": both are turned around, too.
            mixtures = [tuple(part[0] for part in parts), tuple(part[-1] for part in parts)]
            mixtures += [tuple(chance.choice(part) for part in parts) for _ in range(most - 2)]
        for mixture in mixtures:
            changes = itertools.chain.from_iterable(mixture[: len(self.changes)])
            octets = dict(zip(self.inodes, mixture[len(self.changes) :], strict=True))
            yield self._files(changes, octets)

    def _files(self, changes: Iterator[Change], octets: dict[int, Octets]) -> Files:
        names = dict(self.names)
        for change in changes:
            if change.old and names.get(change.old) != change.inode:
                continue  # what it was made of is not on disk
            names.pop(change.old, None)
            if change.new:
                names[change.new] = change.inode
        return {
            name: (inode, octets.get(inode))
            for name, inode in names.items()
            if not _directory(name) or _directory(name) in names
        }


class DiskState(NamedTuple):
    """A state of the disk, and what was promised by then."""

    files: Files
    promises: tuple[Promise, ...]


@dataclass
class Tape:
    """Records the calls of all spools that are opened with `spool`.

    Attributes:
        moments: the disk after each call, or promise.
        calls: number of calls that were recorded.
        claims: how often each message was leased.
    """

    moments: list[Moment] = field(default_factory=list)
    calls: int = 0
    claims: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.lock = Lock()
        self._names: Names = {}
        self._now: Names = {}
        self._changes: list[Change] = []
        self._inodes: dict[int, Inode] = {}
        self._promises: list[Promise] = []
        self._numbers: dict[int, int] = {}
        self._count = itertools.count()

    def spool(self, path: Path, *, durable: bool = True) -> DirectorySpool:
        """Open the directory as one more process does."""
        syscalls = partial(TapedCalls, tape=self)
        return DirectorySpool(path, create=True, durable=durable, low_water=0, poll=0.01, syscalls=syscalls)

    def promise(self, number: int, what: str, id: str) -> None:
        """Note what a caller was told, or is about to ask for."""
        with self.lock:
            self._promises.append(Promise(number, what, id))
            self._photograph()

    def claimed(self, number: int, id: str) -> int:
        """Note that a worker has leased a message; return how often it was."""
        self.claims[number] += 1
        self.promise(number, "claimed", id)
        return self.claims[number]

    def note(self, function: str, result: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Record a call that was made, with the lock held."""
        match function:
            case "open":
                number = self._numbers[os.fstat(result).st_ino] = next(self._count)
                empty = Octets(b"", os.fstat(result).st_mtime_ns)
                self._inodes[number] = Inode(empty, empty)
                self._change(Change("", args[0], number))
            case "write":
                self._write(args[0], lambda old: old + bytes(args[1][:result]))
            case "ftruncate":
                self._write(args[0], lambda old: b"")
            case "utime":
                if args[0] not in self._now or self._now[args[0]] < 0:
                    return  # a directory
                inode = self._inodes[self._now[args[0]]]
                inode.written = Octets(inode.written.data, named["ns"][1])
            case "mkdir":
                self._change(Change("", args[0], -1))
            case "link":
                self._change(Change("", args[1], self._now[args[0]]))
            case "rename":
                self._change(Change(args[0], args[1], self._now[args[0]]))
            case "unlink":
                self._change(Change(args[0], "", self._now[args[0]]))
            case "_sync":
                inode = self._inodes[self._numbers[os.fstat(args[0]).st_ino]]
                inode.synced = inode.written
            case "_sync_directory":
                self._sync_directory(args[0])
        self.calls += 1
        self._photograph()

    def _change(self, change: Change) -> None:
        self._changes.append(change)
        self._apply(self._now, change)

    @staticmethod
    def _apply(names: Names, change: Change) -> None:
        names.pop(change.old, None)
        if change.new:
            names[change.new] = change.inode

    def _write(self, fd: int, changed: Callable[[bytes], bytes]) -> None:
        status = os.fstat(fd)
        inode = self._inodes[self._numbers[status.st_ino]]
        inode.written = Octets(changed(inode.written.data), status.st_mtime_ns)

    def _sync_directory(self, fd: int) -> None:
        where = os.readlink(f"/proc/self/fd/{fd}")
        directory = os.path.basename(where)
        directory = directory if self._now.get(directory) == -1 else ""
        kept = []
        for change in self._changes:
            if directory not in change.directories():
                kept.append(change)
            elif len(change.directories()) == 2 and _directory(change.new) == directory:
                # The new name is on disk, and the old one may be there, too.
                self._apply(self._names, Change("", change.new, change.inode))
                kept.append(Change(change.old, "", change.inode))
            else:
                self._apply(self._names, change)
        self._changes = kept

    def _photograph(self) -> None:
        named = {*self._names.values(), *(change.inode for change in self._changes)} - {-1}
        inodes = {number: Inode(*vars(self._inodes[number]).values()) for number in sorted(named)}
        self.moments.append(
            Moment(dict(self._names), list(self._changes), inodes, tuple(self._promises)),
        )

    def states(self, each: int, chance: random.Random) -> Iterator[DiskState]:
        """Return states of every moment, `each` at most; none with the same promises twice."""
        seen: set[Any] = set()
        for moment in self.moments:
            for files in moment.states(each, chance):
                known = (frozenset(files.items()), moment.promises)
                if known not in seen:
                    seen.add(known)
                    yield DiskState(files, moment.promises)


def _directory(name: str) -> str:
    return name.rpartition("/")[0]


class TapedCalls(SystemCalls):
    """System calls that a tape records."""

    def __init__(self, root: int, *, durable: bool = True, tape: Tape) -> None:
        super().__init__(root, durable=durable)
        self._tape = tape

    def call(self, step: str, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        name = function.__name__
        changes = name in ("write", "ftruncate", "utime", "mkdir", "link", "rename", "unlink")
        if name == "open":
            changes = bool(args[1] & os.O_CREAT)
        if not changes and name not in ("_sync", "_sync_directory"):
            return super().call(step, function, *args, **named)
        with self._tape.lock:
            result = super().call(step, function, *args, **named)
            self._tape.note(name, result, args, named)
        return result


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
