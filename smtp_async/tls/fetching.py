"""Fetching what certificates name: CRLs and OCSP responses, over HTTP.

The URLs come from a server that is not trusted yet, and the answers may come from an attacker. Therefore:

- Only http and https, without user names, and a redirect stays with its scheme.
- The address is checked where a socket is made for it: after name resolution, for each attempt and each redirect, so
  that no name can resolve to one address for the check and to another for the connection.
- The answer is cut off at a size, is not decompressed, and has one deadline from name resolution to the last byte.
- No cookies, no credentials, and no proxy that the environment names: it would make the check above meaningless.

A request is under way once at a time, however many connections wait for it. What failed is not tried again for a while.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..model.reply import printable
from .address_kinds import AddressKind, kind_of
from .expiring_cache import ExpiringCache
from .single_flight import SingleFlight

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

__all__ = ["Fetched", "Fetcher", "Request"]

_REDIRECTS: Final = 3
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
#: How many failures are remembered.
_FAILURES: Final = 256
_SHOWN: Final = 200

AddressKinds = frozenset[AddressKind]


class Request(NamedTuple):
    """What is asked for.

    Attributes:
        url: where.
        accept: the media type of the answer.
        content_type, body: what is posted; without a body, the request is a GET.
    """

    url: str
    accept: str
    content_type: str = ""
    body: bytes = b""


class Fetched(NamedTuple):
    """What came of a request: octets, or why there are none, as the end of a sentence about the URL."""

    data: bytes = b""
    failure: str = ""


class _Failed(Exception):
    """The answer is no use; the text is the end of a sentence about the URL."""


class Fetcher:
    """Fetches octets from URLs that strangers chose.

    Args:
        limit: most octets of an answer.
        pause: seconds for which a URL that failed is not tried again.
        user_agent: the name under which the servers are asked.
    """

    def __init__(self, *, limit: int, pause: float, user_agent: str = "smtp-async") -> None:
        self._limit = limit
        self._user_agent = user_agent
        self._pause = timedelta(seconds=pause)
        self._flights: SingleFlight[tuple[Request, AddressKinds], Fetched] = SingleFlight()
        self._failures: ExpiringCache[str] = ExpiringCache(_FAILURES)
        self._answers: ExpiringCache[bytes] = ExpiringCache(2 * limit, len)

    async def fetch(self, request: Request, allowed: AddressKinds, *, until: float, now: datetime) -> Fetched:
        """Return the answer to a request, kept or new; a failure is part of the result.

        Args:
            request: what to ask for.
            allowed: the kinds of addresses that may be connected to.
            until: the deadline, in the loop's time.
            now: the time of day.
        """
        if (answer := self._answers.get((request, allowed), now)) is not None:
            return Fetched(answer)
        if failure := self._failures.get((request.url, allowed), now):
            return Fetched(failure=failure)
        flight = self._flights.join((request, allowed), lambda: self._attempt(request, allowed, until, now))
        return await flight.result()

    def keep(
        self, request: Request, allowed: AddressKinds, answer: bytes, *, now: datetime, until: datetime
    ) -> None:
        """Answer the same request with `answer` until it is no longer valid."""
        self._answers.put((request, allowed), answer, now, until)

    async def _attempt(self, request: Request, allowed: AddressKinds, until: float, now: datetime) -> Fetched:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if began >= until:
            return Fetched(failure="was not asked, as the time was over")
        sockets = _SocketFactory(allowed)
        try:
            async with asyncio.timeout_at(until):
                return Fetched(await _get(request, sockets, self._limit, self._user_agent))
        except TimeoutError:
            failure = f"did not answer within {loop.time() - began:.1f} s"
        except _Failed as error:
            failure = str(error)
        except Exception as error:  # a stranger chose both URL and answer, and HTTP has many ways to fail
            failure = sockets.refusal or f"cannot be reached: {_why(error)}"
        if self._pause:
            self._failures.put((request.url, allowed), failure, now, now + self._pause)
        return Fetched(failure=failure)


class _SocketFactory:
    """Makes sockets for the addresses that may be connected to, and for no others."""

    def __init__(self, allowed: AddressKinds) -> None:
        self._allowed = allowed
        self.refusal = ""

    def __call__(self, address: Any) -> socket.socket:
        family, kind, protocol, _, endpoint = address
        found = kind_of(str(endpoint[0]))
        if found not in self._allowed:
            self.refusal = (
                f"is at {endpoint[0]}, a {found.value} address, which certificates may not name here"
            )
            raise OSError(self.refusal)
        return socket.socket(family, kind, protocol)


async def _get(request: Request, sockets: _SocketFactory, limit: int, user_agent: str) -> bytes:
    """Return the answer to a request. A session for each: requests are hours apart."""
    # The import takes a tenth of a second.
    aiohttp = await asyncio.to_thread(importlib.import_module, "aiohttp")
    connector = aiohttp.TCPConnector(
        # Not aiohttp's default: that one depends on what else is installed, and leaves /etc/hosts aside.
        resolver=aiohttp.ThreadedResolver(),
        use_dns_cache=False,
        force_close=True,
        socket_factory=sockets,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        # The deadline is the caller's.
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
    ) as session:
        return await _follow(session, request, limit, user_agent)


async def _follow(session: ClientSession, request: Request, limit: int, user_agent: str) -> bytes:
    from yarl import URL

    headers = {"Accept": request.accept, "Accept-Encoding": "identity", "User-Agent": user_agent}
    if request.body:
        headers["Content-Type"] = request.content_type
    target = _checked(URL(request.url))
    # A redirect stays with the scheme, and reading the system's certificates takes tens of milliseconds.
    secure = target.scheme == "https"
    context = await asyncio.to_thread(ssl.create_default_context) if secure else False
    for _ in range(1 + _REDIRECTS):
        async with session.request(
            "POST" if request.body else "GET",
            target,
            data=request.body or None,
            headers=headers,
            allow_redirects=False,
            ssl=context,
        ) as answer:
            if answer.status in _MOVED:
                target = _redirected(target, answer.headers.get("Location", ""))
                continue
            if answer.status != 200:
                raise _Failed(f"answers with HTTP status {answer.status}")
            return await _body(answer, limit)
    raise _Failed(f"redirects more than {_REDIRECTS} times")


def _checked(url: URL) -> URL:
    if url.scheme not in ("http", "https") or not url.host:
        raise _Failed("is neither http nor https")
    if url.user is not None or url.password is not None:
        raise _Failed("contains a user name or a password")
    return url


def _redirected(url: URL, location: str) -> URL:
    from yarl import URL

    target = _checked(url.join(URL(location)))
    if target.scheme != url.scheme:
        raise _Failed(f"redirects from {url.scheme} to {target.scheme}")
    return target


async def _body(answer: ClientResponse, limit: int) -> bytes:
    if (answer.content_length or 0) > limit:
        raise _Failed(f"has {answer.content_length} bytes, of {limit} at most")
    data = bytearray()
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > limit:
            raise _Failed(f"has more than {limit} bytes")
    return bytes(data)


def _why(error: Exception) -> str:
    return printable(str(error) or type(error).__name__, _SHOWN)
