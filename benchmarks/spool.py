"""What a spool costs: against its bare system calls in a loop beside it, and against sending without a spool.

Bare is the protocol's own sequence and nothing else: make, write, reserve, fsync, close, link, unlink, fsync of the
directory for a message that is put; open, lock, rename, mark, fsync, unlink, fsync of the directory for one that is
delivered. Everything is on one file system, the one of the temporary directory (TMPDIR).
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import gc
import itertools
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from operator import truediv
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import race
from benchmarks.race import Answer, Goal, Table
from benchmarks.servers import sink
from smtp_async import (
    NOBODY,
    ClientOptions,
    Envelope,
    PoolLimits,
    QueueProcessor,
    Raw,
    Security,
    SendOptions,
    SMTPClient,
)
from smtp_async.model.content import Content
from smtp_async.processor import Marking, ProcessorOptions
from smtp_async.spool.directory.batching import Threads
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.directory.syscalls import SystemCalls
from smtp_async.spool.record import encode_header
from smtp_async.spool.submission import Submission, submission

_MIB = 2**20
_TASKS = 50
#: Connections of the client, and threads of the bare calls.
CONNECTIONS = 10


def run(*, quick: bool = False) -> Answer:
    """Measure putting, delivering, and a backlog.

    Raises:
        Unavailable: there is no smtp-sink.
    """
    put, goals = asyncio.run(_putting(rounds=5 if quick else 25, each=60 if quick else 120))
    with sink() as server:
        drain = _Drain(server.host, server.port, 2_000 if quick else 10_000)
        delivered, more = asyncio.run(drain.race(rounds=3))
    waiting, most = _backlog(20_000 if quick else 100_000)
    return Answer([put, delivered, waiting], goals + more + most, [])


# --- putting -------------------------------------------------------------------------------------------------


async def _putting(*, rounds: int, each: int) -> tuple[Table, list[Goal]]:
    """One task, and fifty at once, each against bare calls just before and just after."""
    data = base64.b64decode(race.message())
    first = await job(data)
    bare, handed, one, many = list[float](), list[float](), list[float](), list[float]()
    ones, manies, least = list[float](), list[float](), list[float]()
    with directory() as path:
        for number in range(rounds):
            # Fresh directories, and none of their files is removed before the end: a file system may pass over what it
            # freed a moment ago, file by file, and that would be counted as somebody's cost.
            spool_path = path / f"{number}"
            put = Bare(path / f"{number}-bare", first).put
            async with DirectorySpool(spool_path, create=True) as spool:
                bare.append(_rate(each, put))
                one.append(await _tasks(spool, data, 1, each))
                bare.append(_rate(each, put))
                many.append(await _tasks(spool, data, _TASKS, 4 * each))
                bare.append(_rate(each, put))
                handed.append(await _handed_over(spool._threads, put, each))
                bare.append(_rate(each, put))
            ones.append(one[-1] / _mean(bare[-4:-2]))
            manies.append(many[-1] / _mean(bare[-3:-1]))
            least.append(handed[-1] / _mean(bare[-2:]))
            os.sync()
            gc.collect()
    rows = [
        ("bare system calls, in a loop", f"{median(bare):.0f}", "1.00"),
        ("bare system calls, handed to a thread", f"{median(handed):.0f}", f"{median(least):.2f}"),
        ("put, one task", f"{median(one):.0f}", f"{median(ones):.2f}"),
        (f"put, {_TASKS} tasks", f"{median(many):.0f}", f"{median(manies):.2f}"),
    ]
    goals = [
        Goal(
            "put, one task: × bare system calls handed to a thread", median(map(truediv, ones, least)), 0.85
        ),
        Goal(f"put, {_TASKS} tasks: × bare system calls", median(manies), 2.0),
    ]
    return Table("put on a directory, 1 KiB, fsync on", ("", "messages/s", "× bare"), rows), goals


async def job(data: bytes) -> Submission:
    """Return a message as it is stored."""
    return await submission(data, race.SENDER, [race.RECIPIENT])


async def _tasks(spool: DirectorySpool, data: bytes, tasks: int, count: int) -> float:
    async def caller() -> None:
        for _ in range(count // tasks):
            await spool.put(data, sender=race.SENDER, recipients=[race.RECIPIENT])

    started = time.perf_counter()
    await asyncio.gather(*[caller() for _ in range(tasks)])
    return count // tasks * tasks / (time.perf_counter() - started)


async def _handed_over(threads: Threads, put: Callable[[], str], count: int) -> float:
    """The least that an event loop could pay: nothing but the system calls, where they do not hold it up."""
    started = time.perf_counter()
    for _ in range(count):
        await threads.run(put)
    return count / (time.perf_counter() - started)


class Bare:
    """The system calls of the protocol, in the order of its steps, for one message after another."""

    def __init__(self, path: Path, job: Submission, *, durable: bool = True) -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        (path / "tmp").mkdir(mode=0o700, exist_ok=True)
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._data = encode_header(job, "x" * 52) + job.body
        self._syscalls = SystemCalls(self._root)
        self._durable = durable

    def put(self) -> str:
        """E1 to E8."""
        root, data = self._root, self._data
        name = f"{time.time_ns()}-{secrets.token_hex(16)}"
        tmp = f"tmp/{name}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(tmp, flags, 0o600, dir_fd=root)
        os.write(fd, data)
        if self._durable:
            self._syscalls.reserve("E3", fd, len(data), 4352)
            os.fsync(fd)
        os.close(fd)
        os.link(tmp, f"{name}.queued", src_dir_fd=root, dst_dir_fd=root)
        os.unlink(tmp, dir_fd=root)
        if self._durable:
            os.fsync(root)
        return name

    def deliver(self, name: str) -> None:
        """C1 to C5, D1, S1 and S2."""
        self.end(name, self.begin(name))

    def begin(self, name: str) -> int:
        """C1 to C5 and D1."""
        root = self._root
        queued, sending = f"{name}.queued", f"{name}.sending"
        fd = os.open(queued, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fstat(fd)
        os.stat(queued, dir_fd=root, follow_symlinks=False)
        os.pread(fd, 65536, 0)
        os.rename(queued, sending, src_dir_fd=root, dst_dir_fd=root)
        os.write(fd, b'\n00000000 {"r":"eod","n":1,"at":0,"rcpts":[0]}\n')
        if self._durable:
            os.fsync(fd)
        return fd

    def end(self, name: str, fd: int) -> None:
        """S1 and S2."""
        os.unlink(f"{name}.sending", dir_fd=self._root)
        if self._durable:
            os.fsync(self._root)
        os.close(fd)


# --- delivering ----------------------------------------------------------------------------------------------


class _Drain:
    """A processor with ten connections, against its disk and against `send_all`."""

    def __init__(self, host: str, port: int, count: int) -> None:
        options = ClientOptions(
            pool=PoolLimits(max_connections=CONNECTIONS),
            hello="client.example",
            send=SendOptions(must_accept=NOBODY),
        )
        self._client = SMTPClient(host, port, security=Security.PLAINTEXT, options=options)
        self._data = base64.b64decode(race.message())
        self._count = count

    async def race(self, *, rounds: int) -> tuple[Table, list[Goal]]:
        """Every round has each contestant once; the ratios are made of neighbours."""
        bare, loop, durable = list[float](), list[float](), list[float]()
        plain, raw, between = list[float](), list[float](), list[float]()
        fast: dict[Marking, list[float]] = {"each": [], "claim": []}
        async with self._client:
            await self._send_all(200, Prepared(self._data))
            for _ in range(rounds):
                loop.append(await asyncio.to_thread(self._bare, 1))
                bare.append(await asyncio.to_thread(self._bare, CONNECTIONS))
                durable.append(await self._drain(durable=True))
                for marking, rates in fast.items():
                    plain.append(await self._send_all(self._count, Prepared(self._data)))
                    rates.append(await self._drain(durable=False, marking=marking))
                raw.append(await self._send_all(self._count, self._raw()))
                between.append(await self._send_all_and_bare())
        ratios = {
            "each": median(map(truediv, fast["each"], plain[::2])),
            "claim": median(map(truediv, fast["claim"], plain[1::2])),
            "raw": median(map(truediv, raw, plain[1::2])),
            "between": median(map(truediv, between, plain[1::2])),
            "durable": median(map(truediv, durable, bare)),
            "loop": median(map(truediv, loop, bare)),
        }
        rows = [
            (f"bare system calls, {CONNECTIONS} threads", f"{median(bare):.0f}", "1.00", ""),
            ("bare system calls, in a loop", f"{median(loop):.0f}", f"{ratios['loop']:.2f}", ""),
            ("drain", f"{median(durable):.0f}", f"{ratios['durable']:.2f}", ""),
            ("send_all, what is ready to be sent", f"{median(plain):.0f}", "", "1.00"),
            ("send_all, Raw", f"{median(raw):.0f}", "", f"{ratios['raw']:.2f}"),
            (
                "send_all, bare system calls without fsync in its loop",
                f"{median(between):.0f}",
                "",
                f"{ratios['between']:.2f}",
            ),
            ("drain, durable=False", f"{median(fast['each']):.0f}", "", f"{ratios['each']:.2f}"),
            (
                'drain, durable=False, marking="claim"',
                f"{median(fast['claim']):.0f}",
                "",
                f"{ratios['claim']:.2f}",
            ),
        ]
        best = max(ratios["each"], ratios["claim"])
        goals = [
            Goal(f"drain: × bare system calls in {CONNECTIONS} threads", ratios["durable"], 0.7),
            Goal(
                "drain, durable=False: × send_all with the bare calls in its loop",
                best / ratios["between"],
                0.8,
            ),
        ]
        title = f"{self._count:,} queued messages of 1 KiB to smtp-sink, {CONNECTIONS} connections"
        return Table(title, ("", "messages/s", "× bare", "× send_all"), rows), goals

    async def _drain(self, *, durable: bool, marking: Marking = "each") -> float:
        with directory() as path:
            await fill(path, self._count, durable=False)
            if durable:
                # What waits in a durable spool has been on the disk for a while.
                await asyncio.to_thread(os.sync)
            async with DirectorySpool(path, durable=durable) as spool:
                processor = QueueProcessor(spool, self._client, options=ProcessorOptions(marking=marking))
                gc.collect()
                started = time.perf_counter()
                await processor.run_once()
                seconds = time.perf_counter() - started
                assert processor.statistics().sent == self._count, processor
        return self._count / seconds

    def _bare(self, threads: int) -> float:
        with directory() as path:
            bare = Bare(path / "bare", asyncio.run(job(self._data)))
            names = [bare.put() for _ in range(min(self._count, 2000))]
            os.sync()
            started = time.perf_counter()
            in_threads(bare.deliver, names, threads=threads)
            return len(names) / (time.perf_counter() - started)

    async def _send_all(self, count: int, mails: Any) -> float:
        gc.collect()
        started = time.perf_counter()
        accepted = 0
        async for _, receipt in self._client.send_all(itertools.repeat(mails, count)):
            accepted += bool(receipt.accepted)
        assert accepted == count, accepted
        return count / (time.perf_counter() - started)

    async def _send_all_and_bare(self) -> float:
        """The least that a queue without fsync could cost: nothing but its system calls, in the loop of `send_all`."""
        with directory() as path:
            bare = Bare(path / "bare", await job(self._data), durable=False)
            names = [bare.put() for _ in range(self._count)]
            gc.collect()
            started = time.perf_counter()
            accepted = 0
            mails = (Opened(self._data, name, bare.begin(name)) for name in names)
            async for mail, receipt in self._client.send_all(mails):
                bare.end(mail.name, mail.fd)
                accepted += bool(receipt.accepted)
            assert accepted == self._count, accepted
            return self._count / (time.perf_counter() - started)

    def _raw(self) -> Raw:
        return Raw(self._data, race.SENDER, [race.RECIPIENT])


class Prepared:
    """A mail whose envelope and content are ready."""

    def __init__(self, data: bytes) -> None:
        self._envelope = Envelope(race.SENDER, [race.RECIPIENT])
        self._content = Content.of_bytes(data)

    def envelope(self) -> Envelope:
        """Return the envelope, the same for every message."""
        return self._envelope

    def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
        """Return the content, the same for every message."""
        return self._content


class Opened(Prepared):
    """A mail and the file that it stands for."""

    def __init__(self, data: bytes, name: str, fd: int) -> None:
        super().__init__(data)
        self.name = name
        self.fd = fd


# --- a backlog -----------------------------------------------------------------------------------------------


def _backlog(count: int) -> tuple[Table, list[Goal]]:
    """A process that has seen nothing yet makes its first claim."""
    with directory() as path:
        asyncio.run(fill(path, count, durable=False))
        program = [sys.executable, "-m", "benchmarks.spool", str(path)]
        told = [
            subprocess.run(program, capture_output=True, text=True, check=True, cwd=race.HERE.parent).stdout
            for _ in range(3)
        ]
    seconds = [float(line.split()[0]) for line in told]
    memory = [int(line.split()[1]) / _MIB for line in told]
    rows = [(f"{count:,}", f"{median(seconds):.2f}", f"{median(memory):.0f}")]
    goals = [
        Goal(f"first claim of {count:,} queued files, seconds", median(seconds), 1.0, at_most=True),
        Goal(f"memory with {count:,} queued files, MiB", median(memory), 100.0, at_most=True),
    ]
    return Table("a backlog", ("queued files", "first claim, s", "memory, MiB"), rows), goals


async def fill(path: Path, count: int, *, durable: bool) -> None:
    """Put messages."""
    data = base64.b64decode(race.message())
    async with DirectorySpool(path, durable=durable) as spool:
        await _tasks(spool, data, _TASKS, count)


async def _first_claim(path: str) -> None:
    async with DirectorySpool(path, durable=False) as spool:
        started = time.perf_counter()
        leases = await spool.claim(10)
        seconds = time.perf_counter() - started
        assert len(leases) == 10
        for lease in leases:
            await lease.release()
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


# --- for all of them -----------------------------------------------------------------------------------------


@contextmanager
def directory() -> Iterator[Path]:
    """Return an empty directory for a spool, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="spool-") as directory:
        path = Path(directory) / "spool"
        path.mkdir(mode=0o700)
        yield path


def in_threads(call: Callable[[str], None], names: list[str], *, threads: int = CONNECTIONS) -> None:
    """Make a call for each name, in as many threads."""
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(call, names):
            pass


def _rate(count: int, call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return count / (time.perf_counter() - started)


def _mean(rates: list[float]) -> float:
    return sum(rates) / len(rates)


if __name__ == "__main__":
    asyncio.run(_first_claim(sys.argv[1]))
