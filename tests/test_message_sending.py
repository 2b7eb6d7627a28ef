"""A `Message` through a whole client: what the server got, what can be read of it afterwards, what never left."""

from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from smtp_async import DSN, Kind, Message, Notify, Outcome, PoolLimits, Recipient, SendOptions, SMTPError
from smtp_async.errors import MissingRecipient
from smtp_async.events import Transfer
from smtp_async.testing import RecordingSink, reset
from tests.lab import SENDER, client_of, gathered, mail, speaking

pytestmark = pytest.mark.usefixtures("no_leaks")

PLAIN = ["PIPELINING", "SIZE 104857600"]
OFFERS = {
    "nothing": PLAIN,
    "8bit": [*PLAIN, "8BITMIME"],
    "utf8": [*PLAIN, "8BITMIME", "SMTPUTF8"],
    "binary": [*PLAIN, "8BITMIME", "CHUNKING", "BINARYMIME"],
}


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("way", ["send", "send_all", "session"])
async def test_what_is_read_afterwards_is_what_was_sent(offer: str, way: str) -> None:
    message = mail(1, text="Grüße", html="<p>Grüße</p>", subject="Grüße", bcc="secret@example.net")
    message.attach(bytes(range(256)) * 20, filename="ü.bin")
    message.size  # noqa: B018  # an earlier rendering, for a server that offers nothing
    async with RecordingSink() as sink, client_of(sink) as client:
        sink.settings = sink.settings.__class__(extensions=OFFERS[offer])
        if way == "send":
            await client.send(message)
        elif way == "send_all":
            assert len([one async for one in client.send_all([message])]) == 1
        else:
            async with client.session() as session:
                await session.connect()
                await session.send(message)
        assert sink.violations == []
        data = sink.last.data
    head, _, body = data.partition(b"\r\n\r\n")
    assert message.headers_text.encode() == head + b"\r\n\r\n"
    assert message.body_text.encode("utf-8", "surrogateescape") == body
    assert data.isascii() is (offer == "nothing")
    assert b"secret" not in data
    assert ("secret@example.net" in sink.last.rcpt_tos) is True


@pytest.mark.parametrize("kind", Kind)
async def test_the_name_of_a_recipient_is_in_the_header_and_not_in_the_envelope(kind: Kind) -> None:
    message = mail(1, to="bob@example.org")
    message.recipients.append(Recipient("rob@example.net", kind, name="Rob Roy"))
    async with RecordingSink() as sink, client_of(sink) as client:
        await client.send(message)
        received = sink.last
    assert received.rcpt_tos == ["bob@example.org", "rob@example.net"]
    assert not any(b"Roy" in one.line for one in sink.commands)
    fields = {name: received.parsed[name] for name in ("To", "Cc", "Bcc")}
    assert ("Rob Roy <rob@example.net>" in (fields[kind.value] or "")) is (kind is not Kind.BCC)
    assert sum("rob@example.net" in (text or "") for text in fields.values()) == (kind is not Kind.BCC)


@pytest.mark.parametrize("chunking", ["never", "always"])
async def test_the_second_connection_gets_the_same_bytes(chunking: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(300_000))
    message = mail(1, text="ü", html="ü")
    message.attach(path)
    message.attach(bytes(300_000), filename="in memory")
    slices: dict[int, bytes] = {}

    def note(event: Transfer) -> None:
        slices[event.session] = slices.get(event.session, b"") + event.data

    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
        server.on("BODY", reset(), nth=1, after=500_000)
        client.on(Transfer, note)
        receipt = await client.send(message, options=SendOptions(chunking=chunking))
        assert receipt.outcome is Outcome.ACCEPTED
        (one,) = server.messages
    first, second = slices.values()
    assert len(first) >= 400_000
    assert second == one.data
    assert second.startswith(first)
    assert message.headers_text.encode() == one.data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


async def test_a_message_of_the_standard_library_stays_as_it_is() -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"] = "Änn <ann@example.com>", "b@faß.de", "eve@example.net"
    message["Subject"] = "Grüße"
    message.set_content("Grüße\n")
    message.add_alternative("<p>Grüße</p>\n", subtype="html")
    message.add_attachment(b"\0" * 5000, maintype="application", subtype="pdf", filename="ä.pdf")
    before = [(part.items(), part.get_boundary(), part._payload) for part in message.walk()]  # type: ignore[attr-defined]
    async with RecordingSink() as sink, client_of(sink) as client:
        await client.send(message)
        assert len([one async for one in client.send_all([message])]) == 1
        assert sink.last.rcpt_tos == ["b@xn--fa-hia.de", "eve@example.net"]
        assert [b"eve" in one.data for one in sink.messages] == [False, False]
    after = [(part.items(), part.get_boundary(), part._payload) for part in message.walk()]  # type: ignore[attr-defined]
    assert after == before
    assert message["Bcc"] == "eve@example.net"


async def test_groups_and_literals_reach_the_server() -> None:
    to = 'Team: b@example.org, "C, D" <c@[192.0.2.1]>;, e@[IPv6:2001:db8::1], undisclosed:;'
    async with speaking() as server, client_of(server) as client:
        await client.send(mail(1, to=to))
    assert server.messages[0].rcpt_tos == ["b@example.org", "c@[192.0.2.1]", "e@[IPv6:2001:db8::1]"]


REFUSED: dict[str, tuple[dict[str, Any], int]] = {
    "a text that its charset cannot express": ({"text": "ü€", "charset": "latin-1"}, 434),
    "an unknown code page": ({"text": "x", "charset": "99999"}, 434),
    "half of a pair": ({"text": "\ud800"}, 434),
    "an unencoded header": ({"subject": "ü", "header_charset": ""}, 434),
    "a missing file": ({"attachments": Path("/nowhere/at all")}, 302),
    "a missing text": ({"text": Path("/nowhere/at all")}, 302),
    "a missing message": ({"raw": Path("/nowhere/at all")}, 302),
    "nobody": ({"to": ()}, 165),
}


@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("way", ["send", "send_all"])
async def test_what_is_wrong_is_told_before_mail(why: str, way: str) -> None:
    fields, code = REFUSED[why]
    fields = dict(fields)
    path = fields.pop("attachments", None)

    async def refused() -> SMTPError:
        message = mail(1, **fields)
        if path is not None:
            message.attach(path)
        if way == "send":
            await client.send(message)
        else:
            async for _, receipt in client.send_all([message]):
                assert receipt.error is not None
                return receipt.error
        raise AssertionError("it was sent")

    async with speaking(extensions=PLAIN) as server, client_of(server) as client:
        await client.send(mail(0))
        (error,) = await gathered(refused())
        assert isinstance(error, SMTPError)
        assert error.code == code
        assert server.verbs().count("MAIL") == 1
        await client.send(mail(2))
        assert server.connections.opened == 1


UNDISCLOSED = (
    b"From: ann@example.com\r\nTo: undisclosed-recipients:;\r\nBcc: b@example.org, c@example.org\r\n\r\nx\r\n"
)


async def test_mail_without_a_to_recipient_is_sent() -> None:
    addresses = ["b@example.org", "c@example.org"]
    async with speaking() as server, client_of(server) as client:
        await client.send(Message(sender=SENDER, bcc=addresses, text="x"))
        await client.send(Message(sender=SENDER, cc=addresses, text="x"))
        await client.send_raw(UNDISCLOSED)
    assert [message.rcpt_tos for message in server.messages] == [addresses] * 3
    assert [b"To:" in message.data for message in server.messages] == [False, False, True]


async def test_require_to_refuses_mail_without_a_to_recipient() -> None:
    wishes = SendOptions(require_to=True)
    message = Message(sender=SENDER, cc="b@example.org", bcc="c@example.org", text="x")
    async with speaking() as server, client_of(server) as client:
        with pytest.raises(MissingRecipient, match="require_to"):
            await client.send(message, options=wishes)
        with pytest.raises(MissingRecipient, match="require_to"):
            await client.send_raw(UNDISCLOSED, options=wishes)
        message.to = "b@example.org"
        await client.send(message, options=wishes)
    assert len(server.messages) == 1


async def test_reports_are_asked_for_in_the_list_of_recipients() -> None:
    message = mail(
        1, cc="c@example.org", recipients=[Recipient("d@example.org", dsn=DSN(notify=Notify.NEVER))]
    )
    message.recipients[0] = Recipient("user1@example.org", dsn=DSN(notify=Notify.SUCCESS))
    async with speaking(extensions=[*PLAIN, "DSN"]) as server, client_of(server) as client:
        await client.send(message)
    assert server.messages[0].rcpt_tos == ["user1@example.org", "c@example.org", "d@example.org"]
    assert server.messages[0].rcpt_parameters == [{"NOTIFY": "SUCCESS"}, {}, {"NOTIFY": "NEVER"}]
