"""transcript.py: events are made only if a hook wants them, told in order, and waited for by uploads."""

import asyncio
from typing import Any

import pytest

from smtp_async import Outcome, Receipt, Verdict
from smtp_async.connection.transcript import Transcript
from smtp_async.errors import ConnectionLost, SocketError
from smtp_async.events import (
    Abandoned,
    ConnectionKind,
    ConnectionStatus,
    Direction,
    Error,
    Event,
    Expand,
    Notification,
    PITrail,
    SSLStatus,
)
from smtp_async.hooks import Hooks
from smtp_async.model.address import Address
from smtp_async.model.envelope import Recipient
from smtp_async.model.reply import Reply
from smtp_async.protocol.pipelining_history import Breakdown
from tests.lab import turns


class Listening:
    """A transcript whose hooks keep what they hear."""

    def __init__(self, *wanted: type[Event]) -> None:
        self.hooks = Hooks()
        self.heard: list[Any] = []
        self.wakes = 0
        for event in wanted:
            self.hooks.add(event, self.heard.append)
        self.transcript = Transcript(7, self.hooks, self.wake)

    def wake(self) -> None:
        self.wakes += 1


async def test_without_a_hook_nothing_is_kept() -> None:
    one = Listening()
    one.transcript.remark("%s", 1)
    one.transcript.tls_step("%s", 1)
    one.transcript.notify("name", "parameter", "%s")
    one.transcript.closed("mx.test", ConnectionLost("reset"))
    assert one.transcript.events == []


async def test_what_is_noted_is_told_in_order_with_the_connections_number() -> None:
    one = Listening(Event)
    one.transcript.notify("mechanism", "PLAIN", "logging in with %s")
    one.transcript.tls_step("handshake with %s", "mx.test")
    await one.transcript.tell()
    assert [type(event) for event in one.heard] == [PITrail, Notification, PITrail, SSLStatus]
    assert {event.session for event in one.heard} == {7}
    assert one.heard[0].message == "logging in with PLAIN" and one.heard[0].direction is Direction.INFO
    assert one.heard[3].message == "handshake with mx.test"
    assert one.transcript.events == []


async def test_a_remark_holds_no_control_characters() -> None:
    one = Listening(PITrail)
    one.transcript.remark("connected to %s", "mx\r\n\x1b[2J")
    await one.transcript.tell()
    assert one.heard[0].message.isprintable()


async def test_what_hooks_cause_is_told_after_the_rest() -> None:
    one = Listening()
    names: list[str] = []

    def hook(event: Notification) -> None:
        names.append(event.name)
        if event.name == "first":
            one.transcript.note(Notification(name="third"))

    one.hooks.add(Notification, hook)
    one.transcript.note(Notification(name="first"))
    one.transcript.note(Notification(name="second"))
    await one.transcript.tell()
    assert names == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (None, 0, "closed"),
        (ConnectionLost("reset"), ConnectionLost.code, "reset"),
        (SocketError("no route", errno=113), 10065, "no route"),
    ],
)
async def test_the_end_of_a_connection_has_the_number_of_its_reason(error: Any, code: int, text: str) -> None:
    one = Listening(ConnectionStatus)
    one.transcript.closed("mx.test:25", error)
    await one.transcript.tell()
    (event,) = one.heard
    assert event.kind is ConnectionKind.DISCONNECTED
    assert event.status_code == code and text in event.description


@pytest.mark.parametrize(
    ("breakdown", "names"),
    [
        (Breakdown.MISMATCHED, ["pipelining-off"]),
        (Breakdown.NOT_FOLLOWED, ["pipelining-reduced"]),
        (Breakdown.LOST_AT_END_OF_DATA, []),
        (None, []),
    ],
)
async def test_only_a_certain_breakdown_is_told(breakdown: Breakdown | None, names: list[str]) -> None:
    one = Listening(Notification)
    one.transcript.breakdown(breakdown)
    await one.transcript.tell()
    assert [event.name for event in one.heard] == names


@pytest.mark.parametrize("abandoned", [False, True])
async def test_refused_recipients_are_told_and_receipts_that_no_caller_waits_for(abandoned: bool) -> None:
    no = Reply(550, (b"5.1.1 no",))
    verdicts = (
        Verdict(Recipient("a@x.test"), Outcome.ACCEPTED, Reply(250, (b"ok",))),
        Verdict(Recipient("b@x.test"), Outcome.REFUSED, no),
    )
    receipt = Receipt(verdicts)
    one = Listening(Error, Abandoned)
    one.transcript.receipt(3, receipt, abandoned=abandoned)
    await one.transcript.tell()
    refused, *rest = one.heard
    assert (
        refused.recipient == Recipient("b@x.test") and refused.job == 3 and "5.1.1 no" in refused.description
    )
    assert [event.receipt for event in rest] == [receipt] * abandoned


@pytest.mark.parametrize("wanted", [False, True])
async def test_members_of_a_list_are_told_one_by_one(wanted: bool) -> None:
    one = Listening(Expand if wanted else Error)
    members = [Address("ann", "x.test"), Address("bob", "x.test")]
    one.transcript.members(members)
    assert bool(one.transcript.events) == wanted
    await one.transcript.tell()
    assert one.heard == [Expand(session=one.heard[0].session, address=each) for each in members if wanted]


class TestWaiting:
    async def test_an_upload_waits_until_the_hooks_have_heard(self) -> None:
        one = Listening(Notification)
        one.transcript.note(Notification(name="x"))
        waiting = asyncio.create_task(one.transcript.wait_told())
        await turns(3)
        assert one.wakes == 1 and not waiting.done()
        await one.transcript.tell()
        await waiting
        assert len(one.heard) == 1

    async def test_it_does_not_wait_when_there_is_nothing_to_tell(self) -> None:
        one = Listening(Notification)
        await one.transcript.wait_told()
        assert one.wakes == 0

    async def test_the_end_of_the_connection_ends_the_wait(self) -> None:
        one = Listening(Notification)
        one.transcript.note(Notification(name="x"))
        waiting = asyncio.create_task(one.transcript.wait_told())
        await turns(3)
        one.transcript.end_waiting()
        await waiting
        # From then on no upload waits, although the event is still to be told.
        await one.transcript.wait_told()
        await one.transcript.tell()
        assert len(one.heard) == 1
