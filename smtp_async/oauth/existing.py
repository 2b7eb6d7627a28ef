"""Providers for objects that an application has already: of google-auth and of msal, neither of which is a dependency.

Both libraries block, so they are called in a thread. Their exceptions are not chained, because their frames hold what
was sent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any, Final, NoReturn, Protocol

from ..auth.credentials import Token
from ..errors import FeatureUnavailable, InvalidArgument
from ..model.secret import Secret
from .answers import Answer, Failure, answer_in, error_of, failure_of
from .threads import in_oauth_thread
from .token_request import token_of

__all__ = ["FromGoogle", "FromMsal", "GoogleCredentials", "MsalApplication", "from_google", "from_msal"]

_GOOGLE: Final = "google-auth"
_MSAL: Final = "msal"


class GoogleCredentials(Protocol):
    """What is used of a `google.auth.credentials.Credentials`."""

    token: Any
    expiry: Any

    def refresh(self, request: Any) -> Any: ...


class MsalApplication(Protocol):
    """What is used of a `msal.ClientApplication`, besides `acquire_token_for_client` where it has that."""

    def acquire_token_silent_with_error(
        self, scopes: Any, account: Any, *, force_refresh: bool = False
    ) -> Any: ...


def from_google(credentials: GoogleCredentials, *, request: Any = None) -> FromGoogle:
    """Return a provider that has credentials of google-auth refreshed.

    Args:
        credentials: with the scope `GOOGLE.scope`.
        request: the transport; None: that of google-auth for requests.

    Raises:
        InvalidArgument: these cannot be refreshed.
    """
    return FromGoogle(credentials, request)


def from_msal(
    application: MsalApplication, scopes: Sequence[str], *, account: Mapping[str, Any] | None = None
) -> FromMsal:
    """Return a provider that asks an application of msal, with its cache, for tokens.

    Args:
        application: a `ConfidentialClientApplication`, or with `account` any other.
        scopes: for an application's own access `[microsoft(tenant).application_scope]`.
        account: the account that has logged in, of `application.get_accounts()`; None: the application itself.

    Raises:
        InvalidArgument: the application cannot act in its own name, or `scopes` is one text.
    """
    return FromMsal(application, scopes, account)


class FromGoogle:
    """The provider that `from_google` returns."""

    __slots__ = ("_credentials", "_request")

    def __init__(self, credentials: GoogleCredentials, request: Any = None) -> None:
        if not callable(getattr(credentials, "refresh", None)):
            raise InvalidArgument(
                f"{type(credentials).__name__} has no refresh(), as google-auth's credentials have"
            )
        self._credentials = credentials
        self._request = request

    def __reduce__(self) -> NoReturn:
        raise TypeError("a provider for google-auth cannot be pickled, because it holds a secret")

    async def __call__(self) -> Token:
        """Return a new token.

        Raises:
            TokenRefused: google-auth says that asking again is of no use.
            TokenUnavailable: it failed in any other way.
            FeatureUnavailable: the transport of google-auth is not installed.
        """
        found = await in_oauth_thread(self._refreshed)
        if isinstance(found, Failure):
            raise error_of(found)
        return found

    def _refreshed(self) -> Token | Failure:
        if self._request is None:
            self._request = _google_transport()
        try:
            self._credentials.refresh(self._request)
        except Exception as error:
            return _google_failure(error)
        token, expiry = self._credentials.token, self._credentials.expiry
        if not isinstance(token, str) or not token:
            return Failure(f"{_GOOGLE} returned no token")
        return Token(token, _seconds(expiry) if isinstance(expiry, datetime) else None)


class FromMsal:
    """The provider that `from_msal` returns."""

    __slots__ = ("_account", "_application", "_last", "_scopes")

    def __init__(
        self, application: MsalApplication, scopes: Sequence[str], account: Mapping[str, Any] | None = None
    ) -> None:
        if isinstance(scopes, str) or not scopes:
            raise InvalidArgument("scopes is a list of texts")
        wanted = "acquire_token_for_client" if account is None else "acquire_token_silent_with_error"
        if not callable(getattr(application, wanted, None)):
            raise InvalidArgument(
                f"{type(application).__name__} has no {wanted}: give a ConfidentialClientApplication, or an account"
            )
        self._application: Any = application
        self._scopes = list(scopes)
        self._account = account
        self._last: Secret | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a provider for msal cannot be pickled, because it holds a secret")

    async def __call__(self) -> Token:
        """Return a new token.

        Raises:
            TokenRefused: the account has to log in again, or the application or its secret is not known.
            TokenUnavailable: msal failed in any other way.
        """
        asked_at = time.time()
        answer = await in_oauth_thread(self._acquired)
        if isinstance(answer, Failure):
            raise error_of(answer)
        return token_of(answer, asked_at)

    def _acquired(self) -> Answer | Failure:
        try:
            answer = self._ask(renew=False)
            if isinstance(answer, Answer) and answer.token == self._last:
                # The client asks again for a token that is still good: a server has refused it.
                answer = self._ask(renew=True)
        except Exception as error:
            return Failure(f"{_MSAL} failed: {type(error).__name__}")
        self._last = answer.token if isinstance(answer, Answer) else None
        return answer

    def _ask(self, *, renew: bool) -> Answer | Failure:
        application = self._application
        if self._account is not None:
            acquire = partial(application.acquire_token_silent_with_error, account=self._account)
            found = acquire(self._scopes, force_refresh=renew)
        else:
            if renew and hasattr(application, "remove_tokens_for_client"):
                application.remove_tokens_for_client()
            found = application.acquire_token_for_client(scopes=self._scopes)
        if not isinstance(found, Mapping):
            return Failure(f"{_MSAL} has no token for this account: it has to log in again", permanent=True)
        return answer_in(found, (), _MSAL)


def _google_transport() -> Any:
    try:
        transport = import_module("google.auth.transport.requests")
    except ImportError:
        problem = "the credentials of google-auth need its transport"
    else:
        return transport.Request()
    raise FeatureUnavailable(problem, needs="google-auth[requests]")


def _google_failure(error: Exception) -> Failure:
    """Return what an exception of google-auth says: its code at most, because its texts quote the answer."""
    if not any(cls.__name__ == "RefreshError" for cls in type(error).__mro__) or getattr(
        error, "retryable", False
    ):
        return Failure(f"{_GOOGLE} failed: {type(error).__name__}")
    for part in error.args:
        if isinstance(part, Mapping) and isinstance(part.get("error"), str):
            return failure_of(400, {"error": part["error"]}, (), _GOOGLE)
    return Failure(f"{_GOOGLE} could not refresh the credentials: {type(error).__name__}", permanent=True)


def _seconds(expiry: datetime) -> float:
    """Return the time of the epoch; google-auth's times are UTC without saying so."""
    return (expiry if expiry.tzinfo is not None else expiry.replace(tzinfo=UTC)).timestamp()
