"""The contract of a SASL mechanism.

An exchange (RFC 4954 section 4):

    mechanism = select(offered, credentials, secure=True)
    first = mechanism.initial_response()         # sent with AUTH; None: the server speaks first
    ...
    challenge = mechanism.challenge(text_of_the_334)
    answer = mechanism.respond(challenge)        # the session encodes it
    ...
    # a 235 counts only if mechanism.complete

A mechanism that has to block (a slow key derivation, a ticket from a file) or to await (a token provider) works in two
steps, because nothing in this package may wait: before `initial_response` and before each `respond` the session calls
`pending`, and does the work that it returns where waiting is allowed.
"""

from __future__ import annotations

import binascii
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Final, NamedTuple

from ..errors import ProtocolViolation
from .credentials import Credentials

__all__ = [
    "Mechanism",
    "Pending",
    "decode_challenge",
]

#: RFC 4954 section 4: the longest line of base64 in an AUTH exchange, in octets.
MAX_ENCODED: Final = 12_288


class Pending(NamedTuple):
    """Work that has to be done before a mechanism can go on.

    Attributes:
        work: called without arguments; it leaves its result in the mechanism. An awaitable that it returns is awaited.
        blocking: True: call `work` in a thread, because it blocks. False: call it in the event loop.
    """

    work: Callable[[], Any]
    blocking: bool


class Mechanism(ABC):
    """One SASL mechanism in one exchange: bytes in, bytes out (RFC 4422 section 3). Each exchange has its own object.

    Attributes:
        name: the mechanism's name in the server's AUTH line.
        complete: the client has sent and verified everything that the mechanism requires. A 235 before that is a
            failure, because a server that does not know the password could have sent it.
    """

    name: ClassVar[str]
    complete: bool = False

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def pending(self, challenge: bytes | None) -> Pending | None:
        """Return the work to do before the next response, None if there is none.

        Args:
            challenge: the challenge that `respond` will get; None before `initial_response`.
        """
        return None

    @abstractmethod
    def initial_response(self) -> bytes | None:
        """Return the initial response of the AUTH command; None if the server speaks first.

        If the line would be too long, send AUTH alone, and this response in answer to the empty challenge.

        Raises:
            InvalidArgument: the credentials do not fit the mechanism.
        """

    def challenge(self, text: bytes) -> bytes:
        """Decode the challenge of a 334, for `pending` and `respond`.

        Args:
            text: the text behind the code.

        Raises:
            ProtocolViolation: the text is not base64 as RFC 4954 section 4 requires.
        """
        return decode_challenge(text)

    @abstractmethod
    def respond(self, challenge: bytes) -> bytes:
        """Return the answer to a challenge.

        Args:
            challenge: as `challenge` returns it.

        Raises:
            ProtocolViolation: the mechanism has no such challenge; cancel the exchange with `*`.
            InvalidArgument: the credentials do not fit the mechanism.
        """

    @abstractmethod
    def secrets(self) -> tuple[bytes, ...]:
        """Return the secrets that the responses so far contain: a password, a digest, a token.

        A server may repeat what it was sent. These secrets, and every response that contains one, are masked in all
        later replies. Other parts of a response are not masked, because a challenge may repeat them, such as a SCRAM
        nonce.
        """

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


# --- framing ----------------------------------------------------------------------------------------------


def decode_challenge(text: bytes) -> bytes:
    """Return the challenge of a 334 reply.

    Args:
        text: the base64 text behind the code (RFC 4954 section 4); empty is an empty challenge.

    Raises:
        ProtocolViolation: the text is longer than 12,288 octets or not base64.
    """
    if len(text) > MAX_ENCODED:
        raise ProtocolViolation(f"an AUTH challenge of {len(text)} octets is too long", stage="AUTH")
    try:
        challenge = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise ProtocolViolation(f"an AUTH challenge is not base64: {error}", stage="AUTH") from error
    if len(text) % 4:
        # Python accepts padding behind a complete group.
        raise ProtocolViolation("an AUTH challenge is not base64: wrong padding", stage="AUTH")
    return challenge
