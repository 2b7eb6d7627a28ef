"""The offers of a client, by the names that users write: cipher suites, groups, signature schemes, profiles.

Each name is resolved when the options are made, so that a wrong name is an error there and not in a handshake. A choice
that this Python cannot make before a handshake raises `FeatureUnavailable`, unless it can be checked afterwards, see
`smtp_async.tls.requirements`.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from ..errors import FeatureUnavailable, InvalidArgument, TLSLibraryError
from .suites import Suite, find_group, find_suite, scheme_named

__all__ = [
    "CipherChoice",
    "TLSProfile",
    "can_choose_groups",
    "can_choose_key_shares",
    "can_choose_schemes",
    "can_choose_tls13_suites",
    "can_see_schemes",
    "can_use_shared_keys",
    "openssl_group",
    "read_ciphers",
    "read_groups",
    "read_key_shares",
    "read_schemes",
]

#: Suites of TLS 1.3 that OpenSSL offers by default.
_OFFERED_BY_DEFAULT: Final = frozenset(
    {"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"}
)
#: OpenSSL's names of groups that differ from IANA's.
_GROUPS: Final = {"secp256r1": "prime256v1", "x25519": "X25519", "x448": "X448"}
#: Other accepted names of groups, in lower case, without the prefix before "_".
_GROUP_ALIASES: Final = {
    "prime256v1": "secp256r1",
    "p-256": "secp256r1",
    "p-384": "secp384r1",
    "p-521": "secp521r1",
}
#: The schemes for a pair of hash and kind of key, by the kind.
_KEY_SCHEMES: Final = {
    "rsa": "rsa_pkcs1_{}",
    "dsa": "dsa_{}",
    "ecdsa": "ecdsa_{}",
}
_CURVES: Final = {"sha256": "secp256r1_", "sha384": "secp384r1_", "sha512": "secp521r1_"}


class TLSProfile(Enum):
    """What is offered unless another option overrides it."""

    #: TLS 1.2 and 1.3, with the suites that Python chooses: forward secrecy, no SHA-1.
    DEFAULT = "default"
    #: TLS 1.2 and 1.3, with every suite in OpenSSL's default list, also without forward secrecy and with SHA-1, and
    #: keys of 80 bits of strength (RSA of 1024). For servers that support nothing better.
    COMPATIBLE = "compatible"
    #: TLS 1.2 and 1.3, with elliptic curves and authenticated encryption only.
    HIGHLY_SECURE = "highly secure"

    @property
    def ciphers(self) -> str | None:
        """OpenSSL's list up to TLS 1.2; None keeps Python's choice."""
        return _PROFILES[self]


_PROFILES: Final = {
    TLSProfile.DEFAULT: None,
    TLSProfile.COMPATIBLE: "DEFAULT:@SECLEVEL=1",
    TLSProfile.HIGHLY_SECURE: "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!PSK:@SECLEVEL=2",
}


def can_choose_tls13_suites() -> bool:
    """Tell whether this Python can choose the suites of TLS 1.3 (3.15 or later)."""
    return hasattr(ssl.SSLContext, "set_ciphersuites")


def can_choose_groups() -> bool:
    """Tell whether this Python can offer a list of groups (3.15 or later; earlier, one group or OpenSSL's list)."""
    return hasattr(ssl.SSLContext, "set_groups")


def can_choose_key_shares() -> bool:
    """Tell whether this Python can choose the groups for which a key is sent at once (3.15, with OpenSSL 3.5)."""
    return can_choose_groups() and ssl.OPENSSL_VERSION_INFO >= (3, 5)


def can_see_schemes() -> bool:
    """Tell whether this Python can observe the signature scheme of a handshake."""
    return hasattr(ssl.SSLContext, "_msg_callback")


def can_choose_schemes() -> bool:
    """Tell whether this Python can choose signature schemes (3.15 or later)."""
    return hasattr(ssl.SSLContext, "set_server_sigalgs")


def can_use_shared_keys() -> bool:
    """Tell whether this Python and its OpenSSL can use pre-shared keys (3.13 or later)."""
    return getattr(ssl, "HAS_PSK", False)


# --- cipher suites -------------------------------------------------------------------------------------------


class CipherChoice(NamedTuple):
    """Suites to offer.

    Attributes:
        up_to_tls12: OpenSSL's list for TLS up to 1.2; None keeps that of the profile.
        tls13: names of the suites of TLS 1.3; None keeps those of OpenSSL.
    """

    up_to_tls12: str | None = None
    tls13: tuple[str, ...] | None = None

    @property
    def only_tls13(self) -> bool:
        """Whether only suites of TLS 1.3 are named."""
        return self.tls13 is not None and self.up_to_tls12 is None


def read_ciphers(given: str | Sequence[str] | None) -> CipherChoice:
    """Parse a cipher list of OpenSSL, or IANA's names of suites, or a mixture.

    Args:
        given: names in one text, separated by colons, commas, semicolons or blanks, or a sequence of names.

    Raises:
        InvalidArgument: no suite is named, or a suite of TLS 1.3 has a prefix such as `!`.
        TLSLibraryError: OpenSSL finds no suite in the list (270), or a name is not that of a suite.
        FeatureUnavailable: OpenSSL no longer supports a suite, or this Python cannot choose it.
    """
    if given is None:
        return CipherChoice()
    words = re.split(r"[:,;\s]+", given) if isinstance(given, str) else list(given)
    words = [word.strip() for word in words if word.strip()]
    if not words:
        raise InvalidArgument("ciphers names no cipher suite: leave it out, or name one")
    old: list[str] = []
    new: list[str] = []
    for word in words:
        suite = _suite_in(word)
        if suite is None:
            old.append(word)
        elif suite.key_exchange is None:
            new.append(_of_tls13(suite, word))
        else:
            old.append(word[: len(word) - len(word.lstrip("!-+"))] + _openssl_name(suite))
    up_to_tls12 = ":".join(old) or None
    if up_to_tls12 is not None:
        _try(up_to_tls12)
    return CipherChoice(up_to_tls12, tuple(new) or None)


def _suite_in(word: str) -> Suite | None:
    """Return the suite with this IANA name; None leaves the word to OpenSSL."""
    name = word.lstrip("!-+")
    if not name.upper().startswith("TLS_"):
        return None
    suite = find_suite(name)
    if suite is None:
        raise TLSLibraryError(f"{name} is no name of a cipher suite")
    return suite


def _openssl_name(suite: Suite) -> str:
    if suite.openssl_name is None:
        raise FeatureUnavailable(
            f"OpenSSL does not speak the cipher suite {suite.name} any more", needs="another TLS library"
        )
    return suite.openssl_name


def _of_tls13(suite: Suite, word: str) -> str:
    if word[0] in "!-+":
        raise InvalidArgument(f"{word}: name the suites of TLS 1.3 without a prefix")
    if suite.name not in _OFFERED_BY_DEFAULT and not can_choose_tls13_suites():
        raise FeatureUnavailable(
            f"this Python cannot offer the cipher suite {suite.name} of TLS 1.3", needs="Python 3.15"
        )
    return _openssl_name(suite)


def _try(ciphers: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(ciphers)
    except (ssl.SSLError, ValueError) as error:
        raise TLSLibraryError(f"OpenSSL finds no cipher suite in {ciphers!r}") from error


# --- groups --------------------------------------------------------------------------------------------------


def read_groups(given: Sequence[str]) -> tuple[str, ...]:
    """Return IANA's names of groups; names of OpenSSL and NIST, and `ecdhe_secp256r1`, are accepted, too.

    Raises:
        InvalidArgument: a name is not that of a group.
        FeatureUnavailable: this Python cannot offer more than one group.
    """
    names = tuple(_group_named(one) for one in given)
    if len(names) > 1 and not can_choose_groups():
        raise FeatureUnavailable(
            "this Python can offer one group for the key exchange, or those of OpenSSL, but no list of groups",
            needs="Python 3.15",
        )
    return names


def read_key_shares(given: Sequence[str], groups: tuple[str, ...]) -> tuple[str, ...]:
    """Return IANA's names of the groups for which keys are sent at once.

    Args:
        given: the names.
        groups: all offered groups.

    Raises:
        InvalidArgument: a name is not that of a group, or is not among `groups`.
        FeatureUnavailable: this Python or its OpenSSL sends a key for the first group only.
    """
    names = tuple(_group_named(one) for one in given)
    for name in names:
        if name not in groups:
            raise InvalidArgument(f"a key is sent for {name}, which is not among groups: name it there, too")
    if names not in ((), groups[:1]) and not can_choose_key_shares():
        raise FeatureUnavailable(
            "this Python sends a key for the first of the groups only", needs="Python 3.15 with OpenSSL 3.5"
        )
    return names


def _group_named(given: str) -> str:
    name = given.strip().lower().removeprefix("ecdhe_").replace("ffdhe_", "ffdhe")
    group = find_group(_GROUP_ALIASES.get(name, name))
    if group is None:
        raise InvalidArgument(f"{given!r} is no name of a group for the key exchange")
    return group.name


def openssl_group(name: str) -> str:
    """Return OpenSSL's name of a group, given IANA's."""
    return _GROUPS.get(name, name)


# --- signature schemes ---------------------------------------------------------------------------------------


def read_schemes(given: Sequence[str]) -> tuple[str, ...]:
    """Return IANA's names of signature schemes; forms like `rsa_pss_sha256` and `sha256-rsa` are accepted, too.

    Raises:
        InvalidArgument: a name is not that of a scheme.
        FeatureUnavailable: this Python can neither choose schemes nor observe which one was used.
    """
    if given and not can_choose_schemes() and not can_see_schemes():
        raise FeatureUnavailable("this Python cannot choose signature algorithms", needs="Python 3.15")
    return tuple(_scheme_named(one) for one in given)


def _scheme_named(given: str) -> str:
    name = given.strip().lower()
    digest, dash, key = name.partition("-")
    if dash and key in _KEY_SCHEMES:
        curve = _CURVES.get(digest, "") if key == "ecdsa" else ""
        name = _KEY_SCHEMES[key].format(curve + digest)
    found = scheme_named(re.sub(r"\Arsa_pss_(sha\d+)\Z", r"rsa_pss_rsae_\1", name))
    if found is None:
        raise InvalidArgument(f"{given!r} is no name of a signature algorithm of TLS")
    return found
