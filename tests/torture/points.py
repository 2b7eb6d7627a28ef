"""Kills at every step: before and after each system call of the protocol, and each moment of an SMTP conversation.

The calls are not listed anywhere: a process that survives is observed, and then a process dies at each call that was
made. Every death has a spool of its own. Afterwards a process that survives delivers the remaining jobs, and the
account is checked. A point that was not reached is skipped, because the number of calls varies with concurrent jobs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from smtp_async.spool.contract import Spool
from smtp_async.spool.directory.spool import DirectorySpool
from tests.torture import ledger, letters
from tests.torture.children import Spec
from tests.torture.ledger import Account
from tests.torture.recorder import MOMENTS, Recorder
from tests.torture.template import Template

#: Number of concurrent deaths: more than there are processors, because the processes wait for the disk.
AT_ONCE = 3
#: Messages of every kind.
NUMBERS = (0, 1, 4, 5, 6, 7, 8, 11)
#: Messages that are put later, and the one of them that an operator removes.
LATER = (10, 13, 12)
REMOVED = 12


class Point(NamedTuple):
    """The point at which a process dies."""

    role: str
    kill: tuple[Any, ...]

    @property
    def step(self) -> str:
        """The step of the protocol, or the moment of the SMTP conversation."""
        return str(self.kill[1])


class Scene:
    """A spool, what was done with it, and a server of its own.

    Args:
        template: makes the processes.
        path: an empty directory.
        options: fields of every `Spec`.

    Attributes:
        whens: the moments of a call at which a process may die.
        mark_step: the step that writes a mark.
        half_put: a death that leaves half a put.
        putting, working: the steps at which processes die in a storm.
    """

    putting: tuple[str, ...] = ("E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8", "K1", "K2", "L4")
    working: tuple[str, ...] = (
        *("C1", "C2", "C3", "C4", "C5", "D1", "S1", "S2", "S3", "S4", "S5", "R1", "R5", "R7", "T2", "K2"),
    )
    whens: tuple[str, ...] = ("before", "after")
    mark_step = "D1"
    half_put: tuple[Any, ...] = ("call", "E7", 1, "before")

    def __init__(self, template: Template, path: Path, **options: Any) -> None:
        self._template = template
        self._path = path
        self._options = options
        self.spool = path / "spool"
        self.killed: set[int] = set()
        self._before = 0
        self.recorder = Recorder(template.kill)

    async def __aenter__(self) -> Scene:
        self.spool.mkdir(mode=0o700, parents=True)
        await self.recorder.__aenter__()
        return self

    def take_after(self, other: Scene) -> None:
        """Start with a copy of another scene."""
        copy_links(other._path, self._path)
        self.killed |= other.killed
        self._before = len(other.killed)
        self.recorder.take_after(other.recorder)

    async def __aexit__(self, *details: object) -> None:
        await self.recorder.__aexit__(*details)
        shutil.rmtree(self._path)

    def spec(self, role: str, **fields: Any) -> Spec:
        """Return what a process is to do in this scene."""
        fields = {**self._options, **fields}
        return Spec(role, str(self.spool), str(self._path / "log"), port=self.recorder.port, **fields)

    async def run(self, role: str, **fields: Any) -> bool:
        """Run a process; return False if it was killed."""
        forked = await self._template.start(self.spec(role, **fields))
        status = await forked.ended()
        if status == -signal.SIGKILL:
            await self.died(forked.pid)
            return False
        assert status == 0, f"{role} {fields} ended with {status}"
        return True

    async def died(self, pid: int) -> None:
        """Note that a process was killed."""
        self.killed.add(pid)

    def open_spool(self) -> Spool:
        """Open the spool, in this process."""
        return DirectorySpool(self.spool, low_water=0, durable=False)

    async def put_again(self) -> None:
        """Put every acknowledged message with a key again and deliver; no message may arrive."""
        all_keyed = bool(self._options.get("all_keyed"))
        known = self.log().acknowledged
        keyed = [number for number in known if letters.key(number, all_keyed=all_keyed) is not None]
        async with self.open_spool() as spool:
            for number in keyed:
                key = letters.key(number, all_keyed=all_keyed)
                await spool.put(
                    letters.body(number),
                    sender=letters.SENDER,
                    recipients=letters.recipients(number),
                    key=key,
                )
            queued = (await spool.statistics()).queued
        if queued:
            assert await self.run("work")

    def log(self) -> ledger.Log:
        """Return what the processes logged."""
        early = self._options.get("marking") == "claim"
        return ledger.Log(self._path / "log", self.killed, marked_early=early)

    def account(self, **rules: Any) -> Account:
        """Check the account."""
        return ledger.settled(self.spool, self.log(), self.recorder, deaths=self.deaths, **rules)

    @property
    def deaths(self) -> int:
        """The number of processes that were killed in this scene."""
        return len(self.killed) - self._before


def copy_links(source: Path, target: Path) -> None:
    """Copy a directory; files that have two names there have two here, and the time of a file is when it is due."""
    known: dict[int, Path] = {}
    for path in source.rglob("*"):
        new, status = target / path.relative_to(source), path.stat()
        if path.is_dir():
            new.mkdir(mode=0o700, exist_ok=True)
        elif status.st_ino in known:
            os.link(known[status.st_ino], new)
        else:
            shutil.copy2(path, new)
            known[status.st_ino] = new


async def _prepare(scene: Scene, role: str) -> None:
    """Prepare the spool for a process of this role."""
    if role in ("work", "hand_back"):
        await scene.run("produce", numbers=NUMBERS)
    elif role == "operate":
        # Refused jobs can be requeued, and untried jobs can be held.
        await scene.run("produce", numbers=NUMBERS)
        assert await scene.run("work")
        await scene.run("produce", numbers=LATER)
    elif role == "recover":
        await scene.run("produce", numbers=NUMBERS)
        for number in (1, 2):
            assert not await scene.run("work", kill=("call", scene.mark_step, number, "after"))
        # And a producer died between E6 and E7.
        assert not await scene.run("produce", numbers=(20,), kill=scene.half_put)


async def _go_on(scene: Scene, role: str) -> None:
    """Do what follows the death of the process."""
    if role == "produce":
        # The caller puts unacknowledged messages again; with a key, that creates no second job.
        known = scene.log().acknowledged
        await scene.run("produce", numbers=tuple(number for number in NUMBERS if number not in known))
    elif role == "operate":
        # Held jobs would stay held.
        assert await scene.run("operate", numbers=(REMOVED,))
    assert await scene.run("work")


class KillPoints:
    """The points at which processes of one role die.

    Args:
        template: makes the processes.
        path: a directory for their spools.
        role: the role of the processes: produce, work, hand_back, operate or recover.
        scene: makes the spool of each death.
        options: fields of every `Spec`.

    Attributes:
        points: the points at which a process can die.
        reached: the points at which one died.
    """

    def __init__(
        self,
        template: Template,
        path: Path,
        role: str,
        *,
        scene: Callable[..., Scene] = Scene,
        **options: Any,
    ) -> None:
        self._make_scene = scene
        self._template = template
        self._path = path
        self._role = role
        self._options = options
        self._prepared = self._scene("prepared")
        self._count = 0
        self.points: list[Point] = []
        self.reached: set[Point] = set()

    def _scene(self, name: str) -> Scene:
        return self._make_scene(self._template, self._path / name, **self._options)

    async def __aenter__(self) -> KillPoints:
        await self._prepared.__aenter__()
        await _prepare(self._prepared, self._role)
        async with self._scene("watched") as scene:
            scene.take_after(self._prepared)
            assert await self._act(scene, None)
            calls = scene.log().calls
        self.points = [
            Point(self._role, ("call", step, number, when))
            for step, count in calls.items()
            for number in range(1, count + 1)
            for when in self._prepared.whens
        ]
        if self._role == "work":
            self.points += [
                Point(self._role, ("wire", moment, number)) for moment in MOMENTS for number in (1, 2, 3)
            ]
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._prepared.__aexit__(*details)

    async def _act(self, scene: Scene, kill: tuple[Any, ...] | None) -> bool:
        numbers = {"produce": NUMBERS, "operate": (REMOVED,)}.get(self._role, ())
        return await scene.run(self._role, numbers=numbers, kill=kill)

    def chosen(self, each: int | None) -> list[Point]:
        """Return `each` points of each step: around its first call, its last, some between. None returns all."""
        if each is None:
            return self.points
        groups: defaultdict[str, list[Point]] = defaultdict(list)
        for point in self.points:
            groups[point.step].append(point)
        return [
            group[place]
            for group in groups.values()
            for place in sorted(
                {0, 1, *(round(i * (len(group) - 1) / (each - 2)) for i in range(1, each - 1))}
            )
            if place < len(group)
        ]

    async def die_at(self, point: Point) -> Account:
        """Die at the point, deliver the remaining jobs, and check the account."""
        self._count += 1
        async with self._scene(str(self._count)) as scene:
            scene.take_after(self._prepared)
            if not await self._act(scene, point.kill):
                self.reached.add(point)
            await _go_on(scene, self._role)
            await scene.put_again()
            account = await asyncio.to_thread(scene.account)
        account.wrong[:] = [f"{point}: {one}" for one in account.wrong]
        if account.lost or account.outside:
            account.wrong.append(f"{point}: {account.lost} lost, {account.outside} not flagged")
        if account.duplicates and (
            self._options.get("on_unknown") == "hold" or self._role not in ("work", "recover")
        ):
            account.wrong.append(f"{point}: a message that may have arrived was sent again")
        if self._role == "work" and account.flagged > self._in_flight():
            account.wrong.append(f"{point}: one death flagged {account.flagged}")
        return account

    def _in_flight(self) -> int:
        """Return how many messages may be in flight: twice the concurrency is claimed, and may be marked by then."""
        spec = self._prepared.spec(self._role)
        return 2 * spec.concurrency if spec.marking == "claim" else spec.concurrency

    async def die_at_each(self, points: Iterable[Point]) -> Account:
        """Die at each point, several processes at once, and return the sum."""
        total, waiting = Account(), iter(points)

        async def one_after_the_other() -> None:
            nonlocal total
            for point in waiting:
                account = await self.die_at(point)
                total += account

        await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
        return total
