"""TLS options are checked when they are made."""

import ssl
from typing import Any

import pytest

from smtp_async import PreSharedKey, TLSOptions, TLSProfile, TrustOptions
from smtp_async.errors import FeatureUnavailable, InvalidArgument, TLSLibraryError
from smtp_async.tls.certificate import Certificate
from smtp_async.tls.identity import Identity
from tests.servers.pki import Pki
from tests.tls.identities import key

V10, V12, V13 = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
PSK = PreSharedKey(identity="client", key=b"very secret")


def identity(pki: Pki) -> Identity:
    certificate = Certificate.load(pki.client.certificate.read_bytes())
    return Identity(certificate, key("ec", 1), check_key=False)


def test_the_defaults_need_no_context_of_their_own() -> None:
    assert not TLSOptions().needs_own_context
    assert not TLSOptions(
        server_hostname="x", session_reuse=False, log_handshake=True, prng_seed=b"x"
    ).needs_own_context


@pytest.mark.parametrize(
    "changed",
    [
        {"minimum_version": V13},
        {"maximum_version": V12},
        {"ciphers": "HIGH"},
        {"minimum_bits": 256},
        {"groups": ["x25519"]},
        {"signature_algorithms": ["ed25519"]},
        {"ffdhe": False},
        {"extended_master_secret": False},
        {"legacy_renegotiation": True},
        {"key_log": "keys"},
        {"profile": TLSProfile.COMPATIBLE},
        {"trust": TrustOptions(ca_file="ca.pem")},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_context_excludes_what_would_be_set_in_one(changed: dict[str, Any]) -> None:
    assert TLSOptions(**changed).needs_own_context
    with pytest.raises(InvalidArgument, match=next(iter(changed))):
        TLSOptions(context=ssl.create_default_context(), **changed)


def test_an_identity_excludes_a_context(pki: Pki) -> None:
    with pytest.raises(InvalidArgument, match="identity"):
        TLSOptions(context=ssl.create_default_context(), identity=identity(pki))


def test_what_is_no_part_of_a_context_goes_with_one() -> None:
    options = TLSOptions(
        context=ssl.create_default_context(),
        server_hostname="mail.example",
        session_reuse=False,
        resume_across_hosts=True,
        expect_close_notify=False,
        prng_seed=b"dice",
        log_handshake=True,
    )
    assert not options.needs_own_context


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"minimum_version": V13, "maximum_version": V12}, "newer than the newest"),
        ({"maximum_version": V10}, "set minimum_version"),
        ({"ciphers": "TLS_AES_256_GCM_SHA384", "maximum_version": V12}, "maximum_version excludes it"),
        ({"ciphers": ""}, "names no cipher suite"),
        ({"minimum_bits": -1}, "minimum_bits"),
        ({"minimum_bits": 257}, "minimum_bits"),
        ({"groups": ["p-999"]}, "no name of a group"),
        ({"groups": "x25519"}, "a sequence"),
        ({"signature_algorithms": ["md5-rsa"]}, "no name of a signature"),
        ({"extra_chain": [object()]}, "give that, too"),
        ({"groups": ["x25519"], "key_share_groups": ["P-256"]}, "not among groups"),
        ({"groups": ["x25519"], "key_share_groups": "x25519"}, "a sequence"),
        ({"key_share_groups": ["x25519"]}, "not among groups"),
    ],
)
def test_contradictions_and_bad_names(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        TLSOptions(**options)


@pytest.mark.parametrize("version", [ssl.TLSVersion.SSLv3, ssl.TLSVersion.MAXIMUM_SUPPORTED])
def test_versions_that_openssl_does_not_speak(version: ssl.TLSVersion) -> None:
    with pytest.raises(FeatureUnavailable) as caught:
        TLSOptions(minimum_version=version)
    assert caught.value.code == 270


def test_ciphers_that_are_none() -> None:
    with pytest.raises(TLSLibraryError) as caught:
        TLSOptions(ciphers="NONSENSE")
    assert caught.value.code == 270


def test_a_chain_that_is_not_sent_takes_no_more_certificates(pki: Pki) -> None:
    mine = identity(pki)
    TLSOptions(identity=mine, include_chain=False)
    with pytest.raises(InvalidArgument, match="leave one of them out"):
        TLSOptions(identity=mine, extra_chain=[mine.certificate], include_chain=False)


class TestSharedKeys:
    def test_they_need_a_newer_python(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ssl, "HAS_PSK", False, raising=False)
        with pytest.raises(FeatureUnavailable) as caught:
            TLSOptions(psk=PSK)
        assert (caught.value.needs, caught.value.code) == ("Python 3.13", 270)

    def test_the_key_does_not_show(self) -> None:
        assert "secret" not in repr(PSK)

    @pytest.mark.parametrize(
        ("name", "secret"), [("", b"x"), ("x", b""), ("x" * 257, b"x"), ("x", b"x" * 257), ("x\0", b"x")]
    )
    def test_bad_ones(self, name: str, secret: bytes) -> None:
        with pytest.raises(InvalidArgument):
            PreSharedKey(identity=name, key=secret)


def test_a_key_on_a_token_is_refused_at_once(pki: Pki) -> None:
    class Remote:
        public_key_der = b""

        def sign(self, data: bytes, **how: Any) -> bytes:
            return data

    certificate = Certificate.load(pki.client.certificate.read_bytes())
    with pytest.raises(FeatureUnavailable, match="token"):
        TLSOptions(identity=Identity(certificate, Remote(), check_key=False))


def test_options_are_values(pki: Pki) -> None:
    assert TLSOptions(ciphers=["HIGH"], groups=["x25519"]) == TLSOptions(
        ciphers=("HIGH",), groups=("X25519",)
    )
    assert hash(TLSOptions(ciphers=["HIGH"], groups=["x25519"]))
