"""What a certificate says, and that nothing that a stranger sends can break the reading of it."""

import base64
import copy
import datetime
import hashlib
import pickle
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import CertificateStoreError
from smtp_async.tls.certificate import Certificate, KeyUsage
from tests.tls.certificates import DAY, NOW, der
from tests.transport.lab import CA

LEAF = CA.issue_cert("mail.example.com", "*.example.org", "192.0.2.1", "2001:db8::1", common_name="mail")
LEAF_DER = der(LEAF)[0]
ROOT = Certificate.load(CA.cert_pem.bytes())
RSA_KEY = rsa.generate_private_key(65537, 2048)
NAME = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example, Inc."),
        x509.NameAttribute(NameOID.COMMON_NAME, "Ann"),
    ]
)


def signed(key, *extensions, name=NAME, issuer=None, by=None, algorithm=None, **options):
    """Return a certificate for `key`, by itself or by the key `by`."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signer = by or key
    edwards = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    made = builder.sign(signer, None if edwards else algorithm or hashes.SHA256(), **options)
    return Certificate(made.public_bytes(serialization.Encoding.DER))


def public_der(key):
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def usage(**said):
    names = [
        *(
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
        ),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ]
    return x509.KeyUsage(**{name: said.get(name, False) for name in names})


class TestWhatItSays:
    def test_who_it_is_for(self):
        leaf = Certificate(LEAF_DER)
        assert leaf.names == ("mail.example.com", "*.example.org", "192.0.2.1", "2001:db8::1")
        assert "CN=mail" in leaf.subject
        assert leaf.common_name == "mail"
        assert leaf.issuer == ROOT.subject
        # An authority without a common name is called by its organisation.
        assert "trustme" in leaf.issuer_common_name
        assert ("2.5.4.3", "mail") in leaf.subject_rdn
        assert leaf.issuer_rdn == ROOT.subject_rdn

    @pytest.mark.parametrize(
        ("attribute", "said"),
        [
            ("subject", lambda one: one.subject.rfc4514_string()),
            ("common_name", lambda one: one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value),
            ("issuer", lambda one: one.issuer.rfc4514_string()),
            ("issuer_common_name", lambda one: "An Authority"),
            ("issuer_rdn", lambda one: tuple((field.oid.dotted_string, field.value) for field in one.issuer)),
            ("serial_number", lambda one: 7),
            ("not_before", lambda one: (NOW - DAY).replace(microsecond=0)),
            ("not_after", lambda one: (NOW + DAY).replace(microsecond=0)),
            ("sha256", lambda one: one.fingerprint(hashes.SHA256()).hex()),
            ("public_key_der", lambda one: public_der(one.public_key())),
            ("public_key_sha256", lambda one: hashlib.sha256(public_der(one.public_key())).hexdigest()),
            ("subject_key_id", lambda one: b"subject"),
            ("authority_key_id", lambda one: b"issuer"),
        ],
    )
    def test_each_attribute(self, attribute, said):
        names = [(NameOID.COUNTRY_NAME, "DE"), (NameOID.COMMON_NAME, "An Authority")]
        one = signed(
            RSA_KEY,
            x509.SubjectKeyIdentifier(b"subject"),
            x509.AuthorityKeyIdentifier(b"issuer", None, None),
            issuer=x509.Name([x509.NameAttribute(*name) for name in names]),
        )
        assert getattr(one, attribute) == said(one.x509)

    def test_the_order_of_a_name_is_that_of_the_certificate(self):
        certificate = signed(RSA_KEY)
        assert certificate.subject_rdn == (
            ("2.5.4.6", "DE"),
            ("2.5.4.10", "Example, Inc."),
            ("2.5.4.3", "Ann"),
        )
        assert certificate.subject == r"CN=Ann,O=Example\, Inc.,C=DE"
        assert signed(RSA_KEY, name=x509.Name([])).common_name == ""

    def test_when_and_by_which_number(self):
        leaf = Certificate(LEAF_DER)
        assert leaf.not_before < NOW < leaf.not_after
        assert leaf.not_after.tzinfo is datetime.UTC
        assert leaf.serial_number == x509.load_der_x509_certificate(LEAF_DER).serial_number

    def test_its_fingerprints(self):
        leaf = Certificate(LEAF_DER)
        assert leaf.sha256 == hashlib.sha256(LEAF_DER).hexdigest()
        assert leaf.sha1 == hashlib.sha1(LEAF_DER).hexdigest()
        spki = leaf.x509.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        assert leaf.public_key_der == spki
        assert leaf.public_key_sha256 == hashlib.sha256(spki).hexdigest()

    @pytest.mark.parametrize(
        ("key", "said"),
        [
            (RSA_KEY, ("RSA", 2048, None, "RSA_WITH_SHA256")),
            (ec.generate_private_key(ec.SECP256R1()), ("EC", 256, "secp256r1", "ECDSA_WITH_SHA256")),
            (ec.generate_private_key(ec.SECP384R1()), ("EC", 384, "secp384r1", "ECDSA_WITH_SHA256")),
            (ed25519.Ed25519PrivateKey.generate(), ("Ed25519", 255, "Ed25519", "ED25519")),
            (ed448.Ed448PrivateKey.generate(), ("Ed448", 448, "Ed448", "ED448")),
            (dsa.generate_private_key(1024), ("DSA", 1024, None, "DSA_WITH_SHA256")),
        ],
        ids=lambda value: value[0] if isinstance(value, tuple) else "",
    )
    def test_its_key_and_signature(self, key, said):
        one = signed(key)
        assert (one.key_algorithm, one.key_bits, one.curve, one.signature_algorithm) == said
        assert one.public_key_der == key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        assert one.self_signed

    def test_a_signature_with_pss(self):
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
        assert signed(RSA_KEY, rsa_padding=pss).signature_algorithm == "RSASSA_PSS"

    def test_a_key_that_nobody_knows(self):
        # The OID of RSA, 1.2.840.113549.1.1.1, becomes .99 in the key, not in the signature.
        oid = bytes.fromhex("06092a864886f70d0101")
        blob = signed(RSA_KEY).der
        assert blob.count(oid + b"\x01") == 1
        strange = Certificate(blob.replace(oid + b"\x01", oid + b"\x63"))
        assert (strange.key_algorithm, strange.key_bits, strange.curve) == (
            "1.2.840.113549.1.1.99",
            None,
            None,
        )
        assert strange.public_key_der
        assert not strange.self_signed

    def test_what_it_may_be_used_for(self):
        eku = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, x509.ObjectIdentifier("1.2.3.4")])
        one = signed(RSA_KEY, usage(digital_signature=True, key_agreement=True, decipher_only=True), eku)
        assert one.key_usage == KeyUsage.DIGITAL_SIGNATURE | KeyUsage.KEY_AGREEMENT | KeyUsage.DECIPHER_ONLY
        assert one.extended_key_usage == ("CLIENT_AUTH", "1.2.3.4")
        assert signed(RSA_KEY, usage(key_cert_sign=True, crl_sign=True)).key_usage == 32 + 64

    def test_a_certificate_that_says_little(self):
        one = signed(RSA_KEY)
        assert (one.key_usage, one.extended_key_usage, one.names, one.email_addresses) == (0, (), (), ())
        assert (one.subject_key_id, one.authority_key_id, one.is_authority) == (b"", b"", False)

    def test_key_identifiers(self):
        assert Certificate(LEAF_DER).authority_key_id == ROOT.subject_key_id != b""
        without = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(NAME)], 7)
        assert signed(RSA_KEY, without).authority_key_id == b""

    def test_mail_addresses_are_no_host_names(self):
        one = signed(RSA_KEY, x509.SubjectAlternativeName([x509.RFC822Name("ann@example.com")]))
        assert (one.names, one.email_addresses) == ((), ("ann@example.com",))


class TestWhoVouches:
    def test_an_authority_signed_itself(self):
        assert ROOT.self_signed
        assert ROOT.self_issued
        assert ROOT.is_authority
        assert ROOT.names == ()

    def test_a_leaf_did_not(self):
        leaf = Certificate(LEAF_DER)
        assert not leaf.self_signed
        assert not leaf.self_issued
        assert leaf.issued_by(ROOT)
        assert not ROOT.issued_by(leaf)

    def test_who_only_uses_the_name_of_its_issuer_is_found_out(self):
        forged = signed(RSA_KEY, by=ec.generate_private_key(ec.SECP256R1()))
        assert forged.self_issued
        assert not forged.self_signed


def test_names_and_extensions_as_they_stand_there():
    leaf = Certificate(LEAF_DER)
    assert leaf.issuer_der == ROOT.subject_der == ROOT.issuer_der == ROOT.x509.subject.public_bytes()
    assert x509.DNSName("mail.example.com") in list(leaf.extension(x509.SubjectAlternativeName))
    assert leaf.extension(x509.NameConstraints) is None
    assert ROOT.extension(x509.BasicConstraints).ca is True


class TestLoading:
    @pytest.mark.parametrize(
        "data",
        [
            LEAF_DER,
            bytearray(LEAF_DER),
            ssl.DER_cert_to_PEM_cert(LEAF_DER),
            ssl.DER_cert_to_PEM_cert(LEAF_DER).encode(),
            "subject=CN = mail\n" + ssl.DER_cert_to_PEM_cert(LEAF_DER).replace("\n", "\r\n"),
            base64.b64encode(LEAF_DER),
            base64.encodebytes(LEAF_DER).decode(),
        ],
    )
    def test_every_form_is_recognised(self, data):
        assert Certificate.load(data) == Certificate(LEAF_DER)

    def test_it_writes_what_it_reads(self):
        assert Certificate.load(Certificate(LEAF_DER).pem).der == LEAF_DER

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "no certificate"),
            ("", "no certificate"),
            ("grüße", "neither PEM, nor DER, nor base64"),
            (b"\xff\x00", "no certificate"),
            (b"AAAA", "no certificate"),
            (LEAF_DER[:-1], "no certificate"),
            (LEAF_DER + b"\x00", "no certificate"),
            (b"\x30" * (10 << 20), "262144 at most"),
            (ssl.DER_cert_to_PEM_cert(LEAF_DER) * 2, "more than one"),
            (ssl.DER_cert_to_PEM_cert(b"hello"), "no certificate"),
        ],
    )
    def test_anything_else_is_271(self, data, words):
        with pytest.raises(CertificateStoreError, match=words) as caught:
            Certificate.load(data)
        assert caught.value.code == 271

    def test_it_is_a_value(self):
        one = Certificate(LEAF_DER)
        assert pickle.loads(pickle.dumps(one)) == copy.copy(one) == copy.deepcopy(one) == one
        assert len({one, Certificate(LEAF_DER), ROOT}) == 2
        assert one.sha256[:16] in repr(one)
        with pytest.raises(AttributeError):
            one.der = b""  # type: ignore[misc]  # that is the point


class TestStrangers:
    @given(st.binary(max_size=300))
    def test_anything(self, data):
        assert Certificate.of(data) is None

    @given(st.data())
    def test_a_damaged_one_says_something_or_cannot_be_read(self, data):
        blob = bytearray(LEAF_DER)
        blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
        one = Certificate.of(bytes(blob))
        if one is None:
            return
        for name, value in vars(Certificate).items():
            if not name.startswith("_") and not callable(value) and not isinstance(value, classmethod):
                getattr(one, name)
        assert all(map(str.isprintable, (one.subject, one.issuer, one.common_name, *one.names)))
        assert isinstance(repr(one), str)

    def test_names_cannot_forge_a_log_line(self):
        leaf = Certificate(der(CA.issue_cert("localhost", common_name="a\r\n\x1b[2J\u202e"))[0])
        assert leaf.subject.isprintable()
        assert "\u202e" not in leaf.subject
        assert leaf.common_name.isprintable()
