"""One message in several transactions: limits known before MAIL, and recipients that were too many for one."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from smtp_async import (
    EVERYONE,
    NOBODY,
    Kind,
    Message,
    NotSent,
    Outcome,
    OutcomeUnknown,
    PoolLimits,
    Receipt,
    RecipientsRefused,
    SendOptions,
    SMTPClient,
    SMTPError,
)
from smtp_async.errors import ReceiptLike, TooManyRecipients
from smtp_async.testing import ScriptedServer, Step, close, default, delay, raw, reply, swallow
from tests.lab import PATIENCE, SENDER, client_of, every_loop, gathered, mail, speaking, until

pytestmark = pytest.mark.usefixtures("no_leaks")

BASE = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING")
WINDOWS = pytest.mark.parametrize("window", [1, 8])
LEVELS = pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "lock-step"])
TO_NOBODY = SendOptions(must_accept=NOBODY)
HELD = EVERYONE - {Kind.BCC}


def one(window: int = 1) -> PoolLimits:
    return PoolLimits(max_connections=1, window=window)


def limited(*limits: str) -> Any:
    return speaking(extensions=[*BASE, "LIMITS " + " ".join(limits)])


def many(count: int) -> Message:
    return Message(sender=SENDER, to=[f"user{n}@example.org" for n in range(count)], subject="many", text="x")


def received(server: ScriptedServer) -> Counter[str]:
    """How many copies each recipient has."""
    return Counter(one for message in server.messages for one in message.rcpt_tos)


def everyone_once(count: int) -> dict[str, int]:
    return {f"user{n}@example.org": 1 for n in range(count)}


def names(receipt: Receipt) -> list[str]:
    return [str(verdict.recipient.address) for verdict in receipt.verdicts]


def outcomes(receipt: ReceiptLike) -> list[Outcome]:
    return [verdict.outcome for verdict in receipt.verdicts]


def full_after(count: int, code: int = 452, text: str = "4.5.3 too many recipients") -> Any:
    """A RCPT that takes so many recipients per transaction and has never heard of LIMITS."""

    async def action(step: Step) -> None:
        envelope = step.connection.dialogue.envelope
        if envelope is not None and len(envelope.recipients) >= count:
            step.reply(code, text)
        else:
            step.default()

    return action


class TestKnownLimits:
    @WINDOWS
    @LEVELS
    @every_loop
    async def test_recipients_are_spread_over_transactions(self, window: int, pipelining: bool) -> None:
        async with (
            limited("RCPTMAX=4") as server,
            client_of(server, pool=one(window), pipelining=pipelining) as client,
        ):
            receipt = await client.send(many(10))
            assert client.statistics().sent == 1
        assert receipt.outcome is Outcome.ACCEPTED and receipt.error is None
        assert names(receipt) == [f"user{n}@example.org" for n in range(10)]
        assert [len(message.rcpt_tos) for message in server.messages] == [4, 4, 2]
        assert received(server) == everyone_once(10)
        assert len({message.data for message in server.messages}) == 1

    async def test_no_more_domains_than_allowed(self) -> None:
        """The scripted server does not enforce this one, so what was written is looked at."""
        texts = [f"u@d{n}.test" for n in (1, 2, 1, 3, 3, 1, 4, 5)]
        message = Message(sender=SENDER, to=texts, subject="x", text="x")
        async with limited("RCPTDOMAINMAX=2") as server, client_of(server, pool=one()) as client:
            receipt = await client.send(message)
        assert receipt.outcome is Outcome.ACCEPTED and names(receipt) == texts
        assert [one for part in server.messages for one in part.rcpt_tos] == texts
        assert all(len({one.split("@")[1] for one in m.rcpt_tos}) <= 2 for m in server.messages)

    @WINDOWS
    async def test_no_more_messages_per_connection_than_allowed(self, window: int) -> None:
        async with limited("MAILMAX=3") as server, client_of(server, pool=one(window)) as client:
            receipts = [await client.send(mail(n)) for n in range(4)]
            receipts += await gathered(*(client.send(mail(n)) for n in range(4, 20)))
            assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 20
        assert max(Counter(message.connection for message in server.messages).values()) <= 3
        assert received(server) == everyone_once(20)
        assert server.verbs().count("MAIL") == 20

    @WINDOWS
    async def test_both_limits_at_once(self, window: int) -> None:
        async with (
            limited("RCPTMAX=2", "MAILMAX=2") as server,
            client_of(server, pool=one(window)) as client,
        ):
            receipts = await gathered(client.send(many(9)), client.send(mail("B")))
        assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 2
        assert received(server) == {**everyone_once(9), "userB@example.org": 1}
        assert max(Counter(message.connection for message in server.messages).values()) <= 2

    async def test_without_splitting_a_known_limit_refuses_before_a_byte_is_sent(self) -> None:
        async with limited("RCPTMAX=4") as server, client_of(server, pool=one()) as client:
            with pytest.raises(TooManyRecipients) as caught:
                await client.send(many(5), options=SendOptions(split=False))
            receipt = Receipt.of(caught.value)
            assert receipt is not None and receipt.outcome is Outcome.NOT_SENT
            assert len(receipt.verdicts) == 5 and receipt.bytes_sent == 0
            assert "MAIL" not in server.verbs()
            assert (await client.send(many(4), options=SendOptions(split=False))).outcome is Outcome.ACCEPTED

    async def test_a_large_message_is_streamed_to_each_part(self) -> None:
        message = many(5)
        big = Message(sender=SENDER, to=message.to, subject="big", text="0123456789\n" * 20_000)
        async with limited("RCPTMAX=2") as server, client_of(server, pool=one()) as client:
            receipts = await gathered(client.send(big), client.send(mail("B")))
        assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 2
        assert receipts[0].bytes_sent > 3 * 220_000
        assert received(server) == {**everyone_once(5), "userB@example.org": 1}

    async def test_a_session_of_ones_own_splits_too(self) -> None:
        async with limited("RCPTMAX=2") as server, client_of(server, pool=one()) as client:
            async with client.session() as session:
                await session.connect()
                receipt = await session.send(many(5))
            assert receipt.outcome is Outcome.ACCEPTED
        assert received(server) == everyone_once(5)
        assert server.connections.opened == 1

    @WINDOWS
    async def test_send_all_splits_too(self, window: int) -> None:
        async with (
            limited("RCPTMAX=3") as server,
            client_of(server, pool=PoolLimits(window=window)) as client,
        ):
            async with asyncio.timeout(PATIENCE):
                receipts = [receipt async for _, receipt in client.send_all([many(7)] * 5)]
        assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 5
        assert set(received(server).values()) == {5} and len(received(server)) == 7


class TestPolicy:
    """`must_accept` holds for the first transaction; later refusals are PARTIAL."""

    async def test_a_refusal_in_the_first_part_refuses_the_message_for_all(self) -> None:
        async with limited("RCPTMAX=4") as server, client_of(server, pool=one()) as client:
            server.on("RCPT", reply(550, "5.1.1 no"), match="user1@")
            with pytest.raises(RecipientsRefused) as caught:
                await client.send(many(10))
            receipt = caught.value.receipt
        assert receipt is not None
        assert outcomes(receipt) == [Outcome.REFUSED if n == 1 else Outcome.NOT_SENT for n in range(10)], (
            outcomes(receipt)
        )
        assert server.messages == []
        assert len(receipt.verdicts) == 10

    @LEVELS
    async def test_a_refusal_in_a_later_part_is_partial(self, pipelining: bool) -> None:
        async with (
            limited("RCPTMAX=4") as server,
            client_of(server, pool=one(), pipelining=pipelining) as client,
        ):
            server.on("RCPT", reply(550, "5.1.1 no"), match="user[59]@")
            receipt = await client.send(many(10))
            assert client.statistics().sent == 1
        assert receipt.outcome is Outcome.PARTIAL and receipt.error is None
        refused = [n for n, outcome in enumerate(outcomes(receipt)) if outcome is Outcome.REFUSED]
        assert refused == [5, 9]
        assert receipt.reply is not None and receipt.reply.code == 550
        expected = everyone_once(10)
        del expected["user5@example.org"], expected["user9@example.org"]
        assert received(server) == expected

    async def test_a_whole_later_part_may_be_refused(self) -> None:
        async with limited("RCPTMAX=2") as server, client_of(server, pool=one()) as client:
            server.on("RCPT", reply(550, "5.1.1 no"), match="user[23]@")
            receipt = await client.send(many(6))
        assert receipt.outcome is Outcome.PARTIAL
        assert [v.recipient.address.local for v in receipt.refused] == ["user2", "user3"]
        assert len(receipt.accepted) + len(receipt.refused) + len(receipt.not_sent) == 6
        for verdict in receipt.accepted:
            assert received(server)[str(verdict.recipient.address)] == 1
        assert sum(received(server).values()) == len(receipt.accepted)

    async def test_a_refused_message_in_a_later_part_is_partial(self) -> None:
        async with limited("RCPTMAX=3") as server, client_of(server, pool=one()) as client:
            server.on(".", reply(554, "5.6.0 no"), nth=2)
            receipt = await client.send(many(6))
        assert outcomes(receipt) == [Outcome.ACCEPTED] * 3 + [Outcome.REFUSED] * 3
        assert receipt.outcome is Outcome.PARTIAL and receipt.reply is not None and receipt.reply.code == 554

    async def test_recipients_outside_the_policy_refuse_no_part(self) -> None:
        async with limited("RCPTMAX=4") as server, client_of(server, pool=one()) as client:
            server.on("RCPT", reply(550, "5.1.1 no"), match="user[07]@")
            receipt = await client.send(many(10), options=TO_NOBODY)
        assert [v.recipient.address.local for v in receipt.refused] == ["user0", "user7"]
        assert len(receipt.accepted) == 8


class TestTooMany:
    """452 to a RCPT, from a server that does not announce its limit."""

    @WINDOWS
    @LEVELS
    @pytest.mark.parametrize(
        ("code", "text"),
        [(452, "4.5.3 too many"), (452, "Too many recipients"), (552, "5.5.3 too many"), (552, "Too many")],
    )
    async def test_the_rest_goes_in_a_new_transaction(
        self, code: int, text: str, window: int, pipelining: bool
    ) -> None:
        extensions = ["PIPELINING", "CHUNKING", "8BITMIME"]
        async with (
            speaking(extensions=extensions) as server,
            client_of(server, pool=one(window), pipelining=pipelining) as client,
        ):
            server.on("RCPT", full_after(3, code, text))
            receipt = await client.send(many(8))
            assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
        assert receipt.outcome is Outcome.ACCEPTED and receipt.reply is not None
        assert names(receipt) == [f"user{n}@example.org" for n in range(8)]
        assert received(server) == {**everyone_once(8), "userB@example.org": 1}
        assert [len(message.rcpt_tos) for message in server.messages] == [3, 3, 2, 1]

    @pytest.mark.parametrize("text", ["4.2.2 mailbox full", "4.3.1 system full"])
    @pytest.mark.parametrize("must_accept", [HELD, NOBODY], ids=["held", "nobody"])
    async def test_other_452s_are_no_limit(self, text: str, must_accept: frozenset[Kind]) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("RCPT", reply(452, text), match="user[12]@")
            (result,) = await gathered(client.send(many(4), options=SendOptions(must_accept=must_accept)))
        assert server.verbs().count("MAIL") == 1
        if must_accept:
            assert isinstance(result, RecipientsRefused)
            assert received(server) == {}
        else:
            assert outcomes(result) == [Outcome.ACCEPTED, Outcome.REFUSED, Outcome.REFUSED, Outcome.ACCEPTED]
            assert result.outcome is Outcome.PARTIAL

    async def test_both_meanings_in_one_transaction(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("RCPT", full_after(2))
            server.on("RCPT", reply(452, "4.2.2 mailbox full"), match="user1@")
            receipt = await client.send(many(5), options=TO_NOBODY)
        assert [v.recipient.address.local for v in receipt.refused] == ["user1"]
        assert len(receipt.accepted) == 4
        expected = everyone_once(5)
        del expected["user1@example.org"]
        assert received(server) == expected

    @pytest.mark.parametrize("must_accept", [HELD, NOBODY], ids=["held", "nobody"])
    async def test_without_splitting_they_are_refused(self, must_accept: frozenset[Kind]) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("RCPT", full_after(3))
            options = SendOptions(split=False, must_accept=must_accept)
            (result,) = await gathered(client.send(many(5), options=options))
        assert server.verbs().count("MAIL") == 1
        if must_accept:
            assert isinstance(result, RecipientsRefused)
            assert received(server) == {}
        else:
            assert outcomes(result) == [Outcome.ACCEPTED] * 3 + [Outcome.REFUSED] * 2

    async def test_a_first_recipient_that_is_one_too_many_is_refused(self) -> None:
        """No recipient was accepted: another transaction would not help."""
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("RCPT", reply(452, "4.5.3 too many"))
            (result,) = await gathered(client.send(many(3)))
        assert isinstance(result, RecipientsRefused)
        assert result.receipt is not None and set(outcomes(result.receipt)) == {Outcome.REFUSED}
        assert server.verbs().count("MAIL") == 1

    @WINDOWS
    async def test_a_limit_that_shrinks_comes_to_an_end(self, window: int) -> None:
        """The second transaction accepts no recipient: they stay refused and are not tried for ever."""
        async with speaking() as server, client_of(server, pool=one(window)) as client:
            server.on("RCPT", reply(452, "4.5.3 too many"), nth=range(4, 1000))
            receipt = await client.send(many(6))
        assert outcomes(receipt) == [Outcome.ACCEPTED] * 3 + [Outcome.REFUSED] * 3
        assert receipt.outcome is Outcome.PARTIAL
        assert server.verbs().count("MAIL") == 2

    async def test_the_order_of_the_envelope_is_kept_for_the_recipients_that_were_left(self) -> None:
        async with speaking() as server, client_of(server, pool=one()) as client:
            server.on("RCPT", reply(452, "4.5.3 too many"), match="user[135]@", nth=range(1, 4))
            receipt = await client.send(many(6))
        assert names(receipt) == [f"user{n}@example.org" for n in range(6)]
        assert receipt.outcome is Outcome.ACCEPTED
        assert [m.rcpt_tos for m in server.messages] == [
            [f"user{n}@example.org" for n in (0, 2, 4)],
            [f"user{n}@example.org" for n in (1, 3, 5)],
        ]

    async def test_lmtp_splits_and_keeps_every_ones_reply(self) -> None:
        async with (
            speaking(lmtp=True) as server,
            client_of(server, pool=one(), lmtp=True) as client,
        ):
            server.on("RCPT", full_after(2))
            server.on(".", reply(552, "5.2.2 full"), match="user3@")
            receipt = await client.send(many(5), options=TO_NOBODY)
        assert [v.recipient.address.local for v in receipt.refused] == ["user3"]
        assert len(receipt.accepted) == 4
        assert received(server) == {f"user{n}@example.org": 1 for n in (0, 1, 2, 4)}


class TestBetweenTheParts:
    """What ends a message while some of its recipients have it and others not."""

    async def held(self, server: ScriptedServer, *, point: str = "MAIL") -> asyncio.Event:
        gate = asyncio.Event()
        server.on(point, delay(gate), default(), nth=2)
        return gate

    @pytest.mark.parametrize("point", ["MAIL", "RCPT"])
    @every_loop
    async def test_a_deadline_tells_which_recipients_have_the_message(self, point: str) -> None:
        """The second part waits for its envelope: those of the first are accepted, the others not sent."""
        async with limited("RCPTMAX=2") as server, client_of(server, pool=one()) as client:
            gate = asyncio.Event()
            server.on(point, delay(gate), default(), nth=2 if point == "MAIL" else 3)
            receipt = await client.send(many(5), deadline=0.1)
            assert receipt.outcome is Outcome.PARTIAL
            assert outcomes(receipt) == [Outcome.ACCEPTED] * 2 + [Outcome.NOT_SENT] * 3
            assert receipt.error is None
            gate.set()
            assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
            statistics = client.statistics()
            assert (statistics.sent, statistics.not_sent, statistics.waiting) == (2, 0, 0)
        assert received(server) == {**everyone_once(2), "userB@example.org": 1}

    async def test_a_deadline_after_the_end_of_a_later_part_is_unknown(self) -> None:
        async with limited("RCPTMAX=2") as server, client_of(server, pool=one()) as client:
            gate = await self.held(server, point=".")
            with pytest.raises(OutcomeUnknown) as caught:
                await client.send(many(6), deadline=0.1)
            receipt = caught.value.receipt
            assert receipt is not None
            assert outcomes(receipt) == [
                *[Outcome.ACCEPTED] * 2,
                *[Outcome.UNKNOWN] * 2,
                *[Outcome.NOT_SENT] * 2,
            ]
            gate.set()
            await client.send(mail("B"))

    @every_loop
    async def test_a_cancelled_caller_gets_no_further_parts(self) -> None:
        async with limited("RCPTMAX=2") as server, client_of(server, pool=one()) as client:
            gate = await self.held(server)
            task = asyncio.create_task(client.send(many(6)))
            await server.wait_until(lambda: server.verbs().count("MAIL") == 2)
            task.cancel()
            await asyncio.wait({task})
            gate.set()
            assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
            assert client.statistics().waiting == 0
        assert received(server) == {**everyone_once(2), "userB@example.org": 1}

    @WINDOWS
    @every_loop
    async def test_cancelled_after_any_turn_of_the_loop(self, window: int) -> None:
        async with limited("RCPTMAX=2") as server:
            for turn in range(200):
                async with client_of(server, pool=one(window)) as client:
                    task = asyncio.create_task(client.send(many(6)))
                    for _ in range(turn):
                        if task.done():
                            break
                        await asyncio.sleep(0)
                    ended = task.done()
                    task.cancel()
                    await asyncio.wait({task})
                    assert (await client.send(mail("B"))).outcome is Outcome.ACCEPTED
                    await until(lambda: client.statistics().busy == 0)  # noqa: B023 - awaited here
                arrived = received(server)
                assert arrived.pop("userB@example.org") == 1
                assert all(count == 1 for count in arrived.values())
                assert len(arrived) in (0, 2, 4, 6)
                server.messages.clear()
                if ended:
                    break
            assert ended

    @LEVELS
    async def test_a_connection_that_dies_between_them_costs_a_silent_retry(self, pipelining: bool) -> None:
        async with (
            limited("RCPTMAX=2") as server,
            client_of(server, pool=one(), pipelining=pipelining) as client,
        ):
            server.on("MAIL", close(), nth=2)
            receipt = await client.send(many(5))
            assert client.statistics().reconnects == 1
        assert receipt.outcome is Outcome.ACCEPTED
        assert received(server) == everyone_once(5)

    async def test_a_server_that_dies_between_them_leaves_the_rest_not_sent(self) -> None:
        async with limited("RCPTMAX=2") as server, client_of(server, pool=one()) as client:
            server.on("MAIL", close(), nth=range(2, 100))
            receipt = await client.send(many(5))
            assert receipt.outcome is Outcome.PARTIAL
            assert outcomes(receipt) == [Outcome.ACCEPTED] * 2 + [Outcome.NOT_SENT] * 3
        assert received(server) == everyone_once(2)

    async def test_no_connection_for_the_rest_leaves_it_not_sent(self) -> None:
        async with limited("RCPTMAX=2", "MAILMAX=1") as server, client_of(server, pool=one()) as client:
            server.on("GREETING", close(), nth=range(2, 100))
            (result,) = await gathered(client.send(many(5)))
            assert isinstance(result, Receipt), result
            assert outcomes(result) == [Outcome.ACCEPTED] * 2 + [Outcome.NOT_SENT] * 3
            statistics = client.statistics()
            assert (statistics.sent, statistics.not_sent) == (1, 0)

    @pytest.mark.parametrize("how", ["deadline", "cancel"])
    async def test_what_ends_while_the_rest_waits_in_the_queue(self, how: str) -> None:
        """The second part waits for a connection that is being opened."""
        gate = asyncio.Event()
        async with limited("RCPTMAX=2", "MAILMAX=1") as server, client_of(server, pool=one()) as client:
            server.on("GREETING", delay(gate), default(), nth=2)
            task = asyncio.create_task(client.send(many(5), deadline=0.2 if how == "deadline" else None))
            await server.wait_until(lambda: server.connections.opened == 2)
            assert client.statistics().waiting == 1
            if how == "cancel":
                task.cancel()
            (result,) = await gathered(task)
            if how == "deadline":
                assert outcomes(result) == [Outcome.ACCEPTED] * 2 + [Outcome.NOT_SENT] * 3
            statistics = client.statistics()
            assert (statistics.sent, statistics.not_sent, statistics.waiting) == (1, 0, 0)
            gate.set()
            await client.send(mail("B"))
        assert received(server) == {**everyone_once(2), "userB@example.org": 1}

    async def test_the_rest_is_prepared_again_where_another_connection_offers_something_else(self) -> None:
        """The second connection has another limit: every recipient gets the message exactly once."""
        async with limited("RCPTMAX=3", "MAILMAX=1") as server, client_of(server, pool=one()) as client:
            other = "250-test.invalid\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=2 MAILMAX=1\r\n"
            server.on("EHLO", swallow(), raw(other.encode()), nth=range(2, 100))
            receipt = await client.send(many(8))
            assert receipt.outcome is Outcome.ACCEPTED
        assert received(server) == everyone_once(8)
        assert [len(message.rcpt_tos) for message in server.messages] == [3, 2, 2, 1]

    async def test_an_unknown_part_makes_the_message_unknown_and_ends_it(self) -> None:
        async with limited("RCPTMAX=2") as server, client_of(server, pool=one()) as client:
            server.on(".", swallow(), close(), nth=2)
            with pytest.raises(OutcomeUnknown) as caught:
                await client.send(many(6))
            receipt = caught.value.receipt
            assert receipt is not None
            assert outcomes(receipt)[:4] == [Outcome.ACCEPTED] * 2 + [Outcome.UNKNOWN] * 2
            assert set(outcomes(receipt)[4:]) == {Outcome.NOT_SENT}
        assert received(server) == everyone_once(4)

    async def test_closing_the_client_between_parts_tells_which_recipients_have_the_message(self) -> None:
        async with limited("RCPTMAX=2") as server:
            client: SMTPClient = client_of(server, pool=one())
            gate = await self.held(server, point=".")
            task = asyncio.create_task(client.send(many(6)))
            await server.wait_until(lambda: server.verbs().count(".") == 2)
            closing = asyncio.create_task(client.close())
            await asyncio.sleep(0)
            gate.set()
            (result,) = await gathered(task)
            await closing
            receipt = result.receipt if isinstance(result, SMTPError) else result
            assert receipt is not None
            assert outcomes(receipt) == [Outcome.ACCEPTED] * 4 + [Outcome.NOT_SENT] * 2
            assert receipt.outcome is Outcome.PARTIAL and not isinstance(result, NotSent)
        assert received(server) == everyone_once(4)
