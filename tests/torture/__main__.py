"""``python -m tests.torture [--deaths N] [--seed N] [--path DIRECTORY]``: kill many processes.

First a process dies at every point of every role, each with a spool of its own, workers with several sets of options.
Then processes of one spool die at random, with each set of options and until N processes have died. Last, eight
processes drain a spool of 20,000 messages. The figures are printed.

``python -m tests.torture soak [--seconds N]`` sends to smtp-sink for a long time while one system call in a hundred
fails, and prints the memory and the open files of the process.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.torture.crowd import empty
from tests.torture.ledger import Account
from tests.torture.points import KillPoints
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
    {"all_keyed": True, "keep_sent": True},
    {"on_unknown": "hold", "concurrency": 16},
    {"marking": "claim"},
    {"durable": False, "concurrency": 16},
)
STORM = 400


async def torture(path: Path, *, deaths: int, seed: int, messages: int) -> Account:
    """Run all deaths, and return the figures."""
    total, began = Account(), time.monotonic()

    def tell(what: object, account: Account) -> None:
        nonlocal total
        total += account
        print(f"{time.monotonic() - began:6.0f} s  {what}: {account}", flush=True)

    async with Template() as template:
        plain: list[tuple[str, dict[str, Any]]] = [(role, {}) for role in ROLES]
        for role, options in [*plain, *(("work", options) for options in MANNERS)]:
            async with KillPoints(template, path / "points", role, **options) as kill_points:
                account = await kill_points.die_at_each(kill_points.points)
                tell(f"{role} {options or ''}, {len(kill_points.reached)} points", account)
        for number, options in enumerate(itertools.cycle(STORMS)):
            if number >= len(STORMS) and total.deaths >= deaths:
                break
            chance = random.Random(f"{seed} {number}")
            storm = Storm(template, path / f"storm{number}", deaths=STORM, chance=chance, **options)
            tell(f"storm {number} {options or ''}", await storm.rage())
        tell("8 processes", await empty(template, path / "crowd", messages=messages, processes=8))
    return total


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("kill", "soak"), default="kill")
    parser.add_argument("--deaths", type=int, default=5000, help="(5000)")
    parser.add_argument("--messages", type=int, default=20_000, help="for the eight processes (20000)")
    parser.add_argument("--seconds", type=float, default=600.0, help="of soaking (600)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument(
        "--path", type=Path, help="where the spools are made (the directory for temporary files)"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="smtp-async-torture-", dir=chosen.path) as directory:
        if chosen.what == "soak":
            return asyncio.run(soak(Path(directory), seconds=chosen.seconds))
        print(f"seed {chosen.seed}, in {directory}", flush=True)
        total = asyncio.run(
            torture(Path(directory), deaths=chosen.deaths, seed=chosen.seed, messages=chosen.messages)
        )
    print(f"all: {total}")
    return 1 if total.lost or total.outside or total.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
