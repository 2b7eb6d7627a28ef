"""PLAIN and LOGIN: mechanisms that send the password itself."""

from __future__ import annotations

from typing import ClassVar

from ..errors import ProtocolViolation
from .credentials import Credentials
from .mechanism import UNKNOWN_PEER, Mechanism, Peer, encoded

__all__ = ["Login", "Plain"]


class Plain(Mechanism):
    """PLAIN, RFC 4616: one message with user name and password."""

    name: ClassVar[str] = "PLAIN"
    takes_authzid: ClassVar[bool] = True

    def initial_response(self) -> bytes:
        """Return `authzid NUL username NUL password`."""
        return self._message()

    def respond(self, challenge: bytes) -> bytes:
        """Return the message for the empty challenge of a server that got no initial response."""
        if challenge or self.complete:
            # The password is sent only once, because a server that asks again has received it.
            raise ProtocolViolation("PLAIN has no challenge, but the server sent one", stage="AUTH")
        return self._message()

    def secrets(self) -> tuple[bytes, ...]:
        """Return the password; the user name is not a secret."""
        return (encoded(self._credentials.password, "password"),)

    def _message(self) -> bytes:
        credentials = self._credentials
        message = b"\0".join(
            (
                encoded(credentials.authzid, "authzid"),
                encoded(credentials.username, "user name"),
                encoded(credentials.password, "password"),
            )
        )
        self.complete = True
        return message


class Login(Mechanism):
    """LOGIN, never standardised (draft-murchison-sasl-login): the server prompts for user name, then password.

    The prompts differ between servers, and some are not base64. The draft tells clients to ignore their text, so they
    are counted and not read.
    """

    name: ClassVar[str] = "LOGIN"

    def __init__(self, credentials: Credentials, peer: Peer = UNKNOWN_PEER) -> None:
        super().__init__(credentials, peer)
        self._asked = 0

    def initial_response(self) -> None:
        """Return None, because the server prompts first."""
        return None

    def challenge(self, text: bytes) -> bytes:
        """Return b"", because the text of a prompt is ignored."""
        return b""

    def respond(self, challenge: bytes) -> bytes:
        """Return the user name for the first prompt, the password for the second."""
        self._asked += 1
        if self._asked == 1:
            return encoded(self._credentials.username, "user name")
        if self._asked == 2:
            password = encoded(self._credentials.password, "password")
            self.complete = True
            return password
        raise ProtocolViolation("LOGIN asks for user and password, but the server asked again", stage="AUTH")

    def secrets(self) -> tuple[bytes, ...]:
        """Return the password if it was sent; the user name is not a secret."""
        return (encoded(self._credentials.password, "password"),) if self.complete else ()
