"""token_request.py: one form over https, bounded in size and time, and no secret in what goes wrong."""

import asyncio
import logging
import ssl
import sys
from typing import Any

import pytest

from smtp_async import Secret
from smtp_async.errors import FeatureUnavailable, InvalidArgument
from smtp_async.oauth.answers import LARGEST, Answer, Failure
from smtp_async.oauth.token_request import Form, TokenEndpoint, token_of
from smtp_async.testing import CancelManner, CancelMoment, cancellations
from tests.lab import every_loop, other_tasks, until
from tests.oauth.server import AuthorizationServer, Reply, token
from tests.servers.pki import Pki

FORM: Form = {"grant_type": "refresh_token", "refresh_token": Secret("canary-&=%+ü-refresh"), "scope": ""}


def endpoint(server: AuthorizationServer, **more: Any) -> TokenEndpoint:
    return TokenEndpoint(more.pop("url", server.url), **{"ssl_context": server.context, **more})


async def failure(server: AuthorizationServer, **more: Any) -> str:
    answer = await endpoint(server, **more).ask(FORM)
    assert isinstance(answer, Failure) and not answer.permanent
    assert "canary" not in repr(answer)
    return answer.problem


@every_loop
async def test_a_form_and_its_token(authority: AuthorizationServer) -> None:
    answer = await endpoint(authority).ask(FORM)
    assert answer == Answer(Secret("access-1"), 3600.0, None)
    assert authority.forms == [{"grant_type": "refresh_token", "refresh_token": "canary-&=%+ü-refresh"}]
    headers = authority.headers[0]
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert headers["Accept-Encoding"] == "identity"


async def test_the_systems_certificates(authority: AuthorizationServer, pki: Pki, monkeypatch: Any) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca_file))
    assert isinstance(await endpoint(authority, ssl_context=None).ask(FORM), Answer)


class TestFailures:
    async def test_a_redirect_is_not_followed(self, authority: AuthorizationServer) -> None:
        authority.script = [Reply(307, b"", {"Location": f"{authority.base}/elsewhere"})]
        assert "redirect" in await failure(authority)
        assert authority.paths == ["/token"]

    async def test_a_huge_body(self, authority: AuthorizationServer) -> None:
        authority.script = [Reply(200, b" " * (LARGEST + 1))]
        assert "more than" in await failure(authority)

    async def test_a_body_that_would_grow(self, authority: AuthorizationServer) -> None:
        authority.script = [Reply(200, b"x", {"Content-Encoding": "gzip"})]
        assert "compressed" in await failure(authority)

    async def test_a_body_that_is_cut(self, authority: AuthorizationServer) -> None:
        authority.script = [Reply(200, b"{}", {"Content-Length": "400"})]
        assert "cannot be reached" in await failure(authority)

    async def test_slow(self, authority: AuthorizationServer) -> None:
        authority.open.clear()
        assert (
            await failure(authority, timeout=0.2)
            == "the token endpoint localhost did not answer within 0.2 s"
        )

    async def test_nothing_listens(self, authority: AuthorizationServer) -> None:
        assert "cannot be reached" in await failure(authority, url="https://127.0.0.1:1/token")

    async def test_a_host_that_idna_does_not_allow(self, authority: AuthorizationServer) -> None:
        asked = endpoint(authority)
        # As an address may be that only httpx takes apart in this way.
        asked.url = "https://xn--a.example/"
        found = await asked.ask({"client_secret": Secret("canary-1")})
        assert isinstance(found, Failure) and "cannot be reached" in found.problem

    async def test_an_authority_that_is_not_trusted(self, authority: AuthorizationServer) -> None:
        problem = await failure(authority, ssl_context=ssl.create_default_context())
        assert "certificate" in problem
        assert authority.forms == []

    async def test_a_certificate_for_another_host(self, pki: Pki) -> None:
        with AuthorizationServer(pki) as server:
            context = pki.client_context()
            problem = await failure(
                server, ssl_context=context, url=f"https://localhost.localdomain:{server.port}/token"
            )
        assert "cannot be reached" in problem and server.forms == []

    @pytest.mark.parametrize(
        ("proxy", "said"),
        [
            ("socks5://ann:canary@127.0.0.1:1", "cannot use the proxy"),
            ("odd://ann:canary@127.0.0.1:1", "cannot use the proxy"),
            ("http://ann:canary@127.0.0.1:1", "cannot be reached"),
        ],
    )
    async def test_the_proxy_of_the_environment(
        self, authority: AuthorizationServer, monkeypatch: Any, proxy: str, said: str
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setitem(sys.modules, "socksio", None)
        assert said in await failure(authority) and authority.forms == []
        monkeypatch.setenv("NO_PROXY", "localhost")
        assert isinstance(await endpoint(authority).ask(FORM), Answer) or "cannot use" in said

    async def test_an_answer_that_is_no_http_repeats_what_was_sent(
        self, authority: AuthorizationServer
    ) -> None:
        authority.handler = lambda form: Reply(200, b"", {"X Bad": form["refresh_token"]})
        assert "***" in await failure(authority)


class TestArguments:
    @pytest.mark.parametrize(
        "url", ["http://auth.test/token", "http://localhost/token", "auth.test/token", "https://", "ftp://a/"]
    )
    def test_https_only(self, url: str) -> None:
        with pytest.raises(InvalidArgument):
            TokenEndpoint(url)

    def test_http_on_this_machine_when_allowed(self) -> None:
        assert TokenEndpoint("http://127.0.0.1:1/", allow_http_loopback=True).host == "127.0.0.1"
        with pytest.raises(InvalidArgument, match="https"):
            TokenEndpoint("http://auth.test/", allow_http_loopback=True)

    @pytest.mark.parametrize("seconds", [0, -1, float("nan")])
    def test_timeouts_are_positive(self, seconds: float) -> None:
        with pytest.raises(InvalidArgument, match="timeout"):
            TokenEndpoint("https://auth.test/", timeout=seconds)

    def test_the_missing_extra_is_named(self, monkeypatch: Any) -> None:
        monkeypatch.setitem(sys.modules, "httpx", None)
        with pytest.raises(FeatureUnavailable) as caught:
            TokenEndpoint("https://auth.test/")
        assert caught.value.needs == "smtp-async[oauth]"


async def test_nothing_secret_in_logs(authority: AuthorizationServer, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    authority.script = [token("canary-access", refresh_token="canary-rotated")]
    await endpoint(authority).ask(FORM)
    authority.script = [Reply(400, {"error": "invalid_grant", "error_description": "canary-&=%+ü-refresh"})]
    answer = await endpoint(authority).ask(FORM)
    assert isinstance(answer, Failure) and "canary" not in answer.problem
    assert "canary" not in caplog.text


@pytest.mark.parametrize("moment", CancelMoment)
@pytest.mark.parametrize("manner", CancelManner)
async def test_cancelled_at_every_await(
    authority: AuthorizationServer, manner: CancelManner, moment: CancelMoment
) -> None:
    one = endpoint(authority)
    await one.ask(FORM)
    before = other_tasks()

    async def scenario() -> Any:
        return await one.ask(FORM)

    runs = 0
    async for run in cancellations(scenario, manner=manner, moment=moment):
        runs += 1
        assert run.cancelled or isinstance(run.result, Answer | Failure), run
        await until(lambda: other_tasks() == before)
    assert runs > 3 and isinstance(run.result, Answer)
    assert isinstance(await asyncio.create_task(scenario()), Answer)


def test_a_token_never_lives_longer_than_it_does() -> None:
    assert token_of(Answer(Secret("a"), 60.0, None), 1000.0).expires_at == 1060.0
    assert token_of(Answer(Secret("a"), None, None), 1000.0).expires_at is None
