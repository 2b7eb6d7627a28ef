"""What a connection costs without TLS: TCP, greeting and EHLO, one connection after the other.

The server, of 127.0.0.1, is a small one in a process of its own, which greets, answers EHLO and reads on.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import rivals
from benchmarks.race import HERE, Answer, Goal, Process, Race, Run, Table, shown
from benchmarks.sender import Task

_OURS, _RIVAL = "smtp_async", "aiosmtplib"


def run(*, quick: bool = False) -> Answer:
    """Run the race."""
    count, rounds = (100, 1) if quick else (1000, 7)
    with _server() as port, Race() as entries:
        task = Task("127.0.0.1", port, connections=1, callers=1, mode="connect")
        entries.enter(_OURS, partial(_ours, task), count)
        entries.enter(_RIVAL, partial(_theirs, task), count)
        entries.run(rounds)
    goals = [
        Goal("TCP and EHLO: connections per second, × aiosmtplib", entries.ratio(_OURS, _RIVAL, _rate), 1.0),
        Goal("TCP and EHLO: CPU, × aiosmtplib", entries.ratio(_OURS, _RIVAL, _cpu), 1.0, at_most=True),
    ]
    return Answer([_table(entries)], goals, [])


def _table(entries: Race) -> Table:
    header = ("client", "connections", "connections/s", "CPU µs each")
    rows: list[tuple[str, ...]] = [
        (
            name,
            str(entries.results[name][0].count),
            shown(entries.value(name, _rate), ".0f"),
            shown(entries.value(name, _cpu), ".0f"),
        )
        for name in entries.results
    ]
    rows += [(f"{name}: absent, {reason}", *["–"] * 3) for name, reason in entries.absent.items()]
    return Table("TCP, greeting and EHLO, one connection after the other", header, rows)


def _rate(run: Run) -> float:
    return run.rate


def _cpu(run: Run) -> float:
    return run.cpu


def _ours(task: Task) -> Process:
    return Process([sys.executable, HERE / "connect_ours.py"], task)


def _theirs(task: Task) -> Process:
    return Process([rivals.python(), HERE / "connect_aiosmtplib.py"], task)


@contextmanager
def _server() -> Iterator[int]:
    command = [sys.executable, str(HERE / "tls_server.py")]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None and server.stdout is not None
    try:
        yield int(server.stdout.readline())
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()
