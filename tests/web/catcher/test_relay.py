"""relay.py: a caught message is sent on, as it came."""

import pytest

from smtp_async import Security, SMTPClient
from smtp_async.errors import SMTPError
from smtp_async.testing import RecordingSink, reply
from smtp_async.web.catcher.mailbox import Caught
from smtp_async.web.catcher.relay import relay_to
from tests.web.catcher.lab import letter, received


def caught(*recipients):
    return Caught("1" * 14, 1.0, received(letter(), *recipients), [])


async def test_to_those_it_came_for_or_to_others():
    async with RecordingSink() as sink, SMTPClient.from_url(sink.url) as client:
        relay = relay_to(client)
        message = caught("bob@example.org", "hidden@example.org")
        told = await relay(message, [])
        assert [(one["address"], one["outcome"]) for one in told] == [
            ("bob@example.org", "accepted"),
            ("hidden@example.org", "accepted"),
        ]
        await relay(message, ["tester@example.net"])
        assert [one.rcpt_tos for one in sink.messages] == [
            ["bob@example.org", "hidden@example.org"],
            ["tester@example.net"],
        ]
        assert (
            sink.messages[0].data == message.received.data and sink.messages[0].mail_from == "ann@example.com"
        )


async def test_who_is_refused_is_told():
    async with RecordingSink() as sink, SMTPClient.from_url(sink.url) as client:
        sink.on("RCPT", reply(550, "5.1.1 no such user"), match="bad")
        told = await relay_to(client)(caught("bad@example.org", "good@example.org"), [])
        assert [one["outcome"] for one in told] == ["refused", "accepted"] and "550 5.1.1" in told[0]["reply"]
        told = await relay_to(client)(caught("bad@example.org"), [])
        assert [one["outcome"] for one in told] == ["refused"]


async def test_a_server_that_is_down_or_an_address_that_is_none():
    async with RecordingSink() as sink:
        port = sink.port
        async with SMTPClient.from_url(sink.url) as client:
            with pytest.raises(SMTPError):
                await relay_to(client)(caught(), ["no address"])
    async with SMTPClient("127.0.0.1", port, security=Security.PLAINTEXT) as client:
        try:
            told = await relay_to(client)(caught(), [])
        except SMTPError:
            return
        assert [one["outcome"] for one in told] == ["not sent"] and told[0]["reply"]
