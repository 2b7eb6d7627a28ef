"""The part of `SpoolContract` about claims, the end of a lease, and workers that die."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ..errors import InvalidArgument, LeaseLost, NoSuchJob, SMTPError
from ..model.receipt import Outcome, Receipt, Verdict
from ..model.reply import Reply
from ..spool.contract import Lease, Spool
from ..spool.entry import State

__all__ = ["LATER", "NEVER", "QUEUED", "TEXT", "LeaseContract", "receipt_for", "refused"]

TEXT = b"From: ann@example.com\r\nTo: bob@example.org\r\nMessage-ID: <1@example.com>\r\n\r\nHello\r\n"
QUEUED = Reply(250, (b"2.0.0 Ok: queued as 4ABC",))
LATER = Reply(451, (b"4.3.0 later",))
NEVER = Reply(550, (b"5.1.1 nobody",))


def receipt_for(lease: Lease, *replies: Reply | None) -> Receipt:
    """Return a receipt for a lease: one reply for each pending recipient, None for an unknown outcome."""
    pending = lease.entry.pending
    if len(replies) == 1:
        replies *= len(pending)
    pairs = zip(pending, replies, strict=True)
    return Receipt(tuple(Verdict(recipient, _outcome(reply), reply) for recipient, reply in pairs))


def _outcome(reply: Reply | None) -> Outcome:
    if reply is None:
        return Outcome.UNKNOWN
    return Outcome.ACCEPTED if reply.positive else Outcome.REFUSED


async def refused(error: type[SMTPError], call: Callable[[], Any]) -> None:
    """Check that awaiting `call()` raises `error`."""
    try:
        await call()
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")


class LeaseContract(ABC):
    """Tests of the leases of a backend."""

    @abstractmethod
    def abandon(self, spool: Any, lease: Any) -> None:
        """Act as if the worker that holds `lease` had died."""

    # --- claim ---

    async def test_nothing_is_claimed_twice(self, spool: Spool) -> None:
        ids = {await spool.put(TEXT) for _ in range(5)}
        first, second = await spool.claim(3), await spool.claim(5)
        assert (len(first), len(second)) == (3, 2)
        assert {lease.entry.id for lease in first + second} == ids
        assert await spool.claim(5) == []

    async def test_nothing_is_claimed_before_it_is_due(self, spool: Spool) -> None:
        now = time.time()
        later = await spool.put(TEXT, not_before=now + 1000)
        moment = datetime.fromtimestamp(now + 2000, UTC)
        latest = await spool.put(TEXT, not_before=moment)
        assert await spool.claim(5) == []
        assert [lease.entry.id for lease in await spool.claim(5, now=now + 1001)] == [later]
        assert (await spool.get(latest)).not_before == moment.timestamp()
        assert [lease.entry.id for lease in await spool.claim(5, now=now + 2001)] == [latest]

    async def test_the_job_that_is_due_longest_is_claimed_first(self, spool: Spool) -> None:
        now = time.time()
        ids = {when: await spool.put(TEXT, not_before=now + when) for when in (30, 10, 20)}
        claimed = [lease.entry.id for lease in await spool.claim(5, now=now + 40)]
        assert claimed == [ids[10], ids[20], ids[30]]

    # --- the end of a lease ---

    async def test_a_settled_job_is_gone(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        await lease.mark_end_of_data()
        await lease.settle(receipt_for(lease, QUEUED))
        await refused(NoSuchJob, lambda: spool.get(id))
        assert await spool.claim(5, now=time.time() + 10) == []

    async def test_a_settled_job_may_be_kept(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        await lease.settle(receipt_for(lease, QUEUED), keep=True)
        entry = await spool.get(id)
        assert entry.state is State.SENT
        [result] = entry.results
        assert result is not None
        assert (result.outcome, result.final, result.queue_id) == (Outcome.ACCEPTED, True, "4ABC")
        assert await spool.claim(5) == []

    async def test_only_unfinished_recipients_are_tried_again(self, spool: Spool) -> None:
        names = ["a@example.org", "b@example.org", "c@example.org", "d@example.org"]
        id = await spool.put(TEXT, sender="ann@example.com", recipients=names)
        [lease] = await spool.claim()
        again = time.time() + 60
        await lease.defer(receipt_for(lease, QUEUED, LATER, NEVER, None), again, reason="451 later")
        entry = await spool.get(id)
        assert (entry.state, entry.not_before, entry.reason) == (State.QUEUED, again, "451 later")
        assert (entry.attempts, entry.flagged) == (1, True)
        assert [str(one.address) for one in entry.pending] == ["b@example.org", "d@example.org"]
        assert [str(one.address) for one, _ in entry.failed] == ["c@example.org"]
        later = entry.results[1]
        assert later is not None
        assert (later.code, later.enhanced, later.text) == (451, "4.3.0", "4.3.0 later")
        assert await spool.claim(5) == []
        [lease] = await spool.claim(5, now=again + 1)
        assert lease.mail().envelope().recipients == entry.pending
        assert lease.token > 1 or lease.entry.attempts == 1
        await lease.defer(receipt_for(lease, QUEUED), again + 60)
        assert [str(one.address) for one in (await spool.get(id)).pending] == []

    async def test_the_worker_may_decide_who_is_tried_again(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        await lease.defer(receipt_for(lease, NEVER), time.time(), retry=lambda verdict: True)
        assert len((await spool.get(id)).pending) == 1

    async def test_without_a_receipt_every_recipient_is_tried_again(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        await lease.defer(None, 0.0, reason="connection refused")
        entry = await spool.get(id)
        assert (len(entry.pending), entry.attempts, entry.reason) == (1, 1, "connection refused")
        assert len(await spool.claim(5)) == 1

    async def test_a_receipt_about_a_part_of_the_recipients_leaves_the_others(self, spool: Spool) -> None:
        id = await spool.put(TEXT, recipients=["a@example.org", "b@example.org", "c@example.org"])
        due = (await spool.get(id)).not_before
        [lease] = await spool.claim()
        await lease.mark_end_of_data()
        receipt = Receipt(receipt_for(lease, QUEUED, LATER, LATER).verdicts[:2])
        await refused(InvalidArgument, lambda: lease.settle(receipt, places=[0]))
        await lease.defer(receipt, due, places=[0, 1], counts=False)
        entry = await spool.get(id)
        assert (entry.state, entry.not_before, entry.attempts, entry.flagged) == (State.QUEUED, due, 0, False)
        assert [None if one is None else one.final for one in entry.results] == [True, False, None]
        [lease] = await spool.claim()
        assert [str(one.address) for one in lease.entry.pending] == ["b@example.org", "c@example.org"]
        one = Receipt(receipt_for(lease, NEVER, NEVER).verdicts[:1])
        await refused(InvalidArgument, lambda: lease.fail(one, places=[0]))
        await lease.fail(one, places=[2])
        entry = await spool.get(id)
        assert (entry.state, entry.attempts) == (State.FAILED, 1)
        assert [None if one is None else one.final for one in entry.results] == [True, False, True]

    async def test_an_attempt_that_does_not_count_leaves_the_decision_of_an_operator(
        self, spool: Spool
    ) -> None:
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        await lease.defer(receipt_for(lease, None), 0.0)
        await spool.requeue(id)
        [lease] = await spool.claim(marked=True)
        later = time.time() + 100
        await lease.defer(None, later, reason="paused", counts=False)
        entry = await spool.get(id)
        assert (entry.attempts, entry.flagged, entry.confirmed) == (0, True, True)
        assert (entry.not_before, entry.reason) == (later, "paused")
        [lease] = await spool.claim(now=later + 1)
        assert lease.entry.attempts == 0
        await lease.settle(receipt_for(lease, QUEUED))

    async def test_a_failed_job_is_kept(self, spool: Spool) -> None:
        id = await spool.put(TEXT, key="k")
        [lease] = await spool.claim()
        await lease.fail(receipt_for(lease, NEVER), reason="550 nobody")
        entry = await spool.get(id)
        assert (entry.state, entry.reason, entry.attempts) == (State.FAILED, "550 nobody", 1)
        assert await spool.claim(5) == []
        assert await spool.read(id) == TEXT

    async def test_a_released_job_is_as_it_was(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        before = await spool.get(id)
        [lease] = await spool.claim()
        await lease.release()
        assert await spool.get(id) == before
        [lease] = await spool.claim()
        assert lease.entry.attempts == 0
        await lease.mark_end_of_data()
        await lease.release()
        assert not (await spool.get(id)).flagged

    async def test_a_lease_ends_once(self, spool: Spool) -> None:
        await spool.put(TEXT)
        [lease] = await spool.claim()
        await lease.extend()
        await lease.defer(None, 0.0)
        receipt = receipt_for(lease, QUEUED)
        await refused(LeaseLost, lambda: lease.settle(receipt))
        await refused(LeaseLost, lambda: lease.defer(receipt, 0.0))
        await refused(LeaseLost, lambda: lease.fail(receipt))
        await refused(LeaseLost, lambda: lease.mark_end_of_data())
        await refused(LeaseLost, lambda: lease.release())
        await refused(LeaseLost, lambda: lease.extend())
        [again] = await spool.claim()
        assert again.token > lease.token
        await refused(LeaseLost, lambda: lease.settle(receipt))
        await again.settle(receipt)

    async def test_a_receipt_about_others_is_refused(self, spool: Spool) -> None:
        await spool.put(TEXT)
        [lease] = await spool.claim()
        wrong = Receipt(receipt_for(lease, QUEUED).verdicts * 2)
        await refused(InvalidArgument, lambda: lease.settle(wrong))
        await refused(InvalidArgument, lambda: lease.defer(wrong, 0.0))
        await lease.settle(receipt_for(lease, QUEUED))

    # --- dead workers ---

    async def test_a_dead_workers_job_is_queued_again(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        assert (await spool.recover()).requeued == ()
        self.abandon(spool, lease)
        recovery = await spool.recover()
        assert (recovery.requeued, recovery.flagged) == ((id,), ())
        [again] = await spool.claim()
        assert (again.entry.recoveries, again.entry.attempts, again.entry.flagged) == (1, 1, False)
        assert again.token > lease.token
        await refused(LeaseLost, lambda: lease.settle(receipt_for(lease, QUEUED)))
        await again.settle(receipt_for(again, QUEUED))

    async def test_a_worker_that_died_after_the_mark_leaves_a_flag(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        await lease.mark_end_of_data()
        self.abandon(spool, lease)
        assert (await spool.recover()).flagged == (id,)
        [again] = await spool.claim()
        assert again.entry.flagged
        # The known outcome of another attempt does not tell the outcome of the first.
        await again.defer(receipt_for(again, LATER), 0.0)
        assert (await spool.get(id)).flagged
        [again] = await spool.claim()
        await again.mark_end_of_data()
        await again.release()
        assert (await spool.get(id)).flagged

    async def test_an_unknown_outcome_leaves_a_flag(self, spool: Spool) -> None:
        id = await spool.put(TEXT, recipients=["a@example.org", "b@example.org"])
        [lease] = await spool.claim()
        await lease.mark_end_of_data()
        await lease.defer(receipt_for(lease, QUEUED, None), 0.0)
        entry = await spool.get(id)
        assert (entry.flagged, entry.confirmed) == (True, False)
        [lease] = await spool.claim()
        assert lease.entry.flagged
        await lease.fail(receipt_for(lease, None), retry=lambda verdict: False)
        assert not (await spool.get(id)).confirmed
        await spool.requeue(id)
        entry = await spool.get(id)
        assert (entry.flagged, entry.confirmed) == (True, True)
        # An operator's decision holds for one attempt, and a released job was no attempt.
        [lease] = await spool.claim(marked=True)
        await lease.release()
        entry = await spool.get(id)
        assert (entry.flagged, entry.confirmed) == (True, True)
        [lease] = await spool.claim()
        await lease.defer(receipt_for(lease, LATER), 0.0)
        entry = await spool.get(id)
        assert (entry.flagged, entry.confirmed) == (True, False)

    async def test_a_mark_with_the_claim_is_a_mark(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        [lease] = await spool.claim(marked=True)
        assert not lease.entry.flagged
        self.abandon(spool, lease)
        assert (await spool.recover()).flagged == (id,)
        [lease] = await spool.claim()
        assert lease.entry.flagged

    async def test_a_mark_with_the_claim_ends_with_the_result(self, spool: Spool) -> None:
        await spool.put(TEXT)
        [lease] = await spool.claim(marked=True)
        await lease.defer(receipt_for(lease, LATER), 0.0)
        [lease] = await spool.claim(marked=True)
        assert not lease.entry.flagged
        await lease.release()
        [lease] = await spool.claim()
        assert (lease.entry.flagged, lease.entry.attempts) == (False, 1)

    async def test_a_poison_message_fails(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        for _ in range(2):
            [lease] = await spool.claim()
            self.abandon(spool, lease)
            assert (await spool.recover()).requeued == (id,)
        [lease] = await spool.claim()
        self.abandon(spool, lease)
        assert (await spool.recover()).poisoned == (id,)
        entry = await spool.get(id)
        assert (entry.state, entry.reason, entry.recoveries) == (State.FAILED, "poison", 3)
