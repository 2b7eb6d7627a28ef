"""smime.py: OpenSSL verifies and decrypts the corpus; what cannot be signed or encrypted is refused, and why."""

import base64
import hashlib
import re
import subprocess
import sys
from email import message_from_bytes, policy
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import ExternalSigner, SMIMEEncryption, SMIMESignature
from smtp_async.errors import FeatureUnavailable, InvalidArgument, SigningError, SMTPError
from smtp_async.message.cms_signature import certificate_attribute, signed_attributes, signed_data
from smtp_async.message.foreign_mail import mail_of_bytes
from smtp_async.message.mail_certificate import MailCertificate
from smtp_async.message.sign import KeySigner
from smtp_async.model.signing import Rewritten, SignRequest, ToSign
from tests.lab import sampled

from .corpus import HARD, Letter, generated
from .smime_lab import NOW, applied, authority, decrypted, inner_of, issued, openssl, person, verified

MESSAGE = (
    b"Received: from elsewhere\r\nFrom: Ann <ann@example.com>\r\nTo: bob@example.org\r\nSubject: Hello\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/plain;\r\n charset=us-ascii\r\nContent-Language: en\r\n\r\n"
    b"Hello  there \r\n.\r\nFrom here\r\n\r\n\r\n"
)
ODD_MAIL = sorted(Path(__file__).with_name("odd").glob("*.eml"))
CORPUS = [*HARD, *[generated(number) for number in range(12)]]


def shown(value: Any) -> str | None:
    """Call a letter by its name in the name of a test."""
    return value.name if isinstance(value, Letter) else None


def signature(kind: str = "rsa", **options: Any) -> SMIMESignature:
    return SMIMESignature(person(kind).certificate, person(kind).key, check_author=False, **options)


def encryption(kinds: str = "rsa p256", **options: Any) -> SMIMEEncryption:
    return SMIMEEncryption([person(kind).certificate for kind in kinds.split()], **options)


def fields_of(data: bytes) -> list[bytes]:
    """The fields of a header that are not about the content."""
    found: list[bytes] = []
    for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            found[-1] += b"\r\n" + line
        else:
            found.append(line)
    return [one for one in found if not re.match(rb"(?i)content-|mime-version:", one)]


# --- the corpus ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("letter", "detached"), sampled(product(CORPUS, (True, False)), 3), ids=shown)
def test_openssl_verifies_the_corpus(letter: Letter, detached: bool, tmp_path: Path) -> None:
    data = letter.message().content(utf8=True).join()
    made = applied(data, signature("p256", detached=detached))
    assert fields_of(made) == fields_of(data)
    assert verified(tmp_path, made) == inner_of(data)


@pytest.mark.parametrize(
    ("letter", "cipher"), sampled(product(CORPUS, ("aes-256-gcm", "aes-256-cbc")), 3), ids=shown
)
def test_openssl_decrypts_the_corpus(letter: Letter, cipher: Any, tmp_path: Path) -> None:
    data = letter.message().content(utf8=True).join()
    made = applied(data, encryption(cipher=cipher))
    assert fields_of(made) == fields_of(data)
    for reader in (person("rsa"), person("p256")):
        assert decrypted(tmp_path, made, reader) == inner_of(data)


@pytest.mark.parametrize("letter", sampled(CORPUS, 3), ids=shown)
def test_both_together(letter: Letter, tmp_path: Path) -> None:
    """Signed, then encrypted: what is decrypted is a message whose signature OpenSSL verifies."""
    data = letter.message().content(utf8=True).join()
    made = applied(data, signature("p256"), encryption())
    assert verified(tmp_path, decrypted(tmp_path, made, person("rsa"))) == inner_of(data)


@pytest.mark.parametrize("detached", [True, False])
def test_the_other_way_round(detached: bool, tmp_path: Path) -> None:
    """Encrypted, then signed (RFC 8551 section 3.6)."""
    made = applied(MESSAGE, encryption(), signature("p256", detached=detached))
    inside = verified(tmp_path, made)
    assert decrypted(tmp_path, inside, person("rsa")) == inner_of(MESSAGE)


@pytest.mark.parametrize("kind", ["rsa", "rsa3072", "p256", "p384", "p521"])
@pytest.mark.parametrize("detached", [True, False])
def test_kinds_of_keys(kind: str, detached: bool, tmp_path: Path) -> None:
    made = applied(MESSAGE, signature(kind, detached=detached))
    assert verified(tmp_path, made) == inner_of(MESSAGE)


# --- the form ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "micalg"),
    [
        ("rsa", {}, "sha-256"),
        ("rsa", {"hash_algorithm": "sha384"}, "sha-384"),
        ("p521", {}, "sha-512"),
        ("ed25519", {}, "sha-512"),
    ],
)
def test_a_detached_one(kind: str, options: Any, micalg: str) -> None:
    made = message_from_bytes(applied(MESSAGE, signature(kind, **options)), policy=policy.SMTP)
    assert made.get_content_type() == "multipart/signed"
    assert made.get_param("protocol") == "application/pkcs7-signature"
    assert made.get_param("micalg") == micalg
    assert made["MIME-Version"] == "1.0" and made["Content-Language"] is None
    text, beside = made.iter_parts()
    assert text.get_content_type() == "text/plain" and text["Content-Language"] == "en"
    assert beside.get_content_type() == "application/pkcs7-signature"
    assert beside.get_filename() == "smime.p7s" and beside.get_param("name") == "smime.p7s"


@pytest.mark.parametrize(
    ("way", "smime_type"),
    [
        (signature(detached=False), "signed-data"),
        (encryption(), "authEnveloped-data"),
        (encryption(cipher="aes-256-cbc"), "enveloped-data"),
    ],
)
def test_one_part(way: Any, smime_type: str) -> None:
    data = applied(MESSAGE, way)
    made = message_from_bytes(data, policy=policy.SMTP)
    assert made.get_content_type() == "application/pkcs7-mime"
    assert made.get_param("smime-type") == smime_type
    assert made.get_filename() == "smime.p7m"
    assert made["MIME-Version"] == "1.0"
    assert max(map(len, data.split(b"\r\n"))) <= 78
    assert b"Hello  there" not in data and b"Subject: Hello\r\n" in data


@given(st.integers(1, 200))
def test_however_the_octets_come(step: int) -> None:
    """The digest is the same, which Ed25519 shows by the same signature."""
    way = signature("ed25519")

    def signed(size: int | None) -> bytes:
        made = message_from_bytes(applied(MESSAGE, way, step=size), policy=policy.SMTP)
        return bytes(list(made.iter_parts())[1].get_content())

    assert signed(step) == signed(None)


def test_octets_above_127_are_labelled(tmp_path: Path) -> None:
    data = MESSAGE.replace(b"us-ascii", b"utf-8").replace(b"there", "größer".encode())
    made = applied(data, signature())
    assert b"\r\nContent-Transfer-Encoding: 8bit\r\n" in made.partition(b"\r\n\r\n")[0] + b"\r\n"
    assert verified(tmp_path, made) == inner_of(data)
    assert b"Content-Transfer-Encoding: 8bit" not in applied(MESSAGE, signature())


def test_a_message_without_content_fields(tmp_path: Path) -> None:
    data = b"From: ann@example.com\r\n\r\nHello\r\n"
    made = applied(data, signature())
    assert made.startswith(b"From: ann@example.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed;")
    assert verified(tmp_path, made) == b"\r\nHello\r\n"
    assert decrypted(tmp_path, applied(data, encryption()), person("rsa")) == b"\r\nHello\r\n"


@pytest.mark.parametrize(
    ("header", "rest"),
    [(b"Subject: x\r\n", b""), (b"Subject: x", b""), (b"\r\nHello\r\n\r\n", b"Hello\r\n\r\n")],
)
def test_a_header_that_is_none(header: bytes, rest: bytes) -> None:
    """It may lack its empty line, or have no fields, so that an empty line of the body is taken for its end."""
    signing = encryption().begin(header, NOW)
    outer = b"Subject: x\r\n" if b"Subject" in header else b""
    made = signing.finish([])
    assert made.before.startswith(outer + b"MIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime;")
    assert made.start is None
    (inner,) = _contents(signature("ed25519", detached=False), header)
    assert inner == b"\r\n" + rest


def _inner(encoded: bytes) -> list[bytes]:
    der = base64.b64decode(encoded.partition(b"\r\n\r\n")[2])
    return [cms.ContentInfo.load(der)["content"]["encap_content_info"]["content"].native]


def _contents(way: SMIMESignature, header: bytes) -> list[bytes]:
    signing = way.begin(header, NOW)
    (wanted,) = signing.end()
    made = signing.finish([KeySigner(person("ed25519").key).sign(wanted)])
    return _inner(made.before)


@pytest.mark.parametrize("path", ODD_MAIL, ids=[one.stem for one in ODD_MAIL])
def test_no_line_of_odd_mail_is_lost(path: Path) -> None:
    try:
        data = mail_of_bytes(path.read_bytes()).content().join()
    except SMTPError:
        return  # no message that is sent at all
    end = data.index(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else len(data)
    header, body = data[:end], data[end:]
    signing = signature("ed25519", detached=False).begin(header, NOW)
    signing.feed(body)
    made = signing.finish([KeySigner(person("ed25519").key).sign(one) for one in signing.end()])
    outer, _, encoded = made.before.partition(b"MIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime")
    (inner,) = _inner(encoded)
    fields, empty, rest = (
        inner.partition(b"\r\n") if inner.startswith(b"\r\n") else inner.partition(b"\r\n\r\n")
    )
    # Of an empty header the reader of a message finds no end, so that all of it is taken for one.
    assert rest == (data[2:] if data.startswith(b"\r\n") else body) and empty
    header = b"" if data.startswith(b"\r\n") else header
    kept = [line for line in header.split(b"\r\n") if not line.lower().startswith(b"mime-version")]
    assert sorted(filter(None, [*outer.split(b"\r\n"), *fields.split(b"\r\n")])) == sorted(filter(None, kept))


# --- keys ----------------------------------------------------------------------------------------------------------


def finished(way: SMIMESignature, make: Any) -> Rewritten:
    """Sign MESSAGE with what `make` makes of what is wanted."""
    end = MESSAGE.index(b"\r\n\r\n") + 4
    signing = way.begin(MESSAGE[:end], NOW)
    signing.feed(MESSAGE[end:])
    (wanted,) = signing.end()
    return signing.finish([make(wanted)])


async def nothing(request: SignRequest) -> bytes:
    return b"never called"


@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
def test_a_callable_has_the_key_of_the_certificate(kind: str) -> None:
    way = SMIMESignature(person(kind).certificate, nothing)
    key = KeySigner(person(kind).key)
    assert way.signer.key_algorithm == key.key_algorithm
    assert finished(way, key.sign).before.startswith(b"Received: from elsewhere\r\n")


@pytest.mark.parametrize("rubbish", [b"", b"x", b"x" * 256])
def test_what_is_no_signature(rubbish: bytes) -> None:
    with pytest.raises(SigningError, match="the signature does not verify with the certificate"):
        finished(SMIMESignature(person("rsa").certificate, nothing), lambda wanted: rubbish)


def test_the_hash_of_an_external_signer() -> None:
    way = SMIMESignature(person("rsa").certificate, ExternalSigner(ask=nothing, hash_algorithm="sha384"))
    assert way.hash_algorithm == "sha384"
    both = ExternalSigner(ask=nothing, hash_algorithm="sha384")
    assert SMIMESignature(person("rsa").certificate, both, hash_algorithm="sha512").hash_algorithm == "sha512"


class TestContainersFromElsewhere:
    """ExternalSigner(method="pkcs7"): the signer returns a CMS SignedData."""

    def way(self, **options: Any) -> SMIMESignature:
        key = ExternalSigner(ask=nothing, method="pkcs7", hash_outside=True)
        return SMIMESignature(options.pop("certificate", None), key, **options)

    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize("detached", [True, False])
    def test_of_openssl(self, known: bool, detached: bool, tmp_path: Path) -> None:
        ann = person("rsa")
        (tmp_path / "ann.pem").write_bytes(ann.pem)
        (tmp_path / "ann.key").write_bytes(ann.key_pem)

        def sign(wanted: ToSign) -> bytes:
            (tmp_path / "data").write_bytes(wanted.data)
            words = (
                "-sign -binary -outform DER -md sha384 -in data -signer ann.pem -inkey ann.key -out answer"
            )
            openssl(tmp_path, words)
            return (tmp_path / "answer").read_bytes()

        way = self.way(certificate=ann.certificate if known else None, detached=detached)
        before, start, after = finished(way, sign)
        made = before + (MESSAGE[start:] if start is not None else b"") + after
        assert (b"micalg=sha-384" in made) is detached
        assert verified(tmp_path, made) == inner_of(MESSAGE)

    def test_by_hash(self, tmp_path: Path) -> None:
        """A service that is given nothing but the hash of the content makes a container about that."""
        ann, key = MailCertificate(person("p256").certificate), KeySigner(person("p256").key)

        def sign(wanted: ToSign) -> bytes:
            attributes = signed_attributes(wanted.hash(), NOW, certificate_attribute(ann, "sha256"))
            signed = key.sign(ToSign(key, attributes))
            return signed_data(attributes, signed, "ec", "sha256", [ann], None)

        before, start, after = finished(self.way(), sign)
        assert verified(tmp_path, before + MESSAGE[start:] + after) == inner_of(MESSAGE)

    def test_rubbish(self) -> None:
        with pytest.raises(SigningError, match="no SignedData that can be read"):
            finished(self.way(), lambda wanted: b"rubbish")

    def test_for_another_author(self) -> None:
        eve = issued("p256", emails=["eve@example.com"])
        by, key = MailCertificate(eve.certificate), KeySigner(eve.key)

        def sign(wanted: ToSign) -> bytes:
            attributes = signed_attributes(wanted.hash(), NOW, certificate_attribute(by, "sha256"))
            return signed_data(attributes, key.sign(ToSign(key, attributes)), "ec", "sha256", [by], None)

        with pytest.raises(
            SigningError, match="for eve@example.com, and the message is from .*ann@example.com"
        ):
            finished(self.way(), sign)
        assert finished(self.way(check_author=False), sign).start

    def test_the_limit_holds_for_them_too(self) -> None:
        with pytest.raises(
            SigningError, match="more than 60 octets, which S/MIME needs in memory: raise max_size$"
        ):
            finished(self.way(max_size=60), lambda wanted: b"")


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "hint"),
    [
        (lambda size: signature(detached=False, max_size=size), ", or sign detached"),
        (lambda size: encryption(max_size=size), ""),
    ],
)
def test_the_limit(way: Any, hint: str) -> None:
    size = len(inner_of(MESSAGE))
    assert applied(MESSAGE, way(size))
    with pytest.raises(SigningError, match=f"more than {size - 1} octets, .*: raise max_size{hint}$"):
        applied(MESSAGE, way(size - 1))


def test_a_detached_signature_has_no_limit() -> None:
    assert applied(MESSAGE, signature(max_size=1))


@pytest.mark.parametrize("author", ["From: eve@example.com", "From: broken@@", "X-From: ann@example.com"])
def test_somebody_else_is_the_author(author: str) -> None:
    data = author.encode() + b"\r\n\r\nHello\r\n"
    way = SMIMESignature(person("rsa").certificate, person("rsa").key)
    with pytest.raises(SigningError, match="the certificate is for ann@example.com, and the message is from"):
        applied(data, way)
    assert applied(b"Sender: ann@example.com\r\n" + data, way)


@pytest.mark.parametrize("days", [-3, 11])
def test_the_certificate_is_not_valid_now(days: int) -> None:
    now = NOW + days * 86_400
    for way in (signature(), encryption()):
        with pytest.raises(SigningError, match="expired on|not valid before"):
            way.begin(MESSAGE, now)


RSA, EC = person("rsa"), person("p256")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda: SMIMESignature(RSA.certificate, EC.key),
            "the key is not that of the certificate: CN=Ann rsa",
        ),
        (
            lambda: SMIMESignature(RSA.certificate, person("rsa3072").key),
            "the key is not that of the certificate",
        ),
        (lambda: SMIMESignature(EC.certificate, ExternalSigner(ask=nothing)), "the key is not that of"),
        (lambda: SMIMESignature(RSA.certificate, "key.pem"), "no key to sign with"),
        (lambda: SMIMESignature(None, RSA.key), "the signer's certificate is needed"),
        (lambda: SMIMESignature("ann.pem", RSA.key), "CertificateStore.load reads them from files"),
        (
            lambda: signature(hash_algorithm="md5"),
            "hash_algorithm is one of sha256, sha384, sha512, not 'md5'",
        ),
        (lambda: signature("ed25519", hash_algorithm="sha256"), "Ed25519 key signs mail with sha512"),
        (lambda: signature(max_size=0), "max_size is a number of octets, not 0"),
        (lambda: signature(max_size=True), "max_size is a number of octets, not True"),
        (lambda: signature(chain=authority().certificate), "chain is a sequence"),
        (lambda: encryption(""), "one certificate or more"),
        (lambda: encryption("ed25519"), "not encrypted with a key of this kind"),
        (lambda: encryption(cipher="des"), "cipher is one of aes-256-gcm, aes-256-cbc, not 'des'"),
        (lambda: encryption(rsa_padding="none"), "rsa_padding is one of pkcs1, oaep, not 'none'"),
        (lambda: SMIMEEncryption(RSA.certificate), "recipients is a sequence"),
    ],
)
def test_what_is_refused_at_once(make: Any, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(complaint)):
        make()


def test_a_recipient_is_named_once() -> None:
    assert len(encryption("rsa p256 rsa").recipients) == 2


def test_the_key_does_not_show() -> None:
    assert "key" not in repr(signature())


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asn1crypto", None)
    for make in (signature, encryption):
        with pytest.raises(FeatureUnavailable) as caught:
            make()
        assert caught.value.needs == "smtp-async[smime]"


def test_whoever_does_not_sign_loads_nothing_of_it() -> None:
    code = (
        "import sys; from smtp_async import Message, SMTPClient;"
        "print([name for name in sys.modules if 'asn1crypto' in name or 'smime' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=15
    )
    assert done.stdout == "[]\n"


def test_the_digest_is_of_the_content() -> None:
    way = signature("ed25519")
    end = MESSAGE.index(b"\r\n\r\n") + 4
    signing = way.begin(MESSAGE[:end], NOW)
    signing.feed(MESSAGE[end:])
    (wanted,) = signing.end()
    assert hashlib.sha512(inner_of(MESSAGE)).digest() in wanted.data
