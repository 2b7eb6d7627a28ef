"""What an import costs: CPU time of fresh interpreters, beyond what `import asyncio, ssl` takes.

Each round starts every interpreter once; compiled modules are in their caches. `import smtp_async` loads a module when
one of its names is used; therefore the import of the names that a first program uses stands beside it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks import rivals
from benchmarks.race import Answer, Goal, Table
from benchmarks.rivals import ROOT, Unavailable

_BARE = "import asyncio, ssl"
_OURS = "import smtp_async"
_NAMES = "from smtp_async import Message, SMTPClient"
_RIVAL = "import aiosmtplib"


def run(*, quick: bool = False) -> Answer:
    """Start the interpreters in turns."""
    contestants: dict[str, tuple[str | Path, str]] = {
        _OURS: (sys.executable, f"{_BARE}; {_OURS}"),
        _NAMES: (sys.executable, f"{_BARE}; {_NAMES}"),
    }
    notes = ["ms of CPU time, user and system; medians of the differences in each round."]
    try:
        contestants[_RIVAL] = (rivals.python(), f"{_BARE}; {_RIVAL}")
    except Unavailable as error:
        notes.append(f"{_RIVAL}: absent, {error}")
    times: dict[str, list[float]] = {name: [] for name in contestants}
    # The first round writes the caches of compiled modules.
    for number in range(1 + (5 if quick else 31)):
        for name, (python, program) in contestants.items():
            spent = _cpu(python, program) - _cpu(python, _BARE)
            if number:
                times[name].append(spent)
    beyond = {name: median(found) for name, found in times.items()}
    rows = [(name, f"{spent:.1f}") for name, spent in beyond.items()]
    goal = Goal("import smtp_async: ms beyond asyncio and ssl", beyond[_OURS], 30.0, at_most=True)
    return Answer([Table("Imports", ("program", "ms"), rows)], [goal], notes)


def _cpu(python: str | Path, program: str) -> float:
    """Return the milliseconds of CPU time of one interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(python), "-c", program], check=True, cwd=ROOT, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000
