"""How many messages per second, and at what price: against aiosmtplib, smtp-source and bare streams.

Server: smtp-sink on this machine. Messages of 1 KiB. The default deadline of `client.send` is on. The goals are about
calls as people make them: complete messages as bytes, with sender and recipients as texts, and messages that are built
for the call. What the same costs with a message and an envelope that were prepared once stands beside them.
"""

from __future__ import annotations

from functools import partial

from benchmarks import race
from benchmarks.race import RECIPIENT, SENDER, Answer, Command, Goal, Race, Table, shown
from benchmarks.sender import Task
from benchmarks.servers import program, sink

_OURS = "smtp_async client.send"
_RAW = "smtp_async send_raw"
_MESSAGE = "smtp_async Message, built and rendered"
_ALL_RAW = "smtp_async send_all of Raw"
_SOURCE = "smtp-source -d -s 10"
_AIOSMTPLIB = "aiosmtplib"
_FLOOR = "floor (bare streams)"
# The library reads as much at a time.
_SAME_READS = "floor (bare streams), 64 KiB reads"


def run(*, quick: bool = False) -> Answer:
    """Run the races.

    Raises:
        Unavailable: there is no smtp-sink.
    """
    rounds, scale = (3, 1) if quick else (9, 2)
    with sink() as server:
        many = Task(server.host, server.port, message=race.message())
        crowd, goals = _many(many, rounds, scale)
        single, more = _single(many, rounds, scale)
    notes = ["CPU is that of the sender's process, user and system, in µs per message."]
    return Answer([crowd, single], goals + more, notes)


def _many(task: Task, rounds: int, scale: int) -> tuple[Table, list[Goal]]:
    """10 connections, 100 callers, on asyncio and on uvloop."""
    uv = task._replace(loop="uvloop")
    with Race() as entries:
        ours = _OURS + " (prepared bytes)"
        entries.enter(ours, partial(race.ours, task), 4000 * scale)
        entries.enter(_AIOSMTPLIB, partial(race.aiosmtplib, task), 1500 * scale)
        entries.enter(_FLOOR, partial(race.floor, task), 8000 * scale)
        small = task._replace(mode="small")
        entries.enter(_SAME_READS, partial(race.floor, small), 8000 * scale)
        entries.enter(_RAW, partial(race.ours, task._replace(mode="raw")), 4000 * scale)
        message = task._replace(mode="message")
        entries.enter(_MESSAGE, partial(race.ours, message), 4000 * scale)
        entries.enter("smtp_async send_all", partial(race.ours, task._replace(mode="send_all")), 4000 * scale)
        entries.enter(_ALL_RAW, partial(race.ours, task._replace(mode="send_all_raw")), 4000 * scale)
        entries.enter(ours + ", uvloop", partial(race.ours, uv), 8000 * scale)
        entries.enter(_RAW + ", uvloop", partial(race.ours, uv._replace(mode="raw")), 8000 * scale)
        entries.enter(_SOURCE, lambda: _smtp_source(task), 10000 * scale)
        entries.enter(_AIOSMTPLIB + ", uvloop", partial(race.aiosmtplib, uv), 1500 * scale)
        entries.enter(_FLOOR + ", uvloop", partial(race.floor, uv), 8000 * scale)
        entries.run(rounds)
    goals = [
        Goal("send_raw: rate, × aiosmtplib sendmail", entries.ratio(_RAW, _AIOSMTPLIB, _rate), 4.5),
        Goal("send_raw: aiosmtplib's CPU, × ours", entries.ratio(_AIOSMTPLIB, _RAW, _cpu), 4.5),
        Goal("Message: rate, × aiosmtplib sendmail", entries.ratio(_MESSAGE, _AIOSMTPLIB, _rate), 4.0),
        Goal("send_all of Raw: rate, × aiosmtplib", entries.ratio(_ALL_RAW, _AIOSMTPLIB, _rate), 5.0),
        Goal("send_raw: CPU, × floor", entries.ratio(_RAW, _SAME_READS, _cpu), 1.9, at_most=True),
        Goal(
            "send_raw, uvloop: rate, × smtp-source",
            entries.ratio(_RAW + ", uvloop", _SOURCE, _rate),
            1.0,
        ),
    ]
    return _table("10 connections, 100 callers, 1 KiB", entries), goals


def _single(task: Task, rounds: int, scale: int) -> tuple[Table, list[Goal]]:
    """One connection."""
    one = task._replace(connections=1, callers=1)
    with Race() as entries:
        alone = _OURS + ", one caller at a time"
        entries.enter(alone, partial(race.ours, one), 2000 * scale)
        entries.enter(_AIOSMTPLIB, partial(race.aiosmtplib, one), 1000 * scale)
        every = partial(race.ours, one._replace(mode="send_all"))
        entries.enter("smtp_async send_all", every, 4000 * scale)
        entries.enter(_OURS + ", 10 callers", partial(race.ours, one._replace(callers=10)), 4000 * scale)
        entries.enter(_FLOOR, partial(race.floor, one), 6000 * scale)
        lone = _FLOOR + ", not pipelined across messages"
        entries.enter(lone, partial(race.floor, one._replace(mode="alone")), 4000 * scale)
        entries.run(rounds)
    goals = [
        Goal(
            "1 connection, send_all: × aiosmtplib",
            entries.ratio("smtp_async send_all", _AIOSMTPLIB, _rate),
            4.5,
        ),
        Goal("1 connection, one caller: × aiosmtplib", entries.ratio(alone, _AIOSMTPLIB, _rate), 1.9),
    ]
    return _table("1 connection, 1 KiB", entries), goals


def _smtp_source(task: Task) -> Command:
    source = program("smtp-source")
    words = [str(source), "-d", "-s", "10", "-l", "1024", "-f", SENDER, "-t", RECIPIENT]
    return Command(lambda count: [*words, "-m", str(count), f"{task.host}:{task.port}"])


def _table(title: str, entries: Race) -> Table:
    header = (
        "sender",
        "msg/s",
        "CPU µs",
        "user",
        "system",
        "rate × aiosmtplib",
        "CPU × aiosmtplib",
        "CPU × floor",
    )
    rows: list[tuple[str, ...]] = []
    for name in entries.results:
        rows.append(
            (
                name,
                shown(entries.value(name, _rate), ".0f"),
                shown(entries.value(name, _cpu), ".1f"),
                shown(entries.value(name, lambda run: run.user / run.count * 1e6), ".1f"),
                shown(entries.value(name, lambda run: run.system / run.count * 1e6), ".1f"),
                shown(entries.ratio(name, _AIOSMTPLIB, _rate)),
                shown(entries.ratio(name, _AIOSMTPLIB, _cpu), ".3f"),
                shown(entries.ratio(name, _FLOOR, _cpu)),
            )
        )
    rows += [(f"{name}: absent, {reason}", *["–"] * 7) for name, reason in entries.absent.items()]
    return Table(title, header, rows)


def _rate(run: race.Run) -> float:
    return run.rate


def _cpu(run: race.Run) -> float:
    return run.cpu
