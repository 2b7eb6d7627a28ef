"""The login of a connection: which credentials, which mechanism, and what a refusal means (RFC 4954).

In this order: the application's `before_auth` may change the credentials; `auth.select` ranks the mechanisms; a
mechanism weaker than the server once offered is told of, or refused; a token is fetched; one mechanism is tried. A
refusal of the account ends the login, because trying again would only show the password once more. Two things are
tried again: another mechanism where the server refused the mechanism itself, and once another token.
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import replace
from typing import Final

from ..auth.credentials import Credentials
from ..auth.mechanism import Mechanism, Needs, Peer
from ..auth.select import better_before, candidates, may_follow
from ..errors import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    InvalidArgument,
    ProtocolViolation,
    SMTPError,
    Timeout,
    TokenUnavailable,
)
from ..events import BeforeAuth
from ..model.reply import Reply
from ..model.secret import Secret
from ..protocol.states import Verb
from ..tls.bindings import channel_bindings
from ..tls.info import ConnectionInfo
from .challenges import MAX_ROUNDS, exchange_challenges, is_cancelled, refusal_of
from .channel import Channel
from .route import BeforeAuthPolicy, Route, SharedResources

__all__ = ["authenticate", "peer_of"]

#: RFC 4954 section 6: the credentials are invalid.
_INVALID: Final = 535


def peer_of(channel: Channel, route: Route) -> Peer:
    """Return what mechanisms have to know of the server and the connection."""
    info = channel.info
    offered = frozenset(name.upper() for name in channel.machine.extensions.auth)
    encrypted = info is not None and info.encrypted
    return Peer(
        host=route.tls.server_hostname or route.host,
        port=route.port or None,
        service="lmtp" if route.lmtp else "smtp",
        offered=offered,
        secure=_protects_credentials(route, info),
        bindings=_bindings(channel, info, offered),
        # None: the handshake could not be observed. The server knows.
        certificate_shown=encrypted and info is not None and info.client_authenticated is not False,
    )


def _protects_credentials(route: Route, info: ConnectionInfo | None) -> bool:
    """May credentials travel on this connection?

    Over a Unix socket, or over TLS with a server that is verified, or that `TrustOptions` or `authenticate_server`
    accept: the application has named the exception.
    """
    if route.path is not None or info is None or not info.encrypted:
        return route.path is not None
    excused = route.tls.context is None and info.validation is not None and info.validation.accepted
    return info.verified is True or excused


def _bindings(channel: Channel, info: ConnectionInfo | None, offered: frozenset[str]) -> dict[str, bytes]:
    """Return the channel bindings, if a mechanism that is offered can use them: reading a certificate costs time."""
    if info is None or channel.stream is None:
        return {}
    if not any(name.startswith("SCRAM-") or name == "NTLM" for name in offered):
        return {}
    return channel_bindings(channel.stream.ssl_object, info)


async def authenticate(
    channel: Channel, route: Route, shared: SharedResources, credentials: Credentials
) -> Reply:
    """Log in with the best mechanism that both sides know, and return the server's last reply.

    Args:
        channel: an open one, outside a transaction.
        route: the server, and what the application has said of logins.
        shared: the tokens, and what the server offered before.
        credentials: what is proved; `route.before_auth` may put others in their place.

    Raises:
        AuthenticationUnavailable: no mechanism fits, or `before_auth` refused.
        AuthenticationFailed: the server refused.
        TokenRefused, TokenUnavailable: there is no token.
        FeatureUnavailable: a mechanism was named whose extra is not installed.
        InvalidArgument: the credentials are not enough, or do not fit the mechanism.
        ProtocolViolation: the server broke the mechanism's rules.
        UsageError: AUTH cannot be written now.
    """
    channel.machine.require_writable(Verb.AUTH)
    peer = peer_of(channel, route)
    credentials = await _before(channel, route, credentials, peer)
    mechanisms = candidates(credentials, peer)
    attempt = _Attempt(channel, route, shared, credentials, peer)
    try:
        while True:
            mechanism = await attempt.begin(mechanisms.pop(0))
            answered = channel.machine.answered
            try:
                reply = await exchange_challenges(channel, mechanism, shared.login_threads())
            except AuthenticationUnavailable:
                # No ticket, for example. Once something was sent, no other mechanism may follow.
                if not mechanisms or channel.machine.answered != answered:
                    raise
                continue
            if reply.positive or reply.intermediate:
                return _demand_complete(mechanism, reply)
            if await attempt.renew_token(mechanism, reply):
                mechanisms.insert(0, type(mechanism))
                continue
            code = reply.code
            mechanisms = [one for one in mechanisms if may_follow(code, mechanism, one, secure=peer.secure)]
            if not mechanisms or channel.machine.reply_421 is not None:
                raise _refusal(mechanism, reply)
    finally:
        if peer.secure:
            shared.offered |= peer.offered


class _Attempt:
    """One login: what stays the same while mechanisms and tokens change."""

    def __init__(
        self,
        channel: Channel,
        route: Route,
        shared: SharedResources,
        credentials: Credentials,
        peer: Peer,
    ) -> None:
        self._channel = channel
        self._route = route
        self._shared = shared
        self._credentials = credentials
        self._peer = peer
        self._token: Secret | None = None
        self._renewed = False

    async def begin(self, mechanism: type[Mechanism]) -> Mechanism:
        """Return a new mechanism for one exchange, with its token.

        Raises:
            AuthenticationUnavailable: the server offered a stronger one before, and `refuse_downgrade` is set; or the
                application's own mechanism failed.
            TokenRefused, TokenUnavailable: there is no token.
        """
        self._look_back(mechanism)
        credentials = self._credentials
        provider = credentials.token
        if mechanism.needs is Needs.TOKEN and callable(provider) and not isinstance(provider, Secret):
            if self._token is None:
                self._token = await self._fetch()
            credentials = replace(credentials, token=self._token)
        self._channel.transcript.notify("mechanism", mechanism.name, "logging in with %s")
        made = _made(mechanism, credentials, self._peer)
        if isinstance(made, SMTPError):
            raise made
        return made

    async def renew_token(self, mechanism: Mechanism, reply: Reply) -> bool:
        """After a refusal, fetch another token once; return whether there is another one to try."""
        refused, provider = self._token, self._credentials.token
        if refused is None or mechanism.needs is not Needs.TOKEN or isinstance(provider, Secret | None):
            return False
        if reply.code != _INVALID and mechanism.complete:
            # Not the token was refused: the server is busy, for example.
            return False
        self._shared.tokens.refused(provider, refused)
        if self._renewed or self._channel.machine.reply_421 is not None:
            return False
        self._renewed = True
        self._token = await self._fetch()
        return self._token != refused

    async def _fetch(self) -> Secret:
        provider = self._credentials.token
        assert provider is not None and not isinstance(provider, Secret)
        limit = self._channel.timeouts.auth
        try:
            async with asyncio.timeout(limit):
                return await self._channel.wait_outside(self._shared.tokens.get(provider))
        except SMTPError:
            raise
        except TimeoutError:
            problem = f"the token provider took more than {limit:g} s"
        raise TokenUnavailable(problem, stage="AUTH")

    def _look_back(self, mechanism: type[Mechanism]) -> None:
        """Tell of a mechanism that is weaker than what this server would have been used with before."""
        remembered = self._shared.offered
        best = better_before(mechanism, self._credentials, self._peer, remembered)
        if best is None:
            return
        weaker = f"{mechanism.name} in place of {best.name}"
        if self._route.refuse_downgrade:
            raise AuthenticationUnavailable(
                f"the server now takes {weaker}, which it offered before: an attacker may have changed its offer "
                "(refuse_downgrade)",
                stage="AUTH",
            )
        self._channel.transcript.notify("downgrade", weaker, "the server takes %s, which it offered before")


def _made(mechanism: type[Mechanism], credentials: Credentials, peer: Peer) -> Mechanism | SMTPError:
    """Return a new mechanism, or an error in place of raising it: the frames of a constructor hold the password."""
    try:
        return mechanism(credentials, peer)
    except (Exception, asyncio.CancelledError) as error:
        return refusal_of(mechanism.name, error)


def _demand_complete(mechanism: Mechanism, reply: Reply) -> Reply:
    if reply.intermediate:
        raise ProtocolViolation(f"{mechanism.name} did not end after {MAX_ROUNDS} rounds", stage="AUTH")
    if not mechanism.complete:
        raise ProtocolViolation(
            f"the server ended {mechanism.name} before it was complete", reply=reply, stage="AUTH"
        )
    return reply


def _refusal(mechanism: Mechanism, reply: Reply) -> AuthenticationFailed:
    what = "the token" if mechanism.needs is Needs.TOKEN else "the credentials"
    why = f": {mechanism.explanation}" if mechanism.explanation else ""
    if not why and what == "the credentials" and reply.code == _INVALID:
        why = ": check the user name and the password, which may have to be an app password or a token"
    return AuthenticationFailed(
        f"the server refused {what} ({mechanism.name}){why}", reply=reply, stage="AUTH"
    )


# --- before_auth ---------------------------------------------------------------------------------------------


async def _before(channel: Channel, route: Route, credentials: Credentials, peer: Peer) -> Credentials:
    """Tell hooks that a login begins, ask the application's policy, and return the credentials to use.

    Raises:
        AuthenticationUnavailable: the policy refused, or failed.
    """
    transcript, policy = channel.transcript, route.before_auth
    if policy is None and not transcript.wants(BeforeAuth):
        return credentials
    event = BeforeAuth(
        session=channel.number,
        host=peer.host,
        mechanism=_expected(credentials, peer),
        username=credentials.username,
        offered=channel.machine.extensions.auth,
    )
    if transcript.wants(BeforeAuth):
        transcript.note(event)
        await transcript.tell()
    if policy is None:
        return credentials
    answer = await _ask(channel, policy, event, credentials)
    if answer is False:
        raise AuthenticationUnavailable("before_auth refused the login", stage="AUTH")
    if isinstance(answer, Credentials):
        return answer
    if answer is None or answer is True:
        return credentials
    raise InvalidArgument(f"before_auth returns Credentials, a bool or None, not {type(answer).__name__}")


async def _ask(
    channel: Channel, policy: BeforeAuthPolicy, event: BeforeAuth, credentials: Credentials
) -> object:
    """Return what the policy answers; it has as long as the server has for AUTH."""
    limit = channel.timeouts.auth
    try:
        async with asyncio.timeout(limit):
            answer = policy(event, credentials)
            return await channel.wait_outside(answer) if inspect.isawaitable(answer) else answer
    except SMTPError:
        raise
    except TimeoutError as error:
        raise Timeout(f"before_auth took more than {limit:g} s", stage="AUTH") from error
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        # The policy awaited what another part of the application had cancelled: nobody cancelled this task.
        raise AuthenticationUnavailable("before_auth raised CancelledError", stage="AUTH") from error
    except Exception as error:
        raise AuthenticationUnavailable(f"before_auth raised {type(error).__name__}", stage="AUTH") from error


def _expected(credentials: Credentials, peer: Peer) -> str:
    """Return the name of the mechanism that would be used; empty if none fits."""
    try:
        return candidates(credentials, peer)[0].name
    except SMTPError:
        return ""
