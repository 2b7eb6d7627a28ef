"""The scripted server: strict by default, wrong on command."""

import asyncio
import base64
import contextlib
import hmac
import smtplib
import ssl
from functools import partial

import pytest

from smtp_async.testing import (
    ScriptedServer,
    ServerThread,
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
    stall,
    swallow,
    wait_input,
)
from tests.lab import Lateness, client_of, longest_work, until

ENVELOPE = ("MAIL FROM:<a@x.org>", "RCPT TO:<b@x.org>")
MESSAGE = (*ENVELOPE, "DATA")
BODY = b"Subject: x\r\n\r\nhi\r\n"


async def send(client, body=BODY):
    """One message in lock-step; the codes of its four replies."""
    codes = [code for line in MESSAGE for code in await client.ask(line)]
    client.writer.write(body + b".\r\n")
    return [*codes, (await client.reply())[0]]


# The strict server


@pytest.mark.parametrize(
    "lines, codes",
    [
        ((*ENVELOPE, "DATA"), [250, 250, 354]),
        (("MAIL FROM:<>", "RCPT TO:<b@x.org>"), [250, 250]),
        (('MAIL FROM:<"a b>"@x.org> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=7',), [250]),
        (("MAIL FROM:<a@x.org>", "RCPT TO:<b@x.org> NOTIFY=NEVER ORCPT=rfc822;b@x.org"), [250, 250]),
        (("MAIL FROM:<a@x.org>", "MAIL FROM:<a@x.org>"), [250, 503]),
        (("MAIL FROM:<a@x.org>", "RSET", "MAIL FROM:<a@x.org>"), [250, 250, 250]),
        (("MAIL FROM:<a@x.org>", "EHLO again", "MAIL FROM:<a@x.org>"), [250, 250, 250]),
        (("RCPT TO:<b@x.org>",), [503]),
        (("DATA",), [503]),
        (("MAIL FROM:<a@x.org>", "DATA", "MAIL FROM:<b@x.org>"), [250, 554, 503]),
        (("MAIL FROM: <a@x.org>",), [501]),
        (("MAIL FROM:a@x.org",), [501]),
        (("MAIL TO:<a@x.org>",), [501]),
        (("MAIL FROM:<a@x.org>", "RCPT TO:<>", "RCPT TO:<b@x.org>x"), [250, 501, 501]),
        (("MAIL FROM:<a@x.org> FOO=1", "MAIL FROM:<a@x.org> HOLDFOR=1"), [555, 555]),
        (("MAIL FROM:<a@x.org> BODY=BINARYMIME", "MAIL FROM:<a@x.org> SIZE=x"), [501, 501]),
        (("MAIL FROM:<a@x.org> SIZE=104857601",), [552]),
        (("MAIL FROM:<ä@x.org>", "MAIL FROM:<ä@x.org> SMTPUTF8", "RCPT TO:<ö@x.org>"), [553, 250, 250]),
        (("MAIL FROM:<a@x.org>", "RCPT TO:<ö@x.org>"), [250, 553]),
        (("RSET now", "DATA now", "QUIT now"), [501, 501, 501]),
        (
            ("NOOP whatever", "VRFY b", "VRFY", "EXPN staff", "EXPN nobody", "HELP"),
            [250, 252, 501, 250, 550, 214],
        ),
        (("SEND FROM:<a@x.org>", "SOML FROM:<a@x.org>", "SAML FROM:<a@x.org>"), [502, 502, 502]),
        (("LHLO me", "EHLO", "FOO", "", "STARTTLS", "AUTH PLAIN"), [500, 501, 500, 500, 502, 502]),
        (("BDAT x", "BDAT 0 LAST"), [501, 503]),
        (("MAIL FROM:<a@x.org>", "BDAT 0 LAST", "MAIL FROM:<a@x.org>"), [250, 554, 503]),
    ],
)
async def test_codes_of_the_strict_server(greeted, lines, codes):
    async with ScriptedServer(lists={"staff": ["b@x.org"]}) as server, greeted(server) as client:
        assert [code for line in lines for code in await client.ask(line)] == codes


async def test_expn_answers_what_a_client_reads():
    members = ["b@x.org", "Ann Lee <a@x.org>", '"Lee, C" <c@x.org>']
    async with ScriptedServer(lists={"staff": members}) as server, client_of(server) as client:
        found = await client.expand("staff")
    assert [(one.name, str(one.addr_spec)) for one in found] == [
        ("", "b@x.org"),
        ("Ann Lee", "a@x.org"),
        ("Lee, C", "c@x.org"),
    ]


@pytest.mark.parametrize("nth", [0, -1, (0, 1), range(3)])
async def test_occurrences_are_counted_from_one(nth):
    async with ScriptedServer() as server:
        with pytest.raises(ValueError, match="counted from 1"):
            server.on("MAIL", reply(550), nth=nth)
    assert server.script.unused == []


class TestRulesThatNeverFire:
    async def test_they_fail_the_test(self):
        with pytest.raises(AssertionError, match=r"never fired: on\('MAIL', …\), on\('RCPT', …\)"):
            async with ScriptedServer() as server:
                server.on("MAIL", reply(550))
                server.on("MAIL", default(), optional=True)
                server.on("RCPT", reply(550))

    async def test_a_failure_of_the_test_itself_goes_before(self):
        with pytest.raises(ZeroDivisionError):
            async with ScriptedServer() as server:
                server.on("MAIL", reply(550))
                raise ZeroDivisionError

    async def test_one_that_fired_or_need_not_is_no_failure(self, greeted):
        async with ScriptedServer() as server, greeted(server) as client:
            server.on("MAIL", reply(550))
            server.on("RCPT", reply(550), optional=True)
            assert await client.ask(ENVELOPE[0]) == [550]

    def test_so_it_is_with_a_server_in_a_thread(self):
        with pytest.raises(AssertionError, match="never fired"):
            with ServerThread(ScriptedServer()) as server:
                server.on("MAIL", reply(550))
        with pytest.raises(ZeroDivisionError):
            with ServerThread(ScriptedServer()) as server:
                server.on("MAIL", reply(550))
                raise ZeroDivisionError


async def test_commands_before_hello_are_refused(talk):
    async with ScriptedServer() as server, talk(server) as client:
        await client.reply()
        assert await client.ask("MAIL FROM:<a@x.org>") == [503]


async def test_records_what_it_accepts(greeted):
    async with ScriptedServer() as server:
        async with greeted(server) as client:
            await client.ask("MAIL FROM:<a@x.org> SIZE=99 SMTPUTF8", "RCPT TO:<b@x.org> NOTIFY=NEVER")
            assert await client.ask("DATA") == [354]
            client.writer.write(b"..one\r\n...\r\ntwo.\r\n.\r\n")
            assert (await client.reply())[0] == 250
            assert await client.ask("QUIT") == [221]
            assert await client.reader.read() == b""
        await server.wait_for_disconnect()
    (message,) = server.messages
    assert message.data == b".one\r\n..\r\ntwo.\r\n"
    assert (message.mail_from, message.rcpt_tos) == ("a@x.org", ["b@x.org"])
    assert message.mail_parameters == {"SIZE": "99", "SMTPUTF8": ""}
    assert message.rcpt_parameters == [{"NOTIFY": "NEVER"}]
    assert not message.tls and message.user is None and not message.chunked
    assert server.verbs() == ["EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]
    assert bytes(server.connections[0].raw).startswith(b"EHLO me\r\nMAIL FROM:<a@x.org> SIZE=99")
    assert server.connections[0].bytes_received == len(server.connections[0].raw)
    assert server.connections[0].quit
    assert (server.connections.opened, server.connections.open, server.connections.closed) == (1, 0, 1)
    assert server.violations == []


@pytest.mark.parametrize("body", [b"", b".", b"..", b".a", b"a\r\n.", b"\r\n\r\n", b"x" * 3_000_000])
@pytest.mark.parametrize("step", [1, 1 << 30])
async def test_dot_unstuffing_in_any_chunks(greeted, body, step):
    if step == 1 and len(body) > 100:
        step = 999_983
    content = body + b"\r\n" if body else b""
    wire = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
    async with ScriptedServer() as server, greeted(server) as client:
        await client.ask(*MESSAGE)
        for at in range(0, len(wire), step):
            client.writer.write(wire[at : at + step])
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.reply())[0] == 250
        assert server.messages[0].data == content
        assert server.violations == []


async def test_a_large_body_does_not_hold_up_the_event_loop(greeted):
    """The loop is that of the test, which may measure how its own code treats it: at its end it took 200 ms."""
    body = b"0123456789\r\n" * (3 << 20)

    async def measured():
        assert await client.ask(*MESSAGE) == [250, 250, 354]
        async with Lateness() as lateness:
            for at in range(0, len(body), 1 << 18):
                client.writer.write(body[at : at + (1 << 18)])
                await client.writer.drain()
            client.writer.write(b".\r\n")
            assert (await client.reply())[0] == 250
        return lateness

    async with ScriptedServer() as server, greeted(server) as client:
        assert await longest_work(measured) < 0.15
        assert [message.data == body for message in server.messages] == [True] * 3


def has_received(log, count):
    return log.bytes_received >= count


async def test_a_breach_is_noted_once_for_each_body(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        for number in (1, 2):
            await client.ask(*MESSAGE)
            log = server.connections[0]
            for due in range(log.bytes_received + 5, log.bytes_received + 16, 5):
                client.writer.write(b"a\nb\r\n")
                await until(partial(has_received, log, due))
            client.writer.write(b".\r\n")
            assert (await client.reply())[0] == 250
            assert ["bare CR or LF" in violation for violation in server.violations] == [True] * number
        assert [message.data for message in server.messages] == [b"a\nb\r\n" * 3] * 2


async def test_pipelined_group_is_one_flight(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        assert await client.ask(*MESSAGE) == [250, 250, 354]
        client.writer.write(BODY + b".\r\n" + b"\r\n".join(line.encode() for line in MESSAGE) + b"\r\n")
        assert [(await client.reply())[0] for _ in range(4)] == [250, 250, 250, 354]
        client.writer.write(BODY + b".\r\nQUIT\r\n")
        assert [(await client.reply())[0] for _ in range(2)] == [250, 221]
        assert len(server.messages) == 2
        assert server.connections[0].flights == server.flights == 4
        assert server.violations == []


async def test_answers_after_end_of_input(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        await client.ask(*MESSAGE)
        client.writer.write(BODY + b".\r\n")
        client.writer.write_eof()
        assert (await client.reply())[0] == 250
        assert await client.reader.read() == b""
        assert len(server.messages) == 1


@pytest.mark.parametrize(
    "wire, breach",
    [
        (b"NOOP\n", "bare LF"),
        (b"NOOP a\rb\r\n", "bare CR"),
        (b"NOOP a\0b\r\n", "NUL"),
        (b"NOOP\r\nRSET\r\n", "bytes behind NOOP"),
        (b"MAIL FROM:<a@x.org>\r\nRCPT TO:<b@x.org>\r\nDATA\r\nhi\r\n.\r\n", "bytes behind DATA"),
    ],
)
async def test_notes_violations(greeted, wire, breach):
    async with ScriptedServer() as server, greeted(server) as client:
        client.writer.write(wire)
        await client.reply()
        assert [breach in violation for violation in server.violations] == [True]


@pytest.mark.parametrize(
    "body, breach",
    [
        (b"a\nb\r\n", "bare CR or LF"),
        (b"a\r\n.b\r\n", "not doubled"),
        (b".b\r\n", "not doubled"),
        (b"\xff\r\n", "8-bit"),
    ],
)
async def test_notes_violations_in_bodies(greeted, body, breach):
    async with ScriptedServer() as server, greeted(server) as client:
        assert (await send(client, body))[-1] == 250
        assert [breach in violation for violation in server.violations] == [True]


async def test_notes_groups_without_pipelining(greeted):
    async with ScriptedServer(extensions=["SIZE"]) as server, greeted(server) as client:
        assert await client.ask(*ENVELOPE) == [250, 250]
        assert "without PIPELINING" in server.violations[0]


async def test_line_too_long(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        client.writer.write(b"x" * 20_000)
        assert (await client.reply())[0] == 500


async def test_without_enhanced_codes_and_with_limits(greeted):
    extensions = ["PIPELINING", "LIMITS RCPTMAX=2 MAILMAX=1"]
    async with ScriptedServer(extensions=extensions) as server, greeted(server) as client:
        client.write("RSET")
        assert await client.reply() == (250, ["Ok"])
        await client.ask("MAIL FROM:<a@x.org>")
        assert await client.ask(*["RCPT TO:<b@x.org>"] * 3) == [250, 250, 452]
        assert await client.ask("RSET") == [250]
        assert await client.ask("MAIL FROM:<a@x.org>") == [452]


async def test_chunking(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        await client.ask(*ENVELOPE)
        client.writer.write(b"BDAT 3\r\nabcBDAT 5 LAST\r\n\r\n.\r\nRSET\r\n")
        assert [(await client.reply())[0] for _ in range(3)] == [250, 250, 250]
        assert server.messages[0].data == b"abc\r\n.\r\n" and server.messages[0].chunked
        assert await client.ask(*MESSAGE[:2]) == [250, 250]
        client.writer.write(b"BDAT 0 LAST\r\n")
        assert (await client.reply())[0] == 250
        assert server.messages[1].data == b""
        assert server.violations == []


async def test_chunks_are_swallowed_when_refused(greeted):
    """What Exim does to a window without RSET: B goes out under A's sender."""
    async with ScriptedServer() as server, greeted(server) as client:
        server.on("RCPT", reply(550, "5.1.1 no"), nth=1)
        client.writer.write(
            b"MAIL FROM:<a@x.org>\r\nRCPT TO:<no@x.org>\r\nBDAT 4 LAST\r\nQUIT"
            b"MAIL FROM:<b@x.org>\r\nRCPT TO:<ok@x.org>\r\nBDAT 4 LAST\r\nRSET"
        )
        assert [(await client.reply())[0] for _ in range(6)] == [250, 550, 554, 503, 250, 250]
        assert [(m.mail_from, m.data) for m in server.messages] == [("a@x.org", b"RSET")]


async def test_a_refused_chunk_needs_rset(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        server.on("BDAT", reply(452, "4.3.1 later"), nth=1)
        await client.ask(*ENVELOPE)
        client.writer.write(b"BDAT 1\r\nxBDAT 1 LAST\r\nx")
        assert [(await client.reply())[0] for _ in range(2)] == [452, 503]
        assert await client.ask("RSET", *ENVELOPE) == [250, 250, 250]
        assert server.messages == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_lmtp_answers_for_each_recipient(greeted, chunked):
    async with ScriptedServer(lmtp=True) as server, greeted(server, "LHLO me") as client:
        server.on("BDAT" if chunked else ".", reply(452, "4.2.2 full"), match="c@x.org")
        server.on("RCPT", reply(550, "5.1.1 no"), match="no@")
        await client.ask("MAIL FROM:<a@x.org>", *(f"RCPT TO:<{n}@x.org>" for n in ("b", "no", "c", "d")))
        if chunked:
            client.writer.write(b"BDAT 2\r\nh\r")
            assert (await client.reply())[0] == 250
            client.writer.write(b"BDAT 1 LAST\r\n\n")
        else:
            assert await client.ask("DATA") == [354]
            client.writer.write(b"h\r\n.\r\n")
        assert [(await client.reply())[0] for _ in range(3)] == [250, 452, 250]
        assert [(m.rcpt_tos, m.data) for m in server.messages] == [(["b@x.org", "d@x.org"], b"h\r\n")]
        assert await client.ask("EHLO me", "HELO me") == [500, 500]


async def test_lmtp_cut_between_two_answers(greeted):
    async with ScriptedServer(lmtp=True) as server, greeted(server, "LHLO me") as client:
        server.on(".", close(), nth=2)
        await client.ask(MESSAGE[0], MESSAGE[1], MESSAGE[1], "DATA")
        client.writer.write(b".\r\n")
        assert (await client.reply())[0] == 250
        assert await client.reader.read() == b""
        assert server.messages[0].rcpt_tos == ["b@x.org"]


async def test_unix_socket(greeted, tmp_path):
    path = tmp_path / "lmtp"
    async with ScriptedServer(path=path, lmtp=True) as server:
        assert server.url == f"lmtp+unix://{path}"
        async with greeted(server, "LHLO me") as client:
            server.on("NOOP", reset())
            client.write("NOOP")
            with contextlib.suppress(ConnectionError):
                assert await client.reader.read() == b""
    assert not path.exists()


# AUTH


def b64(text):
    return base64.b64encode(text).decode()


async def test_auth_plain_login_and_cram(greeted):
    async with ScriptedServer(users={"ann": "secret"}, require_auth=True) as server:
        async with greeted(server) as client:
            assert await client.ask("MAIL FROM:<a@x.org>") == [530]
            assert await client.ask("AUTH PLAIN " + b64(b"\0ann\0wrong")) == [535]
            assert await client.ask("AUTH PLAIN") == [334]
            assert await client.ask(b64(b"\0ann\0secret")) == [235]
            assert await client.ask("AUTH PLAIN") == [503]
            assert (await send(client))[-1] == 250
        async with greeted(server) as client:
            assert await client.ask("AUTH LOGIN") == [334]
            assert await client.ask(b64(b"ann")) == [334]
            assert await client.ask(b64(b"secret")) == [235]
        async with greeted(server) as client:
            client.write("AUTH CRAM-MD5")
            challenge = base64.b64decode((await client.reply())[1][0])
            digest = hmac.new(b"secret", challenge, "md5").hexdigest()
            assert await client.ask(b64(f"ann {digest}".encode())) == [235]
        async with greeted(server) as client:
            assert await client.ask("AUTH FOO") == [504]
            assert await client.ask("AUTH PLAIN %%") == [501]
            assert await client.ask("AUTH PLAIN") == [334]
            assert await client.ask("*") == [501]
            assert await client.ask("NOOP") == [250]
    assert server.messages[0].user == server.connections[0].user == "ann"
    assert server.connections[3].user is None


async def test_own_mechanism_and_scripted_responses(greeted):
    def anonymous(users, initial):
        return initial.decode() if initial is not None else (yield b"who?").decode()

    async with ScriptedServer(mechanisms={"ANONYMOUS": anonymous}) as server:
        async with greeted(server) as client:
            assert await client.ask("AUTH ANONYMOUS " + b64(b"me")) == [235]
        assert server.connections[0].user == "me"
        async with greeted(server) as client:
            server.on("RESPONSE", reply(454, "4.7.0 not now"))
            assert await client.ask("AUTH ANONYMOUS") == [334]
            assert await client.ask(b64(b"me")) == [454]
            assert await client.ask("NOOP") == [250]


# TLS


async def test_starttls_forgets_everything(greeted, server_context, client_context):
    options = {"ssl_context": server_context, "users": {"ann": "x"}, "require_tls": True}
    async with ScriptedServer(**options) as server, greeted(server) as client:
        client.write("EHLO me")
        offered = (await client.reply())[1]
        assert "STARTTLS" in offered and not any(line.startswith("AUTH") for line in offered)
        assert await client.ask("AUTH PLAIN") == [538]
        assert await client.ask("MAIL FROM:<a@x.org>") == [530]
        assert await client.ask("STARTTLS") == [220]
        await client.start_tls(client_context)
        assert await client.ask("MAIL FROM:<a@x.org>") == [503]
        client.write("EHLO me")
        offered = (await client.reply())[1]
        assert "STARTTLS" not in offered and "AUTH PLAIN LOGIN CRAM-MD5" in offered
        assert await client.ask("STARTTLS") == [503]
        assert (await send(client))[-1] == 250
        assert server.messages[0].tls
        log = server.connections[0]
        assert (
            log.tls is not None
            and log.tls.version() == "TLSv1.3"
            and b"MAIL" not in log.raw[-200:]
            and b"MAIL" in log.clear
        )


async def test_implicit_tls(greeted, server_context, client_context):
    async with ScriptedServer(ssl_context=server_context, implicit_tls=True) as server:
        assert server.url == f"smtps://127.0.0.1:{server.port}"
        async with greeted(server, ssl=client_context, server_hostname="localhost") as client:
            assert (await send(client, b"x" * 500_000 + b"\r\n"))[-1] == 250
            assert await client.ask("QUIT") == [221]
            assert await client.reader.read() == b""
            client.writer.close()
            await client.writer.wait_closed()
        assert server.connections[0].raw[0] == 0x16
        assert server.messages[0].data == b"x" * 500_000 + b"\r\n"


async def test_a_clients_close_notify_ends_the_connection(greeted, server_context, client_context):
    async with ScriptedServer(ssl_context=server_context, implicit_tls=True) as server:
        async with greeted(server, ssl=client_context, server_hostname="localhost") as client:
            # asyncio waits for the server's answer to its close_notify, 30 seconds at most.
            client.writer.close()
            async with asyncio.timeout(10):
                await client.writer.wait_closed()
        assert not server.connections[0].quit


async def test_a_client_that_refuses_the_certificate_is_seen(talk, server_context):
    async with ScriptedServer(ssl_context=server_context, implicit_tls=True) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with talk(server, ssl=ssl.create_default_context(), server_hostname="localhost"):
                pass
        await server.wait_until(lambda: server.connections[0].tls_error is not None)


async def test_plaintext_on_a_tls_port_and_tls_on_a_plain_one(talk, server_context, client_context):
    async with ScriptedServer(ssl_context=server_context, implicit_tls=True) as server:
        async with talk(server) as client:
            client.write("EHLO me")
            assert b"220" not in await client.reader.read()
        assert server.connections[0].tls_error is not None
    async with ScriptedServer() as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with talk(server, ssl=client_context, server_hostname="localhost"):
                pass


async def test_bytes_glued_behind_the_220(greeted, server_context):
    async with ScriptedServer(ssl_context=server_context) as server, greeted(server) as client:
        server.on("STARTTLS", default(), raw(b"250 AUTH PLAIN\r\n"))
        client.write("STARTTLS")
        segment = await client.reader.read(1000)
        assert segment == b"220 2.0.0 Ready to start TLS\r\n250 AUTH PLAIN\r\n"


async def test_bytes_after_the_220_but_before_the_handshake(greeted, server_context, client_context):
    async with ScriptedServer(ssl_context=server_context) as server, greeted(server) as client:
        server.on("STARTTLS", default(), wait_input(), raw(b"250 AUTH PLAIN\r\n"))
        client.write("STARTTLS")
        assert await client.reader.read(1000) == b"220 2.0.0 Ready to start TLS\r\n"
        with pytest.raises(ssl.SSLError):
            await client.start_tls(client_context)


async def test_bytes_of_the_client_behind_starttls_are_a_violation(greeted, server_context, client_context):
    async with ScriptedServer(ssl_context=server_context) as server, greeted(server) as client:
        client.write("STARTTLS", "MAIL FROM:<evil@x.org>")
        assert (await client.reply())[0] == 220
        await client.start_tls(client_context)
        assert await client.ask("EHLO me") == [250]
        assert server.verbs() == ["EHLO", "STARTTLS", "EHLO"]
        assert "bytes behind STARTTLS" in server.violations[0]


async def test_clear_bytes_in_the_middle_of_tls(greeted, server_context, client_context):
    async with ScriptedServer(ssl_context=server_context, implicit_tls=True) as server:
        async with greeted(server, ssl=client_context, server_hostname="localhost") as client:
            server.on("NOOP", raw(b"250 in clear\r\n", clear=True))
            client.write("NOOP")
            with pytest.raises(ssl.SSLError):
                assert await client.reader.read() == b""


# The script


async def test_nth_match_connection_and_the_newest_rule(greeted):
    async with ScriptedServer() as server:
        every = server.on("RCPT", reply(450, "4.2.1 busy"), connection=0)
        second = server.on("RCPT", reply(551), nth=2)
        bob = server.on("rcpt", reply(552), match="BOB@")
        late = server.on("RCPT", reply(553), nth=range(5, 7))
        async with greeted(server) as client:
            await client.ask("MAIL FROM:<a@x.org>")
            names = ["a", "b", "bob", "c", "d", "e", "f"]
            codes = await client.ask(*(f"RCPT TO:<{name}@x.org>" for name in names))
        assert codes == [450, 551, 552, 450, 553, 553, 450]
        assert (every.seen, every.fired, second.fired, bob.fired, late.fired) == (7, 3, 1, 1, 2)
        async with greeted(server) as client:
            assert await client.ask(*ENVELOPE) == [250, 250]


async def test_state_follows_the_reply_that_was_sent(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        server.on("MAIL", reply(550, "5.7.1 no"))
        server.on("DATA", reply(354, "go"), nth=1)
        assert await client.ask(*MESSAGE) == [550, 503, 354]
        client.writer.write(BODY + b".\r\n")
        assert (await client.reply())[0] == 250
        assert server.messages == []
        assert await client.ask(*MESSAGE) == [550, 503, 503]


async def test_354_with_no_recipient(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        server.on("RCPT", reply(550, "5.1.1 no"))
        server.on("DATA", reply(354, "go"))
        assert await client.ask(*MESSAGE) == [250, 550, 354]
        client.writer.write(b".\r\n")
        assert (await client.reply())[0] == 554
        assert server.messages == []


async def test_swallow_accepts_in_silence(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        server.on(".", swallow(), close())
        await client.ask(*MESSAGE)
        client.writer.write(BODY + b".\r\n")
        assert await client.reader.read() == b""
        assert server.messages[0].data == BODY


async def test_delay_lets_out_what_was_answered_before(greeted):
    event = asyncio.Event()
    async with ScriptedServer() as server, greeted(server) as client:
        rule = server.on("RCPT", delay(event), delay(0.0), default())
        client.write(*MESSAGE)
        await server.wait_fired(rule)
        assert await client.reader.read(1000) == b"250 2.1.0 Sender ok\r\n"
        event.set()
        assert [(await client.reply())[0] for _ in range(2)] == [250, 354]


async def test_a_delayed_message_counts_though_the_client_is_gone(greeted):
    event = asyncio.Event()
    async with ScriptedServer() as server:
        rule = server.on(".", delay(event), default())
        async with greeted(server) as client:
            await client.ask(*MESSAGE)
            client.writer.write(BODY + b".\r\n")
            await server.wait_fired(rule)
        await server.wait_for_disconnect()
        assert server.messages == []
        event.set()
        await server.wait_for_messages()


@pytest.mark.parametrize("point, line", [("NOOP", "NOOP"), ("*", "NOOP"), ("EHLO", "EHLO me")])
async def test_421_then_close(greeted, point, line):
    async with ScriptedServer() as server, greeted(server) as client:
        server.on(point, reply(421, "4.3.2 bye"), close())
        assert await client.ask(line) == [421]
        assert await client.reader.read() == b""


async def test_close_is_never_a_reset(greeted):
    """Even with unread input."""
    async with ScriptedServer() as server, greeted(server) as client:
        server.on("DATA", close())
        client.write(*MESSAGE)
        client.writer.write(b"x" * 5_000_000)
        assert [(await client.reply())[0] for _ in range(2)] == [250, 250]
        assert await client.reader.read() == b""
        await client.writer.drain()


async def test_reset(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        server.on("NOOP", raw(b"25"), reset())
        client.write("NOOP")
        with pytest.raises(ConnectionResetError):
            assert await client.reader.readexactly(2) == b"25"
            await client.reader.read()
        await server.wait_for_disconnect()


async def test_stall_reads_nothing_more(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        rule = server.on("NOOP", stall())
        client.write("NOOP")
        await server.wait_fired(rule)
        seen = server.connections[0].bytes_received
        client.writer.write(b"x" * 20_000_000)
        assert client.writer.transport.get_write_buffer_size() > 0
        assert server.connections[0].bytes_received == seen


async def test_cut_inside_a_reply(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        server.on("EHLO", cut(7))
        server.on("NOOP", cut(3, reply(250, "never seen")))
        client.write("EHLO again")
        assert await client.reader.read() == b"250-tes"
        async with greeted(server, "HELO me") as other:
            other.write("NOOP")
            assert await other.reader.read() == b"250"


async def test_segments(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        server.on("NOOP", raw(b"250 o"), flush(), raw(b"ne\r\n25"), raw(b"0 two\r\n"))
        client.write("NOOP")
        assert await client.reader.read(100) == b"250 o"
        assert await client.reader.read(100) == b"ne\r\n250 two\r\n"


async def test_drip(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        server.on("NOOP", drip(), nth=1)
        server.on("NOOP", drip(raw(b"250 x\r\n"), interval=0.001), nth=2)
        for expected in (b"250 2.0.0 Ok\r\n", b"250 x\r\n"):
            client.write("NOOP")
            pieces: list[bytes] = []
            while not b"".join(pieces).endswith(b"\n"):
                pieces.append(await client.reader.read(100))
            assert b"".join(pieces) == expected
            assert len(pieces) > len(expected) // 2


@pytest.mark.parametrize("split, most", [("whole", 200), ("line", 60), ("byte", 3)])
async def test_split_of_all_replies(talk, split, most):
    async with ScriptedServer(split=split) as server, talk(server) as client:
        client.write("EHLO me")
        sizes = []
        received = b""
        while b"250 CHUNKING\r\n" not in received:
            received += (piece := await client.reader.read(1000))
            sizes.append(len(piece))
        assert max(sizes) <= most
        assert await client.ask(*MESSAGE) == [250, 250, 354]


@pytest.mark.parametrize("block", [b"250-more\r\n", b"x" * 1024])
async def test_endless(greeted, block):
    async with ScriptedServer() as server:
        async with greeted(server) as client:
            server.on("NOOP", endless(block, start=b"250-"))
            client.write("NOOP")
            assert await client.reader.readexactly(4) == b"250-"
            for _ in range(200):
                assert block in await client.reader.readexactly(len(block) * 100)
        await server.wait_for_disconnect()


async def test_greetings_gone_wrong(talk):
    async with ScriptedServer() as server:
        server.on("CONNECT", close(), connection=0)
        server.on("GREETING", reply(554, "5.3.2 no"), close(), connection=1)
        server.on("GREETING", raw(b"\x15\x03\x03\x00\x02\x02\x28"), connection=2)
        server.on("GREETING", connection=3)
        async with talk(server) as client:
            assert await client.reader.read() == b""
        async with talk(server) as client:
            assert (await client.reply())[0] == 554
            assert await client.reader.read() == b""
        async with talk(server) as client:
            assert (await client.reader.read(100))[0] == 0x15
        async with talk(server) as client:
            client.write("NOOP")
            assert await client.reader.read(100) == b"250 2.0.0 Ok\r\n"


@pytest.mark.parametrize("split", [1, 7, 1 << 30])
async def test_early_answer_in_the_middle_of_a_body(greeted, split):
    body = b"x" * 20 + b"\r\n"
    async with ScriptedServer() as server, greeted(server) as client:
        server.on("BODY", reply(552, "5.3.4 too big"), after=10)
        await client.ask(*MESSAGE)
        wire = body + b".\r\nNOOP\r\n"
        for at in range(0, len(wire), split):
            client.writer.write(wire[at : at + split])
            await asyncio.sleep(0)
        assert [(await client.reply())[0] for _ in range(2)] == [552, 250]
        assert server.messages == []
        assert await client.ask("MAIL FROM:<a@x.org>") == [250]


async def test_early_answer_in_a_chunk(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        server.on("BODY", reply(452, "4.3.1 full"), after=5)
        await client.ask(*ENVELOPE)
        client.writer.write(b"BDAT 3\r\nabcBDAT 3\r\nde")
        assert [(await client.reply())[0] for _ in range(2)] == [250, 452]
        client.writer.write(b"fBDAT 1 LAST\r\ngRSET\r\n")
        assert [(await client.reply())[0] for _ in range(2)] == [503, 250]
        assert server.messages == []


async def test_stall_in_the_middle_of_a_body(greeted):
    async with ScriptedServer() as server, greeted(server) as client:
        rule = server.on("BODY", raw(b"552 5.3.4 too"), stall(), after=1000)
        await client.ask(*MESSAGE)
        client.writer.write(b"x" * 20_000_000)
        assert await client.reader.read(100) == b"552 5.3.4 too"
        assert rule.fired == 1


async def test_acting_on_an_idle_connection(greeted):
    async with ScriptedServer() as server:
        async with greeted(server) as client:
            await server.act(reply(421, "4.4.2 idle for too long"), close())
            assert (await client.reply())[0] == 421
            assert await client.reader.read() == b""
        async with greeted(server) as client:
            await server.act(raw(b"250 unasked\r\n"), connection=1)
            assert (await client.reply())[1] == ["unasked"]
            assert await client.ask("NOOP") == [250]
            await server.act(reset())
            with pytest.raises(ConnectionResetError):
                await client.reader.read()


async def test_an_action_of_your_own(greeted):
    async def spell(step):
        step.reply(250, *f"{step.command.argument}{step.connection.log.number}")

    async with ScriptedServer() as server, greeted(server) as client:
        server.on("NOOP", spell)
        client.write("NOOP ab")
        assert await client.reply() == (250, ["a", "b", "0"])


async def test_an_action_that_fails_fails_the_test(greeted):
    async def broken(step):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with ScriptedServer() as server, greeted(server) as client:
            server.on("NOOP", broken)
            client.write("NOOP")
            assert await client.reader.read() == b""


# Start and stop


async def test_shutdown_leaves_nothing(talk, server_context):
    before = asyncio.all_tasks()
    never = asyncio.Event()
    async with ScriptedServer(ssl_context=server_context) as server:
        server.on("GREETING", stall(), connection=1)
        server.on("GREETING", delay(never), connection=2)
        server.on("GREETING", endless(b"220-"), connection=3)
        server.on("GREETING", reply(220, "x"), close(), connection=4)
        server.on("CONNECT", delay(never), connection=5)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(6):
                await stack.enter_async_context(talk(server))
            await server.wait_until(lambda: server.connections.opened == 6)
            await asyncio.wait_for(server.stop(), 5)
            assert server.connections.open == 0
            assert asyncio.all_tasks() == before
            with pytest.raises(OSError):
                await asyncio.open_connection(server.host, server.port)


async def test_smtplib_finds_nothing_to_complain_about(server_context, client_context):
    def converse(port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            client.starttls(context=client_context)
            client.login("ann", "secret")
            return client.sendmail("a@x.org", ["b@x.org", "c@x.org"], b"Subject: x\r\n\r\n.dot\r\n")

    async with ScriptedServer(ssl_context=server_context, users={"ann": "secret"}) as server:
        assert await asyncio.to_thread(converse, server.port) == {}
        assert server.messages[0].data == b"Subject: x\r\n\r\n.dot\r\n"
        assert server.messages[0].subject == "x"
        assert server.violations == []


@pytest.mark.parametrize(
    "options, scheme",
    [({}, "smtp+plain"), ({"lmtp": True}, "lmtp"), ({"ssl_context": True}, "smtp")],
)
async def test_url(server_context, options, scheme):
    if "ssl_context" in options:
        options = {"ssl_context": server_context}
    async with ScriptedServer(**options) as server:
        assert server.url == f"{scheme}://127.0.0.1:{server.port}"


def test_implicit_tls_needs_a_certificate():
    with pytest.raises(ValueError, match="ssl_context"):
        ScriptedServer(implicit_tls=True)
