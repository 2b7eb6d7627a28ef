"""Options that several commands share: each is there, explained, and means the same everywhere."""

import dataclasses
import ssl
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import click
import pytest
import typer

from smtp_async.cli import options
from smtp_async.cli.app import app
from smtp_async.cli.options import Access, TLSVersion
from smtp_async.tls.context import Security

COMMANDS: dict[str, Any] = {}


def collect(group: Any, prefix: str = "") -> None:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            collect(command, f"{prefix}{name} ")
        else:
            COMMANDS[prefix + name] = command


collect(typer.main.get_command(app))


def flags(command: Any) -> dict[str, Any]:
    return {flag: parameter for parameter in command.params for flag in parameter.opts}


@pytest.mark.parametrize("command", ["send", "check", "process"])
def test_every_command_that_connects_takes_every_option_of_access(command: str) -> None:
    wanted = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Access)}
    assert wanted <= set(flags(COMMANDS[command]))


def test_access_says_nothing_by_default() -> None:
    access = Access()
    assert access.security is Security.AUTO
    assert {getattr(access, field.name) for field in dataclasses.fields(Access)} == {Security.AUTO, None}


@pytest.mark.parametrize(
    "command",
    # A copy has two spools, and neither is the usual one.
    [name for name in COMMANDS if name.startswith("queue ") and name != "queue copy" or name == "process"],
)
def test_every_command_of_the_queue_finds_its_spool_in_the_environment(command: str) -> None:
    spool = next(one for one in COMMANDS[command].params if one.name == "spool")
    assert spool.envvar == "SMTP_ASYNC_SPOOL" and spool.required


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    unexplained = [
        parameter.name
        for parameter in COMMANDS[command].params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert unexplained == []


@pytest.mark.parametrize(
    ("typed", "version"),
    [
        ("1.0", ssl.TLSVersion.TLSv1),
        ("1.1", ssl.TLSVersion.TLSv1_1),
        ("1.2", ssl.TLSVersion.TLSv1_2),
        ("1.3", ssl.TLSVersion.TLSv1_3),
    ],
)
def test_versions_have_the_names_of_python(typed: str, version: ssl.TLSVersion) -> None:
    assert TLSVersion(typed).name == version.name
    assert len(TLSVersion) == 4


@pytest.mark.parametrize(
    "name", [name for name in options.__all__ if get_origin(getattr(options, name)) is Annotated]
)
def test_a_shared_option_has_its_explanation_with_it(name: str) -> None:
    _, declared = get_args(getattr(options, name))
    assert declared.help


def test_every_field_of_access_has_its_explanation_with_it() -> None:
    hints = get_type_hints(Access, include_extras=True)
    assert [name for name, hint in hints.items() if not get_args(hint)[1].help] == []
