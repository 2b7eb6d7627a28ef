"""Recipients without a route: given up if the routes name no client, and tried later if the routes raise."""

import logging
from typing import Any

import pytest

from smtp_async.events import Event, JobDeferred, JobFailed
from smtp_async.processor import ReportOptions, RetryPolicy, Unfinished
from smtp_async.spool.entry import State
from tests.lab import mail
from tests.processor.fakes import FailingSpool, FakeClient, ManualClock, entries, filled, processor

pytestmark = pytest.mark.usefixtures("no_leaks")

RAISED = "the routes raised LookupError('the directory is down')"
NOWHERE = "no route for x@nowhere.test"


class Directory:
    """Routes by the domain of the recipient; asking for one of `down` raises."""

    def __init__(self, client: Any, *down: str) -> None:
        self.client = client
        self.down = set(down)

    def __call__(self, entry: Any, recipient: Any) -> Any:
        if recipient.address.domain in self.down:
            raise LookupError("the directory is down")
        return None if recipient.address.domain == "nowhere.test" else self.client


async def test_routes_that_raise_defer_the_job(
    spool: FailingSpool, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client = FakeClient()
    ids = await filled(spool, 3)
    routes = Directory(client, "example.org")
    queue = processor(spool, None, routes=routes, retry=RetryPolicy(attempts=1, jitter=False))
    heard: list[Event] = []
    queue.on(JobDeferred, heard.append)
    with caplog.at_level(logging.WARNING, "smtp_async"):
        report = await queue.run_once()
    assert set(report.deferred) == {Unfinished(id, RAISED, clock() + 60) for id in ids}
    assert [event.reason for event in heard] == [RAISED] * 3  # type: ignore[attr-defined]
    assert caplog.text.count(RAISED) == 3
    assert [(one.state, one.attempts, len(one.pending)) for one in await entries(spool)] == [
        (State.QUEUED, 0, 1)
    ] * 3
    routes.down.clear()
    assert not (await queue.run_once()).tried
    clock.move(60)
    assert set((await queue.run_once()).sent) == set(ids)


async def test_a_job_expires_while_the_routes_raise(spool: FailingSpool, clock: ManualClock) -> None:
    id = await spool.put(mail(to="x@a.test"), expires=clock() + 100)
    queue = processor(spool, None, routes=Directory(FakeClient(), "a.test"))
    for wait in (60, 40):
        [deferred] = (await queue.run_once()).deferred
        assert deferred.not_before == clock() + wait
        clock.move(wait)
    [failed] = (await queue.run_once()).failed
    assert failed == Unfinished(id, f"it could not be delivered in time: {RAISED}")


async def test_a_recipient_for_which_the_routes_raise_delays_no_other(
    spool: FailingSpool, clock: ManualClock
) -> None:
    client = FakeClient()
    id = await spool.put(mail(to="1@a.test, 2@b.test"))
    routes = Directory(client, "a.test")
    queue = processor(spool, None, routes=routes)
    report = await queue.run_once()
    assert report.deferred == (Unfinished(id, RAISED, clock() + 60),)
    assert client.recipients == [["2@b.test"]]
    routes.down.clear()
    clock.move(60)
    assert (await queue.run_once()).sent == (id,)
    assert client.recipients == [["2@b.test"], ["1@a.test"]]


async def test_the_others_are_tried_again_while_the_routes_raise(
    spool: FailingSpool, clock: ManualClock
) -> None:
    client = FakeClient("451 later")
    id = await spool.put(mail(to="1@a.test, 2@b.test"))
    queue = processor(spool, None, routes=Directory(client, "a.test"), retry=RetryPolicy(jitter=False))
    for attempt, wait in ((1, 60), (2, 120)):
        [deferred] = (await queue.run_once()).deferred
        assert (deferred.id, deferred.not_before) == (id, clock() + wait)
        assert (await spool.get(id)).attempts == attempt == len(client.tried)
        clock.move(wait)


@pytest.mark.parametrize("answer", ["250 ok", "550 5.1.1 never"])
async def test_a_recipient_without_a_route_does_not_stop_the_others(spool: FailingSpool, answer: str) -> None:
    client = FakeClient(answer)
    id = await spool.put(mail(to="1@a.test, x@nowhere.test, 2@a.test"))
    reports = ReportOptions(reporting="mx.test") if answer.startswith("2") else None
    queue = processor(spool, None, routes=Directory(client), bounce=reports)
    report = await queue.run_once()
    assert client.recipients == [["1@a.test", "2@a.test"]]
    assert report.failed == (Unfinished(id, NOWHERE if answer.startswith("2") else answer),)
    # No report was put.
    entry, *others = await entries(spool)
    assert (entry.id, entry.state, others) == (id, State.FAILED, [])
    await spool.requeue(id)
    client.answers = ["250 ok"]
    assert (await processor(spool, client).run_once()).sent == (id,)
    assert "x@nowhere.test" in client.recipients[-1]


async def test_the_others_are_tried_again_after_a_recipient_was_given_up(
    spool: FailingSpool, clock: ManualClock
) -> None:
    client = FakeClient("451 later")
    id = await spool.put(mail(to="1@a.test, x@nowhere.test"))
    queue = processor(spool, None, routes=Directory(client))
    report = await queue.run_once()
    assert [(one.id, one.not_before) for one in report.deferred] == [(id, clock() + 60)]
    client.answers = ["250 ok"]
    clock.move(60)
    assert [one.id for one in (await queue.run_once()).failed] == [id]
    assert client.recipients == [["1@a.test"]] * 2
    assert [str(one.address) for one, _ in (await spool.get(id)).failed] == ["x@nowhere.test"]


async def test_a_route_that_was_removed_ends_the_attempt_of_the_others(
    spool: FailingSpool, clock: ManualClock
) -> None:
    """They had their turn by then, so they wait as after any attempt."""
    client = FakeClient("451 later")
    id = await spool.put(mail(to="1@a.test, 2@b.test"))
    routes = Directory(client, "b.test")
    chosen: list[Any] = []

    def choose(entry: Any, recipient: Any) -> Any:
        chosen.append(recipient)
        # At the second claim, the directory is back and knows no such route.
        return routes(entry, recipient) if len(chosen) <= 2 else None

    queue = processor(spool, None, routes=choose)
    [deferred] = (await queue.run_once()).deferred
    entry = await spool.get(id)
    assert (deferred.id, deferred.not_before, entry.attempts) == (id, clock() + 60, 1)
    assert [str(one.address) for one in entry.pending] == ["1@a.test"]


async def test_the_event_of_a_failed_job_says_which_recipient_has_no_route(spool: FailingSpool) -> None:
    id = await spool.put(mail(to="x@nowhere.test"))
    heard: list[Any] = []
    queue = processor(spool, None, routes=Directory(FakeClient()))
    queue.on(JobFailed, heard.append)
    await queue.run_once()
    assert [(event.id, event.reason, event.receipt) for event in heard] == [(id, NOWHERE, None)]
