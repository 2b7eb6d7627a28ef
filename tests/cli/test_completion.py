"""Completion of command lines, in the shells that are installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.machine import program

ROOT = Path(__file__).parents[2]

# What a shell does at a tab behind the words, and what it shows.
BASH = """
source "$1"
tab() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _smtp_async_completion smtp-async
    printf '%s ' "${COMPREPLY[@]}"; echo
}
"""
ZSH = """
compdef() { :; }
_arguments() { print -r -- ${${(f)*}//$'\\n'/ } }
source "$1"
tab() { words=("$@"); CURRENT=$#; _smtp_async_completion; }
"""
FISH = """
source "$argv[1]"
function tab; complete -C "$argv" | string join ' '; end
"""
LINES = {
    "smtp-async proc": "process",
    "smtp-async send --pass": "--password-file",
    "smtp-async queue ls --state f": "failed",
    "smtp-async providers gma": "gmail",
    "smtp-async send --account wo": "work",
}


@pytest.fixture
def path(tmp_path):
    """A PATH with `smtp-async` on it."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "smtp-async"
    command.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom smtp_async.cli import main\nmain()\n"
    )
    command.chmod(0o755)
    return f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.server
@pytest.mark.timeout(180)
@pytest.mark.skipif(sys.platform == "win32", reason="shells of POSIX")
@pytest.mark.parametrize(
    ("name", "options", "source"),
    [("bash", ["--norc"], BASH), ("zsh", ["-f"], ZSH), ("fish", ["-N"], FISH)],
    ids=["bash", "zsh", "fish"],
)
def test_a_tab(shell, path, configured, tmp_path, name, options, source):
    configured('[accounts.work]\nurl = "mail.example.com"\n[accounts.other]\nurl = "x"\n')
    script = tmp_path / "completion"
    script.write_text(shell(f"completion {name}").stdout)
    test = tmp_path / "test"
    test.write_text(source + "".join(f"tab {line}\n" for line in LINES))
    done = subprocess.run(
        [program(name), *options, test, script],
        env={**os.environ, "PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    for line, shown, word in zip(LINES, done.stdout.splitlines(), LINES.values(), strict=True):
        assert word in shown, line
        assert not any(one in shown for one in ("other", "fastmail", "queued", "catch", "--each")), line


@pytest.mark.parametrize("text", ["", "["])
def test_without_a_right_file_no_account_is_completed(shell, configured, text):
    configured(text)
    # The name of the program in tests is root.
    env = {"_ROOT_COMPLETE": "complete_bash", "COMP_WORDS": "root send --account ", "COMP_CWORD": "3"}
    done = shell("", env=env)
    assert done.output.strip() == "" and done.exit_code == 0


def test_the_shell_is_named(shell):
    assert "complete -o default -F" in shell("completion bash").stdout
    assert shell("completion tcsh").exit_code == 2
