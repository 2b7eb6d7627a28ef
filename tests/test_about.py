"""`build_info`: what a bug report needs."""

import ssl
import subprocess
import sys
from importlib import metadata

import smtp_async
from smtp_async import about


def test_what_it_tells():
    told = smtp_async.build_info()
    assert told["smtp_async"] == smtp_async.__version__ == metadata.version("smtp-async")
    assert told["Python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert told["OpenSSL"] == ssl.OPENSSL_VERSION
    assert told["platform"]
    assert told["cryptography"] == metadata.version("cryptography")
    assert told["typer"] == metadata.version("typer")
    assert all(isinstance(text, str) and text for text in told.values())


def test_development_tools_and_our_own_extras_are_left_out():
    assert not {"pytest", "mypy", "smtp-async"} & set(smtp_async.build_info())


def test_a_dependency_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ["no-such-package>=1; extra == 'cli'", "idna>=3"])
    told = smtp_async.build_info()
    assert told["no-such-package"] == "not installed"
    assert told["idna"] == metadata.version("idna")


def test_copied_instead_of_installed(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert list(about.build_info()) == ["smtp_async", "Python", "OpenSSL", "platform"]


def test_telling_loads_no_dependency():
    program = (
        "import sys, smtp_async; from smtp_async import Message, SMTPClient; smtp_async.build_info();"
        "print(*{'anyio', 'idna', 'cryptography', 'aiodns', 'python_socks', 'typer', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
