"""connection.py: the task of a connection, from dial to close. Its owner is told what becomes of it."""

import asyncio
import gc
import warnings
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from smtp_async import (
    ClientOptions,
    Outcome,
    PoolLimits,
    Security,
    SendOptions,
    SMTPClient,
    Stage,
    Timeouts,
    errors,
    events,
)
from smtp_async.connection.connection import Connection
from smtp_async.connection.route import Route, SharedResources
from smtp_async.connection.send_job import SendJob
from smtp_async.errors import (
    AlreadyConnected,
    AlreadyConnecting,
    CommandRefused,
    CommunicationError,
    ConnectFirst,
    ConnectionLost,
    GreetingRefused,
    Interrupted,
    NotConnected,
    SMTPError,
)
from smtp_async.hooks import Hooks
from smtp_async.protocol.pipelining_history import PipeliningHistory
from smtp_async.protocol.states import Verb
from smtp_async.testing import ScriptedServer, close, default, delay, reply, stall
from tests.connection.owner import Recorder
from tests.lab import PATIENCE, client_of, every_loop, mail, mute, speaking, tls_server, turns, until

request: ContextVar[str] = ContextVar("request", default="none")


@asynccontextmanager
async def connection_to(server: ScriptedServer, owner: Recorder, **options: Any) -> AsyncIterator[Connection]:
    """A connection that is not started; aborted in the end."""
    hooks = options.pop("hooks", None) or Hooks()
    timeouts = options.pop("timeouts", None) or Timeouts()
    connection = Connection(
        Route(host=server.host, port=server.port, hello="me.test", **options),
        number=1,
        timeouts=timeouts,
        hooks=hooks,
        shared=SharedResources(),
        pipelining_history=PipeliningHistory(),
        owner=owner,
    )
    try:
        yield connection
    finally:
        connection.abort(force=True)
        await connection.wait_ended()


def job(connection: Connection, number: int = 1, **options: Any) -> SendJob:
    one = SendJob(number, mail(number), SendOptions(**options))
    one.server_offer = connection.extensions
    assert one.prepare()
    return one


class TestOpening:
    @every_loop
    async def test_the_owner_is_told_and_the_greeting_returned(self) -> None:
        owner = Recorder()
        async with speaking() as server, connection_to(server, owner) as connection:
            assert not connection.connected and connection.stage is Stage.GREETING
            assert (await connection.connect()).code == 220
            assert owner.told == ["opened"] and connection.may_begin
            assert connection.dialled_at <= connection.opened_at
            with pytest.raises(AlreadyConnected):
                connection.demand_unused()
            await until(lambda: owner.idle_count)

    async def test_a_failure_is_told_before_quit_is_answered_and_the_end_after_it(self) -> None:
        owner, gate = Recorder(), asyncio.Event()
        async with ScriptedServer() as server, connection_to(server, owner) as connection:
            server.on("GREETING", reply(554, "no"))
            server.on("QUIT", delay(gate), default())
            with pytest.raises(GreetingRefused):
                await connection.connect()
            assert owner.told == ["failed"]
            with pytest.raises(NotConnected):
                connection.demand_connected()
            # It says QUIT already, within a time limit of its own.
            connection.let_go()
            gate.set()
            await connection.wait_ended()
            assert owner.told == ["failed", "ended"] and owner.errors[1] is None
            assert server.connections[0].quit

    async def test_a_server_that_hangs_up_is_told_once(self) -> None:
        owner = Recorder()
        async with ScriptedServer() as server, connection_to(server, owner) as connection:
            server.on("EHLO", close())
            with pytest.raises(ConnectionLost):
                await connection.connect()
            await connection.wait_ended()
            assert owner.told == ["ended"] and isinstance(owner.errors[0], ConnectionLost)

    async def test_a_cancelled_caller_takes_the_connection_with_it(self) -> None:
        owner = Recorder()
        async with ScriptedServer() as server, connection_to(server, owner) as connection:
            rule = server.on("EHLO", mute)
            connecting = asyncio.create_task(connection.connect())
            await server.wait_fired(rule)
            with pytest.raises(AlreadyConnecting):
                connection.demand_unused()
            connecting.cancel()
            await asyncio.wait({connecting})
            await connection.wait_ended()
            assert owner.told == ["ended"] and isinstance(owner.errors[0], Interrupted)

    async def test_the_task_has_nothing_of_its_callers_context(self) -> None:
        owner, hooks, seen = Recorder(), Hooks(), set[str]()
        hooks.add(events.ConnectionStatus, lambda event: seen.add(request.get()))
        token = request.set("of the caller that needed a connection")
        try:
            async with speaking() as server, connection_to(server, owner, hooks=hooks) as connection:
                await connection.connect()
        finally:
            request.reset(token)
        assert seen == {"none"}

    async def test_one_that_was_never_started_ends_without_a_word(self) -> None:
        owner = Recorder()
        async with ScriptedServer() as server, connection_to(server, owner) as connection:
            with pytest.raises(ConnectFirst):
                connection.demand_connected()
            connection.finish()
            connection.abort()
            await connection.wait_ended()
            assert owner.told == [] and server.connections.opened == 0
            with pytest.raises(NotConnected):
                connection.demand_unused()


class TestServing:
    @every_loop
    async def test_jobs_are_taken_one_after_the_other(self) -> None:
        owner = Recorder()
        async with speaking() as server, connection_to(server, owner) as connection:
            await connection.connect()
            owner.waiting += [job(connection, n) for n in (2, 3)]
            connection.deliveries.begin_now(job(connection, 1))
            await until(lambda: len(owner.done) == 3)
            assert owner.done == [(n, Outcome.ACCEPTED) for n in (1, 2, 3)]
            assert connection.carried and connection.channel.round_trips >= 3
        assert [message.subject for message in server.messages] == [f"message {n}" for n in (1, 2, 3)]

    @pytest.mark.parametrize("hooked", [False, True])
    async def test_the_end_is_noticed_while_idle(self, hooked: bool) -> None:
        owner, hooks = Recorder(), Hooks()
        if hooked:
            hooks.add(events.Event, lambda event: None)
        async with ScriptedServer() as server, connection_to(server, owner, hooks=hooks) as connection:
            await connection.connect()
            await server.act(reply(421, "4.3.2 down"), close())
            await connection.wait_ended()
            (error,) = owner.errors
            assert isinstance(error, SMTPError) and error.reply is not None and error.reply.code == 421
            assert not connection.connected and connection.stage is Stage.CLOSED

    async def test_a_421_instead_of_a_reply_gives_the_job_back_unsent(self) -> None:
        owner = Recorder()
        async with ScriptedServer() as server, connection_to(server, owner) as connection:
            await connection.connect()
            server.on("MAIL", reply(421, "4.3.2 down"), close())
            connection.deliveries.begin_now(job(connection))
            await connection.wait_ended()
            assert owner.unsent == [1] and owner.done == []

    async def test_an_end_behind_the_end_of_data_leaves_the_message_unknown(self) -> None:
        owner = Recorder()
        async with ScriptedServer() as server, connection_to(server, owner) as connection:
            await connection.connect()
            server.on(".", close())
            connection.deliveries.begin_now(job(connection))
            await connection.wait_ended()
            assert owner.done == [(1, Outcome.UNKNOWN)] and owner.unsent == []

    async def test_hooks_hear_of_a_message_before_its_caller_goes_on(self) -> None:
        owner, hooks = Recorder(), Hooks()
        done_when_heard: list[int] = []

        async def hook(event: events.PITrail) -> None:
            await turns(3)
            if event.command == Verb.END_OF_DATA.value and event.reply is not None:
                done_when_heard.append(len(owner.done))

        async with speaking() as server, connection_to(server, owner, hooks=hooks) as connection:
            await connection.connect()
            hooks.add(events.PITrail, hook)
            connection.deliveries.begin_now(job(connection))
            await until(lambda: owner.done)
        assert done_when_heard == [0]

    async def test_a_fault_of_the_library_ends_the_connection_and_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(Recorder):
            def connection_opened(self, connection: Any) -> None:
                raise RuntimeError("a bug")

        owner = Broken()
        async with ScriptedServer() as server, connection_to(server, owner) as connection:
            with pytest.raises(CommunicationError, match="a bug") as caught:
                await connection.connect()
            assert isinstance(caught.value.__cause__, RuntimeError)
            await connection.wait_ended()
            assert "a bug" in str(owner.errors[0]) and isinstance(owner.errors[0], SMTPError)
        assert "session 1 failed" in caplog.text


class TestCommands:
    async def test_a_command_waits_for_the_jobs_and_keeps_others_back(self) -> None:
        owner, gate = Recorder(), asyncio.Event()
        async with speaking() as server, connection_to(server, owner) as connection:
            await connection.connect()
            rule = server.on(".", delay(gate), default())
            connection.deliveries.begin_now(job(connection))
            await server.wait_fired(rule)
            asking = asyncio.create_task(
                connection.ask(lambda: connection.converse(lambda machine: machine.noop()))
            )
            await turns()
            assert not connection.may_begin and "NOOP" not in server.verbs()
            gate.set()
            assert (await asking).code == 250
            assert connection.channel.last_reply is not None and connection.may_begin
        assert server.verbs() == ["EHLO", "MAIL", "RCPT", "DATA", ".", "NOOP"]

    async def test_at_the_end_a_command_that_waits_is_refused(self) -> None:
        owner = Recorder()
        async with ScriptedServer() as server, connection_to(server, owner) as connection:
            await connection.connect()
            rule = server.on(".", mute)
            connection.deliveries.begin_now(job(connection))
            await server.wait_fired(rule)
            asking = asyncio.create_task(
                connection.ask(lambda: connection.converse(lambda machine: machine.noop()))
            )
            await turns()
            connection.abort()
            with pytest.raises(NotConnected):
                await asking


class TestEnd:
    @every_loop
    async def test_finishing_waits_for_what_is_under_way_and_says_quit(self) -> None:
        owner, gate = Recorder(), asyncio.Event()
        async with speaking() as server, connection_to(server, owner) as connection:
            await connection.connect()
            rule = server.on(".", delay(gate), default())
            connection.deliveries.begin_now(job(connection))
            await server.wait_fired(rule)
            connection.finish()
            connection.finish()
            await turns()
            assert not connection.may_begin and connection.connected
            gate.set()
            await connection.wait_ended()
            assert owner.done == [(1, Outcome.ACCEPTED)]
            assert owner.told == ["opened", "ended"] and owner.errors == [None]
        assert server.verbs()[-1] == "QUIT"

    async def test_an_abort_has_its_reason_in_every_receipt(self) -> None:
        owner = Recorder()
        async with ScriptedServer() as server, connection_to(server, owner) as connection:
            await connection.connect()
            rule = server.on("RCPT", mute)
            connection.deliveries.begin_now(job(connection))
            await server.wait_fired(rule)
            connection.abort(Interrupted("enough"))
            await connection.wait_ended()
            assert owner.unsent == [1] and str(owner.errors[0]) == "enough"
            # The first end counts.
            connection.abort(CommandRefused("later"))
            assert owner.told == ["opened", "ended"]

    async def test_force_ends_a_task_that_waits_for_a_hook(self) -> None:
        owner, hooks = Recorder(), Hooks()
        heard = asyncio.Event()

        async def hook(event: events.PITrail) -> None:
            heard.set()
            await asyncio.Event().wait()

        async with ScriptedServer() as server, connection_to(server, owner, hooks=hooks) as connection:
            await connection.connect()
            hooks.add(events.PITrail, hook)
            connection.deliveries.begin_now(job(connection))
            await heard.wait()
            hooks.remove(events.PITrail, hook)
            connection.abort(force=True)
            async with asyncio.timeout(PATIENCE):
                await connection.wait_ended()
            assert owner.told == ["opened", "ended"]


class TestOpportunistic:
    async def test_the_second_connection_has_a_channel_of_its_own(self, pki):
        owner = Recorder()
        async with tls_server(pki) as server:
            server.on("STARTTLS", reply(220, "go ahead"), close(), connection=0)
            async with connection_to(server, owner, security=Security.OPPORTUNISTIC) as connection:
                first = connection.channel
                await connection.connect()
                assert connection.channel is not first
                assert connection.deliveries.channel is connection.channel
                assert first.handshake_failed and first.failure is not None
                assert connection.channel.failure is None and connection.channel.info is not None
                assert not connection.channel.info.encrypted
                connection.deliveries.begin_now(job(connection))
                await until(lambda: owner.done)
            assert [message.tls for message in server.messages] == [False]


async def test_opportunistic_goes_on_in_clear_when_the_handshake_fails(pki):
    told: list[events.SSLStatus] = []
    async with tls_server(pki) as server:
        server.on("STARTTLS", reply(220, "go ahead"), close(), connection=0)
        async with client_of(server, security=Security.OPPORTUNISTIC) as client:
            client.on(events.SSLStatus, told.append)
            receipt = await client.send(mail())
            assert client.statistics().open == 1
        assert receipt.outcome is Outcome.ACCEPTED
        assert [message.tls for message in server.messages] == [False]
        assert server.connections.opened == 2
        assert "STARTTLS" not in server.verbs(connection=1)
    assert "without TLS" in told[-1].message


async def test_opportunistic_does_not_dial_again_when_nothing_speaks_tls(pki):
    async with ScriptedServer() as server:
        async with client_of(server, security=Security.OPPORTUNISTIC) as client:
            await client.send(mail())
        assert server.connections.opened == 1


@pytest.mark.parametrize("security", [Security.STARTTLS])
async def test_required_tls_never_goes_on_in_clear(pki, security):
    async with tls_server(pki) as server:
        server.on("STARTTLS", reply(220, "go ahead"), close())
        async with client_of(server, security=security) as client:
            with pytest.raises(errors.SMTPError):
                await client.send(mail())
        assert server.messages == [] and "MAIL" not in server.verbs()


@every_loop
async def test_a_cancelled_error_that_is_not_of_the_task_is_a_failure():
    """Taken for the end of this task, it would have the pool dial again at once, without end."""
    dialled: list[str] = []

    async def dial(host: str, port: int) -> Any:
        dialled.append(host)
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone

    client = SMTPClient("mx.test", 25, options=ClientOptions(dialer=dial))
    with pytest.raises(CommunicationError, match="raised CancelledError"):
        await client.send(mail(), deadline=5)
    await client.close()
    assert dialled == ["mx.test"]


def test_a_loop_that_ends_is_not_left_with_a_new_connection(caplog):
    """It cancels every task at once; the end of a connection must not open another for callers about to go."""
    servers: list[Any] = []

    async def main():
        server = ScriptedServer()
        await server.__aenter__()
        server.on(".", stall())
        client = client_of(server, pool=PoolLimits(max_connections=2))
        servers.extend([server, client, [asyncio.create_task(client.send(mail(n))) for n in range(30)]])
        await server.wait_until(lambda: server.verbs().count(".") == 2)

    with warnings.catch_warnings():
        # Of the server, which is never stopped.
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(main())
        assert servers[0].connections.opened == 2
        assert servers[1].statistics()[1:3] == (0, 0)
        servers.clear()
        gc.collect()
    assert "destroyed" not in caplog.text


@pytest.mark.parametrize("way", ["abort", "quit"])
async def test_nothing_of_a_closed_connection_waits_for_the_garbage_collector(way: str) -> None:
    """The collector comes seldom, and a TLS connection has 300 KiB."""
    gc.collect()
    gc.disable()
    try:
        owner = Recorder()
        async with speaking() as server, connection_to(server, owner) as connection:
            await connection.connect()
            gone = [weakref.ref[object](part) for part in (connection.channel.stream, connection.task)]
            if way == "abort":
                connection.abort()
            else:
                connection.finish()
            await connection.wait_ended()
            await turns(3)
            owner.errors.clear()
        gone.append(weakref.ref[object](connection))
        del connection
        await turns(3)
        assert [one() for one in gone] == [None] * 3
    finally:
        gc.enable()
