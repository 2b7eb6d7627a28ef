"""`SMTPClient.check`: everything that can be wrong with a server, told in words and never raised."""

import asyncio
import contextlib
import pickle
import ssl
import warnings
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from smtp_async import (
    ClientOptions,
    ConnectionInfo,
    Credentials,
    Extensions,
    Message,
    Security,
    SMTPClient,
    Timeouts,
    TLSOptions,
    TrustOptions,
    errors,
)
from smtp_async.client.diagnose import ServerReport, findings_of, silence_before_probe
from smtp_async.connection.route import Route
from smtp_async.testing import ScriptedServer, close, default, delay, raw, reply, stall
from smtp_async.tls.certificate import Certificate
from tests.tls.certificates import der as chain_of
from tests.transport.lab import CA

USERS = {"ann": "secret"}


def client_for(server, pki, security, *, host="localhost", trusted=True, login=None, **timeouts):
    trust = TrustOptions(ca_file=pki.ca_file if trusted else pki.self_signed.certificate)
    return SMTPClient(
        server.path or host,
        None if server.path else server.port,
        credentials=login,
        security=security,
        options=ClientOptions(
            tls=TLSOptions(trust=trust), hello="client.test", timeouts=Timeouts(**timeouts), lmtp=False
        ),
    )


async def report_of(server, pki, security, **options):
    async with client_for(server, pki, security, **options) as client:
        report = await client.check()
        assert client.statistics().open == 0
    assert pickle.loads(pickle.dumps(report)).findings == report.findings
    return report


def ann(password="secret", **options):
    return Credentials(username="ann", password=password, **options)


# --- all is well ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT])
async def test_nothing_is_wrong(pki, security):
    implicit = security is Security.IMPLICIT
    async with ScriptedServer(
        ssl_context=pki.server_context(), implicit_tls=implicit, users=USERS, hostname="mx.test"
    ) as server:
        report = await report_of(server, pki, security, login=ann())
        assert server.verbs()[-2:] == ["NOOP", "QUIT"]
    assert report.ok and report.findings == () and report.error is None
    assert report.server == f"localhost:{server.port}" and report.security is security
    assert report.greeting.code == 220 and report.extensions.domain == "mx.test"
    assert report.auth == ("PLAIN", "LOGIN", "CRAM-MD5") and report.logged_in is True
    assert report.info.encrypted and report.info.verified and report.info.tls_version == "TLSv1.3"
    assert "localhost" in report.certificate.names
    assert (report.offered_in_clear is None) is implicit
    assert server.violations == []


async def test_a_unix_socket_needs_no_tls(pki, tmp_path):
    async with ScriptedServer(path=tmp_path / "socket", users=USERS) as server:
        report = await report_of(server, pki, Security.PLAINTEXT)
    assert report.ok and report.server == str(tmp_path / "socket")


# --- TLS -----------------------------------------------------------------------------------------------------


async def test_plaintext_where_tls_was_expected(pki):
    async with ScriptedServer() as server:
        report = await report_of(server, pki, Security.IMPLICIT)
    assert isinstance(report.error, errors.WrongTLSMode)
    assert "security=Security.STARTTLS" in report.findings[0] and report.greeting is None


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.OPPORTUNISTIC, Security.PLAINTEXT])
async def test_tls_where_plaintext_was_expected(pki, security):
    # Both sides wait for the other; a handshake tried beside ends that.
    async with ScriptedServer(ssl_context=pki.server_context(), implicit_tls=True) as server:
        report = await report_of(server, pki, security, greeting=2.0)
    assert isinstance(report.error, errors.WrongTLSMode)
    assert "security=Security.IMPLICIT" in report.findings[0]


async def test_tls_bytes_in_place_of_a_greeting(pki):
    async with ScriptedServer() as server:
        server.on("GREETING", raw(b"\x15\x03\x03\x00\x02\x02\x28"), close())
        report = await report_of(server, pki, Security.STARTTLS)
    assert isinstance(report.error, errors.WrongTLSMode)
    assert "IMPLICIT" in report.findings[0]


@pytest.mark.parametrize(
    ("greeting", "protocol"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"* OK [CAPABILITY IMAP4rev1] ready\r\n", "IMAP"),
        (b"+OK POP3 ready\r\n", "POP3"),
        (b"HTTP/1.1 408 Request Timeout\r\n", "HTTP"),
    ],
)
@pytest.mark.parametrize("security", [Security.STARTTLS, Security.PLAINTEXT, Security.IMPLICIT])
async def test_another_service_is_named(pki, greeting, protocol, security):
    async with ScriptedServer() as server:
        server.on("GREETING", raw(greeting), close())
        report = await report_of(server, pki, security)
    assert f"localhost:{server.port} speaks {protocol}, not SMTP: mail is usually sent" in report.findings[0]


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT])
async def test_another_service_under_tls_is_named(pki, security):
    async with ScriptedServer(ssl_context=pki.server_context(), implicit_tls=True) as server:
        server.on("GREETING", raw(b"* OK IMAP4 ready\r\n"))
        report = await report_of(server, pki, security, greeting=2.0)
    assert "speaks IMAP, not SMTP" in report.findings[0]


@asynccontextmanager
async def web_server(context=None):
    """A server that is silent until it is asked, and answers everything with a page."""

    async def answer(reader, writer):
        if await reader.read(100):
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT])
async def test_a_web_server_is_named_though_it_says_nothing(pki, security, tls):
    async with web_server(pki.server_context() if tls else None) as port:
        options = ClientOptions(
            tls=TLSOptions(trust=TrustOptions(ca_file=pki.ca_file)),
            timeouts=Timeouts(greeting=2.0, tls=1.0),
            hello="client.test",
        )
        async with SMTPClient("localhost", port, security=security, options=options) as client:
            report = await client.check()
    assert "speaks HTTP, not SMTP" in report.findings[0]


async def test_a_masked_offer_of_starttls_is_named(pki):
    async with ScriptedServer(extensions=("PIPELINING", "XXXXXXXA")) as server:
        for security in (Security.STARTTLS, Security.OPPORTUNISTIC, Security.PLAINTEXT):
            report = await report_of(server, pki, security)
            assert "with XXXXXXXA, as the SMTP inspection of Cisco PIX" in report.findings[0]


async def test_logins_that_exchange_offers_in_its_own_way(pki):
    async with ScriptedServer(
        ssl_context=pki.server_context(), users=USERS, extensions=("X-EXPS GSSAPI NTLM PLAIN",)
    ) as server:
        server.on("EHLO", reply(250, "mx.test", "X-EXPS GSSAPI NTLM PLAIN"), nth=range(2, 9))
        report = await report_of(server, pki, Security.STARTTLS, login=ann())
    assert report.error is None and report.auth == ("GSSAPI", "NTLM", "PLAIN") and report.logged_in


async def test_silence_of_another_reason(pki):
    async with ScriptedServer() as server:
        server.on("GREETING", stall())
        report = await report_of(server, pki, Security.STARTTLS, greeting=0.4, tls=0.1)
        assert server.connections.opened == 2
    assert isinstance(report.error, errors.Timeout) and "greeting" in report.findings[0]


async def test_a_slow_greeting_is_waited_for(pki):
    go = asyncio.Event()
    async with ScriptedServer(ssl_context=pki.server_context(), users=USERS) as server:
        server.on("GREETING", delay(go), default(), connection=0)
        async with client_for(server, pki, Security.STARTTLS, greeting=2.0) as client:
            running = asyncio.create_task(client.check())
            # The probe has come and gone.
            await server.wait_until(lambda: server.connections.closed == 1)
            go.set()
            assert (await running).ok


@pytest.mark.parametrize(
    ("where", "greeting", "seconds"),
    [
        ({"port": 587, "security": Security.STARTTLS}, 300.0, 3.0),
        ({"port": 587, "security": Security.STARTTLS}, None, 3.0),
        ({"port": 587, "security": Security.PLAINTEXT}, 2.0, 0.2),
        # A client that speaks first there is taken for a spammer's.
        ({"port": 25, "security": Security.STARTTLS}, 300.0, None),
        # Nothing else is spoken there.
        ({"port": 465, "security": Security.IMPLICIT}, 300.0, None),
        ({"port": 443, "security": Security.IMPLICIT}, 300.0, 3.0),
        ({"port": 0, "path": "/run/lmtp", "security": Security.PLAINTEXT}, 300.0, None),
    ],
)
def test_the_silence_after_which_a_handshake_is_tried(where, greeting, seconds):
    route = Route(host="localhost", **where)
    assert silence_before_probe(route, Timeouts(greeting=greeting)) == seconds


async def test_starttls_missing(pki):
    async with ScriptedServer() as server:
        report = await report_of(server, pki, Security.STARTTLS)
        assert isinstance(report.error, errors.StartTLSUnavailable)
        assert "does not offer STARTTLS" in report.findings[0]
        assert report.info is None and report.greeting.code == 220
        report = await report_of(server, pki, Security.OPPORTUNISTIC)
        assert report.error is None and not report.ok
        assert "STARTTLS is not offered" in report.findings[0]
        assert (await report_of(server, pki, Security.PLAINTEXT)).ok


async def test_starttls_left_unused(pki):
    async with ScriptedServer(ssl_context=pki.server_context()) as server:
        report = await report_of(server, pki, Security.PLAINTEXT)
    assert any("STARTTLS is offered" in one for one in report.findings)


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT])
@pytest.mark.parametrize(
    ("leaf", "trusted", "cls", "words"),
    [
        ("wrong_host", True, errors.CertificateRejected, ("is for other.example", "not for localhost")),
        ("expired", True, errors.CertificateRejected, ("expired on",)),
        ("self_signed", True, errors.ChainNotFound, ("self-signed", "ca_file")),
        ("server", False, errors.ChainNotFound, ("smtp_async tests", "not trusted", "ca_file")),
    ],
)
async def test_a_certificate_that_is_not_believed(pki, security, leaf, trusted, cls, words):
    context = pki.server_context(getattr(pki, leaf))
    implicit = security is Security.IMPLICIT
    async with ScriptedServer(ssl_context=context, implicit_tls=implicit, users=USERS) as server:
        report = await report_of(server, pki, security, trusted=trusted, login=ann())
        assert "AUTH" not in server.verbs()
    assert type(report.error) is cls and not report.ok
    assert [word for word in words if word not in report.findings[0]] == [], report.findings
    # What was shown is known all the same.
    assert report.certificate is not None and report.info is None and report.logged_in is None


async def test_an_unverified_certificate_is_a_finding(pki):
    async with ScriptedServer(ssl_context=pki.server_context(pki.expired)) as server:
        report = await report_of(server, pki, Security.OPPORTUNISTIC)
    assert report.error is None and report.info.encrypted and report.info.verified is False
    assert "is not proved" in report.findings[0] and "expired on" in report.findings[0]


async def test_tls_below_1_2(pki):
    context = pki.server_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with ScriptedServer(ssl_context=context) as server:
        report = await report_of(server, pki, Security.STARTTLS)
    assert isinstance(report.error, errors.HandshakeFailed)
    assert "1.2 or newer is required" in report.findings[0]


def findings(report, **route):
    route.setdefault("security", report.security)
    return list(findings_of(report, Route(host="mx.test", port=587, **route), datetime.now(UTC)))


def test_old_tls_with_the_application_s_own_context():
    info = ConnectionInfo(host="mx.test", port=587, encrypted=True, tls_version="TLSv1.1", verified=True)
    offer = Extensions({"AUTH": "PLAIN"}, domain="mx.test")
    report = ServerReport(server="mx.test:587", security=Security.STARTTLS, info=info, extensions=offer)
    assert findings(report) == ["TLSv1.1 is not safe any more: the server should speak TLS 1.2 or newer"]


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(days=3, hours=1), "in 3 days"),
        (timedelta(days=1, hours=1), "in 1 day,"),
        (timedelta(hours=1), "within a day"),
        (timedelta(days=60), None),
    ],
)
def test_a_certificate_that_expires_soon(left, words):
    now = datetime.now(UTC)
    (der,) = chain_of(CA.issue_cert("mx.test", not_before=now, not_after=now + left))
    report = ServerReport(
        server="mx.test:25",
        certificate=Certificate(der),
        extensions=Extensions({"DSN": ""}, domain="mx.test"),
    )
    told = findings(report)
    assert (told == []) if words is None else (len(told) == 1 and words in told[0])


# --- the login -----------------------------------------------------------------------------------------------


async def test_no_login_offered(pki):
    async with ScriptedServer(ssl_context=pki.server_context()) as server:
        report = await report_of(server, pki, Security.STARTTLS)
        assert report.error is None and "no login (AUTH) is offered" in report.findings[0]
        report = await report_of(server, pki, Security.STARTTLS, login=ann())
        assert isinstance(report.error, errors.AuthenticationUnavailable)
        assert report.logged_in is False and "no way to log in" in report.findings[0]


async def test_login_offered_before_tls(pki):
    async with ScriptedServer(ssl_context=pki.server_context(), users=USERS, auth_in_clear=True) as server:
        report = await report_of(server, pki, Security.STARTTLS, login=ann())
    assert report.logged_in and report.error is None
    assert len(report.findings) == 1 and "is offered before TLS" in report.findings[0]


async def test_login_offered_without_tls(pki):
    async with ScriptedServer(users=USERS) as server:
        report = await report_of(server, pki, Security.PLAINTEXT)
    assert len(report.findings) == 1 and "on a connection without TLS" in report.findings[0]


async def test_credentials_refused(pki):
    async with ScriptedServer(ssl_context=pki.server_context(), users=USERS) as server:
        report = await report_of(server, pki, Security.STARTTLS, login=ann("wrong"))
    assert isinstance(report.error, errors.AuthenticationFailed) and "535 5.7.8" in str(report.error)
    assert report.logged_in is False and "refused the credentials" in report.findings[0]
    assert "wrong" not in repr(report)
    # It came that far under TLS, and that is told.
    assert report.info.tls_version and report.info.verified


async def test_a_refused_login_is_not_tried_again(pki):
    async with ScriptedServer(ssl_context=pki.server_context(), users=USERS) as server:
        async with client_for(server, pki, Security.STARTTLS, login=ann("wrong")) as client:
            with pytest.raises(errors.AuthenticationFailed):
                await client.send(Message(sender="ann@example.com", to="bob@example.org", text="Hi"))
            report = await client.check()
        assert isinstance(report.error, errors.AuthenticationFailed) and report.findings
        assert server.verbs().count("AUTH") == 1


# --- the rest ------------------------------------------------------------------------------------------------


async def test_only_helo_is_understood(pki):
    async with ScriptedServer() as server:
        server.on("EHLO", reply(500, "what?"))
        report = await report_of(server, pki, Security.PLAINTEXT)
    assert report.error is None and "only HELO" in report.findings[0]


@pytest.mark.parametrize(
    ("point", "actions", "cls"),
    [
        ("CONNECT", [close()], errors.ConnectionLost),
        ("GREETING", [reply(554, "5.3.2 not for you"), close()], errors.GreetingRefused),
        ("GREETING", [reply(421, "4.3.2 later"), close()], errors.SMTPError),
        ("EHLO", [reply(421, "4.3.2 later"), close()], errors.SMTPError),
        ("NOOP", [reply(421, "4.3.2 later"), close()], errors.SMTPError),
        ("NOOP", [reply(500, "5.5.1 what?")], errors.CommandRefused),
        ("NOOP", [close()], errors.ConnectionLost),
        ("QUIT", [close()], None),
    ],
)
async def test_a_server_that_breaks_off(pki, point, actions, cls):
    async with ScriptedServer() as server:
        server.on(point, *actions)
        report = await report_of(server, pki, Security.PLAINTEXT)
    if cls is None:
        assert report.ok
    else:
        assert isinstance(report.error, cls) and report.findings == (str(report.error),)


async def test_a_port_without_a_server(pki):
    async with ScriptedServer() as server:
        pass
    report = await report_of(server, pki, Security.PLAINTEXT)
    assert isinstance(report.error, errors.SocketError) and "cannot connect" in report.findings[0]
    assert report.greeting is None and report.info is None and not report.ok


async def test_an_error_of_the_caller_is_raised(pki):
    async with ScriptedServer() as server:
        client = client_for(server, pki, Security.PLAINTEXT)
        await client.close()
        with pytest.raises(errors.NotConnected):
            await client.check()
        with pytest.raises(errors.InvalidHost):
            await report_of(server, pki, Security.PLAINTEXT, host="0.0.0.0")


async def test_a_check_that_is_cancelled_leaves_nothing(pki):
    async with ScriptedServer() as server:
        server.on("GREETING", delay(asyncio.Event()))
        client = client_for(server, pki, Security.PLAINTEXT)
        running = asyncio.create_task(client.check())
        await server.wait_until(lambda: server.connections.open)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await server.wait_for_disconnect()
        await client.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


# --- a real server -------------------------------------------------------------------------------------------


@pytest.mark.server
async def test_postfix(postfix, pki):
    trust = ClientOptions(tls=TLSOptions(trust=TrustOptions(ca_file=pki.ca_file)))
    async with SMTPClient(
        "localhost", postfix.auth_port, username=postfix.user, password=postfix.password, options=trust
    ) as client:
        report = await client.check()
    assert report.ok and report.logged_in and report.auth == ("PLAIN", "LOGIN", "CRAM-MD5")
    assert "PIPELINING" in report.extensions and report.extensions.domain == postfix.hostname


@pytest.mark.server
async def test_postfix_waits_in_silence_for_a_handshake(postfix, pki):
    options = ClientOptions(timeouts=Timeouts(greeting=2.0))
    async with SMTPClient(
        "localhost", postfix.tls_port, security=Security.STARTTLS, options=options
    ) as client:
        report = await client.check()
    assert isinstance(report.error, errors.WrongTLSMode)
