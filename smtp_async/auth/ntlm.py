"""NTLM version 2 ([MS-NLMP], [MS-SMTPNTLM]) with the library pyspnego, for servers without a better mechanism.

Its hashes are broken and its logins can be relayed, so it is used only if the application names it. Over TLS the login
is bound to the server's certificate, so that a server with channel binding refuses a relayed login.
"""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Final

from ..errors import FeatureUnavailable, InvalidArgument, ProtocolViolation
from .credentials import Credentials, Strength
from .mechanism import UNKNOWN_PEER, Exposure, Mechanism, Peer, encoded

if TYPE_CHECKING:
    from spnego import ContextProxy

__all__ = ["NTLM"]

#: The channel binding that Windows supports (RFC 5929 section 4).
_BINDING: Final = "tls-server-end-point"
#: pyspnego reads the version from the environment; 3 is the lowest level with version 2 only.
_LEVEL: Final = "LM_COMPAT_LEVEL"


class NTLM(Mechanism):
    """NTLM version 2. The user name may be `DOMAIN\\user` or `user@domain`."""

    name: ClassVar[str] = "NTLM"
    strength: ClassVar[Strength] = Strength.PROVED
    exposes: ClassVar[Exposure] = Exposure.GUESSES

    def __init__(self, credentials: Credentials, peer: Peer = UNKNOWN_PEER) -> None:
        super().__init__(credentials, peer)
        self._context: ContextProxy | None = None
        self._sent = b""

    @classmethod
    def missing(cls) -> str:
        """Return the extra that installs pyspnego, if it is missing."""
        return "" if find_spec("spnego") is not None else "smtp-async[sasl]"

    def initial_response(self) -> bytes:
        """Return the negotiate message, which contains no secret.

        Raises:
            FeatureUnavailable: the environment demands NTLM version 1.
            InvalidArgument: the credentials do not fit the mechanism.
        """
        if self._context is None:
            self._context = self._begin()
            self._sent = _step(self._context, None) or b""
        return self._sent

    def respond(self, challenge: bytes) -> bytes:
        """Return the authenticate message for the server's challenge message.

        Raises:
            ProtocolViolation: the challenge is malformed, or the second one.
        """
        if self._context is None and not challenge:
            # The server got no initial response and requests it.
            return self.initial_response()
        if self.complete or self._context is None:
            raise ProtocolViolation("NTLM: the server sent another challenge", stage="AUTH")
        message = _step(self._context, challenge)
        if message is None:
            raise ProtocolViolation("NTLM: the server's challenge is malformed", stage="AUTH")
        self._sent = message
        self.complete = True
        return message

    def secrets(self) -> tuple[bytes, ...]:
        """Return the authenticate message, against which guessed passwords can be tested."""
        return (self._sent,) if self.complete else ()

    def _begin(self) -> ContextProxy:
        encoded(self._credentials.username, "user name")
        encoded(self._credentials.password, "password")
        level = os.environ.get(_LEVEL, "3")
        if level not in ("3", "4", "5"):
            raise FeatureUnavailable(
                f"the environment variable {_LEVEL} asks for NTLM version 1, which is not safe",
                needs=f"{_LEVEL} of 3 or more",
            )
        context = self._make()
        if context is None:
            raise InvalidArgument("user name or password do not fit NTLM")
        return context

    def _make(self) -> ContextProxy | None:
        # Returns None instead of raising, because pyspnego's frames hold the password.
        import spnego
        from spnego.channel_bindings import GssChannelBindings

        _quiet()
        credentials, peer = self._credentials, self._peer
        data = peer.bindings.get(_BINDING)
        bound = GssChannelBindings(application_data=_BINDING.encode() + b":" + data) if data else None
        try:
            return spnego.client(
                credentials.username,
                credentials.password.reveal(),
                hostname=peer.host,
                service=peer.service,
                protocol="ntlm",
                # Not the implementation of the system, which may use another version, or no channel binding.
                options=spnego.NegotiateOptions.use_ntlm,
                channel_bindings=bound,
            )
        except Exception:
            return None


def _step(context: ContextProxy, token: bytes | None) -> bytes | None:
    # Returns None instead of raising, because a hostile message can raise any error in pyspnego, whose frames hold the
    # hashes.
    try:
        return context.step(token)
    except Exception:
        return None


def _quiet() -> None:
    """Keep pyspnego from logging NTLM messages, from which passwords can be guessed."""
    logger = logging.getLogger("spnego._ntlm")
    if _no_debug not in logger.filters:
        logger.addFilter(_no_debug)


def _no_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
