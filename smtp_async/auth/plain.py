"""PLAIN and LOGIN: the password itself, in two wrappings."""

from __future__ import annotations

from typing import ClassVar

from ..errors import InvalidArgument, ProtocolViolation
from ..model.secret import Secret
from .mechanism import Credentials, Mechanism

__all__ = ["Login", "Plain", "encoded"]


def encoded(text: str | Secret, what: str) -> bytes:
    """Return the UTF-8 of a user name or password.

    Args:
        text: it; a secret is revealed here and nowhere else.
        what: its name, for the error.

    Raises:
        InvalidArgument: it contains NUL, or half of a surrogate pair. The error does not show it.
    """
    found = _utf8(text)
    if found is None:
        raise InvalidArgument(f"the {what} contains NUL or is not valid text")
    return found


def _utf8(text: str | Secret) -> bytes | None:
    # Returns instead of raising: a UnicodeEncodeError carries the text, and so would this function's frame.
    try:
        found = (text.reveal() if isinstance(text, Secret) else text).encode()
    except UnicodeEncodeError:
        return None
    return None if b"\0" in found else found


class Plain(Mechanism):
    """PLAIN, RFC 4616: one message with all of it."""

    name: ClassVar[str] = "PLAIN"

    def initial_response(self) -> bytes:
        """Return `authzid NUL username NUL password`."""
        return self._message()

    def respond(self, challenge: bytes) -> bytes:
        """Return the message for the empty challenge of a server that got no initial response."""
        if challenge or self.complete:
            # Said once, not twice: the server has what it needs, or wants what it should not get.
            raise ProtocolViolation("PLAIN has no challenge, but the server sent one", stage="AUTH")
        return self._message()

    def secrets(self) -> tuple[bytes, ...]:
        """Return the password; the user name is none."""
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
    """LOGIN, never standardised (draft-murchison-sasl-login): the server asks twice, for user and password.

    The prompts differ from server to server, and some are not even base64. The draft has clients ignore them, so they
    are counted, not read.
    """

    name: ClassVar[str] = "LOGIN"

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self._asked = 0

    def initial_response(self) -> None:
        """Return None: the server asks."""
        return None

    def challenge(self, text: bytes) -> bytes:
        """Return nothing: a prompt is ignored."""
        return b""

    def respond(self, challenge: bytes) -> bytes:
        """Return the user name for the first challenge, the password for the second."""
        self._asked += 1
        if self._asked == 1:
            return encoded(self._credentials.username, "user name")
        if self._asked == 2:
            password = encoded(self._credentials.password, "password")
            self.complete = True
            return password
        raise ProtocolViolation("LOGIN asks for user and password, but the server asked again", stage="AUTH")

    def secrets(self) -> tuple[bytes, ...]:
        """Return the password once it was asked for; the user name is no secret."""
        return (encoded(self._credentials.password, "password"),) if self.complete else ()
