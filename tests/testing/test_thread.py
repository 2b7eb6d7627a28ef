"""A server in a thread, for tests that block or have a loop of their own."""

import asyncio
import smtplib

import pytest

from smtp_async.testing import RecordingSink, ScriptedServer, ServerThread, default, delay, reply

from .test_sink import GROUP, body


def test_in_a_thread_without_a_loop():
    event = asyncio.Event()
    with ServerThread(ScriptedServer()) as server:
        rule = server.on("NOOP", delay(event), default())
        with smtplib.SMTP(server.host, server.port, timeout=10) as client:
            client.putcmd("noop")
            server.run(lambda: server.server.wait_fired(rule))
            server.call(event.set)
            assert client.getreply()[0] == 250
            client.sendmail("a@x.org", ["b@x.org"], "hi\n")
        assert server.wait_for_messages_blocking(1)[0].data == b"hi\r\n"
        with pytest.raises(TimeoutError):
            server.wait_for_messages_blocking(2, timeout=0.01)
        assert server.url == f"smtp+plain://127.0.0.1:{server.port}"
        assert [line.verb for line in server.commands][-1] == "QUIT"
        assert server.connections.opened == 1 and server.violations == []
    with pytest.raises(RuntimeError, match="not running"):
        server.call(event.set)


async def test_in_a_thread_from_another_loop(greeted):
    with ServerThread(RecordingSink()) as sink:
        waiting = asyncio.create_task(sink.wait_for_messages())
        async with greeted(sink.server) as client:
            client.writer.write(GROUP)
            assert [(await client.reply())[0] for _ in range(3)] == [250, 250, 354]
            client.writer.write(body(7))
            assert (await client.reply())[0] == 250
        assert (await waiting)[0].subject == "Grüße 7"


def test_a_thread_says_what_went_wrong():
    with ServerThread(ScriptedServer()) as server, pytest.raises(OSError):
        ServerThread(ScriptedServer(port=server.port)).start()

    async def broken(step):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), ServerThread(ScriptedServer()) as server:
        server.on("NOOP", broken)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            smtplib.SMTP(server.host, server.port, timeout=10).noop()


def test_a_rule_is_removed():
    with ServerThread(ScriptedServer()) as server:
        rule = server.on("HELP", reply(550, "no"))
        with smtplib.SMTP(server.host, server.port) as client:
            assert client.docmd("HELP")[0] == 550
            server.off(rule)
            assert client.docmd("HELP")[0] == 214
        with pytest.raises(ValueError):
            server.off(rule)
