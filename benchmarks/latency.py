"""How many round trips a message costs on a link of 50 ms: against aiosmtplib and Nodemailer, to a real Postfix.

One connection. Link and server are made by the benchmark: two network namespaces with 25 ms between them in each
direction.
"""

from __future__ import annotations

from functools import partial

from benchmarks import race
from benchmarks.delaylink import CLIENT_ADDRESS, SERVER_ADDRESS, Link, delayed
from benchmarks.race import Answer, Goal, Process, Race, Run, Table, shown
from benchmarks.sender import Task
from benchmarks.servers import postfix
from smtp_async import PoolLimits, SMTPClient

_DELAY = 0.025
_PORT = 2525
_RECIPIENTS = 50
_AIOSMTPLIB, _NODEMAILER = "aiosmtplib", "Nodemailer, pool: true"


def run(*, quick: bool = False) -> Answer:
    """Run the races.

    Raises:
        Unavailable: no root, no Postfix, or no way to make the link.
    """
    with (
        delayed(_DELAY) as link,
        postfix(SERVER_ADDRESS, _PORT, f"{CLIENT_ADDRESS}/32", prefix=link.server),
    ):
        task = Task(SERVER_ADDRESS, _PORT, connections=1, callers=100, message=race.message())
        round_trip = link.round_trip(_PORT)
        stream, goals = _stream(link, task, round_trip, quick=quick)
        many, more = _recipients(link, task, round_trip, quick=quick)
    note = f"One round trip took {round_trip * 1000:.1f} ms (median of TCP connections)."
    return Answer([stream, many], goals + more, [note])


def _stream(link: Link, task: Task, round_trip: float, *, quick: bool) -> tuple[Table, list[Goal]]:
    """Message after message."""
    has_all, has_window = hasattr(SMTPClient, "send_all"), "window" in PoolLimits.__slots__
    mode = "send_all" if has_all else "send"
    level_2, window = f"smtp_async {mode}", f"smtp_async {mode}, window=64"
    alone = "smtp_async client.send, one caller at a time"
    ours = partial(_ours, link)
    with Race() as entries:
        entries.enter(level_2, lambda: ours(task._replace(mode=mode)), 200 if quick else 2000)
        if has_window:
            entries.enter(window, lambda: ours(task._replace(mode=mode, window=64)), 2000)
        entries.enter(_AIOSMTPLIB, lambda: race.aiosmtplib(task, link.client), 20 if quick else 60)
        entries.enter(_NODEMAILER, lambda: race.nodemailer(task, link.client), 40 if quick else 120)
        entries.enter(alone, lambda: ours(task._replace(callers=1)), 40 if quick else 120)
        entries.run(1 if quick else 3)

    def trips(one: Run) -> float:
        return one.seconds / one.count / round_trip

    goals = [
        Goal("level 2: round trips per message", entries.value(level_2, trips), 1.06, at_most=True),
        Goal(
            "window=64: round trips per message",
            entries.value(window, trips) if has_window else None,
            0.05,
            at_most=True,
        ),
        Goal("level 2: rate, × aiosmtplib", entries.ratio(level_2, _AIOSMTPLIB, _rate), 4),
        Goal("level 2: rate, × Nodemailer", entries.ratio(level_2, _NODEMAILER, _rate), 2),
    ]
    if has_window:
        goals.append(Goal("window=64: rate, × aiosmtplib", entries.ratio(window, _AIOSMTPLIB, _rate), 50))
    rows: list[tuple[str, ...]] = [
        (
            name,
            str(entries.results[name][0].count),
            shown(entries.value(name, _rate), ".1f"),
            shown(entries.value(name, trips), ".3f"),
            shown(entries.ratio(name, _AIOSMTPLIB, _rate), ".1f"),
        )
        for name in entries.results
    ]
    rows += [(f"{name}: absent, {reason}", *["–"] * 4) for name, reason in entries.absent.items()]
    header = ("sender", "messages", "msg/s", "round trips per message", "rate × aiosmtplib")
    return Table("One connection, message after message, 1 KiB", header, rows), goals


def _recipients(link: Link, task: Task, round_trip: float, *, quick: bool) -> tuple[Table, list[Goal]]:
    """One message at a time to many recipients."""
    task = task._replace(callers=1, recipients=tuple(f"user{n}@lab.test" for n in range(_RECIPIENTS)))
    nobody, default = "smtp_async, must_accept=NOBODY", "smtp_async, all or nothing"
    with Race() as entries:
        # A connection that was idle for more than a second is asked first: the warm-up takes that away.
        entries.enter(nobody, lambda: _ours(link, task._replace(mode="nobody")), 5, warmup=1)
        entries.enter(default, lambda: _ours(link, task), 5, warmup=1)
        entries.enter(_AIOSMTPLIB, lambda: race.aiosmtplib(task, link.client), 1)
        entries.enter(_NODEMAILER, lambda: race.nodemailer(task, link.client), 1)
        entries.run(1 if quick else 3)

    def trips(one: Run) -> float:
        return one.seconds / one.count / round_trip

    goals = [
        Goal(
            f"{_RECIPIENTS} recipients, NOBODY: round trips", entries.value(nobody, trips), 2.1, at_most=True
        ),
        Goal(
            f"{_RECIPIENTS} recipients, all or nothing: round trips",
            entries.value(default, trips),
            3.1,
            at_most=True,
        ),
    ]
    rows: list[tuple[str, ...]] = [
        (
            name,
            shown(entries.value(name, lambda run: run.seconds / run.count), ".3f"),
            shown(entries.value(name, trips)),
        )
        for name in entries.results
    ]
    rows += [(f"{name}: absent, {reason}", "–", "–") for name, reason in entries.absent.items()]
    return Table(
        f"One message to {_RECIPIENTS} recipients", ("sender", "seconds", "round trips"), rows
    ), goals


def _ours(link: Link, task: Task) -> Process:
    return race.ours(task, link.client)


def _rate(run: Run) -> float:
    return run.rate
