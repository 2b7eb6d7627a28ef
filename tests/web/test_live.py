"""live.py: who waits for a change is woken, and a stream of events begins, goes on and ends."""

import asyncio
import json

from smtp_async.testing import cancellations
from smtp_async.web.live import Changes, event_stream


async def test_a_change_wakes_everybody_who_waits():
    changes = Changes()
    waiting = [asyncio.create_task(changes.wait(0, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    changes.announce()
    await asyncio.gather(*waiting)
    assert changes.version == 1


async def test_a_change_that_was_missed_is_not_waited_for():
    changes = Changes()
    changes.announce()
    await changes.wait(0, 60)
    assert changes.version == 1


async def test_a_wait_ends_without_a_change():
    changes = Changes()
    await changes.wait(0, 0.0)
    assert changes.version == 0


async def test_a_cancelled_wait_leaves_nothing_behind():
    changes = Changes()
    async for run in cancellations(lambda: changes.wait(0, 0.0)):
        if run.injected:
            assert run.cancelled
        changes.announce()
        changes.version = 0


async def parts_of(answer):
    async for part in answer.body_iterator:
        yield json.loads(part.removeprefix("data: "))


async def test_a_stream_tells_now_and_after_each_change_until_the_end():
    changes, number = Changes(), iter(range(100))

    async def news():
        return {"number": next(number)}

    parts = parts_of(event_stream(changes, news, pace=0.0, heartbeat=60))
    assert await anext(parts) == {"number": 0}
    later = asyncio.create_task(anext(parts))
    await asyncio.sleep(0)
    changes.announce()
    changes.announce()
    assert await later == {"number": 1}
    changes.close()
    assert [one async for one in parts] == []


async def test_a_stream_has_a_heartbeat():
    async def news():
        return {}

    changes = Changes()
    parts = parts_of(event_stream(changes, news, pace=0.0, heartbeat=0.0))
    assert [await anext(parts) for _ in range(3)] == [{}, {}, {}]
    await parts.aclose()
