"""Private keys that PuTTY wrote, and those that it did not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import CertificateStoreError, FeatureUnavailable, SMTPError
from smtp_async.tls.stores import CertificateStore
from tests.tls.identities import FILES, PASSWORD, ROOT_KEY, issue, name

ENCRYPTED = ["rsa-2", "rsa-3", "ecdsa-3", "ed25519-3"]
PLAIN = ["ecdsa-2-plain", "ed448-3-plain"]


def text_of(file):
    return (FILES / f"{file}.ppk").read_text()


def loaded(source, password=PASSWORD):
    return CertificateStore.load(source, password)


@pytest.mark.parametrize("file", [*ENCRYPTED, *PLAIN])
class TestOfPuTTY:
    def test_its_key(self, file):
        store = loaded(FILES / f"{file}.ppk")
        assert store.certificates == ()
        if "448" not in file:  # of which cryptography reads no public key in the notation of SSH
            assert store.public_keys == loaded(FILES / f"{file}.pub", None).public_keys
        (holder,) = store._keys.values()
        certificate = issue(holder, name("ann"), name("root"), ROOT_KEY)
        # Which also signs with it.
        assert store.identity_for(certificate).certificate == certificate

    def test_lines_of_windows(self, file):
        assert loaded(text_of(file).replace("\n", "\r\n").encode()).public_keys

    def test_as_text(self, file):
        assert loaded(text_of(file)).public_keys

    def test_damage_is_found(self, file):
        text = text_of(file)
        for old, new in (
            ("ann's", "bob's"),
            ("Private-MAC: ", "Private-MAC: 0"),
            ("Encryption: aes256", "Encryption: des"),
        ):
            if old in text:
                with pytest.raises(CertificateStoreError):
                    loaded(text.replace(old, new))

    @given(data=st.data())
    def test_any_damage_is_an_error_of_ours(self, file, data):
        text = text_of(file)
        at = data.draw(st.integers(0, len(text) - 1))
        damaged = (
            text[:at]
            + data.draw(st.characters(max_codepoint=127))
            + text[at + data.draw(st.integers(0, 9)) :]
        )
        try:
            loaded(damaged)
        except SMTPError as error:
            assert error.code == 271


@pytest.mark.parametrize("file", ENCRYPTED)
class TestPasswords:
    def test_a_wrong_one(self, file):
        with pytest.raises(CertificateStoreError, match="password is wrong"):
            loaded(FILES / f"{file}.ppk", "guess")

    def test_none(self, file):
        with pytest.raises(CertificateStoreError, match="needs a password"):
            loaded(FILES / f"{file}.ppk", None)


def test_one_that_is_not_needed():
    assert loaded(FILES / "ecdsa-2-plain.ppk", "superfluous").public_keys


def test_a_key_that_tls_does_not_use():
    with pytest.raises(CertificateStoreError, match="a kind that TLS does not use"):
        loaded(FILES / "dsa-3-plain.ppk")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("File-3", "File-1", "version 1"),
        ("File-3", "File-9", "version 9"),
        ("File-3", "File-x", "damaged"),
        ("Argon2i", "Argon2x", "not known"),
        ("Memory: 64", "Memory: 99999999", "too much memory"),
        ("Passes: 2", "Passes: 99999999", "too much memory or time"),
        ("Passes: 2", "Passes: 0", "damaged"),
        ("Parallelism: 1", "Parallelism: 99", "damaged"),
        ("Private-Lines: 1", "Private-Lines: 99999999999", "damaged"),
        ("Private-Lines: 1", "Private-Lines: -1", "password is wrong|damaged"),
        ("Private-Lines: 1", "Privat: 1", "damaged"),
        ("Encryption: aes256-cbc", "Encryption: rot13", "not known"),
        ("Comment: ", "Remark: ", "damaged"),
    ],
)
def test_a_bad_one(old, new, words):
    text = text_of("ed25519-3")
    assert old in text
    with pytest.raises(CertificateStoreError, match=words) as caught:
        loaded(text.replace(old, new))
    assert caught.value.code == 271


def test_an_older_cryptography_cannot_derive_every_key(monkeypatch):
    monkeypatch.delattr("cryptography.hazmat.primitives.kdf.argon2.Argon2i", raising=False)
    with pytest.raises(FeatureUnavailable, match="Argon2i") as caught:
        loaded(FILES / "ed25519-3.ppk")
    assert caught.value.needs == "smtp-async[keys]"


def test_an_older_openssl_cannot_either(monkeypatch):
    from cryptography.exceptions import UnsupportedAlgorithm

    def unsupported(**_):
        raise UnsupportedAlgorithm("no")

    monkeypatch.setattr("cryptography.hazmat.primitives.kdf.argon2.Argon2i", unsupported)
    with pytest.raises(FeatureUnavailable) as caught:
        loaded(FILES / "ed25519-3.ppk")
    assert (caught.value.needs, caught.value.code) == ("OpenSSL 3.2", 270)
