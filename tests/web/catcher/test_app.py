"""app.py: the JSON interface of the catcher, with hostile mail in it."""

import re
from typing import Any

import pytest

from smtp_async.web.catcher.app import catcher_app
from smtp_async.web.catcher.faults import Faults
from smtp_async.web.catcher.mailbox import Mailbox
from smtp_async.web.catcher.server import CatchingServer, DialogueLine
from smtp_async.web.guard import Guard
from smtp_async.web.live import Changes
from tests.web.catcher.lab import HTML, PIXEL, letter, received
from tests.web.lab import ROOT, asking, requests_of

ABOUT = {"smtp": "127.0.0.1:1025", "tls": "none", "login": "none", "kept": False, "most": 100}
HOSTILE = "<script>alert(1)</script>\x1b[2J"


class Lab:
    def __init__(self, *, relay=None):
        self.changes = Changes()
        self.mailbox = Mailbox(most=1000, changed=self.changes.announce)
        self.faults = Faults(CatchingServer(self.mailbox.deliver))
        self.app = Guard(
            catcher_app(self.mailbox, self.faults, self.changes, about=ABOUT, relay=relay),
            names=["mail.test"],
        )

    def deliver(self, message, *recipients):
        self.mailbox.deliver(received(message, *recipients), [DialogueLine("client", "EHLO x", 0.5)])
        message = self.mailbox.get("latest")
        assert message is not None
        return message.id

    async def ask(self, path, method="GET", **options):
        async with asking(self.app) as client:
            return await client.request(method, path, **options)


@pytest.fixture
def lab():
    return Lab()


async def test_a_list_in_slices(lab):
    for number in range(7):
        lab.deliver(letter(f"letter {number}"))
    told = (await lab.ask("/api/messages?offset=2&limit=3")).json()
    assert (told["total"], told["found"]) == (7, 7)
    assert [one["subject"] for one in told["messages"]] == ["letter 4", "letter 3", "letter 2"]
    told = (await lab.ask("/api/messages", params={"q": "subject:letter 5"})).json()
    assert (told["total"], told["found"]) == (7, 1)
    answer = await lab.ask("/api/messages", params={"q": '"'})
    assert answer.status_code == 400 and "not closed" in answer.json()["error"]


async def test_all_about_one_message(lab):
    message = letter("Grüße", html=HTML)
    message["Cc"] = "carol@example.org"
    message.add_attachment("a,b\n", subtype="csv", filename="Köstlich.csv")
    id = lab.deliver(message, "bob@example.org", "carol@example.org", "hidden@example.org")
    told = (await lab.ask(f"/api/messages/{id}")).json()
    assert told == (await lab.ask("/api/messages/latest")).json()
    assert told["cc"] == "carol@example.org" and ["Subject", "Grüße"] in told["headers"]
    assert told["text"] == "Hi Bob\n" and told["has_html"] and told["refers_outside"]
    assert [(one["filename"], one["inline"]) for one in told["files"]] == [
        ("logo.png", True),
        ("Köstlich.csv", False),
    ]
    assert [one["address"] for one in told["envelope"]["recipients"]][-1] == "hidden@example.org"
    assert told["envelope"]["sender"] == "ann@example.com" and told["envelope"]["user"] is None
    assert told["dialogue"] == [{"who": "client", "text": "EHLO x", "at": 0.5}]


async def test_the_source_and_the_files(lab):
    message = letter(html=HTML)
    id = lab.deliver(message)
    raw = await lab.ask(f"/api/messages/{id}/raw")
    assert raw.content == lab.mailbox.get(id).received.data
    assert raw.headers["content-type"].startswith("text/plain") and "nosniff" in raw.headers.values()
    saved = await lab.ask(f"/api/messages/{id}/raw?download")
    assert saved.headers["content-disposition"].endswith(f"{id}.eml")
    file = await lab.ask(f"/api/messages/{id}/files/0")
    assert file.content == PIXEL and file.headers["content-disposition"].startswith("attachment;")
    assert "sandbox" in file.headers["content-security-policy"]


async def test_a_file_that_claims_to_be_a_page_is_none(lab):
    name = "filename*=utf-8''a%22%0D%0AX-Evil%3A%201%0D%0A.html"
    head = f"Content-Type: text/html\r\nContent-Disposition: attachment; {name}\r\n\r\n"
    answer = await lab.ask(
        f"/api/messages/{lab.deliver(head.encode() + b'<script>alert(1)</script>')}/files/0"
    )
    assert answer.headers["content-type"] == "application/octet-stream" and "x-evil" not in answer.headers


async def test_the_html_is_for_a_frame_only(lab):
    id = lab.deliver(letter(html=HTML))
    answer = await lab.ask(f"/api/messages/{id}/html", headers={"sec-fetch-dest": "iframe"})
    policy = answer.headers["content-security-policy"]
    assert "sandbox" in policy and "default-src 'none'" in policy and "http:" not in policy
    assert "data:image/png;base64," in answer.text and "http-equiv" not in answer.text
    assert "<base" not in answer.text and "javascript:" not in answer.text
    external = await lab.ask(f"/api/messages/{id}/html?external=1")
    assert "img-src data: http: https:" in external.headers["content-security-policy"]
    alone = await lab.ask(f"/api/messages/{id}/html", headers={"sec-fetch-dest": "document"})
    assert alone.status_code == 403
    assert (await lab.ask(f"/api/messages/{lab.deliver(letter())}/html")).status_code == 404


async def test_hostile_texts_are_json_without_control_characters(lab):
    message = letter(HOSTILE.replace("\x1b", ""), sender=f'"{HOSTILE[:20]}" <a@example.com>', text=HOSTILE)
    id = lab.deliver(message, f"{HOSTILE}@example.org")
    for path in ("/api/messages", f"/api/messages/{id}"):
        answer = await lab.ask(path)
        assert answer.headers["content-type"] == "application/json" and "\x1b" not in answer.text


@pytest.mark.parametrize(
    "path",
    ["/api/messages/none", "/api/messages/none/raw", "/api/messages/latest", "/api/messages/%2e%2e/raw"],
)
async def test_what_is_not_there(lab, path):
    answer = await lab.ask(path)
    assert answer.status_code == 404 and answer.json()["error"]


async def test_files_that_are_not_there(lab):
    id = lab.deliver(letter())
    assert (await lab.ask(f"/api/messages/{id}/files/0")).status_code == 404
    assert (await lab.ask(f"/api/messages/{id}/files/-1")).status_code == 404


async def test_messages_are_deleted(lab):
    first, second, third = (lab.deliver(letter(f"letter {number}")) for number in range(3))
    before = lab.changes.version
    assert (await lab.ask(f"/api/messages/{second}", "DELETE")).json() == {"removed": 1}
    assert (await lab.ask("/api/messages?q=letter+2", "DELETE")).json() == {"removed": 1}
    assert lab.mailbox.get(third) is None and lab.mailbox.get(first) is not None
    assert (await lab.ask("/api/messages", "DELETE")).json() == {"removed": 1}
    assert lab.changes.version == before + 3 and len(lab.mailbox) == 0


async def test_faults_by_the_interface(lab):
    fault = {"kind": "refuse", "stage": "recipient", "match": "bob", "times": 2}
    made = await lab.ask("/api/faults", "POST", json=fault)
    assert made.status_code == 201 and lab.changes.version == 1
    [told] = (await lab.ask("/api/faults")).json()["faults"]
    assert told == fault | {"id": made.json()["id"], "happened": 0, "code": 550, "text": "5.1.1 No such user"}
    assert (await lab.ask("/api/status")).json()["faults"] == [told]
    assert (await lab.ask(f"/api/faults/{told['id']}", "DELETE")).json() == {"faults": []}
    assert (await lab.ask(f"/api/faults/{told['id']}", "DELETE")).status_code == 404
    await lab.ask("/api/faults", "POST", json={"kind": "drop", "stage": "connect"})
    assert (await lab.ask("/api/faults", "DELETE")).json() == {"faults": []}


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"kind": "x", "stage": "y"}', b"\xff"])
async def test_what_is_no_fault_is_refused(lab, body):
    answer = await lab.ask("/api/faults", "POST", content=body)
    assert answer.status_code == 400 and answer.json()["error"]


async def test_the_status_says_what_there_is(lab):
    told = (await lab.ask("/api/status")).json()
    assert told["smtp"] == "127.0.0.1:1025" and told["total"] == 0 and told["relay"] is False
    assert told["stages"]["recipient"]["defer"] == [450, "4.2.1 Mailbox busy, try again later"]


async def test_without_a_relay_nothing_leaves(lab):
    answer = await lab.ask(f"/api/messages/{lab.deliver(letter())}/relay", "POST", json={})
    assert answer.status_code == 403 and "--relay" in answer.json()["error"]


async def test_messages_are_relayed():
    calls = []

    async def relay(message, people):
        calls.append((message.id, people))
        return [{"address": "x", "outcome": "accepted", "reply": ""}]

    lab = Lab(relay=relay)
    id = lab.deliver(letter())
    assert (await lab.ask(f"/api/messages/{id}/relay", "POST", json={"to": ["a@b.c"]})).json()["recipients"]
    await lab.ask(f"/api/messages/{id}/relay", "POST")
    assert calls == [(id, ["a@b.c"]), (id, [])]
    wrongs: list[Any] = [{"to": "a@b.c"}, {"to": [1]}, []]
    for wrong in wrongs:
        assert (await lab.ask(f"/api/messages/{id}/relay", "POST", json=wrong)).status_code == 400


async def test_another_site_deletes_nothing(lab):
    lab.deliver(letter())
    for headers in (
        {"origin": "http://evil.example"},
        {"host": "evil.example"},
        {"sec-fetch-site": "cross-site"},
    ):
        assert (await lab.ask("/api/messages", "DELETE", headers=headers)).status_code in (403, 421)
    assert len(lab.mailbox) == 1


def test_the_manual_has_every_request():
    lab = Lab()
    text = (ROOT / "docs" / "how-to" / "catch.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([A-Z]+) (/api/[^`?]*)", text, re.MULTILINE))
    app = catcher_app(lab.mailbox, lab.faults, lab.changes, about=ABOUT)
    assert documented == requests_of(app)
