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
from smtp_async.processor import ReportOptions, RetryPolicy, parse_report
from smtp_async.spool import serialize
from smtp_async.spool.directory.spool import DirectorySpool
from smtp_async.spool.entry import State
from smtp_async.testing import ScriptedServer, close, reply, swallow
from smtp_async.testing.contracts import TEXT
from tests.lab import client_of, every_loop, mail, speaking, until
from tests.processor.fakes import FakeClient, ManualClock, dead, processor
from tests.spool.directory.parts import die

pytestmark = pytest.mark.usefixtures("no_leaks")

#: Waits of an hour each.
HOURLY = RetryPolicy(first=3600.0, factor=1.0, jitter=False)
CANARY = "correct-horse-battery"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    return path


async def run_once(path: Path, client: Any, **options: Any) -> Any:
    """Run a new processor on a newly opened spool once."""
    options.setdefault("retry", HOURLY)
    clock = options.pop("clock", time.time)
    async with DirectorySpool(path) as spool:
        return await processor(spool, client, clock=clock, **options).run_once()


async def put(path: Path, message: Any, **options: Any) -> str:
    async with DirectorySpool(path) as spool:
        return await spool.put(message, **options)


async def entry_of(path: Path, id: str) -> Any:
    async with DirectorySpool(path) as spool:
        return await spool.get(id)


def jobs(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir() if file.is_file())


def everything(path: Path) -> bytes:
    """Return all file names and contents of a spool."""
    return b"\n".join(
        file.name.encode() + b"\n" + (file.read_bytes() if file.is_file() else b"")
        for file in path.rglob("*")
    )


# --- bytes from put to the wire ------------------------------------------------------------------------------


@every_loop
async def test_the_text_of_serialize_is_delivered(path: Path) -> None:
    message = mail(1, text="Grüße\n" * 20_000, bcc="eve@example.net")
    text = await serialize(message, key="order 7")
    id = text.split('"id":"', 1)[1].split('"', 1)[0]
    (path / f"{id}.queued").write_text(text, "utf-8", "surrogateescape", newline="")
    # The same key is the same job, in whatever way the file was made.
    assert await put(path, TEXT, key="order 7") == id
    async with speaking() as server, client_of(server) as client:
        report = await run_once(path, client)
    assert report.sent == (id,) and jobs(path) == []
    (received,) = server.messages
    assert received.data == text.split("\n", 2)[2].encode("utf-8", "surrogateescape")
    assert received.rcpt_tos == ["user1@example.org", "eve@example.net"]


async def test_bcc_is_on_the_wire_in_the_envelope_only(path: Path) -> None:
    await put(path, mail(1, bcc="eve@example.net"))
    await put(path, b"Bcc: mallory@example.net\r\n" + TEXT)
    async with speaking() as server, client_of(server) as client:
        assert len((await run_once(path, client)).sent) == 2
    assert sorted(one for received in server.messages for one in received.rcpt_tos) == [
        *("bob@example.org", "eve@example.net", "mallory@example.net", "user1@example.org")
    ]
    for received in server.messages:
        assert b"\r\nbcc:" not in received.data.lower()
        assert b"eve" not in received.data and b"mallory" not in received.data


async def test_bcc_of_a_complete_message_is_not_stored(path: Path) -> None:
    id = await put(path, b"Bcc: mallory@example.net\r\n" + TEXT)
    body = (path / f"{id}.queued").read_bytes().split(b"\n", 2)[2]
    assert body == TEXT


@pytest.mark.parametrize("attempts", [None, 1])
@pytest.mark.parametrize("point", ["AUTH", "MAIL", "RCPT", "."])
async def test_no_file_holds_a_credential(path: Path, point: str, attempts: int | None) -> None:
    """Even if the server repeats the credentials in its reply to AUTH, and even if that reply fails the message."""
    blob = base64.b64encode(f"\0ann\0{CANARY}".encode()).decode()
    said = f"5.7.8 not with {CANARY}, {blob}" if point == "AUTH" else "4.3.0 later"
    login = Credentials(username="ann", password=CANARY, mechanisms=("PLAIN",), allow_cleartext=True)
    await put(path, mail(1), key="k")
    async with ScriptedServer(users={"ann": CANARY}, require_auth=True) as server:
        server.on(point, reply(535 if point == "AUTH" else 451, said))
        async with client_of(server, credentials=login) as client:
            report = await run_once(
                path, client, retry=RetryPolicy(attempts=attempts), bounce=ReportOptions()
            )
        verbs = [line.verb for line in server.commands]
    assert "AUTH" in verbs and (point == "AUTH" or "MAIL" in verbs)
    assert not report and not report.sent and len(report.failed) == (attempts or 0)
    found = everything(path)
    assert CANARY.encode() not in found and blob.encode() not in found


# --- restarts ------------------------------------------------------------------------------------------------


async def test_the_next_processor_tries_only_pending_recipients(path: Path) -> None:
    clock = ManualClock()
    id = await put(path, mail(1, to="a@x.test, b@x.test, c@x.test, d@x.test"))
    async with speaking() as server, client_of(server) as client:
        server.on("RCPT", reply(451, "4.2.2 full"), match="b@", nth=range(1, 3))
        server.on("RCPT", reply(550, "5.1.1 no such user"), match="c@")
        first = await run_once(path, client, clock=clock)
        assert [one.id for one in first.deferred] == [id]
        assert (await run_once(path, client, clock=clock)).tried == 0
        clock.move(3600)
        second = await run_once(path, client, clock=clock)
        assert [one.id for one in second.deferred] == [id]
        clock.move(3600)
        third = await run_once(path, client, clock=clock)
    assert [received.rcpt_tos for received in server.messages] == [["a@x.test", "d@x.test"], ["b@x.test"]]
    tried = [line.line for line in server.commands if line.verb == "RCPT"]
    assert sum(b"c@x.test" in one for one in tried) == 1
    # One recipient never got the message, so an operator has to see the job.
    assert [one.id for one in third.failed] == [id]
    entry = await entry_of(path, id)
    assert [str(who.address) for who, _ in entry.failed] == ["c@x.test"] and entry.pending == ()


async def test_a_requeued_job_is_not_sent_to_delivered_recipients(path: Path) -> None:
    id = await put(path, mail(1, to="a@x.test, c@x.test"))
    async with speaking() as server, client_of(server) as client:
        server.on("RCPT", reply(550, "5.1.1 no such user"), match="c@", nth=1)
        await run_once(path, client)
        async with DirectorySpool(path) as spool:
            await spool.requeue(id)
        assert (await run_once(path, client)).sent == (id,)
    assert [received.rcpt_tos for received in server.messages] == [["a@x.test"], ["c@x.test"]]


async def test_an_expiry_survives_restarts(path: Path) -> None:
    clock = ManualClock()
    id = await put(path, mail(1), expires=clock() + 1800)
    client = FakeClient("451 4.3.0 later")
    assert [one.not_before for one in (await run_once(path, client, clock=clock)).deferred] == [
        clock() + 1800
    ]
    clock.move(1800)
    report = await run_once(path, client, clock=clock)
    assert [one.id for one in report.failed] == [id] and "in time" in report.failed[0].reason
    assert (await entry_of(path, id)).state is State.FAILED


async def test_a_job_that_expired_between_two_runs_is_tried_once(path: Path) -> None:
    id = await put(path, mail(1), expires=time.time() + 60)
    clock = ManualClock()
    clock.move(86400)
    client = FakeClient()
    assert (await run_once(path, client, clock=clock)).sent == (id,)


async def test_a_key_is_known_while_its_job_is_being_sent_and_later(path: Path) -> None:
    id = await put(path, mail(1), key="k")
    seen: dict[str, str] = {}

    async def while_sending(_: Any) -> str:
        seen["sending"] = await put(path, mail(2), key="k")
        assert jobs(path) == [f"{id}.sending"]
        return "550 5.1.1 never"

    await run_once(path, FakeClient(while_sending))
    seen["failed"] = await put(path, mail(2), key="k")
    assert jobs(path) == [f"{id}.failed"]
    async with DirectorySpool(path) as spool:
        await spool.requeue(id)
    await run_once(path, FakeClient(), keep_sent=True)
    seen["sent"] = await put(path, mail(2), key="k")
    assert jobs(path) == [f"{id}.sent"]
    assert seen == dict.fromkeys(("sending", "failed", "sent"), id)
    async with DirectorySpool(path) as spool:
        await spool.remove(id)
    assert await put(path, mail(2), key="k") == id
    assert jobs(path) == []


# --- dead workers --------------------------------------------------------------------------------------------

#: Claims a job, marks it if told to, prints a line, and waits to be killed.
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


def claim_and_kill(path: Path, how: str) -> None:
    """Have a worker in another process claim a job, and kill it."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), how], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    with worker.stdout:
        assert worker.stdout.readline() == "ready\n"
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)


@pytest.mark.parametrize(("how", "sent"), [("marked", 0), ("unmarked", 1)])
async def test_hold_keeps_a_job_that_a_killed_worker_may_have_sent(path: Path, how: str, sent: int) -> None:
    id = await put(path, mail(1))
    await asyncio.to_thread(claim_and_kill, path, how)
    assert jobs(path) == [f"{id}.{'marked' if how == 'marked' else 'sending'}"]
    client = FakeClient()
    report = await run_once(path, client, on_unknown="hold")
    assert (len(client.tried), len(report.sent)) == (sent, sent)
    if not sent:
        assert (await entry_of(path, id)).reason == "unknown"
        assert jobs(path) == [f"{id}.failed"]


async def test_a_job_fails_with_its_third_killed_worker(path: Path) -> None:
    id = await put(path, mail(1))
    other = await put(path, mail(2), not_before=time.time() + 1000)
    for _ in range(3):
        await asyncio.to_thread(claim_and_kill, path, "unmarked")
        async with DirectorySpool(path) as spool:
            await spool.recover()
    assert jobs(path) == sorted([f"{id}.failed", f"{other}.queued"])
    entry = await entry_of(path, id)
    assert (entry.reason, entry.recoveries) == ("poison", 3)


async def test_a_lease_is_lost_when_another_process_took_the_job_back(path: Path) -> None:
    """The lock of a living worker cannot be taken; but if its file changes hands, the old lease cannot end the job."""
    await put(path, mail(1))
    async with DirectorySpool(path) as one, DirectorySpool(path) as other:
        (lease,) = await one.claim()
        assert not any(await other.recover())
        assert await other.claim() == []
        # Releases the lock as the kernel does when a process dies; here the task goes on.
        die(lease)
        assert len((await other.recover()).requeued) == 1
        (again,) = await other.claim()
        assert again.token > lease.token
        client = FakeClient()
        with pytest.raises(NotSent):
            await client.send(again.mail(), options=_behind(lease), deadline=1.0)
        await again.settle(None)
    assert client.left == [] and jobs(path) == []


def _behind(lease: Any) -> Any:
    return type("Options", (), {"before_end_of_data": staticmethod(lease.mark_end_of_data)})


# --- the wire ------------------------------------------------------------------------------------------------


async def test_a_connection_lost_after_the_end_of_data_is_unknown_and_sent_again(path: Path) -> None:
    clock = ManualClock()
    id = await put(path, mail(1))
    async with speaking() as server, client_of(server) as client:
        server.on(".", swallow(), close(), nth=1)
        first = await run_once(path, client, clock=clock)
        assert [one.id for one in first.deferred] == [id]
        entry = await entry_of(path, id)
        assert entry.results[0].outcome is Outcome.UNKNOWN and entry.flagged
        clock.move(3600)
        assert (await run_once(path, client, clock=clock)).sent == (id,)
    bodies = {received.data for received in server.messages}
    assert len(bodies) == 1, "every attempt sends the same message"


async def test_a_message_without_a_return_path_is_not_reported(path: Path) -> None:
    """Neither through the spool nor through `deliver`."""
    told: list[Any] = []

    async def deliver(notice: Any) -> None:
        told.append(notice)

    for options in (ReportOptions(), ReportOptions(deliver=deliver, delay_after=0.0)):
        id = await put(path, TEXT, sender="<>")
        assert [
            one.id for one in (await run_once(path, FakeClient("451 later"), bounce=options)).deferred
        ] == [id]
        async with DirectorySpool(path) as spool:
            await spool.requeue(id)
        assert [one.id for one in (await run_once(path, FakeClient("550 no"), bounce=options)).failed] == [id]
        assert jobs(path) == [f"{id}.failed"] and told == []
        async with DirectorySpool(path) as spool:
            await spool.remove(id)


async def test_a_report_may_be_delivered_by_the_client(path: Path) -> None:
    await put(path, mail(1))
    async with speaking() as server, client_of(server) as client:
        server.on("RCPT", reply(550, "5.1.1 no such user"), match="user1@")
        report = await run_once(
            path, client, bounce=ReportOptions(deliver=client.send, reporting="here.test")
        )
    assert len(report.failed) == 1 and len(jobs(path)) == 1
    (received,) = server.messages
    assert (received.mail_from, received.rcpt_tos) == ("", ["ann@example.com"])
    assert parse_report(received.data).recipients[0].address == "user1@example.org"


async def test_stop_on_error_leaves_the_other_jobs_queued(path: Path) -> None:
    ids = [await put(path, mail(number), not_before=1000.0 + number) for number in range(3)]
    client = FakeClient("250 ok", "550 5.1.1 never")
    report = await run_once(path, client, stop_on_error=True, concurrency=1)
    assert (report.sent, [one.id for one in report.failed]) == ((ids[0],), [ids[1]])
    assert jobs(path) == sorted([f"{ids[1]}.failed", f"{ids[2]}.queued"])


async def test_with_one_attempt_every_error_fails_the_job(path: Path) -> None:
    once = RetryPolicy(attempts=1)
    for answer in ("451 later", "550 never", Outcome.UNKNOWN, dead()):
        id = await put(path, mail(1))
        assert [one.id for one in (await run_once(path, FakeClient(answer), retry=once)).failed] == [id]
        assert (await entry_of(path, id)).state is State.FAILED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_message_being_sent_may_end_after_a_signal(path: Path, number: signal.Signals) -> None:
    ids = [await put(path, mail(count), not_before=1000.0 + count) for count in range(3)]
    client: Any = FakeClient()
    client.replies.clear()
    async with DirectorySpool(path) as spool:
        queue = processor(spool, client, concurrency=1)
        failed: list[JobFailed] = []
        queue.on(JobFailed, failed.append)
        running = asyncio.ensure_future(queue.run(signals=True))
        await until(lambda: client.left)
        os.kill(os.getpid(), number)
        await until(lambda: queue.stops)
        client.replies.set()
        await running
    assert jobs(path) == sorted(f"{id}.queued" for id in ids[1:]) and failed == []
    assert [one.attempts for one in [await entry_of(path, id) for id in ids[1:]]] == [0, 0]


async def test_a_queued_message_is_seven_bit_whatever_the_server_offers(path: Path) -> None:
    """Because the message is rendered when it is put, before any server is known."""
    await put(path, Message(sender="ann@example.com", to="bob@example.org", subject="Grüße", text="Grüße"))
    async with speaking() as server, client_of(server) as client:
        await run_once(path, client)
    assert server.messages[0].data.isascii()
    assert b"BODY=8BITMIME" not in next(line.line for line in server.commands if line.verb == "MAIL")


# --- unreadable files ----------------------------------------------------------------------------------------


async def test_unreadable_files_are_published_and_make_the_report_false(path: Path) -> None:
    newer = await put(path, mail(1))
    file = path / f"{newer}.queued"
    file.write_bytes(file.read_bytes().replace(b"SPOOL1", b"SPOOL2", 1))
    (path / "x.queued").write_bytes(b"nothing")
    sent = await put(path, mail(2))
    told: list[JobUnreadable] = []
    async with speaking() as server, client_of(server) as client, DirectorySpool(path) as spool:
        queue = processor(spool, client, clock=lambda: time.time() + 1)
        queue.on(JobUnreadable, told.append)
        report = await queue.run_once()
        assert report.sent == (sent,) and not report and report.error is None
        assert {one.id: one.not_before for one in report.unreadable} == {newer: None, "x": None}
        assert {(event.id, event.kept) for event in told} == {(newer, True), ("x", False)}
        # A file that is still there is published by every run, a file put aside by one.
        report = await queue.run_once()
        assert [one.id for one in report.unreadable] == [newer] and not report
    assert file.exists()


async def test_a_damaged_message_fails_and_is_reported_to_its_sender(path: Path) -> None:
    id = await put(path, mail(1))
    file = path / f"{id}.queued"
    data = bytearray(file.read_bytes())
    data[-4] ^= 1
    file.write_bytes(data)
    told: list[JobFailed] = []
    async with speaking() as server, client_of(server) as client, DirectorySpool(path) as spool:
        bounce = ReportOptions(reporting="here.test")
        queue = processor(spool, client, bounce=bounce, clock=lambda: time.time() + 1)
        queue.on(JobFailed, told.append)
        report = await queue.run_once()
        assert [one.id for one in report.failed] == [id] and "damaged" in report.failed[0].reason
        assert [event.id for event in told] == [id]
        await queue.run_once()
        assert [message.mail_from for message in server.messages] == [""]
        assert parse_report(server.messages[0].data).recipients[0].failed
