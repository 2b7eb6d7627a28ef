"""recording_client.py: the real client, with a server in the process that answers by rules."""

import asyncio
import gc
import socket
import warnings
from typing import Any

import pytest

from smtp_async import (
    NOBODY,
    ClientOptions,
    Message,
    Outcome,
    Raw,
    SendOptions,
    SMTPClient,
    events,
)
from smtp_async.errors import (
    InvalidAddress,
    InvalidArgument,
    InvalidPort,
    MessageRefused,
    MessageTooLarge,
    MissingHost,
    MissingRecipient,
    NotConnected,
    OutcomeUnknown,
    RecipientsRefused,
)
from smtp_async.testing import RecordingClient


def letter(**fields):
    fields = {"to": "bob@example.org", "subject": "Welcome", "text": "Hi", **fields}
    return Message(sender="ann@example.com", **fields)


@pytest.fixture
async def client():
    async with RecordingClient() as made:
        yield made


async def test_it_accepts_and_keeps_what_is_sent(client):
    receipt = await client.send(letter(cc="cid@example.org"))
    assert receipt.outcome is Outcome.ACCEPTED and len(receipt.accepted) == 2
    message = client.outbox.one(to="Bob@example.org", subject="Welcome", sender="ann@example.com")
    assert message.text == "Hi\n" and message.rcpt_tos == ["bob@example.org", "cid@example.org"]
    client.outbox.clear()
    assert len(client.outbox) == 0


@pytest.mark.parametrize("pattern", ["bob@example.org", "BOB@*", "*"])
async def test_a_recipient_is_refused(client, pattern):
    client.refuse(pattern, code=552, text="5.2.2 mailbox full")
    with pytest.raises(RecipientsRefused, match=r"552 5\.2\.2 mailbox full") as caught:
        await client.send(letter())
    assert not caught.value.temporary and not client.outbox
    client.accept()
    await client.send(letter())
    assert len(client.outbox) == 1


async def test_some_recipients_are_refused(client):
    client.defer("bob@*")
    message = letter(to="bob@example.org, ann@example.org")
    # As with the real client, one of those in To refuses the message for all.
    with pytest.raises(RecipientsRefused) as caught:
        await client.send(message)
    assert caught.value.temporary
    receipt = await client.send(message, options=SendOptions(must_accept=NOBODY))
    assert receipt.outcome is Outcome.PARTIAL
    assert client.outbox.one().rcpt_tos == ["ann@example.org"]


@pytest.mark.parametrize(("rule", "temporary"), [("refuse", False), ("defer", True)])
async def test_a_message_is_refused_by_what_it_says(client, rule, temporary):
    getattr(client, rule)(lambda message: "buy" in message.text)
    with pytest.raises(MessageRefused) as caught:
        await client.send(letter(text="buy now"))
    assert caught.value.temporary is temporary
    await client.send(letter())
    assert client.outbox.one().text == "Hi\n"


@pytest.mark.parametrize("what", ["bob@*", lambda message: message.subject == "Welcome"])
async def test_the_outcome_is_unknown_and_the_message_delivered(client, what):
    client.unknown(what)
    with pytest.raises(OutcomeUnknown):
        await client.send(letter())
    await client.send(letter(to="cid@example.org", subject="Other"))
    assert [one.subject for one in client.outbox] == ["Welcome", "Other"]


async def test_the_newest_rule_counts(client):
    client.refuse()
    client.defer("*@example.org")
    client.unknown("bob@example.org")
    for address, error in (("bob@example.org", OutcomeUnknown), ("a@example.org", RecipientsRefused)):
        with pytest.raises(error):
            await client.send(letter(to=address))
    with pytest.raises(RecipientsRefused) as caught:
        await client.send(letter(to="a@example.net"))
    assert caught.value.reply is not None and caught.value.reply.code == 550


@pytest.mark.parametrize(
    ("rule", "code"), [("refuse", 450), ("defer", 550), ("refuse", 250), ("defer", "451")]
)
async def test_codes_are_of_the_right_class(client, rule, code):
    with pytest.raises(InvalidArgument, match="the code of this reply is between"):
        getattr(client, rule)(code=code)


async def test_the_checks_are_those_of_the_real_client(client):
    with pytest.raises(MissingRecipient):
        await client.send(letter(to=()))
    with pytest.raises(InvalidArgument):
        await client.send("a text")
    with pytest.raises(InvalidAddress):
        await client.send(letter(), recipients=["not an address"])
    with pytest.raises(MessageTooLarge):
        await client.send_raw(
            b"Subject: x\r\n\r\n" + b"x\r\n" * 40_000_000, sender="a@x.org", recipients=["b@x.org"]
        )
    wrong_arguments: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"host": ""}, MissingHost),
        ({"port": 99_999}, InvalidPort),
        ({"username": "u"}, InvalidArgument),
    ]
    for arguments, error in wrong_arguments:
        with pytest.raises(error):
            RecordingClient(**arguments)
        with pytest.raises(error):
            SMTPClient(**{"host": "mail.example.com", **arguments})
    await client.close()
    with pytest.raises(NotConnected, match="the client is closed"):
        await client.send(letter())


@pytest.mark.parametrize(
    "made",
    [
        lambda: RecordingClient("mail.example.com", username="ann", password="secret"),
        lambda: RecordingClient.from_url("smtps://ann:secret@mail.example.com"),
        lambda: RecordingClient.from_url("lmtp+unix:///run/lmtp"),
        lambda: RecordingClient.for_provider("gmail", username="ann@gmail.com", password="secret"),
        lambda: RecordingClient.for_domain("example.org"),
    ],
    ids=["login", "smtps", "lmtp", "provider", "domain"],
)
async def test_it_is_made_as_the_real_client_and_reaches_no_network(made, monkeypatch):
    def refused(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    async with made() as client:
        assert isinstance(client, RecordingClient)
        assert (await client.send(letter())).outcome is Outcome.ACCEPTED
        assert len(client.outbox) == 1


async def test_every_way_to_send_is_recorded(client):
    seen: list[Any] = []
    client.on(events.StartTransfer, seen.append)
    async for _, receipt in client.send_all([letter(to=f"user{n}@example.org") for n in range(30)]):
        assert receipt.outcome is Outcome.ACCEPTED
    await client.send_raw(
        Raw(b"Subject: raw\r\n\r\nHi\r\n", "a@x.org", ["b@x.org"]).source,
        sender="a@x.org",
        recipients=["b@x.org"],
    )
    async with client.session() as session:
        await session.connect()
        await session.send(letter(subject="by session"))
    assert len(client.outbox) == 32 and len(seen) == 32
    assert (await client.verify("bob@example.org")).code in (250, 252)
    assert (await client.check()).error is None


async def test_many_unknown_outcomes_disturb_no_other_message(client):
    client.unknown(lambda message: message.subject == "lost")

    async def outcome(number: int) -> Outcome:
        try:
            return (await client.send(letter(subject="lost" if number % 2 else "kept"))).outcome
        except OutcomeUnknown as error:
            assert error.receipt is not None
            return error.receipt.outcome

    outcomes = await asyncio.gather(*map(outcome, range(20)))
    assert outcomes == [Outcome.UNKNOWN if number % 2 else Outcome.ACCEPTED for number in range(20)]


async def test_an_error_of_the_tests_own_function_is_raised_at_the_end():
    client = RecordingClient(options=ClientOptions(lmtp=False))
    client.refuse(lambda message: 1 / len(message.html))
    with pytest.raises(OutcomeUnknown):
        await client.send(letter())
    with pytest.raises(ZeroDivisionError):
        await client.close()


def test_it_serves_one_event_loop_after_the_other():
    with warnings.catch_warnings():
        # The connections of a loop that ends before the client is closed, as those of the real client.
        warnings.simplefilter("ignore", ResourceWarning)
        client = RecordingClient()
        for _ in range(2):
            asyncio.run(client.send(letter()))
        asyncio.run(client.close())
        assert len(client.outbox) == 2
        del client
        gc.collect()
