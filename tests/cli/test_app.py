"""The commands: help, versions, wrong command lines, and the missing extra."""

import os
import subprocess
import sys

import pytest

import smtp_async
from smtp_async.cli import main
from smtp_async.cli.exits import Exit


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


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("queue ls --spool x --state lost", "'--state': 'lost' is not one of 'queued', 'sending'"),
        ("demo --count none", "'--count': "),
        ("demo --count 0", "'--count': "),
        ("check x --timeout soon", "'--timeout': "),
    ],
)
def test_a_wrong_value_is_named_in_plain_words(shell, line, problem):
    said = " ".join(shell(line, env={"COLUMNS": "500"}).stderr.split())
    assert f"Invalid value for {problem}" in said
    assert "Value error" not in said and "Input" not in said and "parse" not in said


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


def test_an_ascii_terminal_gets_escapes():
    program = [sys.executable, "-m", "smtp_async", "demo", "--count", "20"]
    done = subprocess.run(
        program, capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0 and "K\\xf6stlichkeiten.csv" in done.stdout, done.stderr
