"""Processes that are killed, and processes that share: the short form of `python -m tests.spool.torture`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: How many processes die here, each way: together more than 500.
DEATHS = int(os.environ.get("SPOOL_DEATHS", "260"))
#: Seconds; it takes 5 where nobody else is at work.
PATIENCE = max(60, DEATHS // 5)


def torture(way: str, much: int) -> dict[str, int]:
    """In a process of its own: this one has threads, and should not be forked."""
    program = [sys.executable, "-m", "tests.spool.torture", way, "--much", str(much)]
    root = Path(__file__).parents[2]
    done = subprocess.run(program, capture_output=True, text=True, cwd=root)
    assert done.stdout, done.stderr
    result: dict[str, int] = json.loads(done.stdout)
    assert (result["lost"], result["unflagged"]) == (0, 0), result
    return result


@pytest.mark.timeout(PATIENCE)
def test_dying_at_every_step_loses_nothing() -> None:
    result = torture("steps", DEATHS)
    assert result["deaths"] >= DEATHS
    assert result["overflagged"] == 0
    # 25 steps, each before and after.
    assert result["points"] >= 50, result


@pytest.mark.timeout(PATIENCE)
def test_dying_at_any_moment_beside_others_loses_nothing() -> None:
    assert torture("random", DEATHS)["deaths"] >= DEATHS


def test_many_processes_share_a_spool() -> None:
    result = torture("share", 2000)
    assert (result["promised"], result["copies"]) == (2000, 0)


def test_some_put_while_others_deliver() -> None:
    result = torture("mixed", 600)
    assert (result["promised"], result["copies"]) == (600, 0)
