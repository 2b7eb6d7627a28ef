"""Many processes share a spool and none dies: no message is lost, and none arrives twice."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.torture.ledger import Account
from tests.torture.points import Scene
from tests.torture.template import Template


async def empty(template: Template, path: Path, *, messages: int, processes: int) -> Account:
    """Put messages from several processes while `processes` others deliver them."""
    async with Scene(template, path, durable=False, concurrency=16) as scene:
        share = messages // 4
        putting = [
            scene.run("produce", numbers=tuple(range(place * share, (place + 1) * share)))
            for place in range(4)
        ]
        toiling = [await template.start(scene.spec("toil")) for _ in range(processes)]
        assert all(await asyncio.gather(*putting))
        for one in toiling:
            one.kill(signal.SIGTERM)
        statuses = [await one.ended() for one in toiling]
        lived = await asyncio.gather(*(scene.run("work") for _ in range(processes)))
        account = scene.account()
        if any(statuses) or not all(lived):
            account.wrong.append(f"a process ended with {statuses}")
        if account.duplicates or account.flagged:
            account.wrong.append("no process died, and there is an extra copy")
        if not scene.log().workers >= {one.pid for one in toiling}:
            account.wrong.append("not all of them had something to do")
        return account
