"""PLAIN and LOGIN: mechanisms that send the password itself."""

from __future__ import annotations

from typing import ClassVar

from ..errors import InvalidArgument, ProtocolViolation
from ..model.secret import Secret
from .credentials import Credentials
from .mechanism import Mechanism

__all__ = ["Login", "Plain", "encoded"]


def encoded(text: str | Secret, what: str) -> bytes:
    """Return the UTF-8 of a user name or password.

    Args:
        text: the user name or password; only this function reveals a secret.
        what: what the text is, for the error.

    Raises:
        InvalidArgument: the text contains NUL, or half of a surrogate pair. The error does not show the text.
    """
    found = _utf8(text)
    if found is None:
        raise InvalidArgument(f"the {what} contains NUL or is not valid text")
    return found


def _utf8(text: str | Secret) -> bytes | None:
    # Returns None instead of raising, because a UnicodeEncodeError and this function's frame would hold the text.
    try:
        found = (text.reveal() if isinstance(text, Secret) else text).encode()
    except UnicodeEncodeError:
        return None
    return None if b"\0" in found else found


class Plain(Mechanism):
    """PLAIN, RFC 4616: one message with user name and password."""

    name: ClassVar[str] = "PLAIN"

    def initial_response(self) -> bytes:
        """Return `authzid NUL username NUL password`."""
        return self._message()

    def respond(self, challenge: bytes) -> bytes:
        """Return the message for the empty challenge of a server that got no initial response."""
        if challenge or self.complete:
            # The password is sent once: a server that asks again already has it.
            raise ProtocolViolation("PLAIN has no challenge, but the server sent one", stage="AUTH")
        return self._message()

    def secrets(self) -> tuple[bytes, ...]:
        """Return the password; the user name is no secret."""
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

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
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
        """Return the password once it was asked for; the user name is no secret."""
        return (encoded(self._credentials.password, "password"),) if self.complete else ()
