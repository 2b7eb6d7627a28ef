"""Servers that take pipelining badly: what one connection learns, and what becomes of the messages meanwhile."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from smtp_async import Credentials, NotSent, Outcome, PoolLimits, SMTPClient, Timeouts
from smtp_async.errors import SenderRefused
from smtp_async.events import Notification
from smtp_async.testing import (
    Rule,
    ScriptedServer,
    Step,
    close,
    default,
    delay,
    reply,
    stall,
)
from tests.lab import (
    PATIENCE,
    client_of,
    every_loop,
    every_settable_loop,
    gathered,
    mail,
    set_clock_forward,
    speaking,
    turns,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

#: The time for a server to answer the first thing written behind an end of data.
HASTY = Timeouts(probe=0.1)
COUNT = 200


def one(**more: Any) -> PoolLimits:
    return PoolLimits(max_connections=1, **more)


def history(client: SMTPClient) -> Any:
    assert client._pool is not None
    return client._pool.pipelining_history


async def send_all(client: SMTPClient, count: int = COUNT) -> Counter[Outcome]:
    async with asyncio.timeout(PATIENCE):
        return Counter([r.outcome async for _, r in client.send_all(mail(n) for n in range(count))])


def arrived(server: ScriptedServer) -> Counter[str]:
    return Counter(message.subject for message in server.messages)


def every(count: int = COUNT) -> Counter[str]:
    return Counter(f"message {n}" for n in range(count))


# --- servers that do not read on -----------------------------------------------------------------------------


async def drop_the_rest(step: Step) -> None:
    """As Courier 1.0: what arrived together with the dot is gone."""
    step.default()
    step.connection.buffer.clear()


async def die_of_what_is_behind(step: Step) -> None:
    """As Dovecot without RSET, only worse: it takes the message, and RCPT behind the dot kills it."""
    if b"RCPT" in bytes(step.connection.buffer):
        step.default(silent=True)
        await step.connection.close()
    else:
        await drop_the_rest(step)


async def die_of_commands_behind(step: Step) -> None:
    """RSET may stand behind the dot, an envelope may not."""
    dies = b"RCPT" in bytes(step.connection.buffer)
    step.default(silent=dies)
    if dies:
        await step.connection.close()


Action = Callable[[Step], Awaitable[None]]


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("action", [drop_the_rest, die_of_what_is_behind], ids=["drops", "dies"])
@every_loop
async def test_200_messages_through_a_server_that_does_not_read_on(action: Action, connections: int) -> None:
    """One question is left unanswered on each connection; nothing was at stake with it."""
    pool = PoolLimits(max_connections=connections)
    async with speaking() as server, client_of(server, pool=pool, timeouts=HASTY) as client:
        server.on(".", action)
        assert await send_all(client) == {Outcome.ACCEPTED: COUNT}
        assert not history(client).allows_following
        assert server.connections.opened <= 2 * connections
    assert arrived(server) == every()


@every_loop
async def test_a_server_that_dies_of_an_envelope_behind_its_dot_does_so_twice() -> None:
    """The question is answered, so two messages are lost sight of; no third one is."""
    async with speaking() as server, client_of(server, pool=one(), timeouts=HASTY) as client:
        server.on(".", die_of_commands_behind)
        outcomes = await send_all(client)
        assert outcomes == {Outcome.ACCEPTED: COUNT - 2, Outcome.UNKNOWN: 2}
        assert not history(client).allows_following
    assert arrived(server) == every()


@every_loop
async def test_a_reset_that_came_alone_does_not_make_a_server_one_that_reads_on() -> None:
    gate = asyncio.Event()

    async def drop_and_wait(step: Step) -> None:
        step.connection.buffer.clear()
        await gate.wait()
        step.default()

    async with speaking() as server, client_of(server, pool=one(), timeouts=HASTY) as client:
        await client.send(mail("W"))
        slow = server.on(".", drop_and_wait, nth=1)
        first = asyncio.create_task(client.send(mail("A")))
        await server.wait_fired(slow)
        # The dot of the first is on its way: the RSET before this one comes in a packet of its own.
        second = asyncio.create_task(client.send(mail("B")))
        await turns()
        gate.set()
        assert [one.outcome for one in await gathered(first, second)] == [Outcome.ACCEPTED] * 2
        assert not history(client).proven
        server.on(".", drop_the_rest)
        assert await send_all(client, 50) == {Outcome.ACCEPTED: 50}
        assert not history(client).allows_following
    assert arrived(server) == every(50) + Counter(f"message {n}" for n in "WAB")


async def test_the_question_is_asked_once_for_a_server() -> None:
    async with speaking() as server, client_of(server, pool=one(max_messages=10)) as client:
        assert await send_all(client, 50) == {Outcome.ACCEPTED: 50}
        assert history(client).proven
        flights = [log.flights for log in server.connections]
        assert len(flights) == 5
        # The reply to the RSET alone is one flight more.
        assert flights[0] == flights[1] + 1
        assert len(set(flights[1:4])) == 1


async def test_a_server_that_once_read_on_may_take_its_time() -> None:
    gate = asyncio.Event()
    async with speaking() as server, client_of(server, pool=one(), timeouts=HASTY) as client:
        await send_all(client, 5)
        held = server.on("RSET", delay(gate), default(), nth=1)
        server.on(".", reply_at_once, nth=1)
        sending = asyncio.gather(*(client.send(mail(n)) for n in range(3)))
        await server.wait_fired(held)
        loop = asyncio.get_running_loop()
        over = loop.time() + 0.3
        await until(lambda: loop.time() > over)
        gate.set()
        assert {receipt.outcome for receipt in await sending} == {Outcome.ACCEPTED}
        assert server.connections.opened == 1


async def reply_at_once(step: Step) -> None:
    step.default()
    await step.flush()


@pytest.mark.parametrize("end", [close(), stall()], ids=["close", "silence"])
async def test_silence_behind_a_dot_is_held_against_a_server_that_read_on_before(end: Any) -> None:
    async with speaking() as server:
        patience = Timeouts(probe=0.1, mail=0.2)
        async with client_of(server, pool=one(), timeouts=patience) as client:
            notices: list[Notification] = []
            client.on(Notification, notices.append)
            await send_all(client, 5)
            server.on("RSET", end, nth=1)
            assert await send_all(client, 50) == {Outcome.ACCEPTED: 50}
            assert not history(client).allows_following
            assert [notice.name for notice in notices] == ["pipelining-reduced"]


async def test_after_ten_minutes_it_is_tried_again() -> None:
    async with speaking() as server, client_of(server, pool=one(), timeouts=HASTY) as client:
        server.on(".", drop_the_rest, connection=0)
        assert await send_all(client, 20) == {Outcome.ACCEPTED: 20}
        assert not history(client).allows_following
        set_clock_forward(600)
        # A connection that was idle for so long is closed; what the next one learns is another matter.
        await until(lambda: not client.statistics().open)
        assert await send_all(client, 20) == {Outcome.ACCEPTED: 20}
        assert history(client).allows_following and history(client).proven


async def test_a_message_that_waits_for_the_question_can_be_cancelled_at_every_await() -> None:
    async with speaking() as server, client_of(server, pool=one()) as client:
        gate = asyncio.Event()
        await client.send(mail("W"))
        server.on(".", delay(gate), default(), nth=1)
        first = asyncio.create_task(client.send(mail(1)))
        await server.wait_until(lambda: server.verbs().count(".") == 2)
        second = asyncio.create_task(client.send(mail(2)))
        await turns()
        second.cancel()
        gate.set()
        assert (await first).outcome is Outcome.ACCEPTED
        assert isinstance((await gathered(second))[0], asyncio.CancelledError)
        assert (await client.send(mail(3))).outcome is Outcome.ACCEPTED
    assert [message.subject for message in server.messages] == ["message W", "message 1", "message 3"]


# --- lock-step -----------------------------------------------------------------------------------------------


async def test_one_slow_recipient_is_no_reason_for_lock_step() -> None:
    async with speaking() as server, client_of(server, timeouts=Timeouts(rcpt=0.1)) as client:
        server.on("RCPT", stall(), connection=0)
        assert (await client.send(mail())).outcome is Outcome.ACCEPTED
        assert server.connections[1].flights == 3
    assert arrived(server) == {"message 1": 1}


async def test_a_group_that_is_not_answered_twice_in_a_row_is_a_reason() -> None:
    async with speaking() as server, client_of(server, pool=one(), timeouts=Timeouts(rcpt=0.1)) as client:
        server.on("RCPT", stall(), nth={1, 2})
        assert (await client.send(mail())).outcome is Outcome.ACCEPTED
        assert server.connections[2].flights == 5


@pytest.mark.parametrize("another", [False, True], ids=["ten minutes", "another offer"])
async def test_lock_step_ends(another: bool) -> None:
    async with speaking() as server, client_of(server, pool=one(max_messages=1)) as client:
        server.on("MAIL", default(), default(), connection=0)
        for n in range(2):
            assert (await client.send(mail(n))).outcome is Outcome.ACCEPTED
        assert server.connections[2].flights == 5
        if another:
            server.on("EHLO", reply(250, "mx", "PIPELINING", "8BITMIME"))
        else:
            set_clock_forward(600)
        assert (await client.send(mail(3))).outcome is Outcome.ACCEPTED
        assert server.connections[3].flights == 3


async def test_lock_step_does_not_end_where_refused_parameters_have_the_server_asked_again() -> None:
    async with speaking() as server, client_of(server, pool=one()) as client:
        server.on("MAIL", default(), default(), connection=0)
        assert (await client.send(mail("W"))).outcome is Outcome.ACCEPTED
        server.on("MAIL", reply(555, "5.5.4 unknown parameter"), nth=1)
        server.on("EHLO", reply(250, "mx", "PIPELINING"), nth=1)
        assert (await client.send(mail(0, text="Grüße"))).outcome is Outcome.ACCEPTED
        assert client._pool is not None and client._pool.extensions is not None
        assert not client._pool.extensions.pipelining
        before = server.connections[1].flights
        assert (await client.send(mail(1))).outcome is Outcome.ACCEPTED
        # MAIL, RCPT, DATA and the body.
        assert server.connections[1].flights - before == 4


async def test_lock_step_does_not_end_with_a_login() -> None:
    async with speaking(users={"ann": "secret"}) as server, client_of(server) as client:
        server.on("MAIL", default(), default(), connection=0)
        assert (await client.send(mail("W"))).outcome is Outcome.ACCEPTED
        async with client.session() as session:
            await session.connect()
            assert not session.extensions.pipelining
            await session.login(LOGIN)
            assert not session.extensions.pipelining


# --- EHLO after AUTH, and after 555 --------------------------------------------------------------------------

LOGIN = Credentials(username="ann", password="secret", allow_cleartext=True)


def login(server: ScriptedServer, **options: Any) -> SMTPClient:
    return client_of(server, credentials=LOGIN, **options)


@every_loop
async def test_what_is_offered_after_the_login_counts() -> None:
    """As Dovecot's submission: 8BITMIME is gone, so the message is encoded; VRFY has come."""
    async with speaking(users={"ann": "secret"}) as server, login(server) as client:
        server.on("EHLO", reply(250, "mx", "PIPELINING", "VRFY"), nth=2)
        async with client.session() as session:
            await session.connect()
            assert set(session.extensions) == {"PIPELINING", "VRFY"}
        server.on("EHLO", reply(250, "mx", "PIPELINING", "VRFY"), nth=2)
        receipt = await client.send(mail(1, text="Grüße"))
        assert receipt.outcome is Outcome.ACCEPTED
        assert server.messages[0].data.isascii()
        assert server.messages[0].mail_parameters == {}
    said = [verb for verb in server.verbs(1) if verb in ("EHLO", "AUTH", "MAIL")]
    assert said == ["EHLO", "AUTH", "EHLO", "MAIL"]


@pytest.mark.parametrize("code", [503, 500, 451])
async def test_a_refused_ehlo_after_the_login_keeps_what_was_offered(code: int) -> None:
    async with speaking(users={"ann": "secret"}) as server, login(server) as client:
        server.on("EHLO", reply(code, "5.5.1 duplicate"), nth=2)
        assert (await client.send(mail(1, text="Grüße"))).outcome is Outcome.ACCEPTED
        assert server.messages[0].mail_parameters["BODY"] == "8BITMIME"


async def test_a_session_that_logs_in_later_asks_again_too() -> None:
    async with speaking(users={"ann": "secret"}) as server, client_of(server) as client:
        server.on("EHLO", reply(250, "mx", "VRFY"), nth=2)
        async with client.session() as session:
            await session.connect()
            assert "8BITMIME" in session.extensions
            await session.login(LOGIN)
            assert set(session.extensions) == {"VRFY"}
            assert (await session.send(mail(1, text="Grüße"))).outcome is Outcome.ACCEPTED
        assert server.messages[0].data.isascii()


class TestParametersRefused:
    """555 to parameters that were offered: the server is asked once more what it offers."""

    def confused(self, server: ScriptedServer, *first: Any, nth: int = 2) -> Rule:
        server.on("MAIL", reply(555, "5.5.4 unknown parameter"), match="BODY=")
        return server.on("EHLO", *first, reply(250, "mx", "PIPELINING"), nth=nth)

    @every_loop
    async def test_the_message_is_prepared_for_what_is_offered_now(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            await client.send(mail(0))
            self.confused(server, nth=1)
            receipts = await gathered(*(client.send(mail(n, text="Grüße")) for n in range(1, 6)))
            assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 5
            assert all(message.data.isascii() for message in server.messages)
            assert server.connections.opened == 1
        assert arrived(server) == every(6)

    async def test_an_offer_that_has_not_changed_lets_the_refusal_stand(self) -> None:
        async with speaking() as server, client_of(server) as client:
            server.on("MAIL", reply(555, "5.5.4 unknown parameter"), match="BODY=")
            with pytest.raises(SenderRefused) as caught:
                await client.send(mail(1, text="Grüße"))
            assert caught.value.reply is not None and caught.value.reply.code == 555
            assert server.verbs(0).count("EHLO") == 2
            assert server.verbs(0).count("MAIL") == 1

    async def test_it_happens_once_for_a_message(self) -> None:
        async with speaking() as server, client_of(server) as client:
            server.on("MAIL", reply(555, "5.5.4 unknown parameter"))
            server.on("EHLO", reply(250, "mx", "SIZE"), nth=2)
            with pytest.raises(SenderRefused):
                await client.send(mail(1, text="Grüße"))
            assert server.verbs(0).count("MAIL") == 2
            assert server.verbs(0).count("EHLO") == 2

    async def test_mail_without_parameters_is_refused_as_ever(self) -> None:
        async with speaking(extensions=[]) as server, client_of(server) as client:
            server.on("MAIL", reply(555, "5.5.4 what?"))
            with pytest.raises(SenderRefused):
                await client.send(mail(1))
            assert server.verbs(0).count("EHLO") == 1

    async def test_a_session_of_ones_own(self) -> None:
        async with speaking() as server, client_of(server) as client:
            self.confused(server)
            async with client.session() as session:
                await session.connect()
                assert (await session.send(mail(1, text="Grüße"))).outcome is Outcome.ACCEPTED

    @pytest.mark.parametrize("end", [close(), stall()], ids=["close", "silence"])
    async def test_a_connection_that_dies_of_the_question(self, end: Any) -> None:
        async with speaking() as server, client_of(server, timeouts=Timeouts(hello=0.2)) as client:
            server.on("MAIL", reply(555, "5.5.4 unknown parameter"), nth=1)
            server.on("EHLO", end, nth=2)
            with pytest.raises(SenderRefused):
                await client.send(mail(1))

    async def test_the_caller_may_be_cancelled_meanwhile(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=one()) as client:
            held = self.confused(server, delay(gate))
            sending = asyncio.create_task(client.send(mail(1, text="Grüße")))
            await server.wait_fired(held)
            with pytest.raises(NotSent):
                await client.send(mail(2), deadline=0.05)
            sending.cancel()
            gate.set()
            assert isinstance((await gathered(sending))[0], asyncio.CancelledError)
            assert (await client.send(mail(3))).outcome is Outcome.ACCEPTED
        assert arrived(server) == {"message 3": 1}


# --- connections that have gone silent -----------------------------------------------------------------------


async def twenty_seconds(step: Step) -> None:
    """An action of a scripted server: take 20 s by the loop's clock."""
    await turns()
    set_clock_forward(20)


class TestSilence:
    """A connection is silent when its server has owed a reply for 30 s."""

    @pytest.mark.parametrize("connections", [1, 2])
    @every_settable_loop
    async def test_another_one_is_opened_beside_it(self, connections: int) -> None:
        pool = PoolLimits(max_connections=connections)
        async with ScriptedServer() as server, client_of(server, pool=pool) as client:
            await gathered(*(client.send(mail(f"W{n}")) for n in range(connections)))
            opened = server.connections.opened
            held = [server.on("MAIL", stall(), connection=number) for number in range(opened)]
            silent = [asyncio.create_task(client.send(mail(f"S{n}"))) for n in range(opened)]
            for rule in held:
                await server.wait_fired(rule)
            waiting = [asyncio.create_task(client.send(mail(n))) for n in range(5)]
            await turns()
            set_clock_forward(30)
            receipts = await gathered(*waiting)
            assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 5
            assert server.connections.opened <= connections + 1
            for task in silent:
                task.cancel()
            await gathered(*silent)
            await client._pool.close()  # type: ignore[union-attr]

    @pytest.mark.parametrize("before", [True, False], ids=["silent before", "silent behind"])
    @every_settable_loop
    async def test_a_caller_of_session_gets_a_connection_beside_it(self, before: bool) -> None:
        patience = Timeouts(close=0.1)
        async with speaking() as server, client_of(server, pool=one(), timeouts=patience) as client:

            async def send_privately() -> Outcome:
                async with client.session() as session:
                    await session.connect()
                    return (await session.send(mail("P"))).outcome

            held = server.on(".", stall(), connection=0)
            silent = asyncio.create_task(client.send(mail("S")))
            await server.wait_fired(held)
            if before:
                set_clock_forward(30)
            private = asyncio.create_task(send_privately())
            await turns()
            if not before:
                set_clock_forward(30)
            assert await gathered(private) == [Outcome.ACCEPTED]
            silent.cancel()
            await gathered(silent)

    async def test_a_connection_that_answers_holds_its_place(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on(".", twenty_seconds, default())
            receipts = await asyncio.gather(*(client.send(mail(n)) for n in range(5)))
            assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 5
            assert server.connections.opened == 1

    async def test_nothing_is_opened_where_nothing_waits(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on(".", twenty_seconds, twenty_seconds, twenty_seconds, default())
            assert (await client.send(mail())).outcome is Outcome.ACCEPTED
            assert server.connections.opened == 1

    async def test_the_bound_falls_back_when_the_silent_one_has_ended(self) -> None:
        patience = Timeouts(mail=60.0)
        async with speaking() as server, client_of(server, pool=one(), timeouts=patience) as client:
            held = server.on("MAIL", stall(), connection=0)
            sending = [asyncio.create_task(client.send(mail(n))) for n in range(3)]
            await server.wait_fired(held)
            set_clock_forward(30)
            await until(lambda: len(server.messages) == 2)
            assert client.statistics().bound == 2
            set_clock_forward(30)
            receipts = await gathered(*sending)
            assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 3
            await until(lambda: client.statistics().bound == 1)
            assert client.statistics().open == 1


# --- outages -------------------------------------------------------------------------------------------------


class TestOutage:
    @every_loop
    async def test_send_all_waits_for_the_server_to_come_back(self) -> None:
        async with speaking() as server:
            async with client_of(server, pool=one(), timeouts=Timeouts(queue=5.0)) as client:
                server.on("MAIL", close(), nth=11)
                away = server.on("GREETING", close(), nth=range(2, 5))
                outcomes = await send_all(client, 40)
                assert outcomes == {Outcome.ACCEPTED: 40}
                assert away.fired == 3
        assert arrived(server) == every(40)

    async def test_a_caller_of_send_is_told_at_once(self) -> None:
        async with (
            speaking() as server,
            client_of(server, pool=one(), timeouts=Timeouts(queue=5.0)) as client,
        ):
            await client.send(mail(1))
            server.on("MAIL", close(), nth=1)
            server.on("GREETING", close())
            result = (await gathered(client.send(mail(2))))[0]
            assert result.receipt.outcome is Outcome.NOT_SENT

    async def test_without_a_limit_for_the_queue_it_is_an_error_at_once(self) -> None:
        async with ScriptedServer() as server:
            port = server.port
        async with client_of(server, port=port) as client:
            with pytest.raises(Exception, match="refused"):
                async with asyncio.timeout(PATIENCE):
                    async for _ in client.send_all(mail(n) for n in range(3)):
                        pass

    async def test_an_outage_that_lasts_longer_is_raised_with_its_reason(self) -> None:
        async with ScriptedServer() as server:
            client = client_of(server, pool=one(), timeouts=Timeouts(queue=0.3))
            await client.send(mail(1))
        async with client:
            outcomes = []
            with pytest.raises(OSError, match="refused"):
                async with asyncio.timeout(PATIENCE):
                    async for _, receipt in client.send_all(mail(n) for n in range(3)):
                        outcomes.append(receipt.outcome)
            assert outcomes == [Outcome.NOT_SENT] * 3
