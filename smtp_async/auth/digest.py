"""DIGEST-MD5, RFC 2831: obsolete since RFC 6331, but the best mechanism of some old servers.

Only authentication (qop=auth) without a security layer, because TLS protects the connection. The server authenticates
itself with `rspauth`, without which a login fails.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from typing import ClassVar, Final

from ..errors import FeatureUnavailable, InvalidArgument, ProtocolViolation
from ..model.secret import Secret
from .credentials import Credentials, Strength
from .mechanism import UNKNOWN_PEER, Exposure, Mechanism, Peer, encoded

__all__ = ["DigestMD5", "parse_directives"]

#: RFC 2831 section 2.1.1: a challenge is shorter than 2,048 octets.
_LONGEST: Final = 2048
#: One directive: a name, "=", and a token or a quoted string; commas around it, empty elements among them.
_DIRECTIVE: Final = re.compile(
    rb"""[\s,]* ([!#$%&'*+.^_`|~0-9A-Za-z-]+) \s*=\s* (?: "((?:[^"\\]|\\.)*)" | ([^\s,"]*) ) \s* (?=,|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_END: Final = re.compile(rb"[\s,]*")
_QUOTED: Final = re.compile(rb"\\(.)", re.DOTALL)
#: The count of requests with one nonce: there is one.
_COUNT: Final = b"00000001"


def parse_directives(text: bytes) -> list[tuple[str, bytes]]:
    """Return the directives of a challenge in order, names in lower case, values without quotes.

    Raises:
        ProtocolViolation: the text is not a list of directives, or too long.
    """
    if len(text) > _LONGEST:
        raise ProtocolViolation(f"a DIGEST-MD5 challenge of {len(text)} octets is too long", stage="AUTH")
    found = []
    at = 0
    while at < len(text):
        one = _DIRECTIVE.match(text, at)
        if one is None:
            if _END.fullmatch(text, at):
                break
            raise ProtocolViolation("a DIGEST-MD5 challenge is not a list of directives", stage="AUTH")
        name, quoted, token = one.groups()
        value = token if quoted is None else _QUOTED.sub(rb"\1", quoted)
        found.append((name.decode("ascii").lower(), value))
        at = one.end()
    return found


class DigestMD5(Mechanism):
    """DIGEST-MD5, RFC 2831, with qop=auth.

    Args:
        credentials, peer: as `Mechanism`. A user name `user@realm` chooses one of several realms.
        nonce: the client's nonce; random by default.
    """

    name: ClassVar[str] = "DIGEST-MD5"
    strength: ClassVar[Strength] = Strength.PROVED
    exposes: ClassVar[Exposure] = Exposure.GUESSES
    takes_authzid: ClassVar[bool] = True

    def __init__(
        self, credentials: Credentials, peer: Peer = UNKNOWN_PEER, *, nonce: str | None = None
    ) -> None:
        super().__init__(credentials, peer)
        self._nonce = nonce.encode() if nonce is not None else base64.b64encode(os.urandom(24))
        self._expected: bytes | None = None
        self._response = b""

    def initial_response(self) -> None:
        """Return None: the server sends its challenge first."""
        return None

    def respond(self, challenge: bytes) -> bytes:
        """Return the digest for the first challenge, an empty response to the server's proof.

        Raises:
            ProtocolViolation: the challenge is malformed, does not offer qop=auth, or has no valid proof.
            FeatureUnavailable: the TLS library of this machine has no MD5 (FIPS).
            InvalidArgument: the credentials do not fit the mechanism.
        """
        if self.complete:
            raise ProtocolViolation(
                "DIGEST-MD5 has two challenges, but the server sent a third", stage="AUTH"
            )
        directives = parse_directives(challenge)
        if self._expected is None:
            return self._answer(directives)
        self._verify(dict(directives))
        return b""

    def secrets(self) -> tuple[bytes, ...]:
        """Return the digest, against which guessed passwords can be tested; the password was not sent."""
        return (self._response,) if self._response and not self.complete else ()

    def _verify(self, directives: dict[str, bytes]) -> None:
        proof = directives.get("rspauth", b"")
        if not hmac.compare_digest(proof, self._expected or b""):
            raise ProtocolViolation(
                "the server did not prove that it knows the password (rspauth)", stage="AUTH"
            )
        self.complete = True

    def _answer(self, directives: list[tuple[str, bytes]]) -> bytes:
        values = dict(directives)
        nonce = _demand_supported(directives, values)
        credentials, peer = self._credentials, self._peer
        # Without charset=utf-8 everything is ISO 8859-1.
        utf8 = values.get("charset", b"").lower() == b"utf-8"
        username, realm = self._account([value for name, value in directives if name == "realm"], utf8=utf8)
        authzid = encoded(credentials.authzid, "authzid")
        uri = f"{peer.service}/{peer.host}".encode()
        key = _key(username, realm, credentials.password, utf8=utf8)
        a1 = key + b":" + nonce + b":" + self._nonce + (b":" + authzid if authzid else b"")
        digests = [
            _md5(b":".join((_md5(a1), nonce, _COUNT, self._nonce, b"auth", _md5(method + b":" + uri))))
            for method in (b"AUTHENTICATE", b"")
        ]
        self._response, self._expected = digests
        parts = [b"charset=utf-8"] if utf8 else []
        parts.append(b"username=" + _quote(username))
        if any(name == "realm" for name, _ in directives):
            parts.append(b"realm=" + _quote(realm))
        parts += [
            b"nonce=" + _quote(nonce),
            b"nc=" + _COUNT,
            b"cnonce=" + _quote(self._nonce),
            b"digest-uri=" + _quote(uri),
            b"response=" + self._response,
            b"qop=auth",
        ]
        if authzid:
            parts.append(b"authzid=" + _quote(authzid))
        return b",".join(parts)

    def _account(self, realms: list[bytes], *, utf8: bool) -> tuple[bytes, bytes]:
        """Return user name and realm: the offered realm at the end of the user name, or else the first one."""
        username = self._credentials.username
        found = _text(username, "user name", utf8=utf8)
        name, at, realm = found.rpartition(b"@")
        if at and len(realms) > 1 and realm in realms:
            return name, realm
        return found, realms[0] if realms else b""


def _demand_supported(directives: list[tuple[str, bytes]], values: dict[str, bytes]) -> bytes:
    """Check the demands of the server and return its nonce."""
    if sum(name == "nonce" for name, _ in directives) != 1 or not values["nonce"]:
        raise ProtocolViolation("a DIGEST-MD5 challenge has one nonce", stage="AUTH")
    if values.get("algorithm", b"").lower() != b"md5-sess":
        raise ProtocolViolation("a DIGEST-MD5 challenge has the algorithm md5-sess", stage="AUTH")
    qops = re.split(rb"[\s,]+", values.get("qop", b"auth").lower())
    if b"auth" not in qops:
        raise ProtocolViolation(
            "the server demands a security layer of DIGEST-MD5, in place of TLS", stage="AUTH"
        )
    return values["nonce"]


def _text(text: str | Secret, what: str, *, utf8: bool) -> bytes:
    found = encoded(text, what)
    narrow = found if utf8 else _latin1(found)
    if narrow is None:
        raise InvalidArgument(f"the {what} does not fit into ISO 8859-1, the only charset of the server")
    return narrow


def _latin1(text: bytes) -> bytes | None:
    """Convert UTF-8 to ISO 8859-1; return None if that is impossible, because an error would contain the text."""
    try:
        return text.decode().encode("latin-1")
    except UnicodeError:
        return None


def _key(username: bytes, realm: bytes, password: Secret, *, utf8: bool) -> bytes:
    """Return the digest of the account, in ISO 8859-1 if its texts fit into that, RFC 2831 section 2.1.2.1."""
    known = [username, realm, _text(password, "password", utf8=utf8)]
    if utf8:
        narrow = [_latin1(one) for one in known]
        known = [one if found is None else found for one, found in zip(known, narrow, strict=True)]
    return _md5(b":".join(known), binary=True)


def _md5(text: bytes, *, binary: bool = False) -> bytes:
    digest = _try_md5(text)
    if digest is None:
        raise FeatureUnavailable("DIGEST-MD5 needs MD5", needs="a TLS library that offers MD5")
    return digest if binary else digest.hex().encode()


def _try_md5(text: bytes) -> bytes | None:
    # Returns None instead of raising, because a traceback would hold the text among the local variables.
    try:
        return hashlib.md5(text, usedforsecurity=False).digest()
    except ValueError:
        return None


def _quote(text: bytes) -> bytes:
    return b'"' + re.sub(rb'(["\\])', rb"\\\1", text) + b'"'
