"""``python -m tests.torture [--deaths N] [--seed N] [--path DIRECTORY]``: kill many processes.

First a process dies at every point of every role, each with a spool of its own, workers with several sets of options.
Then processes of one spool die at random, with each set of options and until N processes have died. Last, eight
processes drain a spool of 20,000 messages. The figures are printed.

``python -m tests.torture postgres [--deaths N] [--seed N]`` does the same to spools in PostgreSQL, without the last.

``python -m tests.torture power [--states N] [--seed N]`` records what several processes do with a spool, and opens N of
the states that a disk may be left in by a loss of power.

``python -m tests.torture wire [--seconds N] [--loop NAME] [--only KIND]`` cuts connections after every octet of every
scenario, cancels callers at every await, and lets deadlines pass at every turn; also before Postfix and Exim. It does
so on all event loops in turn, or on one.

``python -m tests.torture soak [--seconds N]`` puts fifty messages a second for a long time and delivers them, from a
directory and from PostgreSQL in turn, while one call in a hundred fails; it prints the memory and the open files of the
process.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.lab import LOOPS
from tests.servers.postgres import Postgres
from tests.torture.crowd import empty
from tests.torture.databases import DatabaseScene
from tests.torture.directories import quick_directory
from tests.torture.every_point import KINDS, every_point
from tests.torture.ledger import Account
from tests.torture.points import KillPoints, Scene
from tests.torture.power import lose_power
from tests.torture.soak import soak
from tests.torture.storm import Storm
from tests.torture.template import Template

#: The roles that die at every point, besides workers, and the options of workers.
ROLES = ("produce", "hand_back", "operate", "recover")
MANNERS: tuple[dict[str, Any], ...] = (
    {},
    {"on_unknown": "hold"},
    {"keep_sent": True, "concurrency": 1},
    {"marking": "claim", "concurrency": 1},
)
#: The options of the storms.
STORMS: tuple[dict[str, Any], ...] = (
    {},
    {"all_keyed": True, "keep_sent": True, "together": 6},
    {"on_unknown": "hold", "concurrency": 16},
    {"marking": "claim"},
    {"durable": False, "concurrency": 16, "together": 6},
)
STORM = 400


async def torture(
    path: Path, *, deaths: int, seed: int, messages: int, scene: Callable[..., Scene] = Scene
) -> Account:
    """Run all deaths, and return the figures; without messages no crowd drains a spool."""
    total, began = Account(), time.monotonic()

    def tell(what: object, account: Account) -> None:
        nonlocal total
        total += account
        print(f"{time.monotonic() - began:6.0f} s  {what}: {account}", flush=True)

    async with Template() as template:
        plain: list[tuple[str, dict[str, Any]]] = [(role, {}) for role in ROLES]
        for role, options in [*plain, *(("work", options) for options in MANNERS)]:
            async with KillPoints(template, path / "points", role, scene=scene, **options) as kill_points:
                account = await kill_points.die_at_each(kill_points.points)
                tell(f"{role} {options or ''}, {len(kill_points.reached)} points", account)
        for number, options in enumerate(itertools.cycle(STORMS)):
            if number >= len(STORMS) and total.deaths >= deaths:
                break
            chance = random.Random(f"{seed} {number}")
            storm = Storm(
                template, path / f"storm{number}", deaths=STORM, chance=chance, scene=scene, **options
            )
            tell(f"storm {number} {options or ''}", await storm.rage())
        if messages:
            tell("8 processes", await empty(template, path / "crowd", messages=messages, processes=8))
    return total


def torture_postgres(path: Path, *, deaths: int, seed: int) -> Account:
    """Run all deaths on spools in PostgreSQL, and return the figures."""
    server = Postgres.start()
    try:
        scene = partial(DatabaseScene, server=server)
        return asyncio.run(torture(path, deaths=deaths, seed=seed, messages=0, scene=scene))
    finally:
        server.stop()


async def tell_power(states: int, seed: int) -> int:
    """Open so many states of a disk without power, and print the broken promises."""
    began = time.monotonic()
    with quick_directory() as path:
        books = await lose_power(path, states=states, each=40, chance=random.Random(seed))
    print(f"{time.monotonic() - began:6.0f} s  {books.states:,} states, {len(books.wrong)} wrong")
    print("\n".join(books.wrong[:20]))
    return 1 if books.wrong else 0


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=("kill", "postgres", "power", "wire", "soak"), default="kill"
    )
    parser.add_argument("--deaths", type=int, default=5000, help="(5000)")
    parser.add_argument("--messages", type=int, default=20_000, help="for the eight processes (20000)")
    parser.add_argument("--states", type=int, default=10_000, help="of a disk without power (10000)")
    parser.add_argument("--seconds", type=float, help="of soaking (900), or at most of cutting (no limit)")
    parser.add_argument("--loop", choices=LOOPS, help="that connections are cut on (each in turn)")
    parser.add_argument("--only", choices=KINDS, default="", help="of what is done with connections (all)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument(
        "--path", type=Path, help="where the spools are made (the directory for temporary files)"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="smtp-async-torture-", dir=chosen.path) as directory:
        if chosen.what == "soak":
            return soak(Path(directory), seconds=chosen.seconds or 900.0)
        if chosen.what == "wire":
            loops = [chosen.loop] if chosen.loop else list(LOOPS)
            seconds = chosen.seconds or math.inf
            return every_point(Path(directory), seconds=seconds, loops=loops, kind=chosen.only)
        print(f"seed {chosen.seed}, in {directory}", flush=True)
        if chosen.what == "power":
            return asyncio.run(tell_power(chosen.states, chosen.seed))
        options = {"deaths": chosen.deaths, "seed": chosen.seed}
        if chosen.what == "postgres":
            total = torture_postgres(Path(directory), **options)
        else:
            total = asyncio.run(torture(Path(directory), messages=chosen.messages, **options))
    print(f"all: {total}")
    return 1 if total.lost or total.outside or total.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
