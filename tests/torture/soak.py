"""Send for a long time while calls fail at random, and watch the memory and open files of the process.

Messages go into a spool in a directory and into one in PostgreSQL in turn. One system call in a hundred fails, and one
statement in a hundred finds its connection lost.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from smtp_async import ClientOptions, Security, SMTPClient, SMTPError
from smtp_async.processor import ProcessorOptions, QueueProcessor
from smtp_async.spool.contract import Spool
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.spool.postgres.statements import Statements
from tests.servers.postgres import Postgres
from tests.spool.directory.made import Made
from tests.spool.postgres.databases import new_schema
from tests.torture import letters
from tests.torture.children import BRISK
from tests.torture.deadly_database import DeadlyDatabase
from tests.torture.faults import WornFiles
from tests.torture.recorder import Recorder

RATE = 50
#: By how many MiB the process may grow from the middle third of the time to the last one.
GROWTH = 4.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


def held() -> tuple[int, int]:
    """Return the resident octets and the number of open files of this process."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    return resident, len(os.listdir("/proc/self/fd"))


def in_use() -> tuple[int, int]:
    """Return the same when free memory was given back: the C library keeps some, more and more for some minutes."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return held()


class Owing(Recorder):
    """A server that remembers only which acknowledged messages have not arrived, so that its memory does not grow.

    Attributes:
        owed: the numbers of the messages that were acknowledged and have not arrived.
        spare: how many copies arrived of messages that were not owed: before `put` returned, or once more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.owed: set[int] = set()
        self.spare: set[int] = set()

    def accept(self, taken: list[tuple[int, int]], data: bytes) -> None:
        number = taken[0][0]
        self.accepted += 1
        if data != letters.body(number):
            self.spoilt.append(number)
        if number in self.owed:
            self.owed.discard(number)
        else:
            self.spare.add(number)

    def acknowledge(self, number: int) -> None:
        """Note that `put` has returned."""
        if number in self.spare:
            self.spare.discard(number)
        else:
            self.owed.add(number)


class WornDatabase(DeadlyDatabase):
    """A pool of connections that are lost at random, before a statement or behind it."""

    def __init__(self, url: str, schema: str, *, odds: float) -> None:
        super().__init__(url, Statements(schema), None)
        self.odds = odds
        self.failed = 0

    async def meet(self, sql: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Make a statement, and lose its answer at random."""
        before, behind = random.random() < self.odds / 2, random.random() < self.odds / 2
        if not before:
            result = await super().meet(sql, call)
            if not behind:
                return result
        self.failed += 1
        raise ConnectionResetError("the connection to the database is lost")


class Sample(NamedTuple):
    """What the process held at a time."""

    seconds: float
    resident: int
    files: int


class Soak:
    """One run.

    Args:
        spools: the spools that messages go into in turn, by name.
        server: where they are delivered.
        heal: makes the faults end.
    """

    def __init__(self, spools: dict[str, Spool], server: Owing, heal: Callable[[], None]) -> None:
        self._spools = spools
        self._server = server
        self._heal = heal
        self._samples: list[Sample] = []
        self._put = self._refused = 0

    async def run(self, client: SMTPClient, *, seconds: float, every: float) -> bool:
        """Put and deliver, and print a line every so often; return whether everything held."""
        options = ProcessorOptions(poll=0.1, heartbeat=1.0)
        processors = [
            QueueProcessor(one, client, retry=BRISK, options=options) for one in self._spools.values()
        ]
        running = [asyncio.create_task(one.run()) for one in processors]
        print("seconds  put  arrived  refused puts  MiB  files", flush=True)
        await self._fill(seconds, every)
        self._heal()
        for _ in range(600):
            if not self._server.owed:
                break
            await asyncio.sleep(0.1)
        left = [await one.statistics() for one in self._spools.values()]
        for one in processors:
            one.stop()
        await asyncio.gather(*running)
        print(f"{self._put} acknowledged, {self._refused} refused, left: {left}")
        return self._verdict()

    async def _fill(self, seconds: float, every: float) -> None:
        began = told = time.monotonic()
        spools = list(self._spools.values())
        while (now := time.monotonic()) - began < seconds:
            number = self._put + self._refused
            try:
                await spools[number % len(spools)].put(
                    letters.body(number), sender=letters.SENDER, recipients=[f"n{number}.0.take@torture.test"]
                )
                self._server.acknowledge(number)
                self._put += 1
            except SMTPError:
                self._refused += 1
            if now - told >= every:
                told = now
                self._samples.append(Sample(now - began, *in_use()))
                _, resident, files = self._samples[-1]
                figures = (
                    f"{self._put}  {self._server.accepted}  {self._refused}  {resident / 2**20:.1f}  {files}"
                )
                print(f"{now - began:7.0f}  {figures}", flush=True)
            await asyncio.sleep(max(0.0, began + (number + 1) / RATE - time.monotonic()))

    def _verdict(self) -> bool:
        third = len(self._samples) // 3
        middle, last = self._samples[third : 2 * third], self._samples[2 * third :]
        growth = 0.0
        files = 0
        if third:
            growth = (_median(last, "resident") - _median(middle, "resident")) / 2**20
            files = int(_median(last, "files") - _median(middle, "files"))
        slope = 0.0
        if len(middle + last) > 1:
            times = [one.seconds / 3600 for one in middle + last]
            slope = statistics.linear_regression(times, [one.resident / 2**20 for one in middle + last]).slope
        lost, spoilt = len(self._server.owed), len(self._server.spoilt)
        print(
            f"{lost} lost, {spoilt} changed, {len(self._server.spare)} extra copies or not acknowledged; "
            f"{growth:+.1f} MiB and {files:+d} files from the middle third to the last, {slope:+.1f} MiB an hour"
        )
        return not lost and not spoilt and growth < GROWTH and files <= 2


def _median(samples: list[Sample], field: str) -> float:
    return statistics.median(getattr(one, field) for one in samples)


def soak(path: Path, *, seconds: float, odds: float = 0.01, every: float = 10.0) -> int:
    """Put `RATE` messages a second into both spools and deliver them, printing a line every so often.

    Returns:
        0 if every acknowledged message arrived, the memory did not grow and no files stayed open.
    """
    database = Postgres.start()
    try:
        return 0 if asyncio.run(_soak(path, database.url(), seconds, odds, every)) else 1
    finally:
        database.stop()


async def _soak(path: Path, url: str, seconds: float, odds: float, every: float) -> bool:
    schema = new_schema()
    async with PostgresSpool(url, schema=schema) as made:
        await made.create_schema()
    files = Made(partial(WornFiles, odds=odds))
    worn = WornDatabase(url, schema, odds=odds)
    source: Any = worn

    def heal() -> None:
        files.calls.failing = lambda call: None
        worn.odds = 0.0

    options = ClientOptions(hello="soak.test")
    async with (
        Owing() as server,
        DirectorySpool(path / "soak", create=True, syscalls=files) as folder,
        PostgresSpool(source, schema=schema, poll=0.1) as tables,
        SMTPClient(server.host, server.port, security=Security.PLAINTEXT, options=options) as client,
    ):
        run = Soak({"directory": folder, "PostgreSQL": tables}, server, heal)
        return await run.run(client, seconds=seconds, every=every)
