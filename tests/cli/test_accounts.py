"""Accounts on the command line: which one is used, and what goes before it."""

import json

import pytest


@pytest.fixture
def account(configured, submission, pki):
    """Writes the account of a server that requires a login."""

    def write(more="", name="work", default=""):
        return configured(
            f"""{default}
[accounts.{name}]
url = "smtp://ann@localhost:{submission.port}"
ca_file = "{pki.ca_file}"
from = "Ann <ann@example.com>"
{more}
"""
        )

    return write


PASSWORD = 'password = "top-secret"'
MAIL = "send --to bob@example.org --text Hi"


def test_an_account_is_enough(shell, account, submission):
    account(PASSWORD)
    assert shell(f"{MAIL} --account work").exit_code == 0
    [message] = submission.messages
    assert (message.user, message.tls, message.mail_from) == ("ann", True, "ann@example.com")
    assert message.parsed["From"] == "Ann <ann@example.com>"


def test_the_only_account_is_the_default(shell, account, submission):
    account(PASSWORD)
    assert shell(MAIL).exit_code == 0
    assert len(submission.messages) == 1


def test_a_file_that_is_named(shell, account, submission, tmp_path, no_configuration):
    path = account(PASSWORD).rename(tmp_path / "other.toml")
    assert shell(f"{MAIL} --config", path).exit_code == 0
    assert shell(MAIL, env={"SMTP_ASYNC_CONFIG": str(path)}).exit_code == 0
    assert len(submission.messages) == 2


def test_options_go_before_the_account(shell, account, submission, password_file):
    account('password = "wrong"')
    line = f"{MAIL} --from eve@example.com --password-file"
    assert shell(line, password_file).exit_code == 0
    assert submission.messages[0].mail_from == "eve@example.com"


def test_a_server_that_is_named_is_used_without_an_account(shell, account, submission, serve):
    account(PASSWORD)
    other = serve()
    line = f"{MAIL} --from eve@example.com --server 127.0.0.1:{other.port} --security plaintext"
    assert shell(line).exit_code == 0
    assert [one.user for one in other.messages] == [None] and submission.messages == []


def test_a_named_account_at_another_server(shell, account, submission):
    account(PASSWORD, name="far")
    assert shell(f"{MAIL} --account far --server smtp://localhost:{submission.port}").exit_code == 0


def test_the_password_is_for_its_user_alone(shell, account, submission):
    account(PASSWORD)
    done = shell(f"{MAIL} --user eve")
    assert done.exit_code == 2 and "the user in the url" not in done.stderr.lower()
    assert "password of eve" in done.stderr


def test_the_password_of_the_account_goes_before_that_of_the_environment(shell, account, submission):
    account(PASSWORD)
    assert shell(MAIL, env={"SMTP_ASYNC_PASSWORD": "of another account"}).exit_code == 0


def test_an_account_without_a_password_takes_that_of_the_environment(shell, account):
    account()
    assert shell(MAIL, env={"SMTP_ASYNC_PASSWORD": "top-secret"}).exit_code == 0


def test_check_takes_an_account_but_not_for_other_servers(shell, account):
    account(PASSWORD)
    assert shell("check").exit_code == 0
    done = shell("check --mx example.org --account work")
    assert done.exit_code == 2 and "name a server, or a domain" in done.stderr.lower()


def test_a_spool_and_a_sender_for_the_queue(shell, account, submission, tmp_path):
    account(f'{PASSWORD}\nspool = "{tmp_path / "spool"}"')
    assert shell("queue add --create --to bob@example.org --text Hi").exit_code == 0
    [line] = shell("queue ls").stdout.splitlines()
    assert "ann@example.com" in line
    assert shell("process --once").exit_code == 0
    assert submission.messages[0].mail_from == "ann@example.com"


def test_another_spool_is_used_without_an_account(shell, account, tmp_path):
    account(f'{PASSWORD}\nspool = "{tmp_path / "spool"}"')
    line = f"queue add --create --to bob@example.org --text Hi --spool {tmp_path / 'other'}"
    assert shell(line).exit_code == 2
    assert shell(f"{line} --account work").exit_code == 0


def test_a_complete_message_keeps_its_sender(shell, account, submission, tmp_path):
    account(f'{PASSWORD}\nspool = "{tmp_path / "spool"}"')
    message = "From: eve@example.com\nTo: bob@example.org\n\nHi\n"
    assert shell("send --eml -", stdin=message).exit_code == 0
    assert shell("queue add --create", stdin=message).exit_code == 0
    assert submission.messages[0].mail_from == "eve@example.com"
    assert "eve@example.com" in shell("queue ls").stdout


def test_mail_is_signed_by_the_key_of_the_account(shell, account, submission, tmp_path):
    key = tmp_path / "dkim.pem"
    assert shell(f"dkim-key --domain example.com --selector s --type ed25519 --out {key}").exit_code == 0
    account(f'{PASSWORD}\nspool = "{tmp_path / "spool"}"\ndkim = {{selector = "s", key = "{key}"}}')
    assert shell(MAIL).exit_code == 0
    assert shell("queue add --create --to bob@example.org --text Hi").exit_code == 0
    assert shell("process --once").exit_code == 0
    assert ["d=example.com" in one.parsed["DKIM-Signature"] for one in submission.messages] == [True, True]


def test_the_queue_is_signed_by_the_key_of_the_account(shell, account, submission, tmp_path):
    key, spool = tmp_path / "dkim.pem", tmp_path / "spool"
    assert shell(f"dkim-key --domain example.com --selector s --type ed25519 --out {key}").exit_code == 0
    account(f'{PASSWORD}\nspool = "{spool}"\ndkim = {{selector = "s", key = "{key}"}}')
    # The second one is put by a program that knows neither account nor key.
    assert shell("queue add --create --to bob@example.org --text Hi").exit_code == 0
    people = "--from ann@example.com --to bob@example.org"
    assert shell(f"queue add --spool {spool} {people} --text Hi").exit_code == 0
    assert shell("process --once").exit_code == 0
    found = [one.parsed.get_all("DKIM-Signature") for one in submission.messages]
    assert [len(one) for one in found] == [1, 1] and all("d=example.com" in one for [one] in found)


def test_several_accounts_and_no_default(shell, configured):
    configured('[accounts.a]\nurl = "a.example"\n[accounts.b]\nurl = "b.example"\n')
    done = shell(MAIL)
    assert done.exit_code == 2 and "--account: a, b" in done.stderr
    assert shell("accounts").stdout == "a\ta.example\t-\t-\t-\nb\tb.example\t-\t-\t-\n"


@pytest.mark.parametrize("line", [MAIL, "check", "process --once", "queue ls", "accounts"])
def test_a_file_that_is_wrong(shell, configured, line):
    path = configured("[accounts.a]\n")
    done = shell(line)
    assert done.exit_code == 2 and f"{path}: accounts.a.url is missing" in done.stderr


def test_a_file_that_is_not_needed_is_not_read(shell, configured, serve):
    configured("[")
    server = serve()
    line = f"{MAIL} --from a@example.com --server 127.0.0.1:{server.port} --security plaintext"
    assert shell(line).exit_code == 0


def test_an_account_that_is_not_there(shell, account):
    account(PASSWORD)
    done = shell(f"{MAIL} --account wrok")
    assert done.exit_code == 2 and "has no account wrok: is it work?" in done.stderr


def test_accounts_are_listed_without_secrets(shell, account):
    account(PASSWORD)
    assert "\tann\tpassword\tdefault" in shell("accounts").stdout
    [row] = [json.loads(line) for line in shell("accounts --json").stdout.splitlines()]
    assert (row["name"], row["user"], row["login"], row["default"]) == ("work", "ann", "password", True)


def test_accounts_on_a_terminal(shell, account, terminal):
    path = account(PASSWORD)
    shown = shell("accounts").stdout
    assert str(path) in shown and "work" in shown and "password" in shown


def test_no_accounts(shell, terminal):
    assert "no configuration file" in shell("accounts").stdout


def test_the_password_of_a_proxy(shell, account, submission):
    """It is for the proxy of the account: for another one it is asked for."""
    account(f'{PASSWORD}\nproxy = "socks5://joe@127.0.0.1:9"\nproxy_password = "top-secret-2"')
    assert "127.0.0.1:9 cannot be reached" in shell("check").stdout
    done = shell("check --proxy socks5://joe@127.0.0.1:10")
    assert done.exit_code == 2 and "joe at the proxy" in done.stderr
