"""`smtp-async token`, and what `--oauth` makes of its file: a browser, a device, and an account that refuses."""

import contextlib
import dataclasses
import stat
import sys
import urllib.error
import urllib.request
import webbrowser
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from smtp_async import Secret
from smtp_async.oauth.token_file import read_token_file, write_token_file
from smtp_async.testing import ScriptedServer, ServerThread
from tests.auth.servers import xoauth2
from tests.oauth.server import AuthorizationServer, Reply, error, token

PEOPLE = "--from ann@example.com --to bob@example.org --text Hi"
ANN = "ann@example.com"
SECRETS = ("canary-refresh", "canary-secret", "canary-access", "canary-code", "canary-device")


@pytest.fixture
def authority(pki, monkeypatch, shell):
    """An authorization server that this process trusts; nothing that is printed holds a secret."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("SMTP_ASYNC_CLIENT_SECRET", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca_file))
    with AuthorizationServer(pki) as server:
        server.handler = lambda form: token("canary-access", refresh_token="canary-refresh")
        yield server
    assert [one for one in SECRETS if one in shell.said] == []


@pytest.fixture
def browser(monkeypatch):
    """A browser whose account consents; the addresses that were opened."""
    opened = []

    def consents(url):
        opened.append(url)
        asked = dict(parse_qsl(urlsplit(url).query))
        fields = {"code": "canary-code", "state": asked["state"]}
        with contextlib.suppress(urllib.error.HTTPError):
            where = f"http://127.0.0.1:{urlsplit(asked['redirect_uri']).port}/?{urlencode(fields)}"
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(where).read()
        return True

    monkeypatch.setattr(webbrowser, "open", consents)
    return opened


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ann.token"


def other(authority, more=""):
    return (
        f"token --provider other --token-url {authority.url} --authorization-url {authority.base}/authorize "
        f"--device-url {authority.base}/device --scope mail.send --client-id app-1 {more}"
    )


# --- consent -------------------------------------------------------------------------------------------------


def test_a_consent_in_the_browser(shell, authority, browser, path):
    done = shell(other(authority, f"--user {ANN}"), path, env={"SMTP_ASYNC_CLIENT_SECRET": "canary-secret"})
    assert done.exit_code == 0 and f"--oauth {path}" in done.stdout
    assert f"Open this address in a browser on this machine: {browser[0]}" in done.stderr
    found = read_token_file(path)
    assert (found.refresh_token, found.client_secret) == (Secret("canary-refresh"), Secret("canary-secret"))
    assert (found.client_id, found.token_endpoint, found.username) == ("app-1", authority.url, ANN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert authority.forms[0]["client_secret"] == "canary-secret"


def test_a_consent_on_another_device(shell, authority, path, tmp_path):
    authority.script = [
        Reply(
            200,
            {
                "device_code": "canary-device",
                "user_code": "WDJB-MJHT",
                "verification_uri": "https://auth.test/device",
                "interval": 0.01,
            },
        ),
        error("authorization_pending"),
    ]
    (tmp_path / "secret").write_text("canary-secret\n")
    done = shell(other(authority, "--device --client-secret-file"), tmp_path / "secret", path)
    assert done.exit_code == 0
    assert "Open https://auth.test/device on any device, and enter WDJB-MJHT" in done.stderr
    assert read_token_file(path).refresh_token == Secret("canary-refresh")


def test_no_browser_is_opened_when_told_so(shell, authority, browser, path):
    done = shell(other(authority, "--no-browser --timeout 0.1"), path)
    assert done.exit_code == 3 and "did not come back within 0.1 s" in done.stderr
    assert browser == [] and not path.exists()


def test_an_older_token_is_replaced_and_another_file_is_not(shell, authority, browser, path, tmp_path):
    assert shell(other(authority), path).exit_code == 0
    authority.handler = lambda form: token(refresh_token="r2")
    assert shell(other(authority), path).exit_code == 0
    assert read_token_file(path).refresh_token == Secret("r2")
    letter = tmp_path / "letter"
    letter.write_text("Dear Bob")
    letter.chmod(0o600)
    done = shell(other(authority), letter)
    assert done.exit_code == 2 and letter.read_text() == "Dear Bob" and len(browser) == 2


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (error("invalid_grant", error_description="canary-code"), 5, "invalid_grant"),
        (Reply(500, b"canary-code"), 3, "status 500"),
        (token("canary-access"), 3, "no refresh token"),
    ],
)
def test_no_token(shell, authority, browser, path, answer, code, said):
    authority.script = [answer]
    done = shell(other(authority), path)
    assert done.exit_code == code and said in done.stderr
    assert not path.exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--provider google --device --client-id a", "issues no device codes"),
        ("--provider google --client-id a --token-url https://x.test/", "need --provider other"),
        ("--provider microsoft --tenant a/b --client-id a", "A tenant is"),
        ("--provider other --client-id a --scope s", "needs --token-url"),
        ("--provider other --client-id a --scope s --token-url http://x.test/", "https://"),
        ("--provider google --client-id a --client-secret-file no-such-file", "No such file"),
    ],
)
def test_a_wrong_command_line(shell, path, line, said):
    done = shell(f"token {line}", path)
    assert done.exit_code == 2 and said in done.stderr


def test_a_directory_that_is_not_there(shell, authority, browser, tmp_path):
    done = shell(other(authority), tmp_path / "no" / "token")
    assert done.exit_code == 2 and browser == []


def test_each_provider_is_asked_for_what_permits_mail(shell, path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", asked.append)
    for line in (
        "google",
        "yandex --port 0",
        "microsoft --cloud china --tenant contoso.test",
        "microsoft --scope more",
    ):
        assert shell(f"token --client-id a --timeout 0.1 --provider {line}", path).exit_code == 3
    hosts = [(urlsplit(url).hostname, dict(parse_qsl(urlsplit(url).query))["scope"]) for url in asked]
    assert hosts == [
        ("accounts.google.com", "https://mail.google.com/"),
        ("oauth.yandex.com", "mail:smtp"),
        ("login.partner.microsoftonline.cn", "https://partner.outlook.cn/SMTP.Send offline_access"),
        ("login.microsoftonline.com", "more"),
    ]


# --- --oauth -------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(shell, authority, browser, path):
    assert shell(other(authority, f"--user {ANN}"), path).exit_code == 0
    return path


@pytest.fixture
def mail_server(pki):
    server = ScriptedServer(
        ssl_context=pki.server_context(),
        users={ANN: "canary-access", "bob@example.org": "canary-access"},
        mechanisms={"XOAUTH2": xoauth2()},
        require_auth=True,
    )
    with ServerThread(server) as running:
        yield running


def test_send(shell, stored, mail_server, pki):
    line = f"send --server localhost:{mail_server.port} --ca-file {pki.ca_file} {PEOPLE} --verbose --oauth"
    assert shell(line, stored).exit_code == 0
    assert mail_server.messages[0].user == ANN
    assert shell(f"{line}", stored, "--user", "bob@example.org").exit_code == 0
    assert mail_server.messages[1].user == "bob@example.org"


def test_check(shell, stored, mail_server, pki):
    line = f"check localhost:{mail_server.port} --ca-file {pki.ca_file} --oauth"
    done = shell(line, stored)
    assert done.exit_code == 0, done.output


def test_process(shell, stored, mail_server, pki, tmp_path):
    spool = tmp_path / "spool"
    assert shell(f"queue add --create {PEOPLE} --spool", spool).exit_code == 0
    line = f"process --once --server localhost:{mail_server.port} --ca-file {pki.ca_file} --spool {spool}"
    assert shell(line, "--oauth", stored).exit_code == 0
    assert mail_server.messages[0].user == ANN


def test_a_token_that_was_withdrawn_exits_with_5(shell, stored, mail_server, pki, authority):
    authority.handler = lambda form: error("invalid_grant", error_description="revoked canary-refresh")
    line = f"send --server localhost:{mail_server.port} --ca-file {pki.ca_file} {PEOPLE} --oauth"
    done = shell(line, stored)
    assert done.exit_code == 5 and "invalid_grant" in done.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [("--password-file x --user ann", "exclude each other"), ("", "names no account")],
)
def test_options_that_do_not_go_together(shell, stored, more, said):
    write_token_file(stored, dataclasses.replace(read_token_file(stored), username=""))
    done = shell(f"send --server localhost {PEOPLE} {more} --oauth", stored)
    assert done.exit_code == 2 and said in done.stderr


def test_a_file_that_others_can_read(shell, stored):
    stored.chmod(0o644)
    done = shell(f"send --server localhost {PEOPLE} --oauth", stored)
    assert done.exit_code == 2 and "chmod 600" in done.stderr


def test_a_missing_extra(shell, stored, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    done = shell(f"send --server localhost {PEOPLE} --oauth", stored)
    assert done.exit_code == 5 and "smtp-async[oauth]" in done.stderr
