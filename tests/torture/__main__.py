"""``python -m tests.torture [--deaths N] [--seed N] [--path DIRECTORY]``: kill for long, and print the books.

First every point of every role, each with a spool of its own, that of workers under several sets of options; then
storms of each kind, and more of them until N processes have died. Last, eight processes empty a spool of 20,000
messages.

``python -m tests.torture soak [--seconds N]`` sends to smtp-sink for long, while one system call in a hundred fails,
and prints what the process holds.
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
from tests.torture.points import Gallows
from tests.torture.soak import soak
from tests.torture.storm import Storm
from tests.torture.template import Template

#: Who dies at every point, besides workers; and in what manners these work.
ROLES = ("produce", "hand_back", "operate", "recover")
MANNERS: tuple[dict[str, Any], ...] = (
    {},
    {"on_unknown": "hold"},
    {"keep_sent": True, "concurrency": 1},
    {"marking": "claim", "concurrency": 1},
)
#: What storms rage under.
STORMS: tuple[dict[str, Any], ...] = (
    {},
    {"all_keyed": True, "keep_sent": True},
    {"on_unknown": "hold", "concurrency": 16},
    {"marking": "claim"},
    {"durable": False, "concurrency": 16},
)
STORM = 400


async def torture(path: Path, *, deaths: int, seed: int, messages: int) -> Account:
    """Do it all."""
    total, began = Account(), time.monotonic()

    def tell(what: object, account: Account) -> None:
        nonlocal total
        total += account
        print(f"{time.monotonic() - began:6.0f} s  {what}: {account}", flush=True)

    async with Template() as template:
        plain: list[tuple[str, dict[str, Any]]] = [(role, {}) for role in ROLES]
        for role, options in [*plain, *(("work", options) for options in MANNERS)]:
            async with Gallows(template, path / "points", role, **options) as gallows:
                account = await gallows.die_at_each(gallows.points)
                tell(f"{role} {options or ''}, {len(gallows.reached)} points", account)
        for number, options in enumerate(itertools.cycle(STORMS)):
            if number >= len(STORMS) and total.deaths >= deaths:
                break
            chance = random.Random(f"{seed} {number}")
            storm = Storm(template, path / f"storm{number}", deaths=STORM, chance=chance, **options)
            tell(f"storm {number} {options or ''}", await storm.rage())
        tell("8 processes", await empty(template, path / "crowd", messages=messages, processes=8))
    return total


def main() -> int:
    """Run what the command line asks for."""
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
