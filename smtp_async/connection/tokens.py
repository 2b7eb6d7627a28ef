"""Access tokens, shared by all connections of a client.

A provider is called by one task however many connections wait for its token. A token is used until shortly before it
expires, or until a server refuses it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Final

from ..auth.credentials import Token, TokenProvider
from ..errors import SMTPError, TokenUnavailable
from ..model.reply import printable
from ..model.secret import Secret

__all__ = ["TokenCache"]

#: Seconds before its end at which a token is replaced, but at most this part of its life.
_MARGIN: Final = 60.0
_PART: Final = 0.1
#: Providers whose tokens are kept; a policy may return a new one for each login.
_MOST_PROVIDERS: Final = 64
#: Characters of a provider's error that are told.
_LONGEST: Final = 200


class _Entry:
    """The token of one provider.

    Attributes:
        provider: kept, because a key may be its address.
        token: the last one, None before the first or after a refusal.
        due: the time of the epoch at which it is replaced; None: never.
        call: the call of the provider under way.
        waiting: how many connections wait for it.
    """

    __slots__ = ("call", "due", "provider", "token", "waiting")

    def __init__(self, provider: TokenProvider) -> None:
        self.provider = provider
        self.token: Token | None = None
        self.due: float | None = None
        self.call: asyncio.Task[Token] | None = None
        self.waiting = 0


class TokenCache:
    """The tokens of a client's connections, by provider.

    Args:
        clock: the time of the epoch.
    """

    __slots__ = ("_clock", "_entries")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._entries: dict[Hashable, _Entry] = {}

    async def get(self, provider: TokenProvider) -> Secret:
        """Return a token that has not expired; the provider is called if there is none.

        Raises:
            TokenRefused: the authorization server issues none.
            TokenUnavailable: none could be fetched.
        """
        entry = self._entry(provider)
        while True:
            if entry.token is not None and (entry.due is None or self._clock() < entry.due):
                return entry.token.value
            call = entry.call or self._begin(entry, provider)
            given_up = call.cancelling() > 0
            await _wait(entry, call)
            if not call.cancelled():
                if isinstance(error := call.exception(), SMTPError):
                    # Each connection has an error, and a traceback, of its own.
                    raise error.copy()
                return call.result().value
            if not given_up:
                raise TokenUnavailable("the call of the token provider was cancelled", stage="AUTH")
            # The call that had just been given up has ended: call again.

    def refused(self, provider: TokenProvider, token: Secret) -> None:
        """Note that a server refused `token`: the next `get` calls the provider, unless another one came meanwhile."""
        entry = self._entry(provider)
        if entry.token is not None and entry.token.value == token:
            entry.token = None

    def leave_loop(self) -> None:
        """Keep the tokens, and forget the calls of an event loop that is closed: they never end."""
        for entry in self._entries.values():
            entry.call, entry.waiting = None, 0

    def _entry(self, provider: TokenProvider) -> _Entry:
        key = _key(provider)
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= _MOST_PROVIDERS:
                # The oldest; a call under way goes on for the connections that wait for it.
                del self._entries[next(iter(self._entries))]
            entry = self._entries[key] = _Entry(provider)
        return entry

    def _begin(self, entry: _Entry, provider: TokenProvider) -> asyncio.Task[Token]:
        call = entry.call = asyncio.get_running_loop().create_task(_fetch(provider), name="smtp_async token")
        call.add_done_callback(lambda done: self._done(entry, done))
        return call

    def _done(self, entry: _Entry, call: asyncio.Task[Token]) -> None:
        entry.call = None
        # Marks an error as retrieved: no connection may be left to raise it.
        if not call.cancelled() and call.exception() is None:
            self._keep(entry, call.result())

    def _keep(self, entry: _Entry, token: Token) -> None:
        entry.token, entry.due = token, None
        if token.expires_at is not None:
            left = token.expires_at - self._clock()
            entry.due = token.expires_at - min(_MARGIN, max(0.0, left) * _PART)


def _key(provider: TokenProvider) -> Hashable:
    """Return what is the same for equal providers: a bound method is made anew each time it is named."""
    try:
        hash(provider)
    except TypeError:
        return id(provider)
    return provider


async def _wait(entry: _Entry, call: asyncio.Task[Token]) -> None:
    """Wait for the call's end; the last connection that waits for it takes it along when it is cancelled."""
    entry.waiting += 1
    try:
        # `wait` does not cancel the call, for which other connections wait, too.
        await asyncio.wait((call,))
    finally:
        entry.waiting -= 1
        if not entry.waiting:
            call.cancel()


async def _fetch(provider: TokenProvider) -> Token:
    """Call the provider.

    Raises:
        SMTPError: as the provider raises it; any other exception becomes a `TokenUnavailable`.
    """
    try:
        token: object = await provider()
    except SMTPError as error:
        error.stage = error.stage or "AUTH"
        raise
    except Exception as error:
        problem = printable(f"{type(error).__name__}: {error}", _LONGEST)
    else:
        if isinstance(token, Token):
            return token
        problem = f"it returned {type(token).__name__}, not a Token"
    # Not chained: the provider's frames may hold a secret.
    raise TokenUnavailable(f"the token provider failed: {problem}", stage="AUTH")
