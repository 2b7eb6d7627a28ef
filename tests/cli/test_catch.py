"""catch.py: the catcher as a command, from its first line to its end."""

import json
import os
import signal
import smtplib
import ssl
import subprocess
import sys
import urllib.request

import pytest

from smtp_async.cli.exits import Exit


class Running:
    """A command that runs until it is stopped."""

    def __init__(self, *words, env=None):
        command = [sys.executable, "-m", "smtp_async", *map(str, words)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | (env or {})
        )

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self.process.kill()
        self.process.communicate()

    def words(self):
        """The words of the next line on standard output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def stop(self):
        """Stop it as a user does; return its exit code and what it wrote on standard error."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=15)
        return self.process.returncode, errors


def ask(url, path):
    with urllib.request.urlopen(url + path, timeout=10) as answer:
        return json.load(answer)


def ports_of(running):
    address, url = running.words()[-1], running.words()[-1]
    return int(address.rpartition(":")[2]), url


@pytest.mark.timeout(60)
def test_mail_is_caught_kept_and_shown_again(tmp_path):
    options = (
        "catch",
        "--smtp",
        0,
        "--web",
        0,
        "--keep",
        tmp_path / "mail",
        "--tls",
        "offer",
        "--auth",
        "require",
    )
    with Running(*options) as running:
        port, url = ports_of(running)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.starttls(context=context)
            client.login("ann", "top-secret")
            client.sendmail("ann@example.com", ["bob@example.org"], b"Subject: Hello\r\n\r\nHi\r\n")
        [one] = ask(url, "api/messages")["messages"]
        assert one["subject"] == "Hello" and ask(url, "api/status")["kept"]
        assert "top-secret" not in json.dumps(ask(url, "api/messages/latest"))
        assert running.stop() == (0, "")
    assert b"top-secret" not in b"".join(path.read_bytes() for path in (tmp_path / "mail").iterdir())
    with Running("catch", "--smtp", 0, "--web", 0, "--keep", tmp_path / "mail") as running:
        _, url = ports_of(running)
        assert [one["subject"] for one in ask(url, "api/messages")["messages"]] == ["Hello"]
        assert "1" in running.words()


@pytest.mark.timeout(60)
def test_mail_is_relayed_with_a_password_of_the_environment(serve, pki):
    server = serve(ssl_context=pki.server_context(), users={"ann": "top-secret"}, require_auth=True)
    url = f"smtp://ann@localhost:{server.port}"
    env = {"SMTP_ASYNC_PASSWORD": "top-secret", "SSL_CERT_FILE": str(pki.ca_file)}
    with Running("catch", "--smtp", 0, "--web", 0, "--relay", url, env=env) as running:
        port, page = ports_of(running)
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.sendmail("ann@example.com", ["bob@example.org"], b"Subject: Hello\r\n\r\nHi\r\n")
        asked = urllib.request.Request(f"{page}api/messages/latest/relay", b"{}", method="POST")
        with urllib.request.urlopen(asked, timeout=10) as answer:
            [told] = json.load(answer)["recipients"]
            assert told["outcome"] == "accepted", told
        assert server.messages[0].rcpt_tos == ["bob@example.org"]


def test_a_port_that_is_taken(shell, serve):
    server = serve()
    done = shell(f"catch --smtp {server.port} --web 0")
    assert done.exit_code == Exit.USAGE and f"port {server.port}: address already in use" in done.stderr


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--cert x.pem", "--cert needs --tls"),
        ("--relay smtp://ann:top@x", "leave it out"),
        ("--smtp 70000", "65535"),
        ("--most 0", "most"),
        ("--tls nonsense", "nonsense"),
    ],
)
def test_a_wrong_command_line(shell, line, complaint):
    done = shell(f"catch {line}")
    assert done.exit_code == Exit.USAGE and complaint in done.output


def test_a_certificate_of_the_users_own(shell, serve, tmp_path, pki):
    server = serve()
    done = shell(f"catch --smtp {server.port} --web 0 --tls implicit --cert {tmp_path / 'none.pem'}")
    assert done.exit_code != Exit.OK and "none.pem" in done.stderr
