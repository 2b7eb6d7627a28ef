"""The recording sink."""

import asyncio

import pytest

from smtp_async.testing import RecordingSink, reply

GROUP = b"MAIL FROM:<a@x.org>\r\nRCPT TO:<Bob@x.org>\r\nDATA\r\n"


def body(number):
    return b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= %d\r\n\r\nhi\r\n.\r\n" % number


async def test_messages_are_parsed_when_looked_at(greeted):
    async with RecordingSink() as sink, greeted(sink) as client:
        with pytest.raises(LookupError):
            _ = sink.last
        waiting = asyncio.create_task(sink.wait_for_messages(2))
        for number in range(2):
            client.writer.write(GROUP)
            assert [(await client.reply())[0] for _ in range(3)] == [250, 250, 354]
            client.writer.write(body(number))
            assert (await client.reply())[0] == 250
        assert [message.subject for message in await waiting] == ["Grüße 0", "Grüße 1"]
        assert sink.last.parsed.get_content() == "hi\n"
        assert sink.to("bob@X.ORG") == sink.messages and sink.to("b@x.org") == []
        sink.clear()
        assert sink.messages == [] and sink.verbs() == []


async def test_many_messages_on_one_connection_cost_one_flight_each(greeted):
    async with RecordingSink() as sink, greeted(sink) as client:
        client.writer.write(GROUP)
        assert [(await client.reply())[0] for _ in range(3)] == [250, 250, 354]
        for number in range(500):
            client.writer.write(body(number) + GROUP)
            assert [(await client.reply())[0] for _ in range(4)] == [250, 250, 250, 354]
        assert len(sink.messages) == 500
        assert sink.flights == 502
        assert sink.violations == []
        assert sink.connections[0].raw == b""


async def test_waiting_can_be_given_up(greeted):
    async with RecordingSink() as sink:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await sink.wait_for_messages()
        async with greeted(sink) as client:
            assert await client.ask("NOOP") == [250]


async def test_a_sink_can_be_told_to_refuse(greeted):
    async with RecordingSink() as sink, greeted(sink) as client:
        sink.on("RCPT", reply(550, "5.1.1 no"))
        assert await client.ask("MAIL FROM:<a@x.org>", "RCPT TO:<b@x.org>") == [250, 550]
