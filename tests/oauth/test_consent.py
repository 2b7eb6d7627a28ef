"""consent.py: one answer on a loopback port, with the right state, exchanged with PKCE."""

import asyncio
import base64
import hashlib
import logging
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_async import Secret
from smtp_async.errors import CommunicationError, InvalidArgument, TokenRefused, TokenUnavailable
from smtp_async.oauth import GOOGLE, YAHOO
from smtp_async.oauth import consent as module
from smtp_async.oauth.answers import Answer
from smtp_async.oauth.consent import Redirect, authorization_url, consent_in_browser, read_redirect
from smtp_async.testing import CancelManner, cancellations
from tests.lab import every_loop, gathered, other_tasks, until
from tests.oauth.server import AuthorizationServer, error, token

pytestmark = pytest.mark.usefixtures("no_leaks")


class Browser:
    """Is sent to the authorization server, and comes back to this machine."""

    def __init__(self, **answer: str) -> None:
        self.answer = answer or {"code": "canary-code"}
        self.urls: list[str] = []
        self.pages: list[bytes] = []
        self.before: list[bytes] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def asked(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.urls[-1]).query, strict_parsing=True))

    def show(self, url: str) -> None:
        self.urls.append(url)
        self._tasks.append(asyncio.get_running_loop().create_task(self._come_back()))

    async def _come_back(self) -> None:
        there = urlsplit(self.asked["redirect_uri"])
        fields = {"state": self.asked["state"], **self.answer}
        target = f"/?{urlencode(fields)}"
        for request in (*self.before, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()):
            reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
            writer.write(request)
            if not request.endswith(b"\r\n\r\n"):
                writer.write_eof()
            try:
                self.pages.append(await reader.read())
            except ConnectionError:
                self.pages.append(b"")
            writer.close()

    async def done(self) -> None:
        await gathered(*self._tasks)


async def consent(server: AuthorizationServer, browser: Browser, **more: Any) -> Answer:
    options = {"client_id": "app-1", "ssl_context": server.context, **more}
    try:
        return await consent_in_browser(server.endpoints(), show=browser.show, **options)
    finally:
        await browser.done()


class Idle(Browser):
    """Comes back when `count` connections are open that send nothing."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.most = 0
        self.silent: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def _come_back(self) -> None:
        there = urlsplit(self.asked["redirect_uri"])
        for _ in range(self.count):
            self.silent.append(await asyncio.open_connection("127.0.0.1", there.port))
        await until(lambda: self.alive() <= 8)
        self.most = self.alive()
        await super()._come_back()

    def alive(self) -> int:
        return sum(not reader.at_eof() and reader.exception() is None for reader, _ in self.silent)

    async def ends(self) -> list[bytes]:
        found = await gathered(*(reader.read() for reader, _ in self.silent))
        for _, writer in self.silent:
            writer.close()
        return [b"" if isinstance(one, ConnectionError) else one for one in found]


@every_loop
async def test_a_consent(authority: AuthorizationServer) -> None:
    authority.script = [token(refresh_token="r1")]
    browser = Browser()
    answer = await consent(authority, browser, client_secret="s1", username="ann@example.com")
    assert answer == Answer(Secret("access-1"), 3600.0, Secret("r1"))
    asked = browser.asked
    assert browser.urls[0].startswith(f"{authority.base}/authorize?")
    assert {name: asked[name] for name in ("response_type", "client_id", "scope", "login_hint")} == {
        "response_type": "code",
        "client_id": "app-1",
        "scope": "mail.send",
        "login_hint": "ann@example.com",
    }
    (form,) = authority.forms
    verifier = form.pop("code_verifier")
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    assert (asked["code_challenge"], asked["code_challenge_method"]) == (digest, "S256")
    assert 43 <= len(verifier) <= 128
    assert form == {
        "grant_type": "authorization_code",
        "code": "canary-code",
        "redirect_uri": asked["redirect_uri"],
        "client_id": "app-1",
        "client_secret": "s1",
    }
    assert asked["redirect_uri"].startswith("http://127.0.0.1:")
    (page,) = browser.pages
    assert page.startswith(b"HTTP/1.1 200 OK\r\n") and b"no-store" in page and b"canary" not in page


async def test_each_has_its_own_state_and_verifier(authority: AuthorizationServer) -> None:
    browser = Browser()
    await consent(authority, browser)
    first = browser.asked
    await consent(authority, browser)
    assert first["state"] != browser.asked["state"] and len(first["state"]) >= 43
    assert first["code_challenge"] != browser.asked["code_challenge"]


@pytest.mark.parametrize(
    "request_before",
    [
        b"GET /favicon.ico HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /?code=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n\r\n",
        b"",
        b"GET /?code=",
        b"\xff" * 20_000,
        b"x" * 20_000,
    ],
)
async def test_what_is_not_the_answer_is_passed_over(
    authority: AuthorizationServer, request_before: bytes
) -> None:
    browser = Browser()
    browser.before = [request_before]
    assert (await consent(authority, browser)).token == Secret("access-1")
    assert browser.pages[0].startswith(b"HTTP/1.1 404") or browser.pages[0] == b""


class TestFailures:
    @pytest.mark.parametrize("state", ["", "wrong", "é"])
    async def test_another_state_alone(self, authority: AuthorizationServer, state: str) -> None:
        browser = Browser(code="c", state=state)
        with pytest.raises(TokenUnavailable, match=r"within 0\.2 s, only with .*wrong state"):
            await consent(authority, browser, patience=0.2)
        assert authority.forms == [] and browser.pages[0].startswith(b"HTTP/1.1 400")

    @pytest.mark.parametrize(
        "forged", ["code=c&state=wrong", "error=access_denied", "state=x&error=access_denied&state=x"]
    )
    async def test_another_state_ends_nothing(self, authority: AuthorizationServer, forged: str) -> None:
        """Any page can have the browser ask for it."""
        browser = Browser()
        browser.before = [f"GET /?{forged} HTTP/1.1\r\nHost: x\r\n\r\n".encode()] * 3
        assert (await consent(authority, browser)).token == Secret("access-1")
        assert [page[:12] for page in browser.pages] == [b"HTTP/1.1 400"] * 3 + [b"HTTP/1.1 200"]
        assert [form["code"] for form in authority.forms] == ["canary-code"]

    async def test_silent_connections_do_not_keep_the_browser_out(
        self, authority: AuthorizationServer, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(module, "_PATIENCE", 60.0)
        browser = Idle(20)
        assert (await consent(authority, browser, patience=5)).token == Secret("access-1")
        assert browser.most <= 9 and all(page == b"" for page in await browser.ends())

    async def test_a_refusal_of_the_account(self, authority: AuthorizationServer) -> None:
        browser = Browser(error="access_denied", error_description="The user said <b>no</b>")
        with pytest.raises(TokenRefused, match="access_denied"):
            await consent(authority, browser)
        assert b"<b>" not in browser.pages[0] and authority.forms == []

    async def test_no_code(self, authority: AuthorizationServer) -> None:
        with pytest.raises(TokenUnavailable, match="without a code"):
            await consent(authority, Browser(code=""))

    async def test_a_code_that_is_refused(self, authority: AuthorizationServer, caplog: Any) -> None:
        caplog.set_level(logging.DEBUG)
        authority.script = [error("invalid_grant", error_description="canary-code is used")]
        with pytest.raises(TokenRefused) as caught:
            await consent(authority, Browser())
        assert "canary" not in str(caught.value) + caplog.text

    async def test_nobody_comes_back(self, authority: AuthorizationServer) -> None:
        with pytest.raises(TokenUnavailable, match=r"within 0\.05 s"):
            await consent_in_browser(
                authority.endpoints(), client_id="a", show=lambda url: None, patience=0.05
            )

    async def test_a_port_that_is_in_use(self, authority: AuthorizationServer) -> None:
        with pytest.raises(CommunicationError, match=f"port {authority.port}"):
            await consent(authority, Browser(), port=authority.port)

    async def test_no_authorization_endpoint(self) -> None:
        with pytest.raises(InvalidArgument, match="yahoo"):
            await consent_in_browser(YAHOO, client_id="a", show=lambda url: None)

    def test_an_authorization_endpoint_in_clear(self, authority: AuthorizationServer) -> None:
        endpoints = authority.endpoints(authorization="http://auth.test/")
        with pytest.raises(InvalidArgument, match="https"):
            authorization_url(endpoints, client_id="a", redirect_uri="b", state="c", challenge="d")


async def test_the_port_is_closed_after_one_answer(authority: AuthorizationServer) -> None:
    browser = Browser()
    await consent(authority, browser)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", urlsplit(browser.asked["redirect_uri"]).port)


@pytest.mark.parametrize("manner", CancelManner)
async def test_cancelled_at_every_await(authority: AuthorizationServer, manner: CancelManner) -> None:
    browser = Browser()

    async def scenario() -> Answer:
        return await consent_in_browser(
            authority.endpoints(), client_id="a", show=browser.show, ssl_context=authority.context
        )

    before = other_tasks()
    async for run in cancellations(scenario, manner=manner):
        assert run.cancelled or isinstance(run.result, Answer), run
        await browser.done()
        await until(lambda: other_tasks() == before)
    assert isinstance(run.result, Answer)


def test_what_google_needs_for_a_refresh_token() -> None:
    url = authorization_url(GOOGLE, client_id="a", redirect_uri="b", state="c", challenge="d")
    assert "access_type=offline" in url and "prompt=consent" in url


def test_an_endpoint_with_a_query(authority: AuthorizationServer) -> None:
    endpoints = authority.endpoints(authorization="https://auth.test/?p=b2c")
    url = authorization_url(endpoints, client_id="a", redirect_uri="b", state="c", challenge="d")
    assert url.startswith("https://auth.test/?p=b2c&response_type=code&")


@pytest.mark.parametrize("target", ["/?state=s&code=1&code=2", "/?state=s&state=s&code=1"])
def test_nothing_may_come_twice(target: str) -> None:
    found = read_redirect(target, "s", "server")
    assert found is not None and found.code is None


@given(st.text() | st.text().map(lambda text: f"/?{text}"), st.text(min_size=1))
def test_any_target(target: str, state: str) -> None:
    found = read_redirect(target, state, "server")
    assert found is None or isinstance(found, Redirect)
    if found is not None and found.code is not None:
        assert dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))["state"] == state


@given(st.dictionaries(st.sampled_from(["code", "error", "error_description", "iss"]), st.text(), min_size=1))
def test_any_fields(fields: dict[str, str]) -> None:
    found = read_redirect(f"/?{urlencode({'state': 's', **fields})}", "s", "server")
    assert found is not None and (found.code is None) != (found.failure is None)
