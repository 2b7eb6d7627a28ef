"""mail_certificate.py: what a certificate permits, and whose it is."""

import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import Certificate
from smtp_async.errors import InvalidArgument, SigningError
from smtp_async.message.mail_certificate import MailCertificate, certificates_of
from smtp_async.model.address import Address
from tests.servers.machine import program

from .smime_lab import NOW, authority, issued, person

DAY = 86_400.0


def certificate(kind: str = "p256", **details: Any) -> MailCertificate:
    return MailCertificate(issued(kind, **details).certificate)


class TestReading:
    def test_every_form_of_it(self) -> None:
        given_one = person("p256").certificate
        der = given_one.public_bytes(Encoding.DER)
        for form in (given_one, Certificate(der), der, bytearray(der), person("p256").pem):
            assert MailCertificate(form).der == der

    @pytest.mark.parametrize(
        "form", ["ann.pem", None, 5, b"", b"-----BEGIN CERTIFICATE-----", b"0\x03\x02\x01\x00"]
    )
    def test_what_is_none(self, form: Any) -> None:
        with pytest.raises(InvalidArgument, match="certificate"):
            MailCertificate(form)

    @given(st.binary(max_size=300))
    def test_any_octets(self, data: bytes) -> None:
        with pytest.raises(InvalidArgument):
            MailCertificate(data)

    @given(st.integers(0), st.integers(0, 255))
    def test_a_damaged_one(self, place: int, octet: int) -> None:
        data = bytearray(person("p256").certificate.public_bytes(Encoding.DER))
        data[place % len(data)] = octet
        try:
            assert MailCertificate(bytes(data)).der
        except InvalidArgument:
            pass

    def test_several(self) -> None:
        ann, ca = person("p256"), authority()
        expected = tuple(one.certificate.public_bytes(Encoding.DER) for one in (ann, ca))
        for form in ([ann.certificate, ca.pem], (ann.pem, ca.certificate), ann.pem + ca.pem):
            assert tuple(one.der for one in certificates_of("chain", form)) == expected
        assert certificates_of("chain", ()) == ()

    @pytest.mark.parametrize("form", ["ca.pem", person("p256").pem, person("p256").certificate, None])
    def test_what_is_no_sequence(self, form: Any) -> None:
        with pytest.raises(InvalidArgument, match="chain is a sequence of certificates"):
            certificates_of("chain", form)


class TestUse:
    @pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521"])
    @pytest.mark.parametrize("use", ["sign", "encrypt"])
    def test_kinds_of_keys(self, kind: str, use: Any) -> None:
        one = MailCertificate(person(kind).certificate)
        assert one.permitting(use) is one

    def test_ed25519_signs_only(self) -> None:
        one = MailCertificate(person("ed25519").certificate)
        one.permitting("sign")
        with pytest.raises(InvalidArgument, match="mail is not encrypted with a key of this kind"):
            one.permitting("encrypt")

    def test_a_short_key(self) -> None:
        with pytest.raises(InvalidArgument, match="2048 bits or more, not 1024"):
            certificate("rsa1024").permitting("sign")

    def test_a_curve_that_mail_does_not_use(self) -> None:
        with pytest.raises(InvalidArgument, match="curve secp256k1"):
            certificate("k1").permitting("sign")

    def test_a_key_that_is_for_pss_alone(self, tmp_path: Path) -> None:
        words = "req -x509 -newkey rsa-pss -noenc -keyout key.pem -subj /CN=Ann -outform DER -out ann.der"
        subprocess.run(
            [program("openssl"), *words.split()], cwd=tmp_path, check=True, capture_output=True, timeout=15
        )
        one = MailCertificate((tmp_path / "ann.der").read_bytes())
        with pytest.raises(InvalidArgument, match="key of this kind: CN=Ann"):
            one.permitting("sign")

    @pytest.mark.parametrize(
        ("kind", "usage", "use", "permitted"),
        [
            ("rsa", ["digital_signature"], "sign", True),
            ("rsa", ["content_commitment"], "sign", True),
            ("rsa", ["key_encipherment"], "sign", False),
            ("rsa", ["digital_signature"], "encrypt", False),
            ("rsa", ["key_encipherment"], "encrypt", True),
            ("rsa", ["key_agreement"], "encrypt", False),
            ("p256", ["key_agreement"], "encrypt", True),
            ("p256", ["key_encipherment"], "encrypt", False),
            ("p256", None, "encrypt", True),
            ("p256", None, "sign", True),
        ],
    )
    def test_usage(self, kind: str, usage: Any, use: Any, permitted: bool) -> None:
        one = certificate(kind, usage=usage)
        if permitted:
            one.permitting(use)
            return
        with pytest.raises(InvalidArgument, match=f"not issued to {use} mail"):
            one.permitting(use)

    @pytest.mark.parametrize(
        ("purposes", "permitted"),
        [
            (None, True),
            ([ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.CLIENT_AUTH], True),
            ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], True),
            ([ExtendedKeyUsageOID.SERVER_AUTH], False),
        ],
    )
    def test_purposes(self, purposes: Any, permitted: bool) -> None:
        one = certificate(purposes=purposes)
        if permitted:
            one.permitting("sign")
            return
        with pytest.raises(InvalidArgument, match="not issued to sign mail"):
            one.permitting("sign")


class TestTime:
    def test_while_it_is_valid(self) -> None:
        certificate().check_time(NOW)

    def test_afterwards(self) -> None:
        with pytest.raises(SigningError, match=r"expired on \d{4}-\d\d-\d\d: CN=Ann p256"):
            certificate().check_time(NOW + 11 * DAY)
        with pytest.raises(SigningError, match="expired"):
            certificate(valid=(timedelta(-9), timedelta(-8))).check_time(NOW)

    def test_before(self) -> None:
        with pytest.raises(SigningError, match="not valid before"):
            certificate().check_time(NOW - 2 * DAY)


class TestAuthors:
    @pytest.mark.parametrize("author", ["ann@example.com", "Ann@EXAMPLE.com", "Ann Q. <ann@example.com>"])
    def test_who_is_in_it(self, author: str) -> None:
        certificate().check_author([Address.parse("eve@example.com"), Address.parse(author)])

    @pytest.mark.parametrize("authors", [["eve@example.com"], []])
    def test_who_is_not(self, authors: list[str]) -> None:
        expected = "for ann@example.com, and the message is from " + (authors[0] if authors else "nobody")
        with pytest.raises(SigningError, match=re.escape(expected)):
            certificate().check_author([Address.parse(one) for one in authors])

    def test_one_without_addresses_is_for_everybody(self) -> None:
        certificate(emails=()).check_author([Address.parse("eve@example.com")])

    def test_an_address_in_the_subject(self) -> None:
        subject = x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, "ann@example.org")])
        assert certificate(subject=subject).emails == {"ann@example.com", "ann@example.org"}

    @pytest.mark.parametrize(
        ("der", "found"),
        [
            (b"\x0c\x11" + "jörg@example.org".encode(), {"jörg@example.org"}),
            (b"\x16\x0fann@example.org", set()),
        ],
    )
    def test_an_address_in_utf8(self, der: bytes, found: set[str]) -> None:
        name = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), der)
        other = x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x0c\x11" + b"kurt@example.org\0")
        assert certificate(emails=(), names=[name, other]).emails == found

    def test_what_is_no_address_is_left_out(self) -> None:
        assert certificate(emails=["ann@example.com", "no address"]).emails == {"ann@example.com"}


def test_its_name_cannot_break_a_log() -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ann\x1b[2J\nEve")])
    assert "\x1b" not in repr(certificate(subject=subject)) and "\n" not in certificate(subject=subject).name
