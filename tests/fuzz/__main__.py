"""``python -m tests.fuzz [--seconds N] [WORD…]``: every test that hypothesis drives, for N seconds each, and more.

These targets are the suite's own: every function or method under `@given` that needs no fixture. What fails is shown in
its smallest form and kept in `.hypothesis`, and is the first that the next run tries, until it is mended.

`corrupted.…` corrupts the seeds in `corpus` for everything that reads what others wrote: a million replies, and less of
the others. `framing` is every short string at every split, which takes some minutes. A word chooses the targets whose
name holds it.
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
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given, is_hypothesis_test, settings

from tests.fuzz import corrupted, framing

TESTS = Path(__file__).resolve().parents[1]


def targets(files: str = "test_*.py") -> Iterator[tuple[str, Any]]:
    """Name and function of every target in these files, in their order."""
    settings.register_profile("fuzz", deadline=None)
    settings.load_profile("fuzz")
    for path in sorted(TESTS.rglob(files)):
        if "@given" not in path.read_text(encoding="utf-8"):
            continue
        parts = path.relative_to(TESTS.parent).with_suffix("").parts
        module = importlib.import_module(".".join(parts))
        for name, value in vars(module).items():
            found = {name: value}
            if inspect.isclass(value) and value.__module__ == module.__name__:
                found = {f"{name}.{method}": _bound(value, one) for method, one in vars(value).items()}
            for target, function in found.items():
                if is_hypothesis_test(function) and not _fixtures(function):
                    yield f"{'.'.join(parts[1:])}.{target}", function


def _fixtures(function: Any) -> list[str]:
    """Return the names of the parameters that hypothesis leaves to pytest."""
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]


def _bound(kind: type, method: Any) -> Any:
    """Return a method that hypothesis drives as a function without `self`; anything else unchanged."""
    if not is_hypothesis_test(method) or _fixtures(method) != ["self"]:
        return method
    inner, drawn = method.hypothesis.inner_test, method.hypothesis._given_kwargs

    def test(**examples: Any) -> None:
        inner(kind(), **examples)

    test.__qualname__ = method.__qualname__
    test.__module__ = kind.__module__
    return given(**drawn)(test)


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


def _corrupt(target: corrupted.Target, seconds: float) -> int:
    """Try corrupted seeds: as many as the target wants, and until the time is over."""
    chance = random.Random(random.random())
    return corrupted.exercise(target, chance, examples=target.examples, seconds=seconds)


def main() -> int:
    """Run what the command line names, all without a name."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="part of a target's name; all by default")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each target (10)")
    parser.add_argument(
        "--seed", type=int, default=None, help="of what is drawn, to draw it again (the time)"
    )
    chosen = parser.parse_args()
    found: list[tuple[str, Callable[[], int]]] = [
        *((name, partial(fuzz, function, chosen.seconds)) for name, function in targets()),
        *((f"corrupted.{one.name}", partial(_corrupt, one, chosen.seconds)) for one in corrupted.TARGETS),
        ("framing", framing.exhaust),
    ]
    if chosen.words:
        found = [one for one in found if any(word in one[0] for word in chosen.words)]
    failed = 0
    random.seed(chosen.seed)
    for name, exercise in found:
        try:
            cases = exercise()
        except Exception:
            failed += 1
            traceback.print_exc()
            print(f"{name}: FAILED", flush=True)
        else:
            print(f"{name}: {cases:,} cases", flush=True)
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
