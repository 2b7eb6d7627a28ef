"""The calls of several spools on one directory, and every state that a disk may be left in by a loss of power.

`Tape` records the calls that change something, in their order, and what the spool had promised by each of them. A disk
may then hold more than was synced, in any mixture:

- Octets that were written after the last fsync of a file are there, in part, not at all, or as zeros; so is its time.
- A name that was made, renamed or removed after the last fsync of its directory has been so, or not, each by itself. A
  rename into another directory may leave both names.

`Tape.states` draws states at every call.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeAlias

from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import SystemCalls

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
