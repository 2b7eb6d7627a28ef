"""Kill -9 at every step of the protocol and at random: no message is lost, and none arrives twice unflagged.

`make torture` does the same for ten times as long, at every single call. `DEATHS` is the number of deaths that the
tests together require.
"""

import random
from collections.abc import AsyncIterator, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from smtp_async.spool.entry import State
from tests.torture.directories import quick_directory
from tests.torture.ledger import Account, entries
from tests.torture.points import KillPoints, Scene
from tests.torture.recorder import MOMENTS
from tests.torture.storm import Storm
from tests.torture.template import Template

# Hundreds of processes: more than the usual limit where there are few processors.
pytestmark = pytest.mark.timeout(180)

#: The steps that each role must die before and after; others (looking, naming) are added by what it is seen to do.
STEPS = {
    "produce": {*"E1 E2 E3 E4 E5 E6 E7 E8".split()},
    "work": {*"C1 C2 C3 C4 C5 D1 S1 S2 S3 S4".split(), *MOMENTS},
    "hand_back": {*"C1 C2 C3 C4 C5 D1 S2 S3 S5".split()},
    "operate": {*"O1 O2 O3 O4 O5 O6 O7".split()},
    "recover": {*"R0 R1 R2 R3 R4 R5 R6 R7 R8 T1 T2".split()},
}
#: How many die in each test, at least.
DEATHS = {
    "produce": 40,
    "work": 80,
    "hold": 20,
    "keep": 20,
    "claim": 20,
    "key": 20,
    "hand_back": 25,
    "operate": 30,
    "recover": 30,
    **dict.fromkeys(("storm", "keyed storm", "hold storm", "claim storm"), 60),
}


def test_the_kill_tests_together_covered_enough_deaths() -> None:
    assert sum(DEATHS.values()) >= 500
    steps = set().union(*STEPS.values()) - {*MOMENTS}
    assert len(steps) >= 25


@pytest.fixture
def quick() -> Iterator[Path]:
    with quick_directory() as path:
        yield path


@pytest.fixture
async def template() -> AsyncIterator[Template]:
    async with Template() as template:
        yield template


async def die_everywhere(template: Template, path: Path, role: str, each: int, **options: Any) -> Account:
    """Die at some calls of every step, with options at those of `STEPS` only, and check that each was reached."""
    async with KillPoints(template, path, role, **options) as kill_points:
        points = kill_points.chosen(each)
        if options:
            points = [point for point in points if point.step in STEPS[role]]
        account = await kill_points.die_at_each(points)
        reached = {(point.step, point.kill[3]) for point in kill_points.reached if point.kill[0] == "call"}
        assert reached >= set(product(STEPS[role] - {*MOMENTS}, ("before", "after")))
        assert {point.step for point in kill_points.reached} >= STEPS[role]
    account.demand()
    return account


async def test_producers_die_at_every_step(template: Template, quick: Path) -> None:
    account = await die_everywhere(template, quick, "produce", 4)
    assert account.deaths >= DEATHS["produce"]
    assert account.acknowledged == 8 * account.deaths


async def test_workers_die_at_every_step(template: Template, quick: Path) -> None:
    account = await die_everywhere(template, quick, "work", 4)
    assert account.deaths >= DEATHS["work"]
    # A worker died between end of data and its record, or this would have tested nothing.
    assert 0 < account.duplicates <= account.flagged


@pytest.mark.parametrize(
    ("name", "each", "options"),
    [
        # At most once: jobs that may have arrived are kept for an operator.
        ("hold", 2, {"on_unknown": "hold"}),
        ("keep", 2, {"keep_sent": True}),
        ("claim", 2, {"marking": "claim", "concurrency": 2}),
        # Delivered jobs leave the memory of their keys.
        ("key", 2, {"all_keyed": True}),
    ],
)
async def test_other_workers_die_at_every_step(
    template: Template, quick: Path, name: str, each: int, options: dict[str, Any]
) -> None:
    account = await die_everywhere(template, quick, "work", each, **options)
    assert account.deaths >= DEATHS[name]
    assert (account.duplicates == 0) == (name == "hold")


async def test_workers_that_release_their_jobs_die_at_every_step(template: Template, quick: Path) -> None:
    account = await die_everywhere(template, quick, "hand_back", 2)
    assert account.deaths >= DEATHS["hand_back"]
    assert account.flagged > 0


async def test_operators_die_at_every_step(template: Template, quick: Path) -> None:
    account = await die_everywhere(template, quick, "operate", 3)
    assert account.deaths >= DEATHS["operate"]


async def test_recovering_processes_die_at_every_step(template: Template, quick: Path) -> None:
    account = await die_everywhere(template, quick, "recover", 4)
    assert account.deaths >= DEATHS["recover"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("storm", {}),
        ("keyed storm", {"all_keyed": True, "keep_sent": True}),
        ("hold storm", {"on_unknown": "hold", "concurrency": 16}),
        ("claim storm", {"marking": "claim"}),
    ],
)
async def test_many_processes_die_at_random(
    template: Template, quick: Path, name: str, options: dict[str, Any]
) -> None:
    chance = random.Random(20)
    account = await Storm(template, quick / "storm", deaths=DEATHS[name], chance=chance, **options).rage()
    account.demand()
    assert account.deaths >= DEATHS[name]
    if options.get("on_unknown") == "hold":
        assert account.duplicates == 0


async def test_three_workers_die_with_a_message(template: Template, quick: Path) -> None:
    """The job becomes FAILED, and the jobs behind it are delivered."""
    async with Scene(template, quick / "scene", concurrency=1) as scene:
        await scene.run("produce", numbers=(0,))
        for _ in range(3):
            assert not await scene.run("work", kill=("wire", "body", 1)), "it was not even begun"
        await scene.run("produce", numbers=(1,))
        assert await scene.run("work")
        (poison,) = entries(scene.spool).values()
        assert (poison.state, poison.reason, poison.recoveries) == (State.FAILED, "poison", 3)
        assert scene.recorder.copies == {(1, 0): 1}
        scene.account().demand()
