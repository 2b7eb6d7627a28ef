"""EXTERNAL and ANONYMOUS: mechanisms that send no secret."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from ..errors import ProtocolViolation
from .credentials import Strength
from .mechanism import Exposure, Mechanism, Needs, encoded

__all__ = ["Anonymous", "External"]


class _OneMessage(Mechanism):
    """A mechanism with one message, sent with AUTH or as the response to an empty challenge."""

    def initial_response(self) -> bytes:
        """Return the message."""
        return self._message()

    def respond(self, challenge: bytes) -> bytes:
        """Return the message for the empty challenge of a server that got no initial response."""
        if challenge or self.complete:
            raise ProtocolViolation(f"{self.name} has no challenge, but the server sent one", stage="AUTH")
        return self._message()

    def secrets(self) -> tuple[bytes, ...]:
        """Return nothing: no part of the message is a secret."""
        return ()

    def _message(self) -> bytes:
        message = self._text()
        self.complete = True
        return message

    @abstractmethod
    def _text(self) -> bytes:
        """Return the message."""


class External(_OneMessage):
    """EXTERNAL, RFC 4422 appendix A: the account of the client certificate in the TLS handshake.

    The message is the account to act as: `authzid`, or else the user name; empty: the server decides.
    """

    name: ClassVar[str] = "EXTERNAL"
    needs: ClassVar[Needs] = Needs.IDENTITY
    strength: ClassVar[Strength] = Strength.BOUND
    exposes: ClassVar[Exposure] = Exposure.NOTHING
    takes_authzid: ClassVar[bool] = True

    def _text(self) -> bytes:
        credentials = self._credentials
        return encoded(credentials.authzid or credentials.username, "authzid")


class Anonymous(_OneMessage):
    """ANONYMOUS, RFC 4505: no account. The user name, by custom an address, is sent as trace information."""

    name: ClassVar[str] = "ANONYMOUS"
    needs: ClassVar[Needs] = Needs.NOTHING
    strength: ClassVar[Strength] = Strength.NONE
    exposes: ClassVar[Exposure] = Exposure.NOTHING

    def _text(self) -> bytes:
        return encoded(self._credentials.username, "user name")
