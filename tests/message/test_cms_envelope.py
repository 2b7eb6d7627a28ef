"""cms_envelope.py: OpenSSL decrypts it for each recipient, and for nobody else."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from smtp_async.message.cms_envelope import enveloped
from smtp_async.message.mail_certificate import MailCertificate

from .smime_lab import Person, openssl, person

CONTENT = b"Content-Type: text/plain\r\n\r\nHello\r\n"
CIPHERS = ["aes-256-gcm", "aes-256-cbc"]


def container(kinds: str, cipher: Any, rsa_padding: Any = "pkcs1", content: bytes = CONTENT) -> bytes:
    certificates = [MailCertificate(person(kind).certificate) for kind in kinds.split()]
    return enveloped(content, certificates, cipher, rsa_padding)


def read(directory: Path, data: bytes, reader: Person) -> bytes:
    (directory / "in.der").write_bytes(data)
    (directory / "reader.pem").write_bytes(reader.pem)
    (directory / "reader.key").write_bytes(reader.key_pem)
    openssl(directory, "-decrypt -binary -inform DER -in in.der -recip reader.pem -inkey reader.key -out out")
    return (directory / "out").read_bytes()


@pytest.mark.parametrize("kinds", ["rsa", "rsa3072", "p256", "p384", "p521", "rsa p256 p384 rsa3072"])
@pytest.mark.parametrize(("cipher", "rsa_padding"), list(product(CIPHERS, ["pkcs1", "oaep"])))
def test_every_recipient_reads_it(kinds: str, cipher: str, rsa_padding: str, tmp_path: Path) -> None:
    data = container(kinds, cipher, rsa_padding)
    for kind in kinds.split():
        assert read(tmp_path, data, person(kind)) == CONTENT


@pytest.mark.parametrize("cipher", CIPHERS)
def test_somebody_else_does_not(cipher: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Error decrypting CMS"):
        read(tmp_path, container("rsa p256", cipher), person("rsa3072"))


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100_000])
def test_any_length(cipher: str, size: int, tmp_path: Path) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert read(tmp_path, container("p256", cipher, content=content), person("p256")) == content


@pytest.mark.parametrize("cipher", CIPHERS)
def test_no_two_are_alike(cipher: str) -> None:
    """Key, nonce and ephemeral keys are drawn for each message."""
    assert container("rsa p256", cipher) != container("rsa p256", cipher)


def test_the_versions() -> None:
    def version(kinds: str, cipher: str) -> str:
        return str(cms.ContentInfo.load(container(kinds, cipher))["content"]["version"].native)

    assert version("rsa", "aes-256-cbc") == "v0"
    assert version("rsa p256", "aes-256-cbc") == "v2"
    assert version("rsa p256", "aes-256-gcm") == "v0"


def test_gcm_shows_a_change() -> None:
    """By a reader of its own, because that of OpenSSL 3.0 writes what it has before it looks at the tag."""
    inner = cms.ContentInfo.load(container("rsa", "aes-256-gcm"))["content"]
    encrypted = inner["recipient_infos"][0].chosen["encrypted_key"].native
    key = person("rsa").key.decrypt(encrypted, padding.PKCS1v15())
    info = inner["auth_encrypted_content_info"]
    nonce = info["content_encryption_algorithm"]["parameters"].parse()[0].native
    sealed = info["encrypted_content"].native + inner["mac"].native
    assert AESGCM(key).decrypt(nonce, sealed, None) == CONTENT
    with pytest.raises(InvalidTag):
        AESGCM(key).decrypt(nonce, bytes([sealed[0] ^ 1]) + sealed[1:], None)
