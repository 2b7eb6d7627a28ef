"""jobs.py: jobs in a list, and one job with its recipients."""

from smtp_async import Entry, Envelope, Message, QueueProcessor, SMTPClient
from smtp_async.testing import MemorySpool, ScriptedServer, reply
from smtp_async.web.console.jobs import JobList, Row, describe, state_of


def letter(*people, sender="ann@example.com"):
    return Message(sender=sender, to=[*people], subject="x", text="x")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


async def spool_with_all_states():
    spool = MemorySpool()
    async with ScriptedServer() as server, SMTPClient.from_url(server.url) as client:
        server.on("RCPT", reply(450, "4.2.1 come back"), match="later")
        server.on("RCPT", reply(550, "5.1.1 no such user"), match="bad")
        people = (("good@example.org",), ("later@example.org",), ("bad@example.org", "ok@example.org"))
        ids = [await spool.put(letter(*one)) for one in people]
        await QueueProcessor(spool, client, keep_sent=True).run_once()
    held = await spool.put(letter(*[f"u{number}@example.org" for number in range(9)]))
    await spool.hold(held)
    return spool, [*ids, held]


async def test_states_words_and_order():
    spool, ids = await spool_with_all_states()
    jobs = JobList(spool)

    async def find(state="", words="", oldest_first=True):
        return [row.id for row in await jobs.find(state=state, words=words, oldest_first=oldest_first)]

    assert await find() == ids and await find(oldest_first=False) == ids[::-1]
    for state, id in zip(("sent", "queued", "failed", "held"), ids, strict=True):
        assert await find(state) == [id]
    assert await find(words="NO SUCH user") == [ids[2]] and await find(words="ann good") == [ids[0]]
    assert await find(words="nothing") == [] and await find("nonsense") == []


async def test_a_row_in_short():
    spool, ids = await spool_with_all_states()
    rows = {row.id: row for row in await JobList(spool).find(state="", words="", oldest_first=True)}
    held, failed = rows[ids[3]], rows[ids[2]]
    assert held.recipients == "u0@example.org, u1@example.org, u2@example.org and 6 more"
    assert failed.reply.startswith(("550 5.1.1", "250 ")) and failed.attempts == 1 and failed.reason
    assert isinstance(failed, Row)


async def test_the_spool_is_read_now_and_then_and_after_a_change():
    spool, clock = MemorySpool(), Clock()
    jobs = JobList(spool, monotonic=clock)
    await spool.put(letter("a@example.org"))

    async def count():
        return len(await jobs.find(state="", words="", oldest_first=True))

    assert await count() == 1
    await spool.put(letter("b@example.org"))
    assert await count() == 1
    clock.now += 1.5
    assert await count() == 2
    await spool.put(letter("c@example.org"))
    jobs.refresh()
    assert await count() == 3


async def test_a_list_has_a_bound():
    spool = MemorySpool()
    for number in range(5):
        await spool.put(letter(f"u{number}@example.org"))
    jobs = JobList(spool, most=3)
    assert len(await jobs.find(state="", words="", oldest_first=True)) == 3 and not jobs.complete


async def test_all_about_one_job():
    spool, ids = await spool_with_all_states()
    told = describe(await spool.get(ids[2]))
    assert told["state"] == "failed" and told["sender"] == "ann@example.com" and told["attempts"] == 1
    bad, good = told["recipients"]
    assert (bad["address"], bad["outcome"], bad["final"]) == ("bad@example.org", "refused", True)
    assert bad["reply"] == "550 5.1.1 no such user" and bad["at"] and good["outcome"] == "accepted"
    later = describe(await spool.get(ids[1]))["recipients"][0]
    assert later["outcome"] == "refused" and not later["final"]
    pending = describe(await spool.get(ids[3]))
    assert pending["state"] == state_of(await spool.get(ids[3])) == "held"
    assert pending["recipients"][0] == {
        "address": "u0@example.org", "outcome": "pending", "final": False, "at": None, "reply": ""
    }  # fmt: skip


async def test_the_null_sender_is_shown():
    envelope = Envelope(None, ["bob@example.org"])
    assert describe(Entry(id="a", envelope=envelope, created=1.0, size=1))["sender"] == "<>"


async def test_an_old_answer_says_when_the_spool_is_read_again():
    clock = Clock()
    jobs = JobList(MemorySpool(), monotonic=clock)

    async def renewed_in():
        await jobs.find(state="", words="", oldest_first=True)
        return jobs.renewed_in

    assert await renewed_in() == 0.0
    clock.now += 0.25
    assert await renewed_in() == 0.75
    clock.now += 0.75
    assert await renewed_in() == 0.0
