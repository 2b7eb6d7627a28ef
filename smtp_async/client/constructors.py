"""Ways to make a client that `SMTPClient` and `BlockingClient` share: from a URL, and for a provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from ..auth.credentials import Credentials, TokenProvider
from ..model.secret import Secret
from .options import ClientOptions, as_secret, parse_url

__all__ = ["ClientConstructors"]

_DEFAULTS: Final = ClientOptions()


class ClientConstructors:
    """The constructors of a class that takes the arguments of `SMTPClient`."""

    if TYPE_CHECKING:

        def __init__(self, **arguments: Any) -> None: ...

    @classmethod
    def from_url(cls, url: str, *, options: ClientOptions = _DEFAULTS) -> Self:
        """Make a client from a URL.

        `smtps://user:password@host[:465]` is TLS from the first byte, `smtp://user:password@host[:587]` requires
        STARTTLS, `smtp+plain://host[:25]` uses no TLS, `lmtp://host[:24]` and `lmtp+unix:///path` speak LMTP. User and
        password are percent-encoded.

        Raises:
            InvalidArgument: not such a URL. The message does not repeat it, because it may hold a password.
        """
        hidden = Secret(url)
        # The URL may hold a password, and tracebacks may show local variables.
        del url
        return cls(**parse_url(hidden, options))

    @classmethod
    def for_provider(
        cls,
        name: str,
        *,
        username: str | None = None,
        password: str | Secret | None = None,
        token: str | Secret | TokenProvider | None = None,
        credentials: Credentials | None = None,
        options: ClientOptions = _DEFAULTS,
    ) -> Self:
        """Make a client for a mail provider that is known by name: its server, port, security and limits.

        Args:
            name: "gmail", "office365", "sendgrid", …; `providers` lists them.
            username, password, token, credentials: as for the client; a user name that is the same for all accounts
                of the provider may be left out.
            options: everything else; its numbers of connections are lowered to the provider's, and the limits of
                messages that it leaves at None are the provider's.

        Raises:
            InvalidArgument: no provider has that name; the message suggests similar ones. Or the login makes no sense.
        """
        password, token = as_secret(password), as_secret(token)
        from .presets import client_arguments  # most clients need no preset

        return cls(**client_arguments(name, options, username, password, token, credentials))
