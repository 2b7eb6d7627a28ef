"""The account to log in with, and its password or token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final, NoReturn, Protocol, TypeAlias

from ..errors import InvalidArgument
from ..model.secret import Secret

__all__ = ["Credentials", "NamedMechanism", "Strength", "Token", "TokenProvider"]

#: The word before a token in an HTTP header (RFC 6750 section 2.1), which copied tokens may begin with.
_BEARER: Final = "bearer "


class Strength(IntEnum):
    """How well a mechanism protects a login, weakest first."""

    #: The login proves nothing (ANONYMOUS).
    NONE = 0
    #: The server gets the password or the token itself.
    REVEALED = 1
    #: The server gets a proof of the password. The proof rests on a broken hash, or does not authenticate the server.
    PROVED = 2
    #: The server also proves that it knows the account.
    MUTUAL = 3
    #: The login is valid only on this TLS connection, so that an attacker between client and server cannot relay it.
    BOUND = 4


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Token:
    """An OAuth 2.0 access token.

    Attributes:
        value: the token; kept as a `Secret`. A leading "Bearer " is dropped.
        expires_at: when it expires, in seconds of the epoch (as `time.time()` counts); None: never, or not known. A
            `datetime` with a time zone is converted.

    Raises:
        InvalidArgument: the value is no text, or `expires_at` is neither a number nor such a `datetime`.
    """

    value: Secret
    expires_at: float | None = None

    def __init__(self, value: Secret | str, expires_at: float | datetime | None = None) -> None:
        # The first statement, so that no stack frame of the library holds the text.
        value = Secret(value)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "expires_at", None)
        # Now that `repr` works, which tracebacks may call.
        _demand_text(value, "the value of a Token")
        object.__setattr__(self, "value", _without_bearer(value))
        object.__setattr__(self, "expires_at", _seconds(expires_at))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Token cannot be pickled, because it holds a secret")


#: Returns a new token on each call. The client calls it when there is no token, shortly before the last one expires,
#: and once more after a server refused the last one; never twice at the same time. It may raise `errors.TokenRefused`
#: (another call would not help) or `errors.TokenUnavailable`.
TokenProvider: TypeAlias = Callable[[], Awaitable[Token]]


class NamedMechanism(Protocol):
    """The part of a mechanism that credentials use; its class derives from `auth.Mechanism`."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Credentials:
    """The account to log in with, and its password or token.

    Attributes:
        username: the account.
        password: its password; kept as a `Secret`.
        token: an OAuth 2.0 access token in place of a password, kept as a `Secret` (a leading "Bearer " is dropped),
            or a `TokenProvider` that returns a new one whenever one is needed.
        authzid: the account to act as, if it differs from `username` (RFC 4616 section 2).
        mechanisms: the mechanisms that may be used, best first: their names, or classes of mechanisms that the
            application has written. Empty: those of `select.RANKING`. Mechanisms that are used only by name must be
            named here.
        minimum_strength: use no mechanism that protects less.
        allow_cleartext: send the password or token in clear where there is no verified TLS. Everyone on the network
            path can then read it.

    Raises:
        InvalidArgument: a value has another type.
    """

    username: str = ""
    password: Secret = Secret("")
    token: Secret | TokenProvider | None = None
    authzid: str = ""
    mechanisms: tuple[str | type[NamedMechanism], ...] = ()
    minimum_strength: Strength = Strength.NONE
    allow_cleartext: bool = False

    def __init__(
        self,
        *,
        username: str = "",
        password: Secret | str = "",
        token: Secret | str | TokenProvider | None = None,
        authzid: str = "",
        mechanisms: Iterable[str | type[NamedMechanism]] = (),
        minimum_strength: Strength = Strength.NONE,
        allow_cleartext: bool = False,
    ) -> None:
        # The first statements, so that no stack frame of the library holds the texts, whatever they are.
        password = Secret(password)
        if token is not None and (isinstance(token, Secret) or not callable(token)):
            token = Secret(token)
        chosen = (mechanisms,) if isinstance(mechanisms, str) else tuple(mechanisms)
        values = (username, password, token, authzid, chosen, minimum_strength, allow_cleartext)
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)
        # Now that `repr` works, which tracebacks may call.
        _demand_types(self)
        if isinstance(token, Secret):
            object.__setattr__(self, "token", _without_bearer(token))

    def __deepcopy__(self, memo: dict[int, object]) -> Credentials:
        # Nothing in them changes, and options that hold them are copied.
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "Credentials cannot be pickled, because they hold a password or a token: "
            "pass on the values they are made from, and make them where they are used"
        )


#: What would otherwise fail only when a server is reached, or be true whatever it says.
_TYPES: Final = {"username": str, "authzid": str, "minimum_strength": Strength, "allow_cleartext": bool}


def _demand_text(secret: Secret, what: str) -> None:
    """Raise if `secret` hides something else than text; the error names the type only."""
    kind = type(secret.reveal())
    if not issubclass(kind, str):
        raise InvalidArgument(f"{what} is text, not {kind.__name__}")


def _demand_types(credentials: Credentials) -> None:
    _demand_text(credentials.password, "the password")
    if isinstance(credentials.token, Secret):
        _demand_text(credentials.token, "the token, if it is no TokenProvider,")
    for what, kind in _TYPES.items():
        value = getattr(credentials, what)
        if not isinstance(value, kind):
            raise InvalidArgument(f"{what} is a {kind.__name__}, not {type(value).__name__}")


def _seconds(expires_at: object) -> float | None:
    """Return the end of a token in seconds of the epoch."""
    if isinstance(expires_at, datetime):
        if expires_at.utcoffset() is None:
            raise InvalidArgument("expires_at is a datetime without a time zone: its instant is not known")
        return expires_at.timestamp()
    if expires_at is None:
        return None
    if not isinstance(expires_at, int | float) or isinstance(expires_at, bool) or expires_at != expires_at:
        raise InvalidArgument(
            f"expires_at is in seconds of the epoch or a datetime, not {type(expires_at).__name__}"
        )
    return expires_at


def _without_bearer(token: Secret) -> Secret:
    if token.reveal()[: len(_BEARER)].lower() == _BEARER:
        return Secret(token.reveal()[len(_BEARER) :].strip())
    return token
