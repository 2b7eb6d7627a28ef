"""Servers and networks that misbehave: every outcome is honest, every error has its class, nothing hangs.

The ground truth is what the scripted server recorded: *accepted* means recorded once, *not sent* and *refused* mean
not recorded, *unknown* promises nothing. `demand_honest` compares.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from smtp_async import (
    NOBODY,
    Credentials,
    MessageRefused,
    NotSent,
    Outcome,
    OutcomeUnknown,
    PoolLimits,
    Receipt,
    Security,
    SenderRefused,
    SendOptions,
    SMTPClient,
    SMTPError,
    Timeouts,
)
from smtp_async.errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    CertificateRejected,
    ChainNotFound,
    ConnectionLost,
    GreetingRefused,
    HandshakeFailed,
    HelloRefused,
    InvalidArgument,
    PlaintextInjected,
    ProtocolViolation,
    ReplyTooLong,
    SocketError,
    StartTLSRefused,
    StartTLSUnavailable,
    Timeout,
    TLSError,
    WrongTLSMode,
)
from smtp_async.testing import (
    Action,
    Cut,
    CutManner,
    CutProxy,
    Direction,
    RecordingSink,
    ScriptedServer,
    Step,
    close,
    cut,
    default,
    delay,
    drip,
    endless,
    flush,
    raw,
    reply,
    reset,
    swallow,
    wait_input,
)
from tests.lab import (
    PATIENCE,
    SENDER,
    client_of,
    every_loop,
    every_settable_loop,
    gathered,
    impatient,
    mail,
    mute,
    sampled,
    set_clock_forward,
    tls_server,
    trusting,
    turns,
    until,
)
from tests.servers.pki import Pki
from tests.servers.postfix import Postfix

pytestmark = pytest.mark.usefixtures("no_leaks")


async def stop_reading(step: Step) -> None:
    """Take nothing more from the socket: the client's writes pile up. Ends when the test aborts the connection."""
    await step.flush()
    step.connection.transport.pause_reading()
    await asyncio.shield(step.connection.gone)


POINTS = ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "."]
KEY = Credentials(username="ann", password="secret", allow_cleartext=True)


def causes(error: BaseException | None) -> list[type]:
    """The classes of an error and of what it came from."""
    found: list[type] = []
    while error is not None:
        found.append(type(error))
        error = error.__cause__
    return found


def outcome_of(result: Any) -> Outcome:
    if isinstance(result, Receipt):
        return result.outcome
    assert isinstance(result, SMTPError), result
    assert result.receipt is not None, repr(result)
    return result.receipt.outcome


async def worked_off(server: ScriptedServer) -> None:
    """Wait until the server has done everything that it will do."""
    await until(lambda: not server.tasks)


def demand_honest(server: ScriptedServer, results: dict[int, Any]) -> None:
    """Compare what the callers were told with what the server recorded."""
    recorded = Counter(message.subject for message in server.messages)
    for n, result in results.items():
        count = recorded[f"message {n}"]
        outcome = outcome_of(result)
        if outcome is Outcome.UNKNOWN:
            assert count <= 1
        else:
            assert count == (outcome is Outcome.ACCEPTED), (n, outcome, count)
    for message in server.messages:
        assert message.rcpt_tos == [f"user{message.subject.split()[-1]}@example.org"]


def with_an_extra_reply(point: str, extra: bytes, *, late: bool) -> Outcome:
    """Return the outcome of a message whose first connection got `extra` behind the right reply at `point`.

    An extra reply shifts the pairing of replies and commands until one does not fit. Then the connection is dropped,
    and what was not sent is sent over another one.
    """
    at_once = not late and extra.endswith(b"\n")
    if point == "GREETING" or (point == "EHLO" and at_once):
        # A connection that fails while it is being opened fails the message, and is not tried again.
        return Outcome.NOT_SENT
    if point == "RCPT" and extra.startswith(b"550"):
        # Read as the reply to DATA.
        return Outcome.REFUSED
    if point == "DATA" and extra == b"x":
        # Part of the reply to the end of data, which thereby is none.
        return Outcome.UNKNOWN
    return Outcome.ACCEPTED


@asynccontextmanager
async def one_message(
    point: str, *actions: Action, nth: Any = None, timeouts: Timeouts | None = None, **options: Any
) -> AsyncIterator[tuple[ScriptedServer, Any]]:
    """Send message 1 to a server that deviates at a point; gives the server and what came of it."""
    async with ScriptedServer(**options) as server:
        server.on(point, *actions, nth=nth)
        client = client_of(server, timeouts=timeouts or impatient(), pool=PoolLimits(max_connections=1))
        async with asyncio.timeout(PATIENCE):
            (result,) = await gathered(client.send(mail(1)))
            await client.close()
        await worked_off(server)
        demand_honest(server, {1: result})
        yield server, result


# --- replies -------------------------------------------------------------------------------------------------

MALFORMED = [
    b"\r\n",
    b"2\r\n",
    b"25\r\n",
    b"+25 ok\r\n",
    b" 250 ok\r\n",
    b"2_5 ok\r\n",
    b"2500 ok\r\n",
    b"250ok\r\n",
    b"199 early\r\n",
    b"600 late\r\n",
    b"000 zero\r\n",
    b"OK\r\n",
    b"\xd9\xa2\xd9\xa5\xd9\xa0 ok\r\n",
    b"250 nul \0 here\r\n",
    b"250-one\r\n251 two\r\n",
    b"250-one\r\n550 two\r\n",
    b"250-one\r\nGARBAGE\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x00" * 64 + b"\n",
    b"\xff\xfe\xfd\n",
]


class TestReplies:
    @pytest.mark.parametrize("point", POINTS)
    @pytest.mark.parametrize("data", MALFORMED, ids=repr)
    async def test_malformed(self, point: str, data: bytes) -> None:
        async with one_message(point, raw(data), timeouts=impatient(1.0)) as (server, result):
            assert isinstance(result, SMTPError)
            assert ProtocolViolation in causes(result)
            assert outcome_of(result) is (Outcome.UNKNOWN if point == "." else Outcome.NOT_SENT)
            assert "\0" not in str(result) and "\r" not in str(result)

    @pytest.mark.parametrize("point", POINTS)
    @pytest.mark.parametrize(
        "flood",
        [
            endless(b"x" * 1024, start=b"250 "),
            endless(b"250-more\r\n"),
            endless(b"250-\r\n"),
            endless(b"250-" + b"x" * 500 + b"\r\n"),
            endless(b"250-" + b"x" * 3000 + b"\r\n"),
        ],
        ids=["line", "lines", "empty lines", "long lines", "longer lines"],
    )
    @every_loop
    async def test_endless(self, point: str, flood: Action) -> None:
        before = time.process_time()
        async with one_message(point, flood, timeouts=impatient(5.0)) as (_, result):
            assert time.process_time() - before < 2.0
            assert ReplyTooLong in causes(result)
            assert outcome_of(result) is (Outcome.UNKNOWN if point == "." else Outcome.NOT_SENT)

    @pytest.mark.parametrize("point", POINTS)
    @pytest.mark.parametrize("keep", [0, 1, 3, 4, 10])
    async def test_the_end_of_the_stream_inside_a_reply(self, point: str, keep: int) -> None:
        async with one_message(point, cut(keep)) as (_, result):
            assert ConnectionLost in causes(result)
            assert outcome_of(result) is (Outcome.UNKNOWN if point == "." else Outcome.NOT_SENT)

    @pytest.mark.parametrize("point", POINTS)
    @pytest.mark.parametrize("end", [close(), reset()], ids=["fin", "rst"])
    @every_loop
    async def test_421_at_any_stage(self, point: str, end: Action) -> None:
        async with one_message(point, reply(421, "4.3.2 going down"), end) as (_, result):
            if point == "GREETING" and type(result) is SocketError:
                # A reset may come before the event loop has looked at the new connection, and fails it.
                assert result.temporary and outcome_of(result) is Outcome.NOT_SENT
                return
            self._goes_down(point, result)

    @pytest.mark.parametrize("point", POINTS)
    @every_settable_loop
    async def test_421_of_a_server_that_keeps_the_connection(self, point: str) -> None:
        async def stay(step: Step) -> None:
            await turns()
            # The client waits five seconds for the end of the connection.
            set_clock_forward(5)
            await mute(step)

        async with ScriptedServer() as server:
            server.on(point, reply(421, "4.3.2 going down"), flush(), stay)
            async with client_of(server, timeouts=impatient(), pool=PoolLimits(max_connections=1)) as client:
                # Not `gathered`, whose patience is less than what the clock is set forward in several attempts.
                (result,) = await asyncio.gather(client.send(mail(1)), return_exceptions=True)
            await worked_off(server)
        self._goes_down(point, result)

    def _goes_down(self, point: str, result: Any) -> None:
        assert isinstance(result, SMTPError)
        assert "421 4.3.2 going down" in str(result)
        # Behind a 421 nothing was accepted: as the reply to the end of data it is a refusal.
        assert outcome_of(result) is (Outcome.REFUSED if point == "." else Outcome.NOT_SENT)
        assert result.temporary

    @pytest.mark.parametrize("point", POINTS)
    @pytest.mark.parametrize(
        "extra", [b"250 2.0.0 extra\r\n", b"354 go ahead\r\n", b"550 5.0.0 no\r\n", b"220 hello\r\n", b"x"]
    )
    @pytest.mark.parametrize("late", [False, True], ids=["glued", "a segment of its own"])
    async def test_an_unexpected_reply(self, point: str, extra: bytes, late: bool) -> None:
        if late and point == "DATA":
            # While the body is being sent, a reply is taken for the reply to it: a false one looks the same.
            extra = b"x"
        between = (flush(), delay(0.01)) if late else ()
        async with one_message(point, default(), *between, raw(extra), nth=1) as (server, result):
            assert outcome_of(result) is with_an_extra_reply(point, extra, late=late)
            if point in ("GREETING", "EHLO") and not late and extra != b"x":
                assert "DATA" not in server.verbs(0)

    @pytest.mark.parametrize("point", POINTS)
    @pytest.mark.parametrize("code", [250, 354, 550])
    async def test_a_reply_before_its_command(self, point: str, code: int) -> None:
        """Two replies where one is due, then the server waits for the client: as a desynchronised one would."""
        async with one_message(
            point, default(), raw(b"%d early\r\n" % code), wait_input(), close(), nth=1
        ) as (_, result):
            if (point, code) == ("RCPT", 354):
                # Read as the reply to DATA, so the body is sent; the connection ends without a reply to it.
                assert outcome_of(result) is Outcome.UNKNOWN
            else:
                assert outcome_of(result) is with_an_extra_reply(point, b"%d early\r\n" % code, late=False)

    async def test_a_third_class_reply_to_the_end_of_data_is_no_verdict(self) -> None:
        async with one_message(".", swallow(), raw(b"354 more?\r\n")) as (server, result):
            assert len(server.messages) == 1
            assert outcome_of(result) is Outcome.UNKNOWN
            assert ProtocolViolation in causes(result)

    @pytest.mark.parametrize("point", ["MAIL", "RCPT", "DATA", "."])
    @pytest.mark.parametrize("code", [299, 345, 399, 471, 499, 560, 599])
    async def test_an_unknown_code_counts_by_its_first_digit(self, point: str, code: int) -> None:
        async with one_message(point, reply(code, "odd"), nth=1, timeouts=impatient(PATIENCE)) as (_, result):
            if code == 299 and point != "DATA":
                assert outcome_of(result) is Outcome.ACCEPTED
            elif code >= 400:
                assert outcome_of(result) is Outcome.REFUSED
                assert result.reply.code == code
                assert result.temporary is (code < 500)
                assert result.connection_usable

    @pytest.mark.parametrize("split", ["byte", "line"])
    @every_loop
    async def test_replies_in_pieces_are_replies(self, split: Any) -> None:
        async with ScriptedServer(split=split, users={"ann": "secret"}) as server:
            async with client_of(server, credentials=KEY) as client:
                receipts = await gathered(*(client.send(mail(n)) for n in range(5)))
            demand_honest(server, dict(enumerate(receipts)))
            assert all(outcome_of(receipt) is Outcome.ACCEPTED for receipt in receipts)

    async def test_bytes_that_drip_do_not_restart_the_clock(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        async with one_message("EHLO", drip(default(), interval=0.05), timeouts=impatient(5, hello=0.3)) as (
            _,
            result,
        ):
            assert Timeout in causes(result)
            assert loop.time() - before < 5.0

    @pytest.mark.parametrize(
        ("point", "limit", "stage"),
        [("GREETING", "greeting", "greeting"), ("EHLO", "hello", "EHLO"), ("MAIL", "mail", "MAIL"),
         ("RCPT", "rcpt", "RCPT"), ("DATA", "data", "DATA"), (".", "end_of_data", "end of data")],
    )  # fmt: skip
    @every_loop
    async def test_silence_ends_with_a_timeout_that_names_the_stage(
        self, point: str, limit: str, stage: str
    ) -> None:
        timeouts = impatient(PATIENCE, quit=0.1, **{limit: 0.1})
        async with one_message(point, mute, timeouts=timeouts) as (_, result):
            error: Any = result
            while not isinstance(error, Timeout):
                error = error.__cause__
            assert error.stage == stage
            assert error.code == 201 and isinstance(error, TimeoutError)
            assert outcome_of(result) is (Outcome.UNKNOWN if point == "." else Outcome.NOT_SENT)

    async def test_text_of_a_reply_cannot_forge_lines(self) -> None:
        text = "5.1.1 \x1b[2J\x07 \u202e evil \r now \x85" + "y" * 1500
        async with one_message("RCPT", reply(550, text)) as (_, result):
            shown = str(result)
            assert shown.isprintable() or "…" in shown
            assert len(shown) < 1200
            assert not {"\x1b", "\x07", "\u202e", "\r", "\n", "\x85"} & set(shown)


# --- opening -------------------------------------------------------------------------------------------------


class TestOpening:
    @pytest.mark.parametrize("code", [554, 450, 530])
    async def test_a_refused_greeting(self, code: int) -> None:
        async with one_message("GREETING", reply(code, "no")) as (server, result):
            assert type(result) is GreetingRefused
            assert server.verbs() == ["QUIT"]

    async def test_a_refused_ehlo_falls_back_to_helo(self) -> None:
        async with one_message("EHLO", reply(502, "5.5.1 what?")) as (server, result):
            assert outcome_of(result) is Outcome.ACCEPTED
            assert server.verbs()[:3] == ["EHLO", "HELO", "MAIL"]

    async def test_a_refused_helo_is_the_end(self) -> None:
        async with ScriptedServer() as server, client_of(server) as client:
            server.on("EHLO", reply(500))
            server.on("HELO", reply(550, "5.7.1 go"))
            with pytest.raises(HelloRefused):
                await client.send(mail())

    @pytest.mark.parametrize("code", [421, 450])
    async def test_a_temporary_refusal_of_ehlo_is_no_reason_for_helo(self, code: int) -> None:
        async with one_message("EHLO", reply(code, "later")) as (server, result):
            assert type(result) is HelloRefused
            assert "HELO" not in server.verbs()

    @pytest.mark.parametrize("what", ["login", "starttls"])
    async def test_where_tls_or_auth_is_wanted_there_is_no_helo(self, what: str, pki: Pki) -> None:
        async with tls_server(pki, users={"ann": "secret"}) as server:
            options: dict[str, Any] = {"credentials": KEY}
            if what == "starttls":
                options = {"security": Security.STARTTLS, "tls": trusting(pki), "host": "localhost"}
            server.on("EHLO", reply(502, "5.5.1 what?"))
            async with client_of(server, **options) as client:
                with pytest.raises(HelloRefused):
                    await client.send(mail())
            assert set(server.verbs()) == {"EHLO", "QUIT"}

    @pytest.mark.parametrize(
        "hello", ["bad\r\nMAIL FROM:<x@y>", "a b", "<x>", "x\0", "me XCLIENT ADDR=1.2.3.4"]
    )
    async def test_a_name_that_is_none_never_leaves(self, hello: str) -> None:
        async with ScriptedServer() as server:
            with pytest.raises(InvalidArgument, match="cannot be sent in EHLO"):
                client_of(server, hello=hello)
            assert server.connections.opened == 0


# --- TLS -----------------------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT])
CANARY = "c4n4ry-p4ssw0rd"


def tls_client(server: ScriptedServer, pki: Pki, security: Security, **options: Any) -> SMTPClient:
    """A client that wants TLS and has a password to lose."""
    return client_of(
        server,
        **{
            "host": "localhost",
            "security": security,
            "tls": trusting(pki),
            "username": "ann",
            "password": CANARY,
            "timeouts": impatient(2.0),
            **options,
        },
    )


def demand_nothing_in_clear(server: ScriptedServer) -> None:
    """Nothing but greetings and STARTTLS was said in clear, and nothing was delivered."""
    assert server.messages == []
    for line in server.commands:
        assert line.tls or line.verb in ("EHLO", "STARTTLS", "QUIT"), line
    for log in server.connections:
        for secret in (b"AUTH", b"MAIL", CANARY.encode(), b"message 1"):
            assert secret not in log.raw


class TestTLS:
    @BOTH
    @pytest.mark.parametrize(
        ("leaf", "kind", "words"),
        [
            ("expired", CertificateRejected, "expired on"),
            ("wrong_host", CertificateRejected, "is for other.example, not for localhost"),
            ("self_signed", ChainNotFound, "is self-signed"),
        ],
    )
    @every_loop
    async def test_a_bad_certificate(
        self, security: Security, leaf: str, kind: type[SMTPError], words: str, pki: Pki
    ) -> None:
        implicit = security is Security.IMPLICIT
        async with tls_server(
            pki, getattr(pki, leaf), users={"ann": CANARY}, implicit_tls=implicit
        ) as server:
            async with tls_client(server, pki, security) as client:
                with pytest.raises(kind, match=words) as caught:
                    await client.send(mail())
                assert outcome_of(caught.value) is Outcome.NOT_SENT
                assert client.statistics().open == 0
            demand_nothing_in_clear(server)

    @BOTH
    async def test_an_untrusted_issuer(self, security: Security, pki: Pki) -> None:
        implicit = security is Security.IMPLICIT
        async with tls_server(pki, users={"ann": CANARY}, implicit_tls=implicit) as server:
            from smtp_async import TLSOptions

            async with tls_client(server, pki, security, tls=TLSOptions()) as client:
                with pytest.raises(ChainNotFound, match="ca_file"):
                    await client.send(mail())
            demand_nothing_in_clear(server)

    @BOTH
    @every_loop
    async def test_a_good_certificate_lets_login_and_mail_pass(self, security: Security, pki: Pki) -> None:
        implicit = security is Security.IMPLICIT
        async with tls_server(
            pki, users={"ann": CANARY}, implicit_tls=implicit, require_tls=not implicit, require_auth=True
        ) as server:
            async with tls_client(server, pki, security) as client:
                receipts = await gathered(*(client.send(mail(n)) for n in range(10)))
            demand_honest(server, dict(enumerate(receipts)))
            assert all(message.tls and message.user == "ann" for message in server.messages)
            assert server.violations == []

    async def test_starttls_that_is_not_offered(self, pki: Pki) -> None:
        async with ScriptedServer(users={"ann": CANARY}) as server:
            async with tls_client(server, pki, Security.STARTTLS) as client:
                with pytest.raises(StartTLSUnavailable, match="IMPLICIT"):
                    await client.send(mail())
            demand_nothing_in_clear(server)
            assert "STARTTLS" not in server.verbs()

    @pytest.mark.parametrize("offer", ["NOSTARTTLS", "XSTARTTLS", "STARTTLSX", "X STARTTLS"])
    async def test_starttls_inside_another_keyword_is_no_offer(self, offer: str, pki: Pki) -> None:
        async with ScriptedServer(extensions=[offer]) as server:
            async with tls_client(server, pki, Security.STARTTLS) as client:
                with pytest.raises(StartTLSUnavailable):
                    await client.send(mail())
            demand_nothing_in_clear(server)

    @pytest.mark.parametrize("code", [454, 501, 502, 554, 421])
    async def test_starttls_that_is_refused(self, code: int, pki: Pki) -> None:
        async with tls_server(pki, users={"ann": CANARY}, auth_in_clear=True) as server:
            server.on("STARTTLS", reply(code, "no TLS today"))
            async with tls_client(server, pki, Security.STARTTLS) as client:
                with pytest.raises(StartTLSRefused, match="no TLS today") as caught:
                    await client.send(mail())
            assert isinstance(caught.value, TLSError)
            assert caught.value.temporary is (code < 500)
            demand_nothing_in_clear(server)

    @pytest.mark.parametrize(
        "actions",
        [
            (reply(220, "go"), close()),
            (reply(220, "go"), reset()),
            (close(),),
            (reset(),),
            (raw(b"GARBAGE\r\n"),),
            (reply(220, "go"), flush(), wait_input(), raw(b"550 sorry\r\n"), flush(), close()),
            (reply(220, "go"), flush(), wait_input(), raw(b"\x15\x03\x03\x00\x02\x02\x28"), flush(), close()),
            (reply(220, "go"), flush(), wait_input(), close()),
            (reply(354, "go"), close()),
        ],
        ids=[
            "220 fin",
            "220 rst",
            "fin",
            "rst",
            "garbage",
            "550 in place of TLS",
            "alert",
            "hello fin",
            "354",
        ],
    )
    async def test_a_handshake_that_does_not_come(self, actions: tuple[Action, ...], pki: Pki) -> None:
        async with ScriptedServer(extensions=["STARTTLS"], users={"ann": CANARY}) as server:
            server.on("STARTTLS", *actions)
            async with tls_client(server, pki, Security.STARTTLS) as client:
                with pytest.raises(SMTPError) as caught:
                    await client.send(mail())
            assert outcome_of(caught.value) is Outcome.NOT_SENT
            demand_nothing_in_clear(server)

    async def test_a_handshake_that_stalls(self, pki: Pki) -> None:
        async with ScriptedServer(extensions=["STARTTLS"]) as server:
            server.on("STARTTLS", raw(b"220 go\r\n"), mute)
            async with tls_client(server, pki, Security.STARTTLS, timeouts=impatient(2, tls=0.1)) as client:
                with pytest.raises(Timeout) as caught:
                    await client.send(mail())
            assert caught.value.stage == "tls"
            demand_nothing_in_clear(server)

    @pytest.mark.parametrize(
        "injected",
        [b"X", b"250-AUTH PLAIN\r\n", b"250-evil\r\n250 AUTH PLAIN LOGIN\r\n235 welcome\r\n", b"\r\n"],
    )
    @pytest.mark.parametrize("late", [False, True], ids=["glued", "late"])
    @every_loop
    async def test_plaintext_behind_the_220_ends_the_connection(
        self, injected: bytes, late: bool, pki: Pki
    ) -> None:
        async with tls_server(pki, users={"ann": CANARY}) as server:
            between = (wait_input(),) if late else ()
            server.on("STARTTLS", default(), *between, raw(injected, clear=late))
            async with tls_client(server, pki, Security.STARTTLS) as client:
                with pytest.raises(SMTPError) as caught:
                    await client.send(mail())
            kinds = causes(caught.value)
            assert HandshakeFailed in kinds if late else PlaintextInjected in kinds
            assert outcome_of(caught.value) is Outcome.NOT_SENT
            demand_nothing_in_clear(server)
            assert not any(line.tls for line in server.commands)

    async def test_what_was_offered_in_clear_is_forgotten(self, pki: Pki) -> None:
        """AUTH is offered before TLS only: a man in the middle said so, or the server is broken."""
        async with tls_server(pki, users={"ann": CANARY}, auth_in_clear=True) as server:
            server.on("EHLO", reply(250, "test.invalid", "SIZE 5"), nth=2)
            async with tls_client(server, pki, Security.STARTTLS) as client:
                with pytest.raises(AuthenticationUnavailable):
                    await client.send(mail())
            demand_nothing_in_clear(server)

    async def test_a_second_starttls_is_not_taken(self, pki: Pki) -> None:
        async with tls_server(pki, extensions=["STARTTLS", "PIPELINING"]) as server:
            async with tls_client(server, pki, Security.STARTTLS, username=None, password=None) as client:
                await client.send(mail())
            assert server.verbs().count("STARTTLS") == 1

    @every_loop
    async def test_a_plaintext_server_on_an_implicit_port(self, pki: Pki) -> None:
        async with ScriptedServer(users={"ann": CANARY}) as server:
            async with tls_client(server, pki, Security.IMPLICIT) as client:
                with pytest.raises(WrongTLSMode, match="STARTTLS") as caught:
                    await client.send(mail())
            assert outcome_of(caught.value) is Outcome.NOT_SENT
            assert all(bytes(log.raw[:1]) in (b"", b"\x16") for log in server.connections)
            assert server.messages == []

    @pytest.mark.parametrize("security", [Security.STARTTLS, Security.PLAINTEXT])
    async def test_a_tls_server_where_plaintext_was_expected(self, security: Security, pki: Pki) -> None:
        async with tls_server(pki, implicit_tls=True) as server:
            options: dict[str, Any] = {"username": None, "password": None}
            async with tls_client(server, pki, security, timeouts=impatient(0.2), **options) as client:
                # It waits in silence for a ClientHello, as the client does for a greeting.
                with pytest.raises(Timeout, match="IMPLICIT"):
                    await client.send(mail())
            assert server.messages == []

    @pytest.mark.parametrize("security", [Security.STARTTLS, Security.PLAINTEXT])
    async def test_tls_bytes_where_a_greeting_was_expected(self, security: Security, pki: Pki) -> None:
        async with ScriptedServer() as server:
            server.on("GREETING", raw(b"\x15\x03\x03\x00\x02\x02\x28"))
            # No line ever ends: what it was is told when no more came in time.
            options: dict[str, Any] = {"timeouts": impatient(2.0, greeting=0.3), "username": None}
            async with tls_client(server, pki, security, password=None, **options) as client:
                with pytest.raises(WrongTLSMode, match="IMPLICIT"):
                    await client.send(mail())

    async def test_opportunistic_goes_on_with_a_certificate_that_is_not_believed(self, pki: Pki) -> None:
        async with tls_server(pki, pki.self_signed) as server:
            options: dict[str, Any] = {"username": None, "password": None}
            async with tls_client(server, pki, Security.OPPORTUNISTIC, **options) as client:
                async with client.session() as session:
                    await session.connect()
                    assert session.info.encrypted
                    assert session.info.verified is False
                    assert session.info.validation and session.info.validation.reason
                    await session.send(mail())
            assert server.messages[0].tls

    async def test_opportunistic_never_carries_credentials(self, pki: Pki) -> None:
        async with tls_server(pki, pki.self_signed, users={"ann": CANARY}) as server:
            options: dict[str, Any] = {"username": None, "password": None}
            async with tls_client(server, pki, Security.OPPORTUNISTIC, **options) as client:
                async with client.session() as session:
                    await session.connect()
                    with pytest.raises(AuthenticationUnavailable):
                        await session.login(Credentials(username="ann", password=CANARY))
            assert "AUTH" not in server.verbs()

    @pytest.mark.parametrize("offer", [(), ("STARTTLS",)], ids=["not offered", "refused"])
    async def test_opportunistic_goes_on_in_clear(self, offer: tuple[str, ...], pki: Pki) -> None:
        async with ScriptedServer(extensions=offer) as server:
            server.on("STARTTLS", reply(454, "4.7.0 no TLS"), optional=True)
            options: dict[str, Any] = {"username": None, "password": None}
            async with tls_client(server, pki, Security.OPPORTUNISTIC, **options) as client:
                assert (await client.send(mail())).outcome is Outcome.ACCEPTED
            assert not server.messages[0].tls

    async def test_opportunistic_makes_a_new_connection_in_clear_when_the_handshake_fails(
        self, pki: Pki
    ) -> None:
        async with ScriptedServer(extensions=["STARTTLS"]) as server:
            server.on("STARTTLS", raw(b"220 go\r\n"), flush(), wait_input(), raw(b"no TLS\r\n"), close())
            options: dict[str, Any] = {"username": None, "password": None}
            async with tls_client(server, pki, Security.OPPORTUNISTIC, **options) as client:
                assert (await client.send(mail())).outcome is Outcome.ACCEPTED
            assert server.connections.opened == 2
            assert not server.messages[0].tls


class TestLogin:
    @pytest.mark.parametrize(
        "actions",
        [
            (reply(535, "5.7.8 no"),),
            (reply(454, "4.7.0 later"),),
            (reply(534, "5.7.9 weak"),),
            (reply(504, "5.5.4 unknown"),),
        ],
        ids=["535", "454", "534", "504"],
    )
    async def test_a_refusal_is_not_followed_by_a_second_mechanism(
        self, actions: tuple[Action, ...], pki: Pki
    ) -> None:
        async with tls_server(pki, users={"ann": CANARY}) as server:
            server.on("AUTH", *actions)
            async with tls_client(server, pki, Security.STARTTLS) as client:
                with pytest.raises(AuthenticationFailed):
                    await client.send(mail())
            assert server.verbs().count("AUTH") == 1

    @pytest.mark.parametrize(
        "challenge",
        [b"334 !!!\r\n", b"334 \xff\r\n", b"334 " + b"QUJD" * 100 + b"\r\n", b"334\r\n"],
    )
    async def test_a_strange_challenge_ends_in_an_error(self, challenge: bytes) -> None:
        async with ScriptedServer(users={"ann": CANARY}) as server:
            server.on("AUTH", raw(challenge), wait_input(), reply(501, "5.7.0 cancelled"))
            async with client_of(server, credentials=KEY, timeouts=impatient(0.5)) as client:
                with pytest.raises(SMTPError) as caught:
                    await client.send(mail())
            assert outcome_of(caught.value) is Outcome.NOT_SENT
            assert server.messages == []

    async def test_a_premature_235_is_a_failure(self) -> None:
        async with ScriptedServer(users={"ann": CANARY}) as server:
            server.on("AUTH", reply(235, "2.7.0 welcome, whoever you are"))
            key = Credentials(username="ann", password=CANARY, mechanisms=("CRAM-MD5",), allow_cleartext=True)
            async with client_of(server, credentials=key) as client:
                with pytest.raises(ProtocolViolation, match="complete"):
                    await client.send(mail())
            assert server.messages == []

    async def test_endless_challenges_end(self) -> None:
        async with ScriptedServer(users={"ann": CANARY}) as server:
            server.on("AUTH", reply(334, "VXNlcm5hbWU6"))
            server.on("RESPONSE", reply(334, "VXNlcm5hbWU6"))
            key = Credentials(username="ann", password=CANARY, mechanisms=("LOGIN",), allow_cleartext=True)
            async with client_of(server, credentials=key, timeouts=impatient(1)) as client:
                with pytest.raises(SMTPError):
                    await client.send(mail())
            assert server.messages == []

    async def test_nothing_secret_goes_in_clear_unless_asked_by_name(self) -> None:
        async with ScriptedServer(users={"ann": CANARY}) as server:
            async with client_of(server, username="ann", password=CANARY) as client:
                with pytest.raises(AuthenticationUnavailable):
                    await client.send(mail())
            assert "AUTH" not in server.verbs()


# --- transactions --------------------------------------------------------------------------------------------


class TestTransactions:
    async def test_mail_refused_and_data_answered_354(self) -> None:
        async with ScriptedServer() as server:
            server.on("MAIL", reply(550, "5.7.1 not you"), match="bad@")
            server.on("DATA", reply(354, "go"), nth=1)
            async with client_of(server, pool=PoolLimits(max_connections=1)) as client:
                with pytest.raises(SenderRefused) as caught:
                    await client.send(mail(1, sender="bad@example.com"))
                assert outcome_of(caught.value) is Outcome.REFUSED
                assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
            assert [message.subject for message in server.messages] == ["message 2"]
            assert server.connections.opened == 2
            assert all(b"message 1" not in log.raw for log in server.connections)

    async def test_all_recipients_refused_and_data_answered_354(self) -> None:
        async with ScriptedServer() as server:
            server.on("RCPT", reply(550, "5.1.1 no"), match="user1@")
            server.on("DATA", reply(354, "go"), nth=1)
            async with client_of(server, pool=PoolLimits(max_connections=1)) as client:
                with pytest.raises(SMTPError) as caught:
                    await client.send(mail(1))
                assert outcome_of(caught.value) is Outcome.REFUSED
                assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
            assert [message.subject for message in server.messages] == ["message 2"]
            assert b"message 1" not in server.connections[0].raw
            assert server.violations == []

    @pytest.mark.parametrize("answer", [552, 452, 421])
    @every_loop
    async def test_an_early_refusal_in_mid_body_is_the_answer(self, answer: int) -> None:
        """The server says no after 10 KiB of 2 MB and reads no more: the client must stop writing."""
        async with ScriptedServer() as server:
            server.on("BODY", reply(answer, "5.3.4 too big"), flush(), stop_reading, after=10_240)
            async with client_of(server, timeouts=impatient(5.0)) as client:
                with pytest.raises(MessageRefused) as caught:
                    await client.send_raw(
                        b"Subject: message 1\r\n\r\n" + b"0123456789\r\n" * 2_000_000,
                        sender=SENDER,
                        recipients=["user1@example.org"],
                    )
            assert caught.value.reply is not None and caught.value.reply.code == answer
            assert outcome_of(caught.value) is Outcome.REFUSED
            assert server.messages == []

    @pytest.mark.parametrize("code", [250, 354])
    async def test_an_early_acceptance_in_mid_body_is_a_violation(self, code: int) -> None:
        async with ScriptedServer() as server:
            gate = asyncio.Event()
            server.on("BODY", raw(b"%d early\r\n" % code), flush(), delay(gate), after=10_240, nth=1)
            async with client_of(server, timeouts=impatient(5.0)) as client:
                (result,) = await gathered(
                    client.send_raw(
                        b"Subject: message 1\r\n\r\n" + b"0123456789\r\n" * 2_000_000,
                        sender=SENDER,
                        recipients=["user1@example.org"],
                        deadline=5,
                    )
                )
                gate.set()
            await worked_off(server)
            demand_honest(server, {1: result})

    @pytest.mark.parametrize("end", [close(), reset(), stop_reading], ids=["fin", "rst", "stall"])
    async def test_an_end_in_mid_body_means_not_sent(self, end: Action) -> None:
        async with ScriptedServer() as server:
            server.on("BODY", end, after=100_000)
            async with client_of(server, timeouts=impatient(5.0, block=0.2)) as client:
                (result,) = await gathered(
                    client.send_raw(
                        b"Subject: message 1\r\n\r\n" + b"0123456789\r\n" * 2_000_000,
                        sender=SENDER,
                        recipients=["user1@example.org"],
                    )
                )
            assert isinstance(result, NotSent)
            for connection in list(server.live):
                connection.transport.abort()
            await worked_off(server)
            demand_honest(server, {1: result})

    async def test_a_gate_that_raises_means_not_sent(self) -> None:
        async def gate() -> None:
            raise LookupError("the journal is full")

        async with ScriptedServer() as server:
            async with client_of(server, pool=PoolLimits(max_connections=1)) as client:
                with pytest.raises(NotSent, match="journal") as caught:
                    await client.send(mail(1), options=SendOptions(before_end_of_data=gate))
                assert isinstance(caught.value.__cause__, LookupError)
                assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
            await worked_off(server)
            demand_honest(server, {1: caught.value})

    async def test_a_gate_is_passed_before_the_end_of_data_leaves(self) -> None:
        async with ScriptedServer() as server:
            seen: list[int] = []

            async def gate() -> None:
                seen.append(server.verbs().count("."))

            async with client_of(server) as client:
                await client.send(mail(1), options=SendOptions(before_end_of_data=gate))
            assert seen == [0]
            assert len(server.messages) == 1

    @pytest.mark.parametrize("outcomes", range(16))
    @pytest.mark.parametrize("data", [354, 451, 554])
    async def test_every_pattern_of_four_recipients(self, outcomes: int, data: int) -> None:
        async with ScriptedServer() as server:
            for bit in range(4):
                if outcomes & 1 << bit:
                    server.on("RCPT", reply(550, "5.1.1 no"), match=f"r{bit}@")
            server.on("DATA", reply(data, "so be it"), nth=1)
            async with client_of(server, pool=PoolLimits(max_connections=1)) as client:
                (result,) = await gathered(
                    client.send(
                        mail(1, to=[f"r{bit}@example.org" for bit in range(4)]),
                        options=SendOptions(must_accept=NOBODY),
                    )
                )
                # DATA is not written if no recipient is left; then the next DATA meets the rule.
                await gathered(client.send(mail(2)))
            refused = {bit for bit in range(4) if outcomes & 1 << bit}
            if outcomes == 15 or data != 354:
                assert outcome_of(result) is Outcome.REFUSED
            else:
                assert outcome_of(result) is (Outcome.PARTIAL if refused else Outcome.ACCEPTED)
            receipt = result if isinstance(result, Receipt) else result.receipt
            no = {int(str(v.recipient.address)[1]) for v in receipt.refused}
            # A refused DATA refuses the message for all of them.
            assert no == (refused if data == 354 else set(range(4)))
            recorded = [m.rcpt_tos for m in server.messages if m.subject == "message 1"]
            taken = [f"r{bit}@example.org" for bit in range(4) if bit not in refused]
            assert recorded == ([taken] if taken and data == 354 else [])
            assert server.violations == []

    async def test_lmtp_has_a_verdict_for_each_recipient(self) -> None:
        async with ScriptedServer(lmtp=True) as server:
            server.on("RCPT", reply(550, "5.1.1 nobody"), match="r1@")
            server.on(".", reply(452, "4.2.2 full"), match="^. r2@")
            async with client_of(server, lmtp=True) as client:
                receipt = await client.send(
                    mail(1, to=[f"r{n}@example.org" for n in range(4)]),
                    options=SendOptions(must_accept=NOBODY),
                )
                await client.send(mail(2))
            assert [verdict.outcome for verdict in receipt.verdicts] == [
                Outcome.ACCEPTED,
                Outcome.REFUSED,
                Outcome.REFUSED,
                Outcome.ACCEPTED,
            ]
            assert server.messages[0].rcpt_tos == ["r0@example.org", "r3@example.org"]

    async def test_lmtp_cut_between_its_final_replies_keeps_what_was_said(self) -> None:
        async with ScriptedServer(lmtp=True) as server:
            server.on(".", swallow(), close(), match="r2@")
            async with client_of(server, lmtp=True) as client:
                with pytest.raises(OutcomeUnknown) as caught:
                    await client.send(mail(1, to=[f"r{n}@example.org" for n in range(4)]))
            assert caught.value.receipt is not None
            assert [verdict.outcome for verdict in caught.value.receipt.verdicts] == [
                Outcome.ACCEPTED,
                Outcome.ACCEPTED,
                Outcome.UNKNOWN,
                Outcome.UNKNOWN,
            ]

    async def test_a_quit_that_fails_changes_nothing(self) -> None:
        for end in (close(), reset(), reply(500), raw(b"garbage\r\n"), mute):
            async with ScriptedServer() as server:
                server.on("QUIT", end)
                async with client_of(server, timeouts=impatient(0.2)) as client:
                    assert (await client.send(mail())).outcome is Outcome.ACCEPTED


# --- bodies --------------------------------------------------------------------------------------------------

BODIES = {
    "bare LF": b"one\ntwo\n",
    "bare CR": b"one\rtwo\r",
    "mixed": b"one\r\ntwo\nthree\rfour\r\n",
    "lone dots": b".\n..\n.\n...\nend\n",
    "smuggling": b"before\n.\nMAIL FROM:<evil@example.com>\nafter\r\n.\r\nRCPT TO:<x@y>\r.\rend\n",
    "dots at line starts": b".hidden\n..x\n.\n",
    "non-ASCII": "Grüße, 日本語, 😀\n".encode(),
    "no line end": b"one\nno line end",
    "empty lines": b"\n\n\n.\n\n",
    "long": b"x" * 998 + b"\n",
}


@pytest.mark.server
@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("name", BODIES)
async def test_bodies_arrive_unharmed_at_postfix(
    name: str, size: str, postfix: Postfix, request: pytest.FixtureRequest
) -> None:
    mark = f"{name} {size} {request.node.name}".encode()
    body = BODIES[name] if size == "small" else BODIES[name] * (100_000 // len(BODIES[name]) + 1)
    async with client_of(postfix, port=postfix.plain_port) as client:
        source = b"Subject: " + mark + b"\n\n" + body
        await client.send_raw(source, sender=SENDER, recipients=["bob@lab.test"])
    (received,) = await asyncio.to_thread(postfix.wait_for_message, mark)
    wanted = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    got = received.partition(b"\n\n")[2]
    assert got == (wanted if wanted.endswith(b"\n") else wanted + b"\n")


# --- cuts ----------------------------------------------------------------------------------------------------


async def session_through(proxy: CutProxy, messages: int = 2, **options: Any) -> dict[int, Any]:
    """Send some messages at once through a proxy, over one connection at a time, which is dialled again at once."""
    options.setdefault("timeouts", impatient(3.0, quit=0.5))
    limits = PoolLimits(max_connections=1, min_backoff=1e-6, max_backoff=1e-6)
    client = client_of(proxy, pool=limits, **options)
    results = dict(enumerate(await gathered(*(client.send(mail(n)) for n in range(messages)))))
    await client.close()
    return results


async def totals(server: ScriptedServer, **options: Any) -> dict[Direction, int]:
    """How many bytes an undisturbed session has."""
    async with CutProxy(server.host, server.port) as proxy:
        await session_through(proxy, **options)
        return proxy.links[0].counts


#: Into how many tests the cuts of a session are dealt, each of which takes seconds.
PARTS = 2


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("manner", [CutManner.FIN, CutManner.RST])
async def test_a_cut_after_any_byte_costs_nothing_that_is_not_told(
    direction: Direction, manner: CutManner, part: int
) -> None:
    """The first connection is cut; later ones are whole: what was not sent is sent again, once."""
    outcomes: Counter[Outcome] = Counter()
    async with RecordingSink() as server:
        total = (await totals(server))[direction]
        # `tests/torture` cuts such a session, too, at octets of its own.
        cuts = sampled(range(part, total + 1, PARTS), 3)
        for after in cuts:
            server.clear()
            cut_at = Cut(after, direction, manner)
            async with CutProxy(server.host, server.port, cut_at) as proxy:
                results = await session_through(proxy)
                await worked_off(server)
            demand_honest(server, results)
            outcomes.update(map(outcome_of, results.values()))
            assert {outcome_of(result) for result in results.values()} <= {
                Outcome.ACCEPTED, Outcome.UNKNOWN, Outcome.NOT_SENT,
            }  # fmt: skip
        assert server.violations == []
    assert outcomes[Outcome.ACCEPTED] > len(cuts)
    assert outcomes[Outcome.UNKNOWN] > 0


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("manner", CutManner)
async def test_a_cut_on_every_connection_is_told_honestly(direction: Direction, manner: CutManner) -> None:
    """No connection lives: what is not accepted or unknown is not sent. Stalls end by timeout."""
    step = 7 if manner is not CutManner.STALL else 61
    async with RecordingSink() as server:
        total = (await totals(server))[direction]
        for after in range(0, total, step):
            server.clear()
            cut_at = Cut(after, direction, manner, link=None)
            async with CutProxy(server.host, server.port, cut_at) as proxy:
                results = await session_through(proxy, timeouts=impatient(0.1))
                for log in list(server.live):
                    log.transport.abort()
                await worked_off(server)
            demand_honest(server, results)
        assert server.violations == []


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("manner", [CutManner.FIN, CutManner.RST])
@pytest.mark.parametrize("kind", ["starttls", "implicit", "lmtp"])
async def test_a_cut_in_other_kinds_of_sessions(
    direction: Direction, manner: CutManner, kind: str, pki: Pki
) -> None:
    server_options: dict[str, Any] = {"lmtp": True} if kind == "lmtp" else {"users": {"ann": CANARY}}
    client_options: dict[str, Any] = {"lmtp": True}
    if kind != "lmtp":
        implicit = kind == "implicit"
        server_options |= {"ssl_context": pki.server_context(), "implicit_tls": implicit}
        client_options = {
            "host": "localhost",
            "security": Security.IMPLICIT if implicit else Security.STARTTLS,
            "tls": trusting(pki),
            "username": "ann",
            "password": CANARY,
        }
    step = 5 if kind == "lmtp" else 97
    async with RecordingSink(**server_options) as server:
        total = (await totals(server, **client_options))[direction]
        for after in range(0, total, step):
            server.clear()
            async with CutProxy(server.host, server.port, Cut(after, direction, manner)) as proxy:
                results = await session_through(proxy, **client_options)
                await worked_off(server)
            demand_honest(server, results)
        assert server.violations == []


# --- arguments -----------------------------------------------------------------------------------------------

EVIL = [
    "x@y.test\r\nRCPT TO:<evil@example.org>",
    "x@y.test\nDATA",
    "x@y.test\rDATA",
    "x\0@y.test",
    "x@y.test> SIZE=1",
    "x@y.test> AUTH=<a@b.test",
    "<x@y.test",
    "a b@y.test",
    "x@y\x7f.test",
    "@",
    "",
]


class TestArguments:
    @pytest.fixture
    async def warm(self) -> AsyncIterator[tuple[ScriptedServer, SMTPClient]]:
        """A connection stands and is idle: a byte that leaves would be seen."""
        async with ScriptedServer() as server:
            async with client_of(server, pool=PoolLimits(max_connections=2)) as client:
                await client.send(mail(0))
                yield server, client

    @pytest.mark.parametrize("text", EVIL, ids=repr)
    @pytest.mark.parametrize("field", ["sender", "recipients", "raw sender", "raw recipients", "to", "cc"])
    async def test_addresses(self, text: str, field: str, warm: tuple[ScriptedServer, SMTPClient]) -> None:
        server, client = warm
        before = server.connections[0].bytes_received
        with pytest.raises(SMTPError) as caught:
            if field in ("to", "cc"):
                fields: dict[str, Any] = {"to": ["a@b.test"], field: [text]}
                await client.send(mail(1, **fields))
            elif field.startswith("raw"):
                arguments: dict[str, Any] = {"sender": SENDER, "recipients": ["a@b.test"]}
                name = field.split()[1]
                arguments[name] = [text] if name == "recipients" else text
                await client.send_raw(b"Subject: x\r\n\r\ny", **arguments)
            else:
                value: Any = [text] if field == "recipients" else text
                await client.send(mail(1), **{field: value})
        assert isinstance(caught.value, ValueError)
        await client.send(mail(2))
        assert len(server.messages) == 2
        assert b"evil" not in server.connections[0].raw
        assert server.connections[0].bytes_received > before

    async def test_what_would_be_cr_lf_in_eight_bits_is_not(
        self, warm: tuple[ScriptedServer, SMTPClient]
    ) -> None:
        server, client = warm
        await gathered(
            client.send(mail(1), sender="x@y.test\u560a\u760d"),
            client.send(mail(2, to="x\u560a\u760d\u7600@y.test")),
        )
        assert server.violations == []
        assert len(server.messages) == 3

    @pytest.mark.parametrize(
        "text", ["x\r\nQUIT", "x\nQUIT", "x\rQUIT", "x\0", "", "\x7f", "\ud800", "x" * 3000], ids=repr
    )
    async def test_session_commands(self, text: str, warm: tuple[ScriptedServer, SMTPClient]) -> None:
        server, client = warm
        async with client.session() as session:
            await session.connect()
            before = server.connections[1].bytes_received
            for call in (session.verify, session.expand, session.command):
                with pytest.raises(SMTPError) as caught:
                    await call(text)
                assert isinstance(caught.value, ValueError)
            assert server.connections[1].bytes_received == before
            assert (await session.noop()).code == 250

    @pytest.mark.parametrize("field", ["username", "password", "authzid"])
    async def test_credentials_with_nul(self, field: str, warm: tuple[ScriptedServer, SMTPClient]) -> None:
        server, client = warm
        key: dict[str, Any] = {"username": "ann", "password": CANARY, field: "a\0b"}
        server.on("EHLO", reply(250, "test.invalid", "AUTH PLAIN"))
        async with client.session() as session:
            await session.connect()
            before = server.connections[1].bytes_received
            with pytest.raises(SMTPError) as caught:
                await session.login(Credentials(**key, mechanisms=("PLAIN",), allow_cleartext=True))
            assert isinstance(caught.value, ValueError)
            assert CANARY not in repr(caught.value)
            assert server.connections[1].bytes_received == before
