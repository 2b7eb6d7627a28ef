"""The contract of a SASL mechanism, and the properties of the server that a mechanism may use.

An exchange (RFC 4954 section 4):

    mechanism = select(credentials, peer)
    first = mechanism.initial_response()         # sent with AUTH; None: the server speaks first
    ...
    challenge = mechanism.challenge(text_of_the_334)
    answer = mechanism.respond(challenge)        # the connection encodes it
    ...
    # a 235 counts only if mechanism.complete

A mechanism that has to block (a slow key derivation, a ticket from a file) or to await works in two steps, because
nothing in this package may wait: before `initial_response` and before each `respond` the connection calls `pending`
and does the returned work in a thread or awaits it. A token is fetched before the mechanism is made.

An application may write a mechanism of its own: derive from `Mechanism`, set the class attributes, and name the class
in `Credentials(mechanisms=[MyMechanism])`. `smtp_async.testing.MechanismContract` tests it.
"""

from __future__ import annotations

import binascii
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Final, NamedTuple

from ..errors import InvalidArgument, ProtocolViolation
from ..model.secret import Secret
from .credentials import Credentials, Strength

__all__ = [
    "UNKNOWN_PEER",
    "Exposure",
    "Mechanism",
    "Needs",
    "Peer",
    "Pending",
    "decode_challenge",
    "encoded",
]

#: RFC 4954 section 4: the longest line of base64 in an AUTH exchange, in octets.
MAX_ENCODED: Final = 12_288


class Needs(Enum):
    """What a mechanism needs to prove an account; the value is its description in messages."""

    PASSWORD = "a user name and a password"
    TOKEN = "a token"
    IDENTITY = "a client certificate that was shown in the TLS handshake"
    NOTHING = "nothing"


class Exposure(Enum):
    """What an eavesdropper learns from a connection without TLS; the value is its description in messages."""

    SECRET = "would show the password or token"
    GUESSES = "would let others guess the password"
    NOTHING = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The properties of a server and of the connection that mechanisms use.

    Attributes:
        host, port: the server as the application named it.
        service: the service name for tickets and digests (RFC 4954 section 4, RFC 2033).
        offered: the mechanisms in the server's AUTH line after TLS has started, in capitals.
        secure: the connection is encrypted to a verified server, or is a Unix socket.
        bindings: channel bindings by their type (RFC 5056), the preferred one first; empty if there are none.
        certificate_shown: the client has proved its identity with a certificate in the TLS handshake.
    """

    host: str = ""
    port: int | None = None
    service: str = "smtp"
    offered: frozenset[str] = frozenset()
    secure: bool = False
    bindings: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    certificate_shown: bool = False


class Pending(NamedTuple):
    """Work that has to be done before a mechanism can continue.

    Attributes:
        work: called without arguments; stores its result in the mechanism. If it returns an awaitable, that is awaited.
        blocking: True: call `work` in a thread, because it blocks. False: call it in the event loop.
    """

    work: Callable[[], Any]
    blocking: bool


#: For a mechanism that is made without a server, for example in a test.
UNKNOWN_PEER: Final = Peer()


class Mechanism(ABC):
    """One SASL mechanism in one exchange: bytes in, bytes out (RFC 4422 section 3). Each exchange has its own object.

    Attributes:
        name: the mechanism's name in the server's AUTH line.
        needs: what the mechanism needs to prove the account.
        strength: how well the mechanism protects a login.
        exposes: what an eavesdropper learns without TLS. Without verified TLS the mechanism is used only if it exposes
            nothing, or if the credentials allow clear text.
        takes_authzid: the mechanism can send an authorization identity.
        complete: the client has sent and verified everything that the mechanism requires. A 235 before that is a
            failure, because a server that does not know the password could have sent it.
        explanation: the reason of a refusal, if the server sent it within the exchange; never a secret.

    Args:
        credentials: a token in them is a `Secret`, because a provider has been called before.
        peer: the server and the connection.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs] = Needs.PASSWORD
    strength: ClassVar[Strength] = Strength.REVEALED
    exposes: ClassVar[Exposure] = Exposure.SECRET
    takes_authzid: ClassVar[bool] = False
    complete: bool = False
    explanation: str = ""

    def __init__(self, credentials: Credentials, peer: Peer = UNKNOWN_PEER) -> None:
        self._credentials = credentials
        self._peer = peer

    @property
    def revealed(self) -> bool:
        """Whether the password or token itself was sent."""
        return self.complete and self.exposes is Exposure.SECRET

    @classmethod
    def missing(cls) -> str:
        """Return the extra that has to be installed, for example "smtp-async[sasl]"; otherwise an empty text."""
        return ""

    @classmethod
    def objection(cls, credentials: Credentials, peer: Peer) -> str:
        """Return further reasons, beyond the attributes, why this mechanism cannot be used; otherwise an empty text."""
        return ""

    def pending(self, challenge: bytes | None) -> Pending | None:
        """Return the work to do before the next response, None if there is none.

        Args:
            challenge: the challenge that `respond` will get; None before `initial_response`.
        """
        return None

    @abstractmethod
    def initial_response(self) -> bytes | None:
        """Return the initial response of the AUTH command; None if the server speaks first.

        If the line would be too long, send AUTH alone, and this response after the empty challenge.

        Raises:
            InvalidArgument: the credentials do not fit the mechanism.
            AuthenticationUnavailable: something is missing that could not be checked before, for example a Kerberos
                ticket.
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
        """Return the response to a challenge.

        Args:
            challenge: the result of `challenge`.

        Raises:
            ProtocolViolation: the mechanism does not allow this challenge; cancel the exchange with `*`.
            InvalidArgument: the credentials do not fit the mechanism.
        """

    @abstractmethod
    def secrets(self) -> tuple[bytes, ...]:
        """Return the secrets that the responses so far contain: a password, a digest, a token.

        A server may repeat a response in its reply. These secrets, and every response that contains one, are masked in
        all later replies. Other parts of a response, such as a SCRAM nonce, are not masked, because a challenge may
        repeat them.
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
    challenge = _decoded(text)
    if challenge is None:
        raise ProtocolViolation("an AUTH challenge is not base64", stage="AUTH")
    return challenge


def _decoded(text: bytes) -> bytes | None:
    # Returns None instead of raising, because a traceback would hold the text, which may repeat a secret.
    if len(text) % 4:
        # Python accepts padding behind a complete group.
        return None
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None


# --- texts ------------------------------------------------------------------------------------------------


def encoded(text: str | Secret, what: str, *, forbidden: bytes = b"\0") -> bytes:
    """Return the UTF-8 of a user name, a password or a token.

    Args:
        text: the user name or password; only this function reveals a secret.
        what: what the text is, for the error.
        forbidden: octets that the mechanism cannot carry.

    Raises:
        InvalidArgument: the text contains a forbidden octet, or half of a surrogate pair. The error does not show it.
    """
    found = _utf8(text, forbidden)
    if found is None:
        raise InvalidArgument(
            f"the {what} contains NUL or another character that cannot be sent, or is not valid text"
        )
    return found


def _utf8(text: str | Secret, forbidden: bytes) -> bytes | None:
    # Returns None instead of raising, because a UnicodeEncodeError and the frame of this function would hold the text.
    try:
        found = (text.reveal() if isinstance(text, Secret) else text).encode()
    except UnicodeEncodeError:
        return None
    return None if any(octet in found for octet in forbidden) else found
