"""What bulk mail costs: build and send 10,000 personal messages, against `EmailMessage` + aiosmtplib.

Server: smtp-sink on this machine. Each message has its own name, subject (not ASCII), text and HTML, 10 connections.
"""

from __future__ import annotations

import sys
from functools import partial

from benchmarks import race, rivals
from benchmarks.race import HERE, Answer, Goal, Process, Race, Run, Table, shown
from benchmarks.sender import Task
from benchmarks.servers import sink

_OURS = "smtp_async send_all of Message"
_RIVAL = "EmailMessage + aiosmtplib"


def run(*, quick: bool = False) -> Answer:
    """Run the race.

    Raises:
        Unavailable: there is no smtp-sink.
    """
    rounds, count = (3, 2000) if quick else (5, 10_000)
    with sink() as server, Race() as entries:
        task = Task(server.host, server.port)
        entries.enter(_OURS, partial(_ours, task), count)
        entries.enter(_RIVAL, partial(_theirs, task), count)
        entries.enter(f"{_OURS}, uvloop", partial(_ours, task._replace(loop="uvloop")), count)
        entries.enter(f"{_RIVAL}, uvloop", partial(_theirs, task._replace(loop="uvloop")), count)
        entries.run(rounds)
    goal = Goal("messages per second, × EmailMessage + aiosmtplib", entries.ratio(_OURS, _RIVAL, _rate), 8.0)
    return Answer([_table(f"{count:,} messages, 10 connections", entries)], [goal], [])


def _ours(task: Task) -> race.Contestant:
    return Process([sys.executable, HERE / "bulk_ours.py"], task)


def _theirs(task: Task) -> race.Contestant:
    return Process([rivals.python(), HERE / "bulk_aiosmtplib.py"], task)


def _rate(run: Run) -> float:
    return run.rate


def _table(title: str, entries: Race) -> Table:
    header = ("sender", "msg/s", "CPU µs", "octets", "rate × rival", "CPU × rival")
    rows: list[tuple[str, ...]] = [
        (
            name,
            shown(entries.value(name, _rate), ".0f"),
            shown(entries.value(name, lambda run: run.cpu), ".1f"),
            shown(entries.value(name, lambda run: run.told["octets"]), ".0f"),
            shown(entries.ratio(name, _RIVAL, _rate)),
            shown(entries.ratio(name, _RIVAL, lambda run: run.cpu), ".3f"),
        )
        for name in entries.results
    ]
    rows += [(f"{name}: absent, {reason}", *["–"] * 5) for name, reason in entries.absent.items()]
    return Table(title, header, rows)
