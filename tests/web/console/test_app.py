"""app.py: the JSON interface of the console, and what it does not allow."""

import re

import httpx
import pytest

from smtp_async import DirectorySpool, Message, QueueProcessor, SMTPClient
from smtp_async.errors import SpoolError
from smtp_async.testing import MemorySpool, ScriptedServer, reply
from smtp_async.web.console.app import console_app, serving_console
from smtp_async.web.guard import Guard
from smtp_async.web.live import Changes
from smtp_async.web.serving import Address
from tests.web.lab import ROOT, asking, requests_of

HOSTILE = '"<script>alert(1)</script>"@example.org'


def letter(to="bob@example.org"):
    return Message(sender="ann@example.com", to=to, subject="x", text="top-secret content")


class Lab:
    def __init__(self, spool=None, **options):
        self.spool = spool or MemorySpool()
        self.changes = Changes()
        self.app = Guard(console_app(self.spool, self.changes, name="<b>mail</b>", **options))

    async def ask(self, path, method="GET", **options):
        async with asking(self.app) as client:
            return await client.request(method, path, **options)

    async def change(self, action, *ids):
        return await self.ask("/api/changes", "POST", json={"action": action, "ids": [*ids]})


async def test_a_list_in_slices():
    lab = Lab()
    ids = [await lab.spool.put(letter(f"u{number}@example.org")) for number in range(5)]
    told = (await lab.ask("/api/jobs?offset=1&limit=2&order=oldest")).json()
    assert told["found"] == 5 and told["complete"] and [one["id"] for one in told["jobs"]] == ids[1:3]
    assert (await lab.ask("/api/jobs?q=u4&state=queued")).json()["jobs"][0]["id"] == ids[4]
    assert (await lab.ask("/api/jobs?limit=many")).status_code == 400


async def test_the_status():
    lab = Lab()
    await lab.spool.put(letter())
    told = (await lab.ask("/api/status")).json()
    assert told["counts"]["queued"] == 1 and told["recent"] == [] and told["changes_allowed"] is False
    assert "<b>mail" not in (await lab.ask("/")).text


async def test_one_job_with_its_history():
    async with ScriptedServer() as server, SMTPClient.from_url(server.url) as client:
        server.on("RCPT", reply(550, "5.1.1 <img src=x> no"), match="script")
        spool = MemorySpool()
        processor = QueueProcessor(spool, client)
        lab = Lab(spool, processor=processor)
        bad, good = await spool.put(letter(HOSTILE)), await spool.put(letter())
        await processor.run_once()
        answer = await lab.ask(f"/api/jobs/{bad}")
        told = answer.json()
        assert answer.headers["content-type"] == "application/json" and "nosniff" in answer.headers.values()
        assert told["state"] == "failed" and [one["what"] for one in told["history"]] == ["started", "failed"]
        gone = (await lab.ask(f"/api/jobs/{good}")).json()
        assert gone["state"] == "gone" and gone["history"][-1]["what"] == "sent"
        news = (await lab.ask("/api/status")).json()
        assert {one["what"] for one in news["recent"]} == {"sent", "failed"} and news["processor"][
            "sent"
        ] == 1
        assert lab.changes.version == 4


@pytest.mark.parametrize("id", ["none", "%2e%2e", "a%00b", "x" * 300])
async def test_a_job_that_is_not_there(id, tmp_path):
    async with DirectorySpool(tmp_path / "spool", create=True, durable=False) as spool:
        answer = await Lab(spool).ask(f"/api/jobs/{id}")
        assert answer.status_code == 404 and answer.json()["error"]


async def test_without_leave_nothing_is_changed():
    lab = Lab()
    id = await lab.spool.put(letter())
    answer = await lab.change("remove", id)
    assert answer.status_code == 403 and "--allow-changes" in answer.json()["error"]
    assert await lab.spool.get(id)


async def test_changes():
    lab = Lab(allow_changes=True)
    one, two = [await lab.spool.put(letter()) for _ in range(2)]
    assert (await lab.ask("/api/jobs")).json()["found"] == 2
    assert (await lab.change("hold", one, two)).json() == {"done": [one, two], "errors": {}}
    assert (await lab.ask("/api/jobs?state=held")).json()["found"] == 2
    assert (await lab.change("release", one)).json()["done"] == [one]
    assert (await lab.change("remove", one)).json()["done"] == [one]
    told = (await lab.change("requeue", one, two)).json()
    assert told["done"] == [two] and [*told["errors"]] == [one] and told["errors"][one]
    assert lab.changes.version == 4


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"action": "explode", "ids": []}',
        b'{"action": "hold"}',
        b'{"action": "hold", "ids": [1]}',
    ],
)
async def test_what_is_no_change_is_refused(body):
    answer = await Lab(allow_changes=True).ask("/api/changes", "POST", content=body)
    assert answer.status_code == 400 and answer.json()["error"]


async def test_another_site_changes_nothing():
    lab = Lab(allow_changes=True)
    id = await lab.spool.put(letter())
    body = {"action": "remove", "ids": [id]}
    for headers in (
        {"origin": "http://evil.example"},
        {"host": "evil.example"},
        {"sec-fetch-site": "cross-site"},
    ):
        answer = await lab.ask("/api/changes", "POST", json=body, headers=headers)
        assert answer.status_code in (403, 421)
    assert await lab.spool.get(id)


async def test_no_answer_has_the_content_of_a_message():
    lab = Lab(allow_changes=True)
    id = await lab.spool.put(letter())
    for path in ("/", "/api/status", "/api/jobs", f"/api/jobs/{id}"):
        assert "top-secret" not in (await lab.ask(path)).text


async def test_a_spool_that_cannot_be_read_is_a_sentence():
    class Broken(MemorySpool):
        def list(self, state=None):
            raise SpoolError("the disk is gone")

    answer = await Lab(Broken()).ask("/api/jobs")
    assert answer.status_code == 409 and answer.json() == {"error": "the disk is gone"}


async def test_the_console_is_served():
    spool = MemorySpool()
    await spool.put(letter())
    async with serving_console(spool, Address(port=0), name="mail") as url, httpx.AsyncClient() as browser:
        assert (await browser.get(f"{url}api/jobs")).json()["found"] == 1
        async with browser.stream("GET", f"{url}api/events") as answer:
            assert '"queued": 1' in await anext(answer.aiter_lines())


def test_the_manual_has_every_request():
    text = (ROOT / "docs" / "how-to" / "console.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([A-Z]+) (/api/[^`?]*)", text, re.MULTILINE))
    assert documented == requests_of(console_app(MemorySpool(), Changes(), name="mail"))
