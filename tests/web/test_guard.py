"""guard.py: which requests a page answers, and what every answer forbids."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from smtp_async import Secret
from smtp_async.web.guard import Guard, is_loopback
from tests.web.lab import asking


async def _told(request):
    return PlainTextResponse("told")


METHODS = ["GET", "POST", "DELETE"]
APP = Starlette(routes=[Route("/", _told), Route("/api/x", _told, methods=METHODS)])


async def status(headers, *, method="GET", path="/api/x", **options):
    async with asking(Guard(APP, **options)) as client:
        return (await client.request(method, path, headers=headers)).status_code


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8025", True),
        ("localhost:8025", True),
        ("LOCALHOST", True),
        ("[::1]:8025", True),
        ("10.1.2.3:8025", True),
        ("mail.test:8025", True),
        ("evil.example", False),
        ("evil.example:8025", False),
        ("127.0.0.1.evil.example:8025", False),
        ("localhost.evil.example", False),
        ("mail.test.evil.example:8025", False),
        ("", False),
        ("[::1", False),
        ("]", False),
    ],
)
async def test_a_name_that_a_stranger_could_point_here_is_refused(host, known):
    """DNS rebinding: the browser believes that the page is of evil.example."""
    assert await status({"host": host}, names=["mail.test"]) == (200 if known else 421)


SELF = {"host": "127.0.0.1:8025"}


@pytest.mark.parametrize(
    ("method", "headers", "answer"),
    [
        ("POST", {}, 200),
        ("POST", {"origin": "http://127.0.0.1:8025"}, 200),
        ("POST", {"origin": "http://127.0.0.1:8025", "sec-fetch-site": "same-origin"}, 200),
        ("GET", {"sec-fetch-site": "none"}, 200),
        ("POST", {"origin": "http://evil.example"}, 403),
        ("POST", {"origin": "http://127.0.0.1:3000"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("DELETE", {"sec-fetch-site": "cross-site"}, 403),
        ("DELETE", {"sec-fetch-site": "same-site"}, 403),
        ("GET", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", {"origin": "http://evil.example"}, 403),
    ],
)
async def test_another_site_changes_nothing_and_reads_nothing(method, headers, answer):
    assert await status(SELF | headers, method=method) == answer


async def test_a_link_from_another_site_opens_the_page():
    assert await status(SELF | {"sec-fetch-site": "cross-site"}, path="/") == 200


async def test_every_answer_forbids_what_is_not_of_the_page():
    async with asking(Guard(APP)) as client:
        for path in ("/", "/api/x", "/none"):
            headers = (await client.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy and "script-src 'self'" in policy
            assert "frame-ancestors 'none'" in policy and "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"


async def test_no_token_no_answer():
    token = Secret("very-secret")
    assert await status(SELF, token=token) == 401
    assert await status(SELF, token=token, path="/") == 401
    assert await status(SELF, token=token, path="/?token=wrong") == 401
    assert await status(SELF, token=token, path="/api/x?token=very-secret") == 401
    assert await status(SELF | {"authorization": "Bearer wrong"}, token=token) == 401
    assert await status(SELF | {"authorization": "Bearer very-secret"}, token=token) == 200
    assert await status(SELF | {"authorization": "Basic very-secret"}, token=token) == 401
    assert await status(SELF | {"cookie": 'smtp_async_token="vé'.encode()}, token=token) == 401


async def test_the_token_of_the_address_becomes_a_cookie_that_no_script_reads():
    async with asking(Guard(APP, token=Secret("very-secret"))) as client:
        answer = await client.get("/?token=very-secret&q=1")
        assert answer.status_code == 303 and answer.headers["location"] == "/?q=1"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        assert (await client.get("/api/x")).text == "told"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("mail.test", False)],
)
def test_which_addresses_only_this_machine_reaches(host, loopback):
    assert is_loopback(host) is loopback
