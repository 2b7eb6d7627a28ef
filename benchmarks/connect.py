"""What a connection costs: names are known, TCP, greeting and EHLO, one connection after the other.

The server, of 127.0.0.1, is a small one in a process of its own, which greets, answers EHLO and reads on.
"""

from __future__ import annotations

from functools import partial

from benchmarks.race import Answer, Goal, Race
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
