"""``python -m tests.mutants [--count N] [--seed N] [PREFIX…]``: change a line, and see whether a test fails.

A sample of the mutants of `PLACES` is run, or of those files whose path begins with a PREFIX. First the test file that
mirrors the module is run and, if all of it passes, every test of the same room and those of `BESIDE`; each stops at the
first failure. A mutant survives if all pass. Each job has a copy of the tree of its own. The survivors are printed.

The suite has to pass before: a test that fails without any change kills every mutant.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from tests.mutants.operators import Mutant, mutants
from tests.test_mirror import ELSEWHERE

ROOT = Path(__file__).resolve().parents[2]
#: What the tests of a copy need.
TREE = ("smtp_async", "tests", "docs", "examples", "pyproject.toml", "README.md", "CHANGELOG.md", "Makefile")
#: The modules whose mutants are drawn.
PLACES = ("protocol", "connection", "pool", "processor/policy.py", "processor/schedule.py", "spool")
#: The tests that are run besides those of the room, by the beginning of the module's path.
BESIDE = {
    "protocol": ("connection", "test_pipelining.py", "test_pipelining_faults.py", "test_smuggling.py"),
    "connection": ("client/test_client.py", "test_faults.py", "test_cancellation.py", "test_logging.py"),
    "pool": ("client", "test_cancellation.py", "test_rates.py"),
    "processor": (),
    "spool": ("processor",),
}
#: Seconds for the tests of a module, and for those of a room. A mutant may never end.
LIMITS = (120.0, 600.0)


class Drawn(NamedTuple):
    """A mutant, and the path of its module below the package."""

    path: str
    mutant: Mutant

    def __str__(self) -> str:
        mutant = self.mutant
        return f"{self.path}:{mutant.line} {mutant.operator}: `{mutant.before}` → `{mutant.after}`"


def drawn(prefixes: Iterable[str], *, count: int, seed: int) -> list[Drawn]:
    """Return a sample of the mutants of the modules whose path begins with one of the prefixes."""
    package = ROOT / "smtp_async"
    every = [
        Drawn(path.relative_to(package).as_posix(), mutant)
        for path in sorted(package.rglob("*.py"))
        if path.relative_to(package).as_posix().startswith(tuple(prefixes))
        for mutant in mutants(path.read_text(encoding="utf-8"))
    ]
    return random.Random(seed).sample(every, min(count, len(every)))


def mirror(path: str) -> str:
    """Return the test file of a module."""
    module = path.removesuffix(".py")
    if module in ELSEWHERE:
        return ELSEWHERE[module][0]
    if path.endswith("__init__.py"):
        return "test_exports.py"
    return str(Path(path).with_name(f"test_{Path(path).name}"))


class Runner:
    """Runs tests in copies of the tree, one for each job."""

    def __init__(self, directory: Path, jobs: int) -> None:
        self._copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            copy = directory / str(number)
            copy.mkdir()
            for name in TREE:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy2(ROOT / name, copy / name)
            self._copies.put(copy)

    def fate(self, one: Drawn, *, rooms: bool) -> str:
        """Return what became of a mutant: "killed", "late" (its tests did not end) or "survived"."""
        copy = self._copies.get()
        where = copy / "smtp_async" / one.path
        kept = where.read_bytes()
        where.write_text(one.mutant.source(), encoding="utf-8")
        try:
            first = mirror(one.path)
            ended = self._run(copy, [first], LIMITS[0])
            if ended == "survived" and rooms:
                room = one.path.split("/")[0]
                ended = self._run(copy, [str(Path(first).parent), *BESIDE[room]], LIMITS[1])
            return ended
        finally:
            where.write_bytes(kept)
            self._copies.put(copy)

    def _run(self, copy: Path, files: list[str], limit: float) -> str:
        """Run test files in a process group of its own, so that what it has started ends with it."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n",
            "0",
            "-o",
            "timeout=100",
            "-p",
            "no:cacheprovider",
        ]
        process = subprocess.Popen(
            [*command, *(f"tests/{file}" for file in files)],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return "killed" if process.wait(limit) else "survived"
        except subprocess.TimeoutExpired:
            return "late"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("prefixes", nargs="*", metavar="PREFIX", help="such as spool/record.py")
    parser.add_argument("--count", type=int, default=400, help="(400)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mirror-only", action="store_true", help="do not run the tests of the rooms")
    parser.add_argument("--verbose", action="store_true", help="print the others, too")
    chosen = parser.parse_args()
    sample = drawn(chosen.prefixes or PLACES, count=chosen.count, seed=chosen.seed)
    fates: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="smtp-async-mutants-") as directory,
        ThreadPoolExecutor(chosen.jobs) as threads,
    ):
        runner = Runner(Path(directory), chosen.jobs)
        under_way = {threads.submit(runner.fate, one, rooms=not chosen.mirror_only): one for one in sample}
        for done in as_completed(under_way):
            fates[done.result()] += 1
            if chosen.verbose or done.result() == "survived":
                print(f"{done.result()}: {under_way[done]}", flush=True)
    print(
        f"{len(sample)} mutants, seed {chosen.seed}: " + ", ".join(f"{n} {fate}" for fate, n in fates.items())
    )
    return 1 if fates["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
