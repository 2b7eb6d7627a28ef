"""Cipher suites, key-exchange groups and signature schemes: their names, and what each name means.

A suite has two names: IANA's (TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384), which `ConnectionInfo` tells, and OpenSSL's
(ECDHE-RSA-AES256-GCM-SHA384), which its cipher lists want. The second does not follow from the first, so both stand
here in a table. Everything else about a suite is said by IANA's name, and is read from there.

Suites that OpenSSL does not speak any more (static Diffie-Hellman, RC4, DES, those once weakened for export) have no
second name.
"""

from __future__ import annotations

import functools
import re
from typing import Final, NamedTuple

__all__ = ["Group", "Suite", "find_group", "find_suite", "group_numbered", "scheme_named", "scheme_numbered"]


class Suite(NamedTuple):
    """What a cipher suite consists of.

    Attributes:
        name: IANA's name.
        openssl_name: OpenSSL's name, None for one that it does not speak.
        key_exchange: `"ECDHE"`, `"DHE"`, `"RSA"`, `"PSK"` …; None in TLS 1.3, where it is not a matter of the suite.
        authentication: what the server proves itself with: `"RSA"`, `"ECDSA"`, `"DSS"`, `"PSK"`, `"anon"` for
            nothing; None in TLS 1.3.
        cipher: the symmetric algorithm, such as `"AES-256-GCM"`.
        bits: the length of its key.
        block_size: octets of its block, 0 for a stream cipher.
        aead: does it authenticate what it encrypts (RFC 5116)?
        digest: the hash of the MAC, or of the key derivation where the cipher authenticates.
        exportable: was it weakened for export?
    """

    name: str
    openssl_name: str | None
    key_exchange: str | None
    authentication: str | None
    cipher: str
    bits: int
    block_size: int
    aead: bool
    digest: str
    exportable: bool


class Group(NamedTuple):
    """A group that keys are agreed on in (IANA's "TLS Supported Groups").

    Attributes:
        name: IANA's name.
        key_exchange: `"ECDHE"`, `"DHE"`, or `"ECDHE-MLKEM"` for a hybrid with a lattice (ML-KEM).
        bits: size of its classical key.
    """

    name: str
    key_exchange: str
    bits: int


@functools.lru_cache(maxsize=256)
def find_suite(name: str) -> Suite | None:
    """Return the suite with IANA's or OpenSSL's name, in any case; None for what is no name of a suite."""
    wanted = name.upper()
    to_openssl, to_iana = _names()
    iana = to_iana.get(wanted, wanted)
    parsed = _NAME.fullmatch(iana)
    if parsed is None:
        return None
    exchange = _EXCHANGES.get(parsed["exchange"] or "")
    symmetric = _CIPHERS.get(parsed["cipher"])
    if exchange is None or symmetric is None:
        return None
    cipher, bits, block_size, aead = symmetric
    return Suite(
        iana.replace("_ANON_", "_anon_"),
        to_openssl.get(iana),
        *exchange,
        cipher=cipher,
        bits=bits,
        block_size=block_size,
        aead=aead,
        digest=_DIGESTS[parsed["digest"]],
        exportable="_EXPORT" in iana,
    )


@functools.lru_cache(maxsize=64)
def find_group(name: str) -> Group | None:
    """Return the group with IANA's name, in any case; None for what is no name of a group."""
    wanted = name.lower()
    return next((group for group in _GROUPS.values() if group.name.lower() == wanted), None)


def group_numbered(number: int) -> str:
    """Return IANA's name of a group, RFC 8446 section 4.2.7; an unknown one is called by its number."""
    group = _GROUPS.get(number)
    return group.name if group is not None else f"0x{number:04x}"


def scheme_named(name: str) -> str | None:
    """Return IANA's name of a signature scheme, in any case; None for what is no name of one."""
    wanted = name.lower()
    return next((one for one in _SCHEMES.values() if one.lower() == wanted), None)


def scheme_numbered(number: int) -> str:
    """Return IANA's name of a signature scheme, RFC 8446 section 4.2.3; an unknown one is called by its number."""
    return _SCHEMES.get(number) or f"0x{number:04x}"


@functools.cache
def _names() -> tuple[dict[str, str], dict[str, str]]:
    """Return OpenSSL's names by IANA's, and the other way round, in capitals."""
    pairs = [line.split() for line in _SUITES.split("\n")]
    return {iana.upper(): ours for iana, ours in pairs}, {ours.upper(): iana.upper() for iana, ours in pairs}


#: A name of IANA's in capitals. TLS 1.3 has no "_WITH_"; a cipher with a MAC of its own need not name a digest.
_NAME: Final = re.compile(
    r"TLS_(?:(?P<exchange>\w+?)(?:_EXPORT(?:1024)?)?_WITH_)?(?P<cipher>\w+?)(?:_(?P<digest>SHA\d*|MD5))?"
)

#: What stands before "_WITH_": how keys are agreed on, and what the server proves itself with.
_EXCHANGES: Final[dict[str, tuple[str | None, str | None]]] = {
    "": (None, None),
    "RSA": ("RSA", "RSA"),
    "DH_RSA": ("DH", "RSA"),
    "DH_DSS": ("DH", "DSS"),
    "DH_ANON": ("DHE", "anon"),
    "DHE_RSA": ("DHE", "RSA"),
    "DHE_DSS": ("DHE", "DSS"),
    "ECDH_RSA": ("ECDH", "RSA"),
    "ECDH_ECDSA": ("ECDH", "ECDSA"),
    "ECDH_ANON": ("ECDHE", "anon"),
    "ECDHE_RSA": ("ECDHE", "RSA"),
    "ECDHE_ECDSA": ("ECDHE", "ECDSA"),
    "PSK": ("PSK", "PSK"),
    "DHE_PSK": ("DHE", "PSK"),
    "PSK_DHE": ("DHE", "PSK"),
    "ECDHE_PSK": ("ECDHE", "PSK"),
    "RSA_PSK": ("RSA", "PSK"),
}

_DIGESTS: Final = {
    None: "SHA-256",
    "MD5": "MD5",
    "SHA": "SHA-1",
    "SHA256": "SHA-256",
    "SHA384": "SHA-384",
}

#: Name of the algorithm, bits of the key, octets of the block, does it authenticate?
_CIPHERS: Final[dict[str, tuple[str, int, int, bool]]] = {
    **{
        f"{block}_{bits}_{mode}": (f"{block}-{bits}-{mode.replace('_', '-')}", bits, 16, mode != "CBC")
        for block in ("AES", "ARIA", "CAMELLIA")
        for bits in (128, 256)
        for mode in ("CBC", "GCM", "CCM", "CCM_8")
    },
    "CHACHA20_POLY1305": ("CHACHA20-POLY1305", 256, 0, True),
    "SEED_CBC": ("SEED-CBC", 128, 16, False),
    "IDEA_CBC": ("IDEA-CBC", 128, 8, False),
    "3DES_EDE_CBC": ("3DES-EDE-CBC", 168, 8, False),
    "DES_CBC": ("DES-CBC", 56, 8, False),
    "DES40_CBC": ("DES-CBC", 40, 8, False),
    "RC2_CBC_40": ("RC2-CBC", 40, 8, False),
    "RC4_128": ("RC4", 128, 0, False),
    "RC4_56": ("RC4", 56, 0, False),
    "RC4_40": ("RC4", 40, 0, False),
    "NULL": ("NULL", 0, 0, False),
}

_GROUPS: Final = {
    0x0013: Group("secp192r1", "ECDHE", 192),
    0x0015: Group("secp224r1", "ECDHE", 224),
    0x0016: Group("secp256k1", "ECDHE", 256),
    0x0017: Group("secp256r1", "ECDHE", 256),
    0x0018: Group("secp384r1", "ECDHE", 384),
    0x0019: Group("secp521r1", "ECDHE", 521),
    0x001A: Group("brainpoolP256r1", "ECDHE", 256),
    0x001B: Group("brainpoolP384r1", "ECDHE", 384),
    0x001C: Group("brainpoolP512r1", "ECDHE", 512),
    # What OpenSSL tells of these two: the order of the curve, not the octets of a key.
    0x001D: Group("x25519", "ECDHE", 253),
    0x001E: Group("x448", "ECDHE", 448),
    0x001F: Group("brainpoolP256r1tls13", "ECDHE", 256),
    0x0020: Group("brainpoolP384r1tls13", "ECDHE", 384),
    0x0021: Group("brainpoolP512r1tls13", "ECDHE", 512),
    0x0100: Group("ffdhe2048", "DHE", 2048),
    0x0101: Group("ffdhe3072", "DHE", 3072),
    0x0102: Group("ffdhe4096", "DHE", 4096),
    0x0103: Group("ffdhe6144", "DHE", 6144),
    0x0104: Group("ffdhe8192", "DHE", 8192),
    0x11EB: Group("SecP256r1MLKEM768", "ECDHE-MLKEM", 256),
    0x11EC: Group("X25519MLKEM768", "ECDHE-MLKEM", 253),
    0x11ED: Group("SecP384r1MLKEM1024", "ECDHE-MLKEM", 384),
}

_SCHEMES: Final = {
    0x0201: "rsa_pkcs1_sha1",
    0x0202: "dsa_sha1",
    0x0203: "ecdsa_sha1",
    0x0301: "rsa_pkcs1_sha224",
    0x0302: "dsa_sha224",
    0x0303: "ecdsa_sha224",
    0x0401: "rsa_pkcs1_sha256",
    0x0402: "dsa_sha256",
    0x0403: "ecdsa_secp256r1_sha256",
    0x0501: "rsa_pkcs1_sha384",
    0x0502: "dsa_sha384",
    0x0503: "ecdsa_secp384r1_sha384",
    0x0601: "rsa_pkcs1_sha512",
    0x0602: "dsa_sha512",
    0x0603: "ecdsa_secp521r1_sha512",
    0x0804: "rsa_pss_rsae_sha256",
    0x0805: "rsa_pss_rsae_sha384",
    0x0806: "rsa_pss_rsae_sha512",
    0x0807: "ed25519",
    0x0808: "ed448",
    0x0809: "rsa_pss_pss_sha256",
    0x080A: "rsa_pss_pss_sha384",
    0x080B: "rsa_pss_pss_sha512",
    0x081A: "ecdsa_brainpoolP256r1tls13_sha256",
    0x081B: "ecdsa_brainpoolP384r1tls13_sha384",
    0x081C: "ecdsa_brainpoolP512r1tls13_sha512",
    0x0904: "mldsa44",
    0x0905: "mldsa65",
    0x0906: "mldsa87",
}

#: IANA's name and OpenSSL's, for every suite that OpenSSL 3 can speak.
_SUITES: Final = """\
TLS_AES_256_GCM_SHA384 TLS_AES_256_GCM_SHA384
TLS_CHACHA20_POLY1305_SHA256 TLS_CHACHA20_POLY1305_SHA256
TLS_AES_128_GCM_SHA256 TLS_AES_128_GCM_SHA256
TLS_AES_128_CCM_SHA256 TLS_AES_128_CCM_SHA256
TLS_AES_128_CCM_8_SHA256 TLS_AES_128_CCM_8_SHA256
TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 ECDHE-ECDSA-AES256-GCM-SHA384
TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 ECDHE-RSA-AES256-GCM-SHA384
TLS_DHE_DSS_WITH_AES_256_GCM_SHA384 DHE-DSS-AES256-GCM-SHA384
TLS_DHE_RSA_WITH_AES_256_GCM_SHA384 DHE-RSA-AES256-GCM-SHA384
TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 ECDHE-ECDSA-CHACHA20-POLY1305
TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 ECDHE-RSA-CHACHA20-POLY1305
TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256 DHE-RSA-CHACHA20-POLY1305
TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8 ECDHE-ECDSA-AES256-CCM8
TLS_ECDHE_ECDSA_WITH_AES_256_CCM ECDHE-ECDSA-AES256-CCM
TLS_DHE_RSA_WITH_AES_256_CCM_8 DHE-RSA-AES256-CCM8
TLS_DHE_RSA_WITH_AES_256_CCM DHE-RSA-AES256-CCM
TLS_ECDHE_ECDSA_WITH_ARIA_256_GCM_SHA384 ECDHE-ECDSA-ARIA256-GCM-SHA384
TLS_ECDHE_RSA_WITH_ARIA_256_GCM_SHA384 ECDHE-ARIA256-GCM-SHA384
TLS_DHE_DSS_WITH_ARIA_256_GCM_SHA384 DHE-DSS-ARIA256-GCM-SHA384
TLS_DHE_RSA_WITH_ARIA_256_GCM_SHA384 DHE-RSA-ARIA256-GCM-SHA384
TLS_DH_anon_WITH_AES_256_GCM_SHA384 ADH-AES256-GCM-SHA384
TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 ECDHE-ECDSA-AES128-GCM-SHA256
TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 ECDHE-RSA-AES128-GCM-SHA256
TLS_DHE_DSS_WITH_AES_128_GCM_SHA256 DHE-DSS-AES128-GCM-SHA256
TLS_DHE_RSA_WITH_AES_128_GCM_SHA256 DHE-RSA-AES128-GCM-SHA256
TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8 ECDHE-ECDSA-AES128-CCM8
TLS_ECDHE_ECDSA_WITH_AES_128_CCM ECDHE-ECDSA-AES128-CCM
TLS_DHE_RSA_WITH_AES_128_CCM_8 DHE-RSA-AES128-CCM8
TLS_DHE_RSA_WITH_AES_128_CCM DHE-RSA-AES128-CCM
TLS_ECDHE_ECDSA_WITH_ARIA_128_GCM_SHA256 ECDHE-ECDSA-ARIA128-GCM-SHA256
TLS_ECDHE_RSA_WITH_ARIA_128_GCM_SHA256 ECDHE-ARIA128-GCM-SHA256
TLS_DHE_DSS_WITH_ARIA_128_GCM_SHA256 DHE-DSS-ARIA128-GCM-SHA256
TLS_DHE_RSA_WITH_ARIA_128_GCM_SHA256 DHE-RSA-ARIA128-GCM-SHA256
TLS_DH_anon_WITH_AES_128_GCM_SHA256 ADH-AES128-GCM-SHA256
TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384 ECDHE-ECDSA-AES256-SHA384
TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384 ECDHE-RSA-AES256-SHA384
TLS_DHE_RSA_WITH_AES_256_CBC_SHA256 DHE-RSA-AES256-SHA256
TLS_DHE_DSS_WITH_AES_256_CBC_SHA256 DHE-DSS-AES256-SHA256
TLS_ECDHE_ECDSA_WITH_CAMELLIA_256_CBC_SHA384 ECDHE-ECDSA-CAMELLIA256-SHA384
TLS_ECDHE_RSA_WITH_CAMELLIA_256_CBC_SHA384 ECDHE-RSA-CAMELLIA256-SHA384
TLS_DHE_RSA_WITH_CAMELLIA_256_CBC_SHA256 DHE-RSA-CAMELLIA256-SHA256
TLS_DHE_DSS_WITH_CAMELLIA_256_CBC_SHA256 DHE-DSS-CAMELLIA256-SHA256
TLS_DH_anon_WITH_AES_256_CBC_SHA256 ADH-AES256-SHA256
TLS_DH_anon_WITH_CAMELLIA_256_CBC_SHA256 ADH-CAMELLIA256-SHA256
TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256 ECDHE-ECDSA-AES128-SHA256
TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256 ECDHE-RSA-AES128-SHA256
TLS_DHE_RSA_WITH_AES_128_CBC_SHA256 DHE-RSA-AES128-SHA256
TLS_DHE_DSS_WITH_AES_128_CBC_SHA256 DHE-DSS-AES128-SHA256
TLS_ECDHE_ECDSA_WITH_CAMELLIA_128_CBC_SHA256 ECDHE-ECDSA-CAMELLIA128-SHA256
TLS_ECDHE_RSA_WITH_CAMELLIA_128_CBC_SHA256 ECDHE-RSA-CAMELLIA128-SHA256
TLS_DHE_RSA_WITH_CAMELLIA_128_CBC_SHA256 DHE-RSA-CAMELLIA128-SHA256
TLS_DHE_DSS_WITH_CAMELLIA_128_CBC_SHA256 DHE-DSS-CAMELLIA128-SHA256
TLS_DH_anon_WITH_AES_128_CBC_SHA256 ADH-AES128-SHA256
TLS_DH_anon_WITH_CAMELLIA_128_CBC_SHA256 ADH-CAMELLIA128-SHA256
TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA ECDHE-ECDSA-AES256-SHA
TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA ECDHE-RSA-AES256-SHA
TLS_DHE_RSA_WITH_AES_256_CBC_SHA DHE-RSA-AES256-SHA
TLS_DHE_DSS_WITH_AES_256_CBC_SHA DHE-DSS-AES256-SHA
TLS_DHE_RSA_WITH_CAMELLIA_256_CBC_SHA DHE-RSA-CAMELLIA256-SHA
TLS_DHE_DSS_WITH_CAMELLIA_256_CBC_SHA DHE-DSS-CAMELLIA256-SHA
TLS_ECDH_anon_WITH_AES_256_CBC_SHA AECDH-AES256-SHA
TLS_DH_anon_WITH_AES_256_CBC_SHA ADH-AES256-SHA
TLS_DH_anon_WITH_CAMELLIA_256_CBC_SHA ADH-CAMELLIA256-SHA
TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA ECDHE-ECDSA-AES128-SHA
TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA ECDHE-RSA-AES128-SHA
TLS_DHE_RSA_WITH_AES_128_CBC_SHA DHE-RSA-AES128-SHA
TLS_DHE_DSS_WITH_AES_128_CBC_SHA DHE-DSS-AES128-SHA
TLS_DHE_RSA_WITH_CAMELLIA_128_CBC_SHA DHE-RSA-CAMELLIA128-SHA
TLS_DHE_DSS_WITH_CAMELLIA_128_CBC_SHA DHE-DSS-CAMELLIA128-SHA
TLS_ECDH_anon_WITH_AES_128_CBC_SHA AECDH-AES128-SHA
TLS_DH_anon_WITH_AES_128_CBC_SHA ADH-AES128-SHA
TLS_DH_anon_WITH_CAMELLIA_128_CBC_SHA ADH-CAMELLIA128-SHA
TLS_RSA_PSK_WITH_AES_256_GCM_SHA384 RSA-PSK-AES256-GCM-SHA384
TLS_DHE_PSK_WITH_AES_256_GCM_SHA384 DHE-PSK-AES256-GCM-SHA384
TLS_RSA_PSK_WITH_CHACHA20_POLY1305_SHA256 RSA-PSK-CHACHA20-POLY1305
TLS_DHE_PSK_WITH_CHACHA20_POLY1305_SHA256 DHE-PSK-CHACHA20-POLY1305
TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256 ECDHE-PSK-CHACHA20-POLY1305
TLS_PSK_DHE_WITH_AES_256_CCM_8 DHE-PSK-AES256-CCM8
TLS_DHE_PSK_WITH_AES_256_CCM DHE-PSK-AES256-CCM
TLS_RSA_PSK_WITH_ARIA_256_GCM_SHA384 RSA-PSK-ARIA256-GCM-SHA384
TLS_DHE_PSK_WITH_ARIA_256_GCM_SHA384 DHE-PSK-ARIA256-GCM-SHA384
TLS_RSA_WITH_AES_256_GCM_SHA384 AES256-GCM-SHA384
TLS_RSA_WITH_AES_256_CCM_8 AES256-CCM8
TLS_RSA_WITH_AES_256_CCM AES256-CCM
TLS_RSA_WITH_ARIA_256_GCM_SHA384 ARIA256-GCM-SHA384
TLS_PSK_WITH_AES_256_GCM_SHA384 PSK-AES256-GCM-SHA384
TLS_PSK_WITH_CHACHA20_POLY1305_SHA256 PSK-CHACHA20-POLY1305
TLS_PSK_WITH_AES_256_CCM_8 PSK-AES256-CCM8
TLS_PSK_WITH_AES_256_CCM PSK-AES256-CCM
TLS_PSK_WITH_ARIA_256_GCM_SHA384 PSK-ARIA256-GCM-SHA384
TLS_RSA_PSK_WITH_AES_128_GCM_SHA256 RSA-PSK-AES128-GCM-SHA256
TLS_DHE_PSK_WITH_AES_128_GCM_SHA256 DHE-PSK-AES128-GCM-SHA256
TLS_PSK_DHE_WITH_AES_128_CCM_8 DHE-PSK-AES128-CCM8
TLS_DHE_PSK_WITH_AES_128_CCM DHE-PSK-AES128-CCM
TLS_RSA_PSK_WITH_ARIA_128_GCM_SHA256 RSA-PSK-ARIA128-GCM-SHA256
TLS_DHE_PSK_WITH_ARIA_128_GCM_SHA256 DHE-PSK-ARIA128-GCM-SHA256
TLS_RSA_WITH_AES_128_GCM_SHA256 AES128-GCM-SHA256
TLS_RSA_WITH_AES_128_CCM_8 AES128-CCM8
TLS_RSA_WITH_AES_128_CCM AES128-CCM
TLS_RSA_WITH_ARIA_128_GCM_SHA256 ARIA128-GCM-SHA256
TLS_PSK_WITH_AES_128_GCM_SHA256 PSK-AES128-GCM-SHA256
TLS_PSK_WITH_AES_128_CCM_8 PSK-AES128-CCM8
TLS_PSK_WITH_AES_128_CCM PSK-AES128-CCM
TLS_PSK_WITH_ARIA_128_GCM_SHA256 PSK-ARIA128-GCM-SHA256
TLS_RSA_WITH_AES_256_CBC_SHA256 AES256-SHA256
TLS_RSA_WITH_CAMELLIA_256_CBC_SHA256 CAMELLIA256-SHA256
TLS_RSA_WITH_AES_128_CBC_SHA256 AES128-SHA256
TLS_RSA_WITH_CAMELLIA_128_CBC_SHA256 CAMELLIA128-SHA256
TLS_ECDHE_PSK_WITH_AES_256_CBC_SHA384 ECDHE-PSK-AES256-CBC-SHA384
TLS_ECDHE_PSK_WITH_AES_256_CBC_SHA ECDHE-PSK-AES256-CBC-SHA
TLS_RSA_PSK_WITH_AES_256_CBC_SHA384 RSA-PSK-AES256-CBC-SHA384
TLS_DHE_PSK_WITH_AES_256_CBC_SHA384 DHE-PSK-AES256-CBC-SHA384
TLS_RSA_PSK_WITH_AES_256_CBC_SHA RSA-PSK-AES256-CBC-SHA
TLS_DHE_PSK_WITH_AES_256_CBC_SHA DHE-PSK-AES256-CBC-SHA
TLS_ECDHE_PSK_WITH_CAMELLIA_256_CBC_SHA384 ECDHE-PSK-CAMELLIA256-SHA384
TLS_RSA_PSK_WITH_CAMELLIA_256_CBC_SHA384 RSA-PSK-CAMELLIA256-SHA384
TLS_DHE_PSK_WITH_CAMELLIA_256_CBC_SHA384 DHE-PSK-CAMELLIA256-SHA384
TLS_RSA_WITH_AES_256_CBC_SHA AES256-SHA
TLS_RSA_WITH_CAMELLIA_256_CBC_SHA CAMELLIA256-SHA
TLS_PSK_WITH_AES_256_CBC_SHA384 PSK-AES256-CBC-SHA384
TLS_PSK_WITH_AES_256_CBC_SHA PSK-AES256-CBC-SHA
TLS_PSK_WITH_CAMELLIA_256_CBC_SHA384 PSK-CAMELLIA256-SHA384
TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256 ECDHE-PSK-AES128-CBC-SHA256
TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA ECDHE-PSK-AES128-CBC-SHA
TLS_RSA_PSK_WITH_AES_128_CBC_SHA256 RSA-PSK-AES128-CBC-SHA256
TLS_DHE_PSK_WITH_AES_128_CBC_SHA256 DHE-PSK-AES128-CBC-SHA256
TLS_RSA_PSK_WITH_AES_128_CBC_SHA RSA-PSK-AES128-CBC-SHA
TLS_DHE_PSK_WITH_AES_128_CBC_SHA DHE-PSK-AES128-CBC-SHA
TLS_ECDHE_PSK_WITH_CAMELLIA_128_CBC_SHA256 ECDHE-PSK-CAMELLIA128-SHA256
TLS_RSA_PSK_WITH_CAMELLIA_128_CBC_SHA256 RSA-PSK-CAMELLIA128-SHA256
TLS_DHE_PSK_WITH_CAMELLIA_128_CBC_SHA256 DHE-PSK-CAMELLIA128-SHA256
TLS_RSA_WITH_AES_128_CBC_SHA AES128-SHA
TLS_RSA_WITH_CAMELLIA_128_CBC_SHA CAMELLIA128-SHA
TLS_PSK_WITH_AES_128_CBC_SHA256 PSK-AES128-CBC-SHA256
TLS_PSK_WITH_AES_128_CBC_SHA PSK-AES128-CBC-SHA
TLS_PSK_WITH_CAMELLIA_128_CBC_SHA256 PSK-CAMELLIA128-SHA256
TLS_ECDHE_ECDSA_WITH_NULL_SHA ECDHE-ECDSA-NULL-SHA
TLS_ECDHE_RSA_WITH_NULL_SHA ECDHE-RSA-NULL-SHA
TLS_ECDH_anon_WITH_NULL_SHA AECDH-NULL-SHA
TLS_RSA_WITH_NULL_SHA256 NULL-SHA256
TLS_ECDHE_PSK_WITH_NULL_SHA384 ECDHE-PSK-NULL-SHA384
TLS_ECDHE_PSK_WITH_NULL_SHA256 ECDHE-PSK-NULL-SHA256
TLS_ECDHE_PSK_WITH_NULL_SHA ECDHE-PSK-NULL-SHA
TLS_RSA_PSK_WITH_NULL_SHA384 RSA-PSK-NULL-SHA384
TLS_RSA_PSK_WITH_NULL_SHA256 RSA-PSK-NULL-SHA256
TLS_DHE_PSK_WITH_NULL_SHA384 DHE-PSK-NULL-SHA384
TLS_DHE_PSK_WITH_NULL_SHA256 DHE-PSK-NULL-SHA256
TLS_RSA_PSK_WITH_NULL_SHA RSA-PSK-NULL-SHA
TLS_DHE_PSK_WITH_NULL_SHA DHE-PSK-NULL-SHA
TLS_RSA_WITH_NULL_SHA NULL-SHA
TLS_RSA_WITH_NULL_MD5 NULL-MD5
TLS_PSK_WITH_NULL_SHA384 PSK-NULL-SHA384
TLS_PSK_WITH_NULL_SHA256 PSK-NULL-SHA256
TLS_PSK_WITH_NULL_SHA PSK-NULL-SHA"""
