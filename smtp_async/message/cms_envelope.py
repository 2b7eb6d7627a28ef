"""Encrypted content of CMS for several recipients: EnvelopedData (RFC 5652 section 6), AuthEnvelopedData (RFC 5083).

Strategy. The content is encrypted once, with a key that was drawn for it. That key is encrypted for each recipient: to
an RSA key directly, to an elliptic key with a key on which both sides agree (RFC 5753). All arithmetic is that of
cryptography, all of ASN.1 that of asn1crypto.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, Literal

from .mail_certificate import MailCertificate

__all__ = ["Cipher", "RSAPadding", "enveloped"]

Cipher = Literal["aes-256-gcm", "aes-256-cbc"]
RSAPadding = Literal["pkcs1", "oaep"]

_KEY_SIZE: Final = 32
#: Octets of the nonce of GCM (RFC 5084 section 3.2), and of its tag.
_NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
_BLOCK_SIZE: Final = 16
#: dhSinglePass-stdDH with SHA-256, -384 and -512 (RFC 5753 section 7.1.4): a hash as strong as the curve.
_AGREEMENT: Final = {
    "secp256r1": ("1.3.132.1.11.1", "SHA256"),
    "secp384r1": ("1.3.132.1.11.2", "SHA384"),
    "secp521r1": ("1.3.132.1.11.3", "SHA512"),
}


def enveloped(
    content: bytes, recipients: Sequence[MailCertificate], cipher: Cipher, rsa_padding: RSAPadding
) -> bytes:
    """Return a ContentInfo with the encrypted content, in DER.

    Args:
        content: what is encrypted.
        recipients: certificates with an RSA or elliptic key.
        cipher: `"aes-256-gcm"` makes an AuthEnvelopedData, `"aes-256-cbc"` an EnvelopedData.
        rsa_padding: how the key is encrypted for RSA keys: by PKCS #1 v1.5, or OAEP with SHA-256.
    """
    from asn1crypto import cms

    key = os.urandom(_KEY_SIZE)
    infos = [_recipient_info(one, key, rsa_padding) for one in recipients]
    if cipher == "aes-256-gcm":
        encrypted, tag = _gcm(content, key)
        kind, container = (
            "authenticated_enveloped_data",
            cms.AuthEnvelopedData(
                {
                    "version": "v0",
                    "recipient_infos": infos,
                    "auth_encrypted_content_info": encrypted,
                    "mac": tag,
                }
            ),
        )
    else:
        agreed = any([one.name == "kari" for one in infos])
        kind, container = (
            "enveloped_data",
            cms.EnvelopedData(
                {
                    "version": "v2" if agreed else "v0",
                    "recipient_infos": infos,
                    "encrypted_content_info": _cbc(content, key),
                }
            ),
        )
    der: bytes = cms.ContentInfo({"content_type": kind, "content": container}).dump()
    return der


def _gcm(content: bytes, key: bytes) -> tuple[Any, bytes]:
    """Return the EncryptedContentInfo, and the tag, which stands elsewhere."""
    from asn1crypto import algos, cms, core
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_SIZE)
    sealed = AESGCM(key).encrypt(nonce, content, None)
    # The parameters of GCM have the same fields as those of CCM (RFC 5084 sections 3.1 and 3.2).
    parameters = algos.CcmParams({"aes_nonce": nonce, "aes_icvlen": _TAG_SIZE})
    algorithm = {"algorithm": "aes256_gcm", "parameters": core.Any(parameters)}
    info = cms.EncryptedContentInfo(
        {
            "content_type": "data",
            "content_encryption_algorithm": algorithm,
            "encrypted_content": sealed[:-_TAG_SIZE],
        }
    )
    return info, sealed[-_TAG_SIZE:]


def _cbc(content: bytes, key: bytes) -> Any:
    """Return the EncryptedContentInfo."""
    from asn1crypto import cms
    from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.ciphers.modes import CBC
    from cryptography.hazmat.primitives.padding import PKCS7

    vector = os.urandom(_BLOCK_SIZE)
    padder, encryptor = PKCS7(8 * _BLOCK_SIZE).padder(), BlockCipher(AES256(key), CBC(vector)).encryptor()
    encrypted = encryptor.update(padder.update(content)) + encryptor.update(padder.finalize())
    return cms.EncryptedContentInfo(
        {
            "content_type": "data",
            "content_encryption_algorithm": {"algorithm": "aes256_cbc", "parameters": vector},
            "encrypted_content": encrypted + encryptor.finalize(),
        }
    )


# --- the key, for each recipient ---------------------------------------------------------------------------------


def _recipient_info(recipient: MailCertificate, key: bytes, rsa_padding: RSAPadding) -> Any:
    from asn1crypto import cms, x509

    certificate = x509.Certificate.load(recipient.der)
    named = {"issuer": certificate.issuer, "serial_number": certificate.serial_number}
    if recipient.key_algorithm == "rsa":
        return cms.RecipientInfo("ktri", _transported(recipient.public_key, named, key, rsa_padding))
    return cms.RecipientInfo("kari", _agreed(recipient.public_key, named, key))


def _transported(public_key: Any, named: dict[str, Any], key: bytes, rsa_padding: RSAPadding) -> Any:
    """Return a KeyTransRecipientInfo (RFC 3370 section 4.2.1, RFC 3560)."""
    from asn1crypto import cms
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.hashes import SHA256

    if rsa_padding == "pkcs1":
        algorithm: dict[str, Any] = {"algorithm": "rsaes_pkcs1v15"}
        encrypted = public_key.encrypt(key, padding.PKCS1v15())
    else:
        sha256 = {"algorithm": "sha256"}
        parameters = {
            "hash_algorithm": sha256,
            "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": sha256},
        }
        algorithm = {"algorithm": "rsaes_oaep", "parameters": parameters}
        encrypted = public_key.encrypt(key, padding.OAEP(padding.MGF1(SHA256()), SHA256(), None))
    return cms.KeyTransRecipientInfo(
        {
            "version": "v0",
            "rid": cms.RecipientIdentifier("issuer_and_serial_number", named),
            "key_encryption_algorithm": algorithm,
            "encrypted_key": encrypted,
        }
    )


def _agreed(public_key: Any, named: dict[str, Any], key: bytes) -> Any:
    """Return a KeyAgreeRecipientInfo: ephemeral-static ECDH, then AES key wrap (RFC 5753 section 3.1)."""
    from asn1crypto import cms, keys
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    agreement, hash_name = _AGREEMENT[public_key.curve.name]
    ephemeral = ec.generate_private_key(public_key.curve)
    shared = ephemeral.exchange(ec.ECDH(), public_key)
    wrapping = cms.KeyEncryptionAlgorithm({"algorithm": "aes256_wrap"})
    derived = X963KDF(getattr(hashes, hash_name)(), _KEY_SIZE, _shared_info(wrapping)).derive(shared)
    der = ephemeral.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return cms.KeyAgreeRecipientInfo(
        {
            "version": "v3",
            "originator": cms.OriginatorIdentifierOrKey("originator_key", keys.PublicKeyInfo.load(der)),
            "key_encryption_algorithm": {"algorithm": agreement, "parameters": wrapping},
            "recipient_encrypted_keys": [
                {
                    "rid": cms.KeyAgreementRecipientIdentifier("issuer_and_serial_number", named),
                    "encrypted_key": aes_key_wrap(derived, key),
                }
            ],
        }
    )


def _shared_info(wrapping: Any) -> bytes:
    """Return ECC-CMS-SharedInfo (RFC 5753 section 7.2): what the key is for, and how many bits it has."""
    from asn1crypto import core

    class SharedInfo(core.Sequence):  # type: ignore[misc]  # asn1crypto has none
        _fields = [
            ("key_info", core.Any),
            ("supp_pub_info", core.OctetString, {"explicit": 2}),
        ]

    info = SharedInfo({"key_info": core.Any(wrapping), "supp_pub_info": (8 * _KEY_SIZE).to_bytes(4)})
    der: bytes = info.dump()
    return der
