"""SCRAM-SHA-1, -256 and -512 (RFC 5802, RFC 7677), each with and without channel binding.

The library scramp implements the messages, the key derivation and the proofs. This module adds:

* the GS2 header. `p=` binds the login to the TLS connection. `y` means that the client could have bound it, but the
  server offered no -PLUS: a server that did offer -PLUS detects that its offer was removed. `n` covers all other cases.
* a limit on the server's iteration count, because a hostile server could make the client compute for hours. The
  derivation blocks and runs in a thread.
* verification of the server's signature before the login is complete.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, Final

from ..errors import InvalidArgument, ProtocolViolation
from ..model.reply import printable
from .credentials import Credentials, Strength
from .mechanism import UNKNOWN_PEER, Exposure, Mechanism, Peer, Pending, encoded

__all__ = [
    "ScramSHA1",
    "ScramSHA1Plus",
    "ScramSHA256",
    "ScramSHA256Plus",
    "ScramSHA512",
    "ScramSHA512Plus",
]

#: Maximum of iterations; scramp enforces the minimum, 4,096 (RFC 7677 section 4). A million takes about a second.
_MOST_ITERATIONS: Final = 1_000_000
_PLUS: Final = "-PLUS"
#: RFC 5929 section 4. Of the mail servers with -PLUS, Cyrus accepts only tls-unique, Dovecot 2.4 also tls-exporter.
_END_POINT: Final = "tls-server-end-point"
#: Maximum of characters of the server's error in messages.
_LONGEST: Final = 100


class _GS2Header:
    """The GS2 header, RFC 5801 section 4, in place of scramp's, which has neither authzid nor tls-exporter.

    Args:
        flag: "n", "y" or "p=" with the type of the binding.
        authzid: the account to act as.
        data: the channel binding; empty without one.
    """

    def __init__(self, flag: str, authzid: str, data: bytes) -> None:
        escaped = authzid.replace("=", "=3D").replace(",", "=2C")
        self._text = f"{flag},a={escaped}," if escaped else f"{flag},,"
        self._data = data

    def __str__(self) -> str:
        return self._text

    def make_cbind_input(self, binding: object) -> bytes:
        """Return the channel-binding input, RFC 5802 section 7; called by scramp."""
        return self._text.encode() + self._data


class _Scram(Mechanism):
    """SCRAM with one hash.

    Args:
        credentials, peer: as `Mechanism`.
        nonce: the client's nonce; random by default.
    """

    strength: ClassVar[Strength] = Strength.MUTUAL
    exposes: ClassVar[Exposure] = Exposure.GUESSES
    takes_authzid: ClassVar[bool] = True

    def __init__(
        self, credentials: Credentials, peer: Peer = UNKNOWN_PEER, *, nonce: str | None = None
    ) -> None:
        super().__init__(credentials, peer)
        self._nonce = nonce
        self._scram: Any = None
        self._first = b""
        self._final = ""
        self._asked = 0
        self._refused = False

    @classmethod
    def missing(cls) -> str:
        """Return the extra that installs scramp, if it is missing."""
        return "" if find_spec("scramp") is not None else "smtp-async[sasl]"

    def initial_response(self) -> bytes:
        """Return the client's first message: GS2 header, user name and nonce."""
        if self._scram is None:
            self._scram = self._begin()
            self._first = self._scram.get_client_first().encode()
        return self._first

    def pending(self, challenge: bytes | None) -> Pending | None:
        """Return the derivation of the key, which is slow by design."""
        if challenge is None or self._asked or self._scram is None or challenge.startswith(b"e="):
            return None
        self._read_first(self._scram, challenge)
        return Pending(self._derive, blocking=True)

    def respond(self, challenge: bytes) -> bytes:
        """Return the proof, then an empty response to the server's signature.

        Raises:
            ProtocolViolation: the message is malformed, demands too many iterations or too few, or its signature is
                wrong.
            InvalidArgument: the credentials do not fit the mechanism.
        """
        if self._scram is None and not challenge:
            # The server got no initial response and requests it.
            return self.initial_response()
        if self.complete or self._refused or self._scram is None:
            raise ProtocolViolation(f"{self.name}: the server sent another challenge", stage="AUTH")
        if challenge.startswith(b"e="):
            self._refused = True
            self.explanation = printable(challenge[2:].decode("utf-8", "replace"), _LONGEST)
            return b""
        self._asked += 1
        if self._asked == 1:
            return self._final.encode()
        self._verify(self._scram, challenge)
        self.complete = True
        return b""

    def secrets(self) -> tuple[bytes, ...]:
        """Return the proof, against which guessed passwords can be tested; the password was not sent."""
        return (self._final.rpartition(",p=")[2].encode(),) if self._asked == 1 and not self.complete else ()

    # --- steps -----------------------------------------------------------------------------------------------

    def _begin(self) -> Any:
        credentials = self._credentials
        # First, because scramp's frames would hold the texts.
        encoded(credentials.username, "user name")
        encoded(credentials.password, "password")
        authzid = encoded(credentials.authzid, "authzid").decode()
        scram = self._make()
        if scram is None:
            raise InvalidArgument("user name or password contain characters that SASLprep forbids (RFC 4013)")
        scram.gs2_header = _GS2Header(*self._binding(authzid))
        return scram

    def _make(self) -> Any:
        # Returns None instead of raising, because scramp's frames hold the password.
        scramp = _scramp()
        credentials = self._credentials
        mechanism = self.name.removesuffix(_PLUS)
        try:
            return scramp.ScramClient(
                [mechanism], credentials.username, credentials.password.reveal(), c_nonce=self._nonce
            )
        except scramp.ScramException:
            return None

    def _binding(self, authzid: str) -> tuple[str, str, bytes]:
        """Return the arguments of the GS2 header of a login without channel binding."""
        bound = any(name.endswith(_PLUS) for name in self._peer.offered)
        return "y" if self._peer.bindings and not bound else "n", authzid, b""

    def _read_first(self, scram: Any, challenge: bytes) -> None:
        _checked(scram.set_server_first, challenge, self.name)
        iterations = int(scram.iterations)
        if iterations > _MOST_ITERATIONS:
            raise ProtocolViolation(
                f"{self.name}: the server demands {iterations} iterations, more than {_MOST_ITERATIONS}",
                stage="AUTH",
            )

    def _derive(self) -> None:
        assert self._scram is not None
        self._final = self._scram.get_client_final()

    def _verify(self, scram: Any, challenge: bytes) -> None:
        _checked(scram.set_server_final, challenge, self.name)


class _ScramPlus(_Scram):
    """SCRAM bound to the TLS connection: an attacker between client and server cannot relay the login."""

    strength: ClassVar[Strength] = Strength.BOUND

    @classmethod
    def objection(cls, credentials: Credentials, peer: Peer) -> str:
        """Return that there is no channel binding, or only one that mail servers do not support, if so."""
        kind = next(iter(peer.bindings), "")
        if not kind:
            return "this connection has no channel binding"
        # The type cannot be negotiated: a server that knows another one refuses the login.
        asked_for = credentials.mechanisms or credentials.minimum_strength is Strength.BOUND
        if kind == _END_POINT and not asked_for:
            return f"this connection has only {_END_POINT}, which mail servers do not accept"
        return ""

    def _binding(self, authzid: str) -> tuple[str, str, bytes]:
        kind, data = next(iter(self._peer.bindings.items()))
        return f"p={kind}", authzid, data


def _scramp() -> Any:
    # The library has no type hints.
    return import_module("scramp")


def _checked(read: Any, challenge: bytes, name: str) -> None:
    """Let scramp parse one message of the server.

    Raises:
        ProtocolViolation: the message is malformed, or its signature is wrong.
    """
    problem = _problem_of(read, challenge)
    if problem:
        raise ProtocolViolation(f"{name}: {problem}", stage="AUTH")


def _problem_of(read: Any, challenge: bytes) -> str:
    # Returned, not raised or chained: scramp's frames hold its state.
    refusal = _scramp().ScramException
    try:
        read(challenge.decode())
    except UnicodeDecodeError:
        return "the server's message is not UTF-8"
    except refusal as error:
        return printable(str(error), _LONGEST)
    return ""


class ScramSHA512(_Scram):
    """SCRAM-SHA-512."""

    name: ClassVar[str] = "SCRAM-SHA-512"


class ScramSHA512Plus(_ScramPlus):
    """SCRAM-SHA-512-PLUS."""

    name: ClassVar[str] = "SCRAM-SHA-512-PLUS"


class ScramSHA256(_Scram):
    """SCRAM-SHA-256, RFC 7677."""

    name: ClassVar[str] = "SCRAM-SHA-256"


class ScramSHA256Plus(_ScramPlus):
    """SCRAM-SHA-256-PLUS, RFC 7677."""

    name: ClassVar[str] = "SCRAM-SHA-256-PLUS"


class ScramSHA1(_Scram):
    """SCRAM-SHA-1, RFC 5802."""

    name: ClassVar[str] = "SCRAM-SHA-1"


class ScramSHA1Plus(_ScramPlus):
    """SCRAM-SHA-1-PLUS, RFC 5802."""

    name: ClassVar[str] = "SCRAM-SHA-1-PLUS"
