"""Token providers: objects that fetch an access token whenever they are called.

The client calls a provider once for all of its connections, keeps the token until shortly before it expires, and calls
again after a refusal (`connection.tokens`); a provider keeps no access token itself.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, Self, TypeAlias

from ..auth.credentials import Token
from ..errors import InvalidArgument, SMTPError
from ..model.secret import Secret
from .answers import Answer, Failure, error_of
from .assertion import SigningKey
from .endpoints import GOOGLE, Endpoints
from .threads import in_oauth_thread
from .token_file import TokenFile, read_token_file, write_token_file
from .token_request import TIMEOUT, Form, TokenEndpoint, token_of

__all__ = ["ClientCredentials", "OnRotation", "RefreshToken", "ServiceAccount"]

_log = logging.getLogger("smtp_async")

#: RFC 7523 section 2.1.
_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

#: Called with a new refresh token that takes the place of the one used; plain or async.
OnRotation: TypeAlias = Callable[[Secret], Awaitable[None] | None]


class _Provider:
    """What the providers have in common: an endpoint, and that they hold secrets."""

    __slots__ = ("_endpoint", "client_id")

    def __init__(
        self,
        endpoints: Endpoints,
        client_id: str,
        timeout: float,
        ssl_context: ssl.SSLContext | None,
        allow_http_loopback: bool,
    ) -> None:
        self._endpoint = TokenEndpoint(
            endpoints.token,
            timeout=timeout,
            ssl_context=ssl_context,
            allow_http_loopback=allow_http_loopback,
        )
        if not client_id:
            raise InvalidArgument("the application's id (client_id) is missing")
        self.client_id = client_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.client_id} at {self._endpoint.host}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled, because it holds a secret")


class RefreshToken(_Provider):
    """Access tokens for an account that has consented, by its refresh token (RFC 6749 section 6).

    Args:
        endpoints: the authorization server.
        client_id: the application's id.
        refresh_token: what stands for the consent.
        client_secret: the application's secret, if it has one.
        scope: ask for less than was consented to; empty: for all of it.
        on_rotation: called when the server puts another refresh token in the place of this one, which may be invalid
            from then on: store the new one. An exception of it is logged.
        timeout: seconds for one request.
        ssl_context: the certificates to trust at the endpoint; None: those of the system.
        allow_http_loopback: accept an http endpoint on this machine, for tests.

    Raises:
        InvalidArgument: the endpoint is not https, or an argument is missing.
        FeatureUnavailable: httpx is not installed.
    """

    __slots__ = (
        "_client_secret",
        "_on_rotation",
        "_path",
        "_refresh_token",
        "_scope",
        "_storing",
        "_written",
        "username",
    )

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        client_id: str,
        refresh_token: Secret | str,
        client_secret: Secret | str = "",
        scope: str = "",
        on_rotation: OnRotation | None = None,
        timeout: float = TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
        allow_http_loopback: bool = False,
    ) -> None:
        # The first statements, so that no stack frame of the library holds the texts.
        refresh_token, client_secret = Secret(refresh_token), Secret(client_secret)
        super().__init__(endpoints, client_id, timeout, ssl_context, allow_http_loopback)
        if not refresh_token:
            raise InvalidArgument("the refresh token is empty")
        self._refresh_token = refresh_token
        self._client_secret = client_secret
        self._scope = scope
        self._on_rotation = on_rotation
        self._path: Path | None = None
        self._storing: set[asyncio.Task[None]] = set()
        # The last token that was written to the file.
        self._written: Secret | None = None
        #: The account that a token file names; empty otherwise.
        self.username = ""

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        on_rotation: OnRotation | None = None,
        timeout: float = TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
    ) -> Self:
        """Return a provider for a file of `smtp-async token`; a rotated refresh token is written back to it.

        The other arguments are those of the class. The file is read again before each request, so that processes may
        share it.

        Raises:
            FileError: the file cannot be read, other users can read it, or it belongs to another user.
            InvalidArgument: it is no such file.
            FeatureUnavailable: httpx is not installed.
        """
        found = read_token_file(Path(path))
        provider = cls(
            found.endpoints,
            client_id=found.client_id,
            refresh_token=found.refresh_token,
            client_secret=found.client_secret,
            on_rotation=on_rotation,
            timeout=timeout,
            ssl_context=ssl_context,
        )
        provider._path = Path(path)
        provider.username = found.username
        return provider

    async def __call__(self) -> Token:
        """Return a new token.

        Raises:
            TokenRefused: the refresh token is no longer valid, or the application is not known.
            TokenUnavailable: the server was not reached, failed, or sent something else.
        """
        stored = await self._read_again()
        asked_at = time.time()
        used = self._refresh_token
        answer = await self._endpoint.ask(self._form())
        if isinstance(answer, Failure) and answer.error == "invalid_grant":
            # Another process may have had the token rotated after it was read here.
            stored = await self._read_again()
            if self._refresh_token != used:
                answer = await self._endpoint.ask(self._form())
        if isinstance(answer, Failure):
            raise error_of(answer)
        if answer.refresh_token is not None and answer.refresh_token != self._refresh_token:
            await self._rotate(answer.refresh_token, stored)
        return token_of(answer, asked_at)

    def _form(self) -> Form:
        return {
            "grant_type": "refresh_token",
            "refresh_token": self._refresh_token,
            "client_id": self.client_id,
            "client_secret": self._client_secret,
            "scope": self._scope,
        }

    async def _read_again(self) -> TokenFile | None:
        """Take the refresh token from the file, if there is one; what cannot be read leaves the one before."""
        if self._path is None:
            return None
        try:
            found = await in_oauth_thread(partial(read_token_file, self._path))
        except SMTPError as error:
            _log.warning("the refresh token read before is used again: %s", error)
            return None
        if found.client_id == self.client_id and found.token_endpoint == self._endpoint.url:
            self._refresh_token = found.refresh_token
            return found
        return None

    async def _rotate(self, refresh_token: Secret, stored: TokenFile | None) -> None:
        """Use a new refresh token from now on, and have it stored, also if the caller is cancelled meanwhile."""
        self._refresh_token = refresh_token
        storing = asyncio.get_running_loop().create_task(self._store(refresh_token, stored))
        # The loop keeps tasks weakly.
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)
        await asyncio.shield(storing)

    async def _store(self, refresh_token: Secret, stored: TokenFile | None) -> None:
        if stored is not None and self._path is not None:
            try:
                await in_oauth_thread(partial(self._store_in, self._path, refresh_token, stored))
            except SMTPError as error:
                _log.error("a new refresh token is kept in memory only: %s", error)
        if self._on_rotation is not None:
            try:
                done = self._on_rotation(refresh_token)
                if inspect.isawaitable(done):
                    await done
            except Exception as error:
                # Without its traceback, whose frames may hold the token.
                _log.error("on_rotation raised %s: the new refresh token may be lost", type(error).__name__)

    def _store_in(self, path: Path, refresh_token: Secret, used: TokenFile) -> None:
        """Write the file, unless it was replaced since it was read: by another consent, or for another account."""
        found = read_token_file(path)
        # What an earlier call wrote, whose caller was cancelled, is no other consent.
        if replace(found, refresh_token=used.refresh_token) != used or found.refresh_token not in (
            used.refresh_token,
            self._written,
        ):
            _log.warning("%s holds another token than the one that was used, and is left as it is", path)
            return
        write_token_file(path, replace(used, refresh_token=refresh_token))
        self._written = refresh_token


class ClientCredentials(_Provider):
    """Access tokens for an application in its own name (RFC 6749 section 4.4): Microsoft 365 application access.

    Args:
        endpoints: the authorization server; `microsoft(tenant)` with the organisation's own tenant.
        client_id: the application's id.
        client_secret: its secret.
        scope: what to ask for; empty: the `application_scope` of the endpoints.
        timeout: seconds for one request.
        ssl_context: the certificates to trust at the endpoint; None: those of the system.
        allow_http_loopback: accept an http endpoint on this machine, for tests.

    Raises:
        InvalidArgument: the endpoint is not https, or there is no secret or scope.
        FeatureUnavailable: httpx is not installed.
    """

    __slots__ = ("_client_secret", "_scope")

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        client_id: str,
        client_secret: Secret | str,
        scope: str = "",
        timeout: float = TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
        allow_http_loopback: bool = False,
    ) -> None:
        client_secret = Secret(client_secret)
        super().__init__(endpoints, client_id, timeout, ssl_context, allow_http_loopback)
        if not client_secret:
            raise InvalidArgument("the application's secret (client_secret) is empty")
        self._client_secret = client_secret
        self._scope = scope or endpoints.application_scope
        if not self._scope:
            raise InvalidArgument(
                f"{endpoints.name} has no scope for applications here: give the scope, and for Microsoft the "
                "organisation's own tenant"
            )

    async def __call__(self) -> Token:
        """Return a new token.

        Raises:
            TokenRefused: the application or its secret is not known, or it has no such permission.
            TokenUnavailable: the server was not reached, failed, or sent something else.
        """
        asked_at = time.time()
        form: Form = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self._client_secret,
            "scope": self._scope,
        }
        return _demand(await self._endpoint.ask(form), asked_at)


class ServiceAccount(_Provider):
    """Access tokens for a service account of Google Workspace, which acts for a mailbox (RFC 7523).

    Args:
        client_id: the service account's address, `client_email` of its key file.
        private_key: its RSA key, PEM.
        subject: the mailbox to act for, by domain-wide delegation.
        key_id: the id of the key, `private_key_id` of the key file.
        endpoints: the authorization server; its `application_scope` is asked for.
        scope: ask for something else.
        timeout: seconds for one request.
        ssl_context: the certificates to trust at the endpoint; None: those of the system.
        allow_http_loopback: accept an http endpoint on this machine, for tests.

    Raises:
        InvalidArgument: the endpoint is not https, or the key is none.
        FeatureUnavailable: httpx is not installed.
    """

    __slots__ = ("_key", "_scope", "_subject")

    def __init__(
        self,
        *,
        client_id: str,
        private_key: Secret | str,
        subject: str,
        key_id: str = "",
        endpoints: Endpoints = GOOGLE,
        scope: str = "",
        timeout: float = TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
        allow_http_loopback: bool = False,
    ) -> None:
        private_key = Secret(private_key)
        super().__init__(endpoints, client_id, timeout, ssl_context, allow_http_loopback)
        if not subject:
            raise InvalidArgument("the subject is missing: the mailbox for which the service account acts")
        self._key = SigningKey(private_key, key_id)
        self._subject = subject
        self._scope = scope or endpoints.application_scope

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        subject: str,
        scope: str = "",
        timeout: float = TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
    ) -> Self:
        """Return a provider for the JSON key file that Google's console hands out.

        A file that other users may read is taken with a warning in the log.

        Raises:
            FileError: the file cannot be read, other users may write to it, or it belongs to another user.
            InvalidArgument: it is no such file.
            FeatureUnavailable: httpx is not installed.
        """
        key_file = SigningKey.read_file(Path(path))
        return cls(
            client_id=key_file.client_email,
            private_key=key_file.private_key,
            key_id=key_file.key_id,
            subject=subject,
            endpoints=replace(GOOGLE, token=key_file.token_uri),
            scope=scope,
            timeout=timeout,
            ssl_context=ssl_context,
        )

    async def __call__(self) -> Token:
        """Return a new token.

        Raises:
            TokenRefused: the key was revoked, or the account may not act for the mailbox.
            TokenUnavailable: the server was not reached, failed, or sent something else.
        """
        asked_at = time.time()
        claims: dict[str, str | int] = {
            "iss": self.client_id,
            "sub": self._subject,
            "scope": self._scope,
            "aud": self._endpoint.url,
        }
        assertion = await in_oauth_thread(partial(self._key.sign, claims, int(asked_at)))
        form: Form = {"grant_type": _JWT_BEARER, "assertion": assertion}
        return _demand(await self._endpoint.ask(form), asked_at)


def _demand(answer: Answer | Failure, asked_at: float) -> Token:
    if isinstance(answer, Failure):
        raise error_of(answer)
    return token_of(answer, asked_at)
