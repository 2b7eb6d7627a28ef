"""hints.py: hints wake those who wait, and their loss does not matter."""

import pytest

from smtp_async.spool.postgres.connections import DatabaseConnections
from smtp_async.spool.postgres.hints import Hints
from tests.servers.postgres import Postgres
from tests.spool.postgres.databases import execute


def hints_of(url: str) -> Hints:
    return Hints(DatabaseConnections(url, "public", pooler=False, timeout=10.0), "public_due")


async def test_a_hint_of_this_process_wakes() -> None:
    hints = hints_of("postgresql://127.0.0.1:1/x")
    event = await hints.event()
    assert not event.is_set()
    hints.wake()
    assert event.is_set() and await hints.event() is event
    await hints.close()


async def test_notifications_are_rare() -> None:
    hints = hints_of("postgresql://127.0.0.1:1/x")
    assert sum(hints.may_notify() for _ in range(1000)) < 20


@pytest.mark.server
async def test_a_hint_of_another_process_wakes(postgres: Postgres, no_leaks: None) -> None:
    hints = hints_of(postgres.url())
    event = await hints.event()
    execute(postgres, "select pg_notify('public_due', '')")
    await event.wait()
    execute(
        postgres,
        "select pg_terminate_backend(pid) from pg_stat_activity where query like 'LISTEN%public_due%'",
    )
    await hints.close()
