"""Sentences, marks, and errors as exit codes."""

import pytest
import typer
from rich.console import Console

from smtp_async.cli.exits import Exit
from smtp_async.cli.output import Output, in_shell_words, sentence


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("it speaks HTTP: type=ProxyType.HTTP_CONNECT", "it speaks HTTP: --proxy http://…"),
        ("a login: set username and password in ProxyOptions", "a login: --proxy takes a URL with a user"),
        ("it refused the password: check both in ProxyOptions", "it refused the password: check both"),
        ("no way; if it cannot resolve the name, remote_dns=False resolves it here", "no way"),
        ("the system's authorities, or with ProxyOptions(context=…)", "the system's authorities"),
    ],
)
def test_settings_of_a_proxy_in_shell_words(text, shown):
    assert in_shell_words(text) == shown


def test_an_interrupt_exits_with_130(capsys):
    with pytest.raises(typer.Exit) as ended, Output().errors_as_sentences():
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130 and "Interrupted" in capsys.readouterr().err


def test_an_unexpected_exception_is_shown_as_a_sentence(capsys):
    with pytest.raises(typer.Exit) as ended, Output().errors_as_sentences():
        raise LookupError("lost")
    assert ended.value.exit_code == Exit.SETUP and "LookupError: lost" in capsys.readouterr().err


def test_a_terminal_gets_marks(capsys):
    output = Output()
    output.out = Console(force_terminal=True, width=40, color_system=None, markup=False)
    output.err = Console(force_terminal=True, width=40, color_system=None, markup=False, stderr=True)
    output.success("Fine, and [b]this[/b] is no markup, only a longer text.")
    output.problem("Wrong.")
    output.failure("Failed.")
    shown = capsys.readouterr()
    assert shown.out.startswith("✓ Fine, and [b]this[/b]") and "\n  " in shown.out and "✗ Wrong." in shown.out
    assert shown.err == "✗ Failed.\n"
