"""Connections that are cut, a server that crashes, fills up or becomes read-only: no mail is lost or sent twice."""

import asyncio
import os
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, cast

import asyncpg
import psycopg
import pytest

from smtp_async import PoolLimits, QueueProcessor, Security, SMTPClient
from smtp_async.client.options import ClientOptions
from smtp_async.errors import LeaseLost, SpoolError, SpoolFull
from smtp_async.events import QueuePaused, QueueResumed
from smtp_async.processor import ProcessorOptions, RetryPolicy
from smtp_async.sources import read_all
from smtp_async.spool.entry import State
from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.spool.postgres.statements import Statements
from smtp_async.testing import RecordingSink
from smtp_async.testing.contracts import LATER, QUEUED, TEXT, receipt_for
from smtp_async.testing.cutproxy import Cut, CutManner, CutProxy, Direction
from tests.lab import THOROUGH
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import eventually, execute, new_spool, schema_of
from tests.torture.deadly_database import CrashingDatabase, DeadlyDatabase

pytestmark = pytest.mark.server


def through(proxy: CutProxy, schema: str, **options: Any) -> PostgresSpool:
    """Return a spool whose connections lead through a proxy."""
    return PostgresSpool(
        f"postgresql://postgres@{proxy.host}:{proxy.port}/postgres", schema=schema, **options
    )


async def until_done(call: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat a call as processors do, until the database answers."""
    for attempt in range(10):
        try:
            return await call()
        except SpoolError:
            if attempt == 9:
                raise


class Story:
    """Everything that a process does with a spool, and what it sent."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.acknowledged: set[str] = set()
        self.steps: list[list[dict[Direction, int]]] = []

    async def tell_through(self, proxy: CutProxy, schema: str) -> None:
        """Tell it over a proxy, and keep how many octets it has carried when each step begins."""
        async with through(proxy, schema, timeout=5.0) as spool:
            await self.tell(spool, lambda: self.steps.append([link.counts for link in proxy.links]))

    async def tell(self, spool: PostgresSpool, begins: Callable[[], None]) -> None:
        """Put five messages, deliver three, defer one, release one, operate."""

        async def step(call: Callable[[], Awaitable[Any]]) -> Any:
            begins()
            return await until_done(call)

        for n in range(5):
            # Without a key it is not known whether the message was stored, so the caller does not repeat it.
            if n % 2:
                key = str(n)
                self.acknowledged.add(await step(partial(spool.put, TEXT, key=key)))
            else:
                try:
                    self.acknowledged.add(await spool.put(TEXT))
                except SpoolError as error:
                    assert "may or may not" in str(error)
        first = await step(lambda: spool.claim(1, marked=True))
        leases = first + await step(lambda: spool.claim(3))
        for n, lease in enumerate(leases):
            await step(lease.extend)
            await step(lease.mark_end_of_data)
            if n == 1:
                receipt = receipt_for(lease, LATER)
                await step(partial(lease.defer, receipt, 0.0))
            elif n == 2:
                await step(lease.release)
            else:
                self.sent[lease.entry.id] += 1
                receipt = receipt_for(lease, QUEUED)
                await step(partial(lease.settle, receipt, keep=n == 3))
        await step(spool.recover)
        await step(spool.statistics)
        for entry in [entry async for entry in spool.list(State.QUEUED)]:
            await step(partial(spool.hold, entry.id))
            await step(partial(spool.release, entry.id))
        begins()

    async def conclude(self, postgres: Postgres, schema: str) -> None:
        """Deliver what is left, from another process, and check that each message was sent exactly once."""
        async with PostgresSpool(postgres.url(), schema=schema) as spool:
            execute(postgres, f"update {schema}.jobs set lease_until = 0 where state = 'sending'")
            await spool.recover()
            while leases := await spool.claim(10):
                for lease in leases:
                    assert not lease.entry.flagged
                    self.sent[lease.entry.id] += 1
                    await lease.settle(receipt_for(lease, QUEUED))
            assert self.acknowledged <= self.sent.keys()
            assert {*self.sent.values()} == {1}


async def statements_of(postgres: Postgres, schema: str) -> list[tuple[str, int]]:
    """Tell the story once, and return its statements by name and number."""
    database = DeadlyDatabase(postgres.url(), Statements(schema), None)
    await told(database, postgres, schema)
    return [(name, number) for name, count in database.counts.items() for number in range(1, count + 1)]


async def crash_at(postgres: Postgres, schema: str, here: tuple[str, int], when: str) -> bool:
    """Tell the story, and crash the server at one statement; return whether it was reached."""

    def crash() -> None:
        postgres.crash()
        postgres.go_on()

    database = CrashingDatabase(postgres.url(), Statements(schema), ("call", *here, when), crash=crash)
    await told(database, postgres, schema)
    return database.crashed


async def told(database: DeadlyDatabase, postgres: Postgres, schema: str) -> None:
    """Tell the story from the beginning to its end, and check it."""
    execute(postgres, f"truncate {schema}.jobs, {schema}.keys")
    story, source = Story(), cast(Any, database)
    async with PostgresSpool(source, schema=schema, timeout=20.0) as spool:
        await story.tell(spool, lambda: None)
    await database.close()
    await story.conclude(postgres, schema)


async def places(postgres: Postgres, schema: str, link: int, direction: Direction) -> list[int]:
    """Tell the story once, and return after how many octets each statement begins, or each answer."""
    story = Story()
    async with CutProxy(postgres.host, postgres.port) as proxy:
        await story.tell_through(proxy, schema)
        totals = [link.counts for link in proxy.links]
    await story.conclude(postgres, schema)
    counts = sorted({step[link][direction] for step in story.steps if link < len(step)})
    return [count + number % 2 for number, count in enumerate(counts) if count < totals[link][direction]]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("link", range(4))
async def test_the_connection_is_cut_at_every_statement(
    postgres: Postgres, link: int, direction: Direction
) -> None:
    """One connection after the other: that for puts, for claims, for ends, for the rest."""
    async with await new_spool(postgres) as spool:
        schema = schema_of(spool)
    found = await places(postgres, schema, link, direction)
    assert len(found) >= 2
    cuts = 0
    for number, after in enumerate(found):
        manner = (CutManner.FIN, CutManner.RST)[number % 2]
        cut = Cut(after, direction, manner, link=link)
        # How many notifications a connection carries depends on the time, so that it may end before the place.
        for _ in range(3):
            if await is_cut(postgres, schema, cut):
                cuts += 1
                break
    assert cuts >= len(found) - 1


async def is_cut(postgres: Postgres, schema: str, cut: Cut) -> bool:
    """Tell the story over a connection that is cut, and check it; return whether the place was reached."""
    execute(postgres, f"truncate {schema}.jobs, {schema}.keys")
    story = Story()
    async with CutProxy(postgres.host, postgres.port, cut) as proxy:
        await story.tell_through(proxy, schema)
        reached = any([one.cut for one in proxy.links])
    await story.conclude(postgres, schema)
    return reached


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("link", range(2))
async def test_a_cut_of_one_of_two_statements_that_put_leaves_no_message_twice(
    postgres: Postgres, link: int, direction: Direction
) -> None:
    async with await new_spool(postgres) as spool:
        schema = schema_of(spool)

    async def put_many(proxy: CutProxy) -> list[str | BaseException]:
        async with through(proxy, schema, timeout=5.0) as spool:
            calls = [spool.put(TEXT, key=str(n) if n % 2 else None) for n in range(40)]
            told = await asyncio.gather(*calls, return_exceptions=True)
            counts[:] = [one.counts[direction] for one in proxy.links]
            return told

    counts: list[int] = []
    async with CutProxy(postgres.host, postgres.port) as proxy:
        await put_many(proxy)
    execute(postgres, f"truncate {schema}.jobs, {schema}.keys")
    # In the midst of the statement, or of its answer: behind them are a notification and its answer.
    cut = Cut(counts[link] - 600, direction, CutManner.RST, link=link)
    async with CutProxy(postgres.host, postgres.port, cut) as proxy:
        told = await put_many(proxy)
        assert proxy.links[link].cut
    stored = {id for (id,) in execute(postgres, f"select id from {schema}.jobs")}
    assert stored == {id for id in told if isinstance(id, str)}
    assert all([isinstance(id, str) or "may or may not" in str(id) for id in told])
    assert all([isinstance(id, str) for id in told[1::2]])
    assert len(stored) == 40 if direction is Direction.TO_CLIENT else 20 <= len(stored) < 40


async def test_a_server_that_stops_answering_is_given_up(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        schema = schema_of(spool)
    async with CutProxy(postgres.host, postgres.port) as proxy:
        async with through(proxy, schema, timeout=0.5) as spool:
            await spool.put(TEXT, key="a")
            sent = proxy.links[0].counts[Direction.TO_SERVER]
        proxy.cut = Cut(sent, Direction.TO_SERVER, CutManner.STALL, link=1)
        async with through(proxy, schema, timeout=0.5) as spool:
            await spool.put(TEXT, key="a")
            # The answer to this one does not come, and over another connection it does.
            await spool.put(TEXT, key="b")
            assert (await spool.statistics()).queued == 2


async def test_the_server_crashes_and_nothing_is_lost(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        known = {await spool.put(TEXT) for _ in range(20)}
        leases = await spool.claim(10)
        for lease in leases[:5]:
            await lease.mark_end_of_data()
        postgres.crash()
        with pytest.raises(SpoolError, match="cannot be reached"):
            await spool.put(TEXT)
        with pytest.raises(SpoolError, match="cannot be reached"):
            await leases[0].settle(receipt_for(leases[0], QUEUED))
        assert not spool.unreadable()
        await asyncio.to_thread(postgres.go_on)
        known.add(await spool.put(TEXT))
        assert {entry.id async for entry in spool.list()} == known
        # The leases are those of before.
        for lease in leases[:5]:
            await lease.settle(receipt_for(lease, QUEUED))
        for lease in leases[5:]:
            await lease.mark_end_of_data()
            await lease.release()
        assert (await spool.statistics())[:4] == (16, 0, 0, 0)


@pytest.mark.timeout(3600 if THOROUGH else 120)
async def test_the_server_crashes_at_a_statement_and_no_message_is_lost_or_doubled(
    postgres: Postgres,
) -> None:
    """`make thorough` crashes it at every one."""
    async with await new_spool(postgres) as spool:
        schema = schema_of(spool)
    found = await statements_of(postgres, schema)
    assert {"put_limited", "claim", "update", "extend", "recover", "hold"} <= {name for name, _ in found}
    some = [(name, 1) for name in ("put_limited", "claim", "update")]
    for here, when in product(found if THOROUGH else some, ("before", "amid", "after")):
        assert await crash_at(postgres, schema, here, when) or when == "amid", (here, when)


async def test_a_large_message_is_read_on_after_the_connection_was_cut(postgres: Postgres) -> None:
    body = TEXT + b"".join(b"%070d\r\n" % n for n in range(8_000))
    async with await new_spool(postgres) as spool:
        await spool.put(body)
        schema = schema_of(spool)
    async with CutProxy(postgres.host, postgres.port, Cut(200_000, Direction.TO_CLIENT, link=1)) as proxy:
        async with through(proxy, schema) as spool:
            [lease] = await spool.claim()
            assert await read_all(lease.mail().content()) == body
            assert proxy.links[1].cut
            await lease.settle(receipt_for(lease, QUEUED))


# --- settings of the server ---


@contextmanager
def setting(postgres: Postgres, name: str, value: str) -> Iterator[None]:
    """Change a setting of the server for a while, also for connections that are open."""
    options = "-c default_transaction_read_only=off"
    with psycopg.connect(postgres.url(), autocommit=True, options=options) as connection:
        connection.execute(f"alter system set {name} = {value}")
        connection.execute("select pg_reload_conf()")
        try:
            yield
        finally:
            connection.execute(f"alter system reset {name}")
            connection.execute("select pg_reload_conf()")


async def takes_effect(call: Callable[[], Awaitable[Any]], kind: type[SpoolError] | None) -> str:
    """Repeat a call until it fails, or until it succeeds again; return the text of the error."""
    while True:
        try:
            await call()
        except SpoolError as error:
            if kind is not None:
                assert type(error) is kind
                return str(error)
        else:
            if kind is None:
                return ""
        await asyncio.sleep(0.01)


async def test_a_server_that_has_become_a_standby(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        await spool.put(TEXT)
        [lease] = await spool.claim()
        with setting(postgres, "default_transaction_read_only", "on"):
            assert "target_session_attrs" in await takes_effect(lambda: spool.put(TEXT, key="k"), SpoolError)
            with pytest.raises(SpoolError, match="read-only"):
                await lease.settle(receipt_for(lease, QUEUED))
        await takes_effect(lambda: spool.put(TEXT, key="k"), None)
        await until_done(lambda: lease.settle(receipt_for(lease, QUEUED)))
        assert (await spool.statistics()).queued == 1


async def test_serialization_failures_are_repeated(postgres: Postgres) -> None:
    with setting(postgres, "default_transaction_isolation", "serializable"):
        async with await new_spool(postgres) as spool:
            others = [PostgresSpool(postgres.url(), schema=schema_of(spool)) for _ in range(4)]
            for _ in range(4):
                await asyncio.gather(*(one.put(TEXT, key=str(n % 7)) for n, one in enumerate(others * 5)))
                claimed = await asyncio.gather(*(one.claim(3) for one in others))
                leases = [lease for leases in claimed for lease in leases]
                await asyncio.gather(*(lease.mark_end_of_data() for lease in leases))
                await asyncio.gather(*(lease.defer(None, 0.0) for lease in leases))
            assert (await spool.statistics()).queued == 7
            for one in others:
                await one.close()


async def test_a_statement_that_takes_too_long_is_an_error_and_no_loss(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        await spool.put(TEXT)
        [lease] = await spool.claim()
        connection = await asyncpg.connect(postgres.url())
        try:
            with setting(postgres, "statement_timeout", "200"):
                await eventually(lambda: execute(postgres, "show statement_timeout") == [("200ms",)])
                async with connection.transaction():
                    await connection.execute(f"select id from {schema_of(spool)}.jobs for update")
                    with pytest.raises(SpoolError, match="statement_timeout"):
                        await lease.mark_end_of_data()
            await lease.mark_end_of_data()
            await lease.settle(receipt_for(lease, QUEUED))
        finally:
            await connection.close()


# --- a full disk ---


@pytest.fixture
def small_disk(postgres: Postgres) -> Iterator[str]:
    """A tablespace of eight MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    path = Path(postgres.directory, "small")
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    with ExitStack() as stack:
        stack.callback(lambda: subprocess.run(["umount", path], check=True))
        subprocess.run(["chown", "postgres", path], check=True)
        execute(postgres, f"create tablespace small location '{path}'")
        stack.callback(execute, postgres, "drop tablespace small")
        yield "small"


async def test_a_full_disk_refuses_messages_and_pauses_the_processor(
    postgres: Postgres, small_disk: str
) -> None:
    async with await new_spool(postgres) as spool, RecordingSink() as sink:
        jobs = f"{schema_of(spool)}.jobs"
        execute(postgres, f"create table {schema_of(spool)}.filler (data text) tablespace {small_disk}")
        execute(postgres, f"alter table {jobs} set (autovacuum_enabled = false)")
        execute(postgres, f"alter table {jobs} set tablespace {small_disk}")
        stored = 0
        for _ in range(200):
            await spool.put(TEXT + b"x" * 60 + b"\r\n")
            stored += 1
        filler = f"insert into {schema_of(spool)}.filler select repeat('x', 2000) from generate_series(1, 20)"
        with pytest.raises(psycopg.errors.DiskFull):
            while True:
                execute(postgres, filler)
        with pytest.raises(SpoolFull, match="disk"):
            while True:
                await spool.put(TEXT)
                stored += 1
        told: list[Any] = []
        options = ClientOptions(pool=PoolLimits(max_connections=2))
        async with SMTPClient(sink.host, sink.port, security=Security.PLAINTEXT, options=options) as client:
            processor = QueueProcessor(
                spool,
                client,
                retry=RetryPolicy(pause=0.05, longest_pause=0.1),
                options=ProcessorOptions(poll=0.05),
            )

            def paused(event: QueuePaused) -> None:
                told.append(event)
                execute(postgres, f"drop table if exists {schema_of(spool)}.filler")

            processor.on(QueuePaused, paused)
            processor.on(QueueResumed, told.append)
            running = asyncio.ensure_future(processor.run())
            await eventually(lambda: len(sink.messages) >= stored)
            processor.stop()
            await running
        assert isinstance(told[0], QueuePaused) and isinstance(told[0].error, SpoolFull)
        assert isinstance(told[1], QueueResumed)
        assert len(sink.messages) == stored
        execute(postgres, f"drop schema {schema_of(spool)} cascade")


async def test_a_lease_that_was_lost_while_the_database_was_away(postgres: Postgres) -> None:
    async with await new_spool(postgres) as spool:
        await spool.put(TEXT)
        [lease] = await spool.claim()
        execute(postgres, f"update {schema_of(spool)}.jobs set lease_until = 0")
        await asyncio.to_thread(postgres.crash)
        await asyncio.to_thread(postgres.go_on)
        async with PostgresSpool(postgres.url(), schema=schema_of(spool)) as other:
            await other.recover()
            [again] = await other.claim()
            with pytest.raises(LeaseLost):
                await lease.mark_end_of_data()
            await again.settle(receipt_for(again, QUEUED))
