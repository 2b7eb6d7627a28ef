"""strength.py: bits of strength, as OpenSSL's security levels count them."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from smtp_async.tls.strength import key_strength, least_bits, signature_strength
from tests.tls.authority import make, rsa_key, signed_with_old_hash


@pytest.mark.parametrize(
    ("key", "bits"),
    [
        (lambda: rsa_key(1024), 80),
        (lambda: rsa_key(2047), 80),
        (lambda: rsa_key(2048), 112),
        (lambda: rsa.generate_private_key(65537, 3072), 128),
        (lambda: ec.generate_private_key(ec.SECP192R1()), 96),
        (lambda: ec.generate_private_key(ec.SECP256R1()), 128),
        (lambda: ec.generate_private_key(ec.SECP521R1()), 260),
    ],
)
def test_keys(key: Any, bits: int) -> None:
    assert key_strength(make("S", key=key()).certificate) == bits


@pytest.mark.parametrize(
    ("make_key", "bits"), [(ed25519.Ed25519PrivateKey.generate, 128), (ed448.Ed448PrivateKey.generate, 224)]
)
def test_curves_that_hash_themselves(make_key: Any, bits: int) -> None:
    from datetime import timedelta

    from cryptography import x509

    from smtp_async.tls import Certificate
    from tests.tls.authority import NOW, subject_of

    key = make_key()
    name = subject_of("S")
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=1)).sign(
        key, None
    )
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate = Certificate(made.public_bytes(Encoding.DER))
    assert key_strength(certificate) == signature_strength(certificate) == bits


def test_signatures() -> None:
    issuer = make("A", ca=True, key=rsa_key(2048))
    leaf = make("S", issuer)
    assert signature_strength(leaf.certificate) == 128
    assert signature_strength(make("S", issuer, digest=hashes.SHA512()).certificate) == 256
    assert signature_strength(signed_with_old_hash(leaf, issuer).certificate) == 63
    assert signature_strength(signed_with_old_hash(leaf, issuer, md5=True).certificate) == 39


def test_levels() -> None:
    assert [least_bits(level) for level in range(7)] == [0, 80, 112, 128, 192, 256, 256]
