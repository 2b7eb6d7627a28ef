"""The pytest plugin, with every way to run asynchronous tests."""

import asyncio
import smtplib
import subprocess
import sys

import pytest

from smtp_async.testing import reply

pytest_plugins = ["smtp_async.testing.plugin"]

MESSAGE = "Subject: x\n\nhi\n"

INNER = """
import asyncio, smtplib
import pytest
pytest_plugins = ["smtp_async.testing.plugin"]

{mark}
async def test_inside(mail_server, outbox, scripted_server):
    def send(port):
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.sendmail("a@x.org", ["b@x.org"], "hi")
    await asyncio.to_thread(send, mail_server.port)
    await asyncio.to_thread(send, scripted_server().port)
    assert len(await mail_server.wait_for_messages()) == 1
    assert outbox.one(to="b@x.org").mail_from == "a@x.org"
"""


def send(server):
    with smtplib.SMTP(server.host, server.port, timeout=10) as client:
        return client.sendmail("a@x.org", ["b@x.org"], MESSAGE)


def test_sink_in_a_synchronous_test(mail_server):
    send(mail_server)
    assert mail_server.messages[0].subject == "x"


async def test_sink_in_an_asynchronous_test(mail_server):
    await asyncio.to_thread(send, mail_server)
    assert (await mail_server.wait_for_messages())[0].subject == "x"


def test_the_outbox_has_what_the_server_accepted(mail_server, outbox):
    assert not outbox
    send(mail_server)
    assert outbox.one(to="b@x.org", subject="x").text == "hi\n"
    outbox.clear()
    assert not outbox and mail_server.messages == []


def test_factory(scripted_server):
    first, second = scripted_server(), scripted_server(hostname="second.invalid")
    first.on("RCPT", reply(550, "5.1.1 no"))
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(first)
    assert send(second) == {}
    assert first.messages == [] and len(second.messages) == 1


@pytest.mark.parametrize(
    "mark, options",
    [
        ("", ["-o", "asyncio_mode=auto"]),
        ("@pytest.mark.asyncio", ["-o", "asyncio_mode=strict"]),
        ("@pytest.mark.anyio", ["-o", "asyncio_mode=strict"]),
    ],
    ids=["pytest-asyncio auto", "pytest-asyncio strict", "anyio"],
)
@pytest.mark.timeout(90)
def test_every_asynchronous_plugin(tmp_path, pytestconfig, mark, options):
    test = tmp_path / "test_inner.py"
    backend = '\n@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n'
    test.write_text(INNER.format(mark=mark) + backend)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function", "-c", "/dev/null", *options, str(test)]
    paths = {"PYTHONPATH": str(pytestconfig.rootpath)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=80, env=paths)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
