"""What every spool must do, as tests that any spool runs.

    class TestMySpool(SpoolContract):
        @pytest.fixture
        async def spool(self):
            async with MySpool() as spool:
                yield spool

        def abandon(self, spool, lease):
            ...  # act as if the worker that holds the lease had died

The tests are coroutines; pytest needs a plugin that runs them (pytest-asyncio in its `auto` mode, or anyio).
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from datetime import datetime

from ..errors import (
    Busy,
    ExtensionMissing,
    InvalidArgument,
    LeaseLost,
    MissingRecipient,
    MissingSender,
    NoSuchJob,
    UsageError,
)
from ..mail.coerce import Raw
from ..message import Message
from ..model.content import Content
from ..model.dsn import DSN, Notify
from ..model.envelope import Envelope, Kind, Recipient
from ..spool.contract import Spool
from ..spool.entry import Entry, State
from .lease_contract import LATER, NEVER, QUEUED, TEXT, LeaseContract, receipt_for, refused

__all__ = ["LATER", "NEVER", "QUEUED", "TEXT", "SpoolContract", "receipt_for"]


class SpoolContract(LeaseContract):
    """Tests of a backend: derive from it, with a fixture `spool` and an `abandon`."""

    # --- put ---

    async def test_what_was_put_is_claimed_with_its_envelope_and_its_bytes(self, spool: Spool) -> None:
        wishes = DSN(notify=Notify.SUCCESS | Notify.DELAY, orcpt="carla@example.org")
        bcc = Recipient("carl@example.org", Kind.BCC, dsn=wishes)
        id = await spool.put(TEXT, sender="return@example.com", recipients=["bob@example.org", bcc])
        [lease] = await spool.claim(5)
        mail = lease.mail()
        assert mail.envelope() == Envelope("return@example.com", [Recipient("bob@example.org"), bcc])
        assert [one.kind for one in mail.envelope().recipients] == [Kind.TO, Kind.BCC]
        content = mail.content()
        assert content.size == len(TEXT)
        assert (content.message_id, content.eightbit, content.utf8) == ("<1@example.com>", False, False)
        assert await spool.read(id) == TEXT
        entry = lease.entry
        assert (entry.id, entry.state, entry.size, entry.attempts) == (id, State.SENDING, len(TEXT), 0)
        assert entry.message_id == "<1@example.com>"

    async def test_addresses_that_no_rfc_allows_are_claimed_as_they_were_put(self, spool: Spool) -> None:
        dotted = Recipient("a..b@example.org", lenient=True)
        host = Recipient("ops@mail_host.example", Kind.BCC, lenient=True)
        await spool.put(TEXT, sender=dotted.address, recipients=[dotted, host, '"a..b"@example.com'])
        [lease] = await spool.claim(5)
        envelope = lease.mail().envelope()
        assert envelope == Envelope(dotted.address, [dotted, host, '"a..b"@example.com'])
        sent = [one.address.wire(utf8=False) for one in envelope.recipients]
        assert sent == [b"a..b@example.org", b"ops@mail_host.example", b'"a..b"@example.com']

    async def test_a_tag_stays_with_its_job(self, spool: Spool) -> None:
        tagged, plain = await spool.put(TEXT, tag="newsletter"), await spool.put(TEXT)
        assert [(await spool.get(id)).tag for id in (tagged, plain)] == ["newsletter", None]
        assert {lease.entry.tag for lease in await spool.claim(2)} == {"newsletter", None}
        for wrong in ("", "two words", "é", "x" * 65, 7):
            await refused(InvalidArgument, lambda tag=wrong: spool.put(TEXT, tag=tag))  # type: ignore[misc]

    async def test_the_envelope_may_come_from_the_header(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        assert (await spool.get(id)).envelope == Envelope("ann@example.com", ["bob@example.org"])

    async def test_a_message_may_be_read_from_a_stream(self, spool: Spool) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield TEXT[:30]
            yield TEXT[30:]

        there = ["carl@example.org"]
        for source in (io.BytesIO(TEXT), chunks()):
            id = await spool.put(source, recipients=there)
            entry = await spool.get(id)
            assert entry.envelope == Envelope("ann@example.com", there)
            assert await spool.read(id) == TEXT
        for raw in (Raw(io.BytesIO(TEXT)), Raw(chunks()), Raw(TEXT)):
            id = await spool.put(raw._replace(recipients=there))
            assert (await spool.get(id)).envelope == Envelope("ann@example.com", there)
            assert await spool.read(id) == TEXT

    async def test_a_stream_is_closed_on_request(self, spool: Spool) -> None:
        for close in (False, True):
            stream = io.BytesIO(TEXT)
            await spool.put(Raw(stream, close=close))
            assert stream.closed is close

    async def test_a_message_with_files_is_read_once(self, spool: Spool) -> None:
        message = Message(sender="ann@example.com", to="bob@example.org", text="see below")
        message.attach(io.BytesIO(b"x" * 1000), filename="x.bin")
        id = await spool.put(message)
        assert b"eHh4" in await spool.read(id)
        [lease] = await spool.claim()
        assert not lease.mail().content().sources

    async def test_the_null_return_path_is_kept(self, spool: Spool) -> None:
        id = await spool.put(TEXT, sender="<>", recipients=["bob@example.org"])
        assert (await spool.get(id)).envelope.sender is None

    async def test_a_message_that_needs_smtputf8_says_so(self, spool: Spool) -> None:
        id = await spool.put(TEXT, sender="ann@example.com", recipients=["bøb@example.org"])
        entry = await spool.get(id)
        assert entry.needs_utf8
        assert entry.envelope.recipients[0].address.local == "bøb"
        id = await spool.put("To: <bøb@example.org>\r\n\r\n".encode(), sender="a@b", recipients=["c@d"])
        assert (await spool.get(id)).needs_utf8
        assert not (await spool.get(await spool.put(TEXT))).needs_utf8

    async def test_a_header_that_needs_smtputf8_is_written_with_it(self, spool: Spool) -> None:
        class Wide:
            def envelope(self) -> Envelope:
                return Envelope("ann@example.com", ["bob@example.org"])

            def content(self, *, eightbit: bool = False, utf8: bool = False, binary: bool = False) -> Content:
                if not utf8:
                    raise ExtensionMissing("it cannot be written without")
                return Content.of_bytes("To: bøb@example.org\r\n\r\n".encode())

        id = await spool.put(Wide())
        assert (await spool.get(id)).needs_utf8
        [lease] = await spool.claim()
        assert lease.mail().content().utf8

    async def test_any_bytes_are_kept(self, spool: Spool) -> None:
        body = TEXT + b"\r\n.\r\n\r\nSPOOL1 9\r\n" + bytes(range(256)).replace(b"\n", b"").replace(b"\r", b"")
        body = body + b"\r\n"
        id = await spool.put(body)
        assert await spool.read(id) == body
        [lease] = await spool.claim()
        content = lease.mail().content()
        assert content.eightbit and content.binary

    async def test_put_refuses_what_cannot_be_sent(self, spool: Spool) -> None:
        await refused(MissingSender, lambda: spool.put(b"To: bob@example.org\r\n\r\n"))
        await refused(MissingRecipient, lambda: spool.put(b"From: ann@example.com\r\n\r\n"))
        await refused(InvalidArgument, lambda: spool.put(42))
        await refused(InvalidArgument, lambda: spool.put(TEXT, key=""))
        await refused(InvalidArgument, lambda: spool.put(TEXT, not_before=datetime(2030, 1, 1)))
        await refused(InvalidArgument, lambda: spool.put(TEXT, expires=float("nan")))
        assert await self._all(spool) == []

    async def test_the_same_key_is_the_same_job(self, spool: Spool) -> None:
        first = await spool.put(TEXT, key="order 7")
        assert await spool.put(TEXT + b"other\r\n", key="order 7") == first
        assert await spool.put(TEXT, key="../order 8\n") != first
        assert await spool.read(first) == TEXT
        assert len(await self._all(spool)) == 2

    async def test_a_key_is_known_in_every_state(self, spool: Spool) -> None:
        id = await spool.put(TEXT, key="k")
        [lease] = await spool.claim()
        assert await spool.put(TEXT, key="k") == id
        await lease.fail(receipt_for(lease, NEVER))
        assert await spool.put(TEXT, key="k") == id
        await spool.requeue(id)
        [lease] = await spool.claim()
        await lease.settle(receipt_for(lease, QUEUED), keep=True)
        assert await spool.put(TEXT, key="k") == id
        assert len(await self._all(spool)) == 1

    async def test_a_key_is_remembered_when_its_job_is_gone(self, spool: Spool) -> None:
        for key, remove in (("delivered", False), ("removed", True)):
            id = await spool.put(TEXT, key=key)
            if remove:
                await spool.remove(id)
            else:
                [lease] = await spool.claim()
                await lease.settle(receipt_for(lease, QUEUED))
            await refused(NoSuchJob, lambda id=id: spool.get(id))  # type: ignore[misc]
            await refused(NoSuchJob, lambda id=id: spool.remove(id))  # type: ignore[misc]
            assert await spool.put(TEXT, key=key) == id
            assert await self._all(spool) == [] and await spool.claim(5) == []
            await spool.recover()
            assert await spool.put(TEXT, key=key) == id
        assert await self._all(spool) == []

    async def test_a_key_is_forgotten_after_its_retention(self, spool: Spool) -> None:
        id = await spool.put(TEXT, key="k")
        await spool.remove(id)
        spool.key_retention = 0.0
        assert await spool.put(TEXT, key="k") == id
        assert len(await self._all(spool)) == 1
        # The retention of the new job's key starts again.
        [lease] = await spool.claim()
        await lease.settle(receipt_for(lease, QUEUED))
        spool.key_retention = 3600.0
        assert await spool.put(TEXT, key="k") == id
        assert await self._all(spool) == []

    # --- operators ---

    async def test_a_held_job_is_not_claimed(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        await spool.hold(id)
        assert (await spool.get(id)).held
        assert await spool.claim(5) == []
        assert (await spool.statistics()).held == 1
        await spool.release(id)
        assert [lease.entry.id for lease in await spool.claim(5)] == [id]

    async def test_a_failed_job_can_be_requeued(self, spool: Spool) -> None:
        id = await spool.put(TEXT, recipients=["a@example.org", "b@example.org"], expires=2.0)
        [lease] = await spool.claim()
        await lease.fail(receipt_for(lease, QUEUED, NEVER))
        await spool.requeue(id, expires=3.0)
        [lease] = await spool.claim()
        assert [str(one.address) for one in lease.entry.pending] == ["b@example.org"]
        assert (lease.entry.attempts, lease.entry.expires) == (0, 3.0)
        await lease.settle(receipt_for(lease, QUEUED), keep=True)
        await refused(UsageError, lambda: spool.requeue(id))

    async def test_requeue_makes_a_deferred_job_due(self, spool: Spool) -> None:
        id = await spool.put(TEXT, not_before=time.time() + 1000)
        await spool.requeue(id)
        assert len(await spool.claim(5)) == 1

    async def test_a_removed_job_is_gone(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        await spool.remove(id)
        assert await spool.claim(5) == []
        for call in (spool.get, spool.read, spool.remove, spool.hold, spool.release, spool.requeue):
            await refused(NoSuchJob, lambda call=call: call(id))  # type: ignore[misc]

    async def test_a_job_being_sent_is_left_alone(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        for call in (spool.remove, spool.hold, spool.release, spool.requeue):
            await refused(Busy, lambda call=call: call(id))  # type: ignore[misc]
        await lease.settle(receipt_for(lease, QUEUED))

    async def test_only_queued_jobs_can_be_held(self, spool: Spool) -> None:
        id = await spool.put(TEXT)
        [lease] = await spool.claim()
        await lease.fail(None)
        await refused(UsageError, lambda: spool.hold(id))

    async def test_invalid_ids_are_unknown(self, spool: Spool) -> None:
        for id in ("../x", "", ".", "x" * 300, "a\0b", "a/b", "ä"):
            await refused(NoSuchJob, lambda id=id: spool.get(id))  # type: ignore[misc]
            await refused(NoSuchJob, lambda id=id: spool.remove(id))  # type: ignore[misc]

    # --- reading ---

    async def test_jobs_are_listed_by_state(self, spool: Spool) -> None:
        ids = [await spool.put(TEXT) for _ in range(3)]
        [lease] = await spool.claim()
        await lease.fail(None)
        [busy] = await spool.claim()
        queued = {entry.id for entry in await self._all(spool, State.QUEUED)}
        assert queued == set(ids) - {lease.entry.id, busy.entry.id}
        assert [entry.id for entry in await self._all(spool, State.FAILED)] == [lease.entry.id]
        assert [entry.id for entry in await self._all(spool, State.SENDING)] == [busy.entry.id]
        assert {entry.id for entry in await self._all(spool)} == set(ids)

    async def test_a_job_of_another_spool_keeps_its_history(self, spool: Spool) -> None:
        from .memory import MemorySpool

        async with MemorySpool() as other:
            id = await other.put(TEXT, recipients=["a@example.org", "b@example.org"], tag="news", key="k")
            [lease] = await other.claim()
            due = float(int(time.time())) - 100.0
            await lease.defer(receipt_for(lease, QUEUED, None), due, reason="451 later")
            entry = await other.get(id)
            for _ in range(2):
                assert await spool.adopt(entry, await other.read(id)) == id
        found = await spool.get(id)
        assert (found.attempts, found.flagged, found.reason, found.tag) == (1, True, "451 later", "news")
        assert (found.results, found.created, found.not_before) == (entry.results, entry.created, due)
        [lease] = await spool.claim(5)
        assert [str(one.address) for one in lease.mail().envelope().recipients] == ["b@example.org"]
        assert lease.mail().content().size == len(TEXT)
        await lease.settle(receipt_for(lease, QUEUED))
        # It is remembered like a key.
        await spool.adopt(entry, TEXT)
        await refused(NoSuchJob, lambda: spool.get(id))

    async def test_a_held_job_of_another_spool_stays_held(self, spool: Spool) -> None:
        from .memory import MemorySpool

        async with MemorySpool() as other:
            id = await other.put(TEXT)
            await other.hold(id)
            await spool.adopt(await other.get(id), TEXT)
        assert (await spool.get(id)).held and await spool.claim(5) == []
        assert (await spool.statistics()).held == 1
        await spool.release(id)
        assert [lease.entry.id for lease in await spool.claim(5)] == [id]

    async def test_holders_are_told_if_they_are_known(self, spool: Spool) -> None:
        assert list(await spool.holders()) == []
        await spool.put(TEXT)
        [lease] = await spool.claim()
        assert sum(holder.leases for holder in await spool.holders()) in (0, 1)
        await lease.release()
        assert list(await spool.holders()) == []

    async def test_statistics_count(self, spool: Spool) -> None:
        before = time.time() - 1
        assert await spool.statistics() == (0, 0, 0, 0, 0, 0, None, None)
        for _ in range(4):
            await spool.put(TEXT)
        first, second, _ = await spool.claim(3)
        await first.fail(None)
        await second.settle(receipt_for(second, QUEUED), keep=True)
        statistics = await spool.statistics()
        assert statistics[:4] == (1, 1, 1, 1)
        assert statistics.oldest is not None and statistics.oldest > before
        assert statistics.next_due is not None and statistics.next_due > before

    async def test_waiting_ends_when_a_job_is_due(self, spool: Spool) -> None:
        assert not await spool.wait(0.01)
        await spool.put(TEXT, not_before=time.time() + 0.05)
        assert await spool.wait(10)
        await spool.put(TEXT)
        assert await spool.wait(10)

    async def test_a_cancelled_wait_is_cancelled_whatever_happens_with_it(self, spool: Spool) -> None:
        for turns in range(20):
            waiting = asyncio.ensure_future(spool.wait(60))
            await asyncio.sleep(0)
            await spool.put(TEXT, not_before=time.time() + 1000)
            for _ in range(turns % 4):
                await asyncio.sleep(0)
            # The job may be noticed before, or together with the cancellation: a wait that was cancelled ends as such.
            cancelled = waiting.cancel()
            await asyncio.wait({waiting}, timeout=10)
            assert waiting.cancelled() == cancelled

    async def test_closing_releases_what_is_leased(self, spool: Spool) -> None:
        await spool.put(TEXT)
        [lease] = await spool.claim()
        await spool.close()
        await refused(LeaseLost, lambda: lease.settle(None))
        await refused(UsageError, lambda: spool.put(TEXT))
        await refused(UsageError, lambda: spool.claim())
        await spool.close()

    async def _all(self, spool: Spool, state: State | None = None) -> list[Entry]:
        return [entry async for entry in spool.list(state)]
