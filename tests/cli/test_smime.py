"""`smtp-async send` with S/MIME: OpenSSL verifies and decrypts what arrives."""

import re

import dkim
import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from tests.message.smime_lab import decrypted, person, verified

PEOPLE = "--from ann@example.com --to bob@example.org --text Hi"
PASSWORD = {"SMTP_ASYNC_SMIME_PASSWORD": "s3cret-of-ann"}
ANN, BOB = person("rsa"), person("p256")


@pytest.fixture
def files(tmp_path):
    """Ann's certificate with her key in four forms, and Bob's certificate."""
    encryption = BestAvailableEncryption(PASSWORD["SMTP_ASYNC_SMIME_PASSWORD"].encode())
    contents = {
        "both.pem": ANN.pem + ANN.key_pem,
        "ann.crt": ANN.pem,
        "ann.key": ANN.key_pem,
        "locked.key": ANN.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption),
        "ann.p12": serialize_key_and_certificates(b"ann", ANN.key, ANN.certificate, None, encryption),
        "bob.pem": BOB.pem,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def sent(shell, server, words, folder, env=None):
    line = f"send --server {server.url} {PEOPLE} {re.sub(r'@@', f'{folder}/', words)}"
    return shell(line, env=env)


@pytest.mark.parametrize(
    ("words", "env"),
    [
        ("--smime-cert @@both.pem", {}),
        ("--smime-cert @@ann.crt --smime-key @@ann.key", {}),
        ("--smime-cert @@ann.crt --smime-key @@locked.key", PASSWORD),
        ("--smime-cert @@ann.p12", PASSWORD),
    ],
)
def test_a_message_is_signed(shell, serve, files, words, env):
    server = serve()
    done = sent(shell, server, words, files, env)
    assert done.exit_code == 0, done.output
    assert b"Hi" in verified(files, server.messages[0].data)


def test_a_message_is_encrypted_for_those_who_are_named(shell, serve, files):
    server = serve()
    done = sent(shell, server, "--encrypt-to @@bob.pem --encrypt-to @@ann.crt", files)
    assert done.exit_code == 0, done.output
    data = server.messages[0].data
    for reader in (ANN, BOB):
        assert b"Hi" in decrypted(files, data, reader)
    done = sent(shell, server, "--encrypt-to @@bob.pem", files)
    assert done.exit_code == 0
    with pytest.raises(AssertionError):
        decrypted(files, server.messages[1].data, ANN)


def test_it_is_signed_then_encrypted_then_signed_by_dkim(shell, serve, files):
    key = files / "dkim.pem"
    made = shell("dkim-key --domain example.com --selector s1 --out", key)
    record = "".join(re.findall('"([^"]*)"', made.stdout)).encode()
    server = serve()
    words = "--encrypt-to @@bob.pem --smime-cert @@both.pem --dkim-selector s1 --dkim-key @@dkim.pem"
    assert sent(shell, server, words, files).exit_code == 0
    data = server.messages[0].data
    assert dkim.DKIM(data).verify(dnsfunc=lambda name, timeout=5: record)
    assert b"Hi" in verified(files, decrypted(files, data, BOB))


def test_a_complete_message_is_signed(shell, serve, files):
    (files / "letter.eml").write_bytes(b"From: ann@example.com\nTo: bob@example.org\n\nAs it is\n")
    server = serve()
    line = f"send --server {server.url} --eml {files}/letter.eml --smime-cert {files}/both.pem"
    assert shell(line).exit_code == 0
    assert b"As it is" in verified(files, server.messages[0].data)


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ("--smime-key @@ann.key", 2, "needs --smime-cert"),
        ("--smime-cert @@ann.crt", 5, "no private key"),
        ("--smime-cert @@ann.p12", 5, "password"),
        ("--smime-cert @@ann.crt --smime-key @@locked.key", 5, "password"),
        ("--smime-cert @@missing", 5, "no such file"),
        ("--encrypt-to @@ann.key", 2, "certificate"),
        ("--encrypt-to @@missing", 5, "no such file"),
        ("--smime-cert @@both.pem --from eve@example.com", 5, "eve@example.com"),
    ],
)
def test_what_cannot_be_signed_or_encrypted_is_not_sent(shell, serve, files, words, code, complaint):
    server = serve()
    done = sent(shell, server, words, files)
    assert (done.exit_code, done.stdout) == (code, "")
    assert complaint in done.stderr.lower()
    assert PASSWORD["SMTP_ASYNC_SMIME_PASSWORD"] not in done.output
    assert server.messages == []
