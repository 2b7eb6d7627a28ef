"""Digest authentication for CONNECT, RFC 7616: qop=auth, or none as in RFC 2069."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

from ...model.secret import Secret

__all__ = ["answer_digest", "digest_strength"]

#: Names of the algorithms as RFC 7616 section 6.1 has them, and as hashlib has them; the strongest last.
_HASHES: Final = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}
#: The first request with each nonce: a connection sends one.
_COUNT: Final = "00000001"


def digest_strength(parameters: dict[str, str]) -> int:
    """Return how strong the algorithm of a challenge is, 0 if the challenge cannot be answered."""
    qops = {qop.strip().lower() for qop in parameters.get("qop", "auth").split(",")}
    name, _ = _algorithm(parameters)
    if not parameters.get("nonce") or "auth" not in qops or name not in _HASHES:
        return 0
    return 1 + list(_HASHES).index(name) if _hash_of(name, b"") is not None else 0


def answer_digest(
    parameters: dict[str, str], username: str, password: Secret, target: str, *, cnonce: str | None = None
) -> str:
    """Return the value of Proxy-Authorization for a CONNECT to `target`.

    Args:
        parameters: those of a challenge whose `digest_strength` is not 0.
        username, password: the account.
        target: the request's target, host and port.
        cnonce: this side's nonce; random by default.
    """
    name, session = _algorithm(parameters)
    realm, nonce = parameters.get("realm", ""), parameters["nonce"]
    cnonce = cnonce or secrets.token_urlsafe(18)
    utf8 = parameters.get("charset", "").lower() == "utf-8"
    key = _hash(name, _encoded(f"{username}:{realm}:", utf8=utf8) + _encoded(password.reveal(), utf8=utf8))
    if session:
        key = _hash(name, f"{key}:{nonce}:{cnonce}".encode("latin-1"))
    request = _hash(name, f"CONNECT:{target}".encode())
    # Without qop there is neither a count nor a nonce of the client's (RFC 7616 section 3.4.1).
    between = f"{nonce}:{_COUNT}:{cnonce}:auth" if "qop" in parameters else nonce
    response = _hash(name, f"{key}:{between}:{request}".encode("latin-1"))
    hashed = parameters.get("userhash", "").lower() == "true"
    shown = _hash(name, _encoded(f"{username}:{realm}", utf8=utf8)) if hashed else username
    fields = [f"username={_quoted(_encoded(shown, utf8=utf8).decode('latin-1'))}", f"realm={_quoted(realm)}"]
    fields += [f"nonce={_quoted(nonce)}", f"uri={_quoted(target)}", f'response="{response}"']
    if "algorithm" in parameters:
        fields.append(f"algorithm={parameters['algorithm']}")
    if "opaque" in parameters:
        fields.append(f"opaque={_quoted(parameters['opaque'])}")
    if "qop" in parameters:
        fields += ["qop=auth", f"nc={_COUNT}", f'cnonce="{cnonce}"']
    if hashed:
        fields.append("userhash=true")
    return "Digest " + ", ".join(fields)


def _algorithm(parameters: dict[str, str]) -> tuple[str, bool]:
    name = parameters.get("algorithm", "MD5").upper()
    return name.removesuffix("-SESS"), name.endswith("-SESS")


def _encoded(text: str, *, utf8: bool) -> bytes:
    """Return `text` in UTF-8 where the proxy says so or needs it, in ISO 8859-1 otherwise."""
    narrow = all(character <= "\xff" for character in text)
    return text.encode("latin-1" if narrow and not utf8 else "utf-8")


def _hash(name: str, data: bytes) -> str:
    digest = _hash_of(name, data)
    assert digest is not None
    return digest


def _hash_of(name: str, data: bytes) -> str | None:
    # None instead of an error, because a traceback would hold the data; some TLS libraries have no MD5 (FIPS).
    try:
        return hashlib.new(_HASHES[name], data, usedforsecurity=False).hexdigest()
    except ValueError:
        return None


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
