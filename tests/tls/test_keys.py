"""keys.py: which key belongs to which certificate, and whether a key signs."""

from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from smtp_async.errors import ClientIdentityError
from smtp_async.tls.certificate import Certificate
from smtp_async.tls.keys import RemoteKey, fits, public_der, signs
from tests.tls.certificates import der

RSA = rsa.generate_private_key(65537, 2048)
KINDS: dict[str, Any] = {
    "rsa": RSA,
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ed448": ed448.Ed448PrivateKey.generate(),
}


class Token:
    """A key that stays where it is."""

    public_key_der = public_der(KINDS["ec"])

    def sign(self, data: bytes, *, hash_name: str = "SHA256", pss: bool = False) -> bytes:
        raise NotImplementedError


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_signs(kind: str) -> None:
    assert signs(KINDS[kind])


def test_a_key_whose_halves_do_not_belong_together_does_not_sign() -> None:
    """A damaged file: the modulus is of one key, the exponent of another."""
    good, other = RSA.private_numbers(), rsa.generate_private_key(65537, 2048).private_numbers()
    mixed = rsa.RSAPrivateNumbers(
        good.p, good.q, good.d ^ 2, good.dmp1 ^ 2, good.dmq1 ^ 2, other.iqmp, good.public_numbers
    )
    key = mixed.private_key(unsafe_skip_rsa_key_validation=True)
    assert not signs(key)


@pytest.mark.parametrize(
    "key", [x25519.X25519PrivateKey.generate(), dsa.generate_private_key(1024)], ids=["x25519", "dsa"]
)
def test_a_key_that_tls_does_not_sign_with_is_refused(key) -> None:
    with pytest.raises(ClientIdentityError, match="does not sign with a key of this kind"):
        signs(key)


def test_a_certificate_fits_its_own_key_only() -> None:
    authority = trustme.CA()
    leaf, other = (authority.issue_cert("x.test") for _ in range(2))
    certificate = Certificate(der(leaf)[0])
    assert fits(certificate.public_key_der, certificate)
    assert not fits(Certificate(der(other)[0]).public_key_der, certificate)
    assert not fits(b"", certificate) and not fits(public_der(KINDS["rsa"]), certificate)


def test_the_public_half_is_that_of_the_certificate() -> None:
    leaf = trustme.CA().issue_cert("x.test")
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    assert fits(public_der(key), Certificate(der(leaf)[0]))
    again = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert again != public_der(key)


def test_a_key_on_a_token_tells_its_public_half() -> None:
    token = Token()
    assert isinstance(token, RemoteKey)
    assert public_der(token) == public_der(KINDS["ec"])
    assert not any(isinstance(key, RemoteKey) for key in KINDS.values())


def test_a_certificate_whose_key_cannot_be_read_fits_nothing() -> None:
    leaf = der(trustme.CA().issue_cert("x.test"))[0]
    at = leaf.index(Certificate(leaf).public_key_der)
    # The identifier of the algorithm is one that nobody knows.
    damaged = leaf[: at + 8] + b"\x7f" + leaf[at + 9 :]
    assert not fits(b"x", Certificate(damaged))
