"""closing.py: which idle connections are closed and when, and how all of them end."""

import asyncio
from typing import Any

import pytest

from smtp_async import PoolLimits, SMTPClient, Timeouts
from smtp_async.pool.closing import IdleReaper, close_all, shed
from smtp_async.testing import default, stall
from tests.lab import Clock, client_of, gathered, mail, speaking


class Idle:
    """An idle connection as the reaper sees it."""

    def __init__(self, idle_since: float, retires_at: float = float("inf")) -> None:
        self.deliveries = self
        self.idle_since = idle_since
        self.retires_at = retires_at
        self.finished = False

    def finish(self) -> None:
        self.finished = True


class Lab:
    def __init__(self, limit: float | None) -> None:
        self.clock = Clock()
        self.idle: dict[Any, None] = {}
        loop: Any = self.clock
        self.reaper = IdleReaper(loop, self.idle, limit)

    def add(self, retires_in: float = float("inf")) -> Any:
        one = Idle(self.clock.now, self.clock.now + retires_in)
        self.idle[one] = None
        self.reaper.watch(one)  # type: ignore[arg-type]
        return one


class TestIdleReaper:
    def test_a_connection_is_closed_after_its_time_without_work(self) -> None:
        lab = Lab(60)
        early = lab.add()
        lab.clock.advance(30)
        late = lab.add()
        lab.clock.advance(29.9)
        assert not early.finished
        lab.clock.advance(0.1)
        assert early.finished and not late.finished and list(lab.idle) == [late]
        lab.clock.advance(30)
        assert late.finished and not lab.idle and not lab.clock.timers

    def test_a_connection_that_got_work_meanwhile_is_not_closed(self) -> None:
        lab = Lab(60)
        one = lab.add()
        lab.clock.advance(50)
        del lab.idle[one]
        one.idle_since = lab.clock.now
        lab.idle[one] = None
        lab.reaper.watch(one)
        lab.clock.advance(50)
        assert not one.finished
        lab.clock.advance(10)
        assert one.finished

    @pytest.mark.parametrize("limit", [None, 60])
    def test_an_old_connection_is_closed_whatever_the_limit(self, limit: float | None) -> None:
        lab = Lab(limit)
        one = lab.add(retires_in=20)
        lab.clock.advance(20)
        assert one.finished

    def test_without_limits_there_is_no_timer(self) -> None:
        lab = Lab(None)
        lab.add()
        assert lab.clock.made == 0

    def test_many_connections_share_one_timer(self) -> None:
        lab = Lab(60)
        for _ in range(10):
            lab.add()
        assert len(lab.clock.timers) == 1

    def test_after_stop_no_connection_is_closed(self) -> None:
        lab = Lab(60)
        one = lab.add()
        lab.reaper.stop()
        lab.reaper.stop()
        lab.clock.advance(100)
        assert not one.finished and not lab.clock.timers


@pytest.mark.usefixtures("no_leaks")
class TestCloseAll:
    async def close(self, client: SMTPClient) -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await client.close()
        return loop.time() - before

    async def test_idle_connections_say_quit(self) -> None:
        async with speaking() as server:
            client = client_of(server, pool=PoolLimits(max_connections=3))
            await gathered(*(client.send(mail(n)) for n in range(30)))
            await self.close(client)
            opened = server.connections.opened
            await server.wait_until(lambda: server.verbs().count("QUIT") == opened)

    async def test_a_message_on_its_way_is_waited_for(self) -> None:
        async with speaking() as server:
            client = client_of(server)
            rule = server.on(".", default())
            sending = asyncio.create_task(client.send(mail()))
            await server.wait_fired(rule)
            await self.close(client)
            assert (await sending).accepted

    async def test_a_silent_server_is_left_when_the_time_is_over(self) -> None:
        async with speaking() as server:
            client = client_of(server, timeouts=Timeouts(close=0.1))
            rule = server.on(".", stall())
            sending = asyncio.create_task(client.send(mail()))
            await server.wait_fired(rule)
            assert await self.close(client) >= 0.1
            await gathered(sending)
            assert client.statistics().open == 0

    async def test_without_connections_it_returns_at_once(self) -> None:
        with pytest.raises(StopIteration):
            close_all([], None).send(None)


# --- connections above a bound that has fallen -----------------------------------------------------------------


def test_idle_connections_go_first_and_then_the_newest_busy_ones() -> None:
    class Open:
        def __init__(self, name: str, *, leaving: bool = False) -> None:
            self.name = name
            self.leaving = leaving

        def finish(self) -> None:
            finished.append(self.name)

    finished: list[str] = []
    ones: Any = [Open("old"), Open("leaving", leaving=True), Open("idle long"), Open("new"), Open("idle")]
    idle: Any = {ones[2]: None, ones[4]: None}
    shed(idle, ones, 4)
    assert finished == []
    shed(idle, ones, 3)
    assert (finished, [one.name for one in idle]) == (["idle long"], ["idle"])
    ones.pop(2)
    finished.clear()
    shed(idle, ones, 1)
    assert sorted(finished) == ["idle", "new"]
    assert not idle
