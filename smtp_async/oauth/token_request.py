"""One request to a token endpoint: a form over https, and its answer, bounded in size and time.

httpx is imported when the first request is made, in a thread. What it raises is not chained: the frames below hold the
form, and so do its exceptions.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlencode, urlsplit

from ..auth.credentials import Token
from ..errors import FeatureUnavailable, InvalidArgument
from ..model.secret import Secret
from .answers import LARGEST, Answer, Failure, failure_of, masked, read_answer, read_object
from .endpoints import checked_url
from .threads import in_oauth_thread

if TYPE_CHECKING:
    import httpx

__all__ = ["TIMEOUT", "Form", "TokenEndpoint", "token_of"]

#: Seconds for a whole request.
TIMEOUT: Final = 30.0

Form: TypeAlias = Mapping[str, str | Secret]


class _Response(NamedTuple):
    status: int
    body: bytes


class TokenEndpoint:
    """An endpoint to which forms are sent.

    Args:
        url: its address, https.
        what: its name for errors, for example "token endpoint".
        timeout: seconds for a whole request.
        ssl_context: the certificates to trust; None: those of the system.
        allow_http_loopback: accept http to this machine, for tests.

    Raises:
        InvalidArgument: the address is not https, or the timeout is not positive.
        FeatureUnavailable: httpx is not installed.
    """

    __slots__ = ("_context", "_timeout", "host", "url", "what")

    def __init__(
        self,
        url: str,
        *,
        what: str = "token endpoint",
        timeout: float = TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
        allow_http_loopback: bool = False,
    ) -> None:
        self.url = checked_url(url, what, allow_http_loopback=allow_http_loopback)
        if not timeout > 0:
            raise InvalidArgument("the timeout has to be positive")
        if find_spec("httpx") is None:
            raise FeatureUnavailable(
                "fetching a token needs httpx: pip install 'smtp-async[oauth]'", needs="smtp-async[oauth]"
            )
        self.host = urlsplit(url).hostname or ""
        self.what = f"the {what} {self.host}"
        self._timeout = timeout
        self._context = ssl_context

    async def ask(self, form: Form) -> Answer | Failure:
        """Send a form, and return the token or why there is none."""
        response = await self._post(form)
        if isinstance(response, Failure):
            return response
        return read_answer(response.status, response.body, _secrets(form), self.what)

    async def ask_object(self, form: Form) -> Mapping[str, object] | Failure:
        """Send a form, and return the JSON object of an answer that is no token."""
        response = await self._post(form)
        if isinstance(response, Failure):
            return response
        found = read_object(response.body)
        if response.status != 200:
            return failure_of(response.status, found, _secrets(form), self.what)
        return Failure(f"{self.what} sent no JSON object") if found is None else found

    async def _post(self, form: Form) -> _Response | Failure:
        try:
            async with asyncio.timeout(self._timeout):
                httpx = await in_oauth_thread(_import)
                if self._context is None:
                    # Reads the system's certificates, which takes some ten milliseconds.
                    self._context = await in_oauth_thread(ssl.create_default_context)
                return await self._send(httpx, self._context, form)
        except TimeoutError:
            return Failure(f"{self.what} did not answer within {self._timeout:g} s")

    async def _send(self, httpx: ModuleType, context: ssl.SSLContext, form: Form) -> _Response | Failure:
        try:
            # The limit is that of the whole request; a redirect would carry the secrets to another place.
            client = httpx.AsyncClient(verify=context, timeout=None, follow_redirects=False)
        except (ImportError, ValueError, httpx.InvalidURL):
            # The text may hold the proxy's password.
            return Failure("httpx cannot use the proxy that the environment names (HTTPS_PROXY, ALL_PROXY)")
        # Not compressed: a small body that grows is not bounded by what was received.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        connections = _Connections()
        more = {"extensions": {"trace": connections.trace}}
        try:
            async with (
                client,
                client.stream("POST", self.url, content=_encoded(form), headers=headers, **more) as response,
            ):
                return await self._read(response)
        except asyncio.CancelledError:
            await connections.close()
            raise
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # A ValueError: of a name that IDNA does not allow, for example in the address of a proxy.
            # What the server sent may be part of the reason.
            return Failure(f"{self.what} cannot be reached: {masked(_reason(error), _secrets(form))}")

    async def _read(self, response: httpx.Response) -> _Response | Failure:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            return Failure(f"{self.what} sent a compressed answer, which was not asked for")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > LARGEST:
                return Failure(f"{self.what} sent more than {LARGEST} octets")
        return _Response(response.status_code, bytes(body))


class _Connections:
    """What httpx has opened, to be closed when the request is cancelled.

    httpcore forgets a connection whose TLS handshake is cancelled, and the event loop would keep it until the server
    closes it.
    """

    __slots__ = ("_opened",)

    def __init__(self) -> None:
        self._opened: list[Any] = []

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Be httpx's extension "trace"."""
        if event.endswith("connect_tcp.complete"):
            self._opened.append(info["return_value"])

    async def close(self) -> None:
        """Close them: that is done before the first suspension, at which the caller may be cancelled again."""
        for stream in self._opened:
            with suppress(Exception, asyncio.CancelledError):
                await stream.aclose()


def token_of(answer: Answer, asked_at: float) -> Token:
    """Return the `Token` of an answer.

    Args:
        answer: of a token endpoint.
        asked_at: the time of the epoch before the request, so that the token never seems to live longer than it does.
    """
    return Token(answer.token, None if answer.expires_in is None else asked_at + answer.expires_in)


def _import() -> ModuleType:
    import httpx

    return httpx


def _encoded(form: Form) -> bytes:
    fields = {
        name: value.reveal() if isinstance(value, Secret) else value for name, value in form.items() if value
    }
    return urlencode(fields).encode("ascii")


def _secrets(form: Form) -> list[Secret]:
    return [value for value in form.values() if isinstance(value, Secret) and value]


def _reason(error: Exception) -> str:
    """Return the reason of a failed request; httpx writes it into the innermost exception at times."""
    return str(error) or str(error.__cause__ or error.__context__ or "") or type(error).__name__
