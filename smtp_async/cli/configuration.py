"""The configuration file: accounts with their servers, logins and keys, and the settings of `sendmail`.

Strategy. The file is TOML. What an account may say of TLS, login and proxy are the options of `Access` by the names of
its fields, so that an option is explained, and its values are known, in one place. Everything is checked when the file
is read, also in accounts that are not used, and each error names the file and the key. No error repeats a value that
could be a secret.
"""

from __future__ import annotations

import difflib
import os
import stat
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import unquote, urlsplit

from ..errors import FileError, InvalidAddress, InvalidArgument
from ..model.address import Address
from ..model.reply import printable
from ..model.secret import Secret
from .options import CONFIG_VARIABLE, Access
from .spools import is_url

__all__ = [
    "OPTIONS",
    "Account",
    "Configuration",
    "SendmailSettings",
    "find_configuration",
    "read_configuration",
]

#: Octets; an account has some hundreds.
_LARGEST: Final = 1 << 20
#: Seconds that a command for a password may take; it may ask somebody for another password.
_PATIENCE: Final = 300.0
#: The options to which an account may give a default, by the names of their parameters.
OPTIONS: Final = frozenset(
    ("server", "spool", "dkim_key", "dkim_selector", "dkim_domain", *(one.name for one in fields(Access)))
)
_PLACE: Final = Path("smtp-async", "config.toml")

_Value = str | list[str]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A server, and how to log in there and send.

    Attributes:
        name: the name in the file.
        server: what `--server` takes, without user and password.
        defaults: values of options by the names of their parameters, as they would be written on a command line.
        user: the user name, None for no login or if the token file names it.
        sender: the address of From, and where bounces go, unless an option says otherwise.
    """

    name: str
    server: str
    # A spool's URL may hold a password.
    defaults: Mapping[str, _Value] = field(repr=False)
    user: str | None = None
    sender: str | None = None
    proxy_password: Secret | None = None
    _password: Secret | None = None
    _command: str | None = field(default=None, repr=False)

    @property
    def login(self) -> str:
        """How the account logs in: the key of the file that says it; empty for no login."""
        for key in ("oauth", "password_file"):
            if key in self.defaults:
                return key
        if self._command is not None:
            return "password_command"
        return "password" if self._password is not None else ""

    def access(self) -> Access:
        """Return what the account says of TLS, login and proxy."""
        kinds = get_type_hints(Access)
        return Access(**{
            name: _converted(value, kinds[name]) for name, value in self.defaults.items() if name in kinds
        })  # fmt: skip

    def password(self) -> Secret | None:
        """Return the password that the file holds, or that the command of the file prints; None without either.

        Raises:
            FileError: the command fails.
            InvalidArgument: it prints nothing.
        """
        if self._command is None:
            return self._password
        what = f"password_command of the account {self.name}"
        try:
            # What it says on standard error, or asks for, is for the user.
            done = subprocess.run(
                self._command, shell=True, stdout=subprocess.PIPE, timeout=_PATIENCE, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            why = error.strerror if isinstance(error, OSError) else f"not done after {_PATIENCE:.0f} s"
            raise FileError(f"{what}: {why}") from None
        if done.returncode:
            raise FileError(f"{what} failed with status {done.returncode}")
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        if not lines or not lines[0]:
            raise InvalidArgument(f"{what} printed no password")
        return Secret(lines[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class SendmailSettings:
    """The settings of `sendmail`.

    Attributes:
        account: the account that delivers, None for the default one.
        spool: where mail is put instead of being delivered at once.
        domain: what an address without a domain gets; None for the name of this machine.
        aliases: addresses by the names of local users; `*` stands for all others.
    """

    account: str | None = None
    spool: str | None = field(default=None, repr=False)
    domain: str | None = None
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What a configuration file says.

    Attributes:
        path: the file, None if there is none.
    """

    path: Path | None = None
    accounts: Mapping[str, Account] = field(default_factory=dict)
    default_account: str | None = None
    sendmail: SendmailSettings = SendmailSettings()

    def account(self, name: str | None) -> Account | None:
        """Return an account: the default one, or the only one, if no name is given; None if there is no such one.

        Raises:
            InvalidArgument: the file has no account of this name.
        """
        if name is None:
            if self.default_account is not None:
                return self.accounts[self.default_account]
            return next(iter(self.accounts.values())) if len(self.accounts) == 1 else None
        if (found := self.accounts.get(name)) is not None:
            return found
        if self.path is None:
            raise InvalidArgument(
                f"there is no account {printable(name)}, because there is no configuration file"
            )
        raise InvalidArgument(f"{self.path} has no account {printable(name)}{_near(name, self.accounts)}")


def find_configuration(
    given: Path | None = None, *, environment: Mapping[str, str] | None = None
) -> Path | None:
    """Return the file that is read: the given one, or that of the user, or that of the machine; None if there is none.

    The places are those of the XDG Base Directory Specification. The home directory of a process without HOME is that
    of its user.

    Args:
        given: the path that an option names.
        environment: the variables to look at instead of those of the process.
    """
    variables = os.environ if environment is None else environment
    if given is None and (named := variables.get(CONFIG_VARIABLE)):
        given = Path(named)
    if given is not None:
        return given
    folders = _folders(variables.get("XDG_CONFIG_HOME", "")) or _home(variables)
    folders += _folders(variables.get("XDG_CONFIG_DIRS", "")) or [Path("/etc/xdg")]
    return next((path for folder in folders if (path := folder / _PLACE).is_file()), None)


def _folders(text: str) -> list[Path]:
    """Return the folders of a list; relative ones do not count."""
    return [Path(one) for one in text.split(os.pathsep) if one and os.path.isabs(one)]


def _home(variables: Mapping[str, str]) -> list[Path]:
    if home := variables.get("HOME"):
        return [Path(home, ".config")]
    try:
        return [Path.home() / ".config"]
    except RuntimeError:  # a user without an entry
        return []


def read_configuration(path: Path | None) -> Configuration:
    """Read and check a file; without one, the configuration is empty.

    Raises:
        FileError: it cannot be read, or other users can read its passwords or write its commands.
        InvalidArgument: it is not TOML, a key is unknown or missing, or a value is of the wrong kind.
    """
    if path is None:
        return Configuration()
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise FileError(f"the configuration {path} is not a file")
            content = file.read(_LARGEST + 1)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read the configuration {path}: {error.strerror}") from error
    if len(content) > _LARGEST:
        raise InvalidArgument(f"the configuration {path} is larger than {_LARGEST} octets")
    return _Reader(path, mode).configuration(_parsed(content, path))


def _parsed(content: bytes, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # Its text shows a character of the file at most; the error itself has all of the file.
        problem = f"{type(error).__name__}: {error}" if isinstance(error, RecursionError) else str(error)
    raise InvalidArgument(f"the configuration {path} is not TOML: {problem}")


# --- checking --------------------------------------------------------------------------------------------------


class _Reader:
    """Checks what a file says, and makes values of it."""

    def __init__(self, path: Path, mode: int) -> None:
        self._path = path
        self._mode = mode if os.name == "posix" else 0
        self._kinds = get_type_hints(Access)

    def configuration(self, found: dict[str, Any]) -> Configuration:
        """Return the configuration."""
        self._demand_known(found, ("default_account", "accounts", "sendmail"), "")
        tables = self._value(found, "accounts", dict, "", "a table") or {}
        accounts = {}
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise self._wrong(f"accounts.{name}", "must be a table")
            accounts[name] = self._account(name, table)
        default = self._text(found, "default_account", "")
        settings = self._sendmail(self._value(found, "sendmail", dict, "", "a table") or {})
        for key, chosen in (("default_account", default), ("sendmail.account", settings.account)):
            if chosen is not None and chosen not in accounts:
                raise self._wrong(key, f"names no account{_near(chosen, accounts)}")
        return Configuration(path=self._path, accounts=accounts, default_account=default, sendmail=settings)

    def _account(self, name: str, table: dict[str, Any]) -> Account:
        where = f"accounts.{name}."
        texts = ("url", "password", "password_command", "proxy_password", "from", "spool")
        options = [one.name for one in fields(Access)]
        self._demand_known(table, (*texts, *options, "dkim"), where)
        url = self._text(table, "url", where)
        if url is None:
            raise self._wrong(f"{where}url", "is missing")
        server, user, secret = self._server(url, f"{where}url")
        defaults: dict[str, _Value] = {"server": server}
        for option in options:
            if option in table:
                defaults[option] = self._option(table[option], self._kinds[option], where + option)
        if (place := self._text(table, "spool", where)) is not None:
            defaults["spool"] = self._spool(place, f"{where}spool")
        defaults |= self._dkim(table.get("dkim"), f"{where}dkim")
        if user is not None and defaults.setdefault("user", user) != user:
            raise self._wrong(f"{where}user", "is not the user of url")
        account = Account(
            name=name,
            server=server,
            defaults=defaults,
            user=self._text(defaults, "user", where),
            sender=self._sender(table, where),
            proxy_password=self._secret(table, "proxy_password", where),
            _password=self._secret(table, "password", where) or secret,
            _command=self._text(table, "password_command", where),
        )
        self._check_login(account, table, where, in_url=secret is not None)
        return account

    def _check_login(self, account: Account, table: dict[str, Any], where: str, *, in_url: bool) -> None:
        ways = [one for one in ("oauth", "password", "password_file", "password_command") if one in table]
        if len(ways) + in_url > 1:
            raise self._wrong(
                where + ways[0], f"excludes {ways[1] if len(ways) > 1 else 'a password in url'}"
            )
        if ways and ways != ["oauth"] and account.user is None:
            raise self._wrong(where + ways[0], "needs user, or a user in url")
        if "password_command" in table and self._mode & 0o022:
            raise FileError(
                f"other users can write {self._path}, which names a password_command: chmod go-w {self._path}"
            )

    def _server(self, url: str, key: str) -> tuple[str, str | None, Secret | None]:
        """Return a URL without the user and the password in it, and both."""
        if "://" not in url:
            return url, None, None
        try:
            parts = urlsplit(url)
            user, password = parts.username, parts.password
        except ValueError:
            raise self._wrong(key, "is not a valid URL") from None
        if password is not None:
            if not user:
                raise self._wrong(key, "has a password and no user")
            self._demand_private(key)
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        return bare, unquote(user) if user else None, Secret(unquote(password)) if password else None

    def _sender(self, table: dict[str, Any], where: str) -> str | None:
        text = self._text(table, "from", where)
        if text is not None:
            try:
                Address.parse(text)
            except InvalidAddress as error:
                raise self._wrong(f"{where}from", f"is not an address: {error}") from None
        return text

    def _dkim(self, table: Any, key: str) -> dict[str, _Value]:
        if table is None:
            return {}
        if not isinstance(table, dict):
            raise self._wrong(key, "must be a table")
        self._demand_known(table, ("domain", "selector", "key"), f"{key}.")
        found: dict[str, _Value] = {}
        for name in ("key", "selector", "domain"):
            text = self._text(table, name, f"{key}.")
            if text is not None:
                found[f"dkim_{name}"] = self._at(text) if name == "key" else text
            elif name != "domain":
                raise self._wrong(f"{key}.{name}", "is missing")
        return found

    def _sendmail(self, table: dict[str, Any]) -> SendmailSettings:
        where = "sendmail."
        self._demand_known(table, ("account", "spool", "domain", "aliases"), where)
        place = self._text(table, "spool", where)
        aliases = self._value(table, "aliases", dict, where, "a table") or {}
        return SendmailSettings(
            account=self._text(table, "account", where),
            spool=None if place is None else self._spool(place, f"{where}spool"),
            domain=self._text(table, "domain", where),
            aliases={name: self._targets(value, f"{where}aliases.{name}") for name, value in aliases.items()},
        )

    def _targets(self, value: Any, key: str) -> tuple[str, ...]:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
            raise self._wrong(key, "must be an address or a list of addresses")
        for text in texts:
            try:
                Address.parse(text)
            except InvalidAddress as error:
                raise self._wrong(key, f"is not an address: {error}") from None
        return tuple(texts)

    # Values

    def _option(self, value: Any, kind: Any, key: str) -> _Value:
        """Return the value of an option of `Access` as it would be written on a command line."""
        kind, several = _kind_of(kind)
        texts = value if several and isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in texts):
            raise self._wrong(key, "must be a text or a list of texts" if several else "must be a text")
        if issubclass(kind, Enum):
            choices = [one.value for one in kind]
            if not set(texts) <= set(choices):
                raise self._wrong(key, f"must be one of {', '.join(choices)}")
        if issubclass(kind, Path):
            texts = [self._at(one) for one in texts]
        return texts if several else str(texts[0])

    def _spool(self, place: str, key: str) -> str:
        if not is_url(place):
            return self._at(place)
        try:
            has_password = urlsplit(place).password is not None
        except ValueError:
            raise self._wrong(key, "is not a valid URL") from None
        if has_password:
            self._demand_private(key)
        return place

    def _at(self, text: str) -> str:
        """Return a path; a relative one begins in the folder of the file."""
        return str(Path(os.path.abspath(self._path)).parent / Path(text).expanduser())

    def _secret(self, table: dict[str, Any], key: str, where: str) -> Secret | None:
        text = self._text(table, key, where)
        if text is None:
            return None
        self._demand_private(where + key)
        return Secret(text)

    def _text(self, table: Mapping[str, Any], key: str, where: str) -> str | None:
        text = self._value(table, key, str, where, "a text")
        if text == "":
            raise self._wrong(where + key, "is empty")
        return text

    def _value(self, table: Mapping[str, Any], key: str, kind: type[_T], where: str, name: str) -> _T | None:
        value = table.get(key)
        if value is not None and not isinstance(value, kind):
            raise self._wrong(where + key, f"must be {name}")
        return value

    # Errors

    def _demand_known(self, table: dict[str, Any], known: Iterable[str], where: str) -> None:
        for key in table:
            if key not in known:
                raise self._wrong(where + key, f"is unknown{_near(key, known)}")

    def _demand_private(self, key: str) -> None:
        if self._mode & 0o077:
            raise FileError(
                f"other users can read {self._path}, whose {printable(key)} has a password: "
                f"chmod 600 {self._path}, or use password_file or password_command"
            )

    def _wrong(self, key: str, problem: str) -> InvalidArgument:
        return InvalidArgument(f"{self._path}: {printable(key)} {problem}")


def _near(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, [*known], 1, 0.5)
    return f": is it {printable(found[0])}?" if found else ""


def _kind_of(hint: Any) -> tuple[type, bool]:
    """Return the type of one value of an option, and whether there may be several."""
    if get_origin(hint) is list:
        return get_args(hint)[0], True
    if inner := [one for one in get_args(hint) if one is not NoneType]:
        return _kind_of(inner[0])
    return hint, False


def _converted(value: _Value, hint: Any) -> Any:
    kind, _ = _kind_of(hint)
    return [kind(one) for one in value] if isinstance(value, list) else kind(value)
