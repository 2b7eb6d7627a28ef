"""Who we are, and how we may prove it: the contract of a SASL mechanism.

How an exchange goes (RFC 4954 section 4):

    mechanism = select(offered, credentials, secure=True)
    first = mechanism.initial_response()         # goes with AUTH; None: the server speaks first
    ...
    challenge = mechanism.challenge(text_of_the_334)
    answer = mechanism.respond(challenge)        # the session encodes it
    ...
    # a 235 counts only if mechanism.complete

A mechanism that has to block (a slow key derivation, a ticket from a file) or to ask somebody (a token
provider) works in two steps, because nothing here may wait: before `initial_response` and each `respond` the
caller asks `pending`, and does the work that it returns where waiting is allowed.
"""

from __future__ import annotations

import binascii
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

from ..errors import ProtocolViolation
from ..model.secret import Secret

__all__ = [
    "Credentials",
    "Mechanism",
    "Pending",
    "decode_challenge",
]

#: RFC 4954 section 4: the longest line of base64 in an AUTH exchange, in octets.
MAX_ENCODED: Final = 12_288


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Credentials:
    """Who we are, and the proof.

    Attributes:
        username: the account.
        password: its password; kept as a `Secret`.
        authzid: the account to act as, if it is another one (RFC 4616 section 2).
        mechanisms: names of the mechanisms that may be used, best first; empty leaves it to `select.RANKING`. A
            mechanism that is never chosen by itself is chosen if it is named here.
        allow_cleartext: send the password in clear where there is no verified TLS. Everybody on the way can
            read it then.
    """

    username: str = ""
    password: Secret = Secret("")
    authzid: str = ""
    mechanisms: tuple[str, ...] = ()
    allow_cleartext: bool = False

    def __init__(
        self,
        *,
        username: str = "",
        password: Secret | str = "",
        authzid: str = "",
        mechanisms: Iterable[str] = (),
        allow_cleartext: bool = False,
    ) -> None:
        # First of all, so that no frame of ours holds the text. Nothing is checked here for the same reason.
        password = Secret(password)
        names = (mechanisms,) if isinstance(mechanisms, str) else tuple(mechanisms)
        values = (username, password, authzid, names, allow_cleartext)
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)


class Pending(NamedTuple):
    """Work that has to be done before a mechanism can go on.

    Attributes:
        work: to be called without arguments; it leaves its result in the mechanism. If it returns an
            awaitable, that is awaited.
        blocking: True: call it in a thread, for it takes long. False: call it in the event loop.
    """

    work: Callable[[], Any]
    blocking: bool


class Mechanism(ABC):
    """One SASL mechanism in one exchange: bytes in, bytes out (RFC 4422 section 3). Made anew for each.

    Attributes:
        name: as the server offers it.
        complete: has this side said and verified all that it must? A 235 before that is a failure: somebody
            who knows nothing could have sent it.
    """

    name: ClassVar[str]
    complete: bool = False

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def pending(self, challenge: bytes | None) -> Pending | None:
        """Return the work to do before answering, None if there is none.

        Args:
            challenge: the one that `respond` will be given; None before `initial_response`.
        """
        return None

    @abstractmethod
    def initial_response(self) -> bytes | None:
        """Return what goes with the AUTH command; None if the server speaks first.

        If the line gets too long for that, send AUTH alone and these bytes in answer to the empty challenge.

        Raises:
            InvalidArgument: the credentials do not fit the mechanism.
        """

    def challenge(self, text: bytes) -> bytes:
        """Return the challenge that a 334 carries, for `pending` and `respond`.

        Args:
            text: what follows the code.

        Raises:
            ProtocolViolation: it is not what RFC 4954 section 4 asks for.
        """
        return decode_challenge(text)

    @abstractmethod
    def respond(self, challenge: bytes) -> bytes:
        """Return the answer to a challenge.

        Args:
            challenge: as `challenge` returns it.

        Raises:
            ProtocolViolation: the mechanism knows no such challenge; cancel the exchange with `*`.
            InvalidArgument: the credentials do not fit the mechanism.
        """

    @abstractmethod
    def secrets(self) -> tuple[bytes, ...]:
        """Return what the responses made so far contain and must not show: a password, a digest, a token.

        A server may repeat what it was sent: these, and a response that holds one of them, are masked in every later
        reply. What is not in here the server may repeat in its next challenge, as SCRAM does with a nonce.
        """

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


# --- framing ----------------------------------------------------------------------------------------------


def decode_challenge(text: bytes) -> bytes:
    """Return the challenge of a 334 reply.

    Args:
        text: what follows the code, base64 (RFC 4954 section 4); empty is an empty challenge.

    Raises:
        ProtocolViolation: it is longer than 12,288 octets or not base64.
    """
    if len(text) > MAX_ENCODED:
        raise ProtocolViolation(f"an AUTH challenge of {len(text)} octets is too long", stage="AUTH")
    try:
        challenge = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise ProtocolViolation(f"an AUTH challenge is not base64: {error}", stage="AUTH") from error
    if len(text) % 4:
        # Python is not strict about padding that follows a whole group.
        raise ProtocolViolation("an AUTH challenge is not base64: wrong padding", stage="AUTH")
    return challenge
