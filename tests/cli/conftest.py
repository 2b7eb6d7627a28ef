"""The command line run as a user would, in this process."""

import shlex
from contextlib import ExitStack
from functools import partial

import pytest
from rich.console import Console
from typer.testing import CliRunner

from smtp_async.cli.app import app
from smtp_async.cli.output import Output
from smtp_async.testing import ScriptedServer, ServerThread

USERS = {"ann": "top-secret"}


class Shell:
    """Runs `smtp-async` and keeps what it printed."""

    def __init__(self):
        self.said = ""

    def __call__(self, line, *words, stdin=None, env=None):
        """Run a command line; what may hold blanks comes as further words."""
        result = CliRunner().invoke(app, [*shlex.split(line), *map(str, words)], input=stdin, env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.said += result.output
        assert "Traceback" not in result.output
        return result


@pytest.fixture
def no_configuration(monkeypatch, tmp_path):
    """No configuration file of this machine or its user."""
    monkeypatch.delenv("SMTP_ASYNC_CONFIG", raising=False)
    for name in ("XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"):
        monkeypatch.setenv(name, str(tmp_path / "no-configuration"))


@pytest.fixture
def configured(tmp_path, monkeypatch, no_configuration):
    """Writes the configuration file of the user."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    path = tmp_path / "xdg" / "smtp-async" / "config.toml"

    def write(text, mode=0o600):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def shell(monkeypatch, no_configuration):
    """`smtp-async`, without a terminal, a password in the environment or a configuration file."""
    monkeypatch.delenv("SMTP_ASYNC_PASSWORD", raising=False)
    shell = Shell()
    yield shell
    assert "top-secret" not in shell.said


@pytest.fixture
def serve():
    """Starts scripted servers, each in a thread."""
    with ExitStack() as stack:

        def start(**options):
            return stack.enter_context(ServerThread(ScriptedServer(**options)))

        yield start


@pytest.fixture
def submission(serve, pki):
    """STARTTLS and a login, as on port 587."""
    return serve(ssl_context=pki.server_context(), users=USERS, require_auth=True)


@pytest.fixture
def password_file(tmp_path):
    path = tmp_path / "password"
    path.write_text("top-secret\nnot this line\n")
    return path


@pytest.fixture
def terminal(monkeypatch):
    """What is printed goes to a person: a wide terminal without colours."""
    plain = Output.__init__

    def on_a_terminal(screen):
        plain(screen)
        wide = partial(
            Console, force_terminal=True, width=160, color_system=None, markup=False, highlight=False
        )
        screen.out, screen.err = wide(), wide(stderr=True)

    monkeypatch.setattr(Output, "__init__", on_a_terminal)
