"""Dataclasses as groups of options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from smtp_async.cli.option_groups import grouped


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    path: Annotated[Path, typer.Option("--at", help="Where.")]
    depth: Annotated[int, typer.Option(min=0)] = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    label: Annotated[list[str] | None, typer.Option()] = None


def run(*words):
    """Run a command with two groups, and return the result and the arguments that the command got."""
    calls = []
    app = typer.Typer()

    @app.command()
    @grouped
    def command(
        name: Annotated[str, typer.Argument()], place: Place, labels: Labels, loud: bool = False
    ) -> None:
        calls.append((name, place, labels, loud))

    return CliRunner().invoke(app, [*words]), calls


def test_each_field_is_an_option_and_the_command_gets_the_dataclass():
    result, calls = run("x", "--at", "here", "--depth", "5", "--label", "a", "--label", "b", "--loud")
    assert result.exit_code == 0
    assert calls == [("x", Place(path=Path("here"), depth=5), Labels(label=["a", "b"]), True)]


def test_defaults_are_those_of_the_fields():
    _, calls = run("x", "--at", "here")
    assert calls == [("x", Place(path=Path("here")), Labels(label=calls[0][2].label), False)]
    assert not calls[0][2].label


@pytest.mark.parametrize("words", [("x",), ("--at", "here"), ("x", "--at", "here", "--depth", "-1")])
def test_typer_checks_the_fields(words):
    result, calls = run(*words)
    assert result.exit_code == 2 and calls == []
