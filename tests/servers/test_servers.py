"""The servers do what their modules say: shown with the standard library's client, before ours is tried."""

import fcntl
import os
import signal
import smtplib
import ssl
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers import PASSWORD, REFUSED_CONTENT, REFUSED_SENDER, SIZE_LIMIT, USER
from tests.servers.aiosmtpd_server import AiosmtpdServer
from tests.servers.dovecot import Dovecot
from tests.servers.exim import Exim
from tests.servers.machine import HOST, listening, program, require_root, reserved_ports, wait_until
from tests.servers.pki import Leaf, Pki
from tests.servers.postfix import Postfix
from tests.servers.postgres import OWNER, PREFIX, remove_abandoned
from tests.servers.sink import Sink, smtp_source

pytestmark = pytest.mark.server

SENDER = "ann@sender.test"
Mta = Postfix | Exim | AiosmtpdServer


@pytest.fixture(params=["postfix", "exim", "aiosmtpd"])
def mta(request: pytest.FixtureRequest) -> Mta:
    return request.getfixturevalue(request.param)


def connect(port: int) -> smtplib.SMTP:
    client = smtplib.SMTP("localhost", port, timeout=10)
    client.ehlo()
    return client


def content(text: str) -> bytes:
    return f"Subject: {text}\r\n\r\nThis is {text}.\r\n".encode()


def unique() -> str:
    return f"test {uuid.uuid4()}"


class TestEveryMta:
    def test_delivers_to_lab_test(self, mta: Mta) -> None:
        text = unique()
        with connect(mta.plain_port) as client:
            assert client.sendmail(SENDER, ["bob@lab.test"], content(text)) == {}
        assert len(mta.wait_for_message(text)) == 1

    def test_refuses_at_rcpt(self, mta: Mta) -> None:
        with connect(mta.plain_port) as client:
            assert client.mail(SENDER)[0] == 250
            assert client.rcpt("bob@reject.test")[0] == (554 if isinstance(mta, Postfix) else 550)
            assert client.rcpt("bob@defer.test")[0] == (451 if isinstance(mta, Exim) else 450)
            assert client.rcpt("bob@lab.test")[0] == 250

    def test_refuses_a_sender_at_mail(self, mta: Mta) -> None:
        with connect(mta.plain_port) as client:
            assert client.mail(REFUSED_SENDER)[0] == (554 if isinstance(mta, Postfix) else 550)
            assert client.mail(SENDER)[0] == 250

    @pytest.mark.parametrize("where", [content(REFUSED_CONTENT), b"\r\n" + content(REFUSED_CONTENT)])
    def test_refuses_content_at_end_of_data(self, mta: Mta, where: bytes) -> None:
        with connect(mta.plain_port) as client:
            with pytest.raises(smtplib.SMTPDataError) as caught:
                client.sendmail(SENDER, ["bob@lab.test"], where)
            assert caught.value.smtp_code in (550, 554)
            assert client.noop()[0] == 250

    def test_refuses_more_than_its_size(self, mta: Mta) -> None:
        with connect(mta.plain_port) as client:
            assert client.esmtp_features["size"] == str(SIZE_LIMIT)
            assert client.mail(SENDER, [f"SIZE={SIZE_LIMIT + 1}"])[0] == 552

    def test_auth_needs_tls(self, mta: Mta, pki: Pki) -> None:
        with connect(mta.auth_port) as client:
            assert client.has_extn("starttls")
            assert not client.has_extn("auth")
            client.starttls(context=pki.client_context())
            assert client.login(USER, PASSWORD)[0] == 235

    @pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
    def test_mechanisms_in_implicit_tls(self, mta: Mta, pki: Pki, mechanism: str) -> None:
        with smtplib.SMTP_SSL("localhost", mta.tls_port, context=pki.client_context(), timeout=10) as client:
            client.ehlo()
            if mechanism not in client.esmtp_features["auth"].split():
                assert isinstance(mta, AiosmtpdServer)
                return
            client.user, client.password = USER, PASSWORD
            answer: Callable[..., str] = getattr(client, f"auth_{mechanism.lower().replace('-', '_')}")
            client.auth(mechanism, answer)

    def test_refuses_a_wrong_password(self, mta: Mta, pki: Pki) -> None:
        with smtplib.SMTP_SSL("localhost", mta.tls_port, context=pki.client_context(), timeout=10) as client:
            with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
                client.login(USER, "wrong")
            assert caught.value.smtp_code == 535

    def test_forgets_what_it_was_told_to_forget(self, mta: Mta) -> None:
        with connect(mta.plain_port) as client:
            client.sendmail(SENDER, ["bob@lab.test"], content(unique()))
        assert mta.messages()
        mta.clear()
        assert mta.messages() == []


class TestPostfix:
    @pytest.mark.parametrize("extension", ["pipelining", "chunking", "dsn", "smtputf8", "8bitmime", "size"])
    def test_extensions(self, postfix: Postfix, extension: str) -> None:
        with connect(postfix.plain_port) as client:
            assert client.has_extn(extension)
            assert not client.has_extn("starttls")
            assert not client.has_extn("auth")
        with connect(postfix.starttls_port) as client:
            assert client.has_extn(extension)

    def test_starttls_without_auth(self, postfix: Postfix, pki: Pki) -> None:
        with connect(postfix.starttls_port) as client:
            client.starttls(context=pki.client_context())
            client.ehlo()
            assert not client.has_extn("auth")

    def test_bare(self, postfix: Postfix) -> None:
        text = unique()
        with connect(postfix.bare_port) as client:
            assert client.esmtp_features == {}
            client.sendmail(SENDER, ["bob@lab.test"], content(text))
        postfix.wait_for_message(text)

    def test_delivers_once_per_recipient(self, postfix: Postfix) -> None:
        text = unique()
        with connect(postfix.plain_port) as client:
            client.sendmail(SENDER, ["bob@lab.test", "eve@lab.test"], content(text))
        found = b"".join(postfix.wait_for_message(text, count=2))
        assert b"Delivered-To: bob@lab.test" in found
        assert b"Delivered-To: eve@lab.test" in found

    def test_log(self, postfix: Postfix) -> None:
        with connect(postfix.plain_port) as client:
            client.mail(REFUSED_SENDER)
        assert "sender refused" in postfix.log()


class TestExim:
    @pytest.mark.parametrize("extension", ["pipelining", "chunking", "dsn", "smtputf8", "8bitmime", "size"])
    def test_extensions(self, exim: Exim, extension: str) -> None:
        with connect(exim.plain_port) as client:
            assert client.has_extn(extension)
            assert not client.has_extn("starttls")
            assert not client.has_extn("auth")

    def test_log(self, exim: Exim) -> None:
        text = unique()
        with connect(exim.plain_port) as client:
            client.sendmail(SENDER, ["bob@lab.test"], content(text))
        exim.wait_for_message(text)
        assert "=> bob <bob@lab.test>" in exim.log()


class TestDovecot:
    @pytest.fixture(params=["tcp", "unix"])
    def lmtp(self, request: pytest.FixtureRequest, dovecot: Dovecot) -> smtplib.LMTP:
        if request.param == "tcp":
            return smtplib.LMTP(dovecot.host, dovecot.lmtp_port)
        return smtplib.LMTP(str(dovecot.lmtp_socket))

    def test_one_reply_per_recipient(self, dovecot: Dovecot, lmtp: smtplib.LMTP) -> None:
        text = unique()
        with lmtp as client:
            client.ehlo()
            client.mail(SENDER)
            recipients = ["user@lab.test", "full@lab.test", "nobody@lab.test", "user2@lab.test"]
            assert [client.rcpt(recipient)[0] for recipient in recipients] == [250, 250, 550, 250]
            client.docmd("DATA")
            client.send(content(text) + b".\r\n")
            assert [client.getreply()[0] for _ in range(3)] == [250, 552, 250]
        assert len(dovecot.wait_for_message(text, count=2)) == 2

    def test_submission_relays_to_postfix(self, dovecot: Dovecot, postfix: Postfix, pki: Pki) -> None:
        text = unique()
        with connect(dovecot.submission_port) as client:
            client.starttls(context=pki.client_context())
            client.login(USER, PASSWORD)
            client.sendmail(SENDER, ["bob@lab.test"], content(text))
            assert client.rcpt("bob@lab.test")[0] == 503
            client.mail(SENDER)
            assert client.rcpt("bob@reject.test")[0] == 554
        postfix.wait_for_message(text)

    def test_submission_over_implicit_tls(self, dovecot: Dovecot, pki: Pki) -> None:
        with smtplib.SMTP_SSL("localhost", dovecot.submissions_port, context=pki.client_context()) as client:
            client.ehlo()
            assert "SCRAM-SHA-256" in client.esmtp_features["auth"]
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login(USER, "wrong")
            assert client.login(USER, PASSWORD)[0] == 235

    def test_log(self, dovecot: Dovecot, lmtp: smtplib.LMTP) -> None:
        with lmtp as client:
            client.ehlo()
        assert "lmtp" in dovecot.log()


class TestAiosmtpd:
    def test_records_who_sent_what(self, aiosmtpd: AiosmtpdServer, pki: Pki) -> None:
        text = unique()
        with connect(aiosmtpd.auth_port) as client:
            client.starttls(context=pki.client_context())
            client.login(USER, PASSWORD)
            client.sendmail(SENDER, ["bob@lab.test", "eve@lab.test"], content(text))
        (received,) = aiosmtpd.wait_for_message(text)
        assert received.sender == SENDER
        assert received.recipients == ("bob@lab.test", "eve@lab.test")
        assert received.content == content(text)
        assert received.user == USER
        assert received.tls

    def test_lmtp_has_one_reply_per_recipient(self, aiosmtpd: AiosmtpdServer) -> None:
        with smtplib.LMTP(aiosmtpd.host, aiosmtpd.lmtp_port) as client:
            client.ehlo()
            client.mail(SENDER)
            assert [client.rcpt(f"{name}@lab.test")[0] for name in ("bob", "eve")] == [250, 250]
            client.docmd("DATA")
            client.send(content("two replies") + b".\r\n")
            assert [client.getreply()[0] for _ in range(2)] == [250, 250]


class TestSink:
    def test_takes_everything(self, sink: Sink) -> None:
        with connect(sink.port) as client:
            assert client.has_extn("pipelining")
            assert client.sendmail(SENDER, ["bob@reject.test"], content("anything")) == {}

    def test_options(self, make_sink: Callable[..., Sink]) -> None:
        with connect(make_sink("-r", "RCPT").port) as client:
            client.mail(SENDER)
            assert client.rcpt("bob@lab.test")[0] == 450
        with connect(make_sink("-f", ".").port) as client, pytest.raises(smtplib.SMTPDataError):
            client.sendmail(SENDER, ["bob@lab.test"], content("refused"))

    def test_smtp_source_sends_to_it(self, sink: Sink) -> None:
        words: list[str | Path] = [
            smtp_source(),
            "-s",
            "2",
            "-m",
            "20",
            "-f",
            SENDER,
            "-t",
            "bob@lab.test",
            f"{HOST}:{sink.port}",
        ]
        subprocess.run(words, check=True, timeout=10)


class TestPki:
    """Each leaf, shown by a server, is what it is called."""

    @staticmethod
    def handshake(pki: Pki, leaf: Leaf) -> None:
        server = AiosmtpdServer(pki, leaf)
        try:
            with smtplib.SMTP_SSL("localhost", server.tls_port, context=pki.client_context()) as client:
                client.noop()
        finally:
            server.stop()

    def test_server_is_trusted(self, pki: Pki) -> None:
        self.handshake(pki, pki.server)

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [
            ("expired", "certificate has expired"),
            ("wrong_host", "Hostname mismatch"),
            ("self_signed", "self[- ]signed certificate"),
        ],
    )
    def test_others_are_not(self, pki: Pki, name: str, complaint: str) -> None:
        with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
            self.handshake(pki, getattr(pki, name))

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "mail.lab.test"])
    def test_names(self, pki: Pki, host: str) -> None:
        exchange(pki.client_context(), pki.server_context(), host)

    def test_client_certificate(self, pki: Pki) -> None:
        server = pki.server_context(ask_client=True)
        shown = exchange(pki.client_context(identity=pki.client), server, "localhost")
        assert ((("commonName", "user@lab.test"),)) in shown["subject"]


def exchange(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> dict[str, Any]:
    """A TLS handshake in memory; returns the client's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client.wrap_bio(to_client, to_server, server_hostname=host)
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client_side, server_side]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    return dict(server_side.getpeercert() or {})


class TestMachine:
    def test_reserved_ports_are_nobody_elses(self) -> None:
        with reserved_ports(50) as first, reserved_ports(50) as second:
            assert len({*first, *second}) == 100

    @pytest.mark.parametrize(
        ("required", "ending"),
        [(None, pytest.skip.Exception), ("0", pytest.skip.Exception), ("1", pytest.fail.Exception)],
    )
    def test_a_missing_server_is_a_failure_where_servers_are_required(
        self, monkeypatch: pytest.MonkeyPatch, required: str | None, ending: type[BaseException]
    ) -> None:
        monkeypatch.delenv("SMTP_ASYNC_REQUIRE_SERVERS", raising=False)
        if required is not None:
            monkeypatch.setenv("SMTP_ASYNC_REQUIRE_SERVERS", required)
        with pytest.raises(ending, match="no-such-server is not installed"):
            program("no-such-server")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(ending, match="only be started by root"):
            require_root("Postfix")

    def test_a_killed_session_leaves_no_server_behind(self, tmp_path: Path) -> None:
        program = (
            "import signal, sys; from pathlib import Path; from tests.servers.pki import Pki;"
            "from tests.servers.postfix import Postfix; server = Postfix.start(Pki(Path(sys.argv[1])));"
            "print(server.plain_port, server.directory, flush=True); signal.pause()"
        )
        smtp_source()  # Postfix is there, or skip
        words: list[str | Path] = [sys.executable, "-c", program, tmp_path]
        root = Path(__file__).parents[2]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=root) as session:
            assert session.stdout is not None
            port, directory = session.stdout.readline().split()
            assert listening(int(port))
            os.kill(session.pid, signal.SIGKILL)
        wait_until(
            lambda: not Path(directory).exists(), timeout=10, what=lambda: f"{directory} is still there"
        )
        assert not listening(int(port))


def test_only_what_a_killed_session_left_behind_is_removed(tmp_path: Path) -> None:
    left, used, starting = (tmp_path / f"{PREFIX}{name}" for name in ("left", "used", "starting"))
    for directory in (left, used, starting):
        (directory / "data").mkdir(parents=True)
    for directory in (left, used):
        (directory / OWNER).touch()
    with (used / OWNER).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_abandoned(tmp_path)
        assert {*tmp_path.iterdir()} == {used, starting}
    remove_abandoned(tmp_path)
    assert {*tmp_path.iterdir()} == {starting}
