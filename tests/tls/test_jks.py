"""Java key stores, those that keytool wrote and those that nobody would."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import CertificateStoreError, SMTPError
from smtp_async.tls.stores import CertificateStore
from tests.tls.identities import ANN, BOB, FILES, MIDDLE, PASSWORD, jks, key

STORES = ["two.jks", "two.jceks"]


def loaded(source, password=PASSWORD):
    return CertificateStore.load(source, password)


def sealed(body, password=PASSWORD):
    """Return a store with the digest that belongs to it."""
    return body + hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()


def entry(kind, *, alias=b"it", rest=b""):
    return kind.to_bytes(4) + len(alias).to_bytes(2) + alias + bytes(8) + rest


def of(*entries, version=2, magic=b"\xfe\xed\xfe\xed"):
    return sealed(magic + version.to_bytes(4) + len(entries).to_bytes(4) + b"".join(entries))


def certificate(der=ANN.der, *, named=True):
    return (b"\x00\x05X.509" if named else b"") + len(der).to_bytes(4) + der


def tlv(tag, *content):
    """Return a value in DER."""
    inside = b"".join(content)
    return bytes([tag, len(inside)]) + inside


@pytest.mark.parametrize("name", STORES)
class TestOfJava:
    def test_its_identities(self, name):
        store = loaded(FILES / name)
        assert sorted(one.common_name for one in store.certificates) == ["ann", "bob", "bob"]
        ann = store.identity_for(store.find("CN=ann"))
        assert (ann.certificate.key_algorithm, ann.certificate.email_addresses) == (
            "EC",
            ("ann@example.com",),
        )
        bobs = [one for one in store.certificates if one.common_name == "bob"]
        # One came with its key, the other is only trusted.
        assert sum(one.public_key_der in store.public_keys for one in bobs) == 1

    def test_a_wrong_password(self, name):
        with pytest.raises(CertificateStoreError, match="password is wrong"):
            loaded(FILES / name, "guess")

    def test_no_password(self, name):
        with pytest.raises(CertificateStoreError, match="needs a password"):
            loaded(FILES / name, None)

    def test_damage_is_found(self, name):
        blob = bytearray((FILES / name).read_bytes())
        blob[len(blob) // 2] ^= 1
        with pytest.raises(CertificateStoreError, match="or the Java key store is damaged"):
            loaded(bytes(blob))


class TestOthers:
    def test_an_identity_with_its_chain(self):
        identity = loaded(jks(key("rsa", 1), BOB, MIDDLE)).identity()
        assert (identity.certificate, identity.chain) == (BOB, (MIDDLE,))

    @pytest.mark.parametrize("password", [PASSWORD, None, ""])
    def test_trusted_certificates_need_no_password(self, password):
        (bob,) = loaded(FILES / "trusted.jks", password).certificates
        assert bob.common_name == "bob"

    def test_a_key_with_a_password_of_its_own(self):
        with pytest.raises(CertificateStoreError, match="another password than the store"):
            loaded(FILES / "other-key.jks")

    def test_a_symmetric_key(self):
        with pytest.raises(CertificateStoreError, match="symmetric key"):
            loaded(FILES / "secret.jceks")

    def test_the_first_version_does_not_name_the_kind_of_a_certificate(self):
        assert loaded(of(entry(2, rest=certificate(named=False)), version=1)).certificates == (ANN,)

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (of(), "neither a certificate nor a key"),
            (of(version=3), "version 3"),
            (of(entry(9)), "symmetric"),
            (of(entry(2, rest=certificate(b"x"))), "no certificate"),
            (of(entry(2, rest=certificate()[:-9])), "cut off"),
            (of(entry(1, rest=b"\xff\xff\xff\xff")), "cut off"),
            (of(entry(1, rest=(2).to_bytes(4) + b"\x30\x00")), "damaged"),
            (b"\xfe\xed\xfe\xed", "password is wrong"),
        ],
    )
    def test_a_bad_one(self, data, words):
        with pytest.raises(CertificateStoreError, match=words) as caught:
            loaded(data)
        assert caught.value.code == 271

    @pytest.mark.parametrize(
        ("algorithm", "parameters", "words"),
        [
            ("2a03", tlv(0x05), "in a way that is not known"),
            (
                "2b060104012a021301",
                tlv(0x30, tlv(0x04, bytes(8)), tlv(0x02, b"\x7f" * 4)),
                "wants 2139062143 iterations",
            ),
            ("2b060104012a021301", tlv(0x30, tlv(0x04, bytes(3)), tlv(0x02, b"\x01")), "damaged"),
            (
                "2b060104012a021301",
                tlv(0x30, tlv(0x04, bytes(8)), tlv(0x02, b"\x02")),
                "another password than the store",
            ),
            ("2b060104012a02110101", tlv(0x05), "another password than the store"),
        ],
    )
    def test_a_key_that_is_encrypted_badly(self, algorithm, parameters, words):
        method = tlv(0x30, tlv(0x06, bytes.fromhex(algorithm)), parameters)
        info = tlv(0x30, method, tlv(0x04, b"12345678"))
        with pytest.raises(CertificateStoreError, match=words):
            loaded(of(entry(1, rest=len(info).to_bytes(4) + info)))

    def test_a_password_that_java_would_not_take_either(self):
        salt = tlv(0x30, tlv(0x04, bytes(8)), tlv(0x02, b"\x01"))
        info = tlv(
            0x30, tlv(0x30, tlv(0x06, bytes.fromhex("2b060104012a021301")), salt), tlv(0x04, b"12345678")
        )
        body = of(entry(1, rest=len(info).to_bytes(4) + info))[:-20]
        with pytest.raises(CertificateStoreError, match="ASCII") as caught:
            loaded(sealed(body, "grün"), "grün")
        assert "ü" not in str(caught.value)

    @given(st.binary(max_size=200))
    def test_anything(self, data):
        self.never_anything_else(sealed(b"\xfe\xed\xfe\xed" + data))

    @given(st.data())
    def test_damage_that_the_digest_does_not_show(self, data):
        name = data.draw(st.sampled_from(["two.jks", "trusted.jks"]))
        blob = bytearray((FILES / name).read_bytes()[:-20])
        blob[data.draw(st.integers(4, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
        self.never_anything_else(sealed(bytes(blob)))

    @staticmethod
    def never_anything_else(data):
        for password in (PASSWORD, None):
            try:
                loaded(data, password)
            except SMTPError as error:
                assert error.code == 271
