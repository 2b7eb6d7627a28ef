"""Keeps other web sites, and strangers, away from a page on this machine.

A page on loopback needs no password, but every web site in the user's browser can send requests there. Therefore

- `Host` must be a name of this machine, or a site could let its own name point to 127.0.0.1 (DNS rebinding) and read;
- a request that another origin caused (`Origin`, `Sec-Fetch-Site`) changes nothing and reads nothing of the interface;
- where the page can be reached from other machines, a token is required.

Every answer forbids scripts, styles, frames and connections that are not of the page itself.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..model.secret import Secret

__all__ = ["Guard", "is_loopback"]

_COOKIE: Final = "smtp_async_token"
_SAFE: Final = frozenset({"GET", "HEAD"})
_OWN: Final = frozenset({"", "none", "same-origin"})
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Return whether an address or name can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Checks each request before the program sees it, and adds the headers of safety to each answer.

    Args:
        app: the program.
        names: host names by which the page may be addressed, besides `localhost` and addresses.
        token: required of each request, in the cookie that `/?token=…` sets, or as `Authorization: Bearer`. None where
            only this machine can reach the page.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str] = (), token: Secret | None = None) -> None:
        self._app = app
        self._names: Final = frozenset({"localhost", *(name.lower() for name in names)})
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the program answer it."""
        if scope["type"] != "http":
            return
        answer = self._refusal(scope)
        await (answer or self._app)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that the program does not get."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._knows(host):
            return PlainTextResponse("This page has another name; see --web-name.", 421)
        if not _same_origin(scope, headers, host):
            return PlainTextResponse("Another site may not do this.", 403)
        return self._without_token(scope, headers)

    def _knows(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            ipaddress.ip_address(name)
        except ValueError:
            # An address as a name cannot be pointed elsewhere by the owner of a domain.
            return host.rpartition(":")[0].lower() in self._names or host.lower() in self._names
        return True

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        if self._token is None:
            return None
        if any(self._fits(one) for one in (_cookie(headers), _bearer(headers))):
            return None
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        given = query.pop("token", "")
        if scope["path"] != "/" or scope["method"] not in _SAFE or not self._fits(given):
            return PlainTextResponse("A token is needed: open the address that the command printed.", 401)
        # Out of the address line, the history and what others see over a shoulder.
        answer = RedirectResponse(f"/?{urlencode(query)}" if query else "/", 303)
        answer.set_cookie(_COOKIE, given, httponly=True, samesite="strict")
        return answer

    def _fits(self, given: str) -> bool:
        wanted = "" if self._token is None else self._token.reveal()
        return bool(given) and hmac.compare_digest(given.encode(), wanted.encode())


def _same_origin(scope: Scope, headers: Headers, host: str) -> bool:
    """Return whether the page itself, or no page at all, caused a request; a link to the page is fine, too."""
    changes = scope["method"] not in _SAFE
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return False
    protected = changes or scope["path"].startswith("/api/")
    return not protected or headers.get("sec-fetch-site", "") in _OWN


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, text in _HEADERS.items():
                # What an answer says itself, as that with the HTML of a mail does, is meant.
                headers.setdefault(name, text)
        await send(message)

    return sending
