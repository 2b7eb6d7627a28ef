"""The configuration file: where it is, what it may say, and how its errors are told."""

import os
import sys
from pathlib import Path

import pytest

from smtp_async import Secret
from smtp_async.cli.configuration import Configuration, find_configuration, read_configuration
from smtp_async.cli.options import Ignorable, TLSVersion
from smtp_async.errors import FileError, InvalidArgument
from smtp_async.tls.context import Security

WORK = '[accounts.work]\nurl = "smtps://mail.example.com"\n'

posix = pytest.mark.skipif(os.name != "posix", reason="modes of files")


@pytest.fixture
def written(tmp_path):
    """Writes a file."""

    def write(text, mode=0o600):
        path = tmp_path / "config.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def read(written):
    return lambda text, mode=0o600: read_configuration(written(text, mode))


# --- where ---------------------------------------------------------------------------------------------------


def test_the_file_that_is_named_goes_first():
    assert find_configuration(Path("x"), environment={"SMTP_ASYNC_CONFIG": "y"}) == Path("x")
    assert find_configuration(environment={"SMTP_ASYNC_CONFIG": "y"}) == Path("y")


def test_the_user_goes_before_the_machine(tmp_path):
    places = {
        "XDG_CONFIG_HOME": str(tmp_path / "user"),
        "XDG_CONFIG_DIRS": f"relative:{tmp_path / 'machine'}",
    }
    assert find_configuration(environment=places) is None
    for name in ("machine", "user"):
        path = tmp_path / name / "smtp-async" / "config.toml"
        path.parent.mkdir(parents=True)
        path.touch()
        assert find_configuration(environment=places) == path


def test_without_the_variable_it_is_in_the_home_directory(tmp_path):
    path = tmp_path / ".config" / "smtp-async" / "config.toml"
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_configuration(environment={"HOME": str(tmp_path)}) == path


@posix
def test_without_HOME_it_is_that_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("HOME", raising=False)
    nowhere = str(tmp_path)
    found = find_configuration(environment={"XDG_CONFIG_DIRS": nowhere})
    assert found is None or found == Path.home() / ".config" / "smtp-async" / "config.toml"


# --- what it says --------------------------------------------------------------------------------------------


def test_without_a_file_there_is_no_account():
    found = read_configuration(None)
    assert found == Configuration() and found.account(None) is None
    with pytest.raises(InvalidArgument, match="no account work, because there is no configuration file"):
        found.account("work")


def test_an_account_with_everything(read, tmp_path):
    found = read(
        WORK
        + """
user = "ann"
password = "top-secret"
from = "Ann <ann@example.com>"
proxy = "socks5://proxy.example.com"
proxy_password = "other-secret"
ca_file = "ca.pem"
pin = "ab"
ignore = ["time", "usage"]
tls_min = "1.3"
spool = "spool"
dkim = {domain = "example.com", selector = "s", key = "/k.pem"}
"""
    )
    account = found.accounts["work"]
    access = account.access()
    assert (account.server, account.user, account.sender) == (
        "smtps://mail.example.com",
        "ann",
        "Ann <ann@example.com>",
    )
    assert account.password() == Secret("top-secret") and account.proxy_password == Secret("other-secret")
    assert access.ca_file == tmp_path / "ca.pem" and access.user == "ann"
    assert (access.tls_min, access.ignore, access.pin) == (
        TLSVersion.TLSv1_3,
        [Ignorable.TIME, Ignorable.USAGE],
        ["ab"],
    )
    assert account.defaults["spool"] == str(tmp_path / "spool")
    assert account.defaults["dkim_key"] == "/k.pem" and account.defaults["dkim_selector"] == "s"
    assert "secret" not in repr(found)


def test_the_password_of_a_spool_is_not_shown(read):
    text = (
        f"{WORK}spool = 'postgresql://a:top-secret@h/d'\n[sendmail]\nspool = 'postgresql://a:top-secret@h/d'"
    )
    found = read(text)
    assert "top-secret" in found.accounts["work"].defaults["spool"] and "top-secret" not in repr(found)


def test_a_url_is_taken_apart(read):
    account = read('[accounts.a]\nurl = "smtp://ann%40x:p%2Fw@mail.example.com:2525"\n').accounts["a"]
    assert account.server == "smtp://mail.example.com:2525" and account.user == "ann@x"
    assert account.password() == Secret("p/w") and account.login == "password"


def test_a_server_without_a_scheme_takes_security(read):
    account = read('[accounts.a]\nurl = "mail.example.com:26"\nsecurity = "plaintext"\n').accounts["a"]
    assert account.access().security is Security.PLAINTEXT and account.login == ""


def test_which_account_is_the_default(read):
    two = WORK + '[accounts.home]\nurl = "x.example"\n'
    only = read(WORK)
    assert only.account(None) is only.accounts["work"]
    assert read(two).account(None) is None
    assert read(f'default_account = "home"\n{two}').account(None).name == "home"
    with pytest.raises(InvalidArgument, match=r"config\.toml has no account wrk: is it work\?"):
        read(two).account("wrk")


def test_a_command_prints_the_password(read):
    python = sys.executable.replace("\\", "/")
    program = f'''password_command = "'{python}' -c 'print(1234)'"'''
    account = read(f'{WORK}user = "ann"\n{program}\n').accounts["work"]
    assert account.password() == Secret("1234") and account.login == "password_command"


@posix
@pytest.mark.parametrize(
    ("command", "error"),
    [("echo no; exit 3", "failed with status 3"), ("true", "printed no password"), ("echo", "printed no")],
)
def test_a_command_that_prints_no_password(read, command, error):
    account = read(f'{WORK}user = "ann"\npassword_command = "{command}"\n').accounts["work"]
    with pytest.raises((FileError, InvalidArgument), match=error):
        account.password()


def test_the_settings_of_sendmail(read, tmp_path):
    settings = read(
        WORK
        + """
[sendmail]
spool = "postgresql:///mail"
account = "work"
domain = "example.com"
aliases = {root = "ann@example.com", "*" = ["b@example.org", "c@example.org"]}
"""
    ).sendmail
    assert (settings.spool, settings.account, settings.domain) == (
        "postgresql:///mail",
        "work",
        "example.com",
    )
    assert settings.aliases == {"root": ("ann@example.com",), "*": ("b@example.org", "c@example.org")}


# --- what is wrong -------------------------------------------------------------------------------------------

WRONG = {
    "default = 1": r"default is unknown",
    'defualt_account = "x"': r"defualt_account is unknown: is it default_account\?",
    'default_account = "x"': "default_account names no account",
    "default_account = 1": "default_account must be a text",
    "accounts = 1": "accounts must be a table",
    "accounts.work = 1": "accounts.work must be a table",
    "[accounts.work]": "accounts.work.url is missing",
    WORK + "usr = 'x'": r"accounts.work.usr is unknown: is it user\?",
    WORK + "port = 1": r"accounts.work.port is unknown",
    WORK + "user = 1": "accounts.work.user must be a text",
    WORK + "user = ''": "accounts.work.user is empty",
    WORK + "tls_min = '2'": "accounts.work.tls_min must be one of 1.0, 1.1, 1.2, 1.3",
    WORK + "pin = [1]": "accounts.work.pin must be a text or a list of texts",
    WORK + "ca_file = ['a']": "accounts.work.ca_file must be a text",
    WORK + "from = 'ann'": "accounts.work.from is not an address",
    WORK + "password = 'x'": "accounts.work.password needs user",
    WORK + "user = 'a'\npassword = 'x'\noauth = 'y'": "accounts.work.oauth excludes password",
    WORK + "dkim = 1": "accounts.work.dkim must be a table",
    WORK + "dkim = {key = 'k'}": "accounts.work.dkim.selector is missing",
    WORK + "dkim = {kay = 'k'}": r"accounts.work.dkim.kay is unknown: is it key\?",
    "[accounts.w]\nurl = 'smtp://[::1'": "accounts.w.url is not a valid URL",
    "[accounts.w]\nurl = 'smtp://:pw@h'": "accounts.w.url has a password and no user",
    "[accounts.w]\nurl = 'smtp://a:pw@h'\npassword = 'x'": "accounts.w.password excludes a password in url",
    "[accounts.w]\nurl = 'smtp://a@h'\nuser = 'b'": "accounts.w.user is not the user of url",
    "[sendmail]\nspol = 'x'": r"sendmail.spol is unknown: is it spool\?",
    "[sendmail]\naccount = 'x'": "sendmail.account names no account",
    "[sendmail]\naliases = {root = 1}": "sendmail.aliases.root must be an address or a list",
    "[sendmail]\naliases = {root = 'ann'}": "sendmail.aliases.root is not an address",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told_with_the_file_and_the_key(read, text):
    with pytest.raises(InvalidArgument, match=rf"config\.toml: {WRONG[text]}"):
        read(text)


@pytest.mark.parametrize("text", ["[accounts", b"\xff = 1", "a = " + "[" * 5000])
def test_what_is_not_TOML(read, text):
    with pytest.raises(InvalidArgument, match=r"config\.toml is not TOML"):
        read(text)


def test_a_syntax_error_shows_no_line_of_the_file(read):
    with pytest.raises(InvalidArgument) as caught:
        read('password = "top-secret"\npassword = "top-secret"\n')
    assert "top-secret" not in str(caught.value) and caught.value.__cause__ is None


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileError, match="cannot read the configuration .*: No such file"):
        read_configuration(tmp_path / "missing.toml")
    with pytest.raises(FileError):
        read_configuration(tmp_path)


def test_a_file_without_an_end(read):
    with pytest.raises(InvalidArgument, match="larger than"):
        read("#" * (1 << 20) + "\n")


SECRETS = {
    "password": f"{WORK}user = 'a'\npassword = 'top-secret'",
    "proxy_password": f"{WORK}proxy_password = 'top-secret'",
    "url": "[accounts.work]\nurl = 'smtp://a:top-secret@h'",
    "spool": f"{WORK}spool = 'postgresql://a:top-secret@h/d'",
}


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604])
@pytest.mark.parametrize("key", SECRETS)
def test_a_password_that_others_can_read_is_refused(read, key, mode):
    read(SECRETS[key])
    with pytest.raises(
        FileError, match=rf"other users can read .*accounts\.work\.{key}.*chmod 600"
    ) as caught:
        read(SECRETS[key], mode)
    assert "top-secret" not in str(caught.value)


@posix
def test_a_command_that_others_can_write_is_refused(read):
    text = f"{WORK}user = 'a'\npassword_command = 'x'"
    read(text, 0o644)
    with pytest.raises(FileError, match="other users can write"):
        read(text, 0o622)


@posix
def test_a_file_without_secrets_may_be_read_by_others(read):
    assert read(WORK + "password_file = '~/p'\nuser = 'a'", 0o644).accounts["work"].login == "password_file"
