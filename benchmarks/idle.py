"""What an idle session weighs: 1,000 of them, plain and with TLS, against bare asyncio streams.

The server is an asyncio server in a process of its own. Memory is RSS of the client's process, divided by the number of
connections, after every connection has sent one message and garbage was collected.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks import race
from benchmarks.race import Answer, Goal, Table
from benchmarks.rivals import ROOT
from benchmarks.sender import Task
from tests.servers.pki import Pki

_HERE = Path(__file__).resolve().parent
_KIB = 1024


def run(*, quick: bool = False) -> Answer:
    """Measure both contestants, plain and with TLS."""
    count, rounds = (1000, 1) if quick else (1000, 3)
    rows, weights = [], {}
    for security in ("plain", "tls"):
        for who, weight in weigh(security, count, rounds).items():
            weights[security, who] = weight
        ours, bare = weights[security, "ours"], weights[security, "bare"]
        rows.append((security, f"{ours:.1f}", f"{bare:.1f}", f"{ours - bare:.1f}", f"{ours / bare:.2f}"))
    header = ("connection", "smtp_async KiB", "bare streams KiB", "difference", "ratio")
    goals = [
        Goal("plain: KiB per idle session", weights["plain", "ours"], 12, at_most=True),
        Goal(
            "TLS: KiB more than a bare TLS stream",
            weights["tls", "ours"] - weights["tls", "bare"],
            15,
            at_most=True,
        ),
    ]
    return Answer([Table(f"{count} idle sessions, memory of each", header, rows)], goals, [])


def weigh(security: str, count: int, rounds: int) -> dict[str, float]:
    """Return KiB per connection of `ours` and of `bare` streams, the median of the rounds.

    Args:
        security: `plain` or `tls`.
        count: connections.
        rounds: how often each is measured.
    """
    measured: dict[str, list[float]] = {"ours": [], "bare": []}
    with _server(security) as (port, authority):
        task = Task("127.0.0.1", port, connections=count, message=race.message(), mode=security)
        for _ in range(rounds):
            for who, values in measured.items():
                values.append(_weigh(who, task, authority))
    return {who: median(values) for who, values in measured.items()}


@contextmanager
def _server(security: str) -> Iterator[tuple[int, Path]]:
    with tempfile.TemporaryDirectory() as directory:
        pki = Pki(Path(directory))
        command = [sys.executable, str(_HERE / "idle_server.py")]
        if security == "tls":
            command.append(str(pki.server.combined))
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert server.stdin is not None and server.stdout is not None
        try:
            yield int(server.stdout.readline()), pki.ca_file
        finally:
            server.stdin.close()
            server.wait()
            server.stdout.close()


def _weigh(who: str, task: Task, authority: Path) -> float:
    """Return KiB per connection."""
    command = [sys.executable, str(_HERE / "idle_client.py"), who, str(authority)]
    done = subprocess.run(
        command, input=json.dumps(task._asdict()), check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    return float(done.stdout) / _KIB
