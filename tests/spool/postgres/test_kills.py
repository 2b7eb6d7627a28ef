"""Kill -9 at every statement and at random: no message is lost, and none arrives twice unflagged.

`make torture` does the same for ten times as long. `DEATHS` is the number of deaths that the tests together require.
"""

import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.servers.postgres import Postgres
from tests.torture.databases import DatabaseScene
from tests.torture.ledger import Account
from tests.torture.points import KillPoints
from tests.torture.recorder import MOMENTS
from tests.torture.storm import Storm
from tests.torture.template import Template

# Hundreds of processes: more than the usual limit where there are few processors.
pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

#: The statements that each role must die at; others are added by what it is seen to do.
STEPS = {
    "produce": {"put_limited"},
    "work": {"recover", "claim", "update", *MOMENTS},
    "hand_back": {"claim", "update"},
    "operate": {"remove", "hold"},
    "recover": {"recover", "forget_keys"},
}
#: How many die in each test, at least.
DEATHS = {
    "produce": 8,
    "work": 30,
    "hold": 12,
    "keep": 12,
    "claim": 12,
    "hand_back": 8,
    "operate": 6,
    "recover": 4,
    **dict.fromkeys(("storm", "keyed storm", "hold storm", "claim storm"), 60),
}


def test_the_kill_tests_together_covered_enough_deaths() -> None:
    assert sum(DEATHS.values()) >= 300


@pytest.fixture
async def template() -> AsyncIterator[Template]:
    async with Template() as template:
        yield template


@pytest.fixture
def make_scene(postgres: Postgres) -> Any:
    return partial(DatabaseScene, server=postgres)


async def die_everywhere(
    template: Template, path: Path, make_scene: Any, role: str, each: int, **options: Any
) -> Account:
    """Die at some statements of every kind, with options at those of `STEPS` only, and check that each was reached."""
    async with KillPoints(template, path, role, scene=make_scene, **options) as kill_points:
        points = kill_points.chosen(each)
        if options:
            points = [point for point in points if point.step in STEPS[role]]
        account = await kill_points.die_at_each(points)
        assert {point.step for point in kill_points.reached} >= STEPS[role]
    account.demand()
    return account


async def test_producers_die_at_every_statement(template: Template, tmp_path: Path, make_scene: Any) -> None:
    account = await die_everywhere(template, tmp_path, make_scene, "produce", 12)
    assert account.deaths >= DEATHS["produce"]
    assert account.acknowledged == 8 * account.deaths


async def test_workers_die_at_every_statement(template: Template, tmp_path: Path, make_scene: Any) -> None:
    account = await die_everywhere(template, tmp_path, make_scene, "work", 3)
    assert account.deaths >= DEATHS["work"]
    # A worker died between end of data and its record, or this would have tested nothing.
    assert 0 < account.duplicates <= account.flagged


@pytest.mark.parametrize(
    ("name", "options"),
    [
        # At most once: jobs that may have arrived are kept for an operator.
        ("hold", {"on_unknown": "hold"}),
        ("keep", {"keep_sent": True}),
        ("claim", {"marking": "claim", "concurrency": 2}),
    ],
)
async def test_other_workers_die_at_every_statement(
    template: Template, tmp_path: Path, make_scene: Any, name: str, options: dict[str, Any]
) -> None:
    account = await die_everywhere(template, tmp_path, make_scene, "work", 2, **options)
    assert account.deaths >= DEATHS[name]
    if name == "hold":
        assert account.duplicates == 0


@pytest.mark.parametrize("role", ["hand_back", "operate", "recover"])
async def test_other_roles_die_at_every_statement(
    template: Template, tmp_path: Path, make_scene: Any, role: str
) -> None:
    account = await die_everywhere(template, tmp_path, make_scene, role, 4)
    assert account.deaths >= DEATHS[role]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("storm", {}),
        ("keyed storm", {"all_keyed": True, "keep_sent": True, "together": 6}),
        ("hold storm", {"on_unknown": "hold", "concurrency": 16}),
        ("claim storm", {"marking": "claim"}),
    ],
)
async def test_many_processes_die_at_random(
    template: Template, tmp_path: Path, make_scene: Any, name: str, options: dict[str, Any]
) -> None:
    chance = random.Random(20)
    storm = Storm(
        template, tmp_path / "storm", deaths=DEATHS[name], chance=chance, scene=make_scene, **options
    )
    account = await storm.rage()
    account.demand()
    assert account.deaths >= DEATHS[name]
    if options.get("on_unknown") == "hold":
        assert account.duplicates == 0
