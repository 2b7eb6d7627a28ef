"""XOAUTH2 and OAUTHBEARER: an OAuth 2.0 access token in place of a password.

A server that refuses the token sends the reason in a challenge, JSON with a status, and waits for a response before it
sends 535 (RFC 7628 section 3.2.2). Without that response, both sides wait.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Final

from ..errors import InvalidArgument, ProtocolViolation
from ..model.reply import printable
from ..model.secret import Mask, Secret
from .credentials import Credentials
from .mechanism import UNKNOWN_PEER, Mechanism, Needs, Peer, encoded

__all__ = ["OAuthBearer", "XOAuth2"]

#: Separates the fields of a message, and cannot occur in a field.
_SEPARATOR: Final = b"\x01"
_FORBIDDEN: Final = bytes(range(32)) + b"\x7f"
#: Maximum of characters of a field in the server's explanation.
_LONGEST: Final = 200


class _TokenMessage(Mechanism):
    """A mechanism with one message, the token, and an explanation of the server if it refuses the token."""

    needs: ClassVar[Needs] = Needs.TOKEN
    #: The response to the explanation.
    acknowledgement: ClassVar[bytes]

    def __init__(self, credentials: Credentials, peer: Peer = UNKNOWN_PEER) -> None:
        super().__init__(credentials, peer)
        self._explained = False

    def initial_response(self) -> bytes:
        """Return the message with the token."""
        message = self._message()
        self.complete = True
        return message

    def respond(self, challenge: bytes) -> bytes:
        """Return the message if the challenge is empty, or acknowledge the server's explanation.

        Raises:
            ProtocolViolation: the server sends another challenge.
        """
        if not self.complete and not self._explained:
            if challenge:
                raise ProtocolViolation(
                    f"{self.name} has no challenge, but the server sent one", stage="AUTH"
                )
            return self.initial_response()
        if self._explained:
            raise ProtocolViolation(f"{self.name}: the server sent a second explanation", stage="AUTH")
        self._explained = True
        # A 235 must not follow.
        self.complete = False
        self.explanation = _explanation(challenge, self._token())
        return self.acknowledgement

    @property
    def revealed(self) -> bool:
        """Whether the token was sent."""
        return self.complete or self._explained

    def secrets(self) -> tuple[bytes, ...]:
        """Return the token if it was sent."""
        return () if self._explained else (self._token(),)

    def _token(self) -> bytes:
        token = self._credentials.token
        if not isinstance(token, Secret):
            raise InvalidArgument(f"{self.name} needs a token")
        return encoded(token, "token", forbidden=_FORBIDDEN + b" ")

    @abstractmethod
    def _message(self) -> bytes:
        """Return the message that holds the token."""


class XOAuth2(_TokenMessage):
    """XOAUTH2, defined by Google and Microsoft: `user=` and `auth=Bearer`, each ended by 0x01."""

    name: ClassVar[str] = "XOAUTH2"
    acknowledgement: ClassVar[bytes] = b""

    @classmethod
    def objection(cls, credentials: Credentials, peer: Peer) -> str:
        """Return that the user name is missing, if so."""
        return "" if credentials.username else "it needs a user name"

    def _message(self) -> bytes:
        username = encoded(self._credentials.username, "user name", forbidden=_FORBIDDEN)
        return b"user=%b\x01auth=Bearer %b\x01\x01" % (username, self._token())


class OAuthBearer(_TokenMessage):
    """OAUTHBEARER, RFC 7628: a GS2 header with the account, host and port, and the token."""

    name: ClassVar[str] = "OAUTHBEARER"
    takes_authzid: ClassVar[bool] = True
    acknowledgement: ClassVar[bytes] = _SEPARATOR

    def _message(self) -> bytes:
        credentials, peer = self._credentials, self._peer
        account = encoded(credentials.authzid or credentials.username, "user name", forbidden=_FORBIDDEN)
        # RFC 5801 section 4: characters that separate the parts of the header are escaped.
        account = account.replace(b"=", b"=3D").replace(b",", b"=2C")
        fields = [b"n,a=%b," % account if account else b"n,,"]
        if peer.host:
            fields.append(b"host=%b" % encoded(peer.host, "host", forbidden=_FORBIDDEN))
        if peer.port:
            fields.append(b"port=%d" % peer.port)
        return _SEPARATOR.join([*fields, b"auth=Bearer %b" % self._token(), b"", b""])


#: The fields of the explanation, RFC 7628 section 3.2.2, and their names in messages.
_FIELDS: Final = (
    ("status", "status"),
    ("schemes", "schemes"),
    ("scope", "scope"),
    ("openid-configuration", "see"),
)


def _explanation(challenge: bytes, token: bytes) -> str:
    """Return status, scope and address from a server's JSON as a text, empty for any other challenge.

    Args:
        challenge: the JSON.
        token: the token that was sent, which a server may repeat; no part of it is returned.
    """
    import json

    try:
        found: Any = json.loads(challenge)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(found, dict):
        return ""
    mask = Mask()
    mask.add_secrets((token,))
    mask.add_sent(token)
    words = []
    for key, what in _FIELDS:
        value = found.get(key)
        if isinstance(value, str | int) and str(value):
            text = mask(str(value).encode("utf-8", "backslashreplace")).decode("utf-8", "replace")
            words.append(f"{what} {printable(text, _LONGEST)}")
    return ", ".join(words)
