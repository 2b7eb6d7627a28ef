"""What a large attachment costs: 200 MiB and 1 GiB from a path, against aiosmtplib building from the same file.

Server: smtp-sink on this machine. A task that wants to run every millisecond tells how long the event loop was busy
with something else; memory is the highest mark of the process while it sends, less what it had before.
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import race, rivals
from benchmarks.race import HERE, Answer, Goal, Process, Race, Run, Table, shown
from benchmarks.sender import Task
from benchmarks.servers import sink

_MIB = 2**20
_OURS = "smtp_async Attachment(path)"
_RIVAL = "EmailMessage + aiosmtplib"


def run(*, quick: bool = False) -> Answer:
    """Send, in turns; the larger file by this library alone.

    Raises:
        Unavailable: there is no smtp-sink.
    """
    tables: list[Table] = []
    goals: list[Goal] = []
    with tempfile.TemporaryDirectory(prefix="smtp-async-attachment-") as folder, sink() as server:
        for size, rounds, rival in ((200, 3 if quick else 7, True), (1024, 1 if quick else 3, False)):
            path = _file(Path(folder) / f"{size}.bin", size * _MIB)
            task = Task(server.host, server.port, connections=1, mode=str(path))
            table, more = _race(task, size, rounds, rival=rival)
            tables.append(table)
            goals += more
            path.unlink()
    notes = ["A rate is that of the file, before base64."]
    return Answer(tables, goals, notes)


def _race(task: Task, size: int, rounds: int, *, rival: bool) -> tuple[Table, list[Goal]]:
    title = f"{size} MiB" if size < 1024 else f"{size // 1024} GiB"
    with Race() as entries:
        entries.enter(_OURS, partial(_ours, task), 1)
        if rival:
            entries.enter(_RIVAL, partial(_theirs, task), 1)
        entries.enter(f"{_OURS}, uvloop", partial(_ours, task._replace(loop="uvloop")), 1)
        entries.run(rounds)
    goals = [
        Goal(f"{title}: growth of memory in the worst round, MiB", _worst(entries), 16.0, at_most=True),
        Goal(f"{title}: 99.9 % of stalls, ms", entries.value(_OURS, _stall), 10.0, at_most=True),
    ]
    if rival:
        goals.insert(0, Goal(f"{title}: rate, × aiosmtplib", entries.ratio(_OURS, _RIVAL, _rate), 5.0))
    return _table(title, size, entries), goals


def _file(path: Path, size: int) -> Path:
    block = os.urandom(_MIB)
    with path.open("wb") as file:
        for _ in range(size // _MIB):
            file.write(block)
    return path


def _ours(task: Task) -> race.Contestant:
    return Process([sys.executable, HERE / "attachment_ours.py"], task)


def _theirs(task: Task) -> race.Contestant:
    return Process([rivals.python(), HERE / "attachment_aiosmtplib.py"], task)


def _rate(run: Run) -> float:
    return run.rate


def _growth(run: Run) -> float:
    return float(run.told["growth"]) / _MIB


def _worst(entries: Race) -> float | None:
    return max(map(_growth, entries.results.get(_OURS, [])), default=None)


def _stall(run: Run) -> float:
    return float(run.told["stall"]) * 1000


def _table(title: str, size: int, entries: Race) -> Table:
    header = (
        "sender",
        "MiB/s",
        "CPU s",
        "memory + MiB",
        "99.9 % of stalls, ms",
        "longest, ms",
        "rate × rival",
    )
    rows: list[tuple[str, ...]] = [
        (
            name,
            shown(entries.value(name, lambda run: run.rate * size), ".0f"),
            shown(entries.value(name, lambda run: run.cpu / 1e6), ".2f"),
            shown(entries.value(name, _growth), ".1f"),
            shown(entries.value(name, _stall), ".1f"),
            shown(entries.value(name, lambda run: run.told["longest"] * 1000), ".1f"),
            shown(entries.ratio(name, _RIVAL, _rate)),
        )
        for name in entries.results
    ]
    rows += [(f"{name}: absent, {reason}", *["–"] * 6) for name, reason in entries.absent.items()]
    return Table(title, header, rows)
