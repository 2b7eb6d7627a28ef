"""What a spool in PostgreSQL costs: against its own statements by asyncpg in a loop, on the same server and disk.

Bare is the statement that a put makes, and per ten messages of a drain one claim, one statement with ten marks, one
with ten deletions, followed by `send_all` of as many messages. The server has the settings of the tests, with fsync.
Several processes share the processors with the database and with the server that takes the messages: where those are
busy to the full, more processes deliver no more, and the time per message tells who needs them.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from operator import truediv
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from benchmarks import race
from benchmarks.race import Answer, Goal, Table
from benchmarks.servers import postgres, sink
from benchmarks.spool import Prepared
from smtp_async import (
    NOBODY,
    ClientOptions,
    PoolLimits,
    PostgresSpool,
    QueueProcessor,
    Security,
    SendOptions,
    SMTPClient,
)
from smtp_async.spool.postgres.rows import NewJob
from smtp_async.spool.postgres.statements import Statements
from smtp_async.spool.submission import Submission, submission

_TASKS = 50
_CONNECTIONS = 10
_WORKERS = 4
_DATA = base64.b64decode(race.message())

#: Rows of the table at each size; one in fifty is failed, one is sent.
_FILL = """
insert into {schema}.jobs (id, keyed, state, created, not_before, scheduled_at, size, header, body)
select replace(t.id, 'x', '') || n, false, case n % 50 when 0 then 'failed' when 1 then 'sent' else 'queued' end,
    n, n, 0, t.size, replace(t.header::text, t.id, replace(t.id, 'x', '') || n)::json, t.body
from {schema}.template t, generate_series({first}, {last}) n
"""


def run(*, quick: bool = False) -> Answer:
    """Measure putting, delivering by one process and by four, and the claims of a large queue.

    Raises:
        Unavailable: there is no PostgreSQL, or no smtp-sink.
    """
    with postgres() as server, sink() as target:
        bench = _Bench(server.url(), target.host, target.port, server.leader)
        answers = [
            asyncio.run(bench.putting(rounds=3 if quick else 15, each=100 if quick else 300)),
            asyncio.run(bench.draining(rounds=3, count=1_000 if quick else 5_000)),
            asyncio.run(bench.sharing(rounds=1 if quick else 3, count=2_000 if quick else 20_000)),
            asyncio.run(bench.large(100_000 if quick else 1_000_000)),
        ]
    return Answer([table for table, _ in answers], [goal for _, goals in answers for goal in goals], [])


class _Bench:
    """The benchmarks, on one server.

    Args:
        url: the database.
        host, port: where messages go.
        leader: the process of the database from which the others descend.
    """

    def __init__(self, url: str, host: str, port: int, leader: int = 0) -> None:
        self._url = url
        self._target = (host, port)
        self._leader = leader
        self._schemas = (f"bench{n}" for n in itertools.count(1))

    @asynccontextmanager
    async def _spool(self) -> AsyncIterator[tuple[PostgresSpool, Statements, asyncpg.Connection]]:
        """A spool with tables of its own, its statements, and a connection for bare ones."""
        schema = next(self._schemas)
        connection = await asyncpg.connect(self._url)
        try:
            async with PostgresSpool(self._url, schema=schema) as spool:
                await spool.create_schema()
                yield spool, Statements(schema), connection
            await connection.execute(f"drop schema {schema} cascade")
        finally:
            await connection.close()

    def _client(self) -> SMTPClient:
        options = ClientOptions(
            pool=PoolLimits(max_connections=_CONNECTIONS),
            hello="client.example",
            send=SendOptions(must_accept=NOBODY),
        )
        return SMTPClient(*self._target, security=Security.PLAINTEXT, options=options)

    # --- putting ---

    async def putting(self, *, rounds: int, each: int) -> tuple[Table, list[Goal]]:
        """One task, and fifty at once, each against the statement in a loop."""
        job = await submission(_DATA, race.SENDER, [race.RECIPIENT])
        bare, one, many = list[float](), list[float](), list[float]()
        batches, made = list[float](), list[float]()
        async with self._spool() as (spool, sql, connection):
            for _ in range(rounds + 1):
                bare.append(await _rate(each, lambda: _insert(connection, sql, job, 1)))
                one.append(await _tasks(spool, 1, each))
                batches.append(
                    _TASKS * await _rate(each // 10, lambda: _insert(connection, sql, job, _TASKS))
                )
                made.append(_TASKS * await _rate(each // 10, lambda: _make_and_insert(connection, sql)))
                many.append(await _tasks(spool, _TASKS, each * 5))
        # The first round prepares the statements.
        bare, one, batches, made, many = bare[1:], one[1:], batches[1:], made[1:], many[1:]
        ones, manies = median(map(truediv, one, bare)), median(map(truediv, many, batches))
        limit = median(map(truediv, made, batches))
        rows = [
            ("bare statement, in a loop", f"{median(bare):.0f}", "1.00"),
            ("put, one task", f"{median(one):.0f}", f"{ones:.2f}"),
            (f"bare statement, {_TASKS} messages each", f"{median(batches):.0f}", "1.00"),
            ("the same, of messages checked and rendered as by put", f"{median(made):.0f}", f"{limit:.2f}"),
            (f"put, {_TASKS} tasks", f"{median(many):.0f}", f"{manies:.2f}"),
        ]
        goals = [
            Goal("put, one task: × bare statement", ones, 0.8),
            Goal(f"put, {_TASKS} tasks: × bare statement for {_TASKS}", manies, 0.8),
        ]
        return Table("put in PostgreSQL, 1 KiB, fsync on", ("", "messages/s", "× bare"), rows), goals

    # --- delivering ---

    async def draining(self, *, rounds: int, count: int) -> tuple[Table, list[Goal]]:
        """One processor, against the bare statements and then `send_all`."""
        statements, plain, both, ours = list[float](), list[float](), list[float](), list[float]()
        async with self._client() as client:
            await _send_all(client, 200)
            for _ in range(rounds):
                async with self._spool() as (spool, sql, connection):
                    await _fill(spool, count)
                    statements.append(await _seconds(lambda: _bare_drain(connection, sql)))  # noqa: B023
                    plain.append(await _seconds(lambda: _send_all(client, count)))
                    both.append(statements[-1] + plain[-1])
                    await _fill(spool, count)
                    processor = QueueProcessor(spool, client)
                    ours.append(await _seconds(processor.run_once))
                    assert processor.statistics().sent == count
        ratio = median(map(truediv, both, ours))
        rows = [
            ("bare statements, in a loop", f"{count / median(statements):.0f}", ""),
            ("send_all", f"{count / median(plain):.0f}", ""),
            ("one after the other", f"{count / median(both):.0f}", "1.00"),
            ("drain", f"{count / median(ours):.0f}", f"{ratio:.2f}"),
        ]
        title = f"{count:,} queued messages of 1 KiB to smtp-sink, {_CONNECTIONS} connections"
        goals = [Goal("drain: × bare statements and send_all", ratio, 0.7)]
        return Table(title, ("", "messages/s", "× both"), rows), goals

    async def sharing(self, *, rounds: int, count: int) -> tuple[Table, list[Goal]]:
        """Four processes, against one."""
        found: dict[int, list[tuple[float, ...]]] = {1: [], _WORKERS: []}
        for _ in range(rounds):
            for workers, figures in found.items():
                figures.append(await self._shared(workers, count))
        ratio = median([many[0] / one[0] for many, one in zip(found[_WORKERS], found[1], strict=True)])
        rows = []
        for workers, figures in found.items():
            rate, busy, own, database = map(median, zip(*figures, strict=True))
            times = f"{rate:.0f}" if workers == 1 else f"{rate:.0f}, {ratio:.2f} ×"
            rows.append((f"{workers}", times, f"{100 * busy:.0f} %", f"{own:.0f}", f"{database:.0f}"))
        goals = [Goal(f"{_WORKERS} processes: × one process", ratio, 2.5)]
        title = f"{count:,} messages, delivered by several processes"
        header = ("processes", "messages/s", "processors busy", "their µs per message", "PostgreSQL's")
        return Table(title, header, rows), goals

    async def _shared(self, workers: int, count: int) -> tuple[float, ...]:
        """Let so many processes deliver.

        Returns:
            The rate, the share of the processors that were busy, and the microseconds of processor time per message
            of these processes and of PostgreSQL.
        """
        async with self._spool() as (spool, sql, connection):
            await _fill(spool, count)
            await connection.execute(f"update {sql.schema}.jobs set held = true")
            await connection.execute(f"vacuum analyze {sql.schema}.jobs")
            program = [sys.executable, "-m", "benchmarks.postgres", self._url, sql.schema]
            processes = [
                await asyncio.create_subprocess_exec(
                    *program, *map(str, self._target), stdout=subprocess.PIPE, cwd=race.HERE.parent
                )
                for _ in range(workers)
            ]
            for process in processes:
                assert process.stdout is not None
                await process.stdout.readline()
            pids = [process.pid for process in processes]
            own, database = sum(map(_processor_seconds, pids)), _processor_seconds(self._leader)
            before, started = _processors(), time.perf_counter()
            await connection.execute(f"update {sql.schema}.jobs set held = false")
            left = f"select exists (select from {sql.schema}.jobs)"
            for pause in itertools.repeat(0.02):
                if not await connection.fetchval(left):
                    break
                await asyncio.sleep(pause)
            seconds, after = time.perf_counter() - started, _processors()
            own = sum(map(_processor_seconds, pids)) - own
            database = _processor_seconds(self._leader) - database
            for process in processes:
                process.terminate()
                await process.wait()
        idle, total = after[0] - before[0], after[1] - before[1]
        return count / seconds, 1 - idle / total, 1e6 * own / count, 1e6 * database / count

    # --- a large queue ---

    async def large(self, most: int) -> tuple[Table, list[Goal]]:
        """The statements of a queue of a thousand rows, and of a million."""
        rows, claims = [], dict[int, float]()

        async def seconds_of(statement: str) -> float:
            return await _seconds(lambda: connection.execute(statement, timeout=600))

        async with self._spool() as (spool, sql, connection):
            id = await spool.put(_DATA, sender=race.SENDER, recipients=[race.RECIPIENT])
            await connection.execute(
                f"create table {sql.schema}.template as select id || 'x' as id, size, header, body "
                f"from {sql.schema}.jobs where id = $1",
                id,
            )
            await connection.execute(
                f"update {sql.schema}.template set header = replace(header::text, $1, $1 || 'x')::json", id
            )
            first = 1
            for size in (1_000, most):
                fill = _FILL.format(schema=sql.schema, first=first, last=size)
                await connection.execute(fill, timeout=600)
                await connection.execute(f"vacuum analyze {sql.schema}.jobs", timeout=600)
                first = size + 1
                claims[size] = await _claim_and_release(spool)
                count = await _seconds(spool.statistics)
                async with connection.transaction():
                    removed = await seconds_of(f"delete from {sql.schema}.jobs where state = 'sent'")
                vacuum = await seconds_of(f"vacuum {sql.schema}.jobs")
                cells = (claims[size], count, removed, vacuum)
                rows.append((f"{size:,}", *(f"{1000 * seconds:.1f}" for seconds in cells)))
        ratio = claims[most] / claims[1_000]
        header = ("rows", "claim of 10, ms", "statistics, ms", "delete the sent, ms", "vacuum, ms")
        return Table("a large queue", header, rows), [
            Goal(f"claim at {most:,} rows: × that at 1,000", ratio, 2.0, at_most=True)
        ]


# --- parts ---------------------------------------------------------------------------------------------------


async def _insert(connection: asyncpg.Connection, sql: Statements, job: Submission, count: int) -> None:
    await _insert_all(connection, sql, [job] * count)


async def _make_and_insert(connection: asyncpg.Connection, sql: Statements) -> None:
    """Insert messages that are made of bytes as `put` makes them, first all of them made, then all of them stored."""
    jobs = [await submission(_DATA, race.SENDER, [race.RECIPIENT]) for _ in range(_TASKS)]
    await _insert_all(connection, sql, jobs)


async def _insert_all(connection: asyncpg.Connection, sql: Statements, jobs: list[Submission]) -> None:
    rows = [NewJob.of(job) for job in jobs]
    await connection.fetch(sql.put, *map(list, zip(*rows, strict=True)), 60.0)


async def _tasks(spool: PostgresSpool, tasks: int, count: int) -> float:
    async def caller() -> None:
        for _ in range(count // tasks):
            await spool.put(_DATA, sender=race.SENDER, recipients=[race.RECIPIENT])

    seconds = await _seconds(lambda: asyncio.gather(*[caller() for _ in range(tasks)]))
    return count // tasks * tasks / seconds


async def _fill(spool: PostgresSpool, count: int) -> None:
    await _tasks(spool, 200, count)


async def _bare_drain(connection: asyncpg.Connection, sql: Statements) -> None:
    """Claim, mark and delete everything, ten jobs at a time."""
    none: list[list[Any]] = [[] for _ in range(8)]
    while rows := await connection.fetch(sql.claim, _CONNECTIONS, None, False, 900.0, "bench"):
        ids, tokens = [row["id"] for row in rows], [row["token"] for row in rows]
        await connection.fetch(sql.update, ids, tokens, 900.0, [], [], *none)
        await connection.fetch(sql.update, [], [], 900.0, ids, tokens, *none)


async def _send_all(client: SMTPClient, count: int) -> None:
    accepted = 0
    async for _, receipt in client.send_all(itertools.repeat(Prepared(_DATA), count)):
        accepted += bool(receipt.accepted)
    assert accepted == count, accepted


async def _claim_and_release(spool: PostgresSpool) -> float:
    """Return the median seconds of a claim of ten jobs; the first ones prepare statements and fill caches."""
    seconds = []
    for _ in range(60):
        started = time.perf_counter()
        leases = await spool.claim(10)
        seconds.append(time.perf_counter() - started)
        assert len(leases) == 10
        await asyncio.gather(*(lease.release() for lease in leases))
    return median(seconds[10:])


async def _rate(count: int, call: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    for _ in range(count):
        await call()
    return count / (time.perf_counter() - started)


async def _seconds(call: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await call()
    return time.perf_counter() - started


def _processors() -> tuple[int, int]:
    """Return the ticks that the processors were idle, and all."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _processor_seconds(pid: int) -> float:
    """Return the processor time of a process and of its children, also of those that have ended."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            # It has ended meanwhile.
            continue
        if path.parent.name == str(pid):
            ticks += sum(map(int, fields[11:15]))
        elif fields[1] == str(pid):
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


async def _work(url: str, schema: str, host: str, port: str) -> None:
    """Deliver until SIGTERM."""
    bench = _Bench(url, host, int(port))
    async with PostgresSpool(url, schema=schema, poll=0.05) as spool, bench._client() as client:
        await spool.statistics()
        print("ready", flush=True)
        await QueueProcessor(spool, client).run(signals=True)


if __name__ == "__main__":
    asyncio.run(_work(*sys.argv[1:]))
