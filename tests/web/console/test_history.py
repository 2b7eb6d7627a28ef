"""history.py: what a processor has told of each job."""

from smtp_async import Message, QueueProcessor, SMTPClient
from smtp_async.events import JobQueued, JobStarted, QueuePaused, QueueResumed
from smtp_async.hooks import Observed
from smtp_async.testing import MemorySpool, ScriptedServer, reply
from smtp_async.web.console.history import MOST_EVENTS, MOST_JOBS, MOST_RECENT, History


class Teller(Observed):
    async def tell(self, *events):
        await self._hooks.tell(events)


def letter(to):
    return Message(sender="ann@example.com", to=to, subject="x", text="x")


async def test_the_attempts_of_a_processor():
    changes = []
    async with ScriptedServer() as server, SMTPClient.from_url(server.url) as client:
        server.on("RCPT", reply(450, "4.2.1 come back \x1b[2J"), match="later")
        server.on("RCPT", reply(550, "5.1.1 no such user"), match="bad")
        spool = MemorySpool()
        processor = QueueProcessor(spool, client)
        history = History(processor, lambda: changes.append(1), clock=lambda: 1000.0)
        good, later, bad = [
            await processor.put(letter(f"{one}@example.org")) for one in ("good", "later", "bad")
        ]
        await processor.run_once()
    assert [one["what"] for one in history.of(good)] == ["queued", "started", "sent"]
    assert [one["what"] for one in history.of(later)] == ["queued", "started", "deferred"]
    assert [one["what"] for one in history.of(bad)] == ["queued", "started", "failed"]
    assert history.of(good)[2]["text"] == "250 2.0.0 Ok: queued" and history.of(good)[2]["at"] == 1000.0
    assert history.of(later)[2]["until"] > 1000 and "\\x1b[2J" in history.of(later)[2]["text"]
    assert "550 5.1.1" in history.of(bad)[2]["text"]
    recent = history.recent()
    assert {one["id"] for one in recent} == {good, later, bad} and len(changes) == 9
    assert [one["number"] for one in recent] == sorted((one["number"] for one in recent), reverse=True)
    assert "started" not in {one["what"] for one in recent}


async def test_pauses_are_of_no_job():
    teller = Teller()
    history = History(teller, lambda: None)
    await teller.tell(
        QueuePaused(error=ValueError("down"), until=5.0), QueueResumed(), JobQueued(id="a", recovered=True)
    )
    recovered, resumed, paused = history.recent()
    assert (paused["what"], paused["text"], paused["until"], paused["id"]) == ("paused", "down", 5.0, "")
    assert resumed["what"] == "resumed" and recovered["what"] == "recovered" and recovered["text"]


async def test_memory_is_bounded():
    teller = Teller()
    history = History(teller, lambda: None)
    await teller.tell(*[JobQueued(id=str(number)) for number in range(MOST_JOBS + 5)])
    await teller.tell(
        *[JobStarted(id="busy", attempt=number, recipients=()) for number in range(MOST_EVENTS + 5)]
    )
    assert history.of("0") == [] and len(history.of("busy")) == MOST_EVENTS
    assert history.of(str(MOST_JOBS)) and len(history.recent()) == MOST_RECENT
