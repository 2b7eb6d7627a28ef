"""SendOptions.progress in every way that a message can be sent."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from smtp_async import Message, NotSent, Outcome, PoolLimits, SendOptions, SMTPClient
from smtp_async.events import Transfer
from tests.lab import client_of, gathered, mail, speaking

pytestmark = pytest.mark.usefixtures("no_leaks")

WAYS = pytest.mark.parametrize("way", ["send", "send_all", "session"])
SIZES = pytest.mark.parametrize("text", ["Hello", "0123456789\n" * 30_000], ids=["small", "large"])


async def result_of(
    way: str, client: SMTPClient, message: Message, options: SendOptions, *, connected: bool = True
) -> Any:
    """Return the receipt or the error of one message; check whether a session is still connected afterwards."""
    if way == "send":
        return (await gathered(client.send(message, options=options)))[0]
    if way == "send_all":
        return [receipt async for _, receipt in client.send_all([message], options=options)][0]
    async with client.session() as session:
        await session.connect()
        result = (await gathered(session.send(message, options=options)))[0]
        assert session.connected is connected
        return result


@WAYS
@SIZES
@pytest.mark.parametrize("form", ["plain", "async"])
async def test_progress_is_told_of_each_slice(way: str, text: str, form: str) -> None:
    told: list[tuple[int, int | None]] = []

    def plain(sent: int, total: int | None) -> None:
        told.append((sent, total))

    async def awaited(sent: int, total: int | None) -> None:
        told.append((sent, total))

    options = SendOptions(progress=plain if form == "plain" else awaited)
    async with speaking() as server, client_of(server) as client:
        result = await result_of(way, client, mail(1, text=text), options)
    assert result.outcome is Outcome.ACCEPTED
    size = len(server.messages[0].data)
    assert {total for _, total in told} == {size}
    sent = [sent for sent, _ in told]
    assert sent == sorted(set(sent))
    assert sent[-1] == size
    assert len(sent) > (3 if len(text) > 10 else 0)


async def test_an_unknown_total_is_none() -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(57)

    told: list[tuple[int, int | None]] = []
    percents: list[int] = []
    message = mail(1)
    message.attach(slow(), filename="slow")
    async with speaking() as server, client_of(server) as client:
        client.on(Transfer, lambda event: percents.append(event.percent))
        await client.send(message, options=SendOptions(progress=lambda *how: told.append(how)))
    assert {total for _, total in told} == {None}
    assert told[-1][0] == len(server.messages[0].data)
    assert set(percents) == {-1}


@WAYS
@SIZES
@pytest.mark.parametrize("form", ["plain", "async"])
@pytest.mark.parametrize("at", ["start", "end"])
async def test_progress_may_stop_it(way: str, text: str, form: str, at: str) -> None:
    """The connection is dropped, so that no server takes half a message for a whole one."""

    def stop(sent: int, total: int | None) -> bool | None:
        return False if at == "start" or sent == total else None

    async def stop_later(sent: int, total: int | None) -> bool | None:
        return stop(sent, total)

    options = SendOptions(progress=stop if form == "plain" else stop_later)
    async with speaking() as server, client_of(server, pool=PoolLimits(max_connections=1)) as client:
        result = await result_of(way, client, mail(1, text=text), options, connected=False)
        if way == "send_all":
            assert isinstance(result.error, NotSent)
            assert result.outcome is Outcome.NOT_SENT
        else:
            assert isinstance(result, NotSent)
            assert result.receipt is not None
            assert result.receipt.outcome is Outcome.NOT_SENT
        assert (await client.send(mail(2))).outcome is Outcome.ACCEPTED
        assert server.connections.opened == 2
    assert [one.subject for one in server.messages] == ["message 2"]


async def test_what_progress_raises_is_the_cause() -> None:
    def fail(sent: int, total: int | None) -> None:
        raise ZeroDivisionError

    async with speaking() as server, client_of(server) as client:
        with pytest.raises(NotSent) as caught:
            await client.send(mail(1), options=SendOptions(progress=fail))
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        await client.send(mail(2))
    assert [one.subject for one in server.messages] == ["message 2"]


async def test_a_small_binary_message_needs_no_pipelining_for_it() -> None:
    """It leaves in one chunk, as it does without `progress`."""
    told: list[tuple[int, int | None]] = []
    options = SendOptions(exact=True, progress=lambda *how: told.append(how))
    source = b"From: ann@example.com\r\nTo: bob@example.org\r\n\r\nx\ny"
    async with (
        speaking(extensions=["CHUNKING", "BINARYMIME", "8BITMIME"]) as server,
        client_of(server) as client,
    ):
        receipt = await client.send_raw(source, options=options)
    assert receipt.outcome is Outcome.ACCEPTED
    assert server.messages[0].data == source
    assert told == [(len(source), len(source))]
    assert server.verbs().count("BDAT") == 1
