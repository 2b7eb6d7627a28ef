"""The manual pages: of today, complete, and without a warning of the formatter."""

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

from smtp_async.cli import options
from tests.servers.machine import program

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted((DOCS / "man").glob("*.1"))


@pytest.fixture(scope="module")
def man_pages() -> Any:
    spec = importlib.util.spec_from_file_location("man_pages", DOCS / "man_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_of_today(man_pages):
    found = {path.name: path.read_text(encoding="utf-8") for path in PAGES}
    made = man_pages.pages()
    assert sorted(found) == sorted(made), "python docs/draw.py writes them anew"
    assert [name for name in made if made[name] != found[name]] == []


def test_every_command_has_one():
    names = {path.stem for path in PAGES}
    assert {"smtp-async", "smtp-async-send", "smtp-async-queue-add", "smtp-async-sendmail"} <= names


def test_they_name_every_variable(man_pages):
    known = {value for name, value in vars(options).items() if name.endswith("_VARIABLE")}
    assert set(man_pages.ENVIRONMENT) == known | {"SMTP_ASYNC_SPOOL"}


@pytest.mark.server
def test_the_formatter_has_nothing_to_say():
    done = subprocess.run(
        [program("groff"), "-man", "-ww", "-Tutf8", "-rCHECKSTYLE=3", *PAGES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--account NAME" in done.stdout.replace("‐", "-") or "\x1b" in done.stdout
