"""Does memory stay as it is: a million messages through `send_all`, RSS after the first 10,000 and at the end.

Server: smtp-sink on this machine.
"""

from __future__ import annotations

import sys

from benchmarks import race
from benchmarks.race import Answer, Goal, Table
from benchmarks.rivals import Unavailable
from benchmarks.sender import Task
from benchmarks.servers import sink
from smtp_async import SMTPClient

_FIRST = 10_000
_MIB = 2**20


def run(*, quick: bool = False) -> Answer:
    """Send them all in one call.

    Raises:
        Unavailable: there is no smtp-sink, or no `send_all`.
    """
    if not hasattr(SMTPClient, "send_all"):
        raise Unavailable("SMTPClient has no send_all")
    total = 100_000 if quick else 1_000_000
    with sink() as server:
        task = Task(server.host, server.port, message=race.message(), mode="watched")
        sender = race.Process([sys.executable, race.HERE / "memory_client.py"], task)
        answer = sender.ask(total)
        sender.stop()
    early, late = answer["early"], answer["late"]
    rows = [
        (f"{_FIRST:,}", f"{early / _MIB:.2f}"),
        (f"{total:,}", f"{late / _MIB:.2f}"),
        ("the most on the way", f"{answer['most'] / _MIB:.2f}"),
    ]
    goals = [Goal(f"RSS after {total:,} messages, × after {_FIRST:,}", late / early, 1.05, at_most=True)]
    notes = [f"{total / answer['seconds']:.0f} messages per second."]
    return Answer([Table("10 connections, 1 KiB", ("messages", "RSS MiB"), rows)], goals, notes)
