"""A processor on a spool directory: from the message that was put to the bytes on the wire, over restarts."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from smtp_async import Credentials, Message, NotSent, Outcome
from smtp_async.events import JobFailed, JobUnreadable
from smtp_async.processor import QueueProcessor, ReportOptions, RetryPolicy, parse_report
from smtp_async.spool import serialize
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.entry import State
from smtp_async.testing import ScriptedServer, close, reply, swallow
from smtp_async.testing.contracts import TEXT
from tests.lab import client_of, every_loop, mail, speaking, until
from tests.processor.office import Clock, Postman, dead

pytestmark = pytest.mark.usefixtures("no_leaks")

#: Waits of an hour each.
HOURLY = RetryPolicy(first=3600.0, factor=1.0, jitter=False)
CANARY = "correct-horse-battery"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    return path


async def look(path: Path, client: Any, **options: Any) -> Any:
    """One look at the queue by a processor, and a spool, that know nothing of those before."""
    options.setdefault("retry", HOURLY)
    async with DirectorySpool(path) as spool:
        return await QueueProcessor(spool, client, **options).run_once()


async def put(path: Path, message: Any, **options: Any) -> str:
    async with DirectorySpool(path) as spool:
        return await spool.put(message, **options)


async def entry_of(path: Path, id: str) -> Any:
    async with DirectorySpool(path) as spool:
        return await spool.get(id)


def jobs(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir() if file.is_file())


def everything(path: Path) -> bytes:
    """All that is written anywhere in a spool, names included."""
    return b"\n".join(
        file.name.encode() + b"\n" + (file.read_bytes() if file.is_file() else b"")
        for file in path.rglob("*")
    )


# --- what was put is what arrives ----------------------------------------------------------------------------


@every_loop
async def test_what_serialize_gave_is_delivered(path: Path) -> None:
    message = mail(1, text="Grüße\n" * 20_000, bcc="eve@example.net")
    text = await serialize(message, key="order 7")
    id = text.split('"id":"', 1)[1].split('"', 1)[0]
    (path / f"{id}.queued").write_text(text, "utf-8", "surrogateescape", newline="")
    # The same key is the same job, whoever made it.
    assert await put(path, TEXT, key="order 7") == id
    async with speaking() as server, client_of(server) as client:
        report = await look(path, client)
    assert report.sent == (id,) and jobs(path) == []
    (received,) = server.messages
    assert received.data == text.split("\n", 2)[2].encode("utf-8", "surrogateescape")
    assert received.rcpt_tos == ["user1@example.org", "eve@example.net"]


async def test_bcc_is_on_the_wire_in_the_envelope_only(path: Path) -> None:
    await put(path, mail(1, bcc="eve@example.net"))
    await put(path, b"Bcc: mallory@example.net\r\n" + TEXT)
    async with speaking() as server, client_of(server) as client:
        assert len((await look(path, client)).sent) == 2
    assert sorted(one for received in server.messages for one in received.rcpt_tos) == [
        *("bob@example.org", "eve@example.net", "mallory@example.net", "user1@example.org")
    ]
    for received in server.messages:
        assert b"bcc" not in received.data.lower()
        assert b"eve" not in received.data and b"mallory" not in received.data


async def test_bcc_of_whole_messages_is_in_no_message_at_rest(path: Path) -> None:
    id = await put(path, b"Bcc: mallory@example.net\r\n" + TEXT)
    body = (path / f"{id}.queued").read_bytes().split(b"\n", 2)[2]
    assert body == TEXT


@pytest.mark.parametrize("attempts", [None, 1])
@pytest.mark.parametrize("point", ["AUTH", "MAIL", "RCPT", "."])
async def test_no_file_holds_a_credential(path: Path, point: str, attempts: int | None) -> None:
    """Also where a server repeats what it was told at the login, and where that fails the message."""
    blob = base64.b64encode(f"\0ann\0{CANARY}".encode()).decode()
    said = f"5.7.8 not with {CANARY}, {blob}" if point == "AUTH" else "4.3.0 later"
    login = Credentials(username="ann", password=CANARY, mechanisms=("PLAIN",), allow_cleartext=True)
    await put(path, mail(1), key="k")
    async with ScriptedServer(users={"ann": CANARY}, require_auth=True) as server:
        server.on(point, reply(535 if point == "AUTH" else 451, said))
        async with client_of(server, credentials=login) as client:
            report = await look(path, client, retry=RetryPolicy(attempts=attempts), bounce=ReportOptions())
        verbs = [line.verb for line in server.commands]
    assert "AUTH" in verbs and (point == "AUTH" or "MAIL" in verbs)
    assert not report and not report.sent and len(report.failed) == (attempts or 0)
    found = everything(path)
    assert CANARY.encode() not in found and blob.encode() not in found


# --- over restarts -------------------------------------------------------------------------------------------


async def test_only_the_rest_is_tried_again_by_the_next_processor(path: Path) -> None:
    clock = Clock()
    id = await put(path, mail(1, to="a@x.test, b@x.test, c@x.test, d@x.test"))
    async with speaking() as server, client_of(server) as client:
        server.on("RCPT", reply(451, "4.2.2 full"), match="b@", nth=range(1, 3))
        server.on("RCPT", reply(550, "5.1.1 nobody"), match="c@")
        first = await look(path, client, clock=clock)
        assert [one.id for one in first.deferred] == [id]
        assert (await look(path, client, clock=clock)).tried == 0
        clock.move(3600)
        second = await look(path, client, clock=clock)
        assert [one.id for one in second.deferred] == [id]
        clock.move(3600)
        third = await look(path, client, clock=clock)
    assert [received.rcpt_tos for received in server.messages] == [["a@x.test", "d@x.test"], ["b@x.test"]]
    tried = [line.line for line in server.commands if line.verb == "RCPT"]
    assert sum(b"c@x.test" in one for one in tried) == 1
    # Somebody never got it, so it is kept for a person.
    assert [one.id for one in third.failed] == [id]
    entry = await entry_of(path, id)
    assert [str(who.address) for who, _ in entry.failed] == ["c@x.test"] and entry.pending == ()


async def test_who_has_got_it_is_not_asked_again_though_the_job_was_requeued(path: Path) -> None:
    id = await put(path, mail(1, to="a@x.test, c@x.test"))
    async with speaking() as server, client_of(server) as client:
        server.on("RCPT", reply(550, "5.1.1 nobody"), match="c@", nth=1)
        await look(path, client)
        async with DirectorySpool(path) as spool:
            await spool.requeue(id)
        assert (await look(path, client)).sent == (id,)
    assert [received.rcpt_tos for received in server.messages] == [["a@x.test"], ["c@x.test"]]


async def test_an_expiry_is_kept_over_restarts(path: Path) -> None:
    clock = Clock()
    id = await put(path, mail(1), expires=clock() + 1800)
    client = Postman("451 4.3.0 later")
    assert [one.not_before for one in (await look(path, client, clock=clock)).deferred] == [clock() + 1800]
    clock.move(1800)
    report = await look(path, client, clock=clock)
    assert [one.id for one in report.failed] == [id] and "in time" in report.failed[0].reason
    assert (await entry_of(path, id)).state is State.FAILED


async def test_what_expired_while_nobody_looked_is_tried_once(path: Path) -> None:
    id = await put(path, mail(1), expires=time.time() + 60)
    clock = Clock()
    clock.move(86400)
    client = Postman()
    assert (await look(path, client, clock=clock)).sent == (id,)


async def test_a_key_is_known_while_its_job_is_sent_and_after(path: Path) -> None:
    id = await put(path, mail(1), key="k")
    seen: dict[str, str] = {}

    async def while_sending(_: Any) -> str:
        seen["sending"] = await put(path, mail(2), key="k")
        assert jobs(path) == [f"{id}.sending"]
        return "550 5.1.1 never"

    await look(path, Postman(while_sending))
    seen["failed"] = await put(path, mail(2), key="k")
    assert jobs(path) == [f"{id}.failed"]
    async with DirectorySpool(path) as spool:
        await spool.requeue(id)
    await look(path, Postman(), keep_sent=True)
    seen["sent"] = await put(path, mail(2), key="k")
    assert jobs(path) == [f"{id}.sent"]
    assert seen == dict.fromkeys(("sending", "failed", "sent"), id)
    async with DirectorySpool(path) as spool:
        await spool.remove(id)
    assert await put(path, mail(2), key="k") == id
    assert jobs(path) == []


# --- a worker that dies --------------------------------------------------------------------------------------

#: Claims a job, marks it if it is told so, says so, and waits to be killed.
WORKER = """
import asyncio, sys
from smtp_async.spool.directory.spool import DirectorySpool
async def main():
    async with DirectorySpool(sys.argv[1]) as spool:
        (lease,) = await spool.claim()
        if sys.argv[2] == "marked":
            await lease.mark_end_of_data()
        print("ready", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def die_with_it(path: Path, how: str) -> None:
    """A worker of another process claims what is due, and is killed."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), how], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    with worker.stdout:
        assert worker.stdout.readline() == "ready\n"
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)


@pytest.mark.parametrize(("how", "sent"), [("marked", 0), ("unmarked", 1)])
async def test_on_unknown_hold_keeps_what_a_killed_worker_may_have_sent(
    path: Path, how: str, sent: int
) -> None:
    id = await put(path, mail(1))
    await asyncio.to_thread(die_with_it, path, how)
    assert jobs(path) == [f"{id}.sending"]
    client = Postman()
    report = await look(path, client, on_unknown="hold")
    assert (len(client.tried), len(report.sent)) == (sent, sent)
    if not sent:
        assert (await entry_of(path, id)).reason == "unknown"
        assert jobs(path) == [f"{id}.failed"]


async def test_the_third_killed_worker_is_the_last(path: Path) -> None:
    id = await put(path, mail(1))
    other = await put(path, mail(2), not_before=time.time() + 1000)
    for _ in range(3):
        await asyncio.to_thread(die_with_it, path, "unmarked")
        async with DirectorySpool(path) as spool:
            await spool.recover()
    assert jobs(path) == sorted([f"{id}.failed", f"{other}.queued"])
    entry = await entry_of(path, id)
    assert (entry.reason, entry.recoveries) == ("poison", 3)


async def test_a_lease_is_lost_when_another_process_took_the_job_back(path: Path) -> None:
    """The lock of a living worker cannot be taken; should its file be another's all the same, its end is refused."""
    await put(path, mail(1))
    async with DirectorySpool(path) as one, DirectorySpool(path) as other:
        (lease,) = await one.claim()
        assert not any(await other.recover())
        assert await other.claim() == []
        # What the kernel does when a process dies; here its task lives on.
        one._claims.forget(lease._locked)  # type: ignore[attr-defined]
        assert len((await other.recover()).requeued) == 1
        (again,) = await other.claim()
        assert again.token > lease.token
        client = Postman()
        with pytest.raises(NotSent):
            await client.send(again.mail(), options=_behind(lease), deadline=1.0)
        await again.settle(None)
    assert client.left == [] and jobs(path) == []


def _behind(lease: Any) -> Any:
    return type("Options", (), {"before_end_of_data": staticmethod(lease.mark_end_of_data)})


# --- the wire --------------------------------------------------------------------------------------------------


async def test_a_connection_lost_after_the_end_is_unknown_and_sent_again(path: Path) -> None:
    clock = Clock()
    id = await put(path, mail(1))
    async with speaking() as server, client_of(server) as client:
        server.on(".", swallow(), close(), nth=1)
        first = await look(path, client, clock=clock)
        assert [one.id for one in first.deferred] == [id]
        entry = await entry_of(path, id)
        assert entry.results[0].outcome is Outcome.UNKNOWN and entry.flagged
        clock.move(3600)
        assert (await look(path, client, clock=clock)).sent == (id,)
    bodies = {received.data for received in server.messages}
    assert len(bodies) == 1, "every try is the same message"


async def test_nothing_is_told_to_nobody(path: Path) -> None:
    """A message without a return path fails without a report, in the spool and out of it."""
    told: list[Any] = []

    async def deliver(notice: Any) -> None:
        told.append(notice)

    for options in (ReportOptions(), ReportOptions(deliver=deliver, delay_after=0.0)):
        id = await put(path, TEXT, sender="<>")
        assert [one.id for one in (await look(path, Postman("451 later"), bounce=options)).deferred] == [id]
        async with DirectorySpool(path) as spool:
            await spool.requeue(id)
        assert [one.id for one in (await look(path, Postman("550 no"), bounce=options)).failed] == [id]
        assert jobs(path) == [f"{id}.failed"] and told == []
        async with DirectorySpool(path) as spool:
            await spool.remove(id)


async def test_a_report_may_go_through_the_client(path: Path) -> None:
    await put(path, mail(1))
    async with speaking() as server, client_of(server) as client:
        server.on("RCPT", reply(550, "5.1.1 nobody"), match="user1@")
        report = await look(path, client, bounce=ReportOptions(deliver=client.send, reporting="here.test"))
    assert len(report.failed) == 1 and len(jobs(path)) == 1
    (received,) = server.messages
    assert (received.mail_from, received.rcpt_tos) == ("", ["ann@example.com"])
    assert parse_report(received.data).recipients[0].address == "user1@example.org"


async def test_stopping_on_an_error_leaves_the_others_queued(path: Path) -> None:
    ids = [await put(path, mail(number), not_before=1000.0 + number) for number in range(3)]
    client = Postman("250 ok", "550 5.1.1 never")
    report = await look(path, client, stop_on_error=True, concurrency=1)
    assert (report.sent, [one.id for one in report.failed]) == ((ids[0],), [ids[1]])
    assert jobs(path) == sorted([f"{ids[1]}.failed", f"{ids[2]}.queued"])


async def test_one_attempt_fails_whatever_went_wrong(path: Path) -> None:
    once = RetryPolicy(attempts=1)
    for answer in ("451 later", "550 never", Outcome.UNKNOWN, dead()):
        id = await put(path, mail(1))
        assert [one.id for one in (await look(path, Postman(answer), retry=once)).failed] == [id]
        assert (await entry_of(path, id)).state is State.FAILED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_what_is_under_way_be_noted(path: Path, number: signal.Signals) -> None:
    ids = [await put(path, mail(count), not_before=1000.0 + count) for count in range(3)]
    client: Any = Postman()
    client.replies.clear()
    async with DirectorySpool(path) as spool:
        queue = QueueProcessor(spool, client, concurrency=1)
        failed: list[JobFailed] = []
        queue.on(JobFailed, failed.append)
        running = asyncio.ensure_future(queue.run(signals=True))
        await until(lambda: client.left)
        os.kill(os.getpid(), number)
        await until(lambda: queue._crew.stopping)
        client.replies.set()
        await running
    assert jobs(path) == sorted(f"{id}.queued" for id in ids[1:]) and failed == []
    assert [one.attempts for one in [await entry_of(path, id) for id in ids[1:]]] == [0, 0]


async def test_a_message_for_a_server_that_offers_nothing(path: Path) -> None:
    """Rendered when it was put: 7 bits, whatever the server would take."""
    await put(path, Message(sender="ann@example.com", to="bob@example.org", subject="Grüße", text="Grüße"))
    async with speaking() as server, client_of(server) as client:
        await look(path, client)
    assert server.messages[0].data.isascii()
    assert b"BODY=8BITMIME" not in next(line.line for line in server.commands if line.verb == "MAIL")


# --- what is no job --------------------------------------------------------------------------------------------


async def test_what_is_put_aside_or_left_alone_is_told_and_makes_the_report_false(path: Path) -> None:
    newer = await put(path, mail(1))
    file = path / f"{newer}.queued"
    file.write_bytes(file.read_bytes().replace(b"SPOOL1", b"SPOOL2", 1))
    (path / "x.queued").write_bytes(b"nothing")
    sent = await put(path, mail(2))
    told: list[JobUnreadable] = []
    async with speaking() as server, client_of(server) as client, DirectorySpool(path) as spool:
        queue = QueueProcessor(spool, client, clock=lambda: time.time() + 1)
        queue.on(JobUnreadable, told.append)
        report = await queue.run_once()
        assert report.sent == (sent,) and not report and report.error is None
        assert {one.id: one.not_before for one in report.unreadable} == {newer: None, "x": None}
        assert {(event.id, event.kept) for event in told} == {(newer, True), ("x", False)}
        # What is still there is told by every run, what was put aside by one.
        report = await queue.run_once()
        assert [one.id for one in report.unreadable] == [newer] and not report
    assert file.exists()


async def test_a_damaged_message_fails_and_its_sender_is_told(path: Path) -> None:
    id = await put(path, mail(1))
    file = path / f"{id}.queued"
    data = bytearray(file.read_bytes())
    data[-4] ^= 1
    file.write_bytes(data)
    told: list[JobFailed] = []
    async with speaking() as server, client_of(server) as client, DirectorySpool(path) as spool:
        bounce = ReportOptions(reporting="here.test")
        queue = QueueProcessor(spool, client, bounce=bounce, clock=lambda: time.time() + 1)
        queue.on(JobFailed, told.append)
        report = await queue.run_once()
        assert [one.id for one in report.failed] == [id] and "damaged" in report.failed[0].reason
        assert [event.id for event in told] == [id]
        await queue.run_once()
        assert [message.mail_from for message in server.messages] == [""]
        assert parse_report(server.messages[0].data).recipients[0].failed
