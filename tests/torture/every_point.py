"""Every scenario, disturbed at every point: what `make torture` does with connections, callers and deadlines.

Several processes share the points, because a run computes now and waits then: for a stall, a database, a real server.
Certificates and servers are made once, before the processes fork; scripted servers are made for every run, so that a
run begins with nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from smtp_async.spool.contract import Spool
from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.testing.wire import Split
from tests.lab import LOOPS
from tests.servers.exim import Exim
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import new_schema
from tests.torture.books import living
from tests.torture.scenarios import NAMES, Scenario, table
from tests.torture.soak import held
from tests.torture.wire import Harness, RealServer, SteadyLoop, Tally, stalling

#: The points of a scenario are shared out among so many passes: a run that is ended early has met all scenarios.
PASSES = 16
#: How many cuts a scenario with a large body has in one pass, and how many a scenario before a real server.
MOST, REAL = 300, 20
#: How many times fewer cuts the scenarios have whose time is mostly that of another server.
FEWER = {"queue-postgres": 4}
#: The turns of the loop at which callers are cancelled and deadlines pass, and how many stalls a scenario has.
TURNS, STALLS = 400, 12
#: How many processes there are for each processor.
PROCESSES = 2


def _steady_and_eager() -> asyncio.AbstractEventLoop:
    loop = SteadyLoop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


#: The loops; no deadline of theirs passes because the machine is busy, but on uvloop.
STEADY: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    **LOOPS,
    "asyncio": SteadyLoop,
    **({"eager": _steady_and_eager} if "eager" in LOOPS else {}),
}


class Share(NamedTuple):
    """What one process does without a break.

    Attributes:
        number: the number of the pass.
        scenario: the name of the scenario.
        loop: the name of the loop.
        kind: what is done with it, or the name of the real server that is met.
    """

    number: int
    scenario: str
    loop: str
    kind: str


class Done(NamedTuple):
    """What came of a share; the time limit may have left its tally empty."""

    share: Share
    tally: Tally
    resident: int
    files: int


class Worker:
    """What a process has for all its shares.

    Args:
        path: a directory for its spool.
        pki: the authority of the servers' certificates.
        database: the URL of a database.
        mtas: the real servers by name.
        end: the time after which no share is begun, by the monotonic clock.
    """

    def __init__(self, path: Path, pki: Pki, database: str, mtas: dict[str, Any], end: float) -> None:
        self._mtas = mtas
        self._end = end
        # One loop for everything on it, as in a program.
        self._runners = {name: asyncio.Runner(loop_factory=make) for name, make in STEADY.items()}
        schema = new_schema()

        def make_spool() -> Spool:
            return PostgresSpool(database, schema=schema, poll=0.05)

        async def create() -> None:
            async with PostgresSpool(database, schema=schema) as spool:
                await spool.create_schema()

        self._runners["asyncio"].run(create())
        self._scenarios = table(pki, path / str(os.getpid()), make_spool)

    def do(self, share: Share) -> Done:
        """Do a share; objects of connections that it leaves in memory are wrong, too."""
        scenario = self._scenarios[share.scenario]
        mta = self._mtas.get(share.kind)
        harness = Harness(scenario, None if mta is None else RealServer(mta))
        if time.monotonic() < self._end:
            alive = living()
            work = before_real_server if mta is not None else KINDS[share.kind]
            self._run(share, lambda: work(harness, share.number))
            if left := living() - alive:
                harness.tally.wrong.append(f"{share}: {dict(left)} left in memory")
        return Done(share, harness.tally, *held())

    def _run(self, share: Share, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if share.kind != "deadlines":
            self._runners[share.loop].run(work())
            return
        # The clock of this loop stays set forward, so it is used for nothing else.
        with asyncio.Runner(loop_factory=STEADY[share.loop]) as runner:
            runner.run(work())


async def cuts(harness: Harness, number: int, *, split: Split = "whole", fewer: int = 1) -> None:
    """Cut connections, by FIN and by RST in turn."""
    lengths = await harness.lengths()
    stride = max(PASSES, sum(lengths.values()) // MOST) * FEWER.get(harness.scenario.name, 1) * fewer
    await harness.cuts(stride, start=number * stride // PASSES, split=split)


async def singly(harness: Harness, number: int) -> None:
    """Cut connections whose server sends each octet by itself."""
    await cuts(harness, number, split="byte", fewer=4)


async def stalls(harness: Harness, number: int) -> None:
    """Let connections stall."""
    await harness.stalls(stalling(await harness.lengths(), STALLS, harness.scenario.link))


async def awaits(harness: Harness, number: int) -> None:
    """Cancel callers at every await."""
    await harness.cancelled_at_awaits()


async def turns(harness: Harness, number: int) -> None:
    """Cancel callers after so many turns of the loop."""
    # A first run opens what stays open with the loop, as uvloop's own files.
    await harness.lengths()
    await harness.interrupted(range(number, TURNS, PASSES))


async def deadlines(harness: Harness, number: int) -> None:
    """Let deadlines pass after so many turns of the loop."""
    await harness.interrupted(range(number, TURNS, PASSES), jump=5.0)


async def before_real_server(harness: Harness, number: int) -> None:
    """Cut connections to a real server, and cancel callers."""
    lengths = await harness.lengths()
    stride = max(1, sum(lengths.values()) // REAL)
    await harness.cuts(stride, start=number * stride // PASSES)
    await harness.interrupted(range(number, TURNS, 4 * PASSES))
    await harness.settle()


#: What is done with a scenario, in the order of a pass.
KINDS: dict[str, Callable[[Harness, int], Coroutine[Any, Any, None]]] = {
    one.__name__: one for one in (stalls, awaits, cuts, singly, turns, deadlines)
}


def shares(scenarios: Sequence[Scenario], servers: Sequence[str], loops: Sequence[str]) -> Iterator[Share]:
    """Return all shares, pass by pass; the loops take turns."""
    for number in range(PASSES):
        loop = loops[number % len(loops)]
        for kind in KINDS:
            if kind in ("stalls", "awaits") and number >= len(loops):
                continue
            # The clock of uvloop is its own.
            here = "asyncio" if kind in ("stalls", "deadlines") and loop == "uvloop" else loop
            yield from (Share(number, one.name, here, kind) for one in scenarios)
        for server in servers:
            yield from (Share(number, one.name, "asyncio", server) for one in scenarios if one.real)


# --- the processes -----------------------------------------------------------------------------------------------

_worker: Worker
#: Of Linux, as everything that needs the real servers.
_PR_SET_PDEATHSIG = 1


def _begin(*arguments: Any) -> None:
    global _worker
    # It dies with its parent, whatever ends that one: what is forked would keep the servers alive.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # What the parent made stays; without this, every collection would copy its pages.
    gc.freeze()
    _worker = Worker(*arguments)


def _do(share: Share) -> Done:
    return _worker.do(share)


def every_point(path: Path, *, seconds: float, loops: Sequence[str] = tuple(LOOPS), kind: str = "") -> int:
    """Run everything, and print a line for each kind in each pass, and the figures.

    Args:
        path: a directory for certificates and spools.
        seconds: the time after which no further share is begun.
        loops: the loops.
        kind: does only what is of this kind; all by default.

    Returns:
        1 if anything was wrong.
    """
    pki = Pki(path)
    database = Postgres.start()
    mtas: dict[str, Any] = {"Postfix": Postfix.start(pki), "Exim": Exim.start(pki)}
    began, total = time.monotonic(), Tally()
    try:
        scenarios = table(pki, path, lambda: PostgresSpool(database.url()))
        assert tuple(scenarios) == NAMES
        chosen = [
            one for one in shares(list(scenarios.values()), list(mtas), loops) if kind in ("", one.kind)
        ]
        # Forked, so that they have the servers; nothing runs in this process yet.
        context = multiprocessing.get_context("fork")
        arguments = (path, pki, database.url(), mtas, began + seconds)
        with context.Pool(PROCESSES * (os.cpu_count() or 1), _begin, arguments) as pool:
            every = pool.imap(_do, chosen)
            for (number, what), done in groupby(every, key=lambda one: (one.share.number, one.share.kind)):
                passed, resident, files = Tally(), 0, 0
                for one in done:
                    passed += one.tally
                    resident, files = max(resident, one.resident), max(files, one.files)
                total += passed
                if not passed.points:
                    continue
                print(
                    f"{time.monotonic() - began:6.0f} s  pass {number + 1} of {PASSES}, {what}: {passed}; "
                    f"at most {resident / 2**20:.0f} MiB and {files} files in a process",
                    flush=True,
                )
    finally:
        for server in (*mtas.values(), database):
            server.stop()
    spent = time.monotonic() - began
    print(f"all: {total}\n{total.points.total() / spent:.1f} points a second")
    return 1 if total.wrong else 0
