"""Certificates and keys on a token: SoftHSM's."""

import builtins
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import (
    CertificateNotFound,
    CertificateStoreError,
    ClientCertificateMissing,
    ClientIdentityError,
    FeatureUnavailable,
    SMTPError,
)
from smtp_async.tls import tokens as tokens_module
from smtp_async.tls.stores import CertificateStore
from tests.servers.softhsm import PIN
from tests.tls.identities import ANN, BOB, MIDDLE, key, key_pem, leaf, public_der

EVE = leaf("eve", "ec", 9)
HASHES = {
    "SHA1": hashes.SHA1(),
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
}


@pytest.fixture(scope="module")
def tokens(softhsm):
    """A token with two identities and a key without a certificate, one that is empty, and two of one name."""
    for label in ("mail", "empty", "twin", "twin"):
        softhsm.add_token(label)
    for number, label, holder in (
        (1, "ann", key("ec", 0)),
        (2, "bob", key("rsa", 1)),
        (9, "eve", key("ec", 9)),
    ):
        softhsm.add_key("mail", key_pem(holder), label=label, key_id=bytes([number]))
    for number, label, certificate in ((1, "ann", ANN), (2, "bob", BOB), (7, "middle", MIDDLE)):
        softhsm.add_certificate("mail", certificate.der, label=label, key_id=bytes([number]))
    return softhsm


def opened(tokens, path="token=mail") -> Any:
    """Return the store on a token."""
    return CertificateStore.load(tokens.uri(path), PIN)


def verify(certificate, *signed) -> None:
    """Verify a signature; cryptography has a signature of its own for each kind of key."""
    key: Any = certificate.x509.public_key()
    key.verify(*signed)


@pytest.fixture
def store(tokens):
    return opened(tokens)


@pytest.mark.server
class TestOnAToken:
    def test_its_certificates_are_listed(self, store):
        assert sorted(one.der for one in store.certificates) == sorted(one.der for one in (ANN, BOB, MIDDLE))
        assert store.find("CN=bob") == BOB

    def test_certificates_can_be_listed_without_a_pin(self, tokens):
        store = CertificateStore.load(tokens.uri("token=mail"))
        assert len(store.certificates) == 3
        with pytest.raises(ClientCertificateMissing):
            store.identity()

    @pytest.mark.parametrize("name", HASHES)
    def test_an_elliptic_key_signs(self, store, name):
        identity = store.identity_for(store.find("CN=ann"))
        signature = identity.key.sign(b"hello", hash_name=name)
        verify(ANN, signature, b"hello", ec.ECDSA(HASHES[name]))

    @pytest.mark.parametrize("name", HASHES)
    @pytest.mark.parametrize("pss", [False, True])
    def test_an_rsa_key_signs(self, store, name, pss):
        identity = store.identity_for(BOB)
        signature = identity.key.sign(b"hello", hash_name=name, pss=pss)
        chosen = HASHES[name]
        scheme = padding.PSS(padding.MGF1(chosen), chosen.digest_size) if pss else padding.PKCS1v15()
        verify(BOB, signature, b"hello", scheme, chosen)

    def test_a_key_without_a_certificate_serves_one_from_elsewhere(self, store):
        identity = store.identity_for(EVE)
        assert identity.chain == (MIDDLE,)
        verify(EVE, identity.key.sign(b"hello"), b"hello", ec.ECDSA(hashes.SHA256()))
        assert public_der(key("ec", 9)) in store.public_keys

    def test_two_stores_do_not_log_each_other_out(self, tokens, store):
        for one in (store, opened(tokens), store):
            assert one.identity_for(ANN).key.sign(b"x")

    def test_what_it_does_not_sign(self, store):
        with pytest.raises(ClientIdentityError, match="does not sign with 'MD5'"):
            store.identity_for(ANN).key.sign(b"x", hash_name="MD5")
        with pytest.raises(ClientIdentityError, match="only an RSA key"):
            store.identity_for(ANN).key.sign(b"x", pss=True)

    def test_a_key_that_is_gone(self, tokens):
        tokens.add_key("mail", key_pem(key("ec", 8)), label="gone", key_id=b"\x08")
        identity = opened(tokens).identity_for(leaf("gone", "ec", 8))
        tokens.remove("mail", key_id=b"\x08")
        with pytest.raises(ClientIdentityError, match="key gone is not on its token any more"):
            identity.key.sign(b"x")

    def test_a_key_of_another_kind(self, tokens):
        import pkcs11

        with pytest.raises(ClientIdentityError, match="neither RSA nor elliptic"):
            tokens_module.signature_by(
                pkcs11, SimpleNamespace(key_type=pkcs11.KeyType.DSA), b"x", "SHA256", pss=False
            )
        assert tokens_module.public_half(pkcs11, SimpleNamespace(key_type=pkcs11.KeyType.DSA)) is None

    def test_what_a_token_complains_of(self, tokens):
        import pkcs11

        assert "locked" in tokens_module.in_words(pkcs11.PinLocked())
        assert tokens_module.in_words(pkcs11.DeviceError("x")) == "the token says DeviceError: x"

    def test_the_pin_does_not_show(self, tokens, store):
        identity = store.identity_for(ANN)
        assert PIN not in repr(identity.key) + repr(identity) + repr(store)


@pytest.mark.server
class TestURIs:
    @pytest.mark.parametrize(
        ("path", "found"),
        [("token=mail;object=ann", ANN), ("token=mail;id=%02", BOB), ("token=mail;object=middle", MIDDLE)],
    )
    def test_one_object(self, tokens, path, found):
        assert CertificateStore.load(tokens.uri(path), PIN).certificates == (found,)

    def test_a_pin_in_it(self, tokens):
        store = CertificateStore.load(tokens.uri("token=mail;object=ann", f"pin-value={PIN}"))
        assert store.identity().certificate == ANN

    def test_several_tokens(self, tokens):
        with pytest.raises(CertificateStoreError, match="several tokens fit"):
            CertificateStore.load(tokens.uri("token=twin"), PIN)

    def test_no_such_token(self, tokens):
        with pytest.raises(
            CertificateStoreError, match="no such token: the library knows empty, mail"
        ) as caught:
            CertificateStore.load(tokens.uri("token=other"), PIN)
        assert caught.value.code == 271

    def test_an_empty_token(self, tokens):
        with pytest.raises(CertificateStoreError, match="neither a certificate nor a key"):
            CertificateStore.load(tokens.uri("token=empty"), PIN)

    def test_a_wrong_pin(self, tokens):
        for pin in ("9999", "1"):
            with pytest.raises(CertificateStoreError, match="PIN is wrong") as caught:
                CertificateStore.load(tokens.uri("token=mail"), pin)
            assert pin not in str(caught.value)
        # And the right one is not kept from working.
        assert CertificateStore.load(tokens.uri("token=mail"), PIN).certificates

    def test_another_session_of_the_application(self, tokens):
        import pkcs11

        token = pkcs11.lib(tokens.module).get_token(token_label="mail")
        with token.open(user_pin=PIN):
            assert opened(tokens).identity_for(ANN).key.sign(b"x")

    @pytest.mark.usefixtures("tokens")
    def test_no_library(self, tmp_path):
        broken = tmp_path / "broken.so"
        broken.write_bytes(b"hello")
        for library in ("/nowhere.so", broken):
            with pytest.raises(CertificateStoreError, match="cannot be loaded"):
                CertificateStore.load(f"pkcs11:token=mail?module-path={library}", PIN)

    def test_nothing_was_found(self, store):
        with pytest.raises(CertificateNotFound):
            store.find("CN=nobody")


class TestWithoutATokenLibrary:
    @pytest.mark.parametrize(
        ("uri", "words"),
        [
            ("pkcs11:token=mail", "needs .module-path"),
            ("pkcs11:", "needs .module-path"),
            ("PKCS11:token", "malformed at 'token'"),
            ("pkcs11:token=a;token=b?module-path=/x", "malformed at 'token'"),
            ("pkcs11:slot-id=1?module-path=/x", "'slot-id', which is not known"),
            ("pkcs11:token=a?module-path=/x&pin-source=/y", "'pin-source', which is not known"),
        ],
    )
    def test_a_bad_uri(self, uri, words):
        with pytest.raises(CertificateStoreError, match=words):
            CertificateStore.load(uri)

    @given(st.text(max_size=60))
    def test_any_uri(self, text):
        with pytest.raises(SMTPError) as caught:
            CertificateStore.load("pkcs11:" + text.replace("module-path", ""))
        assert caught.value.code == 271

    def test_it_names_its_extra(self, monkeypatch):
        real = builtins.__import__

        def without(name, *arguments, **options):
            if name.partition(".")[0] == "pkcs11":
                raise ImportError(name)
            return real(name, *arguments, **options)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(FeatureUnavailable) as caught:
            CertificateStore.load("pkcs11:token=mail?module-path=/x")
        assert (caught.value.needs, caught.value.code) == ("smtp-async[pkcs11]", 270)
