"""Kill at random: producers and workers share a spool, and each is soon killed and replaced.

Some die at a random system call or moment of a conversation, some by a signal at a random time. When enough have died,
the others are stopped with SIGTERM, a process that survives delivers the remaining jobs, and the account is checked.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.torture.ledger import Account
from tests.torture.points import Scene
from tests.torture.recorder import MOMENTS
from tests.torture.template import Template

#: Messages per producer, and the number of queued messages above which no more producers start.
BATCH = 12
BACKLOG = 150
#: The maximum of the number of a call at which a process dies.
FURTHEST = 12
#: Mean number of seconds until a signal.
SOON = 0.08


class Storm:
    """A spool whose processes are killed at random.

    Args:
        template: makes the processes.
        path: a directory for the spool.
        deaths: the number of processes to kill.
        scene: makes the spool.
        options: fields of every `Spec`; with `all_keyed`, unacknowledged messages are put again.
    """

    def __init__(
        self,
        template: Template,
        path: Path,
        *,
        deaths: int,
        chance: random.Random,
        scene: Callable[..., Scene] = Scene,
        **options: Any,
    ) -> None:
        self._template = template
        self._scene = scene(template, path, **options)
        self._wanted = deaths
        self._chance = chance
        self._all_keyed = bool(options.get("all_keyed"))
        self._next = 0
        self._again: deque[int] = deque()
        self._put = 0
        self._over = False
        self._wrong: list[str] = []

    async def rage(self) -> Account:
        """Kill at random, then drain the spool and check the account."""
        async with self._scene as scene:
            await asyncio.gather(self._produce(), self._produce(), *(self._toil() for _ in range(3)))
            assert await scene.run("work")
            await scene.put_again()
            account = await asyncio.to_thread(scene.account, all_keyed=self._all_keyed)
            account.wrong += self._wrong
            return account

    def _draw(self, steps: tuple[str, ...], *, wire: bool) -> tuple[Any, ...] | None:
        """Draw a death at a step, or none for a death by signal."""
        fate = self._chance.random()
        if fate < 0.3:
            return None
        if wire and fate < 0.5:
            return ("wire", self._chance.choice(MOMENTS), self._chance.randint(1, FURTHEST))
        when = self._chance.choice(self._scene.whens)
        return ("call", self._chance.choice(steps), self._chance.randint(1, FURTHEST), when)

    async def _live(self, role: str, **fields: Any) -> bool:
        """Run a process until it ends or is killed; return False if it was killed."""
        forked = await self._template.start(self._scene.spec(role, **fields))
        # A process that dies at a step gets time to reach it.
        mean = SOON if fields["kill"] is None else 5 * SOON
        timer = asyncio.get_running_loop().call_later(self._chance.expovariate(1 / mean), forked.kill)
        status = await forked.ended()
        timer.cancel()
        if status == -signal.SIGKILL:
            await self._scene.died(forked.pid)
            self._over = len(self._scene.killed) >= self._wanted
        elif status:
            self._wrong.append(f"{role} {fields} ended with {status}")
            self._over = True
        return not status

    async def _produce(self) -> None:
        while not self._over:
            if self._put - len(self._scene.recorder.copies) > BACKLOG:
                await asyncio.sleep(0.02)
                continue
            numbers = tuple(self._numbers())
            if await self._live("produce", numbers=numbers, kill=self._draw(self._scene.putting, wire=False)):
                self._put += BATCH
            elif self._all_keyed:
                known = self._scene.log().acknowledged
                self._again += [number for number in numbers if number not in known]

    def _numbers(self) -> list[int]:
        numbers: list[int] = []
        while len(numbers) < BATCH:
            if self._again:
                numbers.append(self._again.popleft())
            else:
                numbers.append(self._next)
                self._next += 1
        return numbers

    async def _toil(self) -> None:
        while not self._over:
            await self._live("toil", kill=self._draw(self._scene.working, wire=True))
