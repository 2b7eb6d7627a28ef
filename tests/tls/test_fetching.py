"""Fetching from URLs that strangers chose: what is refused, cut off, shared and remembered."""

import asyncio
import gzip
import socket
import ssl
from datetime import timedelta
from typing import Any

import pytest
import trustme

from smtp_async.testing import CancelManner, CancelMoment, cancellations
from smtp_async.tls.address_kinds import AddressKind
from smtp_async.tls.fetching import Fetched, Fetcher, Request
from tests.lab import every_loop
from tests.tls.revocation_lab import HOUR, NOW, Page, Site, dead, endless, site, stalling

pytestmark = pytest.mark.usefixtures("no_leaks")

HERE = frozenset({AddressKind.LOOPBACK})
PUBLIC = frozenset({AddressKind.PUBLIC})
LIMIT = 10_000


async def fetch(
    url: str,
    *,
    fetcher: Fetcher | None = None,
    allowed=HERE,
    seconds: float = 10.0,
    now=NOW,
    body: bytes = b"",
) -> Fetched:
    until = asyncio.get_running_loop().time() + seconds
    request = Request(url, "text/plain", "text/html" if body else "", body)
    fetcher = fetcher or Fetcher(limit=LIMIT, pause=3600)
    return await fetcher.fetch(request, allowed, until=until, now=now)


# --- requests and answers ------------------------------------------------------------------------------------


@every_loop
async def test_get() -> None:
    async with site() as here:
        here.pages["/a%20b?c=d"] = b"octets"
        assert await fetch(here.url("/a%20b?c=d")) == Fetched(b"octets")
        (request,) = here.requests
    assert (request.method, request.body) == ("GET", b"")
    assert request.headers["accept"] == "text/plain"
    assert request.headers["accept-encoding"] == "identity"
    assert not {"cookie", "authorization", "content-type"} & set(request.headers)


async def test_post() -> None:
    async with site() as here:
        here.pages["/"] = lambda request: request.body[::-1]
        assert await fetch(here.url("/"), body=b"abc") == Fetched(b"cba")
        assert here.requests[0].method == "POST"
        assert here.requests[0].headers["content-type"] == "text/html"


async def test_a_name_of_the_application() -> None:
    async with site() as here:
        here.pages["/"] = b"octets"
        await fetch(here.url("/"))
        await fetch(here.url("/"), fetcher=Fetcher(limit=LIMIT, pause=0, user_agent="mailer/2.1 (ops)"))
    assert [request.headers["user-agent"] for request in here.requests] == ["smtp-async", "mailer/2.1 (ops)"]


async def test_https_trusts_what_the_system_trusts(monkeypatch, tmp_path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with site(context) as here:
        here.pages["/"] = b"octets"
        refused = await fetch(here.url("/"))
        assert "certificate" in refused.failure.lower()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert await fetch(here.url("/")) == Fetched(b"octets")


@pytest.mark.parametrize("status", [204, 301, 401, 404, 500])
async def test_other_statuses_are_failures(status: int) -> None:
    async with site() as here:
        here.pages["/"] = Page(b"", status)
        assert (await fetch(here.url("/"))).failure


@pytest.mark.parametrize(
    "said", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"\x16\x03"]
)
async def test_what_is_no_http(said: bytes) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    async with site() as here:
        here.wild["/"] = say
        assert (await fetch(here.url("/"))).failure.startswith("cannot be reached: ")


async def test_nothing_listens_there() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        failure = (await fetch(f"http://127.0.0.1:{holder.getsockname()[1]}/")).failure
    assert failure.startswith("cannot be reached: ")


async def test_no_proxy_of_the_environment_is_asked(monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1/")
    async with site() as here:
        here.pages["/"] = b"octets"
        assert await fetch(here.url("/")) == Fetched(b"octets")


# --- limits --------------------------------------------------------------------------------------------------


async def test_the_largest_answer() -> None:
    async with site() as here:
        here.pages["/"] = bytes(LIMIT)
        assert len((await fetch(here.url("/"))).data) == LIMIT


async def test_too_much_is_announced() -> None:
    async with site() as here:
        here.pages["/"] = Page(headers={"Content-Length": str(LIMIT + 1)})
        assert (await fetch(here.url("/"))).failure == f"has {LIMIT + 1} bytes, of {LIMIT} at most"


async def test_too_much_arrives() -> None:
    async with site() as here:
        here.wild["/"] = endless
        assert (await fetch(here.url("/"))).failure == f"has more than {LIMIT} bytes"


async def test_nothing_is_decompressed() -> None:
    bomb = gzip.compress(bytes(10 * LIMIT))
    async with site() as here:
        here.pages["/"] = Page(bomb, headers={"Content-Encoding": "gzip"})
        assert (await fetch(here.url("/"))).data == bomb


@pytest.mark.parametrize("behaviour", [dead, stalling])
async def test_the_deadline_is_for_all_of_it(behaviour) -> None:
    async with site() as here:
        here.wild["/"] = behaviour
        loop = asyncio.get_running_loop()
        began = loop.time()
        fetched = await fetch(here.url("/"), seconds=0.3)
        assert 0.2 < loop.time() - began < 5
    assert fetched.failure.startswith("did not answer within 0.")


async def test_name_resolution_is_part_of_it(monkeypatch) -> None:
    async def resolve(*_, **__) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    fetched = await fetch("http://crl.example.com/", seconds=0.3)
    assert fetched.failure.startswith("did not answer within 0.")


# --- URLs, redirects, addresses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "ldap://example.com/",
        "http:///x",
        "//example.com/",
        "",
        "http://[",
    ],
)
async def test_only_http_and_https(url: str) -> None:
    assert (await fetch(url)).failure


async def test_no_user_names() -> None:
    async with site() as here:
        fetched = await fetch(here.url("/").replace("//", "//ann:secret@"))
        assert fetched.failure == "contains a user name or a password"
        assert here.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_with_the_same_method(status: int) -> None:
    async with site() as here:
        here.pages["/"] = Page(status=status, headers={"Location": "/there"})
        here.pages["/there"] = lambda request: request.body
        assert await fetch(here.url("/"), body=b"abc") == Fetched(b"abc")


@pytest.mark.parametrize(
    ("target", "failure"),
    [
        ("https://127.0.0.1:1/", "redirects from http to https"),
        ("file:///etc/passwd", "is neither http nor https"),
        ("http://ann:secret@127.0.0.1:1/", "contains a user name or a password"),
        ("/", "redirects more than 3 times"),
        (
            "http://169.254.169.254/latest/meta-data/",
            "is at 169.254.169.254, a link-local address, which certificates may not name here",
        ),
        ("http://10.0.0.1/", "is at 10.0.0.1, a private address, which certificates may not name here"),
        (
            "http://[fd00:ec2::254]/",
            "is at fd00:ec2::254, a private address, which certificates may not name here",
        ),
    ],
)
async def test_where_a_redirect_may_not_lead(target: str, failure: str) -> None:
    async with site() as here:
        here.pages["/"] = Page(status=302, headers={"Location": target})
        assert (await fetch(here.url("/"))).failure == failure


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("localhost", "loopback"),
        ("2130706433", "loopback"),
        ("0x7f.1", "loopback"),
        ("[::ffff:127.0.0.1]", "loopback"),
        ("0.0.0.0", "unusable"),
    ],
)
async def test_a_public_mail_server_leads_to_no_address_of_ours(host: str, kind: str) -> None:
    async with site() as here:
        fetched = await fetch(here.url("/", host), allowed=PUBLIC)
        assert here.requests == []
    assert f"a {kind} address" in fetched.failure or "cannot be reached" in fetched.failure


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.1", "::1"], ["10.0.0.1", "127.0.0.1"]])
async def test_the_address_that_a_name_resolves_to_counts(monkeypatch, addresses: list[str]) -> None:
    async def resolve(name: str, port: int, **options: Any) -> list[Any]:
        assert name == "crl.example.com"
        found = []
        for one in addresses:
            family = socket.AF_INET6 if ":" in one else socket.AF_INET
            endpoint = (one, port, 0, 0) if ":" in one else (one, port)
            found.append((family, socket.SOCK_STREAM, 6, "", endpoint))
        return found

    async with site() as here:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        fetched = await fetch(here.url("/", "crl.example.com"), allowed=PUBLIC)
        assert here.requests == []
    assert "which certificates may not name here" in fetched.failure


async def test_a_redirect_is_resolved_and_checked_anew(monkeypatch) -> None:
    """The first host may be connected to, the second resolves to an address that may not."""

    async def resolve(name: str, port: int, **options: Any) -> list[Any]:
        address = {"crl.example.com": "127.0.0.1", "inside.example.com": "192.168.0.1"}[name]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async with site() as here:
        here.pages["/"] = Page(status=302, headers={"Location": "http://inside.example.com/"})
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        fetched = await fetch(here.url("/", "crl.example.com"))
        assert here.paths() == ["/"]
    assert fetched.failure.startswith("is at 192.168.0.1, a private address")


# --- once, and not again -------------------------------------------------------------------------------------


async def test_a_request_is_under_way_once() -> None:
    async with site() as here:
        here.pages["/"] = b"octets"
        here.pages["/other"] = b"others"
        fetcher = Fetcher(limit=LIMIT, pause=0)
        urls = [here.url("/")] * 5 + [here.url("/other")]
        found = await asyncio.gather(*(fetch(url, fetcher=fetcher) for url in urls))
        assert [one.data for one in found] == [b"octets"] * 5 + [b"others"]
        assert sorted(here.paths()) == ["/", "/other"]


async def test_what_may_be_reached_is_not_shared() -> None:
    async with site() as here:
        here.pages["/"] = b"octets"
        fetcher = Fetcher(limit=LIMIT, pause=3600)
        allowed, refused = await asyncio.gather(
            fetch(here.url("/"), fetcher=fetcher), fetch(here.url("/"), fetcher=fetcher, allowed=PUBLIC)
        )
    assert allowed.data and refused.failure


async def test_what_failed_is_left_alone_for_a_while() -> None:
    async with site() as here:
        fetcher = Fetcher(limit=LIMIT, pause=3600)
        for now in (NOW, NOW + timedelta(minutes=59), NOW + HOUR):
            assert "404" in (await fetch(here.url("/"), fetcher=fetcher, now=now)).failure
        assert len(here.requests) == 2
        here.pages["/"] = b"octets"
        # The clock was set back: nothing is known of that time.
        assert await fetch(here.url("/"), fetcher=fetcher, now=NOW - HOUR) == Fetched(b"octets")


async def test_what_was_never_asked_is_not_left_alone() -> None:
    async with site() as here:
        here.pages["/"] = b"octets"
        fetcher = Fetcher(limit=LIMIT, pause=3600)
        assert (await fetch(here.url("/"), fetcher=fetcher, seconds=0)).failure.startswith("was not asked")
        assert here.requests == []
        assert await fetch(here.url("/"), fetcher=fetcher) == Fetched(b"octets")


async def test_without_a_pause_failures_are_forgotten() -> None:
    async with site() as here:
        fetcher = Fetcher(limit=LIMIT, pause=0)
        assert (await fetch(here.url("/"), fetcher=fetcher)).failure
        here.pages["/"] = b"octets"
        assert await fetch(here.url("/"), fetcher=fetcher) == Fetched(b"octets")


async def test_what_is_kept_is_not_fetched() -> None:
    async with site() as here:
        here.pages["/"] = b"new"
        fetcher = Fetcher(limit=LIMIT, pause=0)
        request = Request(here.url("/"), "text/plain")
        fetcher.keep(request, HERE, b"old", now=NOW, until=NOW + HOUR)
        assert (await fetch(here.url("/"), fetcher=fetcher, now=NOW)).data == b"old"
        assert (await fetch(here.url("/"), fetcher=fetcher, now=NOW + HOUR)).data == b"new"


# --- cancelling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manner", CancelManner)
@pytest.mark.parametrize("moment", CancelMoment)
async def test_cancelled_at_every_await(manner: CancelManner, moment: CancelMoment) -> None:
    async with site() as here:
        here.pages["/"] = Page(status=302, headers={"Location": "/there"})
        here.pages["/there"] = b"octets"
        fetcher = Fetcher(limit=LIMIT, pause=3600)
        async for run in cancellations(
            lambda: fetch(here.url("/"), fetcher=fetcher), manner=manner, moment=moment
        ):
            assert not run.injected or isinstance(run.error, asyncio.CancelledError)
        assert await fetch(here.url("/"), fetcher=fetcher) == Fetched(b"octets")


@pytest.mark.parametrize("turn", range(0, 40, 2))
async def test_cancelled_after_so_many_turns(turn: int) -> None:
    """The caller awaits once; the fetch, which is a task of its own, many times."""
    async with site() as here:
        here.pages["/"] = b"octets"
        fetcher = Fetcher(limit=LIMIT, pause=3600)
        caller = asyncio.create_task(fetch(here.url("/"), fetcher=fetcher))
        for _ in range(turn):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        # A fetch that was cancelled is no failure.
        assert await fetch(here.url("/"), fetcher=fetcher) == Fetched(b"octets")


async def test_others_get_their_answer_when_one_is_cancelled() -> None:
    async with site() as here:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.set()
            await go_on.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\noctets")

        here.wild["/"] = wait
        fetcher = Fetcher(limit=LIMIT, pause=3600)
        first, second = (asyncio.create_task(fetch(here.url("/"), fetcher=fetcher)) for _ in range(2))
        await arrived.wait()
        first.cancel()
        await asyncio.wait([first])
        go_on.set()
        assert await second == Fetched(b"octets")
        assert isinstance(here, Site) and len(here.requests) == 1
