"""GSSAPI, RFC 4752: a Kerberos ticket in place of a password.

The ticket is for the service at the host that the application named. Kerberos libraries first look up the name in the
DNS (RFC 4120 section 1.3); this module does not, because the answer is not protected and would decide which server is
trusted. There is no security layer, because TLS protects the connection.

A ticket is requested from the key distribution center, so every step blocks and runs in a thread. On Windows the
system's Kerberos is used through pyspnego; elsewhere the library gssapi, because pyspnego looks up the name.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from ..errors import AuthenticationFailed, AuthenticationUnavailable, ProtocolViolation, SMTPError
from ..model.reply import printable
from .credentials import Credentials, Strength
from .mechanism import UNKNOWN_PEER, Exposure, Mechanism, Needs, Peer, Pending, encoded

__all__ = ["GSSAPI"]

#: The security layers of RFC 4752 section 3.3: the first bit is "none".
_NO_LAYER: Final = 1
#: Maximum of tokens; a Kerberos library needs fewer to establish a context.
_MOST_TOKENS: Final = 5
#: Maximum of characters of an error text from the library.
_LONGEST: Final = 300


#: Minor codes of Kerberos (RFC 4120 section 7.5.9, from this number on) with which a key distribution center refuses an
#: account: unknown, revoked, its password expired, preauthentication failed, wrong key.
_KERBEROS_ERRORS: Final = 2529638912
_REFUSED: Final = frozenset({6, 18, 23, 24, 31})


class _Problem(NamedTuple):
    """Why there is no ticket; `refused`: the account or its password is wrong."""

    text: str
    refused: bool


class _Context(Protocol):
    """A security context of the Kerberos library."""

    @property
    def complete(self) -> bool: ...

    def step(self, token: bytes | None) -> bytes | None: ...
    def unwrap(self, message: bytes) -> bytes: ...
    def wrap(self, message: bytes) -> bytes: ...


class GSSAPI(Mechanism):
    """GSSAPI with Kerberos 5.

    Without a user name the default ticket is used, otherwise the ticket of that account. With a password, a ticket is
    requested.
    """

    name: ClassVar[str] = "GSSAPI"
    needs: ClassVar[Needs] = Needs.NOTHING
    strength: ClassVar[Strength] = Strength.MUTUAL
    exposes: ClassVar[Exposure] = Exposure.NOTHING
    takes_authzid: ClassVar[bool] = True

    def __init__(self, credentials: Credentials, peer: Peer = UNKNOWN_PEER) -> None:
        super().__init__(credentials, peer)
        self._context: _Context | None = None
        self._next = b""
        self._tokens = 0
        self._established = False

    @classmethod
    def missing(cls) -> str:
        """Return the extra that installs a Kerberos library, if there is none."""
        library = "spnego" if sys.platform == "win32" else "gssapi"
        return "" if find_spec(library) is not None else "smtp-async[kerberos]"

    def pending(self, challenge: bytes | None) -> Pending | None:
        """Return the next step of the exchange, which may contact the key distribution center."""
        if challenge is None:
            return Pending(self._begin, blocking=True) if self._context is None else None
        return Pending(lambda: self._answer(challenge), blocking=True)

    def initial_response(self) -> bytes:
        """Return the first token, which the work of `pending` made."""
        return self._next

    def respond(self, challenge: bytes) -> bytes:
        """Return the response that the work of `pending` made."""
        return self._next

    def secrets(self) -> tuple[bytes, ...]:
        """Return nothing, because a ticket cannot be used without its key."""
        return ()

    # --- steps, in a thread ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        encoded(self._credentials.username, "user name")
        encoded(self._credentials.password, "password")
        made = _make(self._credentials, self._peer)
        if isinstance(made, _Problem):
            # A refused password is remembered like a 535, because another attempt could lock the account.
            error = AuthenticationFailed if made.refused else AuthenticationUnavailable
            raise error(f"no Kerberos ticket for {self._peer.host}: {made.text}", stage="AUTH")
        self._context, self._next = made

    def _answer(self, challenge: bytes) -> None:
        if not challenge and not self._tokens and not self._established:
            # The server got no initial response and requests it.
            self._tokens += 1
            return
        if self.complete or self._context is None or self._tokens > _MOST_TOKENS:
            raise ProtocolViolation("GSSAPI: the server sent another challenge", stage="AUTH")
        self._tokens += 1
        answer = self._try(self._context, challenge)
        if isinstance(answer, str):
            raise ProtocolViolation(f"GSSAPI: {answer}", stage="AUTH")
        self._next = answer

    def _try(self, context: _Context, challenge: bytes) -> bytes | str:
        """Return the response, or the defect of the challenge as a text."""
        try:
            if not self._established and not context.complete:
                token = context.step(challenge) or b""
                self._established = context.complete
                return token
            self._established = True
            return self._choose_layer(context, context.unwrap(challenge))
        except SMTPError:
            raise
        except Exception as error:  # each library has its own classes
            return printable(str(error), _LONGEST)

    def _choose_layer(self, context: _Context, offer: bytes) -> bytes | str:
        if len(offer) != 4:
            return "the server's offer of security layers is malformed"
        if not offer[0] & _NO_LAYER:
            return "the server demands a security layer of GSSAPI, in place of TLS"
        authzid = encoded(self._credentials.authzid, "authzid")
        answer = context.wrap(bytes((_NO_LAYER, 0, 0, 0)) + authzid)
        self.complete = True
        return answer


def _make(credentials: Credentials, peer: Peer) -> tuple[_Context, bytes] | _Problem:
    """Return a context and its first token, or a problem, not raised because the frames hold the password."""
    try:
        context = _of_windows(credentials, peer) if sys.platform == "win32" else _of_gssapi(credentials, peer)
        return context, context.step(None) or b""
    except Exception as error:  # each library has its own
        refused = getattr(error, "min_code", 0) - _KERBEROS_ERRORS in _REFUSED and bool(credentials.password)
        return _Problem(printable(str(error), _LONGEST), refused)


class _LibraryContext:
    """A context of a library; both name its state and its steps alike, but not what they wrap and unwrap."""

    def __init__(self, context: Any) -> None:
        self._context = context

    @property
    def complete(self) -> bool:
        return bool(self._context.complete)

    def step(self, token: bytes | None) -> bytes | None:
        token_out: bytes | None = self._context.step(token)
        return token_out


class _Gssapi(_LibraryContext):
    """A context of the library gssapi."""

    def unwrap(self, message: bytes) -> bytes:
        return bytes(self._context.unwrap(message).message)

    def wrap(self, message: bytes) -> bytes:
        return bytes(self._context.wrap(message, False).message)


def _of_gssapi(credentials: Credentials, peer: Peer) -> _Context:
    # The library has no stubs, and is not installed wherever types are checked.
    gssapi: Any = import_module("gssapi")
    kerberos = gssapi.MechType.kerberos
    own = gssapi.Name(credentials.username, gssapi.NameType.user) if credentials.username else None
    if credentials.password and own is not None:
        raw = gssapi.raw.acquire_cred_with_password(
            own, credentials.password.reveal().encode(), mechs=[kerberos], usage="initiate"
        )
        tickets = gssapi.Credentials(base=raw.creds)
    else:
        tickets = gssapi.Credentials(name=own, mechs=[kerberos], usage="initiate") if own else None
    # A principal, because the host of a host-based service would be looked up. Without a realm the library finds the
    # realm of the host.
    target = gssapi.Name(f"{peer.service}/{peer.host}@", gssapi.NameType.kerberos_principal)
    flags = gssapi.RequirementFlag
    return _Gssapi(
        gssapi.SecurityContext(
            name=target,
            creds=tickets,
            mech=kerberos,
            usage="initiate",
            flags=flags.mutual_authentication | flags.integrity | flags.out_of_sequence_detection,
        )
    )


class _Windows(_LibraryContext):
    """A context of pyspnego, which uses the system's Kerberos."""

    def unwrap(self, message: bytes) -> bytes:
        return bytes(self._context.unwrap(message).data)

    def wrap(self, message: bytes) -> bytes:
        return bytes(self._context.wrap(message, encrypt=False).data)


def _of_windows(credentials: Credentials, peer: Peer) -> _Context:
    import spnego

    logging.getLogger("spnego._sspi").setLevel(logging.INFO)
    return _Windows(
        spnego.client(
            credentials.username or None,
            credentials.password.reveal() or None,
            hostname=peer.host,
            service=peer.service,
            protocol="kerberos",
            context_req=spnego.ContextReq.mutual_auth | spnego.ContextReq.integrity,
        )
    )
