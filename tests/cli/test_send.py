"""`smtp-async send`: what is typed, what arrives, what is said, and the exit code."""

import os
import pty
import subprocess
import sys

import pytest

from smtp_async.testing import close, reply, swallow
from tests.transport.proxy.lab import Asked, in_a_thread, socks5

PEOPLE = "--from ann@example.com --to bob@example.org"


def plainly(server):
    return f"--server {server.url}"


# --- what arrives --------------------------------------------------------------------------------------------


def test_a_message_is_sent(shell, serve):
    server = serve()
    done = shell(f"send {plainly(server)} {PEOPLE} --subject Héllo --text", "Hi Bob")
    assert done.exit_code == 0
    assert done.stdout == "accepted\tbob@example.org\t250 2.0.0 Ok: queued\n" and done.stderr == ""
    message = server.messages[0]
    assert (message.mail_from, message.rcpt_tos) == ("ann@example.com", ["bob@example.org"])
    assert message.subject == "Héllo" and message.parsed.get_content().strip() == "Hi Bob"
    assert server.violations == []


def test_a_message_is_sent_through_a_proxy(shell, serve):
    server, asked = serve(), Asked()
    with in_a_thread(socks5(asked)) as port:
        done = shell(f"send {plainly(server)} --proxy socks5://127.0.0.1:{port} {PEOPLE} --text Hi")
    assert done.exit_code == 0
    assert asked.targets == [(server.host, server.port)] and len(server.messages) == 1


def test_every_message_option_is_used(shell, serve, tmp_path):
    (tmp_path / "text").write_text("Plain ünd simple\n")
    (tmp_path / "page").write_text("<b>Bold</b>")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "data.csv").write_bytes(b"a,b\n")
    server = serve()
    done = shell(
        f"send {plainly(server)} --from ann@example.com --cc carl@example.org --bcc dora@example.org --subject S",
        *("--to", "Bob B. <bob@example.org>, eve@example.org", "--to", "fay@example.org"),
        *("--text-file", tmp_path / "text", "--html-file", tmp_path / "page"),
        *("--attach", tmp_path / "picture.png", "--attach", tmp_path / "data.csv"),
    )
    assert done.exit_code == 0
    message = server.messages[0]
    assert message.rcpt_tos == [f"{who}@example.org" for who in ("bob", "eve", "fay", "carl", "dora")]
    letter = message.parsed
    assert "dora" not in str(letter) and letter["Cc"] == "carl@example.org"
    assert letter.get_body(("plain",)).get_content().strip() == "Plain ünd simple"
    assert letter.get_body(("html",)).get_content().strip() == "<b>Bold</b>"
    files = {part.get_filename(): part.get_payload(decode=True) for part in letter.iter_attachments()}
    assert files == {"picture.png": b"\x89PNG\r\n", "data.csv": b"a,b\n"}


@pytest.mark.parametrize("words", [[], ["--text-file", "-"]])
def test_the_text_is_read_from_a_pipe(shell, serve, words):
    server = serve()
    assert shell(f"send {plainly(server)} {PEOPLE}", *words, stdin="From a pipe\n").exit_code == 0
    assert server.messages[0].parsed.get_content().strip() == "From a pipe"


def test_a_complete_message_is_sent_unchanged(shell, serve, tmp_path):
    path = tmp_path / "letter.eml"
    path.write_bytes(
        b"From: ann@example.com\nTo: bob@example.org\nBcc: c@example.org\nX-Own: 1\n\nAs it is\n"
    )
    server = serve()
    assert shell(f"send {plainly(server)} --eml", path).exit_code == 0
    assert (
        shell(f"send {plainly(server)} --from me@example.com --to x@example.org --eml", path).exit_code == 0
    )
    assert shell(f"send {plainly(server)} --eml -", stdin=path.read_text()).exit_code == 0
    first, second, third = server.messages
    assert first.rcpt_tos == ["bob@example.org", "c@example.org"]
    assert first.data == b"From: ann@example.com\r\nTo: bob@example.org\r\nX-Own: 1\r\n\r\nAs it is\r\n"
    assert (second.mail_from, second.rcpt_tos, second.data) == (
        "me@example.com",
        ["x@example.org"],
        first.data,
    )
    assert third.data == first.data


# --- servers and logins --------------------------------------------------------------------------------------


def test_the_password_is_read_from_a_file_or_the_environment(shell, submission, pki, password_file):
    line = f"send --server localhost:{submission.port} {PEOPLE} --text Hi --user ann --ca-file {pki.ca_file}"
    assert shell(line, "--password-file", password_file).exit_code == 0
    assert shell(line, env={"SMTP_ASYNC_PASSWORD": "top-secret"}).exit_code == 0
    assert [(m.user, m.tls) for m in submission.messages] == [("ann", True), ("ann", True)]


def test_a_url_may_name_the_user(shell, serve, pki, password_file):
    server = serve(ssl_context=pki.server_context(), implicit_tls=True, users={"ann": "top-secret"})
    line = f"send --server smtps://ann@localhost:{server.port} {PEOPLE} --text Hi --ca-file {pki.ca_file}"
    assert shell(line, "--password-file", password_file).exit_code == 0
    assert server.messages[0].user == "ann"


def test_a_message_is_sent_by_lmtp_over_a_unix_socket(shell, serve, tmp_path):
    server = serve(path=tmp_path / "lmtp", lmtp=True)
    assert shell(f"send --server lmtp+unix://{tmp_path}/lmtp {PEOPLE} --text Hi").exit_code == 0
    assert server.messages[0].rcpt_tos == ["bob@example.org"]


def test_a_terminal_is_asked_for_the_password(submission, pki):
    """The password is asked for, not shown, and not in any argument."""
    line = f"send --server localhost:{submission.port} {PEOPLE} --text Hi --user ann --ca-file {pki.ca_file}"
    ours, theirs = pty.openpty()
    env = {name: text for name, text in os.environ.items() if name != "SMTP_ASYNC_PASSWORD"}
    process = subprocess.Popen(
        [sys.executable, "-m", "smtp_async", *line.split()],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env | {"TERM": "xterm", "COLUMNS": "100"},
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    while b"Password for ann: " not in said:
        said += os.read(ours, 1024)
    os.write(ours, b"top-secret\n")
    try:
        while piece := os.read(ours, 1024):
            said += piece
    except OSError:
        # Linux says so when the last one has closed the terminal.
        pass
    os.close(ours)
    assert process.wait() == 0, said
    assert b"top-secret" not in said and b"Accepted by localhost" in said and "✓".encode() in said
    assert submission.messages[0].user == "ann"


def test_an_empty_answer_to_the_prompt_is_refused(shell, submission, pki, monkeypatch):
    asked = []
    answers = ["", "top-secret"]

    def ask(prompt):
        asked.append(prompt)
        return answers.pop()

    monkeypatch.setattr("getpass.getpass", ask)
    line = f"send --server localhost:{submission.port} {PEOPLE} --text Hi --user ann --ca-file {pki.ca_file}"
    assert shell(line).exit_code == 0 and asked == ["Password for ann: "]
    done = shell(line)
    assert done.exit_code == 2 and "A login needs a password" in done.stderr


def test_verbose_shows_the_dialogue_without_secrets(shell, submission, pki, password_file):
    line = (
        f"send -v --server localhost:{submission.port} {PEOPLE} --text Hi --user ann --ca-file {pki.ca_file}"
    )
    done = shell(line, "--password-file", password_file)
    assert "> AUTH PLAIN ***" in done.stderr and "< 354" in done.stderr and "= TLS handshake" in done.stderr
    assert "AHRvc" not in done.stderr and done.stdout.startswith("accepted")


# --- what goes wrong -----------------------------------------------------------------------------------------


def test_a_refused_recipient_is_shown(shell, serve):
    server = serve()
    server.on("RCPT", reply(550, "5.1.1 no such user"), match="gone")
    line = f"send {plainly(server)} {PEOPLE} --to gone@example.org --text Hi"
    done = shell(line)
    assert done.exit_code == 1 and server.messages == []
    assert "not sent\tbob@example.org\tanother recipient was refused" in done.stdout
    assert "refused\tgone@example.org\t550 5.1.1 no such user" in done.stdout
    assert done.stderr.startswith("smtp-async: Refused: gone@example.org")
    done = shell(line, "--each")
    assert done.exit_code == 1 and server.messages[0].rcpt_tos == ["bob@example.org"]
    assert "accepted\tbob@example.org" in done.stdout


@pytest.mark.parametrize(
    ("point", "actions", "code", "words"),
    [
        ("MAIL", [reply(550, "5.7.1 not you")], 1, "5.7.1 not you"),
        ("RCPT", [reply(450, "4.2.1 later")], 3, "4.2.1 later"),
        (".", [reply(552, "5.3.4 too big")], 1, "5.3.4 too big"),
        (".", [reply(451, "4.3.0 later")], 3, "4.3.0 later"),
        (".", [swallow(), close()], 4, "unknown"),
        ("GREETING", [reply(554, "5.3.2 not you"), close()], 1, "5.3.2 not you"),
        ("GREETING", [reply(421, "4.3.2 later"), close()], 3, "4.3.2 later"),
    ],
)
def test_each_failure_has_an_exit_code(shell, serve, point, actions, code, words):
    server = serve()
    server.on(point, *actions)
    done = shell(f"send {plainly(server)} {PEOPLE} --text Hi")
    assert done.exit_code == code and words in done.output.lower()
    assert done.stderr.startswith("smtp-async: ") and done.stderr.count("\n") == 1


def test_a_closed_port_exits_with_3(shell, serve):
    with pytest.MonkeyPatch.context():
        server = serve()
    server.stop()
    done = shell(f"send {plainly(server)} {PEOPLE} --text Hi")
    assert done.exit_code == 3 and "Cannot connect to 127.0.0.1" in done.stderr


def test_an_unknown_host_exits_with_5(shell):
    done = shell(f"send --server mail.invalid {PEOPLE} --text Hi")
    assert done.exit_code == 5 and "Cannot resolve mail.invalid" in done.stderr


def test_an_untrusted_certificate_is_explained(shell, submission, pki):
    done = shell(
        f"send --server localhost:{submission.port} {PEOPLE} --text Hi --user ann",
        *("--ca-file", pki.self_signed.certificate),
        env={"SMTP_ASYNC_PASSWORD": "top-secret"},
    )
    assert done.exit_code == 5 and "--ca-file FILE" in done.stderr and "TrustOptions" not in done.stderr
    assert "AUTH" not in [line.verb for line in submission.commands]


def test_a_wrong_password_exits_with_5(shell, submission, pki):
    done = shell(
        f"send --server localhost:{submission.port} {PEOPLE} --text Hi --user ann --ca-file {pki.ca_file}",
        env={"SMTP_ASYNC_PASSWORD": "wrong-secret"},
    )
    assert done.exit_code == 5 and "535 5.7.8" in done.stderr and "wrong-secret" not in done.output


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--server smtp://ann:top-secret@localhost {people} --text Hi", "--password-file"),
        ("--server smtp://ann:top-secret@[localhost {people} --text Hi", "not a valid URL"),
        ("--server ann:top-secret@localhost {people} --text Hi", "--user"),
        ("--server http://localhost {people} --text Hi", "the schemes are smtps"),
        ("--server smtp://localhost --security plaintext {people} --text Hi", "leave --security out"),
        ("--server smtp://ann@localhost --user bob {people} --text Hi", "not the same"),
        ("--server localhost:smtp {people} --text Hi", "no port number"),
        ("--server localhost:99999 {people} --text Hi", "between 1 and 65535"),
        ("--server localhost --user ann {people} --text Hi", "no terminal to ask"),
        ("--server localhost --password-file x {people} --text Hi", "needs --user"),
        ("--server localhost --user ann --password-file no-such-file {people} --text Hi", "No such file"),
        ("--server localhost --from ann@example.com --text Hi", "has no recipient"),
        ("--server localhost --to ann@example.com --text Hi", "has no sender"),
        ("--server localhost --from ann --to bob@example.org --text Hi", "ann"),
        ("--server localhost {people} --text Hi --text-file x", "ither --text or --text-file"),
        ("--server localhost {people} --text-file no-such-file", "No such file"),
        ("--server localhost {people} --text Hi --attach no-such-file", "No such file"),
        ("--server localhost {people} --eml no-such-file", "No such file"),
        ("--server localhost {people} --eml x --subject y", "sent as it is"),
        ("--server localhost {people} --eml x --attach y", "sent as it is"),
        ("--server localhost --security opportunistic --user ann {people} --text Hi", ""),
    ],
)
def test_invalid_options_are_refused(shell, line, words):
    done = shell("send " + line.format(people=PEOPLE))
    assert done.exit_code == 2 and words in done.stderr, done.stderr
    assert done.stdout in ("", "not sent\tbob@example.org\t\n")


def test_an_empty_password_file_is_refused(shell, tmp_path):
    (tmp_path / "empty").write_text("\nsecond line\n")
    line = f"send --server localhost --user ann {PEOPLE} --text Hi --password-file"
    assert shell(line, tmp_path / "empty").exit_code == 2


def test_text_that_is_not_utf_8_is_refused(shell, tmp_path):
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff")
    done = shell(f"send --server localhost {PEOPLE} --text-file", tmp_path / "picture")
    assert done.exit_code == 2 and "not UTF-8 text" in done.stderr


def test_control_characters_in_replies_are_escaped(shell, serve):
    server = serve()
    server.on("MAIL", reply(550, "\x1b[2J\x07 gone"))
    done = shell(f"send {plainly(server)} {PEOPLE} --text Hi")
    assert done.exit_code == 1 and "\x1b" not in done.output and "\x07" not in done.output


# --- a real server -------------------------------------------------------------------------------------------


@pytest.mark.server
def test_a_message_is_sent_to_postfix(shell, postfix, pki):
    base = f"{PEOPLE} --to carl@lab.test --text Hi --user {postfix.user} --ca-file {pki.ca_file}"
    env = {"SMTP_ASYNC_PASSWORD": postfix.password}
    subject = "cli to postfix"
    for server in (f"localhost:{postfix.auth_port}", f"smtps://localhost:{postfix.tls_port}"):
        done = shell(f"send --server {server} {base} --subject", subject, env=env)
        assert done.exit_code == 0 and done.stdout.count("accepted\t") == 2 and "queued as" in done.stdout
    assert len(postfix.wait_for_message(subject, count=2)) >= 2


@pytest.mark.server
@pytest.mark.parametrize(
    ("server", "more", "code", "words"),
    [
        ("localhost:{0.auth_port}", "--ca-file {1.self_signed.certificate}", 5, "--ca-file FILE"),
        ("127.0.0.1:{0.plain_port}", "--ca-file {1.ca_file}", 5, "does not offer STARTTLS"),
        ("smtps://localhost:{0.auth_port}", "--ca-file {1.ca_file}", 5, "--security starttls"),
        ("localhost:{0.tls_port}", "--ca-file {1.ca_file} --timeout 1", 3, "--security implicit"),
        ("localhost:{0.starttls_port}", "--ca-file {1.ca_file}", 5, "offers no authentication"),
        ("localhost:{0.auth_port}", "--ca-file {1.ca_file} --to no@reject.test", 1, "no such user"),
        ("localhost:{0.auth_port}", "--ca-file {1.ca_file} --to no@defer.test", 3, "try again later"),
    ],
)
def test_mistakes_with_postfix_are_explained(shell, postfix, pki, server, more, code, words):
    line = f"send --server {server} --user {postfix.user} {PEOPLE} --text Hi {more}".format(postfix, pki)
    done = shell(line, env={"SMTP_ASYNC_PASSWORD": postfix.password})
    assert (done.exit_code, words in done.output) == (code, True), done.output
    assert done.stderr.startswith("smtp-async: ") and done.stderr.count("\n") == 1


# --- on a terminal -------------------------------------------------------------------------------------------


def test_a_terminal_gets_a_table(shell, serve, terminal):
    server = serve()
    server.on("RCPT", reply(550, "5.1.1 no such user"), match="gone")
    done = shell(f"send {plainly(server)} {PEOPLE} --text Hi")
    assert f"✓ Accepted by 127.0.0.1:{server.port} without TLS in " in done.stdout
    assert "bob@example.org    accepted    250 2.0.0 Ok: queued" in done.stdout
    assert "Message-ID <" in done.stdout and "bytes sent" in done.stdout
    done = shell(f"send {plainly(server)} {PEOPLE} --bcc gone@example.org --text Hi")
    assert done.exit_code == 1 and "accepted it for 1 of 2 recipients" in done.stdout
    done = shell(f"send {plainly(server)} {PEOPLE} --to gone@example.org --text Hi")
    assert done.exit_code == 1 and "another recipient was refused" in done.stdout
    assert done.stderr.startswith("✗ Refused: gone@example.org")


def test_a_terminal_gets_no_table_without_results(shell, serve, terminal):
    server = serve()
    server.stop()
    done = shell(f"send {plainly(server)} {PEOPLE} --text Hi")
    assert done.stdout == "" and done.stderr.startswith("✗ Cannot connect")
