"""What a message costs where there is much of something: callers that wait, connections, recipients.

Server: smtp-sink on this machine. Every figure is compared with that of a small number in the same round: 100,000
callers that wait at once with 100, 1,000 connections with 10, 10,000 recipients of one message with 10. Messages of
1 KiB by `send_raw`.
"""

from __future__ import annotations

from functools import partial

from benchmarks import race
from benchmarks.race import Answer, Goal, Race, Run, Table, shown
from benchmarks.sender import Task
from benchmarks.servers import sink

_FEW, _MANY = 10, 1000
_CALLERS = (100, 100_000)
_RECIPIENTS = (10, 10_000)


def run(*, quick: bool = False) -> Answer:
    """Run the races.

    Raises:
        Unavailable: there is no smtp-sink.
    """
    rounds = 3 if quick else 7
    # By default it takes 256 connections.
    with sink("-m", str(2 * _MANY)) as server:
        task = Task(server.host, server.port, mode="raw", message=race.message())
        answers = [_callers(task, rounds), _connections(task, rounds), _recipients(task, rounds)]
    tables, goals = zip(*answers, strict=True)
    return Answer(list(tables), list(goals), [])


def _callers(task: Task, rounds: int) -> tuple[Table, Goal]:
    """Ten connections; each caller sends one message, and all of them are begun at once."""
    with Race() as entries:
        for callers in _CALLERS:
            crowd = task._replace(callers=callers)
            entries.enter(f"{callers:,} callers", partial(race.ours, crowd), max(callers, 10_000))
        entries.run(rounds)
    few, many = entries.results
    goal = Goal(
        "100,000 waiting callers: time per message, × that with 100",
        entries.ratio(many, few, _micros),
        1.2,
        at_most=True,
    )
    return _table("Callers that wait, 10 connections", "message", entries), goal


def _connections(task: Task, rounds: int) -> tuple[Table, Goal]:
    """Twice as many callers as connections, so that each connection writes one message behind the other."""
    with Race() as entries:
        for connections in (_FEW, _MANY):
            crowd = task._replace(connections=connections, callers=2 * _MANY)
            entries.enter(f"{connections:,} connections", partial(race.ours, crowd), 20_000)
        entries.run(rounds)
    few, many = entries.results
    goal = Goal(
        "1,000 connections: CPU per message, × that with 10",
        entries.ratio(many, few, lambda run: run.cpu),
        1.3,
        at_most=True,
    )
    return _table("Connections, 2,000 callers", "message", entries), goal


def _recipients(task: Task, rounds: int) -> tuple[Table, Goal]:
    """One connection and one caller; the time of a message is divided by its recipients."""
    with Race() as entries:
        for count in _RECIPIENTS:
            names = tuple([f"reader{number}@lab.test" for number in range(count)])
            alone = task._replace(connections=1, callers=1, recipients=names)
            entries.enter(f"{count:,} recipients", partial(race.ours, alone), 20_000 // count)
        entries.run(rounds)
    few, many = entries.results
    ratio = entries.ratio(many, few, _micros)
    goal = Goal(
        "10,000 recipients in one message: time per recipient, × that with 10",
        None if ratio is None else ratio * _RECIPIENTS[0] / _RECIPIENTS[1],
        1.0,
        at_most=True,
    )
    return _table("Recipients of one message", "message", entries), goal


def _micros(run: Run) -> float:
    return run.seconds / run.count * 1e6


def _table(title: str, what: str, entries: Race) -> Table:
    header = ("with", f"µs per {what}", f"CPU µs per {what}")
    rows = [
        (
            name,
            shown(entries.value(name, _micros), ".1f"),
            shown(entries.value(name, lambda run: run.cpu), ".1f"),
        )
        for name in entries.results
    ]
    return Table(title, header, rows)
