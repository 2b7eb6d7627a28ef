"""What a second process on one spool is worth, on a machine with two cores or more.

One process, then two at once, drain a spool of the same size. The server needs a share of the cores, too: without any
sending, the bare system calls of two processes on one directory show how much of the second core is left.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from operator import truediv
from pathlib import Path
from statistics import median

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyncio

from benchmarks import race, spool
from benchmarks.race import Answer, Goal, Table
from benchmarks.servers import sink
from smtp_async import (
    NOBODY,
    ClientOptions,
    PoolLimits,
    QueueProcessor,
    Security,
    SendOptions,
    SMTPClient,
)
from smtp_async.spool.directory.spool import DirectorySpool


def run(*, quick: bool = False) -> Answer:
    """Measure one process and two, with fsync and without.

    Raises:
        Unavailable: there is no smtp-sink.
    """
    count, rounds = (2_000, 1) if quick else (8_000, 3)
    rates: dict[tuple[str, int], list[float]] = {}
    with sink() as server:
        for _ in range(rounds):
            for what in ("bare", "durable", "quick"):
                for processes in (1, 2):
                    rate = _rate(what, count, processes, server.host, server.port)
                    rates.setdefault((what, processes), []).append(rate)
    titles = {"bare": "bare system calls", "durable": "drain", "quick": "drain, durable=False"}
    gains = {what: median(map(truediv, rates[what, 2], rates[what, 1])) for what in titles}
    rows = [
        (title, f"{median(rates[what, 1]):.0f}", f"{median(rates[what, 2]):.0f}", f"{gains[what]:.2f}")
        for what, title in titles.items()
    ]
    goal = Goal("two processes that drain one spool: × one", gains["durable"], 1.6)
    title = f"{count:,} queued messages of 1 KiB to smtp-sink"
    return Answer([Table(title, ("", "one process", "two", "× one"), rows)], [goal], [])


def _rate(what: str, count: int, processes: int, host: str, port: int) -> float:
    """Return messages per second of all processes, from when the last was ready until the last has ended."""
    with spool.directory() as path:
        asyncio.run(spool.fill(path, count, durable=False))
        os.sync()
        program = [sys.executable, __file__, what, str(path), host, str(port)]
        children = [
            subprocess.Popen(
                [*program, str(place), str(processes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for place in range(processes)
        ]
        for child in children:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
        started = time.perf_counter()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        done = sum(json.loads(child.communicate()[0]) for child in children)
        seconds = time.perf_counter() - started
    assert done == count, done
    return count / seconds


# --- a process -----------------------------------------------------------------------------------------------


async def _drain(path: str, host: str, port: int, *, durable: bool) -> int:
    options = ClientOptions(
        pool=PoolLimits(max_connections=spool.CONNECTIONS),
        hello="client.example",
        send=SendOptions(must_accept=NOBODY),
    )
    async with (
        SMTPClient(host, port, security=Security.PLAINTEXT, options=options) as client,
        DirectorySpool(path, durable=durable) as directory,
    ):
        _begin()
        processor = QueueProcessor(directory, client)
        # One may find all that is left claimed by the other.
        await processor.run_once()
        return processor.statistics().sent


def _deliver(path: str, place: int, processes: int) -> int:
    bare = spool.Bare(Path(path), asyncio.run(spool.job(base64.b64decode(race.message()))))
    names = sorted(name.stem for name in Path(path).glob("*.queued"))[place::processes]
    _begin()
    spool.in_threads(bare.deliver, names)
    return len(names)


def _begin() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def _main(what: str, path: str, host: str, port: str, place: str, processes: str) -> None:
    if what == "bare":
        print(_deliver(path, int(place), int(processes)))
    else:
        print(asyncio.run(_drain(path, host, int(port), durable=what == "durable")))


if __name__ == "__main__":
    _main(*sys.argv[1:])
