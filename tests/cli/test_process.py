"""`smtp-async process`: what is sent, what is shown, and the exit code."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from smtp_async import Certificate
from smtp_async.cli.exits import Exit
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.testing import close, default, delay, reply, swallow
from tests.servers.machine import wait_until
from tests.transport.proxy.lab import Asked, answers, in_a_thread, socks5

RAW = "From: ann@example.com\nTo: {to}\nSubject: {to}\n\nHi\n"


@pytest.fixture
def spool(tmp_path):
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    return path


def put(path, *people):
    """Queue a message for each recipient, and return the ids."""

    async def do():
        async with DirectorySpool(path, durable=False) as spool:
            return [await spool.put(RAW.format(to=one).encode()) for one in people]

    return asyncio.run(do())


def entries(path):
    async def do():
        async with DirectorySpool(path) as spool:
            return {one.id: one async for one in spool.list()}

    return asyncio.run(do())


def states(path):
    return {id: one.state.value for id, one in entries(path).items()}


@pytest.fixture
def run(shell, spool):
    """`smtp-async process --once …` on the spool."""

    def run(server, line="", **more):
        return shell(f"process --spool {spool} --server {server} --once {line}", **more)

    return run


def fields(done):
    return [line.split("\t") for line in done.stdout.splitlines()]


# --- once ----------------------------------------------------------------------------------------------------


def test_once_sends_everything(run, serve, spool):
    ids = put(spool, *(f"u{number}@example.org" for number in range(25)))
    server = serve()
    done = run(server.url)
    assert done.exit_code == 0 and done.stderr == "" and "\x1b" not in done.stdout
    *rows, total = fields(done)
    assert sorted(row[1] for row in rows) == sorted(ids)
    assert {(row[0], row[2], row[3]) for row in rows} == {("sent", "-", "250 2.0.0 Ok: queued")}
    assert total[0] == "total" and total[3].startswith("25 sent, 0 deferred, 0 failed in ")
    assert len(server.messages) == 25 and server.violations == [] and states(spool) == {}


def test_a_queue_is_sent_through_a_proxy(run, serve, spool):
    put(spool, "bob@example.org")
    server, asked = serve(), Asked()
    with in_a_thread(socks5(asked)) as port:
        done = run(server.url, f"--proxy socks5://127.0.0.1:{port}")
    assert done.exit_code == 0
    assert asked.targets == [(server.host, server.port)] and len(server.messages) == 1


def test_a_queue_is_signed(run, serve, spool, shell, tmp_path):
    put(spool, "bob@example.org")
    server, key = serve(), tmp_path / "dkim.pem"
    assert shell(f"dkim-key --domain example.com --selector s --type ed25519 --out {key}").exit_code == 0
    line = f"--dkim-key {key} --dkim-selector s"
    done = run(server.url, line)
    assert done.exit_code == Exit.USAGE and "--dkim-key needs --dkim-domain, or an author" in done.stderr
    assert run(server.url, f"{line} --dkim-domain example.com").exit_code == 0
    assert "d=example.com" in server.messages[0].parsed["DKIM-Signature"]


def test_a_proxy_that_refuses_leaves_the_queue_as_it_was(run, serve, spool):
    [one] = put(spool, "bob@example.org")
    server = serve()
    with in_a_thread(answers(b"HTTP/1.1 407 no\r\nProxy-Authenticate: Basic\r\n\r\n")) as port:
        done = run(server.url, f"--proxy http://127.0.0.1:{port}")
    assert done.exit_code == Exit.NOT_SENT
    assert states(spool) == {one: "queued"} and server.messages == []


def test_an_empty_spool_exits_with_0(run, serve):
    server = serve()
    done = run(server.url)
    assert done.exit_code == 0 and [row[0] for row in fields(done)] == ["total"]
    assert server.commands == []


def test_refused_and_deferred_jobs_are_shown(run, serve, spool):
    good, bad, later = put(spool, "good@example.org", "bad@example.org", "later@example.org")
    server = serve()
    server.on("RCPT", reply(550, "5.1.1 no such user \x1b[2J"), match="bad")
    server.on("RCPT", reply(450, "4.2.1 come back"), match="later")
    done = run(server.url, "--keep-sent")
    assert done.exit_code == Exit.REFUSED and "\x1b" not in done.output
    rows = {row[0]: row for row in fields(done)}
    assert rows["sent"][1] == good and rows["failed"][1] == bad and rows["deferred"][1] == later
    assert "550 5.1.1 no such user" in rows["failed"][3] and "450 4.2.1 come back" in rows["deferred"][3]
    assert rows["deferred"][2].endswith("Z") and rows["total"][3].startswith("1 sent, 1 deferred, 1 failed")
    assert states(spool) == {good: "sent", bad: "failed", later: "queued"}


def test_deferred_jobs_alone_exit_with_3(run, serve, spool):
    put(spool, "later@example.org")
    server = serve()
    server.on("RCPT", reply(450, "4.2.1 come back"))
    assert run(server.url).exit_code == Exit.NOT_SENT


def test_with_one_attempt_every_error_is_final(run, serve, spool):
    put(spool, "later@example.org")
    server = serve()
    server.on("RCPT", reply(450, "4.2.1 come back"))
    assert run(server.url, "--attempts 1").exit_code == Exit.REFUSED
    assert [*states(spool).values()] == ["failed"]


@pytest.mark.parametrize(
    ("option", "code", "state"), [("retry", Exit.NOT_SENT, "queued"), ("hold", Exit.UNKNOWN, "failed")]
)
def test_an_unknown_outcome_is_tried_again_or_held(run, serve, spool, option, code, state):
    put(spool, "bob@example.org")
    server = serve()
    server.on(".", swallow(), close())
    done = run(server.url, f"--on-unknown {option}")
    assert done.exit_code == code and [*states(spool).values()] == [state]
    assert "1 of them unknown" in fields(done)[-1][3]


def test_stop_on_error_starts_no_further_job(run, serve, spool):
    put(spool, *(f"u{number}@example.org" for number in range(5)))
    server = serve()
    server.on("RCPT", reply(550, "5.1.1 no"))
    done = run(server.url, "--stop-on-error --concurrency 1")
    assert done.exit_code == Exit.REFUSED and [*states(spool).values()].count("failed") == 1
    assert done.stderr.startswith("smtp-async: The job ") and done.stderr.count("\n") == 1


def test_quiet_shows_no_sent_jobs(run, serve, spool):
    put(spool, "good@example.org", "bad@example.org")
    server = serve()
    server.on("RCPT", reply(550, "5.1.1 no"), match="bad")
    assert [row[0] for row in fields(run(server.url, "-q"))] == ["failed", "total"]


def test_concurrency_sets_the_number_of_connections(run, serve, spool):
    put(spool, *(f"u{number}@example.org" for number in range(20)))
    server = serve()
    assert run(server.url, "--concurrency 1").exit_code == 0
    assert server.connections.opened == 1
    put(spool, *(f"u{number}@example.org" for number in range(20)))
    assert run(server.url, "--concurrency 8 --connections 2").exit_code == 0
    assert server.connections.opened <= 3


def test_a_recovered_job_is_shown(run, serve, spool):
    (id,) = put(spool, "bob@example.org")
    program = (
        "import asyncio, os, sys\n"
        "from smtp_async.spool.directory.spool import DirectorySpool\n"
        "async def main():\n"
        "    spool = DirectorySpool(sys.argv[1])\n"
        "    (lease,) = await spool.claim(1)\n"
        "    await lease.mark_end_of_data()\n"
        "    os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", program, spool], check=False).returncode == 9
    done = run(serve().url)
    assert [row[:2] for row in fields(done)[:2]] == [["recovered", id], ["sent", id]]


# --- servers and logins --------------------------------------------------------------------------------------


def test_the_processor_logs_in(run, submission, spool, pki, password_file):
    put(spool, "bob@example.org")
    line = f"-v --user ann --ca-file {pki.ca_file} --password-file {password_file}"
    done = run(f"localhost:{submission.port}", line)
    assert done.exit_code == 0 and submission.messages[0].user == "ann"
    assert "> AUTH PLAIN ***" in done.stderr and "AHRvc" not in done.output


def test_a_wrong_password_keeps_the_mail(run, submission, spool, pki):
    put(spool, "bob@example.org", "cid@example.org")
    env = {"SMTP_ASYNC_PASSWORD": "wrong-secret"}
    done = run(f"localhost:{submission.port}", f"--user ann --ca-file {pki.ca_file}", env=env)
    assert done.exit_code == Exit.SETUP and "535 5.7.8" in done.stderr and "wrong-secret" not in done.output
    assert [*states(spool).values()] == ["queued"] * 2
    assert [row[0] for row in fields(done)] == ["paused", "total"]


def test_a_closed_port_keeps_the_mail(run, serve, spool):
    put(spool, "bob@example.org")
    server = serve()
    server.stop()
    done = run(server.url)
    assert done.exit_code == Exit.NOT_SENT and done.stderr.count("\n") == 1
    assert done.stderr.startswith("smtp-async: Cannot connect to 127.0.0.1")
    assert [*entries(spool).values()][0].attempts == 0


@pytest.mark.parametrize(
    ("server", "line", "code", "words"),
    [
        ("smtp://ann:top-secret@localhost", "", Exit.USAGE, "--password-file"),
        ("http://localhost", "", Exit.USAGE, "the schemes are smtps"),
        ("localhost", "--user ann", Exit.USAGE, "no terminal to ask"),
        ("localhost", "--concurrency 0", Exit.USAGE, "concurrency"),
        ("localhost", "--attempts 0", Exit.USAGE, "attempts"),
        ("localhost", "--on-unknown guess", Exit.USAGE, "guess"),
        ("localhost", "--grace -1", Exit.USAGE, "grace"),
        ("mail.invalid", "", Exit.SETUP, "Cannot resolve mail.invalid"),
    ],
)
def test_invalid_options_are_refused(run, spool, server, line, code, words):
    put(spool, "bob@example.org")
    done = run(server, line)
    assert done.exit_code == code and words in done.stderr
    assert [*states(spool).values()] == ["queued"]


def test_a_missing_or_unsafe_spool_is_refused(run, serve, spool, shell, tmp_path):
    server = serve()
    done = shell(f"process --once --spool {tmp_path}/none --server {server.url}")
    assert done.exit_code == Exit.USAGE and done.stderr.startswith("smtp-async: There is no spool directory")
    spool.chmod(0o770)
    done = run(server.url)
    assert done.exit_code == Exit.SETUP and done.stderr.startswith(
        "smtp-async: Other users may write to the spool"
    )
    assert server.commands == [] and done.stdout == ""


def test_an_unreadable_file_is_put_aside(run, serve, spool):
    (id,) = put(spool, "bob@example.org")
    (spool / "0000000000000000001-x.queued").write_bytes(b"not a job\n")
    server = serve()
    done = run(server.url)
    assert done.exit_code == 5 and len(server.messages) == 1 and "Traceback" not in done.output
    assert "unreadable\t0000000000000000001-x\t-\tnot a job" in done.stdout


# --- until stopped -------------------------------------------------------------------------------------------


class Running:
    """`smtp-async process` in a process of its own."""

    def __init__(self, spool, server, *words):
        program = [
            sys.executable,
            "-m",
            "smtp_async",
            "process",
            "--spool",
            str(spool),
            "--server",
            server.url,
        ]
        self.process = subprocess.Popen(
            [*program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self.out, self.err = self.process.stdout, self.process.stderr

    def end(self):
        """Wait until the process has ended; return its exit code and output."""
        out, err = self.process.communicate(timeout=15)
        return self.process.returncode, out, err


@pytest.fixture
def start(spool):
    with contextlib.ExitStack() as stack:

        def start(server, *words):
            running = Running(spool, server, *words)
            stack.callback(running.process.communicate)
            stack.callback(running.process.kill)
            return running

        yield start


def held_up(server):
    """Delay the end of a message; return the rule, and a function that ends the delay."""
    gate = server.call(asyncio.Event)
    rule = server.on(".", delay(gate), default())
    return rule, lambda: server.call(gate.set)


def fired(rule):
    wait_until(lambda: rule.fired > 0, timeout=15, what=lambda: "the end of the message was not seen")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_messages_being_sent_may_end_after_a_signal(serve, spool, start, number):
    first, second = put(spool, "bob@example.org", "cid@example.org")
    server = serve()
    rule, go_on = held_up(server)
    running = start(server, "--concurrency", "1")
    fired(rule)
    running.process.send_signal(number)
    assert running.err.readline().startswith("Stopping: 1 being sent may end.")
    go_on()
    code, out, err = running.end()
    assert code == 0 and err == "" and "\x1b" not in out
    assert [line.split("\t")[:2] for line in out.splitlines()][0] == ["sent", first]
    assert len(server.messages) == 1 and states(spool) == {second: "queued"}


def test_the_second_signal_ends_the_grace(serve, spool, start):
    (id,) = put(spool, "bob@example.org")
    server = serve()
    rule, _ = held_up(server)
    running = start(server)
    fired(rule)
    running.process.send_signal(signal.SIGINT)
    assert running.err.readline().startswith("Stopping")
    running.process.send_signal(signal.SIGINT)
    code, out, err = running.end()
    assert code == 130 and "Traceback" not in err
    assert states(spool) == {id: "queued"} and "1 of them unknown" in out
    assert [one.outcome.value for one in entries(spool)[id].results if one is not None] == ["unknown"]


def test_an_interrupted_once_exits_with_130(serve, spool, start):
    put(spool, "bob@example.org", "cid@example.org")
    server = serve()
    rule, go_on = held_up(server)
    running = start(server, "--once", "--concurrency", "1")
    fired(rule)
    running.process.send_signal(signal.SIGTERM)
    assert running.err.readline().startswith("Stopping")
    go_on()
    assert running.end()[0] == 130


def test_later_mail_is_sent_and_shown_at_once(serve, spool, start):
    server = serve()
    running = start(server)
    for number in range(2):
        (id,) = put(spool, f"u{number}@example.org")
        assert running.out.readline() == f"sent\t{id}\t-\t250 2.0.0 Ok: queued\n"
    running.process.send_signal(signal.SIGTERM)
    code, out, _ = running.end()
    assert code == 0 and out.startswith("total\t-\t-\t2 sent, 0 deferred, 0 failed")


def test_a_failed_job_ends_a_run_with_stop_on_error(serve, spool, start):
    put(spool, "bad@example.org")
    server = serve()
    server.on("RCPT", reply(550, "5.1.1 no"))
    code, out, _ = start(server, "--stop-on-error").end()
    assert code == Exit.REFUSED and out.startswith("failed\t")


def test_a_broken_pipe_ends_a_run(serve, spool, start):
    put(spool, "u0@example.org")
    server = serve()
    running = start(server)
    running.out.readline()
    running.out.close()
    put(spool, "u1@example.org")
    assert running.process.wait(15) == 1
    assert "Traceback" not in running.err.read() and states(spool) == {}


# --- on a terminal -------------------------------------------------------------------------------------------


def test_a_terminal_gets_a_summary(run, serve, spool, terminal):
    _, bad = put(spool, "good@example.org", "bad@example.org")
    server = serve()
    server.on("RCPT", reply(550, "5.1.1 no"), match="bad")
    done = run(server.url)
    assert f"✗ {bad} failed: " in done.stdout and "✗ 1 sent, 0 deferred, 1 failed in 0:00:0" in done.stdout
    put(spool, "good@example.org")
    assert "✓ 1 sent, 0 deferred, 0 failed" in run(server.url).stdout
    put(spool, "good@example.org")
    server.on("GREETING", reply(554, "5.3.2 no service"))
    assert "✗ 0 sent, 0 deferred, 0 failed" in run(server.url).stdout


def test_a_real_terminal_gets_a_live_display(serve, spool):
    put(spool, *(f"u{number}@example.org" for number in range(30)))
    server = serve()
    rule, go_on = held_up(server)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "smtp_async", "process", "--once", "--spool", spool, "--server", server.url],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "30"},
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    while b"in flight" not in said or b"0 of 30" not in said:
        said += os.read(ours, 4096)
    go_on()
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 4096):
            said += piece
    os.close(ours)
    assert process.wait() == 0, said
    assert "✓".encode() in said and b"30 sent, 0 deferred, 0 failed" in said and rule.fired


# --- real servers --------------------------------------------------------------------------------------------


@pytest.mark.server
def test_a_queue_is_sent_to_postfix(run, postfix, spool, pki, shell):
    good, bad, later = put(spool, "carl@lab.test", "no@reject.test", "no@defer.test")
    line = f"--user {postfix.user} --ca-file {pki.ca_file}"
    env = {"SMTP_ASYNC_PASSWORD": postfix.password}
    done = run(f"localhost:{postfix.auth_port}", line, env=env)
    assert done.exit_code == Exit.REFUSED and postfix.password not in done.output
    assert {row[0]: row[1] for row in fields(done)[:3]} == {"sent": good, "failed": bad, "deferred": later}
    known = json.loads(shell(f"queue show --json {bad} --spool {spool}").stdout)
    assert known["recipients"][0]["code"] == 554 and "no such user" in known["reason"]
    assert len(postfix.wait_for_message("Subject: carl@lab.test")) == 1


@pytest.mark.server
def test_a_queue_is_sent_to_smtp_sink(run, sink, spool):
    put(spool, *(f"u{number}@example.org" for number in range(200)))
    done = run(f"smtp+plain://{sink.host}:{sink.port}")
    assert done.exit_code == 0 and fields(done)[-1][3].startswith("200 sent, 0 deferred, 0 failed")
    assert states(spool) == {}


# --- trust ---------------------------------------------------------------------------------------------------


def test_the_options_of_trust(run, serve, spool, pki, tmp_path):
    folder = tmp_path / "authorities"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(pki.ca_file.read_bytes())
    subprocess.run(["openssl", "rehash", str(folder)], check=True, capture_output=True)
    server = serve(ssl_context=pki.server_context(pki.expired), implicit_tls=True)
    url = f"smtps://localhost:{server.port}"
    trust = f"--ca-path {folder} --revocation crl"
    put(spool, "bob@example.com")
    pin = Certificate.load(pki.expired.certificate.read_bytes()).sha256
    expired = run(url, f"{trust} --pin {pin}")
    assert expired.exit_code != 0 and "expired on" in expired.output
    wrong = run(url, f"{trust} --pin {'00' * 32} --ignore time")
    assert wrong.exit_code != 0 and "has one of the pins" in wrong.output
    assert not server.messages
    done = run(url, f"{trust} --pin {pin} --ignore time")
    assert done.exit_code == 0, done.output
    assert len(server.messages) == 1
