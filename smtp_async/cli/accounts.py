"""Accounts on the command line: `--account`, `--config`, and `smtp-async accounts`.

Strategy. An account gives defaults to options, in the way that the parser has for defaults from outside: what is given
on the command line, or by an environment variable of its own, goes before them. The file is read when the first option
that was not given asks for its default, so a command that names everything needs no file. By then all options that were
given are known, and decide which defaults hold: a server (for `queue`, a spool) that is given without `--account` is
used without an account, and the password of another user is not used.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from ..errors import InvalidArgument, SMTPError
from ..model.reply import printable
from .configuration import OPTIONS, Account, Configuration, find_configuration, read_configuration
from .options import CONFIG_VARIABLE, SpoolPlace
from .output import Output

__all__ = ["AccountChoice", "AccountOptions", "ConfigFile", "SpoolOptions", "accounts"]

#: Options that name another server than that of the account.
_SERVERS: Final = ("server", "mx", "address")
#: Options whose defaults go with another option: given that, they have none.
_GOES_WITH: Final = {
    "password_file": ("oauth",),
    "oauth": ("password_file",),
    "dkim_selector": ("dkim_key",),
    "dkim_domain": ("dkim_key",),
    "key": ("cert",),
}
_LOGIN: Final = frozenset({"password_file", "oauth"})


class AccountChoice:
    """The account of a command: that of `--account`, or else the default one, unless another place is given.

    Args:
        context: the call of the command.
        name: what `--account` says.
    """

    def __init__(self, context: typer.Context, name: str | None) -> None:
        self._context = context
        self._name = name

    @cached_property
    def account(self) -> Account | None:
        """The account, None if the command has none.

        Raises:
            SMTPError: the configuration file is wrong, or has no such account.
        """
        return None if self._configuration is None else self._configuration.account(self._name)

    @cached_property
    def _configuration(self) -> Configuration | None:
        places = _SERVERS if any(one.name == "server" for one in self._context.command.params) else ("spool",)
        if self._name is None and any(self._given(one) for one in places):
            return None
        return read_configuration(find_configuration(self._context.params.get("config")))

    def default(self, option: str) -> Any:
        """Return the default of an option that was not given, None if it has none.

        Raises:
            InvalidArgument: the server is asked for, and the file has several accounts, none of which is the default.
            SMTPError: see `account`.
        """
        account = self.account
        if account is None and option == "server" and self._configuration and self._configuration.accounts:
            names = printable(", ".join(self._configuration.accounts))
            raise InvalidArgument(f"name a server or one of the accounts with --account: {names}")
        if account is None or any(self._given(one) for one in _GOES_WITH.get(option, ())):
            return None
        if option in _LOGIN and self._given("user") and self._context.params["user"] != account.user:
            return None
        return account.defaults.get(option)

    def _given(self, option: str) -> bool:
        source = self._context.get_parameter_source(option)
        return (
            source is not None
            and source.name == "COMMANDLINE"
            and self._context.params.get(option) is not None
        )


class _Defaults(dict[str, Any]):
    """Where the parser looks for the default of an option."""

    def __init__(self, choice: AccountChoice) -> None:
        super().__init__()
        self._choice = choice

    def get(self, option: str, default: Any = None) -> Any:
        # Others, --help among them, ask before it is known what was given.
        if option not in OPTIONS:
            return default
        with Output().errors_as_sentences():
            value = self._choice.default(option)
        return default if value is None else value


def _chosen(context: typer.Context, name: str | None) -> AccountChoice:
    choice = AccountChoice(context, name)
    if not context.resilient_parsing:
        context.default_map = _Defaults(choice)
    return choice


def _names(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the accounts whose names begin so, with their servers, for completion."""
    with contextlib.suppress(SMTPError):
        found = read_configuration(find_configuration(context.params.get("config"))).accounts
        return [(name, one.server) for name, one in found.items() if name.startswith(incomplete)]
    return []


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar=CONFIG_VARIABLE,
        is_eager=True,
        help="The configuration file, in place of ~/.config/smtp-async/config.toml.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountOptions:
    """Which account of which configuration file gives the options that are not given."""

    config: ConfigFile = None
    account: Annotated[
        AccountChoice | None,
        typer.Option(
            "--account",
            metavar="NAME",
            parser=str,
            callback=_chosen,
            is_eager=True,
            autocompletion=_names,
            help="An account of the configuration file, which gives the options that are not given here. Without it: "
            "the default account, unless another server or, for queue, another spool is named.",
        ),
    ] = None

    def chosen(self) -> Account | None:
        """Return the account, None for none.

        Raises:
            SMTPError: the configuration file is wrong, or has no such account.
        """
        return None if self.account is None else self.account.account


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolOptions(AccountOptions):
    """Which spool, by name or by account."""

    spool: SpoolPlace


def accounts(
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False,
) -> None:
    """List the accounts of the configuration file: names, servers and users, never a password.

    In a pipe: name, server, user, kind of login and whether it is the default, separated by tabs.
    """
    output = Output()
    with output.errors_as_sentences():
        path = find_configuration(config)
        found = read_configuration(path)
        if as_json:
            for row in _rows(found):
                output.line(json.dumps(row))
        elif not output.is_terminal:
            for row in _rows(found):
                texts = (row["name"], row["server"], row["user"], row["login"], row["default"] and "default")
                output.line("\t".join([printable(str(text or "-")) for text in texts]))
        elif path is None:
            output.line("There is no configuration file.")
        else:
            _show(output, found)


def _rows(found: Configuration) -> Iterator[dict[str, Any]]:
    default = found.account(None)
    for name, one in found.accounts.items():
        yield {
            "name": name,
            "server": one.server,
            "user": one.user,
            "login": one.login or None,
            "from": one.sender,
            "spool": bool(one.defaults.get("spool")),
            "default": one is default,
        }


def _show(output: Output, found: Configuration) -> None:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("", "Account", "Server", "User", "Login"):
        table.add_column(heading)
    for row in _rows(found):
        texts = [printable(str(row[key] or ""), 200) for key in ("name", "server", "user", "login")]
        table.add_row("*" if row["default"] else "", Text(texts[0], "bold"), *map(Text, texts[1:]))
    output.line(f"{found.path}", "dim")
    output.out.print(table)
