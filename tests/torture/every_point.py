"""Every scenario, disturbed at every point: what `make torture` does with connections, callers and deadlines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from smtp_async.spool.postgres.spool import PostgresSpool
from tests.lab import LOOPS
from tests.servers.exim import Exim
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import new_schema
from tests.torture.books import living
from tests.torture.scenarios import Scenario, table
from tests.torture.soak import held
from tests.torture.wire import Harness, RealServer, Tally, stalling

#: The points of a scenario are shared out among so many passes: a run that is ended early has met all scenarios.
PASSES = 16
#: How many cuts a scenario with a large body has in one pass, and how many a scenario before a real server.
MOST, REAL = 300, 20
#: The turns of the loop at which callers are cancelled and deadlines pass, and how many stalls a scenario has.
TURNS, STALLS = 400, 12


class EveryPoint:
    """Runs all scenarios on all loops.

    Args:
        path: a directory for certificates and spools.
        seconds: the time after which no further scenario is begun.
    """

    def __init__(self, path: Path, *, seconds: float) -> None:
        self.total = Tally()
        self._pki = Pki(path)
        self._folder = path / "spool"
        self._began = time.monotonic()
        self._end = self._began + seconds
        # One loop for everything on it, as in a program.
        self._runners = {name: asyncio.Runner(loop_factory=make) for name, make in LOOPS.items()}

    def run(self) -> Tally:
        """Run everything, print a line for each pass, and return the figures."""
        database, postfix = Postgres.start(), Postfix.start(self._pki)
        exim = Exim.start(self._pki)
        try:
            scenarios = self._scenarios(database)
            for number in range(PASSES):
                if time.monotonic() >= self._end:
                    break
                self._pass(scenarios, number)
                for name, mta in (("Postfix", postfix), ("Exim", exim)):
                    self._real(scenarios, number, name, mta)
            print(f"alive: {dict(living())}", flush=True)
        finally:
            for server in (exim, postfix, database):
                server.stop()
            for runner in self._runners.values():
                runner.close()
        return self.total

    def _scenarios(self, database: Postgres) -> list[Scenario]:
        url, schema = database.url(), new_schema()

        def make() -> PostgresSpool:
            return PostgresSpool(url, schema=schema, poll=0.05)

        async def create() -> None:
            async with make() as spool:
                await spool.create_schema()

        self._runners["asyncio"].run(create())
        return list(table(self._pki, self._folder, make).values())

    def _one(self, loop: str, harness: Harness, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if time.monotonic() < self._end:
            self._runners[loop].run(work())
            self.total += harness.tally

    def _tell(self, what: str, tally: Tally) -> None:
        resident, files = held()
        spent = time.monotonic() - self._began
        print(f"{spent:6.0f} s  {what}: {tally}; {resident / 2**20:.0f} MiB, {files} files", flush=True)

    def _pass(self, scenarios: list[Scenario], number: int) -> None:
        """Disturb every scenario at a `PASSES`-th of its points; the loops take turns."""
        loop = list(self._runners)[number % len(self._runners)]
        first = number < len(self._runners)
        passed = Tally()
        for scenario in scenarios:
            harness, late = Harness(scenario), Harness(scenario)

            async def work(harness: Harness = harness) -> None:
                lengths = await harness.lengths()
                stride = max(PASSES, sum(lengths.values()) // MOST)
                await harness.cuts(stride, start=number * stride // PASSES)
                await harness.interrupted(range(number, TURNS, PASSES))
                if first:
                    await harness.cancelled_at_awaits()
                    await harness.stalls(stalling(lengths, STALLS, harness.scenario.link))

            self._one(loop, harness, work)
            passed += harness.tally
            # The clock of this loop stays set forward, so it is used for nothing else.
            with asyncio.Runner() as runner:
                if time.monotonic() < self._end:
                    runner.run(late.interrupted(range(number, TURNS, PASSES), jump=5.0))
            self.total += late.tally
            passed += late.tally
        self._tell(f"pass {number + 1} of {PASSES}, {loop}", passed)

    def _real(self, scenarios: list[Scenario], number: int, name: str, mta: Any) -> None:
        passed = Tally()
        for scenario in [one for one in scenarios if one.real]:
            harness = Harness(scenario, RealServer(mta))

            async def work(harness: Harness = harness) -> None:
                lengths = await harness.lengths()
                stride = max(1, sum(lengths.values()) // REAL)
                await harness.cuts(stride, start=number * stride // PASSES)
                await harness.interrupted(range(number, TURNS, 4 * PASSES))
                await harness.settle()

            self._one("asyncio", harness, work)
            passed += harness.tally
        self._tell(f"pass {number + 1} of {PASSES}, {name}", passed)


def every_point(path: Path, *, seconds: float) -> int:
    """Run everything; return 1 if anything was wrong."""
    total = EveryPoint(path, seconds=seconds).run()
    print(f"all: {total}")
    return 1 if total.wrong else 0
