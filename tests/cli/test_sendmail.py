"""`smtp-async sendmail`, as programs of this machine call it."""

import asyncio
import io
import smtplib
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from smtp_async import DirectorySpool
from smtp_async.cli.sendmail import run_sendmail
from smtp_async.spool.entry import State
from smtp_async.testing import reply
from tests.servers.machine import program as installed
from tests.servers.machine import unavailable

#: A process takes seconds to start on a busy machine.
SLOW = pytest.mark.timeout(120)


class Input:
    """Standard input that is a pipe."""

    def __init__(self, data):
        self.buffer = io.BytesIO(data)

    def isatty(self):
        return False


@pytest.fixture
def settings(configured):
    """Writes a configuration with an account for a server and settings of sendmail."""

    def write(server=None, more="", account="from = 'Ann <ann@example.com>'"):
        there = (
            ""
            if server is None
            else f'[accounts.a]\nurl = "smtp+plain://127.0.0.1:{server.port}"\n{account}\n'
        )
        return configured(f'{there}[sendmail]\ndomain = "lab.test"\n{more}\n')

    return write


@pytest.fixture
def sendmail(monkeypatch, capsysbinary, no_configuration):
    """Calls the program; returns the exit code and what it printed."""

    def call(*arguments, data=b"Subject: Hi\n\nText\n", program="sendmail"):
        monkeypatch.setattr(sys, "stdin", Input(data))
        code = run_sendmail(arguments, program)
        out, err = capsysbinary.readouterr()
        return code, out.decode(), err.decode()

    return call


@pytest.fixture
def spool(tmp_path):
    DirectorySpool(tmp_path / "spool", create=True)
    return tmp_path / "spool"


async def stored(path):
    async with DirectorySpool(path) as queue:
        return [(one, await queue.read(one.id)) async for one in queue.list(State.QUEUED)]


# --- delivery ------------------------------------------------------------------------------------------------


def test_a_message_is_delivered_at_once(sendmail, settings, serve):
    server = serve()
    settings(server)
    assert sendmail("-i", "bob@example.org") == (0, "", "")
    [message] = server.messages
    assert (message.mail_from, message.rcpt_tos) == ("ann@example.com", ["bob@example.org"])
    assert message.parsed["Message-ID"] and message.parsed["From"] == "Ann <ann@example.com>"


def test_as_cron_calls_it(sendmail, settings, serve):
    server = serve()
    settings(server, '[sendmail.aliases]\nroot = "admin@example.com"')
    data = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@vm> date\n\n\xc3\xa9\n.\nmore\n"
    assert sendmail("-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root", data=data) == (0, "", "")
    [message] = server.messages
    assert message.rcpt_tos == ["admin@example.com"]
    assert message.parsed["From"] == "Cron Daemon <root@lab.test>" and message.parsed["To"] == "root@lab.test"
    assert message.parsed.get_content() == "é\n.\nmore\n"


def test_recipients_of_the_header_without_Bcc(sendmail, settings, serve):
    server = serve()
    settings(server)
    data = b"To: bob@example.org\nBcc: eve@example.org\n\nText\n.\nnot this\n"
    assert sendmail("-t", data=data)[0] == 0
    [message] = server.messages
    assert message.rcpt_tos == ["bob@example.org", "eve@example.org"]
    assert b"eve" not in message.data and b"not this" not in message.data


def test_reports_and_the_sender(sendmail, settings, serve):
    server = serve()
    settings(server)
    line = ["-f", "eve@example.org", "-N", "success", "-R", "hdrs", "-V", "x7", "bob@example.org"]
    assert sendmail(*line)[0] == 0
    [message] = server.messages
    assert message.mail_from == "eve@example.org" and message.rcpt_parameters == [{"NOTIFY": "SUCCESS"}]
    assert (message.mail_parameters["RET"], message.mail_parameters["ENVID"]) == ("HDRS", "x7")


def test_a_server_without_reports(sendmail, settings, serve):
    server = serve(extensions=())
    settings(server)
    assert sendmail("-N", "never", "-R", "full", "bob@example.org")[0] == 0


def test_one_of_two_recipients_is_refused(sendmail, settings, serve):
    server = serve()
    server.on("RCPT", reply(550, "5.1.1 nobody"), match="no@")
    settings(server)
    code, _, said = sendmail("bob@example.org", "no@example.org")
    assert code == 67 and server.messages[0].rcpt_tos == ["bob@example.org"]
    assert said == "sendmail: no@example.org: refused: 550 5.1.1 nobody.\n"


@pytest.mark.parametrize(
    ("verb", "answer", "code"),
    [("RCPT", 550, 67), ("RCPT", 450, 75), ("MAIL", 554, 69), (".", 452, 75), ("GREETING", 554, 69)],
)
def test_what_the_server_says_becomes_an_exit_code(sendmail, settings, serve, verb, answer, code):
    server = serve()
    server.on(verb, reply(answer, "no"))
    settings(server)
    found, _, said = sendmail("bob@example.org")
    assert found == code and said.startswith("sendmail: ") and str(answer) in said


def test_nobody_listens(sendmail, settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    settings(SimpleNamespace(port=port))
    assert sendmail("bob@example.org")[0] == 75


# --- the spool -----------------------------------------------------------------------------------------------


async def test_a_message_is_put_into_the_spool(sendmail, settings, spool):
    settings(more=f'spool = "{spool}"')
    code = await in_a_thread(lambda: sendmail("-t", "-i", data=b"To: bob@example.org\nBcc: x@y.org\n\n.\n"))
    assert code == (0, "", "")
    [(job, data)] = await stored(spool)
    assert [one.address.addr_spec for one in job.envelope.recipients] == ["bob@example.org", "x@y.org"]
    assert data.endswith(b"\r\n\r\n.\r\n") and b"x@y.org" not in data and b"\r\nDate: " in data


async def test_a_spool_that_is_named_goes_first(sendmail, settings, serve, spool):
    settings(serve())
    assert (await in_a_thread(lambda: sendmail("--spool", str(spool), "bob@example.org")))[0] == 0
    assert len(await stored(spool)) == 1


async def test_an_account_that_is_named_delivers(sendmail, settings, serve, spool):
    server = serve()
    settings(server, f'spool = "{spool}"')
    assert (await in_a_thread(lambda: sendmail("--account", "a", "bob@example.org")))[0] == 0
    assert len(server.messages) == 1 and await stored(spool) == []


def test_the_queue_is_listed(sendmail, settings, spool):
    settings(more=f'spool = "{spool}"')
    assert sendmail("bob@example.org")[0] == 0
    for line, program in ((["-bp"], "sendmail"), ([], "/usr/bin/mailq")):
        code, listed, _ = sendmail(*line, program=program)
        assert code == 0 and "bob@example.org" in listed


def test_there_is_no_spool(sendmail, settings, serve, tmp_path):
    settings(serve())
    assert sendmail("-bp")[0] == 78
    assert sendmail("--spool", str(tmp_path / "missing"), "bob@example.org")[0] == 78


# --- what is wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["-z"], 64, "no option -z"),
        ([], 64, "no recipient"),
        (["-q"], 64, "smtp-async process"),
        (["bob@"], 65, "bob@"),
        (["--account", "b", "x"], 78, "has no account b"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(sendmail, settings, serve, line, code, said):
    settings(serve())
    found, out, err = sendmail(*line)
    assert (found, out) == (code, "") and said in err and err.count("\n") == 1


def test_without_a_configuration(sendmail, configured):
    code, _, said = sendmail("bob@example.org")
    assert code == 78 and "no configuration file" in said
    configured('[accounts.a]\nurl = "a"\n[accounts.b]\nurl = "b"\n')
    code, _, said = sendmail("bob@example.org")
    assert code == 78 and "neither a default account nor a spool" in said


def test_what_needs_no_configuration(sendmail):
    assert sendmail("-bi") == (0, "", "")
    assert sendmail(program="newaliases") == (0, "", "")
    assert "-bs" in sendmail("--help")[1]
    assert sendmail("--version")[1].startswith("smtp-async ")


# --- SMTP ----------------------------------------------------------------------------------------------------


def test_SMTP_over_a_pipe(sendmail, settings, serve):
    server = serve()
    server.on("RCPT", reply(550, "5.1.1 nobody"), match="no@")
    settings(server)
    letter = (
        "MAIL FROM:<a@b.org> RET=FULL\r\nRCPT TO:<{}> NOTIFY=NEVER\r\nDATA\r\nSubject: x\r\n\r\nHi\r\n.\r\n"
    )
    said = f"EHLO me\r\n{letter.format('bob@example.org')}{letter.format('no@example.org')}QUIT\r\n"
    code, answers, _ = sendmail("-bs", data=said.encode())
    assert code == 0
    ends = [line for line in answers.splitlines() if line[:6] in ("250 2.", "550 5.")]
    assert ends[-2:] == ["250 2.1.5 Recipient ok", "550 5.1.1 no@example.org: refused: 550 5.1.1 nobody"]
    [message] = server.messages
    assert (message.mail_from, message.rcpt_parameters) == ("a@b.org", [{"NOTIFY": "NEVER"}])
    assert message.mail_parameters["RET"] == "FULL"


@pytest.mark.parametrize("line", ["RCPT TO:<bob@example.org> NOTIFY=SOMETIMES", "RCPT TO:<bob@example.org>"])
def test_SMTP_when_the_server_is_gone(sendmail, settings, line):
    settings(SimpleNamespace(port=9))
    said = f"EHLO me\r\nMAIL FROM:<a@b.org>\r\n{line}\r\nDATA\r\nHi\r\n.\r\nQUIT\r\n"
    code, answers, _ = sendmail("-bs", data=said.encode())
    assert code == 0
    assert answers.splitlines()[-2].startswith("554" if "SOMETIMES" in line else "451 4.3.0")


# --- real callers --------------------------------------------------------------------------------------------


async def in_a_thread(call):
    """Call what runs a loop of its own."""
    return await asyncio.to_thread(call)


@pytest.fixture
def program(tmp_path):
    """A file that can stand as /usr/sbin/sendmail."""
    path = tmp_path / "sendmail"
    root = Path(__file__).parents[2]
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
        "from smtp_async.cli import main_as_sendmail\nmain_as_sendmail()\n"
    )
    path.chmod(0o755)
    return path


posix = pytest.mark.skipif(sys.platform == "win32", reason="programs of POSIX")


@SLOW
@posix
def test_without_HOME_and_with_an_environment_like_that_of_cron(program, settings, serve):
    server = serve()
    path = settings(server)
    done = subprocess.run(
        [program, "-C", path, "-i", "-FCronDaemon", "-oem", "root@example.org"],
        input=b"From: root\nTo: root\n\nHi\n",
        env={"SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert server.messages[0].rcpt_tos == ["root@example.org"]


@SLOW
@posix
def test_smtplib_over_a_pipe(program, settings, serve):
    """As mail programs that speak SMTP to sendmail."""
    server = serve()
    path = settings(server)
    ours, its = socket.socketpair()
    pipe: Any = its
    with subprocess.Popen([program, "-C", path, "-bs"], stdin=pipe, stdout=pipe) as process, ours:
        its.close()

        class OverAPipe(smtplib.SMTP):
            def _get_socket(self, host, port, timeout):
                return ours

        with OverAPipe("sendmail", timeout=60) as client:
            text = "Subject: x\n\n.dots\n.\nÜ\n".encode()
            client.sendmail("a@b.org", ["bob@example.org"], text, mail_options=["BODY=8BITMIME"])
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                client.sendmail("a@b.org", ["@@"], text)
        process.wait(60)
    [message] = server.messages
    assert message.parsed.get_content().rstrip() == ".dots\n.\nÜ"


@SLOW
@pytest.mark.server
@posix
def test_git_send_email(program, settings, serve, tmp_path):
    git = installed("git")
    where = subprocess.run([git, "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(where, "git-send-email").exists():
        unavailable("git send-email is not installed")
    server = serve()
    path = settings(server)
    patch = tmp_path / "0001-x.patch"
    patch.write_text(
        "From 1234567890123456789012345678901234567890 Mon Sep 17 00:00:00 2001\n"
        "From: Ünal <unal@example.com>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nSubject: [PATCH] x\n\n"
        "Text\n---\n.\n-- \n2.39\n"
    )
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "SMTP_ASYNC_CONFIG": str(path),
        "LC_ALL": "C.UTF-8",
        "EMAIL": "unal@example.com",
    }
    line: list[Any] = [
        git,
        "-c",
        f"sendemail.smtpServer={program}",
        "send-email",
        "--quiet",
        "--confirm=never",
    ]
    line += [
        "--from=Ünal <unal@example.com>",
        "--8bit-encoding=UTF-8",
        "--to=bob@example.org",
        "--bcc=eve@example.org",
    ]
    done = subprocess.run([*line, patch], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [message] = server.messages
    assert sorted(message.rcpt_tos) == ["bob@example.org", "eve@example.org", "unal@example.com"]
    assert "eve" not in str(message.parsed) and message.parsed["Subject"] == "[PATCH] x"


@SLOW
@pytest.mark.server
@posix
def test_PHP(program, settings, serve, tmp_path):
    php = installed("php")
    server = serve()
    server.on("RCPT", reply(550, "5.1.1 nobody"), match="no@")
    path = settings(server)
    script = tmp_path / "mail.php"
    script.write_text(
        """<?php
        $long = str_repeat("ü", 600);
        $ok = mail("bob@example.org", "Grüße", "Hi\\n.\\n$long\\n", "Content-Type: text/plain; charset=utf-8");
        $no = mail("no@example.org", "x", "x");
        echo json_encode([$ok, $no]);
        """
    )
    line = [php, "-n", "-d", f"sendmail_path={program} -t -i -C {path}", "-d", "mail.add_x_header=0", script]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.stdout == "[true,false]", done.stderr
    [message] = server.messages
    assert message.rcpt_tos == ["bob@example.org"] and message.parsed["Subject"] == "Grüße"
    assert message.parsed.get_content().split() == ["Hi", ".", "ü" * 600]
