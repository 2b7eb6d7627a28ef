"""The checks of what was acknowledged, started and delivered against the promises of the spool.

- A key that is put again after everything was delivered creates no second job.
- An acknowledged message is delivered, or still in the spool with its result readable in its file. None is lost.
- No message arrives twice, unless the attempt that delivered the second copy was flagged.
- A flagged job was leased by a process when that was killed: started by it, and its end not recorded.
- A message arrives octet for octet as it was put. Recipients to be refused got nothing and have that result.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from smtp_async.model.receipt import Outcome
from smtp_async.spool.entry import Entry, State
from smtp_async.spool.record import parse
from tests.torture import letters
from tests.torture.recorder import Recorder


@dataclass
class Account:
    """The figures of a run, which can be added up.

    Attributes:
        deaths: processes that were killed.
        acknowledged: messages whose `put` returned.
        delivered: messages of which at least one copy arrived.
        lost: recipients of acknowledged messages that neither got the message nor have a result.
        flagged: flagged attempts.
        duplicates: copies beyond the first.
        outside: those of them that were not flagged.
        wrong: other broken promises, in words.
    """

    deaths: int = 0
    acknowledged: int = 0
    delivered: int = 0
    lost: int = 0
    flagged: int = 0
    duplicates: int = 0
    outside: int = 0
    wrong: list[str] = field(default_factory=list)

    def __iadd__(self, other: Account) -> Account:
        for name in ("deaths", "acknowledged", "delivered", "lost", "flagged", "duplicates", "outside"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wrong += other.wrong
        return self

    def demand(self) -> None:
        """Raise if a promise was broken."""
        assert (self.lost, self.outside, self.wrong) == (0, 0, []), str(self)

    def __str__(self) -> str:
        text = (
            f"{self.deaths:,} deaths, {self.acknowledged:,} acknowledged, {self.lost:,} lost, "
            f"{self.delivered:,} delivered, {self.duplicates:,} extra copies, {self.outside:,} of them not flagged, "
            f"{self.flagged:,} flagged"
        )
        return "\n".join([text, *self.wrong[:20]])


class Log:
    """What the processes logged (see `children`).

    Attributes:
        acknowledged: number → ids that `put` returned.
        flags: number → how often the job was started with a flag for the first time after a death.
        astray: ids that were flagged although no process died with them.
        begun: number → ids under which the message was started.
        full: numbers that the spool had no room for.
        removed: numbers that an operator deleted.
        workers: the processes that delivered.
        calls: the counts of the last process that ended by itself.
    """

    def __init__(self, path: Path, killed: set[int], *, marked_early: bool = False) -> None:
        self.acknowledged: defaultdict[int, set[str]] = defaultdict(set)
        self.flags: Counter[int] = Counter()
        self.begun: defaultdict[int, set[str]] = defaultdict(set)
        self.astray: list[str] = []
        self.full: list[int] = []
        self.removed: set[int] = set()
        self.workers: set[int] = set()
        self.calls: dict[str, int] = {}
        holders: dict[str, int] = {}
        # A flag stays, whatever the result of the next attempt.
        doubtful: set[str] = set()
        for line in path.read_text().splitlines() if path.exists() else ():
            kind, *words = line.split()
            if kind == "put":
                self.acknowledged[int(words[0])].add(words[1])
            elif kind == "full":
                self.full.append(int(words[0]))
            elif kind == "removed":
                self.removed.add(int(words[0]))
            elif kind == "calls":
                self.calls = {step: int(count) for step, count in (word.split("=") for word in words)}
            elif kind == "start":
                id, number, flagged, pid = words[0], int(words[1]), words[2] == "1", int(words[3])
                self.begun[number].add(id)
                self.workers.add(pid)
                died = holders.get(id) in killed
                if flagged and (died or id not in doubtful):
                    self.flags[number] += 1
                    # The process that had the job last must have died with it.
                    if not died and not marked_early:
                        self.astray.append(id)
                    doubtful.add(id)
                holders[id] = pid
            elif kind == "end":
                holders.pop(words[0], None)


def entries(directory: Path) -> dict[str, Entry]:
    """Read every job of a spool directory completely."""
    found = {}
    for path in directory.rglob("*.*"):
        suffix = path.suffix[1:]
        if suffix in {state.value for state in State} and path.parent.name != "tmp":
            entry = parse(path.read_bytes(), State(suffix)).entry
            assert entry.id == path.stem, path
            assert entry.id not in found, f"{entry.id} is there twice"
            found[entry.id] = entry
    return found


def settled(
    directory: Path,
    log: Log,
    recorder: Recorder,
    *,
    deaths: int,
    all_keyed: bool = False,
) -> Account:
    """Check the account of a spool directory that was drained. The other arguments are those of `balanced`."""
    account = balanced(entries(directory), log, recorder, deaths=deaths, all_keyed=all_keyed)
    account.wrong += [f"{path} was left" for path in _leftovers(directory)]
    return account


def balanced(
    jobs: dict[str, Entry],
    log: Log,
    recorder: Recorder,
    *,
    deaths: int,
    all_keyed: bool = False,
) -> Account:
    """Check the account of a spool that was drained.

    Args:
        jobs: what is left in the spool.
        log: the log of its processes.
        recorder: its server.
        deaths: the number of its processes that were killed.
        all_keyed: every message has a key.
    """
    account = Account(deaths=deaths, acknowledged=len(log.acknowledged), flagged=sum(log.flags.values()))
    wrong = account.wrong
    by_number: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in jobs.values():
        number = letters.read_address(entry.envelope.recipients[0].address.addr_spec)[0]
        by_number[number].append(entry)
        if entry.state in (State.QUEUED, State.SENDING):
            wrong.append(f"{number} was left {entry.state.value}")
    for number in log.acknowledged.keys() - log.removed:
        account.lost += _lost(number, by_number[number], recorder, wrong)
    copies: defaultdict[int, int] = defaultdict(int)
    for (number, _), count in recorder.copies.items():
        copies[number] = max(copies[number], count)
    account.delivered = len(copies)
    for number, count in copies.items():
        # An unacknowledged message without a key was put again by its caller, as another job.
        allowed = max(1, len(log.begun[number])) if letters.key(number) is None and not all_keyed else 1
        account.duplicates += max(0, count - allowed)
        account.outside += max(0, count - allowed - log.flags[number])
    wrong += [f"{number} arrived changed" for number in recorder.spoilt]
    wrong += [f"{id} was flagged, and nobody had died with it" for id in log.astray]
    return account


def _lost(number: int, jobs: list[Entry], recorder: Recorder, wrong: list[str]) -> int:
    """Count the recipients with an unknown outcome."""
    lost = 0
    for place, fate in enumerate(letters.fates(number)):
        if recorder.copies[number, place]:
            continue
        results = [entry.results[place] for entry in jobs]
        if fate == letters.NEVER:
            refused = any(one is not None and one.outcome is Outcome.REFUSED for one in results)
            kept = any(entry.state is State.FAILED for entry in jobs)
            lost += not kept
            if kept and not refused and not any(entry.reason in ("poison", "unknown") for entry in jobs):
                wrong.append(f"{number} does not tell that {place} was refused")
        elif not any(entry.state is State.FAILED for entry in jobs):
            lost += 1
        if any(one is not None and one.outcome is Outcome.ACCEPTED for one in results):
            wrong.append(f"{number} tells that {place} got it, who did not")
    return lost


def _leftovers(directory: Path) -> list[str]:
    """Return what must not remain after a drain: second names of jobs, and locks."""
    found = []
    for path in (directory / "tmp").iterdir():
        if path.stat().st_nlink > 1:
            found.append(str(path))
    if (directory / "quarantine").exists():
        found += [str(path) for path in (directory / "quarantine").iterdir()]
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        found.append("the lock of the directory")
    finally:
        os.close(fd)
    return found
