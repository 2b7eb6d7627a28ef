"""Kill a spool's processes, before and after every system call and at any moment; then count what arrived.

    python -m tests.spool.torture --much 2500

Two ways. By step: one process after another works on the same directory, each killed (SIGKILL, by itself) just before
or just after its n-th system call, n going round through all of them. At random: several processes work on one
directory at the same time, and are killed from outside at any moment.

What must hold, from a ledger that is written with single appends and survives the deaths:

- lost: no message whose `put` returned is missing in the end, delivered, queued or failed;
- unflagged: for each copy beyond the first, a lease had said that the message may have been delivered (`flagged`);
- flagged: a death flags no more than what was claimed at that moment.

And without deaths: several processes that share a directory deliver each message once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio._backends._asyncio  # noqa: F401  (loaded once here, not in each of thousands of children)

import smtp_async.sendable  # noqa: F401
from smtp_async.errors import SpoolError
from smtp_async.spool.directory import DirectorySpool
from smtp_async.spool.entry import State
from smtp_async.spool.files import Files
from smtp_async.testing.contracts import LATER, NEVER, QUEUED, TEXT, receipt_for

#: Messages that are claimed at once.
AT_ONCE = 3


class Result(NamedTuple):
    """What a torture came to.

    Attributes:
        deaths: processes that were killed.
        points: system calls at which one was killed, before or after.
        promised: messages whose `put` returned.
        lost: those of them that are nowhere.
        copies: deliveries beyond the first.
        unflagged: those of them that no flag announced.
        overflagged: deaths that flagged more than was claimed.
        seconds: how long it took.
    """

    deaths: int
    points: int
    promised: int
    lost: int
    copies: int
    unflagged: int
    overflagged: int
    seconds: float


class Doomed(Files):
    """Die at the system call of one number."""

    number = 0
    after = False
    count = 0
    tell: Callable[[str], None] = staticmethod(lambda line: None)

    def call(self, step: str, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        if step.startswith("L"):
            # Looking changes nothing.
            return function(*args, **named)
        cls = type(self)
        cls.count += 1
        dying = cls.count == cls.number
        if dying and not cls.after:
            self._die(step, function)
        # Whether a disk loses what was not synced cannot be tried by killing: then it need not be waited for.
        try:
            return None if "sync" in function.__name__ else function(*args, **named)
        finally:
            if dying:
                self._die(step, function)

    def _die(self, step: str, function: Callable[..., Any]) -> None:
        type(self).tell(f"died {step}-{function.__name__}-{'after' if self.after else 'before'}")
        os.kill(os.getpid(), signal.SIGKILL)


class Ledger:
    """What is known outside of the spool: one line for each thing that happened, each written at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, line: str) -> None:
        os.write(self._fd, f"{line}\n".encode())

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()]


async def work(spool: DirectorySpool, ledger: Ledger, *, messages: int, rounds: int) -> None:
    """Recover, put, deliver: accepted, put off, refused and kept in turn."""
    recovery = await spool.recover()
    ledger.write(f"recovered {len(recovery.flagged)}")
    for number in range(messages):
        key = f"{os.getpid()}-{time.time_ns()}" if number % 2 else None
        ledger.write(f"promised {await spool.put(TEXT, key=key)}")
    for _ in range(rounds):
        for lease in await spool.claim(AT_ONCE, now=2.0**33, marked=random.random() < 0.2):
            await deliver(lease, ledger)


async def deliver(lease: Any, ledger: Ledger) -> None:
    """What a worker and its server do with one message."""
    id, chance = lease.entry.id, random.random()
    if lease.entry.flagged:
        ledger.write(f"flagged {id}")
    if chance < 0.1:
        await lease.release()
        return
    await lease.mark_end_of_data()
    if chance < 0.25:
        await lease.defer(receipt_for(lease, LATER), 5.0)
    elif chance < 0.3:
        await lease.fail(receipt_for(lease, NEVER))
    else:
        ledger.write(f"sent {id}")
        await lease.settle(receipt_for(lease, QUEUED), keep=chance > 0.9)


def run(path: Path, ledger: Ledger, files: type[Files], *, messages: int, rounds: int) -> None:
    """The life of one process."""

    async def life() -> None:
        async with DirectorySpool(path, files=files, low_water=0) as spool:
            await work(spool, ledger, messages=messages, rounds=rounds)

    asyncio.run(life())


def forked(function: Callable[[], None]) -> int:
    """Run it in a child; return its process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            random.seed(os.getpid() ^ time.time_ns())
            function()
            code = 0
        except SpoolError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    return pid


def by_step(path: Path, ledger: Ledger, deaths: int) -> int:
    """Kill one process after another, at the first call, the second, and so on; return how many died."""
    died, number, after = 0, 0, False
    while died < deaths:
        after = not after
        number += after
        doomed = type("Doomed", (Doomed,), {"number": number, "after": after, "tell": ledger.write})
        pid = forked(partial(run, path, ledger, doomed, messages=2, rounds=3))
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            died += 1
        elif os.WEXITSTATUS(status):
            raise RuntimeError(f"a worker failed at call {number}")
        else:
            number = 0
    return died


def at_random(path: Path, ledger: Ledger, deaths: int, processes: int) -> int:
    """Kill any of several processes at any moment; return how many died."""
    died = 0
    running: set[int] = set()

    while died < deaths:
        while len(running) < processes:
            running.add(forked(partial(run, path, ledger, Doomed, messages=5, rounds=5)))
        time.sleep(random.random() * 0.02)
        victim = random.choice(list(running))
        os.kill(victim, signal.SIGKILL)
        for pid in list(running):
            ended, status = os.waitpid(pid, 0 if pid == victim else os.WNOHANG)
            if ended:
                running.discard(pid)
                died += os.WIFSIGNALED(status)
                if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                    raise RuntimeError("a worker failed")
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return died + len(running)


async def settle(path: Path, ledger: Ledger) -> set[str]:
    """Deliver what is left; return the ids of what is in the spool when nothing is."""
    async with DirectorySpool(path, low_water=0, durable=False) as spool:
        await spool.recover()
        async for entry in spool.list(State.FAILED):
            if entry.pending:
                await spool.requeue(entry.id)
        while leases := await spool.claim(50, now=2.0**33):
            for lease in leases:
                if lease.entry.flagged:
                    ledger.write(f"flagged {lease.entry.id}")
                ledger.write(f"sent {lease.entry.id}")
                await lease.settle(receipt_for(lease, QUEUED))
        statistics = await spool.statistics()
        assert statistics.queued == statistics.sending == statistics.quarantined == 0, statistics
        return {entry.id async for entry in spool.list()}


def judge(ledger: Ledger, left: set[str], deaths: int, seconds: float) -> Result:
    """Compare what was promised with what arrived."""
    promised: set[str] = set()
    sent: Counter[str] = Counter()
    announced: Counter[str] = Counter()
    points: set[str] = set()
    overflagged = 0
    for what, *rest in ledger.lines():
        if what == "promised":
            promised.add(rest[0])
        elif what == "sent":
            sent[rest[0]] += 1
        elif what == "flagged":
            announced[rest[0]] += 1
        elif what == "died":
            points.add(rest[0])
        elif what == "recovered":
            overflagged += int(rest[0]) > AT_ONCE
    lost = promised - set(sent) - left
    copies = sum(count - 1 for count in sent.values())
    unflagged = sum(max(0, count - 1 - announced[id]) for id, count in sent.items())
    return Result(deaths, len(points), len(promised), len(lost), copies, unflagged, overflagged, seconds)


def torture(directory: Path, *, deaths: int, processes: int = 0) -> Result:
    """Kill processes until enough have died; by step if `processes` is 0, else so many at a time, at random."""
    started = time.monotonic()
    path = directory / "spool"
    path.mkdir(mode=0o700)
    ledger = Ledger(directory / "ledger")
    died = at_random(path, ledger, deaths, processes) if processes else by_step(path, ledger, deaths)
    left = asyncio.run(settle(path, ledger))
    return judge(ledger, left, died, time.monotonic() - started)


def share(directory: Path, *, messages: int, processes: int) -> Result:
    """Deliver with several processes at once, nobody dies."""
    started = time.monotonic()
    path = directory / "spool"
    ledger = Ledger(directory / "ledger")

    async def put() -> None:
        async with DirectorySpool(path, create=True, durable=False) as spool:
            for id in await asyncio.gather(*[spool.put(TEXT) for _ in range(messages)]):
                ledger.write(f"promised {id}")

    async def deliver_all() -> None:
        async with DirectorySpool(path, durable=False) as spool:
            while leases := await spool.claim(7):
                for lease in leases:
                    ledger.write(f"sent {lease.entry.id}")
                await asyncio.gather(*[lease.settle(receipt_for(lease, QUEUED)) for lease in leases])

    asyncio.run(put())
    children = [forked(lambda: asyncio.run(deliver_all())) for _ in range(processes)]
    if any(os.waitpid(pid, 0)[1] for pid in children):
        raise RuntimeError("a worker failed")
    left = {one.name for one in path.iterdir() if one.name != "tmp"}
    if left:
        raise RuntimeError(f"{len(left)} files are left")
    return judge(ledger, set(), 0, time.monotonic() - started)


def mixed(directory: Path, *, messages: int, processes: int) -> Result:
    """Put and deliver at the same time, in different processes."""
    started = time.monotonic()
    path = directory / "spool"
    path.mkdir(mode=0o700)
    ledger = Ledger(directory / "ledger")

    async def put() -> None:
        async with DirectorySpool(path, durable=False) as spool:
            for _ in range(messages * 2 // processes):
                ledger.write(f"promised {await spool.put(TEXT)}")

    async def deliver_all() -> None:
        async with DirectorySpool(path, durable=False, poll=0.05) as spool:
            while await spool.wait(2.0):
                for lease in await spool.claim(7):
                    ledger.write(f"sent {lease.entry.id}")
                    await lease.settle(receipt_for(lease, QUEUED))

    works = [put, deliver_all] * (processes // 2)
    children = [forked(partial(_run, work)) for work in works]
    if any(os.waitpid(pid, 0)[1] for pid in children):
        raise RuntimeError("a worker failed")
    return judge(ledger, set(), 0, time.monotonic() - started)


def _run(work: Callable[[], Any]) -> None:
    asyncio.run(work())


#: What can be done, by name: a function of the directory and of how much.
WAYS: dict[str, Callable[[Path, int], Result]] = {
    "steps": lambda directory, much: torture(directory, deaths=much),
    "random": lambda directory, much: torture(directory, deaths=much, processes=4),
    "share": lambda directory, much: share(directory, messages=much, processes=8),
    "mixed": lambda directory, much: mixed(directory, messages=much, processes=4),
}


def main() -> int:
    """Do what the command line says, each way that it names; all of them by default."""
    logging.disable()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"one of {', '.join(WAYS)}; all by default")
    parser.add_argument("--much", type=int, default=2500, help="deaths, or messages where nobody dies")
    chosen = parser.parse_args()
    failed = False
    for way in chosen.ways or WAYS:
        with tempfile.TemporaryDirectory() as directory:
            result = WAYS[way](Path(directory), chosen.much)
        print(json.dumps({"way": way, **result._asdict()}), flush=True)
        # At random, several deaths come together in one recovery: what one flags is told by steps only.
        failed |= bool(result.lost or result.unflagged or (result.overflagged and way == "steps"))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
