"""What TLS costs: handshakes, messages of 1 KiB and of 100 MiB, the validation of a chain, and idle sessions.

The server, of 127.0.0.1 and with TLS from the first byte, is a small one in a process of its own: a handshake is the
same work for it whoever asks. Certificates are verified by every contestant; its key is RSA of 2048 bits.

Bare streams send without having looked. MAIL declares what a message holds, and a dot at the start of a line must be
doubled, so each octet is looked at before it is sent: "after one scan" is what bare streams do that look, too.
"""

from __future__ import annotations

import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trustme

from benchmarks import idle, race, rivals
from benchmarks.race import HERE, Answer, Goal, Process, Race, Run, Table, shown
from benchmarks.sender import Task
from smtp_async import TrustOptions
from smtp_async.tls.chain_validation import validate_chain
from smtp_async.tls.paths import Anchors, forget_certificates
from tests.servers.pki import Pki

_FULL, _RESUMED, _RIVAL = "smtp_async, full handshake", "smtp_async, resumed", "aiosmtplib"
_PINNED = "smtp_async, full handshake, pinned"
_OURS, _STREAMS = "smtp_async", "asyncio streams"
_SCANNED = "asyncio streams, after one scan"


def run(*, quick: bool = False) -> Answer:
    """Run the races, one after the other."""
    rounds = 1 if quick else 7
    with _server() as (port, authority):
        task = Task("127.0.0.1", port, connections=1, callers=1)
        answers = [
            _handshakes(task, authority, 20 if quick else 200, rounds),
            _messages(task, authority, 500 if quick else 5000, rounds),
            _large(task, authority, rounds),
        ]
    answers.append(_validation(50 if quick else 1000))
    tables, goals = zip(*answers, strict=True)
    weights = idle.weigh("tls", 200 if quick else 1000, 1 if quick else 3)
    more = weights["ours"] - weights["bare"]
    idle_goal = Goal("idle session: KiB more than a bare TLS stream", more, 15, at_most=True)
    return Answer(list(tables), [goal for some in goals for goal in some] + [idle_goal], [])


def _handshakes(task: Task, authority: Path, count: int, rounds: int) -> tuple[Table, list[Goal]]:
    with Race() as entries:
        entries.enter(_FULL, partial(_ours, task._replace(mode="full"), authority), count)
        entries.enter(_PINNED, partial(_ours, task._replace(mode="pinned"), authority), count)
        entries.enter(_RESUMED, partial(_ours, task._replace(mode="resumed"), authority), count)
        entries.enter(_RIVAL, partial(_theirs, task._replace(mode="full"), authority), count)
        entries.run(rounds)
    goals = [
        Goal("full handshake and EHLO: rate, × aiosmtplib", entries.ratio(_FULL, _RIVAL, _rate), 1.0),
        Goal("resumed handshake: rate, × our full one", entries.ratio(_RESUMED, _FULL, _rate), 1.5),
        Goal("with pins: rate, × without", entries.ratio(_PINNED, _FULL, _rate), 0.9),
    ]
    return _table("TCP, TLS and EHLO, one connection after the other", "connections", entries), goals


def _messages(task: Task, authority: Path, count: int, rounds: int) -> tuple[Table, list[Goal]]:
    task = task._replace(mode="raw", connections=10, callers=100, message=race.message())
    with Race() as entries:
        entries.enter(_OURS, partial(_ours, task, authority), count, warmup=100)
        entries.enter(_RIVAL, partial(_theirs, task, authority), count, warmup=100)
        entries.run(rounds)
    goals = [
        Goal(
            "send_raw, 1 KiB on 10 connections: rate, × aiosmtplib", entries.ratio(_OURS, _RIVAL, _rate), 3.0
        )
    ]
    return _table("Messages of 1 KiB on 10 connections", "messages", entries), goals


def _large(task: Task, authority: Path, rounds: int) -> tuple[Table, list[Goal]]:
    task = task._replace(mode="large")
    with Race() as entries:
        entries.enter(_OURS, partial(_ours, task, authority), 1)
        entries.enter(_STREAMS, partial(_streams, task, authority), 1)
        entries.enter(_SCANNED, partial(_streams, task._replace(mode="scanned"), authority), 1)
        entries.run(rounds)
    goals = [
        Goal("100 MiB: rate, × bare streams", entries.ratio(_OURS, _STREAMS, _rate), 0.9),
        Goal("the same, × bare streams after one scan", entries.ratio(_OURS, _SCANNED, _rate), 0.9),
    ]
    return _table("One message of 100 MiB after the other", "messages", entries), goals


def _validation(count: int) -> tuple[Table, list[Goal]]:
    """Judge a chain of three again and again, in this thread, with and without what is remembered of it."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    leaf = authority.create_child_ca(key_type=trustme.KeyType.RSA).issue_cert(
        "localhost", key_type=trustme.KeyType.RSA
    )
    chain = [ssl.PEM_cert_to_DER_cert(one.bytes().decode()) for one in leaf.cert_chain_pems]
    anchors = Anchors([ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode())])
    judge = partial(validate_chain, chain, "localhost", trust=TrustOptions(), anchors=anchors)
    assert len(judge().path) == 3 and judge().verified

    def anew() -> None:
        forget_certificates()
        judge()

    times = {"first": _median(anew, count), "again": _median(judge, count)}
    rows = [(name, str(count), f"{1000 / spent:.0f}", f"{spent:.2f}") for name, spent in times.items()]
    header = ("a chain of three, RSA of 2048 bits", "chains", "chains/s", "ms each")
    goal = Goal("validating a chain of three: ms", times["first"], 3.0, at_most=True)
    return Table("Validation of a chain, in a thread of the client", header, rows), [goal]


def _median(step: Callable[[], object], count: int) -> float:
    """Return how many milliseconds a step takes."""
    spent = []
    for _ in range(count):
        began = time.perf_counter()
        step()
        spent.append((time.perf_counter() - began) * 1000)
    return statistics.median(spent)


def _table(title: str, what: str, entries: Race) -> Table:
    header = ("client", what, f"{what}/s", "CPU ms each")
    rows: list[tuple[str, ...]] = [
        (
            name,
            str(entries.results[name][0].count),
            shown(entries.value(name, _rate), ".1f"),
            shown(entries.value(name, lambda run: run.cpu / 1000), ".2f"),
        )
        for name in entries.results
    ]
    rows += [(f"{name}: absent, {reason}", *["–"] * 3) for name, reason in entries.absent.items()]
    return Table(title, header, rows)


def _rate(run: Run) -> float:
    return run.rate


def _ours(task: Task, authority: Path) -> Process:
    return Process([sys.executable, HERE / "tls_ours.py", authority], task)


def _theirs(task: Task, authority: Path) -> Process:
    return Process([rivals.python(), HERE / "tls_aiosmtplib.py", authority], task)


def _streams(task: Task, authority: Path) -> Process:
    return Process([sys.executable, HERE / "tls_streams.py", authority], task)


@contextmanager
def _server() -> Iterator[tuple[int, Path]]:
    with tempfile.TemporaryDirectory() as directory:
        pki = Pki(Path(directory))
        command = [sys.executable, str(HERE / "tls_server.py"), str(pki.rsa.combined)]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert server.stdin is not None and server.stdout is not None
        try:
            yield int(server.stdout.readline()), pki.ca_file
        finally:
            server.stdin.close()
            server.wait()
            server.stdout.close()
