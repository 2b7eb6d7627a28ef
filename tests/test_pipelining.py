"""Messages behind messages: refusals in a window and at level 2, against servers that are not ours."""

import asyncio
import email
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from smtp_async import NOBODY, Message, Outcome, PoolLimits, Receipt, Security, SendOptions, SMTPClient
from tests.lab import client_of, pool_of, trusting
from tests.servers import REFUSED_CONTENT, REFUSED_SENDER, SIZE_LIMIT
from tests.servers.dovecot import MOST_RECIPIENTS
from tests.servers.pki import Pki

pytestmark = pytest.mark.server

WINDOWS = [1, 64]
LIMITS = {window: PoolLimits(max_connections=1, window=window) for window in WINDOWS}


class Place(NamedTuple):
    """A real server as these tests need it.

    Attributes:
        server: what is spoken to.
        port: where.
        mailbox: whose mailbox the mail ends in.
        access: how to get in.
        panics: does the server's process die after a refused MAIL behind which RCPT was written? Dovecot 2.3's does,
            with or without RSET.
    """

    server: Any
    port: int
    mailbox: Any
    access: Mapping[str, Any] = MappingProxyType({})
    lmtp: bool = False
    good: str = "user@lab.test"
    refused: str = "nobody@reject.test"
    panics: bool = False

    def client(self, window: int, **options: Any) -> SMTPClient:
        options.setdefault("pool", LIMITS[window])
        return client_of(self.server, port=self.port, lmtp=self.lmtp, **self.access, **options)


@pytest.fixture(params=["postfix", "exim", "dovecot-lmtp", "dovecot-submission"])
def place(request: pytest.FixtureRequest, pki: Pki) -> Place:
    name, _, service = request.param.partition("-")
    server = request.getfixturevalue(name)
    if service == "lmtp":
        server.clear()
        return Place(server, server.lmtp_port, server, lmtp=True, refused="nobody@lab.test")
    if service == "submission":
        relay = request.getfixturevalue("postfix")
        relay.clear()
        login = {"username": server.user, "password": server.password}
        access = {"host": "localhost", "security": Security.STARTTLS, "tls": trusting(pki), **login}
        return Place(server, server.submission_port, relay, access, panics=True)
    server.clear()
    return Place(server, server.plain_port, server)


def good(place: Place, n: int, **fields: Any) -> Message:
    sender = f"sender{n}@example.com"
    return Message(**{"sender": sender, "to": place.good, "subject": f"good {n}.", "text": "x", **fields})


def bad(place: Place) -> list[tuple[Message, Outcome]]:
    """One message for each way in which it can be refused, and what must become of it."""
    cases = [
        (good(place, 100, to=place.refused, subject="recipient"), Outcome.REFUSED),
        (good(place, 101, to=[place.good, place.refused], subject="two"), Outcome.PARTIAL),
        (good(place, 102, to=[place.refused, place.refused], subject="neither"), Outcome.REFUSED),
    ]
    if place.lmtp:
        return [*cases, (good(place, 103, to="full@lab.test", subject="full"), Outcome.REFUSED)]
    cases.append((good(place, 104, text=REFUSED_CONTENT, subject="content"), Outcome.REFUSED))
    if not place.panics:
        cases.append((good(place, 105, sender=REFUSED_SENDER, subject="sender"), Outcome.REFUSED))
    return cases


async def send_in_order(client: SMTPClient, messages: list[Message]) -> dict[str, Receipt]:
    options = SendOptions(must_accept=NOBODY)
    return {str(m.subject): receipt async for m, receipt in client.send_all(messages, options=options)}


async def delivered(place: Place, count: int) -> Counter[tuple[str, str]]:
    """(subject, envelope sender) of everything in the mailbox, when `count` good messages are there."""
    for n in range(count):
        await asyncio.to_thread(place.mailbox.wait_for_message, f"Subject: good {n}.")
    stored = [email.message_from_bytes(data) for data in await asyncio.to_thread(place.mailbox.messages)]
    return Counter((m["Subject"], m["Return-Path"].strip("<>")) for m in stored)


@pytest.mark.parametrize("window", WINDOWS)
async def test_a_refusal_leaves_the_next_message_its_own_sender(place: Place, window: int) -> None:
    cases = bad(place)
    messages = []
    for n, (message, _) in enumerate(cases):
        messages += [good(place, 2 * n), message, good(place, 2 * n + 1)]
    async with place.client(window) as client:
        receipts = await send_in_order(client, messages)
        assert client.statistics().reconnects == 0
    for message, outcome in cases:
        assert receipts[str(message.subject)].outcome is outcome, receipts[str(message.subject)]
    count = 2 * len(cases)
    assert {receipts[f"good {n}."].outcome for n in range(count)} == {Outcome.ACCEPTED}
    found = await delivered(place, count)
    expected = {(f"good {n}.", f"sender{n}@example.com"): 1 for n in range(count)}
    assert found == {**expected, ("two", "sender101@example.com"): 1}


@pytest.mark.parametrize("window", WINDOWS)
async def test_refusals_in_an_open_window_do_not_change_other_outcomes(place: Place, window: int) -> None:
    """The window has grown when the refusals come, so that they stand in the middle of it."""
    messages = [good(place, n) for n in range(40)]
    for at, (message, _) in zip((20, 24, 28, 32, 36), bad(place), strict=False):
        messages.insert(at, message)
    async with place.client(window) as client:
        receipts = await send_in_order(client, messages)
    for message, outcome in bad(place):
        assert receipts[str(message.subject)].outcome is outcome
    found = await delivered(place, 40)
    assert all(found[(f"good {n}.", f"sender{n}@example.com")] == 1 for n in range(40))
    assert sum(found.values()) == 41  # and "two", for the one who was accepted


@pytest.mark.parametrize("window", WINDOWS)
async def test_a_message_that_is_too_large_is_refused_by_its_size_alone(
    request: pytest.FixtureRequest, window: int
) -> None:
    """The server's limit is known before MAIL: nothing of it is sent."""
    postfix = request.getfixturevalue("postfix")
    place = Place(postfix, postfix.plain_port, postfix)
    postfix.clear()
    messages = [good(place, 0), good(place, 9, subject="large", text="x\n" * SIZE_LIMIT), good(place, 1)]
    async with place.client(window) as client:
        receipts = await send_in_order(client, messages)
    assert receipts["large"].outcome is Outcome.NOT_SENT and receipts["large"].bytes_sent == 0
    assert await delivered(place, 2) == {
        ("good 0.", "sender0@example.com"): 1,
        ("good 1.", "sender1@example.com"): 1,
    }


@pytest.mark.parametrize("window", WINDOWS)
async def test_five_good_messages_behind_twelve_refused_ones_arrive_once(place: Place, window: int) -> None:
    """Servers count refusals and hang up: 421 from Postfix, 554 and the end of the stream from Exim."""
    refused = [good(place, 200 + n, to=place.refused, subject=f"bad {n}") for n in range(12)]
    messages = [*refused, *[good(place, n) for n in range(5)]]
    async with place.client(window) as client:
        receipts = await send_in_order(client, messages)
    assert {receipts[f"bad {n}"].outcome for n in range(12)} == {Outcome.REFUSED}
    assert {receipts[f"good {n}."].outcome for n in range(5)} == {Outcome.ACCEPTED}
    assert await delivered(place, 5) == {(f"good {n}.", f"sender{n}@example.com"): 1 for n in range(5)}


@pytest.mark.parametrize("window", WINDOWS)
async def test_more_recipients_than_postfix_takes_at_once(
    request: pytest.FixtureRequest, window: int
) -> None:
    """It announces no limit and answers the 1,001st with 452 4.5.3: the rest goes in a second transaction."""
    postfix = request.getfixturevalue("postfix")
    place = Place(postfix, postfix.plain_port, postfix)
    postfix.clear()
    elsewhere = [f"user{n}@elsewhere.test" for n in range(1005)]
    message = good(place, 0, to=[*elsewhere, place.good])
    async with place.client(window) as client:
        receipt = await client.send(message)
        after = await client.send(good(place, 1))
    assert receipt.outcome is Outcome.ACCEPTED and after.outcome is Outcome.ACCEPTED
    assert len({verdict.queue_id for verdict in receipt.verdicts}) == 2
    assert [v.recipient.address.local for v in receipt.verdicts] == [
        *(f"user{n}" for n in range(1005)),
        place.good.partition("@")[0],
    ]
    assert await delivered(place, 2) == {
        ("good 0.", "sender0@example.com"): 1,
        ("good 1.", "sender1@example.com"): 1,
    }


async def test_a_refused_sender_does_not_change_other_outcomes(place: Place) -> None:
    """Where the server's process dies of it, the next message goes over another connection."""
    messages = [good(place, n) for n in range(8)]
    messages[4:4] = [good(place, 105, sender=REFUSED_SENDER, subject="sender")]
    async with place.client(1) as client:
        receipts = await send_in_order(client, messages)
        assert client.statistics().unknown == 0
    assert receipts["sender"].outcome is (Outcome.ACCEPTED if place.lmtp else Outcome.REFUSED)
    found = await delivered(place, 8)
    assert all(found[(f"good {n}.", f"sender{n}@example.com")] == 1 for n in range(8))


@pytest.mark.timeout(60)
async def test_200_messages_over_few_connections_are_accepted_once_each(place: Place) -> None:
    """Each is written behind the end of the one before it."""
    options: dict[str, Any] = {"pool": PoolLimits(max_connections=2, max_messages=None)}
    async with place.client(1, **options) as client:
        receipts = await send_in_order(client, [good(place, n) for n in range(200)])
        assert client.statistics().reconnects == 0
        assert "across messages" in repr(pool_of(client).pipelining_history)
    assert Counter(receipt.outcome for receipt in receipts.values()) == {Outcome.ACCEPTED: 200}
    found = await delivered(place, 200)
    assert found == {(f"good {n}.", f"sender{n}@example.com"): 1 for n in range(200)}


async def test_more_recipients_than_dovecot_takes_at_once(request: pytest.FixtureRequest, pki: Pki) -> None:
    """It announces no limit and answers the one too many with 451 4.5.3."""
    server, relay = request.getfixturevalue("dovecot"), request.getfixturevalue("postfix")
    relay.clear()
    elsewhere = [f"user{n}@elsewhere.test" for n in range(MOST_RECIPIENTS + 5)]
    async with client_of(
        server,
        host="localhost",
        port=server.submission_port,
        security=Security.STARTTLS,
        tls=trusting(pki),
        username=server.user,
        password=server.password,
    ) as client:
        receipt = await client.send(
            Message(sender="ann@example.com", to=[*elsewhere, "user@lab.test"], subject="many", text="x")
        )
    assert receipt.outcome is Outcome.ACCEPTED
    assert len(await asyncio.to_thread(relay.wait_for_message, "Subject: many")) == 1
