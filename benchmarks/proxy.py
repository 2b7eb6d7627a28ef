"""What a connection through SOCKS5 costs: TCP, SOCKS5, greeting and EHLO, against python-socks used by hand.

The proxy answers as the mail server, too, in a process of its own, so that neither a third process nor copying takes
part. By hand means python-socks' `Proxy.connect`, and its socket handed to aiosmtplib. Bare streams, which read lines
and understand none of them, show what the wire costs.
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

_OURS, _DIRECT = "smtp_async", "smtp_async, without a proxy"
_THEIRS_DIRECT = "aiosmtplib, without a proxy"
_BY_HAND, _STREAMS = "python-socks by hand + aiosmtplib", "python-socks by hand + bare streams"


def run(*, quick: bool = False) -> Answer:
    """Run the race."""
    count = 50 if quick else 500
    with _server() as (proxy, server), Race() as entries:
        task = Task("127.0.0.1", proxy, connections=1, callers=1)
        entries.enter(_OURS, partial(_ours, task), count, warmup=20)
        entries.enter(_BY_HAND, partial(_by_hand, task._replace(mode="aiosmtplib")), count, warmup=20)
        entries.enter(_STREAMS, partial(_by_hand, task._replace(mode="streams")), count, warmup=20)
        direct = task._replace(port=server, mode="direct")
        entries.enter(_DIRECT, partial(_ours, direct), count, warmup=20)
        entries.enter(_THEIRS_DIRECT, partial(_by_hand, direct), count, warmup=20)
        entries.run(1 if quick else 7)
        goals = [
            Goal("SOCKS5 and EHLO: rate, × by hand + aiosmtplib", entries.ratio(_OURS, _BY_HAND, _rate), 1.0),
            Goal(
                "the same: CPU, × by hand + aiosmtplib",
                entries.ratio(_OURS, _BY_HAND, _cpu),
                1.0,
                at_most=True,
            ),
        ]
        rows = [
            (
                name,
                str(entries.results[name][0].count),
                shown(entries.value(name, _rate), ".0f"),
                shown(entries.value(name, _cpu), ".0f"),
            )
            for name in entries.results
        ]
    header = ("client", "connections", "connections/s", "CPU µs each")
    return Answer([Table("One connection through SOCKS5 after the other", header, rows)], goals, [])


def _cpu(run: Run) -> float:
    return run.cpu


def _rate(run: Run) -> float:
    return run.rate


def _ours(task: Task) -> Process:
    return Process([sys.executable, HERE / "proxy_ours.py"], task)


def _by_hand(task: Task) -> Process:
    return Process([rivals.python(), HERE / "proxy_by_hand.py"], task)


@contextmanager
def _server() -> Iterator[tuple[int, int]]:
    command = [sys.executable, str(HERE / "proxy_server.py")]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None and server.stdout is not None
    try:
        proxy, direct = server.stdout.readline().split()
        yield int(proxy), int(direct)
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()
