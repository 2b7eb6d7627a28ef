"""What the processes that are to die do: put messages, deliver, change and recover them.

They log what they did to one file, each line with one system call, so that the log outlives them:

    put NUMBER ID                       `put` returned
    start ID NUMBER FLAGGED PID         a job is about to be tried
    end ID PID                          its lease has ended
    removed NUMBER                      a job is about to be deleted
    calls STEP=COUNT …                  the system calls of a process that ended by itself
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import time
from functools import partial
from typing import Any, NamedTuple

from smtp_async import ClientOptions, PoolLimits, Security, SMTPClient, Timeouts
from smtp_async.errors import SpoolFull
from smtp_async.events import JobDeferred, JobFailed, JobSent, JobStarted
from smtp_async.processor import ProcessorOptions, QueueProcessor, RetryPolicy
from smtp_async.spool.contract import Spool
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.entry import Entry, State
from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.spool.postgres.statements import Statements
from tests.spool.directory.made import Made
from tests.torture import letters
from tests.torture.deadly_database import DeadlyDatabase
from tests.torture.faults import Call, DeadlyFiles, WornFiles

#: Immediate retries and very short pauses.
BRISK = RetryPolicy(jitter=False, first=0.01, factor=1.0, pause=0.01, longest_pause=0.02)


class Spec(NamedTuple):
    """What a process is to do; every field can be written as JSON.

    Attributes:
        role: the name of a function below.
        path: the spool directory.
        url, schema: the database and the tables of the spool, if it is in a database.
        log: the file for what it did.
        numbers: the numbers of the messages to put, or to remove.
        together: the number of messages that are put at once.
        port: the port of the recorder.
        kill: when the process dies: `["call", step, number, "before" | "after"]`, `["wire", moment, count]`, or None.
        all_keyed: every message has a key.
        keep_sent, on_unknown, marking, durable: as for `QueueProcessor` and `DirectorySpool`.
        concurrency: the number of jobs that are sent at once.
        fsize: the maximum size of a file in octets, 0 without limit.
        odds: the probability that a system call fails.
    """

    role: str
    path: str
    log: str
    numbers: tuple[int, ...] = ()
    port: int = 0
    kill: tuple[Any, ...] | None = None
    all_keyed: bool = False
    keep_sent: bool = False
    on_unknown: str = "retry"
    marking: str = "each"
    durable: bool = True
    concurrency: int = 4
    fsize: int = 0
    odds: float = 0.0
    together: int = 1
    url: str = ""
    schema: str = ""


class Child:
    """A process with its role."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.log = os.open(spec.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.pid = os.getpid()
        self.made: Made | DeadlyDatabase
        if spec.fsize:
            resource.setrlimit(resource.RLIMIT_FSIZE, (spec.fsize, spec.fsize))

    def write(self, *words: object) -> None:
        """Write a line to the log."""
        os.write(self.log, (" ".join(map(str, words)) + "\n").encode())

    def spool(self) -> Spool:
        """Open the spool with the call that kills."""
        spec = self.spec
        if spec.url:
            self.made = DeadlyDatabase(spec.url, Statements(spec.schema), spec.kill)
            source: Any = self.made
            return PostgresSpool(source, schema=spec.schema, poll=0.05, lease=600.0)
        if spec.odds:
            files: Any = partial(WornFiles, odds=spec.odds)
        elif spec.kill is not None and spec.kill[0] == "call":
            _, step, number, when = spec.kill
            files = partial(DeadlyFiles, last=Call(step, number), after=when == "after")
        else:
            files = DeadlyFiles
        self.made = made = Made(files)
        return DirectorySpool(spec.path, low_water=0, poll=0.05, durable=spec.durable, syscalls=made)

    def client(self) -> SMTPClient:
        """Return a client that tells the recorder when to kill it."""
        hello = f"worker.p{self.pid}.test"
        if self.spec.kill is not None and self.spec.kill[0] == "wire":
            hello = f"kill-{self.spec.kill[1]}-{self.spec.kill[2]}.p{self.pid}.test"
        options = ClientOptions(hello=hello, pool=PoolLimits(max_connections=2), timeouts=Timeouts(send=60.0))
        return SMTPClient("127.0.0.1", self.spec.port, security=Security.PLAINTEXT, options=options)

    def processor(self, spool: Spool, client: SMTPClient) -> QueueProcessor:
        """Return a processor that logs what it starts and ends."""
        spec = self.spec
        processor = QueueProcessor(
            spool,
            client,
            concurrency=spec.concurrency,
            retry=BRISK,
            keep_sent=spec.keep_sent,
            options=ProcessorOptions(
                on_unknown=spec.on_unknown,  # type: ignore[arg-type]
                marking=spec.marking,  # type: ignore[arg-type]
                poll=0.05,
                heartbeat=0.5,
            ),
        )
        processor.on(JobStarted, self._started)
        for event in (JobSent, JobDeferred, JobFailed):
            processor.on(event, self._ended)
        return processor

    def _started(self, event: JobStarted) -> None:
        number = letters.read_address(event.recipients[0].address.addr_spec)[0] if event.recipients else -1
        self.write("start", event.id, number, int(event.flagged), self.pid)

    def _ended(self, event: JobSent | JobDeferred | JobFailed) -> None:
        self.write("end", event.id, self.pid)

    def write_calls(self) -> None:
        """Log which calls were made."""
        counts = self.made.calls.counts
        self.write("calls", *(f"{step}={count}" for step, count in counts.items()))


async def produce(child: Child) -> None:
    """Put messages."""
    spec = child.spec
    waiting = iter(spec.numbers)

    async def one_after_the_other(spool: Spool) -> None:
        for number in waiting:
            try:
                id = await spool.put(
                    letters.body(number),
                    sender=letters.SENDER,
                    recipients=letters.recipients(number),
                    key=letters.key(number, all_keyed=spec.all_keyed),
                    not_before=time.time() + 0.01 if number % 4 == 3 else None,
                )
            except SpoolFull as error:
                child.write("full", number, error.errno == errno.EFBIG)
            else:
                child.write("put", number, id)

    async with child.spool() as spool:
        await asyncio.gather(*(one_after_the_other(spool) for _ in range(spec.together)))
    child.write_calls()


async def work(child: Child) -> None:
    """Deliver until no job is pending."""
    async with child.spool() as spool, child.client() as client:
        processor = child.processor(spool, client)
        while True:
            await processor.run_once()
            left = await spool.statistics()
            if not left.queued + left.sending:
                break
            await spool.wait(0.05)
    child.write_calls()


async def toil(child: Child) -> None:
    """Deliver until SIGTERM."""
    async with child.spool() as spool, child.client() as client:
        await child.processor(spool, client).run(signals=True)
    child.write_calls()


async def recover(child: Child) -> None:
    """Recover the jobs of dead workers."""
    async with child.spool() as spool:
        await spool.recover()
    child.write_calls()


async def hand_back(child: Child) -> None:
    """Claim the due jobs and release them, every other job after its mark."""
    async with child.spool() as spool:
        for place, lease in enumerate(await spool.claim(100)):
            id = lease.entry.id
            if place % 2:
                child.write("start", id, _number(lease.entry), int(lease.entry.flagged), child.pid)
                await lease.mark_end_of_data()
            await lease.release()
            if place % 2:
                child.write("end", id, child.pid)
    child.write_calls()


async def operate(child: Child) -> None:
    """Hold, release, requeue and remove jobs as operators do."""
    async with child.spool() as spool:
        for entry in [entry async for entry in spool.list()]:
            number = _number(entry)
            if number in child.spec.numbers:
                child.write("removed", number)
                await spool.remove(entry.id)
            elif entry.state is State.FAILED:
                await spool.requeue(entry.id)
            else:
                await spool.hold(entry.id)
                await spool.release(entry.id)
    child.write_calls()


def _number(entry: Entry) -> int:
    return letters.read_address(entry.envelope.recipients[0].address.addr_spec)[0]


ROLES = {role.__name__: role for role in (produce, work, toil, recover, hand_back, operate)}


def live(spec: Spec) -> None:
    """Run a process of this role."""
    asyncio.run(ROLES[spec.role](Child(spec)))
