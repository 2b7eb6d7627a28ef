"""Every scenario, disturbed at a sample of its points; `make torture` tries all of them.

The points of one loop lie between those of the other, so that the loops together try twice as many.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from smtp_async.spool.postgres.spool import PostgresSpool
from smtp_async.testing import Cut, CutManner, Direction
from tests.lab import LOOPS, demand_nothing_left, other_tasks, sockets
from tests.servers.pki import Pki
from tests.spool.postgres.databases import new_schema
from tests.torture.books import living
from tests.torture.scenarios import NAMES, Scenario, table
from tests.torture.wire import Harness, RealServer, SteadyLoop, stalling

#: How many cuts each scenario has on each loop, and how many stalls in each direction.
CUTS, STALLS = 72, 2
#: Every which turn of the loop is disturbed.
TURNS = 4
#: How many times fewer points the queues have, whose runs take longer.
SLOWER = {"queue-directory": 3, "queue-postgres": 8}
EAGER = pytest.param(
    "eager",
    marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12"),
)
EVERY_LOOP = pytest.mark.parametrize("loop", ["asyncio", "uvloop", EAGER])
EVERY_SCENARIO = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.server] * name.endswith("postgres")) for name in NAMES],
)
REAL = ("pipelined", "window", "bdat-stream", "pool-of-3", "send-all")


@pytest.fixture
def scenario(name: str, pki: Pki, tmp_path: Path, request: pytest.FixtureRequest) -> Scenario:
    """The scenario of this name, and the database if it needs one."""
    if name != "queue-postgres":
        return table(pki, tmp_path / "spool")[name]
    url, schema = request.getfixturevalue("postgres").url(), new_schema()

    def make() -> PostgresSpool:
        return PostgresSpool(url, schema=schema, poll=0.05)

    async def create() -> None:
        async with make() as spool:
            await spool.create_schema()

    asyncio.run(create())
    return table(pki, tmp_path / "spool", make)[name]


def run(loop: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test on a loop, or on a steady one; no task, no socket and no object of a connection is left."""
    alive = living()

    async def checked() -> None:
        tasks, before = other_tasks(), sockets()
        await work()
        await demand_nothing_left(tasks, before)

    with asyncio.Runner(loop_factory=SteadyLoop if loop == "steady" else LOOPS[loop]) as runner:
        runner.run(checked())
    assert not living() - alive


@EVERY_SCENARIO
@EVERY_LOOP
@pytest.mark.timeout(60)
def test_a_cut_changes_no_outcome_that_was_told(loop: str, name: str, scenario: Scenario) -> None:
    harness = Harness(scenario)

    async def work() -> None:
        lengths = await harness.lengths()
        stride = max(1, sum(lengths.values()) * SLOWER.get(name, 1) // CUTS)
        begin = list(LOOPS).index(loop) * stride // len(LOOPS)
        await harness.cuts(stride, start=begin)

    run(loop, work)
    harness.tally.demand()
    # Not CUTS: the octets of an undisturbed run, which the stride is made of, differ from run to run.
    assert harness.tally.points["cuts"] >= CUTS // SLOWER.get(name, 1) // 2


@EVERY_SCENARIO
@EVERY_LOOP
@pytest.mark.timeout(60)
def test_a_cancelled_caller_changes_nothing_for_the_next_one(
    loop: str, name: str, scenario: Scenario
) -> None:
    harness = Harness(scenario)

    async def work() -> None:
        slower = SLOWER.get(name, 1)
        await harness.cancelled_at_awaits(most=8 // slower + 1)
        await harness.interrupted(range(list(LOOPS).index(loop), 40 * TURNS, TURNS * slower))

    run(loop, work)
    harness.tally.demand()
    assert harness.tally.points["cancellations"] > 8


@EVERY_SCENARIO
@pytest.mark.timeout(60)
def test_a_connection_that_stalls_holds_no_caller_beyond_its_deadline(name: str, scenario: Scenario) -> None:
    harness = Harness(scenario)

    async def work() -> None:
        await harness.stalls(stalling(await harness.lengths(), STALLS, scenario.link))

    run("steady", work)
    harness.tally.demand()
    assert harness.tally.latest <= 1.1


@EVERY_SCENARIO
@pytest.mark.timeout(60)
def test_a_deadline_that_passes_at_any_turn_is_told_honestly(name: str, scenario: Scenario) -> None:
    harness = Harness(scenario)
    run(
        "asyncio",
        lambda: harness.interrupted(range(0, 100 * TURNS, 5 * TURNS * SLOWER.get(name, 1)), jump=5.0),
    )
    harness.tally.demand()
    assert harness.tally.points["deadlines"] >= 2


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("queue")])
@pytest.mark.timeout(60)
def test_a_cut_between_replies_of_one_byte_a_packet(name: str, scenario: Scenario) -> None:
    harness = Harness(scenario)

    async def work() -> None:
        total = (await harness.lengths())[Direction.TO_CLIENT]
        for after in range(0, total, max(1, total // 6)):
            cut = Cut(after, Direction.TO_CLIENT, CutManner.FIN, scenario.link)
            await harness.cut(cut, split="byte")

    run("asyncio", work)
    harness.tally.demand()


@pytest.mark.server
@pytest.mark.parametrize("server", ["postfix", "exim"])
@pytest.mark.parametrize("name", REAL)
@pytest.mark.timeout(60)
def test_a_cut_before_postfix_and_exim(
    server: str, name: str, scenario: Scenario, request: pytest.FixtureRequest
) -> None:
    harness = Harness(scenario, RealServer(request.getfixturevalue(server)))

    async def work() -> None:
        stride = max(1, sum((await harness.lengths()).values()) // 12)
        await harness.cuts(stride, start=stride // 2)
        await harness.settle()

    run("asyncio", work)
    harness.tally.demand()


@pytest.mark.server
@pytest.mark.parametrize("server", ["postfix", "exim"])
@pytest.mark.parametrize("name", REAL)
@pytest.mark.timeout(60)
def test_a_cancelled_caller_before_postfix_and_exim(
    server: str, name: str, scenario: Scenario, request: pytest.FixtureRequest
) -> None:
    harness = Harness(scenario, RealServer(request.getfixturevalue(server)))

    async def work() -> None:
        await harness.interrupted([1, 10, 30, 60, 100, 150, 200])
        await harness.settle()

    run("asyncio", work)
    harness.tally.demand()


def test_the_table_has_every_scenario(pki: Pki, tmp_path: Path) -> None:
    assert tuple(table(pki, tmp_path, lambda: PostgresSpool("postgresql://nowhere"))) == NAMES
