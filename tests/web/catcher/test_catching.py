"""catching.py: server, mailbox, faults and page together, over real sockets."""

import asyncio
import json
import socket

import httpx
import pytest

from smtp_async import Message, Security, SMTPClient
from smtp_async.errors import InvalidArgument
from smtp_async.testing import RecordingSink, cancellations
from smtp_async.web.catcher.catching import CatcherOptions, catching
from smtp_async.web.catcher.certificate import own_context
from smtp_async.web.serving import Address

PAGE = Address(port=0)


def letter(subject="Hello"):
    return Message(sender="ann@example.com", to="bob@example.org", subject=subject, text="Hi")


async def test_what_is_sent_is_on_the_page_when_send_returns():
    async with catching(CatcherOptions(web=PAGE, port=0)) as catcher, httpx.AsyncClient() as browser:
        async with SMTPClient.from_url(catcher.server.url) as client:
            await client.send(letter())
            told = (await browser.get(f"{catcher.url}api/messages")).json()
        assert [one["subject"] for one in told["messages"]] == ["Hello"]
        about = (await browser.get(f"{catcher.url}api/status")).json()
        assert about["smtp"] == f"127.0.0.1:{catcher.server.port}"


async def test_a_page_hears_of_new_mail():
    async with catching(CatcherOptions(web=PAGE, port=0)) as catcher, httpx.AsyncClient() as browser:
        async with browser.stream("GET", f"{catcher.url}api/events") as answer:
            events = (json.loads(line[6:]) async for line in answer.aiter_lines() if line)
            assert (await anext(events))["total"] == 0
            async with SMTPClient.from_url(catcher.server.url) as client:
                await client.send(letter())
            assert (await anext(events))["total"] == 1


async def test_mail_is_kept_over_a_restart(tmp_path):
    options = CatcherOptions(web=PAGE, port=0, keep=tmp_path / "mail", most=2)
    async with catching(options) as catcher, SMTPClient.from_url(catcher.server.url) as client:
        for number in range(3):
            await client.send(letter(f"letter {number}"))
    async with catching(options) as catcher:
        found = catcher.mailbox.search("")
        assert [one.subject for one in found] == ["letter 2", "letter 1"]
        assert found[0].dialogue[-1].text.startswith("250 ")


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT])
async def test_tls_and_login_are_required(security, pki):
    from smtp_async import ClientOptions, TLSOptions, TrustOptions

    implicit = security is Security.IMPLICIT
    options = CatcherOptions(
        web=PAGE,
        port=0,
        ssl_context=pki.server_context(),
        implicit_tls=implicit,
        require_tls=True,
        require_login=True,
    )
    trust = ClientOptions(tls=TLSOptions(trust=TrustOptions(ca_file=pki.ca_file)))
    async with catching(options) as catcher:
        client = SMTPClient(
            "localhost", catcher.server.port, username="ann", password="any", security=security, options=trust
        )
        async with client:
            await client.send(letter())
        [one] = catcher.mailbox.search("")
        assert one.received.tls and one.received.user == "ann"


async def test_the_relay_is_used():
    async with RecordingSink() as sink, SMTPClient.from_url(sink.url) as relay:
        options = CatcherOptions(web=PAGE, port=0, relay=relay)
        async with catching(options) as catcher, httpx.AsyncClient() as browser:
            async with SMTPClient.from_url(catcher.server.url) as client:
                await client.send(letter())
            await browser.post(f"{catcher.url}api/messages/latest/relay", json={})
        assert sink.last.rcpt_tos == ["bob@example.org"]


@pytest.mark.parametrize("what", ["SMTP", "the page"])
async def test_a_port_that_is_taken_is_named(what, no_leaks):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = (
            CatcherOptions(web=PAGE, port=port)
            if what == "SMTP"
            else CatcherOptions(web=Address(port=port), port=0)
        )
        with pytest.raises(
            InvalidArgument, match=f"{what} cannot be served on 127.0.0.1, port {port}: address"
        ):
            async with catching(options):
                pass


async def test_a_cancelled_catcher_leaves_nothing_behind(no_leaks):
    context = own_context()

    async def scenario():
        async with catching(CatcherOptions(web=PAGE, port=0, ssl_context=context)):
            await asyncio.sleep(0)

    async for run in cancellations(scenario):
        assert run.cancelled or not run.injected, run.error
