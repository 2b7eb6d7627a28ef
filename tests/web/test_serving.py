"""serving.py: a page in the loop of a command, from its address to its end."""

import socket

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from smtp_async import Secret
from smtp_async.errors import InvalidArgument
from smtp_async.web.live import Changes, event_stream
from smtp_async.web.serving import Address, cannot_serve, serving


async def _told(request):
    return PlainTextResponse("told")


APP = Starlette(routes=[Route("/", _told)])


async def test_a_page_is_served_inside_the_context_only():
    closed = []
    async with serving(APP, Address(port=0), closing=lambda: closed.append(1)) as url:
        assert url.startswith("http://127.0.0.1:") and "token" not in url
        async with httpx.AsyncClient() as client:
            assert (await client.get(url)).text == "told"
    assert closed == [1]
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_an_address_that_others_reach_has_a_token():
    async with serving(APP, Address(port=0, host="0.0.0.0"), closing=lambda: None) as url:
        address, _, token = url.partition("?token=")
        port = address.rstrip("/").rpartition(":")[2]
        assert len(token) >= 32 and socket.gethostname() in address
        async with httpx.AsyncClient(follow_redirects=True) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 401
            assert (await client.get(f"http://127.0.0.1:{port}/?token={token}")).text == "told"


async def test_a_token_of_the_users_own():
    async with serving(APP, Address(port=0, token=Secret("mine")), closing=lambda: None) as url:
        assert url.endswith("/?token=mine")


async def test_an_end_does_not_wait_for_those_who_look():
    changes = Changes()

    async def news():
        return {"n": 1}

    async def events(request):
        return event_stream(changes, news, pace=0.0)

    app = Starlette(routes=[Route("/events", events)])
    async with serving(app, Address(port=0), closing=changes.close) as url, httpx.AsyncClient() as client:
        async with client.stream("GET", f"{url}events") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == 'data: {"n": 1}'
    assert changes.closed


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
async def test_an_address_that_cannot_be_used_is_named(host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidArgument, match=f"the page cannot be served on {host}, port {port}: "):
            async with serving(APP, Address(port=port, host=host), closing=lambda: None):
                pass


def test_the_reason_is_in_words():
    error = cannot_serve("SMTP", "127.0.0.1", 25, PermissionError(13, "while attempting to bind"))
    assert str(error) == "SMTP cannot be served on 127.0.0.1, port 25: permission denied"
