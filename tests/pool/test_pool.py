"""Which message is sent over which connection: bounds, order, pipelining, failures, idleness, statistics."""

import asyncio
import itertools
from collections import Counter
from typing import Any

import pytest

from smtp_async import Credentials, Message, NotSent, Outcome, PoolLimits, SMTPClient, SMTPError, Timeouts
from smtp_async.errors import (
    AuthenticationFailed,
    CommandRefused,
    CommunicationError,
    ConnectionLost,
    GreetingRefused,
    Interrupted,
    NotConnected,
    QueueFull,
    ResolveError,
    SocketError,
)
from smtp_async.testing import (
    RecordingSink,
    ScriptedServer,
    close,
    default,
    delay,
    flush,
    raw,
    reply,
    swallow,
)
from tests.lab import (
    PATIENCE,
    LoopTimers,
    client_of,
    every_loop,
    gathered,
    mail,
    set_clock_forward,
    sockets,
    speaking,
    turns,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks")


def one(**more: Any) -> PoolLimits:
    return PoolLimits(max_connections=1, **more)


def subjects(server: ScriptedServer) -> list[str]:
    return [message.subject for message in server.messages]


class TestBounds:
    @every_loop
    async def test_100_callers_use_several_connections_and_never_more_than_allowed(self) -> None:
        most = 0
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=7)) as client:

            def count() -> bool:
                nonlocal most
                most = max(most, server.connections.open)
                return False

            watching = asyncio.create_task(server.wait_until(count))
            await turns(2)
            receipts = await gathered(*(client.send(mail(n)) for n in range(100)))
            watching.cancel()
            await asyncio.wait({watching})
            assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 100
            assert Counter(subjects(server)) == Counter(f"message {n}" for n in range(100))
            assert 1 < most <= 7
            assert server.connections.opened <= 7

    async def test_a_thousand_callers_on_the_default_bound(self) -> None:
        async with RecordingSink() as server, client_of(server) as client:
            receipts = await gathered(*(client.send(mail(n)) for n in range(1000)))
            assert all(receipt.outcome is Outcome.ACCEPTED for receipt in receipts)
            assert len(set(subjects(server))) == len(server.messages) == 1000
            assert server.connections.opened <= 10

    async def test_one_caller_uses_one_connection(self) -> None:
        async with speaking() as server, client_of(server) as client:
            for n in range(20):
                await client.send(mail(n))
            assert server.connections.opened == 1

    @every_loop
    async def test_first_come_first_served(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            await gathered(*(client.send(mail(n)) for n in range(50)))
        assert subjects(server) == [f"message {n}" for n in range(50)]

    async def test_spread_before_depth(self) -> None:
        """A second connection is opened before a first one gets a second message."""
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=3)) as client:
            await gathered(*(client.send(mail("warm")) for _ in range(30)))
            await until(lambda: client.statistics().idle == 3)
            before = len(server.commands)
            server.on(".", delay(gate), reply(250, "2.0.0 Ok"))
            tasks = [asyncio.create_task(client.send(mail(n))) for n in range(3)]
            await server.wait_until(lambda: server.verbs()[before:].count(".") == 3)
            assert {line.connection for line in server.commands[before:] if line.verb == "."} == {0, 1, 2}
            gate.set()
            await gathered(*tasks)

    async def test_a_streamed_message_waits_only_while_another_one_is_written(self) -> None:
        """One connection is left for small messages; when a body is on its way that is not the last one any more."""
        warm, gate = asyncio.Event(), asyncio.Event()
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=2)) as client:
            server.on(".", delay(warm), default())
            tasks = [asyncio.create_task(client.send(mail(n))) for n in range(2)]
            await server.wait_until(lambda: server.verbs().count(".") == 2)
            warm.set()
            await gathered(*tasks)
            await until(lambda: client.statistics().idle == 2)
            held = server.on(".", delay(gate), default(), nth=1)
            large = "x" * 70 + "\n"
            tasks = [asyncio.create_task(client.send(mail(n, text=large * 2000))) for n in "AB"]
            await server.wait_fired(held)
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            gate.set()
            assert [receipt.outcome for receipt in await gathered(*tasks)] == [Outcome.ACCEPTED] * 2

    async def test_a_message_that_is_to_be_prepared_anew_does_not_wait_as_well(self) -> None:
        """Both connections are busy, and the first one with room offers less than the message was planned for."""
        gate = asyncio.Event()
        limits = PoolLimits(max_connections=2, max_waiting=2)
        async with speaking() as server, client_of(server, pool=limits) as client:
            server.on("EHLO", reply(250, "mx", "PIPELINING"), nth=1)
            server.on("EHLO", reply(250, "mx", "PIPELINING", "8BITMIME"), nth=2)
            server.on(".", delay(gate), default())
            tasks = [asyncio.create_task(client.send(mail(n))) for n in range(2)]
            await server.wait_until(lambda: server.verbs().count(".") == 2)
            tasks += [asyncio.create_task(client.send(mail(n))) for n in range(2, 6)]
            await turns(10)
            assert client.statistics().waiting == 2
            gate.set()
            assert [receipt.outcome for receipt in await gathered(*tasks)] == [Outcome.ACCEPTED] * 6

    async def test_too_many_waiting_messages_are_refused_at_once(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=one(max_waiting=3)) as client:
            server.on("GREETING", delay(gate), default())
            waiting = [asyncio.create_task(client.send(mail(n))) for n in range(3)]
            await turns(2)
            with pytest.raises(QueueFull) as caught:
                await client.send(mail(9))
            assert isinstance(caught.value, NotSent)
            assert caught.value.receipt is not None
            assert caught.value.receipt.outcome is Outcome.NOT_SENT
            gate.set()
            await gathered(*waiting)
            assert (await client.send(mail(10))).outcome is Outcome.ACCEPTED
        assert "message 9" not in subjects(server)


class TestPipelining:
    @every_loop
    async def test_two_flights_open_a_message_and_one_carries_the_next(self) -> None:
        """Level 2: the rest of body n, its dot, and MAIL RCPT DATA of n+1 are one write."""
        count = 50
        async with speaking() as server, client_of(server, pool=one()) as client:
            await gathered(*(client.send(mail(n)) for n in range(count)))
            (log,) = server.connections
            # The greeting's flight (EHLO), the first envelope, the question whether the server reads on, then one for
            # each message: the RSET before every other envelope costs a reply, but no flight.
            assert log.flights <= count + 4
            assert client.statistics().round_trips <= count + 4
            verbs = ["MAIL", "RCPT", "DATA", "."]
            assert server.verbs() == ["EHLO", *verbs, *["RSET", *verbs] * (count - 1)]
        assert log.quit

    async def test_without_pipelining_every_command_waits(self) -> None:
        async with (
            speaking(extensions=["8BITMIME"]) as server,
            client_of(server, pool=one()) as client,
        ):
            await gathered(*(client.send(mail(n)) for n in range(10)))
            assert server.connections[0].flights >= 40
        assert len(server.messages) == 10

    async def test_pipelining_can_be_switched_off(self) -> None:
        async with speaking() as server, client_of(server, pool=one(), pipelining=False) as client:
            await gathered(*(client.send(mail(n)) for n in range(5)))
            assert server.connections[0].flights >= 20

    async def test_a_refusal_between_pipelined_messages_hits_only_its_own(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("RCPT", reply(550, "5.1.1 nobody"), match="user[37]@")
            server.on("MAIL", reply(550, "5.7.1 no"), nth=6)
            results = await gathered(*(client.send(mail(n)) for n in range(10)))
        refused = {n for n, result in enumerate(results) if isinstance(result, SMTPError)}
        assert {3, 7} < refused and len(refused) == 3
        assert subjects(server) == [f"message {n}" for n in range(10) if n not in refused]
        assert all(m.rcpt_tos == [f"user{m.subject.split()[-1]}@example.org"] for m in server.messages)


class TestRetirement:
    async def test_a_connection_carries_so_many_messages(self) -> None:
        async with speaking() as server, client_of(server, pool=one(max_messages=4)) as client:
            await gathered(*(client.send(mail(n)) for n in range(10)))
            for n in range(10, 14):
                await client.send(mail(n))
            per_connection = Counter(m.connection for m in server.messages)
            assert len(server.messages) == 14
            assert max(per_connection.values()) == 4
            assert all(log.quit for log in server.connections if log.number + 1 < server.connections.opened)

    async def test_an_idle_connection_is_closed_after_its_time(self) -> None:
        async with speaking() as server, client_of(server, pool=PoolLimits(idle_time=0.05)) as client:
            await gathered(*(client.send(mail(n)) for n in range(5)))
            async with asyncio.timeout(PATIENCE):
                await server.wait_for_disconnect()
            assert all(log.quit for log in server.connections)
            await until(lambda: client.statistics().open == 0)
            assert (await client.send(mail(9))).outcome is Outcome.ACCEPTED

    async def test_a_connection_in_use_is_not_idle(self) -> None:
        async with (
            speaking() as server,
            client_of(server, pool=PoolLimits(idle_time=0.2, max_messages=None)) as client,
        ):
            end = asyncio.get_running_loop().time() + 0.5
            for n in itertools.count():
                await client.send(mail(n))
                if asyncio.get_running_loop().time() > end:
                    break
            assert server.connections.opened == 1

    async def test_an_old_connection_takes_no_new_message(self) -> None:
        async with speaking() as server, client_of(server, pool=one(max_age=0.02)) as client:
            sent = 0
            async with asyncio.timeout(PATIENCE):
                while server.connections.opened <= 2:
                    await client.send(mail(sent))
                    sent += 1
            assert len(server.messages) == sent
            await server.wait_until(lambda: server.connections.open <= 1)
            assert all(log.quit for log in list(server.connections)[:-1])

    async def test_without_a_limit_for_idleness_age_still_counts(self) -> None:
        limits = PoolLimits(idle_time=None, max_age=0.1)
        async with speaking() as server, client_of(server, pool=limits) as client:
            await client.send(mail(1))
            await until(lambda: client.statistics().open == 0)
            assert server.connections[0].quit
            await client.send(mail(2))
            assert server.connections.opened == 2

    async def test_the_earlier_of_idleness_and_age_counts(self) -> None:
        limits = PoolLimits(idle_time=30, max_age=0.1)
        async with speaking() as server, client_of(server, pool=limits) as client:
            await client.send(mail(1))
            await until(lambda: client.statistics().open == 0)
            assert server.connections[0].quit

    async def test_timers_do_not_pile_up(self) -> None:
        """Each message makes its connection busy and idle once more: that must not cost a timer each time."""
        timers = LoopTimers()
        async with speaking() as server, client_of(server) as client:
            for n in range(200):
                await client.send(mail(n))
            assert len(timers.pending()) < 20
        assert timers.pending() == []


class TestStaleConnections:
    """A connection that the server closed while it was idle."""

    @pytest.mark.parametrize("words", [(), (reply(421, "4.4.2 idle"),)], ids=["silent", "421"])
    @every_loop
    async def test_the_end_of_an_idle_connection_is_seen_at_once(self, words: tuple[Any, ...]) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            await client.send(mail(1))
            await server.act(*words, close())
            await until(lambda: client.statistics().open == 0)
            await client.send(mail(2))
            assert subjects(server) == ["message 1", "message 2"]
            assert client.statistics().reconnects == 0

    @pytest.mark.parametrize("point", ["MAIL", "RCPT", "DATA"])
    @every_loop
    async def test_an_end_that_crosses_the_envelope_costs_a_silent_retry(self, point: str) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            await client.send(mail(1))
            server.on(point, close(), nth=1, connection=0)
            receipt = await client.send(mail(2))
            assert receipt.outcome is Outcome.ACCEPTED
            assert subjects(server) == ["message 1", "message 2"]
            assert client.statistics().reconnects == 1
            assert server.connections.opened == 2

    async def test_an_end_after_the_body_is_unknown_and_never_sent_again(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on(".", swallow(), close(), nth=1)
            results = await gathered(client.send(mail(1)), client.send(mail(2)))
            assert [type(result).__name__ for result in results] == ["OutcomeUnknown", "Receipt"]
            assert subjects(server) == ["message 1", "message 2"]
            assert client.statistics().unknown == 1

    async def test_a_message_is_tried_three_times_and_then_not_sent(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            rule = server.on("RCPT", close(), match="user1@")
            with pytest.raises(NotSent) as caught:
                await client.send(mail(1))
            assert rule.fired == 3
            assert isinstance(caught.value.__cause__, ConnectionLost)
            assert client.statistics().reconnects == 2
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED

    async def test_messages_that_return_to_the_queue_keep_their_order(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("MAIL", close(), nth=4)
            await gathered(*(client.send(mail(n)) for n in range(10)))
            assert subjects(server) == [f"message {n}" for n in range(10)]


class TestFailedDials:
    async def test_all_waiting_messages_fail_each_with_its_own_receipt(self) -> None:
        async with ScriptedServer() as server:
            port = server.port
        client = SMTPClient("127.0.0.1", port, security=client_of(server).security)
        async with client:
            messages = [mail(n) for n in range(20)]
            results = await gathered(*(client.send(message) for message in messages))
            assert {type(result) for result in results} == {SocketError}
            assert {result.code for result in results} == {10061}
            receipts = [result.receipt for result in results]
            assert len({id(result) for result in results}) == 20
            for n, receipt in enumerate(receipts):
                assert receipt.outcome is Outcome.NOT_SENT
                assert str(receipt.verdicts[0].recipient.address) == f"user{n}@example.org"
            assert client.statistics().not_sent == 20

    async def test_a_name_that_does_not_exist_has_its_class(self) -> None:
        async with speaking() as server, client_of(server, host="no-such-host.invalid") as client:
            with pytest.raises(ResolveError) as caught:
                await client.send(mail())
        assert caught.value.code in (11001, 11002, 11004)
        assert caught.value.receipt is not None

    async def test_a_refused_greeting_has_its_class(self) -> None:
        async with speaking() as server, client_of(server) as client:
            server.on("GREETING", reply(554, "5.3.2 go away"))
            with pytest.raises(GreetingRefused, match="go away") as caught:
                await client.send(mail())
            assert not caught.value.temporary

    async def test_after_a_failure_the_next_dial_waits_and_then_works(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            loop = asyncio.get_running_loop()
            server.on("GREETING", reply(554, "5.3.2 not yet"), nth={1, 2})
            for wait in (0.0, 0.1):
                before = loop.time()
                with pytest.raises(GreetingRefused):
                    await client.send(mail(1))
                assert loop.time() - before >= wait * 0.9
            before = loop.time()
            results = await gathered(client.send(mail(2)), client.send(mail(3)))
            assert loop.time() - before >= 0.2 * 0.9
            assert [type(result).__name__ for result in results] == ["Receipt", "Receipt"]
            # A success forgets the failures; one of three dials has a moment in which the machine is not busy.
            took = []
            for n in range(4, 7):
                await server.act(close())
                await until(lambda: client.statistics().open == 0)
                before = loop.time()
                await client.send(mail(n))
                took.append(loop.time() - before)
            assert min(took) < 0.1

    async def test_dials_that_fail_together_count_once(self) -> None:
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=10)) as client:
            server.on("GREETING", reply(421, "4.3.2 restarting"), close(), nth=range(1, 11))
            results = await gathered(*(client.send(mail(n)) for n in range(10)))
            assert {type(result) for result in results} == {GreetingRefused}
            assert client.statistics().bound == 9
            # The pause behind ten failures in a row is all of ten seconds.
            async with asyncio.timeout(5):
                await client.send(mail(10))

    async def test_a_failed_dial_beside_open_connections_fails_no_message(self) -> None:
        async with (
            speaking() as server,
            client_of(server, pool=PoolLimits(max_connections=4, adaptive=False)) as client,
        ):
            await client.send(mail(0))
            server.on("GREETING", reply(421, "4.7.0 too many connections"), close())
            results = await gathered(*(client.send(mail(n)) for n in range(1, 30)))
            assert all(getattr(result, "outcome", None) is Outcome.ACCEPTED for result in results)
            assert client.statistics().bound < 4
            set_clock_forward(60)
            await until(lambda: client.statistics().bound == 4)

    @pytest.mark.parametrize("code", [421, 432, 454])
    async def test_a_crowded_server_lowers_the_bound_for_a_while(self, code: int) -> None:
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=4)) as client:
            server.on("GREETING", reply(code, "4.7.0 too many connections"), nth=1)
            with pytest.raises(GreetingRefused) as caught:
                await client.send(mail(0))
            assert caught.value.temporary
            assert client.statistics().bound == 3
            set_clock_forward(60)
            await until(lambda: client.statistics().bound == 4)
            await client.send(mail(1))

    async def test_a_waiting_message_gets_a_connection_when_the_bound_rises_again(self) -> None:
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=2)) as client:
            async with client.session() as session:
                await session.connect()
                server.on("GREETING", reply(421, "4.3.2 too many"), close(), nth=1)
                with pytest.raises(GreetingRefused):
                    await client.send(mail(1))
                assert client.statistics().bound == 1
                waiting = asyncio.create_task(client.send(mail(2)))
                await turns(5)
                assert not waiting.done()
                set_clock_forward(60)
                async with asyncio.timeout(PATIENCE):
                    assert (await waiting).outcome is Outcome.ACCEPTED

    async def test_the_bound_never_falls_below_one(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("GREETING", reply(421, "4.7.0 too many connections"), nth=1)
            with pytest.raises(GreetingRefused):
                await client.send(mail(0))
            assert client.statistics().bound == 1
            await client.send(mail(1))


class TestEarlyEnds:
    """A server that answers every step of the opening and hangs up right behind the last one."""

    ENDS: dict[str, tuple[Any, ...]] = {
        "421": (raw(b"421 4.7.0 too many connections\r\n"), close()),
        "FIN": (close(),),
    }

    def client(self, server: ScriptedServer, **options: Any) -> SMTPClient:
        key = Credentials(username="ann", password="secret", allow_cleartext=True)
        return client_of(server, credentials=key, **options)

    @pytest.mark.parametrize("end", ENDS)
    @pytest.mark.parametrize("point", ["EHLO", "AUTH"])
    @every_loop
    async def test_a_server_that_hangs_up_early_is_not_dialled_again_and_again(
        self, point: str, end: str
    ) -> None:
        async with speaking(users={"ann": "secret"}) as server:
            server.on(point, default(), *self.ENDS[end])
            client = client_of(server) if point == "EHLO" else self.client(server)
            async with client:
                with pytest.raises(SMTPError) as caught:
                    await client.send(mail(), deadline=5)
            assert caught.value.receipt is not None
            assert caught.value.receipt.outcome is Outcome.NOT_SENT
            assert caught.value.temporary
            if end == "421":
                assert caught.value.reply is not None and caught.value.reply.code == 421
            else:
                assert "the server closed the connection" in str(caught.value)
            assert server.connections.opened == 1
            assert "MAIL" not in server.verbs()

    async def test_after_a_421_behind_the_reply_to_the_login_nothing_more_is_sent(self) -> None:
        async with speaking(extensions=["PIPELINING", "AUTH PLAIN"]) as server, self.client(server) as client:
            server.on("AUTH", raw(b"235 2.7.0 ok\r\n421 4.7.0 too many connections\r\n"), close())
            with pytest.raises(CommandRefused) as caught:
                await client.send(mail())
            assert caught.value.reply is not None and caught.value.reply.code == 421
            assert server.verbs() == ["EHLO", "AUTH"]

    @pytest.mark.parametrize("end", ENDS)
    async def test_there_is_one_login_for_each_pause(self, end: str) -> None:
        async with speaking(users={"ann": "secret"}) as server, self.client(server) as client:
            server.on("AUTH", default(), *self.ENDS[end])
            loop = asyncio.get_running_loop()
            started = loop.time()
            while loop.time() - started < 1:
                await gathered(*(client.send(mail(n)) for n in range(20)))
            logins = [line.time for line in server.commands if line.verb == "AUTH"]
            # The first ten are dialled at once: nothing has failed yet. Then after 0.1 s, 0.2 s more, 0.4 s more.
            assert len(logins) <= 10 + 4
            assert all(later - sooner >= 0.09 for sooner, later in itertools.pairwise(logins[10:]))

    async def test_after_a_message_all_connections_are_dialled_again(self) -> None:
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=4)) as client:
            server.on("MAIL", close(), nth=range(1, 5))
            results = await gathered(*(client.send(mail(n)) for n in range(100)))
            assert [one.outcome for one in results] == [Outcome.ACCEPTED] * 100
            busy = Counter(line.connection for line in server.commands if line.verb == "MAIL")
            # The first four were dialled at once, the fifth alone, and more as soon as it had carried a message.
            assert [busy[number] for number in range(4)] == [1] * 4
            assert len(busy) > 5

    async def test_an_open_probe_lets_the_others_be_dialled_though_its_message_is_slow(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=5)) as client:
            await client.send(mail("W"))
            server.on("GREETING", reply(554, "5.3.2 not yet"), close(), nth=1)
            slow = server.on(".", delay(gate), default(), nth=1)
            await server.act(close())
            await until(lambda: not client.statistics().open)
            with pytest.raises(GreetingRefused):
                await client.send(mail("F"))
            tasks = [asyncio.create_task(client.send(mail(n))) for n in range(5)]
            await server.wait_fired(slow)
            set_clock_forward(1)
            async with asyncio.timeout(PATIENCE):
                await until(lambda: sum(task.done() for task in tasks) == 4)
            gate.set()
            assert [one.outcome for one in await gathered(*tasks)] == [Outcome.ACCEPTED] * 5

    async def test_a_connection_that_ends_early_beside_others_fails_no_message(self) -> None:
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=4)) as client:
            await client.send(mail(0))
            server.on("EHLO", default(), *self.ENDS["421"])
            results = await gathered(*(client.send(mail(n)) for n in range(1, 30)))
            assert all(getattr(result, "outcome", None) is Outcome.ACCEPTED for result in results)
            assert client.statistics().bound < 4
            assert server.connections.opened <= 4


class TestRefusedLogin:
    def login(self, server: Any, **options: Any) -> SMTPClient:
        key = Credentials(username="ann", password="wrong", allow_cleartext=True)
        return client_of(server, credentials=key, **options)

    @every_loop
    async def test_1000_callers_with_a_wrong_password_show_it_at_most_once_per_connection(self) -> None:
        async with speaking(users={"ann": "right"}) as server, self.login(server) as client:
            results = await gathered(*(client.send(mail(n)) for n in range(1000)))
            assert {type(result) for result in results} == {AuthenticationFailed}
            assert {result.reply.code for result in results} == {535}
            assert all(result.receipt.outcome is Outcome.NOT_SENT for result in results)
            assert len({id(result.receipt) for result in results}) == 1000
            logins = Counter(line.connection for line in server.commands if line.verb == "AUTH")
            assert set(logins.values()) == {1}
            # Later callers fail at once, without another try.
            await server.wait_for_disconnect()
            tried = server.verbs().count("AUTH")
            opened = server.connections.opened
            for _ in range(3):
                with pytest.raises(AuthenticationFailed) as caught:
                    await client.send(mail())
                assert caught.value.receipt is not None
            await turns()
            assert server.verbs().count("AUTH") == tried <= 10
            assert server.connections.opened == opened
            assert server.messages == []

    async def test_a_refused_login_is_tried_again_after_a_while(self) -> None:
        users = {"ann": "right"}
        async with speaking(users=users) as server, self.login(server, pool=one()) as client:
            with pytest.raises(AuthenticationFailed):
                await client.send(mail())
            users["ann"] = "wrong"
            set_clock_forward(60)
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
            assert server.verbs().count("AUTH") == 2

    async def test_a_refused_login_stops_the_connections_that_have_not_come_to_auth(self) -> None:
        gate = asyncio.Event()
        async with speaking(users={"ann": "right"}) as server, self.login(server) as client:
            slow = server.on("EHLO", delay(gate), default(), nth=range(2, 11))
            results = await gathered(*(client.send(mail(n)) for n in range(50)))
            assert {type(result) for result in results} == {AuthenticationFailed}
            assert slow.fired > 0
            gate.set()
            await server.wait_for_disconnect()
            assert server.verbs().count("AUTH") == 1


class TestQueue:
    async def test_waiting_for_a_connection_has_its_own_limit(self) -> None:
        gate = asyncio.Event()
        async with (
            speaking() as server,
            client_of(server, pool=one(), timeouts=Timeouts(queue=0.1)) as client,
        ):
            server.on("DATA", delay(gate), default())
            running = asyncio.create_task(client.send(mail(1)))
            await server.wait_until(lambda: "DATA" in server.verbs())
            results = await gathered(*(client.send(mail(n)) for n in (2, 3, 4)))
            assert {type(result) for result in results} == {NotSent}
            assert results[0].receipt.outcome is Outcome.NOT_SENT
            assert results[0].__cause__.stage == "queue"
            assert not running.done()
            gate.set()
            assert (await running).outcome is Outcome.ACCEPTED
        assert subjects(server) == ["message 1"]


class TestSessionsCount:
    async def test_a_session_takes_a_place(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            async with client.session() as session:
                await session.connect()
                sending = asyncio.create_task(client.send(mail(1)))
                await turns()
                assert not sending.done()
                assert server.connections.opened == 1
            assert (await sending).outcome is Outcome.ACCEPTED
            assert server.connections.opened == 2

    async def test_a_session_waits_for_a_place(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on(".", delay(gate), default(), nth=1)
            sending = asyncio.create_task(client.send(mail(1)))
            await server.wait_until(lambda: "." in server.verbs())
            asking = asyncio.create_task(client.verify("ann"))
            await turns()
            assert not asking.done()
            gate.set()
            assert (await sending).outcome is Outcome.ACCEPTED
            async with asyncio.timeout(PATIENCE):
                assert (await asking).code == 252
            assert server.connections.opened == 2

    async def test_a_session_gets_a_place_also_under_load(self) -> None:
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=2)) as client:
            stop = False

            async def load() -> None:
                n = 0
                while not stop:
                    n += 1
                    await client.send(mail(n))

            loads = [asyncio.create_task(load()) for _ in range(20)]
            await server.wait_for_messages(50)
            async with asyncio.timeout(5):
                for _ in range(3):
                    assert (await client.verify("ann")).code == 252
            stop = True
            assert await gathered(*loads) == [None] * 20

    async def test_a_session_that_is_left_by_an_error_frees_its_place(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            before = sockets()
            with pytest.raises(ZeroDivisionError):
                async with client.session() as session:
                    await session.connect()
                    raise ZeroDivisionError
            assert (await client.send(mail())).outcome is Outcome.ACCEPTED
            await until(lambda: sockets() <= before + 2)
            assert server.connections.opened == 2


class TestStatistics:
    async def test_statistics_and_repr_tell_the_present_state(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=2)) as client:
            assert client.statistics() == (2, *[0] * 13)
            assert "0 open" in repr(client)
            server.on("GREETING", delay(gate), flush(), default())
            server.on("RCPT", reply(550, "5.1.1 no"), match="nobody")
            tasks = [asyncio.create_task(client.send(mail(n))) for n in range(8)]
            await until(lambda: server.connections.opened == 2)
            now = client.statistics()
            assert (now.opening, now.open, now.waiting, now.sent) == (2, 0, 8, 0)
            assert "0 open (0 busy), 2 opening of 2, 8 waiting, 0 sent" in repr(client)
            gate.set()
            await gathered(*tasks)
            with pytest.raises(SMTPError):
                await client.send(mail(9, to="nobody@example.org"))
            await until(lambda: client.statistics().idle == 2)
            now = client.statistics()
            assert (now.opening, now.open, now.busy, now.waiting) == (0, 2, 0, 0)
            assert (now.sent, now.refused, now.not_sent, now.unknown) == (8, 1, 0, 0)
            assert now.round_trips >= server.flights - 2
            async with client.session() as session:
                # Both were idle; one gave its place.
                await session.connect()
                assert client.statistics().open == 2
        after = client.statistics()
        assert (after.open, after.opening, after.idle, after.sent) == (0, 0, 0, 8)

    async def test_a_message_that_is_neither_queued_nor_on_a_connection_is_counted(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server) as client:
            # While the server is asked what it offers now.
            server.on("MAIL", reply(555, "5.5.4 unknown parameter"), nth=1)
            asked = server.on("EHLO", delay(gate), default(), connection=0, nth=2)
            with pytest.raises(NotSent):
                await client.send(mail(1, text="Grüße"), deadline=0.2)
            await server.wait_fired(asked)
            assert client.statistics().not_sent == 1
            gate.set()
            await until(lambda: client.statistics().idle == 1)
            assert client.statistics().not_sent == 1

    async def test_a_message_that_cannot_be_prepared_is_counted(self) -> None:
        async with speaking(extensions=["SIZE 1000"]) as server, client_of(server) as client:
            await client.send(mail(0))
            with pytest.raises(SMTPError):
                await client.send(mail(1, text="x" * 5000))
            assert client.statistics().not_sent == 1
            async with client.session() as session:
                await session.connect()
                with pytest.raises(SMTPError):
                    await session.send(mail(2, text="x" * 5000))
            assert client.statistics().not_sent == 2

    async def test_closing_the_pool_fails_the_messages_that_wait(self) -> None:
        async with speaking() as server:
            client = client_of(server, pool=one())
            rule = server.on("GREETING", delay(asyncio.Event()))
            tasks = [asyncio.create_task(client.send(mail(n))) for n in range(3)]
            await server.wait_fired(rule)
            await client.close()
            results = await gathered(*tasks)
            assert {type(result) for result in results} == {Interrupted}
            assert all(result.receipt.outcome is Outcome.NOT_SENT for result in results)


@pytest.mark.parametrize("count", [40])
async def test_what_the_server_offers_decides_how_waiting_messages_are_prepared(count: int) -> None:
    """They wait unprepared for the first connection, and keep their order."""
    async with (
        speaking(extensions=["PIPELINING"]) as server,
        client_of(server, pool=one()) as client,
    ):
        await gathered(*(client.send(mail(n, text="Grüße")) for n in range(count)))
        assert subjects(server) == [f"message {n}" for n in range(count)]
        assert all(m.data.isascii() for m in server.messages)


async def test_a_connection_that_offers_something_else_has_its_message_prepared_again() -> None:
    async with speaking() as server, client_of(server, pool=one()) as client:
        await client.send(mail(1, text="Grüße"))
        await server.act(close())
        await until(lambda: client.statistics().open == 0)
        server.on("EHLO", reply(250, "test.invalid", "PIPELINING"))
        await client.send(mail(2, text="Grüße"))
        first, second = server.messages
        assert not first.data.isascii()
        assert second.data.isascii()
        assert second.parsed.get_content().splitlines() == ["Grüße"]


class TestSessionWaiters:
    """Callers of `session()` at the bound: each gets the place that it was given, and no place is lost."""

    async def test_a_caller_that_is_cancelled_with_its_session_passes_the_place_on(self) -> None:
        done = asyncio.Event()

        async def leave() -> None:
            async with client.session():
                await done.wait()
            # The place was given away just now; its new owner has not run since.
            second.cancel()

        async def use() -> str:
            async with client.session():
                return "used"

        async with speaking() as server, client_of(server, pool=one()) as client:
            first = asyncio.create_task(leave())
            await turns(2)
            second, third = asyncio.create_task(use()), asyncio.create_task(use())
            await turns(2)
            done.set()
            await first
            async with asyncio.timeout(PATIENCE):
                assert await third == "used"
            await asyncio.wait({second})

    async def test_callers_are_served_in_order_also_beside_endless_messages(self) -> None:
        order: list[int] = []

        async def use(n: int) -> None:
            async with client.session() as session:
                order.append(n)
                await session.connect()

        async def keep_sending() -> None:
            while len(order) < 6:
                await client.send(mail())

        async with speaking() as server, client_of(server, pool=one()) as client:
            senders = [asyncio.create_task(keep_sending()) for _ in range(5)]
            await turns(50)
            await gathered(*(use(n) for n in range(6)))
            assert order == list(range(6))
            assert await gathered(*senders) == [None] * 5

    async def test_callers_who_wait_get_an_error_when_the_client_is_closed(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            async with client.session():
                waiting = asyncio.create_task(client.verify("ann"))
                await turns(2)
                await client.close()
                with pytest.raises(NotConnected):
                    await waiting


async def test_a_message_prepared_for_one_host_of_a_farm_is_not_rendered_again_for_another() -> None:
    rendered: Counter[str | None] = Counter()

    class Counted(Message):
        def content(self, **abilities: Any) -> Any:
            rendered[self.subject] += 1
            return super().content(**abilities)

    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=4)) as client:
        for n in range(4):
            server.on("EHLO", reply(250, f"host{n}.example", "PIPELINING", f"SIZE {n + 10}000"), connection=n)
        letters = [Counted(sender="ann@example.com", to="bob@example.org", subject=f"{n}") for n in range(60)]
        await gathered(*(client.send(letter) for letter in letters))
        assert server.connections.opened == 4
        assert set(rendered.values()) == {1}


async def test_a_login_that_was_refused_to_a_session_is_not_tried_again_for_another() -> None:
    credentials = Credentials(username="ann", password="wrong", allow_cleartext=True)
    async with (
        speaking(users={"ann": "right"}) as server,
        client_of(server, credentials=credentials) as client,
    ):
        for _ in range(3):
            with pytest.raises(AuthenticationFailed):
                await client.verify("bob")
        with pytest.raises(AuthenticationFailed):
            await client.send(mail())
        assert server.verbs().count("AUTH") == 1


async def test_a_dial_that_cancels_itself_counts_as_a_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the application may raise CancelledError; dialling again at once would never end."""
    dials = 0

    async def cancelled(connection: object) -> None:
        nonlocal dials
        dials += 1
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    monkeypatch.setattr("smtp_async.connection.connection.open_with_fallback", cancelled)
    async with speaking() as server, client_of(server, pool=PoolLimits(min_backoff=9.0)) as client:
        with pytest.raises(CommunicationError, match="raised CancelledError") as caught:
            await client.send(mail(1), deadline=5.0)
        assert not isinstance(caught.value, Interrupted)
        assert dials == 1
