"""Stores: what they are read from, what is found in them, and what is said of bad ones."""

import base64
import errno
import os
import traceback

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import (
    CertificateNotFound,
    CertificateStoreError,
    ClientCertificateMissing,
    ClientIdentityError,
    InvalidArgument,
    SMTPError,
)
from smtp_async.model.secret import Secret
from smtp_async.tls.certificate import Certificate
from smtp_async.tls.containers import key_bags
from smtp_async.tls.stores import CertificateStore
from tests.tls.identities import (
    ANN,
    BOB,
    FILES,
    MIDDLE,
    PASSWORD,
    ROOT,
    key,
    key_der,
    key_pem,
    p7b,
    pems,
    pfx,
    public_der,
    public_pem,
)

ANN_KEY, BOB_KEY = key("ec", 0), key("rsa", 1)
BOTH = pems(ANN, MIDDLE, ROOT) + key_pem(ANN_KEY)

#: Name → content, password, the certificates, whether there is a key.
SOURCES = {
    "pfx": (pfx(ANN_KEY, ANN, MIDDLE, ROOT), PASSWORD, [ANN, MIDDLE, ROOT], True),
    "pfx without a password": (pfx(ANN_KEY, ANN, password=None), None, [ANN], True),
    "pfx, an empty password": (pfx(ANN_KEY, ANN, password=None), "", [ANN], True),
    "pfx without a key": (pfx(None, None, ANN, ROOT), PASSWORD, [ANN, ROOT], False),
    "pem": (pems(ANN, ROOT), None, [ANN, ROOT], False),
    "pem, one line ending with the other": (
        pems(ANN, ROOT).replace(b"\n", b"\r\n"),
        None,
        [ANN, ROOT],
        False,
    ),
    "pem with a key": (BOTH, None, [ANN, MIDDLE, ROOT], True),
    "pem, key first": (key_pem(ANN_KEY) + pems(ANN), None, [ANN], True),
    "pem, encrypted": (pems(ANN) + key_pem(ANN_KEY, PASSWORD), PASSWORD, [ANN], True),
    "pem, a password too many": (BOTH, PASSWORD, [ANN, MIDDLE, ROOT], True),
    "pem key": (key_pem(ANN_KEY), None, [], True),
    "pem with words": (b"subject=CN = ann\n" + pems(ANN), None, [ANN], False),
    "der": (ANN.der, None, [ANN], False),
    "der key": (key_der(ANN_KEY), None, [], True),
    "der key, encrypted": (key_der(ANN_KEY, PASSWORD), PASSWORD, [], True),
    "der public key": (public_der(ANN_KEY), None, [], False),
    "pem public key": (public_pem(ANN_KEY), None, [], False),
    "pkcs7": (p7b(ANN, MIDDLE), None, [ANN, MIDDLE], False),
    "pkcs7 in pem": (
        b"-----BEGIN PKCS7-----\n" + base64.encodebytes(p7b(ANN)) + b"-----END PKCS7-----\n",
        None,
        [ANN],
        False,
    ),
}


def loaded(data, password=None):
    return CertificateStore.load(data, password)


@pytest.mark.parametrize("name", SOURCES)
class TestSources:
    def test_bytes(self, name):
        content, password, certificates, has_key = SOURCES[name]
        store = loaded(content, password)
        assert sorted(one.der for one in store.certificates) == sorted(one.der for one in certificates)
        assert store.certificates[:1] == tuple(certificates[:1])
        assert (public_der(ANN_KEY) in store.public_keys) is (has_key or name.endswith("public key"))
        if has_key:
            assert store.identity_for(ANN).certificate == ANN

    def test_base64(self, name):
        content, password, certificates, _ = SOURCES[name]
        for text in (
            base64.encodebytes(content),
            base64.b64encode(content),
            base64.b64encode(content).decode(),
        ):
            assert len(loaded(text, password).certificates) == len(certificates)

    def test_a_path(self, name, tmp_path):
        content, password, certificates, _ = SOURCES[name]
        path = tmp_path / "store"
        path.write_bytes(content)
        for source in (path, str(path)):
            assert len(loaded(source, password).certificates) == len(certificates)

    @pytest.mark.parametrize("make", [str.encode, Secret])
    def test_a_password_in_another_form(self, name, make):
        content, password, certificates, _ = SOURCES[name]
        if password is not None:
            assert len(loaded(content, make(password)).certificates) == len(certificates)

    @given(data=st.data())
    def test_damage_is_told_by_an_error_of_ours(self, name, data):
        content, password, _, _ = SOURCES[name]
        blob = bytearray(content)
        for _ in range(data.draw(st.integers(1, 3))):
            blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
        cut = data.draw(st.integers(0, len(blob)))
        for damaged in (bytes(blob), bytes(blob[:cut])):
            try:
                loaded(damaged, password)
            except SMTPError as error:
                assert error.code in (270, 271)

    def test_the_wrong_password(self, name):
        content, password, _, _ = SOURCES[name]
        if password is None or "too many" in name or "empty" in name:
            return
        with pytest.raises(CertificateStoreError, match="password is wrong") as caught:
            loaded(content, "guess")
        assert caught.value.code == 271
        assert "guess" not in str(caught.value)

    def test_no_password(self, name):
        content, password, _, _ = SOURCES[name]
        if password is None or "too many" in name or "empty" in name:
            return
        with pytest.raises(CertificateStoreError, match="needs a password"):
            loaded(content)


class TestOtherPrograms:
    def test_two_identities_of_java(self):
        store = loaded(FILES / "two.p12", PASSWORD)
        ann, bob = store.find("CN=ann"), store.find("CN=bob")
        assert store.identity_for(ann).certificate == ann
        assert store.identity_for(bob).certificate == bob
        assert len(store.public_keys) == 2

    def test_what_lies_beside_the_keys_does_not_matter(self):
        """Keys behind the first are looked for by hand, and damage there is for cryptography to tell."""
        blob = (FILES / "two.p12").read_bytes()
        assert key_bags(blob[:900]) == []
        assert [encrypted for encrypted, _ in key_bags(blob)] == [True, True]

    @pytest.mark.parametrize("rounds", [4_097, 30_001])
    def test_the_iterations_of_a_password_are_those_that_its_writer_chose(self, rounds):
        writer = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(rounds).build(PASSWORD.encode())
        content = serialize_key_and_certificates(b"it", ANN_KEY, ANN.x509, None, writer)
        assert rounds.to_bytes(2, "big") in content
        assert loaded(content, PASSWORD).identity_for(ANN).certificate == ANN

    def test_the_encryption_of_old(self):
        assert loaded(FILES / "legacy.p12", PASSWORD).identity().certificate.common_name == "legacy"

    def test_a_key_with_dek_info(self):
        legacy = loaded(FILES / "legacy.p12", PASSWORD).certificates[0]
        assert loaded(FILES / "dek-info.key", PASSWORD).identity_for(legacy).certificate == legacy
        with pytest.raises(CertificateStoreError, match="needs a password"):
            loaded(FILES / "dek-info.key")
        with pytest.raises(CertificateStoreError, match="password is wrong"):
            loaded(FILES / "dek-info.key", "guess")

    def test_a_key_whose_algorithm_is_missing(self, monkeypatch):
        """An encrypted key of OpenSSH, without the package bcrypt."""
        monkeypatch.setattr("cryptography.hazmat.primitives.serialization.ssh._bcrypt_supported", False)
        with pytest.raises(CertificateStoreError, match="needs what is missing here: .*bcrypt"):
            loaded(FILES / "openssh-encrypted.key", PASSWORD)
        with pytest.raises(CertificateStoreError, match="needs a password"):
            loaded(FILES / "openssh-encrypted.key")

    def test_an_assertion_of_the_parser_is_an_error_of_ours(self):
        text = (FILES / "dek-info.key").read_text()
        at = text.index("DEK-Info: AES-128-CBC,") + 40
        with pytest.raises(CertificateStoreError, match="damaged"):
            loaded(text[:at] + text[at + 4 :], PASSWORD)

    def test_an_interrupt_is_no_error_of_a_parser(self, monkeypatch):
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(base64, "b64decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loaded(BOTH)

    def test_what_openssl_trusts(self):
        (found,) = loaded(FILES / "trusted-by-openssl.pem").certificates
        assert found.common_name == "legacy"

    @pytest.mark.parametrize(
        "form",
        [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8, PrivateFormat.OpenSSH],
    )
    def test_every_form_of_a_key(self, form):
        for holder, certificate in ((ANN_KEY, ANN), (BOB_KEY, BOB)):
            plain = holder.private_bytes(Encoding.PEM, form, key_encryption(None))
            assert loaded(plain).identity_for(certificate).certificate == certificate
            if form is not PrivateFormat.OpenSSH:  # which needs bcrypt
                secret = holder.private_bytes(Encoding.PEM, form, key_encryption(PASSWORD))
                assert loaded(secret, PASSWORD).identity_for(certificate).certificate == certificate
            if form is PrivateFormat.TraditionalOpenSSL:
                octets = holder.private_bytes(Encoding.DER, form, key_encryption(None))
                assert loaded(octets).identity_for(certificate).certificate == certificate


def key_encryption(password):
    from cryptography.hazmat.primitives.serialization import NoEncryption

    return BestAvailableEncryption(password.encode()) if password else NoEncryption()


class TestBadSources:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty"),
            (" \r\n", "is empty"),
            (b"\x30" * (10 << 20), "more than 4 MiB"),
            (b"hello", "not known"),
            (b"\x00\x01\x02", "not known"),
            (b"\x30\x03\x0c\x01x", "neither a certificate"),
            (b"\x30\x00", "damaged"),
            (b"A" * 40, "not known"),
            (b"A" * 41, "damaged"),
            (base64.b64encode(base64.b64encode(ANN.der)), "base64 of base64"),
            (pems(ANN)[:-30], "does not end"),
            (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "only X509 CRL"),
            (b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "damaged"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
            (b"-----BEGIN \n", "does not end"),
            (ANN.der + b"\x00", "no certificate"),
            (p7b(ANN)[:-9], "damaged"),
            (pfx(ANN_KEY, ANN, password=None)[:-9], "damaged"),
            (bytes.fromhex("300430003000"), "BCFKS"),
        ],
    )
    def test_it_is_271_with_a_reason(self, content, words):
        with pytest.raises(CertificateStoreError, match=words) as caught:
            loaded(content)
        assert caught.value.code == 271
        assert caught.value.remote is False
        assert str(caught.value).startswith("the store")

    def test_a_file_is_named(self, tmp_path):
        path = tmp_path / "empty.pfx"
        path.touch()
        with pytest.raises(CertificateStoreError, match=r"empty\.pfx is empty"):
            loaded(path)

    def test_a_large_file_is_not_read_whole(self, tmp_path):
        path = tmp_path / "large.pem"
        with path.open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(CertificateStoreError, match=r"large\.pem is no certificate store.*4 MiB"):
            loaded(path)

    def test_a_folder(self, tmp_path):
        with pytest.raises(CertificateStoreError, match="cannot be read: Is a directory") as caught:
            loaded(tmp_path)
        assert isinstance(caught.value.__cause__, OSError)

    def test_no_such_file(self, tmp_path):
        with pytest.raises(CertificateStoreError, match="No such file") as caught:
            loaded(str(tmp_path / "absent.pem"))
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.ENOENT
        with pytest.raises(CertificateStoreError, match="cannot be read"):
            loaded("nul\0")

    @pytest.mark.parametrize("name", ["MY", "Root", "ca"])
    def test_a_store_of_windows(self, name):
        with pytest.raises(CertificateStoreError, match="store of Windows"):
            loaded(name)

    def test_a_file_may_have_any_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("MY", "A" * 64):
            (tmp_path / name).write_bytes(pems(ANN))
            assert loaded(name).certificates == (ANN,)

    @pytest.mark.parametrize("damage", ["!{}", "[{}", "{}!"])
    @pytest.mark.parametrize("holder", [ANN_KEY, BOB_KEY])
    def test_a_key_that_is_not_recognised_is_not_shown(self, holder, damage):
        text = base64.b64encode(key_der(holder) * 2).decode()
        with pytest.raises(CertificateStoreError) as caught:
            loaded(damage.format(text))
        assert text[20:40] not in "".join(traceback.format_exception(caught.value))

    def test_arguments_of_another_type(self):
        for source in (None, 3, ANN):
            with pytest.raises(InvalidArgument, match="path, bytes or text"):
                loaded(source)
        with pytest.raises(InvalidArgument, match="is text, not int"):
            loaded(ANN.der, 4)
        for password in (b"secr\xff", "secr\ud800", Secret("secr\ud800")):
            with pytest.raises(InvalidArgument, match="cannot be written in UTF-8") as caught:
                loaded(ANN.der, password)
            assert caught.value.__cause__ is None and caught.value.__suppress_context__

    @given(st.binary(max_size=200) | st.text(max_size=200))
    def test_anything(self, data):
        try:
            loaded(data)
        except SMTPError as error:
            assert error.code == 271

    @pytest.mark.parametrize(
        "data", [b" " * (4 << 20), b"A" * 40 + b" " * (3 << 20) + b"!", b"-----BEGIN " * 100_000]
    )
    def test_hostile_content_takes_no_time(self, data):
        with pytest.raises(CertificateStoreError):
            loaded(data)


class TestFinding:
    STORE = loaded(pems(ROOT, MIDDLE, ANN, BOB) + key_pem(BOB_KEY))

    @pytest.mark.parametrize(
        ("subject", "found"),
        [
            ('CN=ann, OU=Mail, O="Example, Inc.", L=Town, S=Land, C=DE, E=ann@example.com', ANN),
            ('e=ANN@example.com,c=de,st=land,l=town,o="example, inc.",ou=mail,cn=ANN', ANN),
            (ANN.subject, ANN),
            (MIDDLE.subject, MIDDLE),
            # Parts of a name.
            ("CN=ann", ANN),
            ("cn=middle", MIDDLE),
            ("Town", BOB),
            ('O="Example, Inc."', BOB),
            ("L=Town, S=Land", BOB),
            ("  root  ", ROOT),
            # Those with a key come first.
            ("*", BOB),
            (" * ", BOB),
        ],
    )
    def test_a_subject(self, subject, found):
        assert self.STORE.find(subject) == found

    def test_an_exact_subject_comes_before_a_part(self):
        store = loaded(pems(*(leaf_named(name) for name in ("ann", "an"))))
        whole = 'CN={}, OU=Mail, O="Example, Inc.", L=Town, S=Land, C=DE, E=ann@example.com'
        assert store.find(whole.format("an")).common_name == "an"
        assert store.find("CN=an").common_name == "ann"

    def test_without_keys_the_first_is_any(self):
        assert loaded(pems(ROOT, ANN)).find("*") == ROOT

    @pytest.mark.parametrize(
        "subject", ["CN=eve", "O=Example, Inc.", "**", "CN=ann, OU=Mail, O=Other", "\x1b[2J"]
    )
    def test_nothing_is_272(self, subject):
        with pytest.raises(CertificateNotFound, match="no certificate for") as caught:
            self.STORE.find(subject)
        assert caught.value.code == 272
        assert "CN=root" in str(caught.value)
        assert str(caught.value).isprintable()

    def test_a_store_of_keys_only(self):
        with pytest.raises(CertificateNotFound, match="none at all"):
            loaded(key_pem(ANN_KEY)).find("*")

    def test_an_empty_subject_is_a_mistake(self):
        with pytest.raises(InvalidArgument):
            self.STORE.find(" ")


def leaf_named(name):
    from tests.tls.identities import leaf

    return leaf(name)


class TestIdentities:
    def test_the_only_one(self):
        identity = loaded(BOTH).identity()
        assert (identity.certificate, identity.chain) == (ANN, (MIDDLE,))

    def test_the_chain_is_in_order_whatever_that_of_the_file(self):
        identity = loaded(pems(ROOT, MIDDLE, BOB, ANN) + key_pem(ANN_KEY)).identity()
        assert (identity.certificate, identity.chain) == (ANN, (MIDDLE,))

    def test_a_certificate_from_elsewhere(self):
        store = loaded(key_pem(ANN_KEY))
        for form in (ANN, ANN.der, ANN.pem, base64.b64encode(ANN.der).decode()):
            assert store.identity_for(form).certificate == ANN

    def test_a_bundle_and_its_key(self):
        store = loaded(p7b(ROOT, MIDDLE, ANN)).union(loaded(key_pem(ANN_KEY)))
        assert store.identity().chain == (MIDDLE,)

    def test_two_are_not_chosen_from(self):
        with pytest.raises(
            ClientIdentityError, match=r"2 certificates with their keys.*CN=ann.*CN=bob"
        ) as caught:
            loaded(FILES / "two.p12", PASSWORD).identity()
        assert caught.value.code == 273

    def test_a_key_without_a_certificate_is_281(self):
        with pytest.raises(ClientCertificateMissing, match="no certificate for it") as caught:
            loaded(key_pem(ANN_KEY)).identity()
        assert caught.value.code == 281

    def test_a_key_alone(self):
        for source in (key_pem(ANN_KEY), BOTH):
            assert public_der(loaded(source).key()) == public_der(ANN_KEY)

    @pytest.mark.parametrize(
        ("source", "complaint"),
        [(pems(ANN), "no private keys?, not one"), (key_pem(ANN_KEY) + key_pem(BOB_KEY), "2 private keys")],
    )
    def test_no_key_and_two(self, source, complaint):
        with pytest.raises(ClientIdentityError, match=complaint):
            loaded(source).key()

    def test_certificates_without_a_key_are_281(self):
        store = loaded(pems(ANN, ROOT))
        with pytest.raises(ClientCertificateMissing, match="no private key") as caught:
            store.identity()
        assert caught.value.code == 281
        with pytest.raises(ClientCertificateMissing, match="no private key for .*CN=ann"):
            store.identity_for(ANN)

    def test_a_key_of_somebody_else_is_273(self):
        store = loaded(pems(ANN) + key_pem(BOB_KEY))
        for call in (store.identity, lambda: store.identity_for(ANN)):
            with pytest.raises(ClientIdentityError, match="belongs to") as caught:
                call()
            assert caught.value.code == 273

    def test_the_check_can_be_left_out(self):
        store = loaded(pems(ANN) + key_pem(BOB_KEY))
        assert store.identity_for(ANN, check_key=False).certificate == ANN
        assert loaded(BOTH).identity(check_key=False).certificate == ANN

    def test_what_is_no_certificate(self):
        with pytest.raises(CertificateStoreError):
            loaded(BOTH).identity_for("hello")

    def test_a_store_shows_no_key(self):
        assert repr(loaded(BOTH)) == "<CertificateStore certificates=3 keys=1>"

    def test_certificates_come_once(self):
        assert loaded(pems(ANN, ANN, ROOT)).certificates == (ANN, ROOT)

    def test_stores_can_be_made_from_parts(self):
        store = CertificateStore([ANN, MIDDLE], [ANN_KEY])
        assert store.identity().chain == (MIDDLE,)
        assert isinstance(store.certificates[0], Certificate)


def test_the_paths_of_tests_are_files() -> None:
    assert all(os.path.isfile(one) for one in FILES.iterdir())
