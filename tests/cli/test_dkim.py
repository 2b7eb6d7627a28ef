"""`smtp-async dkim-key`, and `send` with a signature."""

import re
import stat

import dkim
import pytest

from smtp_async.errors import SigningError
from smtp_async.message.sign import KeySigner

PEOPLE = "--from ann@example.com --to bob@example.org"


def made(shell, tmp_path, *words, env=None):
    """Make a key; return where it is, and its record as a resolver sees it."""
    path = tmp_path / "dkim.pem"
    done = shell("dkim-key --domain example.com --selector s1 --out", path, *words, env=env)
    assert done.exit_code == 0 and done.stderr == ""
    name, _, text = done.stdout.partition(" IN TXT ")
    return path, {name.encode(): "".join(re.findall('"([^"]*)"', text)).encode()}


def verified(message, records):
    return dkim.DKIM(message.data).verify(dnsfunc=lambda name, timeout=5: records.get(name))


@pytest.mark.parametrize("words", [(), ("--type", "ed25519"), ("--bits", "1024")])
def test_a_message_is_signed_with_a_new_key(shell, serve, tmp_path, words):
    path, records = made(shell, tmp_path, *words)
    assert list(records) == [b"s1._domainkey.example.com."]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server = serve()
    line = f"send --server {server.url} {PEOPLE} --text Hi --dkim-selector s1 --dkim-key"
    assert shell(line, path).exit_code == 0
    assert shell(line, path, "--dkim-domain", "example.com").exit_code == 0
    assert [verified(one, records) for one in server.messages] == [True, True]
    assert b" d=example.com;" in server.messages[0].data


def test_a_complete_message_is_signed(shell, serve, tmp_path):
    path, records = made(shell, tmp_path)
    letter = tmp_path / "letter.eml"
    letter.write_bytes(b"From: ann@example.com\nTo: bob@example.org\n\nAs it is \n")
    server = serve()
    line = f"send --server {server.url} --dkim-domain example.com --dkim-selector s1"
    assert shell(line, "--eml", letter, "--dkim-key", path).exit_code == 0
    assert verified(server.messages[0], records)


def test_an_encrypted_key(shell, serve, tmp_path):
    env = {"SMTP_ASYNC_DKIM_PASSWORD": "top-secret"}
    path, records = made(shell, tmp_path, env=env)
    with pytest.raises(SigningError, match="encrypted, and no password"):
        KeySigner.load(path)
    server = serve()
    line = f"send --server {server.url} {PEOPLE} --text Hi --dkim-selector s1 --dkim-key"
    assert shell(line, path, env=env).exit_code == 0
    assert verified(server.messages[0], records)
    for wrong in ({}, {"SMTP_ASYNC_DKIM_PASSWORD": "wrong"}):
        done = shell(line, path, env=wrong)
        assert done.exit_code == 5 and "password" in done.stderr
    assert len(server.messages) == 1


def test_a_key_is_not_overwritten(shell, tmp_path):
    path, _ = made(shell, tmp_path)
    before = path.read_bytes()
    done = shell("dkim-key --domain example.com --selector s1 --out", path)
    assert done.exit_code == 2 and "exists already" in done.stderr
    assert path.read_bytes() == before
    done = shell("dkim-key --domain example.com --selector s1 --out", tmp_path / "no" / "such")
    assert done.exit_code == 2 and "Cannot write" in done.stderr


@pytest.mark.parametrize("words", ["--domain a..b --selector s", "--domain example.com --selector a;b"])
def test_a_name_that_is_none_makes_no_key(shell, tmp_path, words):
    path = tmp_path / "key"
    assert shell(f"dkim-key {words} --out", path).exit_code == 2
    assert not path.exists()


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ("--dkim-selector s1", 2, "need --dkim-key"),
        ("--dkim-check", 2, "need --dkim-key"),
        ("--dkim-key KEY", 2, "needs --dkim-selector"),
        ("--dkim-key KEY --dkim-selector a..b", 2, "not a selector"),
        ("--dkim-key KEY --dkim-selector s1 --dkim-domain a..b", 2, "not a domain"),
        ("--dkim-key /no/such/file --dkim-selector s1", 5, "No such file"),
        ("--dkim-key /dev/null --dkim-selector s1", 5, "no private key"),
    ],
)
def test_what_makes_no_sense(shell, serve, tmp_path, words, code, complaint):
    path, _ = made(shell, tmp_path)
    server = serve()
    done = shell(f"send --server {server.url} {PEOPLE} --text Hi {words.replace('KEY', str(path))}")
    assert done.exit_code == code and complaint.lower() in done.stderr.lower()
    assert server.messages == []


def test_without_an_author_the_domain_is_needed(shell, tmp_path):
    path, _ = made(shell, tmp_path)
    done = shell(
        "send --server localhost:1 --to bob@example.org --text Hi --dkim-selector s1 --dkim-key", path
    )
    assert done.exit_code == 2 and "needs --dkim-domain, or an author: --from" in done.stderr
