"""The front of the command line: help, versions, exit codes, and what it says without its extra."""

import errno
import os
import subprocess
import sys

import pytest
import typer
from rich.console import Console

import smtp_async
from smtp_async import errors
from smtp_async.cli import main
from smtp_async.cli.exits import Exit, exit_for_error, exit_for_report
from smtp_async.cli.screen import Screen, in_shell_words, sentence
from smtp_async.cli.server import _host_and_port
from smtp_async.model.receipt import Outcome, Receipt, Verdict
from smtp_async.model.reply import Reply
from smtp_async.processor import QueueReport, Unfinished

RECIPIENT = smtp_async.Recipient("bob@example.org")


def test_version_shows_the_versions(shell):
    lines = shell("--version").stdout.splitlines()
    assert lines == [f"{name} {text}" for name, text in smtp_async.build_info().items()]


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "-h",
        "send --help",
        "check --help",
        "demo --help",
        "process --help",
        "queue --help",
        "queue add -h",
    ],
)
def test_help_explains_the_exit_codes(shell, line):
    done = shell(line)
    assert done.exit_code == 0 and "130: interrupted" in done.stdout


@pytest.mark.parametrize(
    "line",
    ["send", "check", "nonsense", "demo --count none", "check x --timeout 0", "queue", "queue ls", "process"],
)
def test_a_wrong_command_line_exits_with_2(shell, line):
    assert shell(line).exit_code == Exit.USAGE


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "smtp_async", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"smtp_async {smtp_async.__version__}\n")


def test_main_shows_the_versions(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["smtp-async", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and "OpenSSL" in capsys.readouterr().out


def test_main_names_the_missing_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == Exit.SETUP and "smtp-async[cli]" in capsys.readouterr().err


def test_a_missing_extra_is_named_without_a_traceback():
    program = "import sys; sys.modules['typer'] = None; from smtp_async.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 5 and "pip install 'smtp-async[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def refused(cls, code, **more):
    return cls("no", reply=Reply(code, (b"no",)), **more)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.OutcomeUnknown("?"), Exit.UNKNOWN),
        (
            errors.ProtocolViolation("?", receipt=Receipt((Verdict(RECIPIENT, Outcome.UNKNOWN),))),
            Exit.UNKNOWN,
        ),
        (errors.InvalidAddress("?"), Exit.USAGE),
        (errors.MissingRecipient("?"), Exit.USAGE),
        (errors.FileError("?"), Exit.USAGE),
        (errors.FeatureUnavailable("?", needs="x"), Exit.SETUP),
        (errors.ChainNotFound("?"), Exit.SETUP),
        (errors.StartTLSUnavailable("?"), Exit.SETUP),
        (refused(errors.StartTLSRefused, 454), Exit.SETUP),
        (errors.AuthenticationUnavailable("?"), Exit.SETUP),
        (refused(errors.AuthenticationFailed, 535), Exit.SETUP),
        (refused(errors.AuthenticationFailed, 454), Exit.NOT_SENT),
        (errors.ResolveError("?", code=11001), Exit.SETUP),
        (errors.ResolveError("?", code=11002), Exit.NOT_SENT),
        (refused(errors.RecipientsRefused, 550), Exit.REFUSED),
        (refused(errors.RecipientsRefused, 450), Exit.NOT_SENT),
        (errors.MessageTooLarge("?"), Exit.REFUSED),
        (errors.TooManyRecipients("?"), Exit.REFUSED),
        (errors.NotConnected("?"), Exit.NOT_SENT),
        (errors.NotSent("?"), Exit.NOT_SENT),
        (errors.Timeout("?"), Exit.NOT_SENT),
        (errors.ConnectionLost("?"), Exit.NOT_SENT),
        (errors.NoSuchJob("?"), Exit.USAGE),
        (errors.Busy("?"), Exit.NOT_SENT),
        (errors.SpoolFull("?"), Exit.NOT_SENT),
        (errors.SpoolError.of(OSError(errno.EIO, "?"), "?"), Exit.NOT_SENT),
        (errors.SpoolError.of(OSError(errno.EACCES, "?"), "?"), Exit.SETUP),
        (errors.SpoolUnsafe("?"), Exit.SETUP),
        (errors.RecordInvalid("?"), Exit.SETUP),
    ],
)
def test_each_error_has_an_exit_code(error, code):
    assert exit_for_error(error) is code


FAILED, UNKNOWN, DEFERRED = Unfinished("a", "550 no"), Unfinished("b", "unknown"), Unfinished("c", "450", 1.0)


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (QueueReport(), Exit.OK),
        (QueueReport(sent=("x",)), Exit.OK),
        (QueueReport(sent=("x",), deferred=(DEFERRED,)), Exit.NOT_SENT),
        (QueueReport(deferred=(DEFERRED,), failed=(FAILED,)), Exit.REFUSED),
        (QueueReport(failed=(FAILED, UNKNOWN, FAILED)), Exit.UNKNOWN),
        (QueueReport(failed=(FAILED,), error=errors.SMTPError("the job a failed")), Exit.REFUSED),
        (QueueReport(failed=(UNKNOWN,), error=errors.ChainNotFound("?")), Exit.SETUP),
        (QueueReport(sent=("x",), error=errors.NotConnected("?")), Exit.NOT_SENT),
        (QueueReport(error=RuntimeError("?")), Exit.NOT_SENT),
    ],
)
def test_each_report_has_an_exit_code(report, code):
    assert exit_for_report(report) is code


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("mail.test", "mail.test", None),
        ("mail.test:25", "mail.test", 25),
        ("192.0.2.1:25", "192.0.2.1", 25),
        ("2001:db8::1", "2001:db8::1", None),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("[2001:db8::1]:25", "2001:db8::1", 25),
        ("/run/lmtp", "/run/lmtp", None),
    ],
)
def test_host_and_port_are_parsed(text, host, port):
    assert _host_and_port(text) == (host, port)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("use security=Security.IMPLICIT", "Use --security implicit."),
        ("mail.test:25 is wrong", "mail.test:25 is wrong."),
        ("refused: x@y: 550 no", "Refused: x@y: 550 no."),
        ("STARTTLS is missing.", "STARTTLS is missing."),
        ("bad \x1b[2J", "Bad \\x1b[2J."),
        (
            "or give the authority's certificate as TrustOptions(ca_file=…)",
            "Or give the authority's certificate with --ca-file FILE.",
        ),
        (
            "if it is the right one, give it as TrustOptions(ca_file=…)",
            "If it is the right one, give it with --ca-file FILE.",
        ),
        (
            "connect to a name that it contains, or set TLSOptions.server_hostname",
            "Connect to a name that it contains.",
        ),
    ],
)
def test_messages_become_sentences(said, shown):
    assert sentence(said) == shown


def test_other_texts_keep_python_names():
    assert in_shell_words("insecurity=1") == "insecurity=1"


def test_an_interrupt_exits_with_130(capsys):
    with pytest.raises(typer.Exit) as ended, Screen().sentences():
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130 and "Interrupted" in capsys.readouterr().err


def test_an_unexpected_exception_is_shown_as_a_sentence(capsys):
    with pytest.raises(typer.Exit) as ended, Screen().sentences():
        raise LookupError("lost")
    assert ended.value.exit_code == Exit.SETUP and "LookupError: lost" in capsys.readouterr().err


def test_an_ascii_terminal_gets_escapes():
    program = [sys.executable, "-m", "smtp_async", "demo", "--count", "20"]
    done = subprocess.run(
        program, capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0 and "K\\xf6stlichkeiten.csv" in done.stdout, done.stderr


def test_a_terminal_gets_marks(capsys):
    screen = Screen()
    screen.out = Console(force_terminal=True, width=40, color_system=None, markup=False)
    screen.err = Console(force_terminal=True, width=40, color_system=None, markup=False, stderr=True)
    screen.good("Fine, and [b]this[/b] is no markup, only a longer text.")
    screen.bad("Wrong.")
    screen.fail("Failed.")
    shown = capsys.readouterr()
    assert shown.out.startswith("✓ Fine, and [b]this[/b]") and "\n  " in shown.out and "✗ Wrong." in shown.out
    assert shown.err == "✗ Failed.\n"
