"""server.py: messages arrive with their dialogue, and no password is written down."""

import asyncio
import base64
import smtplib

import pytest

from smtp_async import ClientOptions, Message, Security, SMTPClient
from smtp_async.errors import FileError
from smtp_async.protocol.options import SendOptions
from smtp_async.web.catcher.server import MOST_LINES, CatchingServer


class Caught:
    def __init__(self):
        self.messages, self.dialogues = [], []

    def __call__(self, message, dialogue):
        self.messages.append(message)
        self.dialogues.append(dialogue)

    def text(self, number=-1):
        return [f"{line.who}: {line.text}" for line in self.dialogues[number]]


def letter(subject="Hello"):
    return Message(sender="ann@example.com", to="bob@example.org", subject=subject, text="Hi")


async def test_each_message_has_the_beginning_and_its_own_lines():
    caught = Caught()
    async with CatchingServer(caught) as server, SMTPClient.from_url(server.url) as client:
        for subject in ("one", "two", "three"):
            await client.send(letter(subject))
        assert server.messages == [] and server.commands == []
    assert [one.subject for one in caught.messages] == ["one", "two", "three"]
    for number in range(3):
        lines = caught.text(number)
        assert lines[0] == "server: 220 test.invalid ESMTP ready"
        assert lines[1].startswith("client: EHLO")
        assert sum(line.startswith("client: MAIL") for line in lines) == 1
        assert lines[-2] == "client: ." and lines[-1] == "server: 250 2.0.0 Ok: queued"
        assert lines[-3] == f"note: {len(caught.messages[number].data):,} octets of the message"
    times = [line.at for line in caught.dialogues[0]]
    assert times == sorted(times) and times[0] >= 0


async def test_a_message_in_chunks():
    caught = Caught()
    options = ClientOptions(send=SendOptions(chunking="always"))
    async with CatchingServer(caught) as server:
        async with SMTPClient.from_url(server.url, options=options) as client:
            await client.send(letter("one"))
            await client.send(letter("two"))
    assert [one.chunked for one in caught.messages] == [True, True]
    for number in (0, 1):
        assert sum(line.startswith("client: BDAT") for line in caught.text(number)) == 1
        assert caught.text(number)[-1].startswith("server: 250 ")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_any_login_will_do_and_none_is_written_down(mechanism):
    caught = Caught()
    async with CatchingServer(caught, any_login=True, require_auth=True) as server:

        def send():
            with smtplib.SMTP(server.host, server.port) as client:
                client.ehlo()
                client.user, client.password = "ann", "top-secret"
                client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"))
                client.sendmail("ann@example.com", ["bob@example.org"], b"Subject: x\r\n\r\nx\r\n")

        await asyncio.to_thread(send)
    assert caught.messages[0].user == "ann"
    said = "\n".join(caught.text())
    for secret in (b"top-secret", b"\0ann\0top-secret", b"ann"):
        assert base64.b64encode(secret).decode() not in said and "top-secret" not in said
    assert f"client: AUTH {mechanism}" in said and "********" in said and "235 2.7.0" in said


async def talk(server, *lines):
    reader, writer = await asyncio.open_connection(server.host, server.port)
    await reader.readline()
    for line in lines:
        writer.write(line + b"\r\n")
        while (await reader.readline())[3:4] == b"-":
            pass
    writer.close()
    await writer.wait_closed()
    await server.wait_for_disconnect()


MAIL = (b"MAIL FROM:<a@b.c>", b"RCPT TO:<d@e.f>", b"DATA", b"x\r\n.")


async def test_a_password_of_a_client_that_did_not_read_the_refusal():
    caught = Caught()
    async with CatchingServer(caught) as server:
        secret = base64.b64encode(b"\0ann\0top-secret")
        await talk(
            server, b"EHLO x", b"AUTH PLAIN", secret, b"auth  login " + secret, b"AUTH " + secret, *MAIL
        )
    lines = caught.text()
    assert "client: AUTH PLAIN" in lines and "client: ********" in lines
    assert not any(secret.decode() in line for line in lines if "AUTH " + secret.decode() not in line)


async def test_what_the_client_does_wrong_is_in_the_dialogue():
    caught = Caught()
    async with CatchingServer(caught) as server:
        await talk(server, b"HELO x", *MAIL[:3], b"bare\nfeed\r\n.")
    assert "note: against the protocol: bare CR or LF in DATA" in caught.text()


async def test_control_characters_do_not_reach_a_page():
    caught = Caught()
    async with CatchingServer(caught) as server:
        await talk(server, b"EHLO x", b"NOOP \x1b[2J\xff", *MAIL)
    assert any("NOOP \\x1b[2J\ufffd" in line for line in caught.text())


async def test_a_dialogue_has_an_end():
    caught = Caught()
    async with CatchingServer(caught) as server:
        await talk(server, b"EHLO x", *[b"NOOP"] * MOST_LINES, *MAIL)
    assert len(caught.dialogues[0]) == MOST_LINES


async def test_a_message_that_cannot_be_kept_is_not_accepted(caplog):
    def deliver(message, dialogue):
        raise FileError("the disk is full")

    server = CatchingServer(deliver)
    with pytest.raises(FileError):
        async with server:
            with pytest.raises(ConnectionError):
                await talk(server, b"EHLO x", *MAIL)
                raise ConnectionResetError
    assert "a message could not be kept" in caplog.text


async def test_tls_and_a_wrong_name(pki):
    caught = Caught()
    async with CatchingServer(caught, ssl_context=pki.server_context(), any_login=True) as server:
        client = SMTPClient(server.host, server.port, security=Security.OPPORTUNISTIC)
        async with client:
            await client.send(letter())
    assert caught.messages[0].tls and "client: STARTTLS" in caught.text()
