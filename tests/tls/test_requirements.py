"""What is refused when the handshake is over, because Python could not choose it before."""

import ssl
from typing import Any

import pytest

from smtp_async import ConnectionInfo, TLSOptions
from smtp_async.tls.requirements import check_requirements
from tests.servers.pki import Pki

END = "-----END CERTIFICATE-----\n"

INFO = ConnectionInfo(
    host="mail.example",
    encrypted=True,
    tls_version="TLSv1.3",
    suite="TLS_AES_128_GCM_SHA256",
    bits=128,
    group="ffdhe2048",
    signature_algorithm="rsa_pss_rsae_sha256",
)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"minimum_bits": 256}, "with 128 bits, and minimum_bits demands 256"),
        ({"ciphers": "TLS_AES_256_GCM_SHA384"}, "TLS_AES_128_GCM_SHA256, which is not among ciphers"),
        ({"groups": ["x25519"]}, "ffdhe2048, which is not among groups"),
        ({"ffdhe": False}, "ffdhe2048, which ffdhe=False excludes"),
        ({"signature_algorithms": ["ed25519"]}, "rsa_pss_rsae_sha256, which is not among"),
        ({"minimum_bits": 128}, None),
        ({"ciphers": "TLS_AES_128_GCM_SHA256"}, None),
        ({"ciphers": "ECDHE-RSA-AES256-GCM-SHA384"}, None),
        ({"groups": ["ffdhe2048"]}, None),
        ({"signature_algorithms": ["rsa_pss_sha256"]}, None),
        ({}, None),
    ],
)
def test_what_does_not_fit(options: dict[str, Any], words: str | None) -> None:
    problem = check_requirements(INFO, TLSOptions(**options))
    assert (problem is None) == (words is None)
    assert words is None or words in (problem or "")


def test_what_does_not_exist_is_not_judged() -> None:
    bare = ConnectionInfo(host="mail.example", encrypted=True, tls_version="TLSv1.2", suite="unknown")
    demanding = TLSOptions(
        minimum_bits=256, groups=["x25519"], signature_algorithms=["ed25519"], ffdhe=False, ciphers="HIGH"
    )
    assert check_requirements(bare, demanding) is None


def test_a_context_of_the_applications_has_chosen_itself() -> None:
    assert check_requirements(INFO, TLSOptions(context=ssl.create_default_context())) is None


@pytest.mark.parametrize(
    ("allowed", "fits"),
    [
        (["ecdsa_secp256r1_sha256"], True),
        (["sha256-ecdsa", "ed25519"], True),
        (["ecdsa_secp384r1_sha384"], False),
        (["rsa_pkcs1_sha256"], False),
    ],
)
def test_the_signature_of_the_certificate(allowed: list[str], fits: bool, pki: Pki) -> None:
    der = ssl.PEM_cert_to_DER_cert(pki.server.certificate.read_text().partition("-----END")[0] + END)
    info = ConnectionInfo(host="localhost", encrypted=True, tls_version="TLSv1.3", chain=(der,))
    problem = check_requirements(info, TLSOptions(signature_algorithms=allowed))
    assert (problem is None) == fits
    assert fits or "signed with ECDSA_WITH_SHA256" in (problem or "")
