"""cms_signature.py: what is signed, the container around it, and what is made of a container from elsewhere."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.errors import InvalidArgument, SigningError
from smtp_async.message.cms_signature import (
    certificate_attribute,
    hash_for,
    received,
    signed_attributes,
    signed_data,
)
from smtp_async.message.mail_certificate import MailCertificate
from smtp_async.message.sign import KeySigner, verifies
from smtp_async.model.signing import HashAlgorithm, KeyAlgorithm, ToSign

from .smime_lab import NOW, authority, issued, openssl, person

CONTENT = b"Content-Type: text/plain\r\n\r\nHello\r\n"
KINDS: list[tuple[str, HashAlgorithm]] = [
    ("rsa", "sha256"),
    ("rsa", "sha384"),
    ("rsa", "sha512"),
    ("p256", "sha256"),
    ("p384", "sha384"),
    ("p521", "sha512"),
    ("ed25519", "sha512"),
]


def certificate(kind: str) -> MailCertificate:
    return MailCertificate(person(kind).certificate)


def container(
    kind: str = "p256",
    hash_algorithm: HashAlgorithm = "sha256",
    *,
    within: bool = False,
    content: bytes = CONTENT,
    others: Sequence[MailCertificate] = (),
) -> bytes:
    """A container that was signed with a key in this process."""
    signer, by = KeySigner(person(kind).key), certificate(kind)
    digest = hashlib.new(hash_algorithm, content).digest()
    attributes = signed_attributes(digest, NOW, certificate_attribute(by, hash_algorithm))
    signature = signer.sign(ToSign(signer, attributes, hash_algorithm))
    every = [by, *others]
    return signed_data(
        attributes, signature, signer.key_algorithm, hash_algorithm, every, content if within else None
    )


def verified(directory: Path, data: bytes) -> None:
    """Have OpenSSL verify a container about CONTENT, which is in it, or beside it."""
    (directory / "ca.pem").write_bytes(authority().pem)
    (directory / "in.der").write_bytes(data)
    (directory / "content").write_bytes(CONTENT)
    words = "-verify -binary -purpose smimesign -CAfile ca.pem -inform DER -in in.der -out out"
    inside = cms.ContentInfo.load(data)["content"]["encap_content_info"]["content"].native is not None
    openssl(directory, words if inside else f"{words} -content content")
    assert (directory / "out").read_bytes() == CONTENT


# --- hashes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "kind", "wanted", "found"),
    [
        ("rsa", "rsa", None, "sha256"),
        ("rsa", None, "sha512", "sha512"),
        ("ec", "p256", None, "sha256"),
        ("ec", "p384", None, "sha384"),
        ("ec", "p521", None, "sha512"),
        ("ec", "p384", "sha256", "sha256"),
        ("ec", None, None, "sha256"),
        ("ed25519", "ed25519", None, "sha512"),
        ("ed25519", "ed25519", "sha512", "sha512"),
    ],
)
def test_the_hash(
    algorithm: KeyAlgorithm, kind: str | None, wanted: HashAlgorithm | None, found: str
) -> None:
    key = None if kind is None else person(kind).certificate.public_key()
    assert hash_for(algorithm, key, wanted) == found


def test_a_hash_that_ed25519_does_not_sign() -> None:
    with pytest.raises(InvalidArgument, match="sha512 .RFC 8419., not with sha256"):
        hash_for("ed25519", None, "sha256")


# --- what this library makes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize(("kind", "hash_algorithm"), KINDS[:-1])
def test_openssl_verifies(kind: str, hash_algorithm: HashAlgorithm, within: bool, tmp_path: Path) -> None:
    verified(tmp_path, container(kind, hash_algorithm, within=within))


@pytest.mark.parametrize(("kind", "hash_algorithm"), KINDS)
def test_the_attributes_are_what_is_signed(kind: str, hash_algorithm: HashAlgorithm) -> None:
    """Ed25519 is read here, because OpenSSL 3.0 does not verify it in CMS."""
    (info,) = cms.ContentInfo.load(container(kind, hash_algorithm))["content"]["signer_infos"]
    attributes = {one["type"].dotted: one["values"] for one in info["signed_attrs"]}
    by = certificate(kind)
    assert attributes["1.2.840.113549.1.9.3"].native == ["data"]
    assert attributes["1.2.840.113549.1.9.4"].native == [hashlib.new(hash_algorithm, CONTENT).digest()]
    assert attributes["1.2.840.113549.1.9.5"].native == [datetime.fromtimestamp(int(NOW), UTC)]
    (named,) = attributes["1.2.840.113549.1.9.16.2.47"].native
    assert named["certs"][0]["cert_hash"] == hashlib.new(hash_algorithm, by.der).digest()
    wanted = ToSign(KeySigner(person(kind).key), info["signed_attrs"].untag().dump(), hash_algorithm)
    assert verifies(by.public_key, info["signature"].native, wanted)
    assert info["sid"].chosen["serial_number"].native == by.x509.serial_number


@pytest.mark.parametrize(("year", "form"), [(2049, "utc_time"), (2050, "generalized_time")])
def test_the_time_has_two_digits_of_the_year_until_2050(year: int, form: str) -> None:
    now = datetime(year, 12, 31, tzinfo=UTC)
    attributes = cms.CMSAttributes.load(signed_attributes(b"", now.timestamp(), _attribute()))
    (time,) = [one["values"][0] for one in attributes if one["type"].native == "signing_time"]
    assert (time.name, time.native) == (form, now)


def _attribute() -> bytes:
    return certificate_attribute(certificate("p256"), "sha256")


def test_a_chain_goes_along(tmp_path: Path) -> None:
    data = container(others=[MailCertificate(authority().certificate)])
    assert len(cms.ContentInfo.load(data)["content"]["certificates"]) == 2
    verified(tmp_path, data)


# --- what comes from elsewhere -------------------------------------------------------------------------------------


def check(data: bytes, *, within: bool = False, by: str | None = None, content: bytes = CONTENT) -> Any:
    signer = KeySigner(person("p256").key)
    known = None if by is None else certificate(by)
    return received(data, content, within=within, certificate=known, signer=signer)


@pytest.mark.parametrize("given_within", [False, True])
@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_a_container_is_taken_with_its_content_and_without(
    kind: str, within: bool, given_within: bool, tmp_path: Path
) -> None:
    found = check(container(kind, within=given_within), within=within, by=kind)
    assert (found.hash_algorithm, found.certificate.der) == ("sha256", certificate(kind).der)
    assert found.container == container(kind, within=within) or kind == "p256"
    verified(tmp_path, found.container)


@pytest.mark.parametrize("options", ["", " -keyid", " -noattr", " -nosmimecap", " -md sha512"])
@pytest.mark.parametrize("within", [False, True])
def test_a_container_of_openssl(options: str, within: bool, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(CONTENT)
    (tmp_path / "ann.pem").write_bytes(person("rsa").pem)
    (tmp_path / "ann.key").write_bytes(person("rsa").key_pem)
    words = "-sign -binary -outform DER -in data -signer ann.pem -inkey ann.key -out answer"
    openssl(tmp_path, words + options)
    found = check((tmp_path / "answer").read_bytes(), within=within)
    assert found.hash_algorithm == ("sha512" if "sha512" in options else "sha256")
    verified(tmp_path, found.container)


def test_a_container_of_another_type(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(CONTENT)
    (tmp_path / "ann.pem").write_bytes(person("rsa").pem)
    (tmp_path / "ann.key").write_bytes(person("rsa").key_pem)
    words = "-sign -binary -noattr -outform DER -in data -signer ann.pem -inkey ann.key -out answer"
    openssl(tmp_path, f"{words} -econtent_type 1.2.840.113549.1.9.16.1.4")
    with pytest.raises(SigningError, match="not about the data of a message"):
        check((tmp_path / "answer").read_bytes())


def changed(data: bytes, change: Any) -> bytes:
    """Return a container that was changed."""
    outer = cms.ContentInfo.load(data)
    change(outer["content"])
    return bytes(outer.dump())


def _without_certificates(inner: Any) -> None:
    inner["certificates"] = []


def _without_signatures(inner: Any) -> None:
    inner["signer_infos"] = []


def _with_sha1(inner: Any) -> None:
    inner["signer_infos"][0]["digest_algorithm"] = {"algorithm": "sha1"}


def _with_pss(inner: Any) -> None:
    inner["signer_infos"][0]["signature_algorithm"] = {"algorithm": "rsassa_pss"}


def _with_another_signature(inner: Any) -> None:
    inner["signer_infos"][0]["signature"] = b"x" * 64


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_without_certificates, "has not the signer's certificate"),
        (_without_signatures, "has 0 signatures"),
        (_with_sha1, "hashes with sha1"),
        (_with_pss, "signature of another kind: rsassa_pss"),
        (_with_another_signature, "does not verify"),
    ],
)
def test_a_container_that_does_not_do(change: Any, complaint: str) -> None:
    with pytest.raises(SigningError, match=complaint):
        check(changed(container(), change))


def test_one_about_something_else() -> None:
    with pytest.raises(SigningError, match="not about this message"):
        check(container(content=b"other"))


def test_one_by_somebody_else() -> None:
    with pytest.raises(SigningError, match="by CN=Ann p256, not by CN=Ann rsa"):
        check(container(), by="rsa")


def test_one_by_a_certificate_that_does_not_sign_mail() -> None:
    other = issued("p384", usage=["key_agreement"])
    signer, by = KeySigner(other.key), MailCertificate(other.certificate)
    digest = hashlib.sha384(CONTENT).digest()
    attributes = signed_attributes(digest, NOW, certificate_attribute(by, "sha384"))
    signature = signer.sign(ToSign(signer, attributes, "sha384"))
    with pytest.raises(SigningError, match="not issued to sign mail"):
        check(signed_data(attributes, signature, "ec", "sha384", [by], None))


def test_another_container() -> None:
    with pytest.raises(SigningError, match="returned data instead of a SignedData"):
        check(cms.ContentInfo({"content_type": "data", "content": b"x"}).dump())


@given(st.binary(max_size=200))
def test_any_octets(data: bytes) -> None:
    with pytest.raises(SigningError):
        check(data)


@given(st.integers(0), st.integers(0, 255))
def test_a_damaged_container(place: int, octet: int) -> None:
    """It is refused, or damaged where no signature covers it."""
    data = bytearray(container())
    data[place % len(data)] = octet
    try:
        assert check(bytes(data)).hash_algorithm == "sha256"
    except SigningError:
        pass


@given(st.integers(0))
def test_a_container_that_was_cut(end: int) -> None:
    data = container()
    with pytest.raises(SigningError):
        check(data[: end % len(data)])
