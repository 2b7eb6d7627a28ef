"""How strong keys and signatures of certificates are, in the bits of OpenSSL's security levels.

The levels are those of `SSL_CTX_set_security_level`; Python chooses 2, which is 112 bits: RSA of 2048 bits and more,
elliptic curves of 224 bits and more, and no SHA-1.
"""

from __future__ import annotations

from typing import Final

from .certificate import Certificate

__all__ = ["key_strength", "least_bits", "signature_strength"]

_LEVELS: Final = (0, 80, 112, 128, 192, 256)
#: NIST SP 800-57: from so many bits of a modulus on, so many bits of strength.
_MODULUS: Final = ((15360, 256), (7680, 192), (3072, 128), (2048, 112), (1024, 80))
_CURVES: Final = {"Ed25519": 128, "Ed448": 224}
#: As OpenSSL 3 weighs them; all other hashes count half of their length.
_HASHES: Final = {"md5": 39, "sha1": 63}


def least_bits(level: int) -> int:
    """Return what a security level of OpenSSL demands, in bits."""
    return _LEVELS[min(level, len(_LEVELS) - 1)]


def key_strength(certificate: Certificate) -> int | None:
    """Return the strength of the key, in bits: 0 if it cannot be read, None if its algorithm is not known."""
    kind, size = certificate.key_algorithm, certificate.key_bits
    if kind in _CURVES:
        return _CURVES[kind]
    if kind not in ("RSA", "RSA-PSS", "DSA", "EC"):
        return None
    if size is None:
        # Too short for the library that reads it, or damaged.
        return 0
    if kind == "EC":
        return size // 2
    return next((bits for least, bits in _MODULUS if size >= least), 0)


def signature_strength(certificate: Certificate) -> int | None:
    """Return the strength of the hash that was signed, in bits; None if the algorithm is not known."""
    from cryptography.exceptions import UnsupportedAlgorithm

    name = certificate.signature_algorithm
    if name.lower() in ("ed25519", "ed448"):
        return _CURVES[name.capitalize()]
    try:
        found = certificate.x509.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    return None if found is None else _HASHES.get(found.name, found.digest_size * 4)
