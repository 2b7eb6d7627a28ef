"""``python -m tests.fuzz [--seconds N] [WORD…]``: every test that hypothesis drives, for N seconds each, then framing.

The targets are the suite's own: every function under `@given` that needs no fixture. A word chooses those whose name
holds it; `framing` is every short string at every split, which takes some minutes. What fails is shown in its smallest
form and kept in `.hypothesis`, and is the first that the next run tries, until it is mended.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import is_hypothesis_test, settings

from tests.fuzz import framing

TESTS = Path(__file__).resolve().parents[1]


def targets() -> Iterator[tuple[str, Any]]:
    """Name and function of every target, in the order of the files."""
    settings.register_profile("fuzz", deadline=None)
    settings.load_profile("fuzz")
    for path in sorted(TESTS.rglob("test_*.py")):
        if "@given" not in path.read_text(encoding="utf-8"):
            continue
        parts = path.relative_to(TESTS.parent).with_suffix("").parts
        module = importlib.import_module(".".join(parts))
        for name, function in vars(module).items():
            if is_hypothesis_test(function) and not inspect.signature(function).parameters:
                yield f"{'.'.join(parts[1:])}.{name}", function


def fuzz(function: Any, seconds: float) -> int:
    """Feed random octets to a test until the time is over; return how many examples they made.

    Raises:
        Exception: an example failed; the smallest one that was found.
    """
    one: Callable[[bytes], bytes | None] = function.hypothesis.fuzz_one_input
    function()  # what failed before
    cases, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            cases += one(random.randbytes(random.choice((16, 64, 256, 1024, 4096)))) is not None
        except Exception:
            function()  # finds it in the database and makes it small
            raise
    return cases


def main() -> int:
    """Run what the command line names, all without a name."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="part of a target's name; all by default")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each target (10)")
    parser.add_argument(
        "--seed", type=int, default=None, help="of what is drawn, to draw it again (the time)"
    )
    chosen = parser.parse_args()
    found = [*targets(), ("framing", None)]
    if chosen.words:
        found = [one for one in found if any(word in one[0] for word in chosen.words)]
    failed = 0
    random.seed(chosen.seed)
    for name, function in found:
        try:
            cases = framing.exhaust() if function is None else fuzz(function, chosen.seconds)
        except Exception:
            failed += 1
            traceback.print_exc()
            print(f"{name}: FAILED", flush=True)
        else:
            print(f"{name}: {cases:,} cases", flush=True)
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
