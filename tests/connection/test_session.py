"""session.py: what each call does, what is refused, and that one task uses a session at a time."""

import asyncio
import io
import traceback
from collections.abc import Coroutine
from typing import Any

import pytest

from smtp_async import (
    NOBODY,
    Address,
    Attachment,
    Credentials,
    Login,
    Message,
    NotSent,
    Outcome,
    PoolLimits,
    Receipt,
    RecipientsRefused,
    SenderRefused,
    SendOptions,
    SMTPError,
    Stage,
    Timeouts,
    TLSOptions,
)
from smtp_async.errors import (
    AlreadyConnected,
    AlreadyConnecting,
    AuthenticationFailed,
    Busy,
    CommandRefused,
    ConnectFirst,
    ConnectionLost,
    ExtensionMissing,
    GreetingRefused,
    Interrupted,
    InvalidArgument,
    MissingRecipient,
    NotConnected,
    UsageError,
)
from smtp_async.events import Expand, PITrail
from smtp_async.model.reply import Reply
from smtp_async.testing import ScriptedServer, close, default, delay, reply
from tests.lab import PATIENCE, client_of, every_loop, gathered, mail, speaking, turns, until
from tests.sources.origins import SlowToMeasure

pytestmark = pytest.mark.usefixtures("no_leaks")


KEY = Credentials(username="ann", password="secret", allow_cleartext=True)


async def test_expand_ignores_lines_without_an_address() -> None:
    lines = ["2.1.5 The list follows:", "2.1.5 Ann <ann@example.com>", "bob@example.org", "(3 in all\x1b[2J)"]
    async with speaking() as server, client_of(server) as client:
        server.on("EXPN", reply(250, *lines))
        assert [str(member.domain) for member in await client.expand("staff")] == [
            "example.com",
            "example.org",
        ]


async def test_expand_drops_source_routes() -> None:
    async with speaking() as server, client_of(server) as client:
        server.on("EXPN", reply(250, "Quincy Smith <@usc.example:q-smith@isi.example>"))
        assert await client.expand("staff") == [Address("q-smith", "isi.example")]


async def test_expand_tells_of_each_member_before_it_returns() -> None:
    told: list[Address] = []
    async with speaking() as server, client_of(server) as client:
        server.on("EXPN", reply(250, "Ann <ann@example.com>", "<bob@example.org>"), nth=1)
        server.on("EXPN", reply(550, "no such list"), nth=2)

        @client.on(Expand)
        async def note(event: Expand) -> None:
            assert event.session == 1
            await asyncio.sleep(0)
            told.append(event.address)

        async with client.session() as session:
            await session.connect()
            assert await session.expand("staff") == told
            with pytest.raises(CommandRefused):
                await session.expand("nobody")
            assert [str(one) for one in told] == ["ann@example.com", "bob@example.org"]
            assert (await session.noop()).code == 250


async def test_a_member_of_a_list_has_address_and_name() -> None:
    told: list[Expand] = []
    async with speaking() as server, client_of(server) as client:
        server.on("EXPN", reply(250, "Ann Smith <ann@example.com>"))
        client.on(Expand, told.append)
        await client.expand("staff")
    (member,) = told
    assert (str(member.address.domain), member.address.local, member.address.name) == (
        "example.com",
        "ann",
        "Ann Smith",
    )


async def test_a_caller_that_is_cancelled_while_a_hook_hears_of_members_harms_nothing() -> None:
    waiting, go_on = asyncio.Event(), asyncio.Event()
    async with speaking() as server, client_of(server) as client:
        server.on("EXPN", reply(250, "<ann@example.com>"))

        @client.on(Expand)
        async def wait(event: Expand) -> None:
            waiting.set()
            await go_on.wait()

        async with client.session() as session:
            await session.connect()
            asking = asyncio.create_task(session.expand("staff"))
            await waiting.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            go_on.set()
            assert (await session.noop()).code == 250


async def test_a_session_is_idle_while_no_call_of_it_runs() -> None:
    released = asyncio.Event()
    async with speaking() as server, client_of(server) as client, client.session() as session:
        assert session.idle
        await session.connect()
        server.on("NOOP", delay(released), default())
        asking = asyncio.create_task(session.noop())
        await until(lambda: "NOOP" in server.verbs())
        assert not session.idle
        released.set()
        await asking
        assert session.idle


@pytest.mark.parametrize("verb", ["SEND", "SOML", "SAML"])
async def test_terminals_where_a_server_offers_them(verb: Any) -> None:
    """No server that can be installed does (RFC 5321 appendix F.6): this one is written from RFC 821 section 3.4."""
    options = SendOptions(verb=verb)
    async with speaking(extensions=["PIPELINING", verb]) as server, client_of(server) as client:
        receipt = await client.send(mail(), options=options)
        assert receipt.outcome is Outcome.ACCEPTED
        await client.send(mail(2))
        server.on(verb, reply(450, "4.2.1 not logged in"))
        with pytest.raises(SenderRefused, match="not logged in"):
            await client.send(mail(3), options=options)
        await client.send(mail(4))
    assert [one for one in server.verbs() if one in (verb, "MAIL", "RSET")] == [verb, "MAIL", verb, "MAIL"]
    async with speaking() as server, client_of(server) as client:
        with pytest.raises(ExtensionMissing, match=verb):
            await client.send(mail(), options=options)
        assert not {"MAIL", verb} & set(server.verbs())


async def test_help_and_etrn_are_commands() -> None:
    async with speaking() as server, client_of(server) as client, client.session() as session:
        await session.connect()
        server.on("ETRN", reply(253, "7 pending messages for node example.com started"))
        assert (await session.command("HELP")).code == 214
        assert (await session.command("ETRN example.com")).code == 253


@every_loop
async def test_a_whole_conversation() -> None:
    async with speaking(users={"ann": "secret"}) as server, client_of(server) as client:
        server.on("EXPN", reply(250, "2.1.5 Ann <ann@example.com>"))
        async with client.session() as session:
            assert not session.connected
            assert session.stage is Stage.GREETING
            assert session.last_reply is None
            greeting = await session.connect()
            assert greeting.code == 220 and "ESMTP" in greeting.text
            assert session.connected
            assert session.stage is Stage.READY
            assert session.extensions.pipelining and session.extensions.auth == ("PLAIN", "LOGIN", "CRAM-MD5")
            assert session.info.peer == (server.host, server.port)
            assert not session.info.encrypted
            assert (await session.login(KEY)).code == 235
            assert (await session.verify("ann")).code == 252
            assert session.last_reply is not None and session.last_reply.code == 252
            (member,) = await session.expand("staff")
            assert (str(member.domain), member.name) == ("example.com", "Ann")
            assert (await session.command("help")).code == 214
            assert (await session.noop()).code == 250
            receipt = await session.send(mail())
            assert receipt.outcome is Outcome.ACCEPTED
            assert (await session.reset()).code == 250
            await session.quit()
            assert not session.connected
            assert session.stage is Stage.CLOSED
            await session.quit()
        assert server.connections.opened == 1
        assert server.messages[0].user == "ann"
    assert server.verbs(0) == [
        "EHLO", "AUTH", server.commands[2].verb, "EHLO", "VRFY", "EXPN", "HELP", "NOOP", "MAIL", "RCPT", "DATA", ".",
        "RSET", "QUIT",
    ]  # fmt: skip


async def test_connected_from_connect_to_quit() -> None:
    async with speaking() as server, client_of(server) as client, client.session() as session:
        told = [session.connected]
        await session.connect()
        told.append(session.connected)
        await session.quit()
        assert [*told, session.connected] == [False, True, False]


async def test_quit_says_so_once() -> None:
    async with speaking() as server, client_of(server) as client, client.session() as session:
        await session.connect()
        await session.quit()
        await session.quit()
        async with client.session() as another:
            await another.quit()
    assert server.verbs() == ["EHLO", "QUIT"]


async def test_a_command_is_sent_as_it_is_given() -> None:
    async with speaking() as server, client_of(server) as client, client.session() as session:
        server.on("XADR", reply(250, "2.0.0 seen"))
        await session.connect()
        assert (await session.command("xAdr  one two")).text == "2.0.0 seen"
        assert session.last_reply is not None and session.last_reply.code == 250
        assert server.commands[1].line == b"xAdr  one two"


class TestConnecting:
    async def test_calls_before_connect_say_so(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            calls = [
                session.send(mail()), session.verify("x"), session.expand("x"), session.command("NOOP"),
                session.reset(), session.noop(), session.login(KEY),
            ]  # fmt: skip
            for call in calls:
                with pytest.raises(ConnectFirst) as caught:
                    await call
                assert caught.value.code == 1117
            with pytest.raises(ConnectFirst):
                _ = session.info
            assert server.connections.opened == 0

    async def test_a_second_connect_is_refused(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            with pytest.raises(AlreadyConnected) as caught:
                await session.connect()
            assert caught.value.code == 104
            assert (await session.noop()).code == 250

    async def test_connect_while_connecting_is_refused(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server) as client, client.session() as session:
            server.on("GREETING", delay(gate), default())
            connecting = asyncio.create_task(session.connect())
            await turns()
            with pytest.raises(AlreadyConnecting) as caught:
                await session.connect()
            assert caught.value.code == 1105
            gate.set()
            assert (await connecting).code == 220

    async def test_a_failed_connect_has_its_class_and_ends_the_session(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            server.on("GREETING", reply(554, "5.3.2 no"))
            with pytest.raises(GreetingRefused):
                await session.connect()
            assert not session.connected
            for call in (session.connect, session.noop):
                with pytest.raises(NotConnected) as caught:
                    await call()
                assert type(caught.value) is NotConnected

    async def test_after_the_end_every_call_says_so(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            await session.quit()
            for call in (session.noop, session.reset, session.connect, lambda: session.send(mail())):
                with pytest.raises(NotConnected):
                    await call()
        assert server.connections.opened == 1


class TestOneTask:
    @every_loop
    async def test_a_second_task_is_busy(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            server.on("VRFY", delay(gate), default())
            asking = asyncio.create_task(session.verify("ann"))
            await server.wait_until(lambda: "VRFY" in server.verbs())
            for call in (
                session.noop(), session.reset(), session.expand("x"), session.command("NOOP"),
                session.send(mail()), session.login(KEY), session.verify("x"),
            ):  # fmt: skip
                with pytest.raises(Busy) as caught:
                    await call
                assert caught.value.code == 166 and caught.value.temporary
            gate.set()
            assert (await asking).code == 252
            assert (await session.noop()).code == 250

    async def test_a_cancelled_call_disturbs_no_reply(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            server.on("VRFY", delay(gate), reply(251, "late"), nth=1)
            asking = asyncio.create_task(session.verify("ann"))
            await server.wait_until(lambda: "VRFY" in server.verbs())
            asking.cancel()
            await asyncio.wait({asking})
            following = asyncio.create_task(session.verify("bob"))
            await turns()
            gate.set()
            assert (await following).code == 252

    async def test_a_call_from_a_hook_is_refused(self) -> None:
        caught: list[Any] = []
        async with speaking() as server, client_of(server) as client, client.session() as session:

            async def hook(event: PITrail) -> None:
                if event.command == "NOOP":
                    try:
                        await session.reset()
                    except SMTPError as error:
                        caught.append(error)

            await session.connect()
            client.on(PITrail, hook)
            await session.noop()
        assert [type(one) for one in caught] == [Busy, Busy]


class TestCommands:
    @pytest.mark.parametrize(
        "line",
        ["DATA", "data", "BDAT 5 LAST", "EHLO x", "HELO x", "LHLO x", "STARTTLS", "starttls",
         "AUTH PLAIN AGEAYg==", "XCLIENT ADDR=1.2.3.4"],
    )  # fmt: skip
    async def test_commands_that_the_library_sends_itself_are_refused(self, line: str) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            before = server.connections[0].bytes_received
            with pytest.raises(UsageError):
                await session.command(line)
            assert server.connections[0].bytes_received == before
            assert (await session.noop()).code == 250

    async def test_an_own_transaction_can_be_begun_and_reset(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            assert (await session.command("MAIL FROM:<x@example.com>")).code == 250
            assert (await session.command("RCPT TO:<y@example.org>")).code == 250
            assert (await session.reset()).code == 250
            await session.send(mail(1))
            # Left open, the next message closes it: it is never sent under another sender.
            await session.command("MAIL FROM:<x@example.com>")
            await session.send(mail(2))
        assert [message.mail_from for message in server.messages] == ["ann@example.com"] * 2
        assert server.violations == []

    async def test_a_refused_question_has_its_class_and_goes_on(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            server.on("VRFY", reply(550, "5.1.1 nobody"))
            server.on("RSET", reply(500, "no"))
            with pytest.raises(CommandRefused) as caught:
                await session.verify("x")
            assert caught.value.reply is not None and caught.value.reply.code == 550
            assert caught.value.connection_usable
            assert (await session.command("XYZZY")).code == 500
            assert (await session.noop()).code == 250
            with pytest.raises(CommandRefused):
                await session.reset()

    async def test_a_quit_sent_as_a_command_ends_the_session(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            assert (await session.command("QUIT")).code == 221
            await until(lambda: not session.connected)

    async def test_login_needs_credentials(self) -> None:
        async with speaking(users={"ann": "secret"}) as server, client_of(server) as client:
            async with client.session() as session:
                await session.connect()
                with pytest.raises(InvalidArgument):
                    await session.login()
                wrong = Credentials(username="ann", password="wrong", allow_cleartext=True)
                with pytest.raises(AuthenticationFailed) as caught:
                    await session.login(wrong)
                assert not caught.value.connection_usable
                with pytest.raises(NotConnected):
                    await session.noop()

    @pytest.mark.parametrize(
        "given", [None, Credentials(username="eve", password="other", allow_cleartext=True)]
    )
    async def test_login_with_given_credentials_or_those_of_the_client(
        self, given: Credentials | None
    ) -> None:
        """Connecting does not log in then."""
        async with speaking(users={"ann": "secret", "eve": "other"}) as server:
            async with (
                client_of(server, credentials=KEY, login=Login.MANUAL) as client,
                client.session() as session,
            ):
                await session.connect()
                assert "AUTH" not in server.verbs()
                await session.login(given)
                await session.send(mail())
            assert server.messages[0].user == ("ann" if given is None else "eve")

    async def test_login_takes_the_clients_credentials(self) -> None:
        async with speaking(users={"ann": "secret"}) as server:
            async with client_of(server, credentials=KEY) as client, client.session() as session:
                await session.connect()
                # It did so already when it connected; a second AUTH is the server's to refuse.
                with pytest.raises(AuthenticationFailed, match="503"):
                    await session.login()


class TestSending:
    @every_loop
    async def test_messages_one_after_the_other_small_and_large(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            for n in range(3):
                await session.send(mail(n))
                await session.send(mail(10 + n, text="0123456789\n" * 20_000))
        assert [m.subject for m in server.messages] == [f"message {n}" for n in (0, 10, 1, 11, 2, 12)]
        assert server.connections.opened == 1

    async def test_a_refusal_raises_and_the_session_goes_on(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            server.on("RCPT", reply(550, "5.1.1 no"), match="user1@")
            with pytest.raises(RecipientsRefused) as caught:
                await session.send(mail(1))
            assert caught.value.receipt is not None
            assert (await session.send(mail(2))).outcome is Outcome.ACCEPTED
            partial = await session.send(
                mail(3, to=["user1@example.org", "user3@example.org"]),
                options=SendOptions(must_accept=NOBODY),
            )
            assert partial.outcome is Outcome.PARTIAL

    async def test_what_cannot_be_sent_is_refused_before_a_byte(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            before = server.connections[0].bytes_received
            with pytest.raises(InvalidArgument):
                await session.send("text")
            assert server.connections[0].bytes_received == before

    @pytest.mark.parametrize("point", ["MAIL", "RCPT", "DATA"])
    async def test_it_sends_over_its_own_connection_or_not_at_all(self, point: str) -> None:
        """The pool would try again over another connection, perhaps under another login."""
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            server.on(point, close(), nth=1)
            with pytest.raises(NotSent) as caught:
                await session.send(mail())
            assert isinstance(caught.value.__cause__, ConnectionLost)
            assert caught.value.receipt is not None
            assert caught.value.receipt.outcome is Outcome.NOT_SENT
            await turns()
            assert server.connections.opened == 1
            with pytest.raises(NotConnected):
                await session.send(mail(2))
        assert server.messages == []

    async def test_recipients_of_a_second_transaction_go_over_the_same_connection(self) -> None:
        extensions = ["PIPELINING", "LIMITS RCPTMAX=2"]
        async with speaking(extensions=extensions) as server, client_of(server) as client:
            async with client.session() as session:
                await session.connect()
                receipt = await session.send(mail(1, to=[f"r{n}@example.org" for n in range(5)]))
            assert receipt.outcome is Outcome.ACCEPTED
            assert len(receipt.verdicts) == 5
            assert [len(message.rcpt_tos) for message in server.messages] == [2, 2, 1]
            assert server.connections.opened == 1

    async def test_what_was_accepted_stays_so_when_the_connection_dies_before_the_rest(self) -> None:
        extensions = ["PIPELINING", "LIMITS RCPTMAX=2"]
        async with speaking(extensions=extensions) as server, client_of(server) as client:
            async with client.session() as session:
                await session.connect()
                server.on("MAIL", close(), nth=2)
                receipt = await session.send(mail(1, to=[f"r{n}@example.org" for n in range(4)]))
            assert isinstance(receipt, Receipt)
            assert receipt.outcome is Outcome.PARTIAL
            assert [verdict.outcome for verdict in receipt.verdicts] == [
                *[Outcome.ACCEPTED] * 2,
                *[Outcome.NOT_SENT] * 2,
            ]
            assert server.connections.opened == 1

    async def test_a_connection_that_ends_while_files_are_opened_sends_nothing(self) -> None:
        """It was there when the message was begun with, and may no more be written to."""
        source = SlowToMeasure(b"x" * 100_000)
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            task = asyncio.create_task(session.send(mail(attachments=[Attachment(source)])))
            await until(source.asked.is_set)
            session.abort()
            await session.quit()
            source.go.set()
            with pytest.raises(NotConnected) as caught:
                await task
            assert caught.value.receipt is not None
            assert caught.value.receipt.outcome is Outcome.NOT_SENT
            assert "MAIL" not in server.verbs()

    async def test_it_writes_no_chunks_where_its_client_may_not(self) -> None:
        offer = ["PIPELINING", "CHUNKING"]
        always = SendOptions(chunking="always")
        async with (
            speaking(extensions=offer) as server,
            client_of(server, chunking=False, send=always) as client,
            client.session() as session,
        ):
            await session.connect()
            await session.send(mail(1))
            await session.send(mail(2), options=always)
            assert "BDAT" not in server.verbs() and len(server.messages) == 2

    async def test_abort_ends_a_message_under_way(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            rule = server.on("DATA", delay(asyncio.Event()))
            sending = asyncio.create_task(session.send(mail()))
            await server.wait_fired(rule)
            session.abort()
            (result,) = await gathered(sending)
            assert isinstance(result, NotSent)
            assert isinstance(result.__cause__, Interrupted)
            assert not session.connected

    async def test_an_abort_while_connecting_ends_it(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            rule = server.on("GREETING", delay(asyncio.Event()))
            connecting = asyncio.create_task(session.connect())
            await server.wait_fired(rule)
            session.abort()
            (result,) = await gathered(connecting)
            assert isinstance(result, Interrupted)

    async def test_the_end_of_the_connection_is_noticed_while_idle(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            await server.act(reply(421, "4.3.2 going down"), close())
            await until(lambda: not session.connected)
            with pytest.raises(NotConnected):
                await session.noop()


class TestThePool:
    async def test_a_session_is_never_pooled(self) -> None:
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=2)) as client:
            async with client.session() as session:
                await session.connect()
                await session.send(mail(1))
                await client.send(mail(2))
                assert server.messages[1].connection == 1
            assert server.connections[0].quit
            await client.send(mail(3))
            assert server.messages[2].connection == 1

    async def test_leaving_it_says_quit_and_leaving_by_an_error_does_not(self) -> None:
        async with speaking() as server, client_of(server) as client:
            async with client.session() as session:
                await session.connect()
            with pytest.raises(LookupError):
                async with client.session() as session:
                    await session.connect()
                    raise LookupError
            await server.wait_for_disconnect()
        assert [log.quit for log in server.connections] == [True, False]

    async def test_its_messages_are_counted(self) -> None:
        async with speaking() as server, client_of(server) as client:
            async with client.session() as session:
                await session.connect()
                await session.send(mail())
                assert client.statistics().sent == 1
                assert (client.statistics().open, client.statistics().busy) == (1, 1)


async def test_repr_names_the_server_and_no_secret() -> None:
    async with ScriptedServer(users={"ann": "secret"}) as server:
        async with client_of(server, credentials=KEY, tls=TLSOptions()) as client:
            async with client.session() as session:
                assert repr(session) == f"<Session 1 to 127.0.0.1:{server.port}: greeting>"
                await session.connect()
                assert repr(session) == f"<Session 1 to 127.0.0.1:{server.port}: ready>"
                assert "secret" not in repr(vars(session))


class TestClosing:
    """What a client's `close()` does to its private sessions."""

    async def test_a_command_without_an_answer_ends_with_the_client(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server:
            client = client_of(server, timeouts=Timeouts(close=0.05))
            server.on("VRFY", delay(gate))
            asking = asyncio.create_task(client.verify("bob"))
            await server.wait_until(lambda: "VRFY" in server.verbs())
            await client.close()
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(Interrupted):
                    await asking
            gate.set()

    async def test_a_session_is_not_connected_after_it(self) -> None:
        async with speaking() as server:
            client = client_of(server)
            async with asyncio.timeout(PATIENCE), client.session() as session:
                await client.close()
                with pytest.raises(NotConnected):
                    await session.connect()
            assert server.connections.opened == 0


class TestLoginLater:
    KEY = Credentials(username="ann", password="canary", mechanisms=("PLAIN",), allow_cleartext=True)

    async def test_a_refused_message_is_reset_first(self) -> None:
        """A server says to RCPT that it wants a login: then one logs in and sends again."""
        async with speaking(users={"ann": "canary"}) as server, client_of(server) as client:
            server.on("RCPT", reply(530, "5.7.0 Authentication required"), nth=1)
            async with client.session() as session:
                await session.connect()
                with pytest.raises(RecipientsRefused):
                    await session.send(mail(1))
                assert (await session.login(self.KEY)).code == 235
                assert (await session.send(mail(1))).outcome is Outcome.ACCEPTED
        verbs = server.verbs()
        assert verbs[verbs.index("AUTH") - 1] == "RSET"

    async def test_a_transaction_begun_by_command_is_reset_first(self) -> None:
        async with speaking(users={"ann": "canary"}) as server, client_of(server) as client:
            async with client.session() as session:
                await session.connect()
                await session.command("MAIL FROM:<ann@example.com>")
                assert (await session.login(self.KEY)).code == 235
        assert server.verbs() == ["EHLO", "MAIL", "RSET", "AUTH", "EHLO", "QUIT"]

    async def test_without_a_transaction_nothing_is_reset(self) -> None:
        async with speaking(users={"ann": "canary"}) as server, client_of(server) as client:
            async with client.session() as session:
                await session.connect()
                await session.send(mail(1))
                await session.login(self.KEY)
        assert "RSET" not in server.verbs()

    async def test_a_server_that_does_not_reset_is_shown_no_password(self) -> None:
        async with speaking(users={"ann": "canary"}) as server, client_of(server) as client:
            server.on("RSET", reply(502, "5.5.1 no"))
            async with client.session() as session:
                await session.connect()
                await session.command("MAIL FROM:<ann@example.com>")
                with pytest.raises(CommandRefused) as caught:
                    await session.login(self.KEY)
        told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert "canary" not in "".join(told.format())
        assert "AUTH" not in server.verbs()


class TestLastReply:
    async def test_after_connect_it_is_the_last_of_the_opening(self) -> None:
        async with speaking(users={"ann": "secret"}) as server:
            async with client_of(server) as client, client.session() as session:
                assert session.last_reply is None
                await session.connect()
                assert session.last_reply is not None
                assert session.last_reply.code == 250 and "PIPELINING" in session.last_reply.lines
            async with client_of(server, credentials=KEY) as client, client.session() as session:
                await session.connect()
                # The server is asked once more after the login.
                assert server.verbs(1)[-1] == "EHLO"
                assert session.last_reply is not None
                assert session.last_reply.code == 250 and "PIPELINING" in session.last_reply.lines

    async def test_after_a_failed_connect_it_is_the_refusal(self) -> None:
        async with speaking() as server, client_of(server) as client, client.session() as session:
            server.on("GREETING", reply(421, "4.3.2 down"), close())
            with pytest.raises(GreetingRefused):
                await session.connect()
            assert session.last_reply == Reply(421, (b"4.3.2 down",))


@pytest.mark.parametrize("line", [None, b"NOOP", 5])
async def test_a_command_that_is_no_text_is_refused_and_the_session_goes_on(line: Any) -> None:
    async with speaking() as server, client_of(server) as client, client.session() as session:
        await session.connect()
        for call in (session.command, session.verify, session.expand):
            with pytest.raises(InvalidArgument, match="a text, not"):
                await call(line)
        assert (await session.noop()).code == 250
    assert server.verbs() == ["EHLO", "NOOP", "QUIT"]


class TestCancelledBeforeItWasBegun:
    """No octet of the message was written, so it was certainly not sent."""

    async def told(self, call: Coroutine[Any, Any, Receipt]) -> Receipt:
        """What a call says when it is cancelled."""
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        receipt = vars(caught.value)["receipt"]
        assert isinstance(receipt, Receipt)
        return receipt

    @every_loop
    async def test_while_a_source_is_opened(self) -> None:
        slow = SlowToMeasure(b"data")
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            message = mail(attachments=[Attachment(slow, filename="f.bin")])
            sending = asyncio.create_task(self.told(session.send(message)))
            try:
                await until(slow.asked.is_set)
                sending.cancel()
            finally:
                slow.go.set()
            assert (await sending).outcome is Outcome.NOT_SENT
        assert "MAIL" not in server.verbs()

    @every_loop
    async def test_while_the_server_is_asked_what_it_offers_now(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server) as client, client.session() as session:
            await session.connect()
            server.on("MAIL", reply(555, "5.5.4 unknown parameter"), nth=1)
            asked = server.on("EHLO", delay(gate), default(), nth=1)
            sending = asyncio.create_task(self.told(session.send(mail(text="Grüße"))))
            await server.wait_fired(asked)
            sending.cancel()
            assert (await sending).outcome is Outcome.NOT_SENT
            gate.set()


async def test_a_stream_that_was_to_be_closed_is_closed_when_the_message_has_no_recipient() -> None:
    stream = io.BytesIO(b"Subject: x\r\n\r\nHi\r\n")
    message = Message(sender="ann@example.com", to=[], raw=stream)
    async with ScriptedServer() as server, client_of(server) as client, client.session() as session:
        await session.connect()
        with pytest.raises(MissingRecipient):
            await session.send(message, options=SendOptions(close_source=True))
    assert stream.closed
