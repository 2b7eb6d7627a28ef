"""one_shot.py: one message from a coroutine, by a client that is made for it and closed."""

import asyncio

import pytest

import smtp_async
from smtp_async import ClientOptions, NotSent, Outcome, Raw, SendOptions, SMTPError, Timeouts
from smtp_async.errors import InvalidArgument
from smtp_async.testing import delay
from tests.lab import gathered, mail, speaking, until
from tests.servers.postfix import Postfix

pytestmark = pytest.mark.usefixtures("no_leaks")


async def test_a_coroutine_sends_one_message() -> None:
    async with speaking(users={"ann": "secret"}) as server:
        url = f"smtp+plain://127.0.0.1:{server.port}"
        receipt = await smtp_async.send(mail(), url=url, options=ClientOptions(hello="script.test"))
        assert receipt.outcome is Outcome.ACCEPTED
        assert server.verbs() == ["EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]
    assert [one.subject for one in server.messages] == ["message 1"]


async def test_what_a_client_takes_is_taken() -> None:
    raw = Raw(b"Subject: x\r\n\r\nHi\r\n")
    async with speaking(extensions=["PIPELINING", "SAML"]) as server:
        url = f"smtp+plain://127.0.0.1:{server.port}"
        options = ClientOptions(send=SendOptions(verb="SAML"))
        await smtp_async.send(raw, url=url, sender="a@x.test", recipients=["b@x.test"], options=options)
    assert "SAML" in server.verbs()
    assert [one.rcpt_tos for one in server.messages] == [["b@x.test"]]


async def test_it_raises_what_a_client_raises() -> None:
    with pytest.raises(SMTPError) as caught:
        await smtp_async.send(mail(), url="smtp+plain://127.0.0.1:1")
    assert caught.value.receipt is not None and caught.value.receipt.outcome is Outcome.NOT_SENT
    with pytest.raises(InvalidArgument) as refused:
        await smtp_async.send(mail(), url="http://ann:s3cret@example.com")
    assert "s3cret" not in str(refused.value)


async def test_its_deadline_is_kept() -> None:
    async with speaking() as server:
        server.on("GREETING", delay(asyncio.Event()))
        with pytest.raises(NotSent):
            await smtp_async.send(mail(), url=f"smtp+plain://127.0.0.1:{server.port}", deadline=0.1)


@pytest.mark.parametrize("verb", ["EHLO", "MAIL", ".", "QUIT"])
async def test_a_caller_that_is_cancelled_leaves_nothing_behind(verb: str) -> None:
    async with speaking() as server:
        server.on(verb, delay(asyncio.Event()))
        url = f"smtp+plain://127.0.0.1:{server.port}"
        options = ClientOptions(timeouts=Timeouts(close=0.1, quit=0.1))
        sending = asyncio.create_task(smtp_async.send(mail(), url=url, options=options))
        await until(lambda: verb in server.verbs())
        sending.cancel()
        (ended,) = await gathered(sending)
        assert isinstance(ended, asyncio.CancelledError)


@pytest.mark.server
async def test_postfix_takes_it(postfix: Postfix) -> None:
    url = f"smtp+plain://127.0.0.1:{postfix.ports.plain}"
    receipt = await smtp_async.send(mail(text="one shot"), url=url, recipients=["bob@lab.test"])
    assert receipt.outcome is Outcome.ACCEPTED and receipt.verdicts[0].queue_id
