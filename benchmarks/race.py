"""Contestants in processes of their own, interleaved rounds, ratios of each round, medians of these.

A machine is slower in one minute than in the next. Therefore every round has each contestant once, one after the
other, and a ratio is made of two neighbours; the median of the rounds' ratios is what is shown.
"""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from benchmarks import rivals
from benchmarks.rivals import ROOT, Unavailable
from benchmarks.sender import Task

HERE = Path(__file__).resolve().parent
SENDER, RECIPIENT = "ann@example.com", "bob@lab.test"


def message(size: int = 1024) -> str:
    """Return a message of `size` octets with CRLF line ends, in base64."""
    head = (
        f"Date: Mon, 01 Jan 2024 00:00:00 +0000\r\nFrom: {SENDER}\r\nTo: {RECIPIENT}\r\n"
        "Subject: A benchmark\r\nMessage-ID: <benchmark@example.com>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
    ).encode()
    line = b"The quick brown fox jumps over the lazy dog and comes back.\r\n"
    body = (line * (size // len(line) + 1))[: size - len(head) - 2].rstrip(b"\r\n")
    body += b"." * (size - len(head) - 2 - len(body))
    return base64.b64encode(head + body + b"\r\n").decode()


@dataclass(frozen=True, slots=True)
class Run:
    """One round of one contestant.

    Attributes:
        count: messages sent.
        seconds: how long that took.
        user, system: CPU seconds of the contestant's process.
        told: what else it told.
    """

    count: int
    seconds: float
    user: float
    system: float
    told: dict[str, Any]

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.count / self.seconds

    @property
    def cpu(self) -> float:
        """CPU microseconds per message."""
        return (self.user + self.system) / self.count * 1e6


class Contestant(Protocol):
    """Somebody who can send."""

    def run(self, count: int) -> Run:
        """Send `count` messages and tell what it cost."""

    def stop(self) -> None:
        """Send no more."""


class Process:
    """A contestant that speaks the protocol of `sender.py`.

    Raises:
        Unavailable: it did not start.
    """

    def __init__(self, command: Sequence[str | Path], task: Task) -> None:
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "NODE_PATH": str(rivals.NODE / "node_modules")},
            text=True,
        )
        self._ask(task._asdict())

    def run(self, count: int) -> Run:
        """Send `count` messages and tell what it cost."""
        answer = self.ask(count)
        return Run(count, answer.pop("seconds"), answer.pop("user"), answer.pop("system"), answer)

    def ask(self, count: int) -> dict[str, Any]:
        """Send a request and return the answer as it came."""
        return self._ask({"count": count})

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise Unavailable(f"{self._process.args!r} ended with {self._process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Command:
    """A contestant that is a program run anew for every round."""

    def __init__(self, command: Callable[[int], list[str]]) -> None:
        self._command = command

    def run(self, count: int) -> Run:
        """Run the program and tell what it cost."""
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(self._command(count), check=True, stdout=subprocess.DEVNULL)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        return Run(count, seconds, user, system, {})

    def stop(self) -> None:
        """Nothing runs between rounds."""


def ours(task: Task, prefix: Sequence[str] = ()) -> Process:
    """Start this library."""
    return Process([*prefix, sys.executable, HERE / "ours.py"], task)


def floor(task: Task, prefix: Sequence[str] = ()) -> Process:
    """Start the yardstick."""
    return Process([*prefix, sys.executable, HERE / "floor.py"], task)


def aiosmtplib(task: Task, prefix: Sequence[str] = ()) -> Process:
    """Start the rival aiosmtplib."""
    return Process([*prefix, rivals.python(), HERE / "rival_aiosmtplib.py"], task)


def nodemailer(task: Task, prefix: Sequence[str] = ()) -> Process:
    """Start the rival Nodemailer."""
    return Process([*prefix, rivals.node(), HERE / "rival_nodemailer.cjs"], task)


class Race:
    """Contestants that send in turns.

    Use it as a context manager: at its end every contestant is stopped.
    """

    def __init__(self) -> None:
        self.results: dict[str, list[Run]] = {}
        #: Why somebody does not take part.
        self.absent: dict[str, str] = {}
        self._entries: dict[str, tuple[Contestant, int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for contestant, _, _ in self._entries.values():
            contestant.stop()

    def enter(self, name: str, start: Callable[[], Contestant], count: int, warmup: int = 0) -> None:
        """Start a contestant that sends `count` messages a round; who cannot be had is noted as absent.

        Args:
            name: how it is called in the table.
            start: starts it.
            count: messages per round.
            warmup: messages before every round that are not measured.
        """
        try:
            self._entries[name] = start(), count, warmup
        except Unavailable as error:
            self.absent[name] = str(error)
            return
        self.results[name] = []

    def run(self, rounds: int) -> None:
        """Let everybody send once per round."""
        for number in range(rounds):
            for name, (contestant, count, warmup) in self._entries.items():
                if warmup:
                    contestant.run(warmup)
                self.results[name].append(contestant.run(count))
            print(f"  round {number + 1} of {rounds}", file=sys.stderr, flush=True)

    def value(self, name: str, figure: Callable[[Run], float]) -> float | None:
        """Return the median of a figure."""
        return median(map(figure, self.results[name])) if self.results.get(name) else None

    def ratio(self, name: str, rival: str, figure: Callable[[Run], float]) -> float | None:
        """Return the median of the rounds' ratios, None if one of the two is absent."""
        pairs = list(zip(self.results.get(name, []), self.results.get(rival, []), strict=False))
        return median([figure(one) / figure(other) for one, other in pairs]) if pairs else None


# --- tables ---------------------------------------------------------------------------------------------------


class Goal(NamedTuple):
    """What was to be reached, and what was.

    Attributes:
        what: the figure in words.
        reached: what was measured; None where it could not be.
        bound: what it must be.
        at_most: the bound is an upper one.
    """

    what: str
    reached: float | None
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Was it reached?"""
        if self.reached is None:
            return None
        return self.reached <= self.bound if self.at_most else self.reached >= self.bound


class Table(NamedTuple):
    """Rows under a header, everything as text."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Answer(NamedTuple):
    """What a benchmark found."""

    tables: list[Table]
    goals: list[Goal]
    notes: list[str]


def shown(value: float | None, form: str = ".2f") -> str:
    """Return a figure as text, a dash for one that could not be measured."""
    return "–" if value is None else format(value, form)


def markdown(answer: Answer) -> str:
    """Write an answer as Markdown that reads well in a terminal, too."""
    blocks = []
    for table in answer.tables:
        blocks.append(f"### {table.title}\n\n{_grid(table.header, table.rows)}")
    if answer.goals:
        rows = [
            (
                goal.what,
                f"{'≤' if goal.at_most else '≥'} {goal.bound:g}",
                shown(goal.reached, ".3g"),
                {True: "yes", False: "**no**", None: "not measured"}[goal.met],
            )
            for goal in answer.goals
        ]
        blocks.append("### Goals\n\n" + _grid(("figure", "goal", "measured", "reached"), rows))
    if answer.notes:
        blocks.append("\n".join(f"- {note}" for note in answer.notes))
    return "\n\n".join(blocks)


def _grid(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    columns = list(zip(*rows, strict=True))
    # The first column holds names, also where one begins with a number.
    numbers = [False] + [all(re.match(r"[\d–]", cell) for cell in column) for column in columns[1:]]
    rule = [
        "-" * (width - 1) + (":" if number else "-") for width, number in zip(widths, numbers, strict=True)
    ]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(cells, widths, numbers, strict=True)
        ]
        return "| " + " | ".join(aligned) + " |"

    return "\n".join([line(header), line(rule), *map(line, rows)])
