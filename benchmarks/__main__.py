"""``python -m benchmarks [NAME…] [--quick]``: run benchmarks, print their tables, keep the last results of each."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import rivals
from benchmarks.race import markdown
from benchmarks.rivals import Unavailable

NAMES = (
    "throughput",
    "scale",
    "imports",
    "latency",
    "idle",
    "memory",
    "core",
    "messages",
    "bulk",
    "attachment",
    "connect",
    "tls",
    "proxy",
    "spool",
    "share",
    "postgres",
    "sign",
    "templates",
)
RESULTS = Path(__file__).with_name("RESULTS.md")

_HEAD = """\
# Results

Written by `python -m benchmarks`, each section by the last full run of its benchmark. Ratios are medians of the ratios
of interleaved rounds; absolute figures are medians and belong to the machine named with them.
"""


def main() -> int:
    """Run what the command line names, all without a name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; RESULTS.md is left alone")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(NAMES)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    missed = 0
    for name in chosen.names or NAMES:
        benchmark = importlib.import_module(f"benchmarks.{name}")
        print(f"{name}: {(benchmark.__doc__ or '').splitlines()[0]}", file=sys.stderr)
        try:
            answer = benchmark.run(quick=chosen.quick)
        except Unavailable as error:
            print(f"{name} is skipped: {error}", file=sys.stderr)
            continue
        text = markdown(answer)
        print(f"\n{text}\n", flush=True)
        missed += sum(goal.met is False for goal in answer.goals)
        if not chosen.quick:
            keep(name, f"{benchmark.__doc__}\n{machine()}\n\n{text}\n")
    return 1 if missed else 0


def machine() -> str:
    """Return date and what the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    others = ", ".join(f"{name} {version}" for name, version in rivals.versions().items())
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, "
        f"{platform.python_implementation()} {platform.python_version()}; {others or 'no rivals'}"
    )


def keep(name: str, text: str) -> None:
    """Replace one section of RESULTS.md, or add it in the order of `NAMES`."""
    old = RESULTS.read_text() if RESULTS.exists() else ""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", old, re.M | re.S))
    sections[name] = f"\n{text.strip()}\n\n"
    body = "".join(f"## {one}\n{sections[one]}" for one in NAMES if one in sections)
    RESULTS.write_text(f"{_HEAD}\n{body}".rstrip() + "\n")


if __name__ == "__main__":
    sys.exit(main())
