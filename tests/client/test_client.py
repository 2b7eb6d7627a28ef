"""What an application sees of `SMTPClient`: how it is made, what it sends, where it belongs, how it ends."""

import asyncio
import io
import os
import traceback
from email.message import EmailMessage
from typing import Any

import pytest

from smtp_async import (
    Address,
    ClientOptions,
    Credentials,
    Kind,
    Message,
    NotSent,
    Outcome,
    OutcomeUnknown,
    PoolLimits,
    Raw,
    Recipient,
    RecipientsRefused,
    Security,
    SenderRefused,
    SendOptions,
    SMTPClient,
    SMTPError,
    Timeouts,
)
from smtp_async.errors import (
    Busy,
    InvalidArgument,
    InvalidPort,
    MessageRefused,
    MissingHost,
    MissingRecipient,
    MissingSender,
    NotConnected,
    SettingInUse,
    StartTLSUnavailable,
    Timeout,
    UsageError,
)
from smtp_async.events import ConnectionStatus, PITrail
from smtp_async.testing import CutProxy, ScriptedServer, delay, reply, stall
from tests.lab import (
    PATIENCE,
    SENDER,
    client_of,
    every_loop,
    gathered,
    impatient,
    mail,
    speaking,
    tls_server,
    trusting,
    turns,
    until,
)
from tests.servers.pki import Pki

pytestmark = pytest.mark.usefixtures("no_leaks")

#: More than the buffers of two sockets take.
LARGE = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 2_500_000
CREDENTIALS = Credentials(username="ann", password="secret")


class TestMaking:
    @pytest.mark.parametrize(
        ("url", "host", "port", "security", "lmtp"),
        [
            ("smtps://mx.test", "mx.test", 465, Security.IMPLICIT, False),
            ("smtps://mx.test:4465", "mx.test", 4465, Security.IMPLICIT, False),
            ("smtp://mx.test", "mx.test", 587, Security.STARTTLS, False),
            ("smtp://mx.test:25", "mx.test", 25, Security.STARTTLS, False),
            ("smtp://mx.test/", "mx.test", 587, Security.STARTTLS, False),
            ("smtp+plain://localhost:1025", "localhost", 1025, Security.PLAINTEXT, False),
            ("smtp+plain://localhost", "localhost", 25, Security.PLAINTEXT, False),
            ("smtp://[2001:db8::1]:2525", "2001:db8::1", 2525, Security.STARTTLS, False),
            ("lmtp://mx.test", "mx.test", 24, Security.OPPORTUNISTIC, True),
            ("lmtp://mx.test:2424", "mx.test", 2424, Security.OPPORTUNISTIC, True),
            ("lmtp+unix:///run/lmtp.sock", "/run/lmtp.sock", 0, Security.PLAINTEXT, True),
            ("lmtp+unix:///run/with%20blank", "/run/with blank", 0, Security.PLAINTEXT, True),
        ],
    )
    def test_from_url(self, url: str, host: str, port: int, security: Security, lmtp: bool) -> None:
        client = SMTPClient.from_url(url)
        assert (client.host, client.port, client.security) == (host, port, security)
        assert client.options.lmtp is lmtp

    async def test_from_url_decodes_user_and_password(self, pki: Pki) -> None:
        async with tls_server(pki, users={"ann@example.com": "p:a/ss"}) as server:
            url = f"smtp://ann%40example.com:p%3Aa%2Fss@localhost:{server.port}"
            async with SMTPClient.from_url(url, options=ClientOptions(tls=trusting(pki))) as client:
                await client.send(mail())
            assert server.messages[0].user == "ann@example.com"

    @pytest.mark.parametrize(
        ("url", "fault"),
        [
            ("smtp://ann:can/ary@mx.test", "its port .* %2F"),
            ("smtp://[::1", "IPv6 address stands in brackets"),
        ],
        ids=["port", "host"],
    )
    def test_from_url_says_what_is_wrong(self, url: str, fault: str) -> None:
        with pytest.raises(InvalidArgument, match=f"not a URL of a mail server: .*{fault}"):
            SMTPClient.from_url(url)

    def test_from_url_keeps_the_options(self) -> None:
        client = SMTPClient.from_url("lmtp://mx.test", options=ClientOptions(hello="me.test"))
        assert client.options == ClientOptions(hello="me.test", lmtp=True)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "mx.test",
            "http://ann:canary@mx.test",
            "smtp://ann:canary@mx.test/path",
            "smtp://ann:canary@mx.test?x=1",
            "smtp://ann:canary@mx.test#x",
            "smtp://ann:canary@mx.test:port",
            "smtp://ann:canary@mx.test:99999",
            "smtp://ann:canary@[::1",
            "smtp://ann:canary@[bad]:1",
            "smtp://ann@mx.test",
            "smtp://:canary@mx.test",
            "smtps://ann:canary@",
            "smtp://",
            "lmtp+unix://ann:canary@host/path",
            "lmtp+unix://",
        ],
    )
    def test_from_url_refuses_without_repeating_the_url(self, url: str) -> None:
        with pytest.raises(InvalidArgument) as caught:
            SMTPClient.from_url(url)
        assert "canary" not in str(caught.value)
        error: BaseException | None = caught.value
        while error is not None:
            assert "canary" not in repr(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

    @pytest.mark.parametrize(
        ("port", "credentials", "security"),
        [
            (465, None, Security.IMPLICIT),
            (465, CREDENTIALS, Security.IMPLICIT),
            (587, None, Security.STARTTLS),
            (587, CREDENTIALS, Security.STARTTLS),
            (None, None, Security.STARTTLS),
            (None, CREDENTIALS, Security.STARTTLS),
            (25, None, Security.OPPORTUNISTIC),
            (25, CREDENTIALS, Security.STARTTLS),
            (2525, None, Security.OPPORTUNISTIC),
            (2525, CREDENTIALS, Security.STARTTLS),
        ],
    )
    def test_auto_goes_by_port_and_credentials(
        self, port: int | None, credentials: Credentials | None, security: Security
    ) -> None:
        assert SMTPClient("mx.test", port, credentials=credentials).security is security

    @pytest.mark.parametrize(
        ("security", "verbs"),
        [
            (Security.AUTO, ["EHLO", "STARTTLS", "EHLO"]),
            (Security.IMPLICIT, ["EHLO"]),
            (Security.STARTTLS, ["EHLO", "STARTTLS", "EHLO"]),
            (Security.OPPORTUNISTIC, ["EHLO", "STARTTLS", "EHLO"]),
            (Security.PLAINTEXT, ["EHLO"]),
        ],
    )
    async def test_when_tls_starts(self, security: Security, verbs: list[str], pki: Pki) -> None:
        options = ClientOptions(tls=trusting(pki))
        async with tls_server(pki, implicit_tls=security is Security.IMPLICIT) as server:
            async with SMTPClient("localhost", server.port, security=security, options=options) as client:
                async with client.session() as session:
                    await session.connect()
                    encrypted = session.info is not None and session.info.encrypted
                    assert encrypted is (security is not Security.PLAINTEXT)
                    assert server.verbs() == verbs

    @pytest.mark.parametrize(
        ("security", "lmtp", "port"),
        [
            (Security.AUTO, False, 587),
            (Security.STARTTLS, False, 587),
            (Security.IMPLICIT, False, 465),
            (Security.PLAINTEXT, False, 25),
            (Security.OPPORTUNISTIC, False, 25),
            (Security.AUTO, True, 24),
        ],
    )
    def test_default_ports(self, security: Security, lmtp: bool, port: int) -> None:
        client = SMTPClient("mx.test", security=security, options=ClientOptions(lmtp=lmtp))
        assert client.port == port

    @pytest.mark.parametrize("port", [0, -1, 65536, 10**6])
    def test_a_port_out_of_range_is_refused(self, port: int) -> None:
        with pytest.raises(InvalidPort) as caught:
            SMTPClient("mx.test", port)
        assert caught.value.code == 116

    def test_a_missing_host_is_refused(self) -> None:
        with pytest.raises(MissingHost) as caught:
            SMTPClient("")
        assert caught.value.code == 163

    def test_opportunistic_never_carries_credentials(self) -> None:
        with pytest.raises(InvalidArgument):
            SMTPClient("mx.test", username="ann", password="x", security=Security.OPPORTUNISTIC)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"username": "ann"},
            {"password": "x"},
            {"username": "", "password": "x"},
            {"username": "ann", "password": "x", "credentials": CREDENTIALS},
        ],
    )
    def test_half_a_login_is_refused(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(InvalidArgument):
            SMTPClient("mx.test", **arguments)

    @pytest.mark.parametrize(("name", "code"), [("host", 101), ("port", 100)])
    def test_host_and_port_cannot_be_changed(self, name: str, code: int) -> None:
        client = SMTPClient("mx.test")
        with pytest.raises(SettingInUse) as caught:
            setattr(client, name, "other")
        assert caught.value.code == code
        assert (client.host, client.port) == ("mx.test", 587)

    @pytest.mark.parametrize(
        "limits",
        [{"max_connections": 0}, {"max_connections": None}, {"max_messages": 0}, {"idle_time": -1.0},
         {"max_age": float("nan")}, {"max_waiting": 0}],
    )  # fmt: skip
    def test_limits_are_above_zero(self, limits: dict[str, Any]) -> None:
        with pytest.raises(InvalidArgument):
            PoolLimits(**limits)

    def test_repr_shows_no_secret(self) -> None:
        client = SMTPClient("mx.test", username="ann", password="canary")
        assert repr(client) == "<SMTPClient mx.test:587 starttls: not used yet>"
        assert "canary" not in repr(vars(client))


class TestSending:
    @every_loop
    async def test_a_message_arrives_as_it_was_meant(self) -> None:
        async with speaking() as server, client_of(server) as client:
            receipt = await client.send(mail(1, text="Grüße", to="bob@example.org", cc="eve@example.org"))
        (received,) = server.messages
        assert received.mail_from == SENDER
        assert received.rcpt_tos == ["bob@example.org", "eve@example.org"]
        assert received.parsed.get_content().splitlines() == ["Grüße"]
        assert receipt.outcome is Outcome.ACCEPTED
        assert receipt.error is None
        assert [verdict.outcome for verdict in receipt.verdicts] == [Outcome.ACCEPTED] * 2
        assert receipt.message_id == received.parsed["Message-ID"]
        assert receipt.reply is not None and receipt.reply.code == 250
        assert receipt.bytes_sent > len(received.data)
        assert server.verbs() == ["EHLO", "MAIL", "RCPT", "RCPT", "DATA", ".", "QUIT"]

    async def test_a_connection_is_opened_for_a_message_and_closed(self) -> None:
        async with speaking() as server:
            async with client_of(server) as client:
                assert server.connections.opened == 0
                receipt = await client.send(mail(1))
            assert receipt.outcome is Outcome.ACCEPTED and len(server.messages) == 1
            assert server.connections.opened == 1
            assert server.verbs() == ["EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]

    async def test_an_email_message_arrives_and_is_not_changed(self) -> None:
        message = EmailMessage()
        message["From"], message["To"], message["Bcc"] = SENDER, "bob@example.org", "secret@example.org"
        message["Subject"] = "standard"
        message.set_content("Hi")
        before = message.as_bytes()
        async with speaking() as server, client_of(server) as client:
            await client.send(message)
        (received,) = server.messages
        assert received.rcpt_tos == ["bob@example.org", "secret@example.org"]
        assert received.subject == "standard"
        assert b"secret" not in received.data
        assert message.as_bytes() == before

    @pytest.mark.parametrize("foreign", [False, True])
    async def test_the_envelope_can_be_given(self, foreign: bool) -> None:
        message: Any = mail(1, to="bob@example.org")
        if foreign:
            message = EmailMessage()
            message["From"], message["To"] = SENDER, "bob@example.org"
        async with speaking() as server, client_of(server) as client:
            await client.send(message, sender="bounces@example.com")
            await client.send(message, sender="<>")
            receipt = await client.send(
                message, recipients=["a@x.test", Address.parse("b@x.test"), Recipient("c@x.test", Kind.BCC)]
            )
            await client.send(message, sender="s@x.test", recipients=["r@x.test"])
        envelopes = [(one.mail_from, one.rcpt_tos) for one in server.messages]
        assert envelopes == [
            ("bounces@example.com", ["bob@example.org"]),
            ("", ["bob@example.org"]),
            (SENDER, ["a@x.test", "b@x.test", "c@x.test"]),
            ("s@x.test", ["r@x.test"]),
        ]
        assert [verdict.recipient.kind for verdict in receipt.verdicts] == [Kind.TO, Kind.TO, Kind.BCC]
        assert all(one.parsed["From"] == SENDER for one in server.messages)

    async def test_an_envelope_given_in_full_needs_none_in_the_message(self) -> None:
        async with speaking() as server, client_of(server) as client:
            await client.send_raw(b"Subject: bare\n\nx\n", sender="<>", recipients=["bob@example.org"])
            with pytest.raises(MissingSender):  # RFC 5322 section 3.6: From is not optional
                await client.send(Message(text="x"), sender="<>", recipients=["bob@example.org"])
        assert [m.rcpt_tos for m in server.messages] == [["bob@example.org"]]

    async def test_a_raw_message_is_sent_under_its_own_envelope_or_another(self) -> None:
        source = b"From: ann@example.com\nTo: bob@example.org\nBcc: eve@example.org\nSubject: raw\n\nbody\n"
        async with speaking() as server, client_of(server) as client:
            await client.send_raw(source)
            await client.send_raw(source, sender="x@example.com", recipients=["y@example.org"])
        first, second = server.messages
        assert first.rcpt_tos == ["bob@example.org", "eve@example.org"]
        assert (second.mail_from, second.rcpt_tos) == ("x@example.com", ["y@example.org"])
        assert first.data == second.data
        assert b"Bcc" not in first.data
        assert first.data.endswith(b"\r\n\r\nbody\r\n")

    async def test_a_message_that_cannot_be_sent_never_reaches_the_server(self) -> None:
        async with speaking() as server, client_of(server) as client:
            with pytest.raises(MissingSender) as no_sender:
                await client.send(Message(to="bob@example.org", text="x"))
            with pytest.raises(MissingRecipient) as no_recipient:
                await client.send(Message(sender=SENDER, text="x"))
            with pytest.raises(MissingRecipient):
                await client.send(mail(), recipients=[])
            with pytest.raises(InvalidArgument):
                await client.send(mail(), recipients="bob@example.org")
            with pytest.raises(InvalidArgument):
                await client.send("text")  # type: ignore[arg-type]
            assert (no_sender.value.code, no_recipient.value.code) == (164, 165)
            assert server.connections.opened == 0

    async def test_the_stream_of_a_message_that_cannot_be_sent_is_closed_if_that_was_asked(self) -> None:
        options = SendOptions(close_source=True)
        async with speaking() as server, client_of(server) as client:
            for close in (True, False):
                stream = io.BytesIO(b"Subject: x\r\n\r\nx\r\n")
                message = Message(sender=SENDER, raw=stream)
                with pytest.raises(MissingRecipient):
                    await client.send(message, options=options if close else None)
                assert stream.closed is close
                results = [one async for one in client.send_all([message], options=options)]
                assert [receipt.outcome for _, receipt in results] == [Outcome.NOT_SENT]
                assert stream.closed
            assert server.connections.opened == 0

    async def test_a_raw_is_sent_as_by_send_raw(self) -> None:
        source = b"From: ann@example.com\nTo: bob@example.org\nBcc: eve@example.net\n\nbody\n"
        async with speaking() as server, client_of(server) as client:
            await client.send(Raw(source))
            await client.send(Raw(source), recipients=["cy@example.org"])
            await client.send_raw(source)
        first, second, third = server.messages
        assert first.rcpt_tos == third.rcpt_tos == ["bob@example.org", "eve@example.net"]
        assert second.rcpt_tos == ["cy@example.org"]
        assert first.data == second.data == third.data
        assert b"Bcc" not in first.data

    async def test_every_refusal_has_its_class_and_its_receipt(self) -> None:
        async with speaking() as server, client_of(server) as client:
            server.on("MAIL", reply(550, "5.7.1 not you"), match="bad@")
            server.on("RCPT", reply(550, "5.1.1 nobody"), match="nobody@")
            server.on("RCPT", reply(452, "4.2.2 full"), match="full@")
            with pytest.raises(SenderRefused) as sender:
                await client.send(mail(1, sender="bad@example.com"))
            with pytest.raises(RecipientsRefused) as recipient:
                await client.send(mail(2, to=["nobody@example.org", "bob@example.org"]))
            with pytest.raises(RecipientsRefused) as full:
                await client.send(mail(3, to="full@example.org"))
            server.on("DATA", reply(451, "4.3.0 later"), nth=1)
            server.on(".", reply(554, "5.6.0 no"), nth=1)
            with pytest.raises(MessageRefused) as data:
                await client.send(mail(4))
            with pytest.raises(MessageRefused) as content:
                await client.send(mail(5))
            receipt = await client.send(mail(6))
        assert receipt.outcome is Outcome.ACCEPTED
        assert [m.subject for m in server.messages] == ["message 6"]
        assert server.connections.opened == 1
        outcomes = {
            error.value.receipt.outcome: error.value.reply
            for error in (sender, recipient, full, data, content)
            if error.value.receipt
        }
        assert list(outcomes) == [Outcome.REFUSED]
        assert sender.value.receipt is not None and sender.value.receipt.reply is sender.value.reply
        assert recipient.value.receipt is not None
        first, second = recipient.value.receipt.verdicts
        assert (first.outcome, second.outcome) == (Outcome.REFUSED, Outcome.NOT_SENT)
        assert (full.value.temporary, content.value.temporary) == (True, False)
        assert data.value.stage == "DATA"

    async def test_verify_and_expand_use_a_connection_of_their_own(self) -> None:
        lists = {"staff": ["ann@example.com", "bob@example.com"]}
        async with speaking(lists=lists) as server, client_of(server) as client:
            assert (await client.verify("ann")).code == 252
            members = await client.expand("staff")
            assert [str(one) for one in members] == ["ann@example.com", "bob@example.com"]
            assert [one.name for one in members] == ["", ""]
            with pytest.raises(SMTPError, match="550"):
                await client.expand("nobody")
        assert [log.quit for log in server.connections] == [True, True, False]

    async def test_a_caught_error_may_be_cleared_while_the_connection_says_quit(self) -> None:
        """As unittest does with the frames of what it catches: the connection's own must not be among them."""
        gate = asyncio.Event()
        brief = impatient(5.0, quit=0.1, close=0.1)
        async with (
            speaking() as server,
            client_of(server, security=Security.STARTTLS, timeouts=brief) as client,
        ):
            server.on("QUIT", delay(gate), reply(221, "bye"))
            async with client.session() as session:
                with pytest.raises(StartTLSUnavailable) as caught:
                    await session.connect()
                traceback.clear_frames(caught.tb)
            gate.set()
            await until(lambda: not server.connections.open)
        assert client.statistics().open == 0

    async def test_check_reports_and_never_raises(self) -> None:
        async with speaking() as server, client_of(server) as client:
            report = await client.check()
            assert report.error is None
            assert report.greeting is not None and report.greeting.code == 220
            assert report.extensions.pipelining
            server.on("GREETING", reply(554, "5.3.2 closed"))
            broken = await client.check()
            assert broken.error is not None and not broken.ok


class TestDeadline:
    async def test_a_message_that_still_waits_is_not_sent(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
            # One connection carries two messages at level 2, so a third one waits in the queue.
            server.on(".", delay(gate), reply(250, "2.0.0 Ok"), nth=1)
            server.on("GREETING", delay(gate), reply(220, "late"), nth=1)
            with pytest.raises(NotSent) as caught:
                await client.send(mail(), deadline=0.05)
            gate.set()
            assert isinstance(caught.value.__cause__, Timeout)
            assert caught.value.receipt is not None
            assert caught.value.receipt.outcome is Outcome.NOT_SENT
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
            assert client.statistics().not_sent == 1
        assert [m.subject for m in server.messages] == ["message 2"]

    @pytest.mark.parametrize("point", ["MAIL", "RCPT", "DATA"])
    async def test_a_message_that_waits_for_an_envelope_reply_is_not_sent(self, point: str) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server) as client:
            rule = server.on(point, delay(gate), reply(354 if point == "DATA" else 250, "late"), nth=1)
            with pytest.raises(NotSent) as caught:
                await client.send(mail(), deadline=0.1)
            assert rule.fired == 1
            gate.set()
            assert caught.value.receipt is not None
            assert caught.value.receipt.outcome is Outcome.NOT_SENT
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
        assert [m.subject for m in server.messages] == ["message 2"]

    async def test_a_message_whose_end_has_left_is_unknown(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server, client_of(server) as client:
            server.on(".", delay(gate), reply(250, "2.0.0 Ok"), nth=1)
            with pytest.raises(OutcomeUnknown) as caught:
                await client.send(mail(), deadline=0.1)
            gate.set()
            await server.wait_for_messages(1)
            assert caught.value.receipt is not None
            assert caught.value.receipt.outcome is Outcome.UNKNOWN
            assert isinstance(caught.value.__cause__, Timeout)
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
        assert [m.subject for m in server.messages] == ["message 1", "message 2"]

    async def test_the_default_is_that_of_the_timeouts(self) -> None:
        async with speaking() as server, client_of(server, timeouts=Timeouts(send=0.05)) as client:
            server.on("GREETING", stall())
            with pytest.raises(NotSent, match="deadline"):
                await client.send(mail())

    async def test_a_large_message_stops_in_its_body_and_never_arrives(self) -> None:
        async with speaking() as server, client_of(server) as client:
            server.on("BODY", stall(), after=100_000)
            with pytest.raises(NotSent):
                await client.send_raw(LARGE, sender=SENDER, recipients=["bob@example.org"], deadline=0.5)
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
        assert [m.subject for m in server.messages] == ["message 2"]


class TestBelonging:
    async def test_a_client_may_be_made_before_a_loop_runs(self) -> None:
        clients: list[SMTPClient] = []
        async with speaking() as server:
            await asyncio.to_thread(lambda: clients.append(client_of(server)))
            async with clients[0] as client:
                assert (await client.send(mail())).outcome is Outcome.ACCEPTED

    def test_a_second_event_loop_is_refused(self) -> None:
        client = SMTPClient("127.0.0.1", 1, security=Security.PLAINTEXT)

        async def use() -> None:
            with pytest.raises(SMTPError):
                await client.send(mail())

        async def use_again() -> None:
            for call in (client.send(mail()), client.check(), client.verify("x"), client.close()):
                with pytest.raises(UsageError, match="another event loop"):
                    await call
            with pytest.raises(UsageError, match="another event loop"):
                async with client.session():
                    pass

        with asyncio.Runner() as first, asyncio.Runner() as second:
            first.run(use())
            second.run(use_again())
            # The refused close() closed nothing, so the right loop still can.
            first.run(client.close())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    async def test_a_forked_child_is_refused(self) -> None:
        async with speaking() as server, client_of(server) as client:
            await client.send(mail())
            read, write = os.pipe()
            child = os.fork()
            if child == 0:  # pragma: no cover
                try:
                    client.send(mail()).send(None)
                except UsageError as error:
                    os.write(write, str(error).encode())
                finally:
                    os._exit(0)
            os.close(write)
            said = os.read(read, 1000)
            os.close(read)
            os.waitpid(child, 0)  # noqa: ASYNC222 - it has said its only word
            assert b"forked" in said
            assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED

    @every_loop
    async def test_a_hook_cannot_use_the_client_it_observes(self) -> None:
        caught: list[BaseException] = []
        async with speaking() as server, client_of(server) as client:

            async def hook(event: ConnectionStatus) -> None:
                for call in (client.send, client.send_raw, client.check, client.verify, client.close):
                    arguments = {client.send: (mail(9),), client.send_raw: (b"",), client.verify: ("x",)}
                    try:
                        await call(*arguments.get(call, ()))
                    except SMTPError as error:
                        caught.append(error)

            client.on(ConnectionStatus, hook)
            assert (await client.send(mail())).outcome is Outcome.ACCEPTED
            client.off(ConnectionStatus, hook)
        assert len(caught) == 5
        assert all(isinstance(error, Busy) and isinstance(error, UsageError) for error in caught)
        assert [m.subject for m in server.messages] == ["message 1"]

    async def test_a_task_that_a_hook_starts_may_use_the_client(self) -> None:
        tasks: list[asyncio.Task[Any]] = []
        async with speaking() as server, client_of(server) as client:

            @client.on(PITrail)
            def hook(event: PITrail) -> None:
                if not tasks:
                    tasks.append(asyncio.get_running_loop().create_task(client.send(mail(2))))

            await client.send(mail(1))
            await tasks[0]
        assert sorted(m.subject for m in server.messages) == ["message 1", "message 2"]


class TestClosing:
    @every_loop
    async def test_close_lets_running_messages_end_and_fails_waiting_ones(self) -> None:
        gate = asyncio.Event()
        async with speaking() as server:
            client = client_of(server, pool=PoolLimits(max_connections=2))
            server.on(".", delay(gate), reply(250, "2.0.0 Ok"))
            tasks = [asyncio.create_task(client.send(mail(n))) for n in range(20)]
            await server.wait_until(lambda: server.verbs().count(".") == 2)
            closing = asyncio.create_task(client.close())
            await until(lambda: sum(task.done() for task in tasks) >= 16)
            assert not closing.done()
            gate.set()
            results = await gathered(*tasks)
            await closing
            assert server.connections.open == 0
            assert all(log.quit for log in server.connections)
        sent = {f"message {n}" for n, result in enumerate(results) if not isinstance(result, Exception)}
        failed = [result for result in results if isinstance(result, Exception)]
        assert {m.subject for m in server.messages} == sent
        assert len(sent) >= 2
        for error in failed:
            assert isinstance(error, SMTPError)
            assert error.receipt is not None and error.receipt.outcome is Outcome.NOT_SENT
        assert client.statistics().open == 0
        assert "closed" in repr(client)

    async def test_close_does_not_wait_longer_than_its_limit(self) -> None:
        async with speaking() as server:
            client = client_of(server, timeouts=Timeouts(close=0.1))
            rule = server.on(".", stall())
            task = asyncio.create_task(client.send(mail()))
            await server.wait_fired(rule)
            await client.close()
            with pytest.raises(OutcomeUnknown):
                await task

    async def test_close_ends_a_connection_that_is_being_opened(self) -> None:
        async with speaking() as server:
            client = client_of(server)
            rule = server.on("GREETING", stall())
            task = asyncio.create_task(client.send(mail()))
            await server.wait_fired(rule)
            async with asyncio.timeout(PATIENCE):
                await client.close()
            with pytest.raises(SMTPError) as caught:
                await task
            assert caught.value.receipt is not None
            assert caught.value.receipt.outcome is Outcome.NOT_SENT

    @pytest.mark.parametrize("used", [False, True])
    async def test_a_closed_client_sends_no_more(self, used: bool) -> None:
        async with speaking() as server:
            client = client_of(server)
            if used:
                await client.send(mail())
            await client.close()
            await client.close()
            with pytest.raises(NotConnected, match="closed"):
                await client.send(mail(2))
            with pytest.raises(NotConnected, match="closed"):
                async with client.session():
                    pass
            with pytest.raises(NotConnected, match="closed"):
                async with client:
                    pass
            assert client.statistics().sent == used

    async def test_close_ends_although_a_hook_never_returns(self) -> None:
        async with speaking() as server:
            client = client_of(server, timeouts=Timeouts(close=0.05))

            async def hook(event: object) -> None:
                await asyncio.Event().wait()

            await client.send(mail())
            client.on(PITrail, hook)
            client.on(ConnectionStatus, hook)
            task = asyncio.create_task(client.send(mail(2)))
            await turns()
            async with asyncio.timeout(PATIENCE):
                await client.close()
            await gathered(task)
            assert client.statistics().open == 0

    async def test_closing_while_a_session_is_out_ends_that_session(self) -> None:
        async with speaking() as server:
            client = client_of(server)
            async with client.session() as session:
                await session.connect()
                await client.close()
                with pytest.raises(NotConnected):
                    await session.noop()
            assert server.connections[0].quit


async def test_a_client_works_through_a_proxy_that_only_counts() -> None:
    async with (
        ScriptedServer() as server,
        CutProxy(server.host, server.port) as proxy,
        client_of(proxy) as client,
    ):
        await client.send(mail())
        assert server.messages
