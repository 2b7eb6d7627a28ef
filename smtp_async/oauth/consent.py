"""The consent of an account in a browser: authorization code with PKCE (RFC 6749 section 4.1, RFC 7636, RFC 8252).

The browser is sent to the authorization server, and that sends it back to a port on this machine. The port is open for
one answer, and only the state that was sent along makes an answer this one's: any page and any process on this machine
can send another, which is refused and ends nothing.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import socket
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from ..errors import CommunicationError, InvalidArgument, TokenUnavailable
from ..model.secret import Secret
from .answers import Answer, Failure, error_of, failure_of
from .endpoints import Endpoints, checked_url
from .token_request import Form, TokenEndpoint

__all__ = ["Redirect", "authorization_url", "consent_in_browser", "read_redirect"]

#: Octets of a request's head.
_LARGEST: Final = 16 * 1024
#: Seconds that a browser has for its request.
_PATIENCE: Final = 10.0
#: Connections at a time; a browser opens two or three.
_MOST_CONNECTIONS: Final = 8
_PAGE: Final = (
    "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\n"
    "Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nContent-Security-Policy: default-src 'none'\r\n"
    "Connection: close\r\n\r\n{body}"
)


class Redirect(NamedTuple):
    """What the authorization server sent the browser back with.

    Attributes:
        code: the authorization code; None: there is a failure.
        failure: why there is no code; None: there is one.
        of_another: it has not the state that was sent along, and says nothing about this consent.
    """

    code: Secret | None = None
    failure: Failure | None = None
    of_another: bool = False


class _Attempt:
    """What belongs to one consent: the state, and PKCE's verifier (RFC 7636 section 4.1)."""

    __slots__ = ("state", "verifier")

    def __init__(self) -> None:
        self.state = Secret(secrets.token_urlsafe(32))
        self.verifier = Secret(secrets.token_urlsafe(48))

    @property
    def challenge(self) -> str:
        """S256 of the verifier, RFC 7636 section 4.2."""
        digest = hashlib.sha256(self.verifier.reveal().encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def authorization_url(
    endpoints: Endpoints,
    *,
    client_id: str,
    redirect_uri: str,
    state: str,
    challenge: str,
    username: str = "",
    scope: str = "",
) -> str:
    """Return the address that the browser opens.

    Raises:
        InvalidArgument: the server has no authorization endpoint, or it is not https.
    """
    if not endpoints.authorization:
        raise InvalidArgument(f"{endpoints.name} has no consent that comes back to this machine")
    url = checked_url(endpoints.authorization, "authorization endpoint")
    fields = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": scope or endpoints.scope,
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "login_hint": username,
        **dict(endpoints.consent_parameters),
    }
    query = urlencode({name: value for name, value in fields.items() if value})
    return f"{url}{'&' if urlsplit(url).query else '?'}{query}"


async def consent_in_browser(
    endpoints: Endpoints,
    *,
    client_id: str,
    client_secret: Secret | str = "",
    show: Callable[[str], None],
    username: str = "",
    scope: str = "",
    port: int = 0,
    patience: float = 300.0,
    ssl_context: ssl.SSLContext | None = None,
) -> Answer:
    """Have an account consent, and return the first token with its refresh token.

    Args:
        endpoints: the authorization server.
        client_id: the application's id.
        client_secret: its secret, if it has one.
        show: called with the address to open in a browser; must not block.
        username: the account, which the server may fill in.
        scope: what to ask for; empty: the scope of the endpoints.
        port: of the redirect; 0: any that is free.
        patience: seconds until the browser has to be back.
        ssl_context: the certificates to trust at the token endpoint; None: those of the system.

    Raises:
        TokenRefused: the account refused, or the server did.
        TokenUnavailable: nothing came back in time, or something else.
        CommunicationError: the port is in use.
        InvalidArgument: the server has no authorization endpoint.
    """
    client_secret = Secret(client_secret)
    endpoint, attempt = TokenEndpoint(endpoints.token, ssl_context=ssl_context), _Attempt()
    async with _Listener(attempt.state, endpoint.what, port) as listener:
        # Without a path, as applications are registered; browsers ask for "/".
        redirect_uri = f"http://{endpoints.redirect_host}:{listener.port}"
        url = authorization_url(
            endpoints,
            client_id=client_id,
            redirect_uri=redirect_uri,
            state=attempt.state.reveal(),
            challenge=attempt.challenge,
            username=username,
            scope=scope,
        )
        show(url)
        redirect = await listener.wait(patience)
    if redirect.code is None:
        raise error_of(redirect.failure or Failure("the browser came back without a code"))
    application: Form = {"client_id": client_id, "client_secret": client_secret}
    return await _redeem(endpoint, application, redirect.code, redirect_uri, attempt.verifier)


async def _redeem(
    endpoint: TokenEndpoint, application: Form, code: Secret, redirect_uri: str, verifier: Secret
) -> Answer:
    """Exchange the code for tokens (RFC 6749 section 4.1.3, RFC 7636 section 4.5)."""
    form: Form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        **application,
        "code_verifier": verifier,
    }
    answer = await endpoint.ask(form)
    if isinstance(answer, Failure):
        raise error_of(answer)
    return answer


def read_redirect(target: str, state: str, server: str) -> Redirect | None:
    """Read the target of a request to the loopback port; None: it is another page, for example the icon.

    Args:
        target: of the request line.
        state: what was sent along.
        server: the authorization server's name for errors.
    """
    try:
        parts = urlsplit(target)
        pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=50)
    except ValueError:
        return None
    if parts.path != "/" or not pairs:
        return None
    fields = dict(pairs)
    # RFC 6749 section 3.1: no parameter may come twice.
    if len(fields) != len(pairs) or not _same(fields.get("state", ""), state):
        return Redirect(
            failure=Failure("the browser came back with an answer to another question (wrong state)"),
            of_another=True,
        )
    if "error" in fields:
        return Redirect(failure=failure_of(400, fields, (), server))
    code = fields.get("code", "")
    return (
        Redirect(code=Secret(code))
        if code
        else Redirect(failure=Failure("the browser came back without a code"))
    )


def _same(found: str, wanted: str) -> bool:
    return hmac.compare_digest(found.encode("utf-8", "replace"), wanted.encode("utf-8"))


class _Listener:
    """The loopback port, open for one answer (RFC 8252 section 7.3)."""

    def __init__(self, state: Secret, server: str, port: int) -> None:
        self._state = state
        self._authorization_server = server
        self._wanted = port
        self._server: asyncio.Server | None = None
        self._answer: asyncio.Future[Redirect] | None = None
        # In the order in which they connected.
        self._browsers: dict[asyncio.StreamWriter, None] = {}
        self._seen_of_another = False
        self.port = 0

    async def __aenter__(self) -> _Listener:
        self._answer = asyncio.get_running_loop().create_future()
        # This machine only, and IPv4: browsers try it where localhost is also ::1.
        try:
            bound = socket.create_server(("127.0.0.1", self._wanted))
        except OSError as error:
            raise CommunicationError(f"cannot listen on port {self._wanted}: {error.strerror}") from error
        self.port = bound.getsockname()[1]
        try:
            # In two steps, because asyncio forgets the server when its start is cancelled.
            self._server = await asyncio.start_server(
                self._serve, sock=bound, limit=_LARGEST, start_serving=False
            )
            await self._server.start_serving()
        except BaseException:
            self._close()
            bound.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        # Nothing is awaited: the caller may be cancelled.
        self._close()

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._browsers:
            writer.transport.abort()

    def _add(self, writer: asyncio.StreamWriter) -> None:
        """Take a connection; the oldest goes if there are too many, because a browser sends its request at once."""
        self._browsers[writer] = None
        if len(self._browsers) > _MOST_CONNECTIONS:
            oldest = next(iter(self._browsers))
            del self._browsers[oldest]
            oldest.transport.abort()

    async def wait(self, patience: float) -> Redirect:
        """Return what the browser came back with.

        Raises:
            TokenUnavailable: it did not come back in time.
        """
        assert self._answer is not None
        try:
            async with asyncio.timeout(patience):
                return await self._answer
        except TimeoutError:
            problem = f"the browser did not come back within {patience:g} s"
        if self._seen_of_another:
            problem += ", only with an answer to another question (wrong state)"
        raise TokenUnavailable(problem)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request: the redirect ends the waiting, everything else is not found."""
        self._add(writer)
        try:
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
            redirect = self._read(head)
            writer.write(_page(redirect))
            writer.close()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        else:
            if redirect is not None:
                self._take(redirect)
        finally:
            self._browsers.pop(writer, None)

    def _take(self, redirect: Redirect) -> None:
        if redirect.of_another:
            self._seen_of_another = True
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(redirect)

    def _read(self, head: bytes) -> Redirect | None:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        target, _, version = rest.partition(" ")
        if method != "GET" or not version.startswith("HTTP/1.") or not target.startswith("/"):
            return None
        return read_redirect(target, self._state.reveal(), self._authorization_server)


def _page(redirect: Redirect | None) -> bytes:
    """Return the page for the browser; it repeats nothing of the request."""
    if redirect is None:
        status, text = "404 Not Found", "There is nothing here."
    elif redirect.of_another:
        status, text = "400 Bad Request", "This is not the answer that the terminal waits for."
    elif redirect.code is None:
        status, text = "400 Bad Request", "There was no consent. The terminal says why."
    else:
        status, text = "200 OK", "This window can be closed; the terminal says how it went."
    body = f"<!doctype html><title>smtp-async</title><p>{text}</p>"
    return _PAGE.format(status=status, length=len(body), body=body).encode("ascii")
