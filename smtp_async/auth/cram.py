"""CRAM-MD5, RFC 2195: an HMAC of the server's challenge, keyed with the password."""

from __future__ import annotations

import hmac
from typing import ClassVar

from ..errors import FeatureUnavailable, ProtocolViolation
from ..model.secret import Secret
from .credentials import Strength
from .mechanism import Exposure, Mechanism, encoded

__all__ = ["CramMD5"]


class CramMD5(Mechanism):
    """CRAM-MD5, RFC 2195.

    The server learns nothing that it could use elsewhere. But the server must store the password in clear and is not
    authenticated, and an eavesdropper can test guessed passwords against the digest offline.
    """

    name: ClassVar[str] = "CRAM-MD5"
    strength: ClassVar[Strength] = Strength.PROVED
    exposes: ClassVar[Exposure] = Exposure.GUESSES
    _hex = b""

    def initial_response(self) -> None:
        """Return None: the server sends its challenge first."""
        return None

    def respond(self, challenge: bytes) -> bytes:
        """Return `username SP digest`, the digest in lower-case hexadecimal.

        Raises:
            ProtocolViolation: the challenge is empty, or the second one.
            FeatureUnavailable: the TLS library of this machine has no MD5 (FIPS).
            InvalidArgument: the credentials do not fit the mechanism.
        """
        if not challenge or self.complete:
            what = "sent a second challenge" if self.complete else "sent an empty challenge"
            raise ProtocolViolation(f"CRAM-MD5 has one challenge, but the server {what}", stage="AUTH")
        username = encoded(self._credentials.username, "user name")
        digest = _digest(self._credentials.password, challenge)
        if digest is None:
            raise FeatureUnavailable("CRAM-MD5 needs MD5", needs="a TLS library that offers MD5")
        self.complete = True
        self._hex = digest.hex().encode()
        return username + b" " + self._hex

    def secrets(self) -> tuple[bytes, ...]:
        """Return the digest, against which guessed passwords can be tested; the password was not sent."""
        return (self._hex,) if self.complete else ()


def _digest(password: Secret, challenge: bytes) -> bytes | None:
    # Outside the `try`, so that an encoding error is not reported as a missing MD5.
    key = encoded(password, "password")
    # Returns None instead of raising, because a traceback would hold the key among the local variables.
    try:
        return hmac.digest(key, challenge, "md5")
    except ValueError:
        return None
